//! The ring: the servers in the order of host and port. When one dies, its clients go to the next.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::net::{Ipv4Addr, Ipv6Addr};

use crate::ids::ServerId;
use crate::wire::Seq;
use crate::wire::chat::{MemberState, ServerInfo};

/// `host:port` in its two parts; an IPv6 host comes without its brackets. `None` when it is not
/// of that form.
#[must_use]
pub fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !bare.is_empty()).then_some(())?;
    Some((bare, port.parse().ok()?))
}

/// The order of the ring: numeric where hosts are numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    host: Host,
    port: u16,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Host {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Named(String),
}

impl Key {
    fn of(address: &str) -> Key {
        let (host, port) = split_address(address).unwrap_or((address, 0));
        let host = match (host.parse(), host.parse()) {
            (Ok(v4), _) => Host::V4(v4),
            (_, Ok(v6)) => Host::V6(v6),
            _ => Host::Named(host.into()),
        };
        Key { host, port }
    }
}

/// A server.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    key: Key,
    address: String,
    server: Option<ServerId>,
    /// Whether the client's server says that it lives.
    alive: bool,
}

/// The servers that are known: those that a server told of, or until then those that were given.
#[derive(Debug)]
pub(super) struct Ring {
    told: Vec<Place>,
    given: Vec<Place>,
    /// Told of once, and by the last server not spoken of: one that has just started alone knows
    /// of nobody. The last that were told of are the last here.
    former: Vec<Place>,
}

impl Ring {
    pub(super) fn new(addresses: &[String]) -> Self {
        let place = |address: &String| Place {
            key: Key::of(address),
            address: address.clone(),
            server: None,
            alive: true,
        };
        let given = addresses.iter().map(place).collect();
        Ring { told: Vec::new(), given, former: Vec::new() }
    }

    /// Takes in what a server told. Returns whether the addresses changed, and whether anything
    /// did.
    pub(super) fn tell(
        &mut self,
        servers: Seq<'_, ServerInfo<'_>>,
        servers_max: u32,
    ) -> (bool, bool) {
        let in_ring = |info: &ServerInfo<'_>| {
            matches!(info.state, MemberState::Linked | MemberState::Lost)
                && split_address(info.address).is_some()
        };
        let mut told: Vec<Place> = servers
            .iter()
            .filter(in_ring)
            .take(servers_max as usize)
            .map(|info| Place {
                key: Key::of(info.address),
                address: info.address.into(),
                server: Some(info.server),
                alive: info.state == MemberState::Linked,
            })
            .collect();
        told.sort_by(|a, b| a.key.cmp(&b.key));
        told.dedup_by(|a, b| a.key == b.key);
        let same = |a: &Place, b: &Place| a.address == b.address;
        let moved = told.len() != self.told.len()
            || !told.iter().zip(&self.told).all(|(new, old)| same(new, old));
        let changed = told != self.told;
        if !told.is_empty() {
            let before = core::mem::replace(&mut self.told, told);
            self.former.extend(before);
            // Who left or was forgotten is spoken of, and is not looked for.
            let spoken_of = |place: &Place| servers.iter().any(|s| s.address == place.address);
            let mut latest: Vec<Place> = Vec::new();
            while let Some(place) = self.former.pop() {
                let known = latest.iter().any(|other| other.key == place.key);
                if !known && !spoken_of(&place) && latest.len() < servers_max as usize {
                    latest.push(place);
                }
            }
            latest.reverse();
            self.former = latest;
        }
        (moved, changed)
    }

    /// The addresses in their order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.known().iter().map(|place| place.address.as_str())
    }

    /// The server that answered at `address` is `server`.
    pub(super) fn learn(&mut self, address: &str, server: ServerId) {
        for place in self.told.iter_mut().chain(&mut self.given) {
            if place.address == address {
                place.server = Some(server);
            }
        }
    }

    /// The address to go to after `last`, but none of `except` and not the server `apart`: the
    /// next in the ring that lives, else the next, else one that was given at the start, else one
    /// that was known before.
    pub(super) fn after(
        &self,
        last: &str,
        except: &[String],
        apart: Option<ServerId>,
    ) -> Option<&str> {
        let fits = |place: &&Place| {
            !except.contains(&place.address) && (apart.is_none() || place.server != apart)
        };
        let last = Key::of(last);
        let mut known: Vec<&Place> = self.known().iter().filter(fits).collect();
        known.sort_by_key(|place| {
            let behind = place.key.cmp(&last) != Ordering::Greater;
            (!place.alive, behind)
        });
        let given = || self.given.iter().find(fits);
        let former = || self.former.iter().rev().find(fits);
        let next = known.first().copied().or_else(given).or_else(former);
        next.map(|place| place.address.as_str())
    }

    /// Whether `a` comes before `b` for a client that leaves `last`.
    pub(super) fn is_nearer(&self, last: &str, a: &str, b: &str) -> bool {
        let last = Key::of(last);
        let rank = |address: &str| {
            let key = Key::of(address);
            (key <= last, key)
        };
        rank(a) < rank(b)
    }

    fn known(&self) -> &[Place] {
        if self.told.is_empty() { &self.given } else { &self.told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn info(address: &str, server: u64, state: MemberState) -> ServerInfo<'_> {
        ServerInfo { server: ServerId(server), address, state }
    }

    fn ring() -> Ring {
        let mut ring = Ring::new(&["localhost:5001".to_string()]);
        let servers = [
            info("127.0.0.1:10000", 3, MemberState::Linked),
            info("127.0.0.1:5001", 1, MemberState::Linked),
            info("127.0.0.1:5002", 2, MemberState::Linked),
            info("[::1]:80", 4, MemberState::Left),
        ];
        assert_eq!(ring.tell(Seq::new(&servers), 8), (true, true));
        assert_eq!(ring.tell(Seq::new(&servers), 8), (false, false));
        ring
    }

    #[test]
    fn the_order_is_numeric_and_the_last_is_followed_by_the_first() {
        let ring = ring();
        let addresses: Vec<&str> = ring.addresses().collect();
        assert_eq!(addresses, ["127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:10000"]);
        assert_eq!(ring.after("127.0.0.1:5002", &[], None), Some("127.0.0.1:10000"));
        assert_eq!(ring.after("127.0.0.1:10000", &[], None), Some("127.0.0.1:5001"));
        assert!(ring.is_nearer("127.0.0.1:5002", "127.0.0.1:10000", "127.0.0.1:5001"));
    }

    #[test]
    fn servers_that_live_come_first_and_given_addresses_last() {
        let mut ring = ring();
        let servers = [
            info("127.0.0.1:5001", 1, MemberState::Linked),
            info("127.0.0.1:5002", 2, MemberState::Lost),
            info("127.0.0.1:5003", 3, MemberState::Linked),
        ];
        assert_eq!(ring.tell(Seq::new(&servers), 8), (true, true));
        let mut except = vec![];
        for expected in ["127.0.0.1:5003", "127.0.0.1:5002", "localhost:5001"] {
            let next = ring.after("127.0.0.1:5001", &except, Some(ServerId(1)));
            assert_eq!(next, Some(expected));
            except.push(expected.to_string());
        }
        ring.learn("localhost:5001", ServerId(1));
        let former = ring.after("127.0.0.1:5001", &except[..2], Some(ServerId(1)));
        assert_eq!(former, Some("127.0.0.1:10000"));
    }

    #[test]
    fn servers_that_one_which_knows_nobody_does_not_name_are_looked_for_last() {
        let mut ring = ring();
        let alone = [info("127.0.0.1:5001", 1, MemberState::Linked)];
        assert_eq!(ring.tell(Seq::new(&alone), 8), (true, true));
        let mut except = vec!["127.0.0.1:5001".to_string()];
        for expected in ["localhost:5001", "127.0.0.1:10000", "127.0.0.1:5002"] {
            assert_eq!(ring.after("127.0.0.1:5001", &except, None), Some(expected));
            except.push(expected.to_string());
        }
        assert_eq!(ring.after("127.0.0.1:5001", &except, None), None);
        // Who is said to have left is looked for no more.
        let left = [alone[0], info("127.0.0.1:5002", 2, MemberState::Left)];
        ring.tell(Seq::new(&left), 8);
        assert_eq!(ring.after("127.0.0.1:5001", &except[..3], None), None);
    }

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(split_address("a.b:80"), Some(("a.b", 80)));
        assert_eq!(split_address("[::1]:80"), Some(("::1", 80)));
        for bad in ["", "a", "a:", ":80", "a:65536", "::1:80", "[::1:80", "a:+8", "[]:1"] {
            assert_eq!(split_address(bad), None, "{bad:?}");
        }
    }
}
