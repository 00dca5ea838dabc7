// SPDX-License-Identifier: GPL-2.0

//! The kernel's log.
//!
//! C header: `include/linux/printk.h`

use crate::{
    bindings,
    ffi::c_int,
    str::Formatter, //
};
use core::fmt::{
    self,
    Write, //
};

/// The length, in bytes, at which a line is cut. The kernel's own limit is about the same.
const LINE: usize = 1000;

/// Writes a line to the log. May be called from any context.
#[doc(hidden)]
#[inline(never)]
pub fn print(level: c_int, prefix: &str, args: fmt::Arguments<'_>) {
    let mut buffer = [0; LINE];
    let mut line = Formatter::new(&mut buffer);
    // A line that is too long is cut off.
    let _ = line.write_str(prefix).and_then(|()| line.write_fmt(args));
    let text = line.written();
    // SAFETY: The text is valid for reads of its length.
    unsafe { bindings::helper_printk(level, text.as_ptr().cast(), text.len()) };
}

/// The same as [`core::format_args!`].
#[macro_export]
macro_rules! fmt {
    ($($args:tt)+) => { ::core::format_args!($($args)+) };
}

// The prefix is the module's.
#[allow(clippy::crate_in_macro_def)]
#[doc(hidden)]
#[macro_export]
macro_rules! __print {
    ($level:literal, $($args:tt)+) => {
        $crate::print::print($level, crate::__LOG_PREFIX, $crate::fmt!($($args)+))
    };
}

/// Writes a line of level `KERN_ERR`.
#[macro_export]
macro_rules! pr_err {
    ($($args:tt)+) => { $crate::__print!(3, $($args)+) };
}

/// Writes a line of level `KERN_WARNING`.
#[macro_export]
macro_rules! pr_warn {
    ($($args:tt)+) => { $crate::__print!(4, $($args)+) };
}

/// Writes the panic to the log and executes an invalid instruction, which the kernel reports as an oops.
#[cfg(not(host))]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    print(0, "rust_kernel: ", format_args!("{info}\n"));
    core::intrinsics::abort()
}
