// SPDX-License-Identifier: GPL-2.0

//! A stand-in for Rust-for-Linux's crate `kernel`, for kernels that have none.
//!
//! It holds the names of that crate that `dm-switch.rs` uses and no others, in the modules in which they are there,
//! and with the same meanings. A module that is built with it needs of the kernel what C modules need: its headers.
//!
//! Tests run on the host, which `cfg(host)` says: see `host.rs`, and `tests.rs` for those of this crate.

#![cfg_attr(not(host), no_std)]
// For a panic's end.
#![allow(internal_features)]
#![cfg_attr(not(host), feature(core_intrinsics))]

// What macros that are used in other crates name, and what derives of the macros crate name here.
extern crate self as kernel;

pub mod alloc;
pub mod bindings;
pub mod build_assert;
pub mod error;
pub mod ffi;
pub mod init;
mod module;
pub mod prelude;
pub mod print;
pub mod str;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod transmute;
pub mod types;

#[cfg(test)]
use tests::__LOG_PREFIX;

pub use core::fmt;
#[doc(hidden)]
pub use module::section_bytes;
pub use module::{
    InPlaceModule,
    ThisModule, //
};
