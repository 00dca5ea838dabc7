// SPDX-License-Identifier: GPL-2.0

//! Reference-counted values.
//!
//! C header: `include/linux/refcount.h`

use crate::{
    alloc::{
        AllocError,
        Allocator,
        Flags,
        KBox,
        Kmalloc,
        ALIGNMENT, //
    },
    bindings,
    error::Error,
    init::PinInit,
    types::Opaque, //
};
use core::{
    alloc::Layout,
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};

struct Inner<T> {
    references: Opaque<bindings::refcount_t>,
    value: T,
}

/// A reference-counted pointer. The last reference that is dropped drops the value. The value is pinned.
///
/// # Invariants
///
/// The pointer is to a valid `Inner` in memory of [`Kmalloc`], which counts this reference.
pub struct Arc<T>(NonNull<Inner<T>>, PhantomData<Inner<T>>);

// SAFETY: Whoever has a reference can read the value, and may be the last one, who drops it.
unsafe impl<T: Sync + Send> Send for Arc<T> {}

// SAFETY: Whoever can read a reference can make another one.
unsafe impl<T: Sync + Send> Sync for Arc<T> {}

impl<T> Arc<T> {
    /// Allocates a reference-counted value.
    pub fn new(value: T, flags: Flags) -> Result<Self, AllocError> {
        let inner = KBox::new(
            Inner {
                references: Opaque::uninit(),
                value,
            },
            flags,
        )?;
        // SAFETY: A box is not null.
        let inner = unsafe { NonNull::new_unchecked(KBox::into_raw(inner)) };
        // SAFETY: The value is valid, and its memory from `Kmalloc`, for it was in a box.
        Ok(unsafe { Self::from_inner(inner) })
    }

    /// Allocates a reference-counted value and initializes it in place.
    pub fn pin_init<E>(init: impl PinInit<T, E>, flags: Flags) -> Result<Self, Error>
    where
        Error: From<E>,
    {
        const {
            assert!(align_of::<Inner<T>>() <= ALIGNMENT);
        }
        let inner = Kmalloc::alloc(Layout::new::<Inner<T>>(), flags)?.cast::<Inner<T>>();
        // SAFETY: The memory is valid for writes, and nothing moves the value: an `Arc` gives no mutable reference.
        let made = unsafe { init.__pinned_init(&raw mut (*inner.as_ptr()).value) };
        if let Err(error) = made {
            // SAFETY: The memory came from `Kmalloc`, and holds no value.
            unsafe { Kmalloc::free(inner.cast()) };
            return Err(error.into());
        }
        // SAFETY: The value was made.
        Ok(unsafe { Self::from_inner(inner) })
    }

    /// Sets the reference count to 1 and returns that reference.
    ///
    /// # Safety
    ///
    /// The pointer must be to memory of [`Kmalloc`] whose `value` is valid, and nothing else may use it.
    unsafe fn from_inner(inner: NonNull<Inner<T>>) -> Self {
        // SAFETY: The count is nobody else's yet by this function's requirements.
        unsafe { bindings::helper_refcount_set(inner.as_ref().references.get(), 1) };
        Self(inner, PhantomData)
    }

    fn references(&self) -> *mut bindings::refcount_t {
        // SAFETY: The pointer is to a valid `Inner` by the type's invariants.
        unsafe { self.0.as_ref() }.references.get()
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        // SAFETY: The count is not 0, for this reference is one of those that it counts.
        unsafe { bindings::helper_refcount_inc(self.references()) };
        Self(self.0, PhantomData)
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The pointer is to a valid `Inner` by the type's invariants.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        // SAFETY: The count is not 0, for this reference is one of those that it counts.
        if unsafe { bindings::helper_refcount_dec_and_test(self.references()) } {
            // SAFETY: This was the last reference; the value is in memory of `Kmalloc` by the type's invariants.
            unsafe {
                self.0.drop_in_place();
                Kmalloc::free(self.0.cast());
            }
        }
    }
}
