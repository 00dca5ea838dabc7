// SPDX-License-Identifier: GPL-2.0

//! Strings.

use crate::ffi::c_char;
use core::{
    ffi::CStr,
    fmt, //
};

/// Conversion of [`CStr`] to C strings of unsigned characters.
pub trait CStrExt {
    /// Returns a C pointer to the string.
    fn as_char_ptr(&self) -> *const c_char;
}

// These are the methods that all others use in their place.
#[allow(clippy::disallowed_methods)]
impl CStrExt for CStr {
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
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Write for Formatter<'_> {
    /// If the text does not fit, the part that fits is written.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.buffer.get_mut(self.len..).unwrap_or_default();
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len = self.len.saturating_add(len);
        if len < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}
