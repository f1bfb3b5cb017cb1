//! Bodies of the fuzz targets that drive whole machines. The crate in `fuzz/` feeds them; the
//! tests replay its corpora.
//!
//! Each takes arbitrary bytes and panics when something that must hold does not. What the bytes
//! mean is said where a body begins: one byte for a choice, so that an input can be read and made
//! by hand, and a changed byte is a changed choice.

mod archive;
mod blocks;
mod mesh;
mod net;
mod session;
#[cfg(test)]
mod tests;
mod world;

pub use archive::archive;
pub use blocks::blocks;
pub use mesh::mesh;
pub use session::session;
pub use world::world;
