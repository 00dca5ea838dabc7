// SPDX-License-Identifier: GPL-2.0

// What the module has on the host in the place of the bindings that bindgen generates from `helpers.c`: the same types,
// constants and functions, as far as the module uses them. The tests act as the kernel;
// `tests/policy/properties/system.rs` is what they share for that.
//
// The kernel is one for each thread of the host, so that tests run beside one another. All of loom's threads, which run
// on one thread of the host, have the same.

use std::{
    cell::RefCell,
    mem::take,
    rc::Rc, //
};

#[cfg(feature = "loom")]
use loom::{
    sync::atomic::AtomicUsize,
    thread, //
};
#[cfg(not(feature = "loom"))]
use std::{
    sync::atomic::AtomicUsize,
    thread, //
};

use core::sync::atomic::Ordering;

/// Chunks are short where loom tries all orders of what is done to them.
pub const CHUNK_PTE_SHIFT: u32 = if cfg!(feature = "loom") { 5 } else { 13 };
pub const CHUNK_PTE_COUNT: u32 = 1 << CHUNK_PTE_SHIFT;
pub const MAX_NUMBER_OF_CHUNKS: u32 = 128;
pub const MAX_IPC_MSG_LEN: u32 = 65480;
pub const MAX_ERR_STR_LEN: u32 = 255;

pub type Opcode = ffi::c_uint;
pub const Opcode_OPCODE_PAGE_TABLE_UPLOAD: Opcode = 1;
pub const NETLINK_ATTR_MSG: ffi::c_uint = 1;
pub const NETLINK_CMD_GET_PAGE_TBL: ffi::c_uint = 1;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct IpcPgTable {
    pub total_len: u32,
    pub opcode: Opcode,
    pub userland: [u32; 2],
    pub dev_major: u32,
    pub dev_minor: u32,
    pub page_total: u32,
    pub page_offset: u32,
    pub page_count: u32,
    pub dev_count: u16,
    pub pte_bits: u8,
    pub reserved: u8,
    pub ptbl_buff: [u32; 1],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct IpcResponse {
    pub total_len: u32,
    pub opcode: Opcode,
    pub userland: [u32; 2],
    pub dev_major: u32,
    pub dev_minor: u32,
    pub status: u32,
    pub err_str: [ffi::c_char; 256],
}

pub const MINORBITS: u32 = 20;
pub const MINORMASK: u32 = (1 << MINORBITS) - 1;
pub const DM_TARGET_PASSES_INTEGRITY: u32 = 32;
pub const DM_TARGET_NOWAIT: u32 = 128;
pub const DM_TARGET_PASSES_CRYPTO: u32 = 256;
pub const DM_TARGET_ATOMIC_WRITES: u32 = 1024;
pub const DM_MAPIO_REMAPPED: u32 = 1;
pub const DM_MAPIO_KILL: u32 = 4;

pub type blk_crypto_mode_num = ffi::c_uint;
pub const blk_crypto_mode_num_BLK_ENCRYPTION_MODE_MAX: blk_crypto_mode_num = 5;

pub type status_type_t = ffi::c_uint;
pub const status_type_t_STATUSTYPE_INFO: status_type_t = 0;
pub const status_type_t_STATUSTYPE_TABLE: status_type_t = 1;
pub const status_type_t_STATUSTYPE_IMA: status_type_t = 2;

pub const GENL_ADMIN_PERM: u32 = 1;
pub const NLA_BINARY: ffi::c_uint = 11;
pub type genl_validate_flags = ffi::c_uint;
pub const genl_validate_flags_GENL_DONT_VALIDATE_STRICT: genl_validate_flags = 1;

/// A disk, or the mapped device itself: what a `block_device` is here.
pub struct Disk {
    pub number: dev_t,
    pub sectors: u64,
    pub is_zoned: bool,
    /// Bytes of a logical block.
    pub block_size: ffi::c_uint,
    /// Data units of inline encryption, in each mode: bit `n` is set for those of `1 << n` bytes.
    pub data_units: ffi::c_uint,
}

impl Disk {
    /// Returns a disk without peculiarities.
    pub const fn new(number: dev_t, sectors: u64) -> Self {
        Self {
            number,
            sectors,
            is_zoned: false,
            block_size: 512,
            data_units: 0,
        }
    }
}

pub struct dm_table {
    /// The mapped device.
    pub device: Disk,
    /// Whether the mapped device has a node.
    pub has_node: bool,
}

pub struct dm_dev {
    pub bdev: *mut block_device,
    pub name: [ffi::c_char; 16],
}

#[repr(C)]
pub struct dm_target {
    pub table: *mut dm_table,
    pub type_: *mut target_type,
    pub begin: u64,
    pub len: u64,
    pub num_flush_bios: ffi::c_uint,
    pub num_discard_bios: ffi::c_uint,
    pub num_secure_erase_bios: ffi::c_uint,
    pub num_write_zeroes_bios: ffi::c_uint,
    pub private: *mut ffi::c_void,
    pub error: *mut ffi::c_char,
}

type Argv = *mut *mut ffi::c_char;
pub type iterate_devices_callout_fn = Option<
    unsafe extern "C" fn(*mut dm_target, *mut dm_dev, u64, u64, *mut ffi::c_void) -> ffi::c_int,
>;
pub type prepare_ioctl_fn =
    Option<unsafe extern "C" fn(*mut dm_target, *mut *mut block_device) -> ffi::c_int>;

#[repr(C)]
pub struct target_type {
    pub name: *const ffi::c_char,
    pub version: [u32; 3],
    pub features: u64,
    pub module: *mut module,
    pub ctr: Option<unsafe extern "C" fn(*mut dm_target, ffi::c_uint, Argv) -> ffi::c_int>,
    pub dtr: Option<unsafe extern "C" fn(*mut dm_target)>,
    pub map: Option<unsafe extern "C" fn(*mut dm_target, *mut bio) -> ffi::c_int>,
    pub resume: Option<unsafe extern "C" fn(*mut dm_target)>,
    pub status: Option<
        unsafe extern "C" fn(
            *mut dm_target,
            status_type_t,
            ffi::c_uint,
            *mut ffi::c_char,
            ffi::c_uint,
        ),
    >,
    pub message: Option<
        unsafe extern "C" fn(
            *mut dm_target,
            ffi::c_uint,
            Argv,
            *mut ffi::c_char,
            ffi::c_uint,
        ) -> ffi::c_int,
    >,
    pub iterate_devices: Option<
        unsafe extern "C" fn(
            *mut dm_target,
            iterate_devices_callout_fn,
            *mut ffi::c_void,
        ) -> ffi::c_int,
    >,
    pub io_hints: Option<unsafe extern "C" fn(*mut dm_target, *mut queue_limits)>,
    pub prepare_ioctl: prepare_ioctl_fn,
}

#[repr(C)]
pub struct nla_policy {
    pub type_: u8,
    pub validation_type: u8,
    pub len: u16,
    pub other: u64,
}

#[repr(C)]
pub struct genl_small_ops {
    pub doit: Option<unsafe extern "C" fn(*mut sk_buff, *mut genl_info) -> ffi::c_int>,
    pub dumpit: Option<unsafe extern "C" fn(*mut sk_buff, *mut netlink_callback) -> ffi::c_int>,
    pub cmd: u8,
    pub internal_flags: u8,
    pub flags: u8,
    pub validate: u8,
}

#[repr(C)]
pub struct genl_family {
    pub name: [ffi::c_char; 16],
    pub version: ffi::c_uint,
    pub maxattr: ffi::c_uint,
    pub parallel_ops: u8,
    pub n_small_ops: u8,
    pub resv_start_op: u8,
    pub policy: *const nla_policy,
    pub small_ops: *const genl_small_ops,
    pub module: *mut module,
    pub id: ffi::c_int,
}

impl genl_family {
    pub fn set_parallel_ops(&mut self, value: u8) {
        self.parallel_ops = value;
    }
}

#[repr(C)]
pub struct genl_info {
    pub snd_seq: u32,
    pub snd_portid: u32,
    pub attrs: *mut *mut nlattr,
}

#[repr(C)]
pub struct retired {
    pub work: u64,
    pub bytes: usize,
    pub free: Option<unsafe extern "C" fn(retired: *mut retired)>,
}

macro_rules! zeroed_by_default {
    ($($name:ident),*) => {
        $(
            impl Default for $name {
                fn default() -> Self {
                    // SAFETY: All fields are integers, or pointers that may be null.
                    unsafe { core::mem::zeroed() }
                }
            }
        )*
    };
}

zeroed_by_default!(IpcResponse, target_type, genl_family, retired);

#[no_mangle]
static mut __this_module: u8 = 0;

/// The kernel's side of what the module calls.
#[derive(Default)]
struct Kernel {
    /// Read-side sections: their threads, and their numbers in the order of their begin.
    sections: Vec<(thread::ThreadId, u64)>,
    begun: u64,
    /// Whether a grace period began.
    has_grace_period: bool,
    /// Values that wait for readers, each with the numbers of these sections.
    waiting: Vec<(*mut retired, Vec<u64>)>,
    order: Option<Rc<GraceOrder>>,
    has_retirement: bool,
    /// The threads whose allocations imply NOIO, each as often as it said so.
    noio: Vec<thread::ThreadId>,
    /// How often a thread that reschedules is not killed before it is.
    lives: Option<usize>,
    target_type: Option<*mut target_type>,
    family: Option<*mut genl_family>,
    familyid: Option<ffi::c_int>,
    open_devices: usize,
    sent: Vec<Vec<u8>>,
}

thread_local! {
    static KERNEL: RefCell<Kernel> = RefCell::default();
}

/// Does something with the kernel. It must not wait for a thread of loom's.
fn with_kernel<T>(f: impl FnOnce(&mut Kernel) -> T) -> T {
    KERNEL.with_borrow_mut(f)
}

/// The order in which a grace period stands to what threads do before and after it. Only through these, loom knows it.
struct GraceOrder {
    /// Written at the begin of each grace period.
    begins: AtomicUsize,
    /// Written at the end of each section.
    ends: AtomicUsize,
}

/// Begins a test: the kernel is as it was booted.
pub fn boot() {
    let order = GraceOrder {
        begins: AtomicUsize::new(0),
        ends: AtomicUsize::new(0),
    };
    with_kernel(|kernel| {
        *kernel = Kernel {
            order: Some(Rc::new(order)),
            ..Kernel::default()
        }
    });
}

/// Ends a test: nothing that the module got from the kernel is left, and nothing waits.
pub fn shut_down() {
    let kernel = KERNEL.take();
    assert!(
        kernel.sections.is_empty(),
        "a read-side section did not end"
    );
    assert!(kernel.waiting.is_empty(), "a value was not freed");
    assert!(kernel.noio.is_empty(), "a thread still implies NOIO");
    assert_eq!(kernel.open_devices, 0, "devices were not put");
    assert_eq!(allocations(), 0, "memory was not freed");
    release();
}

/// Kills the thread when it reschedules for the `lives`th time from now on, and then always; `None` spares it.
pub fn kill_after(lives: Option<usize>) {
    with_kernel(|kernel| kernel.lives = lives);
}

/// Returns the order of grace periods.
fn order() -> Rc<GraceOrder> {
    with_kernel(|kernel| kernel.order.clone()).expect("the kernel is booted")
}

/// Begins a section. If it begins after a grace period did, it sees all that was done before that.
pub unsafe fn helper_rcu_read_lock_sched_keeping(kept: *mut ffi::c_void) -> *mut ffi::c_void {
    with_kernel(|kernel| {
        kernel.begun += 1;
        kernel.sections.push((thread::current().id(), kernel.begun));
    });
    if with_kernel(|kernel| kernel.has_grace_period) {
        order().begins.fetch_add(0, Ordering::Acquire);
    }
    kept
}

/// Ends the thread's section that it began last. Frees what waited for that alone: no kernel could do so earlier.
pub unsafe fn helper_rcu_read_unlock_sched() {
    order().ends.fetch_add(1, Ordering::Release);
    let thread = thread::current().id();
    let ready = with_kernel(|kernel| {
        let of_thread = |section: &(thread::ThreadId, u64)| section.0 == thread;
        let last = kernel.sections.iter().rposition(of_thread);
        let (_, number) = kernel
            .sections
            .remove(last.expect("a section ends that did not begin"));
        for (_, sections) in &mut kernel.waiting {
            sections.retain(|other| *other != number);
        }
        let is_ready = |waiting: &(*mut retired, Vec<u64>)| waiting.1.is_empty();
        let (ready, waiting) = take(&mut kernel.waiting).into_iter().partition(is_ready);
        kernel.waiting = waiting;
        let ready: Vec<_> = ready;
        ready
    });
    for (value, _) in ready {
        // SAFETY: The sections that could use the value have ended.
        unsafe { free_retired(value) };
    }
}

/// # Safety
///
/// As for the value's own function.
unsafe fn free_retired(value: *mut retired) {
    let order = order();
    order.begins.fetch_add(0, Ordering::Acquire);
    order.ends.fetch_add(0, Ordering::Acquire);
    // SAFETY: The value is one that was retired.
    let free = unsafe { (*value).free }.expect("a value says how it is freed");
    // SAFETY: As this function's.
    unsafe { free(value) };
}

/// Frees a value after its last reader.
pub unsafe fn helper_retire(value: *mut retired) {
    order().begins.fetch_add(1, Ordering::Release);
    let is_ready = with_kernel(|kernel| {
        assert!(kernel.has_retirement);
        kernel.has_grace_period = true;
        let sections: Vec<u64> = kernel.sections.iter().map(|section| section.1).collect();
        let is_ready = sections.is_empty();
        if !is_ready {
            kernel.waiting.push((value, sections));
        }
        is_ready
    });
    if is_ready {
        // SAFETY: There are no sections.
        unsafe { free_retired(value) };
    }
}

pub unsafe fn helper_begin_retirement() -> ffi::c_int {
    with_kernel(|kernel| kernel.has_retirement = true);
    0
}

pub unsafe fn helper_end_retirement() {
    with_kernel(|kernel| {
        assert!(kernel.waiting.is_empty());
        kernel.has_retirement = false;
    });
}

/// The most bytes that wait for readers before no further value is replaced.
const MAX_RETIRED: usize = 64 << 20;

pub unsafe fn helper_retirement_has_room() -> bool {
    // SAFETY: What waits is not freed.
    let bytes = |waiting: &(*mut retired, Vec<u64>)| unsafe { (*waiting.0).bytes };
    with_kernel(|kernel| kernel.waiting.iter().map(bytes).sum::<usize>() <= MAX_RETIRED)
}

pub unsafe fn helper_memalloc_noio_save() -> ffi::c_uint {
    let thread = thread::current().id();
    with_kernel(|kernel| {
        let flags = kernel.noio.iter().filter(|other| **other == thread).count();
        kernel.noio.push(thread);
        flags as ffi::c_uint
    })
}

pub unsafe fn helper_memalloc_noio_restore(flags: ffi::c_uint) {
    let thread = thread::current().id();
    with_kernel(|kernel| {
        let last = kernel.noio.iter().rposition(|other| *other == thread);
        kernel.noio.remove(last.expect("restored, but not saved"));
        let left = kernel.noio.iter().filter(|other| **other == thread).count();
        assert_eq!(left, flags as usize, "not the flags that were saved last");
    });
}

pub unsafe fn helper_cond_resched_killable() -> ffi::c_int {
    let is_killed = with_kernel(|kernel| match &mut kernel.lives {
        Some(0) => true,
        Some(lives) => {
            *lives -= 1;
            false
        }
        None => false,
    });
    if is_killed {
        return -4;
    }
    0
}

pub unsafe fn helper_totalram_pages() -> ffi::c_ulong {
    1 << 20
}

pub unsafe fn helper_ratelimit(_name: *const ffi::c_char) -> bool {
    true
}

pub unsafe fn strlen(text: *const ffi::c_char) -> ffi::c_ulong {
    // SAFETY: As this function's: it is a C string.
    unsafe { core::ffi::CStr::from_ptr(text.cast()) }.count_bytes()
}

/// CPUs, of which one counts here.
const CPUS: usize = 2;

pub unsafe fn helper_alloc_percpu_u64(count: usize) -> *mut u64 {
    let bytes = count.saturating_mul(size_of::<u64>() * CPUS);
    let counts: *mut u64 = allocate("percpu", bytes).cast();
    if !counts.is_null() {
        // SAFETY: The memory has room for `count` counts for each CPU.
        unsafe { counts.write_bytes(0, count * CPUS) };
    }
    counts
}

pub unsafe fn helper_percpu_u64_bytes(count: usize) -> usize {
    count * size_of::<u64>() * CPUS
}

pub unsafe fn helper_this_cpu_inc(count: *mut u64) {
    // SAFETY: As this function's: it is a count, and all threads that are here run on one thread of the host.
    unsafe { *count += 1 };
}

pub unsafe fn helper_percpu_sum(count: *mut u64) -> u64 {
    // SAFETY: As above.
    unsafe { *count }
}

/// A bio that is being mapped.
#[repr(C)]
pub struct MappedBio {
    pub bio: bio,
    /// The number of a flush.
    pub number: ffi::c_uint,
    /// Whether the bio is an atomic write.
    pub is_atomic: bool,
}

pub unsafe fn dm_bio_get_target_bio_nr(bio: *const bio) -> ffi::c_uint {
    // SAFETY: The bio is in a `MappedBio`.
    unsafe { (*bio.cast::<MappedBio>()).number }
}

pub unsafe fn helper_bio_cut(bio: *mut bio, sectors: ffi::c_uint) -> bool {
    // SAFETY: The bio is in a `MappedBio`.
    let mapped = unsafe { &mut *bio.cast::<MappedBio>() };
    let size = &mut mapped.bio.bi_iter.bi_size;
    assert!(
        (1..*size >> SECTOR_SHIFT).contains(&sectors),
        "a bio is cut to less than it has"
    );
    if mapped.is_atomic {
        return false;
    }
    *size = sectors << SECTOR_SHIFT;
    true
}

pub unsafe fn helper_bio_set_dev(bio: *mut bio, bdev: *mut block_device) {
    // SAFETY: The bio is valid.
    unsafe { (*bio).bi_bdev = bdev };
}

pub unsafe fn helper_bio_remap(
    bio: *mut bio,
    bdev: *mut block_device,
    target_count: *mut u64,
    chunk_hits: *mut u64,
) {
    // SAFETY: As this function's.
    unsafe {
        helper_this_cpu_inc(target_count);
        helper_this_cpu_inc(chunk_hits);
        helper_rcu_read_unlock_sched();
        helper_bio_set_dev(bio, bdev);
    }
}

/// # Safety
///
/// The device must be a [`Disk`].
unsafe fn disk<'a>(bdev: *mut block_device) -> &'a Disk {
    // SAFETY: As this function's.
    unsafe { &*bdev.cast() }
}

pub unsafe fn helper_bdev_devt(bdev: *mut block_device) -> dev_t {
    // SAFETY: It is a disk.
    unsafe { disk(bdev) }.number
}

pub unsafe fn helper_bdev_nr_sectors(bdev: *mut block_device) -> u64 {
    // SAFETY: It is a disk.
    unsafe { disk(bdev) }.sectors
}

pub unsafe fn helper_bdev_is_zoned(bdev: *mut block_device) -> bool {
    // SAFETY: It is a disk.
    unsafe { disk(bdev) }.is_zoned
}

pub unsafe fn helper_bdev_logical_block_size(bdev: *mut block_device) -> ffi::c_uint {
    // SAFETY: It is a disk.
    unsafe { disk(bdev) }.block_size
}

pub unsafe fn helper_bdev_data_units(
    bdev: *mut block_device,
    _mode: blk_crypto_mode_num,
) -> ffi::c_uint {
    // SAFETY: It is a disk.
    unsafe { disk(bdev) }.data_units
}

pub unsafe fn helper_dm_target_devt(ti: *mut dm_target) -> dev_t {
    // SAFETY: A target has a table.
    unsafe { (*(*ti).table).device.number }
}

/// Sectors of a disk.
pub const DISK_SECTORS: u64 = 136 * 8192;

/// The disks, `1:0` and so on, whose nodes are `/dev/ram0` and so on.
static DISKS: [Disk; 4] = [ram(0), ram(1), ram(2), ram(3)];

const fn ram(minor: u32) -> Disk {
    Disk::new((1 << MINORBITS) + minor, DISK_SECTORS)
}

/// Disks with zones, with blocks of 8 sectors, and with data units of 8 and 16 sectors.
static PECULIAR_DISKS: [(&str, Disk); 3] = [
    (
        "/dev/zoned",
        Disk {
            is_zoned: true,
            ..ram(4)
        },
    ),
    (
        "/dev/large-blocks",
        Disk {
            block_size: 4096,
            ..ram(5)
        },
    ),
    (
        "/dev/encrypting",
        Disk {
            data_units: 4096 | 8192,
            ..ram(6)
        },
    ),
];

/// Returns the number of the disk that a device is.
pub fn disk_number(bdev: *mut block_device) -> Option<usize> {
    let is_it = |disk: &Disk| core::ptr::from_ref(disk).cast() == bdev.cast_const();
    DISKS.iter().position(is_it)
}

/// Returns the device that a path leads to, or the errno.
fn look_up<'a>(path: &[u8], table: &'a dm_table) -> Result<&'a Disk, ffi::c_int> {
    let path = core::str::from_utf8(path).map_err(|_| 2)?;
    let number = path.strip_prefix("/dev/ram").or(path.strip_prefix("1:"));
    let number = number.and_then(|number| number.parse::<usize>().ok());
    if let Some(disk) = number.and_then(|number| DISKS.get(number)) {
        return Ok(disk);
    }
    if let Some((_, disk)) = PECULIAR_DISKS.iter().find(|(node, _)| *node == path) {
        return Ok(disk);
    }
    // As Linux 6.1 does, the mapped device is opened, too.
    let own = format!("/dev/dm-{}", table.device.number & MINORMASK);
    match path {
        _ if table.has_node && path == own => Ok(&table.device),
        "240:7" => Err(6),
        "4096:1" => Err(75),
        "/dev/null" | "/tmp" => Err(15),
        _ => Err(2),
    }
}

pub unsafe fn helper_dm_get_device(
    ti: *mut dm_target,
    path: *const ffi::c_char,
    dev: *mut *mut dm_dev,
) -> ffi::c_int {
    // SAFETY: The path is a C string, and a target has a table.
    let (path, table) = unsafe { (core::ffi::CStr::from_ptr(path.cast()), &*(*ti).table) };
    let disk = match look_up(path.to_bytes(), table) {
        Ok(disk) => disk,
        Err(errno) => return -errno,
    };
    let mut name = [0; 16];
    let text = format!("{}:{}", disk.number >> MINORBITS, disk.number & MINORMASK);
    name[..text.len()].copy_from_slice(text.as_bytes());
    let bdev = core::ptr::from_ref(disk).cast_mut().cast();
    // SAFETY: The caller takes the device.
    unsafe { *dev = Box::into_raw(Box::new(dm_dev { bdev, name })) };
    with_kernel(|kernel| kernel.open_devices += 1);
    0
}

pub unsafe fn dm_put_device(_ti: *mut dm_target, dev: *mut dm_dev) {
    // SAFETY: `helper_dm_get_device` made it.
    drop(unsafe { Box::from_raw(dev) });
    with_kernel(|kernel| kernel.open_devices -= 1);
}

pub unsafe fn helper_dm_target_flush_bypasses_map(_ti: *mut dm_target) {}

/// # Safety
///
/// The limits must be two lengths.
pub unsafe fn helper_get_atomic_writes(limits: *mut queue_limits, units: *mut ffi::c_uint) {
    // SAFETY: As this function's; there is room for both.
    unsafe { units.copy_from(limits.cast(), 2) };
}

/// # Safety
///
/// As above.
pub unsafe fn helper_set_atomic_writes(limits: *mut queue_limits, units: *const ffi::c_uint) {
    // SAFETY: As above.
    unsafe { units.copy_to(limits.cast(), 2) };
}

pub unsafe fn helper_set_prepare_ioctl(target_type: *mut target_type, callback: prepare_ioctl_fn) {
    // SAFETY: The type is valid.
    unsafe { (*target_type).prepare_ioctl = callback };
}

pub unsafe fn dm_register_target(target_type: *mut target_type) -> ffi::c_int {
    with_kernel(|kernel| kernel.target_type = Some(target_type));
    0
}

pub unsafe fn dm_unregister_target(target_type: *mut target_type) {
    let registered = with_kernel(|kernel| kernel.target_type.take());
    assert_eq!(registered, Some(target_type));
}

/// Returns the registered target type.
pub fn registered_target_type() -> Option<*mut target_type> {
    with_kernel(|kernel| kernel.target_type)
}

/// The number of the family.
pub const FAMILY: u16 = 30;

pub unsafe fn helper_genl_register_family(family: *mut genl_family) -> ffi::c_int {
    // SAFETY: The family is valid.
    unsafe { (*family).id = FAMILY.into() };
    with_kernel(|kernel| kernel.family = Some(family));
    0
}

pub unsafe fn genl_unregister_family(family: *const genl_family) -> ffi::c_int {
    let registered = with_kernel(|kernel| kernel.family.take());
    assert_eq!(registered, Some(family.cast_mut()));
    0
}

pub unsafe fn helper_genl_family() -> *mut genl_family {
    with_kernel(|kernel| kernel.family).unwrap_or(core::ptr::null_mut())
}

pub unsafe fn helper_create_familyid(_module: *mut module, id: ffi::c_int) -> ffi::c_int {
    with_kernel(|kernel| kernel.familyid = Some(id));
    0
}

pub unsafe fn helper_remove_familyid(_module: *mut module) {
    assert!(with_kernel(|kernel| kernel.familyid.take()).is_some());
}

/// Returns the datagrams that were sent since the last call.
pub fn take_sent() -> Vec<Vec<u8>> {
    with_kernel(|kernel| take(&mut kernel.sent))
}

/// # Safety
///
/// The buffer must be one of [`helper_genlmsg_new`] that is neither sent nor freed.
unsafe fn message<'a>(skb: *mut sk_buff) -> &'a mut Vec<u8> {
    // SAFETY: As this function's.
    unsafe { &mut *skb.cast() }
}

pub unsafe fn helper_genlmsg_new(payload: usize) -> *mut sk_buff {
    let memory = allocate("skb", 1);
    if memory.is_null() {
        return memory.cast();
    }
    // SAFETY: It was just allocated, to see whether that fails.
    unsafe { free("skb", memory) };
    Box::into_raw(Box::new(Vec::<u8>::with_capacity(20 + payload))).cast()
}

pub unsafe fn helper_nlmsg_free(skb: *mut sk_buff) {
    // SAFETY: `helper_genlmsg_new` made it.
    drop(unsafe { Box::<Vec<u8>>::from_raw(skb.cast()) });
}

pub unsafe fn genlmsg_put(
    skb: *mut sk_buff,
    portid: u32,
    sequence: u32,
    family: *const genl_family,
    flags: ffi::c_int,
    command: u8,
) -> *mut ffi::c_void {
    // SAFETY: The buffer and the family are valid.
    let (bytes, family) = unsafe { (message(skb), &*family) };
    bytes.extend([0; 4]);
    bytes.extend((family.id as u16).to_ne_bytes());
    bytes.extend((flags as u16).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(portid.to_ne_bytes());
    bytes.extend([command, family.version as u8, 0, 0]);
    bytes.as_mut_ptr().cast()
}

pub unsafe fn nla_put(
    skb: *mut sk_buff,
    kind: ffi::c_int,
    len: ffi::c_int,
    data: *const ffi::c_void,
) -> ffi::c_int {
    // SAFETY: The buffer is valid, and the data of that length.
    let (bytes, data) = unsafe {
        let data = core::slice::from_raw_parts(data.cast::<u8>(), len as usize);
        (message(skb), data)
    };
    if bytes.capacity() < bytes.len() + 4 + data.len() {
        return -90;
    }
    bytes.extend((4 + len as u16).to_ne_bytes());
    bytes.extend((kind as u16).to_ne_bytes());
    bytes.extend(data);
    0
}

pub unsafe fn helper_genlmsg_end(skb: *mut sk_buff, _header: *mut ffi::c_void) {
    // SAFETY: The buffer is valid.
    let bytes = unsafe { message(skb) };
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
}

pub unsafe fn helper_genlmsg_unicast(skb: *mut sk_buff, _portid: u32) -> ffi::c_int {
    // SAFETY: The buffer is the caller's, who gives it away.
    let bytes = unsafe { Box::<Vec<u8>>::from_raw(skb.cast()) };
    with_kernel(|kernel| kernel.sent.push(*bytes));
    0
}

/// A value of which loom knows when threads read it, and when it is dropped.
#[cfg(feature = "loom")]
pub struct Watched(loom::cell::UnsafeCell<u32>);

// SAFETY: Loom fails where a thread reads the value while or after another one drops it.
#[cfg(feature = "loom")]
unsafe impl Sync for Watched {}

#[cfg(feature = "loom")]
impl Watched {
    pub fn new(value: u32) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    pub fn get(&self) -> u32 {
        // SAFETY: As for `Sync`.
        self.0.with(|value| unsafe { *value })
    }
}

#[cfg(feature = "loom")]
impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: As for `Sync`.
        self.0.with_mut(|value| unsafe { *value = 0 });
    }
}
