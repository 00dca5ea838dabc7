// SPDX-License-Identifier: GPL-2.0

//! Wrappers of C types.

use crate::init::{
    pin_init_from_closure,
    PinInit, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomPinned,
    mem::MaybeUninit, //
};

/// A C value: Rust assumes neither that it is initialized nor that it does not change.
#[repr(transparent)]
pub struct Opaque<T> {
    value: UnsafeCell<MaybeUninit<T>>,
    _pinned: PhantomPinned,
}

impl<T> Opaque<T> {
    /// Returns an initializer that calls `f`, which initializes the C value.
    pub fn try_ffi_init<E>(f: impl FnOnce(*mut T) -> Result<(), E>) -> impl PinInit<Self, E> {
        // SAFETY: Whatever the closure does, an `Opaque` is valid.
        unsafe { pin_init_from_closure(move |slot: *mut Self| f(slot.cast())) }
    }

    /// Returns an uninitialized one.
    pub const fn uninit() -> Self {
        Self {
            value: UnsafeCell::new(MaybeUninit::uninit()),
            _pinned: PhantomPinned,
        }
    }

    /// Returns one whose bytes are all zero.
    pub(crate) const fn zeroed() -> Self {
        Self {
            value: UnsafeCell::new(MaybeUninit::zeroed()),
            _pinned: PhantomPinned,
        }
    }

    /// Returns a pointer to the value.
    pub const fn get(&self) -> *mut T {
        self.value.get().cast()
    }

    /// Returns a pointer to the `Opaque` that holds the value.
    pub const fn cast_from(value: *const T) -> *const Self {
        value.cast()
    }
}

/// Returns a pointer to the struct that a field is in. The pointer to the field must come from such a struct.
#[macro_export]
macro_rules! container_of {
    ($field_pointer:expr, $container:ty, $field:ident) => {{
        let field = $field_pointer;
        let container = field
            .byte_sub(::core::mem::offset_of!($container, $field))
            .cast::<$container>();
        // The compiler refuses this where the pointer is to something else.
        #[allow(clippy::missing_transmute_annotations)]
        let _ = || [field.cast_const(), &raw const (*container).$field];
        container
    }};
}
