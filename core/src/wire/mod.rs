//! Every message of the protocol. `docs/PROTOCOL.md` states the bytes; golden vectors pin them.
//!
//! A message is a plain struct whose fields are written one after the other, in the order in which
//! they stand here. Bytes after the last field that we know are ignored: a newer minor version may
//! append fields. A kind that we do not know is skipped.

use alloc::vec::Vec;

use crate::framing::put_frame;

pub mod block;
pub mod chat;
mod cursor;
pub mod entry;
pub mod hello;
pub mod peer;
mod reason;
#[cfg(test)]
mod tests;

pub use cursor::{Field, Fixed64, Reader, Seq, SeqIter, put_varint};
pub use reason::Reason;

/// Major version of the protocol: two that differ do not talk.
pub const VERSION_MAJOR: u16 = 1;
/// Minor version: a newer one may append fields and add kinds.
pub const VERSION_MINOR: u16 = 0;

/// The most pairs in a vector. A client's whole vector, what it is asked to hand back, and what it
/// is cut back to fit one frame each.
pub const VECTOR_PAIRS_MAX: usize = 1_536;
/// The longest address, `host:port`: the longest name of a host and its port.
pub const ADDRESS_BYTES_MAX: usize = 253 + 6;

/// What is wrong with bytes that came from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// A frame of length 0: it has not even a kind.
    #[error("a frame without a kind")]
    EmptyFrame,
    /// A frame longer than what is allowed now.
    #[error("a frame longer than allowed")]
    FrameTooLong,
    /// A field reaches beyond the end of its frame.
    #[error("a field reaches beyond its frame")]
    Short,
    /// A number out of its range, or in a longer form than it needs.
    #[error("a number that is out of range or badly formed")]
    BadNumber,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    BadText,
    /// A value that the field does not allow.
    #[error("a value that its field does not allow")]
    BadValue,
    /// The first bytes are not those of this protocol.
    #[error("this is not the Cordee protocol")]
    NotCordee,
}

/// A message that travels in a frame of its own.
pub trait Message<'a>: Field<'a> {
    /// The frame's kind.
    const KIND: u8;

    /// Appends the whole frame.
    fn put_frame(&self, out: &mut Vec<u8>) {
        put_frame(out, Self::KIND, |out| self.put(out));
    }

    /// Reads the payload of a frame of this kind.
    ///
    /// # Errors
    ///
    /// A [`WireError`] that says what is wrong with the bytes.
    fn parse(payload: &'a [u8]) -> Result<Self, WireError> {
        Self::take(&mut Reader::new(payload))
    }
}

/// Reads a payload of any kind and appends what it means in a payload of its own; `None` when the
/// kind is not known. What is read in its only form comes out as it went in.
pub(crate) fn reencode(
    kind: u8,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Option<Result<(), WireError>> {
    hello::reencode(kind, payload, out)
        .or_else(|| chat::reencode(kind, payload, out))
        .or_else(|| entry::reencode(kind, payload, out))
        .or_else(|| peer::reencode(kind, payload, out))
        .or_else(|| block::reencode(kind, payload, out))
}

fn reencode_as<'a, M: Message<'a>>(payload: &'a [u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    M::parse(payload)?.put(out);
    Ok(())
}

/// Defines structs whose fields are written in order, and, with a kind, messages.
///
/// `field: T[..=MAX]` is a list of at most `MAX` items, or a text of at most `MAX` bytes. Next to
/// the structs there comes `reencode`, which knows every message that was defined with them, and
/// for the tests `DEFINED`.
macro_rules! wire {
    ($($(#[$doc:meta])* $([$kind:literal])? $name:ident $(<$lt:lifetime>)? {
        $($(#[$field_doc:meta])* $field:ident: $ty:ty $([..=$max:expr])?),* $(,)?
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Debug)]
            pub struct $name $(<$lt>)? {
                $($(#[$field_doc])* pub $field: $ty,)*
            }
            impl<'a> $crate::wire::Field<'a> for $name $(<$lt>)? {
                fn put(&self, out: &mut alloc::vec::Vec<u8>) {
                    $(self.$field.put(out);)*
                }
                fn take(
                    from: &mut $crate::wire::Reader<'a>,
                ) -> Result<Self, $crate::wire::WireError> {
                    Ok($name { $($field: {
                        let field = <$ty as $crate::wire::Field>::take(from)?;
                        $(if field.len() > $max {
                            return Err($crate::wire::WireError::BadValue);
                        })?
                        field
                    },)* })
                }
            }
            #[cfg(test)]
            impl $(<$lt>)? $crate::wire::tests::Pieces for $name $(<$lt>)? {
                fn pieces(&self) -> alloc::vec::Vec<$crate::wire::tests::Piece> {
                    alloc::vec![$($crate::wire::tests::piece(stringify!($field), &self.$field),)*]
                }
            }
            $crate::wire::wire_kind!{ [$($kind)?] [$name $(<$lt>)?] }
        )*

        /// Reads a payload of `kind` and appends what it means in a payload of its own; `None`
        /// when no message of that kind is defined here.
        pub(crate) fn reencode(
            kind: u8,
            payload: &[u8],
            out: &mut alloc::vec::Vec<u8>,
        ) -> Option<Result<(), $crate::wire::WireError>> {
            match kind {
                $($($kind => Some($crate::wire::reencode_as::<$name>(payload, out)),)?)*
                _ => None,
            }
        }

        /// Everything that is defined here, as it stands in the source.
        #[cfg(test)]
        pub(crate) const DEFINED: &[$crate::wire::tests::Defined] = &[$(
            $crate::wire::tests::Defined {
                kind: 0 $(+ $kind)?,
                name: stringify!($name),
                fields: &[$((stringify!($field), stringify!($ty), 0 $(+ $max)?),)*],
            },
        )*];
    };
}
pub(crate) use wire;

/// Makes a message of a struct that has a kind.
macro_rules! wire_kind {
    ([] $rest:tt) => {};
    ([$kind:literal] [$($name:tt)*]) => {
        impl<'a> $crate::wire::Message<'a> for $($name)* {
            const KIND: u8 = $kind;
        }
    };
}
pub(crate) use wire_kind;

/// Defines an enum of unit variants that travels as one byte.
macro_rules! wire_enum {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $value:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_doc])* $variant = $value,)* }
        #[cfg(test)]
        impl $name {
            /// Every value with its name.
            pub(crate) const VALUES: &'static [(u8, &'static str)] =
                &[$(($value, stringify!($variant)),)*];
        }
        impl $crate::wire::Field<'_> for $name {
            fn put(&self, out: &mut alloc::vec::Vec<u8>) {
                out.push(*self as u8);
            }
            fn take(
                from: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::WireError> {
                match from.bytes(1)?[0] {
                    $($value => Ok($name::$variant),)*
                    _ => Err($crate::wire::WireError::BadValue),
                }
            }
        }
    )*};
}
pub(crate) use wire_enum;
