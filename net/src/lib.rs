//! Drivers: blocking threads over sockets. They move bytes and time, and decide nothing.
//!
//! A driver owns a machine of `cordee-core`, tells it what happened, and does what it asks for.
//! Nothing here knows a protocol beyond the framing; nothing there knows a socket.

mod acceptor;
mod address;
pub mod blocks;
pub mod client;
mod clock;
mod log;
pub mod observe;
pub mod server;
mod socket;
pub mod supervise;
mod sync;
mod tcp_info;
mod threads;

pub use log::{Level, Log};
pub use threads::ThreadFailure;
