// SPDX-License-Identifier: GPL-2.0

//! Vectors.

use super::{
    AllocError,
    Allocator,
    Flags,
    KVmalloc,
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

/// A vector in memory from `kvmalloc`.
///
/// # Invariants
///
/// If `capacity` is 0, `values` is dangling; otherwise it points to memory of [`KVmalloc`] for `capacity` values,
/// which nothing else frees. The first `len` values are valid, and `len` is at most `capacity`.
pub struct KVVec<T> {
    values: NonNull<T>,
    len: usize,
    capacity: usize,
    _owned: PhantomData<T>,
}

// SAFETY: A vector owns its values.
unsafe impl<T: Send> Send for KVVec<T> {}

// SAFETY: A shared vector gives shared references to its values only.
unsafe impl<T: Sync> Sync for KVVec<T> {}

impl<T> KVVec<T> {
    /// Returns an empty vector, without memory.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        const {
            assert!(size_of::<T>() > 0 && align_of::<T>() <= ALIGNMENT);
        }
        Self {
            values: NonNull::dangling(),
            len: 0,
            capacity: 0,
            _owned: PhantomData,
        }
    }

    /// Returns an empty vector with memory for `capacity` values.
    pub fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut this = Self::new();
        this.reserve(capacity, flags)?;
        Ok(this)
    }

    /// Returns a vector of `count` clones of a value.
    pub fn from_elem(value: T, count: usize, flags: Flags) -> Result<Self, AllocError>
    where
        T: Clone,
    {
        let mut this = Self::with_capacity(count, flags)?;
        this.extend(core::iter::repeat_n(value, count));
        Ok(this)
    }

    /// Reserves memory for `additional` more values. On failure nothing changes.
    pub fn reserve(&mut self, additional: usize, flags: Flags) -> Result<(), AllocError> {
        let wanted = self.len.checked_add(additional).ok_or(AllocError)?;
        if wanted <= self.capacity {
            return Ok(());
        }
        let capacity = wanted.max(self.capacity.saturating_mul(2));
        let layout = Layout::array::<T>(capacity).map_err(|_| AllocError)?;
        let values = KVmalloc::alloc(layout, flags)?.cast::<T>();
        // SAFETY: The first `len` values are valid by the type's invariants; there is room for them in the new
        // memory, which is not the old one. They are moved: the old memory is freed without them.
        unsafe { values.copy_from_nonoverlapping(self.values, self.len) };
        self.free();
        self.values = values;
        self.capacity = capacity;
        Ok(())
    }

    /// Appends a value if there is memory for it, otherwise returns it.
    pub fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        if self.len >= self.capacity {
            return Err(value);
        }
        // SAFETY: There is room for a value behind the last one by the type's invariants.
        unsafe { self.values.add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    /// Appends clones of the values. On failure nothing changes.
    pub fn extend_from_slice(&mut self, values: &[T], flags: Flags) -> Result<(), AllocError>
    where
        T: Clone,
    {
        self.reserve(values.len(), flags)?;
        self.extend(values.iter().cloned());
        Ok(())
    }

    /// Appends values, for which memory was reserved.
    fn extend(&mut self, values: impl Iterator<Item = T>) {
        for value in values {
            let _ = self.push_within_capacity(value);
        }
    }

    /// Frees the memory without dropping the values.
    fn free(&mut self) {
        if self.capacity > 0 {
            // SAFETY: The memory came from `KVmalloc`, and is the vector's, by the type's invariants.
            unsafe { KVmalloc::free(self.values.cast()) };
        }
    }
}

impl<T> Deref for KVVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: The first `len` values are valid by the type's invariants, and borrowed with the vector.
        unsafe { core::slice::from_raw_parts(self.values.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for KVVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: The first `len` values are valid by the type's invariants, and borrowed with the vector.
        unsafe { core::slice::from_raw_parts_mut(self.values.as_ptr(), self.len) }
    }
}

impl<T> Drop for KVVec<T> {
    fn drop(&mut self) {
        let values: *mut [T] = &mut **self;
        // SAFETY: The values are valid by the type's invariants, and not used any more.
        unsafe { values.drop_in_place() };
        self.free();
    }
}
