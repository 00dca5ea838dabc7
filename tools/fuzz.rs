// SPDX-License-Identifier: GPL-2.0-only

//! What swupload takes from random inputs and from those of the corpus, judged by the model: no input makes it panic,
//! or send what the input does not say.
//!
//! A random case comes from its seed alone, which is printed where it fails: `SEED=number cargo test` begins with it.

use std::fmt::Display;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

use super::file::shown;
use super::message::{Target, MAX_IPC_MSG_LEN};
use super::upload::pte_bits;

pub(crate) mod model;
#[path = "../tests/fuzz/random.rs"]
mod random;

use model::{Upload, JUDGES};
use random::Random;

const CASES: u64 = 20_000;

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
        let upload = Upload {
            first,
            packed: random.chance(25),
            message_bytes: match random.chance(70) {
                true => 44 + random.below(40) as usize,
                false => random.pick(&[44, 47, 48, 1000, MAX_IPC_MSG_LEN]),
            },
            file: any_file(random, &target, first),
            target,
        };
        let _case = Case(seed, &upload);
        upload.judge();
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
        model::message(&bytes);
    });
}

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
        model::answer(&answer);
    });
}

/// The inputs that the led fuzzer found.
#[test]
fn corpus() {
    for (kind, judge) in JUDGES {
        let files = fs::read_dir(format!("../tests/swupload/corpus/{kind}")).unwrap();
        let paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert!(!paths.is_empty(), "no inputs of kind {kind}");
        for path in paths {
            println!("{}", path.display());
            judge(&fs::read(path).unwrap());
        }
    }
}
