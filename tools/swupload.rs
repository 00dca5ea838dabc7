// SPDX-License-Identifier: GPL-2.0-only

//! Uploads a page table to a dm-switch (v3) device over generic netlink.
//!
//! A page is the unit that the switch maps. Its entry is the index of the device (member) that the
//! page is on. Entries are packed into 32-bit words, the first entry in the lowest bits. A message
//! carries one window of consecutive pages. C header: `dm-switch.h`.

#![deny(unsafe_code)]

use std::env;
use std::process::ExitCode;

use command_line::{option_list, settings};
use message::Target;
use report::{print, say, usage, Failure};
use upload::{send_raw, upload};

fn main() -> ExitCode {
    let Err(Failure(status, text)) = run() else {
        return ExitCode::SUCCESS;
    };
    say(&text);
    status.into()
}

fn run() -> Result<(), Failure> {
    let options = option_list();
    let arguments = env::args_os().skip(1);
    let matches = options.parse(arguments).or_else(usage)?;
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
    upload(&settings, &Target::find(&settings)?)
}

/// The command line: the options, their values, and the operands.
///
/// Document: `swupload.8`.
mod command_line {
    use std::fmt::Display;
    use std::ops::RangeInclusive;
    use std::str::FromStr;

    use getopts::{Matches, Options};

    use super::message::{CHUNK_PTE_COUNT, MAX_IPC_MSG_LEN, TABLE_HEADER};
    use super::numbers::{decimal, hex_word};
    use super::report::{usage, Failure};

    /// What the command line asks for.
    pub(crate) struct Settings {
        pub(crate) device: String,
        pub(crate) file: String,
        pub(crate) first_page: u32,
        /// Most bytes of a message.
        pub(crate) message_bytes: usize,
        pub(crate) pte_bits: Option<u32>,
        pub(crate) dev_count: Option<u64>,
        pub(crate) page_total: Option<u64>,
        pub(crate) userland: [u32; 2],
        pub(crate) loaded: bool,
        pub(crate) packed: bool,
        pub(crate) whole: bool,
        pub(crate) free_chunk: Option<u32>,
        pub(crate) raw: bool,
        pub(crate) print_only: bool,
        pub(crate) verbose: bool,
    }

    pub(crate) fn option_list() -> Options {
        let mut options = Options::new();
        options
            .optopt("b", "pte-bits", "bits of an entry, 1 to 32", "N")
            .optopt("n", "devices", "device count, 1 to 65535", "N")
            .optopt("t", "pages", "total pages of the device", "N")
            .optflag("l", "loaded", "for the table that is loaded, not live yet")
            .optopt("o", "first-page", "page of FILE's first entry", "N")
            .optopt("u", "userland", "two userland words (hex)", "A,B")
            .optflag("p", "packed", "FILE holds packed 32-bit words")
            .optflag("W", "whole", "refuse a FILE that leaves pages out")
            .optopt("w", "message-bytes", "bytes a message, 44 to 65480", "N")
            .optopt("d", "free-chunk", "free a chunk (no FILE)", "CHUNK")
            .optflag("r", "raw", "send FILE's bytes (hex), print the answer")
            .optflag("N", "dry-run", "print the messages as hex, send none")
            .optflag("v", "verbose", "say what each message carried")
            .optflag("h", "help", "print this help")
            .optflag("V", "version", "print the version");
        options
    }

    /// Reads the options and operands. Fails if one of them is wrong.
    pub(crate) fn settings(matches: &Matches) -> Result<Settings, Failure> {
        let free_chunk = number(matches, "d", "chunk", 0..=u32::MAX / CHUNK_PTE_COUNT)?;
        let (device, file) = operands(matches)?;
        let first_page = number(matches, "o", "first page", 0..=u32::MAX)?;
        let sizes = TABLE_HEADER + 4..=MAX_IPC_MSG_LEN;
        let message_bytes = number(matches, "w", "bytes a message", sizes)?;
        Ok(Settings {
            device,
            file,
            first_page: first_page.unwrap_or(0),
            message_bytes: message_bytes.unwrap_or(MAX_IPC_MSG_LEN),
            pte_bits: number(matches, "b", "pte bits", 1..=32)?,
            dev_count: number(matches, "n", "device count", 1..=u16::MAX.into())?,
            page_total: number(matches, "t", "total pages", 1..=u32::MAX.into())?,
            userland: userland(matches)?,
            loaded: matches.opt_present("l"),
            packed: matches.opt_present("p"),
            whole: matches.opt_present("W"),
            free_chunk,
            raw: matches.opt_present("r"),
            print_only: matches.opt_present("N"),
            verbose: matches.opt_present("v"),
        })
    }

    /// Returns DEVICE and FILE, each empty if the mode does not use it. Fails if an option is given
    /// that the mode does not use.
    fn operands(matches: &Matches) -> Result<(String, String), Failure> {
        let (mode, excluded): (_, &[_]) = if matches.opt_present("r") {
            (
                "-r",
                &["b", "n", "t", "u", "l", "o", "p", "W", "w", "d", "N"],
            )
        } else if matches.opt_present("d") {
            ("-d", &["l", "o", "p", "W", "w"])
        } else if matches.opt_present("l") {
            // The kernel finds the table by these two numbers, so they must be the table's own.
            ("-l", &["n", "t"])
        } else {
            ("", &[])
        };
        if let Some(name) = excluded.iter().find(|name| matches.opt_present(name)) {
            return usage(format!("{mode} has no use for -{name}"));
        }
        match (mode, matches.free.as_slice()) {
            ("-r", [file] | [_, file]) => Ok((String::new(), file.clone())),
            ("-r", _) => usage("-r needs a FILE, with or without a DEVICE before it"),
            ("-d", [device]) => Ok((device.clone(), String::new())),
            ("-d", _) => usage("-d needs a DEVICE and no FILE"),
            (_, [device, file]) => Ok((device.clone(), file.clone())),
            _ => usage("needs a DEVICE and a FILE"),
        }
    }

    /// Returns the value of option `name`, a decimal number in `range`. `what` names it in the
    /// error.
    fn number<T: FromStr + PartialOrd + Display>(
        matches: &Matches,
        name: &str,
        what: &str,
        range: RangeInclusive<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(text) = matches.opt_str(name) else {
            return Ok(None);
        };
        let value = decimal(&text).filter(|value| range.contains(value));
        if value.is_none() {
            let (low, high) = range.into_inner();
            let wanted = format!("{what} must be a decimal number from {low} to {high}");
            return usage(format!("-{name} {text}: {wanted}"));
        }
        Ok(value)
    }

    fn userland(matches: &Matches) -> Result<[u32; 2], Failure> {
        let text = matches.opt_str("u").unwrap_or("0,0".into());
        let (first, second) = text.split_once(',').unwrap_or_default();
        match (hex_word(first), hex_word(second)) {
            (Some(first), Some(second)) => Ok([first, second]),
            _ => usage(format!(
                "-u {text}: must be two words of 1 to 8 hexadecimal digits, as in 1f,a0"
            )),
        }
    }
}

/// Finds the device, plans the upload, and sends or prints its messages.
mod upload {
    use std::iter;
    use std::ops::Range;

    use super::command_line::Settings;
    use super::dm::{find_device, find_loaded_switch, find_switch, Key, Switch};
    use super::file::{raw_message, Reader, Source};
    use super::message::{Target, Window, CHUNK_PTE_COUNT};
    use super::netlink::Link;
    use super::report::{print, say, usage, Failure};
    use super::words::{windows, Stretch};

    /// Sends the messages of the upload, or prints them. Stops at the first that is refused.
    pub(crate) fn upload(settings: &Settings, target: &Target) -> Result<(), Failure> {
        let plan = plan(settings, target)?;
        let mut link = match settings.print_only {
            true => None,
            false => Some(Link::open()?),
        };
        let mut accepted = Vec::new();
        for window in plan.windows {
            let message = target.message(&window);
            if let Some(link) = &mut link {
                let answer = link.upload(&message);
                let accepts = answer.and_then(|answer| answer.accepts(target));
                accepts.map_err(|text| {
                    let before = page_list(&accepted);
                    format!("{window}: {text}\naccepted before that: {before}")
                })?;
            } else {
                print(&hex_line(&message))?;
            }
            if settings.verbose {
                let (entries, bytes) = (window.pages.len(), message.len());
                say(&format!("{window}: {entries} entries, {bytes} bytes\n"));
            }
            accepted.push(window.pages);
        }
        if settings.verbose && plan.left_out > 0 {
            let (left_out, total) = (plan.left_out, target.page_total);
            say(&format!(
                "{left_out} of {total} pages are left as they are\n"
            ));
        }
        Ok(())
    }

    fn hex_line(bytes: &[u8]) -> String {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
        digits.chain(['\n']).collect()
    }

    /// Lists the pages of `windows`; adjacent windows are one range.
    fn page_list(windows: &[Range<u32>]) -> String {
        let touching = windows.chunk_by(|before, next| before.end == next.start);
        let ranges = touching.map(|range| {
            let (first, last) = (range[0].start, range[range.len() - 1].end - 1);
            format!("{first}-{last}")
        });
        match ranges.collect::<Vec<_>>().join(", ") {
            list if list.is_empty() => "none".into(),
            list => format!("pages {list}"),
        }
    }

    /// Sends FILE's bytes as one message, and prints the answer.
    pub(crate) fn send_raw(settings: &Settings) -> Result<(), Failure> {
        let message = raw_message(&Source::read(&settings.file)?)?;
        let mut link = Link::open()?;
        let failed = |text| format!("message: {text}");
        let answer = link.upload(&message).map_err(failed)?;
        if settings.verbose {
            say(&format!("message: {} bytes\n", message.len()));
        }
        print(&answer.to_string())?;
        Ok(answer.accepted().map_err(failed)?)
    }

    /// The messages of an upload.
    struct Plan {
        windows: Box<dyn Iterator<Item = Window>>,
        /// Pages of the device that FILE does not give.
        left_out: u32,
    }

    /// Plans the upload. Reads and checks all of FILE, so that a bad FILE changes nothing.
    fn plan(settings: &Settings, target: &Target) -> Result<Plan, Failure> {
        if let Some(chunk) = settings.free_chunk {
            return Ok(Plan {
                windows: Box::new(iter::once(target.chunk(chunk)?)),
                left_out: 0,
            });
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
        let source = Source::read(&settings.file)?;
        let packed = settings.packed;
        let reader = Reader {
            source: &source,
            target,
            packed,
        };
        let stretches = reader.read(first)?;
        let given: usize = stretches.iter().map(|stretch| stretch.pages.len()).sum();
        let left_out = target.page_total - given as u32;
        if settings.whole && left_out > 0 {
            let name = &source.name;
            return Err(not_whole(name, &stretches, left_out, target.page_total));
        }
        Ok(Plan {
            windows: Box::new(windows(stretches, target, settings.message_bytes)),
            left_out,
        })
    }

    /// The error for a FILE that leaves out `left_out` pages.
    fn not_whole(name: &str, stretches: &[Stretch], left_out: u32, page_total: u32) -> Failure {
        let given = &stretches[0].pages;
        let first = if given.start == 0 { given.end } else { 0 };
        let text = format!(
            "{name} leaves out {left_out} of the device's {page_total} pages, the first of them \
             page {first}: add these pages, or do without -W"
        );
        Failure::new(2, &text)
    }

    impl Target {
        /// Uses the numbers of the command line, and asks the kernel for those not given.
        pub(crate) fn find(settings: &Settings) -> Result<Self, Failure> {
            let name = &settings.device;
            let key = find_device(name)?;
            let (dev, switch) = match (&key, settings.dev_count, settings.page_total) {
                _ if settings.loaded => find_loaded_switch(name, &key)?,
                (Key::Number(dev), Some(devices), Some(pages)) => {
                    (*dev, Switch::v3(devices, pages))
                }
                _ => find_switch(name, &key)?,
            };
            let devices = settings.dev_count.unwrap_or(switch.devices);
            let pages = settings.page_total.unwrap_or(switch.pages);
            let dev_count = u16::try_from(devices)
                .map_err(|_| format!("{name}: {devices} devices; a message says 65535 at most"))?;
            let page_total = u32::try_from(pages)
                .map_err(|_| format!("{name}: {pages} pages; a message says 4294967295 at most"))?;
            Ok(Target {
                dev,
                dev_count,
                pte_bits: pte_bits(settings.pte_bits, dev_count, switch.is_in_tree)?,
                page_total,
                userland: settings.userland,
            })
        }

        /// Returns the window that frees `chunk`. Fails if the device has no such chunk.
        fn chunk(&self, chunk: u32) -> Result<Window, Failure> {
            let last = (self.page_total - 1) / CHUNK_PTE_COUNT;
            if chunk > last {
                return usage(format!("-d {chunk}: past the device's last chunk {last}"));
            }
            let page = chunk * CHUNK_PTE_COUNT;
            let word_pages = self.word_pages();
            if page % word_pages != 0 {
                return usage(format!(
                    "-d {chunk}: begins at page {page}, inside a word; must be a multiple of {word_pages}"
                ));
            }
            Ok(Window {
                pages: page..page,
                // The C structure has one word.
                words: vec![0],
            })
        }
    }

    /// Returns the bits of an entry: `given`, or the fewest that hold every index. For a table line
    /// that is not of the kernel's own target, these are rounded up to a power of two. Fails if
    /// `given` cannot hold every index.
    pub(crate) fn pte_bits(
        given: Option<u32>,
        dev_count: u16,
        is_in_tree: bool,
    ) -> Result<u32, Failure> {
        let needed = u16::BITS - (dev_count - 1).leading_zeros();
        let bits = given.unwrap_or(match is_in_tree {
            true => needed.max(1),
            false => needed.next_power_of_two(),
        });
        if bits < needed {
            return usage(format!(
                "-b {bits}: {dev_count} devices need {needed} pte bits or more"
            ));
        }
        Ok(bits)
    }
}

/// FILE: a page table, or a message in hexadecimal.
///
/// Document: `swupload.8`, FILES.
mod file {
    use std::fmt::Display;
    use std::fs::File;
    use std::io::{self, Read};
    use std::mem;

    use super::message::Target;
    use super::netlink::NLA_HEADER;
    use super::report::Failure;
    use super::words::{Packer, Stretch};

    /// Most bytes of FILE. No page table needs more, and an endless file must not exhaust memory.
    const FILE_LIMIT: usize = 64 << 20;

    /// The bytes of FILE, and the name of it that errors show.
    pub(crate) struct Source {
        pub(crate) name: String,
        pub(crate) bytes: Vec<u8>,
    }

    impl Source {
        /// Reads FILE; `-` is standard input.
        pub(crate) fn read(file: &str) -> Result<Self, Failure> {
            let name = if file == "-" { "<stdin>" } else { file };
            let bad = |text| Failure(2, format!("swupload: {text}\n"));
            let cannot = |error| bad(format!("cannot read {name}: {error}"));
            let mut bytes = Vec::new();
            let source: Box<dyn Read> = match file {
                "-" => Box::new(io::stdin()),
                _ => {
                    let file = File::open(file).map_err(cannot)?;
                    let size = file.metadata().map_or(0, |file| file.len());
                    bytes.reserve(FILE_LIMIT.min(size as usize));
                    Box::new(file)
                }
            };
            let mut source = source.take(FILE_LIMIT as u64 + 1);
            source.read_to_end(&mut bytes).map_err(cannot)?;
            if bytes.len() > FILE_LIMIT {
                let limit = FILE_LIMIT >> 20;
                return Err(bad(format!("{name} is larger than {limit} MiB")));
            }
            let name = name.into();
            Ok(Source { name, bytes })
        }

        fn tokens(&self) -> Tokens<'_> {
            Tokens {
                source: self,
                rest: &self.bytes,
            }
        }

        /// Fails with `text` and the line and column of `piece`, which must be a part of `bytes`.
        #[cold]
        fn fault<T>(&self, piece: &[u8], text: impl Display) -> Result<T, Failure> {
            let at = piece.as_ptr().addr() - self.bytes.as_ptr().addr();
            let (line, column) = end_of(&self.bytes[..at]);
            let name = &self.name;
            Err(Failure(2, format!("{name}:{line}:{column}: {text}\n")))
        }
    }

    /// Whether `byte` ends a line. The two bytes of CRLF end one line together.
    fn is_line_end(byte: u8) -> bool {
        matches!(byte, b'\n' | b'\r')
    }

    /// Returns line and column, counted from 1, of the byte after `text`.
    fn end_of(text: &[u8]) -> (usize, usize) {
        let line_ends = text.iter().filter(|byte| is_line_end(**byte)).count();
        let pairs = text.windows(2).filter(|pair| pair == b"\r\n").count();
        let line_begin = text.iter().rposition(|byte| is_line_end(*byte));
        let line_begin = line_begin.map_or(0, |end| end + 1);
        (1 + line_ends - pairs, 1 + text.len() - line_begin)
    }

    // Kinds of bytes that are not hexadecimal digits. Each is one bit above all device indexes, and
    // stays above them, within 32 bits, when three more digits shift it.
    const SPACE: u32 = 1 << 16;
    const COMMENT: u32 = 1 << 17;
    const STAR: u32 = 1 << 18;
    const OTHER: u32 = 1 << 19;

    /// For each byte its value as a hexadecimal digit, or its kind.
    static KINDS: [u32; 256] = {
        let mut kinds = [OTHER; 256];
        let mut byte = 0;
        while byte < kinds.len() {
            if let Some(digit) = (byte as u8 as char).to_digit(16) {
                kinds[byte] = digit;
            } else if (byte as u8).is_ascii_whitespace() {
                kinds[byte] = SPACE;
            }
            byte += 1;
        }
        kinds[b'#' as usize] = COMMENT;
        kinds[b'*' as usize] = STAR;
        kinds
    };

    fn kind(byte: u8) -> u32 {
        KINDS[usize::from(byte)]
    }

    /// The kinds that end a token.
    const ENDS: u32 = SPACE | COMMENT;

    /// Splits FILE into tokens. `rest` is what is not read yet.
    struct Tokens<'a> {
        source: &'a Source,
        rest: &'a [u8],
    }

    impl<'a> Tokens<'a> {
        /// Skips to the next token, and returns its first byte; None at the end of FILE.
        fn find(&mut self) -> Option<u8> {
            loop {
                let (first, after) = self.rest.split_first()?;
                match kind(*first) {
                    SPACE => self.rest = after,
                    COMMENT => self.rest = skip_line(after).unwrap_or(&after[after.len()..]),
                    _ => return Some(*first),
                }
            }
        }

        /// Reads a number: digits in `radix`, up to a byte of a kind in `ends` or the end of FILE.
        /// Returns `1 << 32` for a number of more than 32 bits. Fails if there is no number or
        /// another byte ends it; `what` names the number in the error.
        fn number(&mut self, radix: u32, ends: u32, what: &str) -> Result<u64, Failure> {
            let start = self.rest;
            let mut value = 0;
            while let [byte, after @ ..] = self.rest {
                let digit = kind(*byte);
                if digit >= radix {
                    break;
                }
                value = (value * u64::from(radix) + u64::from(digit)).min(1 << 32);
                self.rest = after;
            }
            let is_end = self.rest.first().is_none_or(|byte| kind(*byte) & ends != 0);
            match is_end && self.rest.len() < start.len() {
                true => Ok(value),
                false => self.no_number(radix, is_end, what),
            }
        }

        /// The error for a missing number or a byte that is not a digit.
        #[cold]
        fn no_number(&self, radix: u32, is_end: bool, what: &str) -> Result<u64, Failure> {
            let text = match self.rest.first() {
                Some(byte) if !is_end => {
                    let kind = if radix == 16 { "hex" } else { "decimal" };
                    let (stray, way_out) = (byte.escape_ascii(), way_out(*byte));
                    format!("stray '{stray}': {what} is {kind} digits only{way_out}")
                }
                _ => format!("{what} is missing"),
            };
            self.source.fault(self.rest, text)
        }

        /// Returns the bytes read since `rest` was `start`.
        fn since(&self, start: &'a [u8]) -> &'a [u8] {
            &start[..start.len() - self.rest.len()]
        }
    }

    /// Advice on a byte that an editor may not show; empty for a printable byte.
    fn way_out(stray: u8) -> &'static str {
        match stray {
            b' '..=b'~' => "",
            0 | 0x80.. => "; save the file as ASCII text without a byte order mark",
            _ => "; separate tokens with spaces, tabs or line ends",
        }
    }

    /// Returns what follows the line, or None if nothing ends the line. Leaves the LF of CRLF, as
    /// white space.
    fn skip_line(rest: &[u8]) -> Option<&[u8]> {
        let end = rest.iter().position(|byte| is_line_end(*byte))?;
        Some(&rest[end + 1..])
    }

    /// Formats a token, or a part of one, for an error. Cuts it after 24 bytes.
    pub(crate) fn shown(piece: &[u8]) -> String {
        match piece.get(..24) {
            Some(start) if piece.len() > 24 => format!("{}...", start.escape_ascii()),
            _ => piece.escape_ascii().to_string(),
        }
    }

    /// Reads page tables. A value is for one page or, if `packed`, for all pages of a word.
    pub(crate) struct Reader<'a> {
        pub(crate) source: &'a Source,
        pub(crate) target: &'a Target,
        pub(crate) packed: bool,
    }

    impl Reader<'_> {
        /// Returns the pages of FILE, whose first value is for page `first`. Fails if it has none.
        pub(crate) fn read(&self, first: u32) -> Result<Vec<Stretch>, Failure> {
            let source = self.source;
            let mut tokens = source.tokens();
            let (mut stretches, mut stretch) = (Vec::new(), Stretch::new(first));
            while let Some(byte) = tokens.find() {
                if byte == b'@' {
                    let page = self.page(&mut tokens, stretch.pages.end)?;
                    if page != stretch.pages.end {
                        stretches.push(mem::replace(&mut stretch, Stretch::new(page)));
                    }
                } else if !self.add_indexes(&mut tokens, &mut stretch) {
                    self.add(&mut tokens, &mut stretch)?;
                }
            }
            stretches.push(stretch);
            stretches.retain(|stretch| !stretch.pages.is_empty());
            if stretches.is_empty() {
                return source.fault(&source.bytes, "the file gives no page (it is empty)");
            }
            Ok(stretches)
        }

        /// Reads tokens that are an index each, and adds their pages, up to another token. Returns
        /// whether it read anything.
        fn add_indexes(&self, tokens: &mut Tokens, stretch: &mut Stretch) -> bool {
            match self.target.dev_count {
                _ if self.packed || tokens.rest.get(1) == Some(&b'*') => false,
                0..=0x100 => self.add_indexes_of::<1, 2>(tokens, stretch),
                0x101..=0x1000 => self.add_indexes_of::<2, 3>(tokens, stretch),
                0x1001.. => self.add_indexes_of::<3, 4>(tokens, stretch),
            }
        }

        /// Does so for indexes of `FEW` or `MORE` digits, followed by one or two bytes of white
        /// space.
        // Not inlined: the loops need the registers.
        #[inline(never)]
        fn add_indexes_of<const FEW: usize, const MORE: usize>(
            &self,
            tokens: &mut Tokens,
            stretch: &mut Stretch,
        ) -> bool {
            let limit = self.target.dev_count.into();
            let left = (self.target.page_total - stretch.pages.end) as usize;
            // An index takes at least FEW + 1 bytes, so this part has no more indexes than the
            // device has pages left.
            let size = tokens.rest.len().min(left * (FEW + 1));
            let mut rest = &tokens.rest[..size];
            let mut packer = Packer::new(stretch, self.target.pte_bits);
            loop {
                let begin = rest;
                rest = pack_indexes::<FEW, 1>(rest, limit, &mut packer);
                rest = match rest {
                    [byte, after @ ..] if kind(*byte) == SPACE => {
                        rest = pack_indexes::<FEW, 2>(after, limit, &mut packer);
                        pack_indexes::<MORE, 2>(rest, limit, &mut packer)
                    }
                    [b'#', after @ ..] => match skip_line(after) {
                        Some(after) => after,
                        // The comment may end after this part.
                        None => break,
                    },
                    _ => pack_indexes::<MORE, 1>(rest, limit, &mut packer),
                };
                if rest.len() == begin.len() {
                    break;
                }
            }
            packer.finish();
            tokens.rest = &tokens.rest[size - rest.len()..];
            rest.len() < size
        }

        /// Reads `@PAGE`, and returns the page, where `next` is the page after the last one given.
        /// Fails if it goes back, is past the device, or skips pages and is inside a word.
        fn page(&self, tokens: &mut Tokens, next: u32) -> Result<u32, Failure> {
            let token = tokens.rest;
            tokens.rest = &token[1..];
            let page = tokens.number(10, ENDS, "the page after @")?;
            let (next, last) = (u64::from(next), u64::from(self.target.page_total - 1));
            let word_pages = u64::from(self.target.word_pages());
            let wrong = if page > last {
                format!("is past the device's last page {last}")
            } else if page < next {
                format!("goes back: pages must ascend, and page {next} is next")
            } else if page != next && page % word_pages != 0 {
                let multiple = format!("the next must be a multiple of {word_pages}");
                format!("is inside a word: after pages left out, {multiple}")
            } else {
                return Ok(page as u32);
            };
            let token_text = shown(tokens.since(token));
            self.source.fault(token, format!("{token_text} {wrong}"))
        }

        /// Reads `VALUE` or `VALUE*COUNT`, and adds its pages. Fails if the device has fewer pages
        /// left.
        fn add(&self, tokens: &mut Tokens, stretch: &mut Stretch) -> Result<(), Failure> {
            let Target {
                pte_bits,
                page_total,
                ..
            } = *self.target;
            let token = tokens.rest;
            let value = self.value(tokens)?;
            let count = self.count(tokens)?;
            let unit_pages = match self.packed {
                true => self.target.word_pages(),
                false => 1,
            };
            let (first, total) = (u64::from(stretch.pages.end), u64::from(page_total));
            let end = first + u64::from(count) * u64::from(unit_pages);
            // Only the last word of the device may be for fewer pages than it has entries.
            if end - u64::from(unit_pages) >= total {
                let (range, last) = (format!("{first}-{}", end - 1), total - 1);
                let wrong = format!("is for pages {range}, past the device's last page {last}");
                let token_text = shown(tokens.since(token));
                return self.source.fault(token, format!("{token_text} {wrong}"));
            }
            if self.packed {
                stretch.repeat_word(value, count);
                stretch.pages.end = end.min(total) as u32;
            } else {
                stretch.repeat(pte_bits, value, count);
            }
            Ok(())
        }

        /// Reads an index, which must be below the device count, or a packed word.
        fn value(&self, tokens: &mut Tokens) -> Result<u32, Failure> {
            let (source, piece) = (self.source, tokens.rest);
            if self.packed {
                let word = tokens.number(16, ENDS | STAR, "a word")?;
                let piece = tokens.since(piece);
                if piece.len() > 8 {
                    let word = shown(piece);
                    return source.fault(piece, format!("word {word} has more than 8 digits"));
                }
                return Ok(word as u32);
            }
            let index = tokens.number(16, ENDS | STAR, "a device index")?;
            let dev_count = self.target.dev_count;
            if index >= dev_count.into() {
                let hint = if index > 9 { " (hex)" } else { "" };
                let wrong = format!("is not below the device count {dev_count}");
                let index = shown(tokens.since(piece));
                return source.fault(piece, format!("index {index}{hint} {wrong}"));
            }
            Ok(index as u32)
        }

        /// Reads `*COUNT`; without it the count is 1.
        fn count(&self, tokens: &mut Tokens) -> Result<u32, Failure> {
            let [b'*', piece @ ..] = tokens.rest else {
                return Ok(1);
            };
            tokens.rest = piece;
            let source = self.source;
            let count = tokens.number(10, ENDS, "the count after *")?;
            match u32::try_from(count) {
                Ok(0) => source.fault(piece, "a count of 0 gives no page; it must be 1 or more"),
                Ok(count) => Ok(count),
                Err(_) => {
                    let count = shown(tokens.since(piece));
                    source.fault(piece, format!("count {count} is above {}", u32::MAX))
                }
            }
        }
    }

    /// Adds the pages of the next indexes, as long as each is below `limit`, has `DIGITS` digits,
    /// and has `SPACES` bytes of white space after it. Returns what follows them.
    fn pack_indexes<'a, const DIGITS: usize, const SPACES: usize>(
        mut rest: &'a [u8],
        limit: u32,
        packer: &mut Packer,
    ) -> &'a [u8] {
        while rest.len() >= DIGITS + SPACES {
            let (digits, after) = rest.split_at(DIGITS);
            let (spaces, after) = after.split_at(SPACES);
            let digits = digits.iter().map(|byte| kind(*byte));
            let index = digits.fold(0, |index, digit| (index << 4) | digit);
            if index >= limit || spaces.iter().any(|byte| kind(*byte) != SPACE) {
                break;
            }
            packer.push(index);
            rest = after;
        }
        rest
    }

    /// Reads a message in hexadecimal, with white space and comments anywhere.
    pub(crate) fn raw_message(source: &Source) -> Result<Vec<u8>, Failure> {
        // The attribute's length has 16 bits and counts its own header.
        const LIMIT: usize = u16::MAX as usize - NLA_HEADER;
        let mut digits = Vec::new();
        let mut tokens = source.tokens();
        let mut last = tokens.rest;
        while tokens.find().is_some() {
            last = tokens.rest;
            tokens.number(16, ENDS, "a message")?;
            digits.extend(tokens.since(last).iter().map(|digit| kind(*digit)));
        }
        let wrong = match (digits.len(), digits.len() / 2) {
            (0, _) => "the file gives no message (it is empty)".into(),
            (count, _) if count % 2 != 0 => format!("half a byte: {count} digits are odd"),
            (_, bytes) if bytes > LIMIT => {
                format!("the message has {bytes} bytes; an attribute holds {LIMIT} at most")
            }
            _ => {
                let pairs = digits.chunks_exact(2);
                return Ok(pairs.map(|pair| (pair[0] * 16 + pair[1]) as u8).collect());
            }
        };
        source.fault(last, wrong)
    }
}

/// Packs entries into 32-bit words, and cuts the words into windows.
///
/// C header: `dm-switch.h`.
mod words {
    use std::collections::VecDeque;
    use std::mem;
    use std::ops::Range;

    use super::message::{Target, Window, TABLE_HEADER};

    /// Entries of consecutive pages. The first page begins a word.
    pub(crate) struct Stretch {
        pub(crate) pages: Range<u32>,
        /// The full words. A word that repeats because of a count is here once.
        words: Vec<u32>,
        /// For each word that repeats: its index in `words`, and its count.
        runs: VecDeque<(u32, u32)>,
        /// The last word, if it is not full, and the number of its bits that have entries.
        begun: u32,
        used: u32,
    }

    impl Stretch {
        pub(crate) fn new(first: u32) -> Self {
            Stretch {
                pages: first..first,
                words: Vec::new(),
                runs: VecDeque::new(),
                begun: 0,
                used: 0,
            }
        }

        /// Adds `count` pages with the same entry, of `pte_bits` bits.
        pub(crate) fn repeat(&mut self, pte_bits: u32, entry: u32, count: u32) {
            let word_pages = u32::BITS / pte_bits;
            let begun = match self.used {
                0 => 0,
                used => count.min(word_pages - used / pte_bits),
            };
            let (words, rest) = ((count - begun) / word_pages, (count - begun) % word_pages);
            self.repeat_in_word(pte_bits, entry, begun);
            if words > 0 {
                self.repeat_word(same_entries(pte_bits, entry, word_pages), words);
            }
            self.repeat_in_word(pte_bits, entry, rest);
            self.pages.end += count;
        }

        /// Adds `count` entries to the last word, which must have room for them. Does not update
        /// `pages`.
        fn repeat_in_word(&mut self, pte_bits: u32, entry: u32, count: u32) {
            self.begun |= same_entries(pte_bits, entry, count) << self.used;
            self.used += count * pte_bits;
            if self.used > u32::BITS - pte_bits {
                self.words.push(mem::take(&mut self.begun));
                self.used = 0;
            }
        }

        /// Adds `word` `count` times. Does not update `pages`.
        pub(crate) fn repeat_word(&mut self, word: u32, count: u32) {
            if count > 1 {
                self.runs.push_back((self.words.len() as u32, count));
            }
            self.words.push(word);
        }

        fn into_words(mut self) -> Words {
            if self.used > 0 {
                self.words.push(self.begun);
            }
            Words {
                words: self.words,
                runs: self.runs,
                next: 0,
            }
        }
    }

    /// Returns a word with `entry` `count` times, from the lowest bits up.
    fn same_entries(pte_bits: u32, entry: u32, count: u32) -> u32 {
        let all_ones = |bits| (1_u64 << bits) - 1;
        let lowest_ones = all_ones(count * pte_bits) / all_ones(pte_bits);
        entry * lowest_ones as u32
    }

    /// Adds single pages to a stretch. The stretch is complete only after `finish`.
    pub(crate) struct Packer<'a> {
        stretch: &'a mut Stretch,
        /// Length of the stretch's `words` at the start.
        words: usize,
        pte_bits: u32,
        /// The last word, if it is not full, and the number of its bits that have entries.
        begun: u32,
        used: u32,
    }

    impl<'a> Packer<'a> {
        pub(crate) fn new(stretch: &'a mut Stretch, pte_bits: u32) -> Self {
            Packer {
                words: stretch.words.len(),
                pte_bits,
                begun: stretch.begun,
                used: stretch.used,
                stretch,
            }
        }

        pub(crate) fn push(&mut self, entry: u32) {
            self.begun |= entry << self.used;
            self.used += self.pte_bits;
            if self.used > u32::BITS - self.pte_bits {
                self.stretch.words.push(self.begun);
                (self.begun, self.used) = (0, 0);
            }
        }

        pub(crate) fn finish(self) {
            let words = (self.stretch.words.len() - self.words) as u32;
            let pages = words * (u32::BITS / self.pte_bits) + self.used / self.pte_bits;
            self.stretch.pages.end += pages - self.stretch.used / self.pte_bits;
            (self.stretch.begun, self.stretch.used) = (self.begun, self.used);
        }
    }

    /// The words of a stretch, to be taken in order.
    struct Words {
        words: Vec<u32>,
        runs: VecDeque<(u32, u32)>,
        /// Index in `words` of the next word to take.
        next: usize,
    }

    impl Words {
        /// Takes the next `count` words, or as many as are left.
        fn take(&mut self, count: usize) -> Vec<u32> {
            let mut taken = Vec::new();
            while taken.len() < count && self.next < self.words.len() {
                let room = count - taken.len();
                match self.runs.front_mut() {
                    Some((place, times)) if *place as usize == self.next => {
                        let copies = room.min(*times as usize);
                        taken.resize(taken.len() + copies, self.words[self.next]);
                        *times -= copies as u32;
                        if *times == 0 {
                            self.runs.pop_front();
                            self.next += 1;
                        }
                    }
                    run => {
                        let end = run.map_or(self.words.len(), |(place, _)| *place as usize);
                        let end = end.min(self.next + room);
                        taken.extend_from_slice(&self.words[self.next..end]);
                        self.next = end;
                    }
                }
            }
            taken
        }
    }

    /// Cuts a page table into windows in ascending order, for messages of at most `message_bytes`.
    pub(crate) fn windows(
        stretches: Vec<Stretch>,
        target: &Target,
        message_bytes: usize,
    ) -> impl Iterator<Item = Window> {
        let window_words = (message_bytes - TABLE_HEADER) / 4;
        let window_pages = window_words * target.word_pages() as usize;
        stretches.into_iter().flat_map(move |stretch| {
            let pages = stretch.pages.clone();
            let mut words = stretch.into_words();
            pages
                .clone()
                .step_by(window_pages)
                .map(move |first| Window {
                    pages: first..pages.end.min(first.saturating_add(window_pages as u32)),
                    words: words.take(window_words),
                })
        })
    }
}

/// The message that uploads one window, a `struct IpcPgTable`, and the numbers of the family.
///
/// C header: `dm-switch.h`. Document: `docs/protocol.md`.
mod message {
    use std::fmt::{self, Display};
    use std::ops::Range;

    use libc::dev_t;

    pub(crate) const FAMILY: &str = "DM_SWITCH";
    pub(crate) const FAMILY_VERSION: u8 = 1;
    pub(crate) const NETLINK_CMD_GET_PAGE_TBL: u8 = 1;
    pub(crate) const NETLINK_ATTR_MSG: u16 = 1;
    pub(crate) const OPCODE_PAGE_TABLE_UPLOAD: u32 = 1;
    pub(crate) const CHUNK_PTE_COUNT: u32 = 1 << 13;
    /// Bytes of a `struct IpcPgTable` before its entries.
    pub(crate) const TABLE_HEADER: usize = 40;
    pub(crate) const MAX_IPC_MSG_LEN: usize = 65480;
    const MAX_ERR_STR_LEN: usize = 255;
    /// Type of the attribute that carries the answer.
    pub(crate) const ANSWER_ATTR: u16 = 11;
    /// Bytes of a `struct IpcResponse`.
    pub(crate) const ANSWER_LEN: usize = 28 + MAX_ERR_STR_LEN + 1;

    /// What all messages of an upload have in common.
    pub(crate) struct Target {
        pub(crate) dev: dev_t,
        pub(crate) dev_count: u16,
        pub(crate) pte_bits: u32,
        pub(crate) page_total: u32,
        pub(crate) userland: [u32; 2],
    }

    impl Target {
        /// Returns the entries, and so the pages, of a 32-bit word.
        pub(crate) fn word_pages(&self) -> u32 {
            u32::BITS / self.pte_bits
        }

        /// Returns the bytes of the `struct IpcPgTable` that carries `window`.
        pub(crate) fn message(&self, window: &Window) -> Vec<u8> {
            let length = TABLE_HEADER + 4 * window.words.len();
            let words = [
                length as u32,
                OPCODE_PAGE_TABLE_UPLOAD,
                self.userland[0],
                self.userland[1],
                libc::major(self.dev),
                libc::minor(self.dev),
                self.page_total,
                window.pages.start,
                window.pages.len() as u32,
            ];
            let mut bytes = words.map(u32::to_ne_bytes).concat();
            bytes.extend(self.dev_count.to_ne_bytes());
            bytes.extend([self.pte_bits as u8, 0]);
            let entries: Vec<_> = window.words.iter().map(|word| word.to_ne_bytes()).collect();
            bytes.extend_from_slice(entries.as_flattened());
            bytes
        }
    }

    /// The part of a page table that one message carries.
    #[derive(Debug, PartialEq)]
    pub(crate) struct Window {
        /// Empty in a message that frees a chunk, and then at the chunk's first page.
        pub(crate) pages: Range<u32>,
        pub(crate) words: Vec<u32>,
    }

    impl Display for Window {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Range { start, end } = self.pages;
            if start == end {
                return write!(f, "chunk {}", start / CHUNK_PTE_COUNT);
            }
            write!(f, "pages {start}-{}", end - 1)
        }
    }
}

/// Sends a message over generic netlink, and reads the answer, a `struct IpcResponse`.
///
/// C headers: `linux/netlink.h`, `linux/genetlink.h`, `dm-switch.h`.
mod netlink {
    use std::fmt::{self, Display};
    use std::fs::File;
    use std::io::{self, ErrorKind, Write};
    use std::path::Path;
    use std::time::{Duration, Instant};

    use libc::dev_t;

    use super::fields::{field, text_before_nul, u16_at, u32_at, CUT_SHORT};
    use super::message::{
        Target, ANSWER_ATTR, ANSWER_LEN, FAMILY, FAMILY_VERSION, NETLINK_ATTR_MSG,
        NETLINK_CMD_GET_PAGE_TBL, OPCODE_PAGE_TABLE_UPLOAD,
    };
    use super::numbers::dev_text;
    use super::report::needs;
    use super::sys;

    // Offsets of the fields of a `struct nlmsghdr`, in bytes.
    const NLMSG_TYPE: usize = 4;
    const NLMSG_FLAGS: usize = 6;
    const NLMSG_SEQ: usize = 8;
    const NLMSG_PID: usize = 12;
    // Bytes of a `struct nlmsghdr`, a `struct genlmsghdr` and a `struct nlattr`.
    const NLMSG_HEADER: usize = 16;
    const GENL_HEADER: usize = 4;
    pub(crate) const NLA_HEADER: usize = 4;

    const ANSWER_WAIT: Duration = Duration::from_secs(5);

    /// A generic netlink socket, and what requests on it need.
    pub(crate) struct Link {
        socket: File,
        /// The last request's sequence number.
        seq: u32,
        /// The number that the kernel assigned to the family DM_SWITCH.
        family: u16,
    }

    impl Link {
        pub(crate) fn open() -> Result<Self, String> {
            let socket = sys::netlink_socket()
                .map_err(|error| format!("cannot open a generic netlink socket: {error}"))?;
            let mut link = Link {
                socket,
                seq: 0,
                family: libc::GENL_ID_CTRL as u16,
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

        /// Sends one `struct IpcPgTable`, and returns the answer, whatever its status.
        pub(crate) fn upload(&mut self, message: &[u8]) -> Result<Answer, String> {
            let command = [NETLINK_CMD_GET_PAGE_TBL, FAMILY_VERSION];
            let reply = self.ask(command, NETLINK_ATTR_MSG, message);
            let reply = reply.map_err(|error| match error.raw_os_error() {
                Some(libc::EPERM) => format!("not permitted: {}", needs("CAP_NET_ADMIN")),
                Some(_) => format!("refused by the kernel: {error}"),
                None => error.to_string(),
            })?;
            Answer::decode(&reply, self.family)
        }

        /// Sends a request with one attribute, and returns its answer. An error from the kernel has
        /// its errno; all other errors have none.
        fn ask(&mut self, command: [u8; 2], attribute: u16, payload: &[u8]) -> io::Result<Vec<u8>> {
            self.seq += 1;
            let request = request(self.family, self.seq, command, attribute, payload);
            self.send(&request).map_err(io::Error::other)?;
            let deadline = Instant::now() + ANSWER_WAIT;
            loop {
                let reply = self.next_reply(deadline).map_err(io::Error::other)?;
                let error = match u16_at(&reply, NLMSG_TYPE).map(i32::from) {
                    Ok(libc::NLMSG_ERROR) => u32_at(&reply, NLMSG_HEADER),
                    _ => return Ok(reply),
                };
                // Zero is an acknowledgement, which was not requested; the answer may follow.
                match error.map_err(io::Error::other)? as i32 {
                    0 => {}
                    error => return Err(io::Error::from_raw_os_error(error.wrapping_neg())),
                }
            }
        }

        fn send(&mut self, request: &[u8]) -> Result<(), String> {
            self.socket.write_all(request).map_err(|error| {
                let hint = match error.raw_os_error() {
                    Some(libc::EMSGSIZE | libc::ENOBUFS) => {
                        "; make messages smaller (-w) or net.core.wmem_default larger"
                    }
                    _ => "",
                };
                format!("cannot send {} bytes: {error}{hint}", request.len())
            })
        }

        /// Returns the next message from the kernel with the last request's sequence number, and
        /// drops other messages. Fails after `deadline`.
        fn next_reply(&mut self, deadline: Instant) -> Result<Vec<u8>, String> {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    let seconds = ANSWER_WAIT.as_secs();
                    return Err(format!("no answer within {seconds} seconds"));
                }
                if let Some(reply) = find_reply(&self.receive(left)?, self.seq)? {
                    return Ok(reply);
                }
            }
        }

        /// Returns a datagram, empty if none came within `timeout` or it is not from the kernel.
        fn receive(&self, timeout: Duration) -> Result<Vec<u8>, String> {
            // An error message has the whole request in it, of at most 64 KiB.
            const LIMIT: usize = 128 << 10;
            let readable = sys::wait_readable(&self.socket, timeout);
            let datagram = readable.and_then(|()| sys::receive(&self.socket, LIMIT));
            datagram.or_else(|error| match (error.kind(), error.raw_os_error()) {
                (ErrorKind::Interrupted | ErrorKind::WouldBlock, _) => Ok(Vec::new()),
                (_, Some(libc::ENOBUFS)) => {
                    let why = "no room in the receive buffer (net.core.rmem_default)";
                    Err(format!("the answer is lost: {why}"))
                }
                _ => Err(format!("cannot receive the answer: {error}")),
            })
        }
    }

    /// Returns the bytes of a generic netlink request with one attribute. `kind` is the number of
    /// the family; `command` is the command and its version.
    pub(crate) fn request(
        kind: u16,
        seq: u32,
        command: [u8; 2],
        attribute: u16,
        payload: &[u8],
    ) -> Vec<u8> {
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

    /// Returns the first message in `datagram` with the sequence number `seq`, if there is one.
    /// Fails if it is cut short.
    pub(crate) fn find_reply(mut datagram: &[u8], seq: u32) -> Result<Option<Vec<u8>>, String> {
        while datagram.len() >= NLMSG_HEADER {
            let length = (u32_at(datagram, 0)? as usize).max(NLMSG_HEADER);
            if u32_at(datagram, NLMSG_SEQ)? == seq {
                let message = datagram.get(..length).ok_or(CUT_SHORT)?;
                return Ok(Some(message.to_vec()));
            }
            let next = length.next_multiple_of(4);
            datagram = datagram.get(next..).unwrap_or_default();
        }
        Ok(None)
    }

    /// Returns the family's number from the answer to CTRL_CMD_GETFAMILY.
    pub(crate) fn family_id(reply: &[u8]) -> Result<u16, String> {
        let mut attribute = NLMSG_HEADER + GENL_HEADER;
        while i32::from(u16_at(reply, attribute + 2)?) != libc::CTRL_ATTR_FAMILY_ID {
            let length = usize::from(u16_at(reply, attribute)?).max(NLA_HEADER);
            attribute += length.next_multiple_of(4);
        }
        u16_at(reply, attribute + NLA_HEADER)
    }

    /// Says why the family is missing, from what sysfs shows of the module.
    fn no_family() -> String {
        let module = Path::new("/sys/module/dm_switch");
        let why = if module.join("familyid").exists() {
            "the module is loaded, but serves the initial network namespace only: \
             run swupload there"
        } else if module.exists() {
            "the dm-switch that is loaded is the kernel's own, which takes no uploads; \
             unload it (modprobe -r dm-switch) and load the v3 module"
        } else {
            "the module is not loaded (modprobe dm-switch)"
        };
        format!("no generic netlink family {FAMILY}: {why}")
    }

    /// The answer to an upload: a `struct IpcResponse` and the fields of its netlink headers.
    #[derive(Debug)]
    pub(crate) struct Answer {
        family: u16,
        flags: u16,
        seq: u32,
        pid: u32,
        command: u8,
        version: u8,
        total_len: u32,
        opcode: u32,
        userland: [u32; 2],
        dev: dev_t,
        status: u32,
        text: String,
        /// Whether all bytes after the text's NUL are zero.
        tail_zero: bool,
    }

    impl Answer {
        /// Reads `reply`. Fails if it is not from `family`, or not laid out as an answer.
        pub(crate) fn decode(reply: &[u8], family: u16) -> Result<Self, String> {
            const ATTRIBUTE: usize = NLMSG_HEADER + GENL_HEADER;
            const RESPONSE: usize = ATTRIBUTE + NLA_HEADER;
            expect("type", u16_at(reply, NLMSG_TYPE)?, family)?;
            let length = reply.len() - NLMSG_HEADER;
            expect("length", length, GENL_HEADER + NLA_HEADER + ANSWER_LEN)?;
            let wanted = (NLA_HEADER + ANSWER_LEN) as u16;
            expect("attribute length", u16_at(reply, ATTRIBUTE)?, wanted)?;
            expect("attribute type", u16_at(reply, ATTRIBUTE + 2)?, ANSWER_ATTR)?;
            // The fields of a `struct IpcResponse`, 4 bytes each up to the text.
            let word = |at| u32_at(reply, RESPONSE + at);
            let string = &reply[RESPONSE + 28..];
            let mut tail = string.iter().skip_while(|byte| **byte != 0);
            let [command, version] = field(reply, NLMSG_HEADER)?;
            Ok(Answer {
                family,
                flags: u16_at(reply, NLMSG_FLAGS)?,
                seq: u32_at(reply, NLMSG_SEQ)?,
                pid: u32_at(reply, NLMSG_PID)?,
                command,
                version,
                total_len: word(0)?,
                opcode: word(4)?,
                userland: [word(8)?, word(12)?],
                dev: libc::makedev(word(16)?, word(20)?),
                status: word(24)?,
                text: text_before_nul(string),
                tail_zero: tail.all(|byte| *byte == 0),
            })
        }

        /// Fails if this does not answer a message to `target`, or its status is not 0.
        pub(crate) fn accepts(&self, target: &Target) -> Result<(), String> {
            let [first, second] = target.userland;
            expect("command", self.command, NETLINK_CMD_GET_PAGE_TBL)?;
            expect("total_len", self.total_len, ANSWER_LEN as u32)?;
            expect("opcode", self.opcode, OPCODE_PAGE_TABLE_UPLOAD)?;
            expect("first userland word", self.userland[0], first)?;
            expect("second userland word", self.userland[1], second)?;
            expect("device", dev_text(self.dev), dev_text(target.dev))?;
            self.accepted()
        }

        pub(crate) fn accepted(&self) -> Result<(), String> {
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

    /// One field a line: its name, a space, its value.
    impl Display for Answer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let [first, second] = self.userland;
            let tail = if self.tail_zero { "zero" } else { "nonzero" };
            writeln!(f, "type {}", self.family)?;
            writeln!(f, "flags {:#x}", self.flags)?;
            writeln!(f, "seq {}", self.seq)?;
            writeln!(f, "pid {}", self.pid)?;
            writeln!(f, "cmd {}", self.command)?;
            writeln!(f, "version {}", self.version)?;
            writeln!(f, "attr {ANSWER_ATTR}")?;
            writeln!(f, "total_len {}", self.total_len)?;
            writeln!(f, "opcode {}", self.opcode)?;
            writeln!(f, "userland 0x{first:08x} 0x{second:08x}")?;
            writeln!(f, "dev {}", dev_text(self.dev))?;
            writeln!(f, "status {}", self.status)?;
            writeln!(f, "err_str {}", self.text)?;
            writeln!(f, "err_tail {tail}")
        }
    }
}

/// Finds a device, and reads its table with the device-mapper's ioctl.
///
/// C header: `linux/dm-ioctl.h`.
mod dm {
    use std::fs::{self, OpenOptions};
    use std::io::{self, ErrorKind};
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use libc::dev_t;

    use super::fields::{field, text_before_nul, u32_at};
    use super::numbers::{decimal, dev_number};
    use super::report::needs;
    use super::sys;

    const CONTROL: &str = "/dev/mapper/control";
    const DM_VERSION_MAJOR: u32 = 4;
    const DM_STATUS_TABLE_FLAG: u32 = 1 << 4;
    const DM_ACTIVE_PRESENT_FLAG: u32 = 1 << 5;
    const DM_INACTIVE_PRESENT_FLAG: u32 = 1 << 6;
    const DM_BUFFER_FULL_FLAG: u32 = 1 << 8;
    const DM_QUERY_INACTIVE_TABLE_FLAG: u32 = 1 << 12;
    const DM_NAME_LEN: usize = 128;
    // Offsets of the fields of a `struct dm_ioctl`, in bytes.
    const DM_VERSION: usize = 0;
    const DM_DATA_START: usize = 16;
    const DM_TARGET_COUNT: usize = 20;
    const DM_FLAGS: usize = 28;
    const DM_DEV: usize = 40;
    const DM_NAME: usize = 48;
    /// Most bytes of the ioctl's buffer: far more than the table line of 65535 devices needs.
    const DM_BUFFER_LIMIT: usize = 16 << 20;

    /// A line of a table: its length in sectors of 512 bytes, its target, and its arguments.
    pub(crate) type Line = (u64, String, String);

    /// How the ioctl finds a device.
    pub(crate) enum Key {
        Number(dev_t),
        /// The kernel's name of the device, of less than `DM_NAME_LEN` bytes.
        Name(String),
    }

    /// Returns the key of `name`: a path, MAJOR:MINOR, or the name of a mapped device.
    pub(crate) fn find_device(name: &str) -> Result<Key, String> {
        if name.contains('/') {
            let node = fs::metadata(name).map_err(|error| match error.kind() {
                ErrorKind::NotFound => format!("{name}: no such device"),
                _ => format!("{name}: {error}"),
            })?;
            if !node.file_type().is_block_device() {
                return Err(format!("{name}: not a block device"));
            }
            return Ok(Key::Number(node.rdev()));
        }
        if let Some(dev) = dev_number(name) {
            return Ok(Key::Number(dev));
        }
        let kernel_name = kernel_name(name);
        if !(1..DM_NAME_LEN).contains(&kernel_name.len()) {
            return Err(format!("'{name}': no such device"));
        }
        Ok(Key::Name(kernel_name))
    }

    /// Returns the kernel's name of a mapped device, as libdevmapper makes it by default: a byte
    /// that udev does not allow in a name becomes `\xNN`. A name with `\x` in it is the kernel's
    /// already.
    fn kernel_name(name: &str) -> String {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&byte);
        if name.contains("\\x") {
            return name.into();
        }
        let mangled = name.bytes().map(|byte| match is_plain(byte) {
            true => char::from(byte).into(),
            false => format!("\\x{byte:02x}"),
        });
        mangled.collect()
    }

    /// The numbers of devices and pages of a switch, from its table line.
    #[derive(Debug, PartialEq)]
    pub(crate) struct Switch {
        pub(crate) devices: u64,
        pub(crate) pages: u64,
        /// Whether its line is for the kernel's own target.
        pub(crate) is_in_tree: bool,
    }

    impl Switch {
        pub(crate) fn v3(devices: u64, pages: u64) -> Self {
            Switch {
                devices,
                pages,
                is_in_tree: false,
            }
        }
    }

    /// Returns the device's number and its switch, from the live table. If no table is live yet, it
    /// uses the loaded one, as the kernel does for an upload. `name` names the device in errors.
    pub(crate) fn find_switch(name: &str, key: &Key) -> Result<(dev_t, Switch), String> {
        let mut answer = table_status(name, key, DM_STATUS_TABLE_FLAG)?;
        let present =
            u32_at(&answer, DM_FLAGS)? & (DM_ACTIVE_PRESENT_FLAG | DM_INACTIVE_PRESENT_FLAG);
        if present == DM_INACTIVE_PRESENT_FLAG {
            let flags = DM_STATUS_TABLE_FLAG | DM_QUERY_INACTIVE_TABLE_FLAG;
            answer = table_status(name, key, flags)?;
        }
        switch_of(name, &answer)
    }

    /// Returns the same from the loaded table. Fails if the live table has as many devices and
    /// pages: the upload would go to the live table then.
    pub(crate) fn find_loaded_switch(name: &str, key: &Key) -> Result<(dev_t, Switch), String> {
        let flags = DM_STATUS_TABLE_FLAG | DM_QUERY_INACTIVE_TABLE_FLAG;
        let answer = table_status(name, key, flags)?;
        let present = u32_at(&answer, DM_FLAGS)?;
        if present & DM_INACTIVE_PRESENT_FLAG == 0 {
            return Err(format!("{name}: no table is loaded (dmsetup load?)"));
        }
        let (dev, loaded) = switch_of(name, &answer)?;
        if present & DM_ACTIVE_PRESENT_FLAG != 0 {
            let (_, lines) = table_lines(&table_status(name, key, DM_STATUS_TABLE_FLAG)?)?;
            // Of several switches the kernel compares the first.
            let live = lines.iter().find(|(_, target, _)| target == "switch");
            let live = live.and_then(|(length, _, arguments)| switch(*length, arguments).ok());
            if live.is_some_and(|live| (live.devices, live.pages) == (loaded.devices, loaded.pages))
            {
                return Err(format!(
                    "{name}: the live table has as many devices and pages as the loaded one, \
                     and would get the upload"
                ));
            }
        }
        Ok((dev, loaded))
    }

    /// Returns the device's number and its switch, from the answer to DM_TABLE_STATUS.
    pub(crate) fn switch_of(name: &str, answer: &[u8]) -> Result<(dev_t, Switch), String> {
        let (dev, lines) = table_lines(answer)?;
        let switch = switch_line(&lines).map_err(|text| format!("{name}: {text}"))?;
        Ok((dev, switch))
    }

    /// Returns the answer to DM_TABLE_STATUS with `flags`. Repeats the ioctl with a larger buffer
    /// until the table fits.
    fn table_status(name: &str, key: &Key, flags: u32) -> Result<Vec<u8>, String> {
        let open = OpenOptions::new().read(true).write(true).open(CONTROL);
        let control = open.map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => not_permitted(),
            _ => format!("cannot open {CONTROL}: {error} (modprobe dm-mod?)"),
        })?;
        let mut size = 16 << 10;
        while size <= DM_BUFFER_LIMIT {
            let mut buffer = table_request(key, flags);
            buffer.resize(size, 0);
            sys::dm_table_status(&control, &mut buffer)
                .map_err(|error| table_refused(name, &buffer, &error))?;
            if u32_at(&buffer, DM_FLAGS)? & DM_BUFFER_FULL_FLAG == 0 {
                return Ok(buffer);
            }
            size *= 4;
        }
        Err(format!("{name}: its table is too long"))
    }

    /// Returns a `struct dm_ioctl` with `flags` for the device with `key`.
    fn table_request(key: &Key, flags: u32) -> Vec<u8> {
        let mut bytes = vec![0; sys::DM_HEADER];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(DM_VERSION, &DM_VERSION_MAJOR.to_ne_bytes());
        put(DM_DATA_START, &(sys::DM_HEADER as u32).to_ne_bytes());
        put(DM_FLAGS, &flags.to_ne_bytes());
        match key {
            Key::Number(dev) => put(DM_DEV, &dev.to_ne_bytes()),
            Key::Name(name) => put(DM_NAME, name.as_bytes()),
        }
        bytes
    }

    fn table_refused(name: &str, answer: &[u8], error: &io::Error) -> String {
        match (error.raw_os_error(), u32_at(answer, DM_VERSION)) {
            (Some(libc::ENXIO), _) => format!("{name}: no such mapped device"),
            (Some(libc::EACCES | libc::EPERM), _) => not_permitted(),
            (_, Ok(version)) if version != DM_VERSION_MAJOR => {
                format!("device-mapper's interface has version {version}, not 4")
            }
            _ => format!("{name}: cannot read its table: {error}"),
        }
    }

    fn not_permitted() -> String {
        let needed = needs("CAP_SYS_ADMIN and the right to open it");
        format!(
            "not permitted to use {CONTROL}: {needed}; or give DEVICE as MAJOR:MINOR with -n and -t"
        )
    }

    /// Returns the device's number and the lines of its table, from the answer to DM_TABLE_STATUS.
    pub(crate) fn table_lines(answer: &[u8]) -> Result<(dev_t, Vec<Line>), String> {
        let dev = dev_t::from_ne_bytes(field(answer, DM_DEV)?);
        let data_start = u32_at(answer, DM_DATA_START)? as usize;
        let mut lines = Vec::new();
        // Each line is a `struct dm_target_spec`, of 40 bytes, and its arguments.
        let mut at = data_start;
        for _ in 0..u32_at(answer, DM_TARGET_COUNT)? {
            let length = u64::from_ne_bytes(field(answer, at + 8)?);
            let next = data_start + u32_at(answer, at + 20)? as usize;
            let target = text_before_nul(&field::<16>(answer, at + 24)?);
            lines.push((length, target, text_before_nul(&answer[at + 40..])));
            if next <= at {
                return Err("what the kernel answered goes back to an earlier line".into());
            }
            at = next;
        }
        Ok((dev, lines))
    }

    /// Returns the switch of a table. Fails unless exactly one of `lines` is for a switch.
    fn switch_line(lines: &[Line]) -> Result<Switch, String> {
        let switches = lines.iter().filter(|(_, target, _)| target == "switch");
        let switches: Vec<_> = switches.collect();
        match (switches.as_slice(), lines) {
            ([(length, _, arguments)], _) => switch(*length, arguments),
            ([], []) => Err("has no table (dmsetup load?)".into()),
            ([], [(_, other, _), ..]) => Err(format!("not a switch: its target is {other}")),
            _ => {
                let way_out = "give each a device of its own";
                Err(format!(
                    "has several switch targets, and a message cannot say which; {way_out}"
                ))
            }
        }
    }

    /// Returns the switch of a table line with the arguments `line`, for `length` sectors.
    pub(crate) fn switch(length: u64, line: &str) -> Result<Switch, String> {
        let arguments: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |at: usize| arguments.get(at).and_then(|text| decimal::<u64>(text));
        // Each device has two arguments. A v3 line has two others before them, a line of the
        // kernel's own target three, of which the third is a number.
        let pairs = number(0).and_then(|count| count.checked_mul(2));
        let others = pairs.and_then(|pairs| (arguments.len() as u64).checked_sub(pairs));
        match (number(0), number(1), others) {
            (Some(1..), Some(0), Some(2)) => {
                Err("its page size is zero: give it a table with a real one".into())
            }
            (Some(count @ 1..), Some(size), Some(2)) => {
                Ok(Switch::v3(count, length.div_ceil(size)))
            }
            (Some(count @ 1..), Some(size @ 1..), Some(3)) if number(2).is_some() => Ok(Switch {
                is_in_tree: true,
                ..Switch::v3(count, length.div_ceil(size))
            }),
            _ => Err(format!("not a table of dm-switch: switch {line}")),
        }
    }
}

/// Writes the output and the failures: their texts and their exit statuses.
mod report {
    use std::fmt::Display;
    use std::fs::{self, File};
    use std::io::{self, ErrorKind, Write};
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    /// Why swupload failed: the exit status, and the text for standard error.
    #[derive(Debug)]
    pub(crate) struct Failure(pub(crate) u8, pub(crate) String);

    impl Failure {
        pub(crate) fn new(status: u8, text: &str) -> Self {
            let lines = text.lines().map(|line| format!("swupload: {line}\n"));
            Failure(status, lines.collect())
        }
    }

    /// The device cannot be used, the kernel refused, or its answer is wrong: exit status 1.
    impl From<String> for Failure {
        fn from(text: String) -> Self {
            Failure::new(1, &text)
        }
    }

    /// Standard output cannot be written: exit status 1, without a text if it is a pipe that nobody
    /// reads any more.
    impl From<io::Error> for Failure {
        fn from(error: io::Error) -> Self {
            match error.kind() {
                ErrorKind::BrokenPipe => Failure(1, String::new()),
                _ => Failure::new(1, &format!("cannot write the output: {error}")),
            }
        }
    }

    /// Fails because of the command line: exit status 2.
    pub(crate) fn usage<T>(text: impl Display) -> Result<T, Failure> {
        let text = format!("{text}\n(swupload -h lists the options)");
        Err(Failure::new(2, &text))
    }

    /// Writes to standard error. An error of that is ignored: it cannot be reported.
    pub(crate) fn say(text: &str) {
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// Writes to standard output. Does not use `io::stdout()` itself, which ignores that the
    /// descriptor is open for reading only.
    pub(crate) fn print(text: &str) -> Result<(), Failure> {
        let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(output.write_all(text.as_bytes())?)
    }

    /// Says that swupload needs `privilege`. Outside the initial user namespace it adds that only
    /// capabilities of that one count.
    pub(crate) fn needs(privilege: &str) -> String {
        // The inode number of the initial user namespace. C header: `linux/nsfs.h`.
        const USER_NS_INIT_INO: u64 = 0xefff_fffd;
        match fs::metadata("/proc/self/ns/user") {
            Ok(namespace) if namespace.ino() != USER_NS_INIT_INO => {
                format!("needs {privilege} in the initial user namespace (run as root there)")
            }
            _ => format!("needs {privilege} (run as root)"),
        }
    }
}

/// Reads fields of an answer from the kernel.
mod fields {
    pub(crate) const CUT_SHORT: &str = "what the kernel answered is cut short";

    /// Returns the `N` bytes at offset `at`. Fails if `answer` is too short.
    pub(crate) fn field<const N: usize>(answer: &[u8], at: usize) -> Result<[u8; N], String> {
        let field = answer.get(at..).and_then(|rest| rest.first_chunk());
        Ok(*field.ok_or(CUT_SHORT)?)
    }

    pub(crate) fn u16_at(answer: &[u8], at: usize) -> Result<u16, String> {
        field(answer, at).map(u16::from_ne_bytes)
    }

    pub(crate) fn u32_at(answer: &[u8], at: usize) -> Result<u32, String> {
        field(answer, at).map(u32::from_ne_bytes)
    }

    /// Returns the text up to the first NUL, with `?` for control characters.
    pub(crate) fn text_before_nul(bytes: &[u8]) -> String {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).replace(char::is_control, "?")
    }
}

/// Reads numbers and device numbers from text.
mod numbers {
    use std::str::FromStr;

    use libc::dev_t;

    /// Reads a decimal number of digits only, without a sign.
    pub(crate) fn decimal<T: FromStr>(text: &str) -> Option<T> {
        text.parse().ok().filter(|_| !text.starts_with('+'))
    }

    /// Reads a word of up to 8 hexadecimal digits, with or without `0x` before it.
    pub(crate) fn hex_word(text: &str) -> Option<u32> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let word = u32::from_str_radix(digits, 16).ok();
        word.filter(|_| digits.len() <= 8 && !digits.starts_with('+'))
    }

    /// Reads a device number, `MAJOR:MINOR`, as wide as the kernel's own (12 and 20 bits).
    pub(crate) fn dev_number(text: &str) -> Option<dev_t> {
        let (major, minor) = text.split_once(':')?;
        let (major, minor) = (decimal(major)?, decimal(minor)?);
        (major < 1 << 12 && minor < 1 << 20).then(|| libc::makedev(major, minor))
    }

    pub(crate) fn dev_text(dev: dev_t) -> String {
        format!("{}:{}", libc::major(dev), libc::minor(dev))
    }
}

/// The system calls that the standard library has no wrapper for.
#[allow(unsafe_code)]
mod sys {
    use std::fs::File;
    use std::io;
    use std::mem::zeroed;
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::time::Duration;

    /// Bytes of a `struct dm_ioctl`.
    pub(crate) const DM_HEADER: usize = 312;

    /// Returns the result of a system call, or errno as an error if the result is negative.
    fn check(result: impl TryInto<usize>) -> io::Result<usize> {
        result.try_into().map_err(|_| io::Error::last_os_error())
    }

    /// Opens a generic netlink socket; a write to it is one datagram to the kernel.
    pub(crate) fn netlink_socket() -> io::Result<File> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: the call has no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_GENERIC) };
        check(fd)?;
        // SAFETY: the descriptor is open: the call just returned it. Nothing else owns it.
        Ok(unsafe { File::from_raw_fd(fd) })
    }

    /// Waits until `socket` is readable, for at most `timeout`.
    pub(crate) fn wait_readable(socket: &File, timeout: Duration) -> io::Result<()> {
        let mut poll = libc::pollfd {
            fd: socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let milliseconds = i32::try_from(timeout.as_millis() + 1).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to one pollfd, as the count says, which outlives the call.
        check(unsafe { libc::poll(&mut poll, 1, milliseconds) }).map(drop)
    }

    /// Receives one datagram without waiting, and cuts it to `limit` bytes. Returns no bytes if the
    /// kernel did not send it.
    pub(crate) fn receive(socket: &File, limit: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0_u8; limit];
        // SAFETY: a sockaddr_nl has only integer fields, for which zero is a valid value.
        let mut sender: libc::sockaddr_nl = unsafe { zeroed() };
        let mut size = size_of_val(&sender) as libc::socklen_t;
        let (data, name) = (buffer.as_mut_ptr().cast(), (&raw mut sender).cast());
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: data points to `limit` writable bytes, name to `size` writable bytes, size to a
        // socklen_t; all outlive the call.
        let length = check(unsafe { libc::recvfrom(fd, data, limit, flags, name, &mut size) })?;
        buffer.truncate(if sender.nl_pid == 0 { length } else { 0 });
        Ok(buffer)
    }

    /// Runs DM_TABLE_STATUS on a buffer that begins with a `struct dm_ioctl`. Sets its
    /// `data_size`.
    pub(crate) fn dm_table_status(control: &File, buffer: &mut [u8]) -> io::Result<()> {
        const DM_TABLE_STATUS: libc::Ioctl = libc::_IOWR::<[u8; DM_HEADER]>(0xfd, 12);
        assert!(buffer.len() >= DM_HEADER);
        let size = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        buffer[12..16].copy_from_slice(&size.to_ne_bytes());
        let (fd, data) = (control.as_raw_fd(), buffer.as_mut_ptr());
        // SAFETY: the kernel accesses the header and at most data_size bytes. The buffer is at
        // least as long as the header, as asserted, and as data_size, as set above.
        check(unsafe { libc::ioctl(fd, DM_TABLE_STATUS, data) }).map(drop)
    }
}

#[cfg(test)]
pub(crate) mod fuzz;

#[cfg(test)]
mod tests {
    use super::dm::{switch, table_lines, Switch};
    use super::file::{raw_message, shown, Reader, Source};
    use super::message::{Target, Window, TABLE_HEADER};
    use super::netlink::{find_reply, request, Answer};
    use super::numbers::{decimal, dev_number, dev_text, hex_word};
    use super::report::Failure;
    use super::upload::pte_bits;
    use super::words::windows;

    fn target(dev_count: u16, pte_bits: u32, page_total: u32) -> Target {
        Target {
            dev: libc::makedev(253, 300),
            dev_count,
            pte_bits,
            page_total,
            userland: [0x1234, 0xabcd_0001],
        }
    }

    fn source(text: &str) -> Source {
        Source {
            name: "f".into(),
            bytes: text.into(),
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(decimal::<u64>("00042"), Some(42));
        for bad in ["", "+1", "-1", "-0", "1 ", "0x1", "18446744073709551616"] {
            assert_eq!(decimal::<u64>(bad), None, "{bad}");
        }
        assert_eq!(hex_word("0xDEADbeef"), Some(0xdead_beef));
        for bad in ["", "0x", "000000001", "+1", "0x+1", "g"] {
            assert_eq!(hex_word(bad), None, "{bad}");
        }
        assert_eq!(dev_number("253:300"), Some(0x1_0fd2c));
        assert_eq!(
            dev_number("4095:1048575").map(dev_text).unwrap(),
            "4095:1048575"
        );
        for bad in ["253", "253:", ":1", "4096:0", "1:1048576", "1:2:3", "a:b"] {
            assert_eq!(dev_number(bad), None, "{bad}");
        }
        let any = libc::makedev(u32::MAX, u32::MAX - 1);
        assert_eq!(dev_text(any), "4294967295:4294967294");
        let counts = [1, 2, 16, 17, 256, 257, 65535];
        let bits = |in_tree| counts.map(|count| pte_bits(None, count, in_tree).unwrap());
        assert_eq!(bits(false), [1, 1, 4, 8, 8, 16, 16]);
        assert_eq!(bits(true), [1, 1, 4, 5, 8, 9, 16]);
    }

    #[test]
    fn page_tables() {
        let target = target(4, 4, 30);
        let source = source("# all\n1*9 @9 2# three in all\r\n3\t@16 @24 0*2 1*4");
        let reader = Reader {
            source: &source,
            target: &target,
            packed: false,
        };
        let stretches = reader.read(0).unwrap();
        let window = |pages, words: &[u32]| Window {
            pages,
            words: words.to_vec(),
        };
        let expected = [
            window(0..8, &[0x1111_1111]),
            window(8..11, &[0x321]),
            window(24..30, &[0x11_1100]),
        ];
        assert!(windows(stretches, &target, TABLE_HEADER + 7).eq(expected));
    }

    #[test]
    fn long_texts_are_cut() {
        let token = "0".repeat(24);
        assert_eq!(shown(token.as_bytes()), token);
        assert_eq!(shown((token.clone() + "1").as_bytes()), token + "...");
    }

    #[test]
    fn raw_messages() {
        let zeros = |bytes| raw_message(&source(&"00".repeat(bytes)));
        assert_eq!(zeros(65531).unwrap(), [0; 65531]);
        let Failure(status, text) = zeros(65532).unwrap_err();
        let expected = "f:1:1: the message has 65532 bytes; an attribute holds 65531 at most\n";
        assert_eq!((status, text.as_str()), (2, expected));
        let request = request(31, 7, [1, 1], 1, &[9, 8, 7]);
        assert_eq!((request.len(), request[0], request[20]), (28, 28, 7));
    }

    #[test]
    fn switch_lines() {
        let v3 = switch(40_000, "2 7 1:0 0 1:1 8").unwrap();
        assert_eq!(v3, Switch::v3(2, 5715));
        let in_tree = switch(40_000, "2 7 0 1:0 0 1:1 8").unwrap();
        assert_eq!((in_tree.pages, in_tree.is_in_tree), (5715, true));
        for (line, expected) in [
            ("1 0 1:0 0", "its page size is zero"),
            ("2 7 1:0 0", "not a table of dm-switch"),
            ("0 7", "not a table of dm-switch"),
            ("1 0 0 1:0 0", "not a table of dm-switch"),
            ("18446744073709551615 7 1:0 0", "not a table of dm-switch"),
        ] {
            let text = switch(40_000, line).unwrap_err();
            assert!(text.starts_with(expected), "{text}");
        }
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
        assert_eq!(table_lines(&answer), Ok((libc::makedev(253, 300), lines)));
        put(&mut answer, 20, &2_u32.to_ne_bytes());
        assert!(table_lines(&answer).unwrap_err().ends_with("cut short"));
        put(&mut answer, 332, &u32::MAX.to_ne_bytes());
        assert!(table_lines(&answer).unwrap_err().ends_with("cut short"));
        put(&mut answer, 332, &0_u32.to_ne_bytes());
        assert!(table_lines(&answer).unwrap_err().ends_with("earlier line"));
    }

    /// A datagram with the answer of family 31 to request 7.
    fn answer(status: u32, text: &[u8]) -> Vec<u8> {
        let mut datagram = 308_u32.to_ne_bytes().to_vec();
        datagram.extend([31_u16, 0].map(u16::to_ne_bytes).concat());
        datagram.extend([7_u32, 0].map(u32::to_ne_bytes).concat());
        datagram.extend([1, 1, 0, 0]);
        datagram.extend([288_u16, 11].map(u16::to_ne_bytes).concat());
        let words = [284, 1, 0x1234, 0xabcd_0001, 253, 300, status];
        datagram.extend(words.map(u32::to_ne_bytes).concat());
        datagram.extend(text);
        datagram.resize(308, 0);
        datagram
    }

    fn decode(datagram: &[u8]) -> Result<Answer, String> {
        let reply = find_reply(datagram, 7)?.ok_or("no answer to request 7")?;
        Answer::decode(&reply, 31)
    }

    #[test]
    fn answers() {
        let target = target(3, 4, 40);
        let good = answer(0, b"");
        assert_eq!(decode(&good).unwrap().accepts(&target), Ok(()));
        let refused = decode(&answer(22, b"no\x07\0rest")).unwrap();
        let text = "refused by the kernel: no? (status 22)";
        assert_eq!(refused.accepts(&target).unwrap_err(), text);
        let fields = refused.to_string();
        assert!(fields.ends_with("status 22\nerr_str no?\nerr_tail nonzero\n"));
        let later = [&[16, 0, 0, 0][..], &[0; 12], &good].concat();
        assert!(decode(&later).is_ok());
        assert_eq!(find_reply(&good, 8), Ok(None));
        assert_eq!(find_reply(&good[..10], 7), Ok(None));
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
