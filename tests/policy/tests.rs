// SPDX-License-Identifier: GPL-2.0

//! Tests on the host, without a kernel: `make check TEST='policy interleavings'`.

#[cfg(feature = "loom")]
mod interleavings;
#[cfg(not(feature = "loom"))]
mod properties;

/// Returns the bytes of a message before its entries. The window is the table's total, the first page, and the number of
/// pages.
fn message_header(
    userland: [u32; 2],
    device: (u32, u32),
    window: [u32; 3],
    dev_count: u16,
    pte_bits: u8,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [44, 1].into_iter().chain(userland) {
        bytes.extend(field.to_ne_bytes());
    }
    for field in [device.0, device.1].into_iter().chain(window) {
        bytes.extend(field.to_ne_bytes());
    }
    bytes.extend(dev_count.to_ne_bytes());
    bytes.extend([pte_bits, 0]);
    bytes
}
