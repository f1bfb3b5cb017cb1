//! What must always hold in an archive.

use alloc::vec::Vec;

use super::pool::Id;
use super::scopes::ScopeState;
use super::store::Standing;
use super::{Archive, EntryId, forms};
use crate::ids::{Clock, ScopeRef};

impl Archive {
    /// Panics unless all lists agree with each other. Looks at every entry.
    pub fn check(&self) {
        let pasts = self.pasts().map(|(_, sums)| sums.vector);
        self.origins.check(pasts.fold(0, u64::wrapping_add));
        self.check_mentions();
        self.check_origins();
        let (mut rows, mut trimmed) = (0, 0);
        for (reference, scope) in self.scopes.iter() {
            self.check_scope(reference, scope);
            rows += scope.rows.end();
            trimmed += scope.rows.trimmed();
        }
        assert_eq!((rows, trimmed), (self.rows, self.rows_trimmed), "the sums over all scopes");
        self.authors
            .check(&self.pool, |id, author, number| self.live_row(id, author, number).is_some());
        let is_entry = |id: &EntryId| self.store.record(*id).standing != Standing::Void;
        for id in self.store.ids().map(EntryId).filter(is_entry) {
            let (author, number) = forms::author_of(self.store.bytes(id));
            let row = self.row(&author, number);
            assert_eq!(row == Some(id), !self.is_copy(id), "one row for each message");
            let rivals = |row: &EntryId| self.scope_of(*row) == self.scope_of(id);
            let row = row.filter(rivals);
            assert!(row.is_none_or(|row| self.key(row) <= self.key(id)), "the least is the row");
            // A copy in another scope than its row, which only a lie can be, does not count as the
            // author's: it may outlast the row, which went below an adopted floor.
            let counted = !self.is_copy(id) || row.is_some();
            assert!(
                !counted || number <= self.author_number(&author),
                "an author's highest number"
            );
        }
        assert_eq!(self.pool.used(), self.runs(), "every run is in one list");
    }

    fn check_mentions(&self) {
        let mut mentions = alloc::collections::BTreeMap::<_, u64>::new();
        for id in self.store.ids().map(EntryId) {
            for origin in forms::after_of(self.store.bytes(id)) {
                *mentions.entry(origin).or_default() += 1;
            }
        }
        for (reference, state) in self.origins.iter() {
            let counted = mentions.remove(&reference).unwrap_or(0);
            assert_eq!(counted, state.mentions, "what entries name is counted");
        }
        assert!(mentions.is_empty(), "what entries name has a place");
    }

    fn check_origins(&self) {
        for (reference, state) in self.origins.iter() {
            let past = self.is_past(&state.value);
            assert!(!past || state.shown() == 0, "what belongs to the past counts there alone");
            let mut clock = Clock(0);
            for number in state.entries.front()..=state.shown() {
                let id = self.id(reference, number).expect("no gap in an origin");
                let record = self.store.record(id);
                assert_eq!((record.origin, record.number), (reference, number));
                assert!(record.clock > clock, "clocks increase within an origin");
                clock = record.clock;
            }
            assert!(state.entries.is_empty() || state.clock == clock, "the last clock");
        }
    }

    fn check_scope(&self, reference: ScopeRef, scope: &ScopeState) {
        let clock_of = |id: Id| self.clock_of(self.store.widen(id)).0;
        let number_of = |id: Id| self.number_of(self.store.widen(id));
        scope.rows.check(&self.pool, clock_of);
        let ids: Vec<_> = self.page(reference, 0, usize::MAX).collect();
        assert!(ids.is_sorted_by_key(|id| self.key(*id)), "the canonical order");
        for (index, &id) in (scope.rows.trimmed() + 1..).zip(&ids) {
            assert_eq!(self.scope_of(id), reference);
            assert_eq!(self.index(id), index);
        }
        let (mut rows, mut trimmed) = (scope.past_rows(), scope.past_rows());
        for list in &scope.by_origin {
            list.rows.check(&self.pool, number_of);
            let here = list.rows.iter_from(&self.pool, 0).map(|id| self.store.widen(id));
            for id in here {
                let record = self.store.record(id);
                assert_eq!((record.scope, record.origin), (reference, list.origin));
                assert_eq!(record.standing, Standing::Row);
            }
            for demoted in &list.demoted {
                assert_eq!(self.store.record(demoted.id).standing, Standing::Demoted);
            }
            rows += list.rows.end();
            trimmed += list.rows.trimmed();
        }
        assert_eq!((rows, trimmed), (scope.rows.end(), scope.rows.trimmed()), "rows by origin");
    }

    fn runs(&self) -> usize {
        let origins = self.origins.iter().map(|(_, state)| state.entries.runs());
        let scopes = self.scopes.iter().map(|(_, scope)| {
            let by_origin = scope.by_origin.iter().map(|list| list.rows.runs());
            scope.rows.runs() + by_origin.sum::<usize>()
        });
        origins.sum::<usize>() + scopes.sum::<usize>() + self.authors.runs()
    }
}
