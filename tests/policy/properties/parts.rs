// SPDX-License-Identifier: GPL-2.0

//! What the fuzzer's steps do not reach.

use super::{
    check,
    step::{
        Line,
        DISK_SECTORS, //
    },
    system::{
        upload,
        Io,
        Module,
        Piece,
        Refused,
        Table, //
    }, //
};
use crate::{
    abi,
    explain_lookup,
    tests::message_header, //
};
use kernel::{
    bindings::{
        allow_allocations,
        take_log, //
    },
    error::{
        code::*,
        Error, //
    }, //
};
use proptest::prelude::*;

const WRITE: u32 = 1;
const PREFLUSH: u32 = 1 << 18;

/// Returns a live table of one line.
fn table(sectors: u64, arguments: &str) -> Table {
    let line = Line {
        sectors,
        arguments: arguments.into(),
    };
    let table = Table::load(0, false, &[line]).expect("the line is good");
    table.resume();
    table
}

/// Returns device-mapper's text about a line that is refused after one of `begin` sectors, and what the module logs.
fn refusal(begin: u64, arguments: &str) -> Option<(String, Vec<String>)> {
    let line = |sectors, arguments: &str| Line {
        sectors,
        arguments: arguments.into(),
    };
    let lines = [line(begin, "1 1 /dev/ram0 0"), line(96, arguments)];
    take_log();
    let refused = Table::load(0, false, &lines[usize::from(begin == 0)..]).err();
    let log = take_log().into_iter().map(|(_, line)| line).collect();
    refused.map(|Refused(text, errno)| {
        assert_eq!(errno, EINVAL.to_errno().abs());
        let text = text.strip_prefix("device-mapper: table: 253:0: switch: ");
        (text.unwrap().into(), log)
    })
}

/// Uploads entries of 8 bits, four of them.
fn upload_entries(entries: [u8; 4]) {
    let mut bytes = message_header([0, 0], (253, 0), [4, 0, 4], 3, 8);
    bytes.extend(entries);
    upload(&bytes, 1).expect("it is answered");
    let answers = abi::take_sent();
    assert_eq!(answers[0][48..52], [0; 4]);
}

fn write(sector: u64, count: u64) -> Io {
    Io {
        operation: WRITE,
        sector,
        count,
        number: 0,
        is_atomic: false,
    }
}

#[test]
fn each_device_gets_a_flush() {
    let _module = Module::load().unwrap();
    let switch = table(40, "3 10 /dev/ram2 0 /dev/ram0 5 /dev/ram1 7");
    assert_eq!(switch.flushes(), [3]);
    for (number, disk) in [(0, 2), (1, 0), (2, 1)] {
        let flush = Io {
            operation: WRITE | PREFLUSH,
            number,
            ..write(0, 0)
        };
        assert_eq!(switch.map(flush).map(|piece| piece.disk), Some(disk));
    }
    let status = switch
        .status(abi::status_type_t_STATUSTYPE_INFO, 1000)
        .unwrap();
    // They are not counted.
    assert!(status.ends_with(" 0 0\n"), "{status}");
}

#[test]
fn an_atomic_write_is_not_cut() {
    let _module = Module::load().unwrap();
    let switch = table(40, "3 10 /dev/ram0 0 /dev/ram1 100 /dev/ram2 0");
    upload_entries([1, 1, 2, 2]);
    let atomic = |sector, count| Io {
        is_atomic: true,
        ..write(sector, count)
    };
    let piece = |disk, sector, count| {
        Some(Piece {
            disk,
            sector,
            count,
        })
    };
    // Two pages have the same device.
    assert_eq!(switch.map(atomic(5, 10)), piece(1, 105, 10));
    assert_eq!(switch.map(atomic(15, 10)), None);
    assert_eq!(switch.map(write(15, 10)), piece(1, 115, 5));
    assert_eq!(switch.map(write(20, 10)), piece(2, 20, 10));
    drop(switch);
    // Without a device, too.
    let switch = table(40, "3 10 /dev/ram0 0 /dev/ram1 100 /dev/ram2 0");
    upload_entries([9, 9, 2, 2]);
    assert_eq!(switch.map(atomic(15, 10)), None);
    assert_eq!(switch.map(atomic(5, 10)), piece(0, 5, 10));
    take_log();
}

/// Atomic writes that are aligned, as all are, cross no border between devices.
#[test]
fn atomic_writes_fit_into_pages() {
    let sectors = prop_oneof![1..=4096_u32, (0..12_u32).prop_map(|bits| 1 << bits)];
    let cases = (
        sectors,
        prop_oneof![Just(0), 1..64_u64],
        9..20_u32,
        0..12_u32,
    );
    check(20_000, cases, |(page_size, begin, min, more)| {
        let _module = Module::load().unwrap();
        let line = |sectors, page_size| Line {
            sectors,
            arguments: format!("1 {page_size} 1:0 0").into(),
        };
        let lines = [line(begin, 1), line(8192, page_size)];
        let is_first = usize::from(begin == 0);
        let table = Table::load(0, false, &lines[is_first..]).expect("the lines are good");
        let (min, max) = (1_u32 << min, 1_u32 << (min + more).min(31));
        let found = table.atomic_writes(1 - is_first, [min, max]);
        let bytes = [u64::from(page_size) << 9, begin << 9];
        let divides = |unit: &u64| bytes.iter().all(|bytes| bytes % unit == 0);
        let unit = (0..32).map(|bits| 1 << bits).take_while(divides).last();
        let fits = unit.unwrap_or(0).min(max.into()) as u32;
        let expected = if fits < min { [0, 0] } else { [min, fits] };
        prop_assert_eq!(found, expected);
        Ok(())
    });
}

#[test]
fn ioctls_go_to_a_device() {
    let _module = Module::load().unwrap();
    for (line, disk, is_part) in [
        ("1 8 /dev/ram1 0", 1, 0),
        ("2 8 /dev/ram1 0 /dev/ram2 0", 1, 0),
        ("2 8 0 /dev/ram1 0 /dev/ram2 0", 1, 0),
        ("1 8 0 /dev/ram3 0", 3, 0),
    ] {
        let switch = table(DISK_SECTORS, line);
        assert_eq!(switch.ioctl_disk(), (Some(disk), is_part));
    }
    let switch = table(8, "1 8 /dev/ram1 0");
    assert_eq!(switch.ioctl_disk(), (Some(1), 1));
}

#[test]
fn ima_measures_the_table() {
    let _module = Module::load().unwrap();
    let switch = table(40, "2 10 /dev/ram2 0 /dev/ram0 5");
    let line = switch
        .status(abi::status_type_t_STATUSTYPE_IMA, 1000)
        .unwrap();
    assert_eq!(
        line,
        "0 40 switch target_name=switch,target_version=1.0.0,dev_count=2,page_size=10,device_0_name=1:2,\
         device_0_start=0,device_1_name=1:0,device_1_start=5;\n"
    );
}

#[test]
fn a_module_without_memory_is_not_loaded() {
    let mut failures = 0;
    loop {
        allow_allocations(failures);
        let module = Module::load();
        allow_allocations(usize::MAX);
        match module {
            Ok(_) => break,
            Err(error) => assert_eq!(error, ENOMEM),
        }
        failures += 1;
    }
    assert_eq!(failures, 2);
}

#[test]
fn a_message_fails_for_want_of_memory_or_because_its_process_is_killed() {
    let _module = Module::load().unwrap();
    let switch = table(40, "2 10 /dev/ram2 0 /dev/ram0 5");
    let send = |arguments| switch.message(0, &format!("set_region_mappings {arguments}"), 100);
    let errno = |error: Error| Some(error.to_errno().abs());
    allow_allocations(0);
    let without_memory = send("0:1").err();
    allow_allocations(usize::MAX);
    assert_eq!(without_memory, errno(ENOMEM));
    assert!(send("0:1").is_ok());
    abi::kill_after(Some(0));
    let killed = send("0:1 R1,2").err();
    abi::kill_after(None);
    assert_eq!(killed, errno(EINTR));
}

/// A device is refused if the target does not support it, with both lines.
#[test]
fn pages_must_not_divide_blocks_and_data_units() {
    let _module = Module::load().unwrap();
    let blocks = "Page size is no multiple of a device's block size";
    let units = "Page size is no multiple of the devices' data unit";
    for (begin, page_size, disk, expected) in [
        (0, 8, "zoned", Some("Zoned devices are not supported")),
        (0, 8, "large-blocks", None),
        (0, 24, "large-blocks", None),
        (0, 4, "large-blocks", Some(blocks)),
        (0, 12, "large-blocks", Some(blocks)),
        (0, 16, "encrypting", None),
        (32, 48, "encrypting", None),
        (0, 8, "encrypting", Some(units)),
        (0, 24, "encrypting", Some(units)),
        (
            8,
            16,
            "encrypting",
            Some("Begin is no multiple of the devices' data unit"),
        ),
    ] {
        for third in ["", "0 "] {
            let line = format!("1 {page_size} {third}/dev/{disk} 0");
            let text = refusal(begin, &line).map(|(text, _)| text);
            assert_eq!(text.as_deref(), expected, "{line}");
        }
    }
    let (_, log) = refusal(0, "1 12 /dev/large-blocks 0").unwrap();
    assert!(log[0].contains("page size 12: make it a multiple of 8 sectors"));
    let (_, log) = refusal(8, "1 16 /dev/encrypting 0").unwrap();
    assert!(log[0].contains("begin 8: make it a multiple of 16 sectors"));
}

#[test]
fn the_log_says_why_a_device_cannot_be_opened() {
    for (errors, reason) in [
        (&[EBUSY][..], "it is in use"),
        (&[EINVAL], "it is the mapped device itself"),
        (&[ENOENT, ENODEV, ENXIO], "there is no such device"),
        (&[ENOMEM], "there is no memory"),
        (&[ENOTBLK], "it is no block device"),
        (&[EROFS], "it is read-only"),
        (&[EACCES, EPERM], "access is denied"),
        (&[EIO], "it cannot be opened"),
    ] {
        for &error in errors {
            explain_lookup(c"/dev/none".into(), error);
            let begin = format!("dm_switch: switch_ctr cannot use /dev/none: {reason}");
            let (_, line) = take_log().remove(0);
            assert!(line.starts_with(&begin), "{line}");
        }
    }
}

/// A region that has an entry gets another one in place, which needs no memory.
#[test]
fn a_message_changes_entries_in_place() {
    let _module = Module::load().unwrap();
    let switch = table(40, "2 10 0 /dev/ram0 0 /dev/ram1 0");
    allow_allocations(0);
    let changed = switch.message(0, "set_region_mappings 0:1 2:1", 100);
    allow_allocations(usize::MAX);
    assert!(changed.is_ok());
    let disks = [0, 10, 20].map(|sector| switch.map(write(sector, 1)).unwrap().disk);
    assert_eq!(disks, [1; 3]);
}

/// A region has a number of 32 bits. The memory that so many need is what the kernel's own target lacks, too.
#[test]
fn a_line_of_the_kernels_own_target_has_32_bits_of_regions() {
    let _module = Module::load().unwrap();
    let regions = u64::from(u32::MAX);
    for (sectors, expected) in [
        (regions, "Cannot allocate region table"),
        (regions + 1, "Region table too large"),
        (regions + 2, "Region table too large"),
    ] {
        let line = Line {
            sectors,
            arguments: format!("257 1 0{}", " /dev/ram0 0".repeat(257)).into(),
        };
        let refused = Table::load(0, false, &[line]).err();
        let text = refused.map(|Refused(text, _)| text).unwrap();
        assert!(text.ends_with(expected), "{text}");
    }
}

/// The kernel's own target allocates its paths with one kmalloc.
#[test]
fn a_line_of_the_kernels_own_target_has_paths_for_4_mib() {
    let _module = Module::load().unwrap();
    for (paths, expected) in [
        (((4 << 20) - 40) / 16, "Incorrect number of path arguments"),
        (((4 << 20) - 40) / 16 + 1, "Invalid number of paths"),
        (0, "Invalid number of paths"),
    ] {
        let (text, _) = refusal(0, &format!("{paths} 8 0")).unwrap();
        assert_eq!(text, expected);
    }
}
