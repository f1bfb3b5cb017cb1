//! The hashes that are kept, bounded in bytes.

use lru::LruCache;

use super::{Identity, Manifest};
use crate::sync::Arc;

/// Hashes by version of file. Those that were not asked for longest go first; the latest stay, however
/// many they are, or they would be made again and again.
#[derive(Debug)]
pub(super) struct Cache {
    kept: LruCache<Identity, Arc<Manifest>>,
    bytes: u64,
    bytes_max: u64,
}

impl Cache {
    pub(super) fn new(bytes_max: u64) -> Cache {
        Cache { kept: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    pub(super) fn find(&mut self, identity: &Identity) -> Option<Arc<Manifest>> {
        self.kept.get(identity).cloned()
    }

    pub(super) fn keep(&mut self, identity: Identity, manifest: Arc<Manifest>) {
        self.bytes += bytes(&manifest);
        if let Some(old) = self.kept.put(identity, manifest) {
            self.bytes -= bytes(&old);
        }
        while self.bytes > self.bytes_max
            && self.kept.len() > 1
            && let Some((_, oldest)) = self.kept.pop_lru()
        {
            self.bytes -= bytes(&oldest);
        }
    }

    #[cfg(all(test, not(feature = "loom")))]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What an entry takes: its hashes, and its places in list and table.
fn bytes(manifest: &Manifest) -> u64 {
    manifest.hashes().len() as u64 * 32 + ENTRY_BYTES
}

const ENTRY_BYTES: u64 = 320;
