// SPDX-License-Identifier: GPL-2.0

//! C's types as the kernel has them: `char` is unsigned, and `long` is as wide as a pointer.

pub use core::ffi::{
    c_int,
    c_longlong,
    c_schar,
    c_short,
    c_uchar,
    c_uint,
    c_ulonglong,
    c_ushort,
    c_void, //
};

#[allow(non_camel_case_types, missing_docs)]
mod kernels_own {
    pub type c_char = u8;
    pub type c_long = isize;
    pub type c_ulong = usize;
}

pub use kernels_own::*;
