// SPDX-License-Identifier: GPL-2.0-only

//! What does happen: steps done with device-mapper's ioctls, a netlink socket and reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::step::{
    has_name, Answer, Asked, Facts, Line, Outcome, Step, DISKS, DISK_SECTORS, MINORS,
};

/// The system calls that the standard library has no wrapper for.
#[allow(unsafe_code)]
mod sys {
    use std::fs::File;
    use std::io;
    use std::mem::zeroed;
    use std::os::fd::{AsRawFd, FromRawFd};

    /// Bytes of a `struct dm_ioctl`.
    pub const DM_HEADER: usize = 312;

    /// What a system call returned: a number from 0 up, unless it failed.
    fn check(result: i32) -> io::Result<i32> {
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(result)
    }

    /// Opens a generic netlink socket, from which reads do not wait, with room for several of the longest
    /// messages, and returns its port.
    pub fn netlink_socket() -> io::Result<(File, u32)> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes no pointers.
        let fd = check(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_GENERIC) })?;
        // SAFETY: the descriptor is fresh from the kernel and nothing else owns it.
        let socket = unsafe { File::from_raw_fd(fd) };
        // SAFETY: a sockaddr_nl is integers only, for which zero is a value.
        let mut address: libc::sockaddr_nl = unsafe { zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let mut size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is on this stack, goes with its length, and outlives the call.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), size) })?;
        // SAFETY: as above, and so does the length.
        check(unsafe { libc::getsockname(fd, (&raw mut address).cast(), &mut size) })?;
        let room: libc::c_int = 4 << 20;
        for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
            let (value, size) = (&raw const room, size_of_val(&room) as libc::socklen_t);
            // SAFETY: the value is on this stack, goes with its length, and outlives the call.
            check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value.cast(), size) })?;
        }
        Ok((socket, address.nl_pid))
    }

    /// Waits until all that was printed is on the line, for a kernel that dies takes the rest with it.
    pub fn drain_output() {
        // SAFETY: the call takes no pointers; where standard output is no terminal, it does nothing.
        unsafe { libc::tcdrain(libc::STDOUT_FILENO) };
    }

    /// A device-mapper ioctl, by its number, on a buffer that begins with a `struct dm_ioctl`, whose
    /// `data_size` is set here.
    pub fn dm_ioctl(control: &File, number: u32, buffer: &mut [u8]) -> io::Result<()> {
        assert!(buffer.len() >= DM_HEADER);
        let size = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        buffer[12..16].copy_from_slice(&size.to_ne_bytes());
        let request = libc::_IOWR::<[u8; DM_HEADER]>(0xfd, number);
        let (fd, data) = (control.as_raw_fd(), buffer.as_mut_ptr());
        // SAFETY: the kernel reads and writes data_size bytes at most, just made no more than the
        // buffer has, and never fewer than the header, which the buffer was found to hold.
        check(unsafe { libc::ioctl(fd, request, data) }).map(drop)
    }
}

pub use sys::drain_output;

// Numbers of device-mapper's ioctls. C header: `linux/dm-ioctl.h`.
const DM_DEV_CREATE: u32 = 3;
const DM_DEV_REMOVE: u32 = 4;
const DM_DEV_SUSPEND: u32 = 6;
const DM_TABLE_LOAD: u32 = 9;
const DM_TABLE_CLEAR: u32 = 10;
const DM_TABLE_STATUS: u32 = 12;
const DM_TARGET_MSG: u32 = 14;
const DM_SUSPEND_FLAG: u32 = 1 << 1;
const DM_PERSISTENT_DEV_FLAG: u32 = 1 << 3;
const DM_STATUS_TABLE_FLAG: u32 = 1 << 4;
const DM_BUFFER_FULL_FLAG: u32 = 1 << 8;
const DM_QUERY_INACTIVE_TABLE_FLAG: u32 = 1 << 12;
const DM_DATA_OUT_FLAG: u32 = 1 << 16;
/// Bytes of a `struct dm_target_spec`.
const DM_SPEC: usize = 40;

/// What a buffer has in it that the kernel is to write a status to.
const BLANK: u8 = 0xa5;

/// Sectors of the longest read.
pub const READ_SECTORS: usize = 64;

/// A buffer that a read around the page cache can use.
#[repr(C, align(4096))]
struct Buffer([u8; READ_SECTORS * 512]);

/// What complaints of a kernel have in them, as `check_log` of the shell tests has it.
const COMPLAINTS: &[&str] = &[
    "BUG",
    "WARNING: ",
    "INFO: ",
    "cut here",
    "Call Trace",
    "Oops",
    "general prot",
    "Kernel panic",
    "refcount_t",
    "leak",
    "detected stall",
    "KASAN",
    "KCSAN",
    "UBSAN",
    "ODEBUG",
    "corruption",
    "single bit error",
    "turning off the locking",
    "invoked oom-killer",
    "dm_put_device call missing",
];

/// The kernel that is tested.
pub struct System {
    pub facts: Facts,
    control: File,
    socket: File,
    log: File,
    /// The devices that are there: each file is open from the first read on.
    devices: [Option<Option<File>>; MINORS.len()],
    buffer: Box<Buffer>,
    received: Vec<u8>,
    /// The line of the log that a healthy kernel would not have written.
    pub complaint: Option<String>,
}

impl System {
    /// What runs a script again.
    pub const AGAIN: &str = "make fuzz SCRIPT=";

    /// Opens what is needed, and writes the names of sectors to the disks.
    pub fn new() -> io::Result<Self> {
        let open = |path: &str| OpenOptions::new().read(true).write(true).open(path);
        let (socket, port) = sys::netlink_socket()?;
        let family = fs::read_to_string("/sys/module/dm_switch/familyid")?;
        let devices = fs::read_to_string("/proc/devices")?;
        let major = devices
            .lines()
            .find_map(|line| line.trim().strip_suffix(" device-mapper"));
        let invalid = |_| io::Error::from(ErrorKind::InvalidData);
        let facts = Facts {
            family: family.trim().parse().map_err(invalid)?,
            port,
            major: major.unwrap_or_default().parse().map_err(invalid)?,
            numbers_are_devices: kernel_release()? < (6, 5),
        };
        let mut log = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")?;
        log.seek(SeekFrom::End(0))?;
        for disk in 0..DISKS {
            name_sectors(disk)?;
        }
        Ok(System {
            facts,
            control: open("/dev/mapper/control")?,
            socket,
            log,
            devices: Default::default(),
            buffer: Box::new(Buffer([0; READ_SECTORS * 512])),
            received: vec![0; 1 << 20],
            complaint: None,
        })
    }

    /// Removes the devices that are there.
    pub fn clear(&mut self) {
        for device in 0..MINORS.len() {
            if self.devices[device].is_some() {
                self.run(&Step::Remove { device });
            }
        }
    }

    /// Whether a step can be done here.
    pub fn can(&self, _step: &Step) -> bool {
        true
    }

    /// Does a step, and returns what it comes to.
    pub fn run(&mut self, step: &Step) -> Outcome {
        let result = match step {
            Step::Create { device } => self.create(*device),
            Step::Load { device, table } => self.load(*device, table),
            Step::Resume { device } => self.simple(DM_DEV_SUSPEND, *device, 0),
            Step::Suspend { device } => self.simple(DM_DEV_SUSPEND, *device, DM_SUSPEND_FLAG),
            Step::Clear { device } => self.simple(DM_TABLE_CLEAR, *device, 0),
            Step::Remove { device } => {
                self.devices[*device] = None;
                self.simple(DM_DEV_REMOVE, *device, 0)
            }
            Step::Status {
                device,
                asked,
                loaded,
                room,
            } => self.status(*device, *asked, *loaded, *room),
            Step::Message {
                device,
                sector,
                text,
                room,
            } => self.message(*device, *sector, text, *room),
            Step::Send { requests } => {
                let facts = self.facts;
                let bytes: Vec<u8> = requests.iter().flat_map(|one| one.bytes(&facts)).collect();
                self.send(&bytes)
            }
            Step::Read {
                device,
                sector,
                count,
            } => self.read(*device, *sector, *count),
        };
        let result = result.map_err(|error| error.raw_os_error().unwrap_or(-1));
        let log = self.log();
        Outcome { result, log }
    }

    /// A `struct dm_ioctl` for a device.
    fn request(device: usize, flags: u32) -> Vec<u8> {
        let mut bytes = vec![0; sys::DM_HEADER];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &4_u32.to_ne_bytes());
        put(16, &(sys::DM_HEADER as u32).to_ne_bytes());
        put(28, &flags.to_ne_bytes());
        put(48, format!("fuzz{device}").as_bytes());
        bytes
    }

    fn simple(&self, number: u32, device: usize, flags: u32) -> io::Result<Answer> {
        sys::dm_ioctl(&self.control, number, &mut Self::request(device, flags))?;
        Ok(Answer::Nothing)
    }

    fn create(&mut self, device: usize) -> io::Result<Answer> {
        let mut request = Self::request(device, DM_PERSISTENT_DEV_FLAG);
        let number = libc::makedev(self.facts.major, MINORS[device]);
        request[40..48].copy_from_slice(&number.to_ne_bytes());
        sys::dm_ioctl(&self.control, DM_DEV_CREATE, &mut request)?;
        self.devices[device] = Some(None);
        Ok(Answer::Nothing)
    }

    fn load(&self, device: usize, table: &[Line]) -> io::Result<Answer> {
        let mut request = Self::request(device, 0);
        request[20..24].copy_from_slice(&(table.len() as u32).to_ne_bytes());
        let mut begin = 0;
        for line in table {
            let size = (DM_SPEC + line.arguments.len() + 1).next_multiple_of(8);
            let end = request.len() + size;
            request.extend(u64::to_ne_bytes(begin));
            request.extend(line.sectors.to_ne_bytes());
            request.extend(0_u32.to_ne_bytes());
            // From the line before; of the first, from the end of the header.
            request.extend((size as u32).to_ne_bytes());
            request.extend(b"switch\0\0\0\0\0\0\0\0\0\0");
            request.extend(line.arguments.as_bytes());
            request.resize(end, 0);
            begin += line.sectors;
        }
        sys::dm_ioctl(&self.control, DM_TABLE_LOAD, &mut request)?;
        Ok(Answer::Nothing)
    }

    fn status(&self, device: usize, asked: Asked, loaded: bool, room: usize) -> io::Result<Answer> {
        let mut flags = 0;
        if asked == Asked::Table {
            flags |= DM_STATUS_TABLE_FLAG;
        }
        if loaded {
            flags |= DM_QUERY_INACTIVE_TABLE_FLAG;
        }
        let mut answer = Self::request(device, flags);
        answer.resize(sys::DM_HEADER + room, BLANK);
        sys::dm_ioctl(&self.control, DM_TABLE_STATUS, &mut answer)?;
        if word(&answer, 28) & DM_BUFFER_FULL_FLAG != 0 {
            return Ok(Answer::Cut);
        }
        let (mut lines, mut at) = (String::new(), sys::DM_HEADER);
        for _ in 0..word(&answer, 20) {
            let (begin, sectors) = (long(&answer, at), long(&answer, at + 8));
            let (target, text) = (
                string(&answer[at + 24..at + 40]),
                string(&answer[at + 40..]),
            );
            let end = at + DM_SPEC + text.len() + 1;
            at = sys::DM_HEADER + word(&answer, at + 20) as usize;
            lines += &format!("{begin} {sectors} {target} {text}\n");
            // Up to the next line, or where it would be, is what we gave.
            if answer[end..at.min(answer.len())]
                .iter()
                .any(|byte| *byte != BLANK)
            {
                lines += "and something behind its end\n";
            }
        }
        Ok(Answer::Text(lines))
    }

    fn message(&self, device: usize, sector: u64, text: &str, room: usize) -> io::Result<Answer> {
        let mut request = Self::request(device, 0);
        request.extend(sector.to_ne_bytes());
        request.extend(text.as_bytes());
        request.push(0);
        let size = request.len().max(sys::DM_HEADER + room);
        request.resize(size, BLANK);
        let given = request.clone();
        sys::dm_ioctl(&self.control, DM_TARGET_MSG, &mut request)?;
        let (text, mut end) = (string(&request[sys::DM_HEADER..]), sys::DM_HEADER);
        let answer = match word(&request, 28) {
            flags if flags & DM_BUFFER_FULL_FLAG != 0 => return Ok(Answer::Cut),
            flags if flags & DM_DATA_OUT_FLAG != 0 => {
                end += text.len() + 1;
                Answer::Text(text)
            }
            _ => Answer::Nothing,
        };
        // Behind it is what we gave.
        if request[end..] != given[end..] {
            return Ok(Answer::Text("something behind its end".into()));
        }
        Ok(answer)
    }

    /// Sends a datagram. The kernel has handled it, and answered, when the send returns.
    fn send(&mut self, bytes: &[u8]) -> io::Result<Answer> {
        let sent = self.socket.write(bytes)?;
        assert_eq!(sent, bytes.len(), "a datagram is sent whole");
        let mut answers = Vec::new();
        loop {
            match self.socket.read(&mut self.received) {
                Ok(length) => answers.push(self.received[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Answer::Datagrams(answers))
    }

    fn read(&mut self, device: usize, sector: u64, count: usize) -> io::Result<Answer> {
        let file = self.devices[device].as_mut().expect("the step is allowed");
        if file.is_none() {
            let node = format!("/dev/dm-{}", MINORS[device]);
            let direct = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_DIRECT)
                .open(node)?;
            *file = Some(direct);
        }
        let file = file.as_ref().expect("it was just opened");
        let bytes = &mut self.buffer.0[..count * 512];
        bytes.fill(0xff);
        let length = file.read_at(bytes, sector * 512)?;
        let names = bytes[..length].chunks(512).map(|sector| match sector {
            [0, ..] if sector.iter().all(|byte| *byte == 0) => String::new(),
            _ => String::from_utf8_lossy(sector).trim_end().into(),
        });
        Ok(Answer::Sectors(names.collect()))
    }

    /// What the module and device-mapper logged of it since the last time; a complaint is kept.
    fn log(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = [0; 4096];
        loop {
            let length = match self.log.read(&mut record) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return lines,
                Err(error) => {
                    self.complaint = Some(format!("the log cannot be read: {error}"));
                    return lines;
                }
            };
            let record = String::from_utf8_lossy(&record[..length]);
            let text = record.split_once(';').map_or("", |(_, text)| text);
            let line = &unescape(text.lines().next().unwrap_or_default());
            let is_stray = line.starts_with("dm_switch: switch_map WARNING: ");
            let is_refused =
                line.starts_with("device-mapper: table: ") && line.contains(": switch: ");
            if is_refused {
                // Behind it is the errno, by its name or its number.
                let text = line.rsplit_once(" (").map_or(&**line, |(text, _)| text);
                lines.push(text.into());
            } else if line.starts_with("dm_switch: ") && !is_stray {
                lines.push(line.into());
            } else if !is_stray && COMPLAINTS.iter().any(|complaint| line.contains(complaint)) {
                self.complaint.get_or_insert(line.into());
            }
        }
    }
}

/// The first two numbers of the kernel's release.
fn kernel_release() -> io::Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split('.').map_while(|number| number.parse().ok());
    numbers
        .next()
        .zip(numbers.next())
        .ok_or_else(|| ErrorKind::InvalidData.into())
}

/// A line as it was logged: `/dev/kmsg` has what is not printable, and the backslash, as `\xNN`.
fn unescape(line: &str) -> String {
    let mut parts = line.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).map(|digits| u8::from_str_radix(digits, 16));
        match byte {
            Some(Ok(byte)) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            _ => bytes.extend(format!("\\x{part}").into_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into()
}

/// Writes the names of the sectors of a disk that have one.
fn name_sectors(disk: usize) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .open(format!("/dev/ram{disk}"))?;
    let mut sector = 0;
    while sector < DISK_SECTORS {
        let begin = sector;
        let mut names = Vec::new();
        while sector < DISK_SECTORS && has_name(sector) {
            names.extend(format!("{:<511}\n", format!("{disk}/{sector}")).into_bytes());
            sector += 1;
        }
        if names.is_empty() {
            sector += 1;
        } else {
            file.write_all_at(&names, begin * 512)?;
        }
    }
    file.sync_all()
}

/// The text up to the first NUL.
fn string(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    (u64::from(word(bytes, at + 4)) << 32) | u64::from(word(bytes, at))
}
