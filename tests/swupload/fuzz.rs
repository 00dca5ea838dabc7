// SPDX-License-Identifier: GPL-2.0-only

//! Fuzzes swupload with libFuzzer, whose inputs are led by what earlier ones reached. `KIND` in the environment is the
//! kind of input; the model judges what swupload takes from it.

#![cfg(test)]
#![no_main]

use std::env;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

use swupload::fuzz::model::JUDGES;

// Its own tests are not run here.
#[allow(unused)]
#[path = "../../tools/swupload.rs"]
mod swupload;

static JUDGE: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let kind = env::var("KIND").expect("KIND is set");
    let known = JUDGES.iter().find(|(name, _)| *name == kind);
    known.expect("KIND is known").1
});

fuzz_target!(|input: &[u8]| JUDGE(input));
