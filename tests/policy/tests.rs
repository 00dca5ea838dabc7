// SPDX-License-Identifier: GPL-2.0

//! Tests on the host, without a kernel: `make check TEST='policy interleavings'`.

#[cfg(feature = "loom")]
mod interleavings;
#[cfg(not(feature = "loom"))]
mod properties;
