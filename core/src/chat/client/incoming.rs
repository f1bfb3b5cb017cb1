//! What an attached server sends.

use super::api::{Effect, Event, Message as Shown};
use super::link::Phase;
use super::outgoing::Addressee;
use super::rooms::Partial;
use super::roster::Change;
use super::rows::RowScope;
use super::seen::OriginIndex;
use super::tell::{tell, tell_change, tell_message, text};
use super::{ChatClient, Place, Role};
use crate::framing::Frame;
use crate::ids::{Origin, OriginRef};
use crate::outbox::Outbox;
use crate::time::Time;
use crate::wire::chat::{
    Ack, Arrived, Attached, CaughtUp, Departed, Done, Failed, Joined, Left, Page, Redirect,
    Renamed, RoomList, RoomMade, Servers, Stable, Status, TopicSet, UserList, Want,
};
use crate::wire::entry::{Entry, OriginDef, flags};
use crate::wire::hello::{Bye, Ping, Pong, Welcome};
use crate::wire::{Field, Message, Reason, WireError};

impl ChatClient {
    pub(super) fn on_frame(
        &mut self,
        now: Time,
        role: Role,
        frame: Frame<'_>,
        out: &mut Outbox<Effect>,
    ) {
        let taken = match role {
            Role::Primary => self.on_primary_frame(now, frame, out),
            _ => self.on_common_frame(now, role, frame, out),
        };
        if let Err(error) = taken {
            self.on_broken(now, role, error, out);
        }
    }

    fn on_primary_frame(
        &mut self,
        now: Time,
        frame: Frame<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), WireError> {
        let Some(phase) = self.primary.as_ref().map(|link| link.phase) else { return Ok(()) };
        match phase {
            Phase::Attached => self.on_attached_frame(now, frame, out),
            Phase::Attaching => self.on_attaching_frame(now, frame, out),
            _ => self.on_common_frame(now, Role::Primary, frame, out),
        }
    }

    /// What may come on any connection.
    fn on_common_frame(
        &mut self,
        now: Time,
        role: Role,
        frame: Frame<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), WireError> {
        let Some(link) = self.link_mut(role) else { return Ok(()) };
        let bytes = frame.payload;
        match frame.kind {
            Welcome::KIND if link.phase == Phase::Greeting => {
                self.on_welcome(now, role, &Welcome::parse(bytes)?, out);
            }
            Welcome::KIND if link.phase > Phase::Greeting => {
                // Its cluster met one that was founded before, and is that one from now on.
                let cluster = Some(Welcome::parse(bytes)?.cluster_id);
                link.cluster = cluster;
                if link.phase == Phase::Attached {
                    self.me.cluster = cluster;
                }
            }
            Bye::KIND => self.on_bye(now, role, &Bye::parse(bytes)?, out),
            Ping::KIND => {
                let Ping { nonce } = Ping::parse(bytes)?;
                link.send(&Pong { nonce }, out);
            }
            OriginDef::KIND => {
                let OriginDef { reference, origin } = OriginDef::parse(bytes)?;
                self.define(now, role, reference, origin, out);
                self.resend_when_told(out);
            }
            Servers::KIND if role == Role::Primary => {
                self.on_servers(now, Servers::parse(bytes)?, out);
            }
            // Pongs are signs of life and nothing more; the rest is of newer versions.
            _ => {}
        }
        Ok(())
    }

    fn on_attaching_frame(
        &mut self,
        now: Time,
        frame: Frame<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), WireError> {
        let bytes = frame.payload;
        match frame.kind {
            Attached::KIND => self.on_attached(now, &Attached::parse(bytes)?, out),
            Want::KIND => self.on_want(now, &Want::parse(bytes)?, out),
            Redirect::KIND => self.on_redirect(now, &Redirect::parse(bytes)?, out),
            Failed::KIND => self.on_attach_failed(now, &Failed::parse(bytes)?, out),
            _ => return self.on_common_frame(now, Role::Primary, frame, out),
        }
        Ok(())
    }

    fn on_attached_frame(
        &mut self,
        now: Time,
        frame: Frame<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), WireError> {
        let bytes = frame.payload;
        match frame.kind {
            Entry::KIND => return self.on_entry(&Entry::parse(bytes)?, out),
            Ack::KIND => self.on_ack(&Ack::parse(bytes)?, out),
            Stable::KIND => self.on_stable(Stable::parse(bytes)?),
            CaughtUp::KIND => self.on_caught_up(now, CaughtUp::parse(bytes)?.room, out),
            Arrived::KIND | Departed::KIND | Renamed::KIND | RoomMade::KIND | TopicSet::KIND => {
                return self.on_event(frame, out);
            }
            UserList::KIND => self.on_users(now, &UserList::parse(bytes)?, out),
            RoomList::KIND => self.on_rooms(&RoomList::parse(bytes)?, out),
            Page::KIND => self.on_page(&Page::parse(bytes)?, out),
            Status::KIND => self.on_status(&Status::parse(bytes)?, out),
            Joined::KIND => self.on_joined(&Joined::parse(bytes)?, out),
            Left::KIND => {
                let Left { request, room } = Left::parse(bytes)?;
                let reference = self.answered(request, out).map_or(0, |asked| asked.reference);
                self.leave_room(room, reference, out);
            }
            Done::KIND => {
                if let Some(asked) = self.answered(Done::parse(bytes)?.request, out) {
                    tell(out, Event::Done { reference: asked.reference });
                }
            }
            Failed::KIND => self.on_failed(now, &Failed::parse(bytes)?, out),
            _ => return self.on_common_frame(now, Role::Primary, frame, out),
        }
        Ok(())
    }

    /// A message: the one thing that comes by the million.
    fn on_entry(&mut self, entry: &Entry<'_>, out: &mut Outbox<Effect>) -> Result<(), WireError> {
        let Some(link) = &self.primary else { return Ok(()) };
        let origin = link.origin(entry.origin).ok_or(WireError::BadValue)?;
        let Some(message) = Shown::of(entry, self.me.session) else {
            return Err(WireError::BadValue);
        };
        let Some(scope) = self.advance(&message, origin, entry.number) else { return Ok(()) };
        let said_here = message.id.author == self.author();
        if said_here {
            self.outgoing.see(entry.author_number);
        }
        if entry.flags & flags::COPY != 0 {
            return Ok(());
        }
        self.keep(entry, origin)?;
        let authors_max = self.config.limits.authors_max;
        let new = self.rows.add(scope, entry.author, entry.author_number, authors_max);
        if !new && !planted!(ShowAgain) {
            return Ok(());
        }
        match message.place {
            Place::Room(room) => {
                self.rooms.get_mut(room).into_iter().for_each(|room| room.held += 1);
            }
            Place::Talk { .. } => self.talks_held += 1,
        }
        let forgotten = message.replay && message.id.number <= self.me.forgotten;
        let shown_before = !self.shown_before.is_empty()
            && self.shown_before.has(scope, entry.author, entry.author_number);
        if (!said_here || forgotten) && !shown_before {
            tell_message(&message, out);
        }
        Ok(())
    }

    /// Moves the vector on. `None` when the message is of a room that the session is not in.
    fn advance(
        &mut self,
        message: &Shown<&str>,
        origin: OriginIndex,
        number: u64,
    ) -> Option<RowScope> {
        let name = match message.place {
            Place::Talk { session, .. } => {
                self.seen.advance(origin, number);
                return Some(RowScope::Talk(session));
            }
            Place::Room(name) => name,
        };
        let Some(room) = self.rooms.get_mut(name) else {
            self.seen.advance(origin, number);
            return None;
        };
        match &mut room.partial {
            Some(partial) if message.replay && !planted!(SkipPartial) => {
                partial.seen.raise(origin, number);
                self.seen.show(origin, number);
            }
            _ => self.seen.advance(origin, number),
        }
        Some(room.scope())
    }

    /// Keeps an entry in case its server dies with it.
    fn keep(&mut self, entry: &Entry<'_>, origin: OriginIndex) -> Result<(), WireError> {
        if self.seen.is_stable(origin, entry.number) {
            return Ok(());
        }
        let Some(link) = &self.primary else { return Ok(()) };
        for (reference, _) in entry.after {
            link.origin(reference).ok_or(WireError::BadValue)?;
        }
        let seen = &self.seen;
        let in_full = |reference: OriginRef| match link.origin(reference) {
            Some(index) => seen.origin(index),
            None => Origin::default(),
        };
        let bytes_max = self.config.limits.store_bytes_max;
        self.store.keep(origin, entry.number, entry.clock, bytes_max, |out| {
            // The fields of a `Return`: a portable entry and its tag.
            in_full(entry.origin).put(out);
            entry.number.put(out);
            entry.clock.put(out);
            entry.author.put(out);
            entry.author_number.put(out);
            entry.name.put(out);
            entry.scope.put(out);
            (entry.after.len() as u64).put(out);
            for (reference, number) in entry.after {
                (in_full(reference), number).put(out);
            }
            entry.body.put(out);
            entry.tag.put(out);
        });
        Ok(())
    }

    fn on_ack(&mut self, ack: &Ack<'_>, out: &mut Outbox<Effect>) {
        let author = self.author();
        for (number, index) in (ack.first..).zip(ack.indexes) {
            while let Some((settled, reference)) = self.outgoing.acknowledge_next(number) {
                // One that the server passed over has no index here.
                let index = if settled == number { index } else { 0 };
                let id = super::MessageId { author, number: settled };
                let (copies, durable) = (ack.copies, ack.durable);
                tell(out, Event::Sent { reference, id, index, copies, durable });
            }
        }
    }

    fn on_stable(&mut self, stable: Stable<'_>) {
        let Some(link) = &self.primary else { return };
        for (reference, number) in stable.held {
            if let Some(origin) = link.origin(reference) {
                self.seen.set_stable(origin, number);
            }
        }
        let (seen, rooms) = (&self.seen, &self.rooms);
        // Beyond all vectors lies what was handed back and has another number now.
        self.store.release(|origin, number| {
            let claimed = seen.base().at(origin).max(rooms.seen(origin));
            seen.is_stable(origin, number) || number > claimed
        });
    }

    fn on_caught_up(&mut self, now: Time, room: &str, out: &mut Outbox<Effect>) {
        let everything = room.is_empty();
        for (name, own) in self.rooms.iter_mut() {
            let done = |partial: &mut Partial| name == room || (everything && partial.attached);
            if let Some(partial) = own.partial.take_if(done) {
                self.seen.merge(&partial.seen);
            }
        }
        if everything || self.caught_up {
            let rooms = &self.rooms;
            self.outgoing.catch_up(|to| match to {
                Addressee::Room(room) => rooms.get(room).is_none_or(|room| room.partial.is_none()),
                Addressee::Person(..) => true,
            });
        }
        if everything {
            self.caught_up = true;
            self.resend_when_told(out);
            self.way.settle();
            self.spare.renew();
            self.arrive(now, out);
            self.tend_standby(now, out);
        }
        let room = text(out, room);
        tell(out, Event::CaughtUp { room });
    }

    fn on_event(&mut self, frame: Frame<'_>, out: &mut Outbox<Effect>) -> Result<(), WireError> {
        let me = self.me.session;
        let mut tell_one = |change: Change| tell_change(&change, out);
        match frame.kind {
            Arrived::KIND => {
                let Arrived { session, name, room } = Arrived::parse(frame.payload)?;
                if session != me {
                    self.roster.arrive(session, name, room, &mut tell_one);
                }
            }
            Departed::KIND => {
                let Departed { session, name, room } = Departed::parse(frame.payload)?;
                if session != me {
                    self.roster.depart(session, name, room, &mut tell_one);
                }
            }
            Renamed::KIND => {
                let renamed = Renamed::parse(frame.payload)?;
                let why = Some(renamed.reason).filter(|reason| *reason != Reason::Unknown);
                if renamed.session == me {
                    self.on_own_name(&renamed, why, out);
                } else {
                    self.roster.rename(renamed.session, renamed.to, why, &mut tell_one);
                }
            }
            RoomMade::KIND => {
                self.roster.make_room(RoomMade::parse(frame.payload)?.room, &mut tell_one);
            }
            _ => {
                let TopicSet { room, topic, by } = TopicSet::parse(frame.payload)?;
                self.roster.set_topic(room, topic);
                let (room, topic) = (text(out, room), text(out, topic));
                let by = text(out, by);
                tell(out, Event::Topic { room, topic, by });
            }
        }
        Ok(())
    }

    fn on_own_name(
        &mut self,
        renamed: &Renamed<'_>,
        why: Option<Reason>,
        out: &mut Outbox<Effect>,
    ) {
        self.roster.rename(renamed.session, renamed.to, why, &mut |_| ());
        let from = core::mem::replace(&mut self.me.name, renamed.to.into());
        if from != renamed.to {
            self.tell_own_name(&from, why, out);
        }
    }

    fn on_servers(&mut self, now: Time, servers: Servers<'_>, out: &mut Outbox<Effect>) {
        let (moved, changed) = self.ring.tell(servers.servers, self.config.limits.servers_max);
        if moved && self.way.announced.is_some() {
            self.tell_servers(out);
        }
        if changed {
            self.spare.renew();
            self.tend_standby(now, out);
        }
    }
}
