// SPDX-License-Identifier: GPL-2.0

//! What nearly every module of Rust's uses.

pub use crate::fmt;
pub use crate::{
    alloc::{
        flags::*,
        KBox,
        KVVec, //
    },
    error::{
        code::*,
        Error,
        Result, //
    },
    init::{
        PinInit,
        PinnedDrop, //
    },
    module,
    pin_init,
    pr_err,
    pr_warn,
    static_assert,
    str::CStrExt as _,
    try_pin_init,
    ThisModule, //
};
pub use core::{
    ffi::CStr,
    mem::{
        align_of,
        size_of, //
    },
    pin::Pin, //
};
pub use macros::{
    pin_data,
    pinned_drop, //
};
