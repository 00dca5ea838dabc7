// SPDX-License-Identifier: GPL-2.0-only

//! What a script is made of: plain values, and the bytes that they stand for on the wire.
//!
//! The constants are written down again here by intent: a test that took the module's would take
//! its mistakes, too.

use std::fmt::{self, Debug, Display};
use std::rc::Rc;

use super::random::Random;

/// The mapped devices of a script, each with a minor number of its own.
pub const MINORS: [u32; 4] = [0, 255, 256, 1_048_575];

/// The disks under them, `/dev/ram0` and on.
pub const DISKS: usize = 4;

/// Sectors of a disk: 136 chunks of pages of one sector.
pub const DISK_SECTORS: u64 = 136 * 8192;

/// Whether a sector of a disk has its name in it, `DISK/SECTOR`. Others are zeros, for names everywhere
/// would take too much memory.
pub fn has_name(sector: u64) -> bool {
    sector < 16384 || (sector + 128) % 8192 < 256
}

/// What differs from one run to another, and no test can choose.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The number of the netlink family.
    pub family: u16,
    /// The port of the netlink socket.
    pub port: u32,
    /// The major number of mapped devices.
    pub major: u32,
    /// Whether device-mapper takes a name that is no path for a hexadecimal device number, as until Linux 6.4.
    pub numbers_are_devices: bool,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Step {
    /// Makes a mapped device without a table.
    Create {
        device: usize,
    },
    /// Loads a table, which a resume makes the live one.
    Load {
        device: usize,
        table: Vec<Line>,
    },
    Resume {
        device: usize,
    },
    Suspend {
        device: usize,
    },
    /// Throws away the table that was loaded.
    Clear {
        device: usize,
    },
    Remove {
        device: usize,
    },
    /// Asks for the status or table lines, with room for so many bytes.
    Status {
        device: usize,
        asked: Asked,
        loaded: bool,
        room: usize,
    },
    /// Sends a message to the target that has the sector, with room for so many bytes of an answer.
    Message {
        device: usize,
        sector: u64,
        text: String,
        room: usize,
    },
    /// Sends netlink messages in one datagram.
    Send {
        requests: Vec<Request>,
    },
    /// Reads sectors at once, around the page cache.
    Read {
        device: usize,
        sector: u64,
        count: usize,
    },
}

/// All but one of several, each left out in turn, but for the only one.
fn all_but_one<T: Clone>(all: &[T]) -> Vec<Vec<T>> {
    let without = |at| [&all[..at], &all[at + 1..]].concat();
    (0..all.len())
        .filter(|_| all.len() > 1)
        .map(without)
        .collect()
}

impl Step {
    /// The same with a line of a table less, a message of a datagram, or an attribute.
    pub fn parts(&self) -> Vec<Step> {
        match self {
            Step::Load { device, table } => {
                let device = *device;
                let tables = all_but_one(table).into_iter();
                tables.map(|table| Step::Load { device, table }).collect()
            }
            Step::Send { requests } => {
                let fewer = all_but_one(requests).into_iter();
                let mut parts: Vec<Step> = fewer.map(|requests| Step::Send { requests }).collect();
                for (at, request) in requests.iter().enumerate() {
                    for attributes in all_but_one(&request.attributes) {
                        let mut requests = requests.clone();
                        requests[at].attributes = attributes;
                        parts.push(Step::Send { requests });
                    }
                }
                parts
            }
            _ => Vec::new(),
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(self, f)
    }
}

/// Which lines are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Asked {
    Info,
    Table,
}

/// A line of a table: a switch of so many sectors, behind the line before it.
#[derive(Clone)]
pub struct Line {
    pub sectors: u64,
    pub arguments: Rc<str>,
}

impl Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (arguments, more) = match self.arguments.get(..150) {
            Some(start) => (start, "..."),
            None => (&*self.arguments, ""),
        };
        write!(f, "`{} switch {arguments}{more}`", self.sectors)
    }
}

/// A netlink message, and what is wrong with it.
#[derive(Clone)]
pub struct Request {
    /// The family's number if there is none.
    pub kind: Option<u16>,
    pub flags: u16,
    pub sequence: u32,
    /// What the sender says of its port, at which nobody looks.
    pub port: u32,
    pub command: u8,
    pub version: u8,
    pub reserved: u16,
    pub attributes: Vec<Attribute>,
    /// Bytes behind the attributes.
    pub behind: Vec<u8>,
    /// By how much the length in the header is off.
    pub length_off: i32,
}

impl Request {
    /// What userland sends to upload.
    pub fn of(attributes: Vec<Attribute>) -> Self {
        Request {
            kind: None,
            flags: 1,
            sequence: 7,
            port: 0,
            command: 1,
            version: 1,
            reserved: 0,
            attributes,
            behind: Vec::new(),
            length_off: 0,
        }
    }

    /// The bytes, filled up to a multiple of 4.
    pub fn bytes(&self, facts: &Facts) -> Vec<u8> {
        let mut behind = Vec::new();
        for attribute in &self.attributes {
            behind.extend(attribute.bytes(facts));
        }
        behind.extend(&self.behind);
        let length = (20 + behind.len() as u32).wrapping_add_signed(self.length_off);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(self.kind.unwrap_or(facts.family).to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend(self.port.to_ne_bytes());
        bytes.extend([self.command, self.version]);
        bytes.extend(self.reserved.to_ne_bytes());
        bytes.extend(behind);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

/// Only what is out of the ordinary.
impl Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Request");
        let plain = Request::of(Vec::new());
        let mut show = |name, value: i64, plain: i64| {
            if value != plain {
                shown.field(name, &value);
            }
        };
        show("kind", self.kind.map_or(-1, i64::from), -1);
        show("flags", self.flags.into(), plain.flags.into());
        show("sequence", self.sequence.into(), plain.sequence.into());
        show("port", self.port.into(), plain.port.into());
        show("command", self.command.into(), plain.command.into());
        show("version", self.version.into(), plain.version.into());
        show("reserved", self.reserved.into(), plain.reserved.into());
        show(
            "length_off",
            self.length_off.into(),
            plain.length_off.into(),
        );
        if !self.behind.is_empty() {
            shown.field("behind", &self.behind);
        }
        shown.field("attributes", &self.attributes).finish()
    }
}

/// An attribute of a netlink message.
#[derive(Clone)]
pub struct Attribute {
    pub kind: u16,
    pub payload: Payload,
    /// By how much its length is off.
    pub length_off: i16,
}

impl Attribute {
    /// That in which userland puts an upload.
    pub fn of(payload: Payload) -> Self {
        Attribute {
            kind: 1,
            payload,
            length_off: 0,
        }
    }

    /// The bytes, filled up to a multiple of 4.
    fn bytes(&self, facts: &Facts) -> Vec<u8> {
        let payload = match &self.payload {
            Payload::Bytes(bytes) => bytes.clone(),
            Payload::Zeros(count) => vec![0; *count],
            Payload::Upload(upload) => upload.bytes(facts),
            Payload::Attribute(inner) => inner.bytes(facts),
        };
        let length = (4 + payload.len() as u16).wrapping_add_signed(self.length_off);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

/// Only what is out of the ordinary.
impl Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != 1 {
            write!(f, "type {:#x} ", self.kind)?;
        }
        if self.length_off != 0 {
            write!(f, "length off by {} ", self.length_off)?;
        }
        self.payload.fmt(f)
    }
}

/// What an attribute holds.
#[derive(Clone)]
pub enum Payload {
    Bytes(Vec<u8>),
    Zeros(usize),
    Upload(Upload),
    Attribute(Box<Attribute>),
}

impl Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Bytes(bytes) => write!(f, "Bytes({bytes:02x?})"),
            Payload::Zeros(count) => write!(f, "Zeros({count})"),
            Payload::Upload(upload) => upload.fmt(f),
            Payload::Attribute(inner) => write!(f, "Nested({inner:?})"),
        }
    }
}

/// A `struct IpcPgTable`.
#[derive(Clone)]
pub struct Upload {
    pub total_len: u32,
    pub opcode: u32,
    pub userland: [u32; 2],
    /// The device that it is for, and what is added to the device's numbers.
    pub device: usize,
    pub number_off: [u32; 2],
    pub total: u32,
    pub first: u32,
    pub count: u32,
    pub devices: u16,
    pub bits: u8,
    pub reserved: u8,
    pub words: Words,
    /// Bytes that are added at the end, or left out.
    pub length_off: i32,
}

/// Words of entries, made from a seed.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    pub count: usize,
    pub seed: u64,
    /// Entries are below this, all bits of the words are random where it is 0.
    pub below: u32,
}

impl Upload {
    fn bytes(&self, facts: &Facts) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [
            self.total_len,
            self.opcode,
            self.userland[0],
            self.userland[1],
            facts.major.wrapping_add(self.number_off[0]),
            MINORS[self.device].wrapping_add(self.number_off[1]),
            self.total,
            self.first,
            self.count,
        ] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(self.devices.to_ne_bytes());
        bytes.extend([self.bits, self.reserved]);
        let mut random = Random::new(self.words.seed);
        for _ in 0..self.words.count {
            bytes.extend(self.word(&mut random).to_ne_bytes());
        }
        let length = bytes.len().saturating_add_signed(self.length_off as isize);
        bytes.resize(length, 0xa5);
        bytes
    }

    /// A word of entries; bits that no entry has are random.
    fn word(&self, random: &mut Random) -> u32 {
        let mut word = random.word();
        let bits = u32::from(self.bits);
        if self.words.below > 0 && (1..=32).contains(&bits) {
            for place in 0..32 / bits {
                let mask = u32::MAX >> (32 - bits);
                let entry = random.below(self.words.below.into()) as u32 & mask;
                word &= !(mask << (place * bits));
                word |= entry << (place * bits);
            }
        }
        word
    }
}

/// Only what is out of the ordinary.
impl Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Upload {{ device: {}, total: {}, first: {}, count: {}, devices: {}, bits: {}",
            self.device, self.total, self.first, self.count, self.devices, self.bits
        )?;
        let Words { count, seed, below } = self.words;
        write!(
            f,
            ", words: {count} of entries below {below} from seed {seed:#x}"
        )?;
        if count <= 8 {
            let mut random = Random::new(seed);
            let words: Vec<u32> = (0..count).map(|_| self.word(&mut random)).collect();
            write!(f, " = {words:08x?}")?;
        }
        if self.length_off != 0 {
            write!(f, ", length_off: {}", self.length_off)?;
        }
        if self.number_off != [0, 0] {
            write!(f, ", number_off: {:?}", self.number_off)?;
        }
        write!(
            f,
            ", userland: {:x?}, other fields: {:x?} }}",
            self.userland,
            [self.total_len, self.opcode, self.reserved.into()]
        )
    }
}

/// What a step comes to.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// What is answered, or the errno.
    pub result: Result<Answer, i32>,
    /// What the log says of it.
    pub log: Vec<String>,
}

/// What a step is answered.
#[derive(PartialEq)]
pub enum Answer {
    Nothing,
    Text(String),
    /// The text does not fit.
    Cut,
    /// What the sectors of a read have in them.
    Sectors(Vec<String>),
    /// What comes back over netlink, a datagram each.
    Datagrams(Vec<Vec<u8>>),
}

impl Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Nothing => f.write_str("Nothing"),
            Answer::Text(text) => write!(f, "{text:?}"),
            Answer::Cut => f.write_str("Cut"),
            Answer::Sectors(names) => {
                let shown = names
                    .iter()
                    .map(|name| if name.is_empty() { "-" } else { name });
                write!(f, "Sectors({})", shown.collect::<Vec<_>>().join(" "))
            }
            Answer::Datagrams(datagrams) => {
                let shown = datagrams.iter().map(|bytes| Datagram(bytes));
                f.debug_list().entries(shown).finish()
            }
        }
    }
}

/// A datagram from the kernel, for people.
struct Datagram<'a>(&'a [u8]);

impl Debug for Datagram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        for (at, word) in bytes.chunks(4).take(13).enumerate() {
            let space = if at > 0 { " " } else { "" };
            let digits: Vec<String> = word.iter().map(|byte| format!("{byte:02x}")).collect();
            write!(f, "{space}{}", digits.concat())?;
        }
        let rest = bytes.get(52..).unwrap_or_default();
        let zeros = rest.iter().rev().take_while(|byte| **byte == 0).count();
        let text = rest[..rest.len() - zeros].escape_ascii().to_string();
        let text: String = text.chars().take(300).collect();
        write!(f, " '{text}' and {zeros} zeros")
    }
}
