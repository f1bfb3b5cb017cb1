//! Questions of clients and observers, and their answers.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::claims::Purpose;
use super::conn::{Attached, Backfill, Feed};
use super::rooms::Room;
use super::{ChatServer, Effect};
use crate::framing::{FRAME_BYTES_MAX, Frame};
use crate::ids::{Clock, ConnId};
use crate::names::{self, COMMON_ROOM};
use crate::outbox::Outbox;
use crate::time::Time;
use crate::wire::chat::{self, Done, Failed, RoomInfo, RoomList, UserInfo, UserList};
use crate::wire::entry::Scope;
use crate::wire::hello::{Bye, Ping, Pong};
use crate::wire::{Field, Fixed64, Message, Reason, Seq};

/// What the fields of a list's frame take besides its items, with room to spare.
pub(super) const LIST_FRAME_BYTES: usize = 64;

impl ChatServer {
    pub(super) fn on_request(
        &mut self,
        now: Time,
        id: ConnId,
        frame: Frame<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let payload = frame.payload;
        let (request, result) = match frame.kind {
            chat::Join::KIND => {
                let join = chat::Join::parse(payload)?;
                (join.request, self.on_join(now, id, &join, out))
            }
            chat::Leave::KIND => {
                let leave = chat::Leave::parse(payload)?;
                (leave.request, self.on_leave(now, id, &leave, out))
            }
            chat::SetTopic::KIND => {
                let set = chat::SetTopic::parse(payload)?;
                (set.request, self.on_topic(now, id, &set, out))
            }
            chat::SetName::KIND => {
                let set = chat::SetName::parse(payload)?;
                (set.request, self.on_name(now, id, &set, out))
            }
            chat::AskUsers::KIND => {
                let ask = chat::AskUsers::parse(payload)?;
                let may = self.may_ask(id).map(|_| ());
                (ask.request, may.map(|()| self.send_users(id, ask.request, out)))
            }
            chat::AskRooms::KIND => {
                let ask = chat::AskRooms::parse(payload)?;
                let may = self.may_ask(id).map(|_| ());
                (ask.request, may.map(|()| self.send_rooms(id, ask.request, out)))
            }
            chat::AskHistory::KIND => {
                let ask = chat::AskHistory::parse(payload)?;
                (ask.request, self.on_history(id, &ask, out))
            }
            chat::Search::KIND => {
                let ask = chat::Search::parse(payload)?;
                (ask.request, self.on_search(id, &ask))
            }
            chat::AskStatus::KIND => {
                let ask = chat::AskStatus::parse(payload)?;
                (ask.request, self.on_status(id, ask.request, out))
            }
            chat::KillServer::KIND => {
                let kill = chat::KillServer::parse(payload)?;
                (kill.request, self.on_kill(id, out))
            }
            // A kind of a newer minor version.
            _ => return Ok(()),
        };
        if let Err(reason) = result {
            self.send(id, &Failed { request, say: false, reason, detail: "" }, out);
        }
        Ok(())
    }

    pub(super) fn on_observer_frame(
        &mut self,
        now: Time,
        id: ConnId,
        frame: Frame<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        self.count_request(id, out);
        match frame.kind {
            Ping::KIND => {
                let ping = Ping::parse(frame.payload)?;
                self.send(id, &Pong { nonce: ping.nonce }, out);
            }
            chat::AskServer::KIND => {
                let ask = chat::AskServer::parse(frame.payload)?;
                if self.has_full_queue(id) {
                    return Err(Reason::Flood);
                }
                self.send_server_status(id, out);
                if ask.users {
                    self.send_users(id, 0, out);
                }
            }
            chat::Forget::KIND => {
                let forget = chat::Forget::parse(frame.payload)?;
                let loopback = self.conns.get(id).is_some_and(|conn| conn.source.loopback);
                let result = if loopback {
                    self.forget(now, forget.address, out)
                } else {
                    Err(Reason::OperatorOnly)
                };
                let request = forget.request;
                match result {
                    Ok(()) => self.send(id, &Done { request }, out),
                    Err(reason) => {
                        self.send(id, &Failed { request, say: false, reason, detail: "" }, out);
                    }
                }
            }
            Bye::KIND => {
                self.discard(id, Reason::Goodbye, out);
                out.push(Effect::Close { conn: id, reason: Reason::Goodbye });
                self.lost(id, out);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn attached(&self, id: ConnId) -> Result<&Attached, Reason> {
        self.conns.get(id).and_then(|conn| conn.attached()).ok_or(Reason::NotAttached)
    }

    // Rooms.

    fn on_join(
        &mut self,
        now: Time,
        id: ConnId,
        join: &chat::Join<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let room = names::room(join.room)?;
        let attached = self.attached(id)?;
        let (session, member) = (attached.session, attached.rooms.contains(&room));
        if !member && attached.rooms.len() >= self.limits().rooms_per_session_max as usize {
            return Err(Reason::TooManyRooms);
        }
        let made = self.clock.stamp(now, Clock(0));
        if self.rooms.get(&room).is_none()
            && !self.merge_room(&room, &Room { made, ..Room::default() }, None, out)
        {
            return Err(Reason::TooManyRooms);
        }
        let scope = self.archive.scope(&Scope::Room(&room));
        let topic = self.rooms.get(&room).map_or_else(String::new, |room| room.topic.clone());
        let joined = chat::Joined { request: join.request, room: &room, topic: &topic };
        self.send(id, &joined, out);
        if member {
            // It is there already, or on its way.
            return Ok(());
        }
        if let Some(attached) = self.conns.get_mut(id).and_then(|conn| conn.attached_mut()) {
            attached.rooms.push(room.clone());
            attached.rooms.sort_unstable();
            let backfill = Backfill { room: room.clone(), scope, catch_up: None, seen: Vec::new() };
            attached.backfills.push_back(backfill);
        }
        self.restate_rooms(session, now, id, out);
        self.feed(id, out);
        Ok(())
    }

    fn on_leave(
        &mut self,
        now: Time,
        id: ConnId,
        leave: &chat::Leave<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let room = names::room(leave.room)?;
        if room == COMMON_ROOM {
            return Err(Reason::CommonRoom);
        }
        let scope = self.archive.find_scope(&Scope::Room(&room)).ok_or(Reason::RoomUnknown)?;
        let mt = self.archive.scope_rows(scope);
        let position = self.here();
        let attached = self.conns.get_mut(id).and_then(|conn| conn.attached_mut());
        let attached = attached.ok_or(Reason::NotAttached)?;
        let place = attached.rooms.binary_search(&room).map_err(|_| Reason::NotMember)?;
        attached.rooms.remove(place);
        attached.backfills.retain(|backfill| backfill.scope != scope);
        let session = attached.session;
        let was_seen = attached.scopes.binary_search(&scope).map(|at| attached.scopes.remove(at));
        let following = matches!(attached.feed, Feed::Log);
        let bytes = out.encode(|arena| {
            chat::Left { request: leave.request, room: &room }.put_frame(arena);
        });
        self.queue(id, bytes.len());
        if !following {
            // The catch-up was made for the rooms of then.
            self.leave_catch_up(id, scope);
        }
        if following && was_seen.is_ok() && !planted!(ShowLeft) {
            out.push(Effect::Hide { conn: id, scope, at: position, mt });
            out.push(Effect::SendAt { conn: id, at: position, bytes });
        } else {
            out.push(Effect::Send { conn: id, bytes, notify: false });
        }
        self.restate_rooms(session, now, id, out);
        self.feed(id, out);
        Ok(())
    }

    /// States the rooms that an attached session is in now.
    fn restate_rooms(
        &mut self,
        session: crate::ids::SessionId,
        now: Time,
        id: ConnId,
        out: &mut Outbox<Effect>,
    ) {
        let rooms = self.attached(id).map(|attached| attached.rooms.clone()).unwrap_or_default();
        self.restate(session, now, |record| record.rooms = rooms, out);
    }

    fn on_topic(
        &mut self,
        now: Time,
        id: ConnId,
        set: &chat::SetTopic<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let name = names::room(set.room)?;
        let attached = self.attached(id)?;
        if !attached.rooms.contains(&name) {
            return Err(Reason::NotMember);
        }
        if set.topic.len() > self.limits().topic_bytes_max as usize {
            return Err(Reason::TopicTooLong);
        }
        let by = attached.name.clone();
        let made = self.rooms.get(&name).map_or(Clock(0), |room| room.made);
        let topic_clock = self.clock.stamp(now, Clock(0));
        let room = Room { made, topic: set.topic.to_string(), topic_clock, topic_by: by };
        self.merge_room(&name, &room, None, out);
        self.send(id, &Done { request: set.request }, out);
        Ok(())
    }

    // Names.

    fn on_name(
        &mut self,
        now: Time,
        id: ConnId,
        set: &chat::SetName<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        names::user_key(set.name)?;
        let attached = self.conns.get_mut(id).and_then(|conn| conn.attached_mut());
        let attached = attached.ok_or(Reason::NotAttached)?;
        if attached.renaming.is_some() {
            return Err(Reason::Busy);
        }
        attached.renaming = Some(set.request);
        let session = attached.session;
        self.begin_claim(now, id, session, set.name, Purpose::Rename(set.request), out);
        Ok(())
    }

    pub(super) fn rename_decided(
        &mut self,
        now: Time,
        id: ConnId,
        request: u64,
        name: &str,
        decision: Result<Clock, Reason>,
        out: &mut Outbox<Effect>,
    ) {
        let attached = self.conns.get_mut(id).and_then(|conn| conn.attached_mut());
        let Some(attached) = attached else { return };
        attached.renaming = None;
        let session = attached.session;
        match decision {
            Err(reason) => {
                self.send(id, &Failed { request, say: false, reason, detail: "" }, out);
            }
            Ok(claim) => {
                self.name_attached(session, name);
                let change = |record: &mut super::roster::Record| {
                    record.name = name.to_string();
                    record.claim = claim;
                };
                self.restate(session, now, change, out);
                self.send(id, &Done { request }, out);
            }
        }
    }

    // Lists.

    pub(super) fn send_users(&mut self, id: ConnId, request: u64, out: &mut Outbox<Effect>) {
        let roster = core::mem::take(&mut self.roster);
        let mut addresses: Vec<(crate::ids::ServerId, String)> =
            self.members.iter().map(|(id, member)| (id, member.address.clone())).collect();
        addresses.push((self.id, self.config.advertise.clone()));
        let mut page = Pages::default();
        for (session, record) in roster.iter().filter(|(_, record)| record.is_here()) {
            let rooms: Vec<&str> = record.rooms.iter().map(String::as_str).collect();
            let server = addresses.iter().find(|(server, _)| *server == record.home);
            let online = record.presence == crate::wire::peer::Presence::Online
                && (record.home == self.id || self.is_alive(record.home));
            let info = UserInfo {
                session,
                name: &record.name,
                online,
                server: server.map_or("", |(_, address)| address),
                rooms: Seq::new(&rooms),
            };
            if page.add(&info) {
                self.send_raw_list(id, UserList::KIND, request, true, &mut page, out);
                page.add(&info);
            }
        }
        self.roster = roster;
        self.send_raw_list(id, UserList::KIND, request, false, &mut page, out);
    }

    pub(super) fn send_rooms(&mut self, id: ConnId, request: u64, out: &mut Outbox<Effect>) {
        let mut page = Pages::default();
        let rooms: Vec<(String, String)> =
            self.rooms.iter().map(|(name, room)| (name.to_string(), room.topic.clone())).collect();
        let mut inside: BTreeMap<String, u32> = BTreeMap::new();
        for (_, record) in self.roster.iter().filter(|(_, record)| record.is_here()) {
            for room in &record.rooms {
                *inside.entry(room.clone()).or_default() += 1;
            }
        }
        for (name, topic) in &rooms {
            let users = inside.get(name).copied().unwrap_or(0);
            let scope = self.archive.find_scope(&Scope::Room(name));
            let entries = scope.map_or(0, |scope| self.archive.scope_rows(scope));
            let info = RoomInfo { room: name, users, entries, topic };
            if page.add(&info) {
                self.send_raw_list(id, RoomList::KIND, request, true, &mut page, out);
                page.add(&info);
            }
        }
        self.send_raw_list(id, RoomList::KIND, request, false, &mut page, out);
    }

    /// Sends a part of a list: its frame is request, whether more follows, and the items.
    fn send_raw_list(
        &mut self,
        id: ConnId,
        kind: u8,
        request: u64,
        more: bool,
        page: &mut Pages,
        out: &mut Outbox<Effect>,
    ) {
        let bytes = out.encode(|arena| {
            crate::framing::put_frame(arena, kind, |arena| {
                request.put(arena);
                more.put(arena);
                page.count.put(arena);
                arena.extend_from_slice(&page.bytes);
            });
        });
        *page = Pages::default();
        self.queue(id, bytes.len());
        out.push(Effect::Send { conn: id, bytes, notify: false });
    }

    // Entries by index, and by words.

    // How things stand.

    fn on_status(
        &mut self,
        id: ConnId,
        request: u64,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let attached = self.may_ask(id)?;
        let ma = self.ma_of(attached);
        let mt = match attached.feed {
            Feed::CatchUp { mt, .. } => mt,
            // Whoever sends the frame fills in the cursor's count.
            Feed::Log => 0,
        };
        let members = self.member_list();
        let members: Vec<chat::Member<'_>> = members.iter().map(MemberRow::wire).collect();
        let status = chat::Status {
            mt: Fixed64(mt),
            ma,
            request,
            server: &self.config.advertise,
            members: Seq::new(&members),
        };
        let bytes = out.encode(|arena| status.put_frame(arena));
        self.queue(id, bytes.len());
        out.push(Effect::SendStamped { conn: id, bytes });
        Ok(())
    }

    fn send_server_status(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        let members = self.member_list();
        let members: Vec<chat::Member<'_>> = members.iter().map(MemberRow::wire).collect();
        let address = self.config.advertise.clone();
        let sessions = self.roster.iter().filter(|(_, record)| record.is_here()).count();
        let status = chat::ServerStatus {
            address: &address,
            pid: self.config.pid,
            server: self.id,
            incarnation: self.origin.incarnation,
            ma: self.archive.rows(),
            digest: self.digest(),
            from: self.archive.rows_trimmed() + 1,
            users: self.sessions.len() as u32,
            limit: self.limits().users_max,
            rooms: self.rooms.len() as u32,
            sessions: sessions as u32,
            memory_bytes: self.archive.memory_bytes() + self.log.bytes + self.waiting.bytes(),
            final_clock: self.final_clock,
            members: Seq::new(&members),
        };
        self.send(id, &status, out);
    }

    fn member_list(&self) -> Vec<MemberRow> {
        let own = MemberRow {
            server: self.id,
            address: self.config.advertise.clone(),
            state: chat::MemberState::Linked,
            ma: self.archive.rows(),
        };
        let others = self.members.iter().map(|(server, member)| MemberRow {
            server,
            address: member.address.clone(),
            state: self.member_state(server),
            ma: member.ma,
        });
        let mut members: Vec<MemberRow> = core::iter::once(own).chain(others).collect();
        members.sort_by(|a, b| a.address.cmp(&b.address));
        members
    }

    /// Tells a connection which servers there are.
    pub(super) fn send_servers(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        let members = self.member_list();
        let servers: Vec<chat::ServerInfo<'_>> = members
            .iter()
            .filter(|member| {
                matches!(member.state, chat::MemberState::Linked | chat::MemberState::Lost)
            })
            .map(|member| chat::ServerInfo {
                server: member.server,
                address: &member.address,
                state: member.state,
            })
            .collect();
        self.send(id, &chat::Servers { servers: Seq::new(&servers) }, out);
    }

    fn on_kill(&mut self, id: ConnId, out: &mut Outbox<Effect>) -> Result<(), Reason> {
        self.attached(id)?;
        if !self.config.allow_kill {
            return Err(Reason::KillForbidden);
        }
        out.push(Effect::Crash);
        Ok(())
    }

    /// Counts a request against what a connection may ask for in a second.
    pub(super) fn count_request(&mut self, id: ConnId, out: &mut Outbox<Effect>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.allowance = conn.allowance.saturating_sub(1);
        if conn.allowance == 0 && !conn.paused.requests {
            if !conn.paused.any() {
                out.push(Effect::Pause { conn: id });
            }
            conn.paused.requests = true;
        }
        self.pause_if_behind(id, out);
    }
}

/// A member as lists show it.
struct MemberRow {
    server: crate::ids::ServerId,
    address: String,
    state: chat::MemberState,
    ma: u64,
}

impl MemberRow {
    fn wire(&self) -> chat::Member<'_> {
        let MemberRow { server, ref address, state, ma } = *self;
        chat::Member { server, address, state, ma }
    }
}

/// Items of a list, encoded until a frame is full.
#[derive(Default)]
struct Pages {
    count: u64,
    bytes: Vec<u8>,
}

impl Pages {
    /// Adds an item. `true` when it did not fit: the page must be sent first.
    fn add<'a>(&mut self, item: &impl Field<'a>) -> bool {
        let before = self.bytes.len();
        item.put(&mut self.bytes);
        if self.bytes.len() + LIST_FRAME_BYTES > FRAME_BYTES_MAX && before > 0 {
            self.bytes.truncate(before);
            return true;
        }
        self.count += 1;
        false
    }
}
