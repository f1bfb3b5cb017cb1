//! What faults do to connections: through a relay, and in namespaces.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::namespaces::{Host, Namespaces};
use crate::plan::Fault;
use crate::relay::Path;

/// From whom nothing gets to whom, and who is behind a slow line, by one fault.
pub(crate) fn block(
    blocked: &mut BTreeSet<(Host, Host)>,
    slow: &mut BTreeSet<Host>,
    fault: Fault,
    count: usize,
) {
    let mut both = |one: Host, other: Host| blocked.extend([(one, other), (other, one)]);
    match fault {
        Fault::CutLink { one, other } => both(Host::Server(one), Host::Server(other)),
        Fault::Partition { side } => {
            for one in 0..count {
                for other in (0..one).filter(|other| is_parted(side, one, *other)) {
                    both(Host::Server(one), Host::Server(other));
                }
            }
        }
        Fault::CutClients { server } => both(Host::Server(server), Host::People),
        Fault::Deafen { from, to } => {
            blocked.insert((Host::Server(from), Host::Server(to)));
        }
        Fault::StallClients { server, inward: true } => {
            blocked.insert((Host::People, Host::Server(server)));
        }
        Fault::StallClients { server, inward: false } => {
            blocked.insert((Host::Server(server), Host::People));
        }
        Fault::Delay { server, .. } => drop(slow.insert(Host::Server(server))),
        _ => {}
    }
}

/// Resets connections, as far as a fault does.
pub(crate) fn reset(namespaces: &Namespaces, fault: Fault, count: usize) {
    match fault {
        Fault::Reset { server, clients: true } => {
            namespaces.reset(Host::Server(server), Host::People);
        }
        Fault::Reset { server, clients: false } => {
            for other in (0..count).filter(|other| *other != server) {
                namespaces.reset(Host::Server(server), Host::Server(other));
            }
        }
        _ => {}
    }
}

/// What a fault does to connections that `dialler` makes to `server`.
pub(crate) fn harm_link(path: &mut Path, fault: Fault, server: usize, dialler: usize) {
    let concerns = |hit: usize| hit == server || hit == dialler;
    match fault {
        Fault::CutLink { one, other } if concerns(one) && concerns(other) => path.refused = true,
        Fault::Deafen { from, to } if (from, to) == (dialler, server) => path.inward.stalled = true,
        Fault::Deafen { from, to } if (from, to) == (server, dialler) => {
            path.outward.stalled = true;
        }
        Fault::Partition { side } if is_parted(side, server, dialler) => path.refused = true,
        Fault::Delay { server: hit, ms } if concerns(hit) => delay(path, ms),
        Fault::Dribble { server: hit } if concerns(hit) => dribble(path),
        Fault::Garble { server: hit, clients: false, inward } if hit == server => {
            if inward {
                path.inward.garbled = true
            } else {
                path.outward.garbled = true
            }
        }
        Fault::Garble { server: hit, clients: false, inward } if hit == dialler => {
            if inward {
                path.outward.garbled = true
            } else {
                path.inward.garbled = true
            }
        }
        _ => {}
    }
}

/// What a fault does to connections that clients make to `server`.
pub(crate) fn harm_clients(path: &mut Path, fault: Fault, server: usize) {
    match fault {
        Fault::CutClients { server: hit } if hit == server => path.refused = true,
        Fault::StallClients { server: hit, inward } if hit == server => {
            if inward {
                path.inward.stalled = true
            } else {
                path.outward.stalled = true
            }
        }
        Fault::Delay { server: hit, ms } if hit == server => delay(path, ms),
        Fault::Dribble { server: hit } if hit == server => dribble(path),
        Fault::Garble { server: hit, clients: true, inward } if hit == server => {
            if inward {
                path.inward.garbled = true
            } else {
                path.outward.garbled = true
            }
        }
        _ => {}
    }
}

fn delay(path: &mut Path, ms: u64) {
    path.inward.delay = Duration::from_millis(ms);
    path.outward.delay = Duration::from_millis(ms);
}

fn dribble(path: &mut Path) {
    path.inward.dribbles = true;
    path.outward.dribbles = true;
}

pub(crate) fn is_parted(side: u32, one: usize, other: usize) -> bool {
    (side >> one & 1) != (side >> other & 1)
}
