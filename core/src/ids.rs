//! Identities. Each is a type of its own, so that none is taken for another.

use core::fmt;

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }
    };
}

hex_id! {
    /// A member of the cluster: the same over restarts, a hash of cluster and advertised address.
    ServerId
}
hex_id! {
    /// The public id of a session: a keyed hash of its secret.
    SessionId
}

/// One start of one server. It numbers its own entries 1, 2, 3, …
///
/// Every start is a new origin, even with its disk intact: a crash may have lost a tail that
/// peers already hold, and reusing its numbers would fork the archive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Origin {
    /// Who started.
    pub server: ServerId,
    /// One more than the highest that was known of this server.
    pub incarnation: u32,
    /// Drawn at the start.
    pub nonce: u64,
}

/// Who wrote: a session, in one process of its client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AuthorId {
    /// The session's public id.
    pub session: SessionId,
    /// Drawn at each start of the client.
    pub process: u64,
}

/// A hybrid logical clock: microseconds since 1970-01-01 UTC, or one more than the last, whichever
/// is greater. Source: Kulkarni et al., "Logical Physical Clocks" (2014), in one number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Clock(pub u64);

/// What a session draws, keeps and shows to servers only. `Debug` never prints it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionSecret(pub [u8; 16]);

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(…)")
    }
}

/// A 128-bit value that proves or identifies: an entry's tag, a cluster's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tag(pub [u8; 16]);

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({:032x})", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A connection, as issued by the core. Generational: an id of a closed connection never matches
/// the one that took its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId {
    /// Place in the table.
    pub index: u32,
    /// How often that place was taken before.
    pub generation: u32,
}

/// An origin as one server numbers them, from 0 (itself) up. Means nothing on another server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct OriginRef(pub u32);

/// A scope as one server numbers them. Means nothing on another server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ScopeRef(pub u32);

/// A place in a server's log: how many items went before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u64);
