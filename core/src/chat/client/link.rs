//! One connection of a client, from asking for it to its end.
//!
//! ```text
//! Dialling ─▶ Greeting ─▶ Ready ─▶ Attaching ─▶ Attached
//!             hello sent  welcome   attach sent
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use super::api::{Effect, LinkId};
use super::seen::OriginIndex;
use crate::ids::{OriginRef, ServerId, Tag};
use crate::outbox::Outbox;
use crate::time::Time;
use crate::wire::Message;
use crate::wire::chat::Intent;

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    /// Asked for.
    Dialling,
    /// Open; the hello is sent.
    Greeting,
    /// Welcome: a standby, or one that waits for a name.
    Ready,
    /// An attachment was asked for.
    Attaching,
    /// The session is attached.
    Attached,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// Where it was dialled.
    pub(super) dialled: String,
    pub(super) phase: Phase,
    /// When it must have come further.
    pub(super) deadline: Option<Time>,
    /// The id of the cluster that it belongs to.
    pub(super) cluster: Option<Tag>,
    /// Who answers, and at which address it wants to be reached; as dialled until it says so.
    pub(super) server: Option<ServerId>,
    pub(super) address: String,
    pub(super) body_bytes_max: u32,
    /// What the attachment asked for.
    pub(super) intent: Intent,
    pub(super) pulse: Pulse,
    /// Bytes given to it and not yet drained.
    pub(super) queued: u64,
    /// Our index for each of the server's references, and the other way round.
    origins: Vec<Option<OriginIndex>>,
    references: Vec<Option<OriginRef>>,
}

/// Signs of life of a connection: any byte.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// When to look again.
    pub(super) next: Time,
    period_us: u64,
    heard: bool,
    misses: u8,
}

/// What is to be done when it is time to look for signs of life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    /// Ask for one.
    Ping,
    /// Too many were missed.
    Dead,
}

impl Pulse {
    pub(super) fn start(&mut self, now: Time, period_us: u64) {
        *self = Pulse { next: now + period_us, period_us, heard: true, misses: 0 };
    }

    pub(super) fn hear(&mut self) {
        self.heard = true;
    }

    /// Counts looks without a sign of life, not time: whoever was stopped himself gives the other
    /// as long as ever.
    pub(super) fn beat(&mut self, now: Time, misses_max: u8) -> Beat {
        self.misses = if self.heard { 0 } else { self.misses + 1 };
        self.heard = false;
        self.next = now + self.period_us;
        if self.misses >= misses_max { Beat::Dead } else { Beat::Ping }
    }
}

impl Link {
    pub(super) fn new(id: LinkId, address: &str, deadline: Time) -> Self {
        Link {
            id,
            dialled: address.into(),
            phase: Phase::Dialling,
            deadline: Some(deadline),
            cluster: None,
            server: None,
            address: address.into(),
            body_bytes_max: BODY_BYTES_MAX,
            intent: Intent::New,
            pulse: Pulse::default(),
            queued: 0,
            origins: Vec::new(),
            references: Vec::new(),
        }
    }

    /// Sends a message.
    pub(super) fn send<'m>(&mut self, message: &impl Message<'m>, out: &mut Outbox<Effect>) {
        let bytes = out.encode(|arena| message.put_frame(arena));
        self.queued += bytes.len() as u64;
        out.push(Effect::Send { link: self.id, bytes });
    }

    /// Bytes were taken by the network. While more wait, that the other reads is a sign of life:
    /// its answers to our pings wait behind them.
    pub(super) fn drained(&mut self, bytes: u32) {
        self.queued = self.queued.saturating_sub(u64::from(bytes));
        if self.queued > 0 {
            self.pulse.hear();
        }
    }

    /// When it wants to be looked at next.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let beat = (self.phase >= Phase::Ready).then_some(self.pulse.next);
        match (self.deadline, beat) {
            (Some(deadline), Some(beat)) => Some(deadline.min(beat)),
            (deadline, beat) => deadline.or(beat),
        }
    }

    /// The server says what a reference stands for from now on. Returns whether there is room for
    /// it.
    pub(super) fn define(
        &mut self,
        reference: OriginRef,
        origin: OriginIndex,
        origins_max: u32,
    ) -> bool {
        if reference.0 >= origins_max {
            return false;
        }
        let before = slot(&mut self.origins, reference.0).replace(origin);
        if let Some(before) = before.map(|before| slot(&mut self.references, before.0))
            && *before == Some(reference)
        {
            *before = None;
        }
        *slot(&mut self.references, origin.0) = Some(reference);
        true
    }

    /// All origins that references stand for.
    pub(super) fn origins(&self) -> impl Iterator<Item = OriginIndex> {
        self.origins.iter().copied().flatten()
    }

    /// What a reference of this server stands for.
    pub(super) fn origin(&self, reference: OriginRef) -> Option<OriginIndex> {
        self.origins.get(reference.0 as usize).copied().flatten()
    }

    /// The server's reference for an origin.
    pub(super) fn reference(&self, origin: OriginIndex) -> Option<OriginRef> {
        self.references.get(origin.0 as usize).copied().flatten()
    }
}

fn slot<T: Copy>(slots: &mut Vec<Option<T>>, index: u32) -> &mut Option<T> {
    let index = index as usize;
    if slots.len() <= index {
        slots.resize(index + 1, None);
    }
    &mut slots[index]
}

/// The longest body until a server says otherwise, in bytes.
pub(super) const BODY_BYTES_MAX: u32 = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_that_is_given_away_leads_back_to_its_new_origin_alone() {
        let mut link = Link::new(LinkId(0), "a:1", Time(0));
        let (own, other) = (OriginIndex(4), OriginIndex(2));
        assert!(link.define(OriginRef(0), own, 8));
        assert!(link.define(OriginRef(0), other, 8));
        assert_eq!((link.reference(own), link.reference(other)), (None, Some(OriginRef(0))));
        assert!(link.define(OriginRef(3), own, 8));
        assert_eq!(
            (link.reference(own), link.origin(OriginRef(0))),
            (Some(OriginRef(3)), Some(other))
        );
        assert!(!link.define(OriginRef(8), own, 8));
    }

    #[test]
    fn three_misses_in_a_row_are_death_and_any_sign_starts_the_count_again() {
        let mut pulse = Pulse::default();
        pulse.start(Time(0), 10);
        let mut beats = [Beat::Ping; 6].into_iter();
        for at in 1..=3 {
            assert_eq!(pulse.beat(Time(10 * at), 3), beats.next().expect("six"));
        }
        pulse.hear();
        for at in 4..=6 {
            assert_eq!(pulse.beat(Time(10 * at), 3), beats.next().expect("six"), "{at}");
        }
        assert_eq!(pulse.beat(Time(70), 3), Beat::Dead);
        assert_eq!(pulse.next, Time(80));
    }
}
