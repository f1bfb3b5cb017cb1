//! Files in blocks: the server that offers them, and who fetches them.

pub mod fetch;
pub mod server;
