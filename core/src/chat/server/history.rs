//! Messages by index, and those that contain certain words.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::conn::Search;
use super::requests::LIST_FRAME_BYTES;
use super::{ChatServer, Effect};
use crate::archive::EntryId;
use crate::framing::FRAME_BYTES_MAX;
use crate::ids::{ConnId, ScopeRef};
use crate::names;
use crate::outbox::Outbox;
use crate::wire::chat::{self, Failed, Page};
use crate::wire::entry::{Entry, Scope};
use crate::wire::{Message, Reason, Seq};

/// Entries that a search looks at before it lets others have a turn.
const SEARCH_STEP: usize = 2_048;

impl ChatServer {
    pub(super) fn on_history(
        &mut self,
        id: ConnId,
        ask: &chat::AskHistory<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let session = self.may_ask(id)?.session;
        let scope = match ask.scope {
            Scope::Room(room) => {
                let room = names::room(room)?;
                if self.rooms.get(&room).is_none() {
                    return Err(Reason::RoomUnknown);
                }
                self.archive.find_scope(&Scope::Room(&room))
            }
            Scope::Talk { low, high, .. } => {
                if session != low && session != high {
                    return Err(Reason::UserUnknown);
                }
                self.archive.find_scope(&ask.scope)
            }
        };
        let total = scope.map_or(0, |scope| self.archive.scope_rows(scope));
        let count = u64::from(ask.count.min(self.limits().page_entries_max));
        let from = if ask.from == 0 { total.saturating_sub(count) + 1 } else { ask.from };
        let trimmed = scope.map_or(0, |scope| self.archive.scope_trimmed(scope));
        let end = from.saturating_add(count);
        if ask.from != 0 && count > 0 && end <= trimmed + 1 {
            self.refuse_trimmed(id, ask.request, trimmed, out);
            return Ok(());
        }
        // A page begins with the first that is kept: what is below is not made up for above.
        let count = end - from.max(trimmed + 1).min(end);
        let entries: Vec<EntryId> = scope
            .map(|scope| self.archive.page(scope, from, count as usize).collect())
            .unwrap_or_default();
        let entries = self.that_fit_an_answer(&entries, ask.from == 0);
        self.send_pages(id, ask.request, total, entries, out);
        Ok(())
    }

    /// All that is asked for was trimmed.
    fn refuse_trimmed(&mut self, id: ConnId, request: u64, trimmed: u64, out: &mut Outbox<Effect>) {
        let detail = format!("kept from message {} on", trimmed + 1);
        let reason = Reason::Trimmed;
        self.send(id, &Failed { request, say: false, reason, detail: &detail }, out);
    }

    /// The first of `entries`, or the last, that fit a queue; one at the least.
    fn that_fit_an_answer<'e>(&self, entries: &'e [EntryId], last: bool) -> &'e [EntryId] {
        let bytes_max = self.at_most_a_share(self.limits().queue_bytes_max) as usize;
        let mut bytes = 0;
        let mut fits = |id: &&EntryId| {
            let first = bytes == 0;
            bytes += entry_bytes_max(&self.archive.entry(**id, self.final_clock));
            first || bytes <= bytes_max
        };
        if last {
            let count = entries.iter().rev().take_while(|id| fits(id)).count();
            &entries[entries.len() - count..]
        } else {
            let count = entries.iter().take_while(|id| fits(id)).count();
            &entries[..count]
        }
    }

    /// Sends entries as an answer, in as many frames as they need.
    fn send_pages(
        &mut self,
        id: ConnId,
        request: u64,
        total: u64,
        entries: &[EntryId],
        out: &mut Outbox<Effect>,
    ) {
        let mut rest = entries;
        loop {
            let mut page: Vec<Entry<'_>> = Vec::new();
            let mut bytes = LIST_FRAME_BYTES;
            for id in rest {
                let entry = self.archive.entry(*id, self.final_clock);
                bytes += entry_bytes_max(&entry);
                if bytes > FRAME_BYTES_MAX && !page.is_empty() {
                    break;
                }
                page.push(entry);
            }
            rest = &rest[page.len()..];
            let more = !rest.is_empty();
            let part = Page { request, more, total, entries: Seq::new(&page) };
            let span = out.encode(|arena| part.put_frame(arena));
            self.queue(id, span.len());
            out.push(Effect::Send { conn: id, bytes: span, notify: false });
            if !more {
                return;
            }
        }
    }

    pub(super) fn on_search(&mut self, id: ConnId, ask: &chat::Search<'_>) -> Result<(), Reason> {
        let words: Vec<String> = ask.words.split_whitespace().map(str::to_lowercase).collect();
        let attached = self.conns.get_mut(id).and_then(|conn| conn.attached_mut());
        let attached = attached.ok_or(Reason::NotAttached)?;
        if words.is_empty() {
            return Err(Reason::SearchEmpty);
        }
        if attached.search.is_some() {
            return Err(Reason::Busy);
        }
        let request = ask.request;
        attached.search =
            Some(Search { request, words, before: None, started: false, found: Vec::new() });
        self.soon.search = true;
        Ok(())
    }

    /// Goes on with every search, a step each. Returns whether any is still under way.
    pub(super) fn search_all(&mut self, out: &mut Outbox<Effect>) -> bool {
        let searching: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.attached().is_some_and(|a| a.search.is_some()))
            .map(|(id, _)| id)
            .collect();
        let mut more = false;
        let round = self.round_limit();
        for id in searching {
            if self.is_round_over(round) {
                return true;
            }
            more |= self.search_step(id, out);
        }
        more
    }

    fn search_step(&mut self, id: ConnId, out: &mut Outbox<Effect>) -> bool {
        // One more than is sent says that there are more.
        let found_max = self.limits().search_results_max as usize + 1;
        let Some(attached) = self.conns.get_mut(id).and_then(|conn| conn.attached_mut()) else {
            return false;
        };
        let Some(mut search) = attached.search.take() else { return false };
        let mut visible: Vec<ScopeRef> = attached.scopes.clone();
        visible.extend(attached.backfills.iter().map(|backfill| backfill.scope));
        let mut looked_at = 0;
        let mut whole = true;
        if !search.started || search.before.is_some() {
            for row in self.archive.newest_first(search.before) {
                if looked_at == SEARCH_STEP || search.found.len() == found_max {
                    whole = search.found.len() == found_max;
                    break;
                }
                looked_at += 1;
                search.before = Some(row);
                if self.archive.is_copy(row) || !visible.contains(&self.archive.scope_of(row)) {
                    continue;
                }
                let body = self.archive.body_of(row).to_lowercase();
                if search.words.iter().all(|word| body.contains(word.as_str())) {
                    search.found.push(row);
                }
            }
        }
        search.started = true;
        if whole {
            // A search takes its time: what it found can be trimmed meanwhile.
            search.found.retain(|row| self.archive.contains(*row));
            let total = search.found.len() as u64;
            search.found.truncate(found_max - 1);
            self.send_pages(id, search.request, total, &search.found, out);
            return false;
        }
        if let Some(attached) = self.conns.get_mut(id).and_then(|conn| conn.attached_mut()) {
            attached.search = Some(search);
        }
        true
    }
}

/// An upper bound of an entry's bytes: texts, pairs, and at most 128 for all else.
fn entry_bytes_max(entry: &Entry<'_>) -> usize {
    let other = match entry.scope {
        Scope::Room(name) => name.len(),
        Scope::Talk { other, .. } => other.len(),
    };
    entry.body.len() + entry.name.len() + other + 15 * entry.after.len() + 128
}
