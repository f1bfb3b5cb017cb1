//! The way to a server: whom to try, when to try again, the standby, what a loss leads to.

use alloc::string::String;
use alloc::vec::Vec;

use super::api::{Config, Effect, LinkId};
use super::limits::ClientLimits;
use super::link::{Link, Phase};
use super::{ChatClient, Role, Stage};
use crate::backoff::Backoff;
use crate::outbox::Outbox;
use crate::time::{MILLI_US, SECOND_US, Time};
use crate::wire::hello::Bye;
use crate::wire::{Reason, WireError};

/// For how long after a move a client takes it for its own when its session is attached elsewhere,
/// and how long it lies between two times that it does.
const RECLAIM_US: u64 = 30 * SECOND_US;

/// Where the search for a server stands.
#[derive(Debug)]
pub(super) struct Way {
    /// The address that was tried last: the next in the ring follows.
    last: String,
    /// What was tried since the client was last up to date.
    tried: Vec<String>,
    /// Where to go now, before anything else.
    goto: Option<String>,
    /// When to look again.
    pub(super) retry_at: Option<Time>,
    backoff: Backoff,
    /// How often all were tried in vain since the client was last up to date.
    rounds: u32,
    /// Why the last one did not serve.
    why: Option<Reason>,
    /// What a redirect gave for the present connection.
    pub(super) reservation: u64,
    /// How often the client was redirected since it was last attached.
    pub(super) hops: u8,
    /// A refusal that trying again does not mend.
    refused: Option<Reason>,
    told_full: bool,
    /// When the client last went on at another server.
    pub(super) moved: Option<Time>,
    /// When it last took its session back from what it had left.
    reclaimed: Option<Time>,
    /// The server that the application believes it is connected to.
    pub(super) announced: Option<String>,
}

/// Where the search for a standby stands.
#[derive(Debug)]
pub(super) struct Spare {
    /// What was tried in vain of late.
    pub(super) failed: Vec<String>,
    /// When to try those again.
    pub(super) retry_at: Option<Time>,
    backoff: Backoff,
}

impl Way {
    pub(super) fn new(config: &Config, now: Time) -> Self {
        let limits = &config.limits;
        Way {
            last: String::new(),
            tried: Vec::new(),
            goto: config.servers.first().cloned(),
            retry_at: Some(now),
            backoff: Backoff::new(limits.retry_first_us, limits.retry_us_max),
            rounds: 0,
            why: None,
            reservation: 0,
            hops: 0,
            refused: None,
            told_full: false,
            moved: None,
            reclaimed: None,
            announced: None,
        }
    }

    fn has_tried(&self, address: &str) -> bool {
        self.tried.iter().any(|tried| tried == address)
    }

    /// The client is up to date: whatever happens next is another story.
    pub(super) fn settle(&mut self) {
        self.tried.clear();
        self.backoff.reset();
        self.rounds = 0;
        self.refused = None;
        self.told_full = false;
    }
}

impl Spare {
    pub(super) fn new(limits: &ClientLimits) -> Self {
        let backoff = Backoff::new(4 * limits.retry_first_us, limits.retry_us_max);
        Spare { failed: Vec::new(), retry_at: None, backoff }
    }

    /// There is news: everyone may be tried again at once.
    pub(super) fn renew(&mut self) {
        self.failed.clear();
        self.retry_at = None;
        self.backoff.reset();
    }
}

impl ChatClient {
    /// Finds a primary when there is none: the standby, or the next to be dialled.
    pub(super) fn seek(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if self.primary.is_some() || self.stage == Stage::Over || self.way.retry_at.is_some() {
            return;
        }
        if let Some(address) = self.way.goto.take() {
            self.primary = Some(self.dial(now, &address, out));
        } else if let Some(standby) = self.standby.take() {
            self.primary = Some(standby);
            self.on_ready(now, out);
        } else if let Some(candidate) = self.candidate.take() {
            self.primary = Some(candidate);
        } else {
            let next = self.ring.after(&self.way.last, &self.way.tried, None).map(String::from);
            match next {
                Some(address) => self.primary = Some(self.dial(now, &address, out)),
                None => self.on_exhausted(now, out),
            }
        }
    }

    /// Goes to `address`, whatever else there is.
    pub(super) fn go_to(&mut self, now: Time, address: String, out: &mut Outbox<Effect>) {
        self.close(Role::Primary, out);
        self.detach();
        self.way.goto = Some(address);
        self.seek(now, out);
    }

    /// Connects anew to the same server, without a word to the application.
    pub(super) fn reconnect(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if let Some(link) = &self.primary {
            let address = link.dialled.clone();
            self.go_to(now, address, out);
        }
    }

    /// Everyone was tried in vain.
    fn on_exhausted(&mut self, now: Time, out: &mut Outbox<Effect>) {
        let arriving = self.stage == Stage::Arriving;
        if arriving && let Some(reason) = self.way.refused {
            return self.finish(Some(reason), out);
        }
        self.way.tried.clear();
        self.way.hops = 0;
        // Servers that are about to be ready answer: they are not unreachable.
        let soon = matches!(self.way.why, Some(Reason::Joining | Reason::Draining));
        self.way.rounds += u32::from(!soon);
        if !soon && self.way.rounds == if arriving { 1 } else { 2 } {
            let last = self.way.last.clone();
            self.tell_error(0, Reason::Unreachable, &last, out);
        }
        let delay = self.way.backoff.next_us(&mut self.prng);
        self.way.retry_at = Some(now + delay);
    }

    /// A connection is over for `why`, of our own accord: closes it.
    pub(super) fn fail(&mut self, now: Time, role: Role, why: Reason, out: &mut Outbox<Effect>) {
        if let Some(link) = self.link_mut(role) {
            let id = link.id;
            out.push(Effect::Close { link: id });
            self.on_void(now, id, why, out);
        }
    }

    /// A connection is over.
    pub(super) fn on_void(
        &mut self,
        now: Time,
        link: LinkId,
        why: Reason,
        out: &mut Outbox<Effect>,
    ) {
        match self.role(link) {
            None => {}
            Some(Role::Primary) => self.on_primary_lost(now, why, out),
            Some(role) => {
                let slot = match role {
                    Role::Standby => &mut self.standby,
                    _ => &mut self.candidate,
                };
                if let Some(link) = slot.take() {
                    self.spare.failed.push(link.dialled);
                    self.spare.failed.push(link.address);
                }
                self.retry_spare(now);
                self.tend_standby(now, out);
            }
        }
    }

    fn retry_spare(&mut self, now: Time) {
        if self.spare.retry_at.is_none() {
            let delay = self.spare.backoff.next_us(&mut self.prng);
            self.spare.retry_at = Some(now + delay);
        }
    }

    fn on_primary_lost(&mut self, now: Time, why: Reason, out: &mut Outbox<Effect>) {
        let Some(link) = self.primary.take() else { return };
        self.way.tried.push(link.dialled);
        self.way.tried.push(link.address.clone());
        self.way.last = link.address;
        self.way.why = Some(why);
        self.way.reservation = 0;
        self.detach();
        if let Some(server) = self.way.announced.take() {
            self.tell_disconnected(&server, why, out);
            if self.config.reset {
                self.me.had = self.held();
                self.forget();
            }
        }
        self.seek(now, out);
    }

    /// What a lost connection leaves half done begins anew on the next.
    fn detach(&mut self) {
        self.hand_back = None;
        self.caught_up = false;
        self.resending = false;
        self.requests.detach();
        self.roster.drop_list();
        self.arrival.users.clear();
        self.arrival.rooms.clear();
    }

    /// Closes a connection of ours and forgets it.
    pub(super) fn close(&mut self, role: Role, out: &mut Outbox<Effect>) {
        let slot = match role {
            Role::Primary => &mut self.primary,
            Role::Standby => &mut self.standby,
            Role::Candidate => &mut self.candidate,
        };
        if let Some(link) = slot.take() {
            out.push(Effect::Close { link: link.id });
        }
    }

    pub(super) fn dial(&mut self, now: Time, address: &str, out: &mut Outbox<Effect>) -> Link {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let span = out.encode(|arena| arena.extend_from_slice(address.as_bytes()));
        out.push(Effect::Connect { link: id, address: span });
        Link::new(id, address, now + self.config.limits.open_us_max)
    }

    /// Sees to it that the best standby is there, or on its way.
    pub(super) fn tend_standby(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if !self.is_attached() || self.candidate.is_some() {
            return;
        }
        let Some(primary) = &self.primary else { return };
        if self.standby.as_ref().is_some_and(|standby| standby.server == primary.server) {
            self.close(Role::Standby, out);
            return self.tend_standby(now, out);
        }
        let next = self.ring.after(&primary.address, &self.spare.failed, primary.server);
        let Some(address) = next else { return };
        let needed = self.standby.as_ref().is_none_or(|standby| {
            self.ring.is_nearer(&primary.address, address, &standby.address)
                && standby.dialled != address
        });
        if needed {
            let address = String::from(address);
            self.candidate = Some(self.dial(now, &address, out));
        }
    }

    /// A candidate was welcomed: it is the standby now, unless it is the primary's server by
    /// another address.
    pub(super) fn on_candidate_ready(&mut self, now: Time, out: &mut Outbox<Effect>) {
        let server = self.candidate.as_ref().and_then(|link| link.server);
        if self.primary.as_ref().is_some_and(|primary| primary.server == server) {
            return self.fail(now, Role::Candidate, Reason::Redundant, out);
        }
        self.close(Role::Standby, out);
        self.standby = self.candidate.take();
        self.spare.backoff.reset();
    }

    /// The server says goodbye.
    pub(super) fn on_bye(
        &mut self,
        now: Time,
        role: Role,
        bye: &Bye<'_>,
        out: &mut Outbox<Effect>,
    ) {
        let Some(link) = self.link_mut(role) else { return };
        let attaching = link.phase >= Phase::Attaching;
        if role != Role::Primary {
            return self.fail(now, role, bye.reason, out);
        }
        match bye.reason {
            Reason::Superseded if attaching && !self.reclaims(now) => {
                return self.finish(Some(Reason::Superseded), out);
            }
            Reason::Full => return self.on_full(now, bye, out),
            Reason::WrongVersion
            | Reason::WrongCluster
            | Reason::WrongService
            | Reason::WrongSecret
            | Reason::NotCordee => self.way.refused = Some(bye.reason),
            _ => {}
        }
        let next = bye.next;
        let fits = super::split_address(next).is_some() && !self.way.has_tried(next);
        if self.standby.is_none() && fits {
            self.way.goto = Some(next.into());
        }
        self.fail(now, role, bye.reason, out);
    }

    /// Whether it is likely that what stands above this attachment is an earlier one of this very
    /// client: it moved a moment ago, and servers that were cut off from each other may have raised
    /// what they knew of it. Then it attaches again, above that, but does not fight for it.
    fn reclaims(&mut self, now: Time) -> bool {
        let lately = |at: Option<Time>| at.is_some_and(|at| now.since_us(at) < RECLAIM_US);
        let reclaims = lately(self.way.moved) && !lately(self.way.reclaimed);
        if reclaims {
            self.way.reclaimed = Some(now);
        }
        reclaims
    }

    /// All servers are full. They are asked again when they said so.
    fn on_full(&mut self, now: Time, bye: &Bye<'_>, out: &mut Outbox<Effect>) {
        self.close(Role::Primary, out);
        self.detach();
        if !self.way.told_full {
            self.way.told_full = true;
            self.tell_error(0, Reason::Full, bye.detail, out);
        }
        let asked = u64::from(bye.retry_ms) * MILLI_US;
        let delay = self.way.backoff.next_us(&mut self.prng).max(asked);
        self.way.tried.clear();
        (self.way.hops, self.way.reservation) = (0, 0);
        self.way.retry_at = Some(now + delay);
    }

    /// What came is not the protocol.
    pub(super) fn on_broken(
        &mut self,
        now: Time,
        role: Role,
        error: WireError,
        out: &mut Outbox<Effect>,
    ) {
        let Some(link) = self.link_mut(role) else { return };
        let greeting = link.phase < Phase::Ready;
        let reason = if greeting { Reason::NotCordee } else { Reason::from(error) };
        if greeting && role == Role::Primary {
            self.way.refused = Some(reason);
        }
        self.fail(now, role, reason, out);
    }
}
