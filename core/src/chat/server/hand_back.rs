//! What died with its server comes back from clients that saw it.
//!
//! ```text
//! Want ─▶ Return … Return ─▶ Returned ─▶ attached
//!           │ an earlier message of its author is lacking
//!           └──▶ held, until that comes, for as long as a resume waits at the most
//! ```

use alloc::vec::Vec;

use super::conn::Client;
use super::entries::Said;
use super::roster::Record;
use super::{ChatServer, Effect};
use crate::hash;
use crate::ids::{Clock, ConnId, OriginRef, Tag};
use crate::limits::HELD_BACK_BYTES_MAX;
use crate::outbox::Outbox;
use crate::time::Time;
use crate::wire::chat::Return;
use crate::wire::entry::{Portable, Scope};
use crate::wire::{Field, Message, Reason};

impl ChatServer {
    pub(super) fn on_return(
        &mut self,
        now: Time,
        id: ConnId,
        back: &Return<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let wait = self.limits().resume_us_max;
        let waits = self.lacks_earlier(&back.entry);
        let Some(Client::Returning(_, hand_back)) = self.client_mut(id) else {
            return Err(Reason::Unexpected);
        };
        // A slow link may need longer for all than anybody waits for one.
        hand_back.deadline = (now + wait).min(hand_back.latest);
        if !waits && hand_back.held.is_empty() {
            self.take_back(now, &back.entry, back.tag, out);
            self.soon.attach = true;
            return Ok(());
        }
        let mut bytes = Vec::new();
        back.put(&mut bytes);
        hand_back.held_bytes += bytes.len();
        hand_back.held.push_back(bytes);
        let full = hand_back.held_bytes as u64 > HELD_BACK_BYTES_MAX;
        self.take_held_back(now, id, full, out);
        Ok(())
    }

    pub(super) fn on_returned(
        &mut self,
        now: Time,
        id: ConnId,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let wait = self.limits().resume_us_max;
        let Some(Client::Returning(_, hand_back)) = self.client_mut(id) else {
            return Err(Reason::Unexpected);
        };
        if hand_back.whole {
            return Err(Reason::Unexpected);
        }
        hand_back.whole = true;
        hand_back.deadline = now + wait;
        self.go_on_returning(now, id, out);
        Ok(())
    }

    /// Whether an earlier message of its author, who is there, is still lacking. It may come any
    /// moment: its author was at the same server that died, or says it again.
    fn lacks_earlier(&self, entry: &Portable<'_>) -> bool {
        entry.author_number > self.archive.author_number(&entry.author) + 1
            && self.roster.get(entry.author.session).is_some_and(Record::is_here)
    }

    /// Attaches a client that handed everything back, once all of it is taken in.
    pub(super) fn go_on_returning(&mut self, now: Time, id: ConnId, out: &mut Outbox<Effect>) {
        let Some(Client::Returning(_, hand_back)) = self.client_ref(id) else { return };
        let (whole, overdue) = (hand_back.whole, now >= hand_back.deadline);
        if !whole && overdue {
            return self.close(id, Reason::HelloTimeout, out);
        }
        if self.take_held_back(now, id, overdue, out) && whole {
            self.take_request(id)
                .into_iter()
                .for_each(|request| self.attach(now, id, request, out));
        }
    }

    /// Takes in what was held up and lacks nothing any more, or whatever it lacks when that is
    /// waited for no longer. Returns whether nothing is held up now.
    fn take_held_back(
        &mut self,
        now: Time,
        id: ConnId,
        no_longer: bool,
        out: &mut Outbox<Effect>,
    ) -> bool {
        loop {
            let Some(Client::Returning(_, hand_back)) = self.client_mut(id) else { return false };
            let Some(bytes) = hand_back.held.pop_front() else { return true };
            let Ok(back) = Return::parse(&bytes) else { continue };
            if !no_longer && self.lacks_earlier(&back.entry) {
                if let Some(Client::Returning(_, hand_back)) = self.client_mut(id) {
                    hand_back.held.push_front(bytes);
                }
                return false;
            }
            self.take_back(now, &back.entry, back.tag, out);
            // Others may wait for this one.
            self.soon.attach = true;
            if let Some(Client::Returning(_, hand_back)) = self.client_mut(id) {
                hand_back.held_bytes -= bytes.len();
            }
        }
    }

    /// A client hands back what no server holds any more: it becomes a new entry of ours. What no
    /// server of this cluster ever accepted is passed over: where all servers lost all they had,
    /// the cluster is another one, and the client goes on in it with less.
    fn take_back(&mut self, now: Time, entry: &Portable<'_>, tag: Tag, out: &mut Outbox<Effect>) {
        if planted!(LoseHandBack) {
            return;
        }
        let portable = out.encode(|arena| entry.put(arena));
        let genuine = |key| hash::entry_tag(key, out.bytes(portable)) == tag;
        if !genuine(&self.cluster.key.0) && !self.old_keys.iter().any(genuine) {
            return;
        }
        self.take_in_again(now, entry, out);
    }

    /// Makes a new entry of ours of one that nobody has any more, or that nobody but us ever had,
    /// unless its message is here.
    pub(super) fn take_in_again(
        &mut self,
        now: Time,
        entry: &Portable<'_>,
        out: &mut Outbox<Effect>,
    ) {
        let known = self.archive.find_origin(&entry.origin);
        let here = known.is_some_and(|origin| self.archive.shown(origin) >= entry.number);
        if here
            || self.archive.has_row(&entry.author, entry.author_number)
            || !self.archive.may_follow(&entry.author, entry.author_number)
        {
            return;
        }
        if let Scope::Room(room) = entry.scope {
            self.know_room(room, entry.clock, out);
        }
        self.stats.returned += 1;
        self.clock.observe(now, entry.clock);
        let said = Said {
            author: entry.author,
            author_number: entry.author_number,
            name: entry.name,
            scope: entry.scope,
            body: entry.body,
        };
        // Above its old clock, so that what came after it still does.
        self.clock.raise(Clock(
            entry.clock.0.min(self.clock.wall(now) + self.limits().clock_drag_us_max),
        ));
        let after = self.causes_here(entry);
        self.append_own(now, &said, after, out);
    }

    /// What an entry came after where it was accepted first, as far as it is here: what it lists,
    /// and what stood before it in its origin. The rest was handed back before it, or is lost.
    fn causes_here(&self, entry: &Portable<'_>) -> Vec<(OriginRef, u64)> {
        let before = (entry.origin, entry.number.saturating_sub(1));
        let mut causes: Vec<(OriginRef, u64)> = Vec::new();
        for (origin, number) in entry.after.iter().chain([before]) {
            let Some(origin) = self.archive.find_origin(&origin) else { continue };
            let number = number.min(self.archive.shown(origin));
            if number > 0 && origin != self.own {
                causes.push((origin, number));
            }
        }
        causes
    }
}
