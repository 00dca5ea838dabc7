// SPDX-License-Identifier: GPL-2.0

//! The device-mapper target `switch`, as Dell posted it in 2011 (v3).
//!
//! A switch device stands over the members of a storage array. Its address space is cut into
//! pages of one size; a page table that userland uploads over generic netlink names the member
//! that owns each page, and every I/O goes to the owner of its page.
//!
//! Sectors are of 512 bytes throughout.
//!
//! C header: `dm-switch.h`

use core::{
    fmt::Write,
    iter,
    mem::replace,
    num::{
        NonZeroU32,
        NonZeroU64, //
    },
    ops::Range,
    ptr,
    sync::atomic::{
        AtomicU32,
        Ordering, //
    }, //
};
use kernel::{
    alloc::AllocError,
    error::code::{
        EINTR,
        EIO, //
    },
    fmt,
    new_mutex,
    prelude::*,
    str::Formatter,
    sync::{
        Arc,
        Mutex, //
    },
    transmute::AsBytes, //
};

use entries::Entries;

module! {
    type: DmSwitch,
    name: "dm_switch",
    authors: ["the dm-switch developers"],
    description: "device-mapper target that sends each I/O to the array member owning its page",
    license: "GPL",
    // What the kernel asks modprobe for when somebody looks for the family.
    alias: ["net-pf-16-proto-16-family-DM_SWITCH"],
}

/// What the module registers. Dropped in this order: first no new device, then no new upload, then nothing that
/// waits to be freed.
#[pin_data]
struct DmSwitch {
    #[pin]
    target: dm::Registration<Switch>,
    familyid: genl::IdFile,
    #[pin]
    family: genl::Registration<Arc<Volumes>>,
    retirement: dm::Retirement,
}

impl kernel::InPlaceModule for DmSwitch {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            retirement: dm::Retirement::new()?,
            family <- genl::Registration::new(
                module,
                Arc::pin_init(Volumes::new(), GFP_KERNEL)?,
            ),
            familyid: genl::IdFile::new(module, family.id())?,
            // The last, for devices can come from here on.
            target <- dm::Registration::new(module, family.handler().clone()),
        })
    }
}

/// The wire format, and the C that the wrappers call: generated from `dm-switch.h`, device-mapper's
/// and generic netlink's headers.
mod abi {
    #![allow(
        clippy::all,
        clippy::cast_lossless,
        clippy::ptr_as_ptr,
        clippy::ref_as_ptr,
        clippy::undocumented_unsafe_blocks,
        dead_code,
        improper_ctypes,
        missing_docs,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        unknown_lints,
        unnecessary_transmutes,
        unreachable_pub,
        unsafe_op_in_unsafe_fn
    )]

    use core::mem::{
        offset_of,
        size_of, //
    };
    use kernel::{
        bindings::*,
        ffi,
        prelude::*,
        transmute::{AsBytes, FromBytes}, //
    };
    include!("bindings.rs");

    /// Bytes of a message before its first entry.
    pub(crate) const HEADER_LEN: usize = offset_of!(IpcPgTable, ptbl_buff);

    static_assert!(size_of::<IpcPgTable>() == 44);
    static_assert!(offset_of!(IpcPgTable, total_len) == 0);
    static_assert!(offset_of!(IpcPgTable, opcode) == 4);
    static_assert!(offset_of!(IpcPgTable, userland) == 8);
    static_assert!(offset_of!(IpcPgTable, dev_major) == 16);
    static_assert!(offset_of!(IpcPgTable, dev_minor) == 20);
    static_assert!(offset_of!(IpcPgTable, page_total) == 24);
    static_assert!(offset_of!(IpcPgTable, page_offset) == 28);
    static_assert!(offset_of!(IpcPgTable, page_count) == 32);
    static_assert!(offset_of!(IpcPgTable, dev_count) == 36);
    static_assert!(offset_of!(IpcPgTable, pte_bits) == 38);
    static_assert!(offset_of!(IpcPgTable, reserved) == 39);
    static_assert!(HEADER_LEN == 40);
    static_assert!(size_of::<IpcResponse>() == 284);
    static_assert!(offset_of!(IpcResponse, total_len) == 0);
    static_assert!(offset_of!(IpcResponse, opcode) == 4);
    static_assert!(offset_of!(IpcResponse, userland) == 8);
    static_assert!(offset_of!(IpcResponse, dev_major) == 16);
    static_assert!(offset_of!(IpcResponse, dev_minor) == 20);
    static_assert!(offset_of!(IpcResponse, status) == 24);
    static_assert!(offset_of!(IpcResponse, err_str) == 28);

    // SAFETY: The struct has integer fields only (bindgen makes C's enums integers), so every bit
    // pattern is a value of it.
    unsafe impl FromBytes for IpcPgTable {}

    // SAFETY: The struct has integer fields only, and the offsets asserted above leave no padding
    // between them or at the end.
    unsafe impl AsBytes for IpcPgTable {}

    // SAFETY: As for `IpcPgTable`.
    unsafe impl AsBytes for IpcResponse {}
}

/// Device-mapper targets, and what a target's map needs to run without a lock.
///
/// C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)
mod dm {
    use super::abi;
    use core::{
        fmt::{self, Write},
        iter,
        marker::PhantomData,
        num::NonZeroU32,
        ops::{Deref, DerefMut},
        ptr::NonNull,
        slice,
        sync::atomic::{AtomicPtr, Ordering}, //
    };
    use kernel::{
        alloc::AllocError,
        bindings,
        container_of,
        error::{from_result, to_result},
        ffi::{c_char, c_int, c_uint, c_void},
        new_mutex,
        prelude::*,
        sync::{Arc, Mutex, MutexGuard},
        types::Opaque, //
    };

    /// A device-mapper target, of devices without zones that must be written in order.
    pub(crate) trait Target: Sized + Send + Sync {
        /// The name that table lines use.
        const NAME: &'static CStr;

        /// The target's version.
        const VERSION: [u32; 3];

        /// What a constructor says that runs out of memory.
        const OUT_OF_MEMORY: &'static CStr;

        /// What the target's devices share.
        type Shared: Send + Sync;

        /// Constructs a device's target from the arguments of its table line.
        fn new(
            shared: &Self::Shared,
            constructor: &mut Constructor<'_>,
            args: &Args<'_>,
        ) -> Result<Self, ConstructorError>;

        /// Why an I/O has no route.
        type Stray;

        /// Returns which of the devices takes the I/O of `len` sectors that begins `offset` sectors from the
        /// target's begin, and where it is counted. It goes there at the same offset from the device's start.
        ///
        /// Most I/Os have such a route. For others, as those that may be for several devices, there is
        /// [`Self::run`]. Flushes go to every device, and to neither function.
        fn route<'a>(
            &'a self,
            offset: u64,
            len: u32,
            devices: &'a KVVec<Device>,
            reading: &'a Reading,
        ) -> Option<Route<'a>>;

        /// Returns how many sectors from `offset` on, at least 1 and at most `len`, have one route, and that
        /// route. Both come from one look at what the target may change meanwhile.
        fn run<'a>(
            &'a self,
            offset: u64,
            len: u32,
            devices: &'a KVVec<Device>,
            reading: &'a Reading,
        ) -> (u32, Result<Route<'a>, Self::Stray>);

        /// Takes note of an I/O without a route, which goes to the first device.
        fn strayed(&self, offset: u64, stray: Self::Stray);

        /// Returns a number of sectors at whose multiples, from the target's begin on, an I/O may be cut.
        fn granularity(&self) -> u64;

        /// Writes the line that `dmsetup status` shows.
        fn info(&self, devices: &[Device], line: &mut StatusWriter<'_>) -> fmt::Result;

        /// Writes the arguments that construct the same target again.
        fn table(&self, devices: &[Device], line: &mut StatusWriter<'_>) -> fmt::Result;

        /// Writes what is measured when a table is loaded, after the target's name and version.
        fn ima(&self, devices: &[Device], line: &mut StatusWriter<'_>) -> fmt::Result;

        /// The answer to a message. The kernel's buffer for the answer begins where the arguments are, so the answer
        /// is written only when the arguments are no longer used. Writing it fails where the rest does not fit, and
        /// may sleep.
        type Answer: kernel::fmt::Display;

        /// Handles `dmsetup message`, and returns the answer where there is one; fails with `EINVAL` on a message that
        /// it does not know.
        fn message(&self, args: &Args<'_>) -> Result<Option<Self::Answer>>;

        /// The target's table is the live one of its device from now on; I/O goes on behind this.
        ///
        /// It must wait for no memory, which may take the device itself.
        fn resume(&self);

        /// Returns the device that ioctls are passed to.
        fn prepare_ioctl<'a>(&self, devices: &'a [Device]) -> Result<&'a Device>;
    }

    /// Where an I/O goes, and the counts to which it adds 1.
    pub(crate) struct Route<'a> {
        /// The device.
        pub(crate) device: &'a Device,
        /// The counts.
        pub(crate) counts: [&'a Count; 2],
    }

    /// Why a constructor failed.
    pub(crate) struct ConstructorError {
        /// What device-mapper writes to the log.
        pub(crate) text: &'static CStr,
        /// The errno.
        pub(crate) error: Error,
    }

    /// The text of a C string, behind which a NUL follows. It is displayed with `\xNN` for what is not printable
    /// ASCII.
    #[derive(Clone, Copy)]
    pub(crate) struct Text<'a>(&'a [u8]);

    impl<'a> Text<'a> {
        /// # Safety
        ///
        /// `text` must point to a C string, which stays as it is for `'a`.
        unsafe fn from_raw(text: *const c_char) -> Self {
            // SAFETY: `text` points to a C string by this function's requirements.
            let len = unsafe { abi::strlen(text.cast()) } as usize;
            // SAFETY: So many bytes are before the string's NUL.
            Self(unsafe { slice::from_raw_parts(text.cast(), len) })
        }

        /// Returns the bytes before the NUL.
        pub(crate) fn bytes(self) -> &'a [u8] {
            self.0
        }

        fn as_char_ptr(self) -> *const c_char {
            self.0.as_ptr().cast()
        }
    }

    impl<'a> From<&'a CStr> for Text<'a> {
        fn from(text: &'a CStr) -> Self {
            // SAFETY: `text` is a C string.
            unsafe { Self::from_raw(text.as_char_ptr()) }
        }
    }

    impl kernel::fmt::Display for Text<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for &byte in self.0 {
                if matches!(byte, b' '..=b'~') {
                    f.write_char(char::from(byte))?;
                } else {
                    write!(f, "\\x{byte:02x}")?;
                }
            }
            Ok(())
        }
    }

    /// The arguments of a table line or a message.
    pub(crate) struct Args<'a>(&'a [*mut c_char]);

    impl<'a> Args<'a> {
        /// # Safety
        ///
        /// `argv` must point to `argc` strings, which stay as they are for `'a`.
        unsafe fn from_raw(argc: c_uint, argv: *mut *mut c_char) -> Self {
            if argc == 0 {
                return Self(&[]);
            }
            // SAFETY: `argv` points to `argc` pointers by this function's requirements.
            Self(unsafe { slice::from_raw_parts(argv, argc as usize) })
        }

        /// Returns how many there are.
        pub(crate) fn len(&self) -> usize {
            self.0.len()
        }

        /// Returns them, one after the other.
        pub(crate) fn iter(&self) -> impl Iterator<Item = Text<'a>> {
            // SAFETY: `from_raw` was promised strings that live for `'a`.
            self.0.iter().map(|&arg| unsafe { Text::from_raw(arg) })
        }

        /// Returns them in pairs, from `first` on; an odd one at the end is left out.
        pub(crate) fn pairs(&self, first: usize) -> impl Iterator<Item = (Text<'a>, Text<'a>)> {
            let mut args = self.iter().skip(first);
            iter::from_fn(move || Some((args.next()?, args.next()?)))
        }

        /// Returns the argument at `index`, or `None` behind the last one.
        pub(crate) fn get(&self, index: usize) -> Option<Text<'a>> {
            self.iter().nth(index)
        }
    }

    /// A target under construction.
    pub(crate) struct Constructor<'a> {
        ti: NonNull<abi::dm_target>,
        devices: KVVec<Device>,
        _target: PhantomData<&'a mut abi::dm_target>,
    }

    impl Constructor<'_> {
        /// Returns the length of the target in sectors.
        pub(crate) fn len(&self) -> u64 {
            // SAFETY: `ti` is valid while its constructor runs.
            unsafe { (*self.ti.as_ptr()).len }
        }

        /// Returns the sector of the mapped device at which the target begins.
        pub(crate) fn begin(&self) -> u64 {
            // SAFETY: `ti` is valid while its constructor runs.
            unsafe { (*self.ti.as_ptr()).begin }
        }

        /// Returns a number that no other table has while the target's is there.
        pub(crate) fn table(&self) -> usize {
            // SAFETY: `ti` is valid while its constructor runs.
            unsafe { (*self.ti.as_ptr()).table.addr() }
        }

        /// Returns the major and minor number of the mapped device.
        pub(crate) fn device_number(&self) -> (u32, u32) {
            // SAFETY: `ti` is valid while its constructor runs, its table belongs to a mapped
            // device, and a mapped device has a disk, whose numbers do not change.
            numbers(unsafe { abi::helper_dm_target_devt(self.ti.as_ptr()) })
        }

        /// Makes room for `devices` devices. It is called once, before [`Self::take_device`].
        pub(crate) fn reserve(&mut self, devices: usize) -> Result {
            self.devices = KVVec::with_capacity(devices, GFP_KERNEL)?;
            Ok(())
        }

        /// Opens the device at `path`, to be used from sector `start` on. Fails with `EINVAL` where that is the mapped
        /// device itself, and with `ENOMEM` where [`Self::reserve`] made no room for it.
        pub(crate) fn take_device(&mut self, path: Text<'_>, start: u64) -> Result<&Device> {
            let ti = self.ti.as_ptr();
            let mut dev = core::ptr::null_mut();
            // SAFETY: `ti` is valid while its constructor runs, `path` is a string, and `dev` is
            // written before it is read.
            to_result(unsafe { abi::helper_dm_get_device(ti, path.as_char_ptr(), &mut dev) })?;
            let dev = NonNull::new(dev).ok_or(ENODEV)?;
            let device = Device {
                // SAFETY: `dev` is valid until it is given back.
                bdev: unsafe { (*dev.as_ptr()).bdev },
                start,
                dev,
                ti: self.ti,
            };
            // Linux 6.1 opens it, and never removes it then.
            if device.number() == self.device_number() {
                return Err(EINVAL);
            }
            self.devices
                .push_within_capacity(device)
                .map_err(|_| ENOMEM)?;
            self.devices.last().ok_or(ENODEV)
        }

        /// Returns the sectors of the largest data unit that the hardware of all devices encrypts, 1
        /// where there is none.
        pub(crate) fn data_unit_len(&self) -> NonZeroU32 {
            let modes = 0..abi::blk_crypto_mode_num_BLK_ENCRYPTION_MODE_MAX;
            let units = modes.fold(0, |any, mode| any | self.data_units(mode));
            let largest = units.checked_ilog2().map(|bits| 1 << bits);
            in_sectors(largest.unwrap_or(0))
        }

        /// Returns the sizes, in bytes, of the data units that all devices encrypt in the mode, as
        /// [`Device::data_units`].
        fn data_units(&self, mode: abi::blk_crypto_mode_num) -> u32 {
            let units = self.devices.iter().map(|device| device.data_units(mode));
            units.fold(u32::MAX, |all, units| all & units)
        }
    }

    /// A device behind a target, given back when it is dropped.
    ///
    /// # Invariants
    ///
    /// `dev` was got for `ti`, which outlives this: nothing but [`Constructor`] and [`Instance`]
    /// owns a `Device`, and the latter goes with its target. `bdev` is that of `dev`.
    pub(crate) struct Device {
        bdev: *mut bindings::block_device,
        start: u64,
        dev: NonNull<abi::dm_dev>,
        ti: NonNull<abi::dm_target>,
    }

    // SAFETY: A `Device` is changed only by its drop, which device-mapper may call on any thread.
    unsafe impl Send for Device {}

    // SAFETY: The methods only read, as C does: what stays as it is while the device is held, and
    // the device's length.
    unsafe impl Sync for Device {}

    /// Splits a device number of the kernel's into major and minor.
    fn numbers(number: bindings::dev_t) -> (u32, u32) {
        (number >> abi::MINORBITS, number & abi::MINORMASK)
    }

    /// Converts a length in bytes to sectors, rounded down, and at least 1.
    fn in_sectors(bytes: u32) -> NonZeroU32 {
        NonZeroU32::new(bytes >> bindings::SECTOR_SHIFT).unwrap_or(NonZeroU32::MIN)
    }

    impl Device {
        /// Returns the device's major and minor number.
        fn number(&self) -> (u32, u32) {
            // SAFETY: `bdev` is valid while the device is held.
            numbers(unsafe { abi::helper_bdev_devt(self.bdev) })
        }

        /// Returns the device's name, `major:minor`.
        pub(crate) fn name(&self) -> Text<'_> {
            // SAFETY: `dev` is valid by the type's invariants, and its name ends with a NUL.
            unsafe { Text::from_raw((*self.dev.as_ptr()).name.as_ptr()) }
        }

        /// Returns the sector from which on the target uses the device.
        pub(crate) fn start(&self) -> u64 {
            self.start
        }

        /// Returns the length of the whole device in sectors.
        pub(crate) fn len(&self) -> u64 {
            // SAFETY: `bdev` is valid while the device is held.
            unsafe { abi::helper_bdev_nr_sectors(self.bdev) }
        }

        /// Returns the sectors of a block, below which the device reads and writes nothing.
        pub(crate) fn block_len(&self) -> NonZeroU32 {
            // SAFETY: `bdev` is valid while the device is held.
            let bytes = unsafe { abi::helper_bdev_logical_block_size(self.bdev) };
            in_sectors(bytes)
        }

        /// Returns the sizes, in bytes, of the data units that the device's hardware encrypts in the mode: the sum
        /// of powers of two.
        fn data_units(&self, mode: abi::blk_crypto_mode_num) -> u32 {
            // SAFETY: `bdev` is valid while the device is held, and the mode is one that there is.
            unsafe { abi::helper_bdev_data_units(self.bdev, mode) }
        }

        /// Whether the device has zones that must be written in order.
        pub(crate) fn is_zoned(&self) -> bool {
            // SAFETY: `bdev` is valid while the device is held.
            unsafe { abi::helper_bdev_is_zoned(self.bdev) }
        }
    }

    impl Drop for Device {
        fn drop(&mut self) {
            // SAFETY: By the type's invariants, `dev` was got for `ti` and not given back.
            unsafe { abi::dm_put_device(self.ti.as_ptr(), self.dev.as_ptr()) };
        }
    }

    /// A target with its devices, as `dm_target::private` owns it.
    struct Instance<T> {
        // Dropped first: the devices are there for as long as the target.
        target: T,
        devices: KVVec<Device>,
    }

    impl<T: Target> Instance<T> {
        /// # Safety
        ///
        /// `ti` must be a target that [`Registration::construct`] constructed.
        unsafe fn of<'a>(ti: *mut abi::dm_target) -> &'a Self {
            // SAFETY: `construct` left a leaked box of this type there.
            unsafe { &*(*ti).private.cast() }
        }

        /// Maps a bio that begins `offset` sectors from the target's begin.
        #[inline(always)]
        fn map(&self, mut bio: Bio, offset: u64, reading: Reading) -> c_int {
            if bio.only_transfers() {
                let route = self
                    .target
                    .route(offset, bio.len(), &self.devices, &reading);
                if let Some(route) = route {
                    // SAFETY: The reading is forgotten in the next line.
                    unsafe { bio.follow(route, offset) };
                    core::mem::forget(reading);
                    return abi::DM_MAPIO_REMAPPED as c_int;
                }
            }
            self.map_other(bio, offset, reading)
        }

        /// Maps a bio of any kind, for those that take more than a look at one route.
        #[cold]
        #[inline(never)]
        fn map_other(&self, mut bio: Bio, offset: u64, reading: Reading) -> c_int {
            if bio.is_flush() {
                drop(reading);
                return bio.send_to(self.devices.get(bio.flush_number()));
            }
            let (sectors, route) = self.target.run(offset, bio.len(), &self.devices, &reading);
            match route {
                Ok(route) => {
                    if !bio.cut(sectors) {
                        return abi::DM_MAPIO_KILL as c_int;
                    }
                    // SAFETY: The reading is forgotten in the next line.
                    unsafe { bio.follow(route, offset) };
                    core::mem::forget(reading);
                    abi::DM_MAPIO_REMAPPED as c_int
                }
                Err(stray) => {
                    drop(reading);
                    self.map_stray(bio, offset, sectors, stray)
                }
            }
        }

        /// Maps a bio whose first `sectors` sectors have no route; device-mapper sends the rest in another.
        #[cold]
        #[inline(never)]
        fn map_stray(&self, mut bio: Bio, offset: u64, sectors: u32, stray: T::Stray) -> c_int {
            if !bio.cut(sectors) {
                return abi::DM_MAPIO_KILL as c_int;
            }
            self.target.strayed(offset, stray);
            let first = self.devices.first();
            bio.set_sector(first.map_or(0, |device| device.start.wrapping_add(offset)));
            bio.send_to(first)
        }
    }

    /// A bio that a target is to map.
    ///
    /// # Invariants
    ///
    /// The pointer is to a bio that is this target's to change.
    struct Bio(*mut bindings::bio);

    impl Bio {
        /// The bits of `bi_opf` that say what is done.
        const OPERATION: u32 = (1 << bindings::REQ_OP_BITS) - 1;

        /// The bit that says that what was written before is to be flushed.
        const PREFLUSH: u32 = 1 << bindings::req_flag_bits___REQ_PREFLUSH;

        /// Whether this reads or writes and does nothing else, as most do.
        fn only_transfers(&self) -> bool {
            let transfers = bindings::req_op_REQ_OP_READ | bindings::req_op_REQ_OP_WRITE;
            // SAFETY: The bio is valid by the type's invariants.
            unsafe { (*self.0).bi_opf & (Self::OPERATION & !transfers | Self::PREFLUSH) == 0 }
        }

        /// Whether this is a flush without data, which device-mapper makes one of for each device.
        fn is_flush(&self) -> bool {
            // SAFETY: The bio is valid by the type's invariants.
            let (flags, size) = unsafe { ((*self.0).bi_opf, (*self.0).bi_iter.bi_size) };
            flags & Self::PREFLUSH != 0 && size == 0
        }

        /// Returns which of the devices the flush is for.
        fn flush_number(&self) -> usize {
            // SAFETY: The bio is valid by the type's invariants, and device-mapper's own.
            unsafe { abi::dm_bio_get_target_bio_nr(self.0) as usize }
        }

        /// Returns the length in sectors.
        fn len(&self) -> u32 {
            // SAFETY: The bio is valid by the type's invariants.
            unsafe { (*self.0).bi_iter.bi_size >> bindings::SECTOR_SHIFT }
        }

        /// Shortens the bio to its first `sectors` sectors, at least 1, if it is longer; device-mapper sends the rest
        /// in another bio. Returns false where it stays longer: an atomic write is not cut.
        fn cut(&mut self, sectors: u32) -> bool {
            // SAFETY: The bio is being mapped, and is cut where it has more sectors than that. `construct` asks
            // for one bio of each kind but flushes, so it is no duplicate, and no target here takes a zoned
            // device.
            sectors >= self.len() || unsafe { abi::helper_bio_cut(self.0, sectors) }
        }

        fn sector(&self) -> u64 {
            // SAFETY: The bio is valid by the type's invariants.
            unsafe { (*self.0).bi_iter.bi_sector }
        }

        fn set_sector(&mut self, sector: u64) {
            // SAFETY: The bio is valid and ours to change by the type's invariants.
            unsafe { (*self.0).bi_iter.bi_sector = sector };
        }

        /// Sends the bio to a device, or fails it where there is none.
        fn send_to(&mut self, device: Option<&Device>) -> c_int {
            let Some(device) = device else {
                return abi::DM_MAPIO_KILL as c_int;
            };
            // SAFETY: The bio is valid and ours to change by the type's invariants; the device is
            // open for as long as the target is there.
            unsafe { abi::helper_bio_set_dev(self.0, device.bdev) };
            abi::DM_MAPIO_REMAPPED as c_int
        }

        /// Sends the bio on its route, counts it, and ends the reading under which the route was found:
        /// one call for what takes a few instructions.
        ///
        /// # Safety
        ///
        /// That reading must be forgotten then.
        unsafe fn follow(&mut self, route: Route<'_>, offset: u64) {
            let Route { device, counts } = route;
            let [first, second] = counts.map(|count| count.count);
            // Device-mapper has checked that start and length are within the device.
            self.set_sector(device.start.wrapping_add(offset));
            // SAFETY: The bio is valid and ours to change by the type's invariants; the device is open
            // for as long as the target is there, and the counts are there until the reading ends.
            unsafe { abi::helper_bio_follow(self.0, device.bdev, first, second) };
        }
    }

    /// Returns the least and the greatest length, in bytes, of the atomic writes that a target has of those that
    /// all its devices take, when borders are at multiples of the largest power of two that divides `sectors`: an
    /// atomic write cannot be split, so none may cross a border.
    ///
    /// Such a write is a power of two long, and begins at a multiple of its length.
    fn fit_atomic_writes([min, max]: [c_uint; 2], sectors: u64) -> [c_uint; 2] {
        let unit = 1_u64 << sectors.trailing_zeros().min(u32::BITS) << bindings::SECTOR_SHIFT;
        let max = max.min(u32::try_from(unit).unwrap_or(u32::MAX));
        if max < min {
            return [0; 2];
        }
        [min, max]
    }

    /// Writes into the buffer of a status or message ioctl. What does not fit is cut off, which is an error, so that
    /// nothing more is made; device-mapper then has userland ask again with a larger buffer.
    pub(crate) struct StatusWriter<'a> {
        next: *mut u8,
        /// Bytes from `next` on, one of which is for the NUL.
        room: usize,
        _buffer: PhantomData<&'a mut [u8]>,
    }

    impl StatusWriter<'_> {
        /// # Safety
        ///
        /// `buffer` must be valid for writes of `len` bytes while the writer is used.
        unsafe fn new(buffer: *mut c_char, len: c_uint) -> Self {
            if len > 0 {
                // SAFETY: There is a byte to write by this function's requirements.
                unsafe { buffer.write(0) };
            }
            Self {
                next: buffer,
                room: len as usize,
                _buffer: PhantomData,
            }
        }
    }

    impl fmt::Write for StatusWriter<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let len = text.len().min(self.room.saturating_sub(1));
            if len > 0 {
                // SAFETY: `len` is less than the `room` bytes that are valid for writes from
                // `next` on, so the text and a NUL behind it fit.
                unsafe {
                    self.next.copy_from_nonoverlapping(text.as_ptr(), len);
                    self.next = self.next.add(len);
                    self.next.write(0);
                }
                self.room -= len;
            }
            if len < text.len() {
                return Err(fmt::Error);
            }
            Ok(())
        }
    }

    /// A target that table lines can name. Dropping it takes the name back.
    ///
    /// Devices can come as soon as it is made, and they hold the module, not this value: making it
    /// must be the last thing in the module's init that can fail, and it must stay until the exit.
    #[pin_data(PinnedDrop)]
    pub(crate) struct Registration<T: Target> {
        shared: T::Shared,
        #[pin]
        target_type: Opaque<abi::target_type>,
    }

    // SAFETY: A registration may be undone on any thread, and `shared` may be moved to it.
    unsafe impl<T: Target> Send for Registration<T> {}

    // SAFETY: Nothing but device-mapper, under its own lock, writes to `target_type`.
    unsafe impl<T: Target> Sync for Registration<T> {}

    impl<T: Target> Registration<T> {
        /// Registers the target; fails with `EBUSY`, on Linux 6.1 with `EEXIST`, where the name
        /// is taken.
        pub(crate) fn new(
            module: &'static ThisModule,
            shared: T::Shared,
        ) -> impl PinInit<Self, Error> {
            try_pin_init!(Self {
                shared,
                target_type <- Opaque::try_ffi_init(move |slot: *mut abi::target_type| {
                    // SAFETY: `slot` is valid for writes, and holds a target type then.
                    unsafe {
                        slot.write(Self::target_type(module));
                        abi::helper_set_prepare_ioctl(slot, Some(Self::prepare_ioctl_callback));
                    }
                    // SAFETY: The target type is complete, and pinned until it is unregistered.
                    to_result(unsafe { abi::dm_register_target(slot) }).inspect_err(Self::explain)
                }),
            })
        }

        fn explain(error: &Error) {
            pr_err!("dm_register_target() failed {}\n", error.to_errno());
            if [EBUSY, EEXIST].contains(error) {
                pr_err!(
                    "another driver holds the target name \"{}\" (the kernel's own dm-switch?); \
                     only one of them can be loaded\n",
                    Text::from(T::NAME),
                );
            }
        }

        fn target_type(module: &'static ThisModule) -> abi::target_type {
            abi::target_type {
                name: T::NAME.as_char_ptr(),
                version: T::VERSION,
                features: u64::from(
                    abi::DM_TARGET_ATOMIC_WRITES
                        | abi::DM_TARGET_NOWAIT
                        | abi::DM_TARGET_PASSES_CRYPTO
                        | abi::DM_TARGET_PASSES_INTEGRITY,
                ),
                module: module.as_ptr(),
                ctr: Some(Self::ctr_callback),
                dtr: Some(Self::dtr_callback),
                map: Some(Self::map_callback),
                resume: Some(Self::resume_callback),
                status: Some(Self::status_callback),
                message: Some(Self::message_callback),
                iterate_devices: Some(Self::iterate_devices_callback),
                io_hints: Some(Self::io_hints_callback),
                ..Default::default()
            }
        }

        /// # Safety
        ///
        /// `ti` must be a valid target of this type, with nothing constructed in it, and `args` its
        /// arguments.
        unsafe fn construct(
            ti: *mut abi::dm_target,
            args: &Args<'_>,
        ) -> Result<(), ConstructorError> {
            // SAFETY: `ti` is valid, and its type is the one embedded in a registration, which stays
            // until the module's exit; device-mapper holds the module.
            let registration = unsafe {
                let target_type = Opaque::cast_from((*ti).type_).cast_mut();
                &*container_of!(target_type, Self, target_type)
            };
            let mut constructor = Constructor {
                // SAFETY: `ti` is valid by this function's requirements, and so not null.
                ti: unsafe { NonNull::new_unchecked(ti) },
                devices: KVVec::new(),
                _target: PhantomData,
            };
            let target = T::new(&registration.shared, &mut constructor, args)?;
            let devices = constructor.devices;
            let flushes = devices.len() as c_uint;
            let instance = KBox::new(Instance { target, devices }, GFP_KERNEL).map_err(|_| {
                ConstructorError {
                    text: T::OUT_OF_MEMORY,
                    error: ENOMEM,
                }
            })?;
            // SAFETY: `ti` is valid and its constructor's to change. The devices have pointers to it, so there is to be
            // no reference.
            unsafe {
                (*ti).private = KBox::into_raw(instance).cast();
                // Where every target of the table allows it, device-mapper flushes each device once by
                // itself; in a mixed table it sends this number of flushes through the map.
                (*ti).num_flush_bios = flushes;
                abi::helper_dm_target_flush_bypasses_map(ti);
                // One each, where all devices take them; the map cuts them between devices.
                (*ti).num_discard_bios = 1;
                (*ti).num_secure_erase_bios = 1;
                (*ti).num_write_zeroes_bios = 1;
            }
            Ok(())
        }

        /// # Safety
        ///
        /// Called by device-mapper only, with a target of this type that is not constructed yet and
        /// `argc` arguments in `argv`.
        unsafe extern "C" fn ctr_callback(
            ti: *mut abi::dm_target,
            argc: c_uint,
            argv: *mut *mut c_char,
        ) -> c_int {
            // SAFETY: `argv` holds `argc` strings while the constructor runs.
            let args = unsafe { Args::from_raw(argc, argv) };
            // SAFETY: `ti` is valid and unconstructed by this function's requirements.
            match unsafe { Self::construct(ti, &args) } {
                Ok(()) => 0,
                Err(ConstructorError { text, error }) => {
                    // SAFETY: `ti` is valid; the text is static, and device-mapper only reads it.
                    unsafe { (*ti).error = text.as_char_ptr().cast_mut() };
                    error.to_errno()
                }
            }
        }

        /// # Safety
        ///
        /// Called by device-mapper only, once, with a constructed target of this type that no
        /// other function of this type is running on.
        unsafe extern "C" fn dtr_callback(ti: *mut abi::dm_target) {
            // SAFETY: `construct` leaked a box of this type there; nothing uses it any more.
            drop(unsafe { KBox::<Instance<T>>::from_raw((*ti).private.cast()) });
        }

        /// # Safety
        ///
        /// Called by device-mapper only, with a constructed target of this type and a bio for it.
        unsafe extern "C" fn map_callback(
            ti: *mut abi::dm_target,
            bio: *mut bindings::bio,
        ) -> c_int {
            let (reading, ti) = Reading::begin_for(ti);
            // SAFETY: The target is constructed.
            let instance = unsafe { Instance::<T>::of(ti) };
            let bio = Bio(bio);
            // SAFETY: `ti` is valid.
            let offset = bio.sector().wrapping_sub(unsafe { (*ti).begin });
            instance.map(bio, offset, reading)
        }

        /// # Safety
        ///
        /// Called by device-mapper only, with a constructed target of this type.
        unsafe extern "C" fn resume_callback(ti: *mut abi::dm_target) {
            // SAFETY: The target is constructed.
            unsafe { Instance::<T>::of(ti) }.target.resume();
        }

        /// # Safety
        ///
        /// Called by device-mapper only, with a constructed target of this type and a buffer of
        /// `maxlen` bytes.
        unsafe extern "C" fn status_callback(
            ti: *mut abi::dm_target,
            kind: abi::status_type_t,
            _flags: c_uint,
            result: *mut c_char,
            maxlen: c_uint,
        ) {
            // SAFETY: The target is constructed.
            let Instance { target, devices } = unsafe { Instance::<T>::of(ti) };
            // SAFETY: `result` has room for `maxlen` bytes by this function's requirements.
            let mut line = unsafe { StatusWriter::new(result, maxlen) };
            let written = match kind {
                abi::status_type_t_STATUSTYPE_INFO => target.info(devices, &mut line),
                abi::status_type_t_STATUSTYPE_TABLE => target.table(devices, &mut line),
                abi::status_type_t_STATUSTYPE_IMA => {
                    let [major, minor, patch] = T::VERSION;
                    let name = Text::from(T::NAME);
                    line.write_fmt(fmt!(
                        "target_name={name},target_version={major}.{minor}.{patch}"
                    ))
                    .and_then(|()| target.ima(devices, &mut line))
                }
                _ => Ok(()),
            };
            // It fails only where the line is cut off.
            let _ = written;
        }

        /// # Safety
        ///
        /// Called by device-mapper only, with a constructed target of this type, `argc` arguments
        /// in `argv`, and a buffer of `maxlen` bytes.
        unsafe extern "C" fn message_callback(
            ti: *mut abi::dm_target,
            argc: c_uint,
            argv: *mut *mut c_char,
            result: *mut c_char,
            maxlen: c_uint,
        ) -> c_int {
            // SAFETY: The target is constructed.
            let instance = unsafe { Instance::<T>::of(ti) };
            // SAFETY: `argv` holds `argc` strings, which stay as they are until the answer is written.
            let args = unsafe { Args::from_raw(argc, argv) };
            from_result(|| {
                let Some(answer) = instance.target.message(&args)? else {
                    return Ok(0);
                };
                // SAFETY: `result` has room for `maxlen` bytes by this function's requirements, and nothing
                // uses the arguments any more.
                let mut line = unsafe { StatusWriter::new(result, maxlen) };
                // It fails where it is cut off, or where the process is killed, which sees no answer.
                let _ = line.write_fmt(fmt!("{answer}"));
                // There is an answer in the buffer.
                Ok(1)
            })
        }

        /// # Safety
        ///
        /// Called by device-mapper only, with a constructed target of this type and a place for the
        /// device.
        unsafe extern "C" fn prepare_ioctl_callback(
            ti: *mut abi::dm_target,
            bdev: *mut *mut bindings::block_device,
        ) -> c_int {
            // SAFETY: The target is constructed.
            let instance = unsafe { Instance::<T>::of(ti) };
            // SAFETY: `ti` is valid.
            let len = unsafe { (*ti).len };
            from_result(|| {
                let device = instance.target.prepare_ioctl(&instance.devices)?;
                // SAFETY: `bdev` is valid for a write by this function's requirements.
                unsafe { *bdev = device.bdev };
                // 1 says that the target is not the whole device: device-mapper then wants
                // CAP_SYS_RAWIO.
                Ok(c_int::from(device.start != 0 || device.len() != len))
            })
        }

        /// # Safety
        ///
        /// Called by device-mapper only, with a constructed target of this type and a callout that
        /// takes `data`.
        unsafe extern "C" fn iterate_devices_callback(
            ti: *mut abi::dm_target,
            callout: abi::iterate_devices_callout_fn,
            data: *mut c_void,
        ) -> c_int {
            // SAFETY: The target is constructed.
            let instance = unsafe { Instance::<T>::of(ti) };
            // SAFETY: `ti` is valid.
            let len = unsafe { (*ti).len };
            let Some(callout) = callout else { return 0 };
            instance
                .devices
                .iter()
                // SAFETY: The callout is called as device-mapper asks: with its target, a device
                // of it, the sectors used of the device, and its own data.
                .map(|device| unsafe { callout(ti, device.dev.as_ptr(), device.start, len, data) })
                .find(|&result| result != 0)
                .unwrap_or(0)
        }

        /// # Safety
        ///
        /// Called by device-mapper only, with a constructed target of this type and the limits that
        /// its devices have in common.
        unsafe extern "C" fn io_hints_callback(
            ti: *mut abi::dm_target,
            limits: *mut bindings::queue_limits,
        ) {
            // SAFETY: The target is constructed.
            let granularity = unsafe { Instance::<T>::of(ti) }.target.granularity();
            // SAFETY: `ti` is valid.
            let begin = unsafe { (*ti).begin };
            let mut units = [0; 2];
            // SAFETY: The limits are valid, and ours to change, by this function's requirements; there is room
            // for two lengths.
            unsafe {
                abi::helper_get_atomic_writes(limits, units.as_mut_ptr());
                units = fit_atomic_writes(units, begin | granularity);
                abi::helper_set_atomic_writes(limits, units.as_ptr());
            }
        }
    }

    #[pinned_drop]
    impl<T: Target> PinnedDrop for Registration<T> {
        fn drop(self: Pin<&mut Self>) {
            // SAFETY: `new` registered it; no device of it is left, for each holds the module.
            unsafe { abi::dm_unregister_target(self.target_type.get()) };
        }
    }

    /// Event counts that a map may add to: each CPU has its own, so no cache line is shared.
    ///
    /// # Invariants
    ///
    /// `counts` is an allocation of `len` counts, 1 or more, for every possible CPU. It is a per-CPU address,
    /// which only the kernel's per-CPU functions make one of memory.
    pub(crate) struct Counters {
        counts: *mut u64,
        len: usize,
    }

    // SAFETY: The counts belong to no thread.
    unsafe impl Send for Counters {}

    // SAFETY: A CPU adds to its own counts only, and atomically against being interrupted.
    unsafe impl Sync for Counters {}

    impl Counters {
        /// Makes `len` counts of 0; `len` is above 0.
        pub(crate) fn new(len: usize) -> Result<Arc<Self>> {
            // SAFETY: The function takes any length; it returns null for one that is too large.
            let counts = unsafe { abi::helper_alloc_percpu_u64(len) };
            if counts.is_null() {
                return Err(ENOMEM);
            }
            Ok(Arc::new(Self { counts, len }, GFP_KERNEL)?)
        }

        /// Returns the bytes that the counts take, on all CPUs.
        pub(crate) fn bytes(&self) -> usize {
            // SAFETY: The function only reads how many CPUs there can be.
            unsafe { abi::helper_percpu_u64_bytes(self.len) }
        }

        /// Returns the per-CPU address of the count at `index`, of the last one where there are fewer.
        fn at(&self, index: usize) -> *mut u64 {
            let last = self.len.saturating_sub(1);
            self.counts.wrapping_add(index.min(last))
        }

        /// Adds 1 to the count at `index`, to the last one where there are fewer.
        pub(crate) fn add(&self, index: usize) {
            // SAFETY: The count is one of the allocation by the type's invariants.
            unsafe { abi::helper_this_cpu_inc(self.at(index)) };
        }

        /// Returns the sum over all CPUs of the count at `index`, of the last one where there are fewer.
        pub(crate) fn sum(&self, index: usize) -> u64 {
            // SAFETY: The count is one of the allocation by the type's invariants.
            unsafe { abi::helper_percpu_sum(self.at(index)) }
        }
    }

    impl Drop for Counters {
        fn drop(&mut self) {
            // SAFETY: The allocation is ours by the type's invariants.
            unsafe { bindings::free_percpu(self.counts.cast()) };
        }
    }

    /// One of several counts, which are there for as long as it is.
    ///
    /// # Invariants
    ///
    /// `count` is the per-CPU address of one of `counters`.
    pub(crate) struct Count {
        count: *mut u64,
        #[expect(dead_code, reason = "is only held")]
        counters: Arc<Counters>,
    }

    // SAFETY: As for `Counters`.
    unsafe impl Send for Count {}

    // SAFETY: As for `Counters`.
    unsafe impl Sync for Count {}

    impl Count {
        /// Returns the count at `index`, the last one where there are fewer.
        pub(crate) fn of(counters: &Arc<Counters>, index: usize) -> Self {
            Self {
                count: counters.at(index),
                counters: counters.clone(),
            }
        }
    }

    /// Two values, one of which is the current one. A map reads it without a lock while another thread sets it.
    ///
    /// # Invariants
    ///
    /// `current` is the address of one of `values`.
    pub(crate) struct Current<T> {
        current: AtomicPtr<T>,
        values: [Arc<T>; 2],
    }

    impl<T> Current<T> {
        /// Makes the first of the two values the current one.
        pub(crate) fn new(values: [Arc<T>; 2]) -> Self {
            Self {
                current: AtomicPtr::new(Self::address(&values[0])),
                values,
            }
        }

        fn address(value: &T) -> *mut T {
            core::ptr::from_ref(value).cast_mut()
        }

        /// Returns the first of the two values.
        pub(crate) fn first(&self) -> Arc<T> {
            self.values[0].clone()
        }

        /// Makes `value` the current one, if it is one of the two.
        pub(crate) fn set(&self, value: &T) {
            let value = Self::address(value);
            if self.values.iter().any(|held| Self::address(held) == value) {
                self.current.store(value, Ordering::Relaxed);
            }
        }
    }

    impl<T> Deref for Current<T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: By the type's invariants `current` is the address of one of `values`, which live as long as `self`.
            unsafe { &*self.current.load(Ordering::Relaxed) }
        }
    }

    /// Whether so many bytes are no more than all the memory there is.
    pub(crate) fn is_below_memory(bytes: usize) -> bool {
        // SAFETY: The function only reads a number.
        bytes >> bindings::PAGE_SHIFT < unsafe { abi::helper_totalram_pages() }
    }

    /// Gives others the processor, where they want it, and fails with `EINTR` where this process is killed: for what
    /// takes long. May sleep.
    pub(crate) fn go_on() -> Result {
        // SAFETY: The function only looks at the thread.
        to_result(unsafe { abi::helper_go_on() })
    }

    /// Whether a map may write one more warning to the log, for the function `name`.
    pub(crate) fn may_warn(name: &CStr) -> bool {
        // SAFETY: `name` is a string.
        unsafe { abi::helper_ratelimit(name.as_char_ptr()) }
    }

    /// A time in which nothing that an [`Rcu`] gave away is freed, and this thread neither sleeps nor moves
    /// to another CPU. It ends when this is dropped.
    ///
    /// This is the kernel's RCU in the form that takes the fewest instructions; its grace periods wait for it as for
    /// the others.
    ///
    /// C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)
    pub(crate) struct Reading {
        /// It ends where it began.
        _thread: PhantomData<*mut ()>,
    }

    impl Reading {
        /// Begins one, and returns `kept`, too: what a caller need not keep itself through the call, costs it less.
        #[inline(always)]
        fn begin_for<T>(kept: *mut T) -> (Self, *mut T) {
            // SAFETY: The drop ends it, or `Bio::follow`, behind which it is forgotten; the function only returns the
            // pointer.
            let kept = unsafe { abi::helper_rcu_read_lock_sched_for(kept.cast()) };
            let reading = Self {
                _thread: PhantomData,
            };
            (reading, kept.cast())
        }

        /// Begins one.
        pub(crate) fn begin() -> Self {
            let (reading, _) = Self::begin_for(core::ptr::null_mut::<()>());
            reading
        }
    }

    impl Drop for Reading {
        fn drop(&mut self) {
            // SAFETY: `begin_for` began it, on this thread.
            unsafe { abi::helper_rcu_read_unlock_sched() };
        }
    }

    /// A value that an [`Rcu`] can hold.
    pub(crate) struct RcuBox<T>(KBox<Node<T>>);

    /// A value, and what C needs to free it after its last reader.
    #[repr(C)]
    struct Node<T> {
        value: T,
        retired: Opaque<abi::retired>,
    }

    impl<T: Send> RcuBox<T> {
        /// Moves the value into memory of its own. May sleep.
        pub(crate) fn new(value: T) -> Result<Self, AllocError> {
            let retired = Opaque::uninit();
            Ok(Self(KBox::new(Node { value, retired }, GFP_KERNEL)?))
        }

        /// Frees the value at some time after all readings that are under way now. Does not wait for them.
        ///
        /// `bytes` is the memory that is freed then. Where too much waits to be freed, the thread waits for some of it
        /// before it returns to userland, when it holds no lock any more.
        fn retire(self, bytes: usize) {
            let node = KBox::into_raw(self.0);
            // SAFETY: The node is valid, and nothing but `free` frees it.
            unsafe {
                let retired = (*node).retired.get();
                retired.write(abi::retired {
                    bytes,
                    free: Some(Self::free),
                    ..Default::default()
                });
                abi::helper_retire(retired);
            }
        }

        /// # Safety
        ///
        /// Called behind the readers of a node that [`Self::retire`] gave away, once.
        unsafe extern "C" fn free(retired: *mut abi::retired) {
            // SAFETY: `retired` is that of a node, which came from a box, by this function's requirements.
            unsafe {
                let retired = Opaque::cast_from(retired).cast_mut();
                drop(KBox::from_raw(container_of!(retired, Node<T>, retired)));
            }
        }
    }

    impl<T> Deref for RcuBox<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0.value
        }
    }

    impl<T> DerefMut for RcuBox<T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0.value
        }
    }

    // SAFETY: Nobody but C uses `retired`, and that only when the box is given away.
    unsafe impl<T: Send> Send for RcuBox<T> {}

    // SAFETY: As above.
    unsafe impl<T: Sync> Sync for RcuBox<T> {}

    /// What frees values behind their readers. Dropping it waits until all are freed.
    ///
    /// There is one at most, and it must be there while values are replaced.
    pub(crate) struct Retirement(());

    impl Retirement {
        /// Begins it; fails with `ENOMEM`.
        pub(crate) fn new() -> Result<Self> {
            // SAFETY: It has not begun.
            to_result(unsafe { abi::helper_begin_retirement() })?;
            Ok(Self(()))
        }

        /// Whether so little waits to be freed that more may be replaced.
        pub(crate) fn has_room() -> bool {
            // SAFETY: The function only reads a number.
            unsafe { abi::helper_may_retire() }
        }
    }

    impl Drop for Retirement {
        fn drop(&mut self) {
            // SAFETY: `new` began it, and nothing replaces a value any more.
            unsafe { abi::helper_end_retirement() };
        }
    }

    /// A value that a map reads without waiting while one writer at a time replaces it.
    ///
    /// # Invariants
    ///
    /// `current` is null or came from an [`RcuBox`], and is freed only when no reader can hold it.
    #[pin_data(PinnedDrop)]
    pub(crate) struct Rcu<T: Send + Sync> {
        current: AtomicPtr<Node<T>>,
        #[pin]
        writer: Mutex<()>,
        _owned: PhantomData<RcuBox<T>>,
    }

    impl<T: Send + Sync> Rcu<T> {
        /// Makes one that holds nothing yet.
        pub(crate) fn new() -> impl PinInit<Self> {
            pin_init!(Self {
                current: AtomicPtr::new(core::ptr::null_mut()),
                writer <- new_mutex!(()),
                _owned: PhantomData,
            })
        }

        /// Returns the value; it stays valid until the reading ends, though perhaps not current.
        pub(crate) fn read<'a>(&'a self, _reading: &'a Reading) -> Option<&'a T> {
            // SAFETY: By the type's invariants the value is not freed before all readings that
            // could have seen it, of which this is one, have ended.
            let node = unsafe { self.current.load(Ordering::Acquire).as_ref() };
            node.map(|node| &node.value)
        }

        /// Waits for other writers.
        ///
        /// Until the writer is dropped no memory that this thread allocates takes I/O to be had: a
        /// device that is being suspended waits for its target's functions, which may wait here,
        /// and that I/O might wait for the device. (Linux 7.2 has an exception: whoever else allocates per-CPU
        /// memory may wait for I/O with the mutex that [`Counters::new`] takes.)
        pub(crate) fn lock(&self) -> Writer<'_, T> {
            let lock = self.writer.lock();
            Writer {
                rcu: self,
                // SAFETY: The writer's drop restores it, on this thread: a mutex's guard stays there.
                allocation: unsafe { abi::helper_memalloc_noio_save() },
                _lock: lock,
            }
        }
    }

    #[pinned_drop]
    impl<T: Send + Sync> PinnedDrop for Rcu<T> {
        fn drop(self: Pin<&mut Self>) {
            // No reader is left, for a reader borrows the `Rcu`.
            if let Some(last) = NonNull::new(self.current.load(Ordering::Relaxed)) {
                // SAFETY: By the type's invariants the pointer came from a box.
                drop(unsafe { KBox::from_raw(last.as_ptr()) });
            }
        }
    }

    /// The right to replace the value of an [`Rcu`].
    pub(crate) struct Writer<'a, T: Send + Sync> {
        rcu: &'a Rcu<T>,
        /// What the thread's allocations were allowed before.
        allocation: c_uint,
        _lock: MutexGuard<'a, ()>,
    }

    impl<T: Send + Sync> Drop for Writer<'_, T> {
        fn drop(&mut self) {
            // SAFETY: It is what `lock` was given, on this thread.
            unsafe { abi::helper_memalloc_noio_restore(self.allocation) };
        }
    }

    impl<T: Send + Sync> Writer<'_, T> {
        /// Returns the value.
        pub(crate) fn get(&self) -> Option<&T> {
            // SAFETY: The value stays current while `self` is borrowed: nothing but `replace`,
            // which needs it mutably and is kept out of other threads by the lock, replaces it.
            let node = unsafe { self.rcu.current.load(Ordering::Relaxed).as_ref() };
            node.map(|node| &node.value)
        }

        /// Puts `value` in the place of the old one, which is freed when those who may be reading it have ended:
        /// `bytes` of memory.
        pub(crate) fn replace(&mut self, value: RcuBox<T>, bytes: usize) {
            let new = KBox::into_raw(value.0);
            let old = self.rcu.current.swap(new, Ordering::AcqRel);
            if let Some(old) = NonNull::new(old) {
                // SAFETY: By the type's invariants the pointer came from a box.
                RcuBox(unsafe { KBox::from_raw(old.as_ptr()) }).retire(bytes);
            }
        }
    }
}

/// Packed entries that maps read while one writer at a time writes them.
mod entries {
    use core::sync::atomic::{AtomicU32, Ordering};
    use kernel::{
        alloc::AllocError,
        prelude::*, //
    };

    /// Entries of a power of two bits, as many to a 32-bit word as fit, the first lowest.
    ///
    /// The atomics are core's, for a map's loads are inlined with them; those of the kernel crate are
    /// calls of C functions in a module.
    ///
    /// # Invariants
    ///
    /// `words` has room for the first `published` entries of `width` bits.
    pub(crate) struct Entries {
        /// One more than the last entry that was written.
        published: AtomicU32,
        width: u32,
        words: KVVec<AtomicU32>,
    }

    impl Entries {
        /// Makes room for none.
        pub(crate) fn none() -> Self {
            Self {
                published: AtomicU32::new(0),
                width: 1,
                words: KVVec::new(),
            }
        }

        /// Allocates `words` words for entries of `width` bits, a power of two up to 32. No entry is published.
        pub(crate) fn new(width: u32, words: usize) -> Result<Self, AllocError> {
            let mut entries = Self::none();
            entries.width = width;
            entries.words = KVVec::with_capacity(words, GFP_KERNEL)?;
            let words = &mut entries.words;
            while words.push_within_capacity(AtomicU32::new(0)).is_ok() {}
            Ok(entries)
        }

        /// Returns the words; [`Self::place`] says where in them an entry is.
        pub(crate) fn words(&self) -> &[AtomicU32] {
            &self.words
        }

        /// Returns which word holds the entry at `index`, and by how many bits it is shifted there.
        pub(crate) fn place(&self, index: u32) -> (usize, u32) {
            let bit = index.wrapping_mul(self.width);
            ((bit / u32::BITS) as usize, bit % u32::BITS)
        }

        /// Returns how many entries readers see.
        pub(crate) fn published(&self) -> u32 {
            self.published.load(Ordering::Acquire)
        }

        /// Makes the entries before `end`, which must have been written, visible to readers.
        pub(crate) fn publish(&self, end: u32) {
            let in_word = u32::BITS.checked_div(self.width).unwrap_or(0);
            let end = end.min((self.words.len() as u32).saturating_mul(in_word));
            if end > self.published.load(Ordering::Relaxed) {
                // After the entries, for readers that see it.
                self.published.store(end, Ordering::Release);
            }
        }

        /// Returns a word in whose lowest bits the entry at `index` is, and how many entries from this one on are
        /// published; nothing if it is not. Those behind it in its word follow.
        pub(crate) fn get(&self, index: u32) -> Option<(u32, u32)> {
            let published = self.published();
            if index >= published {
                return None;
            }
            let (word, shift) = self.place(index);
            // SAFETY: By the type's invariants there is a word for each entry that is published.
            let word = unsafe { self.words.get_unchecked(word) };
            let word = word.load(Ordering::Relaxed).wrapping_shr(shift);
            Some((word, published - index))
        }
    }
}

/// Generic netlink families of one command with one attribute, for userland from before the kernel
/// looked closely at what it was sent.
///
/// C header: [`include/net/genetlink.h`](srctree/include/net/genetlink.h)
mod genl {
    use super::abi;
    use core::{
        mem::{size_of, size_of_val, zeroed},
        ptr::NonNull,
        slice, //
    };
    use kernel::{
        bindings,
        container_of,
        error::{from_result, to_result},
        ffi::{c_int, c_uint, c_void},
        prelude::*,
        transmute::AsBytes,
        types::Opaque, //
    };

    /// The type of the attribute, the only one that a family here has.
    pub(crate) const ATTRIBUTE: usize = 1;

    /// Bytes of an attribute before its payload (`NLA_HDRLEN`).
    pub(crate) const ATTRIBUTE_HEADER_LEN: usize = size_of::<bindings::nlattr>();

    /// A generic netlink family.
    pub(crate) trait Family: Sized + Send + Sync {
        /// The name by which userland finds the family.
        const NAME: &'static CStr;

        /// The family's version.
        const VERSION: u8;

        /// The command.
        const COMMAND: u8;

        /// Bytes that the attribute's payload may have at most.
        const MAX_LEN: u16;

        /// Handles the command, which takes `CAP_NET_ADMIN` to send.
        ///
        /// Commands come from the initial network namespace only, several at a time perhaps.
        fn handle(&self, request: &Request<'_>) -> Result;
    }

    /// A family that userland can find. Dropping it removes the family, after the command that is
    /// being handled.
    #[pin_data(PinnedDrop)]
    pub(crate) struct Registration<F: Family> {
        handler: F,
        #[pin]
        family: Opaque<abi::genl_family>,
    }

    // SAFETY: A registration may be undone on any thread, and the handler may be moved to it.
    unsafe impl<F: Family> Send for Registration<F> {}

    // SAFETY: Once registered, `family` is only read here.
    unsafe impl<F: Family> Sync for Registration<F> {}

    impl<F: Family> Registration<F> {
        const POLICIES: &'static [abi::nla_policy] = &{
            // SAFETY: All fields are integers, or pointers that may be null.
            let mut policies: [abi::nla_policy; ATTRIBUTE + 1] = unsafe { zeroed() };
            policies[ATTRIBUTE].type_ = abi::NLA_BINARY as u8;
            policies[ATTRIBUTE].len = F::MAX_LEN;
            policies
        };

        const COMMANDS: &'static [abi::genl_small_ops] = &[abi::genl_small_ops {
            cmd: F::COMMAND,
            flags: abi::GENL_ADMIN_PERM as u8,
            validate: abi::genl_validate_flags_GENL_DONT_VALIDATE_STRICT as u8,
            doit: Some(Self::doit_callback),
            dumpit: None,
            internal_flags: 0,
        }];

        /// Registers the family.
        pub(crate) fn new(module: &'static ThisModule, handler: F) -> impl PinInit<Self, Error> {
            try_pin_init!(Self {
                handler,
                family <- Opaque::try_ffi_init(move |slot: *mut abi::genl_family| {
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(Self::family(module)) };
                    // SAFETY: The family is complete, and pinned until it is unregistered.
                    to_result(unsafe { abi::helper_genl_register_family(slot) })
                        .inspect_err(|e| pr_err!("genl_register_family() failed {}\n", e.to_errno()))
                }),
            })
        }

        fn family(module: &'static ThisModule) -> abi::genl_family {
            let mut family = abi::genl_family {
                version: c_uint::from(F::VERSION),
                maxattr: ATTRIBUTE as c_uint,
                policy: Self::POLICIES.as_ptr(),
                small_ops: Self::COMMANDS.as_ptr(),
                n_small_ops: 1,
                // No command is new enough for the kernel to check its header's reserved field.
                resv_start_op: F::COMMAND + 1,
                module: module.as_ptr(),
                ..Default::default()
            };
            // Else a command that waits would keep all other families waiting.
            family.set_parallel_ops(1);
            let name = F::NAME.to_bytes_with_nul();
            family.name[..name.len()].copy_from_slice(name);
            family
        }

        /// Returns what handles the commands.
        pub(crate) fn handler(&self) -> &F {
            &self.handler
        }

        /// Returns the family's number.
        pub(crate) fn id(&self) -> c_int {
            // SAFETY: The number stays as it is while the family is registered.
            unsafe { (*self.family.get()).id }
        }

        /// # Safety
        ///
        /// Called by generic netlink only, with a message for this family.
        unsafe extern "C" fn doit_callback(
            _skb: *mut bindings::sk_buff,
            info: *mut abi::genl_info,
        ) -> c_int {
            // SAFETY: The function only reads a pointer, which is there while a message is handled.
            let family = unsafe { abi::helper_genl_family() };
            // SAFETY: The family is the one embedded in a registration, whose drop waits for this
            // function.
            let registration = unsafe {
                let family = Opaque::cast_from(family).cast_mut();
                &*container_of!(family, Self, family)
            };
            let request = Request {
                // SAFETY: `info` is valid while the message is handled.
                info: unsafe { &*info },
                family,
                command: F::COMMAND,
            };
            from_result(|| registration.handler.handle(&request).map(|()| 0))
        }
    }

    #[pinned_drop]
    impl<F: Family> PinnedDrop for Registration<F> {
        fn drop(self: Pin<&mut Self>) {
            // SAFETY: `new` registered it.
            unsafe { abi::genl_unregister_family(self.family.get()) };
        }
    }

    /// A command from userland.
    pub(crate) struct Request<'a> {
        info: &'a abi::genl_info,
        family: *const abi::genl_family,
        command: u8,
    }

    impl Request<'_> {
        /// Returns the payload of the command's attribute, if it has the attribute.
        pub(crate) fn attribute(&self) -> Option<&[u8]> {
            // SAFETY: Generic netlink leaves a pointer for every type up to the family's highest.
            let attribute = NonNull::new(unsafe { *self.info.attrs.add(ATTRIBUTE) })?;
            // SAFETY: Generic netlink has checked the attribute's length, which counts its header,
            // and the message stays as it is while it is handled.
            unsafe {
                let len = usize::from((*attribute.as_ptr()).nla_len);
                let len = len.saturating_sub(ATTRIBUTE_HEADER_LEN);
                let payload = attribute.as_ptr().cast::<u8>().add(ATTRIBUTE_HEADER_LEN);
                Some(slice::from_raw_parts(payload, len))
            }
        }

        /// Allocates the answer, with room for one attribute that holds a `T`.
        pub(crate) fn reply<T: AsBytes>(&self) -> Result<Reply> {
            let room = ATTRIBUTE_HEADER_LEN + size_of::<T>();
            // SAFETY: The function takes any length that memory can be had for.
            let skb = NonNull::new(unsafe { abi::helper_genlmsg_new(room) }).ok_or(ENOMEM)?;
            let mut reply = Reply {
                skb,
                header: core::ptr::null_mut(),
                portid: self.info.snd_portid,
            };
            // SAFETY: The buffer is ours, and the family is registered.
            reply.header = unsafe {
                abi::genlmsg_put(
                    skb.as_ptr(),
                    0,
                    self.info.snd_seq,
                    self.family,
                    0,
                    self.command,
                )
            };
            if reply.header.is_null() {
                return Err(EMSGSIZE);
            }
            Ok(reply)
        }
    }

    /// An answer that was not sent yet.
    ///
    /// # Invariants
    ///
    /// `skb` is a buffer of ours, and `header` the header of the message in it.
    pub(crate) struct Reply {
        skb: NonNull<bindings::sk_buff>,
        header: *mut c_void,
        portid: u32,
    }

    impl Reply {
        /// Sends the answer with `value` as an attribute of type `NLA_BINARY`.
        pub(crate) fn send<T: AsBytes>(self, value: &T) -> Result {
            let data = core::ptr::from_ref(value).cast();
            // SAFETY: The buffer is ours by the type's invariants, and `value` has no padding.
            to_result(unsafe {
                let len = size_of_val(value) as c_int;
                abi::nla_put(self.skb.as_ptr(), abi::NLA_BINARY as c_int, len, data)
            })?;
            let reply = core::mem::ManuallyDrop::new(self);
            // SAFETY: The buffer is ours, with the header in it, by the type's invariants; sending
            // takes it from us, whether it succeeds or not.
            to_result(unsafe {
                abi::helper_genlmsg_end(reply.skb.as_ptr(), reply.header);
                abi::helper_genlmsg_unicast(reply.skb.as_ptr(), reply.portid)
            })
        }
    }

    impl Drop for Reply {
        fn drop(&mut self) {
            // SAFETY: The buffer is ours by the type's invariants.
            unsafe { abi::helper_nlmsg_free(self.skb.as_ptr()) };
        }
    }

    /// The file `/sys/module/NAME/familyid`, from which userland reads a family's number. Dropping it removes the
    /// file, after those who read it.
    ///
    /// A module has one at most.
    pub(crate) struct IdFile {
        module: &'static ThisModule,
    }

    impl IdFile {
        /// Makes the file, for the family whose number is `id`.
        pub(crate) fn new(module: &'static ThisModule, id: c_int) -> Result<Self> {
            // SAFETY: The module has a kobject while it is loaded.
            to_result(unsafe { abi::helper_create_familyid(module.as_ptr(), id) }).inspect_err(
                |e| {
                    pr_err!("/sys/module/.../familyid create failed {}\n", e.to_errno());
                },
            )?;
            Ok(Self { module })
        }
    }

    impl Drop for IdFile {
        fn drop(&mut self) {
            // SAFETY: `new` made the file, and the module is still loaded.
            unsafe { abi::helper_remove_familyid(self.module.as_ptr()) };
        }
    }
}

/// Entries of a chunk.
const CHUNK_ENTRIES: u32 = 1 << abi::CHUNK_PTE_SHIFT;

static_assert!(CHUNK_ENTRIES as u64 == abi::CHUNK_PTE_COUNT as u64);

/// How entries are packed into 32-bit words.
#[derive(Clone, Copy, PartialEq)]
struct Geometry {
    /// Bits of an entry, up to 32. In a message as many entries as go into a word are in one.
    pte_bits: NonZeroU32,
    /// As many ones.
    mask: u32,
    /// Bits that an entry has for itself in a chunk: the first power of two not below `pte_bits`, for no
    /// division is needed then to find it. This is the power.
    width_log2: u32,
    /// A chunk's word whose entries are all 1.
    ones: u32,
}

impl Geometry {
    /// Entries of one bit.
    const NARROWEST: Self = Self {
        pte_bits: NonZeroU32::MIN,
        mask: 1,
        width_log2: 0,
        ones: u32::MAX,
    };

    /// Returns how entries of `pte_bits` bits are packed, if there can be such: of 1 to 32.
    fn new(pte_bits: u32) -> Option<Self> {
        let width = pte_bits.checked_next_power_of_two()?;
        Some(Self {
            pte_bits: NonZeroU32::new(pte_bits)?,
            mask: Self::ones_below(pte_bits)?,
            width_log2: width.trailing_zeros(),
            ones: u32::MAX.checked_div(Self::ones_below(width)?)?,
        })
    }

    /// Returns a word whose lowest `bits` bits, 1 to 32, are set.
    fn ones_below(bits: u32) -> Option<u32> {
        u32::MAX.checked_shr(u32::BITS.checked_sub(bits)?)
    }

    /// Returns the geometry where no upload says it: for a line of the kernel's own as few bits an entry as
    /// that takes, else a power of two of them, as swupload does.
    fn of_shape(shape: Shape) -> Self {
        let bits = u32::BITS - shape.dev_count.saturating_sub(1).leading_zeros();
        // One device takes no bit at all.
        let least = Self::new(bits).unwrap_or(Self::NARROWEST);
        match shape.line {
            Line::V3 => Self::new(least.width()).unwrap_or(least),
            Line::InTree => least,
        }
    }

    /// Returns how many entries a word of a message has.
    fn fields(self) -> NonZeroU32 {
        NonZeroU32::new(u32::BITS / self.pte_bits).unwrap_or(NonZeroU32::MIN)
    }

    /// Returns the words that so many entries take in a message.
    fn words(self, entries: u32) -> usize {
        let fields = self.fields();
        (entries / fields) as usize + usize::from(entries % fields != 0)
    }

    /// Returns the bits that an entry has in a chunk.
    fn width(self) -> u32 {
        1_u32.wrapping_shl(self.width_log2)
    }

    /// Returns the words that a chunk takes.
    fn chunk_words(self) -> usize {
        (CHUNK_ENTRIES / u32::BITS) as usize * self.width() as usize
    }

    /// Whether a message's words are as a chunk's.
    fn is_the_same_in_chunks(self) -> bool {
        self.width() == self.pte_bits.get()
    }

    /// Returns the entry of `word` that is shifted by so many bits.
    fn entry(self, word: u32, shift: u32) -> u32 {
        word.wrapping_shr(shift) & self.mask
    }

    /// Returns how many entries of a chunk's word are `entry`, from its lowest one on.
    fn same(self, word: u32, entry: u32) -> u32 {
        let differing = word ^ entry.wrapping_mul(self.ones);
        differing.trailing_zeros().wrapping_shr(self.width_log2)
    }

    /// Returns how many entries, from the one at `index` on, a chunk's word has.
    fn rest_of_word(self, index: u32) -> u32 {
        let all = u32::BITS.wrapping_shr(self.width_log2);
        all.wrapping_sub(index & all.wrapping_sub(1))
    }
}

/// `CHUNK_ENTRIES` entries of a page table, or none: so a map need not ask whether there is a chunk.
struct Chunk {
    entries: Entries,
    /// I/Os that fell into it.
    hits: dm::Count,
}

impl Chunk {
    fn new(geometry: Geometry, hits: dm::Count) -> Result<Self, AllocError> {
        let entries = Entries::new(geometry.width(), geometry.chunk_words())?;
        Ok(Self { entries, hits })
    }

    /// Returns the placeholder for a chunk that was not allocated.
    fn missing(hits: dm::Count) -> Self {
        let entries = Entries::none();
        Self { entries, hits }
    }

    fn is_missing(&self) -> bool {
        self.entries.words().is_empty()
    }

    /// Returns the bytes of memory that a chunk takes.
    fn bytes(geometry: Geometry) -> usize {
        size_of::<Self>() + geometry.chunk_words() * size_of::<u32>()
    }

    /// Replaces these entries by the next values, as far as there are any. One writer at a time may do so; a reader
    /// sees each entry as it was or as it is.
    fn write(
        &self,
        geometry: Geometry,
        entries: Range<u32>,
        values: &mut impl Iterator<Item = u32>,
    ) {
        let mut end = 0;
        for (index, value) in entries.zip(values) {
            let (word, shift) = self.entries.place(index);
            if let Some(word) = self.entries.words().get(word) {
                let others = word.load(Ordering::Relaxed) & !(geometry.mask << shift);
                word.store(others | (value << shift), Ordering::Relaxed);
                end = index.saturating_add(1);
            }
        }
        self.entries.publish(end);
    }

    /// Replaces the entries from `first` on, which begins a word, with those in the words, likewise.
    fn write_words(&self, geometry: Geometry, first: u32, words: &[u8]) {
        let count = (words.len() / size_of::<u32>()) as u32;
        let count = count.saturating_mul(geometry.fields().get());
        let words = words.chunks_exact(size_of::<u32>());
        for (place, word) in self.words_from(first).iter().zip(words) {
            let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            place.store(word, Ordering::Relaxed);
        }
        self.entries.publish(first.saturating_add(count));
    }

    /// Returns the words from the one that the entry at `index` is in.
    fn words_from(&self, index: u32) -> &[AtomicU32] {
        let (place, _) = self.entries.place(index);
        self.entries.words().get(place..).unwrap_or_default()
    }

    /// Returns the entry at `index`, published or not, and 0 where there is none.
    fn entry(&self, geometry: Geometry, index: u32) -> u32 {
        let (word, shift) = self.entries.place(index);
        let word = self.entries.words().get(word);
        word.map_or(0, |word| {
            geometry.entry(word.load(Ordering::Relaxed), shift)
        })
    }

    /// Returns how many entries, one after the other from `first` on, which begins a word, and at most `most`, are
    /// `entry`; without that, how many were not uploaded.
    fn same(&self, geometry: Geometry, first: u32, most: u32, entry: Option<u32>) -> u32 {
        let uploaded = self.entries.published();
        let Some(entry) = entry else {
            return if first < uploaded { 0 } else { most };
        };
        let most = most.min(uploaded.saturating_sub(first));
        let mut count = 0_u32;
        for word in self.words_from(first) {
            let same = geometry.same(word.load(Ordering::Relaxed), entry);
            count = count.wrapping_add(same);
            if count >= most || same < geometry.rest_of_word(0) {
                break;
            }
        }
        count.min(most)
    }

    /// Whether no entry was written yet.
    fn is_empty(&self) -> bool {
        self.entries.published() == 0
    }
}

/// A page's entry, and what its word tells of those behind it.
struct Found<'a> {
    chunk: &'a Chunk,
    entry: u32,
    /// Pages from this one on that have the entry.
    run: u32,
    /// Whether there may be more of them.
    is_open: bool,
}

/// A page outside of what was uploaded, in the words of the log.
enum Stray {
    Chunk { number: u64, chunks: usize },
    Entry { index: u32, uploaded: u32 },
    Device { number: u32, offset: u64 },
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk { number, chunks } => write!(f, "Page Table Chunk {number} >= {chunks}"),
            Self::Entry { index, uploaded } => write!(f, "Page Table Entry {index} >= {uploaded}"),
            Self::Device { number, offset } => write!(f, "dev={number}, offset={offset}"),
        }
    }
}

/// A page table: which device owns each page.
///
/// Chunks and counts may be shared with the table that this one replaced, which is there until its
/// last reader is done.
struct PageTable {
    geometry: Geometry,
    /// Entries of the whole table.
    total: u32,
    chunks: KVVec<Arc<Chunk>>,
    /// The placeholder in `chunks` for those that were not allocated.
    missing: Arc<Chunk>,
    /// I/Os that fell into each chunk; those behind the chunks that an upload's table can have share one count.
    hits: Arc<dm::Counters>,
}

impl PageTable {
    /// Chunks that have a count of their own.
    const MAX_HITS: usize = abi::MAX_NUMBER_OF_CHUNKS as usize;

    /// Makes a table without chunks.
    fn new(geometry: Geometry, total: u32) -> Result<Self> {
        let count = chunk_count(total);
        let hits = dm::Counters::new(count.min(Self::MAX_HITS + 1))?;
        let missing = Arc::new(Chunk::missing(dm::Count::of(&hits, 0)), GFP_KERNEL)?;
        Ok(Self {
            geometry,
            total,
            chunks: KVVec::from_elem(missing.clone(), count, GFP_KERNEL)?,
            missing,
            hits,
        })
    }

    /// Makes a table that has the devices take turns.
    fn round_robin(shape: Shape, total: u32) -> Result<dm::RcuBox<Self>> {
        let table = Self::new(Geometry::of_shape(shape), total)?;
        let table = table
            .with_chunks(chunks_of(&(0..total)))
            .map_err(|refusal| refusal.error())?;
        table.write_many(0..total, (0..shape.dev_count).cycle())?;
        Ok(table)
    }

    /// Makes a table that shares the chunks of this one.
    fn share(&self) -> Result<Self> {
        let mut chunks = KVVec::new();
        chunks.extend_from_slice(&self.chunks, GFP_KERNEL)?;
        Ok(Self {
            chunks,
            missing: self.missing.clone(),
            hits: self.hits.clone(),
            ..*self
        })
    }

    /// Makes a table to take the place of `live`, whose chunks it shares; without that, one of this
    /// geometry and size, without chunks. Fails, too, where too much that was replaced is not freed yet.
    fn succeed(live: Option<&Self>, geometry: Geometry, total: u32) -> Result<Self, Refusal> {
        if !dm::Retirement::has_room() {
            return Err(Refusal::NoMemoryForTable);
        }
        live.map_or_else(|| Self::new(geometry, total), Self::share)
            .map_err(|_| Refusal::NoMemoryForTable)
    }

    /// Replaces the table that readers get by `next`. What the two do not share is freed after the last reader of the
    /// old one.
    fn replace(writer: &mut dm::Writer<'_, Self>, next: dm::RcuBox<Self>) {
        let bytes = writer.get().map_or(0, |old| old.bytes_without(&next));
        writer.replace(next, bytes);
    }

    /// Returns the bytes of memory that the table has and does not share with `next`.
    fn bytes_without(&self, next: &Self) -> usize {
        let mut bytes = size_of::<Self>().saturating_add(size_of_val(&*self.chunks));
        if !ptr::eq(&*self.hits, &*next.hits) {
            bytes = bytes.saturating_add(self.hits.bytes());
        }
        let mut others = next.chunks.iter();
        for chunk in self.chunks.iter() {
            let is_shared = others
                .next()
                .is_some_and(|other| ptr::eq(&**chunk, &**other));
            if !is_shared && !chunk.is_missing() {
                bytes = bytes.saturating_add(Chunk::bytes(self.geometry));
            }
        }
        bytes
    }

    /// Returns the entry for `page`, if it was uploaded.
    #[inline(always)]
    fn find(&self, page: u64) -> Option<Found<'_>> {
        let chunk = self.chunks.get((page >> abi::CHUNK_PTE_SHIFT) as usize)?;
        let index = page as u32 % CHUNK_ENTRIES;
        let (word, uploaded) = chunk.entries.get(index)?;
        let entry = self.geometry.entry(word, 0);
        let rest = self.geometry.rest_of_word(index);
        let run = self.geometry.same(word, entry).min(rest);
        Some(Found {
            chunk,
            entry,
            run: run.min(uploaded),
            is_open: run == rest && run <= uploaded,
        })
    }

    /// Returns what is said of a page that [`Self::find`] found no entry for.
    fn stray(&self, page: u64) -> Option<Stray> {
        let number = page >> abi::CHUNK_PTE_SHIFT;
        let Some(chunk) = self.chunks.get(number as usize) else {
            let chunks = self.chunks.len();
            return Some(Stray::Chunk { number, chunks });
        };
        let (index, uploaded) = (page as u32 % CHUNK_ENTRIES, chunk.entries.published());
        (!chunk.is_missing() && index >= uploaded).then_some(Stray::Entry { index, uploaded })
    }

    /// Returns the first page, from `end` on, that has another entry, or the one behind `last`; without an entry, the
    /// first that has one.
    #[inline(never)]
    fn end_of_run(&self, mut end: u64, last: u64, entry: Option<u32>) -> u64 {
        while end <= last {
            let first = end as u32 % CHUNK_ENTRIES;
            let behind = last.wrapping_sub(end);
            let most = behind.min(u64::from(CHUNK_ENTRIES - 1 - first)) as u32 + 1;
            let same = match self.chunks.get((end >> abi::CHUNK_PTE_SHIFT) as usize) {
                Some(chunk) => chunk.same(self.geometry, first, most, entry),
                None if entry.is_none() => most,
                None => 0,
            };
            end = end.wrapping_add(same.into());
            if same < most {
                break;
            }
        }
        end
    }

    /// Returns the page behind those that have the same entry as `page`, or like it none, up to `last`, and what was
    /// found for `page`.
    #[inline]
    fn run(&self, page: u64, last: u64) -> (u64, Option<Found<'_>>) {
        let Some(found) = self.find(page) else {
            return (self.end_of_run(page.wrapping_add(1), last, None), None);
        };
        let mut end = page.wrapping_add(found.run.into());
        if found.is_open && end <= last {
            end = self.end_of_run(end, last, Some(found.entry));
        }
        (end, Some(found))
    }

    /// Counts an I/O that fell into the chunk of `page`, where the table has room for such a chunk.
    fn hit(&self, page: u64) {
        let number = (page >> abi::CHUNK_PTE_SHIFT) as usize;
        if number < self.chunks.len() {
            self.hits.add(number);
        }
    }

    /// Returns the entry for `page`, published or not, and 0 where there is none.
    fn entry(&self, page: u32) -> u32 {
        let chunk = self.chunks.get((page >> abi::CHUNK_PTE_SHIFT) as usize);
        chunk.map_or(0, |chunk| chunk.entry(self.geometry, page % CHUNK_ENTRIES))
    }

    /// Whether the table has these chunks.
    fn has_chunks(&self, chunks: Range<usize>) -> bool {
        let chunks = self.chunks.get(chunks);
        chunks.is_some_and(|chunks| !chunks.iter().any(|chunk| chunk.is_missing()))
    }

    /// Returns the places of these chunks, which fails where the table is not so large.
    fn places(&mut self, chunks: Range<usize>) -> Result<&mut [Arc<Chunk>], Refusal> {
        self.chunks.get_mut(chunks).ok_or(Refusal::NoMemoryForTable)
    }

    /// Frees this chunk, when its last reader is done.
    fn free_chunk(&mut self, number: usize) {
        if let Some(chunk) = self.chunks.get_mut(number) {
            *chunk = self.missing.clone();
        }
    }

    /// Allocates those of these chunks that the table does not have, all or none.
    ///
    /// What no memory can hold is refused first, before the kernel ends processes to make room for it.
    fn add_chunks(&mut self, chunks: Range<usize>) -> Result<(), Refusal> {
        let bytes = Chunk::bytes(self.geometry);
        let places = self.places(chunks.clone())?;
        let missing = places.iter().filter(|chunk| chunk.is_missing());
        let bytes = missing.fold(0_usize, |sum, _| sum.saturating_add(bytes));
        if !dm::is_below_memory(bytes) {
            return Err(Refusal::NoMemoryForTable);
        }
        let added = self.allocate_chunks(chunks.clone());
        if added.is_err() {
            let missing = self.missing.clone();
            // All others have entries.
            for chunk in self.places(chunks)? {
                if chunk.is_empty() {
                    *chunk = missing.clone();
                }
            }
        }
        added
    }

    fn allocate_chunks(&mut self, chunks: Range<usize>) -> Result<(), Refusal> {
        let (geometry, hits) = (self.geometry, self.hits.clone());
        for (number, place) in chunks.clone().zip(self.places(chunks)?) {
            if place.is_missing() {
                dm::go_on().map_err(|_| Refusal::Killed { number })?;
                *place = Chunk::new(geometry, dm::Count::of(&hits, number))
                    .and_then(|chunk| Arc::new(chunk, GFP_KERNEL))
                    .map_err(|_| Refusal::NoMemoryForChunk { number })?;
            }
        }
        Ok(())
    }

    /// Brings the table to where readers can have it, with these chunks.
    fn with_chunks(mut self, chunks: Range<usize>) -> Result<dm::RcuBox<Self>, Refusal> {
        self.add_chunks(chunks)?;
        dm::RcuBox::new(self).map_err(|_| Refusal::NoMemoryForTable)
    }

    /// Writes values for these pages into their chunks, which are all there.
    fn write(&self, pages: Range<u32>, mut values: impl Iterator<Item = u32>) {
        for (chunk, entries) in self.parts(pages) {
            chunk.write(self.geometry, entries, &mut values);
        }
    }

    /// Writes values for so many pages that it may take seconds, likewise. Others get the processor meanwhile; where
    /// the process is killed, this fails with `EINTR`, and the pages from some on stay as they are. May sleep.
    fn write_many(&self, pages: Range<u32>, mut values: impl Iterator<Item = u32>) -> Result {
        for (chunk, entries) in self.parts(pages) {
            dm::go_on()?;
            chunk.write(self.geometry, entries, &mut values);
        }
        Ok(())
    }

    /// Writes the words of an upload's entries, which are as a chunk's, into their chunks, which are all
    /// there.
    fn write_words(&self, pages: Range<u32>, mut words: &[u8]) {
        for (chunk, entries) in self.parts(pages) {
            let count = entries.end.saturating_sub(entries.start);
            let bytes = self.geometry.words(count) * size_of::<u32>();
            let here;
            (here, words) = words.split_at(bytes.min(words.len()));
            chunk.write_words(self.geometry, entries.start, here);
        }
    }

    /// Returns the chunks of these pages, which are all there, and which of their entries these are.
    fn parts(&self, pages: Range<u32>) -> impl Iterator<Item = (&Chunk, Range<u32>)> {
        let numbers = chunks_of(&pages);
        let chunks = self.chunks.get(numbers.clone()).unwrap_or_default();
        numbers.zip(chunks).map(move |(number, chunk)| {
            let start = (number as u32) << abi::CHUNK_PTE_SHIFT;
            let first = pages.start.saturating_sub(start);
            let end = pages.end.saturating_sub(start).min(CHUNK_ENTRIES);
            (&**chunk, first..end)
        })
    }
}

/// Returns the chunks that these pages are in.
fn chunks_of(pages: &Range<u32>) -> Range<usize> {
    let first = (pages.start >> abi::CHUNK_PTE_SHIFT) as usize;
    if pages.is_empty() {
        return first..first;
    }
    first..pages.end.div_ceil(CHUNK_ENTRIES) as usize
}

/// Returns how many chunks a table of so many entries has.
fn chunk_count(total: u32) -> usize {
    (total >> abi::CHUNK_PTE_SHIFT) as usize + 1
}

/// Whose table line a switch was made from. The third argument of the kernel's own is a number, which
/// is no device's path in v3's.
#[derive(Clone, Copy, PartialEq)]
enum Line {
    /// `<dev_count> <page_size> [<dev_path> <offset>]+`: without a page table at first.
    V3,
    /// `<num_paths> <region_size> <num_optional_args> [<dev_path> <offset>]+`: the devices take turns
    /// at first.
    InTree,
}

/// What page tables are made for: one that is good for a switch is good for another of its shape.
#[derive(Clone, Copy, PartialEq)]
struct Shape {
    line: Line,
    /// Devices behind the switch.
    dev_count: u32,
    /// Sectors of a page.
    page_size: NonZeroU32,
}

/// The major and minor number of a mapped device.
type DeviceNumber = (u32, u32);

/// What an upload reaches of a switch device.
#[pin_data]
struct Volume {
    device: DeviceNumber,
    shape: Shape,
    #[pin]
    table: dm::Rcu<PageTable>,
    /// What the last accepted upload said, for the status line.
    #[pin]
    userland: Mutex<[u32; 2]>,
}

impl Volume {
    fn new(device: DeviceNumber, shape: Shape) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            device,
            shape,
            table <- dm::Rcu::new(),
            userland <- new_mutex!([0; 2]),
        })
    }

    /// Whether an upload is for as many devices, and its table as large, as the page table in force.
    fn has_table_of(&self, upload: &Upload<'_>) -> bool {
        let reading = dm::Reading::begin();
        upload.dev_count == self.shape.dev_count
            && self
                .table
                .read(&reading)
                .is_some_and(|table| table.total == upload.total)
    }

    /// Puts an upload into the page table, or leaves everything as it is.
    fn apply(&self, upload: &Upload<'_>) -> Result<(), Refusal> {
        let first = upload.pages.start;
        if upload.frees_chunk() && first % CHUNK_ENTRIES != 0 {
            return Err(Refusal::UnalignedChunk { first });
        }
        let mut writer = self.table.lock();
        let live = writer.get();
        let same = live.filter(|table| {
            upload.dev_count == self.shape.dev_count
                && upload.geometry == table.geometry
                && upload.total == table.total
        });
        let anew = live.is_some() && same.is_none();
        match same {
            Some(table) if !upload.frees_chunk() && table.has_chunks(upload.chunks()) => {
                upload.write(table);
            }
            _ => {
                let mut next = PageTable::succeed(same, upload.geometry, upload.total)?;
                if upload.frees_chunk() {
                    next.free_chunk(upload.chunks().start);
                }
                let next = next.with_chunks(upload.chunks())?;
                upload.write(&next);
                PageTable::replace(&mut writer, next);
            }
        }
        if anew {
            pr_warn!(
                "Reallocating page table due to change in parameters: \
                 Existing page table entries will be freed\n"
            );
        }
        *self.userland.lock() = upload.userland;
        Ok(())
    }

    /// Returns how many chunks the page table has, and the counts of the I/Os that fall into each.
    fn chunk_hits(&self) -> ChunkHits {
        let reading = dm::Reading::begin();
        let table = self.table.read(&reading);
        ChunkHits(table.map(|table| (table.chunks.len(), table.hits.clone())))
    }

    /// Returns these pages of the page table as it is now, for a message to print. What an upload changes in place
    /// before a page is printed is printed as it is then.
    fn page_table(&self, pages: Range<u32>) -> Result<PageList> {
        let writer = self.table.lock();
        Ok(PageList {
            table: writer.get().map(PageTable::share).transpose()?,
            dev_count: self.shape.dev_count,
            userland: *self.userland.lock(),
            pages,
        })
    }

    /// Does what a message's arguments say, one after the other; those in front of one that is
    /// refused stay done.
    ///
    /// Where there is no page table yet, it is made for `pages`, as many of them as one can have.
    fn set_regions<'a>(
        &self,
        pages: u64,
        args: impl Iterator<Item = dm::Text<'a>>,
    ) -> Result<(), MappingError<'a>> {
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        let mut writer = self.table.lock();
        // What readers get once all is done, where the table that they have lacks chunks.
        let mut next = None;
        let mut region = 0;
        let mut outcome = Ok(());
        for arg in args {
            outcome = self.set_region(&writer, &mut next, pages, &mut region, arg);
            if outcome.is_err() {
                break;
            }
        }
        if let Some(next) = next {
            PageTable::replace(&mut writer, next);
        }
        outcome
    }

    /// Does what one argument says, `region` being the last one that was set before.
    fn set_region<'a>(
        &self,
        writer: &dm::Writer<'_, PageTable>,
        next: &mut Option<dm::RcuBox<PageTable>>,
        pages: u32,
        region: &mut u64,
        arg: dm::Text<'a>,
    ) -> Result<(), MappingError<'a>> {
        let table = next.as_deref().or(writer.get());
        let (total, dev_count) = table.map_or((pages, self.shape.dev_count), |table| {
            let nameable = table.geometry.mask.saturating_add(1);
            (table.total, self.shape.dev_count.min(nameable))
        });
        match Mapping::parse(arg).ok_or(MappingError::Argument { arg })? {
            Mapping::Device { at, device } => {
                let at = at.unwrap_or(region.saturating_add(1));
                if at >= u64::from(total) {
                    return Err(MappingError::Region { region: at, total });
                }
                if device >= u64::from(dev_count) {
                    return Err(MappingError::Device { device, dev_count });
                }
                let pages = at as u32..(at as u32).saturating_add(1);
                self.make_chunks(writer, next, total, &pages)?;
                if let Some(table) = next.as_deref().or(writer.get()) {
                    table.write(pages, iter::once(device as u32));
                }
                *region = at;
            }
            Mapping::Cycle { length, count } => {
                if length == 0 || length - 1 > *region {
                    let region = *region;
                    return Err(MappingError::Cycle { length, region });
                }
                let last = region.saturating_add(count);
                if last >= u64::from(total) {
                    return Err(MappingError::Regions {
                        region: *region,
                        count,
                        total,
                    });
                }
                let behind = |page: u64| (page as u32).saturating_add(1);
                let pages = behind(*region)..behind(last);
                if pages.is_empty() {
                    return Ok(());
                }
                self.make_chunks(writer, next, total, &pages)?;
                if let Some(table) = next.as_deref().or(writer.get()) {
                    let length = length as u32;
                    let earlier = pages.clone().map(|page| page.saturating_sub(length));
                    table
                        .write_many(pages, earlier.map(|page| table.entry(page)))
                        .map_err(|_| MappingError::Killed { arg })?;
                }
                *region = last;
            }
        }
        Ok(())
    }

    /// Sees to it that there are chunks for these pages: in the table that readers have, or in `next`,
    /// which is made for that, with `total` entries where there is no table.
    fn make_chunks(
        &self,
        writer: &dm::Writer<'_, PageTable>,
        next: &mut Option<dm::RcuBox<PageTable>>,
        total: u32,
        pages: &Range<u32>,
    ) -> Result<(), Refusal> {
        let chunks = chunks_of(pages);
        match (&mut *next, writer.get()) {
            (Some(table), _) => table.add_chunks(chunks),
            (None, Some(live)) if live.has_chunks(chunks.clone()) => Ok(()),
            (None, live) => {
                let table = PageTable::succeed(live, Geometry::of_shape(self.shape), total)?;
                *next = Some(table.with_chunks(chunks)?);
                Ok(())
            }
        }
    }
}

/// The answer to a message.
enum Answer {
    ChunkHits(ChunkHits),
    PageList(PageList),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChunkHits(hits) => hits.fmt(f),
            Self::PageList(list) => list.fmt(f),
        }
    }
}

/// The answer to the message `chunk_hits`: the number of chunks, and of the I/Os that fell into each of those that an
/// upload's table could have. Without a page table it is 0.
struct ChunkHits(Option<(usize, Arc<dm::Counters>)>);

impl fmt::Display for ChunkHits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((chunks, hits)) = &self.0 else {
            return f.write_str("0");
        };
        write!(f, "{chunks}")?;
        for number in 0..(*chunks).min(PageTable::MAX_HITS) {
            write!(f, " {}", hits.sum(number))?;
        }
        Ok(())
    }
}

/// The answer to the message `page_table`: pages and their entries, as a file that swupload takes. Its first line, a
/// comment, has the options with which swupload makes the same table.
struct PageList {
    /// A table that shares the chunks of the one in force, where there is one.
    table: Option<PageTable>,
    dev_count: u32,
    userland: [u32; 2],
    /// What is printed, as far as the table has it.
    pages: Range<u32>,
}

impl fmt::Display for PageList {
    /// Gives others the processor, and fails where the process is killed. May sleep.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(table) = &self.table else {
            return f.write_str("# no page table\n");
        };
        let (pte_bits, total) = (table.geometry.pte_bits, table.total);
        let dev_count = self.dev_count.min(table.geometry.mask.saturating_add(1));
        let [first, second] = self.userland;
        writeln!(
            f,
            "# swupload -b {pte_bits} -n {dev_count} -t {total} -u {first:08x},{second:08x}"
        )?;
        let mut page = u64::from(self.pages.start);
        let end = u64::from(self.pages.end.min(total));
        let mut tokens = Tokens::new(f, table.geometry.fields(), page);
        while page < end {
            dm::go_on().map_err(|_| fmt::Error)?;
            let chunk_end = end.min((page | u64::from(CHUNK_ENTRIES - 1)).saturating_add(1));
            while page < chunk_end {
                let found;
                (page, found) = table.run(page, chunk_end - 1);
                page = page.min(chunk_end);
                tokens.add(found.map(|found| found.entry), page)?;
            }
        }
        tokens.finish()
    }
}

/// Writes the tokens of a file that swupload takes.
struct Tokens<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    /// Entries of a word: at a multiple of them swupload can go on behind a gap.
    fields: NonZeroU32,
    /// How many were written.
    count: u32,
    /// The page that the next one would be for.
    next: u64,
    /// Pages that are not written yet, which have the same entry or none.
    pages: Range<u64>,
    entry: Option<u32>,
}

impl<'a, 'b> Tokens<'a, 'b> {
    /// Tokens of a line.
    const A_LINE: u32 = 32;

    /// Begins with the entry of `page`.
    fn new(f: &'a mut fmt::Formatter<'b>, fields: NonZeroU32, page: u64) -> Self {
        Self {
            f,
            fields,
            count: 0,
            next: 0,
            pages: page..page,
            entry: None,
        }
    }

    /// Adds the pages before `end` that were not added yet, which have the same entry or none.
    fn add(&mut self, entry: Option<u32>, end: u64) -> fmt::Result {
        if entry != self.entry {
            self.write_pages()?;
            self.pages.start = self.pages.end;
            self.entry = entry;
        }
        self.pages.end = end;
        Ok(())
    }

    fn write_pages(&mut self) -> fmt::Result {
        let (Some(entry), Range { mut start, end }) = (self.entry, self.pages.clone()) else {
            return Ok(());
        };
        if start != self.next {
            // A page that has no entry is where one with a 0 is.
            let fields = NonZeroU64::from(self.fields);
            let word = match start % fields {
                0 => start,
                past => start.saturating_add(fields.get() - past),
            };
            if entry == 0 && word <= end {
                start = word;
            }
            if start == end {
                return Ok(());
            }
            self.write(fmt!("@{start}"))?;
        }
        self.next = end;
        match end.saturating_sub(start) {
            1 => self.write(fmt!("{entry:x}")),
            count => self.write(fmt!("{entry:x}*{count}")),
        }
    }

    fn write(&mut self, token: fmt::Arguments<'_>) -> fmt::Result {
        if self.count > 0 {
            let begins_line = self.count % Self::A_LINE == 0;
            self.f.write_str(if begins_line { "\n" } else { " " })?;
        }
        self.count = self.count.saturating_add(1);
        self.f.write_fmt(token)
    }

    /// Writes what is left, and ends the line.
    fn finish(mut self) -> fmt::Result {
        self.write_pages()?;
        self.f.write_str(if self.count > 0 { "\n" } else { "" })
    }
}

/// An argument of the message `set_region_mappings`. Regions are the kernel's word for pages; numbers
/// are in hex.
enum Mapping {
    /// `REGION:DEVICE`, or `:DEVICE` for the region behind the last one.
    Device { at: Option<u64>, device: u64 },
    /// `RLENGTH,COUNT`: as many regions behind the last one are as those `length` in front of them.
    Cycle { length: u64, count: u64 },
}

impl Mapping {
    fn parse(arg: dm::Text<'_>) -> Option<Self> {
        match arg.bytes() {
            [b'R' | b'r', rest @ ..] => {
                let (length, count) = Self::two_numbers(rest, b',')?;
                Some(Self::Cycle {
                    length: length?,
                    count,
                })
            }
            rest => {
                let (at, device) = Self::two_numbers(rest, b':')?;
                Some(Self::Device { at, device })
            }
        }
    }

    /// Returns the numbers in front of the separator, where there is one, and behind it.
    fn two_numbers(text: &[u8], separator: u8) -> Option<(Option<u64>, u64)> {
        let (first, second) = split_once(text, |&byte| byte == separator)?;
        let first = match first {
            [] => None,
            digits => Some(wrapped_number(digits, 16)?),
        };
        Some((first, wrapped_number(second, 16)?))
    }
}

/// Why an argument of `set_region_mappings` was refused, in the words of the kernel's own target, or not done to its
/// end.
enum MappingError<'a> {
    Argument { arg: dm::Text<'a> },
    Cycle { length: u64, region: u64 },
    Regions { region: u64, count: u64, total: u32 },
    Region { region: u64, total: u32 },
    Device { device: u64, dev_count: u32 },
    NoMemory(Refusal),
    Killed { arg: dm::Text<'a> },
}

impl MappingError<'_> {
    fn errno(&self) -> Error {
        match self {
            Self::NoMemory(refusal) => refusal.error(),
            Self::Killed { .. } => EINTR,
            _ => EINVAL,
        }
    }
}

impl From<Refusal> for MappingError<'_> {
    fn from(refusal: Refusal) -> Self {
        Self::NoMemory(refusal)
    }
}

impl fmt::Display for MappingError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const INVALID: &str = "invalid set_region_mappings";
        match self {
            Self::Argument { arg } => {
                write!(f, "{INVALID} argument: '")?;
                arg.fmt(f)?;
                f.write_str("'")
            }
            Self::Cycle { length, region } => {
                let before = length.wrapping_sub(1);
                write!(f, "{INVALID} cycle length: {before} > {region}")
            }
            Self::Regions {
                region,
                count,
                total,
            } => write!(f, "{INVALID} region number: {region} + {count} >= {total}"),
            Self::Region { region, total } => {
                write!(f, "{INVALID} region number: {region} >= {total}")
            }
            Self::Device { device, dev_count } => {
                write!(f, "{INVALID} device: {device} >= {dev_count}")
            }
            Self::NoMemory(refusal) => refusal.fmt(f),
            Self::Killed { arg } => {
                f.write_str("set_region_mappings was killed in '")?;
                arg.fmt(f)?;
                f.write_str("'; the arguments before that are done")
            }
        }
    }
}

/// Where a switch stands: in which table, and from which sector of the mapped device on. No other is
/// there.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    table: usize,
    begin: u64,
}

/// What the table of a switch is to its device.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Not live yet.
    Loaded,
    Live,
    /// Not live any more.
    Replaced,
}

/// A switch in the list of all of them.
struct Entry {
    place: Place,
    state: State,
    /// Pages of the switch.
    pages: u64,
    /// What the switch uses when its table is live.
    volume: Arc<Volume>,
    /// Where `volume` is that of the live table, too: the one that takes its place with the first upload that fits
    /// this switch, and not the live one.
    own: Option<Arc<Volume>>,
    next: Link,
}

impl Entry {
    fn is_at(&self, device: DeviceNumber, place: Place) -> bool {
        self.volume.device == device && self.place == place
    }

    /// Whether an upload is for as many devices and pages as the switch has.
    fn fits(&self, upload: &Upload<'_>) -> bool {
        upload.dev_count == self.volume.shape.dev_count && u64::from(upload.total) == self.pages
    }
}

/// The rest of the list.
type Link = Option<KBox<Entry>>;

/// The volumes that uploads can be for.
#[pin_data]
struct Volumes {
    /// Of each switch an entry, in the order in which they were constructed.
    #[pin]
    first: Mutex<Link>,
}

impl Volumes {
    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            first <- new_mutex!(None),
        })
    }

    /// Adds a switch with its own volume, or with the one that is at the same place of the live table, or, where no
    /// table is live, of the loaded one, when both are of one shape and of v3: so a page table outlives a reload.
    /// Returns the one that it has.
    ///
    /// Allocates before it takes the lock: reclaim may need a suspended switch, and the lock is needed to resume it.
    fn add(&self, place: Place, pages: u64, own: Arc<Volume>) -> Result<Arc<Volume>> {
        let entry = Entry {
            place,
            state: State::Loaded,
            pages,
            volume: own,
            own: None,
            next: None,
        };
        let mut entry = KBox::new(entry, GFP_KERNEL)?;
        let mut first = self.first.lock();
        let device = entry.volume.device;
        let table = Self::live(&first, device).map(|live| live.place.table);
        let shared = Self::entries(&first, device).find(|other| {
            Some(other.place.table) == table
                && other.place.begin == place.begin
                && other.volume.shape == entry.volume.shape
                && other.volume.shape.line == Line::V3
        });
        if let Some(shared) = shared {
            entry.own = Some(replace(&mut entry.volume, shared.volume.clone()));
        }
        let volume = entry.volume.clone();
        let mut link = &mut *first;
        while let Some(entry) = link {
            link = &mut entry.next;
        }
        *link = Some(entry);
        Ok(volume)
    }

    /// Removes the entry that was added for a place of the device, if there is one.
    fn remove(&self, device: DeviceNumber, place: Place) {
        let mut first = self.first.lock();
        let mut link = &mut *first;
        while link
            .as_ref()
            .is_some_and(|entry| !entry.is_at(device, place))
        {
            link = match link {
                Some(entry) => &mut entry.next,
                None => return,
            };
        }
        if let Some(mut entry) = link.take() {
            *link = entry.next.take();
        }
    }

    /// Makes the table of a place the live one of its device. Returns the volume of the switch that is there.
    fn make_live(&self, device: DeviceNumber, place: Place) -> Option<Arc<Volume>> {
        let mut first = self.first.lock();
        let mut volume = None;
        let mut next = first.as_deref_mut();
        while let Some(entry) = next {
            if entry.volume.device == device {
                if entry.place.table == place.table {
                    entry.state = State::Live;
                } else if entry.state == State::Live {
                    entry.state = State::Replaced;
                }
            }
            if entry.is_at(device, place) {
                volume = Some(entry.volume.clone());
            }
            next = entry.next.as_deref_mut();
        }
        volume
    }

    /// Returns the device's entries.
    fn entries(first: &Link, device: DeviceNumber) -> impl Iterator<Item = &Entry> {
        iter::successors(first.as_deref(), |entry| entry.next.as_deref())
            .filter(move |entry| entry.volume.device == device)
    }

    /// Returns the first entry of the device's live table, or, where none is live, of the loaded one.
    fn live(first: &Link, device: DeviceNumber) -> Option<&Entry> {
        let in_state = |state| Self::entries(first, device).find(move |entry| entry.state == state);
        in_state(State::Live).or_else(|| in_state(State::Loaded))
    }

    /// Returns the first entry of a loaded table that an upload fits: of the one that was loaded last. More than one is
    /// there while the next one is being constructed.
    fn loaded<'a>(first: &'a Link, device: DeviceNumber, upload: &Upload<'_>) -> Option<&'a Entry> {
        let entries = || Self::entries(first, device);
        let is_first = |entry: &&Entry| {
            let mut of_table = entries().filter(|other| other.place.table == entry.place.table);
            of_table.next().is_some_and(|other| ptr::eq(other, *entry))
        };
        entries()
            .filter(|entry| entry.state == State::Loaded && entry.fits(upload))
            .filter(is_first)
            .last()
    }

    /// Returns the volume that an upload is for, and whether a loaded switch does not use it yet: that of the live
    /// table, unless the upload fits a loaded one alone.
    fn find(&self, device: DeviceNumber, upload: &Upload<'_>) -> Option<(Arc<Volume>, bool)> {
        let first = self.first.lock();
        let live = Self::live(&first, device)?;
        if !live.fits(upload) && !live.volume.has_table_of(upload) {
            if let Some(loaded) = Self::loaded(&first, device, upload) {
                let own = loaded.own.as_ref();
                return Some((own.unwrap_or(&loaded.volume).clone(), own.is_some()));
            }
        }
        Some((live.volume.clone(), false))
    }

    /// Has the loaded switch whose own volume this is use it. Returns false where its table became live without it.
    fn use_own(&self, device: DeviceNumber, volume: &Volume) -> bool {
        let is_it = |own: &mut Arc<Volume>| ptr::eq(&**own, volume);
        let mut first = self.first.lock();
        let mut next = first.as_deref_mut();
        while let Some(entry) = next {
            if entry.volume.device == device && entry.own.as_mut().is_some_and(is_it) {
                if entry.state != State::Loaded {
                    return false;
                }
                if let Some(own) = entry.own.take() {
                    entry.volume = own;
                }
            }
            next = entry.next.as_deref_mut();
        }
        true
    }

    /// Puts an upload into its volume's page table, or leaves everything as it is.
    fn upload(&self, upload: &Upload<'_>) -> Result<(), Refusal> {
        let Upload { major, minor, .. } = *upload;
        let device = (major, minor);
        loop {
            let (volume, is_own) = self
                .find(device, upload)
                .ok_or(Refusal::NoDevice { major, minor })?;
            volume.apply(upload)?;
            // Where the table became live meanwhile, the upload comes after that.
            if !is_own || self.use_own(device, &volume) {
                return Ok(());
            }
        }
    }
}

/// Divides by the page size, in sectors, with a multiplication.
struct PageSize {
    sectors: u64,
    multiplier: u64,
    shift: u32,
}

impl PageSize {
    /// Sector numbers have so many bits at most, for devices have less than 1 << 63 bytes.
    const SECTOR_BITS: u32 = 54;

    /// With 1 << `shift` the first power of two not below `sectors`, and the multiplier the
    /// fraction of 1 << (`SECTOR_BITS` + `shift`) rounded up by at most 1, the product with a
    /// sector number is off by less than 1 / `sectors`, so the quotient is exact; and the
    /// multiplier, below 1 << 56, fits.
    fn new(sectors: NonZeroU32) -> Self {
        let divisor = NonZeroU64::from(sectors);
        let shift = u32::BITS - (sectors.get() - 1).leading_zeros();
        let unit = 1_u64 << Self::SECTOR_BITS;
        let fraction = ((unit % divisor) << shift) / divisor;
        let fraction = ((unit / divisor) << shift).saturating_add(fraction);
        Self {
            sectors: divisor.get(),
            multiplier: fraction.saturating_add(1),
            shift,
        }
    }

    /// Returns how many pages begin in the first `len` sectors.
    fn pages_of(sectors: NonZeroU32, len: u64) -> u64 {
        let sectors = NonZeroU64::from(sectors);
        (len / sectors).saturating_add(u64::from(len % sectors != 0))
    }

    /// Returns the sector at which the page begins.
    fn start_of(&self, page: u64) -> u64 {
        page.wrapping_mul(self.sectors)
    }

    /// Whether the `len` sectors from `offset` on, which is in the page, are all in it.
    fn holds(&self, page: u64, offset: u64, len: u32) -> bool {
        let in_page = offset.wrapping_sub(self.start_of(page));
        in_page.wrapping_add(len.into()) <= self.sectors
    }

    /// Returns the page that the sector `offset` is in.
    fn page_of(&self, offset: u64) -> u64 {
        let offset = u128::from(offset << (u64::BITS - Self::SECTOR_BITS));
        let product = offset.wrapping_mul(u128::from(self.multiplier));
        ((product >> u64::BITS) as u64).wrapping_shr(self.shift)
    }
}

/// The target.
struct Switch {
    page_size: PageSize,
    /// Pages of the target, the last of which may be a part of one.
    pages: u64,
    volume: dm::Current<Volume>,
    place: Place,
    volumes: Arc<Volumes>,
    /// I/Os that the page table had a device for.
    remapped: dm::Count,
    /// These, and those that it had none for.
    ios: Arc<dm::Counters>,
}

/// Paths that a line of the kernel's own target may have: as many as fit behind its context of 40 bytes,
/// with 16 bytes each, into the largest allocation of 4 MiB.
const MAX_PATHS: u32 = ((4 << 20) - 40) / 16;

impl Switch {
    /// Which of the counts of I/Os has those that the page table had a device for.
    const REMAPPED: usize = 0;

    /// Which has those that it had none for.
    const UNMAPPED: usize = 1;

    /// Checks what neither userland's lines nor device-mapper say of a device: whether its blocks can be
    /// divided into pages of so many sectors. Returns what is wrong with it.
    fn check_device(device: &dm::Device, page_size: NonZeroU32) -> Result<(), &'static CStr> {
        if device.is_zoned() {
            return Err(c"Zoned devices are not supported");
        }
        let page_size = page_size.get();
        if page_size % device.block_len() != 0 {
            let (name, sectors) = (device.name(), device.block_len().get());
            pr_warn!(
                "switch_ctr page size {page_size}: make it a multiple of {sectors} sectors, the \
                 block size of {name}\n"
            );
            return Err(c"Page size is no multiple of a device's block size");
        }
        Ok(())
    }

    /// Checks that no border of pages cuts a data unit of inline encryption in two: each part would be
    /// encrypted as a unit of its own, and nothing further down would notice. A unit's number goes with
    /// the I/O, so where the pages are on their devices does not matter. Returns what is wrong.
    fn check_data_units(
        constructor: &dm::Constructor<'_>,
        page_size: NonZeroU32,
    ) -> Result<(), &'static CStr> {
        let unit = NonZeroU64::from(constructor.data_unit_len());
        let size_text = c"Page size is no multiple of the devices' data unit";
        let begin_text = c"Begin is no multiple of the devices' data unit";
        for (what, sectors, text) in [
            ("page size", page_size.get().into(), size_text),
            ("begin", constructor.begin(), begin_text),
        ] {
            if sectors % unit != 0 {
                let unit = unit.get();
                pr_warn!(
                    "switch_ctr {what} {sectors}: make it a multiple of {unit} sectors, the largest \
                     data unit that all devices encrypt\n"
                );
                return Err(text);
            }
        }
        Ok(())
    }

    /// Opens a device of a v3 line, or returns what is wrong with it.
    fn take_device(
        constructor: &mut dm::Constructor<'_>,
        path: dm::Text<'_>,
        start: dm::Text<'_>,
        page_size: NonZeroU32,
    ) -> Result<(), &'static CStr> {
        let start = leading_decimal(start.bytes()).ok_or(c"Invalid device starting offset")?;
        let len = constructor.len();
        let device = constructor
            .take_device(path, start)
            .inspect_err(|&error| explain_lookup(path, error))
            .map_err(|_| c"Device lookup failed")?;
        if len > device.len() {
            return Err(c"Device too small for target");
        }
        Self::check_device(device, page_size)
    }

    /// Makes a switch from a line of v3.
    fn v3(
        volumes: &Arc<Volumes>,
        constructor: &mut dm::Constructor<'_>,
        args: &dm::Args<'_>,
    ) -> Result<Self, dm::ConstructorError> {
        if args.len() < 4 {
            return Err(invalid(c"Insufficient arguments"));
        }
        let dev_count: u32 = number(args, 0).ok_or(invalid(c"Invalid device count"))?;
        // An odd one at the end is ignored.
        if dev_count as usize != (args.len() - 2) / 2 {
            return Err(invalid(c"Invalid argument count"));
        }
        let page_size = number(args, 1).and_then(NonZeroU32::new);
        let shape = Shape {
            line: Line::V3,
            dev_count,
            page_size: page_size.ok_or_else(|| logged(c"Invalid page size"))?,
        };
        let this = Self::of_shape(volumes, constructor, shape).map_err(out_of_memory)?;
        for (path, start) in args.pairs(2) {
            Self::take_device(constructor, path, start, shape.page_size).map_err(|text| {
                pr_warn!("switch_ctr device={path}, start={start}\n");
                logged(text)
            })?;
        }
        Self::check_data_units(constructor, shape.page_size).map_err(logged)?;
        this.join().map_err(out_of_memory)
    }

    /// Makes a switch from a line of the kernel's own target, which checks other things, and in
    /// another order.
    fn in_tree(
        volumes: &Arc<Volumes>,
        constructor: &mut dm::Constructor<'_>,
        args: &dm::Args<'_>,
    ) -> Result<Self, dm::ConstructorError> {
        let no_context = |error| refused(c"Cannot allocate redirection context", error);
        let paths = truncated_number(args, 0)
            .filter(|paths| (1..=MAX_PATHS).contains(paths))
            .ok_or(invalid(c"Invalid number of paths"))?;
        let region_size = truncated_number(args, 1)
            .and_then(NonZeroU32::new)
            .ok_or(invalid(c"Invalid region size"))?;
        if truncated_number(args, 2) != Some(0) {
            return Err(invalid(c"Invalid number of optional args"));
        }
        if args.len() != 3 + 2 * paths as usize {
            return Err(invalid(c"Incorrect number of path arguments"));
        }
        let shape = Shape {
            line: Line::InTree,
            dev_count: paths,
            page_size: region_size,
        };
        let this = Self::of_shape(volumes, constructor, shape).map_err(no_context)?;
        for (path, start) in args.pairs(3) {
            let start = decimal(start.bytes());
            let device = constructor
                .take_device(path, start.unwrap_or(0))
                .inspect_err(|&error| explain_lookup(path, error))
                .map_err(|error| refused(c"Device lookup failed", error))?;
            if start.is_none() {
                return Err(invalid(c"Invalid device starting offset"));
            }
            Self::check_device(device, region_size).map_err(invalid)?;
        }
        Self::check_data_units(constructor, region_size).map_err(invalid)?;
        if this.pages > u64::from(u32::MAX) {
            return Err(invalid(c"Region table too large"));
        }
        let table = PageTable::round_robin(shape, this.pages as u32)
            .map_err(|error| refused(c"Cannot allocate region table", error))?;
        PageTable::replace(&mut this.volume.table.lock(), table);
        this.join().map_err(no_context)
    }

    /// Allocates a switch that uploads do not find yet.
    fn of_shape(
        volumes: &Arc<Volumes>,
        constructor: &mut dm::Constructor<'_>,
        shape: Shape,
    ) -> Result<Self> {
        constructor.reserve(shape.dev_count as usize)?;
        let volume = Volume::new(constructor.device_number(), shape);
        let volume = Arc::pin_init(volume, GFP_KERNEL)?;
        let ios = dm::Counters::new(Self::UNMAPPED + 1)?;
        Ok(Self {
            page_size: PageSize::new(shape.page_size),
            pages: PageSize::pages_of(shape.page_size, constructor.len()),
            volume: dm::Current::new([volume.clone(), volume]),
            place: Place {
                table: constructor.table(),
                begin: constructor.begin(),
            },
            volumes: volumes.clone(),
            remapped: dm::Count::of(&ios, Self::REMAPPED),
            ios,
        })
    }

    /// Returns the route of an I/O to a page with this entry, if there is such a device.
    fn route_to<'a>(
        &'a self,
        found: &Found<'a>,
        devices: &'a KVVec<dm::Device>,
    ) -> Option<dm::Route<'a>> {
        Some(dm::Route {
            device: devices.get(found.entry as usize)?,
            counts: [&self.remapped, &found.chunk.hits],
        })
    }

    /// Has uploads find the switch.
    fn join(mut self) -> Result<Self> {
        let own = self.volume.first();
        let volume = self.volumes.add(self.place, self.pages, own.clone())?;
        self.volume = dm::Current::new([volume, own]);
        Ok(self)
    }
}

impl dm::Target for Switch {
    const NAME: &'static CStr = c"switch";
    const VERSION: [u32; 3] = [1, 0, 0];
    const OUT_OF_MEMORY: &'static CStr = c"Cannot allocate redirect context";

    type Shared = Arc<Volumes>;
    type Answer = Answer;
    /// Nothing is said of a page of which nothing was uploaded.
    type Stray = Option<Stray>;

    fn new(
        volumes: &Arc<Volumes>,
        constructor: &mut dm::Constructor<'_>,
        args: &dm::Args<'_>,
    ) -> Result<Self, dm::ConstructorError> {
        if truncated_number(args, 2).is_some() {
            Self::in_tree(volumes, constructor, args)
        } else {
            Self::v3(volumes, constructor, args)
        }
    }

    #[inline]
    fn route<'a>(
        &'a self,
        offset: u64,
        len: u32,
        devices: &'a KVVec<dm::Device>,
        reading: &'a dm::Reading,
    ) -> Option<dm::Route<'a>> {
        let table = self.volume.table.read(reading)?;
        let page = self.page_size.page_of(offset);
        if !self.page_size.holds(page, offset, len) {
            return None;
        }
        self.route_to(&table.find(page)?, devices)
    }

    fn run<'a>(
        &'a self,
        offset: u64,
        len: u32,
        devices: &'a KVVec<dm::Device>,
        reading: &'a dm::Reading,
    ) -> (u32, Result<dm::Route<'a>, Option<Stray>>) {
        let Some(table) = self.volume.table.read(reading) else {
            return (len, Err(None));
        };
        let page = self.page_size.page_of(offset);
        let last = offset.wrapping_add(len.saturating_sub(1).into());
        let last = self.page_size.page_of(last);
        let (end, found) = table.run(page, last);
        let route = match found {
            Some(found) => {
                let number = found.entry;
                let stray = Some(Stray::Device { number, offset });
                self.route_to(&found, devices).ok_or(stray)
            }
            None => Err(table.stray(page)),
        };
        let sectors = self.page_size.start_of(end).wrapping_sub(offset);
        (sectors.min(len.into()) as u32, route)
    }

    fn strayed(&self, offset: u64, stray: Option<Stray>) {
        self.ios.add(Self::UNMAPPED);
        if let Some(table) = self.volume.table.read(&dm::Reading::begin()) {
            table.hit(self.page_size.page_of(offset));
        }
        if let Some(stray) = stray.filter(|_| dm::may_warn(c"switch_map")) {
            pr_warn!("switch_map WARNING: {stray}\n");
        }
    }

    fn granularity(&self) -> u64 {
        self.page_size.sectors
    }

    fn info(&self, devices: &[dm::Device], line: &mut dm::StatusWriter<'_>) -> fmt::Result {
        if self.volume.shape.line == Line::InTree {
            return Ok(());
        }
        write!(line, "{}", devices.len())?;
        for device in devices {
            line.write_fmt(fmt!(" {}", device.name()))?;
        }
        line.write_str(" 5 ")?;
        for _ in devices {
            line.write_str("A")?;
        }
        let [first, second] = *self.volume.userland.lock();
        write!(line, " {first:08x} {second:08x}")?;
        let (remapped, unmapped) = (self.ios.sum(Self::REMAPPED), self.ios.sum(Self::UNMAPPED));
        write!(line, " {remapped} {unmapped}")
    }

    fn table(&self, devices: &[dm::Device], line: &mut dm::StatusWriter<'_>) -> fmt::Result {
        write!(line, "{} {}", devices.len(), self.page_size.sectors)?;
        if self.volume.shape.line == Line::InTree {
            line.write_str(" 0")?;
        }
        for device in devices {
            line.write_fmt(fmt!(" {} {}", device.name(), device.start()))?;
        }
        Ok(())
    }

    fn ima(&self, devices: &[dm::Device], line: &mut dm::StatusWriter<'_>) -> fmt::Result {
        write!(
            line,
            ",dev_count={},page_size={}",
            devices.len(),
            self.page_size.sectors
        )?;
        for (number, device) in devices.iter().enumerate() {
            let (name, start) = (device.name(), device.start());
            line.write_fmt(fmt!(
                ",device_{number}_name={name},device_{number}_start={start}"
            ))?;
        }
        line.write_str(";")
    }

    /// `set_region_mappings` is the kernel's own; `chunk_hits` is answered with the number of chunks
    /// and the I/Os that fell into each of those that an upload's table could have; `page_table` with the page table.
    fn message(&self, args: &dm::Args<'_>) -> Result<Option<Answer>> {
        let name = args.get(0).map_or(&b""[..], dm::Text::bytes);
        if name.eq_ignore_ascii_case(b"set_region_mappings") {
            self.volume
                .set_regions(self.pages, args.iter().skip(1))
                .map_err(|error| {
                    pr_warn!("{error}\n");
                    error.errno()
                })?;
            return Ok(None);
        }
        match (name, args.len()) {
            (b"chunk_hits", 1) => Ok(Some(Answer::ChunkHits(self.volume.chunk_hits()))),
            (b"page_table", 1..=3) => {
                let list = self.volume.page_table(pages_of(args)?)?;
                Ok(Some(Answer::PageList(list)))
            }
            _ => {
                pr_warn!(
                    "Unrecognised message received.  There are: set_region_mappings, chunk_hits, \
                     page_table [FIRST [COUNT]]\n"
                );
                Err(EINVAL)
            }
        }
    }

    /// Uploads are for the live table: from here on for this one, though the one before it has not gone.
    fn resume(&self) {
        let volume = self.volumes.make_live(self.volume.device, self.place);
        if let Some(volume) = volume {
            self.volume.set(&volume);
        }
    }

    fn prepare_ioctl<'a>(&self, devices: &'a [dm::Device]) -> Result<&'a dm::Device> {
        let number = match self.volume.shape.line {
            Line::V3 => 0,
            Line::InTree => {
                let reading = dm::Reading::begin();
                let table = self.volume.table.read(&reading);
                table.map_or(0, |table| table.entry(0) as usize)
            }
        };
        devices.get(number).or(devices.first()).ok_or(EIO)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.volumes.remove(self.volume.device, self.place);
    }
}

/// Returns the pages that the message `page_table [FIRST [COUNT]]` asks for: from 0 on, and all, where it does not say
/// that.
fn pages_of(args: &dm::Args<'_>) -> Result<Range<u32>> {
    let number_or = |index, default| {
        let arg = args.get(index);
        arg.map_or(Some(default), |arg| decimal(arg.bytes()))
    };
    let (Some(first), Some(count)) = (number_or(1, 0), number_or(2, u32::MAX)) else {
        pr_warn!("page_table: FIRST and COUNT are decimal numbers of pages, below 4294967296\n");
        return Err(EINVAL);
    };
    Ok(first..first.saturating_add(count))
}

/// Refuses a constructor's arguments.
fn refused(text: &'static CStr, error: Error) -> dm::ConstructorError {
    dm::ConstructorError { text, error }
}

/// Refuses a constructor's argument.
fn invalid(text: &'static CStr) -> dm::ConstructorError {
    refused(text, EINVAL)
}

/// Refuses a v3 line for want of memory.
fn out_of_memory(error: Error) -> dm::ConstructorError {
    refused(<Switch as dm::Target>::OUT_OF_MEMORY, error)
}

/// Refuses a constructor's argument, and says so in the log as v3 did.
fn logged(text: &'static CStr) -> dm::ConstructorError {
    pr_warn!("switch_ctr {}\n", dm::Text::from(text));
    invalid(text)
}

/// Writes to the log why a device cannot be opened: device-mapper's text and v3's errno do not say it.
fn explain_lookup(path: dm::Text<'_>, error: Error) {
    let reason = match error {
        EBUSY => "it is in use: mounted, swap, part of an array, or opened by a process",
        EINVAL => "it is the mapped device itself",
        ENOENT | ENODEV | ENXIO => "there is no such device",
        ENOMEM => "there is no memory",
        ENOTBLK => "it is no block device",
        EROFS => "it is read-only, and the table is not",
        EACCES | EPERM => "access is denied; a read-only device needs a read-only table",
        _ => "it cannot be opened",
    };
    pr_warn!(
        "switch_ctr cannot use {path}: {reason} (error {})\n",
        error.to_errno()
    );
}

/// Returns the argument at `index`, where that is a decimal number.
fn number<T: TryFrom<u64>>(args: &dm::Args<'_>, index: usize) -> Option<T> {
    decimal(args.get(index)?.bytes())
}

/// Returns the argument at `index`, where that is a decimal number, less what of it does not fit, as C's `sscanf` in
/// the kernel reads it.
fn truncated_number(args: &dm::Args<'_>, index: usize) -> Option<u32> {
    let number = wrapped_number(args.get(index)?.bytes(), 10)?;
    Some(number as u32)
}

/// Returns the decimal number that the text is, which may begin with a `+`.
fn decimal<T: TryFrom<u64>>(text: &[u8]) -> Option<T> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, &digit| {
        let value = char::from(digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(value.into())
    });
    T::try_from(number?).ok()
}

/// Returns the decimal number that the text begins with.
fn leading_decimal(text: &[u8]) -> Option<u64> {
    let is_other = |byte: &u8| !byte.is_ascii_digit();
    let digits = split_once(text, is_other).map_or(text, |(digits, _)| digits);
    // They have no `+`.
    decimal(digits)
}

/// Returns the number that one digit or more are in `radix`, less what of it does not fit.
fn wrapped_number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        let value = char::from(digit).to_digit(radix)?;
        Some(number.wrapping_mul(radix.into()).wrapping_add(value.into()))
    })
}

/// Returns what is before the first byte of the kind, where there is one, and what is behind it.
fn split_once(text: &[u8], is_kind: impl FnMut(&u8) -> bool) -> Option<(&[u8], &[u8])> {
    let (before, rest) = text.split_at_checked(text.iter().position(is_kind)?)?;
    Some((before, rest.get(1..)?))
}

/// An upload whose fields are known to be good, as far as they can be without its device.
struct Upload<'a> {
    /// The mapped device's numbers.
    major: u32,
    minor: u32,
    dev_count: u32,
    geometry: Geometry,
    /// Entries of the whole table.
    total: u32,
    /// The pages whose entries the message has; where there are none, the chunk at their start is to be freed.
    pages: Range<u32>,
    userland: [u32; 2],
    /// The entries' words, of which the last byte may be missing.
    words: &'a [u8],
}

impl<'a> Upload<'a> {
    /// Checks a message, in the order in which v3 did.
    fn check(message: &'a [u8]) -> Result<Self, Refusal> {
        let nla_len = message.len().saturating_add(genl::ATTRIBUTE_HEADER_LEN);
        let Some((_, words)) = message.split_at_checked(abi::HEADER_LEN) else {
            return Err(Refusal::TooShort { nla_len });
        };
        let header = header(message);
        let (total, first, count) = (header.page_total, header.page_offset, header.page_count);
        let end = u64::from(first) + u64::from(count);
        if end > u64::from(total) {
            return Err(Refusal::TooManyEntries { end, total });
        }
        let (pte_bits, dev_count) = (u32::from(header.pte_bits), u32::from(header.dev_count));
        let mask = u32::MAX
            .checked_shr(u32::BITS.saturating_sub(pte_bits))
            .unwrap_or(0);
        if dev_count.wrapping_sub(1) & !mask != 0 {
            return Err(Refusal::InvalidMask { mask, dev_count });
        }
        let geometry = Geometry::new(pte_bits).ok_or(Refusal::InvalidEntrySize { pte_bits })?;
        let fields = geometry.fields();
        if first % fields != 0 {
            return Err(Refusal::Unaligned { first, fields });
        }
        // One byte of the entries may be missing, as v3 had it.
        let wanted = size_of::<abi::IpcPgTable>() - 1 + geometry.words(count) * size_of::<u32>();
        if wanted > nla_len {
            return Err(Refusal::Incomplete { wanted, nla_len });
        }
        if chunk_count(total) > abi::MAX_NUMBER_OF_CHUNKS as usize {
            return Err(Refusal::TooLarge { total });
        }
        Ok(Self {
            major: header.dev_major,
            minor: header.dev_minor,
            dev_count,
            geometry,
            total,
            pages: first..end as u32,
            userland: header.userland,
            words,
        })
    }

    /// Whether a chunk is to be freed, and nothing written.
    fn frees_chunk(&self) -> bool {
        self.pages.is_empty()
    }

    /// Returns the chunks that the entries are in: where there are none, the empty range at the
    /// chunk that is to be freed.
    fn chunks(&self) -> Range<usize> {
        chunks_of(&self.pages)
    }

    /// Writes the entries into the chunks of `table`, which has this geometry and these chunks.
    fn write(&self, table: &PageTable) {
        let Range { start, end } = self.pages;
        let count = end.saturating_sub(start);
        let fields = self.geometry.fields();
        let whole = if self.geometry.is_the_same_in_chunks() {
            (count / fields).min((self.words.len() / size_of::<u32>()) as u32)
        } else {
            0
        };
        // The entries of whole words.
        let whole = whole.saturating_mul(fields.get());
        let middle = start.saturating_add(whole);
        table.write_words(start..middle, self.words);
        table.write(middle..end, (whole..count).map(|index| self.entry(index)));
    }

    /// Returns the entry at `index` of the message.
    fn entry(&self, index: u32) -> u32 {
        let fields = self.geometry.fields();
        let start = (index / fields) as usize * size_of::<u32>();
        let mut word = [0; size_of::<u32>()];
        copy_start(&mut word, self.words.get(start..).unwrap_or_default());
        let shift = (index % fields).wrapping_mul(self.geometry.pte_bits.get());
        self.geometry.entry(u32::from_ne_bytes(word), shift)
    }
}

/// Returns the fields of a message before its entries; what a short message lacks is 0.
fn header(message: &[u8]) -> abi::IpcPgTable {
    let mut header = abi::IpcPgTable::default();
    copy_start(&mut header.as_bytes_mut()[..abi::HEADER_LEN], message);
    header
}

/// Copies the first bytes of `from` to those of `to`, as many as both have.
fn copy_start(to: &mut [u8], from: &[u8]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from;
    }
}

/// Why an upload was refused, in the words of the answer.
enum Refusal {
    TooShort {
        nla_len: usize,
    },
    TooManyEntries {
        end: u64,
        total: u32,
    },
    InvalidMask {
        mask: u32,
        dev_count: u32,
    },
    InvalidEntrySize {
        pte_bits: u32,
    },
    Unaligned {
        first: u32,
        fields: NonZeroU32,
    },
    Incomplete {
        wanted: usize,
        nla_len: usize,
    },
    TooLarge {
        total: u32,
    },
    NoDevice {
        major: u32,
        minor: u32,
    },
    NoMemoryForTable,
    NoMemoryForChunk {
        number: usize,
    },
    /// Who sent it does not see this one.
    Killed {
        number: usize,
    },
    UnalignedChunk {
        first: u32,
    },
}

impl Refusal {
    fn error(&self) -> Error {
        match self {
            Self::NoMemoryForTable | Self::NoMemoryForChunk { .. } => ENOMEM,
            Self::Killed { .. } => EINTR,
            _ => EINVAL,
        }
    }
}

impl fmt::Display for Refusal {
    /// C's `%d` of a u32 is that of an i32 here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const INVALID: &str = "Invalid Page Table message";
        match *self {
            Self::TooShort { nla_len } => write!(f, "{INVALID}: too short ({nla_len})"),
            Self::TooManyEntries { end, total } => {
                write!(f, "{INVALID}: too many page table entries (")?;
                match u32::try_from(end) {
                    Ok(end) => write!(f, "{}", end as i32)?,
                    Err(_) => write!(f, "{end}")?,
                }
                write!(f, " > {})", total as i32)
            }
            Self::InvalidMask { mask, dev_count } => {
                write!(
                    f,
                    "{INVALID}: invalid mask {mask:#x} for {dev_count} devices"
                )
            }
            Self::InvalidEntrySize { pte_bits } => {
                write!(f, "{INVALID}: invalid entry size ({pte_bits} bits)")
            }
            Self::Unaligned { first, fields } => write!(
                f,
                "{INVALID}: Unaligned message (Beginning offset {first} must be an even multiple \
                 of {fields})"
            ),
            Self::Incomplete { wanted, nla_len } => write!(
                f,
                "{INVALID}: incomplete messsage (data {wanted} > nl_len {nla_len})"
            ),
            Self::TooLarge { total } => write!(
                f,
                "More page table entries than maximum allowed ({total} > {})",
                abi::MAX_NUMBER_OF_CHUNKS * CHUNK_ENTRIES
            ),
            Self::NoDevice { major, minor } => write!(
                f,
                "{INVALID}: invalid target device {}:{}",
                major as i32, minor as i32
            ),
            Self::NoMemoryForTable => f.write_str("Cannot allocate Page Table metadata"),
            Self::NoMemoryForChunk { number } => {
                write!(f, "Cannot allocate Page Table chunk {number}")
            }
            Self::Killed { number } => {
                write!(f, "Killed before Page Table chunk {number} was allocated")
            }
            Self::UnalignedChunk { first } => write!(
                f,
                "Cannot deallocate chunk if page_offset ({first:#x}) is not aligned to a chunk \
                 boundary ({CHUNK_ENTRIES:#x})"
            ),
        }
    }
}

/// Returns the answer to a message.
fn response(message: &[u8], refusal: Option<&Refusal>) -> abi::IpcResponse {
    let header = header(message);
    let mut response = abi::IpcResponse {
        total_len: size_of::<abi::IpcResponse>() as u32,
        opcode: abi::Opcode_OPCODE_PAGE_TABLE_UPLOAD,
        userland: header.userland,
        dev_major: header.dev_major,
        dev_minor: header.dev_minor,
        ..Default::default()
    };
    if let Some(refusal) = refusal {
        response.status = refusal.error().to_errno().unsigned_abs();
        // A text that is too long is cut off before the NUL.
        let text = &mut response.err_str[..abi::MAX_ERR_STR_LEN as usize];
        let _ = Formatter::new(text).write_fmt(fmt!("{refusal}"));
    }
    response
}

static_assert!(abi::NETLINK_ATTR_MSG as usize == genl::ATTRIBUTE);

impl genl::Family for Arc<Volumes> {
    const NAME: &'static CStr = c"DM_SWITCH";
    const VERSION: u8 = 1;
    const COMMAND: u8 = abi::NETLINK_CMD_GET_PAGE_TBL as u8;
    const MAX_LEN: u16 = abi::MAX_IPC_MSG_LEN as u16;

    fn handle(&self, request: &genl::Request<'_>) -> Result {
        let Some(message) = request.attribute() else {
            pr_warn!("get_page_tbl no info->attrs {}\n", genl::ATTRIBUTE);
            return Ok(());
        };
        // Allocated first, so that what is done can be told.
        let reply = request
            .reply::<abi::IpcResponse>()
            .inspect_err(|_| pr_warn!("get_page_tbl cannot allocate reply message\n"))?;
        let outcome = Upload::check(message).and_then(|upload| self.upload(&upload));
        let refusal = outcome.as_ref().err();
        if let Some(refusal) = refusal {
            pr_warn!("get_page_tbl WARNING: {refusal}\n");
        }
        if reply.send(&response(message, refusal)).is_err() {
            pr_warn!("get_page_tbl WARNING: Cannot send reply message\n");
        }
        Ok(())
    }
}
