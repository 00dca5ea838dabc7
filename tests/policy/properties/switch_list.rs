// SPDX-License-Identifier: GPL-2.0

//! The list of switches: which page table an upload changes.

use crate::{
    abi,
    rcu,
    tests::message_header,
    Line,
    Refusal,
    Shape,
    SwitchList,
    TableSlot,
    TargetId,
    Upload, //
};
use kernel::{
    bindings::allow_allocations,
    prelude::*,
    sync::Arc, //
};
use std::num::NonZeroU32;

const DEVICE: (u32, u32) = (253, 0);

const OTHER_DEVICE: (u32, u32) = (253, 1);

/// Returns a slot of its own for a switch of `dev_count` devices, with pages of `page_size` sectors.
fn new_slot(device: (u32, u32), dev_count: u32, page_size: u32) -> Arc<TableSlot> {
    let shape = Shape {
        line: Line::V3,
        dev_count,
        page_sectors: NonZeroU32::new(page_size).unwrap(),
    };
    Arc::pin_init(TableSlot::new(device, shape), GFP_KERNEL).unwrap()
}

/// The only target of a table.
fn id(table_id: usize) -> TargetId {
    TargetId { table_id, begin: 0 }
}

/// Uploads the entry of the first page of `total`, by a sender that believes the switch to have `dev_count` devices.
fn send(
    list: &SwitchList,
    device: (u32, u32),
    (dev_count, total): (u16, u32),
    entry: u32,
) -> Result<(), Refusal> {
    let mut message = message_header([0, 0], device, [total, 0, 1], dev_count, 8);
    message.extend(entry.to_ne_bytes());
    let Ok(upload) = Upload::check(&message) else {
        panic!("the message is good")
    };
    list.upload(&upload)
}

/// Returns the first entry of a slot's page table.
fn entry_of(slot: &TableSlot) -> Option<u32> {
    let guard = rcu::Guard::new();
    let table = slot.table.read(&guard)?;
    table.find(0).map(|found| found.entry)
}

/// Runs a test with a list of switches.
fn with_list(test: impl FnOnce(&SwitchList)) {
    abi::boot();
    let retirement = rcu::Retirement::new();
    let list = Arc::pin_init(SwitchList::new(), GFP_KERNEL).unwrap();
    test(&list);
    drop(list);
    drop(retirement);
    abi::shut_down();
}

/// From a resume on, uploads are for the new table, although the old one is still there. Other devices' are not concerned.
#[test]
fn a_resume_makes_one_table_live() {
    with_list(|list| {
        let [old, other] = [DEVICE, OTHER_DEVICE].map(|device| {
            let slot = list.add(id(1), 31, new_slot(device, 2, 8)).unwrap();
            assert!(list.make_live(device, id(1)).is_some());
            slot
        });
        let [new, other_new] = [DEVICE, OTHER_DEVICE]
            .map(|device| list.add(id(2), 31, new_slot(device, 3, 8)).unwrap());
        let resumed = list.make_live(DEVICE, id(2)).unwrap();
        assert!(core::ptr::eq(&*resumed, &*new));
        for device in [DEVICE, OTHER_DEVICE] {
            assert!(send(list, device, (2, 31), 1).is_ok());
        }
        let tables = [&old, &new, &other, &other_new].map(|slot| entry_of(slot));
        assert_eq!(tables, [None, Some(1), Some(1), None]);
    });
}

/// An upload that the live page table fits is for the live table, also if a loaded one has these numbers.
#[test]
fn the_live_page_table_counts_as_numbers_of_the_switch() {
    with_list(|list| {
        let live = list.add(id(1), 31, new_slot(DEVICE, 2, 8)).unwrap();
        list.make_live(DEVICE, id(1)).unwrap();
        assert!(send(list, DEVICE, (2, 20), 1).is_ok());
        let loaded = list.add(id(2), 20, new_slot(DEVICE, 2, 16)).unwrap();
        assert!(send(list, DEVICE, (2, 20), 2).is_ok());
        assert_eq!([&live, &loaded].map(|slot| entry_of(slot)), [Some(2), None]);
        // Another number of devices does not fit it.
        list.remove(DEVICE, id(2));
        let loaded = list.add(id(3), 20, new_slot(DEVICE, 3, 16)).unwrap();
        assert!(send(list, DEVICE, (3, 20), 3).is_ok());
        assert_eq!(
            [&live, &loaded].map(|slot| entry_of(slot)),
            [Some(2), Some(3)]
        );
    });
}

/// An upload that fits the page table, and for which it has the chunks, needs no memory.
#[test]
fn entries_are_changed_in_place() {
    with_list(|list| {
        let slot = list.add(id(1), 31, new_slot(DEVICE, 2, 8)).unwrap();
        list.make_live(DEVICE, id(1)).unwrap();
        assert!(send(list, DEVICE, (2, 31), 1).is_ok());
        allow_allocations(0);
        let changed = send(list, DEVICE, (2, 31), 2);
        allow_allocations(usize::MAX);
        assert!(changed.is_ok());
        assert_eq!(entry_of(&slot), Some(2));
    });
}
