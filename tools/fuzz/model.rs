// SPDX-License-Identifier: GPL-2.0-only

//! What swupload takes from its inputs, according to a plain reading of its manual page and of the kernel's headers.
//! The functions of `JUDGES` panic if swupload takes something else.

use std::fmt::{self, Display};
use std::mem;

use super::super::dm::{switch_of, table_lines, Line};
use super::super::file::{raw_message, Reader, Source};
use super::super::message::{Target, Window, MAX_IPC_MSG_LEN};
use super::super::netlink::{family_id, find_reply, request, Answer};
use super::super::report::Failure;
use super::super::upload::pte_bits;
use super::super::words::windows;

/// A kind of input, and what judges it.
type Judge = (&'static str, fn(&[u8]));

pub(crate) const JUDGES: [Judge; 4] = [
    ("file", file),
    ("message", message),
    ("table", table),
    ("answer", answer),
];

/// Words that are compared of one page table: it may have as many as memory can hold.
const MOST_WORDS: usize = 20_000;

/// A byte of a file and where it is: line and column, from 1 on.
type Place = (u8, usize, usize);

/// The tokens of a file.
fn tokens(bytes: &[u8]) -> Vec<Vec<Place>> {
    let (mut tokens, mut token) = (Vec::new(), Vec::new());
    let (mut line, mut column, mut is_comment) = (1, 1, false);
    let mut last = None;
    for &byte in bytes {
        is_comment = (is_comment || byte == b'#') && byte != b'\n' && byte != b'\r';
        if is_comment || matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 12) {
            tokens.push(mem::take(&mut token));
        } else {
            token.push((byte, line, column));
        }
        column += 1;
        if byte == b'\r' || (byte == b'\n' && last != Some(b'\r')) {
            line += 1;
        }
        if byte == b'\r' || byte == b'\n' {
            column = 1;
        }
        last = Some(byte);
    }
    tokens.push(token);
    tokens.retain(|token| !token.is_empty());
    tokens
}

/// The number that these digits are, or where it is none: at its first bad byte, or behind what is in front
/// of it.
fn digits(piece: &[Place], radix: u32, before: Option<&Place>) -> Result<u128, (usize, usize)> {
    if piece.is_empty() {
        return Err(before.map_or((1, 1), |(_, line, column)| (*line, column + 1)));
    }
    piece
        .iter()
        .try_fold(0_u128, |number, (byte, line, column)| {
            let digit = char::from(*byte).to_digit(radix).ok_or((*line, *column))?;
            Ok(number
                .saturating_mul(radix.into())
                .saturating_add(digit.into()))
        })
}

/// Pages of which a file says the same: the first, how many, and the entry, or the word.
struct Run {
    first: u128,
    pages: u128,
    value: u32,
}

/// What a file says, or where it is wrong.
fn said(
    bytes: &[u8],
    target: &Target,
    first: u32,
    packed: bool,
) -> Result<Vec<Run>, (usize, usize)> {
    let each = u128::from(32 / target.pte_bits);
    let total = u128::from(target.page_total);
    let (mut runs, mut next) = (Vec::new(), u128::from(first));
    for token in tokens(bytes) {
        let at = |place: &Place| (place.1, place.2);
        let start = at(&token[0]);
        if token[0].0 == b'@' {
            let page = digits(&token[1..], 10, Some(&token[0]))?;
            if page >= total || page < next || (page > next && page % each != 0) {
                return Err(start);
            }
            next = page;
            continue;
        }
        let star = token.iter().position(|place| place.0 == b'*');
        let piece = &token[..star.unwrap_or(token.len())];
        if piece.is_empty() {
            return Err(start);
        }
        let value = digits(piece, 16, None)?;
        if if packed {
            piece.len() > 8
        } else {
            value >= target.dev_count.into()
        } {
            return Err(start);
        }
        let count = match star {
            None => 1,
            Some(star) => {
                let count = digits(&token[star + 1..], 10, Some(&token[star]))?;
                if count == 0 || count > u32::MAX.into() {
                    return Err(at(&token[star + 1]));
                }
                count
            }
        };
        let (pages, value) = (count * if packed { each } else { 1 }, value as u32);
        // Of the device's last word not all pages need be there.
        let last = next + pages - if packed { each } else { 1 };
        if last >= total {
            return Err(start);
        }
        let pages = pages.min(total - next);
        runs.push(Run {
            first: next,
            pages,
            value,
        });
        next += pages;
    }
    if runs.is_empty() {
        return Err((1, 1));
    }
    Ok(runs)
}

/// What the messages should be: for each its first page, its pages, and its words one by one.
struct Wanted<'a> {
    runs: &'a [Run],
    target: &'a Target,
    packed: bool,
}

impl Wanted<'_> {
    /// The end of the pages from one on of which none is left out.
    fn end(&self, first: u128) -> u128 {
        let mut end = first;
        for run in self.runs {
            if (run.first..run.first + run.pages).contains(&end) {
                end = run.first + run.pages;
            }
        }
        end
    }

    /// The first page from one on that the file mentions.
    fn next(&self, page: u128) -> Option<u128> {
        let run = self.runs.iter().find(|run| run.first + run.pages > page)?;
        Some(run.first.max(page))
    }

    /// The word whose first page that is, in a message that ends before a page.
    fn word(&self, page: u128, end: u128) -> u32 {
        let bits = self.target.pte_bits;
        let run = |page| {
            let has = |run: &&Run| (run.first..run.first + run.pages).contains(&page);
            self.runs.iter().find(has).unwrap()
        };
        if self.packed {
            return run(page).value;
        }
        let pages = (page..end).take(32 / bits as usize);
        let entries = pages
            .zip(0..)
            .map(|(page, place)| run(page).value << (place * bits));
        entries.fold(0, |word, entry| word | entry)
    }
}

/// The fields of a message in the order of `struct IpcPgTable`, the last three in one.
fn fields(message: &[u8]) -> Vec<u32> {
    message
        .chunks(4)
        .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
        .collect()
}

/// Compares the messages with what the file says.
fn compare(windows: impl Iterator<Item = Window>, wanted: &Wanted, message_bytes: usize) {
    let target = wanted.target;
    let each = u128::from(32 / target.pte_bits);
    let room = (message_bytes as u128 - 40) / 4;
    let (mut next, mut words) = (0, 0);
    for window in windows {
        let first = wanted
            .next(next)
            .expect("a message of pages of which the file says nothing");
        let end = wanted.end(first).min(first + room * each);
        assert_eq!(window.to_string(), format!("pages {first}-{}", end - 1));
        let message = target.message(&window);
        assert!(message.len() <= message_bytes, "{} bytes", message.len());
        let message = fields(&message);
        let device = [libc::major(target.dev), libc::minor(target.dev)];
        let shape = u32::from(target.dev_count) | (target.pte_bits << 16);
        let header = [
            (message.len() * 4) as u32,
            1,
            target.userland[0],
            target.userland[1],
            device[0],
            device[1],
            target.page_total,
            first as u32,
            (end - first) as u32,
            shape,
        ];
        assert_eq!(
            message[..10],
            header,
            "the header of the message from page {first} on"
        );
        assert_eq!(
            message.len() as u128,
            10 + (end - first).div_ceil(each),
            "words"
        );
        for (place, word) in message[10..].iter().enumerate().take(MOST_WORDS) {
            let page = first + place as u128 * each;
            assert_eq!(*word, wanted.word(page, end), "the word of page {page}");
        }
        words += message.len();
        if words > MOST_WORDS {
            return;
        }
        next = end;
    }
    assert_eq!(wanted.next(next), None, "pages that no message has");
}

/// A page table, and the device and options that swupload gets with it.
pub(crate) struct Upload {
    pub(crate) target: Target,
    pub(crate) first: u32,
    pub(crate) packed: bool,
    pub(crate) message_bytes: usize,
    pub(crate) file: Vec<u8>,
}

impl Display for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target {
            dev_count,
            pte_bits,
            page_total,
            ..
        } = self.target;
        write!(
            f,
            "{dev_count} devices, {pte_bits} bits, {page_total} pages, from {} on, packed: {}, {} bytes, \
             file: \"{}\"",
            self.first,
            self.packed,
            self.message_bytes,
            self.file.escape_ascii()
        )
    }
}

impl Upload {
    /// Reads an input: a line of numbers, and the page table. The numbers are devices, bits, pages, first page, bytes
    /// of a message, and 1 for packed words. One that is missing or out of range becomes one in range, so that any
    /// input is an upload.
    fn read(input: &[u8]) -> Self {
        let (line, file) = cut(input, b'\n');
        let mut numbers = line
            .split(|byte| !byte.is_ascii_digit())
            .filter(|digits| !digits.is_empty())
            .map(|digits| digits.iter().fold(0_u64, next_digit));
        let mut number = |low: u64, high: u64| match numbers.next().unwrap_or(low) {
            number if (low..=high).contains(&number) => number,
            number => low + number % (high - low + 1),
        };
        let dev_count = number(1, 65535) as u16;
        let needed = pte_bits(None, dev_count, true).unwrap();
        let pte_bits = number(needed.into(), 32) as u32;
        let page_total = number(1, u32::MAX.into()) as u32;
        let each = 32 / pte_bits;
        let first = number(0, (page_total - 1).into()) as u32 / each * each;
        Upload {
            target: target(dev_count, pte_bits, page_total),
            first,
            message_bytes: number(44, MAX_IPC_MSG_LEN as u64) as usize,
            packed: number(0, 1) == 1,
            file: file.into(),
        }
    }

    pub(crate) fn judge(&self) {
        let Upload {
            ref target,
            first,
            packed,
            message_bytes,
            ref file,
        } = *self;
        let source = source(file);
        let reader = Reader {
            source: &source,
            target,
            packed,
        };
        match (reader.read(first), &said(file, target, first, packed)) {
            (Ok(stretches), Ok(runs)) => {
                let wanted = Wanted {
                    runs,
                    target,
                    packed,
                };
                compare(
                    windows(stretches, target, message_bytes),
                    &wanted,
                    message_bytes,
                );
            }
            (Err(failure), Err(wrong)) => assert_eq!(place(&failure), *wrong, "{}", failure.1),
            (Ok(_), Err(wrong)) => panic!("nothing found wrong at {wrong:?}"),
            (Err(failure), Ok(_)) => panic!("found wrong: {}", failure.1),
        }
    }
}

fn next_digit(number: u64, digit: &u8) -> u64 {
    number
        .saturating_mul(10)
        .saturating_add((digit - b'0').into())
}

/// Returns what is before the first `end`, which may be all, and what is after it.
fn cut(text: &[u8], end: u8) -> (&[u8], &[u8]) {
    let mut parts = text.splitn(2, |byte| *byte == end);
    (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    )
}

fn target(dev_count: u16, pte_bits: u32, page_total: u32) -> Target {
    Target {
        dev: libc::makedev(253, 300),
        dev_count,
        pte_bits,
        page_total,
        userland: [0x1234, 0xabcd_0001],
    }
}

fn source(bytes: &[u8]) -> Source {
    Source {
        name: "f".into(),
        bytes: bytes.into(),
    }
}

/// Judges a page table after a line of numbers: see `Upload::read`.
fn file(input: &[u8]) {
    Upload::read(input).judge();
}

/// Judges a file for `-r`, and the request with its message.
pub(crate) fn message(input: &[u8]) {
    let tokens = tokens(input);
    let digits = tokens.concat();
    let wrong = match digits.iter().find(|digit| !digit.0.is_ascii_hexdigit()) {
        None if digits.is_empty() => Some((1, 1)),
        None if digits.len() % 2 != 0 || digits.len() / 2 > 65531 => {
            tokens.last().map(|token| (token[0].1, token[0].2))
        }
        stray => stray.map(|stray| (stray.1, stray.2)),
    };
    match (raw_message(&source(input)), wrong) {
        (Ok(message), None) => {
            let value = |digit: &Place| char::from(digit.0).to_digit(16).unwrap() as u8;
            let pairs = digits.chunks(2);
            let wanted: Vec<_> = pairs
                .map(|pair| value(&pair[0]) * 16 + value(&pair[1]))
                .collect();
            assert_eq!(message, wanted);
            assert_eq!(request(31, 7, [1, 1], 1, &message), wanted_request(&wanted));
        }
        (Err(failure), Some(wrong)) => assert_eq!(place(&failure), wrong, "{}", failure.1),
        (got, wrong) => panic!("{got:?}, wrong at {wrong:?}"),
    }
}

/// The datagram of request 7 to family 31: a `struct nlmsghdr`, a `struct genlmsghdr`, and attribute 1 with the message.
fn wanted_request(message: &[u8]) -> Vec<u8> {
    let attribute = 4 + message.len() as u16;
    let length = 20 + u32::from(attribute).next_multiple_of(4);
    let mut wanted = length.to_ne_bytes().to_vec();
    wanted.extend([31_u16, 1].map(u16::to_ne_bytes).concat());
    wanted.extend([7_u32, 0].map(u32::to_ne_bytes).concat());
    wanted.extend([1, 1, 0, 0]);
    wanted.extend([attribute, 1].map(u16::to_ne_bytes).concat());
    wanted.extend(message);
    wanted.resize(length as usize, 0);
    wanted
}

/// Judges what swupload takes from the table of a device, whose lines are `LENGTH TARGET ARGUMENTS` here.
fn table(input: &[u8]) {
    let lines: Vec<_> = input
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (length, line) = cut(line, b' ');
            let digits = length.iter().filter(|byte| byte.is_ascii_digit());
            let (target, arguments) = cut(line, b' ');
            let target = &target[..target.len().min(16)];
            (digits.fold(0, next_digit), target, arguments)
        })
        .collect();
    let switches = lines.iter().filter(|line| text(line.1) == "switch");
    let wanted = match switches.collect::<Vec<_>>()[..] {
        [] if lines.is_empty() => Err("has no table".into()),
        [] => Err(format!("not a switch: its target is {}", text(lines[0].1))),
        [(length, _, arguments)] => switch(*length, &text(arguments)),
        _ => Err("has several switch targets".into()),
    };
    match (switch_of("d", &table_answer(&lines)), wanted) {
        (Ok((dev, switch)), Ok(wanted)) => {
            assert_eq!(dev, libc::makedev(253, 300));
            assert_eq!((switch.devices, switch.pages, switch.is_in_tree), wanted);
            if let Ok(devices) = switch.devices.try_into() {
                let bits = pte_bits(None, devices, switch.is_in_tree).unwrap();
                assert_eq!(bits, wanted_bits(devices, switch.is_in_tree));
            }
        }
        (Err(error), Err(wanted)) => {
            let begin = format!("d: {wanted}");
            assert!(error.starts_with(&begin), "{error}, not {begin}");
        }
        (got, wanted) => panic!("{got:?}, not {wanted:?}"),
    }
}

/// The bits of an entry that hold each index, a power of two for a v3 line.
fn wanted_bits(devices: u16, is_in_tree: bool) -> u32 {
    let holds = |bits: &u32| 1_u64 << bits >= devices.into();
    let is_possible = |bits: &u32| is_in_tree || bits.is_power_of_two();
    (1..33)
        .find(|bits| holds(bits) && is_possible(bits))
        .unwrap()
}

/// The kernel's answer to DM_TABLE_STATUS: a `struct dm_ioctl`, and for each line a `struct dm_target_spec` and the
/// arguments.
fn table_answer(lines: &[(u64, &[u8], &[u8])]) -> Vec<u8> {
    let mut answer = vec![0; 312];
    answer[16..20].copy_from_slice(&312_u32.to_ne_bytes());
    answer[20..24].copy_from_slice(&(lines.len() as u32).to_ne_bytes());
    answer[40..48].copy_from_slice(&libc::makedev(253, 300).to_ne_bytes());
    for (length, target, arguments) in lines {
        let end = (answer.len() + 40 + arguments.len() + 1).next_multiple_of(8);
        answer.extend([0; 8]);
        answer.extend(length.to_ne_bytes());
        answer.extend([0; 4]);
        answer.extend((end as u32 - 312).to_ne_bytes());
        answer.extend(*target);
        answer.resize(answer.len() + 16 - target.len(), 0);
        answer.extend(*arguments);
        answer.resize(end, 0);
    }
    answer
}

/// A switch's devices and pages, and whether its line is for the kernel's own target.
fn switch(length: u64, arguments: &str) -> Result<(u64, u64, bool), String> {
    let arguments: Vec<&str> = arguments
        .split(' ')
        .filter(|word| !word.is_empty())
        .collect();
    let number = |at: usize| {
        let digits = arguments.get(at)?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| is_number)
    };
    let others = number(0)
        .filter(|count| *count > 0)
        .map(|count| arguments.len() as i128 - 2 * i128::from(count));
    match (others, number(0), number(1), number(2)) {
        (Some(2), _, Some(0), _) => Err("its page size is zero".into()),
        (Some(2), Some(count), Some(size), _) => Ok((count, length.div_ceil(size), false)),
        (Some(3), Some(count), Some(size), Some(_)) if size > 0 => {
            Ok((count, length.div_ceil(size), true))
        }
        _ => Err("not a table of dm-switch".into()),
    }
}

/// The text before the first NUL, with `?` for each control character.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(cut(bytes, 0).0)
        .chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

/// Judges the bytes as each answer that swupload gets from the kernel: the lines of a table, a family's number, and
/// the answer of family 31 to request 7.
pub(crate) fn answer(input: &[u8]) {
    assert_eq!(table_lines(input).ok(), lines(input));
    assert_eq!(family_id(input).ok(), family(input));
    let found = find_reply(input, 7).map_err(drop);
    let wanted = reply(input);
    assert_eq!(found, wanted.map(|reply| reply.map(Vec::from)));
    let Ok(Some(reply)) = wanted else {
        return;
    };
    let answer = Answer::decode(reply, 31);
    let text = answer.as_ref().map(Answer::to_string);
    assert_eq!(text.map_err(Clone::clone), printed(reply));
    if let Ok(answer) = answer {
        assert_eq!(answer.accepts(&target(3, 4, 40)).err(), refusal(reply));
    }
}

/// The number in some bytes, the lowest first. None if the answer is too short.
fn field(answer: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let field = answer.get(at..at + bytes)?.iter();
    Some(
        field
            .rev()
            .fold(0, |number, byte| (number << 8) | u64::from(*byte)),
    )
}

/// A table's device and lines. Each line must begin after the one before it.
fn lines(answer: &[u8]) -> Option<(u64, Vec<Line>)> {
    let start = field(answer, 16, 4)?;
    let (mut lines, mut at) = (Vec::new(), start);
    for _ in 0..field(answer, 20, 4)? {
        let line = answer.get(at as usize..)?;
        let arguments = text(line.get(40..)?);
        lines.push((field(line, 8, 8)?, text(&line[24..40]), arguments));
        let next = start + field(line, 20, 4)?;
        if next <= at {
            return None;
        }
        at = next;
    }
    Some((field(answer, 40, 8)?, lines))
}

/// The number of a family: the attribute of type 1.
fn family(reply: &[u8]) -> Option<u16> {
    let mut at = 20;
    while field(reply, at + 2, 2)? != 1 {
        at += field(reply, at, 2)?.max(4).next_multiple_of(4) as usize;
    }
    Some(field(reply, at + 4, 2)? as u16)
}

/// The netlink message that answers request 7, if there is one. It may be cut short.
fn reply(mut datagram: &[u8]) -> Result<Option<&[u8]>, ()> {
    while let Some(seq) = field(datagram, 8, 4).filter(|_| datagram.len() >= 16) {
        let length = field(datagram, 0, 4).unwrap().max(16) as usize;
        if seq == 7 {
            return datagram.get(..length).map(Some).ok_or(());
        }
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(None)
}

/// What `-r` prints, or what is wrong with the answer.
fn printed(reply: &[u8]) -> Result<String, String> {
    let number = |at, bytes| field(reply, at, bytes).unwrap_or_default();
    let wrong = first_wrong(&[
        ("type", number(4, 2), 31),
        ("length", reply.len() as u64 - 16, 292),
        ("attribute length", number(20, 2), 288),
        ("attribute type", number(22, 2), 11),
    ]);
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    let word = |at| number(at, 4);
    let bytes_after = reply[52..].iter().skip_while(|byte| **byte != 0);
    let tail = match bytes_after.copied().max() {
        None | Some(0) => "zero",
        _ => "nonzero",
    };
    Ok(format!(
        "type 31\nflags {:#x}\nseq 7\npid {}\ncmd {}\nversion {}\nattr 11\ntotal_len {}\nopcode {}\n\
         userland 0x{:08x} 0x{:08x}\ndev {}:{}\nstatus {}\nerr_str {}\nerr_tail {tail}\n",
        number(6, 2),
        word(12),
        reply[16],
        reply[17],
        word(24),
        word(28),
        word(32),
        word(36),
        word(40),
        word(44),
        word(48),
        text(&reply[52..]),
    ))
}

/// Why an answer, which is laid out as one, does not say that the message to `target(3, 4, 40)` was accepted.
fn refusal(reply: &[u8]) -> Option<String> {
    let word = |at| field(reply, at, 4).unwrap();
    let wrong = first_wrong(&[
        ("command", reply[16].into(), 1),
        ("total_len", word(24), 284),
        ("opcode", word(28), 1),
        ("first userland word", word(32), 0x1234),
        ("second userland word", word(36), 0xabcd_0001),
    ]);
    match (wrong, word(40), word(44), word(48)) {
        (Some(wrong), ..) => Some(wrong),
        (_, 253, 300, 0) => None,
        (_, 253, 300, status) => {
            let text = text(&reply[52..]);
            Some(format!("refused by the kernel: {text} (status {status})"))
        }
        (_, major, minor, _) => Some(format!(
            "the answer's device is {major}:{minor}, not 253:300"
        )),
    }
}

/// Says which field is the first that differs from what is wanted; each has a name before it.
fn first_wrong(fields: &[(&str, u64, u64)]) -> Option<String> {
    let (what, found, wanted) = fields.iter().find(|(_, found, wanted)| found != wanted)?;
    Some(format!("the answer's {what} is {found}, not {wanted}"))
}

/// The place that an error text names.
fn place(Failure(status, text): &Failure) -> (usize, usize) {
    assert_eq!((*status, text.lines().count()), (2, 1), "{text}");
    let mut parts = text.splitn(4, ':').skip(1).map(|part| part.parse().ok());
    let mut number = || {
        parts
            .next()
            .flatten()
            .unwrap_or_else(|| panic!("no place in: {text}"))
    };
    (number(), number())
}
