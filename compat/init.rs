// SPDX-License-Identifier: GPL-2.0

//! Pinned initialization: values that are initialized in their final place, because C keeps pointers to them.

use core::{
    convert::Infallible,
    marker::PhantomData,
    pin::Pin, //
};

/// An initializer of a pinned `T`, which fails with `E`.
///
/// # Safety
///
/// If [`Self::__pinned_init`] returns `Ok`, the memory holds a valid value; otherwise it holds none.
#[must_use = "an initializer must be used in order to create its value"]
pub unsafe trait PinInit<T, E = Infallible>: Sized {
    /// Initializes the value.
    ///
    /// # Safety
    ///
    /// `slot` must be valid for writes. The value must not be moved after this returns `Ok`, until it is dropped.
    unsafe fn __pinned_init(self, slot: *mut T) -> Result<(), E>;
}

struct Closure<F, T, E>(F, PhantomData<fn(T) -> E>);

// SAFETY: `pin_init_from_closure` was promised that the closure does so.
unsafe impl<F, T, E> PinInit<T, E> for Closure<F, T, E>
where
    F: FnOnce(*mut T) -> Result<(), E>,
{
    unsafe fn __pinned_init(self, slot: *mut T) -> Result<(), E> {
        (self.0)(slot)
    }
}

/// Returns an initializer that calls a closure.
///
/// # Safety
///
/// If the closure returns `Ok`, the memory that it was given must hold a valid value; otherwise it must hold none.
/// The closure may assume only that the memory is valid for writes, and pinned after it returned `Ok`.
pub unsafe fn pin_init_from_closure<T, E>(
    f: impl FnOnce(*mut T) -> Result<(), E>,
) -> impl PinInit<T, E> {
    Closure(f, PhantomData)
}

/// Drops a field when the initializer of a later one fails.
#[doc(hidden)]
pub struct FieldGuard<T>(*mut T);

impl<T> FieldGuard<T> {
    /// # Safety
    ///
    /// The pointer must be to a valid value, which nothing else drops unless this is forgotten.
    pub unsafe fn new(field: *mut T) -> Self {
        Self(field)
    }

    /// Returns the pinned field, for the initializers of later fields. The reference is shared: a field that is
    /// registered somewhere may be in use already.
    pub fn pinned(&self) -> Pin<&T> {
        // SAFETY: The value is valid by `new`'s requirements; it is in memory that stays pinned.
        unsafe { Pin::new_unchecked(&*self.0) }
    }

    /// Returns the field, for the initializers of later fields.
    pub fn value(&self) -> &T {
        // SAFETY: The value is valid by `new`'s requirements.
        unsafe { &*self.0 }
    }
}

impl<T> Drop for FieldGuard<T> {
    fn drop(&mut self) {
        // SAFETY: The value is valid, and this one's to drop, by `new`'s requirements.
        unsafe { self.0.drop_in_place() };
    }
}

/// Returns an initializer of a struct. `field: value` and `field` move a value into the field,
/// `field <- initializer` initializes the field in place. The initializers of later fields can use a field by its
/// name. If one fails, the fields before it are dropped.
#[macro_export]
macro_rules! try_pin_init {
    ($type:ident { $($fields:tt)* }) => {
        $crate::__struct_init!($crate::error::Error, $type { $($fields)* })
    };
}

/// The same as [`try_pin_init!`](crate::try_pin_init) for fields that cannot fail.
#[macro_export]
macro_rules! pin_init {
    ($type:ident { $($fields:tt)* }) => {
        $crate::__struct_init!(::core::convert::Infallible, $type { $($fields)* })
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __struct_init {
    ($error:ty, $type:ident { $($fields:tt)* }) => {{
        let closure = move |slot: *mut $type| -> ::core::result::Result<(), $error> {
            $crate::__field_init!(slot, $type, [], $($fields)*);
            Ok(())
        };
        // SAFETY: The closure makes all fields, and drops those that it made where one fails.
        unsafe { $crate::init::pin_init_from_closure::<$type, $error>(closure) }
    }};
}

/// Initializes the first of the fields, then the others.
#[doc(hidden)]
#[macro_export]
macro_rules! __field_init {
    ($slot:ident, $type:ident, [$($made:ident)*], $field:ident <- $init:expr $(, $($rest:tt)*)?) => {
        let init = $init;
        // SAFETY: The slot is valid for writes, and pinned; so is the field.
        unsafe { $crate::init::PinInit::__pinned_init(init, &raw mut (*$slot).$field)? };
        // SAFETY: The field was made in the line above; the guard is forgotten once all are.
        let guard = unsafe { $crate::init::FieldGuard::new(&raw mut (*$slot).$field) };
        #[allow(unused_variables)]
        let $field = guard.pinned();
        $crate::__field_init!($slot, $type, [$($made)* $field], $($($rest)*)?);
        ::core::mem::forget(guard);
    };
    ($slot:ident, $type:ident, [$($made:ident)*], $field:ident : $value:expr $(, $($rest:tt)*)?) => {
        let value = $value;
        // SAFETY: The slot is valid for writes; so is the field.
        unsafe { (&raw mut (*$slot).$field).write(value) };
        // SAFETY: The field was made in the line above; the guard is forgotten once all are.
        let guard = unsafe { $crate::init::FieldGuard::new(&raw mut (*$slot).$field) };
        #[allow(unused_variables)]
        let $field = guard.value();
        $crate::__field_init!($slot, $type, [$($made)* $field], $($($rest)*)?);
        ::core::mem::forget(guard);
    };
    ($slot:ident, $type:ident, [$($made:ident)*], $field:ident $(, $($rest:tt)*)?) => {
        $crate::__field_init!($slot, $type, [$($made)*], $field: $field $(, $($rest)*)?);
    };
    ($slot:ident, $type:ident, [$($made:ident)*],) => {
        // The compiler refuses this, which is never called, where a field is missing or there twice.
        #[allow(unreachable_code, clippy::diverging_sub_expression)]
        let _ = || -> $type { $type { $($made: panic!()),* } };
    };
}

/// The proof that a value is being dropped, which [`PinnedDrop::drop`] takes.
#[doc(hidden)]
pub struct OnlyFromDrop(());

impl OnlyFromDrop {
    /// # Safety
    ///
    /// Only the value's own `Drop` may use it.
    pub unsafe fn new() -> Self {
        Self(())
    }
}

/// [`Drop`] of a pinned value; `#[pinned_drop]` implements it.
pub trait PinnedDrop {
    /// Drops the value.
    fn drop(self: Pin<&mut Self>, only: OnlyFromDrop);
}
