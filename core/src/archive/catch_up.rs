//! What one connection still lacks.

use alloc::vec::Vec;

use super::{Archive, EntryId};
use crate::ids::ScopeRef;

/// What one connection still lacks, in canonical order merged over its scopes.
#[derive(Debug)]
pub struct CatchUp {}

#[allow(unused_variables)]
impl CatchUp {
    /// The rows of `scopes` with numbers in (`seen`, `until`], both by origin reference, 0 beyond
    /// their ends. `until` must be a vector of what this archive had shown at some moment.
    #[must_use]
    pub fn new(scopes: &[ScopeRef], seen: Vec<u64>, until: Vec<u64>) -> Self {
        CatchUp {}
    }

    /// The next row; `None` when nothing is left.
    pub fn next(&mut self, archive: &Archive) -> Option<EntryId> {
        todo!()
    }
}
