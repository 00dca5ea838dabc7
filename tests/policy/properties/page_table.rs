// SPDX-License-Identifier: GPL-2.0

//! Page tables: what is found of what was written.

use super::{
    check,
    system::{
        limit_memory,
        Limit, //
    }, //
};
use crate::{
    abi,
    chunks_of,
    Geometry,
    PageList,
    PageTable,
    Unmapped,
    CHUNK_ENTRIES, //
};
use kernel::bindings::allocated_bytes;
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    fmt::Write,
    ops::Range, //
};

/// Chunks of the largest table.
const CHUNKS: u32 = 4;

/// What is done to a table.
#[derive(Clone, Debug)]
enum Change {
    /// Pages get entries: some have the same one, then as many the next one.
    Write {
        first: u32,
        count: u32,
        entry: u32,
        run: u32,
    },
    /// The same by whole words, if a message's have that layout.
    WriteWords {
        first: u32,
        count: u32,
        entry: u32,
        run: u32,
    },
    Free {
        chunk: u32,
    },
    /// The table is replaced by one that shares its chunks.
    Share,
}

fn change() -> impl Strategy<Value = Change> {
    let near_border = (0..=CHUNKS, 0..80_u32);
    let first = prop_oneof![
        near_border.prop_map(|(chunk, off)| (chunk * CHUNK_ENTRIES + off).saturating_sub(40)),
        0..CHUNKS * CHUNK_ENTRIES,
    ];
    let count = prop_oneof![4 => 1..70_u32, 1 => 1..=2 * CHUNK_ENTRIES];
    let run = prop_oneof![1..5_u32, 1..100_u32, Just(u32::MAX)];
    let entry = prop_oneof![0..3_u32, any::<u32>()];
    (first, count, entry, run, 0..12_u8).prop_map(|(first, count, entry, run, kind)| match kind {
        0 => Change::Free {
            chunk: first / CHUNK_ENTRIES,
        },
        1 => Change::Share,
        2..7 => Change::WriteWords {
            first,
            count,
            entry,
            run,
        },
        _ => Change::Write {
            first,
            count,
            entry,
            run,
        },
    })
}

/// A table as plain as can be: the published entries of each chunk, unless it is missing.
struct Plain(Vec<Option<Vec<u32>>>);

impl Plain {
    fn write(&mut self, page: u32, entry: u32) {
        let chunk = &mut self.0[(page / CHUNK_ENTRIES) as usize];
        let (chunk, index) = (
            chunk.get_or_insert_default(),
            (page % CHUNK_ENTRIES) as usize,
        );
        if chunk.len() <= index {
            chunk.resize(index + 1, 0);
        }
        chunk[index] = entry;
    }

    fn find(&self, page: u64) -> Option<u32> {
        let chunk = self.0.get((page / u64::from(CHUNK_ENTRIES)) as usize)?;
        let index = (page % u64::from(CHUNK_ENTRIES)) as usize;
        chunk.as_ref()?.get(index).copied()
    }
}

/// A table, and the plain one that it should be.
struct Pair {
    geometry: Geometry,
    table: PageTable,
    plain: Plain,
    /// Pages that are worth a look.
    borders: BTreeSet<u32>,
}

impl Pair {
    fn new(bits: u32, total: u32) -> Self {
        let geometry = Geometry::new(bits).unwrap();
        let chunks = total / CHUNK_ENTRIES + 1;
        Self {
            geometry,
            table: PageTable::new(geometry, total).unwrap(),
            plain: Plain(vec![None; chunks as usize]),
            borders: BTreeSet::from([0, total, CHUNK_ENTRIES, 2 * CHUNK_ENTRIES]),
        }
    }

    /// Returns the pages that the table has of these.
    fn pages(&self, first: u32, count: u32) -> Range<u32> {
        let end = first.saturating_add(count).min(self.table.total);
        first.min(end)..end
    }

    fn values(&self, pages: Range<u32>, entry: u32, run: u32) -> impl Iterator<Item = u32> {
        let mask = self.geometry.mask;
        pages
            .clone()
            .map(move |page| entry.wrapping_add((page - pages.start) / run) & mask)
    }

    fn add_chunks(&mut self, pages: &Range<u32>) {
        assert!(self.table.add_chunks(chunks_of(pages)).is_ok());
        for chunk in chunks_of(pages) {
            self.plain.0[chunk].get_or_insert_default();
        }
        self.borders.extend([pages.start, pages.end]);
    }

    fn apply(&mut self, change: &Change) {
        match *change {
            Change::Free { chunk } => {
                self.table.free_chunk(chunk as usize);
                if let Some(chunk) = self.plain.0.get_mut(chunk as usize) {
                    *chunk = None;
                }
            }
            Change::Share => self.table = self.table.share().unwrap(),
            Change::WriteWords {
                first,
                count,
                entry,
                run,
            } if self.geometry.has_message_layout() => {
                let per_word = self.geometry.entries_per_message_word().get();
                let first = first / per_word * per_word;
                let pages = self.pages(first, count.next_multiple_of(per_word));
                let whole = (pages.end - pages.start) / per_word * per_word;
                let pages = pages.start..pages.start + whole;
                self.add_chunks(&pages);
                let values: Vec<u32> = self.values(pages.clone(), entry, run).collect();
                let mut bytes = Vec::new();
                for values in values.chunks(per_word as usize) {
                    let bits = self.geometry.pte_bits.get();
                    let places = values.iter().zip(0..);
                    let word = places.fold(0, |word, (value, at)| word | (value << (at * bits)));
                    bytes.extend(u32::to_ne_bytes(word));
                }
                self.table.write_words(pages.clone(), &bytes);
                self.note(pages, values.into_iter());
            }
            Change::Write {
                first,
                count,
                entry,
                run,
            }
            | Change::WriteWords {
                first,
                count,
                entry,
                run,
            } => {
                let pages = self.pages(first, count);
                self.add_chunks(&pages);
                let values = || self.values(pages.clone(), entry, run);
                self.table.write(pages.clone(), values());
                let values: Vec<u32> = values().collect();
                self.note(pages, values.into_iter());
            }
        }
    }

    fn note(&mut self, pages: Range<u32>, values: impl Iterator<Item = u32>) {
        for (page, value) in pages.zip(values) {
            self.plain.write(page, value);
        }
    }

    /// Compares what both say of a page, and of the run that begins there.
    fn compare(&self, page: u64, last: u64) -> Result<(), TestCaseError> {
        let expected = self.plain.find(page);
        let found = self.table.find(page);
        prop_assert_eq!(
            found.as_ref().map(|found| found.entry),
            expected,
            "page {}",
            page
        );
        if let Some(found) = found {
            let width = u64::from(32 / self.geometry.width());
            let end = page + u64::from(found.run);
            prop_assert!(end <= page / width * width + width && end > page);
            for other in page..end {
                prop_assert_eq!(self.plain.find(other), expected, "page {} of a run", other);
            }
        } else {
            self.compare_reason(page)?;
        }
        let (end, found) = self.table.find_run(page, last);
        prop_assert_eq!(found.map(|found| found.entry), expected);
        prop_assert!(end > page);
        for other in page..end.min(last + 1) {
            prop_assert_eq!(
                self.plain.find(other),
                expected,
                "page {} of a long run",
                other
            );
        }
        // A run is as long as it can be, but not beyond the last page's word.
        if end <= last {
            prop_assert_ne!(self.plain.find(end), expected, "page {} after a run", end);
        }
        prop_assert!(end <= (last | 31) + 1);
        Ok(())
    }

    /// Compares why a page has no entry.
    fn compare_reason(&self, page: u64) -> Result<(), TestCaseError> {
        let number = page / u64::from(CHUNK_ENTRIES);
        let expected = match self.plain.0.get(number as usize) {
            None => {
                let chunks = self.plain.0.len();
                Some(format!("Page Table Chunk {number} >= {chunks}"))
            }
            Some(None) => None,
            Some(Some(chunk)) => {
                let index = page % u64::from(CHUNK_ENTRIES);
                Some(format!("Page Table Entry {index} >= {}", chunk.len()))
            }
        };
        let reason = self.table.why_unmapped(page);
        prop_assert_eq!(reason.map(|reason: Unmapped| reason.to_string()), expected);
        Ok(())
    }
}

#[test]
fn a_table_is_what_was_written() {
    let changes = prop::collection::vec(change(), 1..10);
    let looks = prop::collection::vec((0..CHUNKS * CHUNK_ENTRIES, 0..200_u64), 10);
    let totals = prop_oneof![
        1..200_u32,
        (1..=CHUNKS).prop_map(|chunks| chunks * CHUNK_ENTRIES - 1),
        (1..=CHUNKS).prop_map(|chunks| chunks * CHUNK_ENTRIES),
        1..=CHUNKS * CHUNK_ENTRIES,
    ];
    let cases = (1..=32_u32, totals, changes, looks);
    check(20_000, cases, |(bits, total, changes, looks)| {
        abi::boot();
        let mut pair = Pair::new(bits, total);
        for change in &changes {
            pair.apply(change);
        }
        for &border in &pair.borders {
            for page in border.saturating_sub(2)..border + 2 {
                pair.compare(page.into(), u64::from(page) + 70)?;
            }
        }
        for (page, len) in looks {
            pair.compare(page.into(), u64::from(page) + len)?;
            let has_chunk = pair.plain.0.get((page / CHUNK_ENTRIES) as usize);
            let has_chunk = has_chunk.is_some_and(|chunk| chunk.is_some());
            prop_assert_eq!(
                pair.table.has_chunks(chunks_of(&(page..page + 1))),
                has_chunk
            );
        }
        // To the end, over all borders of chunks.
        pair.compare(0, u64::from(CHUNKS * CHUNK_ENTRIES + 5))?;
        drop(pair);
        abi::shut_down();
        Ok(())
    });
}

/// Where not all chunks can be allocated, none is added.
#[test]
fn chunks_are_added_all_or_none() {
    abi::boot();
    let geometry = Geometry::new(4).unwrap();
    for limit in [limit_memory as Limit, abi::kill_after] {
        let mut table = PageTable::new(geometry, CHUNKS * CHUNK_ENTRIES - 1).unwrap();
        // Only chunks that are added are empty.
        assert!(table.add_chunks(1..2).is_ok());
        table.write(CHUNK_ENTRIES..CHUNK_ENTRIES + 1, std::iter::once(1));
        let has_chunks = |table: &PageTable| [0, 1, 2].map(|at| table.has_chunks(at..at + 1));
        let mut failures = 0;
        loop {
            limit(Some(failures));
            let added = table.add_chunks(0..3);
            limit(None);
            if added.is_ok() {
                break;
            }
            assert_eq!(has_chunks(&table), [false, true, false]);
            failures += 1;
        }
        assert!(failures > 0 && has_chunks(&table) == [true; 3]);
    }
    abi::shut_down();
}

/// What is said to wait for readers is what is freed after them, but for what each allocation has besides.
#[test]
fn bytes_without_the_next_table_are_those_that_it_frees() {
    abi::boot();
    let total = 100 * CHUNK_ENTRIES - 1;
    for (bits, next_bits) in [(4, 4), (4, 8), (32, 32), (32, 1)] {
        let [geometry, next_geometry] = [bits, next_bits].map(|bits| Geometry::new(bits).unwrap());
        let mut table = PageTable::new(geometry, total).unwrap();
        assert!(table.add_chunks(0..2).is_ok());
        let mut next = if bits == next_bits {
            table.share().unwrap()
        } else {
            PageTable::new(next_geometry, total).unwrap()
        };
        next.free_chunk(1);
        assert!(next.add_chunks(2..3).is_ok());
        let said = table.bytes_without(&next);
        let before = allocated_bytes();
        drop(table);
        let freed = before - allocated_bytes() + size_of::<PageTable>();
        assert!(
            (said..said + 200).contains(&freed),
            "{said} bytes, not {freed}"
        );
        drop(next);
    }
    abi::shut_down();
}

/// As many chunks as an upload can have are counted each, the ones after them together, and what is beyond the table is
/// not.
#[test]
fn each_chunk_of_an_upload_has_its_own_count() {
    abi::boot();
    let counted = abi::MAX_NUMBER_OF_CHUNKS;
    let count = |chunks: u32| {
        let geometry = Geometry::NARROWEST;
        let table = PageTable::new(geometry, chunks * CHUNK_ENTRIES - 1).unwrap();
        for chunk in 0..counted + 3 {
            table.count_unmapped(u64::from(chunk * CHUNK_ENTRIES));
        }
        let sums = (0..=counted).map(|chunk| table.hits.sum(chunk as usize));
        sums.collect::<Vec<u64>>()
    };
    // The last count is that of all chunks after it.
    assert!(count(2).iter().all(|sum| *sum == 1));
    let sums = count(counted + 2);
    assert!(sums[..counted as usize].iter().all(|sum| *sum == 1));
    assert_eq!(sums[counted as usize], 2);
    abi::shut_down();
}

/// Returns the list of these pages of a table of 3 chunks with entries of 3 bits, of which the pages from `ones` on have
/// the entry 1, and those before it 0.
fn listed(pages: Range<u32>, ones: u32) -> Result<String, std::fmt::Error> {
    let total = 3 * CHUNK_ENTRIES - 1;
    let mut table = PageTable::new(Geometry::new(3).unwrap(), total).unwrap();
    assert!(table.add_chunks(0..3).is_ok());
    let entries = (0..total).map(|page| u32::from(page >= ones));
    table.write(0..total, entries);
    let list = PageList {
        table: Some(table),
        dev_count: 2,
        userland: [0, 0],
        pages,
    };
    let mut text = String::new();
    write!(text, "{list}")?;
    let (_, tokens) = text.split_once('\n').unwrap();
    Ok(tokens.into())
}

/// After a gap, a file for swupload can continue where a word of a message begins: here, with each tenth page. Entries of
/// 0 before that are left out.
#[test]
fn a_list_of_pages_continues_with_a_word() {
    abi::boot();
    for (pages, ones, expected) in [
        (0..40, 25, "0*25 1*15\n"),
        (3..40, 25, "@10 0*15 1*15\n"),
        (20..40, 25, "@20 0*5 1*15\n"),
        (3..40, 10, "@10 1*30\n"),
        (3..40, 9, "@3 0*6 1*31\n"),
        (27..40, 25, "@27 1*13\n"),
    ] {
        assert_eq!(listed(pages, ones).as_deref(), Ok(expected));
    }
    abi::shut_down();
}

/// A list of pages can be killed before each chunk, and needs no other leave.
#[test]
fn a_list_of_pages_reschedules_before_each_chunk() {
    abi::boot();
    let with_lives = |lives| {
        abi::kill_after(Some(lives));
        let text = listed(0..u32::MAX, 0);
        abi::kill_after(None);
        text
    };
    // Each chunk is allocated, and then listed.
    assert!(with_lives(5).is_err());
    assert_eq!(with_lives(6).as_deref(), Ok("1*24575\n"));
    abi::shut_down();
}
