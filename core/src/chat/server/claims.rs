//! Names are asked for: every linked server grants or denies, in one round trip.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};

use super::{ChatServer, Effect};
use crate::ids::{Clock, ConnId, ServerId, SessionId};
use crate::names;
use crate::outbox::Outbox;
use crate::time::{SECOND_US, Time};
use crate::wire::Reason;
use crate::wire::peer::{Claim, Vote};

/// For how long a name that was granted to a claim of another server is kept for it.
const GRANT_US: u64 = 5 * SECOND_US;
/// For how long votes are waited for. Whoever is linked answers at once, and whatever two names come
/// to that were given away without being asked for, a partition can bring about, too.
const VOTE_US: u64 = 2 * SECOND_US;
/// Grants that are remembered at once.
pub(super) const GRANTS_MAX: usize = 4_096;

/// What a name is claimed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A session attaches.
    Attach,
    /// An attached session wants another name; the request to answer.
    Rename(u64),
}

/// A claim of ours that is being voted on.
#[derive(Debug)]
struct Pending {
    conn: ConnId,
    session: SessionId,
    key: String,
    name: String,
    clock: Clock,
    purpose: Purpose,
    voters: BTreeSet<ServerId>,
    /// Until when votes are waited for.
    until: Time,
}

/// Claims under way, ours and those that we granted.
#[derive(Debug, Default)]
pub(super) struct Claims {
    next: u64,
    pending: BTreeMap<u64, Pending>,
    /// By comparable name: the claim that we granted, and until when it is kept.
    granted: BTreeMap<String, (Clock, SessionId, Time)>,
}

impl Claims {
    /// Drops the claims of a connection that is gone.
    pub(super) fn drop_of(&mut self, conn: ConnId) {
        self.pending.retain(|_, claim| claim.conn != conn);
    }

    /// The roster knows of a claim that was granted: it speaks for itself from now on.
    pub(super) fn settle(&mut self, session: SessionId, claim: Clock) {
        if !self.granted.is_empty() {
            self.granted.retain(|_, (clock, holder, _)| *holder != session || *clock > claim);
        }
    }

    fn expire(&mut self, now: Time) {
        self.granted.retain(|_, (_, _, until)| *until > now);
    }

    /// Whether somebody else has a claim on the name that stands above `(clock, session)`.
    fn is_contested(&self, key: &str, clock: Clock, session: SessionId) -> bool {
        let ours = self.pending.values().any(|claim| {
            claim.key == key
                && claim.session != session
                && (claim.clock, claim.session) < (clock, session)
        });
        let granted = self.granted.get(key);
        ours || granted.is_some_and(|(other, holder, _)| {
            *holder != session && (*other, *holder) < (clock, session)
        })
    }
}

impl ChatServer {
    /// Asks all linked servers for a name. Decided at once when there are none, or the name is
    /// known to be taken.
    pub(super) fn begin_claim(
        &mut self,
        now: Time,
        conn: ConnId,
        session: SessionId,
        name: &str,
        purpose: Purpose,
        out: &mut Outbox<Effect>,
    ) {
        let Ok(key) = names::user_key(name) else {
            return self.claim_decided(now, conn, name, purpose, Err(Reason::NameInvalid), out);
        };
        let clock = self.clock.stamp(now, Clock(0));
        let free = self.roster.is_free_for(&key, session);
        if !free || self.claims.is_contested(&key, clock, session) {
            return self.claim_decided(now, conn, name, purpose, Err(Reason::NameTaken), out);
        }
        let voters: BTreeSet<ServerId> = self.linked_peers().map(|(_, peer)| peer.server).collect();
        if voters.is_empty() || planted!(NameUnasked) {
            return self.claim_decided(now, conn, name, purpose, Ok(clock), out);
        }
        self.claims.next += 1;
        let id = self.claims.next;
        let claim = Claim { claim: id, session, name, clock };
        self.for_each_link(|server, peer| server.send(peer, &claim, out));
        let name = name.to_string();
        let until = now + VOTE_US;
        let pending = Pending { conn, session, key, name, clock, purpose, voters, until };
        self.claims.pending.insert(id, pending);
    }

    pub(super) fn on_claim(
        &mut self,
        now: Time,
        conn: ConnId,
        claim: &Claim<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let key = names::user_key(claim.name)?;
        self.clock.observe(now, claim.clock);
        let granted = self.roster.is_free_for(&key, claim.session)
            && !self.claims.is_contested(&key, claim.clock, claim.session);
        if granted && self.claims.granted.len() < GRANTS_MAX {
            self.claims.granted.insert(key, (claim.clock, claim.session, now + GRANT_US));
        }
        self.send(conn, &Vote { claim: claim.claim, granted }, out);
        Ok(())
    }

    pub(super) fn on_vote(
        &mut self,
        now: Time,
        server: ServerId,
        vote: &Vote,
        out: &mut Outbox<Effect>,
    ) {
        let Some(pending) = self.claims.pending.get_mut(&vote.claim) else { return };
        if !pending.voters.remove(&server) {
            return;
        }
        if !vote.granted {
            self.decide(now, vote.claim, Err(Reason::NameTaken), out);
        } else if pending.voters.is_empty() {
            self.decide_granted(now, vote.claim, out);
        }
    }

    /// Whoever has not voted by now is not waited for any more.
    pub(super) fn decide_overdue(&mut self, now: Time, out: &mut Outbox<Effect>) {
        self.claims.expire(now);
        let pending = self.claims.pending.iter();
        let overdue = pending.filter(|(_, pending)| pending.until <= now).map(|(id, _)| *id);
        for id in overdue.collect::<alloc::vec::Vec<u64>>() {
            self.decide_granted(now, id, out);
        }
    }

    /// A server that cannot vote any more is not waited for.
    pub(super) fn voter_lost(&mut self, now: Time, server: ServerId, out: &mut Outbox<Effect>) {
        let mut decided = alloc::vec::Vec::new();
        for (id, pending) in &mut self.claims.pending {
            if pending.voters.remove(&server) && pending.voters.is_empty() {
                decided.push(*id);
            }
        }
        for id in decided {
            self.decide_granted(now, id, out);
        }
    }

    /// All granted; a record that came meanwhile may still stand against it.
    fn decide_granted(&mut self, now: Time, id: u64, out: &mut Outbox<Effect>) {
        let Some(pending) = self.claims.pending.get(&id) else { return };
        let free = self.roster.is_free_for(&pending.key, pending.session);
        let clock = pending.clock;
        self.decide(now, id, if free { Ok(clock) } else { Err(Reason::NameTaken) }, out);
    }

    fn decide(
        &mut self,
        now: Time,
        id: u64,
        decision: Result<Clock, Reason>,
        out: &mut Outbox<Effect>,
    ) {
        let Some(pending) = self.claims.pending.remove(&id) else { return };
        self.claim_decided(now, pending.conn, &pending.name, pending.purpose, decision, out);
    }

    fn claim_decided(
        &mut self,
        now: Time,
        conn: ConnId,
        name: &str,
        purpose: Purpose,
        decision: Result<Clock, Reason>,
        out: &mut Outbox<Effect>,
    ) {
        match purpose {
            Purpose::Attach => self.attach_decided(now, conn, decision, out),
            Purpose::Rename(request) => {
                self.rename_decided(now, conn, request, name, decision, out);
            }
        }
    }
}
