//! Where entries are kept: records of one size, and chunks of bytes that hold their encoded form.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use super::EntryId;
use super::authors::GONE;
use super::pool::Id;
use crate::framing::FRAME_BYTES_MAX;
use crate::ids::{Clock, OriginRef, ScopeRef};

/// How much is allocated together.
///
/// In a large archive that is several huge pages of 2 MiB, wherever it begins. A process that is killed gives its
/// memory back page by page before its connections end: with small pages a client learns of it
/// only 60 to 170 ms later for each GiB, with huge ones 11 ms.
#[derive(Clone, Copy, Debug)]
struct Grain {
    /// Bytes of a chunk. An entry lies in one chunk; a whole chunk is trimmed at a time.
    chunk_bytes: usize,
    /// Records in a segment, as a power of two.
    segment_bits: u32,
}

impl Grain {
    const SMALL: Grain = Grain { chunk_bytes: 256 << 10, segment_bits: 10 };
    const LARGE: Grain = Grain { chunk_bytes: 16 << 20, segment_bits: 18 };
    /// From so many bytes on an archive is large.
    const LARGE_FROM_BYTES: u64 = 256 << 20;

    fn segment_records(self) -> usize {
        1 << self.segment_bits
    }
}

/// How an entry stands among the copies of its author's message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Standing {
    /// It is the row.
    #[default]
    Row,
    /// It never was the row.
    Copy,
    /// It was the row until a lesser copy came, or until what was told of it lay below a floor.
    Demoted,
    /// It is no entry: it lay below an adopted floor, or has the id that stands for a hole.
    Void,
}

/// What is known of an entry beside its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    pub(super) clock: Clock,
    pub(super) number: u64,
    pub(super) origin: OriginRef,
    pub(super) scope: ScopeRef,
    chunk: u64,
    offset: u32,
    bytes: u16,
    pub(super) standing: Standing,
}

impl Record {
    /// A row; where its bytes are is the store's to fill in.
    pub(super) fn new(clock: Clock, origin: OriginRef, number: u64, scope: ScopeRef) -> Self {
        Record { clock, number, origin, scope, ..Record::default() }
    }
}

/// Entries in the order of their arrival, trimmed at the front.
#[derive(Debug)]
pub(super) struct Store {
    grain: Grain,
    segments: VecDeque<Vec<Record>>,
    /// The segment of `segments[0]`, counted from the first ever.
    first_segment: u64,
    chunks: VecDeque<Vec<u8>>,
    first_chunk: u64,
    spare_segments: Vec<Vec<Record>>,
    spare_chunks: Vec<Vec<u8>>,
    /// The ids that are there.
    ids: Range<u64>,
}

impl Store {
    /// An empty store that is to hold about `bytes_max` bytes at most.
    pub(super) fn new(bytes_max: u64) -> Self {
        let large = bytes_max >= Grain::LARGE_FROM_BYTES;
        Store {
            grain: if large { Grain::LARGE } else { Grain::SMALL },
            segments: VecDeque::new(),
            first_segment: 0,
            chunks: VecDeque::new(),
            first_chunk: 0,
            spare_segments: Vec::new(),
            spare_chunks: Vec::new(),
            ids: 0..0,
        }
    }

    /// An empty store whose first entry gets this id.
    #[cfg(test)]
    pub(super) fn starting_at(id: u64) -> Self {
        let store = Store::new(0);
        let (first_segment, at) = (id >> store.grain.segment_bits, store.place(id).1);
        let segments = VecDeque::from([alloc::vec![Record::default(); at]]);
        Store { first_segment, segments, ids: id..id, ..store }
    }

    pub(super) fn ids(&self) -> Range<u64> {
        self.ids.clone()
    }

    pub(super) fn contains(&self, id: EntryId) -> bool {
        self.ids.contains(&id.0)
    }

    /// The id whose lower half this is, among those that are or were lately there.
    pub(super) fn widen(&self, id: Id) -> EntryId {
        EntryId(self.ids.start + u64::from(id.wrapping_sub(self.ids.start as u32)))
    }

    /// Panics when the entry was trimmed.
    pub(super) fn record(&self, id: EntryId) -> &Record {
        assert!(self.contains(id), "an entry that was trimmed");
        let (segment, at) = self.place(id.0);
        &self.segments[segment][at]
    }

    pub(super) fn record_mut(&mut self, id: EntryId) -> &mut Record {
        assert!(self.contains(id), "an entry that was trimmed");
        let (segment, at) = self.place(id.0);
        &mut self.segments[segment][at]
    }

    /// The encoded form: an [`Entry`](crate::wire::entry::Entry) without index and flags.
    pub(super) fn bytes(&self, id: EntryId) -> &[u8] {
        self.bytes_of(self.record(id))
    }

    pub(super) fn bytes_of(&self, record: &Record) -> &[u8] {
        let chunk = &self.chunks[(record.chunk - self.first_chunk) as usize];
        &chunk[record.offset as usize..][..usize::from(record.bytes)]
    }

    /// Stores an entry of at most `bytes_max` bytes, which `encode` writes.
    pub(super) fn push(
        &mut self,
        mut record: Record,
        bytes_max: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> EntryId {
        let need = bytes_max.min(FRAME_BYTES_MAX);
        let chunk_bytes = self.grain.chunk_bytes;
        if self.chunks.back().is_none_or(|chunk| chunk_bytes - chunk.len() < need) {
            let spare = self.spare_chunks.pop();
            self.chunks.push_back(spare.unwrap_or_else(|| Vec::with_capacity(chunk_bytes)));
        }
        record.chunk = self.first_chunk + self.chunks.len() as u64 - 1;
        let chunk = self.chunks.back_mut().expect("just made sure");
        let offset = chunk.len();
        encode(chunk);
        record.offset = offset as u32;
        record.bytes = u16::try_from(chunk.len() - offset).expect("an entry that fits a frame");
        while self.ids.end as Id >= GONE {
            self.push_record(Record { standing: Standing::Void, bytes: 0, ..record });
        }
        self.push_record(record)
    }

    fn push_record(&mut self, record: Record) -> EntryId {
        let records = self.grain.segment_records();
        if self.segments.back().is_none_or(|segment| segment.len() == records) {
            let spare = self.spare_segments.pop();
            self.segments.push_back(spare.unwrap_or_else(|| Vec::with_capacity(records)));
        }
        self.segments.back_mut().expect("just made sure").push(record);
        self.ids.end += 1;
        EntryId(self.ids.end - 1)
    }

    /// The ids of the oldest chunk, unless it is the one that is being filled.
    pub(super) fn oldest_chunk(&self) -> Option<Range<u64>> {
        if self.chunks.len() < 2 {
            return None;
        }
        let (mut low, mut high) = (self.ids.start, self.ids.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.record(EntryId(middle)).chunk == self.first_chunk {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(self.ids.start..low)
    }

    /// Forgets the oldest entry.
    pub(super) fn pop_front(&mut self) {
        self.ids.start += 1;
    }

    /// Drops the oldest chunk, once all of its entries were forgotten.
    pub(super) fn drop_oldest_chunk(&mut self) {
        if let Some(mut chunk) = self.chunks.pop_front() {
            self.first_chunk += 1;
            if self.spare_chunks.is_empty() {
                chunk.clear();
                self.spare_chunks.push(chunk);
            }
        }
        while self.first_segment < self.ids.start >> self.grain.segment_bits {
            let segment = self.segments.pop_front();
            self.first_segment += 1;
            if self.spare_segments.is_empty()
                && let Some(mut segment) = segment
            {
                segment.clear();
                self.spare_segments.push(segment);
            }
        }
    }

    /// Room for `count` more entries of `bytes` bytes each without allocating.
    pub(super) fn reserve(&mut self, count: usize, bytes: usize) {
        let (chunk_bytes, records) = (self.grain.chunk_bytes, self.grain.segment_records());
        let chunks = count / (chunk_bytes / bytes - 1) + 2;
        let segments = count / records + 2;
        self.chunks.reserve(chunks);
        self.segments.reserve(segments);
        while self.spare_chunks.len() < chunks {
            self.spare_chunks.push(Vec::with_capacity(chunk_bytes));
        }
        while self.spare_segments.len() < segments {
            self.spare_segments.push(Vec::with_capacity(records));
        }
    }

    /// Bytes that hold entries; what [`reserve`](Self::reserve) set aside is not counted.
    pub(super) fn memory_bytes(&self) -> u64 {
        let segment = self.grain.segment_records() * size_of::<Record>();
        (self.chunks.len() * self.grain.chunk_bytes + self.segments.len() * segment) as u64
    }

    fn place(&self, id: u64) -> (usize, usize) {
        let segment = (id >> self.grain.segment_bits) - self.first_segment;
        (segment as usize, id as usize & (self.grain.segment_records() - 1))
    }
}
