//! The members of the cluster, and the addresses under which they are looked for.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::api::DialId;
use crate::backoff::Backoff;
use crate::ids::{Clock, Origin, ServerId};
use crate::time::{MILLI_US, SECOND_US, Time};
use crate::wire::chat::MemberState;

/// Delays between two dials of a member that does not answer.
const REDIAL_FIRST_US: u64 = 50 * MILLI_US;
const REDIAL_MAX_US: u64 = SECOND_US;
/// For how long a server that has only just become known is expected to link.
const EXPECTED_US: u64 = 500 * MILLI_US;

/// Another server of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) address: String,
    /// Its latest start, as far as it is known.
    pub(super) origin: Origin,
    /// Left and forgotten as stated; linked and lost as last judged here.
    pub(super) state: MemberState,
    /// Raised with each statement about a member that does not speak for itself.
    pub(super) version: u64,
    /// When it was last heard, by us or by one that we hear.
    pub(super) heard: Time,
    /// Whether it ever introduced itself here, rather than being heard of.
    pub(super) met: bool,
    /// Rows in its archive, as it last said.
    pub(super) ma: u64,
    /// Up to this clock we hold whatever it held.
    pub(super) final_clock: Clock,
}

impl Member {
    /// Learns of a start of it. Of several the latest counts.
    pub(super) fn started(&mut self, origin: Origin) {
        self.origin = self.origin.max(origin);
    }

    /// Whether it counts: it neither left nor was forgotten.
    pub(super) fn counts(&self) -> bool {
        matches!(self.state, MemberState::Linked | MemberState::Lost)
    }
}

/// An address that is dialled until a link to whoever is there stands.
#[derive(Debug)]
struct Target {
    address: String,
    backoff: Backoff,
    /// Since when it is looked for.
    sought: Time,
    due: Time,
    dialling: Option<DialId>,
    /// Whether an attempt came to an end, in a link or without.
    tried: bool,
    /// Who was found there.
    server: Option<ServerId>,
}

/// Members by id, and the addresses to dial.
#[derive(Debug)]
pub(super) struct Members {
    own: ServerId,
    members: BTreeMap<ServerId, Member>,
    targets: Vec<Target>,
    members_max: usize,
    dials: u64,
}

impl Members {
    pub(super) fn new(own: ServerId, members_max: u32) -> Self {
        Members {
            own,
            members: BTreeMap::new(),
            targets: Vec::new(),
            members_max: members_max as usize,
            dials: 0,
        }
    }

    pub(super) fn get(&self, server: ServerId) -> Option<&Member> {
        self.members.get(&server)
    }

    pub(super) fn get_mut(&mut self, server: ServerId) -> Option<&mut Member> {
        self.members.get_mut(&server)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ServerId, &Member)> {
        self.members.iter().map(|(server, member)| (*server, member))
    }

    /// The highest incarnation known of another start of a server than `origin`.
    pub(super) fn earlier_incarnation(&self, origin: Origin) -> u32 {
        let known = self.get(origin.server).map(|member| member.origin);
        known.filter(|known| *known != origin).map_or(0, |known| known.incarnation)
    }

    pub(super) fn by_address(&self, address: &str) -> Option<ServerId> {
        self.iter().find(|(_, member)| member.address == address).map(|(server, _)| server)
    }

    /// Adds a member that was not known. `false` when there is no place, or it is ourselves.
    pub(super) fn add(&mut self, server: ServerId, address: &str, now: Time) -> bool {
        if server == self.own || self.members.contains_key(&server) {
            return false;
        }
        if self.members.len() >= self.members_max {
            return false;
        }
        self.members.insert(
            server,
            Member {
                address: address.to_string(),
                origin: Origin::default(),
                state: MemberState::Lost,
                version: 0,
                heard: now,
                met: false,
                ma: 0,
                final_clock: Clock(0),
            },
        );
        true
    }

    /// A member introduces itself: where there is no place, one that was only ever heard of goes.
    pub(super) fn meet(&mut self, server: ServerId, address: &str, now: Time) -> bool {
        if self.members.len() >= self.members_max && !self.members.contains_key(&server) {
            let unmet = self.members.iter().find(|(_, member)| !member.met);
            if let Some(unmet) = unmet.map(|(unmet, _)| *unmet) {
                self.members.remove(&unmet);
                self.targets.retain(|target| target.server != Some(unmet));
            }
        }
        self.add(server, address, now);
        if let Some(member) = self.members.get_mut(&server) {
            member.met = true;
        }
        self.members.contains_key(&server)
    }

    /// Looks for a member at `address` from now on.
    pub(super) fn seek(&mut self, address: &str, now: Time) {
        let server = self.by_address(address);
        if let Some(target) = self.targets.iter_mut().find(|target| target.address == address) {
            target.server = server.or(target.server);
            return;
        }
        if self.targets.len() >= 2 * self.members_max {
            return;
        }
        self.targets.push(Target {
            address: address.to_string(),
            backoff: Backoff::new(REDIAL_FIRST_US, REDIAL_MAX_US),
            sought: now,
            due: now,
            dialling: None,
            tried: false,
            server,
        });
    }

    /// The next address that is due and whose server `is_linked` denies; marks it as dialled.
    pub(super) fn next_dial(
        &mut self,
        now: Time,
        is_linked: impl Fn(ServerId) -> bool,
    ) -> Option<(DialId, String)> {
        let own = self.own;
        let members = &self.members;
        let target = self.targets.iter_mut().find(|target| {
            let unwanted = target.server.is_some_and(|server| {
                // One that left may start again, knowing of nobody: it is looked for still.
                let forgotten = members.get(&server).is_some_and(|member| {
                    let left = planted!(LeftForEver) && member.state == MemberState::Left;
                    left || member.state == MemberState::Forgotten
                });
                server == own || forgotten || is_linked(server)
            });
            target.dialling.is_none() && target.due <= now && !unwanted
        })?;
        self.dials += 1;
        target.dialling = Some(DialId(self.dials));
        Some((DialId(self.dials), target.address.clone()))
    }

    /// The address of a dial under way.
    pub(super) fn is_dialling(&self, dial: DialId) -> bool {
        self.targets.iter().any(|target| target.dialling == Some(dial))
    }

    /// Whether a dial that leads to a server is under way.
    pub(super) fn is_dialled(&self, server: ServerId, address: &str) -> bool {
        let leads_to_it =
            |target: &Target| target.server == Some(server) || target.address == address;
        self.targets.iter().any(|target| target.dialling.is_some() && leads_to_it(target))
    }

    /// A dial ended: in a link to `server`, or not. The next is due after a growing delay.
    pub(super) fn dial_ended(
        &mut self,
        dial: DialId,
        server: Option<ServerId>,
        now: Time,
        prng: &mut crate::prng::Prng,
    ) {
        let target = self.targets.iter_mut().find(|target| target.dialling == Some(dial));
        let Some(target) = target else { return };
        target.dialling = None;
        target.tried = true;
        if server.is_some() {
            target.server = server;
            target.backoff.reset();
        }
        target.due = now + target.backoff.next_us(prng);
    }

    /// Dials a member again at once: it was there a moment ago.
    pub(super) fn redial(&mut self, server: ServerId, now: Time) {
        for target in self.targets.iter_mut().filter(|target| target.server == Some(server)) {
            target.backoff.reset();
            target.due = now;
        }
    }

    /// Whether a server is looked for since a moment ago, and may be about to link: its first
    /// dial has not come to an end, or a connection to it is there (`is_met`).
    pub(super) fn is_expected(&self, server: ServerId, is_met: bool, now: Time) -> bool {
        let Some(member) = self.get(server) else { return false };
        self.targets.iter().any(|target| {
            let leads_to_it = target.server == Some(server) || target.address == member.address;
            let is_new = now.since_us(target.sought) < EXPECTED_US;
            leads_to_it && is_new && (is_met || !target.tried)
        })
    }

    /// Whether it is known who is at every address.
    pub(super) fn all_met(&self) -> bool {
        self.targets.iter().all(|target| target.server.is_some())
    }

    /// Whether every address was tried at least once.
    pub(super) fn all_tried(&self) -> bool {
        self.targets.iter().all(|target| target.tried || target.server == Some(self.own))
    }

    pub(super) fn check(&self) {
        assert!(self.members.len() <= self.members_max);
        assert!(!self.members.contains_key(&self.own), "a server is no member to itself");
        assert!(self.targets.len() <= 2 * self.members_max);
    }
}
