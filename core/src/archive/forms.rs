//! The two forms of an entry: portable, which is hashed, and stored, which is sent.
//!
//! They differ in how origins are named, and in the tag, which only the stored form has. So the
//! portable form is written once and the stored one made of its pieces, and the other way round.

use alloc::vec::Vec;
use core::ops::Range;

use super::NewEntry;
use super::origins::Origins;
use crate::framing::{FRAME_BYTES_MAX, HEADER_BYTES};
use crate::ids::{AuthorId, Clock, OriginRef, Tag};
use crate::wire::entry::{Entry, Scope};
use crate::wire::{Field, Reader, Seq, WireError, put_varint};

/// Bytes of an origin in full.
const ORIGIN_BYTES: usize = 20;
/// Bytes of a clock.
const CLOCK_BYTES: usize = 8;
/// Bytes of an author.
const AUTHOR_BYTES: usize = 16;
/// Bytes of the longest varint.
const VARINT_BYTES_MAX: usize = 10;
/// Bytes of a tag.
const TAG_BYTES: usize = 16;

/// The longest portable form: it fits a frame beside its tag, and so does the stored form beside
/// the longest index and the flags.
const PORTABLE_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES - TAG_BYTES - VARINT_BYTES_MAX - 1;

/// Whether both forms of an entry fit a frame.
pub(super) fn fits(name: &str, scope: &Scope<'_>, after: usize, body: &str) -> bool {
    // The fixed fields and the numbers at their longest.
    let fixed = ORIGIN_BYTES + 2 * VARINT_BYTES_MAX + CLOCK_BYTES + AUTHOR_BYTES;
    let scope = match scope {
        Scope::Room(name) => name.len(),
        Scope::Talk { other, .. } => 16 + other.len(),
    };
    let texts = name.len() + 1 + scope + body.len() + 4 * VARINT_BYTES_MAX;
    let after = after.saturating_mul(ORIGIN_BYTES + VARINT_BYTES_MAX);
    fixed.saturating_add(texts).saturating_add(after) <= PORTABLE_BYTES_MAX
}

/// An entry in portable form, with the place of what it comes after.
#[derive(Debug, Default)]
pub(super) struct PortableForm {
    pub(super) bytes: Vec<u8>,
    after: Range<usize>,
}

impl PortableForm {
    pub(super) fn write(&mut self, entry: &NewEntry<'_>, origins: &Origins) {
        let out = &mut self.bytes;
        out.clear();
        origins.value(entry.origin).put(out);
        entry.number.put(out);
        entry.clock.put(out);
        entry.author.put(out);
        entry.author_number.put(out);
        entry.name.put(out);
        entry.scope.put(out);
        let start = out.len();
        put_varint(out, entry.after.len() as u64);
        for &(origin, number) in entry.after {
            origins.value(origin).put(out);
            number.put(out);
        }
        self.after = start..out.len();
        entry.body.put(out);
    }

    /// Appends the stored form.
    pub(super) fn put_stored(&self, entry: &NewEntry<'_>, out: &mut Vec<u8>) {
        entry.origin.put(out);
        out.extend_from_slice(&self.bytes[ORIGIN_BYTES..self.after.start]);
        Seq::new(entry.after).put(out);
        out.extend_from_slice(&self.bytes[self.after.end..]);
        entry.tag.put(out);
    }

    /// What the stored form takes at most: a reference is shorter than an origin.
    pub(super) fn stored_bytes_max(&self) -> usize {
        self.bytes.len() + TAG_BYTES
    }
}

/// Who wrote a stored entry, and which of the author's messages it is.
pub(super) fn author_of(stored: &[u8]) -> (AuthorId, u64) {
    let from = &mut Reader::new(stored);
    let mut read = || {
        skip_to_author(from)?;
        Ok::<_, WireError>((AuthorId::take(from)?, u64::take(from)?))
    };
    read().expect(STORED)
}

/// Which origins a stored entry names as what it comes after; none when there are no bytes.
pub(super) fn after_of(stored: &[u8]) -> impl Iterator<Item = OriginRef> + '_ {
    let from = &mut Reader::new(stored);
    let mut read = || {
        skip_to_author(from)?;
        from.bytes(AUTHOR_BYTES)?;
        u64::take(from)?;
        <&[u8]>::take(from)?;
        Scope::take(from)?;
        Seq::<'_, (OriginRef, u64)>::take(from)
    };
    let after = if stored.is_empty() { Seq::default() } else { read().expect(STORED) };
    after.into_iter().map(|(origin, _)| origin)
}

/// The stored form's last field.
pub(super) fn tag_of(stored: &[u8]) -> Tag {
    let mut tag = Tag::default();
    tag.0.copy_from_slice(&stored[stored.len() - TAG_BYTES..]);
    tag
}

/// Reads a stored entry; index and flags are the caller's.
pub(super) fn decode(stored: &[u8], index: u64, flags: u8) -> Entry<'_> {
    let from = &mut Reader::new(stored);
    let mut read = || {
        Ok::<_, WireError>(Entry {
            origin: OriginRef::take(from)?,
            number: u64::take(from)?,
            clock: Clock::take(from)?,
            author: AuthorId::take(from)?,
            author_number: u64::take(from)?,
            name: <&str>::take(from)?,
            scope: Scope::take(from)?,
            after: Seq::take(from)?,
            body: <&str>::take(from)?,
            tag: Tag::take(from)?,
            index,
            flags,
        })
    };
    read().expect(STORED)
}

/// Appends the portable form of a stored entry.
pub(super) fn put_portable(stored: &[u8], origins: &Origins, out: &mut Vec<u8>) {
    let from = &mut Reader::new(stored);
    let mut write = || {
        origins.value(OriginRef::take(from)?).put(out);
        let head = from.rest();
        u64::take(from)?;
        from.bytes(CLOCK_BYTES + AUTHOR_BYTES)?;
        u64::take(from)?;
        <&[u8]>::take(from)?;
        Scope::take(from)?;
        out.extend_from_slice(&head[..head.len() - from.rest().len()]);
        let count = from.varint()?;
        put_varint(out, count);
        for _ in 0..count {
            origins.value(OriginRef::take(from)?).put(out);
            u64::take(from)?.put(out);
        }
        out.extend_from_slice(&from.rest()[..from.rest().len() - TAG_BYTES]);
        Ok::<_, WireError>(())
    };
    write().expect(STORED);
}

fn skip_to_author(from: &mut Reader<'_>) -> Result<(), WireError> {
    OriginRef::take(from)?;
    u64::take(from)?;
    from.bytes(CLOCK_BYTES)?;
    Ok(())
}

const STORED: &str = "what was stored can be read";
