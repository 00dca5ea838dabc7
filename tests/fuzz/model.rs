// SPDX-License-Identifier: GPL-2.0-only

//! What should happen, as plainly as it can be said.
//!
//! Written from the contract of the v3 interface, COMPAT.md and what the kernel's own target does; not
//! from the module. It knows no packed chunks and no reference counts: a page table is the list of what
//! was done to it, and an entry is looked for in that list, the newest first.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::take;
use std::ops::Range;
use std::rc::Rc;

use super::step::{
    has_name, Answer, Asked, Facts, Line, Outcome, Request, Step, DISKS, DISK_SECTORS, MINORS,
};

const EINVAL: i32 = 22;
const INVALID: &str = "Invalid Page Table message";

/// Entries of a chunk.
const CHUNK: u64 = 8192;

/// How often each thing happened that the model knows of. All of them are to happen in a long run.
pub struct Coverage(pub BTreeMap<&'static str, u64>);

impl Coverage {
    const BRANCHES: &'static [&'static str] = &[
        // Refusals of uploads, in the order of the checks.
        "upload: too short",
        "upload: too many entries",
        "upload: too many entries, the sum above 32 bits",
        "upload: invalid mask",
        "upload: invalid entry size",
        "upload: unaligned",
        "upload: incomplete",
        "upload: larger than the maximum",
        "upload: no such device",
        "upload: chunk to be freed not aligned",
        // Uploads.
        "upload: the first table",
        "upload: in place",
        "upload: anew for another number of devices",
        "upload: anew for another entry size",
        "upload: anew for another number of pages",
        "upload: across a border of chunks",
        "upload: for the live table, as many devices and pages as both have",
        "upload: for the live table alone",
        "upload: for the live table, as many devices and pages as none has",
        "upload: for the loaded table, none is live",
        "upload: for the page table in force, with the pages of the loaded table",
        "upload: for the loaded table alone",
        "upload: for the loaded table alone, which shared the live one's page table",
        "upload: for the loaded table alone, of several switches",
        "upload: for the loaded table alone, which is of the kernel's line",
        "upload: for the loaded table alone, refused",
        "upload: the last byte is missing",
        "upload: frees a chunk",
        "upload: frees a chunk that is not there",
        // Netlink.
        "netlink: no request",
        "netlink: a control message",
        "netlink: a length that is not there",
        "netlink: no such family",
        "netlink: no genetlink header",
        "netlink: no such command",
        "netlink: the header of a command that there is not",
        "netlink: a dump",
        "netlink: attribute too long",
        "netlink: no attribute",
        "netlink: attribute cut short",
        "netlink: attribute repeated",
        "netlink: other attribute",
        "netlink: acknowledged",
        // Constructors.
        "v3 line: made",
        "v3 line: Insufficient arguments",
        "v3 line: Invalid device count",
        "v3 line: Invalid argument count",
        "v3 line: Invalid page size",
        "v3 line: Invalid device starting offset",
        "v3 line: Device lookup failed",
        "v3 line: Device too small for target",
        "kernel's line: made",
        "kernel's line: Invalid number of paths",
        "kernel's line: Invalid region size",
        "kernel's line: Invalid number of optional args",
        "kernel's line: Incorrect number of path arguments",
        "kernel's line: Invalid device starting offset",
        "kernel's line: Device lookup failed",
        "lookup: there is no such device",
        "lookup: it is no block device",
        "lookup: it is the mapped device itself",
        "lookup: it cannot be opened",
        "lookup: a path that is not printable",
        "table: past a device's end",
        "table: past a device's end, found out by a resume",
        "table: takes over the page table of the live one",
        "table: takes over the page table of the loaded one",
        "table: begins afresh",
        "table: replaces one that is loaded",
        "table: replaces one that is loaded, and its uploads",
        "table: cleared",
        "table: cleared, and its uploads",
        "table: resumed with its uploads",
        "table: resumed with its uploads instead of the live one's page table",
        "table: past a device's end, found out by a resume, and its uploads",
        "table: one of several switches",
        // Messages.
        "message: no table",
        "message: no such sector",
        "message: empty",
        "message: unknown",
        "message: to the live table, while a loaded one has uploads",
        "message: chunk_hits",
        "message: more chunks than are shown",
        "message: page_table",
        "message: page_table of pages that are not a number",
        "page_table: no page table",
        "page_table: no pages",
        "page_table: from a page on",
        "page_table: some pages",
        "page_table: past the end",
        "page_table: several lines",
        "page_table: pages without an entry between others",
        "page_table: pages that an upload left out",
        "page_table: the same entry across a border of chunks",
        "page_table: an entry without a device",
        "page_table: zeros before a whole word are left out",
        "page_table: zeros complete a word",
        "page_table: cut",
        "message: makes a page table",
        "message: sets a region",
        "message: sets the next region",
        "message: a cycle",
        "message: a cycle of nothing",
        "message: bad argument",
        "message: no such region",
        "message: no such device",
        "message: bad cycle",
        "message: cycle too long",
        "message: answer cut",
        // Status.
        "status: v3 info",
        "status: kernel's info",
        "status: v3 table",
        "status: kernel's table",
        "status: cut",
        "status: of the loaded table",
        "status: of the loaded table, with the live one's words, not those of its uploads",
        // Reads.
        "read: remapped",
        "read: a page that an upload left out",
        "read: no page table",
        "read: no such chunk in the table",
        "read: chunk not there",
        "read: past what was uploaded",
        "read: index without a device",
        "read: several pages in a piece",
        "read: several pieces",
        "read: several switches",
        "read: past the end",
        "read: of the live table, while a loaded one has uploads",
    ];

    /// What the older kernels say of no path.
    const NEWER: &'static [&'static str] = &["lookup: it is no block device"];

    fn new(facts: &Facts) -> Self {
        let can_happen =
            |branch: &&&str| !(facts.numbers_are_devices && Self::NEWER.contains(branch));
        let branches = Self::BRANCHES.iter().filter(can_happen);
        Coverage(branches.map(|branch| (*branch, 0)).collect())
    }

    fn add(&mut self, branch: &str) {
        match self.0.get_mut(branch) {
            Some(count) => *count += 1,
            None => panic!("no such branch: {branch}"),
        }
    }
}

/// The mapped devices.
pub struct Model {
    facts: Facts,
    devices: [Option<Device>; MINORS.len()],
    pub coverage: Coverage,
}

#[derive(Default)]
struct Device {
    live: Option<Vec<Switch>>,
    loaded: Option<Vec<Switch>>,
    /// Whether there were uploads for the loaded table alone.
    has_uploads: bool,
    suspended: bool,
    /// Whether a table was ever loaded.
    has_queue: bool,
}

/// A switch, a line of a table.
struct Switch {
    begin: u64,
    sectors: u64,
    page_size: u64,
    /// Its disks, each with the sector from which on it is used.
    members: Vec<(usize, u64)>,
    volume: Rc<RefCell<Volume>>,
    /// What it has instead from the resume on, for there were uploads for it alone.
    own: Option<Rc<RefCell<Volume>>>,
    remapped: u64,
    unmapped: u64,
}

/// What outlives a reload.
struct Volume {
    shape: Shape,
    table: Option<PageTable>,
    userland: [u32; 2],
}

impl Volume {
    fn new(shape: Shape) -> Self {
        Volume {
            shape,
            table: None,
            userland: [0, 0],
        }
    }
}

/// Which tables may have the same page table.
#[derive(Clone, Copy, PartialEq)]
struct Shape {
    is_v3: bool,
    members: usize,
    page_size: u64,
}

struct PageTable {
    bits: u32,
    total: u64,
    events: Vec<Event>,
    /// I/Os that fell into each chunk.
    hits: BTreeMap<u64, u64>,
}

/// What was done to a page table.
enum Event {
    /// The members take turns.
    Turns { members: u64 },
    /// Entries came, packed.
    Window {
        first: u64,
        count: u64,
        words: Vec<u8>,
    },
    /// A chunk was freed.
    Free { chunk: u64 },
    /// A page was given to a member.
    Set { page: u64, member: u64 },
    /// The pages behind one were made like those in front of them.
    Cycle { last: u64, length: u64, count: u64 },
}

/// Where a sector of a switch is.
struct Place {
    disk: usize,
    sector: u64,
    /// What the page table says of its page.
    entry: Option<u64>,
    /// Whether that is a member.
    is_mapped: bool,
}

/// What a page table says of a page.
#[derive(PartialEq)]
enum Entry {
    Uploaded(u64),
    /// A later page of the chunk was uploaded: its entry is 0.
    LeftOut,
    PastUploaded,
    NoChunk,
}

/// Where a page table has what it says of a page.
enum Source {
    /// The event with this number.
    Event(usize),
    LeftOut,
    PastUploaded,
    NoChunk,
}

impl Source {
    /// The entry of a page.
    fn entry(&self, table: &PageTable, page: u64) -> Entry {
        let number = match *self {
            Source::Event(number) => number,
            Source::LeftOut => return Entry::LeftOut,
            Source::PastUploaded => return Entry::PastUploaded,
            Source::NoChunk => return Entry::NoChunk,
        };
        Entry::Uploaded(match &table.events[number] {
            Event::Turns { members } => page % members,
            Event::Window { first, words, .. } => unpack(words, table.bits, page - first),
            Event::Set { member, .. } => *member,
            Event::Cycle { last, length, .. } => {
                let source = page - (page - last).div_ceil(*length) * length;
                match table.find_before(number, source) {
                    Entry::Uploaded(member) => member,
                    _ => 0,
                }
            }
            Event::Free { .. } => unreachable!("it has no pages"),
        })
    }
}

/// Pages behind one another that have the same entry.
struct Run {
    pages: Range<u64>,
    entry: u64,
}

impl Event {
    /// The pages that it gives entries to.
    fn pages(&self) -> Range<u64> {
        match *self {
            Event::Turns { .. } => 0..u64::MAX,
            Event::Window { first, count, .. } => first..first + count,
            Event::Free { .. } => 0..0,
            Event::Set { page, .. } => page..page + 1,
            Event::Cycle { last, count, .. } => last + 1..last + 1 + count,
        }
    }
}

/// Entries in a word.
fn per_word(bits: u32) -> u64 {
    u64::from(32 / bits)
}

/// The entry at `index` of packed words, of which the last byte may be missing.
pub fn unpack(words: &[u8], bits: u32, index: u64) -> u64 {
    let start = (index / per_word(bits)) as usize * 4;
    let byte = |at: usize| words.get(start + at).copied().unwrap_or(0);
    let word = u64::from(u32::from_ne_bytes([byte(0), byte(1), byte(2), byte(3)]));
    (word >> (index % per_word(bits) * u64::from(bits))) % (1 << bits)
}

impl PageTable {
    fn new(bits: u32, total: u64) -> Self {
        PageTable {
            bits,
            total,
            events: Vec::new(),
            hits: BTreeMap::new(),
        }
    }

    /// How many chunks it has room for.
    fn chunks(&self) -> u64 {
        self.total / CHUNK + 1
    }

    fn find(&self, page: u64) -> Entry {
        self.find_before(self.events.len(), page)
    }

    /// What it says after so many events.
    fn find_before(&self, events: usize, page: u64) -> Entry {
        self.source(events, page).entry(self, page)
    }

    /// Returns what decides the entry of `page` after the first `events` events. The same decides those of the pages
    /// after it, up to the next border of a chunk or of an event's pages.
    fn source(&self, events: usize, page: u64) -> Source {
        let chunk = page / CHUNK * CHUNK..(page / CHUNK + 1) * CHUNK;
        let (mut is_there, mut later) = (false, false);
        for (number, event) in self.events[..events].iter().enumerate().rev() {
            let pages = event.pages();
            if pages.contains(&page) {
                return Source::Event(number);
            }
            if matches!(event, Event::Free { chunk } if *chunk == page / CHUNK) {
                break;
            }
            let (start, end) = (pages.start.max(chunk.start), pages.end.min(chunk.end));
            if start < end {
                is_there = true;
                later |= end > page;
            }
        }
        match (is_there, later) {
            (_, true) => Source::LeftOut,
            (true, _) => Source::PastUploaded,
            _ => Source::NoChunk,
        }
    }

    /// The pages that have an entry, of these; those behind one another that have the same are one run. Stops
    /// where there are more runs than `most`.
    fn runs(&self, pages: Range<u64>, most: usize, coverage: &mut Coverage) -> Vec<Run> {
        let mut borders = vec![pages.start, pages.end];
        borders.extend((pages.start / CHUNK..=pages.end / CHUNK).map(|chunk| chunk * CHUNK));
        for event in &self.events {
            let Range { start, end } = event.pages();
            borders.extend([start, end]);
        }
        borders.retain(|border| (pages.start..=pages.end).contains(border));
        borders.sort_unstable();
        borders.dedup();
        let mut runs: Vec<Run> = Vec::new();
        for border in borders.windows(2) {
            let source = self.source(self.events.len(), border[0]);
            if matches!(source, Source::LeftOut) {
                coverage.add("page_table: pages that an upload left out");
            }
            for page in border[0]..border[1] {
                let entry = match source.entry(self, page) {
                    Entry::Uploaded(entry) => entry,
                    Entry::LeftOut => 0,
                    Entry::PastUploaded | Entry::NoChunk => break,
                };
                match runs.last_mut() {
                    Some(run) if run.entry == entry && run.pages.end == page => {
                        if page % CHUNK == 0 {
                            coverage.add("page_table: the same entry across a border of chunks");
                        }
                        run.pages.end += 1;
                    }
                    _ => runs.push(Run {
                        pages: page..page + 1,
                        entry,
                    }),
                }
                if runs.len() > most {
                    return runs;
                }
            }
        }
        runs
    }

    fn has_chunk(&self, chunk: u64) -> bool {
        self.find(chunk * CHUNK + CHUNK - 1) != Entry::NoChunk
    }
}

/// Bits for the numbers of so many members.
fn bits_of(members: usize) -> u32 {
    (1..).find(|bits| members <= 1 << bits).unwrap_or(64)
}

/// A decimal number of digits and nothing else, as far as it fits into 32 bits.
fn cut_decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| {
        let ten =
            |number: u64, digit: u8| number.wrapping_mul(10).wrapping_add((digit - b'0').into());
        text.bytes().fold(0, ten) & 0xffff_ffff
    })
}

/// A decimal number, with or without a plus before it, that fits into so many bits.
fn whole_decimal(text: &str, bits: u32) -> Option<u64> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits
        .parse::<u128>()
        .ok()
        .filter(|number| number >> bits == 0)?
        .try_into()
        .ok()
}

/// The decimal number that a text begins with, if it fits into 64 bits.
fn leading_decimal(text: &str) -> Option<u64> {
    let end = text
        .bytes()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

/// A hexadecimal number, less what of it does not fit into 64 bits.
fn hex(text: &str) -> Option<u64> {
    let mut number = 0_u64;
    for digit in text.chars() {
        number = (number << 4) | u64::from(digit.to_digit(16)?);
    }
    (!text.is_empty()).then_some(number)
}

/// A text as the module writes it to the log.
fn printable(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b' '..=b'~' => char::from(byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        })
        .collect()
}

/// What the paths of a table line lead to.
struct Paths<'a> {
    facts: &'a Facts,
    /// The node of the mapped device, where there is one.
    own: Option<String>,
    coverage: &'a mut Coverage,
}

impl Paths<'_> {
    /// The disk that a path leads to; or the errno, and what the log has of it before other lines.
    fn disk(&mut self, path: &str) -> Result<usize, (i32, String)> {
        let number = path.strip_prefix("/dev/ram").or(path.strip_prefix("1:"));
        let number = number.and_then(|number| number.parse().ok());
        if let Some(disk) = number.filter(|disk| *disk < DISKS) {
            return Ok(disk);
        }
        let errno = self.errno(path);
        let reason = match errno {
            2 | 6 | 19 => "there is no such device",
            15 => "it is no block device",
            22 => "it is the mapped device itself",
            _ => "it cannot be opened",
        };
        self.coverage.add(&format!("lookup: {reason}"));
        let shown = printable(path);
        if shown != path {
            self.coverage.add("lookup: a path that is not printable");
        }
        let line = format!("switch_ctr cannot use {shown}: {reason} (error -{errno})");
        Err((errno, line))
    }

    /// The errno for a path that leads to no disk.
    fn errno(&self, path: &str) -> i32 {
        match path {
            _ if self.own.as_deref() == Some(path) => EINVAL,
            "240:7" => 6,   // ENXIO
            "4096:1" => 75, // EOVERFLOW
            _ if self.facts.numbers_are_devices => {
                let number = hex(path.strip_prefix("0x").unwrap_or(path));
                match number.is_some_and(|number| number as u32 != 0) {
                    true => 6,   // ENXIO
                    false => 19, // ENODEV
                }
            }
            "/dev/null" | "/tmp" => 15, // ENOTBLK
            _ => 2,                     // ENOENT
        }
    }
}

/// A line that is refused: why, the errno, and what the module itself logs of it.
struct BadLine(&'static str, i32, Vec<String>);

fn bad<T>(text: &'static str) -> Result<T, BadLine> {
    Err(BadLine(text, EINVAL, Vec::new()))
}

/// A line of v3: page size and members.
fn v3_line(
    arguments: &[&str],
    sectors: u64,
    paths: &mut Paths<'_>,
) -> Result<(u64, Vec<(usize, u64)>), BadLine> {
    if arguments.len() < 4 {
        return bad("Insufficient arguments");
    }
    let Some(members) = whole_decimal(arguments[0], 32) else {
        return bad("Invalid device count");
    };
    if members != (arguments.len() as u64 - 2) / 2 {
        return bad("Invalid argument count");
    }
    let Some(page_size @ 1..) = whole_decimal(arguments[1], 32) else {
        let text = "Invalid page size";
        return Err(BadLine(text, EINVAL, vec![format!("switch_ctr {text}")]));
    };
    let mut taken = Vec::new();
    for pair in arguments[2..].chunks_exact(2) {
        let refuse = |text: &'static str, reason: Option<String>| {
            let [path, start] = [0, 1].map(|at| printable(pair[at]));
            let which = format!("switch_ctr device={path}, start={start}");
            let lines = reason.into_iter();
            let lines = lines.chain([which, format!("switch_ctr {text}")]);
            Err(BadLine(text, EINVAL, lines.collect()))
        };
        let Some(start) = leading_decimal(pair[1]) else {
            return refuse("Invalid device starting offset", None);
        };
        let disk = match paths.disk(pair[0]) {
            Ok(disk) => disk,
            Err((_, reason)) => return refuse("Device lookup failed", Some(reason)),
        };
        if sectors > DISK_SECTORS {
            return refuse("Device too small for target", None);
        }
        taken.push((disk, start));
    }
    Ok((page_size, taken))
}

/// A line of the kernel's own target: page size and members.
fn kernels_line(
    arguments: &[&str],
    paths: &mut Paths<'_>,
) -> Result<(u64, Vec<(usize, u64)>), BadLine> {
    let Some(members @ 1..=262_141) = cut_decimal(arguments[0]) else {
        return bad("Invalid number of paths");
    };
    let Some(page_size @ 1..) = cut_decimal(arguments[1]) else {
        return bad("Invalid region size");
    };
    if cut_decimal(arguments[2]) != Some(0) {
        return bad("Invalid number of optional args");
    }
    if arguments.len() as u64 - 3 != members * 2 {
        return bad("Incorrect number of path arguments");
    }
    let mut taken = Vec::new();
    for pair in arguments[3..].chunks_exact(2) {
        let disk = paths
            .disk(pair[0])
            .map_err(|(errno, reason)| BadLine("Device lookup failed", errno, vec![reason]))?;
        let Some(start) = whole_decimal(pair[1], 64) else {
            return bad("Invalid device starting offset");
        };
        taken.push((disk, start));
    }
    Ok((page_size, taken))
}

impl Switch {
    /// Whether a member has fewer sectors, from where it is used on, than the switch.
    fn is_past_an_end(&self) -> bool {
        let is_past = |start: u64| start > DISK_SECTORS || start + self.sectors > DISK_SECTORS;
        self.members.iter().any(|(_, start)| is_past(*start))
    }

    /// The table line's arguments.
    fn table(&self) -> String {
        let shape = self.volume.borrow().shape;
        let mut text = format!("{} {}", self.members.len(), self.page_size);
        if !shape.is_v3 {
            text += " 0";
        }
        for (disk, start) in &self.members {
            text += &format!(" 1:{disk} {start}");
        }
        text
    }

    /// What the status line says.
    fn info(&self) -> String {
        let volume = self.volume.borrow();
        if !volume.shape.is_v3 {
            return String::new();
        }
        let mut text = self.members.len().to_string();
        for (disk, _) in &self.members {
            text += &format!(" 1:{disk}");
        }
        let states = "A".repeat(self.members.len());
        let [first, second] = volume.userland;
        text + &format!(
            " 5 {states} {first:08x} {second:08x} {} {}",
            self.remapped, self.unmapped
        )
    }

    /// Where the sector at an offset from the begin is.
    fn place(&self, offset: u64, coverage: &mut Coverage) -> Place {
        let page = offset / self.page_size;
        let volume = self.volume.borrow();
        let (entry, branch) = match &volume.table {
            None => (None, "read: no page table"),
            Some(table) if page / CHUNK >= table.chunks() => {
                (None, "read: no such chunk in the table")
            }
            Some(table) => match table.find(page) {
                Entry::NoChunk => (None, "read: chunk not there"),
                Entry::PastUploaded => (None, "read: past what was uploaded"),
                Entry::LeftOut => (Some(0), "read: a page that an upload left out"),
                Entry::Uploaded(member) if member < self.members.len() as u64 => {
                    (Some(member), "read: remapped")
                }
                Entry::Uploaded(member) => (Some(member), "read: index without a device"),
            },
        };
        coverage.add(branch);
        let member = entry.and_then(|entry| self.members.get(entry as usize));
        let (disk, start) = member.unwrap_or(&self.members[0]);
        Place {
            disk: *disk,
            sector: start + offset,
            entry,
            is_mapped: member.is_some(),
        }
    }

    /// Counts an I/O.
    fn count(&mut self, offset: u64, is_mapped: bool) {
        if is_mapped {
            self.remapped += 1;
        } else {
            self.unmapped += 1;
        }
        let chunk = offset / self.page_size / CHUNK;
        if let Some(table) = &mut self.volume.borrow_mut().table {
            if chunk < table.chunks() {
                *table.hits.entry(chunk).or_default() += 1;
            }
        }
    }
}

/// The end of a text that is written with room for so many bytes; none where it is cut.
fn fits(text: &str, room: usize) -> Option<usize> {
    (text.len() + 1 < room).then_some(text.len() + 1)
}

/// What an upload is for, by its numbers of devices and pages.
enum Aim {
    Live,
    Loaded,
    /// The loaded table alone has these numbers.
    LoadedAlone,
}

impl Device {
    /// The switch that an upload is for: the first of the live table, or else of the loaded one; but of the loaded
    /// one where that has these numbers and the live one has not.
    fn aim(&self, members: u64, total: u64, coverage: &mut Coverage) -> Option<Aim> {
        let numbers = |table: &Option<Vec<Switch>>| {
            let switch = table.as_ref()?.first()?;
            let pages = switch.sectors.div_ceil(switch.page_size);
            Some((switch.members.len() as u64, pages))
        };
        let is_for = |of: (u64, u64)| of == (members, total);
        let is_for_table_in_force = || {
            let switch = self.live.as_ref().and_then(|table| table.first());
            switch.is_some_and(|switch| {
                let volume = switch.volume.borrow();
                let table = volume.table.as_ref();
                members == switch.members.len() as u64
                    && table.is_some_and(|table| table.total == total)
            })
        };
        let (aim, branch) = match (numbers(&self.live), numbers(&self.loaded)) {
            (None, None) => return None,
            (Some(_), None) => return Some(Aim::Live),
            (None, Some(_)) => (Aim::Loaded, "upload: for the loaded table, none is live"),
            (Some(live), Some(loaded)) => match (is_for(live), is_for(loaded)) {
                (true, true) => (
                    Aim::Live,
                    "upload: for the live table, as many devices and pages as both have",
                ),
                (true, false) => (Aim::Live, "upload: for the live table alone"),
                (false, true) if is_for_table_in_force() => (
                    Aim::Live,
                    "upload: for the page table in force, with the pages of the loaded table",
                ),
                (false, true) => (Aim::LoadedAlone, "upload: for the loaded table alone"),
                (false, false) => (
                    Aim::Live,
                    "upload: for the live table, as many devices and pages as none has",
                ),
            },
        };
        coverage.add(branch);
        Some(aim)
    }

    /// Forgets the loaded table, and says whether there was one, and uploads for it alone.
    fn take_loaded(&mut self) -> Option<(Vec<Switch>, bool)> {
        let has_uploads = take(&mut self.has_uploads);
        Some((self.loaded.take()?, has_uploads))
    }
}

impl Model {
    pub fn new(facts: Facts) -> Self {
        Model {
            facts,
            devices: Default::default(),
            coverage: Coverage::new(&facts),
        }
    }

    /// Forgets the devices.
    pub fn clear(&mut self) {
        self.devices = Default::default();
    }

    /// Whether a step can be done: without the steps before it, it may have no device, or have to wait.
    pub fn allows(&self, step: &Step) -> bool {
        let there = |device: usize| self.devices[device].as_ref();
        let is_live = |device| there(device).is_some_and(|device| device.live.is_some());
        match *step {
            Step::Create { device } => there(device).is_none(),
            Step::Send { ref requests } => {
                let are_whole = requests.iter().all(|request| request.length_off == 0);
                are_whole || !self.is_for_another_family(&self.bytes(requests))
            }
            Step::Suspend { device } => is_live(device),
            Step::Resume { device } => {
                is_live(device) || there(device).is_some_and(|device| device.loaded.is_some())
            }
            Step::Read { device, .. } => {
                is_live(device) && there(device).is_some_and(|device| !device.suspended)
            }
            Step::Load { device, .. }
            | Step::Clear { device }
            | Step::Remove { device }
            | Step::Status { device, .. }
            | Step::Message { device, .. } => there(device).is_some(),
        }
    }

    /// Does an allowed step, and says what it comes to.
    pub fn run(&mut self, step: &Step) -> Outcome {
        let mut log = Vec::new();
        let result = match step {
            Step::Create { device } => {
                self.devices[*device] = Some(Device::default());
                Ok(Answer::Nothing)
            }
            Step::Remove { device } => {
                self.devices[*device] = None;
                Ok(Answer::Nothing)
            }
            Step::Clear { device } => {
                if let Some((_, has_uploads)) = self.device(*device).take_loaded() {
                    self.coverage.add(match has_uploads {
                        true => "table: cleared, and its uploads",
                        false => "table: cleared",
                    });
                }
                Ok(Answer::Nothing)
            }
            Step::Suspend { device } => {
                self.device(*device).suspended = true;
                Ok(Answer::Nothing)
            }
            Step::Resume { device } => self.resume(*device),
            Step::Load { device, table } => self.load(*device, table, &mut log),
            Step::Status {
                device,
                asked,
                loaded,
                room,
            } => Ok(self.status(*device, *asked, *loaded, *room)),
            Step::Message {
                device,
                sector,
                text,
                room,
            } => self.message(*device, *sector, text, *room, &mut log),
            Step::Send { requests } => {
                let bytes = self.bytes(requests);
                Ok(Answer::Datagrams(self.datagram(&bytes, &mut log)))
            }
            Step::Read {
                device,
                sector,
                count,
            } => Ok(Answer::Sectors(self.read(*device, *sector, *count))),
        };
        Outcome { result, log }
    }

    fn device(&mut self, device: usize) -> &mut Device {
        self.devices[device].as_mut().expect("the step is allowed")
    }

    fn load(
        &mut self,
        device: usize,
        table: &[Line],
        log: &mut Vec<String>,
    ) -> Result<Answer, i32> {
        let (major, minor) = (self.facts.major, MINORS[device]);
        let mut switches: Vec<Switch> = Vec::new();
        let mut begin = 0;
        for line in table {
            match self.construct(device, line, begin) {
                Ok(switch) => switches.push(switch),
                Err(BadLine(text, errno, lines)) => {
                    log.extend(lines.iter().map(|line| format!("dm_switch: {line}")));
                    log.push(format!(
                        "device-mapper: table: {major}:{minor}: switch: {text}"
                    ));
                    return Err(errno);
                }
            }
            begin += line.sectors;
        }
        if switches.len() > 1 {
            self.coverage.add("table: one of several switches");
        }
        // Device-mapper itself looks at the devices' ends when it first has a table, and later when it
        // makes one the live one.
        if !self.device(device).has_queue && switches.iter().any(Switch::is_past_an_end) {
            self.coverage.add("table: past a device's end");
            return Err(EINVAL);
        }
        let replaced = self.device(device).take_loaded();
        if let Some((_, has_uploads)) = replaced {
            self.coverage.add(match has_uploads {
                true => "table: replaces one that is loaded, and its uploads",
                false => "table: replaces one that is loaded",
            });
        }
        let device = self.device(device);
        device.has_queue = true;
        device.loaded = Some(switches);
        Ok(Answer::Nothing)
    }

    fn resume(&mut self, device: usize) -> Result<Answer, i32> {
        let Model {
            devices, coverage, ..
        } = self;
        let device = devices[device].as_mut().expect("the step is allowed");
        if let Some((mut table, has_uploads)) = device.take_loaded() {
            if table.iter().any(Switch::is_past_an_end) {
                device.suspended = true;
                coverage.add("table: past a device's end, found out by a resume");
                if has_uploads {
                    coverage
                        .add("table: past a device's end, found out by a resume, and its uploads");
                }
                return Err(EINVAL);
            }
            if has_uploads {
                coverage.add("table: resumed with its uploads");
            }
            for switch in &mut table {
                if let Some(own) = switch.own.take() {
                    coverage.add(
                        "table: resumed with its uploads instead of the live one's page table",
                    );
                    switch.volume = own;
                }
            }
            device.live = Some(table);
        }
        device.suspended = false;
        Ok(Answer::Nothing)
    }

    fn construct(&mut self, device: usize, line: &Line, begin: u64) -> Result<Switch, BadLine> {
        let arguments: Vec<&str> = line.arguments.split_ascii_whitespace().collect();
        let is_v3 = arguments.len() < 3 || cut_decimal(arguments[2]).is_none();
        let kind = if is_v3 { "v3 line" } else { "kernel's line" };
        let minor = MINORS[device];
        let Model {
            facts,
            devices,
            coverage,
        } = self;
        let device = devices[device].as_ref().expect("the step is allowed");
        let mut paths = Paths {
            facts,
            // There is none before the device has its first table.
            own: device.has_queue.then(|| format!("/dev/dm-{minor}")),
            coverage,
        };
        let made = match is_v3 {
            true => v3_line(&arguments, line.sectors, &mut paths),
            false => kernels_line(&arguments, &mut paths),
        };
        let outcome = made.as_ref().map_or_else(|bad| bad.0, |_| "made");
        coverage.add(&format!("{kind}: {outcome}"));
        let (page_size, members) = made?;
        let shape = Shape {
            is_v3,
            members: members.len(),
            page_size,
        };
        // Of the live table, or of the loaded one that is replaced where there is no live one.
        let old = device.live.as_ref().or(device.loaded.as_ref());
        let old = old.and_then(|table| table.iter().find(|switch| switch.begin == begin));
        let kept = old.filter(|old| is_v3 && old.volume.borrow().shape == shape);
        let (branch, volume) = match (kept, old) {
            (Some(old), _) => {
                let branch = match device.live {
                    Some(_) => "table: takes over the page table of the live one",
                    None => "table: takes over the page table of the loaded one",
                };
                (branch, old.volume.clone())
            }
            (None, old) => {
                let mut table = None;
                if !is_v3 {
                    let total = line.sectors.div_ceil(page_size);
                    let mut turns = PageTable::new(bits_of(members.len()), total);
                    turns.events.push(Event::Turns {
                        members: members.len() as u64,
                    });
                    table = Some(turns);
                }
                let volume = Volume {
                    table,
                    ..Volume::new(shape)
                };
                let branch = if old.is_some() {
                    "table: begins afresh"
                } else {
                    ""
                };
                (branch, Rc::new(RefCell::new(volume)))
            }
        };
        if !branch.is_empty() {
            coverage.add(branch);
        }
        Ok(Switch {
            begin,
            sectors: line.sectors,
            page_size,
            members,
            volume,
            own: None,
            remapped: 0,
            unmapped: 0,
        })
    }

    /// The lines, as device-mapper puts them one behind the other.
    fn status(&mut self, device: usize, asked: Asked, loaded: bool, room: usize) -> Answer {
        let device = self.devices[device].as_ref().expect("the step is allowed");
        let table = if loaded { &device.loaded } else { &device.live };
        let (mut lines, mut used) = (String::new(), 0_usize);
        for switch in table.iter().flatten() {
            if loaded && asked == Asked::Info && switch.own.is_some() {
                self.coverage.add(
                    "status: of the loaded table, with the live one's words, not those of its uploads",
                );
            }
            let kind = if switch.volume.borrow().shape.is_v3 {
                "v3"
            } else {
                "kernel's"
            };
            let (text, what) = match asked {
                Asked::Info => (switch.info(), "info"),
                Asked::Table => (switch.table(), "table"),
            };
            // The target's name and numbers come in 40 bytes before the text.
            let end = room
                .checked_sub(used + 40)
                .and_then(|room| fits(&text, room));
            let next = end.map(|end| (used + 40 + end).next_multiple_of(8));
            let Some(next) = next.filter(|next| *next <= room) else {
                self.coverage.add("status: cut");
                return Answer::Cut;
            };
            used = next;
            self.coverage.add(&format!("status: {kind} {what}"));
            lines += &format!("{} {} switch {text}\n", switch.begin, switch.sectors);
        }
        if loaded && !lines.is_empty() {
            self.coverage.add("status: of the loaded table");
        }
        Answer::Text(lines)
    }

    fn message(
        &mut self,
        device: usize,
        sector: u64,
        text: &str,
        room: usize,
        log: &mut Vec<String>,
    ) -> Result<Answer, i32> {
        let Model {
            devices, coverage, ..
        } = self;
        let device = devices[device].as_mut().expect("the step is allowed");
        let arguments: Vec<&str> = text.split_ascii_whitespace().collect();
        let Some((name, arguments)) = arguments.split_first() else {
            coverage.add("message: empty");
            return Err(EINVAL);
        };
        let Some(table) = &mut device.live else {
            coverage.add("message: no table");
            return Err(EINVAL);
        };
        if device.has_uploads {
            coverage.add("message: to the live table, while a loaded one has uploads");
        }
        let hit = |switch: &&mut Switch| sector < switch.begin + switch.sectors;
        let Some(switch) = table.iter_mut().find(hit) else {
            coverage.add("message: no such sector");
            return Err(EINVAL);
        };
        if name.eq_ignore_ascii_case("set_region_mappings") {
            return match set_regions(switch, arguments, coverage) {
                Ok(()) => Ok(Answer::Nothing),
                Err(text) => {
                    log.push(format!("dm_switch: invalid set_region_mappings {text}"));
                    Err(EINVAL)
                }
            };
        }
        let volume = switch.volume.borrow();
        // There is as much room as the message took, 8 bytes in front of it, at least.
        let room = room.max(8 + text.len() + 1);
        let answer = match (*name, arguments) {
            ("chunk_hits", []) => chunk_hits(&volume, coverage),
            ("page_table", arguments) if arguments.len() < 3 => {
                let numbers = arguments.iter().map(|text| whole_decimal(text, 32));
                let Some(numbers) = numbers.collect::<Option<Vec<u64>>>() else {
                    coverage.add("message: page_table of pages that are not a number");
                    log.push(
                        "dm_switch: page_table: FIRST and COUNT are decimal numbers of pages, below 4294967296"
                            .into(),
                    );
                    return Err(EINVAL);
                };
                page_list(&volume, &numbers, room, coverage)
            }
            _ => {
                coverage.add("message: unknown");
                log.push(
                    "dm_switch: Unrecognised message received.  There are: set_region_mappings, chunk_hits, \
                     page_table [FIRST [COUNT]]"
                        .into(),
                );
                return Err(EINVAL);
            }
        };
        if fits(&answer, room).is_none() {
            coverage.add("message: answer cut");
            if *name == "page_table" {
                coverage.add("page_table: cut");
            }
            return Ok(Answer::Cut);
        }
        Ok(Answer::Text(answer))
    }

    /// What comes back for a datagram.
    fn datagram(&mut self, mut bytes: &[u8], log: &mut Vec<String>) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        while bytes.len() >= 16 {
            let Some((request, rest)) = split_message(bytes) else {
                self.coverage.add("netlink: a length that is not there");
                break;
            };
            let (kind, flags) = (half(request, 4), half(request, 6));
            let error = if flags & 1 == 0 {
                self.coverage.add("netlink: no request");
                0
            } else if kind < 16 {
                self.coverage.add("netlink: a control message");
                0
            } else {
                self.command(request, &mut answers, log)
            };
            if error != 0 || flags & 4 != 0 {
                self.coverage.add("netlink: acknowledged");
                answers.push(self.acknowledge(request, error));
            }
            bytes = rest;
        }
        answers
    }

    fn bytes(&self, requests: &[Request]) -> Vec<u8> {
        requests
            .iter()
            .flat_map(|request| request.bytes(&self.facts))
            .collect()
    }

    /// Whether a datagram has a message for a family of which the model knows nothing, as it may where a
    /// length is wrong. Families have numbers up to 1023.
    fn is_for_another_family(&self, mut bytes: &[u8]) -> bool {
        while let Some((request, rest)) = split_message(bytes) {
            let kind = half(request, 4);
            if (16..1024).contains(&kind) && kind != self.facts.family {
                return true;
            }
            bytes = rest;
        }
        false
    }

    /// The kernel's error message, with an errno and the request, or its acknowledgement.
    fn acknowledge(&self, request: &[u8], errno: i32) -> Vec<u8> {
        let is_short = errno == 0;
        let copied = if is_short { &request[..16] } else { request };
        let length = (20 + copied.len()).next_multiple_of(4);
        let mut bytes = (length as u32).to_ne_bytes().to_vec();
        bytes.extend(2_u16.to_ne_bytes());
        bytes.extend((if is_short { 0x100_u16 } else { 0 }).to_ne_bytes());
        bytes.extend(&request[8..12]);
        bytes.extend(self.facts.port.to_ne_bytes());
        bytes.extend((-errno).to_ne_bytes());
        bytes.extend(copied);
        bytes.resize(length, 0);
        bytes
    }

    /// Does a generic netlink command, and returns an errno.
    fn command(
        &mut self,
        request: &[u8],
        answers: &mut Vec<Vec<u8>>,
        log: &mut Vec<String>,
    ) -> i32 {
        if half(request, 4) != self.facts.family {
            self.coverage.add("netlink: no such family");
            return 2;
        }
        if request.len() < 20 {
            self.coverage.add("netlink: no genetlink header");
            return EINVAL;
        }
        let (flags, command) = (half(request, 6), request[16]);
        let is_dump = flags & 0x300 == 0x300;
        // The kernel looks more closely at commands that are none of old userland's.
        let others = if is_dump { flags & !0x300 } else { flags } & !0xd;
        if command > 1 && (half(request, 18) != 0 || others != 0) {
            self.coverage
                .add("netlink: the header of a command that there is not");
            return EINVAL;
        }
        if is_dump {
            self.coverage.add("netlink: a dump");
            return 95;
        }
        if command != 1 {
            self.coverage.add("netlink: no such command");
            return 95;
        }
        let mut found = None;
        let mut rest = &request[20..];
        while rest.len() >= 4 {
            let length = usize::from(half(rest, 0));
            if length < 4 || length > rest.len() {
                self.coverage.add("netlink: attribute cut short");
                break;
            }
            if half(rest, 2) & 0x3fff == 1 {
                if length - 4 > 65480 {
                    self.coverage.add("netlink: attribute too long");
                    return 34;
                }
                if found.is_some() {
                    self.coverage.add("netlink: attribute repeated");
                }
                found = Some(&rest[4..length]);
            } else {
                self.coverage.add("netlink: other attribute");
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        let Some(message) = found else {
            self.coverage.add("netlink: no attribute");
            log.push("dm_switch: get_page_tbl no info->attrs 1".into());
            return 0;
        };
        let refusal = self.upload(message, log).err();
        if let Some(text) = &refusal {
            log.push(format!("dm_switch: get_page_tbl WARNING: {text}"));
        }
        answers.push(self.answer(request, message, refusal));
        0
    }

    /// The answer to an upload.
    fn answer(&self, request: &[u8], message: &[u8], refusal: Option<String>) -> Vec<u8> {
        let mut bytes = 308_u32.to_ne_bytes().to_vec();
        bytes.extend(self.facts.family.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&request[8..12]);
        bytes.extend([0, 0, 0, 0, 1, 1, 0, 0]);
        bytes.extend(288_u16.to_ne_bytes());
        bytes.extend(11_u16.to_ne_bytes());
        bytes.extend(284_u32.to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        // The fields that a short message lacks are 0.
        let header = header(message);
        bytes.extend(&header[8..24]);
        let status = if refusal.is_some() { EINVAL } else { 0 };
        bytes.extend(status.to_ne_bytes());
        bytes.extend(refusal.unwrap_or_default().as_bytes());
        bytes.resize(308, 0);
        bytes
    }

    /// Does an upload, or says why not.
    fn upload(&mut self, message: &[u8], log: &mut Vec<String>) -> Result<(), String> {
        let Model {
            facts,
            devices,
            coverage,
        } = self;
        let Window {
            total,
            first,
            count,
            members,
            bits,
        } = check_upload(message).map_err(|Refused(branch, text)| {
            coverage.add(branch);
            text
        })?;
        let header = header(message);
        let number = [word(&header, 16), word(&header, 20)];
        let is_meant = |minor: &u32| number == [facts.major, *minor];
        let device = MINORS
            .iter()
            .position(is_meant)
            .and_then(|device| devices[device].as_mut());
        let aim = device
            .as_ref()
            .and_then(|device| device.aim(members, total, coverage));
        let Some((device, aim)) = device.zip(aim) else {
            let [major, minor] = number.map(|number| number as i32);
            let text = format!("{INVALID}: invalid target device {major}:{minor}");
            coverage.add("upload: no such device");
            return Err(text);
        };
        let is_alone = matches!(aim, Aim::LoadedAlone);
        if count == 0 && first % CHUNK != 0 {
            let text = format!(
                "Cannot deallocate chunk if page_offset ({first:#x}) is not aligned to a chunk boundary \
                 (0x2000)"
            );
            if is_alone {
                coverage.add("upload: for the loaded table alone, refused");
            }
            coverage.add("upload: chunk to be freed not aligned");
            return Err(text);
        }

        let first_of = |table: &Option<Vec<Switch>>| {
            let switch = table.as_ref().and_then(|table| table.first());
            switch.map(|switch| switch.volume.clone())
        };
        let live = first_of(&device.live);
        let volume = match (aim, live, device.loaded.as_mut()) {
            (Aim::LoadedAlone, Some(live), Some(table)) => {
                device.has_uploads = true;
                if table.len() > 1 {
                    coverage.add("upload: for the loaded table alone, of several switches");
                }
                let switch = &mut table[0];
                let shape = switch.volume.borrow().shape;
                if !shape.is_v3 {
                    coverage
                        .add("upload: for the loaded table alone, which is of the kernel's line");
                }
                // What the live one has stays the live one's.
                if Rc::ptr_eq(&live, &switch.volume) {
                    coverage.add("upload: for the loaded table alone, which shared the live one's page table");
                    let own = || Rc::new(RefCell::new(Volume::new(shape)));
                    switch.own.get_or_insert_with(own).clone()
                } else {
                    switch.volume.clone()
                }
            }
            (_, Some(live), _) => live,
            (_, None, loaded) => loaded.expect("one of the two is there")[0].volume.clone(),
        };
        let mut volume = volume.borrow_mut();
        let own_members = volume.shape.members as u64;
        let branch = match &volume.table {
            None => "upload: the first table",
            _ if members != own_members => "upload: anew for another number of devices",
            Some(table) if bits != table.bits => "upload: anew for another entry size",
            Some(table) if total != table.total => "upload: anew for another number of pages",
            Some(_) => "upload: in place",
        };
        coverage.add(branch);
        if branch.contains("anew") {
            log.push(
                "dm_switch: Reallocating page table due to change in parameters: \
                 Existing page table entries will be freed"
                    .into(),
            );
        }
        if branch != "upload: in place" {
            volume.table = Some(PageTable::new(bits, total));
        }
        volume.userland = [word(&header, 8), word(&header, 12)];
        let Some(table) = &mut volume.table else {
            unreachable!("there is one now");
        };
        if count == 0 {
            let chunk = first / CHUNK;
            coverage.add(match table.has_chunk(chunk) {
                true => "upload: frees a chunk",
                false => "upload: frees a chunk that is not there",
            });
            table.events.push(Event::Free { chunk });
            return Ok(());
        }
        if first / CHUNK != (first + count - 1) / CHUNK {
            coverage.add("upload: across a border of chunks");
        }
        if message.len() as u64 + 4 == wanted_length(bits, count) {
            coverage.add("upload: the last byte is missing");
        }
        let words = message[40..].to_vec();
        table.events.push(Event::Window {
            first,
            count,
            words,
        });
        Ok(())
    }

    /// What the sectors of a read have in them. An I/O is cut where a switch ends, and between pages of which the page
    /// table does not say the same.
    fn read(&mut self, device: usize, sector: u64, count: usize) -> Vec<String> {
        let Model {
            devices, coverage, ..
        } = self;
        let device = devices[device].as_mut().expect("the step is allowed");
        if device.has_uploads {
            coverage.add("read: of the live table, while a loaded one has uploads");
        }
        let table = device.live.as_mut().expect("the step is allowed");
        let mut names = Vec::new();
        let mut piece = None;
        for sector in sector..sector + count as u64 {
            let hit = |switch: &Switch| sector < switch.begin + switch.sectors;
            let Some(number) = table.iter().position(hit) else {
                coverage.add("read: past the end");
                break;
            };
            let switch = &mut table[number];
            let offset = sector - switch.begin;
            let place = switch.place(offset, coverage);
            names.push(if has_name(place.sector) {
                format!("{}/{}", place.disk, place.sector)
            } else {
                String::new()
            });
            let this = (number, place.entry);
            match piece {
                Some(before) if before == this => {
                    if offset % switch.page_size == 0 {
                        coverage.add("read: several pages in a piece");
                    }
                }
                Some((before, _)) if before == number => coverage.add("read: several pieces"),
                Some(_) => coverage.add("read: several switches"),
                None => {}
            }
            if piece != Some(this) {
                switch.count(offset, place.is_mapped);
            }
            piece = Some(this);
        }
        names
    }
}

/// What an upload says of its window.
pub struct Window {
    /// Entries of the whole table.
    pub total: u64,
    pub first: u64,
    pub count: u64,
    /// Members that the switch is said to have.
    pub members: u64,
    pub bits: u32,
}

/// Why an upload is refused: the branch, and the text of the answer.
pub struct Refused(pub &'static str, pub String);

/// The length of the shortest attribute with `count` entries. Its last byte may be missing.
fn wanted_length(bits: u32, count: u64) -> u64 {
    43 + count.div_ceil(per_word(bits)) * 4
}

/// What an upload says, if all is well with it by itself.
pub fn check_upload(message: &[u8]) -> Result<Window, Refused> {
    let length = message.len() as u64 + 4;
    let header = header(message);
    let [total, first, count] = [24, 28, 32].map(|at| u64::from(word(&header, at)));
    let (members, bits) = (u64::from(half(&header, 36)), u32::from(header[38]));
    let refuse = |branch, text| Err(Refused(branch, text));
    if length < 44 {
        return refuse(
            "upload: too short",
            format!("{INVALID}: too short ({length})"),
        );
    }
    let sum = first + count;
    if sum > total {
        let (branch, sum) = match u32::try_from(sum) {
            Ok(sum) => ("upload: too many entries", (sum as i32).to_string()),
            Err(_) => (
                "upload: too many entries, the sum above 32 bits",
                sum.to_string(),
            ),
        };
        let total = total as u32 as i32;
        let text = format!("{INVALID}: too many page table entries ({sum} > {total})");
        return refuse(branch, text);
    }
    let mask = (1_u64 << bits.min(32)) - 1;
    if (members.wrapping_sub(1) & 0xffff_ffff) & !mask != 0 {
        let text = format!("{INVALID}: invalid mask {mask:#x} for {members} devices");
        return refuse("upload: invalid mask", text);
    }
    if bits == 0 || bits > 32 {
        let text = format!("{INVALID}: invalid entry size ({bits} bits)");
        return refuse("upload: invalid entry size", text);
    }
    let each = per_word(bits);
    if first % each != 0 {
        let text = format!(
            "{INVALID}: Unaligned message (Beginning offset {first} must be an even multiple of {each})"
        );
        return refuse("upload: unaligned", text);
    }
    let wanted = wanted_length(bits, count);
    if wanted > length {
        let text = format!("{INVALID}: incomplete messsage (data {wanted} > nl_len {length})");
        return refuse("upload: incomplete", text);
    }
    if total / CHUNK + 1 > 128 {
        let text = format!(
            "More page table entries than maximum allowed ({total} > {})",
            128 * CHUNK
        );
        return refuse("upload: larger than the maximum", text);
    }
    Ok(Window {
        total,
        first,
        count,
        members,
        bits,
    })
}

/// The first netlink message, if it is there, and what is behind it.
fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = word(bytes.get(..16)?, 0) as usize;
    let message = bytes.get(..length).filter(|_| length >= 16)?;
    let next = length.next_multiple_of(4).min(bytes.len());
    Some((message, &bytes[next..]))
}

/// The fields of a message before its entries; those that it lacks are 0.
fn header(message: &[u8]) -> [u8; 40] {
    let mut header = [0; 40];
    let there = message.len().min(40);
    header[..there].copy_from_slice(&message[..there]);
    header
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

/// The answer to the message `chunk_hits`.
fn chunk_hits(volume: &Volume, coverage: &mut Coverage) -> String {
    coverage.add("message: chunk_hits");
    let chunks = volume.table.as_ref().map_or(0, PageTable::chunks);
    let mut answer = chunks.to_string();
    for chunk in 0..chunks.min(128) {
        let hits = volume
            .table
            .as_ref()
            .and_then(|table| table.hits.get(&chunk));
        answer += &format!(" {}", hits.unwrap_or(&0));
    }
    if chunks > 128 {
        coverage.add("message: more chunks than are shown");
    }
    answer
}

/// The token for pages that have the same entry.
fn run_of(entry: u64, count: u64) -> String {
    match count {
        1 => format!("{entry:x}"),
        _ => format!("{entry:x}*{count}"),
    }
}

/// The answer to the message `page_table` with these numbers, a first page and a count: what swupload takes for a file
/// of the same entries. Where it does not fit, its end may be missing.
fn page_list(volume: &Volume, numbers: &[u64], room: usize, coverage: &mut Coverage) -> String {
    coverage.add("message: page_table");
    let Some(table) = &volume.table else {
        coverage.add("page_table: no page table");
        return "# no page table\n".into();
    };
    let first = numbers.first().copied().unwrap_or(0);
    let end = numbers.get(1).map_or(table.total, |count| first + count);
    match numbers.len() {
        0 => {}
        _ if first >= table.total => coverage.add("page_table: past the end"),
        1 => coverage.add("page_table: from a page on"),
        _ => coverage.add("page_table: some pages"),
    }
    let [one, two] = volume.userland;
    let mut answer = format!(
        "# swupload -b {} -n {} -t {} -u {one:08x},{two:08x}\n",
        table.bits,
        // No more than the bits of an entry can name.
        (volume.shape.members as u64).min(1 << table.bits),
        table.total
    );
    let (mut tokens, mut next) = (Vec::new(), 0);
    // Each takes two characters at least.
    for run in table.runs(first..end.min(table.total), room / 2, coverage) {
        let Run {
            pages: Range { mut start, end },
            entry,
        } = run;
        // After a gap swupload continues at a whole word. To the first device go both pages with a 0 and those of the
        // gap: the former may be left out, the latter may be given.
        let word = start.next_multiple_of(per_word(table.bits));
        if start != next && entry == 0 && start != word && word <= end {
            coverage.add("page_table: zeros before a whole word are left out");
            start = word;
            if start == end {
                continue;
            }
        }
        let begin = (start / per_word(table.bits) * per_word(table.bits))
            .max(first)
            .max(next);
        if start != next && begin != next {
            tokens.push(format!("@{begin}"));
            if tokens.len() > 1 {
                coverage.add("page_table: pages without an entry between others");
            }
        }
        if start != next && begin != start {
            coverage.add("page_table: zeros complete a word");
            tokens.push(run_of(0, start - begin));
        }
        if entry >= volume.shape.members as u64 {
            coverage.add("page_table: an entry without a device");
        }
        tokens.push(run_of(entry, end - start));
        next = end;
    }
    match tokens.len() {
        0 => coverage.add("page_table: no pages"),
        1..=32 => {}
        _ => coverage.add("page_table: several lines"),
    }
    for line in tokens.chunks(32) {
        answer += &line.join(" ");
        answer.push('\n');
    }
    answer
}

/// Does what the message `set_region_mappings` says, argument by argument, up to the first that is bad.
fn set_regions(
    switch: &mut Switch,
    arguments: &[&str],
    coverage: &mut Coverage,
) -> Result<(), String> {
    let pages = switch.sectors.div_ceil(switch.page_size);
    let mut volume = switch.volume.borrow_mut();
    let shape = volume.shape;
    let mut region = 0_u64;
    for argument in arguments {
        let total = volume.table.as_ref().map_or(pages, |table| table.total);
        let nameable = volume
            .table
            .as_ref()
            .map_or(u64::MAX, |table| 1 << table.bits);
        let members = nameable.min(shape.members as u64);
        let mut bad = || {
            coverage.add("message: bad argument");
            format!("argument: '{}'", printable(argument))
        };
        let event = if let Some(cycle) = argument.strip_prefix(['R', 'r']) {
            let (length, count) = cycle.split_once(',').ok_or_else(&mut bad)?;
            let length = hex(length).ok_or_else(&mut bad)?;
            let count = hex(count).ok_or_else(&mut bad)?;
            if length == 0 || length - 1 > region {
                coverage.add("message: bad cycle");
                return Err(format!(
                    "cycle length: {} > {region}",
                    length.wrapping_sub(1)
                ));
            }
            if u128::from(region) + u128::from(count) >= total.into() {
                coverage.add("message: cycle too long");
                return Err(format!("region number: {region} + {count} >= {total}"));
            }
            if count == 0 {
                coverage.add("message: a cycle of nothing");
                continue;
            }
            coverage.add("message: a cycle");
            let last = region;
            region += count;
            Event::Cycle {
                last,
                length,
                count,
            }
        } else {
            let (at, member) = argument.split_once(':').ok_or_else(&mut bad)?;
            let page = match at {
                "" => region + 1,
                _ => hex(at).ok_or_else(&mut bad)?,
            };
            let member = hex(member).ok_or_else(&mut bad)?;
            if page >= total {
                coverage.add("message: no such region");
                return Err(format!("region number: {page} >= {total}"));
            }
            if member >= members {
                coverage.add("message: no such device");
                return Err(format!("device: {member} >= {members}"));
            }
            coverage.add(match at {
                "" => "message: sets the next region",
                _ => "message: sets a region",
            });
            region = page;
            Event::Set { page, member }
        };
        let table = volume.table.get_or_insert_with(|| {
            coverage.add("message: makes a page table");
            // As many bits as swupload would take.
            PageTable::new(bits_of(shape.members).next_power_of_two(), pages)
        });
        table.events.push(event);
    }
    Ok(())
}
