// SPDX-License-Identifier: GPL-2.0-only

//! The counters of a module that is built with `COVERAGE`: how often each part of it ran.

use std::fs::File;
use std::io::{self, Read};
use std::mem::swap;
use std::os::unix::fs::FileExt;

/// Where `tests/modules/coverage.c` shows them.
const FILE: &str = "/sys/kernel/debug/dm_switch/live";

/// Bytes of a counter.
const SIZE: usize = size_of::<u64>();

pub struct Counters {
    file: File,
    /// What the file had when it was read last.
    now: Vec<u8>,
    /// What it had the time before.
    before: Vec<u8>,
}

impl Counters {
    /// Opens the counters of the module that is loaded. Fails if it has none.
    pub fn open() -> io::Result<Self> {
        let mut file = File::open(FILE)?;
        let mut now = Vec::new();
        file.read_to_end(&mut now)?;
        let before = now.clone();
        Ok(Counters { file, now, before })
    }

    pub fn count(&self) -> usize {
        self.now.len() / SIZE
    }

    /// Returns how many are not zero.
    pub fn reached(&self) -> usize {
        let counters = self.now.chunks(SIZE);
        counters.filter(|counter| **counter != [0; SIZE]).count()
    }

    /// Reads the counters, and returns the numbers of those that rose since the last time.
    pub fn rose(&mut self) -> Vec<usize> {
        swap(&mut self.now, &mut self.before);
        self.file
            .read_exact_at(&mut self.now, 0)
            .expect("the module stays loaded");
        let pairs = self.now.chunks(SIZE).zip(self.before.chunks(SIZE));
        let rose = pairs.enumerate().filter(|(_, (now, before))| now != before);
        rose.map(|(number, _)| number).collect()
    }
}
