//! The hashes of the protocol: BLAKE3 with a context of its own for each use where something is
//! derived or digested, SipHash for the tags of entries, XXH3 where servers only compare.

use siphasher::sip128::SipHasher24;
use xxhash_rust::xxh3::xxh3_128;

use crate::ids::{Origin, ServerId, SessionId, SessionSecret, Tag};

/// The key with which a cluster tags its entries. `Debug` never prints it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClusterKey(pub [u8; 32]);

impl core::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

/// The tag that proves that `entry`, in its portable form, was accepted by a server of the cluster.
///
/// SipHash-2-4 with 128 bits out, a keyed function made for short inputs (Aumasson, Bernstein,
/// 2012), under the first half of the key. Who does not know the key can only guess; each accepted
/// entry is tagged, and it takes a fourth of the time of BLAKE3's keyed hash.
#[must_use]
pub fn entry_tag(key: &ClusterKey, entry: &[u8]) -> Tag {
    let half = key.0.first_chunk().expect("half a key");
    Tag(SipHasher24::new_with_key(half).hash(entry).as_bytes())
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

/// What an origin with entries adds to the sum in the digest: the last number, and the rolling hash
/// there. It is as strong as that.
#[must_use]
pub fn origin_part(origin: &Origin, number: u64, rolling: &Tag) -> u128 {
    let mut part = [0; 44];
    part[..8].copy_from_slice(&origin.server.0.to_be_bytes());
    part[8..12].copy_from_slice(&origin.incarnation.to_be_bytes());
    part[12..20].copy_from_slice(&origin.nonce.to_be_bytes());
    part[20..28].copy_from_slice(&number.to_be_bytes());
    part[28..].copy_from_slice(&rolling.0);
    xxh3_128(&part)
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
    fn tags_are_the_siphash_that_its_authors_published() {
        // The first and the last of the reference implementation's vectors for 128 bits.
        let key = ClusterKey(core::array::from_fn(|at| at as u8));
        let input: [u8; 63] = core::array::from_fn(|at| at as u8);
        let tag = |input| alloc::format!("{}", entry_tag(&key, input));
        assert_eq!(tag(&[]), "a3817f04ba25a8e66df67214c7550293");
        assert_eq!(tag(&input), "5150d1772f50834a503e069a973fbd7c");
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
