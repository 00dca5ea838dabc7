// SPDX-License-Identifier: GPL-2.0

//! How entries are packed.

use super::check;
use crate::{
    Geometry,
    CHUNK_ENTRIES, //
};
use proptest::prelude::*;

#[test]
fn entries_have_1_to_32_bits() {
    for bits in (0..=100).chain([u32::MAX / 2, u32::MAX]) {
        assert_eq!(Geometry::new(bits).is_some(), (1..=32).contains(&bits));
    }
    let narrowest = Geometry::new(1).unwrap();
    assert!(narrowest == Geometry::NARROWEST);
}

#[test]
fn a_chunk_has_words_for_its_entries() {
    for bits in 1..=32 {
        let geometry = Geometry::new(bits).unwrap();
        let width = (0..).map(|log2| 1_u32 << log2).find(|width| *width >= bits);
        assert_eq!(Some(geometry.width()), width);
        assert_eq!(u64::from(geometry.mask), (1_u64 << bits) - 1);
        assert_eq!(geometry.entries_per_message_word().get(), 32 / bits);
        assert_eq!(
            geometry.has_message_layout(),
            32 % bits == 0 && width == Some(bits)
        );
        let words = CHUNK_ENTRIES as usize / (32 / geometry.width()) as usize;
        assert_eq!(geometry.chunk_words(), words);
    }
}

#[test]
fn a_message_has_words_for_its_entries() {
    let cases = (1..=32_u32, prop_oneof![0..1000_u32, any::<u32>()]);
    check(500_000, cases, |(bits, entries)| {
        let geometry = Geometry::new(bits).unwrap();
        let words = entries.div_ceil(32 / bits) as usize;
        prop_assert_eq!(geometry.message_words(entries), words);
        Ok(())
    });
}

/// A word of a chunk: runs and single entries in all places.
#[test]
fn a_word_is_its_entries() {
    let entries = prop::collection::vec((any::<u32>(), any::<bool>()), 32);
    let cases = (1..=32_u32, entries, 0..32_usize, any::<u32>());
    check(500_000, cases, |(bits, entries, at, more)| {
        let geometry = Geometry::new(bits).unwrap();
        let in_word = (32 / geometry.width()) as usize;
        let mut values: Vec<u32> = Vec::new();
        for (value, is_same) in &entries[..in_word] {
            let value = (u64::from(*value) % (1 << bits)) as u32;
            let last = values.last().copied();
            values.push(last.filter(|_| *is_same).unwrap_or(value));
        }
        let mut word = 0_u32;
        for (number, value) in values.iter().enumerate() {
            word |= value << (number as u32 * geometry.width());
        }
        let at = at % in_word;
        let shift = at as u32 * geometry.width();
        prop_assert_eq!(geometry.entry(word, shift), values[at]);
        // A word of which no entry is left has zeros.
        let rest = geometry.rest_of_word(at as u32 + more / 32 * in_word as u32);
        prop_assert_eq!(rest as usize, in_word - at);
        let is_same = |value: &&u32| **value == values[at];
        let run = values[at..].iter().take_while(is_same).count();
        let found = geometry.run_in_word(word >> shift, values[at]).min(rest);
        prop_assert_eq!(found as usize, run);
        // Another entry than the first one has no run.
        let other = (more as u64 % (1 << bits)) as u32;
        let run = values.iter().take_while(|value| **value == other).count();
        prop_assert_eq!(geometry.run_in_word(word, other) as usize, run);
        Ok(())
    });
}
