// SPDX-License-Identifier: GPL-2.0-only

//! Fuzzes dm-switch against a model: makes scripts out of random numbers, does what they say, and
//! compares all that comes of it with what should.
//!
//! A script begins without a device. It is a list of steps of the random scripts that seeds make, so
//! that a line of text is enough to run it again. If module and model disagree, or the kernel
//! complains, the script is cut down to the steps that reproduce this.
//!
//! If the module has counters, scripts can be led by what earlier ones reached of it.

#![deny(unsafe_code)]

mod counters;
mod fuzzer;
mod generate;
mod led;
mod model;
mod random;
mod script;
mod step;
mod system;

use std::collections::BTreeSet;
use std::error::Error;
use std::process::{exit, ExitCode};
use std::time::{Duration, Instant};
use std::{env, fs};

use counters::Counters;
use fuzzer::{leave_out, Fuzzer};
use led::Queue;
use script::Script;
use system::{drain_output, System};

const USAGE: &str = "usage: fuzz random|corpus|led|renew SEED scripts|seconds N
       fuzz script TEXT [trace]";

/// The scripts that come before those that are led, a line each.
const CORPUS: &str = "/t/corpus";

/// How long a script of a new corpus may be cut down.
const SHRINKING: Duration = Duration::from_secs(180);

/// When to stop.
enum Limit {
    Scripts(u64),
    Seconds(u64),
}

/// What the command line asks for.
struct Task {
    /// Scripts to run first.
    given: Vec<Script>,
    /// What the others are made from.
    seed: u64,
    is_led: bool,
    /// Whether a new corpus is printed.
    renews: bool,
    limit: Limit,
    /// Whether each step is printed before it is done.
    trace: bool,
}

impl Task {
    /// Understands the command line.
    fn new() -> Result<Self, Box<dyn Error>> {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words[..] {
            ["script", text] | ["script", text, "trace"] => Ok(Task {
                given: vec![Script::parse(text)?],
                seed: 0,
                is_led: false,
                renews: false,
                limit: Limit::Scripts(1),
                trace: words.len() > 2,
            }),
            [mode @ ("random" | "corpus" | "led" | "renew"), seed, unit, number] => {
                let given = if mode == "random" {
                    Vec::new()
                } else {
                    corpus()?
                };
                let number: u64 = number.parse()?;
                let limit = match unit {
                    "scripts" => Limit::Scripts(given.len() as u64 + number),
                    "seconds" => Limit::Seconds(number),
                    _ => return Err(USAGE.into()),
                };
                Ok(Task {
                    given,
                    seed: seed.parse()?,
                    is_led: mode == "led" || mode == "renew",
                    renews: mode == "renew",
                    limit,
                    trace: false,
                })
            }
            _ => Err(USAGE.into()),
        }
    }
}

/// Returns the scripts of the corpus.
fn corpus() -> Result<Vec<Script>, Box<dyn Error>> {
    let text = fs::read_to_string(CORPUS)?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.map(Script::parse).collect::<Result<_, _>>()?)
}

/// Runs a script. If it fails, reports that and exits.
fn run(fuzzer: &mut Fuzzer, queue: &mut Queue, script: &Script) {
    println!("script {}: {script}", fuzzer.counts.scripts);
    drain_output();
    fuzzer.counts.scripts += 1;
    queue.begin();
    let result = fuzzer.run_watched(&script.steps, |at| queue.watch(script, at));
    if let Err(failure) = result {
        fuzzer.report(script, script.steps.clone(), failure);
        exit(1);
    }
}

/// Prints few and short scripts, which reach all counters that scripts which were kept reached.
fn renew(fuzzer: &mut Fuzzer, queue: &mut Queue) {
    let mut kept: Vec<_> = queue.kept.drain(..).collect();
    let mut reached = BTreeSet::new();
    loop {
        kept.sort_by_key(|kept| kept.edges.difference(&reached).count());
        let Some(best) = kept.pop() else { break };
        run(fuzzer, queue, &best.script);
        let edges = queue.edges();
        let wanted: BTreeSet<usize> = edges.difference(&reached).copied().collect();
        if wanted.is_empty() {
            continue;
        }
        let start = Instant::now();
        let steps = best.script.places.into_iter().zip(best.script.steps);
        let is_late = || start.elapsed() > SHRINKING;
        let steps = leave_out(steps.collect(), is_late, |steps| {
            let script = steps.iter().cloned().collect();
            run(fuzzer, queue, &script);
            wanted.is_subset(&queue.edges()).then_some(steps)
        });
        let script: Script = steps.into_iter().collect();
        run(fuzzer, queue, &script);
        reached.extend(queue.edges());
        println!("corpus: {script}");
    }
}

/// Does what the command line asks for. Returns whether all happened that should have.
fn fuzz() -> Result<bool, Box<dyn Error>> {
    let task = Task::new()?;
    let counters = Counters::open().ok();
    if task.is_led && counters.is_none() {
        return Err("the module has no counters".into());
    }
    let mut queue = Queue::new(task.given, task.seed, task.is_led, counters);
    let mut fuzzer = Fuzzer::new(System::new()?, task.trace);
    let start = Instant::now();
    loop {
        let is_over = match task.limit {
            Limit::Scripts(scripts) => fuzzer.counts.scripts >= scripts,
            Limit::Seconds(seconds) => start.elapsed() >= Duration::from_secs(seconds),
        };
        if is_over {
            break;
        }
        let script = queue.next();
        run(&mut fuzzer, &mut queue, &script);
        queue.learn(script);
    }
    let is_good = fuzzer.summarize();
    queue.summarize();
    if task.renews {
        renew(&mut fuzzer, &mut queue);
    }
    if !is_good {
        println!("FAILED: what is named as never should have happened");
    }
    Ok(is_good)
}

fn main() -> ExitCode {
    match fuzz() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::from(2)
        }
    }
}
