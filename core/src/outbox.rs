//! Where a machine puts its effects: a list and one byte arena, both reused.

use alloc::vec::Vec;
use core::ops::Range;

/// A range of bytes in the arena of the [`Outbox`] that the effect came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Length in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the span holds no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The span as indices into the arena.
    #[must_use]
    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Effects in the order in which they were decided, and the bytes that they refer to.
///
/// An effect never owns bytes. Clearing keeps the capacity, so a steady path allocates nothing.
#[derive(Debug)]
pub struct Outbox<E> {
    effects: Vec<E>,
    arena: Vec<u8>,
}

impl<E> Default for Outbox<E> {
    fn default() -> Self {
        Outbox { effects: Vec::new(), arena: Vec::new() }
    }
}

impl<E> Outbox<E> {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an effect.
    pub fn push(&mut self, effect: E) {
        self.effects.push(effect);
    }

    /// Lets `write` append to the arena and returns the span of what it appended.
    pub fn encode(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.arena.len();
        write(&mut self.arena);
        debug_assert!(self.arena.len() >= start, "an encoder only appends");
        let end = self.arena.len();
        assert!(end <= u32::MAX as usize, "the caller drains the outbox after every call");
        Span { start: start as u32, end: end as u32 }
    }

    /// The effects, oldest first.
    #[must_use]
    pub fn effects(&self) -> &[E] {
        &self.effects
    }

    /// The bytes of a span of this outbox.
    #[must_use]
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.arena[span.range()]
    }

    /// All bytes that the effects refer to.
    #[must_use]
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// How many bytes the arena holds now.
    #[must_use]
    pub fn arena_len(&self) -> usize {
        self.arena.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// Forgets effects and bytes, keeps the capacity.
    pub fn clear(&mut self) {
        self.effects.clear();
        self.arena.clear();
    }

    /// Hands every effect to `take` together with the arena, oldest first, then clears.
    pub fn drain(&mut self, mut take: impl FnMut(E, &[u8])) {
        for effect in self.effects.drain(..) {
            take(effect, &self.arena);
        }
        self.arena.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_the_bytes_that_were_encoded_and_what_is_drained_is_gone() {
        let mut out = Outbox::new();
        assert!(out.is_empty());
        let spans = [&b"abc"[..], b"", b"de"]
            .map(|bytes| out.encode(|arena| arena.extend_from_slice(bytes)));
        assert!(out.is_empty(), "bytes are no effect");
        spans.into_iter().for_each(|span| out.push(span));
        assert!(!out.is_empty());
        assert_eq!(spans.map(Span::len), [3, 0, 2]);
        assert_eq!(spans.map(Span::is_empty), [false, true, false]);
        assert_eq!(spans.map(Span::range), [0..3, 3..3, 3..5]);
        assert_eq!((out.arena(), out.arena_len()), (&b"abcde"[..], 5));
        assert_eq!((out.effects(), out.bytes(spans[2])), (&spans[..], &b"de"[..]));
        let mut drained = Vec::new();
        out.drain(|span, arena| drained.push(arena[span.range()].to_vec()));
        assert_eq!(drained, [&b"abc"[..], b"", b"de"]);
        assert!(out.is_empty() && out.arena().is_empty());
        let again = out.encode(|arena| arena.push(b'f'));
        out.push(again);
        assert_eq!(again.range(), 0..1);
        out.clear();
        assert!(out.is_empty() && out.arena().is_empty());
    }
}
