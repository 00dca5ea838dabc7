// SPDX-License-Identifier: GPL-2.0

//! Values as bytes.

/// A type of which all bit patterns are valid values.
///
/// # Safety
///
/// They must be.
pub unsafe trait FromBytes {}

/// A type without padding.
///
/// # Safety
///
/// No byte of a value may be uninitialized.
pub unsafe trait AsBytes {
    /// Returns the value's bytes, to be changed.
    fn as_bytes_mut(&mut self) -> &mut [u8]
    where
        Self: FromBytes + Sized,
    {
        let len = size_of::<Self>();
        // SAFETY: No byte is uninitialized, and whatever is written is a valid value, by the traits' requirements.
        unsafe { core::slice::from_raw_parts_mut(core::ptr::from_mut(self).cast(), len) }
    }
}
