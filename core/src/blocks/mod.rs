//! A file in blocks: their hashes, how they fold into the hash of the whole, and how one file is
//! fetched from many sources.

pub mod agreement;
mod manifest;
pub mod scheduler;
mod set;

pub use manifest::{
    BLOCK_BYTES_DEFAULT, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BLOCKS_MAX, BlockHash, BlockHasher,
    Layout, LayoutError, Manifest, ManifestError, Root, root_of,
};
pub use set::BlockSet;
