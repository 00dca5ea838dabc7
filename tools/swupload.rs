// SPDX-License-Identifier: GPL-2.0-only

//! Uploads a page table to a dm-switch (v3) device over generic netlink.
//!
//! A page is the unit the switch maps, an entry the index of the device (member) that a page
//! lives on. Entries travel packed into 32-bit words, lowest bits first; a message carries one
//! window of consecutive pages. C header: `dm-switch.h`.

#![deny(unsafe_code)]

use std::fmt::{self, Display};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The system calls that the standard library has no wrapper for.
#[allow(unsafe_code)]
mod sys {
    use std::fs::File;
    use std::io;
    use std::mem::{size_of, zeroed};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::time::Duration;

    /// Bytes of a `struct dm_ioctl`.
    pub const DM_HEADER: usize = 312;

    /// Opens a generic netlink socket; a write to it is one datagram to the kernel.
    pub fn netlink_socket() -> io::Result<File> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_GENERIC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is fresh from the kernel and nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
    }

    /// Waits until `socket` has something to read, `timeout` at most.
    pub fn wait_readable(socket: &File, timeout: Duration) -> io::Result<()> {
        let (fd, events) = (socket.as_raw_fd(), libc::POLLIN);
        let revents = 0;
        let mut poll = libc::pollfd {
            fd,
            events,
            revents,
        };
        let milliseconds = timeout.as_micros().div_ceil(1000);
        let milliseconds = i32::try_from(milliseconds).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to one pollfd that outlives the call, and the count says one.
        if unsafe { libc::poll(&mut poll, 1, milliseconds) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Takes one datagram, without waiting. Returns how much of `buffer` it fills (a longer one
    /// is cut) and whether the kernel itself sent it.
    pub fn receive(socket: &File, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        let (fd, data) = (socket.as_raw_fd(), buffer.as_mut_ptr().cast());
        // SAFETY: a sockaddr_nl is integers only, for which zero is a value.
        let mut sender: libc::sockaddr_nl = unsafe { zeroed() };
        let mut size = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        let name = (&raw mut sender).cast();
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: data is a buffer borrowed for writing and name an address on this stack; each
        // goes with its own length, and both outlive the call.
        let length = unsafe { libc::recvfrom(fd, data, buffer.len(), flags, name, &mut size) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let netlink = i32::from(sender.nl_family) == libc::AF_NETLINK;
        Ok((length, netlink && sender.nl_pid == 0))
    }

    /// DM_TABLE_STATUS on a buffer that begins with a `struct dm_ioctl`, whose `data_size` is
    /// set here.
    pub fn dm_table_status(control: &File, buffer: &mut [u8]) -> io::Result<()> {
        const DM_TABLE_STATUS: libc::Ioctl = libc::_IOWR::<[u8; DM_HEADER]>(0xfd, 12);
        assert!(buffer.len() >= DM_HEADER);
        let size = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        buffer[12..16].copy_from_slice(&size.to_ne_bytes());
        let (fd, data) = (control.as_raw_fd(), buffer.as_mut_ptr());
        // SAFETY: the kernel reads and writes data_size bytes at most, just made no more than
        // the buffer has, and never fewer than the header, which the buffer was found to hold.
        if unsafe { libc::ioctl(fd, DM_TABLE_STATUS, data) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Why the work was not done, and so the exit status.
#[derive(Debug)]
enum Failure {
    /// The command line asks for what cannot be.
    Usage(String),
    /// FILE cannot be used; the text names the place.
    File(String),
    /// The kernel said no, or did not say what it should.
    Kernel(String),
    /// Standard output cannot be written.
    Output(io::Error),
}

impl Failure {
    /// Writes the text to standard error and gives the exit status.
    fn report(&self) -> u8 {
        match self {
            Failure::Usage(text) => complain(&format!("{text}\n(swupload -h lists the options)")),
            Failure::File(text) => say(text),
            Failure::Kernel(text) => complain(text),
            // A reader that has seen enough is no news.
            Failure::Output(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Failure::Output(error) => complain(&format!("cannot write the output: {error}")),
        }
        match self {
            Failure::Usage(_) | Failure::File(_) => 2,
            Failure::Kernel(_) | Failure::Output(_) => 1,
        }
    }
}

fn usage<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Usage(text.into()))
}

fn kernel<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Kernel(text.into()))
}

/// One line on standard error; nobody is left to tell when that fails.
fn say(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn complain(text: &str) {
    for line in text.lines() {
        say(format!("swupload: {line}"));
    }
}

// The wire format, as dm-switch.h has it.
const FAMILY: &str = "DM_SWITCH";
const FAMILY_VERSION: u8 = 1;
const NETLINK_CMD_GET_PAGE_TBL: u8 = 1;
const NETLINK_ATTR_MSG: u16 = 1;
const OPCODE_PAGE_TABLE_UPLOAD: u32 = 1;
const CHUNK_PTE_COUNT: u32 = 1 << 13;
/// Bytes of a `struct IpcPgTable` before its entries.
const TABLE_HEADER: usize = 40;
const MAX_IPC_MSG_LEN: usize = 65480;
const MAX_ERR_STR_LEN: usize = 255;
/// Type of the attribute that holds the answer.
const ANSWER_ATTR: u16 = 11;
/// Bytes of a `struct IpcResponse`.
const ANSWER_LEN: usize = 28 + MAX_ERR_STR_LEN + 1;

/// Bytes before the payload: of a netlink message, then of a generic one's command, then of an
/// attribute.
const NLMSG_HEADER: usize = 16;
const GENL_HEADER: usize = 4;
const NLA_HEADER: usize = 4;

const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// No page table needs more; a file that never ends must not fill the memory.
const FILE_LIMIT: u64 = 64 << 20;

/// A block device's major and minor number.
#[derive(Clone, Copy, Debug, PartialEq)]
struct DevNumber {
    major: u32,
    minor: u32,
}

impl DevNumber {
    /// From the form that stat(2) and the device-mapper ioctl have in common.
    fn decode(dev: u64) -> Self {
        DevNumber {
            major: libc::major(dev),
            minor: libc::minor(dev),
        }
    }

    fn encode(self) -> u64 {
        libc::makedev(self.major, self.minor)
    }

    /// Reads `MAJOR:MINOR`, as wide as the kernel's own numbers (12 and 20 bits).
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once(':')?;
        let number = |text, limit| {
            let number = decimal(text).filter(|number| *number < limit)?;
            u32::try_from(number).ok()
        };
        Some(DevNumber {
            major: number(major, 1 << 12)?,
            minor: number(minor, 1 << 20)?,
        })
    }
}

impl Display for DevNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Reads a decimal number: digits, nothing else.
fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Reads a word of up to 8 hexadecimal digits, with or without `0x` before it.
fn hex_word(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let valid = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| u32::from_str_radix(digits, 16).ok())?
}

/// What the command line asks for.
struct Settings {
    device: String,
    file: String,
    pte_bits: Option<u32>,
    dev_count: Option<u16>,
    page_total: Option<u32>,
    first_page: u32,
    userland: [u32; 2],
    packed: bool,
    message_bytes: usize,
    free_chunk: Option<u32>,
    raw: bool,
    print_only: bool,
    verbose: bool,
}

fn option_list() -> getopts::Options {
    let mut options = getopts::Options::new();
    options
        .optopt("b", "pte-bits", "bits of an entry, 1 to 32", "N")
        .optopt("n", "devices", "device count, 1 to 65535", "N")
        .optopt("t", "pages", "total pages of the device", "N")
        .optopt("o", "first-page", "page of FILE's first entry", "N")
        .optopt("u", "userland", "two userland words (hex)", "A,B")
        .optflag("p", "packed", "FILE holds packed 32-bit words")
        .optopt("w", "message-bytes", "bytes a message, 44 to 65480", "N")
        .optopt("d", "free-chunk", "free a chunk (no FILE)", "CHUNK")
        .optflag("r", "raw", "send FILE's bytes (hex), print the answer")
        .optflag("N", "dry-run", "print the messages as hex, send none")
        .optflag("v", "verbose", "say what each message carried")
        .optflag("h", "help", "print this help")
        .optflag("V", "version", "print the version");
    options
}

fn settings(matches: &getopts::Matches) -> Result<Settings, Failure> {
    let raw = matches.opt_present("r");
    let free_chunk = number(matches, "d", "chunk", 0, u32::MAX / CHUNK_PTE_COUNT)?;
    let excluded: &[&str] = match (raw, free_chunk) {
        (true, _) => &["b", "n", "t", "o", "u", "p", "w", "d", "N"],
        (_, Some(_)) => &["o", "p", "w"],
        _ => &[],
    };
    if let Some(name) = excluded.iter().find(|name| matches.opt_present(name)) {
        let what = if raw { "-r" } else { "-d" };
        return usage(format!("{what} has no use for -{name}"));
    }
    let (device, file) = match (raw, free_chunk, matches.free.as_slice()) {
        (true, _, [file]) => ("", file.as_str()),
        (false, Some(_), [device]) => (device.as_str(), ""),
        (_, None, [device, file]) => (device.as_str(), file.as_str()),
        (true, ..) => return usage("-r needs a FILE, with or without a DEVICE before it"),
        (_, Some(_), _) => return usage("-d needs a DEVICE and no FILE"),
        _ => return usage("needs a DEVICE and a FILE"),
    };
    let first_page = number(matches, "o", "first page", 0, u32::MAX)?;
    let smallest = TABLE_HEADER + 4;
    let message_bytes = number(matches, "w", "bytes a message", smallest, MAX_IPC_MSG_LEN)?;
    Ok(Settings {
        device: device.into(),
        file: file.into(),
        pte_bits: number(matches, "b", "pte bits", 1, 32)?,
        dev_count: number(matches, "n", "device count", 1, u16::MAX)?,
        page_total: number(matches, "t", "total pages", 1, u32::MAX)?,
        first_page: first_page.unwrap_or(0),
        userland: userland(matches)?,
        packed: matches.opt_present("p"),
        message_bytes: message_bytes.unwrap_or(MAX_IPC_MSG_LEN),
        free_chunk,
        raw,
        print_only: matches.opt_present("N"),
        verbose: matches.opt_present("v"),
    })
}

/// The value of option `name`, a decimal number from `low` to `high`.
fn number<T: TryFrom<u64> + PartialOrd + Display>(
    matches: &getopts::Matches,
    name: &str,
    what: &str,
    low: T,
    high: T,
) -> Result<Option<T>, Failure> {
    let Some(text) = matches.opt_str(name) else {
        return Ok(None);
    };
    match decimal(&text).and_then(|value| T::try_from(value).ok()) {
        Some(value) if (&low..=&high).contains(&&value) => Ok(Some(value)),
        _ => usage(format!(
            "-{name} {text}: {what} must be a decimal number from {low} to {high}"
        )),
    }
}

fn userland(matches: &getopts::Matches) -> Result<[u32; 2], Failure> {
    let text = matches.opt_str("u").unwrap_or("0,0".into());
    let (first, second) = text.split_once(',').unwrap_or_default();
    match (hex_word(first), hex_word(second)) {
        (Some(first), Some(second)) => Ok([first, second]),
        _ => usage(format!(
            "-u {text}: must be two words of 1 to 8 hexadecimal digits, as in 1f,a0"
        )),
    }
}

/// What every message to one device has in common.
struct Target {
    dev: DevNumber,
    dev_count: u16,
    pte_bits: u32,
    page_total: u32,
    userland: [u32; 2],
}

impl Target {
    /// Takes what was given, and asks the kernel for the rest.
    fn find(settings: &Settings) -> Result<Self, Failure> {
        let name = &settings.device;
        let device = dm::Device::find(name).map_err(Failure::Kernel)?;
        let given = (device.dev, settings.dev_count, settings.page_total);
        let (dev, dev_count, page_total) = match given {
            (Some(dev), Some(devices), Some(pages)) => (dev, devices.into(), pages.into()),
            (_, given_devices, given_pages) => {
                let (dev, devices, pages) = device.table().map_err(Failure::Kernel)?;
                let devices = given_devices.map_or(devices, u64::from);
                (dev, devices, given_pages.map_or(pages, u64::from))
            }
        };
        let Ok(dev_count) = u16::try_from(dev_count) else {
            return kernel(format!(
                "{name}: {dev_count} devices; a message says 65535 at most"
            ));
        };
        let Ok(page_total) = u32::try_from(page_total) else {
            return kernel(format!(
                "{name}: {page_total} pages; a message says {} at most",
                u32::MAX
            ));
        };
        let bits_needed = u16::BITS - (dev_count - 1).leading_zeros();
        let pte_bits = settings.pte_bits.unwrap_or(entry_bits(dev_count));
        if pte_bits < bits_needed {
            return usage(format!(
                "-b {pte_bits}: {dev_count} devices need {bits_needed} pte bits or more"
            ));
        }
        let userland = settings.userland;
        Ok(Target {
            dev,
            dev_count,
            pte_bits,
            page_total,
            userland,
        })
    }

    /// Entries in a 32-bit word.
    fn word_pages(&self) -> u32 {
        u32::BITS / self.pte_bits
    }

    /// The pages of `chunk`.
    fn chunk(&self, chunk: u32) -> Result<Window, Failure> {
        let last = (self.page_total - 1) / CHUNK_PTE_COUNT;
        if chunk > last {
            return usage(format!("-d {chunk}: past the device's last chunk {last}"));
        }
        Ok(Window {
            page: chunk * CHUNK_PTE_COUNT,
            pages: 0,
            // As long as the C structure, which has room for one word.
            words: vec![0],
        })
    }

    /// The bytes of the `struct IpcPgTable` that carries `window`.
    fn message(&self, window: &Window) -> Vec<u8> {
        let length = TABLE_HEADER + 4 * window.words.len();
        let mut bytes = Vec::with_capacity(length);
        for word in [
            length as u32,
            OPCODE_PAGE_TABLE_UPLOAD,
            self.userland[0],
            self.userland[1],
            self.dev.major,
            self.dev.minor,
            self.page_total,
            window.page,
            window.pages,
        ] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(self.dev_count.to_ne_bytes());
        bytes.extend([self.pte_bits as u8, 0]);
        bytes.extend(window.words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }
}

/// The smallest power of two, in bits, that holds every index below `dev_count`.
fn entry_bits(dev_count: u16) -> u32 {
    let bits = u16::BITS - dev_count.saturating_sub(1).leading_zeros();
    bits.max(1).next_power_of_two()
}

/// What the device-mapper ioctl tells about a mapped device. C header: `linux/dm-ioctl.h`.
mod dm {
    use super::sys::{dm_table_status, DM_HEADER};
    use super::*;

    const CONTROL: &str = "/dev/mapper/control";
    const DM_VERSION_MAJOR: u32 = 4;
    const DM_STATUS_TABLE_FLAG: u32 = 1 << 4;
    const DM_BUFFER_FULL_FLAG: u32 = 1 << 8;
    const DM_NAME_LEN: usize = 128;
    const DM_MAX_TYPE_NAME: usize = 16;
    /// Far above the longest table line that 65535 devices make.
    const BUFFER_LIMIT: usize = 16 << 20;

    /// What DEVICE names.
    pub struct Device {
        name: String,
        /// Its number, when that is what was given or a path leads to it.
        pub dev: Option<DevNumber>,
    }

    /// One line of a table: its length in 512-byte sectors, its target, and what follows.
    pub type Line = (u64, String, String);

    impl Device {
        pub fn find(name: &str) -> Result<Self, String> {
            let mut dev = DevNumber::parse(name);
            if name.contains('/') {
                let node = fs::metadata(name).map_err(|error| match error.kind() {
                    ErrorKind::NotFound => format!("{name}: no such device"),
                    _ => format!("{name}: {error}"),
                })?;
                if !node.file_type().is_block_device() {
                    return Err(format!("{name}: not a block device"));
                }
                dev = Some(DevNumber::decode(node.rdev()));
            }
            if dev.is_none() && !(1..DM_NAME_LEN).contains(&name.len()) {
                return Err(format!("'{name}': no such device"));
            }
            let name = name.into();
            Ok(Device { name, dev })
        }

        /// The device's number, its switch's device count and pages.
        pub fn table(&self) -> Result<(DevNumber, u64, u64), String> {
            let (dev, lines) = parse(&self.ask()?)?;
            let (dev_count, pages) =
                switch(&lines).map_err(|text| format!("{}: {text}", self.name))?;
            Ok((dev, dev_count, pages))
        }

        /// Runs DM_TABLE_STATUS with ever larger buffers until the table fits.
        fn ask(&self) -> Result<Vec<u8>, String> {
            let open = OpenOptions::new().read(true).write(true).open(CONTROL);
            let control = open.map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => not_permitted(),
                _ => format!("cannot open {CONTROL}: {error} (modprobe dm-mod?)"),
            })?;
            let mut size = 16 << 10;
            while size <= BUFFER_LIMIT {
                let mut buffer = self.request();
                buffer.resize(size, 0);
                dm_table_status(&control, &mut buffer)
                    .map_err(|error| self.explain(&buffer, &error))?;
                let mut fields = Fields(&buffer);
                fields.bytes(28)?;
                if fields.u32()? & DM_BUFFER_FULL_FLAG == 0 {
                    return Ok(buffer);
                }
                size *= 4;
            }
            Err(format!("{}: its table is too long", self.name))
        }

        fn request(&self) -> Vec<u8> {
            let size = DM_HEADER as u32;
            let version = [DM_VERSION_MAJOR, 0, 0];
            let [target_count, open_count, event_nr, padding] = [0; 4];
            let counts = [size, size, target_count, open_count];
            let rest = [DM_STATUS_TABLE_FLAG, event_nr, padding];
            let words = version.into_iter().chain(counts).chain(rest);
            let mut bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
            bytes.extend(self.dev.map_or(0, DevNumber::encode).to_ne_bytes());
            if self.dev.is_none() {
                bytes.extend(self.name.as_bytes());
            }
            bytes
        }

        fn explain(&self, answer: &[u8], error: &io::Error) -> String {
            let name = &self.name;
            match (error.raw_os_error(), Fields(answer).u32()) {
                (Some(libc::ENXIO), _) => format!("{name}: no such mapped device"),
                (Some(libc::EACCES | libc::EPERM), _) => not_permitted(),
                (_, Ok(version)) if version != DM_VERSION_MAJOR => {
                    format!("device-mapper's interface has version {version}, not 4")
                }
                _ => format!("{name}: cannot read its table: {error}"),
            }
        }
    }

    fn not_permitted() -> String {
        let way_out = "run as root, or give DEVICE as MAJOR:MINOR with -n and -t";
        format!("not permitted to use {CONTROL}: {way_out}")
    }

    /// The device's number and its table's lines, from the answer to DM_TABLE_STATUS.
    pub fn parse(answer: &[u8]) -> Result<(DevNumber, Vec<Line>), String> {
        let mut header = Fields(answer);
        header.bytes(16)?;
        let start = header.u32()? as usize;
        let count = header.u32()?;
        header.bytes(16)?;
        let dev = DevNumber::decode(header.u64()?);
        let data = Fields(answer).rest(start)?;
        let mut at = 0;
        let mut lines = Vec::new();
        for _ in 0..count {
            let mut spec = Fields(Fields(data).rest(at)?);
            let (_sector_start, length) = (spec.u64()?, spec.u64()?);
            let (_status, next) = (spec.u32()?, spec.u32()?);
            let target = text_before_nul(spec.bytes(DM_MAX_TYPE_NAME)?);
            lines.push((length, target, text_before_nul(spec.rest(0)?)));
            at = next as usize;
        }
        Ok((dev, lines))
    }

    /// Device count and pages of the one switch among `lines`.
    pub fn switch(lines: &[Line]) -> Result<(u64, u64), String> {
        let mut switches = lines.iter().filter(|(_, target, _)| target == "switch");
        let (length, line) = match (switches.next(), switches.next(), lines) {
            (Some((length, _, line)), None, _) => (*length, line),
            (Some(_), Some(_), _) => {
                return Err(
                    "has several switch targets, and a message cannot say which; \
                            give each a device of its own"
                        .into(),
                )
            }
            (None, _, [(_, other, _), ..]) => {
                return Err(format!("not a switch: its target is {other}"));
            }
            (None, _, []) => return Err("has no live table (dmsetup resume?)".into()),
        };
        let arguments: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |at: usize| arguments.get(at).copied().and_then(decimal);
        // Two arguments a device follow: here after two others, in the kernel's own target, which
        // has the same name, after three, the third of them a number.
        let others = number(0).and_then(|count| count.checked_mul(2));
        let others = others.and_then(|pairs| (arguments.len() as u64).checked_sub(pairs));
        match (number(0), number(1), others) {
            (Some(1..), Some(0), Some(2)) => {
                Err("its page size is zero: give it a table with a real one".into())
            }
            (Some(count @ 1..), Some(page_size), Some(2)) => {
                Ok((count, length.div_ceil(page_size)))
            }
            (Some(1..), Some(_), Some(3..)) if number(2).is_some() => Err(
                "a switch of the kernel's own dm-switch, which takes no uploads; \
                     unload that (modprobe -r dm-switch) and load the v3 module"
                    .into(),
            ),
            _ => Err(format!("not a table of dm-switch v3: switch {line}")),
        }
    }
}

/// The text up to the first NUL, fit for a terminal.
fn text_before_nul(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or(&[]);
    printable(text)
}

fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.replace(char::is_control, "?")
}

/// A place in FILE and what is wrong there.
#[derive(Debug, PartialEq)]
struct Fault {
    line: usize,
    column: usize,
    text: String,
}

/// Some characters of FILE, on one line, and where they begin (counted in bytes, from 1).
#[derive(Clone, Copy)]
struct Piece<'a> {
    bytes: &'a [u8],
    line: usize,
    column: usize,
}

impl Piece<'_> {
    fn fault<T>(&self, text: String) -> Result<T, Fault> {
        Err(Fault {
            line: self.line,
            column: self.column,
            text,
        })
    }

    fn slice(&self, from: usize, to: usize) -> Self {
        Piece {
            bytes: &self.bytes[from..to],
            column: self.column + from,
            ..*self
        }
    }

    /// What stands before and after the first `byte`.
    fn split(&self, byte: u8) -> (Self, Option<Self>) {
        let length = self.bytes.len();
        match self.bytes.iter().position(|other| *other == byte) {
            None => (*self, None),
            Some(at) => (self.slice(0, at), Some(self.slice(at + 1, length))),
        }
    }

    /// The number that all of the characters make in `radix`; one too large for 64 bits
    /// comes out as the largest.
    fn number(&self, radix: u32, what: &str) -> Result<u64, Fault> {
        if self.bytes.is_empty() {
            return self.fault(format!("{what} is missing"));
        }
        let mut value = 0_u64;
        for (at, byte) in self.bytes.iter().enumerate() {
            let Some(digit) = char::from(*byte).to_digit(radix) else {
                let kind = if radix == 16 { "hex" } else { "decimal" };
                let stray = byte.escape_ascii();
                let text = format!("stray '{stray}': {what} is {kind} digits only");
                return self.slice(at, at + 1).fault(text);
            };
            value = value.saturating_mul(u64::from(radix));
            value = value.saturating_add(u64::from(digit));
        }
        Ok(value)
    }
}

impl Display for Piece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 24;
        let end = self.bytes.len().min(SHOWN);
        let more = if end < self.bytes.len() { "..." } else { "" };
        write!(f, "{}{more}", printable(&self.bytes[..end]))
    }
}

/// The tokens of a file: what white space parts, without the comments.
fn tokens(file: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let lines = file.split(|byte| *byte == b'\n').zip(1..);
    lines.flat_map(|(text, line)| {
        let code = text.split(|byte| *byte == b'#').next().unwrap_or(&[]);
        let mut next = 1;
        let pieces = code.split(u8::is_ascii_whitespace).map(move |bytes| {
            let column = next;
            next += bytes.len() + 1;
            Piece {
                bytes,
                line,
                column,
            }
        });
        pieces.filter(|piece| !piece.bytes.is_empty())
    })
}

/// Consecutive units of a file with the same value.
#[derive(Debug, PartialEq)]
struct Span {
    value: u32,
    count: u32,
}

/// Pages that follow one another, the first at the start of a word.
#[derive(Debug, PartialEq)]
struct Run {
    page: u32,
    pages: u32,
    spans: Vec<Span>,
}

/// One message's share of a run.
#[derive(Debug, PartialEq)]
struct Window {
    page: u32,
    /// None means that the chunk at `page` is to be freed.
    pages: u32,
    words: Vec<u32>,
}

impl Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pages {
            0 => write!(f, "chunk {}", self.page / CHUNK_PTE_COUNT),
            pages => write!(f, "pages {}-{}", self.page, self.page + (pages - 1)),
        }
    }
}

/// Reads page table files: each unit is one page's entry or, if `packed`, one word of them.
struct Reader<'a> {
    target: &'a Target,
    packed: bool,
    /// The page that the next unit is for, or the first of those.
    page: u32,
    runs: Vec<Run>,
}

impl<'a> Reader<'a> {
    fn new(target: &'a Target, packed: bool, page: u32) -> Self {
        Reader {
            target,
            packed,
            page,
            runs: Vec::new(),
        }
    }

    fn read(mut self, file: &[u8]) -> Result<Vec<Run>, Fault> {
        for token in tokens(file) {
            self.token(token)?;
        }
        if self.runs.is_empty() {
            let (line, column) = (1, 1);
            let text = "the file gives no page (it is empty)".into();
            return Err(Fault { line, column, text });
        }
        Ok(self.runs)
    }

    fn token(&mut self, token: Piece<'_>) -> Result<(), Fault> {
        if token.bytes.starts_with(b"@") {
            let page = token
                .slice(1, token.bytes.len())
                .number(10, "the page after @")?;
            return self.move_to(page, &token);
        }
        let (value, count) = token.split(b'*');
        let value = self.value(&value)?;
        let count = match count {
            None => 1,
            Some(piece) => match piece.number(10, "the count after *")? {
                0 => return piece.fault("a count of 0 gives no page; it must be 1 or more".into()),
                count if count > u32::MAX.into() => {
                    return piece.fault(format!("count {piece} is above {}", u32::MAX));
                }
                count => count as u32,
            },
        };
        self.add(value, count, &token)
    }

    fn value(&self, piece: &Piece<'_>) -> Result<u32, Fault> {
        let dev_count = self.target.dev_count;
        if self.packed {
            let word = piece.number(16, "a word")?;
            if piece.bytes.len() > 8 {
                return piece.fault(format!("word {piece} has more than 8 digits"));
            }
            return Ok(word as u32);
        }
        let index = piece.number(16, "a device index")?;
        if index >= dev_count.into() {
            let hint = if index > 9 { " (hex)" } else { "" };
            return piece.fault(format!(
                "index {piece}{hint} is not below the device count {dev_count}"
            ));
        }
        Ok(index as u32)
    }

    /// Goes on at `page`, which must not be inside a word unless no page is left out.
    fn move_to(&mut self, page: u64, token: &Piece<'_>) -> Result<(), Fault> {
        let (next, last) = (self.page, self.target.page_total - 1);
        let word_pages = self.target.word_pages();
        match u32::try_from(page) {
            Ok(page) if page < next => token.fault(format!(
                "{token} goes back: pages must ascend, and page {next} is next"
            )),
            Ok(page) if page <= last && page != next && page % word_pages != 0 => {
                token.fault(format!(
                    "{token} is inside a word: after pages left out, \
                     the next must be a multiple of {word_pages}"
                ))
            }
            Ok(page) if page <= last => {
                self.page = page;
                Ok(())
            }
            _ => token.fault(format!("{token} is past the device's last page {last}")),
        }
    }

    fn add(&mut self, value: u32, count: u32, token: &Piece<'_>) -> Result<(), Fault> {
        let word_pages = self.target.word_pages();
        let unit_pages = u64::from(if self.packed { word_pages } else { 1 });
        let first = u64::from(self.page);
        let end = first + u64::from(count) * unit_pages;
        let total = u64::from(self.target.page_total);
        // Only the pages of a device's last word may be fewer than it has room for.
        if end - unit_pages >= total {
            return token.fault(format!(
                "{token} is for pages {first}-{}, past the device's last page {}",
                end - 1,
                total - 1
            ));
        }
        let end = end.min(total) as u32;
        let pages = end - self.page;
        match self.runs.last_mut() {
            Some(run) if run.page + run.pages == self.page => {
                run.pages += pages;
                match run.spans.last_mut() {
                    Some(span) if span.value == value => span.count += count,
                    _ => run.spans.push(Span { value, count }),
                }
            }
            _ => self.runs.push(Run {
                page: self.page,
                pages,
                spans: vec![Span { value, count }],
            }),
        }
        self.page = end;
        Ok(())
    }
}

/// Cuts a run into windows of `message_bytes` at most, in ascending order.
fn windows(
    run: Run,
    target: &Target,
    packed: bool,
    message_bytes: usize,
) -> impl Iterator<Item = Window> {
    let word_pages = target.word_pages();
    let (unit_bits, word_units) = match packed {
        true => (u32::BITS, 1),
        false => (target.pte_bits, word_pages),
    };
    let window_pages = ((message_bytes - TABLE_HEADER) / 4) as u32 * word_pages;
    let end = run.page + run.pages;
    let mut page = run.page;
    let repeat = |span: Span| std::iter::repeat_n(span.value, span.count as usize);
    let mut units = run.spans.into_iter().flat_map(repeat);
    std::iter::from_fn(move || {
        let pages = window_pages.min(end - page);
        let mut word = || {
            let units = units.by_ref().take(word_units as usize).zip(0..);
            units.fold(0, |word, (value, at)| word | (value << (at * unit_bits)))
        };
        let window = Window {
            page,
            pages,
            words: (0..pages.div_ceil(word_pages)).map(|_| word()).collect(),
        };
        page += pages;
        (pages > 0).then_some(window)
    })
}

/// Reads FILE (`-` is standard input) and gives the name that messages call it by.
fn read_file(file: &str) -> Result<(String, Vec<u8>), Failure> {
    let name = if file == "-" { "<stdin>" } else { file };
    let cannot = |error| Failure::File(format!("swupload: cannot read {name}: {error}"));
    let source: Box<dyn Read> = match file {
        "-" => Box::new(io::stdin()),
        _ => Box::new(File::open(file).map_err(cannot)?),
    };
    let mut bytes = Vec::new();
    let mut source = source.take(FILE_LIMIT + 1);
    source.read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_LIMIT {
        let text = format!("swupload: {name} is larger than {} MiB", FILE_LIMIT >> 20);
        return Err(Failure::File(text));
    }
    Ok((name.into(), bytes))
}

fn in_file<T>(name: &str, result: Result<T, Fault>) -> Result<T, Failure> {
    result.map_err(|Fault { line, column, text }| {
        Failure::File(format!("{name}:{line}:{column}: {text}"))
    })
}

/// Reads a message in hexadecimal, white space and comments anywhere.
fn raw_message(file: &[u8]) -> Result<Vec<u8>, Fault> {
    // The attribute's length has 16 bits and counts its own header.
    const LIMIT: usize = u16::MAX as usize - NLA_HEADER;
    let mut digits = Vec::new();
    let (bytes, line, column): (&[u8], _, _) = (&[], 1, 1);
    let mut last = Piece {
        bytes,
        line,
        column,
    };
    for token in tokens(file) {
        token.number(16, "a message")?;
        digits.extend(
            token
                .bytes
                .iter()
                .flat_map(|byte| char::from(*byte).to_digit(16)),
        );
        last = token;
    }
    match digits.len() {
        0 => last.fault("the file gives no message (it is empty)".into()),
        count if count % 2 != 0 => last.fault(format!("half a byte: {count} digits are odd")),
        count if count / 2 > LIMIT => last.fault(format!(
            "the message has {} bytes; an attribute holds {LIMIT} at most",
            count / 2
        )),
        _ => Ok(digits
            .chunks(2)
            .map(|pair| (pair[0] * 16 + pair[1]) as u8)
            .collect()),
    }
}

/// Takes fields off the front of received bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let cut_short = || String::from("what the kernel answered is cut short");
        let (bytes, rest) = self.0.split_at_checked(count).ok_or_else(cut_short)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// All that follows the next `count` bytes.
    fn rest(&mut self, count: usize) -> Result<&'a [u8], String> {
        self.bytes(count)?;
        Ok(self.0)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_ne_bytes)
    }
}

/// A netlink message from the kernel.
#[derive(Debug, PartialEq)]
struct Reply {
    kind: u16,
    flags: u16,
    seq: u32,
    pid: u32,
    body: Vec<u8>,
}

impl Reply {
    /// The message in `datagram` that answers request `seq`, if one does.
    fn find(mut datagram: &[u8], seq: u32) -> Result<Option<Self>, String> {
        while datagram.len() >= NLMSG_HEADER {
            let mut fields = Fields(datagram);
            let length = (fields.u32()? as usize).max(NLMSG_HEADER);
            let (kind, flags) = (fields.u16()?, fields.u16()?);
            let (its_seq, pid) = (fields.u32()?, fields.u32()?);
            if its_seq == seq {
                let body = fields.bytes(length - NLMSG_HEADER)?.to_vec();
                return Ok(Some(Reply {
                    kind,
                    flags,
                    seq,
                    pid,
                    body,
                }));
            }
            let step = length.next_multiple_of(4);
            datagram = datagram.get(step..).unwrap_or(&[]);
        }
        Ok(None)
    }
}

/// The answer to an upload: a `struct IpcResponse` and what it came in.
#[derive(Debug)]
struct Answer {
    reply: Reply,
    command: u8,
    version: u8,
    attribute: u16,
    total_len: u32,
    opcode: u32,
    userland: [u32; 2],
    dev: DevNumber,
    status: u32,
    text: String,
    /// Whether all that follows the text's NUL is zero.
    tail_zero: bool,
}

impl Answer {
    /// Takes `reply` apart, which must be of `family` and have the shape of an answer.
    fn decode(reply: Reply, family: u16) -> Result<Self, String> {
        const ATTRIBUTE_LEN: usize = NLA_HEADER + ANSWER_LEN;
        let mut fields = Fields(&reply.body);
        expect("type", reply.kind, family)?;
        expect("length", reply.body.len(), GENL_HEADER + ATTRIBUTE_LEN)?;
        let [command, version, ..] = fields.array::<GENL_HEADER>()?;
        expect(
            "attribute length",
            usize::from(fields.u16()?),
            ATTRIBUTE_LEN,
        )?;
        let attribute = fields.u16()?;
        expect("attribute type", attribute, ANSWER_ATTR)?;
        let (total_len, opcode) = (fields.u32()?, fields.u32()?);
        let userland = [fields.u32()?, fields.u32()?];
        let (major, minor) = (fields.u32()?, fields.u32()?);
        let status = fields.u32()?;
        let string = fields.bytes(MAX_ERR_STR_LEN + 1)?;
        let mut tail = string.iter().skip_while(|byte| **byte != 0);
        Ok(Answer {
            command,
            version,
            attribute,
            total_len,
            opcode,
            userland,
            dev: DevNumber { major, minor },
            status,
            text: text_before_nul(string),
            tail_zero: tail.all(|byte| *byte == 0),
            reply,
        })
    }

    /// Whether this answers a message to `target`, and its status is 0.
    fn accepts(&self, target: &Target) -> Result<(), String> {
        let [first, second] = target.userland;
        expect("command", self.command, NETLINK_CMD_GET_PAGE_TBL)?;
        expect("total_len", self.total_len, ANSWER_LEN as u32)?;
        expect("opcode", self.opcode, OPCODE_PAGE_TABLE_UPLOAD)?;
        expect("first userland word", self.userland[0], first)?;
        expect("second userland word", self.userland[1], second)?;
        expect("device", self.dev, target.dev)?;
        self.accepted()
    }

    fn accepted(&self) -> Result<(), String> {
        let (status, text) = (self.status, &self.text);
        match status {
            0 => Ok(()),
            _ => Err(format!("refused by the kernel: {text} (status {status})")),
        }
    }
}

fn expect<T: PartialEq + Display>(what: &str, found: T, wanted: T) -> Result<(), String> {
    if found != wanted {
        return Err(format!("the answer's {what} is {found}, not {wanted}"));
    }
    Ok(())
}

/// One field a line, its name first.
impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.userland;
        let tail = if self.tail_zero { "zero" } else { "nonzero" };
        writeln!(f, "type {}", self.reply.kind)?;
        writeln!(f, "flags {:#x}", self.reply.flags)?;
        writeln!(f, "seq {}", self.reply.seq)?;
        writeln!(f, "pid {}", self.reply.pid)?;
        writeln!(f, "cmd {}", self.command)?;
        writeln!(f, "version {}", self.version)?;
        writeln!(f, "attr {}", self.attribute)?;
        writeln!(f, "total_len {}", self.total_len)?;
        writeln!(f, "opcode {}", self.opcode)?;
        writeln!(f, "userland 0x{first:08x} 0x{second:08x}")?;
        writeln!(f, "dev {}", self.dev)?;
        writeln!(f, "status {}", self.status)?;
        writeln!(f, "err_str {}", self.text)?;
        writeln!(f, "err_tail {tail}")
    }
}

/// A conversation with the kernel over generic netlink.
struct Link {
    socket: File,
    seq: u32,
    /// The number that the kernel gave family DM_SWITCH.
    family: u16,
    buffer: Vec<u8>,
}

impl Link {
    fn open() -> Result<Self, String> {
        let socket = sys::netlink_socket()
            .map_err(|error| format!("cannot open a generic netlink socket: {error}"))?;
        let mut link = Link {
            socket,
            seq: 0,
            family: libc::GENL_ID_CTRL as u16,
            // An error message brings the whole request back, and that has 64 KiB at most.
            buffer: vec![0; 128 << 10],
        };
        link.family = link.find_family()?;
        Ok(link)
    }

    fn find_family(&mut self) -> Result<u16, String> {
        const CTRL_VERSION: u8 = 2;
        let command = [libc::CTRL_CMD_GETFAMILY as u8, CTRL_VERSION];
        let attribute = libc::CTRL_ATTR_FAMILY_NAME as u16;
        let name = format!("{FAMILY}\0");
        match self.ask(command, attribute, name.as_bytes()) {
            Ok(reply) => family_id(&reply),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Err(no_family()),
            Err(error) => Err(format!("looking up {FAMILY}: {error}")),
        }
    }

    /// Sends one `struct IpcPgTable` and takes its answer apart.
    fn upload(&mut self, message: &[u8]) -> Result<Answer, String> {
        let command = [NETLINK_CMD_GET_PAGE_TBL, FAMILY_VERSION];
        let reply = self.ask(command, NETLINK_ATTR_MSG, message);
        let reply = reply.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => "not permitted: needs CAP_NET_ADMIN (run as root)".into(),
            Some(_) => format!("refused by the kernel: {error}"),
            None => error.to_string(),
        })?;
        Answer::decode(reply, self.family)
    }

    /// Sends a request with one attribute and waits for its answer. Only an error message from
    /// the kernel comes out as a system error.
    fn ask(&mut self, command: [u8; 2], attribute: u16, payload: &[u8]) -> io::Result<Reply> {
        self.seq += 1;
        self.send(&request(self.family, self.seq, command, attribute, payload))
            .map_err(io::Error::other)?;
        let deadline = Instant::now() + ANSWER_WAIT;
        loop {
            let reply = self.next_reply(deadline).map_err(io::Error::other)?;
            if i32::from(reply.kind) != libc::NLMSG_ERROR {
                return Ok(reply);
            }
            let error = Fields(&reply.body).u32().map_err(io::Error::other)? as i32;
            // Zero acknowledges; nobody asked for that, and the answer may still come.
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error.wrapping_neg()));
            }
        }
    }

    fn send(&mut self, request: &[u8]) -> Result<(), String> {
        let length = request.len();
        let cannot = |why: &str| Err(format!("cannot send {length} bytes: {why}"));
        match self.socket.write(request) {
            Ok(sent) if sent == length => Ok(()),
            Ok(sent) => cannot(&format!("only {sent} of them went out")),
            Err(error) => match error.raw_os_error() {
                Some(libc::EMSGSIZE | libc::ENOBUFS) => cannot(&format!(
                    "{error}; make messages smaller (-w) or net.core.wmem_default larger"
                )),
                _ => cannot(&error.to_string()),
            },
        }
    }

    /// The next message from the kernel that bears the last request's sequence number;
    /// whatever else arrives is passed over.
    fn next_reply(&mut self, deadline: Instant) -> Result<Reply, String> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let seconds = ANSWER_WAIT.as_secs();
                return Err(format!("no answer within {seconds} seconds"));
            }
            let received = sys::wait_readable(&self.socket, left)
                .and_then(|()| sys::receive(&self.socket, &mut self.buffer));
            match received {
                Ok((length, true)) => {
                    if let Some(reply) = Reply::find(&self.buffer[..length], self.seq)? {
                        return Ok(reply);
                    }
                }
                Ok((_, false)) => {}
                Err(error) => match (error.kind(), error.raw_os_error()) {
                    (ErrorKind::Interrupted | ErrorKind::WouldBlock, _) => {}
                    (_, Some(libc::ENOBUFS)) => {
                        return Err("the answer is lost: no room in the receive buffer \
                                    (net.core.rmem_default)"
                            .into())
                    }
                    _ => return Err(format!("cannot receive the answer: {error}")),
                },
            }
        }
    }
}

/// The bytes of a generic netlink request with one attribute.
fn request(kind: u16, seq: u32, command: [u8; 2], attribute: u16, payload: &[u8]) -> Vec<u8> {
    let attribute_len = NLA_HEADER + payload.len();
    let length = NLMSG_HEADER + GENL_HEADER + attribute_len.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(command);
    bytes.extend([0; 2]);
    bytes.extend((attribute_len as u16).to_ne_bytes());
    bytes.extend(attribute.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(length, 0);
    bytes
}

/// The family's number among the attributes that nlctrl answers with.
fn family_id(reply: &Reply) -> Result<u16, String> {
    let mut fields = Fields(Fields(&reply.body).rest(GENL_HEADER)?);
    loop {
        let length = usize::from(fields.u16()?).max(NLA_HEADER);
        if i32::from(fields.u16()?) == libc::CTRL_ATTR_FAMILY_ID {
            return fields.u16();
        }
        fields.bytes(length.next_multiple_of(4) - NLA_HEADER)?;
    }
}

/// Why the family may be missing, from what sysfs shows of the module.
fn no_family() -> String {
    let module = Path::new("/sys/module/dm_switch");
    let why = if module.join("familyid").exists() {
        "the module is loaded, but serves the initial network namespace only: run swupload there"
    } else if module.exists() {
        "the dm-switch that is loaded is the kernel's own, which takes no uploads; \
         unload it (modprobe -r dm-switch) and load the v3 module"
    } else {
        "the module is not loaded (modprobe dm-switch)"
    };
    format!("no generic netlink family {FAMILY}: {why}")
}

/// Pages that the kernel has accepted, as ranges.
#[derive(Default)]
struct Accepted(Vec<(u32, u32)>);

impl Accepted {
    fn add(&mut self, window: &Window) {
        let end = window.page + window.pages;
        match self.0.last_mut() {
            Some(last) if last.1 == window.page => last.1 = end,
            _ => self.0.push((window.page, end)),
        }
    }
}

impl Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, (page, end)) in self.0.iter().enumerate() {
            let before = if at == 0 { "pages " } else { ", " };
            write!(f, "{before}{page}-{}", end - 1)?;
        }
        Ok(())
    }
}

/// The windows to send, in order: FILE is read whole and found good before there is a first.
fn plan<'a>(
    settings: &'a Settings,
    target: &'a Target,
) -> Result<Box<dyn Iterator<Item = Window> + 'a>, Failure> {
    if let Some(chunk) = settings.free_chunk {
        return Ok(Box::new(std::iter::once(target.chunk(chunk)?)));
    }
    let (first, last) = (settings.first_page, target.page_total - 1);
    let word_pages = target.word_pages();
    if first > last {
        return usage(format!("-o {first}: past the device's last page {last}"));
    }
    if first % word_pages != 0 {
        return usage(format!(
            "-o {first}: inside a word; must be a multiple of {word_pages}"
        ));
    }
    let (name, bytes) = read_file(&settings.file)?;
    let reader = Reader::new(target, settings.packed, first);
    let runs = in_file(&name, reader.read(&bytes))?;
    let cut = |run| windows(run, target, settings.packed, settings.message_bytes);
    Ok(Box::new(runs.into_iter().flat_map(cut)))
}

fn print_messages(settings: &Settings, target: &Target) -> Result<(), Failure> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let plan = plan(settings, target)?;
    let mut output = BufWriter::new(io::stdout().lock());
    for window in plan {
        let message = target.message(&window);
        let digits = message.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let mut line: Vec<u8> = digits.map(|digit| DIGITS[usize::from(digit)]).collect();
        line.push(b'\n');
        output.write_all(&line).map_err(Failure::Output)?;
        if settings.verbose {
            say(format!(
                "{window}: {} entries, {} bytes",
                window.pages,
                message.len()
            ));
        }
    }
    output.flush().map_err(Failure::Output)
}

fn send_messages(settings: &Settings, target: &Target) -> Result<(), Failure> {
    let plan = plan(settings, target)?;
    let mut link = Link::open().map_err(Failure::Kernel)?;
    let mut accepted = Accepted::default();
    for window in plan {
        let message = target.message(&window);
        let answer = link.upload(&message);
        if let Err(text) = answer.and_then(|answer| answer.accepts(target)) {
            return kernel(format!(
                "{window}: {text}\naccepted before that: {accepted}"
            ));
        }
        accepted.add(&window);
        if settings.verbose {
            say(format!(
                "{window}: {} entries, {} bytes",
                window.pages,
                message.len()
            ));
        }
    }
    Ok(())
}

fn send_raw(settings: &Settings) -> Result<(), Failure> {
    let (name, bytes) = read_file(&settings.file)?;
    let message = in_file(&name, raw_message(&bytes))?;
    let mut link = Link::open().map_err(Failure::Kernel)?;
    let failed = |text| Failure::Kernel(format!("message: {text}"));
    let answer = link.upload(&message).map_err(failed)?;
    if settings.verbose {
        say(format!("message: {} bytes", message.len()));
    }
    print(&answer.to_string())?;
    answer.accepted().map_err(failed)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).map_err(Failure::Output)?;
    output.flush().map_err(Failure::Output)
}

fn run() -> Result<(), Failure> {
    let options = option_list();
    let matches = options
        .parse(std::env::args_os().skip(1))
        .map_err(|error| Failure::Usage(error.to_string()))?;
    if matches.opt_present("h") {
        return print(&options.usage(
            "usage: swupload [options] DEVICE FILE\n\n\
             Uploads a page table to a dm-switch device.\n\
             DEVICE is a mapped device's name, its path, or MAJOR:MINOR;\n\
             FILE a page table, - for standard input.",
        ));
    }
    if matches.opt_present("V") {
        return print(concat!("swupload ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    let settings = settings(&matches)?;
    if settings.raw {
        return send_raw(&settings);
    }
    let target = Target::find(&settings)?;
    if settings.print_only {
        return print_messages(&settings, &target);
    }
    send_messages(&settings, &target)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(dev_count: u16, pte_bits: u32, page_total: u32) -> Target {
        let dev = DevNumber::decode(libc::makedev(253, 300));
        let userland = [0x1234, 0xabcd_0001];
        Target {
            dev,
            dev_count,
            pte_bits,
            page_total,
            userland,
        }
    }

    fn cut(target: &Target, packed: bool, bytes: usize, file: &str) -> Vec<Window> {
        let runs = Reader::new(target, packed, 0)
            .read(file.as_bytes())
            .unwrap();
        let cut = |run| windows(run, target, packed, bytes);
        runs.into_iter().flat_map(cut).collect()
    }

    fn window(page: u32, pages: u32, words: &[u32]) -> Window {
        let words = words.to_vec();
        Window { page, pages, words }
    }

    #[test]
    fn numbers() {
        assert_eq!(decimal("00042"), Some(42));
        for bad in ["", "+1", "-1", "1 ", "0x1", "18446744073709551616"] {
            assert_eq!(decimal(bad), None, "{bad}");
        }
        assert_eq!(hex_word("0xDEADbeef"), Some(0xdead_beef));
        for bad in ["", "0x", "123456789", "+1", "g"] {
            assert_eq!(hex_word(bad), None, "{bad}");
        }
        assert_eq!(DevNumber::parse("253:300").unwrap().encode(), 0x1_0fd2c);
        for bad in ["253", "253:", ":1", "4096:0", "1:1048576", "1:2:3", "a:b"] {
            assert_eq!(DevNumber::parse(bad), None, "{bad}");
        }
        let bits = [1, 2, 3, 4, 5, 16, 17, 256, 257, 65535].map(entry_bits);
        assert_eq!(bits, [1, 1, 2, 2, 4, 4, 8, 8, 16, 16]);
    }

    #[test]
    fn runs_and_windows() {
        let target = target(4, 4, 30);
        let file = "# all\n1*9 @9 2# three in all\r\n3\t@16 @24 0*2 1*4";
        let third = window(24, 6, &[0x11_1100]);
        let expected = [window(0, 11, &[0x1111_1111, 0x321]), third];
        assert_eq!(cut(&target, false, MAX_IPC_MSG_LEN, file), expected);
        let small = cut(&target, false, TABLE_HEADER + 7, file);
        assert_eq!(small[0], window(0, 8, &[0x1111_1111]));
        assert_eq!(small[1], window(8, 3, &[0x321]));
        let packed = cut(&target, true, MAX_IPC_MSG_LEN, "89abcdef @16 FFFFFFFF*2");
        let second = window(16, 14, &[u32::MAX, u32::MAX]);
        assert_eq!(packed, [window(0, 8, &[0x89ab_cdef]), second]);
        let large = self::target(16, 4, 200_000);
        let windows = cut(&large, false, MAX_IPC_MSG_LEN, "f*200000");
        assert_eq!(windows[0].to_string(), "pages 0-130879");
        assert_eq!(windows[1].to_string(), "pages 130880-199999");
        assert_eq!(large.message(&windows[0]).len(), MAX_IPC_MSG_LEN);
    }

    #[test]
    fn raw_messages() {
        assert_eq!(raw_message(&[b'0'; 2 * 65531]), Ok(vec![0; 65531]));
        assert!(raw_message(&[b'0'; 2 * 65532]).is_err());
        let request = request(31, 7, [1, 1], 1, &[9, 8, 7]);
        assert_eq!((request.len(), request[0], request[20]), (28, 28, 7));
    }

    #[test]
    fn table_lines() {
        let line = |target: &str, arguments: &str| (40_000, target.into(), arguments.into());
        let switch = |line| dm::switch(&[line]);
        assert_eq!(switch(line("switch", "2 7 1:0 0 1:1 8")), Ok((2, 5715)));
        for (line, expected) in [
            (line("switch", "1 0 1:0 0"), "its page size is zero"),
            (
                line("switch", "2 8 0 1:0 0 1:1 0"),
                "a switch of the kernel's own",
            ),
            (line("switch", "2 7 1:0 0"), "not a table of dm-switch v3"),
            (line("switch", "0 7"), "not a table of dm-switch v3"),
            (
                line("switch", "18446744073709551615 7 1:0 0"),
                "not a table of dm-switch v3",
            ),
            (
                line("linear", "1:0 0"),
                "not a switch: its target is linear",
            ),
        ] {
            let text = switch(line).unwrap_err();
            assert!(text.starts_with(expected), "{text}");
        }
        let v3 = || line("switch", "1 7 1:0 0");
        assert_eq!(dm::switch(&[line("linear", "1:0 0"), v3()]), Ok((1, 5715)));
        assert!(dm::switch(&[v3(), v3()])
            .unwrap_err()
            .starts_with("has several"));
        assert!(dm::switch(&[])
            .unwrap_err()
            .starts_with("has no live table"));
    }

    #[test]
    fn table_from_the_ioctl() {
        let mut answer = vec![0; 400];
        let put = |answer: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            answer[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(&mut answer, 16, &312_u32.to_ne_bytes());
        put(&mut answer, 20, &1_u32.to_ne_bytes());
        put(&mut answer, 40, &libc::makedev(253, 300).to_ne_bytes());
        put(&mut answer, 320, &40_000_u64.to_ne_bytes());
        put(&mut answer, 332, &88_u32.to_ne_bytes());
        put(&mut answer, 336, b"switch");
        put(&mut answer, 352, b"1 7 1:0 0");
        let lines = vec![(40_000, "switch".into(), "1 7 1:0 0".into())];
        let dev = DevNumber::parse("253:300").unwrap();
        assert_eq!(dm::parse(&answer), Ok((dev, lines)));
        put(&mut answer, 20, &2_u32.to_ne_bytes());
        assert!(dm::parse(&answer).unwrap_err().ends_with("cut short"));
        put(&mut answer, 332, &u32::MAX.to_ne_bytes());
        assert!(dm::parse(&answer).unwrap_err().ends_with("cut short"));
    }

    /// A datagram with the answer of family 31 to request 7, as the contract has it.
    fn answer(status: u32, text: &[u8]) -> Vec<u8> {
        let mut body = vec![1, 1, 0, 0];
        body.extend([288_u16, 11].map(u16::to_ne_bytes).concat());
        let words = [284, 1, 0x1234, 0xabcd_0001, 253, 300, status];
        body.extend(words.map(u32::to_ne_bytes).concat());
        body.extend(text);
        body.resize(292, 0);
        let mut datagram = 308_u32.to_ne_bytes().to_vec();
        datagram.extend([31_u16, 0].map(u16::to_ne_bytes).concat());
        datagram.extend([7_u32, 0].map(u32::to_ne_bytes).concat());
        datagram.extend(body);
        datagram
    }

    fn decode(datagram: &[u8]) -> Result<Answer, String> {
        let reply = Reply::find(datagram, 7)?.ok_or("no answer to request 7")?;
        Answer::decode(reply, 31)
    }

    #[test]
    fn answers() {
        let target = target(3, 4, 40);
        let good = answer(0, b"");
        assert_eq!(decode(&good).unwrap().accepts(&target), Ok(()));
        let refused = decode(&answer(22, b"no\x07\0rest")).unwrap();
        let text = "refused by the kernel: no? (status 22)";
        assert_eq!(refused.accepts(&target).unwrap_err(), text);
        assert!(refused
            .to_string()
            .ends_with("status 22\nerr_str no?\nerr_tail nonzero\n"));
        let later = [&[16, 0, 0, 0][..], &[0; 12], &good].concat();
        assert!(decode(&later).is_ok());
        assert_eq!(Reply::find(&good, 8), Ok(None));
        assert_eq!(Reply::find(&good[..10], 7), Ok(None));
        assert!(decode(&good[..300]).unwrap_err().ends_with("cut short"));
        for (at, what) in [
            (4, "type is 30"),
            (16, "command is 0"),
            (20, "attribute length is 289"),
            (22, "attribute type is 10"),
            (24, "total_len is 285"),
            (28, "opcode is 0"),
            (32, "first userland word is"),
            (40, "device is 252:300"),
        ] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let answer = decode(&bad).and_then(|answer| answer.accepts(&target));
            let text = answer.unwrap_err();
            assert!(text.starts_with(&format!("the answer's {what}")), "{text}");
        }
    }
}
