// SPDX-License-Identifier: GPL-2.0

//! Whole devices, which do as the fuzzer's model says.

use super::{
    fuzzer::Fuzzer,
    generate::script,
    random::Random,
    seed,
    share,
    step::Step,
    system::{
        limit_memory,
        Limit,
        System, //
    }, //
};
use crate::abi;

/// Runs a script, and reports where it fails.
fn run(fuzzer: &mut Fuzzer, seed: u64, script: Vec<Step>) {
    if let Err(failure) = fuzzer.run(&script) {
        fuzzer.report(seed, script, failure);
        panic!("module and model disagree");
    }
}

/// Runs `scripts` scripts, the first one from the seed.
fn run_all(mut fuzzer: Fuzzer, scripts: u64) {
    let mut next = seed();
    for _ in 0..share(scripts) {
        fuzzer.counts.scripts += 1;
        run(&mut fuzzer, next, script(next));
        next = Random::new(next).next();
    }
    fuzzer.summarize();
}

#[test]
fn devices_do_as_the_model_says() {
    run_all(Fuzzer::new(System::new(), false), 300);
}

/// A step that fails for want of memory, or because the process is killed, changes nothing.
#[test]
fn a_step_that_fails_changes_nothing() {
    let limits = [Some(limit_memory as Limit), Some(abi::kill_after)];
    run_all(Fuzzer::new(System::with_limits(limits), false), 8);
}
