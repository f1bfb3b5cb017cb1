//! Files, block by block: the server that offers them.

pub mod server;
