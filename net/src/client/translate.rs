//! The machine's events as values that own their text.

use std::collections::HashSet;
use std::sync::Arc;

use cordee_core::Span;
use cordee_core::chat::client::{self as core, Place, items};
use cordee_core::ids::SessionId;
use cordee_core::wire::chat::{Member as WireMember, RoomInfo, UserInfo};
use cordee_core::wire::entry::Entry;

use super::event::{Event, Member, Message, Room, Scope, Unsaid, User};

/// Makes owned events. Names of users and rooms come up again and again: each is kept once.
#[derive(Debug, Default)]
pub(super) struct Translator {
    names: HashSet<Arc<str>>,
}

impl Translator {
    /// The event, with its text out of `arena`; and about how many bytes it takes. `me` is the
    /// session's public id.
    pub(super) fn translate(
        &mut self,
        event: core::Event,
        me: SessionId,
        arena: &[u8],
    ) -> (Event, usize) {
        let mut bytes = size_of::<Event>();
        let mut text = |span: Span| {
            bytes += span.len();
            string(arena, span)
        };
        let list = |span: Span| &arena[span.range()];
        let room = |span: Span| (!span.is_empty()).then(|| string(arena, span));
        let event = match event {
            core::Event::Message(message) => {
                bytes += message.body.len();
                Event::Message(self.message(&message, arena))
            }
            core::Event::Sent { reference, id, index, copies, durable } => {
                Event::Sent { reference, id, index, copies, durable }
            }
            core::Event::Connected { server, servers, name, rooms, attachment } => {
                Event::Connected {
                    server: text(server),
                    servers: strings(list(servers)),
                    name: text(name),
                    rooms: strings(list(rooms)),
                    attachment,
                }
            }
            core::Event::Disconnected { server, why } => {
                Event::Disconnected { server: text(server), why }
            }
            core::Event::Reset { held } => Event::Reset { held },
            core::Event::Servers { servers } => Event::Servers { servers: strings(list(servers)) },
            core::Event::Arrived { name, room: of } => {
                Event::Arrived { name: text(name), room: room(of) }
            }
            core::Event::Departed { name, room: of } => {
                Event::Departed { name: text(name), room: room(of) }
            }
            core::Event::Renamed { from, to, own, why } => {
                Event::Renamed { from: text(from), to: text(to), own, why }
            }
            core::Event::RoomMade { room } => Event::RoomMade { room: text(room) },
            core::Event::Topic { room, topic, by } => {
                Event::Topic { room: text(room), topic: text(topic), by: text(by) }
            }
            core::Event::Joined { room, topic, reference } => {
                Event::Joined { room: text(room), topic: text(topic), reference }
            }
            core::Event::Left { room, reference } => Event::Left { room: text(room), reference },
            core::Event::Users { reference, users } => {
                bytes += 2 * users.len();
                Event::Users { reference, users: items(list(users)).map(user).collect() }
            }
            core::Event::Rooms { reference, rooms } => {
                bytes += 2 * rooms.len();
                Event::Rooms { reference, rooms: items(list(rooms)).map(room_of_list).collect() }
            }
            core::Event::History { reference, place, total, entries } => {
                bytes += 2 * entries.len();
                let scope = self.scope(&place, arena);
                let messages = self.messages(list(entries), me);
                Event::History { reference, scope, total, messages }
            }
            core::Event::Search { reference, total, entries } => {
                bytes += 2 * entries.len();
                let messages = self.messages(list(entries), me);
                let more = total > messages.len() as u64;
                Event::Search { reference, messages, more }
            }
            core::Event::Status { reference, server, members, ma, mt, held } => Event::Status {
                reference,
                server: text(server),
                members: items(list(members)).map(member).collect(),
                ma,
                mt,
                held,
            },
            core::Event::Done { reference } => Event::Done { reference },
            core::Event::CaughtUp { room: of } => Event::CaughtUp { room: room(of) },
            core::Event::Error { reference, reason, detail } => {
                let text = match string(arena, detail) {
                    detail if detail.is_empty() => reason.text().into(),
                    detail => format!("{} ({detail})", reason.text()),
                };
                Event::Error { reference, reason, text }
            }
            core::Event::Closed { why, unacknowledged } => Event::Closed {
                why,
                unacknowledged: items::<(u64, &str)>(list(unacknowledged))
                    .map(|(reference, body)| Unsaid { reference, body: body.into() })
                    .collect(),
            },
        };
        (event, bytes)
    }

    fn message(&mut self, message: &core::Message<Span>, arena: &[u8]) -> Message {
        Message {
            scope: self.scope(&message.place, arena),
            from: self.name(text(arena, message.from)),
            body: text(arena, message.body).into(),
            index: message.index,
            is_final: message.is_final,
            clock: message.clock,
            id: message.id,
            replay: message.replay,
            own: message.own,
        }
    }

    fn scope(&mut self, place: &Place<Span>, arena: &[u8]) -> Scope {
        match *place {
            Place::Room(room) => Scope::Room(self.name(text(arena, room))),
            Place::Talk { session, name } => {
                Scope::Talk { name: self.name(text(arena, name)), session }
            }
        }
    }

    /// Messages of a page.
    fn messages(&mut self, entries: &[u8], me: SessionId) -> Vec<Message> {
        items::<Entry<'_>>(entries)
            .filter_map(|entry| core::Message::of(&entry, me))
            .map(|message| Message {
                scope: match message.place {
                    Place::Room(room) => Scope::Room(self.name(room)),
                    Place::Talk { session, name } => Scope::Talk { name: self.name(name), session },
                },
                from: self.name(message.from),
                body: message.body.into(),
                index: message.index,
                is_final: message.is_final,
                clock: message.clock,
                id: message.id,
                // Whoever asks for history knows that it is not new.
                replay: true,
                own: message.own,
            })
            .collect()
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        let new: Arc<str> = name.into();
        self.names.insert(Arc::clone(&new));
        new
    }
}

fn user(info: UserInfo<'_>) -> User {
    User {
        name: info.name.into(),
        session: info.session,
        online: info.online,
        server: info.server.into(),
        rooms: info.rooms.iter().map(String::from).collect(),
    }
}

fn room_of_list(info: RoomInfo<'_>) -> Room {
    Room {
        name: info.room.into(),
        users: info.users,
        messages: info.entries,
        topic: info.topic.into(),
    }
}

fn member(info: WireMember<'_>) -> Member {
    Member { address: info.address.into(), state: info.state, ma: info.ma }
}

fn strings(list: &[u8]) -> Vec<String> {
    items::<&str>(list).map(String::from).collect()
}

/// The machine puts nothing but UTF-8 into the spans of texts.
fn text(arena: &[u8], span: Span) -> &str {
    std::str::from_utf8(&arena[span.range()]).unwrap_or_default()
}

fn string(arena: &[u8], span: Span) -> String {
    text(arena, span).into()
}

/// Names that are kept at a time.
const NAMES_MAX: usize = 4_096;
