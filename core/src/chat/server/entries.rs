//! How a message becomes an entry, and an entry is shown.

use alloc::string::String;
use alloc::vec::Vec;

use super::conn::{Unacknowledged, at, raise};
use super::{ChatServer, Effect};
use crate::archive::{Archive, EntryId, NewEntry};
use crate::hash;
use crate::ids::{AuthorId, ConnId, Origin, OriginRef, Position, ScopeRef, SessionId, Tag};
use crate::log::{Audience, Item};
use crate::outbox::Outbox;
use crate::time::Time;
use crate::wire::chat::{Failed, Say};
use crate::wire::entry::{Portable, Scope};
use crate::wire::{Field, Reader, Reason, Seq};

impl ChatServer {
    pub(super) fn on_say(
        &mut self,
        now: Time,
        conn: ConnId,
        say: &Say<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let Some(attached) = self.conns.get(conn).and_then(|conn| conn.attached()) else {
            return Err(Reason::NotAttached);
        };
        let author = attached.author;
        let known = say.number > 0 && self.archive.has_row(&author, say.number);
        if let Some(reason) = if known { None } else { self.refusal(conn, author, say) } {
            let failed = Failed { request: say.number, say: true, reason, detail: "" };
            self.send(conn, &failed, out);
            // Who provokes answers and does not read them is not read either.
            self.pause_if_behind(conn, out);
            return Ok(());
        }
        let row = if known {
            // What was trimmed since is as safe as it gets.
            self.archive.row(&author, say.number)
        } else {
            Some(self.accept_say(now, conn, author, say, out)?)
        };
        let (origin, number, index) = row.map_or((self.own, 0, 0), |row| {
            (self.archive.origin_of(row), self.archive.number_of(row), self.archive.index(row))
        });
        if let Some(attached) = self.conns.get_mut(conn).and_then(|conn| conn.attached_mut()) {
            let author_number = say.number;
            let unacknowledged = Unacknowledged { author_number, origin, number, index };
            attached.unacknowledged.push_back(unacknowledged);
            if !core::mem::replace(&mut attached.is_acknowledging, true) {
                self.acknowledging.push(conn);
            }
        }
        self.soon.acknowledge = true;
        self.pause_if_behind(conn, out);
        Ok(())
    }

    /// Why a message is not taken, if it is not.
    fn refusal(&self, conn: ConnId, author: AuthorId, say: &Say<'_>) -> Option<Reason> {
        let attached = self.conns.get(conn)?.attached()?;
        if say.body.is_empty() {
            return Some(Reason::BodyEmpty);
        }
        if say.body.len() > self.limits().body_bytes_max as usize {
            return Some(Reason::BodyTooLong);
        }
        // A number below the last can only be that of a message that was lost with its server.
        let last = self.archive.author_number(&author);
        if say.number == 0 || say.number > last + 1 {
            return Some(Reason::OutOfOrder);
        }
        // What another server may have accepted under that number must not be refused here: the
        // number would stand for two messages.
        let again = say.number <= attached.said_before;
        match say.scope {
            Scope::Room(room) => {
                if attached.rooms.binary_search_by(|other| other.as_str().cmp(room)).is_ok() {
                    return None;
                }
                match self.rooms.get(room) {
                    Some(_) => (!again).then_some(Reason::NotMember),
                    None => Some(Reason::RoomUnknown),
                }
            }
            Scope::Talk { low, high, .. } => {
                let other = match attached.session {
                    own if own == low => high,
                    own if own == high => low,
                    _ => return Some(Reason::UserUnknown),
                };
                if again {
                    return None;
                }
                if self.roster.get(other).is_none() {
                    return Some(Reason::UserUnknown);
                }
                let many = self.archive.talk_count() >= u64::from(self.limits().talks_max);
                let new = self.archive.find_scope(&say.scope).is_none();
                (many && new).then_some(Reason::TooManyTalks)
            }
        }
    }

    fn accept_say(
        &mut self,
        now: Time,
        conn: ConnId,
        author: AuthorId,
        say: &Say<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<EntryId, Reason> {
        let mut after = Vec::new();
        for (origin, number) in say.after {
            if self.archive.has_reference(origin) && self.archive.is_vacant(origin) {
                // It belongs to a past by now: everyone has it.
                continue;
            }
            if !self.archive.has_reference(origin) || number > self.archive.shown(origin) {
                // More than this server showed: nobody can have seen that here.
                return Err(Reason::BadRequest);
            }
            // What members are known to hold goes unsaid nowhere: one that nobody knows of yet, in
            // another part of the network, may lack it.
            if origin != self.own {
                after.push((origin, number));
            }
        }
        let name = self.take_name(conn);
        let scope = match say.scope {
            Scope::Talk { low, high, .. } => {
                let other = if author.session == low { high } else { low };
                let name = self.roster.get(other).map_or("", |record| record.name.as_str());
                Some((low, high, String::from(name)))
            }
            Scope::Room(_) => None,
        };
        let scope = match &scope {
            Some((low, high, other)) => Scope::Talk { low: *low, high: *high, other },
            None => say.scope,
        };
        self.stats.accepted += 1;
        let said = Said { author, author_number: say.number, name: &name, scope, body: say.body };
        let row = self.append_own(now, &said, after, out);
        if let Some(attached) = self.conns.get_mut(conn).and_then(|conn| conn.attached_mut()) {
            attached.name = name;
        }
        Ok(row)
    }

    /// Borrows the name that a client writes under: copying it would allocate at every message.
    fn take_name(&mut self, conn: ConnId) -> String {
        let attached = self.conns.get_mut(conn).and_then(|conn| conn.attached_mut());
        attached.map_or_else(String::new, |attached| core::mem::take(&mut attached.name))
    }

    /// Makes an entry of our own origin and shows it.
    pub(super) fn append_own(
        &mut self,
        now: Time,
        said: &Said<'_>,
        mut after: Vec<(OriginRef, u64)>,
        out: &mut Outbox<Effect>,
    ) -> EntryId {
        self.follow_previous(said, &mut after);
        after.retain(|&(origin, number)| !self.is_settled(origin, number));
        let mut floor = self.archive.author_clock(&said.author);
        for &(origin, number) in &after {
            if let Some(id) = self.archive.id(origin, number) {
                floor = floor.max(self.archive.clock_of(id));
            }
        }
        let clock = self.clock.stamp(now, floor);
        let number = self.archive.shown(self.own) + 1;
        let mut entry = NewEntry {
            origin: self.own,
            number,
            clock,
            author: said.author,
            author_number: said.author_number,
            name: said.name,
            scope: said.scope,
            after: &after,
            body: said.body,
            tag: Tag::default(),
        };
        let portable = out.encode(|arena| self.put_portable(&entry, arena));
        entry.tag = hash::entry_tag(&self.cluster.key.0, out.bytes(portable));
        self.show(&entry, out)
    }

    /// An author's message comes after its previous one, wherever that was accepted.
    fn follow_previous(&self, said: &Said<'_>, after: &mut Vec<(OriginRef, u64)>) {
        let previous = self.archive.author_number(&said.author);
        let Some(row) = self.archive.row(&said.author, previous) else { return };
        let (origin, number) = (self.archive.origin_of(row), self.archive.number_of(row));
        if origin == self.own {
            return;
        }
        match after.iter_mut().find(|(other, _)| *other == origin) {
            Some((_, listed)) => *listed = (*listed).max(number),
            None => after.push((origin, number)),
        }
    }

    /// Whether an entry was trimmed here, its origin has ended, and every member holds it: to say
    /// that something comes after it would but keep that origin in its place.
    fn is_settled(&self, origin: OriginRef, number: u64) -> bool {
        number < self.archive.first_number(origin)
            && number <= at(&self.stable_told, origin)
            && self.is_ended(&self.archive.origin(origin))
    }

    fn put_portable(&self, entry: &NewEntry<'_>, out: &mut Vec<u8>) {
        let after: Vec<(Origin, u64)> = entry
            .after
            .iter()
            .map(|(origin, number)| (self.archive.origin(*origin), *number))
            .collect();
        let portable = Portable {
            origin: self.archive.origin(entry.origin),
            number: entry.number,
            clock: entry.clock,
            author: entry.author,
            author_number: entry.author_number,
            name: entry.name,
            scope: entry.scope,
            after: Seq::new(&after),
            body: entry.body,
        };
        portable.put(out);
    }

    /// Takes an entry into the archive, publishes it and gives it to storage.
    fn show(&mut self, entry: &NewEntry<'_>, out: &mut Outbox<Effect>) -> EntryId {
        let inserted = self.archive.insert(entry);
        self.stats.shown += 1;
        self.stats.copies += u64::from(inserted.copy);
        if let Scope::Talk { low, high, .. } = entry.scope {
            self.show_talk(inserted.scope, low, high, out);
        }
        let own = entry.origin == self.own;
        let audience = match (own, inserted.copy) {
            (true, false) => Audience::All,
            (true, true) => Audience::Peers,
            (false, false) => Audience::Clients,
            (false, true) => Audience::Nobody,
        };
        let final_clock = self.final_clock;
        let frames = out.encode(|arena| self.archive.put_inserted(&inserted, final_clock, arena));
        let item = Item {
            bytes: frames.len() as u32,
            scope: inserted.scope,
            origin: entry.origin,
            number: entry.number,
            audience,
            row: !inserted.copy,
        };
        self.append(frames, item, out);
        self.persist(entry, out);
        inserted.id
    }

    /// Gives an entry that has just been inserted to storage.
    fn persist(&mut self, entry: &NewEntry<'_>, out: &mut Outbox<Effect>) {
        let bytes = out.encode(|arena| {
            arena.extend_from_slice(self.archive.inserted_portable());
            entry.tag.put(arena);
        });
        let storage = &mut self.storage;
        storage.given += 1;
        storage.bytes += bytes.len() as u64;
        storage.pending.push_back((storage.given, bytes.len() as u32, entry.origin, entry.number));
        out.push(Effect::Persist { sequence: storage.given, bytes });
    }

    /// Lets both sides of a talk see it, from its first entry on.
    fn show_talk(
        &mut self,
        scope: ScopeRef,
        low: SessionId,
        high: SessionId,
        out: &mut Outbox<Effect>,
    ) {
        let at = self.log.end;
        if planted!(TalkToAll) {
            let all: Vec<SessionId> = self.sessions.keys().copied().collect();
            all.into_iter().for_each(|session| self.show_talk_to(session, scope, at, out));
            return;
        }
        for session in [low, high] {
            self.show_talk_to(session, scope, at, out);
        }
    }

    fn show_talk_to(
        &mut self,
        session: SessionId,
        scope: ScopeRef,
        at: Position,
        out: &mut Outbox<Effect>,
    ) {
        let Some(&conn) = self.sessions.get(&session) else { return };
        let attached = self.conns.get_mut(conn).and_then(|conn| conn.attached_mut());
        let Some(attached) = attached else { return };
        let Err(place) = attached.scopes.binary_search(&scope) else { return };
        attached.scopes.insert(place, scope);
        if matches!(attached.feed, super::conn::Feed::Log) {
            out.push(Effect::Show { conn, scope, at, mt: 0 });
        }
    }

    pub(super) fn on_persisted(&mut self, through: u64, durable: bool, out: &mut Outbox<Effect>) {
        let storage = &mut self.storage;
        storage.persisted = storage.persisted.max(through.min(storage.given));
        if durable {
            storage.durable = storage.persisted;
        }
        while let Some(&(sequence, bytes, origin, number)) = storage.pending.front() {
            if sequence > storage.persisted {
                break;
            }
            storage.pending.pop_front();
            storage.bytes -= u64::from(bytes);
            raise(&mut storage.held, origin, number);
            if durable {
                raise(&mut storage.synced, origin, number);
            }
        }
        self.soon.acknowledge = true;
        self.soon.tell_held = true;
        self.unpause_all_behind(out);
    }

    /// What this server holds of an origin: shown, and given to storage for good.
    pub(super) fn holds(&self, origin: OriginRef) -> u64 {
        at(&self.storage.held, origin)
    }

    // Entries from elsewhere.

    /// An entry came from a peer. Entries of an origin are taken in order only.
    pub(super) fn on_foreign(
        &mut self,
        now: Time,
        entry: &NewEntry<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        if self.clock.is_absurd(now, entry.clock) {
            return Err(Reason::ClockAhead);
        }
        let origin = entry.origin;
        let held = self.archive.shown(origin) + self.waiting.count(origin);
        if entry.number <= held {
            return Ok(());
        }
        if entry.number > held + 1 {
            // A gap: what is missing is asked for.
            self.soon.plan_pulls = true;
            return Ok(());
        }
        if !self.is_believable(entry) {
            return Err(Reason::BadFrame);
        }
        self.clock.observe(now, entry.clock);
        if self.waiting.count(origin) > 0 || !self.is_showable(entry) {
            self.hold(entry);
            return Ok(());
        }
        self.show_foreign(entry, out);
        self.show_waiting(out);
        Ok(())
    }

    /// Whether an entry can be what it says: the archive relies on it.
    fn is_believable(&self, entry: &NewEntry<'_>) -> bool {
        let origin = entry.origin;
        let last = self.waiting.last_clock(origin).unwrap_or(self.archive.origin_clock(origin));
        entry.clock > last
            && Archive::fits(entry)
            && self.archive.may_follow(&entry.author, entry.author_number)
    }

    /// Whether everything that an entry comes after was shown, or can never be.
    fn is_showable(&self, entry: &NewEntry<'_>) -> bool {
        planted!(IgnoreCause)
            || entry.after.iter().all(|&(origin, number)| {
                self.archive.shown(origin) >= number
                    || self.is_void(&self.archive.origin(origin), number)
            })
    }

    fn hold(&mut self, entry: &NewEntry<'_>) {
        let mut portable = core::mem::take(&mut self.portable);
        portable.clear();
        self.put_portable(entry, &mut portable);
        self.waiting.hold(entry.origin, entry.number, entry.clock, &portable, entry.tag);
        self.portable = portable;
        self.stats.waited += 1;
        self.soon.plan_pulls = true;
    }

    fn show_foreign(&mut self, entry: &NewEntry<'_>, out: &mut Outbox<Effect>) {
        if let Scope::Room(room) = entry.scope {
            self.know_room(room, entry.clock, out);
        }
        self.show(entry, out);
        self.soon.tell_held = true;
        self.soon.attach = true;
        self.note_pulled(entry.origin, entry.number);
    }

    /// Shows whatever waited and need not wait any more.
    pub(super) fn show_waiting(&mut self, out: &mut Outbox<Effect>) {
        let mut progress = !self.waiting.is_empty();
        while progress {
            progress = false;
            let mut next = self.waiting.next_origin(None);
            while let Some(origin) = next {
                while self.first_is_showable(origin) {
                    self.show_first(origin, out);
                    progress = true;
                }
                next = self.waiting.next_origin(Some(origin));
            }
        }
    }

    fn first_is_showable(&self, origin: OriginRef) -> bool {
        let held = self.waiting.first(origin);
        let entry = held.and_then(|held| Portable::take(&mut Reader::new(&held.portable)).ok());
        entry.is_some_and(|entry| {
            entry.after.iter().all(|(origin, number)| {
                let shown = self.archive.find_origin(&origin).map_or(0, |o| self.archive.shown(o));
                shown >= number || self.is_void(&origin, number)
            })
        })
    }

    fn show_first(&mut self, origin: OriginRef, out: &mut Outbox<Effect>) {
        let Some(held) = self.waiting.take_first(origin) else { return };
        let Ok(entry) = Portable::take(&mut Reader::new(&held.portable)) else { return };
        let mut after = Vec::with_capacity(entry.after.len());
        for (other, number) in entry.after {
            if let Some(other) = self.define_origin(other, out) {
                after.push((other, number));
            }
        }
        let new = NewEntry {
            origin,
            number: entry.number,
            clock: entry.clock,
            author: entry.author,
            author_number: entry.author_number,
            name: entry.name,
            scope: entry.scope,
            after: &after,
            body: entry.body,
            tag: held.tag,
        };
        self.show_foreign(&new, out);
    }
}

/// What an entry says, before it has a place.
#[derive(Debug)]
pub(super) struct Said<'a> {
    pub(super) author: AuthorId,
    pub(super) author_number: u64,
    pub(super) name: &'a str,
    pub(super) scope: Scope<'a>,
    pub(super) body: &'a str,
}
