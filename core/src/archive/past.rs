//! The pasts: of each server, the starts that ended and of which nothing is in memory, as one.
//!
//! A start whose entries were all trimmed is worth no place of its own: what is left of it are
//! counts and hashes, and these can be added up. They are added to the *past* of its server: one
//! record, however often that server started. A server's starts go into it in their order, so that
//! it is told by the last of them: whatever is not later belongs to it, known or not.
//!
//! Two archives with the same past of a server agree on the last start and on the sums. Where they
//! do not, the greater past stays, by the last start, then by the sums: who has the lesser one
//! adopts a [floor](super::Floor), and gives back what it alone had, to be said anew.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Archive;
use super::origins::Sums;
use crate::ids::{Clock, Origin, OriginRef, ScopeRef, ServerId, Tag};
use crate::wire::peer;

/// Pasts in one archive: so many servers, by their addresses, may ever have been.
const PASTS_MAX: usize = 1_024;

/// What is left of the starts of a server up to one of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Past {
    /// The last of them.
    pub through: Origin,
    /// Over the vector and over all entries.
    pub sums: Sums,
    /// At least the clock of each of their entries.
    pub clock: Clock,
    /// How many rows they had, by scope, without those that had none.
    pub rows: Vec<(ScopeRef, u64)>,
}

/// How another's past of a server stands to what is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PastOrder {
    /// The same entries are here, in whatever form.
    Equal,
    /// Ours stays.
    Less,
    /// The other's stays: it is to be adopted.
    Greater,
}

/// By server: the last start, the sums, and the last clock. The rows are with their scopes.
#[derive(Debug, Default)]
pub(super) struct Pasts(pub(super) BTreeMap<ServerId, (Origin, Sums, Clock)>);

impl Past {
    /// As it is told to peers.
    #[must_use]
    pub fn told(through: Origin, sums: Sums) -> peer::Past {
        let Sums { vector, digest } = sums;
        peer::Past {
            through,
            vector: crate::wire::Fixed64(vector),
            digest: Tag(digest.to_be_bytes()),
        }
    }
}

impl Archive {
    /// The pasts: of each server the last start, and the sums.
    pub fn pasts(&self) -> impl Iterator<Item = (Origin, Sums)> {
        self.pasts.0.values().map(|(through, sums, _)| (*through, *sums))
    }

    /// The last start of a server that belongs to its past.
    #[must_use]
    pub fn past_through(&self, server: ServerId) -> Option<Origin> {
        self.pasts.0.get(&server).map(|(through, ..)| *through)
    }

    /// Whether an origin belongs to its server's past. Then nothing of it is here, and nothing of
    /// it is lacking.
    #[must_use]
    pub fn is_past(&self, origin: &Origin) -> bool {
        self.past_through(origin.server).is_some_and(|through| *origin <= through)
    }

    /// How another's past stands to what is here.
    #[must_use]
    pub fn compare_past(&self, through: Origin, sums: Sums) -> PastOrder {
        let own = self.pasts.0.get(&through.server);
        if own.is_some_and(|(own, ..)| *own > through) {
            return PastOrder::Less;
        }
        let here = self.sums_through(through);
        let own = own.map(|(own, sums, _)| (*own, *sums));
        match own {
            _ if here == sums => PastOrder::Equal,
            Some(own) if own > (through, sums) => PastOrder::Less,
            _ => PastOrder::Greater,
        }
    }

    /// The sums over the starts of a server up to one that does not belong to its past, or is the
    /// last that does.
    fn sums_through(&self, through: Origin) -> Sums {
        let past = self.pasts.0.get(&through.server).map(|(_, sums, _)| *sums);
        let first = Origin { server: through.server, ..Origin::default() };
        let here = self.origins.range(first, through).map(|(_, state)| state.sums());
        here.fold(past.unwrap_or_default(), |sum, sums| sum + sums)
    }

    /// Whether all entries of an origin were trimmed, and none that is in memory names it.
    #[must_use]
    pub fn is_spent(&self, origin: OriginRef) -> bool {
        let state = self.origins.state(origin);
        state.entries.is_empty() && state.mentions == 0
    }

    /// The last entry of an origin that is in memory.
    #[must_use]
    pub fn last_id(&self, origin: OriginRef) -> Option<super::EntryId> {
        let state = self.origins.state(origin);
        if state.entries.is_empty() { None } else { self.id(origin, state.shown()) }
    }

    /// Gives up the place of an origin: its reference stands for nothing until it
    /// [may be used again](Self::reuse). If there were entries, it is added to the past of its
    /// server. Returns whether there was a place for that.
    ///
    /// Panics unless it [is spent](Self::is_spent) and, with entries, later than all that belong
    /// to the past.
    pub fn fold(&mut self, origin: OriginRef) -> bool {
        assert!(self.is_spent(origin), "nothing of it is in memory");
        let state = self.origins.state(origin);
        let (value, sums, clock) = (state.value, state.sums(), state.clock);
        if state.shown() > 0 {
            assert!(!self.is_past(&value), "a server's starts end in their order");
            let pasts = &mut self.pasts.0;
            if pasts.len() >= PASTS_MAX && !pasts.contains_key(&value.server) {
                return false;
            }
            let past = pasts.entry(value.server).or_default();
            *past = (value, past.1 + sums, past.2.max(clock));
            self.scopes.fold(origin, value.server);
        }
        self.vacate(origin);
        true
    }

    /// Takes an origin of which nothing is left out of all tables.
    fn vacate(&mut self, origin: OriginRef) {
        self.scopes.take_trimmed(origin);
        self.origins.vacate(origin);
    }

    /// A reference that was given up may stand for another origin.
    pub fn reuse(&mut self, origin: OriginRef) {
        self.origins.reuse(origin);
    }

    /// How many origins can still be defined.
    #[must_use]
    pub fn places_left(&self) -> u32 {
        self.origins.places_left()
    }

    /// What is left of the pasts.
    pub(super) fn floor_pasts(&self) -> Vec<Past> {
        let mut pasts: BTreeMap<ServerId, Past> = BTreeMap::new();
        for (server, (through, sums, clock)) in &self.pasts.0 {
            let past = Past { through: *through, sums: *sums, clock: *clock, rows: Vec::new() };
            pasts.insert(*server, past);
        }
        for (scope, state) in self.scopes.iter() {
            for (server, rows) in &state.past {
                let past = pasts.get_mut(server).expect("whose rows are counted has a past");
                past.rows.push((scope, *rows));
            }
        }
        pasts.into_values().collect()
    }

    /// Whether a past of a floor is to be adopted: it is greater than what is here.
    pub(super) fn lacks_past(&self, past: &Past) -> bool {
        let own = self.pasts.0.get(&past.through.server);
        let place = own.is_some() || self.pasts.0.len() < PASTS_MAX;
        place && own.is_none_or(|(own, sums, _)| (*own, *sums) < (past.through, past.sums))
    }

    /// Counts a server's past as a floor says. Of its origins nothing is in memory any more.
    pub(super) fn adopt_past(&mut self, past: &Past, origins: &[OriginRef]) {
        let server = past.through.server;
        for &origin in origins {
            for (before, scope) in self.scopes.take_trimmed(origin) {
                self.count_past(scope, before, 0);
            }
            self.origins.forget_shown(&mut self.pool, origin);
        }
        for (before, scope) in self.scopes.take_past(server) {
            self.count_past(scope, before, 0);
        }
        for &(scope, rows) in &past.rows {
            self.scopes.set_past(scope, server, rows);
            self.count_past(scope, 0, rows);
        }
        let own = self.pasts.0.entry(server).or_default();
        let change = own.1.vector;
        *own = (past.through, past.sums, past.clock);
        self.origins.change_past(past.sums.vector.wrapping_sub(change));
    }

    /// So many rows of a scope are counted below all others, in place of so many.
    fn count_past(&mut self, scope: ScopeRef, before: u64, after: u64) {
        let all = &mut self.scopes.state_mut(scope).rows;
        all.set_trimmed(all.trimmed() - before + after);
        self.rows = self.rows - before + after;
        self.rows_trimmed = self.rows_trimmed - before + after;
    }

    /// The origins of a server that are no later than one of its starts.
    #[must_use]
    pub fn origins_through(&self, through: Origin) -> Vec<OriginRef> {
        let first = Origin { server: through.server, ..Origin::default() };
        self.origins.range(first, through).map(|(reference, _)| reference).collect()
    }
}
