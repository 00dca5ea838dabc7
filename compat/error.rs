// SPDX-License-Identifier: GPL-2.0

//! The kernel's error numbers.
//!
//! C header: `include/uapi/asm-generic/errno-base.h`

use crate::{
    alloc::AllocError,
    ffi::c_int, //
};
use core::{
    convert::Infallible,
    fmt,
    num::NonZeroI32, //
};

/// An error: one of the kernel's numbers, negated.
///
/// # Invariants
///
/// The number is in `-MAX_ERRNO..0`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error(NonZeroI32);

/// The greatest error number.
const MAX_ERRNO: c_int = 4095;

/// The error numbers that the module uses.
pub mod code {
    use super::Error;

    macro_rules! declare {
        ($($name:ident = $number:literal),* $(,)?) => {
            $(
                #[doc = concat!("The error ", stringify!($name), ", ", $number, ".")]
                pub const $name: Error = Error::from_number($number);
            )*
        };
    }

    // These are the same for all architectures.
    declare! {
        EPERM = 1,
        ENOENT = 2,
        EINTR = 4,
        EIO = 5,
        ENXIO = 6,
        ENOMEM = 12,
        EACCES = 13,
        ENOTBLK = 15,
        EBUSY = 16,
        EEXIST = 17,
        ENODEV = 19,
        EINVAL = 22,
        EROFS = 30,
        EMSGSIZE = 90,
    }
}

impl Error {
    /// Returns the error of a positive number, which must be a constant.
    const fn from_number(number: c_int) -> Self {
        match NonZeroI32::new(-number) {
            Some(number) => Self(number),
            None => panic!("0 is no error"),
        }
    }

    /// Returns the error that a C function returned, `EINVAL` for a number that is none.
    pub fn from_errno(errno: c_int) -> Self {
        match NonZeroI32::new(errno) {
            Some(number) if (-MAX_ERRNO..0).contains(&errno) => Self(number),
            _ => code::EINVAL,
        }
    }

    /// Returns the number as C functions return it, negative.
    pub const fn to_errno(self) -> c_int {
        self.0.get()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Error").field(&self.0).finish()
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        code::ENOMEM
    }
}

impl From<fmt::Error> for Error {
    fn from(_: fmt::Error) -> Self {
        code::EINVAL
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A result whose error is one of the kernel's.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

/// Turns what a C function returned, 0 or a negative error number, into a result.
pub fn to_result(errno: c_int) -> Result {
    if errno < 0 {
        Err(Error::from_errno(errno))
    } else {
        Ok(())
    }
}

/// Calls `f` and turns its result into what a C function returns.
pub fn from_result<T: From<i16>>(f: impl FnOnce() -> Result<T>) -> T {
    match f() {
        Ok(value) => value,
        // No error number is outside of an `i16`.
        Err(error) => T::from(error.to_errno() as i16),
    }
}
