// SPDX-License-Identifier: GPL-2.0

//! Properties, of cases that are made from a seed. What is compared with is plain: it divides, and counts one by one.

mod devices;
mod geometry;
mod numbers;
mod page_size;
mod page_table;
mod parts;
mod switch_list;
mod system;
mod upload;

// Of the fuzzer, all but what it does to a kernel.
#[path = "../fuzz/fuzzer.rs"]
mod fuzzer;
#[path = "../fuzz/generate.rs"]
mod generate;
#[path = "../fuzz/model.rs"]
mod model;
#[path = "../fuzz/random.rs"]
mod random;
#[path = "../fuzz/step.rs"]
mod step;

use proptest::{
    strategy::Strategy,
    test_runner::{
        Config,
        RngAlgorithm,
        TestCaseResult,
        TestRng,
        TestRunner, //
    }, //
};
use random::Random;
use std::{
    env,
    hash::{
        BuildHasher,
        RandomState, //
    },
    sync::OnceLock, //
};

/// Returns the number that a variable of the environment is.
fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().expect("it is a number"))
}

/// Returns what all cases are made from: `SEED`, or any number.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let seed = variable("SEED").unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
        println!("The cases are made from SEED={seed}.");
        seed
    })
}

/// Returns how many of `cases` cases to try: all, or one in `SHARE` of them, for a build in which they are slow.
fn share(cases: u64) -> u64 {
    cases.div_ceil(variable("SHARE").unwrap_or(1))
}

/// Tries `cases` cases. If one fails, looks for a smaller one that fails, too, and prints it.
fn check<S: Strategy>(cases: u64, strategy: S, test: impl Fn(S::Value) -> TestCaseResult) {
    let mut bytes = [0; 16];
    let mut random = Random::new(seed());
    for part in bytes.chunks_exact_mut(8) {
        part.copy_from_slice(&random.next().to_ne_bytes());
    }
    let config = Config {
        cases: share(cases) as u32,
        failure_persistence: None,
        max_shrink_iters: 10_000,
        ..Config::default()
    };
    let source = TestRng::from_seed(RngAlgorithm::XorShift, &bytes);
    let mut runner = TestRunner::new_with_rng(config, source);
    if let Err(failure) = runner.run(&strategy, test) {
        panic!("SEED={} has this again: {failure}", seed());
    }
}
