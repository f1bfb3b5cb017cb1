//! Events for the application: puts their text into the outbox.

use alloc::vec::Vec;

use super::ChatClient;
use super::api::{Command, Effect, Event, Message, Place};
use super::outgoing::Addressee;
use super::roster::Change;
use crate::outbox::{Outbox, Span};
use crate::wire::{Field, Reason};

/// Puts text into the arena.
pub(super) fn text(out: &mut Outbox<Effect>, text: &str) -> Span {
    out.encode(|arena| arena.extend_from_slice(text.as_bytes()))
}

/// Puts a list into the arena.
fn list<'a, T: Field<'a>>(out: &mut Outbox<Effect>, items: impl Iterator<Item = T>) -> Span {
    out.encode(|arena| items.for_each(|item| item.put(arena)))
}

pub(super) fn tell(out: &mut Outbox<Effect>, event: Event) {
    out.push(Effect::Tell(event));
}

/// Tells what changed in the roster.
pub(super) fn tell_change(change: &Change, out: &mut Outbox<Effect>) {
    let event = match change {
        Change::Arrived { name, room } => {
            Event::Arrived { name: text(out, name), room: text(out, room) }
        }
        Change::Departed { name, room } => {
            Event::Departed { name: text(out, name), room: text(out, room) }
        }
        Change::Renamed { from, to, why } => {
            let (from, to) = (text(out, from), text(out, to));
            Event::Renamed { from, to, own: false, why: *why }
        }
        Change::RoomMade { room } => Event::RoomMade { room: text(out, room) },
        Change::Topic { room, topic } => {
            let (room, topic) = (text(out, room), text(out, topic));
            Event::Topic { room, topic, by: Span::default() }
        }
    };
    tell(out, event);
}

pub(super) fn tell_message(message: &Message<&str>, out: &mut Outbox<Effect>) {
    let place = match message.place {
        Place::Room(room) => Place::Room(text(out, room)),
        Place::Talk { session, name } => Place::Talk { session, name: text(out, name) },
    };
    let (from, body) = (text(out, message.from), text(out, message.body));
    let Message { index, is_final, clock, id, replay, own, .. } = *message;
    let message = Message { place, from, body, index, is_final, clock, id, replay, own };
    tell(out, Event::Message(message));
}

pub(super) fn tell_place(of: &Addressee, out: &mut Outbox<Effect>) -> Place<Span> {
    match of {
        Addressee::Room(room) => Place::Room(text(out, room)),
        Addressee::Person(session, name) => {
            Place::Talk { session: *session, name: text(out, name) }
        }
    }
}

impl ChatClient {
    pub(super) fn tell_error(
        &self,
        reference: u64,
        reason: Reason,
        detail: &str,
        out: &mut Outbox<Effect>,
    ) {
        let detail = text(out, detail);
        tell(out, Event::Error { reference, reason, detail });
    }

    pub(super) fn tell_connected(&self, server: &str, out: &mut Outbox<Effect>) {
        let event = Event::Connected {
            server: text(out, server),
            servers: list(out, self.ring.addresses()),
            name: text(out, &self.me.name),
            rooms: list(out, self.rooms.iter().map(|(name, _)| name.as_str())),
            attachment: self.me.attachment,
        };
        tell(out, event);
    }

    pub(super) fn tell_disconnected(&self, server: &str, why: Reason, out: &mut Outbox<Effect>) {
        let server = text(out, server);
        tell(out, Event::Disconnected { server, why });
    }

    pub(super) fn tell_servers(&self, out: &mut Outbox<Effect>) {
        let servers = list(out, self.ring.addresses());
        tell(out, Event::Servers { servers });
    }

    pub(super) fn tell_own_name(&self, from: &str, why: Option<Reason>, out: &mut Outbox<Effect>) {
        let (from, to) = (text(out, from), text(out, &self.me.name));
        tell(out, Event::Renamed { from, to, own: true, why });
    }

    pub(super) fn tell_joined(&self, room: &str, reference: u64, out: &mut Outbox<Effect>) {
        let topic = text(out, self.roster.topic(room));
        let room = text(out, room);
        tell(out, Event::Joined { room, topic, reference });
    }

    pub(super) fn tell_left(&self, room: &str, reference: u64, out: &mut Outbox<Effect>) {
        let room = text(out, room);
        tell(out, Event::Left { room, reference });
    }

    pub(super) fn tell_closed(&self, why: Option<Reason>, out: &mut Outbox<Effect>) {
        let said = self.outgoing.unacknowledged().map(|own| (own.reference, own.body.as_str()));
        let waiting = self.waiting.iter().filter_map(|command| match command {
            Command::Say { body, reference, .. } => Some((*reference, body.as_str())),
            _ => None,
        });
        let unacknowledged: Vec<(u64, &str)> = said.chain(waiting).collect();
        let unacknowledged = list(out, unacknowledged.into_iter());
        tell(out, Event::Closed { why, unacknowledged });
    }
}
