// SPDX-License-Identifier: GPL-2.0

//! Strings.

use crate::ffi::c_char;
use core::{
    ffi::CStr,
    fmt, //
};

/// Conversions between [`CStr`] and C strings of unsigned characters.
pub trait CStrExt {
    /// Returns the string at a C pointer.
    ///
    /// # Safety
    ///
    /// The pointer must be to a string that ends with a NUL, which stays as it is for `'a`.
    unsafe fn from_char_ptr<'a>(pointer: *const c_char) -> &'a Self;

    /// Returns a C pointer to the string.
    fn as_char_ptr(&self) -> *const c_char;
}

// These are the methods that all others use in their place.
#[allow(clippy::disallowed_methods)]
impl CStrExt for CStr {
    unsafe fn from_char_ptr<'a>(pointer: *const c_char) -> &'a Self {
        // SAFETY: The pointer is to such a string by this function's requirements.
        unsafe { CStr::from_ptr(pointer.cast()) }
    }

    fn as_char_ptr(&self) -> *const c_char {
        self.as_ptr().cast()
    }
}

/// Writes text into a buffer; fails where that is too small.
pub struct Formatter<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Formatter<'a> {
    /// Returns a formatter that writes from the start of the buffer.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Returns what was written.
    pub(crate) fn written(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl fmt::Write for Formatter<'_> {
    /// If the text does not fit, the part that fits is written.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.buffer[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        if len < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}
