// SPDX-License-Identifier: GPL-2.0

//! Boxes.

use super::{
    AllocError,
    Allocator,
    Flags,
    Kmalloc,
    ALIGNMENT, //
};
use core::{
    alloc::Layout,
    marker::PhantomData,
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull, //
};

/// A box in memory from `kmalloc`.
///
/// # Invariants
///
/// The pointer is to memory of [`Kmalloc`] that holds a valid `T`. Nothing else frees it.
pub struct KBox<T>(NonNull<T>, PhantomData<T>);

// SAFETY: A box owns its value.
unsafe impl<T: Send> Send for KBox<T> {}

// SAFETY: A shared box gives shared references to its value only.
unsafe impl<T: Sync> Sync for KBox<T> {}

impl<T> KBox<T> {
    /// Allocates a box and moves a value into it.
    pub fn new(value: T, flags: Flags) -> Result<Self, AllocError> {
        const {
            assert!(size_of::<T>() > 0 && align_of::<T>() <= ALIGNMENT);
        }
        let memory = Kmalloc::alloc(Layout::new::<T>(), flags)?.cast::<T>();
        // SAFETY: The memory is valid for writes, large enough and aligned.
        unsafe { memory.write(value) };
        Ok(Self(memory, PhantomData))
    }

    /// Returns the pointer to the value, which the caller owns then.
    pub fn into_raw(this: Self) -> *mut T {
        let pointer = this.0.as_ptr();
        core::mem::forget(this);
        pointer
    }

    /// Returns the box that [`Self::into_raw`] gave the pointer of.
    ///
    /// # Safety
    ///
    /// The pointer must come from [`Self::into_raw`], and must not be used otherwise afterwards.
    pub unsafe fn from_raw(pointer: *mut T) -> Self {
        // SAFETY: The pointer came from a box by this function's requirements, so it is not null.
        Self(unsafe { NonNull::new_unchecked(pointer) }, PhantomData)
    }
}

impl<T> Deref for KBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The value is valid by the type's invariants, and borrowed with the box.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for KBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The value is valid by the type's invariants, and borrowed with the box.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for KBox<T> {
    fn drop(&mut self) {
        // SAFETY: The value is valid, the memory came from `Kmalloc`, and both are the box's by the type's
        // invariants.
        unsafe {
            self.0.drop_in_place();
            Kmalloc::free(self.0.cast());
        }
    }
}
