//! What a server answers: lists, pages, rooms, refusals.

use super::api::{Effect, Event};
use super::requests::{Ask, Request};
use super::rooms::Standing;
use super::tell::{tell, tell_change, tell_place, text};
use super::{ChatClient, Stage};
use crate::outbox::Outbox;
use crate::time::Time;
use crate::wire::chat::{Failed, Joined, Page, RoomList, Status, UserList};
use crate::wire::{Field, Reason, Seq};

impl ChatClient {
    pub(super) fn on_users(&mut self, now: Time, list: &UserList<'_>, out: &mut Outbox<Effect>) {
        if list.request != 0 {
            return self.on_part(list.request, list.more, list.users, 0, out);
        }
        let first = !self.arrival.users_told;
        for user in list.users {
            self.roster.list_user(&user);
            if first && self.has_room_for_arrival() {
                user.put(&mut self.arrival.users);
            }
        }
        if list.more {
            return;
        }
        let me = self.me.session;
        let missing_until = now + self.config.limits.missing_us_max;
        self.roster.finish_list(me, missing_until, &mut |change| {
            if !first {
                tell_change(&change, out);
            }
        });
        if first {
            self.arrival.users_told = true;
            let users = out.encode(|arena| arena.append(&mut self.arrival.users));
            tell(out, Event::Users { reference: 0, users });
        }
        self.arrive(now, out);
    }

    pub(super) fn on_rooms(&mut self, list: &RoomList<'_>, out: &mut Outbox<Effect>) {
        if list.request != 0 {
            return self.on_part(list.request, list.more, list.rooms, 0, out);
        }
        let first = !self.arrival.rooms_told;
        for room in list.rooms {
            self.roster.list_room(&room, &mut |change| {
                if !first {
                    tell_change(&change, out);
                }
            });
            if first && self.has_room_for_arrival() {
                room.put(&mut self.arrival.rooms);
            }
        }
        if first && !list.more {
            self.arrival.rooms_told = true;
            let rooms = out.encode(|arena| arena.append(&mut self.arrival.rooms));
            tell(out, Event::Rooms { reference: 0, rooms });
        }
    }

    fn has_room_for_arrival(&self) -> bool {
        let bytes = self.arrival.users.len() + self.arrival.rooms.len();
        bytes < self.config.limits.answer_bytes_max as usize
    }

    /// The client knows who is there: what waited for that goes on.
    pub(super) fn arrive(&mut self, now: Time, out: &mut Outbox<Effect>) {
        if self.stage != Stage::Arriving {
            return;
        }
        self.stage = Stage::Arrived;
        // What waits counts no more: it would take the place of what it becomes.
        (self.waiting_bytes, self.waiting_requests) = (0, 0);
        for command in core::mem::take(&mut self.waiting) {
            self.run(now, command, out);
        }
    }

    /// Takes out a request that was answered, and sends the one that waited for that.
    pub(super) fn answered(&mut self, id: u64, out: &mut Outbox<Effect>) -> Option<Request> {
        let request = self.requests.remove(id)?;
        if let Some(next) = self.requests.released_by(&request) {
            self.send_request(next, out);
        }
        Some(request)
    }

    pub(super) fn on_page(&mut self, page: &Page<'_>, out: &mut Outbox<Effect>) {
        self.on_part(page.request, page.more, page.entries, page.total, out);
    }

    /// A part of a list that was asked for.
    fn on_part<'a, T: Field<'a> + Clone>(
        &mut self,
        request: u64,
        more: bool,
        items: Seq<'a, T>,
        total: u64,
        out: &mut Outbox<Effect>,
    ) {
        let bytes_max = self.config.limits.answer_bytes_max;
        let put = |answer: &mut _| items.iter().for_each(|item| item.put(answer));
        let fits = self.requests.add(request, bytes_max, put);
        if fits && more {
            return;
        }
        let Some(asked) = self.answered(request, out) else { return };
        let reference = asked.reference;
        if !fits {
            return self.tell_error(reference, Reason::Busy, "the answer is too long", out);
        }
        let list = out.encode(|arena| arena.extend_from_slice(&asked.answer));
        match &asked.ask {
            Ask::Users => tell(out, Event::Users { reference, users: list }),
            Ask::Rooms => tell(out, Event::Rooms { reference, rooms: list }),
            Ask::Search(_) => tell(out, Event::Search { reference, total, entries: list }),
            Ask::History(of, ..) => {
                let place = tell_place(of, out);
                tell(out, Event::History { reference, place, total, entries: list });
            }
            // An answer to another question is the server's mistake, and nothing to show.
            _ => {}
        }
    }

    pub(super) fn on_status(&mut self, status: &Status<'_>, out: &mut Outbox<Effect>) {
        let Some(asked) = self.answered(status.request, out) else { return };
        let members = out.encode(|arena| status.members.iter().for_each(|m| m.put(arena)));
        let event = Event::Status {
            reference: asked.reference,
            server: text(out, status.server),
            members,
            ma: status.ma,
            mt: status.mt.0,
            held: self.held(),
        };
        tell(out, event);
    }

    pub(super) fn on_joined(&mut self, joined: &Joined<'_>, out: &mut Outbox<Effect>) {
        let asked = self.answered(joined.request, out);
        let room = self.rooms.insert(joined.room, Standing::Joining);
        if room.standing == Standing::Joining {
            room.partial.get_or_insert_default();
            room.standing = Standing::In;
        }
        self.roster.set_topic(joined.room, joined.topic);
        let reference = asked.map_or(0, |asked| asked.reference);
        let (room, topic) = (text(out, joined.room), text(out, joined.topic));
        tell(out, Event::Joined { room, topic, reference });
    }

    /// The session is out of a room, with all that was received of it.
    pub(super) fn leave_room(&mut self, room: &str, reference: u64, out: &mut Outbox<Effect>) {
        if !self.rooms.remove(room) {
            return;
        }
        self.outgoing.leave(room);
        self.tell_left(room, reference, out);
        let joins = |ask: &Ask| matches!(ask, Ask::Join(joined) if joined == room);
        if self.requests.find(joins).is_some() {
            self.rooms.insert(room, Standing::Joining);
        }
    }

    pub(super) fn on_failed(&mut self, now: Time, failed: &Failed<'_>, out: &mut Outbox<Effect>) {
        if failed.say {
            return self.on_say_failed(now, failed, out);
        }
        let asked = self.answered(failed.request, out);
        match asked.as_ref().map(|asked| &asked.ask) {
            Some(Ask::Join(room)) => {
                let joining = |room: &super::rooms::OwnRoom| room.standing == Standing::Joining;
                if self.rooms.get(room).is_some_and(joining) {
                    self.rooms.remove(room);
                }
            }
            Some(Ask::Leave(room)) => {
                if let Some(room) = self.rooms.get_mut(room) {
                    room.standing = Standing::In;
                }
            }
            _ => {}
        }
        let reference = asked.map_or(0, |asked| asked.reference);
        self.tell_error(reference, failed.reason, failed.detail, out);
    }

    fn on_say_failed(&mut self, now: Time, failed: &Failed<'_>, out: &mut Outbox<Effect>) {
        if failed.reason == Reason::OutOfOrder && !self.outgoing.expects_refusals() {
            // Attaching anew makes both sides agree on the numbers.
            return self.reconnect(now, out);
        }
        if let Some(own) = self.outgoing.refuse(failed.request) {
            self.tell_error(own.reference, failed.reason, failed.detail, out);
            while self.outgoing.unsent().is_some() {
                self.send_say(out);
            }
        }
    }
}
