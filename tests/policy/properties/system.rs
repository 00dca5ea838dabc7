// SPDX-License-Identifier: GPL-2.0-only

//! What does happen on the host: device-mapper and netlink, as far as the fuzzer's steps need them, around the module.

use super::step::{
    has_name,
    Answer,
    Asked,
    Facts,
    Line,
    Outcome,
    Request,
    Step,
    DISK_SECTORS,
    MINORS, //
};
use crate::{
    abi::{
        self,
        MappedBio, //
    },
    DmSwitch, //
};
use kernel::{
    bindings::{
        allocations,
        allow_allocations,
        bio,
        bvec_iter,
        nlattr,
        take_log,
        SECTOR_SHIFT, //
    },
    ffi::{
        c_char,
        c_int,
        c_void, //
    },
    prelude::*,
    sync::Arc,
    InPlaceModule,
    ThisModule, //
};
use std::{
    ffi::CString,
    ptr, //
};

/// Sectors of the longest read.
pub(crate) const READ_SECTORS: usize = 64;

/// The major number of mapped devices.
const MAJOR: u32 = 253;

/// Bytes of a `struct dm_target_spec`.
const DM_SPEC: usize = 40;

/// What a buffer contains that the module is to write to.
const BLANK: u8 = 0xa5;

pub(crate) fn drain_output() {}

/// A table of targets.
pub(crate) struct Table {
    raw: *mut abi::dm_table,
    /// The targets that are constructed.
    targets: Vec<*mut abi::dm_target>,
}

/// Device-mapper's text about a target that cannot be constructed, and the errno.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String, pub(crate) c_int);

/// An I/O of a mapped device.
#[derive(Clone, Copy)]
pub(crate) struct Io {
    pub(crate) operation: u32,
    pub(crate) sector: u64,
    pub(crate) count: u64,
    /// The number of a flush.
    pub(crate) number: u32,
    pub(crate) is_atomic: bool,
}

/// Where the first piece of an I/O goes.
#[derive(Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) disk: usize,
    pub(crate) sector: u64,
    pub(crate) count: u64,
}

impl Table {
    /// Constructs the targets of a table.
    pub(crate) fn load(minor: u32, has_node: bool, lines: &[Line]) -> Result<Self, Refused> {
        let raw = Box::into_raw(Box::new(abi::dm_table {
            device: abi::Disk::new(
                (MAJOR << abi::MINORBITS) + minor,
                lines.iter().map(|line| line.sectors).sum(),
            ),
            has_node,
        }));
        let targets = Vec::new();
        let mut table = Self { raw, targets };
        let mut begin = 0;
        for line in lines {
            table.add(begin, line)?;
            begin += line.sectors;
        }
        Ok(table)
    }

    fn add(&mut self, begin: u64, line: &Line) -> Result<(), Refused> {
        let words = line.arguments.split_ascii_whitespace();
        let args: Vec<CString> = words.map(|word| CString::new(word).unwrap()).collect();
        let mut argv: Vec<*mut c_char> = args
            .iter()
            .map(|arg| arg.as_ptr().cast_mut().cast())
            .collect();
        let target = Box::into_raw(Box::new(abi::dm_target {
            table: self.raw,
            type_: abi::registered_target_type().unwrap(),
            begin,
            len: line.sectors,
            num_flush_bios: 0,
            num_discard_bios: 0,
            num_secure_erase_bios: 0,
            num_write_zeroes_bios: 0,
            private: ptr::null_mut(),
            error: ptr::null_mut(),
        }));
        // SAFETY: The target is not constructed yet, and its type is registered. There are `argv.len()` arguments.
        let errno = unsafe {
            let construct = (*(*target).type_).ctr.unwrap();
            construct(target, argv.len() as u32, argv.as_mut_ptr())
        };
        if errno == 0 {
            self.targets.push(target);
            return Ok(());
        }
        // SAFETY: A constructor that fails sets the text. The target is not used any more.
        let text = unsafe {
            let text = CStr::from_ptr((*target).error.cast()).to_str();
            drop(Box::from_raw(target));
            text.unwrap()
        };
        // SAFETY: The table is there.
        let number = unsafe { (*self.raw).device.number } & abi::MINORMASK;
        let text = format!("device-mapper: table: {MAJOR}:{number}: switch: {text}");
        Err(Refused(text, -errno))
    }

    /// Returns the target that contains a sector, and where it begins and ends.
    fn target_at(&self, sector: u64) -> Option<(*mut abi::dm_target, Range)> {
        self.targets.iter().find_map(|&target| {
            // SAFETY: The target is constructed.
            let (begin, len) = unsafe { ((*target).begin, (*target).len) };
            let range = begin..begin + len;
            (sector < range.end).then_some((target, range))
        })
    }

    /// Whether a target uses sectors that a device does not have.
    fn is_past_an_end(&self) -> bool {
        unsafe extern "C" fn is_past(
            _ti: *mut abi::dm_target,
            dev: *mut abi::dm_dev,
            start: u64,
            len: u64,
            _data: *mut c_void,
        ) -> c_int {
            // SAFETY: The device is open.
            assert!(abi::disk_number(unsafe { (*dev).bdev }).is_some());
            (start > DISK_SECTORS || start + len > DISK_SECTORS).into()
        }
        self.targets.iter().any(|&target| {
            // SAFETY: The target is constructed.
            let past = unsafe {
                let iterate = (*(*target).type_).iterate_devices.unwrap();
                iterate(target, Some(is_past), ptr::null_mut())
            };
            past != 0
        })
    }

    pub(crate) fn resume(&self) {
        for &target in &self.targets {
            // SAFETY: The target is constructed.
            unsafe { (*(*target).type_).resume.unwrap()(target) };
        }
    }

    /// Returns the lines of a status ioctl with room for `room` bytes, or `None` if they are cut.
    pub(crate) fn status(&self, kind: abi::status_type_t, room: usize) -> Option<String> {
        let (mut lines, mut used) = (String::new(), 0);
        for &target in &self.targets {
            let left = room.checked_sub(used + DM_SPEC).filter(|left| *left > 0)?;
            let mut buffer = vec![BLANK; left];
            // SAFETY: The target is constructed, and the buffer has `left` bytes.
            let range = unsafe {
                let status = (*(*target).type_).status.unwrap();
                status(target, kind, 0, buffer.as_mut_ptr(), left as u32);
                (*target).begin..(*target).len
            };
            let text = text_in(&buffer);
            if text.len() + 1 == left {
                return None;
            }
            assert!(buffer[text.len() + 1..].iter().all(|byte| *byte == BLANK));
            used = (used + DM_SPEC + text.len() + 1).next_multiple_of(8);
            if used > room {
                return None;
            }
            lines += &format!("{} {} switch {text}\n", range.start, range.end);
        }
        Some(lines)
    }

    /// Maps the first piece of an I/O. Fails if there is no target, or that fails the I/O.
    pub(crate) fn map(&self, io: Io) -> Option<Piece> {
        let (target, range) = self.target_at(io.sector)?;
        let count = io.count.min(range.end - io.sector) as u32;
        let mut mapped = MappedBio {
            bio: bio {
                bi_opf: io.operation,
                bi_iter: bvec_iter {
                    bi_sector: io.sector,
                    bi_size: count << SECTOR_SHIFT,
                },
                bi_bdev: ptr::null_mut(),
            },
            number: io.number,
            is_atomic: io.is_atomic,
        };
        // SAFETY: The target is constructed, and nothing else uses the bio.
        let result = unsafe { (*(*target).type_).map.unwrap()(target, (&raw mut mapped).cast()) };
        let bvec_iter { bi_sector, bi_size } = mapped.bio.bi_iter;
        match result as u32 {
            abi::DM_MAPIO_REMAPPED => Some(Piece {
                disk: abi::disk_number(mapped.bio.bi_bdev).expect("it goes to a disk"),
                sector: bi_sector,
                count: u64::from(bi_size >> SECTOR_SHIFT),
            }),
            abi::DM_MAPIO_KILL => None,
            other => panic!("the map returned {other}"),
        }
    }

    /// Sends a message to the target that contains a sector, with room for an answer of `room` bytes.
    pub(crate) fn message(&self, sector: u64, text: &str, room: usize) -> Result<Answer, i32> {
        let einval = EINVAL.to_errno().abs();
        let (target, _) = self.target_at(sector).ok_or(einval)?;
        // The answer is written to where the arguments are.
        let mut buffer = vec![BLANK; room.max(8 + text.len() + 1)];
        let mut argv: Vec<*mut c_char> = Vec::new();
        for (place, byte) in buffer[8..].iter_mut().zip(text.bytes().chain([0])) {
            *place = if byte.is_ascii_whitespace() { 0 } else { byte };
        }
        for (at, byte) in text.bytes().enumerate() {
            let is_start = at == 0 || text.as_bytes()[at - 1].is_ascii_whitespace();
            if is_start && !byte.is_ascii_whitespace() {
                argv.push(buffer.as_mut_ptr().wrapping_add(8 + at));
            }
        }
        if argv.is_empty() {
            return Err(einval);
        }
        // SAFETY: The target is constructed, and the buffer has `len` bytes.
        let result = unsafe {
            let message = (*(*target).type_).message.unwrap();
            let (argc, len) = (argv.len() as u32, buffer.len() as u32);
            message(target, argc, argv.as_mut_ptr(), buffer.as_mut_ptr(), len)
        };
        match result {
            0 => Ok(Answer::Nothing),
            1 => {
                let answer = text_in(&buffer);
                if answer.len() + 1 >= buffer.len() {
                    return Ok(Answer::Cut);
                }
                Ok(Answer::Text(answer))
            }
            errno => Err(-errno),
        }
    }

    /// Returns the flushes that each target wants.
    pub(crate) fn flushes(&self) -> Vec<u32> {
        // SAFETY: The targets are constructed.
        let flushes = |&target: &*mut abi::dm_target| unsafe { (*target).num_flush_bios };
        self.targets.iter().map(flushes).collect()
    }

    /// Returns the least and the greatest length of a target's atomic writes, from those that its devices have.
    pub(crate) fn atomic_writes(&self, number: usize, mut units: [u32; 2]) -> [u32; 2] {
        let target = self.targets[number];
        // SAFETY: The target is constructed, and limits are two lengths here.
        unsafe { (*(*target).type_).io_hints.unwrap()(target, (&raw mut units).cast()) };
        units
    }

    /// Returns the disk that ioctls of the first target go to, and whether the target is not the whole disk.
    pub(crate) fn ioctl_disk(&self) -> (Option<usize>, c_int) {
        let (target, mut bdev) = (self.targets[0], ptr::null_mut());
        // SAFETY: The target is constructed.
        let result = unsafe { (*(*target).type_).prepare_ioctl.unwrap()(target, &mut bdev) };
        (abi::disk_number(bdev), result)
    }
}

type Range = std::ops::Range<u64>;

impl Drop for Table {
    fn drop(&mut self) {
        for &target in &self.targets {
            // SAFETY: The target is constructed, and nothing uses it any more.
            unsafe {
                (*(*target).type_).dtr.unwrap()(target);
                drop(Box::from_raw(target));
            }
        }
        // SAFETY: It was made for this table, whose targets are gone.
        drop(unsafe { Box::from_raw(self.raw) });
    }
}

/// Returns the text up to the first NUL.
fn text_in(buffer: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(buffer).expect("a text ends");
    text.to_str().expect("it is ASCII").into()
}

/// A mapped device.
#[derive(Default)]
struct Device {
    live: Option<Table>,
    loaded: Option<Table>,
    is_suspended: bool,
    /// Whether it ever had a table.
    has_node: bool,
}

/// Limits something, until the kernel has no more of it, or does not.
pub(crate) type Limit = fn(Option<usize>);

/// Limits memory.
pub(crate) fn limit_memory(allocations: Option<usize>) {
    allow_allocations(allocations.unwrap_or(usize::MAX));
}

/// The module, loaded, and mapped devices with its targets.
pub(crate) struct System {
    pub(crate) facts: Facts,
    pub(crate) complaint: Option<String>,
    devices: [Option<Device>; MINORS.len()],
    /// What the next step is short of, and the ones after it.
    limits: Box<dyn Iterator<Item = Option<Limit>>>,
    // Dropped last, as the module is removed last.
    _module: Module,
}

/// The module, loaded in a kernel that was just booted. It is removed before the kernel is shut down.
pub(crate) struct Module(Option<Arc<DmSwitch>>);

impl Module {
    pub(crate) fn load() -> Result<Self> {
        // SAFETY: What is registered here does not look at the module.
        static THIS: ThisModule = unsafe { ThisModule::from_ptr(ptr::null_mut()) };
        abi::boot();
        // What fails is dropped, too.
        let mut this = Self(None);
        this.0 = Some(Arc::pin_init(DmSwitch::init(&THIS), GFP_KERNEL)?);
        Ok(this)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.0 = None;
        if !std::thread::panicking() {
            abi::shut_down();
        }
    }
}

impl System {
    /// What begins with the script of a seed.
    pub(crate) const AGAIN: &str = "make check TEST=policy SEED=";

    /// Loads the module.
    pub(crate) fn new() -> Self {
        Self::with_limits([None])
    }

    /// Loads the module. In turn, each step is short of one of these.
    pub(crate) fn with_limits<const N: usize>(limits: [Option<Limit>; N]) -> Self {
        Self {
            facts: Facts {
                family: abi::FAMILY,
                port: 1,
                major: MAJOR,
                numbers_are_devices: false,
            },
            complaint: None,
            devices: Default::default(),
            limits: Box::new(limits.into_iter().cycle()),
            _module: Module::load().expect("the module loads"),
        }
    }

    /// Removes all devices.
    pub(crate) fn clear(&mut self) {
        self.devices = Default::default();
        if allocations() != ALLOCATIONS_OF_MODULE {
            self.complaint = Some("memory is left without devices".into());
        }
        take_log();
    }

    /// Whether a step can be done here: a message for which the kernel's netlink has no other answer than the module's.
    pub(crate) fn can(&self, step: &Step) -> bool {
        match step {
            Step::Send { requests } => requests
                .iter()
                .all(|request| self.payload(request).is_some()),
            _ => true,
        }
    }

    /// Does a step, and returns what it comes to.
    pub(crate) fn run(&mut self, step: &Step) -> Outcome {
        self.run_short_of(step)
            .unwrap_or_else(|| self.run_once(step))
    }

    /// Does a step with so little of memory, or of the process's time, that it fails, and expects that nothing changes
    /// then. Does it with more, again and again. Returns what it comes to when it does not fail.
    fn run_short_of(&mut self, step: &Step) -> Option<Outcome> {
        let limit = self.limits.next()??;
        // Of a message, the arguments before the one that fails are done.
        let can_fail = match step {
            Step::Send { requests } => requests.len() == 1,
            Step::Load { .. } => true,
            _ => false,
        };
        if !can_fail {
            return None;
        }
        let before = self.look();
        for count in (0..8).chain([11, 30, 150]) {
            limit(Some(count));
            let outcome = self.run_once(step);
            limit(None);
            if !has_failed(&outcome) {
                return Some(outcome);
            }
            if self.look() != before {
                self.complaint = Some(format!("a step that failed changed something: {step}"));
            }
        }
        None
    }

    /// Returns all that there is to see of the devices.
    fn look(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for device in self.devices.iter().flatten() {
            for (asked, loaded) in [
                (Asked::Info, false),
                (Asked::Table, false),
                (Asked::Table, true),
            ] {
                seen.push(format!("{:?}", device.status(asked, loaded, 1 << 16)));
            }
            for text in ["page_table", "chunk_hits"] {
                seen.push(format!("{:?}", device.message(0, text, 1 << 20)));
            }
        }
        seen
    }

    fn run_once(&mut self, step: &Step) -> Outcome {
        let mut log = Vec::new();
        let result = match step {
            Step::Create { device } => {
                self.devices[*device] = Some(Device::default());
                Ok(Answer::Nothing)
            }
            Step::Remove { device } => {
                self.devices[*device] = None;
                Ok(Answer::Nothing)
            }
            Step::Clear { device } => {
                self.device(*device).loaded = None;
                Ok(Answer::Nothing)
            }
            Step::Suspend { device } => {
                self.device(*device).is_suspended = true;
                Ok(Answer::Nothing)
            }
            Step::Resume { device } => self.device(*device).resume(),
            Step::Load { device, table } => self.load(*device, table, &mut log),
            Step::Status {
                device,
                asked,
                loaded,
                room,
            } => Ok(self.device(*device).status(*asked, *loaded, *room)),
            Step::Message {
                device,
                sector,
                text,
                room,
            } => self.device(*device).message(*sector, text, *room),
            Step::Send { requests } => self.send(requests),
            Step::Read {
                device,
                sector,
                count,
            } => Ok(self.device(*device).read(*sector, *count)),
        };
        let lines = take_log().into_iter().map(|(_, line)| line);
        let is_meant = |line: &String| !line.starts_with("dm_switch: switch_map WARNING: ");
        let lines = lines.filter(is_meant).map(|line| line.trim_end().into());
        log.splice(..0, lines);
        Outcome { result, log }
    }

    fn device(&mut self, device: usize) -> &mut Device {
        self.devices[device].as_mut().expect("the step is allowed")
    }

    fn load(
        &mut self,
        number: usize,
        lines: &[Line],
        log: &mut Vec<String>,
    ) -> Result<Answer, i32> {
        let device = self.device(number);
        let table = Table::load(MINORS[number], device.has_node, lines);
        let table = table.map_err(|Refused(text, errno)| {
            log.push(text);
            errno
        })?;
        if !device.has_node && table.is_past_an_end() {
            return Err(EINVAL.to_errno().abs());
        }
        device.has_node = true;
        device.loaded = Some(table);
        Ok(Answer::Nothing)
    }

    /// Returns the upload that a request is, unless the kernel's netlink looks at more of the request.
    fn payload(&self, request: &Request) -> Option<Vec<u8>> {
        let bytes = request.bytes(&self.facts);
        let has = |at: usize, value: u16| bytes.get(at..at + 2) == Some(&value.to_ne_bytes());
        let len = usize::from(u16::from_ne_bytes(bytes.get(20..22)?.try_into().ok()?));
        let is_plain = bytes[..4] == (bytes.len() as u32).to_ne_bytes()
            && has(4, self.facts.family)
            && has(6, 1)
            && bytes[16] == 1
            && has(22, 1)
            && (4..=4 + abi::MAX_IPC_MSG_LEN as usize).contains(&len)
            && bytes.len() == 20 + len.next_multiple_of(4);
        is_plain.then(|| bytes[24..20 + len].to_vec())
    }

    fn send(&mut self, requests: &[Request]) -> Result<Answer, i32> {
        for request in requests {
            let payload = self.payload(request).expect("the step can be done");
            upload(&payload, request.sequence)?;
        }
        Ok(Answer::Datagrams(abi::take_sent()))
    }
}

/// Memory that the loaded module has without devices: the list of switches, and itself.
const ALLOCATIONS_OF_MODULE: usize = 2;

/// Whether a step failed for want of memory, or because the process is killed.
fn has_failed(outcome: &Outcome) -> bool {
    match &outcome.result {
        // An upload's status.
        Ok(Answer::Datagrams(datagrams)) => datagrams
            .iter()
            .any(|bytes| matches!(bytes.get(48..52), Some([4 | 12, 0, 0, 0]))),
        Ok(_) => false,
        Err(errno) => matches!(errno, 4 | 12),
    }
}

/// Sends an upload. The answer is among those that [`abi::take_sent`] returns. Fails with the errno of the command.
pub(crate) fn upload(payload: &[u8], sequence: u32) -> Result<(), i32> {
    // As long as it is, so that what is read beyond it is noticed.
    let mut bytes = vec![0_u16; 2 + payload.len().div_ceil(2)];
    let len = 4 + payload.len();
    // SAFETY: The attribute is in as many bytes. The family is registered, and has the command.
    unsafe {
        let attribute: *mut nlattr = bytes.as_mut_ptr().cast();
        let start = attribute.add(1).cast::<u8>();
        start.copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        attribute.write(nlattr {
            nla_len: len as u16,
            nla_type: 1,
        });
        let mut attributes = [ptr::null_mut(), attribute];
        let mut info = abi::genl_info {
            snd_seq: sequence,
            snd_portid: 1,
            attrs: attributes.as_mut_ptr(),
        };
        let family = abi::helper_genl_family();
        let handle = (*(*family).small_ops).doit.unwrap();
        match handle(ptr::null_mut(), &mut info) {
            0 => Ok(()),
            errno => Err(-errno),
        }
    }
}

impl Device {
    fn resume(&mut self) -> Result<Answer, i32> {
        let mut old = None;
        if let Some(table) = self.loaded.take() {
            if table.is_past_an_end() {
                self.is_suspended = true;
                return Err(EINVAL.to_errno().abs());
            }
            old = self.live.replace(table);
            self.is_suspended = true;
        }
        if let Some(live) = self.live.as_ref().filter(|_| self.is_suspended) {
            live.resume();
        }
        self.is_suspended = false;
        drop(old);
        Ok(Answer::Nothing)
    }

    fn status(&self, asked: Asked, loaded: bool, room: usize) -> Answer {
        let kind = match asked {
            Asked::Info => abi::status_type_t_STATUSTYPE_INFO,
            Asked::Table => abi::status_type_t_STATUSTYPE_TABLE,
        };
        let table = if loaded { &self.loaded } else { &self.live };
        let lines = table.as_ref().map(|table| table.status(kind, room));
        lines
            .unwrap_or_else(|| Some(String::new()))
            .map_or(Answer::Cut, Answer::Text)
    }

    fn message(&self, sector: u64, text: &str, room: usize) -> Result<Answer, i32> {
        let live = self.live.as_ref().ok_or(EINVAL.to_errno().abs())?;
        live.message(sector, text, room)
    }

    /// Reads sectors, or does something else with them that goes the same way.
    fn read(&self, sector: u64, count: usize) -> Answer {
        /// Reads, writes, discards, and writes with a flush.
        const OPERATIONS: [u32; 4] = [0, 1, 3, 1 | (1 << 18)];
        let table = self.live.as_ref().expect("the step is allowed");
        let (mut names, end) = (Vec::new(), sector + count as u64);
        let mut next = sector;
        while next < end {
            let operation = OPERATIONS[(next % 4) as usize];
            let io = Io {
                operation,
                sector: next,
                count: end - next,
                number: 0,
                is_atomic: false,
            };
            let Some(piece) = table.map(io) else { break };
            for sector in piece.sector..piece.sector + piece.count {
                names.push(if has_name(sector) {
                    format!("{}/{sector}", piece.disk)
                } else {
                    String::new()
                });
            }
            next += piece.count;
        }
        Answer::Sectors(names)
    }
}
