// SPDX-License-Identifier: GPL-2.0

// What tests have in the place of the kernel, which is the host's: memory that is counted, and can run out. With the
// feature `loom`, locks and counts are those of the crate `loom`, which tries all orders of threads. It runs them on
// one thread of the host, so what is for each thread here is for all of loom's.

use crate::ffi::{
    c_char,
    c_int,
    c_uint,
    c_void, //
};
#[cfg(feature = "loom")]
use loom::sync as threads;
#[cfg(not(feature = "loom"))]
use std::sync as threads;
use std::{
    alloc::{
        alloc,
        dealloc,
        Layout, //
    },
    cell::{
        Cell,
        RefCell,
        UnsafeCell, //
    },
    collections::HashMap, //
};
use threads::{
    atomic::{
        AtomicI32,
        Ordering, //
    },
    Mutex,
    MutexGuard, //
};

pub type dev_t = u32;
pub type gfp_t = u32;

pub const HELPER_GFP_KERNEL: gfp_t = 0xcc0;
pub const PAGE_SHIFT: u32 = 12;
pub const SECTOR_SHIFT: u32 = 9;

/// What freed memory is filled with: no address, and no length.
const POISON: u8 = 0xa5;

thread_local! {
    static MEMORY: RefCell<HashMap<*mut c_void, (&'static str, Layout)>> = RefCell::default();
    static KEPT: RefCell<Vec<(*mut c_void, Layout)>> = const { RefCell::new(Vec::new()) };
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    static LOG: RefCell<Vec<(c_int, String)>> = const { RefCell::new(Vec::new()) };
}

/// Returns how many allocations of this thread are not freed.
pub fn allocations() -> usize {
    MEMORY.with_borrow(HashMap::len)
}

/// Returns how many bytes these have.
pub fn allocated_bytes() -> usize {
    let size = |(_, layout): &(_, Layout)| layout.size();
    MEMORY.with_borrow(|all| all.values().map(size).sum())
}

/// Lets this thread allocate `count` times more; then there is no memory.
pub fn allow_allocations(count: usize) {
    LEFT.set(count);
}

/// Returns the lines that this thread wrote to the log since the last call, with their levels.
pub fn take_log() -> Vec<(c_int, String)> {
    LOG.take()
}

/// Returns memory, which [`free`] takes back with the same kind; or null.
pub fn allocate(kind: &'static str, size: usize) -> *mut c_void {
    let Some(left) = LEFT.get().checked_sub(1) else {
        return core::ptr::null_mut();
    };
    LEFT.set(left);
    let Ok(layout) = Layout::from_size_align(size, 8) else {
        return core::ptr::null_mut();
    };
    if size > isize::MAX as usize / 2 {
        return core::ptr::null_mut();
    }
    // SAFETY: Nothing here allocates 0 bytes.
    let memory: *mut c_void = unsafe { alloc(layout) }.cast();
    MEMORY.with_borrow_mut(|all| all.insert(memory, (kind, layout)));
    memory
}

/// Frees memory. Where loom looks at what threads may still read, it is only filled, until [`release`].
///
/// # Safety
///
/// The memory must not be used any more.
pub unsafe fn free(kind: &'static str, memory: *mut c_void) {
    let known = MEMORY.with_borrow_mut(|all| all.remove(&memory));
    let (allocated, layout) = known.expect("freed twice, or never allocated");
    assert_eq!(allocated, kind);
    // SAFETY: The memory has `layout.size()` bytes.
    unsafe { memory.write_bytes(POISON, layout.size()) };
    KEPT.with_borrow_mut(|kept| kept.push((memory, layout)));
    if cfg!(not(feature = "loom")) {
        release();
    }
}

/// Gives memory that was freed back to the host.
pub fn release() {
    for (memory, layout) in KEPT.take() {
        // SAFETY: It was allocated with this layout, and freed.
        unsafe { dealloc(memory.cast(), layout) };
    }
}

pub unsafe fn helper_kmalloc(size: usize, _flags: gfp_t) -> *mut c_void {
    allocate("kmalloc", size)
}

pub unsafe fn helper_kvmalloc(size: usize, _flags: gfp_t) -> *mut c_void {
    allocate("kvmalloc", size)
}

pub unsafe fn kfree(memory: *const c_void) {
    // SAFETY: As this function's.
    unsafe { free("kmalloc", memory.cast_mut()) };
}

pub unsafe fn kvfree(memory: *const c_void) {
    // SAFETY: As this function's.
    unsafe { free("kvmalloc", memory.cast_mut()) };
}

pub unsafe fn free_percpu(memory: *mut c_void) {
    // SAFETY: As this function's.
    unsafe { free("percpu", memory) };
}

pub struct refcount_t(AtomicI32);

pub unsafe fn helper_refcount_set(count: *mut refcount_t, value: c_int) {
    // SAFETY: The pointer is valid for writes.
    unsafe { count.write(refcount_t(AtomicI32::new(value))) };
}

pub unsafe fn helper_refcount_inc(count: *mut refcount_t) {
    // SAFETY: The pointer is valid.
    assert!(unsafe { &(*count).0 }.fetch_add(1, Ordering::Relaxed) > 0);
}

pub unsafe fn helper_refcount_dec_and_test(count: *mut refcount_t) -> bool {
    // SAFETY: The pointer is valid.
    let before = unsafe { &(*count).0 }.fetch_sub(1, Ordering::AcqRel);
    assert!(before > 0);
    before == 1
}

pub struct lock_class_key;

pub struct mutex {
    lock: Mutex<()>,
    /// Of the thread that has locked it, and used by that alone.
    guard: UnsafeCell<Option<MutexGuard<'static, ()>>>,
}

pub unsafe fn helper_mutex_init(lock: *mut mutex, _name: *const c_char, _key: *mut lock_class_key) {
    let new = mutex {
        lock: Mutex::new(()),
        guard: UnsafeCell::new(None),
    };
    // SAFETY: The pointer is valid for writes.
    unsafe { lock.write(new) };
}

pub unsafe fn helper_mutex_lock(lock: *mut mutex) {
    // SAFETY: The pointer is valid, until after the lock is unlocked.
    let lock = unsafe { &*lock };
    let guard = lock.lock.lock().expect("a thread failed that had the lock");
    // SAFETY: This thread has the lock.
    unsafe { *lock.guard.get() = Some(guard) };
}

pub unsafe fn mutex_unlock(lock: *mut mutex) {
    // SAFETY: The pointer is valid, and this thread has the lock.
    let guard = unsafe { (*(*lock).guard.get()).take() };
    drop(guard.expect("locked"));
}

pub unsafe fn helper_printk(level: c_int, text: *const c_char, len: usize) {
    // SAFETY: The text is valid for reads of its length.
    let text = unsafe { std::slice::from_raw_parts(text, len) };
    let text = String::from_utf8(text.to_vec()).expect("a line of the log is text");
    LOG.with_borrow_mut(|log| log.push((level, text)));
}

#[repr(C)]
pub struct nlattr {
    pub nla_len: u16,
    pub nla_type: u16,
}

pub const REQ_OP_BITS: u32 = 8;
pub const req_op_REQ_OP_READ: u32 = 0;
pub const req_op_REQ_OP_WRITE: u32 = 1;
pub const req_flag_bits___REQ_PREFLUSH: u32 = 18;

pub struct bvec_iter {
    pub bi_sector: u64,
    pub bi_size: c_uint,
}

pub struct bio {
    pub bi_opf: u32,
    pub bi_iter: bvec_iter,
    pub bi_bdev: *mut block_device,
}
