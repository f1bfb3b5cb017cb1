//! Drivers: blocking threads over sockets. They move bytes and time, and decide nothing.
//!
//! A driver owns a machine of `cordee-core`, tells it what happened, and does what it asks for.
//! Nothing here knows a protocol beyond the framing; nothing there knows a socket.

mod address;
mod clock;
mod log;
pub mod server;
mod socket;
mod sync;
mod threads;

pub use log::{Level, Log};
pub use threads::ThreadFailure;
