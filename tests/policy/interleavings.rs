// SPDX-License-Identifier: GPL-2.0

//! Threads in all orders: each test runs once for every order of the accesses of its threads to atomics and locks, and
//! for every value that the memory model lets a load return. A chunk has 32 entries here.

use super::message_header;
use crate::{
    abi,
    choice::Choice,
    rcu,
    Line,
    PageTable,
    Refusal,
    Shape,
    SwitchList,
    TableSlot,
    TargetId,
    Upload, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use loom::{
    model::Builder,
    thread::{
        self,
        JoinHandle, //
    }, //
};
use std::{
    iter,
    num::NonZeroU32,
    ops::Range,
    sync::atomic::{
        AtomicUsize,
        Ordering, //
    }, //
};

/// The mapped device of the tests.
const DEVICE: (u32, u32) = (253, 0);

/// Runs a test in all orders. With `interruptions`, runs it only in those in which each thread is interrupted at most that
/// many times where it need not wait.
fn explore(interruptions: Option<usize>, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = interruptions;
    builder.max_branches = 10_000;
    let orders = std::sync::Arc::new(AtomicUsize::new(0));
    builder.check({
        let orders = orders.clone();
        move || {
            orders.fetch_add(1, Ordering::Relaxed);
            abi::boot();
            let retirement = rcu::Retirement::new();
            test();
            drop(retirement);
            abi::shut_down();
        }
    });
    println!("{} orders", orders.load(Ordering::Relaxed));
}

fn shape(page_size: u32) -> Shape {
    Shape {
        line: Line::V3,
        dev_count: 2,
        page_sectors: NonZeroU32::new(page_size).unwrap(),
    }
}

fn new_slot(page_size: u32) -> Arc<TableSlot> {
    Arc::pin_init(TableSlot::new(DEVICE, shape(page_size)), GFP_KERNEL).unwrap()
}

/// Returns the message that uploads `entry` for the pages of a table of `total` pages, with entries of `bits` bits.
fn message(bits: u8, total: u32, pages: Range<u32>, entry: u32) -> Vec<u8> {
    let per_word = u32::from(32 / bits);
    let word = (0..per_word).fold(0, |word, at| word | (entry << (at * u32::from(bits))));
    let count = pages.end - pages.start;
    let mut bytes = message_header([0, 0], DEVICE, [total, pages.start, count], 2, bits);
    for _ in 0..count.div_ceil(per_word).max(1) {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

/// Uploads as [`message`] says.
fn upload_to(slot: &TableSlot, bits: u8, total: u32, pages: Range<u32>, entry: u32) {
    let message = message(bits, total, pages, entry);
    let Ok(upload) = Upload::check(&message) else {
        panic!("the message is good")
    };
    assert!(slot.apply(&upload).is_ok());
}

/// The same, in a thread of its own.
fn upload_beside(
    slot: &Arc<TableSlot>,
    bits: u8,
    total: u32,
    pages: Range<u32>,
    entry: u32,
) -> JoinHandle<()> {
    let slot = slot.clone();
    thread::spawn(move || upload_to(&slot, bits, total, pages, entry))
}

fn entry(table: &PageTable, page: u64) -> Option<u32> {
    table.find(page).map(|found| found.entry)
}

/// Changes entries and adds some, while `read` reads. It is given the table, the first page that changes, and the last
/// one, which is added.
fn while_entries_change(bits: u8, read: fn(&PageTable, u64, u64)) {
    let per_word = u32::from(32 / bits);
    let new = per_word..2 * per_word + 1;
    let slot = new_slot(1);
    upload_to(&slot, bits, 31, 0..2 * per_word, 1);
    let writer = upload_beside(&slot, bits, 31, new.clone(), 2);
    let guard = rcu::Guard::new();
    let table = slot.table.read(&guard).unwrap();
    read(table, new.start.into(), u64::from(new.end) - 1);
    drop(guard);
    writer.join().unwrap();
}

/// An entry is the old or the new one. The last one is published after all others are written.
fn find(table: &PageTable, changed: u64, added: u64) {
    let last = entry(table, added);
    assert!(matches!(last, None | Some(2)), "{last:?}");
    let first = entry(table, changed);
    assert!(matches!(first, Some(1 | 2)), "{first:?}");
    assert!(last.is_none() || first == Some(2));
    assert_eq!(entry(table, added + 1), None);
}

/// Other entries stay.
fn find_others(table: &PageTable, changed: u64, added: u64) {
    assert_eq!(entry(table, changed - 1), Some(1));
    assert_eq!(entry(table, added + 1), None);
}

/// A run has one entry, the old or the new one.
fn run(table: &PageTable, changed: u64, added: u64) {
    let (end, found) = table.find_run(changed, added);
    let found = found.map(|found| found.entry);
    assert!((changed + 1..=added + 1).contains(&end));
    assert!(matches!(found, Some(1 | 2)), "{found:?}");
    assert!(end <= added || found == Some(2));
}

#[test]
fn entries_in_whole_words_are_old_or_new() {
    explore(Some(4), || while_entries_change(16, find));
    explore(None, || while_entries_change(16, find_others));
    explore(Some(4), || while_entries_change(16, run));
}

#[test]
fn single_entries_are_old_or_new() {
    explore(Some(4), || while_entries_change(12, find));
    explore(None, || while_entries_change(12, find_others));
    explore(Some(4), || while_entries_change(12, run));
}

/// An entry that was seen stays: a later reading sees the same entries, or more.
#[test]
fn published_entries_stay() {
    explore(None, || {
        let slot = new_slot(1);
        upload_to(&slot, 32, 31, 0..1, 1);
        let writer = upload_beside(&slot, 32, 31, 1..3, 2);
        let guard = rcu::Guard::new();
        let table = slot.table.read(&guard).unwrap();
        let before = [1, 2].map(|page| entry(table, page));
        let after = [1, 2].map(|page| entry(table, page));
        for (before, after) in before.into_iter().zip(after) {
            assert!(matches!(after, None | Some(2)));
            assert!(before.is_none() || before == after);
        }
        drop(guard);
        writer.join().unwrap();
    });
}

/// Writers exclude one another, for they change one word.
#[test]
fn no_change_is_lost() {
    explore(None, || {
        let slot = new_slot(1);
        upload_to(&slot, 16, 31, 0..2, 1);
        let other = upload_beside(&slot, 16, 31, 0..1, 2);
        let writer = slot.table.lock();
        writer.get().unwrap().write(1..2, iter::once(3));
        drop(writer);
        other.join().unwrap();
        let guard = rcu::Guard::new();
        let table = slot.table.read(&guard).unwrap();
        assert_eq!([0, 1].map(|page| entry(table, page)), [Some(2), Some(3)]);
    });
}

/// A reader sees the whole old table or the whole new one, as long as it reads.
#[test]
fn a_table_is_replaced_as_a_whole() {
    explore(None, || {
        let slot = new_slot(1);
        upload_to(&slot, 8, 31, 0..5, 1);
        let writer = upload_beside(&slot, 16, 31, 0..3, 2);
        let guard = rcu::Guard::new();
        let table = slot.table.read(&guard).unwrap();
        let expected = match table.geometry.pte_bits.get() {
            8 => [Some(1), Some(1), None],
            _ => [Some(2), None, None],
        };
        for _ in 0..2 {
            assert_eq!([2, 4, 5].map(|page| entry(table, page)), expected);
        }
        drop(guard);
        writer.join().unwrap();
    });
}

/// A table that replaces another one shares its chunks, and either is freed when it is not used any more.
#[test]
fn a_table_that_grows_keeps_its_entries() {
    explore(Some(4), || {
        let slot = new_slot(1);
        upload_to(&slot, 32, 40, 0..2, 1);
        let writer = thread::spawn({
            let slot = slot.clone();
            move || {
                upload_to(&slot, 32, 40, 32..33, 2);
                // Frees the first chunk.
                upload_to(&slot, 32, 40, 0..0, 0);
            }
        });
        for _ in 0..2 {
            let guard = rcu::Guard::new();
            let table = slot.table.read(&guard).unwrap();
            let seen = [0, 1, 32].map(|page| entry(table, page));
            let possible = [
                [Some(1), Some(1), None],
                [Some(1), Some(1), Some(2)],
                [None, None, Some(2)],
            ];
            assert!(possible.contains(&seen), "{seen:?}");
        }
        writer.join().unwrap();
    });
}

/// Any value, with what loom knows of its accesses: that each reader ends before it is freed.
#[test]
fn a_value_is_freed_after_its_last_reader() {
    explore(Some(4), || {
        let cell = Arc::pin_init(rcu::Rcu::<abi::Watched>::new(), GFP_KERNEL).unwrap();
        let replace = |cell: &rcu::Rcu<abi::Watched>, value| {
            let value = rcu::RcuBox::new(abi::Watched::new(value)).unwrap();
            cell.lock().replace(value, 0);
        };
        replace(&cell, 1);
        let writer = thread::spawn({
            let cell = cell.clone();
            move || {
                replace(&cell, 2);
                replace(&cell, 3);
            }
        });
        let reader = thread::spawn({
            let cell = cell.clone();
            move || {
                let guard = rcu::Guard::new();
                cell.read(&guard).unwrap().get()
            }
        });
        let guard = rcu::Guard::new();
        let value = cell.read(&guard).unwrap();
        assert_eq!(value.get(), value.get());
        drop(guard);
        assert!((1..=3).contains(&reader.join().unwrap()));
        writer.join().unwrap();
    });
}

/// A map uses one of the two tables while a resume chooses the other one.
#[test]
fn a_resume_switches_from_one_table_to_the_other() {
    explore(None, || {
        let slots = [1, 2].map(|entry| {
            let slot = new_slot(1);
            upload_to(&slot, 8, 31, 0..1, entry);
            slot
        });
        let second = slots[1].clone();
        let current = Arc::new(Choice::new(slots), GFP_KERNEL).unwrap();
        let resume = thread::spawn({
            let current = current.clone();
            move || current.set(&second)
        });
        let read = || {
            let guard = rcu::Guard::new();
            let table = current.table.read(&guard).unwrap();
            entry(table, 0)
        };
        let (first, second) = (read(), read());
        assert!(matches!(first, Some(1 | 2)) && (first == Some(1) || second == Some(2)));
        resume.join().unwrap();
        assert_eq!(read(), Some(2));
    });
}

/// The target of a device's table.
fn id(table_id: usize) -> TargetId {
    TargetId { table_id, begin: 0 }
}

/// Sends an upload of the first page. Its sender believes the switch to have `pages` pages.
fn send(list: &SwitchList, pages: u32, entry: u32) -> Result<(), Refusal> {
    let message = message(8, pages, 0..1, entry);
    let Ok(upload) = Upload::check(&message) else {
        panic!("the message is good")
    };
    list.upload(&upload)
}

/// The same, in a thread of its own.
fn send_beside(list: &Arc<SwitchList>, pages: u32, entry: u32) -> JoinHandle<Result<(), Refusal>> {
    let list = list.clone();
    thread::spawn(move || send(&list, pages, entry))
}

/// Returns the number of pages and the first entry of a slot's page table.
fn table_of(slot: &TableSlot) -> Option<(u32, Option<u32>)> {
    let guard = rcu::Guard::new();
    let table = slot.table.read(&guard)?;
    Some((table.total, entry(table, 0)))
}

/// A live switch of 31 pages, of which some have entries, and a loaded one of 20 pages.
fn live_and_loaded(page_sizes: [u32; 2]) -> (Arc<SwitchList>, [Arc<TableSlot>; 2]) {
    let list = Arc::pin_init(SwitchList::new(), GFP_KERNEL).unwrap();
    let live = list.add(id(1), 31, new_slot(page_sizes[0])).unwrap();
    list.make_live(DEVICE, id(1)).unwrap();
    assert!(send(&list, 31, 1).is_ok());
    let loaded = list.add(id(2), 20, new_slot(page_sizes[1])).unwrap();
    (list, [live, loaded])
}

/// An upload for the loaded table alone is that table's, whether it comes before its resume or after that.
fn uploads_find_the_loaded_table(page_sizes: [u32; 2]) {
    let (list, [live, _]) = live_and_loaded(page_sizes);
    let upload = send_beside(&list, 20, 2);
    let slot = list.make_live(DEVICE, id(2)).unwrap();
    list.remove(DEVICE, id(1));
    let is_shared = core::ptr::eq(&*slot, &*live);
    drop(live);
    assert!(upload.join().unwrap().is_ok());
    assert_eq!(table_of(&slot), Some((20, Some(2))));
    // What comes later goes to the same one.
    assert!(send(&list, 20, 3).is_ok());
    assert_eq!(table_of(&slot), Some((20, Some(3))));
    assert!(page_sizes[0] == page_sizes[1] || !is_shared);
}

#[test]
fn an_upload_for_the_loaded_table_is_not_lost() {
    explore(None, || uploads_find_the_loaded_table([1, 2]));
}

#[test]
fn an_upload_for_a_table_that_shares_the_live_ones_entries_is_not_lost() {
    explore(None, || uploads_find_the_loaded_table([1, 1]));
}

/// An upload for the live table that is replaced meanwhile goes to one of the two.
#[test]
fn an_upload_for_the_live_table_finds_one() {
    explore(None, || {
        let (list, [live, loaded]) = live_and_loaded([1, 2]);
        let upload = send_beside(&list, 31, 2);
        let slot = list.make_live(DEVICE, id(2)).unwrap();
        list.remove(DEVICE, id(1));
        assert!(core::ptr::eq(&*slot, &*loaded));
        assert!(upload.join().unwrap().is_ok());
        let tables = [table_of(&live), table_of(&loaded)];
        let possible = [
            [Some((31, Some(2))), None],
            [Some((31, Some(1))), Some((31, Some(2)))],
        ];
        assert!(possible.contains(&tables), "{tables:?}");
    });
}

/// An upload and the removal of the device: the upload changes a table that nobody reads, or finds no device.
#[test]
fn an_upload_outlives_its_device() {
    explore(None, || {
        let (list, slots) = live_and_loaded([1, 1]);
        let upload = send_beside(&list, 20, 2);
        let remove = thread::spawn({
            let list = list.clone();
            move || {
                list.remove(DEVICE, id(2));
                list.remove(DEVICE, id(1));
                drop(slots);
            }
        });
        let outcome = upload.join().unwrap();
        assert!(matches!(outcome, Ok(()) | Err(Refusal::NoDevice { .. })));
        remove.join().unwrap();
        assert!(matches!(send(&list, 20, 2), Err(Refusal::NoDevice { .. })));
    });
}
