//! The protocol of Cordee as sans-IO state machines: bytes and time in, effects out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "planted"))]
extern crate std;

#[macro_use]
#[doc(hidden)]
pub mod planted;

pub mod archive;
pub mod backoff;
pub mod blocks;
pub mod chat;
pub mod framing;
#[doc(hidden)]
pub mod fuzz;
pub mod hash;
pub mod ids;
pub mod limits;
pub mod log;
pub mod machine;
pub mod names;
pub mod outbox;
pub mod prng;
pub mod slab;
pub mod time;
pub mod wire;

pub use limits::{LimitError, Limits};
pub use machine::Machine;
pub use outbox::{Outbox, Span};
pub use time::{Time, Wall};
