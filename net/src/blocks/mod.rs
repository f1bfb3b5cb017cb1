//! Files in blocks: who serves them, who fetches them.

pub mod fetch;
