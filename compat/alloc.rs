// SPDX-License-Identifier: GPL-2.0

//! Memory.
//!
//! C header: `include/linux/slab.h`

pub mod kbox;
pub mod kvec;

pub use kbox::KBox;
pub use kvec::KVVec;

use crate::{
    bindings,
    ffi::c_void, //
};
use core::{
    alloc::Layout,
    ptr::NonNull, //
};

/// An allocation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError;

/// Allocation flags (`gfp_t`).
#[derive(Clone, Copy)]
pub struct Flags(bindings::gfp_t);

/// The allocation flags that the module uses.
pub mod flags {
    use super::Flags;
    use crate::bindings;

    /// The allocation may sleep and reclaim memory.
    pub const GFP_KERNEL: Flags = Flags(bindings::HELPER_GFP_KERNEL);
}

/// An allocator of the kernel's.
///
/// # Safety
///
/// `alloc` must return memory that is valid for reads and writes of the layout's size until it is freed, with at least
/// the alignment [`ALIGNMENT`].
pub(crate) unsafe trait Allocator {
    /// Allocates memory. The layout's size is above 0 and its alignment at most [`ALIGNMENT`].
    fn alloc(layout: Layout, flags: Flags) -> Result<NonNull<u8>, AllocError>;

    /// Frees memory.
    ///
    /// # Safety
    ///
    /// The pointer must come from `alloc`, and must not be used afterwards.
    unsafe fn free(memory: NonNull<u8>);
}

/// The alignment, in bytes, that `kmalloc` and `kvmalloc` guarantee for every size that a type of this alignment has.
pub(crate) const ALIGNMENT: usize = align_of::<u64>();

/// `kmalloc`: physically contiguous memory.
pub(crate) struct Kmalloc;

// SAFETY: `kmalloc` returns memory of at least that size, or null, and aligns it to `ALIGNMENT` or more.
unsafe impl Allocator for Kmalloc {
    fn alloc(layout: Layout, Flags(flags): Flags) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: The function takes any size and these flags.
        let memory = unsafe { bindings::helper_kmalloc(layout.size(), flags) };
        NonNull::new(memory.cast()).ok_or(AllocError)
    }

    unsafe fn free(memory: NonNull<u8>) {
        // SAFETY: The memory came from `kmalloc` and is unused by this function's requirements.
        unsafe { bindings::kfree(memory.as_ptr().cast::<c_void>()) };
    }
}

/// `kvmalloc`: memory from `kmalloc`, or from `vmalloc` if that fails.
pub(crate) struct KVmalloc;

// SAFETY: As for `Kmalloc`; what `vmalloc` returns is aligned to pages.
unsafe impl Allocator for KVmalloc {
    fn alloc(layout: Layout, Flags(flags): Flags) -> Result<NonNull<u8>, AllocError> {
        // SAFETY: The function takes any size and these flags.
        let memory = unsafe { bindings::helper_kvmalloc(layout.size(), flags) };
        NonNull::new(memory.cast()).ok_or(AllocError)
    }

    unsafe fn free(memory: NonNull<u8>) {
        // SAFETY: The memory came from `kvmalloc` and is unused by this function's requirements.
        unsafe { bindings::kvfree(memory.as_ptr().cast::<c_void>()) };
    }
}
