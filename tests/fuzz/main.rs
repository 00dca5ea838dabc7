// SPDX-License-Identifier: GPL-2.0-only

//! Fuzzes dm-switch against a model: makes scripts out of random numbers, does what they say, and compares
//! all that comes of it with what should.
//!
//! A script begins without a device and is made from its own seed, so that the seed is all that it takes to
//! have it again. Where module and model disagree, or the kernel complains, the script is cut down to the steps
//! that it takes.

#![deny(unsafe_code)]

mod fuzzer;
mod generate;
mod model;
mod random;
mod step;
mod system;

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fuzzer::Fuzzer;
use random::Random;
use system::{drain_output, System};

/// When to stop.
enum Limit {
    Scripts(u64),
    Seconds(u64),
}

/// The command line: a seed, and so many scripts or seconds.
fn arguments() -> Option<(u64, Limit, bool)> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at)?.parse().ok();
    let limit = match arguments.get(1)?.as_str() {
        "--scripts" => Limit::Scripts(number(2)?),
        "--seconds" => Limit::Seconds(number(2)?),
        _ => return None,
    };
    Some((
        number(0)?,
        limit,
        arguments.get(3).is_some_and(|last| last == "--trace"),
    ))
}

fn main() -> ExitCode {
    let Some((seed, limit, trace)) = arguments() else {
        eprintln!("usage: fuzz SEED --scripts|--seconds N [--trace]");
        return ExitCode::from(2);
    };
    let system = match System::new() {
        Ok(system) => system,
        Err(error) => {
            eprintln!("fuzz: cannot begin: {error}");
            return ExitCode::from(2);
        }
    };
    let mut fuzzer = Fuzzer::new(system, trace);
    let start = Instant::now();
    let mut next = seed;
    loop {
        let is_over = match limit {
            Limit::Scripts(scripts) => fuzzer.counts.scripts >= scripts,
            Limit::Seconds(seconds) => start.elapsed() >= Duration::from_secs(seconds),
        };
        if is_over {
            break;
        }
        println!("script {} of seed {next}", fuzzer.counts.scripts);
        drain_output();
        fuzzer.counts.scripts += 1;
        let script = generate::script(next);
        if let Err(failure) = fuzzer.run(&script) {
            fuzzer.report(next, script, failure);
            return ExitCode::FAILURE;
        }
        next = Random::new(next).next();
    }
    if fuzzer.summarize() {
        ExitCode::SUCCESS
    } else {
        println!("FAILED: what is named as never should have happened");
        ExitCode::FAILURE
    }
}
