// SPDX-License-Identifier: GPL-2.0

//! Mutexes.
//!
//! C header: `include/linux/mutex.h`

use crate::{
    bindings,
    init::{
        pin_init_from_closure,
        PinInit, //
    },
    str::CStrExt,
    types::Opaque, //
};
use core::{
    cell::UnsafeCell,
    convert::Infallible,
    ffi::CStr,
    marker::PhantomData,
    ops::{
        Deref,
        DerefMut, //
    }, //
};

/// The lockdep class of the locks that one place in the source initializes. It must be static.
#[repr(transparent)]
pub struct LockClassKey(Opaque<bindings::lock_class_key>);

// SAFETY: Nothing but lockdep, with locks of its own, looks at it.
unsafe impl Sync for LockClassKey {}

impl LockClassKey {
    /// Returns a class, which must be put into a static.
    #[doc(hidden)]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(Opaque::zeroed())
    }
}

/// A mutex that owns the value it guards. Locking may sleep.
///
/// # Invariants
///
/// `mutex` is an initialized mutex.
pub struct Mutex<T> {
    mutex: Opaque<bindings::mutex>,
    value: UnsafeCell<T>,
}

// SAFETY: A mutex owns its value.
unsafe impl<T: Send> Send for Mutex<T> {}

// SAFETY: One thread at a time uses the value.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// Returns an initializer of a mutex with this name and class for lockdep; used by
    /// [`new_mutex!`](crate::new_mutex).
    #[doc(hidden)]
    pub fn new(
        value: T,
        name: &'static CStr,
        key: &'static LockClassKey,
    ) -> impl PinInit<Self, Infallible> {
        let closure = move |slot: *mut Self| {
            // SAFETY: The slot is valid for writes, and pinned; name and key are static.
            unsafe {
                (&raw mut (*slot).value).write(UnsafeCell::new(value));
                let mutex = (&raw mut (*slot).mutex).cast();
                bindings::helper_mutex_init(mutex, name.as_char_ptr(), key.0.get());
            }
            Ok(())
        };
        // SAFETY: The closure initializes both fields.
        unsafe { pin_init_from_closure(closure) }
    }

    /// Locks the mutex. May sleep.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // SAFETY: The mutex is initialized by the type's invariants.
        unsafe { bindings::helper_mutex_lock(self.mutex.get()) };
        MutexGuard {
            mutex: self,
            _thread: PhantomData,
        }
    }
}

/// Access to the value of a locked mutex. Dropping it unlocks the mutex.
///
/// # Invariants
///
/// This thread has locked the mutex.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// The thread that locked the mutex unlocks it.
    _thread: PhantomData<*mut ()>,
}

// SAFETY: A shared guard gives shared references to the value only.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: Nobody else uses the value while the mutex is locked.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: Nobody else uses the value while the mutex is locked.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: This thread has locked the mutex by the type's invariants.
        unsafe { bindings::mutex_unlock(self.mutex.mutex.get()) };
    }
}

/// Returns an initializer of a mutex with a lockdep class of its own.
#[macro_export]
macro_rules! new_mutex {
    ($value:expr) => {{
        static KEY: $crate::sync::LockClassKey = $crate::sync::LockClassKey::new();
        const NAME: &::core::ffi::CStr = match ::core::ffi::CStr::from_bytes_with_nul(
            concat!(file!(), ":", line!(), "\0").as_bytes(),
        ) {
            Ok(name) => name,
            Err(_) => panic!("a file's name has no NUL"),
        };
        $crate::sync::Mutex::new($value, NAME, &KEY)
    }};
}
