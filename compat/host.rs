// SPDX-License-Identifier: GPL-2.0

// What the tests of this crate have in the place of the kernel, which is the host's: memory that is counted, and can
// run out.

use crate::ffi::{
    c_char,
    c_int,
    c_void, //
};
use std::{
    alloc::{
        alloc,
        dealloc,
        Layout, //
    },
    cell::{
        Cell,
        RefCell, //
    },
    collections::HashMap,
    sync::atomic::{
        AtomicBool,
        AtomicI32,
        Ordering, //
    }, //
};

pub type gfp_t = u32;

pub const HELPER_GFP_KERNEL: gfp_t = 0xcc0;

thread_local! {
    static MEMORY: RefCell<HashMap<*mut c_void, (&'static str, Layout)>> = RefCell::default();
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    static LOG: RefCell<Vec<(c_int, String)>> = const { RefCell::new(Vec::new()) };
}

/// Returns how many allocations of this thread are not freed.
pub fn allocations() -> usize {
    MEMORY.with_borrow(HashMap::len)
}

/// Lets this thread allocate `count` times more; then there is no memory.
pub fn allow_allocations(count: usize) {
    LEFT.set(count);
}

/// Returns the lines that this thread wrote to the log since the last call, with their levels.
pub fn take_log() -> Vec<(c_int, String)> {
    LOG.take()
}

fn allocate(kind: &'static str, size: usize) -> *mut c_void {
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

/// # Safety
///
/// The memory must not be used any more.
unsafe fn free(kind: &'static str, memory: *mut c_void) {
    let known = MEMORY.with_borrow_mut(|all| all.remove(&memory));
    let (allocated, layout) = known.expect("freed twice, or never allocated");
    assert_eq!(allocated, kind);
    // SAFETY: It was allocated with this layout.
    unsafe { dealloc(memory.cast(), layout) };
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

pub struct mutex(AtomicBool);

pub unsafe fn helper_mutex_init(lock: *mut mutex, _name: *const c_char, _key: *mut lock_class_key) {
    // SAFETY: The pointer is valid for writes.
    unsafe { lock.write(mutex(AtomicBool::new(false))) };
}

pub unsafe fn helper_mutex_lock(lock: *mut mutex) {
    // SAFETY: The pointer is valid.
    while unsafe { &(*lock).0 }.swap(true, Ordering::Acquire) {
        std::thread::yield_now();
    }
}

pub unsafe fn mutex_unlock(lock: *mut mutex) {
    // SAFETY: The pointer is valid.
    assert!(unsafe { &(*lock).0 }.swap(false, Ordering::Release));
}

pub unsafe fn helper_printk(level: c_int, text: *const c_char, len: usize) {
    // SAFETY: The text is valid for reads of its length.
    let text = unsafe { std::slice::from_raw_parts(text, len) };
    let text = String::from_utf8(text.to_vec()).expect("a line of the log is text");
    LOG.with_borrow_mut(|log| log.push((level, text)));
}
