//! The hashes of the protocol: BLAKE3 with a context of its own for each use where something is
//! proved, XXH3 where servers only compare.

use xxhash_rust::xxh3::xxh3_128;

use crate::ids::{ServerId, SessionId, SessionSecret, Tag};

/// The key with which a cluster tags its entries. `Debug` never prints it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClusterKey(pub [u8; 32]);

impl core::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

/// The tag that proves that `entry`, in its portable form, was accepted by a server of the cluster.
#[must_use]
pub fn entry_tag(key: &ClusterKey, entry: &[u8]) -> Tag {
    Tag(first(&blake3::keyed_hash(&key.0, entry)))
}

/// The rolling hash of an origin's log after `entry`, given the one before it.
///
/// It is there to show that two servers diverge, which no outsider can bring about: entries are
/// proved by their tags. So it need not withstand an adversary, and every server computes it for
/// every entry: XXH3 (128 bits, canonical form) takes a tenth of the time of BLAKE3.
#[must_use]
pub fn rolling(before: &Tag, entry: &[u8]) -> Tag {
    let mut chained = [0; 32];
    chained[..16].copy_from_slice(&before.0);
    chained[16..].copy_from_slice(&xxh3_128(entry).to_be_bytes());
    Tag(xxh3_128(&chained).to_be_bytes())
}

/// A digest over `parts`, in their order.
#[must_use]
pub fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Tag {
    let mut hasher = blake3::Hasher::new_derive_key("cordee 2026 archive digest");
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    Tag(first(&hasher.finalize()))
}

/// The public id of a session: the same on every server of a cluster of that name.
#[must_use]
pub fn session_id(cluster: &str, secret: &SessionSecret) -> SessionId {
    let mut hasher = blake3::Hasher::new_derive_key("cordee 2026 session id");
    hasher.update(&(cluster.len() as u64).to_be_bytes());
    hasher.update(cluster.as_bytes());
    hasher.update(&secret.0);
    SessionId(u64::from_be_bytes(first(&hasher.finalize())))
}

/// The id of the server that advertises `address` in `cluster`: the same over restarts.
#[must_use]
pub fn server_id(cluster: &str, address: &str) -> ServerId {
    let mut hasher = blake3::Hasher::new_derive_key("cordee 2026 server id");
    hasher.update(&(cluster.len() as u64).to_be_bytes());
    hasher.update(cluster.as_bytes());
    hasher.update(address.as_bytes());
    ServerId(u64::from_be_bytes(first(&hasher.finalize())))
}

fn first<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&hash.as_bytes()[..N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_the_cluster_and_on_the_secret() {
        let secret = SessionSecret([7; 16]);
        assert_eq!(session_id("a", &secret), session_id("a", &secret));
        assert_ne!(session_id("a", &secret), session_id("b", &secret));
        assert_ne!(session_id("a", &secret), session_id("a", &SessionSecret([8; 16])));
        assert_ne!(server_id("a", "127.0.0.1:5000"), server_id("a", "127.0.0.1:5001"));
    }

    #[test]
    fn a_tag_needs_the_key_and_every_byte() {
        let tag = entry_tag(&ClusterKey([1; 32]), b"entry");
        assert_ne!(tag, entry_tag(&ClusterKey([2; 32]), b"entry"));
        assert_ne!(tag, entry_tag(&ClusterKey([1; 32]), b"entrz"));
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(alloc::format!("{:?}", SessionSecret([9; 16])), "SessionSecret(…)");
        assert_eq!(alloc::format!("{:?}", ClusterKey([9; 32])), "ClusterKey(…)");
    }
}
