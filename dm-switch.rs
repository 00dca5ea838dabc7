// SPDX-License-Identifier: GPL-2.0

//! The device-mapper target `switch`, as Dell posted it in 2011 (v3).
//!
//! A switch is a mapped device over the members of a storage array, which are called its devices
//! here. Its address space is divided into pages of one size. A page table, which userland uploads
//! over generic netlink, has an entry for each page: the number of the device that owns the page.
//! The target sends each I/O to the owner of its page.
//!
//! A sector is 512 bytes throughout.
//!
//! First comes the policy, which has no `unsafe`: an upload, then the page table from its smallest
//! part up and what owns it, then the target, with the function that picks the device of each I/O.
//!
//! - [`Upload`], [`Refusal`]: a checked message, or the reason of its refusal.
//! - [`Geometry`], [`Chunk`], [`PageTable`]: the entries. [`PageTable::find`] returns that of a
//!   page.
//! - [`TableSlot`]: the current page table of a switch. [`TableSlot::apply`] applies an upload.
//! - [`SwitchList`]: all switches. It chooses the slot that an upload changes, and the slot that a
//!   newly loaded switch shares with the one that it will replace ([`SwitchList::add`]).
//! - [`Switch`]: the target. **[`Switch::route`] decides which device an I/O goes to**, with
//!   [`Switch::route_to`]; [`Switch::route_run`] does so for an I/O that spans pages. An I/O for
//!   which neither has a route goes to the first device ([`dm::Instance::map_unmapped`]). Table
//!   lines, status and messages follow.
//! - [`in_tree`]: the table line and the message of the kernel's own target of that name.
//!
//! Then come the wrappers, with all `unsafe`: [`entries`], [`choice`], [`percpu`] (counts),
//! [`system`], [`rcu`] (a workqueue frees a replaced page table after its last reader:
//! [`rcu::RcuBox::retire`]), [`sysfs`], [`genl`], [`dm`], and [`abi`], the generated bindings.
//!
//! C header: `dm-switch.h`

// The atomics in this file are core's, so that the map's loads are inlined. Those of the kernel
// crate are calls of C functions in code that is built as a module.
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
    // The alias that the kernel passes to modprobe when a process looks for the family.
    alias: ["net-pf-16-proto-16-family-DM_SWITCH"],
}

/// What the module registers.
///
/// The fields are dropped in this order: first no device can be created any more, then no upload
/// can arrive, and then everything that waits to be freed is freed.
#[pin_data]
struct DmSwitch {
    #[pin]
    target: dm::Registration<Switch>,
    familyid: sysfs::FamilyIdFile,
    #[pin]
    family: genl::Registration<Arc<SwitchList>>,
    retirement: rcu::Retirement,
}

impl kernel::InPlaceModule for DmSwitch {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            retirement: rcu::Retirement::new()?,
            family <- genl::Registration::new(
                module,
                Arc::pin_init(SwitchList::new(), GFP_KERNEL)?,
            ),
            familyid: sysfs::FamilyIdFile::new(module, family.id())?,
            // This is last, because devices can be created from here on.
            target <- dm::Registration::new(module, family.handler().clone()),
        })
    }
}

static_assert!(abi::NETLINK_ATTR_MSG as usize == genl::ATTRIBUTE);

impl genl::Family for Arc<SwitchList> {
    const NAME: &'static CStr = c"DM_SWITCH";
    const VERSION: u8 = 1;
    /// v3's name of the command that uploads: the module gets the page table.
    const COMMAND: u8 = abi::NETLINK_CMD_GET_PAGE_TBL as u8;
    const MAX_LEN: u16 = abi::MAX_IPC_MSG_LEN as u16;

    fn handle(&self, request: &genl::Request<'_>) -> Result {
        let Some(message) = request.attribute() else {
            pr_warn!("get_page_tbl no info->attrs {}\n", genl::ATTRIBUTE);
            return Ok(());
        };
        // The answer is allocated first, so that the outcome can always be reported.
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

/// The major and minor number of a mapped device.
type DeviceNumber = (u32, u32);

/// An upload whose fields are valid. What is not checked yet: that the switch exists, and that a
/// chunk to be freed is aligned ([`TableSlot::apply`]).
struct Upload<'a> {
    /// The mapped device's numbers.
    major: u32,
    minor: u32,
    /// Number of devices that the sender believes the switch to have.
    dev_count: u32,
    /// How the entries are packed.
    geometry: Geometry,
    /// Number of entries of the whole table.
    total: u32,
    /// The pages whose entries the message contains. An empty range means that the chunk at its
    /// start is to be freed.
    pages: Range<u32>,
    /// The sender's two words, which the status line repeats.
    userland: [u32; 2],
    /// The words of the entries. The last byte of the last word may be missing.
    words: &'a [u8],
}

impl<'a> Upload<'a> {
    /// Checks the payload of a message, in v3's order.
    fn check(message: &'a [u8]) -> Result<Self, Refusal> {
        let nla_len = message.len().saturating_add(genl::ATTRIBUTE_HEADER_LEN);
        let Some((_, words)) = message.split_at_checked(abi::HEADER_LEN) else {
            return Err(Refusal::TooShort { nla_len });
        };
        let header = header(message);
        let (total, first, count) = (header.page_total, header.page_offset, header.page_count);
        let end = u64::from(first) + u64::from(count);
        // "too many page table entries"
        if end > u64::from(total) {
            return Err(Refusal::PastTotal { end, total });
        }
        let (pte_bits, dev_count) = (u32::from(header.pte_bits), u32::from(header.dev_count));
        // v3 checks the mask before the entry size, so 0 bits, whose mask is 0, and more than 32,
        // whose mask is that of 32, come here, too.
        let mask = u32::MAX
            .checked_shr(u32::BITS.saturating_sub(pte_bits))
            .unwrap_or(0);
        if dev_count.wrapping_sub(1) & !mask != 0 {
            return Err(Refusal::InvalidMask { mask, dev_count });
        }
        let geometry = Geometry::new(pte_bits).ok_or(Refusal::InvalidEntrySize { pte_bits })?;
        let per_word = geometry.entries_per_message_word();
        if first % per_word != 0 {
            return Err(Refusal::Unaligned { first, per_word });
        }
        // `nla_len` includes the attribute's header, of 4 bytes. The size of the struct includes
        // `ptbl_buff[1]`, also of 4 bytes. The two cancel out. The `- 1` is v3's, which accepts a
        // message without its last byte.
        let wanted =
            size_of::<abi::IpcPgTable>() - 1 + geometry.message_words(count) * size_of::<u32>();
        if wanted > nla_len {
            return Err(Refusal::Incomplete { wanted, nla_len });
        }
        if chunk_count(total) > abi::MAX_NUMBER_OF_CHUNKS as usize {
            return Err(Refusal::TableTooLarge { total });
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

    /// Whether the upload frees a chunk, and writes no entry.
    fn frees_chunk(&self) -> bool {
        self.pages.is_empty()
    }

    /// Returns the numbers of the chunks that the entries are in. Of an upload that frees a chunk,
    /// this is the empty range that starts with that chunk's number.
    fn chunks(&self) -> Range<usize> {
        chunks_of(&self.pages)
    }

    /// Writes the entries into `table`, which must have the upload's geometry and chunks.
    fn write(&self, table: &PageTable) {
        let Range { start, end } = self.pages;
        let count = end.saturating_sub(start);
        let per_word = self.geometry.entries_per_message_word();
        let whole_words = if self.geometry.has_message_layout() {
            (count / per_word).min((self.words.len() / size_of::<u32>()) as u32)
        } else {
            0
        };
        let entries_in_whole_words = whole_words.saturating_mul(per_word.get());
        let middle = start.saturating_add(entries_in_whole_words);
        table.write_words(start..middle, self.words);
        let others = (entries_in_whole_words..count).map(|index| self.entry(index));
        table.write(middle..end, others);
    }

    /// Returns the entry at `index` of the message.
    fn entry(&self, index: u32) -> u32 {
        let per_word = self.geometry.entries_per_message_word();
        let start = (index / per_word) as usize * size_of::<u32>();
        let mut word = [0; size_of::<u32>()];
        copy_start(&mut word, self.words.get(start..).unwrap_or_default());
        let shift = (index % per_word).wrapping_mul(self.geometry.pte_bits.get());
        self.geometry.entry(u32::from_ne_bytes(word), shift)
    }
}

/// Returns the fields of a message that precede its entries. Those that a short message lacks are
/// 0.
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

/// The reason why an upload is refused. It is displayed as the text of the answer.
///
/// [`Upload::check`] returns the reasons up to [`Self::TableTooLarge`].
enum Refusal {
    TooShort {
        nla_len: usize,
    },
    /// The entries of the message end after the total that the message itself gives.
    PastTotal {
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
        per_word: NonZeroU32,
    },
    Incomplete {
        wanted: usize,
        nla_len: usize,
    },
    /// The table would have more chunks than an uploaded table may have.
    TableTooLarge {
        total: u32,
    },
    NoDevice {
        major: u32,
        minor: u32,
    },
    /// An allocation failed, the table is larger than the machine's memory, or more than 64 MiB of
    /// replaced tables wait to be freed.
    NoMemoryForTable,
    NoMemoryForChunk {
        number: usize,
    },
    /// The sender was killed. It does not see the answer, but the log does.
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
    /// The texts are v3's, misspellings included. Where v3 prints a `u32` with C's `%d`, it is cast
    /// to `i32`. A sum that is no `u32` was truncated in v3; here it is printed as it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const INVALID: &str = "Invalid Page Table message";
        match *self {
            Self::TooShort { nla_len } => write!(f, "{INVALID}: too short ({nla_len})"),
            Self::PastTotal { end, total } => {
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
            Self::Unaligned { first, per_word } => write!(
                f,
                "{INVALID}: Unaligned message (Beginning offset {first} must be an even multiple \
                 of {per_word})"
            ),
            Self::Incomplete { wanted, nla_len } => write!(
                f,
                "{INVALID}: incomplete messsage (data {wanted} > nl_len {nla_len})"
            ),
            // A total that is equal to the maximum is refused, too: see `chunk_count`.
            Self::TableTooLarge { total } => write!(
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
        // A text that is too long is truncated; the byte after it stays NUL.
        let text = &mut response.err_str[..abi::MAX_ERR_STR_LEN as usize];
        let _ = Formatter::new(text).write_fmt(fmt!("{refusal}"));
    }
    response
}

/// Entries of a chunk.
const CHUNK_ENTRIES: u32 = 1 << abi::CHUNK_PTE_SHIFT;

static_assert!(CHUNK_ENTRIES as u64 == abi::CHUNK_PTE_COUNT as u64);

/// How entries are packed into 32-bit words.
///
/// A message packs as many entries of `pte_bits` bits into a word as fit. A chunk gives each entry
/// the next power of two of bits, so that finding an entry needs no division.
#[derive(Clone, Copy, PartialEq)]
struct Geometry {
    /// Number of bits of an entry, 1 to 32.
    pte_bits: NonZeroU32,
    /// The lowest `pte_bits` bits.
    mask: u32,
    /// The binary logarithm of an entry's number of bits in a chunk.
    width_log2: u32,
    /// A word of a chunk in which each entry is 1.
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

    /// Returns the geometry of entries of `pte_bits` bits, or `None` unless these are 1 to 32.
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

    /// Returns how many entries a word of a message has.
    fn entries_per_message_word(self) -> NonZeroU32 {
        NonZeroU32::new(u32::BITS / self.pte_bits).unwrap_or(NonZeroU32::MIN)
    }

    /// Returns how many words `entries` entries need in a message.
    fn message_words(self, entries: u32) -> usize {
        let per_word = self.entries_per_message_word();
        (entries / per_word) as usize + usize::from(entries % per_word != 0)
    }

    /// Returns how many entries a word of a chunk has, a power of two.
    fn entries_per_chunk_word(self) -> u32 {
        u32::BITS.wrapping_shr(self.width_log2)
    }

    /// Returns an entry's number of bits in a chunk, a power of two.
    fn width(self) -> u32 {
        1_u32.wrapping_shl(self.width_log2)
    }

    /// Returns how many words a chunk has.
    fn chunk_words(self) -> usize {
        (CHUNK_ENTRIES / u32::BITS) as usize * self.width() as usize
    }

    /// Whether words of a message and words of a chunk have the same layout.
    fn has_message_layout(self) -> bool {
        self.width() == self.pte_bits.get()
    }

    /// Returns the entry whose lowest bit is bit `shift` of `word`.
    fn entry(self, word: u32, shift: u32) -> u32 {
        word.wrapping_shr(shift) & self.mask
    }

    /// Returns how many consecutive entries of a chunk's word, from the lowest up, equal `entry`.
    fn run_in_word(self, word: u32, entry: u32) -> u32 {
        let differing = word ^ entry.wrapping_mul(self.ones);
        differing.trailing_zeros().wrapping_shr(self.width_log2)
    }

    /// Returns how many entries a chunk's word has from the entry at `index` on.
    fn rest_of_word(self, index: u32) -> u32 {
        let all = self.entries_per_chunk_word();
        all.wrapping_sub(index & all.wrapping_sub(1))
    }
}

/// `CHUNK_ENTRIES` consecutive entries of a page table.
///
/// Its entries up to the last one written are published: readers see them, as 0 where they were not
/// written. A missing chunk is a placeholder without a published entry, so that a reader, which
/// compares its index with the end of the published entries, needs no check for it.
struct Chunk {
    entries: Entries,
    /// The chunk's count in [`PageTable::hits`], for I/O that has a route. The placeholder has that
    /// of chunk 0, but no entries, so nothing is counted in it.
    hits: percpu::Count,
}

impl Chunk {
    /// Allocates a chunk in which no entry is published. May sleep.
    fn new(geometry: Geometry, hits: percpu::Count) -> Result<Self, AllocError> {
        let entries = Entries::new(geometry.width(), geometry.chunk_words())?;
        Ok(Self { entries, hits })
    }

    /// Returns the placeholder for chunks that are not allocated.
    fn missing(hits: percpu::Count) -> Self {
        let entries = Entries::none();
        Self { entries, hits }
    }

    fn is_missing(&self) -> bool {
        self.entries.words().is_empty()
    }

    /// Returns the bytes of memory that an allocated chunk needs.
    fn bytes(geometry: Geometry) -> usize {
        size_of::<Self>() + geometry.chunk_words() * size_of::<u32>()
    }

    /// Overwrites the entries at `indices` with the next ones of `values`, until either ends, and
    /// publishes them.
    ///
    /// Only one writer at a time may call this. A reader sees the old or the new value of each
    /// entry.
    fn write(
        &self,
        geometry: Geometry,
        indices: Range<u32>,
        values: &mut impl Iterator<Item = u32>,
    ) {
        let mut end = 0;
        // The indices come first: `zip` then takes no value after the last index, and the next
        // chunk continues with the value that follows.
        for (index, value) in indices.zip(values) {
            let (word, shift) = self.entries.position(index);
            if let Some(word) = self.entries.words().get(word) {
                let others = word.load(Ordering::Relaxed) & !(geometry.mask << shift);
                word.store(others | (value << shift), Ordering::Relaxed);
                end = index.saturating_add(1);
            }
        }
        self.entries.publish(end);
    }

    /// Overwrites the entries from `first` on, which must begin a word, with those of a message's
    /// words, which must have the layout of a chunk's, and publishes them. For the largest uploaded
    /// table, this takes 1 million instructions where [`Self::write`] takes 89 million.
    fn write_words(&self, geometry: Geometry, first: u32, words: &[u8]) {
        let count = (words.len() / size_of::<u32>()) as u32;
        let count = count.saturating_mul(geometry.entries_per_message_word().get());
        let words = words.chunks_exact(size_of::<u32>());
        for (place, word) in self.words_from(first).iter().zip(words) {
            let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            place.store(word, Ordering::Relaxed);
        }
        self.entries.publish(first.saturating_add(count));
    }

    /// Returns the words from the one with the entry at `index` on.
    fn words_from(&self, index: u32) -> &[AtomicU32] {
        let (word, _) = self.entries.position(index);
        self.entries.words().get(word..).unwrap_or_default()
    }

    /// Returns the entry at `index`, published or not, or 0 if the chunk has none there.
    fn entry(&self, geometry: Geometry, index: u32) -> u32 {
        let (word, shift) = self.entries.position(index);
        let word = self.entries.words().get(word);
        word.map_or(0, |word| {
            geometry.entry(word.load(Ordering::Relaxed), shift)
        })
    }

    /// Returns how many consecutive entries from `first` on equal `entry`, at most `most`; `first`
    /// must begin a word. Without `entry`, returns `most` if none of them is published, else 0.
    fn run_from(&self, geometry: Geometry, first: u32, most: u32, entry: Option<u32>) -> u32 {
        let published = self.entries.published();
        let Some(entry) = entry else {
            return if first < published { 0 } else { most };
        };
        let most = most.min(published.saturating_sub(first));
        let mut count = 0_u32;
        for word in self.words_from(first) {
            let run = geometry.run_in_word(word.load(Ordering::Relaxed), entry);
            count = count.wrapping_add(run);
            if count >= most || run < geometry.entries_per_chunk_word() {
                break;
            }
        }
        count.min(most)
    }

    /// Whether no entry is published.
    fn is_empty(&self) -> bool {
        self.entries.published() == 0
    }
}

/// The entry of a page, with what its word says about the next pages.
struct Found<'a> {
    chunk: &'a Chunk,
    entry: u32,
    /// Number of pages from this one on, within the word, that have the entry.
    run: u32,
    /// Whether the run reaches the end of the word, so that it may continue in the next one.
    may_continue: bool,
}

/// The reason why a page has no device. It is displayed in v3's words, for the log.
enum Unmapped {
    Chunk { number: u64, chunks: usize },
    Entry { index: u32, published: u32 },
    Device { number: u32, offset: u64 },
}

impl fmt::Display for Unmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk { number, chunks } => write!(f, "Page Table Chunk {number} >= {chunks}"),
            Self::Entry { index, published } => {
                write!(f, "Page Table Entry {index} >= {published}")
            }
            Self::Device { number, offset } => write!(f, "dev={number}, offset={offset}"),
        }
    }
}

/// A page table: the number of the device that owns each page.
///
/// A table that replaces one of the same geometry and total shares the unchanged chunks and the
/// counts with it. The old one is freed after its last reader.
struct PageTable {
    geometry: Geometry,
    /// Number of entries.
    total: u32,
    chunks: KVVec<Arc<Chunk>>,
    /// The placeholder in `chunks` for each chunk that is not allocated.
    missing: Arc<Chunk>,
    /// Counts of the I/Os to the pages of each chunk. Chunks after the first
    /// [`Self::COUNTED_CHUNKS`] share one count.
    hits: Arc<percpu::Counters>,
}

impl PageTable {
    /// Number of chunks with a count of their own: as many as an uploaded table can have.
    const COUNTED_CHUNKS: usize = abi::MAX_NUMBER_OF_CHUNKS as usize;

    /// Allocates a table of `total` entries without chunks. May sleep.
    fn new(geometry: Geometry, total: u32) -> Result<Self> {
        let count = chunk_count(total);
        let hits = percpu::Counters::new(count.min(Self::COUNTED_CHUNKS + 1))?;
        let missing = Arc::new(Chunk::missing(percpu::Count::of(&hits, 0)), GFP_KERNEL)?;
        Ok(Self {
            geometry,
            total,
            chunks: KVVec::from_elem(missing.clone(), count, GFP_KERNEL)?,
            missing,
            hits,
        })
    }

    /// Allocates a table that shares the chunks of this one. May sleep.
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

    /// Allocates the next table of a slot. It shares the chunks of `base`. Without `base`, it has
    /// no chunks, and this geometry and number of entries. May sleep.
    ///
    /// Fails also if too many bytes of replaced tables wait to be freed.
    fn next_version(base: Option<&Self>, geometry: Geometry, total: u32) -> Result<Self, Refusal> {
        if !rcu::Retirement::has_room() {
            return Err(Refusal::NoMemoryForTable);
        }
        base.map_or_else(|| Self::new(geometry, total), Self::share)
            .map_err(|_| Refusal::NoMemoryForTable)
    }

    /// Publishes `next` in place of the current table. What the two do not share is freed after the
    /// last reader of the old one ([`rcu::RcuBox::retire`]). Does not wait for that.
    fn replace(writer: &mut rcu::Writer<'_, Self>, next: rcu::RcuBox<Self>) {
        let bytes = writer.get().map_or(0, |old| old.bytes_without(&next));
        writer.replace(next, bytes);
    }

    /// Returns the bytes of memory that the table does not share with `next`.
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

    /// Returns the entry of `page`, or `None` if it is not published.
    #[inline(always)]
    fn find(&self, page: u64) -> Option<Found<'_>> {
        let chunk = self.chunks.get((page >> abi::CHUNK_PTE_SHIFT) as usize)?;
        let index = page as u32 % CHUNK_ENTRIES;
        // `get` returns the word, shifted so that the entry is its lowest one, and the number of
        // published entries from this one on.
        let (word, left) = chunk.entries.get(index)?;
        let entry = self.geometry.entry(word, 0);
        // The zeros above the rest of the word are no entries.
        let rest = self.geometry.rest_of_word(index);
        let run = self.geometry.run_in_word(word, entry).min(rest);
        Some(Found {
            chunk,
            entry,
            run: run.min(left),
            may_continue: run == rest && run <= left,
        })
    }

    /// Returns the reason why [`Self::find`] returned `None` for `page`, or `None` if that is a
    /// missing chunk, which v3 does not log.
    fn why_unmapped(&self, page: u64) -> Option<Unmapped> {
        let number = page >> abi::CHUNK_PTE_SHIFT;
        let Some(chunk) = self.chunks.get(number as usize) else {
            let chunks = self.chunks.len();
            return Some(Unmapped::Chunk { number, chunks });
        };
        let (index, published) = (page as u32 % CHUNK_ENTRIES, chunk.entries.published());
        (!chunk.is_missing() && index >= published).then_some(Unmapped::Entry { index, published })
    }

    /// Returns the first page from `page` to `last` whose entry is not `entry`, or without `entry`,
    /// the first one that has an entry. Returns `last + 1` if there is no such page.
    #[inline(never)]
    fn end_of_run(&self, mut page: u64, last: u64, entry: Option<u32>) -> u64 {
        while page <= last {
            let first = page as u32 % CHUNK_ENTRIES;
            let to_last = last.wrapping_sub(page);
            let most = to_last.min(u64::from(CHUNK_ENTRIES - 1 - first)) as u32 + 1;
            let run = match self.chunks.get((page >> abi::CHUNK_PTE_SHIFT) as usize) {
                Some(chunk) => chunk.run_from(self.geometry, first, most, entry),
                None if entry.is_none() => most,
                None => 0,
            };
            page = page.wrapping_add(run.into());
            if run < most {
                break;
            }
        }
        page
    }

    /// Returns the page after the run that begins with `page`, and the entry of `page`. All pages
    /// of the run have that entry, or all have none. Pages after `last` are not examined, but the
    /// run may include those in the same word as `page`.
    #[inline]
    fn find_run(&self, page: u64, last: u64) -> (u64, Option<Found<'_>>) {
        let Some(found) = self.find(page) else {
            return (self.end_of_run(page.wrapping_add(1), last, None), None);
        };
        let mut end = page.wrapping_add(found.run.into());
        if found.may_continue && end <= last {
            end = self.end_of_run(end, last, Some(found.entry));
        }
        (end, Some(found))
    }

    /// Counts an unmapped I/O in the chunk of `page`, if the table is large enough to have that
    /// chunk. For mapped I/O, `helper_bio_remap` adds 1 to the counts that its route names.
    fn count_unmapped(&self, page: u64) {
        let number = (page >> abi::CHUNK_PTE_SHIFT) as usize;
        if number < self.chunks.len() {
            self.hits.increment(number);
        }
    }

    /// Returns the entry of `page`, published or not, or 0 if the table has none.
    fn entry(&self, page: u32) -> u32 {
        let chunk = self.chunks.get((page >> abi::CHUNK_PTE_SHIFT) as usize);
        chunk.map_or(0, |chunk| chunk.entry(self.geometry, page % CHUNK_ENTRIES))
    }

    /// Whether all these chunks are allocated.
    fn has_chunks(&self, chunks: Range<usize>) -> bool {
        let chunks = self.chunks.get(chunks);
        chunks.is_some_and(|chunks| !chunks.iter().any(|chunk| chunk.is_missing()))
    }

    /// Returns the chunks with these numbers, for changing them. Fails if the table has fewer
    /// chunks, which callers rule out.
    fn chunks_mut(&mut self, chunks: Range<usize>) -> Result<&mut [Arc<Chunk>], Refusal> {
        self.chunks.get_mut(chunks).ok_or(Refusal::NoMemoryForTable)
    }

    /// Removes a chunk, which is freed with the last table that shares it.
    fn free_chunk(&mut self, number: usize) {
        if let Some(chunk) = self.chunks.get_mut(number) {
            *chunk = self.missing.clone();
        }
    }

    /// Allocates the missing ones of the chunks with these numbers, all or none. May sleep.
    ///
    /// Refuses more bytes than the machine has, as vmalloc does for a single allocation. A switch
    /// of the kernel's own line has up to 2^32 pages, whose entries need up to 16 GiB in small
    /// chunks. Small allocations do not fail first: the OOM killer would end other processes.
    fn add_chunks(&mut self, chunks: Range<usize>) -> Result<(), Refusal> {
        let chunk_bytes = Chunk::bytes(self.geometry);
        let places = self.chunks_mut(chunks.clone())?;
        let missing = places.iter().filter(|chunk| chunk.is_missing());
        // `count` would panic on an overflow.
        let missing_bytes = missing.fold(0_usize, |sum, _| sum.saturating_add(chunk_bytes));
        if !system::fits_memory(missing_bytes) {
            return Err(Refusal::NoMemoryForTable);
        }
        let added = self.allocate_chunks(chunks.clone());
        if added.is_err() {
            let missing = self.missing.clone();
            // A chunk without entries is the placeholder, was just allocated, or was left by a
            // message that was killed. Readers see no difference between these.
            for chunk in self.chunks_mut(chunks)? {
                if chunk.is_empty() {
                    *chunk = missing.clone();
                }
            }
        }
        added
    }

    /// Allocates the missing ones of the chunks with these numbers, until one allocation fails.
    fn allocate_chunks(&mut self, chunks: Range<usize>) -> Result<(), Refusal> {
        let (geometry, hits) = (self.geometry, self.hits.clone());
        for (number, place) in chunks.clone().zip(self.chunks_mut(chunks)?) {
            if place.is_missing() {
                system::cond_resched_killable().map_err(|_| Refusal::Killed { number })?;
                *place = Chunk::new(geometry, percpu::Count::of(&hits, number))
                    .and_then(|chunk| Arc::new(chunk, GFP_KERNEL))
                    .map_err(|_| Refusal::NoMemoryForChunk { number })?;
            }
        }
        Ok(())
    }

    /// Allocates the missing ones of the chunks with these numbers, and boxes the table, so that
    /// [`Self::replace`] can publish it. May sleep.
    fn boxed_with_chunks(mut self, chunks: Range<usize>) -> Result<rcu::RcuBox<Self>, Refusal> {
        self.add_chunks(chunks)?;
        rcu::RcuBox::new(self).map_err(|_| Refusal::NoMemoryForTable)
    }

    /// Writes values for these pages, whose chunks must be allocated.
    fn write(&self, pages: Range<u32>, mut values: impl Iterator<Item = u32>) {
        for (chunk, entries) in self.chunk_ranges(pages) {
            chunk.write(self.geometry, entries, &mut values);
        }
    }

    /// Does the same for any number of pages, which may take seconds. May sleep: it reschedules
    /// before each chunk. Fails with `EINTR` if the process is killed; then only the pages before
    /// the start of a chunk are written.
    fn write_killable(&self, pages: Range<u32>, mut values: impl Iterator<Item = u32>) -> Result {
        for (chunk, entries) in self.chunk_ranges(pages) {
            system::cond_resched_killable()?;
            chunk.write(self.geometry, entries, &mut values);
        }
        Ok(())
    }

    /// Writes the words of a message, which must have the layout of a chunk's, for these pages,
    /// whose chunks must be allocated.
    fn write_words(&self, pages: Range<u32>, mut words: &[u8]) {
        for (chunk, entries) in self.chunk_ranges(pages) {
            let count = entries.end.saturating_sub(entries.start);
            let bytes = self.geometry.message_words(count) * size_of::<u32>();
            let here;
            (here, words) = words.split_at(bytes.min(words.len()));
            chunk.write_words(self.geometry, entries.start, here);
        }
    }

    /// Returns each chunk that has entries of `pages`, and the indices of these entries in it.
    fn chunk_ranges(&self, pages: Range<u32>) -> impl Iterator<Item = (&Chunk, Range<u32>)> {
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

/// Returns the numbers of the chunks that these pages are in.
fn chunks_of(pages: &Range<u32>) -> Range<usize> {
    let first = (pages.start >> abi::CHUNK_PTE_SHIFT) as usize;
    if pages.is_empty() {
        return first..first;
    }
    first..pages.end.div_ceil(CHUNK_ENTRIES) as usize
}

/// Returns how many chunks a table of `total` entries has. As in v3, the last one is never full: if
/// the entries fill all others, it is empty.
fn chunk_count(total: u32) -> usize {
    (total >> abi::CHUNK_PTE_SHIFT) as usize + 1
}

/// Whose table line a switch was constructed from.
#[derive(Clone, Copy, PartialEq)]
enum Line {
    /// `<dev_count> <page_size> [<dev_path> <offset>]+`. The switch has no page table at first.
    V3,
    /// The line of the kernel's own target: see [`in_tree`].
    InTree,
}

/// The part of a table line that two switches must have in common to share a page table; for the
/// rest, see [`SwitchList::add`]. Their numbers of pages may differ.
#[derive(Clone, Copy, PartialEq)]
struct Shape {
    line: Line,
    /// Number of devices of the switch.
    dev_count: u32,
    /// Number of sectors of a page.
    page_sectors: NonZeroU32,
}

/// The current page table of a switch, with the `userland` words of the last upload.
///
/// It is reference counted. If a reload replaces a switch of v3's line by one of the same shape
/// that begins at the same sector, both use the same slot ([`SwitchList::add`]). An upload holds a
/// reference while it runs.
#[pin_data]
struct TableSlot {
    device: DeviceNumber,
    shape: Shape,
    #[pin]
    table: rcu::Rcu<PageTable>,
    /// The `userland` words of the last accepted upload, for the status line.
    #[pin]
    userland: Mutex<[u32; 2]>,
}

impl TableSlot {
    /// Returns an initializer of a slot without a page table.
    fn new(device: DeviceNumber, shape: Shape) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            device,
            shape,
            table <- rcu::Rcu::new(),
            userland <- new_mutex!([0; 2]),
        })
    }

    /// Whether an upload has the switch's number of devices and the current page table's number of
    /// entries.
    fn has_table_of(&self, upload: &Upload<'_>) -> bool {
        let guard = rcu::Guard::new();
        upload.dev_count == self.shape.dev_count
            && self
                .table
                .read(&guard)
                .is_some_and(|table| table.total == upload.total)
    }

    /// Applies an upload to the page table. Writes into the current one if the upload has the
    /// switch's number of devices and this table's number of pages and entry size, and all its
    /// chunks are allocated. Otherwise, or if the upload frees a chunk, a new page table replaces
    /// the current one. A failure changes nothing. May sleep.
    fn apply(&self, upload: &Upload<'_>) -> Result<(), Refusal> {
        let first = upload.pages.start;
        if upload.frees_chunk() && first % CHUNK_ENTRIES != 0 {
            return Err(Refusal::UnalignedChunk { first });
        }
        let mut writer = self.table.lock();
        let current = writer.get();
        let same = current.filter(|table| {
            upload.dev_count == self.shape.dev_count
                && upload.geometry == table.geometry
                && upload.total == table.total
        });
        let starts_anew = current.is_some() && same.is_none();
        match same {
            Some(table) if !upload.frees_chunk() && table.has_chunks(upload.chunks()) => {
                upload.write(table);
            }
            _ => {
                let mut next = PageTable::next_version(same, upload.geometry, upload.total)?;
                if upload.frees_chunk() {
                    next.free_chunk(upload.chunks().start);
                }
                let next = next.boxed_with_chunks(upload.chunks())?;
                upload.write(&next);
                PageTable::replace(&mut writer, next);
            }
        }
        if starts_anew {
            pr_warn!(
                "Reallocating page table due to change in parameters: \
                 Existing page table entries will be freed\n"
            );
        }
        *self.userland.lock() = upload.userland;
        Ok(())
    }
}

/// Identifies a target among all that exist.
#[derive(Clone, Copy, PartialEq)]
struct TargetId {
    /// The table that it is part of, by [`dm::Constructor::table_id`].
    table_id: usize,
    /// The sector of the mapped device at which it begins.
    begin: u64,
}

/// What a table of device-mapper's is to its mapped device.
#[derive(Clone, Copy, PartialEq)]
enum TableState {
    /// It was not live yet.
    Loaded,
    Live,
    /// It is not live any more.
    Replaced,
}

/// A switch in the list.
struct ListedSwitch {
    id: TargetId,
    state: TableState,
    /// Number of pages of the switch.
    pages: u64,
    /// The slot that the switch uses when its table is live.
    slot: Arc<TableSlot>,
    /// The switch's own slot, while `slot` is the one that it took over. It becomes `slot` at the
    /// first upload that fits this switch and not the live one.
    own: Option<Arc<TableSlot>>,
    next: Link,
}

impl ListedSwitch {
    fn is(&self, device: DeviceNumber, id: TargetId) -> bool {
        self.slot.device == device && self.id == id
    }

    /// Whether an upload has the switch's numbers of devices and pages.
    fn has_pages_of(&self, upload: &Upload<'_>) -> bool {
        upload.dev_count == self.slot.shape.dev_count && u64::from(upload.total) == self.pages
    }
}

/// The rest of the list.
type Link = Option<KBox<ListedSwitch>>;

/// All switches, for uploads to find their page tables by the mapped device's numbers. Only the
/// first switch of a table gets uploads: a message does not say which one it is for.
#[pin_data]
struct SwitchList {
    /// The switches in the order of their construction. The lock is held for a walk through the
    /// list, and nothing is allocated under it.
    #[pin]
    first: Mutex<Link>,
}

impl SwitchList {
    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            first <- new_mutex!(None),
        })
    }

    /// Adds a switch, and returns the slot that it is to use.
    ///
    /// Normally this is `slot`. But if the device's table in use ([`Self::in_use`]) has a switch
    /// with v3's line, the same shape and the same begin, it is the slot of that switch, so the
    /// page table survives the reload. `slot`, which has no page table, is then kept in
    /// [`ListedSwitch::own`] until an upload fits the new switch alone ([`Self::slot_for`]).
    ///
    /// May sleep. Allocates before it takes the lock: reclaim may wait for a suspended switch,
    /// whose resume needs the lock.
    fn add(&self, id: TargetId, pages: u64, slot: Arc<TableSlot>) -> Result<Arc<TableSlot>> {
        let switch = ListedSwitch {
            id,
            state: TableState::Loaded,
            pages,
            slot,
            own: None,
            next: None,
        };
        let mut switch = KBox::new(switch, GFP_KERNEL)?;
        let mut first = self.first.lock();
        let device = switch.slot.device;
        let table_id = Self::in_use(&first, device).map(|other| other.id.table_id);
        let shared = Self::of_device(&first, device).find(|other| {
            Some(other.id.table_id) == table_id
                && other.id.begin == id.begin
                && other.slot.shape == switch.slot.shape
                && other.slot.shape.line == Line::V3
        });
        if let Some(shared) = shared {
            let own = replace(&mut switch.slot, shared.slot.clone());
            switch.own = Some(own);
        }
        let slot = switch.slot.clone();
        let mut link = &mut *first;
        while let Some(switch) = link {
            link = &mut switch.next;
        }
        *link = Some(switch);
        Ok(slot)
    }

    /// Removes a switch, if it is in the list. May sleep.
    fn remove(&self, device: DeviceNumber, id: TargetId) {
        let mut first = self.first.lock();
        let mut link = &mut *first;
        while link.as_ref().is_some_and(|switch| !switch.is(device, id)) {
            link = match link {
                Some(switch) => &mut switch.next,
                None => return,
            };
        }
        if let Some(mut switch) = link.take() {
            *link = switch.next.take();
        }
    }

    /// Makes the table of a switch the live one of its device. Returns the slot of the switch.
    /// Allocates nothing. May sleep.
    fn make_live(&self, device: DeviceNumber, id: TargetId) -> Option<Arc<TableSlot>> {
        let mut first = self.first.lock();
        let mut slot = None;
        let mut next = first.as_deref_mut();
        while let Some(switch) = next {
            if switch.slot.device == device {
                if switch.id.table_id == id.table_id {
                    switch.state = TableState::Live;
                } else if switch.state == TableState::Live {
                    switch.state = TableState::Replaced;
                }
            }
            if switch.is(device, id) {
                slot = Some(switch.slot.clone());
            }
            next = switch.next.as_deref_mut();
        }
        slot
    }

    /// Returns the switches of a mapped device.
    fn of_device(first: &Link, device: DeviceNumber) -> impl Iterator<Item = &ListedSwitch> {
        iter::successors(first.as_deref(), |switch| switch.next.as_deref())
            .filter(move |switch| switch.slot.device == device)
    }

    /// Returns the first switch of the device's live table, or of its loaded table if none is live.
    fn in_use(first: &Link, device: DeviceNumber) -> Option<&ListedSwitch> {
        let in_state =
            |state| Self::of_device(first, device).find(move |switch| switch.state == state);
        in_state(TableState::Live).or_else(|| in_state(TableState::Loaded))
    }

    /// Returns the first switch of the device's loaded table, if it has an upload's numbers of
    /// devices and pages. While device-mapper constructs a second table, there are two loaded ones,
    /// and the second one is preferred.
    fn loaded<'a>(
        first: &'a Link,
        device: DeviceNumber,
        upload: &Upload<'_>,
    ) -> Option<&'a ListedSwitch> {
        let switches = || Self::of_device(first, device);
        let is_first = |switch: &&ListedSwitch| {
            let mut of_table = switches().filter(|other| other.id.table_id == switch.id.table_id);
            of_table.next().is_some_and(|other| ptr::eq(other, *switch))
        };
        switches()
            .filter(|switch| switch.state == TableState::Loaded && switch.has_pages_of(upload))
            .filter(is_first)
            .last()
    }

    /// Returns the slot that an upload is for. This is the slot of the switch in use
    /// ([`Self::in_use`]), unless the upload's numbers of devices and pages fit neither that switch
    /// nor its page table, but fit a loaded switch. Then it is the loaded switch's own slot, and
    /// the second value says whether [`Self::use_own`] must be called after the upload.
    fn slot_for(
        &self,
        device: DeviceNumber,
        upload: &Upload<'_>,
    ) -> Option<(Arc<TableSlot>, bool)> {
        let first = self.first.lock();
        let switch = Self::in_use(&first, device)?;
        if !switch.has_pages_of(upload) && !switch.slot.has_table_of(upload) {
            if let Some(loaded) = Self::loaded(&first, device, upload) {
                let own = loaded.own.as_ref();
                return Some((own.unwrap_or(&loaded.slot).clone(), own.is_some()));
            }
        }
        Some((switch.slot.clone(), false))
    }

    /// Makes the loaded switch that owns `slot` use it. Returns false only if its table became live
    /// before that.
    fn use_own(&self, device: DeviceNumber, slot: &TableSlot) -> bool {
        let is_it = |own: &mut Arc<TableSlot>| ptr::eq(&**own, slot);
        let mut first = self.first.lock();
        let mut next = first.as_deref_mut();
        while let Some(switch) = next {
            if switch.slot.device == device && switch.own.as_mut().is_some_and(is_it) {
                if switch.state != TableState::Loaded {
                    return false;
                }
                if let Some(own) = switch.own.take() {
                    switch.slot = own;
                }
            }
            next = switch.next.as_deref_mut();
        }
        true
    }

    /// Applies an upload to the slot that it is for. A failure changes nothing. May sleep.
    fn upload(&self, upload: &Upload<'_>) -> Result<(), Refusal> {
        let Upload { major, minor, .. } = *upload;
        let device = (major, minor);
        loop {
            let (slot, must_use_own) = self
                .slot_for(device, upload)
                .ok_or(Refusal::NoDevice { major, minor })?;
            slot.apply(upload)?;
            // If the loaded table became live meanwhile, the upload is applied again, to the slot
            // that the live switch uses.
            if !must_use_own || self.use_own(device, &slot) {
                return Ok(());
            }
        }
    }
}

/// Divides by the sectors of a page, with a multiplication.
///
/// The map does so for each I/O. A division of 64 bits takes 20 to 40 cycles on most processors in
/// use, a multiplication 3 or 4. The test `instructions` does not show this: it counts instructions
/// and not cycles, and there are only 4 fewer.
struct PageSize {
    sectors: u64,
    multiplier: u64,
    shift: u32,
}

impl PageSize {
    /// Bits of a sector number: devices have less than `1 << 63` bytes.
    const SECTOR_BITS: u32 = 54;

    /// `1 << shift` is the first power of two not below `sectors`, and `multiplier` is
    /// `(1 << (SECTOR_BITS + shift)) / sectors`, rounded up by at most 1. A sector number times
    /// that, over `1 << (SECTOR_BITS + shift)`, is too large by less than `1 / sectors`. So the
    /// quotient, rounded down, is exact. The multiplier is below `1 << 56`.
    fn new(sectors: NonZeroU32) -> Self {
        let divisor = NonZeroU64::from(sectors);
        let shift = u32::BITS - (sectors.get() - 1).leading_zeros();
        let unit = 1_u64 << Self::SECTOR_BITS;
        let low = ((unit % divisor) << shift) / divisor;
        let quotient = ((unit / divisor) << shift).saturating_add(low);
        Self {
            sectors: divisor.get(),
            multiplier: quotient.saturating_add(1),
            shift,
        }
    }

    /// Returns how many pages of `sectors` sectors begin in the first `len` sectors.
    fn count_pages(sectors: NonZeroU32, len: u64) -> u64 {
        let sectors = NonZeroU64::from(sectors);
        (len / sectors).saturating_add(u64::from(len % sectors != 0))
    }

    /// Returns the sector at which `page` begins.
    fn start_of(&self, page: u64) -> u64 {
        page.wrapping_mul(self.sectors)
    }

    /// Whether `page`, which contains the sector `offset`, contains all `len` sectors from there.
    fn contains(&self, page: u64, offset: u64, len: u32) -> bool {
        let in_page = offset.wrapping_sub(self.start_of(page));
        in_page.wrapping_add(len.into()) <= self.sectors
    }

    /// Returns the page that contains the sector `offset`.
    fn page_of(&self, offset: u64) -> u64 {
        // Shifted, so that the upper half of the product has lost SECTOR_BITS bits.
        let offset = u128::from(offset << (u64::BITS - Self::SECTOR_BITS));
        let product = offset.wrapping_mul(u128::from(self.multiplier));
        ((product >> u64::BITS) as u64).wrapping_shr(self.shift)
    }
}

/// The target.
struct Switch {
    page_size: PageSize,
    /// Number of pages of the target. The last one may be shorter than the others.
    pages: u64,
    /// The slot whose page table the map reads.
    slot: choice::Choice<TableSlot>,
    id: TargetId,
    list: Arc<SwitchList>,
    /// The count [`Self::REMAPPED`] of `ios`, with its address ready for the map.
    remapped: percpu::Count,
    /// Counts of the I/Os whose page has a device ([`Self::REMAPPED`]), and of those whose page has
    /// none ([`Self::UNMAPPED`]).
    ios: Arc<percpu::Counters>,
}

impl Switch {
    const REMAPPED: usize = 0;

    const UNMAPPED: usize = 1;

    /// Returns the route of an I/O to a page with this entry: the device, and the two counts to
    /// which 1 is added. Returns `None` if there is no such device.
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
}

impl dm::Target for Switch {
    const NAME: &'static CStr = c"switch";
    const VERSION: [u32; 3] = [1, 0, 0];
    const OUT_OF_MEMORY: &'static CStr = c"Cannot allocate redirect context";

    type Shared = Arc<SwitchList>;
    type Answer = Answer;
    /// The reason why an I/O has no route. Without a reason, nothing is logged.
    type Unmapped = Option<Unmapped>;

    #[inline]
    fn route<'a>(
        &'a self,
        offset: u64,
        len: u32,
        devices: &'a KVVec<dm::Device>,
        guard: &'a rcu::Guard,
    ) -> Option<dm::Route<'a>> {
        let table = self.slot.table.read(guard)?;
        let page = self.page_size.page_of(offset);
        if !self.page_size.contains(page, offset, len) {
            // `route_run` is called next.
            return None;
        }
        self.route_to(&table.find(page)?, devices)
    }

    fn route_run<'a>(
        &'a self,
        offset: u64,
        len: u32,
        devices: &'a KVVec<dm::Device>,
        guard: &'a rcu::Guard,
    ) -> (u32, Result<dm::Route<'a>, Option<Unmapped>>) {
        let Some(table) = self.slot.table.read(guard) else {
            return (len, Err(None));
        };
        let page = self.page_size.page_of(offset);
        let last = offset.wrapping_add(len.saturating_sub(1).into());
        let last = self.page_size.page_of(last);
        let (end, found) = table.find_run(page, last);
        let route = match found {
            Some(found) => {
                let number = found.entry;
                let unmapped = Some(Unmapped::Device { number, offset });
                self.route_to(&found, devices).ok_or(unmapped)
            }
            None => Err(table.why_unmapped(page)),
        };
        let sectors = self.page_size.start_of(end).wrapping_sub(offset);
        (sectors.min(len.into()) as u32, route)
    }

    fn count_unmapped(&self, offset: u64, reason: Option<Unmapped>) {
        self.ios.increment(Self::UNMAPPED);
        if let Some(table) = self.slot.table.read(&rcu::Guard::new()) {
            table.count_unmapped(self.page_size.page_of(offset));
        }
        if let Some(reason) = reason {
            if system::may_warn(c"switch_map") {
                pr_warn!("switch_map WARNING: {reason}\n");
            }
        }
    }

    fn granularity(&self) -> u64 {
        self.page_size.sectors
    }

    fn new(
        list: &Arc<SwitchList>,
        constructor: &mut dm::Constructor<'_>,
        args: &dm::Args<'_>,
    ) -> Result<Self, dm::ConstructorError> {
        if in_tree::is_line(args) {
            in_tree::construct(list, constructor, args)
        } else {
            Self::v3(list, constructor, args)
        }
    }

    /// From now on, uploads find this switch, although the one that it replaces still exists, and
    /// the map reads the page table of the slot that the list has for this switch.
    fn resume(&self) {
        let slot = self.list.make_live(self.slot.device, self.id);
        if let Some(slot) = slot {
            self.slot.set(&slot);
        }
    }

    fn prepare_ioctl<'a>(&self, devices: &'a [dm::Device]) -> Result<&'a dm::Device> {
        let number = match self.slot.shape.line {
            Line::V3 => 0,
            Line::InTree => {
                let guard = rcu::Guard::new();
                let table = self.slot.table.read(&guard);
                table.map_or(0, |table| table.entry(0) as usize)
            }
        };
        devices.get(number).or(devices.first()).ok_or(EIO)
    }

    fn info(&self, devices: &[dm::Device], line: &mut dm::StatusWriter<'_>) -> fmt::Result {
        if self.slot.shape.line == Line::InTree {
            return Ok(());
        }
        write!(line, "{}", devices.len())?;
        for device in devices {
            line.write_fmt(fmt!(" {}", device.name()))?;
        }
        // v3: five fields follow.
        line.write_str(" 5 ")?;
        for _ in devices {
            line.write_str("A")?;
        }
        let [first, second] = *self.slot.userland.lock();
        write!(line, " {first:08x} {second:08x}")?;
        let (remapped, unmapped) = (self.ios.sum(Self::REMAPPED), self.ios.sum(Self::UNMAPPED));
        write!(line, " {remapped} {unmapped}")
    }

    fn table(&self, devices: &[dm::Device], line: &mut dm::StatusWriter<'_>) -> fmt::Result {
        write!(line, "{} {}", devices.len(), self.page_size.sectors)?;
        if self.slot.shape.line == Line::InTree {
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

    fn message(&self, args: &dm::Args<'_>) -> Result<Option<Answer>> {
        let name = args.get(0).map_or(&b""[..], dm::Text::bytes);
        if in_tree::is_message(name) {
            return in_tree::message(&self.slot, self.pages, args).map(|()| None);
        }
        match (name, args.len()) {
            (b"chunk_hits", 1) => Ok(Some(Answer::ChunkHits(ChunkHits::of(&self.slot)))),
            (b"page_table", 1..=3) => {
                let list = PageList::of(&self.slot, page_range(args)?)?;
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
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.list.remove(self.slot.device, self.id);
    }
}

/// Construction from a table line.
impl Switch {
    /// Constructs a switch from v3's line.
    fn v3(
        list: &Arc<SwitchList>,
        constructor: &mut dm::Constructor<'_>,
        args: &dm::Args<'_>,
    ) -> Result<Self, dm::ConstructorError> {
        if args.len() < 4 {
            return Err(invalid(c"Insufficient arguments"));
        }
        let dev_count: u32 = number(args, 0).ok_or(invalid(c"Invalid device count"))?;
        // v3 ignores an argument without a partner at the end.
        if dev_count as usize != (args.len() - 2) / 2 {
            return Err(invalid(c"Invalid argument count"));
        }
        let page_size = number(args, 1).and_then(NonZeroU32::new);
        let shape = Shape {
            line: Line::V3,
            dev_count,
            page_sectors: page_size.ok_or_else(|| logged(c"Invalid page size"))?,
        };
        let this = Self::allocate(list, constructor, shape).map_err(out_of_memory)?;
        for (path, start) in args.pairs(2) {
            Self::open_device(constructor, path, start, shape.page_sectors).map_err(|text| {
                pr_warn!("switch_ctr device={path}, start={start}\n");
                logged(text)
            })?;
        }
        Self::check_data_units(constructor, shape.page_sectors).map_err(logged)?;
        this.register().map_err(out_of_memory)
    }

    /// Allocates a switch that uploads do not find yet. May sleep.
    fn allocate(
        list: &Arc<SwitchList>,
        constructor: &mut dm::Constructor<'_>,
        shape: Shape,
    ) -> Result<Self> {
        constructor.reserve(shape.dev_count as usize)?;
        let slot = TableSlot::new(constructor.device_number(), shape);
        let slot = Arc::pin_init(slot, GFP_KERNEL)?;
        let ios = percpu::Counters::new(Self::UNMAPPED + 1)?;
        Ok(Self {
            page_size: PageSize::new(shape.page_sectors),
            pages: PageSize::count_pages(shape.page_sectors, constructor.len()),
            slot: choice::Choice::new([slot.clone(), slot]),
            id: TargetId {
                table_id: constructor.table_id(),
                begin: constructor.begin(),
            },
            list: list.clone(),
            remapped: percpu::Count::of(&ios, Self::REMAPPED),
            ios,
        })
    }

    /// Adds the switch to the list, so that uploads find it. May sleep.
    fn register(mut self) -> Result<Self> {
        let own = self.slot.first();
        let slot = self.list.add(self.id, self.pages, own.clone())?;
        self.slot = choice::Choice::new([slot, own]);
        Ok(self)
    }

    /// Opens a device of v3's line. Returns device-mapper's text if that fails.
    fn open_device(
        constructor: &mut dm::Constructor<'_>,
        path: dm::Text<'_>,
        start: dm::Text<'_>,
        page_size: NonZeroU32,
    ) -> Result<(), &'static CStr> {
        let start = leading_decimal(start.bytes()).ok_or(c"Invalid device starting offset")?;
        let len = constructor.len();
        let device = constructor
            .open_device(path, start)
            .inspect_err(|&error| explain_lookup(path, error))
            .map_err(|_| c"Device lookup failed")?;
        if len > device.len() {
            return Err(c"Device too small for target");
        }
        Self::check_device(device, page_size)
    }

    /// Checks that the target supports a device, and that pages of `page_size` sectors do not
    /// divide its blocks. Returns device-mapper's text if not.
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

    /// Checks that no border between pages divides a data unit of inline encryption: the hardware
    /// would encrypt each part as a unit of its own, and nothing below would notice. The number of
    /// a unit goes with the I/O, so the devices' offsets do not matter. Returns device-mapper's
    /// text if a border does.
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
                    "switch_ctr {what} {sectors}: make it a multiple of {unit} sectors, the \
                     largest data unit that all devices encrypt\n"
                );
                return Err(text);
            }
        }
        Ok(())
    }
}

/// Returns the failure of a constructor.
fn refused(text: &'static CStr, error: Error) -> dm::ConstructorError {
    dm::ConstructorError { text, error }
}

/// Returns the failure of a constructor on an invalid argument.
fn invalid(text: &'static CStr) -> dm::ConstructorError {
    refused(text, EINVAL)
}

/// Returns the failure of the constructor of v3's line for want of memory.
fn out_of_memory(error: Error) -> dm::ConstructorError {
    refused(<Switch as dm::Target>::OUT_OF_MEMORY, error)
}

/// Returns the failure of a constructor on an invalid argument, and logs it as v3 did.
fn logged(text: &'static CStr) -> dm::ConstructorError {
    pr_warn!("switch_ctr {}\n", dm::Text::from(text));
    invalid(text)
}

/// Logs why a device cannot be opened, which device-mapper's text and v3's errno do not tell.
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

/// Returns the argument at `index`, if it is a decimal number.
fn number<T: TryFrom<u64>>(args: &dm::Args<'_>, index: usize) -> Option<T> {
    decimal(args.get(index)?.bytes())
}

/// Returns the decimal number that the text is. A `+` may precede it.
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
    // The digits have no `+`.
    decimal(digits)
}

/// Returns the bytes before and those after the first one for which `is_separator` is true, if
/// there is one.
fn split_once(text: &[u8], is_separator: impl FnMut(&u8) -> bool) -> Option<(&[u8], &[u8])> {
    let (before, rest) = text.split_at_checked(text.iter().position(is_separator)?)?;
    Some((before, rest.get(1..)?))
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

/// The answer to the message `chunk_hits`: the number of chunks, then the count of the I/Os to each
/// chunk, at most [`PageTable::COUNTED_CHUNKS`] of them. Without a page table it is 0.
struct ChunkHits(Option<(usize, Arc<percpu::Counters>)>);

impl ChunkHits {
    /// Returns the answer for the current page table.
    fn of(slot: &TableSlot) -> Self {
        let guard = rcu::Guard::new();
        let table = slot.table.read(&guard);
        Self(table.map(|table| (table.chunks.len(), table.hits.clone())))
    }
}

impl fmt::Display for ChunkHits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((chunks, hits)) = &self.0 else {
            return f.write_str("0");
        };
        write!(f, "{chunks}")?;
        for number in 0..(*chunks).min(PageTable::COUNTED_CHUNKS) {
            write!(f, " {}", hits.sum(number))?;
        }
        Ok(())
    }
}

/// Returns the pages that the message `page_table [FIRST [COUNT]]` asks for. By default, these are
/// all from page 0 on.
fn page_range(args: &dm::Args<'_>) -> Result<Range<u32>> {
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

/// The answer to the message `page_table`: pages and their entries, as a file for swupload. Its
/// first line is a comment with the options with which swupload makes the same table.
struct PageList {
    /// A table that shares the chunks of the current one, if there is one.
    table: Option<PageTable>,
    dev_count: u32,
    userland: [u32; 2],
    /// The pages that are printed. Those beyond the table are not.
    pages: Range<u32>,
}

impl PageList {
    /// Returns the answer for these pages of the current page table. An entry that an upload
    /// changes in place before it is printed is printed with its new value. May sleep.
    fn of(slot: &TableSlot, pages: Range<u32>) -> Result<Self> {
        let writer = slot.table.lock();
        Ok(Self {
            table: writer.get().map(PageTable::share).transpose()?,
            dev_count: slot.shape.dev_count,
            userland: *slot.userland.lock(),
            pages,
        })
    }
}

impl fmt::Display for PageList {
    /// Fails if the process is killed. May sleep: it reschedules before each chunk.
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
        let mut tokens = Tokens::new(f, table.geometry.entries_per_message_word(), page);
        while page < end {
            system::cond_resched_killable().map_err(|_| fmt::Error)?;
            let chunk_end = end.min((page | u64::from(CHUNK_ENTRIES - 1)).saturating_add(1));
            while page < chunk_end {
                let found;
                (page, found) = table.find_run(page, chunk_end - 1);
                page = page.min(chunk_end);
                tokens.add(found.map(|found| found.entry), page)?;
            }
        }
        tokens.finish()
    }
}

/// Writes the tokens of a file for swupload: runs as `ENTRY*COUNT`, gaps as `@PAGE`.
struct Tokens<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    /// Entries of a message's word. After a gap swupload can continue only at a multiple of them.
    per_word: NonZeroU32,
    /// Tokens written.
    count: u32,
    /// The first page that may be written.
    first: u64,
    /// The page that the next token is for, unless a gap precedes it.
    next: u64,
    /// Pages that were added but not written: they have the same entry, or none.
    pages: Range<u64>,
    entry: Option<u32>,
}

impl<'a, 'b> Tokens<'a, 'b> {
    /// Tokens of a line.
    const A_LINE: u32 = 32;

    /// Returns a writer that begins with `page`.
    fn new(f: &'a mut fmt::Formatter<'b>, per_word: NonZeroU32, page: u64) -> Self {
        Self {
            f,
            per_word,
            count: 0,
            first: page,
            next: 0,
            pages: page..page,
            entry: None,
        }
    }

    /// Adds the pages before `end` that were not added yet, which have the same entry, or none.
    fn add(&mut self, entry: Option<u32>, end: u64) -> fmt::Result {
        if entry != self.entry {
            self.write_pages()?;
            self.pages.start = self.pages.end;
            self.entry = entry;
        }
        self.pages.end = end;
        Ok(())
    }

    /// Writes the added pages.
    fn write_pages(&mut self) -> fmt::Result {
        let (Some(entry), Range { mut start, end }) = (self.entry, self.pages.clone()) else {
            return Ok(());
        };
        if start != self.next {
            // After a gap, swupload can continue only at the start of a word. So if the added pages
            // begin inside a word, this writes the entry 0 for the pages before them in that word.
            // If they have the entry 0 themselves and reach the next word, this continues there.
            // Nothing else changes: a page without an entry goes to the first device, as one with
            // the entry 0 does.
            let per_word = NonZeroU64::from(self.per_word);
            let word = start.saturating_sub(start % per_word);
            let next_word = word.saturating_add(per_word.get());
            let mut begin = word.max(self.first).max(self.next);
            if entry == 0 && word != start && next_word <= end {
                (begin, start) = (next_word, next_word);
            }
            if start == end {
                return Ok(());
            }
            if begin != self.next {
                self.write(fmt!("@{begin}"))?;
            }
            self.write_run(0, begin..start)?;
        }
        self.next = end;
        self.write_run(entry, start..end)
    }

    /// Writes pages that have the same entry.
    fn write_run(&mut self, entry: u32, pages: Range<u64>) -> fmt::Result {
        match pages.end.saturating_sub(pages.start) {
            0 => Ok(()),
            1 => self.write(fmt!("{entry:x}")),
            count => self.write(fmt!("{entry:x}*{count}")),
        }
    }

    /// Writes a token, and the white space before it.
    fn write(&mut self, token: fmt::Arguments<'_>) -> fmt::Result {
        if self.count > 0 {
            let begins_line = self.count % Self::A_LINE == 0;
            self.f.write_str(if begins_line { "\n" } else { " " })?;
        }
        self.count = self.count.saturating_add(1);
        self.f.write_fmt(token)
    }

    /// Writes the remaining pages, and ends the line.
    fn finish(mut self) -> fmt::Result {
        self.write_pages()?;
        self.f.write_str(if self.count > 0 { "\n" } else { "" })
    }
}

/// The table line and the message of the kernel's own target `switch`, in its words: a page is
/// called a region here, and a device a path.
///
/// The line is `<num_paths> <region_size> <num_optional_args> [<dev_path> <offset>]+`. At first,
/// the devices take turns. The message `set_region_mappings` changes entries, also those of a
/// switch that was constructed from v3's line.
mod in_tree {
    use super::{
        chunks_of,
        decimal,
        dm,
        explain_lookup,
        invalid,
        rcu,
        refused,
        split_once,
        Geometry,
        Line,
        PageTable,
        Refusal,
        Shape,
        Switch,
        SwitchList,
        TableSlot, //
    };
    use core::{
        iter,
        num::NonZeroU32,
        ops::Range, //
    };
    use kernel::{
        error::code::EINTR,
        fmt,
        prelude::*,
        sync::Arc, //
    };

    /// The most paths of a line. The kernel's own target allocates 40 bytes, and 16 for each path,
    /// with one kmalloc, which returns at most 4 MiB.
    const MAX_PATHS: u32 = ((4 << 20) - 40) / 16;

    /// Whether a table line is one of the kernel's own: its third argument is a number. In v3's
    /// line, the third argument is the path of a device.
    pub(crate) fn is_line(args: &dm::Args<'_>) -> bool {
        truncated_number(args, 2).is_some()
    }

    /// Constructs a switch from such a line. The checks and their order are those of the kernel's
    /// own target.
    pub(crate) fn construct(
        list: &Arc<SwitchList>,
        constructor: &mut dm::Constructor<'_>,
        args: &dm::Args<'_>,
    ) -> Result<Switch, dm::ConstructorError> {
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
            page_sectors: region_size,
        };
        let this = Switch::allocate(list, constructor, shape).map_err(no_context)?;
        for (path, start) in args.pairs(3) {
            let start = decimal(start.bytes());
            let device = constructor
                .open_device(path, start.unwrap_or(0))
                .inspect_err(|&error| explain_lookup(path, error))
                .map_err(|error| refused(c"Device lookup failed", error))?;
            if start.is_none() {
                return Err(invalid(c"Invalid device starting offset"));
            }
            Switch::check_device(device, region_size).map_err(invalid)?;
        }
        Switch::check_data_units(constructor, region_size).map_err(invalid)?;
        if this.pages > u64::from(u32::MAX) {
            return Err(invalid(c"Region table too large"));
        }
        let table = round_robin(shape, this.pages as u32)
            .map_err(|error| refused(c"Cannot allocate region table", error))?;
        PageTable::replace(&mut this.slot.table.lock(), table);
        this.register().map_err(no_context)
    }

    /// Allocates a table in which the devices take turns. May sleep, and fails with `EINTR` if the
    /// process is killed.
    fn round_robin(shape: Shape, total: u32) -> Result<rcu::RcuBox<PageTable>> {
        let table = PageTable::new(geometry_of(shape), total)?;
        let table = table
            .boxed_with_chunks(chunks_of(&(0..total)))
            .map_err(|refusal| refusal.error())?;
        table.write_killable(0..total, (0..shape.dev_count).cycle())?;
        Ok(table)
    }

    /// Returns the geometry of a table that no upload made: the fewest bits that the numbers of the
    /// devices need. For v3's line, these are rounded up to a power of two, as swupload does.
    fn geometry_of(shape: Shape) -> Geometry {
        let bits = u32::BITS - shape.dev_count.saturating_sub(1).leading_zeros();
        // A single device needs no bits, but an entry has at least one.
        let fewest = Geometry::new(bits).unwrap_or(Geometry::NARROWEST);
        match shape.line {
            // `width` is that power of two.
            Line::V3 => Geometry::new(fewest.width()).unwrap_or(fewest),
            Line::InTree => fewest,
        }
    }

    /// Whether a message of this name is the kernel's own.
    pub(crate) fn is_message(name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(b"set_region_mappings")
    }

    /// Handles that message for a switch of `pages` pages. May sleep.
    ///
    /// The arguments are applied in their order. Readers see a change in a chunk of the current
    /// table at once. They see a chunk that the message adds only when the message ends. If an
    /// argument is refused, the earlier ones are still applied, and the reason is logged.
    pub(crate) fn message(slot: &TableSlot, pages: u64, args: &dm::Args<'_>) -> Result {
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        let mut message = Message {
            shape: slot.shape,
            pages,
            writer: slot.table.lock(),
            next: None,
            region: 0,
        };
        let outcome = args.iter().skip(1).try_for_each(|arg| message.apply(arg));
        message.finish();
        outcome.map_err(|error| {
            pr_warn!("{error}\n");
            error.errno()
        })
    }

    /// A message whose arguments are being applied.
    struct Message<'a> {
        shape: Shape,
        /// Number of entries of the table that is made if the switch has none.
        pages: u32,
        writer: rcu::Writer<'a, PageTable>,
        /// The table that replaces the current one at the end, if that lacks chunks.
        next: Option<rcu::RcuBox<PageTable>>,
        /// The region that was set last.
        region: u64,
    }

    impl Message<'_> {
        /// Returns the table that the next argument is for.
        fn table(&self) -> Option<&PageTable> {
            self.next.as_deref().or(self.writer.get())
        }

        /// Applies an argument. A failure changes nothing, unless the process is killed. May sleep.
        fn apply<'a>(&mut self, arg: dm::Text<'a>) -> Result<(), MappingError<'a>> {
            match Mapping::parse(arg).ok_or(MappingError::Argument { arg })? {
                Mapping::Device { region, device } => self.set_region(region, device),
                Mapping::Cycle { length, count } => self.repeat(length, count, arg),
            }
        }

        /// Returns the number of entries of the table, and the bound of device numbers: the number
        /// of devices, or less if an entry has too few bits.
        fn limits(&self) -> (u32, u32) {
            let dev_count = self.shape.dev_count;
            self.table().map_or((self.pages, dev_count), |table| {
                let nameable = table.geometry.mask.saturating_add(1);
                (table.total, dev_count.min(nameable))
            })
        }

        /// Assigns a region, or if that is `None` the one after the last, to a device.
        fn set_region(
            &mut self,
            region: Option<u64>,
            device: u64,
        ) -> Result<(), MappingError<'static>> {
            let (total, dev_count) = self.limits();
            let region = region.unwrap_or(self.region.saturating_add(1));
            if region >= u64::from(total) {
                return Err(MappingError::Region { region, total });
            }
            if device >= u64::from(dev_count) {
                return Err(MappingError::Device { device, dev_count });
            }
            let pages = region as u32..(region as u32).saturating_add(1);
            self.make_chunks(total, &pages)?;
            if let Some(table) = self.table() {
                table.write(pages, iter::once(device as u32));
            }
            self.region = region;
            Ok(())
        }

        /// Repeats the entries of the last `length` regions in the next `count` ones.
        fn repeat<'a>(
            &mut self,
            length: u64,
            count: u64,
            arg: dm::Text<'a>,
        ) -> Result<(), MappingError<'a>> {
            let (total, _) = self.limits();
            let region = self.region;
            if length == 0 || length - 1 > region {
                return Err(MappingError::Cycle { length, region });
            }
            let last = region.saturating_add(count);
            if last >= u64::from(total) {
                return Err(MappingError::Regions {
                    region,
                    count,
                    total,
                });
            }
            let after = |page: u64| (page as u32).saturating_add(1);
            let pages = after(region)..after(last);
            if pages.is_empty() {
                return Ok(());
            }
            self.make_chunks(total, &pages)?;
            if let Some(table) = self.table() {
                let length = length as u32;
                // The two ranges may overlap: `write_killable` stores each entry before it takes
                // the next value.
                let earlier = pages.clone().map(|page| page.saturating_sub(length));
                table
                    .write_killable(pages, earlier.map(|page| table.entry(page)))
                    .map_err(|_| MappingError::Killed { arg })?;
            }
            self.region = last;
            Ok(())
        }

        /// Makes sure that these pages have chunks. If the current table lacks some, they are added
        /// to `next`, which is made if there is none. `total` is its number of entries if there is
        /// no current table.
        fn make_chunks(&mut self, total: u32, pages: &Range<u32>) -> Result<(), Refusal> {
            let chunks = chunks_of(pages);
            match (&mut self.next, self.writer.get()) {
                (Some(table), _) => table.add_chunks(chunks),
                (None, Some(live)) if live.has_chunks(chunks.clone()) => Ok(()),
                (None, live) => {
                    let table = PageTable::next_version(live, geometry_of(self.shape), total)?;
                    self.next = Some(table.boxed_with_chunks(chunks)?);
                    Ok(())
                }
            }
        }

        /// Replaces the current table by `next`, if there is one, and unlocks the slot.
        fn finish(self) {
            let Self {
                mut writer, next, ..
            } = self;
            if let Some(next) = next {
                PageTable::replace(&mut writer, next);
            }
        }
    }

    /// An argument of the message. Its numbers are in hex.
    enum Mapping {
        /// `<region>:<device>`, or `:<device>` for the region after the last one.
        Device { region: Option<u64>, device: u64 },
        /// `R<length>,<count>`: the next `count` regions repeat the last `length` ones.
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
                    let (region, device) = Self::two_numbers(rest, b':')?;
                    Some(Self::Device { region, device })
                }
            }
        }

        /// Returns the number before the separator, if there is one, and the number after it.
        fn two_numbers(text: &[u8], separator: u8) -> Option<(Option<u64>, u64)> {
            let (first, second) = split_once(text, |&byte| byte == separator)?;
            let first = match first {
                [] => None,
                digits => Some(wrapped_number(digits, 16)?),
            };
            Some((first, wrapped_number(second, 16)?))
        }
    }

    /// Returns the argument at `index`, if it is a decimal number, truncated to 32 bits as C's
    /// `sscanf` in the kernel does.
    fn truncated_number(args: &dm::Args<'_>, index: usize) -> Option<u32> {
        let number = wrapped_number(args.get(index)?.bytes(), 10)?;
        Some(number as u32)
    }

    /// Parses one or more digits of `radix`. The number is truncated to 64 bits.
    fn wrapped_number(digits: &[u8], radix: u32) -> Option<u64> {
        if digits.is_empty() {
            return None;
        }
        digits.iter().try_fold(0_u64, |number, &digit| {
            let value = char::from(digit).to_digit(radix)?;
            Some(number.wrapping_mul(radix.into()).wrapping_add(value.into()))
        })
    }

    /// The reason why an argument is refused, or not applied to its end.
    enum MappingError<'a> {
        Argument {
            arg: dm::Text<'a>,
        },
        Cycle {
            length: u64,
            region: u64,
        },
        Regions {
            region: u64,
            count: u64,
            total: u32,
        },
        Region {
            region: u64,
            total: u32,
        },
        Device {
            device: u64,
            dev_count: u32,
        },
        /// Chunks were not allocated.
        Chunks(Refusal),
        /// The process was killed while entries were repeated.
        Killed {
            arg: dm::Text<'a>,
        },
    }

    impl MappingError<'_> {
        fn errno(&self) -> Error {
            match self {
                Self::Chunks(refusal) => refusal.error(),
                Self::Killed { .. } => EINTR,
                _ => EINVAL,
            }
        }
    }

    impl From<Refusal> for MappingError<'_> {
        fn from(refusal: Refusal) -> Self {
            Self::Chunks(refusal)
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
                Self::Chunks(refusal) => refusal.fmt(f),
                Self::Killed { arg } => {
                    f.write_str("set_region_mappings was killed in '")?;
                    arg.fmt(f)?;
                    f.write_str("'; the arguments before that are done")
                }
            }
        }
    }
}

/// Packed entries, which readers load while a writer stores them.
mod entries {
    use core::sync::atomic::{AtomicU32, Ordering};
    use kernel::{
        alloc::AllocError,
        prelude::*, //
    };

    /// Entries, each a power of two of bits wide, packed into 32-bit words from the lowest bit up.
    ///
    /// # Invariants
    ///
    /// `words` has a word for each of the first `published` entries of `width` bits.
    pub(crate) struct Entries {
        /// The end of the entries that readers see.
        published: AtomicU32,
        /// Number of bits of an entry.
        width: u32,
        words: KVVec<AtomicU32>,
    }

    impl Entries {
        /// Returns an array without words. Allocates nothing.
        pub(crate) fn none() -> Self {
            Self {
                published: AtomicU32::new(0),
                width: 1,
                words: KVVec::new(),
            }
        }

        /// Allocates `len` words for entries of `width` bits, a power of two up to 32. No entry is
        /// published. May sleep.
        pub(crate) fn new(width: u32, len: usize) -> Result<Self, AllocError> {
            let mut words = KVVec::with_capacity(len, GFP_KERNEL)?;
            while words.push_within_capacity(AtomicU32::new(0)).is_ok() {}
            let published = AtomicU32::new(0);
            // INVARIANT: No entry is published.
            Ok(Self {
                published,
                width,
                words,
            })
        }

        /// Returns the words. [`Self::position`] returns where an entry is in them.
        pub(crate) fn words(&self) -> &[AtomicU32] {
            &self.words
        }

        /// Returns the index of the word with the entry at `index`, and the entry's lowest bit in
        /// it.
        pub(crate) fn position(&self, index: u32) -> (usize, u32) {
            let bit = index.wrapping_mul(self.width);
            ((bit / u32::BITS) as usize, bit % u32::BITS)
        }

        /// Returns how many entries readers see.
        pub(crate) fn published(&self) -> u32 {
            self.published.load(Ordering::Acquire)
        }

        /// Publishes all entries before `end`. Those that were never written are 0. Published
        /// entries stay so. Only one thread at a time may call this.
        pub(crate) fn publish(&self, end: u32) {
            let per_word = u32::BITS.checked_div(self.width).unwrap_or(0);
            // INVARIANT: The end is not beyond the words.
            let end = end.min((self.words.len() as u32).saturating_mul(per_word));
            if end > self.published.load(Ordering::Relaxed) {
                // Release: a reader that sees this also sees the entries.
                self.published.store(end, Ordering::Release);
            }
        }

        /// Returns the word with the entry at `index`, shifted so that the entry is in its lowest
        /// bits, and how many entries are published from `index` on. Returns `None` if that entry
        /// is not published.
        pub(crate) fn get(&self, index: u32) -> Option<(u32, u32)> {
            let published = self.published();
            if index >= published {
                return None;
            }
            let (word, shift) = self.position(index);
            // SAFETY: `index` is below `published`, so by the type's invariants the word exists.
            let word = unsafe { self.words.get_unchecked(word) };
            let word = word.load(Ordering::Relaxed).wrapping_shr(shift);
            Some((word, published - index))
        }
    }
}

/// A choice between two values, which readers follow while a writer changes it.
mod choice {
    use core::{
        ops::Deref,
        sync::atomic::{AtomicPtr, Ordering}, //
    };
    use kernel::sync::Arc;

    /// Two values, one of which is chosen. It dereferences to that one.
    ///
    /// # Invariants
    ///
    /// `chosen` is the address of one of `values`, which are never replaced.
    pub(crate) struct Choice<T> {
        chosen: AtomicPtr<T>,
        values: [Arc<T>; 2],
    }

    impl<T> Choice<T> {
        /// Chooses the first of the two values.
        pub(crate) fn new(values: [Arc<T>; 2]) -> Self {
            Self {
                // INVARIANT: An `Arc` keeps its value in place.
                chosen: AtomicPtr::new(Self::address(&values[0])),
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

        /// Chooses `value`, if it is one of the two.
        pub(crate) fn set(&self, value: &T) {
            let value = Self::address(value);
            if self.values.iter().any(|held| Self::address(held) == value) {
                self.chosen.store(value, Ordering::Relaxed);
            }
        }
    }

    impl<T> Deref for Choice<T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: By the type's invariants, `chosen` is the address of one of `values`. Both
            // are in `Arc`s that live as long as `self`, and were initialized before any thread got
            // a reference to `self`.
            unsafe { &*self.chosen.load(Ordering::Relaxed) }
        }
    }
}

/// Counts of events, one for each CPU, so that the map writes to no shared cache line.
///
/// C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)
mod percpu {
    use super::abi;
    use kernel::{
        bindings,
        prelude::*,
        sync::Arc, //
    };

    /// An array of counts.
    ///
    /// # Invariants
    ///
    /// `counts` is an allocation of `len` counts, at least 1, for each possible CPU. It is a
    /// per-CPU address: only the kernel's per-CPU functions turn it into one that can be
    /// dereferenced.
    pub(crate) struct Counters {
        counts: *mut u64,
        len: usize,
    }

    // SAFETY: The allocation is not tied to a thread.
    unsafe impl Send for Counters {}

    // SAFETY: A CPU adds to its own counts only, with an operation that an interrupt cannot divide.
    // The sum reads each count as a whole.
    unsafe impl Sync for Counters {}

    impl Counters {
        /// Allocates `len` counts of 0. Fails with `ENOMEM`, also if `len` is 0. May sleep.
        pub(crate) fn new(len: usize) -> Result<Arc<Self>> {
            // SAFETY: The function accepts any length, and returns null if it is 0 or too large.
            let counts = unsafe { abi::helper_alloc_percpu_u64(len) };
            if counts.is_null() {
                return Err(ENOMEM);
            }
            Ok(Arc::new(Self { counts, len }, GFP_KERNEL)?)
        }

        /// Returns the bytes of memory of the counts on all CPUs.
        pub(crate) fn bytes(&self) -> usize {
            // SAFETY: The function only reads the number of possible CPUs.
            unsafe { abi::helper_percpu_u64_bytes(self.len) }
        }

        /// Returns the per-CPU address of the count at `index`, or of the last one if `index` is
        /// beyond it.
        fn at(&self, index: usize) -> *mut u64 {
            let last = self.len.saturating_sub(1);
            self.counts.wrapping_add(index.min(last))
        }

        /// Adds 1 to the count at `index`, or to the last one if `index` is beyond it.
        pub(crate) fn increment(&self, index: usize) {
            // SAFETY: `at` returns the address of a count of the allocation.
            unsafe { abi::helper_this_cpu_inc(self.at(index)) };
        }

        /// Returns the sum over all CPUs of the count at `index`, or of the last one if `index` is
        /// beyond it.
        pub(crate) fn sum(&self, index: usize) -> u64 {
            // SAFETY: `at` returns the address of a count of the allocation.
            unsafe { abi::helper_percpu_sum(self.at(index)) }
        }
    }

    impl Drop for Counters {
        fn drop(&mut self) {
            // SAFETY: By the type's invariants, `counts` is an allocation, and `self` owns it.
            unsafe { bindings::free_percpu(self.counts.cast()) };
        }
    }

    /// One count. It holds a reference to its array.
    ///
    /// # Invariants
    ///
    /// `count` is the per-CPU address of a count of `counters`.
    pub(crate) struct Count {
        count: *mut u64,
        #[expect(dead_code, reason = "only holds the reference")]
        counters: Arc<Counters>,
    }

    // SAFETY: As for `Counters`.
    unsafe impl Send for Count {}

    // SAFETY: As for `Counters`.
    unsafe impl Sync for Count {}

    impl Count {
        /// Returns the count at `index`, or the last one if `index` is beyond it.
        pub(crate) fn of(counters: &Arc<Counters>, index: usize) -> Self {
            Self {
                count: counters.at(index),
                counters: counters.clone(),
            }
        }

        /// Returns the per-CPU address of the count.
        pub(super) fn address(&self) -> *mut u64 {
            self.count
        }
    }
}

/// The scheduler, the amount of memory, and the rate of messages in the log.
mod system {
    use super::abi;
    use kernel::{
        bindings,
        error::to_result,
        prelude::*, //
    };

    /// Whether `bytes` bytes are less than the memory of the machine.
    pub(crate) fn fits_memory(bytes: usize) -> bool {
        // SAFETY: The function only reads a number.
        bytes >> bindings::PAGE_SHIFT < unsafe { abi::helper_totalram_pages() }
    }

    /// Reschedules if another task needs the CPU. Fails with `EINTR` if the process is killed, so
    /// that a long operation can end. May sleep.
    pub(crate) fn cond_resched_killable() -> Result {
        // SAFETY: No caller has an `rcu::Guard` or another reason not to sleep.
        to_result(unsafe { abi::helper_cond_resched_killable() })
    }

    /// Takes one of the module's 10 warnings in 5 seconds, if one is left. `name` is the function
    /// that the kernel names in its note on suppressed warnings.
    pub(crate) fn may_warn(name: &CStr) -> bool {
        // SAFETY: `name` is a C string, to which the function keeps no pointer.
        unsafe { abi::helper_ratelimit(name.as_char_ptr()) }
    }
}

/// Values that readers use without a lock while a writer replaces them. [`RcuBox::retire`] makes a
/// workqueue free a replaced value after its last reader.
///
/// C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)
mod rcu {
    use super::abi;
    use core::{
        marker::PhantomData,
        ops::{Deref, DerefMut},
        ptr::NonNull,
        sync::atomic::{AtomicPtr, Ordering}, //
    };
    use kernel::{
        alloc::AllocError,
        container_of,
        error::to_result,
        ffi::c_uint,
        new_mutex,
        prelude::*,
        sync::{Mutex, MutexGuard},
        types::Opaque, //
    };

    /// An RCU read-side critical section, from its creation to its drop. A value that an [`Rcu`]
    /// holds at any time in the section is not freed before the section ends. The section must not
    /// sleep.
    ///
    /// It is of the sched flavour, which disables preemption: that needs the fewest instructions.
    /// Grace periods wait for all flavours.
    pub(crate) struct Guard {
        /// The section ends on the thread where it began.
        _thread: PhantomData<*mut ()>,
    }

    impl Guard {
        /// Begins a section. The C function returns `kept` as it is, so that the caller need not
        /// save it across the call: 6 instructions fewer in the map.
        #[inline(always)]
        pub(super) fn new_keeping<T>(kept: *mut T) -> (Self, *mut T) {
            // SAFETY: Either `drop` ends the section, or `dm::Bio::remap` does, whose caller
            // forgets the guard. The function only returns the pointer.
            let kept = unsafe { abi::helper_rcu_read_lock_sched_keeping(kept.cast()) };
            let guard = Self {
                _thread: PhantomData,
            };
            (guard, kept.cast())
        }

        /// Begins a section.
        pub(crate) fn new() -> Self {
            let (guard, _) = Self::new_keeping(core::ptr::null_mut::<()>());
            guard
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            // SAFETY: `new_keeping` began the section, on this thread.
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

    // A retired value is dropped at any later time, so it must not borrow.
    impl<T: Send + 'static> RcuBox<T> {
        /// Moves the value into an allocation. May sleep.
        pub(crate) fn new(value: T) -> Result<Self, AllocError> {
            let retired = Opaque::uninit();
            Ok(Self(KBox::new(Node { value, retired }, GFP_KERNEL)?))
        }

        /// Makes the workqueue of [`Retirement`] free the value after all current read-side
        /// critical sections (`queue_rcu_work` in `helper_retire` of `helpers.c`).
        ///
        /// Does not wait here. `bytes` is the memory that is freed then. If more than 32 MiB wait
        /// to be freed, the thread waits on its way back to userland, where it holds no locks,
        /// until at most 32 MiB do. Above 64 MiB, no new table is made ([`Retirement::has_room`]).
        fn retire(self, bytes: usize) {
            let node = KBox::into_raw(self.0);
            // SAFETY: The node came from a box, and from here on only `free` frees it. The
            // workqueue exists: see `Retirement`.
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

        /// Frees a node.
        ///
        /// # Safety
        ///
        /// `retired` must be that of a node that [`Self::retire`] passed on, which no reader uses
        /// any more. The function must be called once for each such node.
        unsafe extern "C" fn free(retired: *mut abi::retired) {
            // SAFETY: By this function's requirements, `retired` is in a node that came from a box.
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

    // SAFETY: Only C uses `retired`, and only after the box was given away.
    unsafe impl<T: Send> Send for RcuBox<T> {}

    // SAFETY: As above.
    unsafe impl<T: Sync> Sync for RcuBox<T> {}

    /// The workqueue that frees retired values. Dropping it waits until all are freed.
    ///
    /// The module creates the only one before anything that replaces values, and drops it after all
    /// of that.
    pub(crate) struct Retirement(());

    impl Retirement {
        /// Creates the workqueue. Fails with `ENOMEM`. May sleep.
        pub(crate) fn new() -> Result<Self> {
            // SAFETY: There is none yet: the module creates only one.
            to_result(unsafe { abi::helper_begin_retirement() })?;
            Ok(Self(()))
        }

        /// Whether at most 64 MiB wait to be freed, so that more may be retired.
        pub(crate) fn has_room() -> bool {
            // SAFETY: The function only reads a number.
            unsafe { abi::helper_retirement_has_room() }
        }
    }

    impl Drop for Retirement {
        fn drop(&mut self) {
            // SAFETY: `new` created the workqueue. The module drops everything that replaces values
            // before it.
            unsafe { abi::helper_end_retirement() };
        }
    }

    /// A pointer to a value, which readers use in a [`Guard`]'s section while one writer at a time
    /// replaces it.
    ///
    /// # Invariants
    ///
    /// `current` is null or came from an [`RcuBox`], and is freed only when no reader can use it.
    #[pin_data(PinnedDrop)]
    pub(crate) struct Rcu<T: Send + Sync + 'static> {
        current: AtomicPtr<Node<T>>,
        #[pin]
        writer: Mutex<()>,
        _owned: PhantomData<RcuBox<T>>,
    }

    impl<T: Send + Sync + 'static> Rcu<T> {
        /// Returns an initializer of a pointer to nothing.
        pub(crate) fn new() -> impl PinInit<Self> {
            pin_init!(Self {
                current: AtomicPtr::new(core::ptr::null_mut()),
                writer <- new_mutex!(()),
                _owned: PhantomData,
            })
        }

        /// Returns the value, if there is one. It stays valid until the section ends, even if it is
        /// replaced before that.
        pub(crate) fn read<'a>(&'a self, _guard: &'a Guard) -> Option<&'a T> {
            // SAFETY: By the type's invariants, the value is not freed before the end of a section
            // that could have loaded it, such as this one.
            let node = unsafe { self.current.load(Ordering::Acquire).as_ref() };
            node.map(|node| &node.value)
        }

        /// Locks out other writers. May sleep.
        ///
        /// Until the writer is dropped, the thread's allocations imply `GFP_NOIO`. Otherwise a
        /// suspend could wait for a function of its target, that function for this lock, the lock's
        /// holder for I/O of reclaim, and that I/O for the suspended device. For
        /// [`super::percpu::Counters::new`] this is incomplete on some kernels, 6.1.192 and
        /// 6.12.118 among them: `__alloc_percpu` takes a mutex there, whose holder may be waiting
        /// for I/O. 7.3 allocates with `GFP_NOIO` under that mutex.
        pub(crate) fn lock(&self) -> Writer<'_, T> {
            let lock = self.writer.lock();
            Writer {
                rcu: self,
                // SAFETY: The writer's drop restores the flags on this thread, because a mutex's
                // guard does not leave its thread.
                flags: unsafe { abi::helper_memalloc_noio_save() },
                _lock: lock,
            }
        }
    }

    #[pinned_drop]
    impl<T: Send + Sync + 'static> PinnedDrop for Rcu<T> {
        fn drop(self: Pin<&mut Self>) {
            // A reader borrows the `Rcu`, so there is none.
            if let Some(last) = NonNull::new(self.current.load(Ordering::Relaxed)) {
                // SAFETY: By the type's invariants, the pointer came from a box.
                drop(unsafe { KBox::from_raw(last.as_ptr()) });
            }
        }
    }

    /// The right to replace the value of an [`Rcu`].
    pub(crate) struct Writer<'a, T: Send + Sync + 'static> {
        rcu: &'a Rcu<T>,
        /// The thread's allocation flags before the lock.
        flags: c_uint,
        _lock: MutexGuard<'a, ()>,
    }

    impl<T: Send + Sync + 'static> Drop for Writer<'_, T> {
        fn drop(&mut self) {
            // SAFETY: `Rcu::lock` saved these flags, on this thread.
            unsafe { abi::helper_memalloc_noio_restore(self.flags) };
        }
    }

    impl<T: Send + Sync + 'static> Writer<'_, T> {
        /// Returns the value, if there is one.
        pub(crate) fn get(&self) -> Option<&T> {
            // SAFETY: Only `replace` retires the value. It borrows `self` mutably, and the lock
            // excludes other threads.
            let node = unsafe { self.rcu.current.load(Ordering::Relaxed).as_ref() };
            node.map(|node| &node.value)
        }

        /// Replaces the value. The old one, of `bytes` bytes of memory, is freed after its last
        /// reader: see [`RcuBox::retire`]. Does not wait for that.
        pub(crate) fn replace(&mut self, value: RcuBox<T>, bytes: usize) {
            let new = KBox::into_raw(value.0);
            let old = self.rcu.current.swap(new, Ordering::AcqRel);
            if let Some(old) = NonNull::new(old) {
                // SAFETY: By the type's invariants, the pointer came from a box. `swap` made this
                // thread its only owner. Readers may still have shared references, so the box is
                // only passed to `retire`.
                RcuBox(unsafe { KBox::from_raw(old.as_ptr()) }).retire(bytes);
            }
        }
    }
}

/// The module's file in sysfs.
///
/// C header: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)
mod sysfs {
    use super::abi;
    use kernel::{
        error::to_result,
        ffi::c_int,
        prelude::*, //
    };

    /// The file `/sys/module/NAME/familyid`, which contains the number of a generic netlink family.
    /// Dropping it waits for the file's readers, and removes it.
    ///
    /// A module can have one.
    pub(crate) struct FamilyIdFile {
        module: &'static ThisModule,
    }

    impl FamilyIdFile {
        /// Creates the file for the family with the number `id`. May sleep.
        pub(crate) fn new(module: &'static ThisModule, id: c_int) -> Result<Self> {
            // SAFETY: A module has a kobject while it is loaded.
            to_result(unsafe { abi::helper_create_familyid(module.as_ptr(), id) }).inspect_err(
                |e| {
                    pr_err!("/sys/module/.../familyid create failed {}\n", e.to_errno());
                },
            )?;
            Ok(Self { module })
        }
    }

    impl Drop for FamilyIdFile {
        fn drop(&mut self) {
            // SAFETY: `new` created the file, and the module is still loaded.
            unsafe { abi::helper_remove_familyid(self.module.as_ptr()) };
        }
    }
}

/// Generic netlink families of one command with one attribute, for userland that was written
/// before the kernel validated messages strictly.
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

    /// The type of the only attribute.
    pub(crate) const ATTRIBUTE: usize = 1;

    /// Bytes of an attribute before its payload (`NLA_HDRLEN`).
    pub(crate) const ATTRIBUTE_HEADER_LEN: usize = size_of::<bindings::nlattr>();

    /// A generic netlink family.
    pub(crate) trait Family: Sized + Send + Sync {
        /// The name by which userland finds the family.
        const NAME: &'static CStr;

        /// The family's version.
        const VERSION: u8;

        /// The number of the command.
        const COMMAND: u8;

        /// The most bytes of the attribute's payload.
        const MAX_LEN: u16;

        /// Handles the command. Its sender has `CAP_NET_ADMIN`, in the initial network namespace.
        ///
        /// Several threads may call this at once. It may sleep.
        fn handle(&self, request: &Request<'_>) -> Result;
    }

    /// A registered family. Dropping it waits for the commands that are being handled, and
    /// unregisters the family. A module can have one.
    #[pin_data(PinnedDrop)]
    pub(crate) struct Registration<F: Family> {
        handler: F,
        #[pin]
        family: Opaque<abi::genl_family>,
    }

    // SAFETY: A family may be unregistered on any thread, and the handler is `Send`.
    unsafe impl<F: Family> Send for Registration<F> {}

    // SAFETY: After the registration, `family` is only read here, and the handler is `Sync`.
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

        /// Returns an initializer that registers the family. May sleep.
        pub(crate) fn new(module: &'static ThisModule, handler: F) -> impl PinInit<Self, Error> {
            try_pin_init!(Self {
                handler,
                family <- Opaque::try_ffi_init(move |slot: *mut abi::genl_family| {
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(Self::family(module)) };
                    // SAFETY: The family is complete, and pinned until it is unregistered.
                    to_result(unsafe { abi::helper_genl_register_family(slot) })
                        .inspect_err(Self::explain)
                }),
            })
        }

        fn explain(error: &Error) {
            pr_err!("genl_register_family() failed {}\n", error.to_errno());
        }

        fn family(module: &'static ThisModule) -> abi::genl_family {
            let mut family = abi::genl_family {
                version: c_uint::from(F::VERSION),
                maxattr: ATTRIBUTE as c_uint,
                policy: Self::POLICIES.as_ptr(),
                small_ops: Self::COMMANDS.as_ptr(),
                n_small_ops: 1,
                // From this command on, the kernel checks the reserved field of the header. It is
                // the one after the family's only command.
                resv_start_op: F::COMMAND + 1,
                module: module.as_ptr(),
                ..Default::default()
            };
            // A command does not hold `genl_mutex` then, so one that waits blocks no other family's
            // commands. It still holds `cb_lock` for reading, which registering a family needs.
            family.set_parallel_ops(1);
            let name = F::NAME.to_bytes_with_nul();
            family.name[..name.len()].copy_from_slice(name);
            family
        }

        /// Returns the handler of the commands.
        pub(crate) fn handler(&self) -> &F {
            &self.handler
        }

        /// Returns the family's number.
        pub(crate) fn id(&self) -> c_int {
            // SAFETY: The number does not change while the family is registered.
            unsafe { (*self.family.get()).id }
        }

        /// Handles a command.
        ///
        /// # Safety
        ///
        /// Only generic netlink may call this, with a message for this family.
        unsafe extern "C" fn doit_callback(
            _skb: *mut bindings::sk_buff,
            info: *mut abi::genl_info,
        ) -> c_int {
            // SAFETY: The function only reads a pointer, which is set before the registration.
            let family = unsafe { abi::helper_genl_family() };
            // SAFETY: The module's only family is embedded in a registration of this type. Its
            // handler was initialized before the family was registered, and its drop waits for this
            // function.
            let registration = unsafe {
                let family = Opaque::cast_from(family).cast_mut();
                &*container_of!(family, Self, family)
            };
            let request = Request {
                // SAFETY: `info` is valid until this function returns.
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
            // SAFETY: `new` registered the family.
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
        /// Returns the payload of the attribute, if the command has the attribute.
        pub(crate) fn attribute(&self) -> Option<&[u8]> {
            // SAFETY: Generic netlink stores a pointer, maybe null, for each type up to the
            // family's highest.
            let attribute = NonNull::new(unsafe { *self.info.attrs.add(ATTRIBUTE) })?;
            // SAFETY: Generic netlink has checked the attribute's length, which includes its
            // header. The message does not change until the command is handled.
            unsafe {
                let len = usize::from((*attribute.as_ptr()).nla_len);
                let len = len.saturating_sub(ATTRIBUTE_HEADER_LEN);
                let payload = attribute.as_ptr().cast::<u8>().add(ATTRIBUTE_HEADER_LEN);
                Some(slice::from_raw_parts(payload, len))
            }
        }

        /// Allocates the answer, with room for an attribute that contains a `T`. May sleep. Fails
        /// with `ENOMEM` or `EMSGSIZE`.
        pub(crate) fn reply<T: AsBytes>(&self) -> Result<Reply> {
            let room = ATTRIBUTE_HEADER_LEN + size_of::<T>();
            // SAFETY: The function accepts any length, and returns null if it is too large.
            let skb = NonNull::new(unsafe { abi::helper_genlmsg_new(room) }).ok_or(ENOMEM)?;
            let mut reply = Reply {
                skb,
                header: core::ptr::null_mut(),
                portid: self.info.snd_portid,
            };
            // SAFETY: `skb` is a new buffer, and the family is registered.
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

    /// An answer that is not sent yet.
    ///
    /// # Invariants
    ///
    /// `skb` is a buffer that `self` owns. Outside of [`Request::reply`], `header` is the header of
    /// the message in it.
    pub(crate) struct Reply {
        skb: NonNull<bindings::sk_buff>,
        header: *mut c_void,
        portid: u32,
    }

    impl Reply {
        /// Sends the answer, with `value` as an attribute whose number is that of the policy type
        /// `NLA_BINARY`: v3 confused the two, and its userland expects that. May sleep.
        pub(crate) fn send<T: AsBytes>(self, value: &T) -> Result {
            let data = core::ptr::from_ref(value).cast();
            // SAFETY: By the type's invariants, `self` owns the buffer. `value` is readable for its
            // size, and has no padding.
            to_result(unsafe {
                let len = size_of_val(value) as c_int;
                abi::nla_put(self.skb.as_ptr(), abi::NLA_BINARY as c_int, len, data)
            })?;
            let reply = core::mem::ManuallyDrop::new(self);
            // SAFETY: By the type's invariants, `reply` owns the buffer, which contains the header.
            // The second function takes the buffer over, even if it fails.
            to_result(unsafe {
                abi::helper_genlmsg_end(reply.skb.as_ptr(), reply.header);
                abi::helper_genlmsg_unicast(reply.skb.as_ptr(), reply.portid)
            })
        }
    }

    impl Drop for Reply {
        fn drop(&mut self) {
            // SAFETY: By the type's invariants, `self` owns the buffer.
            unsafe { abi::helper_nlmsg_free(self.skb.as_ptr()) };
        }
    }
}

/// Device-mapper targets, and their devices and bios.
///
/// C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)
mod dm {
    use super::{
        abi,
        percpu,
        rcu, //
    };
    use core::{
        fmt::{self, Write},
        iter,
        marker::PhantomData,
        num::NonZeroU32,
        ptr::NonNull,
        slice, //
    };
    use kernel::{
        bindings,
        container_of,
        error::{from_result, to_result},
        ffi::{c_char, c_int, c_uint, c_void},
        prelude::*,
        types::Opaque, //
    };

    /// A device-mapper target.
    pub(crate) trait Target: Sized + Send + Sync {
        /// The name in table lines.
        const NAME: &'static CStr;

        /// The target's version.
        const VERSION: [u32; 3];

        /// Device-mapper's text if a constructor runs out of memory.
        const OUT_OF_MEMORY: &'static CStr;

        /// The data that all targets of this type share.
        type Shared: Send + Sync;

        /// The reason why an I/O has no route.
        type Unmapped;

        /// The answer to a message.
        ///
        /// It has no lifetime, so it cannot borrow the arguments: device-mapper's buffer for the
        /// answer overlaps them. Displaying it may sleep, and fails if the buffer is too small.
        type Answer: kernel::fmt::Display;

        /// Constructs a target from the arguments of its table line. May sleep.
        fn new(
            shared: &Self::Shared,
            constructor: &mut Constructor<'_>,
            args: &Args<'_>,
        ) -> Result<Self, ConstructorError>;

        /// Returns the route of the I/O of `len` sectors that begins `offset` sectors after the
        /// target's begin, if the whole I/O has one route that is quick to find. That is so for
        /// most; [`Self::route_run`] is called for the others. A flush without data reaches neither
        /// function: each device gets one.
        fn route<'a>(
            &'a self,
            offset: u64,
            len: u32,
            devices: &'a KVVec<Device>,
            guard: &'a rcu::Guard,
        ) -> Option<Route<'a>>;

        /// Returns how many sectors from `offset` on, 1 to `len`, have the same route, or none, and
        /// that route. Both must come from one state of the target's data.
        fn route_run<'a>(
            &'a self,
            offset: u64,
            len: u32,
            devices: &'a KVVec<Device>,
            guard: &'a rcu::Guard,
        ) -> (u32, Result<Route<'a>, Self::Unmapped>);

        /// Counts and logs an I/O without a route, which the caller sends to the first device.
        fn count_unmapped(&self, offset: u64, reason: Self::Unmapped);

        /// Returns the sectors of a unit. An I/O may be split at each multiple of it, counted from
        /// the target's begin.
        fn granularity(&self) -> u64;

        /// The mapped device resumes with the target's table, which is live from now on. I/O begins
        /// after this.
        ///
        /// Must not allocate: reclaim may need the mapped device.
        fn resume(&self);

        /// Returns the device to which ioctls are passed.
        fn prepare_ioctl<'a>(&self, devices: &'a [Device]) -> Result<&'a Device>;

        /// Writes the line that `dmsetup status` prints.
        fn info(&self, devices: &[Device], line: &mut StatusWriter<'_>) -> fmt::Result;

        /// Writes the arguments of a table line that constructs the same target.
        fn table(&self, devices: &[Device], line: &mut StatusWriter<'_>) -> fmt::Result;

        /// Writes what IMA measures when a table is loaded, after the target's name and version.
        fn ima(&self, devices: &[Device], line: &mut StatusWriter<'_>) -> fmt::Result;

        /// Handles a message, and returns its answer if it has one. Fails with `EINVAL` if the
        /// message is unknown. May sleep.
        fn message(&self, args: &Args<'_>) -> Result<Option<Self::Answer>>;
    }

    /// Where an I/O goes, and the counts to which it adds 1.
    pub(crate) struct Route<'a> {
        /// The device. The I/O goes to the sector `start() + offset` of it.
        pub(crate) device: &'a Device,
        /// The target's count of routed I/O, and a narrower one of the target's choice.
        pub(crate) counts: [&'a percpu::Count; 2],
    }

    /// The reason why a constructor failed.
    pub(crate) struct ConstructorError {
        /// The text that device-mapper logs.
        pub(crate) text: &'static CStr,
        /// The errno.
        pub(crate) error: Error,
    }

    /// The text of a C string, without its NUL. It is displayed with `\xNN` for each byte that is
    /// not printable ASCII.
    ///
    /// # Invariants
    ///
    /// A NUL follows the bytes, and neither changes for `'a`.
    #[derive(Clone, Copy)]
    pub(crate) struct Text<'a>(&'a [u8]);

    impl<'a> Text<'a> {
        /// # Safety
        ///
        /// `text` must point to a C string, which must not change for `'a`.
        unsafe fn from_raw(text: *const c_char) -> Self {
            // SAFETY: By this function's requirements, `text` points to a C string.
            let len = unsafe { abi::strlen(text.cast()) } as usize;
            // SAFETY: The string has `len` bytes before its NUL, and does not change for `'a`.
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
            // SAFETY: `text` is a C string, borrowed for `'a`.
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
        /// `argv` must point to `argc` C strings, which must not change for `'a`.
        unsafe fn from_raw(argc: c_uint, argv: *mut *mut c_char) -> Self {
            if argc == 0 {
                return Self(&[]);
            }
            // SAFETY: By this function's requirements, `argv` points to `argc` pointers.
            Self(unsafe { slice::from_raw_parts(argv, argc as usize) })
        }

        /// Returns the number of arguments.
        pub(crate) fn len(&self) -> usize {
            self.0.len()
        }

        /// Returns the arguments in their order.
        pub(crate) fn iter(&self) -> impl Iterator<Item = Text<'a>> {
            // SAFETY: By the requirements of `from_raw`, these are C strings, which do not change
            // for `'a`.
            self.0.iter().map(|&arg| unsafe { Text::from_raw(arg) })
        }

        /// Returns the arguments from the index `first` on in pairs. One without a partner at the
        /// end is left out.
        pub(crate) fn pairs(&self, first: usize) -> impl Iterator<Item = (Text<'a>, Text<'a>)> {
            let mut args = self.iter().skip(first);
            iter::from_fn(move || Some((args.next()?, args.next()?)))
        }

        /// Returns the argument at `index`, if there is one.
        pub(crate) fn get(&self, index: usize) -> Option<Text<'a>> {
            self.iter().nth(index)
        }
    }

    /// A target under construction.
    ///
    /// # Invariants
    ///
    /// `ti` is a target of a mapped device's table, whose constructor is running.
    pub(crate) struct Constructor<'a> {
        ti: NonNull<abi::dm_target>,
        devices: KVVec<Device>,
        _target: PhantomData<&'a mut abi::dm_target>,
    }

    impl Constructor<'_> {
        /// Returns the length of the target in sectors.
        pub(crate) fn len(&self) -> u64 {
            // SAFETY: By the type's invariants, `ti` is valid.
            unsafe { (*self.ti.as_ptr()).len }
        }

        /// Returns the sector of the mapped device at which the target begins.
        pub(crate) fn begin(&self) -> u64 {
            // SAFETY: By the type's invariants, `ti` is valid.
            unsafe { (*self.ti.as_ptr()).begin }
        }

        /// Returns an identifier of the target's table, unique while the table exists.
        pub(crate) fn table_id(&self) -> usize {
            // SAFETY: By the type's invariants, `ti` is valid.
            unsafe { (*self.ti.as_ptr()).table.addr() }
        }

        /// Returns the major and minor number of the mapped device.
        pub(crate) fn device_number(&self) -> (u32, u32) {
            // SAFETY: By the type's invariants, `ti` is a target of a mapped device's table. That
            // device has a disk, whose numbers do not change.
            numbers(unsafe { abi::helper_dm_target_devt(self.ti.as_ptr()) })
        }

        /// Reserves memory for `devices` devices. To be called once, before [`Self::open_device`].
        pub(crate) fn reserve(&mut self, devices: usize) -> Result {
            self.devices = KVVec::with_capacity(devices, GFP_KERNEL)?;
            Ok(())
        }

        /// Opens the device at `path`, of which the target uses the sectors from `start` on. May
        /// sleep. Fails with `EINVAL` if it is the mapped device itself, with `ENOMEM` if
        /// [`Self::reserve`] reserved no memory for it, and with the errors of `dm_get_device`.
        pub(crate) fn open_device(&mut self, path: Text<'_>, start: u64) -> Result<&Device> {
            let ti = self.ti.as_ptr();
            let mut dev = core::ptr::null_mut();
            // SAFETY: By the types' invariants, `ti` is valid, and a NUL follows the bytes of
            // `path`. `dev` may be written to.
            to_result(unsafe { abi::helper_dm_get_device(ti, path.as_char_ptr(), &mut dev) })?;
            let dev = NonNull::new(dev).ok_or(ENODEV)?;
            let device = Device {
                // SAFETY: `dev` is valid until it is put.
                bdev: unsafe { (*dev.as_ptr()).bdev },
                start,
                dev,
                ti: self.ti,
            };
            // Linux 6.1 opens the mapped device, and then can never remove it.
            if device.number() == self.device_number() {
                return Err(EINVAL);
            }
            self.devices
                .push_within_capacity(device)
                .map_err(|_| ENOMEM)?;
            self.devices.last().ok_or(ENODEV)
        }

        /// Returns the sectors of the largest data unit that the inline encryption hardware of all
        /// devices supports, or 1 if there is none.
        pub(crate) fn data_unit_len(&self) -> NonZeroU32 {
            let modes = 0..abi::blk_crypto_mode_num_BLK_ENCRYPTION_MODE_MAX;
            let units = modes.fold(0, |any, mode| any | self.data_units(mode));
            let largest = units.checked_ilog2().map(|bits| 1 << bits);
            in_sectors(largest.unwrap_or(0))
        }

        /// Returns the sizes of data units that all devices support in a mode, as
        /// [`Device::data_units`] does.
        fn data_units(&self, mode: abi::blk_crypto_mode_num) -> u32 {
            let units = self.devices.iter().map(|device| device.data_units(mode));
            units.fold(u32::MAX, |all, units| all & units)
        }
    }

    /// A device of a target. Dropping it puts the device.
    ///
    /// # Invariants
    ///
    /// `dev` was opened for `ti`, and `bdev` is its block device. `ti` outlives the `Device`: only
    /// [`Constructor`] and [`Instance`] own a `Device`, and the destructor of `ti` drops the
    /// latter.
    pub(crate) struct Device {
        bdev: *mut bindings::block_device,
        start: u64,
        dev: NonNull<abi::dm_dev>,
        ti: NonNull<abi::dm_target>,
    }

    // SAFETY: A `Device` may be put on any thread, in the constructor or the destructor of `ti`.
    unsafe impl Send for Device {}

    // SAFETY: The methods do not change the device, whose block device and name stay while it is
    // open. They read what others may change as single words.
    unsafe impl Sync for Device {}

    /// Splits a kernel's device number into major and minor.
    fn numbers(number: bindings::dev_t) -> (u32, u32) {
        (number >> abi::MINORBITS, number & abi::MINORMASK)
    }

    /// Converts a length in bytes to sectors, rounded down, but at least 1.
    fn in_sectors(bytes: u32) -> NonZeroU32 {
        NonZeroU32::new(bytes >> bindings::SECTOR_SHIFT).unwrap_or(NonZeroU32::MIN)
    }

    impl Device {
        /// Returns the device's major and minor number.
        fn number(&self) -> (u32, u32) {
            // SAFETY: By the type's invariants, `bdev` is that of an open device.
            numbers(unsafe { abi::helper_bdev_devt(self.bdev) })
        }

        /// Returns the device's name, `major:minor`.
        pub(crate) fn name(&self) -> Text<'_> {
            // SAFETY: By the type's invariants, `dev` is open. Its name is a C string, which does
            // not change while it is open.
            unsafe { Text::from_raw((*self.dev.as_ptr()).name.as_ptr()) }
        }

        /// Returns the first sector of the device that the target uses.
        pub(crate) fn start(&self) -> u64 {
            self.start
        }

        /// Returns the length of the whole device in sectors.
        pub(crate) fn len(&self) -> u64 {
            // SAFETY: By the type's invariants, `bdev` is that of an open device.
            unsafe { abi::helper_bdev_nr_sectors(self.bdev) }
        }

        /// Returns the sectors of a logical block, the smallest unit of the device's I/O.
        pub(crate) fn block_len(&self) -> NonZeroU32 {
            // SAFETY: By the type's invariants, `bdev` is that of an open device.
            let bytes = unsafe { abi::helper_bdev_logical_block_size(self.bdev) };
            in_sectors(bytes)
        }

        /// Returns which data units the device's inline encryption hardware supports in a mode: bit
        /// `n` is set for those of `1 << n` bytes.
        fn data_units(&self, mode: abi::blk_crypto_mode_num) -> u32 {
            // SAFETY: By the type's invariants, `bdev` is that of an open device. The mode is one
            // of the enum's.
            unsafe { abi::helper_bdev_data_units(self.bdev, mode) }
        }

        /// Whether the device has zones that must be written in order.
        pub(crate) fn is_zoned(&self) -> bool {
            // SAFETY: By the type's invariants, `bdev` is that of an open device.
            unsafe { abi::helper_bdev_is_zoned(self.bdev) }
        }
    }

    impl Drop for Device {
        fn drop(&mut self) {
            // SAFETY: By the type's invariants, `dev` was opened for `ti`, and is open.
            unsafe { abi::dm_put_device(self.ti.as_ptr(), self.dev.as_ptr()) };
        }
    }

    /// A target with its devices, owned by `dm_target::private`.
    struct Instance<T> {
        // Dropped first, because the target may use the devices.
        target: T,
        devices: KVVec<Device>,
    }

    impl<T: Target> Instance<T> {
        /// Returns the instance of a target.
        ///
        /// # Safety
        ///
        /// [`Registration::construct`] must have constructed `ti`, with this `T`, and its
        /// destructor must not run for `'a`.
        unsafe fn of<'a>(ti: *mut abi::dm_target) -> &'a Self {
            // SAFETY: `construct` stored a pointer to an `Instance<T>` there, which only the
            // destructor frees.
            unsafe { &*(*ti).private.cast() }
        }

        /// Maps a bio that begins `offset` sectors after the target's begin.
        #[inline(always)]
        fn map(&self, mut bio: Bio, offset: u64, guard: rcu::Guard) -> c_int {
            if bio.only_transfers() {
                let route = self.target.route(offset, bio.len(), &self.devices, &guard);
                if let Some(route) = route {
                    // SAFETY: `remap` ends the guard's section, so the guard is forgotten.
                    unsafe { bio.remap(route, offset) };
                    core::mem::forget(guard);
                    return abi::DM_MAPIO_REMAPPED as c_int;
                }
            }
            self.map_other(bio, offset, guard)
        }

        /// Maps a bio of any kind: a flush, a discard, one that spans pages, one without a route.
        #[cold]
        #[inline(never)]
        fn map_other(&self, mut bio: Bio, offset: u64, guard: rcu::Guard) -> c_int {
            if bio.is_flush() {
                drop(guard);
                return bio.send_to(self.devices.get(bio.flush_number()));
            }
            let (sectors, route) = self
                .target
                .route_run(offset, bio.len(), &self.devices, &guard);
            match route {
                Ok(route) => {
                    if !bio.cut(sectors) {
                        return abi::DM_MAPIO_KILL as c_int;
                    }
                    // SAFETY: `remap` ends the guard's section, so the guard is forgotten.
                    unsafe { bio.remap(route, offset) };
                    core::mem::forget(guard);
                    abi::DM_MAPIO_REMAPPED as c_int
                }
                Err(reason) => {
                    drop(guard);
                    self.map_unmapped(bio, offset, sectors, reason)
                }
            }
        }

        /// Maps a bio whose first `sectors` sectors have no route. Device-mapper sends the rest in
        /// another bio.
        #[cold]
        #[inline(never)]
        fn map_unmapped(
            &self,
            mut bio: Bio,
            offset: u64,
            sectors: u32,
            reason: T::Unmapped,
        ) -> c_int {
            if !bio.cut(sectors) {
                return abi::DM_MAPIO_KILL as c_int;
            }
            self.target.count_unmapped(offset, reason);
            let first = self.devices.first();
            bio.set_sector(first.map_or(0, |device| device.start.wrapping_add(offset)));
            bio.send_to(first)
        }
    }

    /// A bio that a target maps.
    ///
    /// # Invariants
    ///
    /// The pointer is to a bio that device-mapper made for this target, and that only this target's
    /// map function uses.
    struct Bio(*mut bindings::bio);

    impl Bio {
        /// The bits of `bi_opf` with the operation.
        const OPERATION: u32 = (1 << bindings::REQ_OP_BITS) - 1;

        /// The bit of `bi_opf` that asks for a flush before the bio's data.
        const PREFLUSH: u32 = 1 << bindings::req_flag_bits___REQ_PREFLUSH;

        /// Whether the bio is a read or a write without a flush, as most are.
        fn only_transfers(&self) -> bool {
            // READ is 0 and WRITE is 1.
            let transfers = bindings::req_op_REQ_OP_READ | bindings::req_op_REQ_OP_WRITE;
            // SAFETY: By the type's invariants, the bio is valid.
            unsafe { (*self.0).bi_opf & (Self::OPERATION & !transfers | Self::PREFLUSH) == 0 }
        }

        /// Whether the bio is a flush without data. Device-mapper sends one for each device, unless
        /// it flushes the devices itself (`flush_bypasses_map`).
        fn is_flush(&self) -> bool {
            // SAFETY: By the type's invariants, the bio is valid.
            let (flags, size) = unsafe { ((*self.0).bi_opf, (*self.0).bi_iter.bi_size) };
            flags & Self::PREFLUSH != 0 && size == 0
        }

        /// Returns the number of the device that the flush is for.
        fn flush_number(&self) -> usize {
            // SAFETY: By the type's invariants, device-mapper made the bio for a target.
            unsafe { abi::dm_bio_get_target_bio_nr(self.0) as usize }
        }

        /// Returns the length in sectors.
        fn len(&self) -> u32 {
            // SAFETY: By the type's invariants, the bio is valid.
            unsafe { (*self.0).bi_iter.bi_size >> bindings::SECTOR_SHIFT }
        }

        /// Cuts the bio after its first `sectors` sectors, at least 1, if it is longer.
        /// Device-mapper sends the rest in another bio. Returns false if the bio is longer and
        /// cannot be cut, because it is an atomic write.
        fn cut(&mut self, sectors: u32) -> bool {
            // SAFETY: By the type's invariants, device-mapper made the bio for a target, and it is
            // being mapped. It has more than `sectors` sectors. It is no duplicate, because
            // `construct` asks for one bio of each kind but flushes, and no zoned write, because
            // device-mapper refuses zoned devices to a type without a feature for them.
            sectors >= self.len() || unsafe { abi::helper_bio_cut(self.0, sectors) }
        }

        /// Returns the sector of the mapped device at which the bio begins.
        fn sector(&self) -> u64 {
            // SAFETY: By the type's invariants, the bio is valid.
            unsafe { (*self.0).bi_iter.bi_sector }
        }

        fn set_sector(&mut self, sector: u64) {
            // SAFETY: By the type's invariants, the bio is valid, and nothing else uses it.
            unsafe { (*self.0).bi_iter.bi_sector = sector };
        }

        /// Redirects the bio to a device, or fails it if that is `None`. Returns the map function's
        /// result.
        fn send_to(&mut self, device: Option<&Device>) -> c_int {
            let Some(device) = device else {
                return abi::DM_MAPIO_KILL as c_int;
            };
            // SAFETY: By the type's invariants, the bio is valid, and nothing else uses it. The
            // device is open.
            unsafe { abi::helper_bio_set_dev(self.0, device.bdev) };
            abi::DM_MAPIO_REMAPPED as c_int
        }

        /// Redirects the bio along its route, adds 1 to the route's counts, and ends the section in
        /// which the route was found. It is one call of C instead of four short ones: 22
        /// instructions fewer in the map.
        ///
        /// # Safety
        ///
        /// The caller must forget the guard of that section.
        unsafe fn remap(&mut self, route: Route<'_>, offset: u64) {
            let Route { device, counts } = route;
            let [target_count, chunk_hits] = counts.map(percpu::Count::address);
            // It does not overflow: device-mapper has checked that the target is within the device.
            self.set_sector(device.start.wrapping_add(offset));
            // SAFETY: By the type's invariants, the bio is valid, and nothing else uses it. The
            // counts are allocated until the section ends, and the function ends it after it has
            // used them. The device is open until the target's destructor.
            unsafe { abi::helper_bio_remap(self.0, device.bdev, target_count, chunk_hits) };
        }
    }

    /// Fits the least and the greatest length in bytes of an atomic write, which all devices
    /// support, to borders at multiples of `sectors` sectors. An atomic write cannot be cut, so it
    /// must not cross a border. Its length is a power of two, and it begins at a multiple of that.
    /// So its length is at most the largest power of two that divides `sectors`.
    fn fit_atomic_writes([min, max]: [c_uint; 2], sectors: u64) -> [c_uint; 2] {
        let unit = 1_u64 << sectors.trailing_zeros().min(u32::BITS) << bindings::SECTOR_SHIFT;
        let max = max.min(u32::try_from(unit).unwrap_or(u32::MAX));
        if max < min {
            return [0; 2];
        }
        [min, max]
    }

    /// Writes into the buffer of a status or message ioctl. Text that does not fit is truncated,
    /// which is an error, so that the rest is not even formatted. Device-mapper then makes userland
    /// repeat the ioctl with a larger buffer.
    ///
    /// # Invariants
    ///
    /// `next` is valid for writes of `room` bytes.
    pub(crate) struct StatusWriter<'a> {
        next: *mut u8,
        /// Bytes from `next` on. One of them is for the NUL.
        room: usize,
        _buffer: PhantomData<&'a mut [u8]>,
    }

    impl StatusWriter<'_> {
        /// # Safety
        ///
        /// `buffer` must be valid for writes of `len` bytes while the writer exists.
        unsafe fn new(buffer: *mut c_char, len: c_uint) -> Self {
            if len > 0 {
                // SAFETY: By this function's requirements, the first byte may be written.
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
                // SAFETY: `len` is less than `room`, so by the type's invariants the text and a NUL
                // after it fit. The text is not in the buffer, which only this writer has.
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

    /// A registered target type. Dropping it unregisters the type.
    ///
    /// Devices can be created as soon as it exists, and they hold a reference to the module, not to
    /// this value. So the module creates it in the last step of its initialization, and drops it
    /// first at its exit. It has only one.
    #[pin_data(PinnedDrop)]
    pub(crate) struct Registration<T: Target> {
        shared: T::Shared,
        #[pin]
        target_type: Opaque<abi::target_type>,
    }

    // SAFETY: A type may be unregistered on any thread, and `shared` is `Send`.
    unsafe impl<T: Target> Send for Registration<T> {}

    // SAFETY: Only device-mapper writes to `target_type`, under its own lock. `shared` is `Sync`.
    unsafe impl<T: Target> Sync for Registration<T> {}

    /// The callbacks' `ti` is valid. A *constructed* target is one whose constructor has succeeded,
    /// and which is not destroyed during the call: device-mapper destroys a table only when nothing
    /// uses it any more.
    impl<T: Target> Registration<T> {
        /// Returns an initializer that registers the type. May sleep. Fails with `EBUSY` (on Linux
        /// 6.1, `EEXIST`) if another type has the name.
        pub(crate) fn new(
            module: &'static ThisModule,
            shared: T::Shared,
        ) -> impl PinInit<Self, Error> {
            try_pin_init!(Self {
                shared,
                target_type <- Opaque::try_ffi_init(move |slot: *mut abi::target_type| {
                    // SAFETY: `slot` is valid for writes, and contains a type after the first line.
                    // The callback is for the module's only type.
                    unsafe {
                        slot.write(Self::target_type(module));
                        abi::helper_set_prepare_ioctl(slot, Some(Self::prepare_ioctl_callback));
                    }
                    // SAFETY: The type is complete, and pinned until it is unregistered.
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

        /// Constructs a target.
        ///
        /// # Safety
        ///
        /// `ti` must be a valid target of this type that is not constructed yet, and `args` its
        /// arguments.
        unsafe fn construct(
            ti: *mut abi::dm_target,
            args: &Args<'_>,
        ) -> Result<(), ConstructorError> {
            // SAFETY: `ti` is valid. Its type is embedded in a registration, which exists until the
            // module's exit, and device-mapper holds a reference to the module.
            let registration = unsafe {
                let target_type = Opaque::cast_from((*ti).type_).cast_mut();
                &*container_of!(target_type, Self, target_type)
            };
            let mut constructor = Constructor {
                // SAFETY: By this function's requirements, `ti` is valid, so it is not null.
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
            // SAFETY: `ti` is valid, and only its constructor uses it. These are raw accesses,
            // because the devices have pointers to `ti`, which a reference would invalidate.
            unsafe {
                (*ti).private = KBox::into_raw(instance).cast();
                // Device-mapper sends this number of flushes through the map, unless all targets of
                // the table set `flush_bypasses_map`: then it flushes the devices itself.
                (*ti).num_flush_bios = flushes;
                abi::helper_dm_target_flush_bypasses_map(ti);
                // One bio each, if all devices support the operation. The map cuts it.
                (*ti).num_discard_bios = 1;
                (*ti).num_secure_erase_bios = 1;
                (*ti).num_write_zeroes_bios = 1;
            }
            Ok(())
        }

        /// # Safety
        ///
        /// Only device-mapper may call this, with a target of this type that is not constructed
        /// yet, and `argc` arguments in `argv`.
        unsafe extern "C" fn ctr_callback(
            ti: *mut abi::dm_target,
            argc: c_uint,
            argv: *mut *mut c_char,
        ) -> c_int {
            // SAFETY: `argv` has `argc` C strings, which do not change during the call.
            let args = unsafe { Args::from_raw(argc, argv) };
            // SAFETY: By this function's requirements, `ti` is valid and not constructed.
            match unsafe { Self::construct(ti, &args) } {
                Ok(()) => 0,
                Err(ConstructorError { text, error }) => {
                    // SAFETY: `ti` is valid. The text is static, and device-mapper only reads it.
                    unsafe { (*ti).error = text.as_char_ptr().cast_mut() };
                    error.to_errno()
                }
            }
        }

        /// # Safety
        ///
        /// Only device-mapper may call this, once for a constructed target of this type, when no
        /// other callback runs for the target.
        unsafe extern "C" fn dtr_callback(ti: *mut abi::dm_target) {
            // SAFETY: `construct` stored a box of this type there, and nothing uses it any more.
            drop(unsafe { KBox::<Instance<T>>::from_raw((*ti).private.cast()) });
        }

        /// # Safety
        ///
        /// Only device-mapper may call this, with a constructed target of this type, and a bio that
        /// only this function uses.
        unsafe extern "C" fn map_callback(
            ti: *mut abi::dm_target,
            bio: *mut bindings::bio,
        ) -> c_int {
            let (guard, ti) = rcu::Guard::new_keeping(ti);
            // SAFETY: By this function's requirements.
            let instance = unsafe { Instance::<T>::of(ti) };
            let bio = Bio(bio);
            // SAFETY: By this function's requirements, `ti` is valid.
            let offset = bio.sector().wrapping_sub(unsafe { (*ti).begin });
            instance.map(bio, offset, guard)
        }

        /// # Safety
        ///
        /// Only device-mapper may call this, with a constructed target of this type.
        unsafe extern "C" fn resume_callback(ti: *mut abi::dm_target) {
            // SAFETY: By this function's requirements.
            unsafe { Instance::<T>::of(ti) }.target.resume();
        }

        /// # Safety
        ///
        /// Only device-mapper may call this, with a constructed target of this type, and a buffer
        /// of `maxlen` bytes.
        unsafe extern "C" fn status_callback(
            ti: *mut abi::dm_target,
            kind: abi::status_type_t,
            _flags: c_uint,
            result: *mut c_char,
            maxlen: c_uint,
        ) {
            // SAFETY: By this function's requirements.
            let Instance { target, devices } = unsafe { Instance::<T>::of(ti) };
            // SAFETY: By this function's requirements, `result` has `maxlen` bytes.
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
            // It fails only if the line is truncated, which device-mapper notices by itself.
            let _ = written;
        }

        /// # Safety
        ///
        /// Only device-mapper may call this, with a constructed target of this type, `argc`
        /// arguments in `argv`, and a buffer of `maxlen` bytes.
        unsafe extern "C" fn message_callback(
            ti: *mut abi::dm_target,
            argc: c_uint,
            argv: *mut *mut c_char,
            result: *mut c_char,
            maxlen: c_uint,
        ) -> c_int {
            // SAFETY: By this function's requirements.
            let instance = unsafe { Instance::<T>::of(ti) };
            // SAFETY: `argv` has `argc` C strings, which do not change until the answer is written.
            let args = unsafe { Args::from_raw(argc, argv) };
            from_result(|| {
                let Some(answer) = instance.target.message(&args)? else {
                    return Ok(0);
                };
                // SAFETY: By this function's requirements, `result` has `maxlen` bytes. The answer
                // borrows nothing, so nothing uses the arguments any more.
                let mut line = unsafe { StatusWriter::new(result, maxlen) };
                // It fails if the answer is truncated, which device-mapper notices by itself, or if
                // the process is killed; then nobody reads the answer.
                let _ = line.write_fmt(fmt!("{answer}"));
                // 1 says that the buffer contains an answer.
                Ok(1)
            })
        }

        /// # Safety
        ///
        /// Only device-mapper may call this, with a constructed target of this type, and a pointer
        /// that may be written to.
        unsafe extern "C" fn prepare_ioctl_callback(
            ti: *mut abi::dm_target,
            bdev: *mut *mut bindings::block_device,
        ) -> c_int {
            // SAFETY: By this function's requirements.
            let instance = unsafe { Instance::<T>::of(ti) };
            // SAFETY: By this function's requirements, `ti` is valid.
            let len = unsafe { (*ti).len };
            from_result(|| {
                let device = instance.target.prepare_ioctl(&instance.devices)?;
                // SAFETY: By this function's requirements, `bdev` may be written to.
                unsafe { *bdev = device.bdev };
                // 1 says that the target is not the whole device. Device-mapper then requires
                // CAP_SYS_RAWIO.
                Ok(c_int::from(device.start != 0 || device.len() != len))
            })
        }

        /// # Safety
        ///
        /// Only device-mapper may call this, with a constructed target of this type, and a callout
        /// that accepts `data`.
        unsafe extern "C" fn iterate_devices_callback(
            ti: *mut abi::dm_target,
            callout: abi::iterate_devices_callout_fn,
            data: *mut c_void,
        ) -> c_int {
            // SAFETY: By this function's requirements.
            let instance = unsafe { Instance::<T>::of(ti) };
            // SAFETY: By this function's requirements, `ti` is valid.
            let len = unsafe { (*ti).len };
            let Some(callout) = callout else { return 0 };
            instance
                .devices
                .iter()
                // SAFETY: The callout gets what device-mapper expects: its target, a device of
                // that, the device's sectors that the target uses, and its own data.
                .map(|device| unsafe { callout(ti, device.dev.as_ptr(), device.start, len, data) })
                .find(|&result| result != 0)
                .unwrap_or(0)
        }

        /// # Safety
        ///
        /// Only device-mapper may call this, with a constructed target of this type, and the limits
        /// that its devices have in common.
        unsafe extern "C" fn io_hints_callback(
            ti: *mut abi::dm_target,
            limits: *mut bindings::queue_limits,
        ) {
            // SAFETY: By this function's requirements.
            let granularity = unsafe { Instance::<T>::of(ti) }.target.granularity();
            // SAFETY: By this function's requirements, `ti` is valid.
            let begin = unsafe { (*ti).begin };
            let mut units = [0; 2];
            // SAFETY: By this function's requirements, the limits are valid, and may be changed.
            // `units` has room for two lengths.
            unsafe {
                abi::helper_get_atomic_writes(limits, units.as_mut_ptr());
                // A power of two divides both if it divides this.
                units = fit_atomic_writes(units, begin | granularity);
                abi::helper_set_atomic_writes(limits, units.as_ptr());
            }
        }
    }

    #[pinned_drop]
    impl<T: Target> PinnedDrop for Registration<T> {
        fn drop(self: Pin<&mut Self>) {
            // SAFETY: `new` registered the type. It has no targets, for each holds a reference to
            // the module.
            unsafe { abi::dm_unregister_target(self.target_type.get()) };
        }
    }
}

/// The bindings that bindgen generates from `helpers.c`: the wire format of `dm-switch.h`, and the
/// parts of device-mapper and generic netlink that the wrappers use.
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

#[cfg(test)]
#[path = "tests/policy/tests.rs"]
mod tests;
