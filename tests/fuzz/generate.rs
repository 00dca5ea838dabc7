// SPDX-License-Identifier: GPL-2.0-only

//! Scripts out of random numbers. What matters is around the borders: of words, chunks, tables, devices
//! and of the numbers that the fields can hold.

use std::rc::Rc;

use super::random::Random;
use super::step::{
    Asked, Attribute, Line, Payload, Request, Step, Upload, Words, DISKS, DISK_SECTORS, MINORS,
};
use super::system::READ_SECTORS;

/// Steps of a script, those at its end not counted.
const STEPS: usize = 500;

/// Words of entries that a message has at most.
const MAX_WORDS: u64 = (65480 - 40) / 4;

const CHUNK: u64 = 8192;

/// Makes the script of a seed.
pub fn script(seed: u64) -> Vec<Step> {
    let mut generator = Generator {
        random: Random::new(seed),
        devices: Default::default(),
        steps: Vec::new(),
    };
    while generator.steps.len() < STEPS {
        generator.step();
    }
    for device in 0..MINORS.len() {
        generator.look_closely(device);
    }
    generator.steps
}

/// What the generator keeps in mind of a device, for steps that make sense.
#[derive(Clone, Default)]
struct Device {
    live: Table,
    loaded: Option<Table>,
}

/// What it keeps in mind of a table; of one that is not there, nothing.
#[derive(Clone, Default)]
struct Table {
    switches: Vec<Switch>,
    /// What uploads say most of the time.
    bits: u8,
    total: u32,
    /// Windows that were uploaded lately: first page and count.
    windows: Vec<(u64, u64)>,
}

impl Device {
    /// The loaded table where it is that and there is one; or else the live one.
    fn table(&mut self, is_loaded: bool) -> &mut Table {
        match &mut self.loaded {
            Some(loaded) if is_loaded || self.live.switches.is_empty() => loaded,
            _ => &mut self.live,
        }
    }
}

#[derive(Clone)]
struct Switch {
    begin: u64,
    sectors: u64,
    page_size: u64,
    members: u64,
    /// The bits of an entry where no upload chooses them.
    bits: u8,
}

struct Generator {
    random: Random,
    devices: [Option<Device>; MINORS.len()],
    steps: Vec<Step>,
}

impl Generator {
    fn step(&mut self) {
        let device = self.random.below(MINORS.len() as u64) as usize;
        if self.devices[device].is_none() {
            match self.random.below(10) {
                0 => self.upload(device),
                _ => self.make(device),
            }
            return;
        }
        match self.random.below(1000) {
            0..450 => self.upload(device),
            450..520 => self.odd_requests(device),
            520..660 => self.message(device),
            660..890 => self.read(device),
            890..920 => self.status(device),
            920..965 => self.reload(device),
            965..970 => self.pause(device),
            970..985 => self.bad_table(device),
            985..992 => self.remove(device),
            _ => self.look_closely(device),
        }
    }

    fn make(&mut self, device: usize) {
        self.steps.push(Step::Create { device });
        self.devices[device] = Some(Device::default());
        match self.random.below(20) {
            0 => return,
            1 => self.bad_table(device),
            _ => {}
        }
        self.load(device);
        if self.random.chance(30) {
            // The next one may keep the page table.
            self.upload(device);
            self.load(device);
            self.before_resume(device);
        }
        if self.random.chance(95) {
            self.resume(device);
        }
        if self.random.chance(15) {
            for text in ["set_region_mappings 0:0", "chunk_hits"] {
                self.steps.push(Step::Message {
                    device,
                    sector: 0,
                    text: text.into(),
                    room: 1 << 13,
                });
            }
        }
    }

    fn remove(&mut self, device: usize) {
        self.steps.push(Step::Remove { device });
        self.devices[device] = None;
    }

    fn resume(&mut self, device: usize) {
        self.steps.push(Step::Resume { device });
        if let Some(known) = &mut self.devices[device] {
            if let Some(loaded) = known.loaded.take() {
                known.live = loaded;
            }
        }
    }

    fn pause(&mut self, device: usize) {
        self.steps.push(Step::Suspend { device });
        for _ in 0..self.random.below(3) {
            self.upload(device);
        }
        self.resume(device);
    }

    fn clear(&mut self, device: usize) {
        self.steps.push(Step::Clear { device });
        if let Some(known) = &mut self.devices[device] {
            known.loaded = None;
        }
    }

    /// Loads a table, and most of the time makes it the live one.
    fn reload(&mut self, device: usize) {
        if self.random.chance(5) {
            return self.fail_to_resume(device);
        }
        self.load(device);
        self.before_resume(device);
        match self.random.below(10) {
            0 => self.clear(device),
            // Left loaded: other steps come before the resume.
            1..3 => return,
            _ => {}
        }
        self.resume(device);
        if self.random.chance(50) {
            self.look_closely(device);
        }
    }

    /// Loads a table that is only refused by the resume, and resumes the live one.
    fn fail_to_resume(&mut self, device: usize) {
        self.load(device);
        if let Some(Step::Load { table, .. }) = self.steps.last_mut() {
            // The last argument but an odd one is where the last device begins.
            let line = &mut table[0];
            let text = line.arguments.trim_end_matches(" odd");
            let path = text.rsplit_once(' ').map_or("", |(path, _)| path);
            line.arguments = format!("{path} {}", DISK_SECTORS - line.sectors + 1).into();
        }
        for _ in 0..self.random.below(3) {
            self.upload_to(device, true);
        }
        self.steps.push(Step::Resume { device });
        if let Some(known) = &mut self.devices[device] {
            known.loaded = None;
        }
        self.resume(device);
    }

    /// Does things to a device that has a loaded table: most of them uploads for that.
    fn before_resume(&mut self, device: usize) {
        for _ in 0..self.random.below(6) {
            match self.random.below(20) {
                0..10 => self.upload_to(device, true),
                10..13 => self.upload_to(device, false),
                13 => self.read(device),
                14 => self.message(device),
                15 | 16 => self.status_of(device, true),
                17 => self.load(device),
                18 => self.pause(device),
                _ => self.odd_requests(device),
            }
        }
    }

    /// Loads a good table, as like as not one that can keep the page table.
    fn load(&mut self, device: usize) {
        let mut known = self.devices[device].clone().unwrap_or_default();
        let old = known.table(false).clone();
        let lines = if self.random.chance(12) { 2 } else { 1 };
        let (mut table, mut switches, mut begin) = (Vec::new(), Vec::new(), 0);
        for number in 0..lines {
            let old = old
                .switches
                .get(number)
                .cloned()
                .filter(|_| self.random.chance(60));
            let (line, mut switch) = self.line(old, lines > 1);
            switch.begin = begin;
            begin += switch.sectors;
            table.push(line);
            switches.push(switch);
        }
        let (first, random) = (&switches[0], &mut self.random);
        let total = first.sectors.div_ceil(first.page_size).min((1 << 20) - 1) as u32;
        let keeps = old
            .switches
            .first()
            .is_some_and(|old| (old.page_size, old.members) == (first.page_size, first.members));
        // Uploads say what the table has that is kept, or what is the loaded one's alone.
        let loaded = if keeps && old.bits > 0 {
            Table {
                total: if random.chance(50) { old.total } else { total },
                switches,
                ..old
            }
        } else {
            Table {
                bits: first.bits,
                total,
                switches,
                windows: Vec::new(),
            }
        };
        self.steps.push(Step::Load { device, table });
        known.loaded = Some(loaded);
        self.devices[device] = Some(known);
    }

    /// A line, of the shape of an old one or of any.
    fn line(&mut self, old: Option<Switch>, is_short: bool) -> (Line, Switch) {
        let random = &mut self.random;
        let is_v3 = random.chance(75);
        let (members, page_size) = match old {
            Some(old) if !is_short || old.members < 100 => (old.members, old.page_size),
            // Device-mapper has a line in the log for each device, which must not be too many at once.
            _ if is_short => (
                random.pick(&[1, 2, 3, 4, 5, 9, 16, 17]),
                random.pick(&[1, 2, 7, 8, 100]),
            ),
            _ => (
                random.pick(&[
                    1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 255, 257,
                ]),
                random.pick(&[
                    1,
                    1,
                    1,
                    1,
                    2,
                    3,
                    7,
                    8,
                    64,
                    100,
                    8192,
                    1 << 31,
                    u32::MAX.into(),
                ]),
            ),
        };
        let pages = random.pick(&[
            1, 8, 100, 8191, 8192, 8193, 16384, 16400, 24577, 32768, 100_000, 131_072, 1_048_575,
            1_048_576, 1_100_000, 1_100_000,
        ]);
        // The kernel's own line has an entry for each page from the start, which takes its time.
        let most = if is_v3 && !is_short {
            DISK_SECTORS
        } else {
            70_000
        };
        let part = random.pick(&[0, 0, 0, 1, page_size / 2]);
        let sectors = (page_size.saturating_mul(pages).saturating_sub(part)).clamp(1, most);
        let mut text = format!("{members} {page_size}");
        if !is_v3 {
            text += " 0";
        }
        for number in 0..members {
            let disk = match random.chance(80) {
                true => number % DISKS as u64,
                false => random.below(DISKS as u64),
            };
            let start = random.pick(&[0, 0, 0, 1, 7, 8, 63, 64, 8192, 16392]);
            let start = start.min(DISK_SECTORS - sectors);
            let path = random.pick(&["/dev/ram", "1:"]);
            text += &format!(" {path}{disk} {start}");
        }
        if is_v3 && random.chance(5) {
            text += " odd";
        }
        let bits = (1..).find(|bits| members <= 1 << bits).unwrap_or(1_u8);
        let line = Line {
            sectors,
            arguments: Rc::from(text),
        };
        let switch = Switch {
            begin: 0,
            sectors,
            page_size,
            members,
            bits: if is_v3 {
                bits.next_power_of_two()
            } else {
                bits
            },
        };
        (line, switch)
    }

    /// Loads a table that is refused, most of the time.
    fn bad_table(&mut self, device: usize) {
        let (line, _) = self.line(None, true);
        let mut arguments: Vec<String> = line.arguments.split(' ').map(Into::into).collect();
        arguments.truncate(12);
        let pairs = (arguments.len() - 2) / 2;
        arguments[0] = pairs.to_string();
        let random = &mut self.random;
        let mut sectors = line.sectors.min(1000);
        let itself = format!("/dev/dm-{}", MINORS[device]);
        let paths = [
            "/dev/none",
            "/dev/null",
            "/tmp",
            "240:7",
            "4096:1",
            "/dev/\u{1}\u{e9}",
            &itself,
        ];
        for _ in 0..=random.below(2) {
            let at = random.below(arguments.len() as u64) as usize;
            match random.below(10) {
                0 => arguments.truncate(at),
                1 => sectors = random.pick(&[DISK_SECTORS, DISK_SECTORS + 1, DISK_SECTORS - 1]),
                2 => arguments.insert(2.min(arguments.len()), random.pick(&["0", "1", "x"]).into()),
                3 => arguments.push("/dev/ram0".into()),
                4 => {
                    let is_path = |text: &String| text.contains([':', '/']);
                    if let Some(path) = arguments.iter_mut().rfind(|text| is_path(text)) {
                        *path = random.pick(&paths).into();
                    }
                }
                _ => {
                    arguments[at] = random
                        .pick(&[
                            "",
                            "0",
                            "1",
                            "2",
                            "3",
                            "5x",
                            "x5",
                            "+1",
                            "-1",
                            "++1",
                            "0x1",
                            "07",
                            "4294967295",
                            "4294967296",
                            "4294967297",
                            "18446744073709551615",
                            "18446744073709551616",
                            "18446744073709551617",
                            "262141",
                            "262142",
                            "1114112",
                            "1114111",
                            "/dev/none",
                            "/dev/ram0",
                            "1:3",
                            "1:",
                            "ram0",
                        ])
                        .into();
                }
            }
            if arguments.is_empty() {
                break;
            }
        }
        let table = vec![Line {
            sectors,
            arguments: Rc::from(arguments.join(" ")),
        }];
        self.steps.push(Step::Load { device, table });
        // Whether it is there now, the generator does not know.
        match random.below(10) {
            0..7 => self.clear(device),
            7 => {
                self.load(device);
                self.before_resume(device);
            }
            _ => {
                self.resume(device);
                self.load(device);
                self.resume(device);
            }
        }
    }

    fn status(&mut self, device: usize) {
        let loaded = self.random.chance(20);
        self.status_of(device, loaded);
    }

    fn status_of(&mut self, device: usize, loaded: bool) {
        let random = &mut self.random;
        let asked = random.pick(&[Asked::Info, Asked::Table]);
        let room = match random.chance(15) {
            true => random.below(200) as usize,
            false => 1 << 15,
        };
        self.steps.push(Step::Status {
            device,
            asked,
            loaded,
            room,
        });
    }

    /// Has a look at all that there is to see of a device.
    fn look_closely(&mut self, device: usize) {
        self.resume(device);
        let Some(known) = self.devices[device]
            .as_ref()
            .map(|known| known.live.clone())
        else {
            return;
        };
        for asked in [Asked::Info, Asked::Table] {
            self.steps.push(Step::Status {
                device,
                asked,
                loaded: false,
                room: 1 << 15,
            });
        }
        for switch in &known.switches {
            self.steps.push(Step::Message {
                device,
                sector: switch.begin,
                text: "chunk_hits".into(),
                room: 1 << 13,
            });
        }
        if let Some(switch) = known.switches.first() {
            self.steps.push(Step::Message {
                device,
                sector: switch.begin,
                text: "page_table".into(),
                room: 1 << 16,
            });
        }
        for (first, count) in known.windows {
            for page in [first, (first + count).saturating_sub(1), first + count] {
                self.read_page(device, page);
            }
        }
    }

    /// A page of which something can be expected.
    fn page(&mut self, known: &Table) -> u64 {
        let random = &mut self.random;
        let near = random.below(3);
        match random.below(6) {
            0 => random.below(40),
            1 => (CHUNK * random.below(140) + near).saturating_sub(1),
            2 => (u64::from(known.total) + near).saturating_sub(2),
            3 if random.chance(30) => random.below(1 << 20),
            _ if known.windows.is_empty() => CHUNK - 1 + near,
            _ => {
                let (first, count) = random.pick(&known.windows);
                match random.below(3) {
                    0 => (first + near).saturating_sub(1),
                    1 => (first + count + near).saturating_sub(2),
                    _ => first + random.below(count),
                }
            }
        }
    }

    fn read(&mut self, device: usize) {
        let known = self.table(device, false);
        let page = self.page(&known);
        self.read_page(device, page);
    }

    fn read_page(&mut self, device: usize, page: u64) {
        let known = self.table(device, false);
        let random = &mut self.random;
        let Some(switch) = known
            .switches
            .get(random.below(known.switches.len() as u64) as usize)
        else {
            return;
        };
        let within = random.pick(&[0, 0, 0, switch.page_size - 1, switch.page_size / 2]);
        let offset = page.saturating_mul(switch.page_size).saturating_add(within);
        let offset = if offset < switch.sectors || random.chance(3) {
            offset.min(switch.sectors + 8)
        } else {
            // Not all tables reach as far as the page.
            switch.sectors - 1 - random.below(switch.sectors.min(16))
        };
        let count = match random.below(20) {
            0..10 => 1,
            10..18 => 8,
            18 => 1 + random.below(16) as usize,
            _ => READ_SECTORS,
        };
        let back = random.pick(&[0, 0, 1, 4, 7]);
        let sector = (switch.begin + offset).saturating_sub(back);
        self.steps.push(Step::Read {
            device,
            sector,
            count,
        });
    }

    /// What is known of a table of the device.
    fn table(&mut self, device: usize, is_loaded: bool) -> Table {
        let known = self.devices[device].as_mut();
        known
            .map(|known| known.table(is_loaded).clone())
            .unwrap_or_default()
    }

    fn upload(&mut self, device: usize) {
        let is_loaded = self.random.chance(50);
        self.upload_to(device, is_loaded);
    }

    /// Uploads what the loaded table may take, or the live one.
    fn upload_to(&mut self, device: usize, is_loaded: bool) {
        let upload = self.good_upload(device, is_loaded);
        let mut requests = vec![Request::of(vec![Attribute::of(Payload::Upload(upload))])];
        if self.random.chance(5) {
            requests[0].flags |= 4;
        }
        if self.random.chance(20) {
            requests[0].sequence = self.random.word();
            requests[0].port = self.random.word();
        }
        self.steps.push(Step::Send { requests });
        let window = self.table(device, is_loaded).windows.last().copied();
        if let Some((first, count)) = window.filter(|_| self.random.chance(25)) {
            let page = first + self.random.below(count + 2);
            self.read_page(device, page);
        }
    }

    /// An upload, of which most are accepted.
    fn good_upload(&mut self, device: usize, is_loaded: bool) -> Upload {
        let known = self.table(device, is_loaded);
        let (members, pages) = known.switches.first().map_or((2, 100), |switch| {
            (switch.members, switch.sectors.div_ceil(switch.page_size))
        });
        let random = &mut self.random;
        let fewest = (1..).find(|bits| members <= 1 << bits).unwrap_or(1_u8);
        let mut bits = match random.below(100) {
            _ if known.bits == 0 => fewest,
            0..92 => known.bits,
            92..97 => random.below(33 - u64::from(fewest)) as u8 + fewest,
            97 => fewest - 1,
            98 => random.below(256) as u8,
            _ => random.pick(&[0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 255]),
        };
        let total = match random.below(100) {
            0..94 if known.total > 0 => known.total,
            0..96 => pages.min((1 << 20) - 1) as u32,
            _ => random.pick(&[
                0,
                1,
                7,
                8,
                9,
                100,
                8191,
                8192,
                8193,
                16383,
                16384,
                16385,
                131_072,
                1_048_575,
                1_048_576,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
            ]),
        };
        let devices = match random.below(100) {
            0..97 => members as u16,
            97..99 => random.below(2 * members + 2) as u16,
            _ => random.pick(&[0, 1, 2, 256, 32767, 32768, 65535]),
        };
        if bits == known.bits || random.chance(70) {
            // Keep to it.
        } else if let Some(known) = self.devices[device].as_mut() {
            let known = known.table(is_loaded);
            known.bits = bits.clamp(1, 32);
            known.total = total.clamp(1, (1 << 20) - 1);
        }
        let random = &mut self.random;
        let each = u64::from(32 / bits.clamp(1, 32));
        let whole = |page: u64| page / each * each;
        let (first, count) = window(random, total.into(), each);
        let first = match random.below(100) {
            0..94 => whole(first),
            94..97 => first,
            97 => whole(first) + 1,
            _ => random.pick(&[
                0,
                1,
                8191,
                8192,
                8193,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
            ]),
        };
        let count = match random.below(100) {
            0..93 => count.min(u64::from(total).saturating_sub(first)),
            93..96 => count,
            96 => (u64::from(total) + 1).saturating_sub(first),
            _ => random.pick(&[
                0,
                1,
                8192,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_fff0,
                0xffff_ffff,
            ]),
        };
        let first = if count == 0 && random.chance(90) {
            first / CHUNK * CHUNK
        } else {
            first
        };
        if random.chance(1) {
            bits = random.below(256) as u8;
        }
        let mut words = count.div_ceil(each);
        if words > MAX_WORDS {
            words = random.below(4);
        }
        // The C structure has room for one.
        words = words.max(random.below(2));
        let length_off = match random.below(100) {
            0..88 => 0,
            88..91 => -1,
            91..94 => -(random.below(6) as i32),
            94..97 => random.below(9) as i32,
            97 => -(random.below(60) as i32),
            98 if random.chance(15) => (65470 + random.below(30) as i32) - (40 + 4 * words as i32),
            _ => 0,
        };
        let below = match random.below(100) {
            0..85 => members as u32,
            85..92 => members as u32 + 1,
            _ => 0,
        };
        let number_off = match random.below(100) {
            0..97 => [0, 0],
            97 => [random.pick(&[1, 4096, 0x8000_0000]), 0],
            98 => [0, random.pick(&[1, 1 << 20, 0x8000_0000, 0xffff_ffff])],
            _ => [random.word(), random.word()],
        };
        let is_odd = random.chance(5);
        let upload = Upload {
            total_len: if is_odd {
                random.word()
            } else {
                40 + 4 * words as u32
            },
            opcode: if is_odd { random.word() } else { 1 },
            userland: [random.word(), random.word()],
            device,
            number_off,
            total,
            first: first as u32,
            count: count as u32,
            devices,
            bits,
            reserved: if is_odd { random.below(256) as u8 } else { 0 },
            words: Words {
                count: words as usize,
                seed: random.next() & 0xffff,
                below,
            },
            length_off,
        };
        if let Some(known) = self.devices[device].as_mut() {
            let known = known.table(is_loaded);
            known
                .windows
                .push((upload.first.into(), upload.count.into()));
            if known.windows.len() > 6 {
                known.windows.remove(0);
            }
        }
        upload
    }

    /// Requests in a datagram, of which something is out of the ordinary.
    fn odd_requests(&mut self, device: usize) {
        let mut requests = Vec::new();
        for _ in 0..=self.random.below(3).saturating_sub(1) {
            let is_loaded = self.random.chance(50);
            let upload = self.good_upload(device, is_loaded);
            let mut request = Request::of(vec![Attribute::of(Payload::Upload(upload))]);
            request.sequence = self.random.word();
            request.port = self.random.word();
            for _ in 0..=self.random.below(2) {
                self.make_odd(&mut request, device);
            }
            requests.push(request);
        }
        self.steps.push(Step::Send { requests });
    }

    fn make_odd(&mut self, request: &mut Request, device: usize) {
        let random = &mut self.random;
        match random.below(16) {
            0 => request.flags = random.pick(&[0, 1, 4, 5, 0x101, 0x201, 0x301, 0xffff]),
            1 => request.command = random.pick(&[0, 1, 2, 3, 255]),
            2 => request.version = random.below(256) as u8,
            3 => request.reserved = random.word() as u16,
            4 => request.kind = Some(random.pick(&[0, 1, 2, 3, 15, 40_000, 65_535])),
            5 => request.length_off = random.pick(&[-4, -3, -1, 1, 4, 1000, i32::MAX]),
            6 => {
                let length = random.pick(&[0, 4, 12, 15, 16, 17, 18, 19, 20, 21]);
                request.attributes.clear();
                request.length_off = length - 20;
            }
            7 => request.behind = (0..random.below(8)).map(|_| random.word() as u8).collect(),
            8 => request.attributes.clear(),
            9 => {
                // The whole of a message is truncated, or too long for what is behind it.
                let off = random.pick(&[-5, -4, -1, 1, 2, 4, 40, i16::MAX]);
                for attribute in &mut request.attributes {
                    attribute.length_off = off;
                }
            }
            10 => {
                for attribute in &mut request.attributes {
                    attribute.kind |= random.pick(&[0x8000, 0x4000, 0xc000]);
                }
            }
            11 => {
                for attribute in &mut request.attributes {
                    attribute.kind = random.pick(&[0, 2, 3, 77, 0x3fff, 0x8000, 0x8002]);
                }
            }
            12 => {
                let inner = request
                    .attributes
                    .clone()
                    .into_iter()
                    .map(|inner| Attribute {
                        kind: random.pick(&[1, 0x8001, 2, 0x8002]),
                        payload: Payload::Attribute(Box::new(inner)),
                        length_off: 0,
                    });
                request.attributes = inner.collect();
            }
            13 => {
                let size = random.pick(&[0, 1, 39, 40, 41, 44, 65480, 65481, 65531]);
                request.attributes.push(Attribute::of(Payload::Zeros(size)));
            }
            14 => {
                let bytes = (0..random.below(64)).map(|_| random.word() as u8).collect();
                let attribute = Attribute {
                    kind: random.pick(&[0, 1, 2, 77]),
                    payload: Payload::Bytes(bytes),
                    length_off: 0,
                };
                let at = random.below(request.attributes.len() as u64 + 1) as usize;
                request.attributes.insert(at, attribute);
            }
            _ => {
                let second = self.good_upload(device, true);
                request
                    .attributes
                    .push(Attribute::of(Payload::Upload(second)));
            }
        }
    }

    fn message(&mut self, device: usize) {
        let known = self.table(device, false);
        let number = self.random.below(known.switches.len() as u64) as usize;
        let switch = known.switches.get(number).cloned();
        let begin = switch.as_ref().map_or(0, |switch| switch.begin);
        let members = switch.map_or(2, |switch| switch.members);
        let mut room = 1 << 13;
        let text = match self.random.below(100) {
            0..15 => "chunk_hits".into(),
            15..30 => {
                room = 1 << self.random.below(18);
                self.page_table(&known)
            }
            30..35 => {
                let texts = [
                    "",
                    " ",
                    "x",
                    "chunk_hits 1",
                    "CHUNK_HITS",
                    "PAGE_TABLE",
                    "page_table 0 1 2",
                    "set_region_mapping 0:1",
                    "help",
                ];
                self.random.pick(&texts).into()
            }
            _ => {
                let mut text: String = self
                    .random
                    .pick(&["set_region_mappings", "Set_Region_MAPPINGS"])
                    .into();
                for _ in 0..self.random.below(6) {
                    text += " ";
                    text += &self.region(&known, members);
                }
                text
            }
        };
        let random = &mut self.random;
        let sector = match random.below(20) {
            0 => random.pick(&[1, 1000, DISK_SECTORS, u64::MAX]),
            _ => begin,
        };
        let room = match random.chance(5) {
            true => random.below(64) as usize,
            false => room,
        };
        self.steps.push(Step::Message {
            device,
            sector,
            text,
            room,
        });
    }

    /// A message `page_table`, of pages that may have entries most of the time.
    fn page_table(&mut self, known: &Table) -> String {
        let page = self.page(known);
        let random = &mut self.random;
        let total = u64::from(known.total);
        let (first, count) = match random.below(10) {
            0 => return "page_table".into(),
            1 => {
                let text = random.pick(&[
                    "x",
                    "1x",
                    "0 x",
                    "-1",
                    "0 -1",
                    "++1",
                    "4294967296",
                    "0 4294967296",
                    "0 18446744073709551616",
                    "0x1",
                    "0 0x1",
                    "x x",
                    "@0",
                    "\u{e9}",
                    "4294967295",
                    "4294967295 4294967295",
                    "+1 +1",
                    "007 010",
                ]);
                return format!("page_table {text}");
            }
            2 => (random.below(2), None),
            3 => (page, None),
            4 => (page, Some(random.pick(&[0, 1, total, u32::MAX.into()]))),
            5 => (page / CHUNK * CHUNK, Some(CHUNK + 1)),
            _ => (
                page.saturating_sub(random.below(40)),
                Some(random.below(100)),
            ),
        };
        let count = count.map_or(String::new(), |count| format!(" {count}"));
        format!("page_table {first}{count}")
    }

    /// An argument of `set_region_mappings`.
    fn region(&mut self, known: &Table, members: u64) -> String {
        let page = self.page(known);
        let random = &mut self.random;
        let page = if random.chance(90) {
            page % u64::from(known.total.max(1))
        } else {
            page
        };
        match random.below(20) {
            0..8 => format!("{page:x}:{:x}", random.below(members)),
            8..12 => format!(":{:x}", random.below(members)),
            12..14 => format!("R{:x},{:x}", 1 + random.below(4), random.below(40)),
            14 => {
                let count = random.pick(&[0, 1, 8191, 8192, 8193, u64::MAX]);
                format!("r{:x},{count:x}", random.below(page + 2))
            }
            15 => format!("{page:X}:{:x}", members - 1 + random.below(2)),
            16 => format!("1{page:016x}:0"),
            17 => format!(
                "{:x}:0",
                random.pick(&[u64::MAX, 1 << 32, 1 << 31, (1 << 20) - 1])
            ),
            _ => {
                let texts = [
                    "1",
                    "1:",
                    ":",
                    "R",
                    "R1",
                    "R,",
                    "R,1",
                    "R1,",
                    "R1,1,1",
                    "R1:1",
                    "g:1",
                    "0x1:1",
                    "-1:1",
                    "1:1:1",
                    "1:g",
                    "R0,1",
                    "R1,g",
                    "Rg,1",
                    "1:ffffffffffffffff",
                    "\u{e9}:1",
                    "R10000000000000001,1",
                ];
                random.pick(&texts).into()
            }
        }
    }
}

/// A window of a table with so many entries, `each` of them in a word.
fn window(random: &mut Random, total: u64, each: u64) -> (u64, u64) {
    let chunks = total / CHUNK + 1;
    let border = CHUNK * random.below(chunks.min(129) + 1);
    let near = random.below(3 * each + 3);
    let first = match random.below(10) {
        0..3 => near,
        3..7 => (border + near).saturating_sub(each + 2),
        7 => (total + near).saturating_sub(2 * each + 2),
        8 => border,
        _ => random.below(total),
    };
    let count = match random.below(40) {
        0..2 => 0,
        2..10 => 1 + random.below(4),
        10..18 => random.below(3) * each + random.below(3),
        18..24 => each * (1 + random.below(8)),
        24..30 => {
            // To a border of a chunk, or near it.
            let next = (first / CHUNK + 1) * CHUNK;
            let count = (next - first + random.below(3)).saturating_sub(1);
            if count > 4 * each + 8 && random.chance(80) {
                1 + random.below(each)
            } else {
                count
            }
        }
        30..36 => 1 + random.below(40),
        36..38 => random.below(300),
        38 => random.below(CHUNK * 2),
        _ if random.chance(20) => MAX_WORDS * each - random.below(3),
        _ => total,
    };
    (first, count)
}
