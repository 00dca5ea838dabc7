// SPDX-License-Identifier: GPL-2.0-only

//! What swupload makes of files, compared with what a plain reading of its manual page says: no file makes it
//! panic, or send what the file does not say.
//!
//! Files are made out of random numbers. A case comes from its seed alone, which is printed where it fails:
//! `SEED=number cargo test` begins with it.

use std::fmt::Display;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, mem, thread};

use super::dm::table_lines;
use super::file::{raw_message, shown, Reader, Source};
use super::message::{Target, Window, MAX_IPC_MSG_LEN};
use super::netlink::{family_id, find_reply, Answer};
use super::report::Failure;
use super::upload::pte_bits;
use super::words::windows;

#[path = "../tests/fuzz/random.rs"]
mod random;

use random::Random;

const CASES: u64 = 20_000;

/// Words that are compared of one case: page tables may have as many as memory can hold.
const MOST_WORDS: usize = 20_000;

/// Says at a panic which case it was.
struct Case<'a>(u64, &'a dyn Display);

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Case(seed, text) = self;
            eprintln!("{text}\nthe case of SEED={seed}");
        }
    }
}

/// Runs cases from the environment's seed on, or a fresh one.
fn for_each_case(case: impl Fn(u64, &mut Random)) {
    let fresh = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64
    };
    let given = env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let mut seed = given.unwrap_or_else(fresh);
    for _ in 0..CASES {
        case(seed, &mut Random::new(seed));
        seed = Random::new(seed).next();
    }
}

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

/// A target that options and tables can make.
fn any_target(random: &mut Random) -> Target {
    let dev_count = match random.below(4) {
        0 => 1 + random.below(65535) as u16,
        _ => random.pick(&[1, 2, 3, 4, 5, 9, 15, 16, 17, 255, 256, 257, 65535]),
    };
    let needed = pte_bits(None, dev_count, true).unwrap();
    let bits = match random.chance(50) {
        true => needed + random.below(33 - u64::from(needed)) as u32,
        false => needed,
    };
    let edges = [
        1,
        2,
        31,
        32,
        33,
        8191,
        8192,
        8193,
        1 << 20,
        1 << 31,
        u32::MAX - 1,
        u32::MAX,
    ];
    Target {
        dev: libc::makedev(253, 300),
        dev_count,
        pte_bits: bits,
        page_total: match random.below(100) {
            0..20 => 1 + random.below(12) as u32,
            20..65 => 1 + random.below(200) as u32,
            _ => random.pick(&edges),
        },
        userland: [random.word(), random.word()],
    }
}

/// A number around one of several.
fn edge(random: &mut Random, edges: &[u64]) -> u64 {
    let near = random.below(3);
    random.pick(edges).saturating_add(near).saturating_sub(1)
}

/// A token, a good one nearly always.
fn any_token(random: &mut Random, target: &Target, next: &mut u64) -> String {
    let each = u64::from(32 / target.pte_bits);
    let left = u64::from(target.page_total).saturating_sub(*next);
    let value = match random.below(200) {
        0 => random.next(),
        1 => target.dev_count.into(),
        _ => random.below(target.dev_count.into()),
    };
    let value = match random.below(100) {
        0..25 => format!("{value:02X}"),
        25..27 => format!("{value:030x}"),
        _ => format!("{value:x}"),
    };
    match random.below(100) {
        0..50 if left > 0 || random.chance(15) => {
            *next = next.saturating_add(1);
            value
        }
        50..80 if left > 0 => {
            let count = match random.chance(97) {
                true => 1 + random.below(left.min(4 * each + 2)),
                false => edge(random, &[0, each, left, 1 << 31, 1 << 32, u64::MAX]),
            };
            *next = next.saturating_add(count);
            format!("{value}*{count}")
        }
        80..90 if left > 4 * each => {
            let page = match random.chance(95) {
                true => (*next / each + 1 + random.below(3)) * each,
                false => edge(random, &[0, *next, 1 << 32, u64::MAX]),
            };
            *next = page.max(*next);
            format!("@{page}")
        }
        99 => {
            let bad = [
                "*", "1*", "*1", "@", "@@1", "1*1*1", "0x1", "+1", "-1", "g", "1,1", "\x0b", "@1*1",
            ];
            random.pick(&bad).into()
        }
        _ => {
            let between = ["# a comment 1 2\n", "#\n", "# 3\r", "\r\n", "", "\t \x0c"];
            random.pick(&between).into()
        }
    }
}

/// A file: any bytes, bytes that mean something, or tokens, with a byte or two changed perhaps.
fn any_file(random: &mut Random, target: &Target, first: u32) -> Vec<u8> {
    let letters = b"0123456789abcdefABCDEF***@@@#  \n\n\t\r,+-xg\x0b\x0c\0\xff";
    let mut next = u64::from(first);
    let mut file: Vec<u8> = match random.below(10) {
        0 => (0..random.below(64)).map(|_| random.word() as u8).collect(),
        1 => (0..random.below(64))
            .map(|_| random.pick(letters))
            .collect(),
        _ => {
            let gaps = [
                " ",
                "\n",
                "\r\n",
                "\r",
                "\t",
                "#\r\n",
                "#\r",
                "  # and so on\n",
            ];
            let usual = random.pick(&gaps);
            let most = random.pick(&[20, 20, 20, 200]);
            let mut text = String::new();
            for _ in 0..random.below(most) {
                text += &any_token(random, target, &mut next);
                text += match random.chance(80) {
                    true => usual,
                    false => random.pick(&gaps),
                };
            }
            text.into()
        }
    };
    if random.chance(15) {
        for _ in 0..=random.below(2) {
            let at = random.below(file.len() as u64 + 1) as usize;
            match random.below(3) {
                0 => file.insert(at, random.pick(letters)),
                1 => file.truncate(at),
                _ => file[at..]
                    .iter_mut()
                    .take(1)
                    .for_each(|byte| *byte = random.pick(letters)),
            }
        }
    }
    file
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

#[test]
fn files() {
    for_each_case(|seed, random| {
        let target = any_target(random);
        let each = 32 / target.pte_bits;
        let last_word = (target.page_total - 1) / each;
        let first = match random.chance(80) {
            true => 0,
            false => random.below(u64::from(last_word) + 1) as u32 * each,
        };
        let packed = random.chance(25);
        let message_bytes = match random.chance(70) {
            true => 44 + random.below(40) as usize,
            false => random.pick(&[44, 47, 48, 1000, MAX_IPC_MSG_LEN]),
        };
        let bytes = any_file(random, &target, first);
        let text = format!(
            "{} devices, {} bits, {} pages, from {first} on, packed: {packed}, {message_bytes} bytes, file: \
             \"{}\"",
            target.dev_count,
            target.pte_bits,
            target.page_total,
            bytes.escape_ascii()
        );
        let _case = Case(seed, &text);
        let source = Source {
            name: "f".into(),
            bytes,
        };
        let reader = Reader {
            source: &source,
            target: &target,
            packed,
        };
        let said = said(&source.bytes, &target, first, packed);
        match (reader.read(first), &said) {
            (Ok(stretches), Ok(runs)) => {
                let wanted = Wanted {
                    runs,
                    target: &target,
                    packed,
                };
                compare(
                    windows(stretches, &target, message_bytes),
                    &wanted,
                    message_bytes,
                );
            }
            (Err(failure), Err(wrong)) => assert_eq!(place(&failure), *wrong, "{}", failure.1),
            (Ok(_), Err(wrong)) => panic!("nothing found wrong at {wrong:?}"),
            (Err(failure), Ok(_)) => panic!("found wrong: {}", failure.1),
        }
    });
}

#[test]
fn raw_files() {
    for_each_case(|seed, random| {
        let target = any_target(random);
        let bytes = match random.chance(50) {
            true => any_file(random, &target, 0),
            false => {
                let long = [2 * 65531, 2 * 65531 + 1, 2 * 65532];
                let digits = match random.below(1000) {
                    0..4 => random.pick(&long),
                    _ => random.below(100),
                };
                let letters = b"0123456789abcdefABCDEF";
                let mut bytes: Vec<u8> = (0..digits).map(|_| random.pick(letters)).collect();
                bytes.insert(random.below(digits + 1) as usize, random.pick(b" \n\t"));
                bytes
            }
        };
        let text = format!("file: \"{}\"", shown(&bytes));
        let _case = Case(seed, &text);
        let digits: Vec<Place> = tokens(&bytes).concat();
        let values = digits
            .iter()
            .map(|(byte, ..)| char::from(*byte).to_digit(16));
        let values: Option<Vec<u32>> = values.collect();
        let count = digits.len();
        let good = values.filter(|_| count > 0 && count % 2 == 0 && count / 2 <= 65531);
        let message = good.map(|values| {
            let pairs = values.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8);
            pairs.collect::<Vec<u8>>()
        });
        let source = Source {
            name: "f".into(),
            bytes,
        };
        let got = raw_message(&source);
        if let Err(failure) = &got {
            place(failure);
        }
        assert_eq!(got.ok(), message);
    });
}

/// Whatever is answered, it is taken apart or refused.
#[test]
fn any_answer() {
    for_each_case(|seed, random| {
        let length = random.pick(&[0, 4, 15, 16, 17, 20, 24, 28, 307, 308, 309, 312, 700]);
        let mut answer: Vec<u8> = (0..length).map(|_| random.word() as u8).collect();
        let parts: [(usize, &[u8]); 5] = [
            (0, &[52, 1, 0, 0]),
            (4, &[31, 0]),
            (8, &[7, 0, 0, 0]),
            (20, &[32, 1]),
            (22, &[11, 0]),
        ];
        for (at, bytes) in parts {
            if answer.len() >= at + bytes.len() && random.chance(80) {
                answer[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
        let text = format!("{answer:02x?}");
        let _case = Case(seed, &text);
        if let Ok(Some(reply)) = find_reply(&answer, 7) {
            if let Ok(taken) = Answer::decode(&reply, 31) {
                assert_eq!(taken.to_string().lines().count(), 14);
            }
        }
        let _ = table_lines(&answer);
        let _ = family_id(&answer);
    });
}
