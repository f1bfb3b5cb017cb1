//! Drivers: blocking threads over sockets.

pub mod client;
pub mod observe;
pub mod supervise;
