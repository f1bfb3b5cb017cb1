//! An entry of the archive in its two forms.
//!
//! On a connection ([`Entry`]) origins are numbers that the sender defined before
//! ([`OriginDef`]), which keeps an entry short. The portable form ([`Portable`]) names origins in
//! full: it is what is hashed, tagged and handed back.

use alloc::vec::Vec;

use super::{Field, Reader, Seq, WireError, wire};
use crate::ids::{AuthorId, Clock, Origin, OriginRef, SessionId, Tag};

/// Where a message belongs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope<'a> {
    /// A room, by its normalised name with the `#`.
    Room(&'a str),
    /// A talk between two sessions. `low` < `high`, or equal for a talk to oneself.
    Talk {
        /// The lesser id.
        low: SessionId,
        /// The greater id.
        high: SessionId,
        /// How the one who is not the author was called then.
        other: &'a str,
    },
}

impl<'a> Scope<'a> {
    /// The talk between `a` and `b`, in whatever order they are given.
    #[must_use]
    pub fn talk(a: SessionId, b: SessionId, other: &'a str) -> Scope<'a> {
        Scope::Talk { low: a.min(b), high: a.max(b), other }
    }
}

impl<'a> Field<'a> for Scope<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Scope::Room(name) => {
                out.push(0);
                name.put(out);
            }
            Scope::Talk { low, high, other } => {
                out.push(1);
                low.put(out);
                high.put(out);
                other.put(out);
            }
        }
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, WireError> {
        match u8::take(from)? {
            0 => Ok(Scope::Room(<&str>::take(from)?)),
            1 => {
                let (low, high) = (SessionId::take(from)?, SessionId::take(from)?);
                if low > high {
                    return Err(WireError::BadValue);
                }
                Ok(Scope::Talk { low, high, other: <&str>::take(from)? })
            }
            _ => Err(WireError::BadValue),
        }
    }
}

/// The most pairs in an `after`: the portable form of an entry fits a frame with any allowed body.
/// What every member holds ([`super::chat::Stable`]) need not be among them.
pub const AFTER_PAIRS_MAX: usize = 256;

/// Bits of [`Entry::flags`].
pub mod flags {
    /// The index is final: nothing will be inserted before this entry any more.
    pub const FINAL: u8 = 1;
    /// Sent to make good what the receiver missed, not as it happened.
    pub const REPLAY: u8 = 2;
    /// Another copy of a row that was shown before: moves the cursor, is not shown or counted.
    pub const COPY: u8 = 4;
}

wire! {
    /// Says which origin a number stands for on this connection, before it is first used.
    [0x32] OriginDef {
        /// The number.
        reference: OriginRef,
        /// What it stands for.
        origin: Origin,
    }

    /// A message, as it travels on a connection.
    [0x33] Entry<'a> {
        /// Which origin accepted it.
        origin: OriginRef,
        /// Its number within the origin, from 1.
        number: u64,
        /// When, and its place in the canonical order.
        clock: Clock,
        /// Who wrote it.
        author: AuthorId,
        /// The author's own count, from 1.
        author_number: u64,
        /// The author's name then.
        name: &'a str,
        /// The room or talk.
        scope: Scope<'a>,
        /// What the author had seen since its previous message, beyond what follows from this
        /// entry's own origin: per origin the highest number.
        after: Seq<'a, (OriginRef, u64)>[..=AFTER_PAIRS_MAX],
        /// What was said.
        body: &'a str,
        /// Proves that a server of the cluster accepted it.
        tag: Tag,
        /// Its place in the canonical order of its scope on the sending server, from 1.
        index: u64,
        /// See [`flags`].
        flags: u8,
    }

    /// A message on its own, valid anywhere.
    Portable<'a> {
        /// Which origin accepted it.
        origin: Origin,
        /// Its number within the origin, from 1.
        number: u64,
        /// When, and its place in the canonical order.
        clock: Clock,
        /// Who wrote it.
        author: AuthorId,
        /// The author's own count, from 1.
        author_number: u64,
        /// The author's name then.
        name: &'a str,
        /// The room or talk.
        scope: Scope<'a>,
        /// As in [`Entry`], with origins in full.
        after: Seq<'a, (Origin, u64)>[..=AFTER_PAIRS_MAX],
        /// What was said.
        body: &'a str,
    }
}
