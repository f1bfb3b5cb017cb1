//! Fields: how each type of the protocol is written and read.
//!
//! Reading borrows from the frame and never allocates, panics or wraps. Writing appends.

use alloc::vec::Vec;
use core::fmt;

use byteorder::{BigEndian, ByteOrder};

use super::WireError;
use crate::blocks::{BlockHash, Root};
use crate::hash::ClusterKey;
use crate::ids::{AuthorId, Clock, Origin, OriginRef, ServerId, SessionId, SessionSecret, Tag};

/// Reads fields from a payload, front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the front of `payload`.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Self {
        Reader { rest: payload }
    }

    /// Takes `count` bytes.
    ///
    /// # Errors
    ///
    /// [`WireError::Short`] when fewer are left.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes a number of 1 to 10 bytes: seven bits a byte, lowest first (LEB128).
    ///
    /// # Errors
    ///
    /// [`WireError::Short`]; [`WireError::BadNumber`] when it does not fit 64 bits or has a form
    /// longer than it needs.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        // Most numbers are small.
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for (at, &byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if (at == 9 && byte > 1) || (byte == 0 && at > 0) {
                return Err(WireError::BadNumber);
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { WireError::Short } else { WireError::BadNumber })
    }

    /// What was not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// Appends a number as [`Reader::varint`] reads it.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A type that the protocol knows how to write and read.
pub trait Field<'a>: Sized {
    /// Appends the field.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes the field.
    ///
    /// # Errors
    ///
    /// A [`WireError`] that says what is wrong with the bytes.
    fn take(from: &mut Reader<'a>) -> Result<Self, WireError>;
}

impl Field<'_> for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(from.bytes(1)?[0])
    }
}

impl Field<'_> for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        match from.bytes(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::BadNumber),
        }
    }
}

/// Two bytes, big endian.
impl Field<'_> for u16 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(BigEndian::read_u16(from.bytes(2)?))
    }
}

/// A varint of at most 32 bits.
impl Field<'_> for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(*self));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        u32::try_from(from.varint()?).map_err(|_| WireError::BadNumber)
    }
}

/// A varint.
impl Field<'_> for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, *self);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        from.varint()
    }
}

/// Eight bytes, big endian: for values that use them all, and for those that are patched in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fixed64(pub u64);

macro_rules! fixed64 {
    ($($name:ident),*) => {$(
        impl Field<'_> for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0.to_be_bytes());
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok($name(BigEndian::read_u64(from.bytes(8)?)))
            }
        }
    )*};
}
fixed64!(Fixed64, ServerId, SessionId, Clock);

macro_rules! array {
    ($($name:ident: $n:literal),*) => {$(
        impl Field<'_> for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0);
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
                let mut bytes = [0; $n];
                bytes.copy_from_slice(from.bytes($n)?);
                Ok($name(bytes))
            }
        }
    )*};
}
array!(Tag: 16, SessionSecret: 16, ClusterKey: 32, Root: 32, BlockHash: 32);

impl Field<'_> for OriginRef {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(OriginRef(u32::take(from)?))
    }
}

/// Server, incarnation, nonce: 20 bytes.
impl Field<'_> for Origin {
    fn put(&self, out: &mut Vec<u8>) {
        self.server.put(out);
        out.extend_from_slice(&self.incarnation.to_be_bytes());
        Fixed64(self.nonce).put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Origin {
            server: ServerId::take(from)?,
            incarnation: BigEndian::read_u32(from.bytes(4)?),
            nonce: Fixed64::take(from)?.0,
        })
    }
}

/// Session, process: 16 bytes.
impl Field<'_> for AuthorId {
    fn put(&self, out: &mut Vec<u8>) {
        self.session.put(out);
        Fixed64(self.process).put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(AuthorId { session: SessionId::take(from)?, process: Fixed64::take(from)?.0 })
    }
}

/// A length (varint), then that many bytes of UTF-8.
impl<'a> Field<'a> for &'a str {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.len() as u64);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, WireError> {
        let bytes = <&[u8]>::take(from)?;
        core::str::from_utf8(bytes).map_err(|_| WireError::BadText)
    }
}

/// A length (varint), then that many bytes.
impl<'a> Field<'a> for &'a [u8] {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.len() as u64);
        out.extend_from_slice(self);
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, WireError> {
        let length = usize::try_from(from.varint()?).map_err(|_| WireError::Short)?;
        from.bytes(length)
    }
}

/// Two fields, one after the other.
impl<'a, A: Field<'a>, B: Field<'a>> Field<'a> for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

/// Three fields, one after the other.
impl<'a, A: Field<'a>, B: Field<'a>, C: Field<'a>> Field<'a> for (A, B, C) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
        self.2.put(out);
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok((A::take(from)?, B::take(from)?, C::take(from)?))
    }
}

/// A list: a count (varint), then the items. Written from a slice, read in place: the items of a
/// received list were all validated when the list was taken, and are decoded as they are asked for.
pub struct Seq<'a, T> {
    items: Items<'a, T>,
}

enum Items<'a, T> {
    Slice(&'a [T]),
    Wire { count: usize, bytes: &'a [u8] },
}

// By hand, because a derive would ask the same of `T`.
impl<T> Clone for Items<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Items<'_, T> {}

impl<T> Clone for Seq<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Seq<'_, T> {}

impl<'a, T> Seq<'a, T> {
    /// A list to be written.
    #[must_use]
    pub const fn new(items: &'a [T]) -> Self {
        Seq { items: Items::Slice(items) }
    }

    /// How many items.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.items {
            Items::Slice(items) => items.len(),
            Items::Wire { count, .. } => count,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for Seq<'_, T> {
    fn default() -> Self {
        Seq::new(&[])
    }
}

impl<'a, T: Field<'a> + Clone> Seq<'a, T> {
    /// The items in their order.
    pub fn iter(&self) -> SeqIter<'a, T> {
        SeqIter { items: self.items, at: 0 }
    }
}

/// Iterator over the items of a [`Seq`].
pub struct SeqIter<'a, T> {
    items: Items<'a, T>,
    at: usize,
}

impl<T> fmt::Debug for SeqIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeqIter at {}", self.at)
    }
}

impl<'a, T: Field<'a> + Clone> Iterator for SeqIter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.items {
            Items::Slice(items) => {
                let item = items.get(self.at)?.clone();
                self.at += 1;
                Some(item)
            }
            Items::Wire { count, bytes } => {
                if self.at == *count {
                    return None;
                }
                let mut reader = Reader::new(bytes);
                let item = T::take(&mut reader).ok()?;
                *bytes = reader.rest();
                self.at += 1;
                Some(item)
            }
        }
    }
}

impl<'a, T: Field<'a> + Clone> IntoIterator for Seq<'a, T> {
    type Item = T;
    type IntoIter = SeqIter<'a, T>;
    fn into_iter(self) -> SeqIter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Field<'a> + Clone + PartialEq> PartialEq for Seq<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().zip(other.iter()).all(|(a, b)| a == b)
    }
}

impl<'a, T: Field<'a> + Clone + fmt::Debug> fmt::Debug for Seq<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Field<'a> + Clone> Field<'a> for Seq<'a, T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.len() as u64);
        match self.items {
            Items::Slice(items) => items.iter().for_each(|item| item.put(out)),
            Items::Wire { bytes, .. } => out.extend_from_slice(bytes),
        }
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = usize::try_from(from.varint()?).map_err(|_| WireError::Short)?;
        // Every item takes a byte at least: a count that cannot be is refused before any work.
        if count > from.rest().len() {
            return Err(WireError::Short);
        }
        let all = from.rest();
        for _ in 0..count {
            T::take(from)?;
        }
        let bytes = &all[..all.len() - from.rest().len()];
        Ok(Seq { items: Items::Wire { count, bytes } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_no_more_bytes_than_they_need_and_no_other_form_is_read() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.rest().is_empty());
        }
        assert_eq!(Reader::new(&[0x80, 0]).varint(), Err(WireError::BadNumber));
        assert_eq!(Reader::new(&[0xff; 10]).varint(), Err(WireError::BadNumber));
        assert_eq!(Reader::new(&[0xff; 3]).varint(), Err(WireError::Short));
        let mut beyond = [0xff; 10];
        beyond[9] = 2;
        assert_eq!(Reader::new(&beyond).varint(), Err(WireError::BadNumber));
    }

    #[test]
    fn a_list_that_claims_more_than_came_is_refused_at_once() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, 1 << 60);
        bytes.push(1);
        assert_eq!(Seq::<u64>::take(&mut Reader::new(&bytes)), Err(WireError::Short));
    }

    #[test]
    fn lists_of_lists_are_read_in_place() {
        let inner = [(1_u64, 2_u64), (300, 4)];
        let outer = [("a", Seq::new(&inner)), ("b", Seq::default())];
        let mut bytes = Vec::new();
        Seq::new(&outer).put(&mut bytes);
        let read = Seq::<(&str, Seq<'_, (u64, u64)>)>::take(&mut Reader::new(&bytes));
        let read = read.expect("valid");
        assert_eq!(read, Seq::new(&outer));
        let mut again = Vec::new();
        read.put(&mut again);
        assert_eq!(again, bytes);
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        assert_eq!(<&str>::take(&mut Reader::new(&[2, 0xc3, 0x28])), Err(WireError::BadText));
    }
}
