// SPDX-License-Identifier: GPL-2.0

//! Messages: what is refused of them, and what the others say.

use super::{
    check,
    model::{
        check_upload,
        unpack,
        Refused,
        Window, //
    }, //
};
use crate::{
    chunks_of,
    rcu,
    tests::message_header,
    PageTable,
    Upload,
    CHUNK_ENTRIES, //
};
use kernel::error::code::EINVAL;
use proptest::prelude::*;

/// A number that is small, near a border, or any.
fn number() -> impl Strategy<Value = u32> {
    const BORDERS: &[u32] = &[0, 8192, 16384, 1 << 20, 1 << 31, u32::MAX];
    let near = (prop::sample::select(BORDERS), 0..5_u32);
    prop_oneof![
        2 => 0..100_u32,
        2 => near.prop_map(|(border, off)| border.wrapping_add(off).wrapping_sub(2)),
        1 => any::<u32>(),
    ]
}

/// A message that may be good: the fields of its window, its devices, bits, and bytes.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let bits = prop_oneof![8 => 1..=32_u8, 1 => any::<u8>()];
    let devices = prop_oneof![3 => 1..20_u16, 1 => any::<u16>()];
    let entries = prop::collection::vec(any::<u8>(), 0..64);
    let fields = (number(), number(), number(), devices, bits);
    // Most fit to one another, so that the checks come to their end.
    let fit = (0..8_u8, 0..8_u8, 0..8_u8, -6..6_isize);
    (fields, entries, fit).prop_map(|(fields, mut entries, fit)| {
        let (total, mut first, mut count, mut devices, bits) = fields;
        let (fits_word, fits_total, fits_bits, off) = fit;
        let per_word = 32 / u32::from(bits).clamp(1, 32);
        if fits_word > 0 {
            first = first / per_word * per_word;
        }
        if fits_total > 0 {
            let left = u64::from(total).saturating_sub(u64::from(first)) as u32;
            count = count.min(left).min(300);
        }
        if fits_bits > 0 && bits < 16 {
            devices = (devices % (1 << bits)).max(1);
        }
        let words = (count.min(300).div_ceil(per_word) * 4) as usize;
        entries.resize(
            words.saturating_add_signed(if off == 0 { -1 } else { off.max(0) }),
            0xa5,
        );
        let mut bytes = message_header([2, 3], (253, 7), [total, first, count], devices, bits);
        bytes.extend(entries);
        if off < -3 {
            bytes.truncate(bytes.len() * (-off as usize) / 8);
        }
        bytes
    })
}

#[test]
fn a_message_is_checked_in_order() {
    check(400_000, message(), |bytes| {
        match (Upload::check(&bytes), check_upload(&bytes)) {
            (Ok(upload), Ok(window)) => {
                let Window {
                    total,
                    first,
                    count,
                    members,
                    bits,
                } = window;
                let pages = u64::from(upload.pages.start)..u64::from(upload.pages.end);
                prop_assert_eq!(pages, first..first + count);
                prop_assert_eq!(u64::from(upload.total), total);
                prop_assert_eq!(u64::from(upload.dev_count), members);
                prop_assert_eq!(upload.geometry.pte_bits.get(), bits);
                prop_assert_eq!(upload.frees_chunk(), count == 0);
                prop_assert_eq!((upload.major, upload.minor), (253, 7));
                prop_assert_eq!(upload.userland, [2, 3]);
            }
            (Err(refusal), Err(Refused(_, text))) => {
                prop_assert_eq!(refusal.error(), EINVAL);
                prop_assert_eq!(refusal.to_string(), text);
            }
            (Ok(_), Err(Refused(_, text))) => prop_assert!(false, "accepted: {}", text),
            (Err(refusal), Ok(_)) => prop_assert!(false, "refused: {}", refusal),
        }
        Ok(())
    });
}

/// Each entry of a message gets to its page, and no other page gets one.
#[test]
fn a_message_is_its_entries() {
    let cases = (1..=32_u8, 0..3 * CHUNK_ENTRIES, 1..400_u32, any::<bool>());
    let bytes = prop::collection::vec(any::<u8>(), 1600);
    check(
        60_000,
        (cases, bytes),
        |((bits, first, count, is_cut), bytes)| {
            crate::abi::boot();
            let per_word = u32::from(32 / bits);
            let first = first / per_word * per_word;
            let total = first + count + 100;
            let mut message = message_header([0, 0], (253, 0), [total, first, count], 1, bits);
            message.extend(&bytes[..(count.div_ceil(per_word) * 4) as usize]);
            if is_cut {
                message.pop();
            }
            let Ok(upload) = Upload::check(&message) else {
                return Err(TestCaseError::fail("a good message is refused"));
            };
            let chunks = chunks_of(&upload.pages);
            let table = PageTable::new(upload.geometry, total).unwrap();
            let table: rcu::RcuBox<PageTable> = table.boxed_with_chunks(chunks).ok().unwrap();
            upload.write(&table);
            let end = first + count;
            for page in first.saturating_sub(3)..end + 3 {
                let found = table.find(page.into()).map(|found| found.entry);
                let expected = if (first..end).contains(&page) {
                    let index = u64::from(page - first);
                    Some(unpack(&message[40..], bits.into(), index) as u32)
                } else if page < first && page / CHUNK_ENTRIES == first / CHUNK_ENTRIES {
                    Some(0)
                } else {
                    // A message's last word may have more entries than the message says; a chunk has none of these.
                    None
                };
                prop_assert_eq!(found, expected, "page {}", page);
            }
            drop(table);
            crate::abi::shut_down();
            Ok(())
        },
    );
}
