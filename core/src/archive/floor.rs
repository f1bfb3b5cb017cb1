//! What is left of trimmed entries, and how it is told to an archive that lacks them.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::authors::GAP_MAX;
use super::past::Past;
use super::past::PastOrder;
use super::pool::Id;
use super::store::Standing;
use super::{Archive, EntryId, forms, is_row};
use crate::ids::{AuthorId, Clock, OriginRef, ScopeRef, Tag};

/// What is left of everything that an archive trimmed.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    /// Of each origin, once.
    pub origins: Vec<FloorOrigin>,
    /// Of each server of which starts stand together, once.
    pub pasts: Vec<Past>,
    /// Which messages are counted.
    pub authors: Vec<FloorAuthor>,
    /// Whether there were authors that are not known any more.
    pub forgot: bool,
}

/// What is left of the trimmed entries of an origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FloorOrigin {
    /// Whose.
    pub origin: OriginRef,
    /// The last number that was trimmed.
    pub number: u64,
    /// The rolling hash after it.
    pub rolling: Tag,
    /// Its clock.
    pub clock: Clock,
    /// How many rows there were up to it, by scope, without those that had none.
    pub rows: Vec<(ScopeRef, u64)>,
}

/// Messages of an author, from one number through another, that are counted and trimmed, or taken
/// for lost before such.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FloorAuthor {
    /// Whose.
    pub author: AuthorId,
    /// The first of them.
    pub from: u64,
    /// The last of them.
    pub through: u64,
    /// At least the clock of every row of the author.
    pub clock: Clock,
}

/// What became of an archive that adopted a floor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Adopted {
    /// The scopes that are counted otherwise.
    pub raised: Vec<Raised>,
    /// Rows of origins that belong to a past now, and which that past does not count: nobody else
    /// has them. Entries in portable form, in the order in which they had arrived.
    pub orphans: Vec<Vec<u8>>,
}

/// A scope whose rows are counted otherwise since a floor was adopted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Raised {
    /// The scope.
    pub scope: ScopeRef,
    /// Its rows before.
    pub before: u64,
    /// Its rows now.
    pub after: u64,
}

/// Numbers up to this are believed: their sums do not overflow.
const NUMBER_MAX: u64 = 1 << 48;
/// Messages above one of their author that is not trimmed. There are few: they were trimmed
/// because another copy of an earlier message came later.
const SCATTERED_MAX: u64 = 1 << 20;

impl Floor {
    /// Whether it can be what some archive trimmed.
    #[must_use]
    pub fn is_believable(&self) -> bool {
        let mut known = BTreeSet::new();
        let origins = self.origins.iter().all(|floor| {
            let rows = floor.rows.iter().try_fold(0_u64, |sum, (_, rows)| sum.checked_add(*rows));
            let counted = rows.is_some_and(|rows| rows <= floor.number);
            (1..=NUMBER_MAX).contains(&floor.number) && counted && known.insert(floor.origin)
        });
        let mut servers = BTreeSet::new();
        let pasts = self.pasts.iter().all(|past| {
            let rows = past.rows.iter().try_fold(0_u64, |sum, (_, rows)| sum.checked_add(*rows));
            rows.is_some_and(|rows| rows <= NUMBER_MAX) && servers.insert(past.through.server)
        });
        let mut scattered = 0;
        let authors = self.authors.iter().all(|floor| {
            let length = floor.through.saturating_sub(floor.from).saturating_add(1);
            if floor.from > 1 {
                scattered = length.saturating_add(scattered);
            }
            (1..=floor.through).contains(&floor.from) && floor.through <= NUMBER_MAX
        });
        origins && pasts && authors && scattered <= SCATTERED_MAX.max(GAP_MAX)
    }
}

impl Archive {
    /// What is left of what was trimmed here.
    #[must_use]
    pub fn floor(&self) -> Floor {
        let mut origins: Vec<FloorOrigin> = self
            .origins
            .iter()
            .map(|(origin, state)| FloorOrigin {
                origin,
                number: state.entries.front() - 1,
                rolling: state.floor.1,
                clock: state.floor.0,
                rows: Vec::new(),
            })
            .collect();
        for (scope, state) in self.scopes.iter() {
            for list in state.by_origin.iter().filter(|list| list.rows.trimmed() > 0) {
                let more = u64::from(planted!(FloorOffByOne));
                let rows = (list.rows.trimmed() + more).min(list.rows.end());
                let at = origins.binary_search_by_key(&list.origin, |floor| floor.origin);
                origins[at.expect("whose rows are counted is known")].rows.push((scope, rows));
            }
        }
        origins.retain(|floor| floor.number > 0);
        let authors = self
            .authors
            .floors(&self.pool, |id, author, number| self.live_row(id, author, number).is_some());
        let pasts = self.floor_pasts();
        Floor { origins, pasts, authors, forgot: self.authors.forgot() }
    }

    /// Counts from now on as if everything up to `floor` had been shown here and trimmed, given
    /// that something of it was not shown: otherwise the own floor stays.
    ///
    /// The floor must be [believable](Floor::is_believable), its origins and scopes be defined.
    pub fn adopt_floor(&mut self, floor: &Floor) -> Adopted {
        let lacks_past = |past: &Past| {
            self.lacks_past(past)
                && self.compare_past(past.through, past.sums) == PastOrder::Greater
        };
        let lacks = |floor: &FloorOrigin| {
            floor.number > self.shown(floor.origin) && !self.is_past(&self.origin(floor.origin))
        };
        if !floor.origins.iter().any(lacks) && !floor.pasts.iter().any(lacks_past) {
            return Adopted::default();
        }
        let before: Vec<u64> = self.scopes.iter().map(|(_, state)| state.rows.end()).collect();
        let mut lost = BTreeSet::new();
        let mut rows = Vec::new();
        for past in &floor.pasts {
            if self.lacks_past(past) {
                let origins = self.origins_through(past.through);
                for origin in &origins {
                    self.collect_rows(*origin, &mut rows);
                    self.drop_below(&self.whole(*origin), &mut lost);
                }
                self.adopt_past(past, &origins);
            }
        }
        for origin in &floor.origins {
            if origin.number >= self.first_number(origin.origin)
                && !self.is_past(&self.origin(origin.origin))
            {
                self.drop_below(origin, &mut lost);
                self.count_below(origin);
                self.origins.adopt(&mut self.pool, origin);
            }
        }
        for author in &floor.authors {
            self.adopt_author(author);
        }
        for author in &lost {
            self.authors.end_lost(&mut self.pool, author);
        }
        self.authors.adopted(&mut self.pool, floor.forgot);
        let orphans = self.orphans(rows);
        self.trim();
        let scopes = self.scopes.iter().zip(before);
        let raised = scopes
            .map(|((scope, state), before)| Raised { scope, before, after: state.rows.end() })
            .filter(|raised| raised.before != raised.after)
            .collect();
        Adopted { raised, orphans }
    }

    /// The rows of an origin that are in memory.
    fn collect_rows(&self, origin: OriginRef, rows: &mut Vec<EntryId>) {
        let numbers = self.first_number(origin)..=self.shown(origin);
        let ids = numbers.filter_map(|number| self.id(origin, number));
        rows.extend(ids.filter(|id| !self.is_copy(*id)));
    }

    /// All of an origin, as a floor.
    fn whole(&self, origin: OriginRef) -> FloorOrigin {
        let (number, rolling) = (self.shown(origin), self.rolling(origin));
        FloorOrigin { origin, number, rolling, clock: self.origin_clock(origin), rows: Vec::new() }
    }

    /// Of rows that are none any more, the messages that do not count as shown. Of an author who may
    /// have been forgotten none is known not to.
    fn orphans(&self, mut rows: Vec<EntryId>) -> Vec<Vec<u8>> {
        rows.sort_unstable();
        let mut orphans = Vec::new();
        for id in rows {
            let (author, number) = forms::author_of(self.store.bytes(id));
            let forgotten = self.authors.forgot() && self.author_number(&author) == 0;
            if !forgotten && !self.has_row(&author, number) {
                let mut portable = Vec::new();
                self.put_portable(id, &mut portable);
                orphans.push(portable);
            }
        }
        orphans
    }

    /// Takes what is in memory of an origin up to its floor out of every list. Whether its rows are
    /// counted is for the floor to say: some can be copies of what is above it.
    fn drop_below(&mut self, floor: &FloorOrigin, lost: &mut BTreeSet<AuthorId>) {
        let last = floor.number.min(self.shown(floor.origin));
        for number in self.first_number(floor.origin)..=last {
            let id = self.id(floor.origin, number).expect("no gap in an origin");
            let record = *self.store.record(id);
            match record.standing {
                Standing::Row => {
                    let (author, number) = forms::author_of(self.store.bytes_of(&record));
                    self.unfile(id);
                    self.authors.lose(&mut self.pool, &author, number);
                    lost.insert(author);
                }
                Standing::Demoted => {
                    let list = self.scopes.origin_rows_mut(record.scope, record.origin);
                    list.demoted.retain(|demoted| demoted.id != id);
                }
                Standing::Copy | Standing::Void => {}
            }
            self.store.record_mut(id).standing = Standing::Void;
        }
    }

    /// Counts the rows of an origin up to its floor as the floor says.
    fn count_below(&mut self, floor: &FloorOrigin) {
        let counted = self.scopes.iter().filter(|(_, state)| {
            let list = state.origin_rows(floor.origin);
            list.is_some_and(|list| list.rows.trimmed() > 0)
        });
        let counted: BTreeSet<ScopeRef> = counted.map(|(scope, _)| scope).collect();
        let rows = floor.rows.iter().copied();
        let uncounted = counted.iter().filter(|scope| rows.clone().all(|(s, _)| s != **scope));
        let uncounted: Vec<_> = uncounted.map(|scope| (*scope, 0)).collect();
        for (scope, rows) in rows.chain(uncounted) {
            let list = &mut self.scopes.origin_rows_mut(scope, floor.origin).rows;
            let before = list.trimmed();
            list.set_trimmed(rows);
            let all = &mut self.scopes.state_mut(scope).rows;
            all.set_trimmed(all.trimmed() - before + rows);
            self.rows = self.rows - before + rows;
            self.rows_trimmed = self.rows_trimmed - before + rows;
        }
    }

    /// Messages are counted below the floor: where they are in memory, they are copies.
    fn adopt_author(&mut self, floor: &FloorAuthor) {
        let mut count = 0;
        for (number, id) in self.authors.ids(&self.pool, floor) {
            let id = self.store.widen(id);
            if is_row(&self.store, id, &floor.author, number) {
                self.unfile(id);
                self.store.record_mut(id).standing = Standing::Demoted;
                count += 1;
            }
        }
        self.authors.adopt(&mut self.pool, floor, count);
    }

    /// Takes a row out of its scope.
    pub(super) fn unfile(&mut self, row: EntryId) {
        let record = *self.store.record(row);
        let Archive { store, pool, scopes, .. } = self;
        let low = row.0 as Id;

        let rows = &mut scopes.state_mut(record.scope).rows;
        let place = rows.find(pool, record.clock.0, low).expect("a row is in its scope");
        rows.remove(pool, place, |other| store.record(store.widen(other)).clock.0);

        let rows = &mut scopes.origin_rows_mut(record.scope, record.origin).rows;
        let place = rows.find(pool, record.number, low).expect("a row is in its list");
        rows.remove(pool, place, |other| store.record(store.widen(other)).number);
        self.rows -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;

    const SCATTERED: u64 = if SCATTERED_MAX > GAP_MAX { SCATTERED_MAX } else { GAP_MAX };

    fn origin(origin: u32, number: u64, rows: &[u64]) -> FloorOrigin {
        let rows = rows.iter().zip(0..).map(|(rows, scope)| (ScopeRef(scope), *rows)).collect();
        let origin = OriginRef(origin);
        FloorOrigin { origin, number, rolling: Tag([0; 16]), clock: Clock(1), rows }
    }

    fn author(from: u64, through: u64) -> FloorAuthor {
        let author = AuthorId { session: SessionId(1), process: 1 };
        FloorAuthor { author, from, through, clock: Clock(1) }
    }

    fn is_believed(origins: &[FloorOrigin], authors: &[FloorAuthor]) -> bool {
        let floor = Floor {
            origins: origins.to_vec(),
            authors: authors.to_vec(),
            forgot: false,
            pasts: Vec::new(),
        };
        floor.is_believable()
    }

    #[test]
    fn an_origin_has_no_more_rows_than_entries_and_stands_there_once() {
        assert!(is_believed(&[], &[]));
        assert!(is_believed(&[origin(0, 1, &[]), origin(1, NUMBER_MAX, &[1])], &[]));
        assert!(is_believed(&[origin(0, 7, &[3, 4])], &[]));
        assert!(!is_believed(&[origin(0, 7, &[3, 5])], &[]), "more rows than entries");
        assert!(!is_believed(&[origin(0, 7, &[u64::MAX, 1])], &[]), "a sum that overflows");
        assert!(!is_believed(&[origin(0, 0, &[])], &[]), "nothing trimmed is not told");
        assert!(!is_believed(&[origin(0, NUMBER_MAX + 1, &[])], &[]));
        assert!(!is_believed(&[origin(0, 7, &[]), origin(0, 7, &[])], &[]), "twice");
    }

    #[test]
    fn an_author_has_numbers_from_one_on_and_few_that_are_scattered() {
        assert!(is_believed(&[], &[author(1, NUMBER_MAX), author(5, 5)]));
        assert!(!is_believed(&[], &[author(1, NUMBER_MAX + 1)]));
        for (from, through) in [(0, 5), (6, 5), (0, 0), (0, u64::MAX), (u64::MAX, 0)] {
            assert!(!is_believed(&[], &[author(from, through)]), "{from} to {through}");
        }
        let many = author(2, SCATTERED + 1);
        assert!(is_believed(&[], &[many]));
        assert!(is_believed(&[], &[many, author(1, 9)]), "the first ones are not scattered");
        assert!(!is_believed(&[], &[many, author(9, 9)]));
        assert!(!is_believed(&[], &[author(2, SCATTERED + 2)]));
    }
}
