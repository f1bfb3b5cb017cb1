//! Chat: the server's machine and the client's.

pub mod client;
pub mod server;
