//! The roster at work: records are stated, merged, relayed, and told to clients.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::conn::{Conn, Peer};
use super::rooms::Room;
use super::roster::{self, Change, Record};
use super::{ChatServer, Effect};
use crate::ids::{Clock, ConnId, ServerId, SessionId};
use crate::log::EVERYONE;
use crate::names;
use crate::outbox::Outbox;
use crate::time::Time;
use crate::wire::Reason;
use crate::wire::chat::{Arrived, Departed, Renamed, RoomMade, TopicSet};
use crate::wire::peer::{self, Presence, Session};

/// For how many grace periods a departed session is remembered, so that old news of it is known
/// to be old.
const FORGET_AFTER_GRACES: u64 = 4;

impl ChatServer {
    /// States a record of ours, tells peers and clients.
    pub(super) fn state_presence(
        &mut self,
        session: SessionId,
        record: Record,
        out: &mut Outbox<Effect>,
    ) {
        self.merge_record(session, record, None, Reason::Unknown, out);
    }

    /// Changes a record as its home, or on behalf of a home that is gone.
    pub(super) fn restate(
        &mut self,
        session: SessionId,
        now: Time,
        change: impl FnOnce(&mut Record),
        out: &mut Outbox<Effect>,
    ) {
        let Some(record) = self.roster.get(session) else { return };
        let mut record = record.clone();
        change(&mut record);
        record.version += 1;
        record.since = now;
        self.merge_record(session, record, None, Reason::Unknown, out);
    }

    pub(super) fn on_session(
        &mut self,
        now: Time,
        from: ConnId,
        session: &Session<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let rooms_max = self.limits().rooms_per_session_max as usize;
        let record = roster::from_wire(session, rooms_max, now).ok_or(Reason::BadFrame)?;
        let known = self.roster.get(session.session).is_some();
        if !known && self.roster.len() >= self.limits().sessions_max as usize {
            return Ok(());
        }
        // Unless it was attached elsewhere since: then it went from there, and is not here either.
        let is_ours = self.roster.get(session.session).is_some_and(|ours| {
            let attached = self.sessions.contains_key(&session.session);
            attached && ours.attachment >= record.attachment
        });
        if record.presence != Presence::Online && is_ours {
            self.insist(session.session, &record, out);
            return Ok(());
        }
        // Whoever lost sight of a home gives its users up; one that sees it asks it.
        let home = self.links.get(&record.home).copied().filter(|home| *home != from);
        let home = home
            .filter(|home| self.conns.get(*home).and_then(Conn::peer).is_some_and(Peer::is_linked));
        if let (Presence::Away | Presence::Gone, Some(home)) = (record.presence, home) {
            self.send(home, session, out);
            return Ok(());
        }
        let went = record.presence != Presence::Online && record.home == self.id;
        self.merge_record(session.session, record, Some(from), Reason::Unknown, out);
        self.contradict(now, session.session, out);
        if went && let Some(record) = self.roster.get(session.session).cloned() {
            // Who asks its home what to make of it waits for this.
            roster::with_wire(session.session, &record, |wire| self.send(from, wire, out));
        }
        Ok(())
    }

    /// Others gave a session up that is attached here. Nobody here is told that it went and came.
    fn insist(&mut self, session: SessionId, theirs: &Record, out: &mut Outbox<Effect>) {
        let Some(record) = self.roster.get(session) else { return };
        let mut record = record.clone();
        if (theirs.attachment, theirs.version) < (record.attachment, record.version) {
            return;
        }
        (record.attachment, record.version) = (theirs.attachment, theirs.version + 1);
        self.merge_record(session, record, None, Reason::Unknown, out);
    }

    /// Merges a record, relays what is new to the other peers, and tells clients what changed.
    fn merge_record(
        &mut self,
        session: SessionId,
        record: Record,
        from: Option<ConnId>,
        reason: Reason,
        out: &mut Outbox<Effect>,
    ) {
        for room in &record.rooms {
            self.know_room(room, Clock(0), out);
        }
        let Some(changes) = self.roster.merge(session, record) else { return };
        if !planted!(KeepSuperseded)
            && self.roster.get(session).is_some_and(|record| record.home != self.id)
            && let Some(conn) = self.sessions.remove(&session)
        {
            self.close(conn, Reason::Superseded, out);
        }
        if let Some(record) = self.roster.get(session) {
            self.claims.settle(session, record.claim);
        }
        self.relay(session, from, out);
        for change in &changes {
            self.publish_change(session, change, reason, out);
        }
        self.settle_name(session, out);
    }

    fn relay(&mut self, session: SessionId, from: Option<ConnId>, out: &mut Outbox<Effect>) {
        let Some(record) = self.roster.get(session).cloned() else { return };
        let times = if planted!(Chatter) { 200 } else { 1 };
        self.for_each_told(|server, peer| {
            for _ in 0..times {
                if Some(peer) != from {
                    roster::with_wire(session, &record, |wire| server.send(peer, wire, out));
                }
            }
        });
    }

    fn publish_change(
        &mut self,
        session: SessionId,
        change: &Change,
        reason: Reason,
        out: &mut Outbox<Effect>,
    ) {
        let Some(record) = self.roster.get(session) else { return };
        let now_called = record.name.clone();
        let name = now_called.as_str();
        match change {
            Change::Arrived => self.publish(EVERYONE, &Arrived { session, name, room: "" }, out),
            Change::Departed { .. } if planted!(SilentDeparture) => {}
            Change::Departed { name } => {
                self.publish(EVERYONE, &Departed { session, name, room: "" }, out);
            }
            Change::Renamed { from } => {
                self.publish(EVERYONE, &Renamed { session, from, to: name, reason }, out);
            }
            Change::JoinedRoom { room } => {
                let scope = self.scope_of_room(room);
                self.publish(scope, &Arrived { session, name, room }, out);
            }
            Change::LeftRoom { room } => {
                let scope = self.scope_of_room(room);
                self.publish(scope, &Departed { session, name, room }, out);
            }
        }
    }

    /// A conflict of names is settled by the homes of those who lost: they take another name.
    pub(super) fn settle_name(&mut self, session: SessionId, out: &mut Outbox<Effect>) {
        let Some(record) = self.roster.get(session).filter(|record| record.is_here()) else {
            return;
        };
        let Ok(key) = names::user_key(&record.name) else { return };
        let holder = self.roster.holder(&key);
        let lost = |own: &SessionId| {
            let record = self.roster.get(*own);
            Some(*own) != holder
                && record.is_some_and(|r| names::user_key(&r.name).as_ref() == Ok(&key))
        };
        let losers: Vec<SessionId> = self.sessions.keys().copied().filter(lost).collect();
        for loser in losers {
            let Some(mut record) = self.roster.get(loser).cloned() else { continue };
            record.name = self.roster.free_name_like(&record.name);
            record.claim = self.clock.stamp(self.now, Clock(0));
            record.version += 1;
            record.since = self.now;
            self.name_attached(loser, &record.name);
            self.merge_record(loser, record, None, Reason::NameLost, out);
        }
    }

    /// Keeps the name that an attached session writes under in step with the roster.
    pub(super) fn name_attached(&mut self, session: SessionId, name: &str) {
        let Some(&conn) = self.sessions.get(&session) else { return };
        if let Some(attached) = self.conns.get_mut(conn).and_then(|conn| conn.attached_mut()) {
            attached.name = name.to_string();
        }
    }

    /// A record says that a session is attached here, or is not, and that is not so: the home
    /// knows better.
    pub(super) fn contradict(&mut self, now: Time, session: SessionId, out: &mut Outbox<Effect>) {
        let Some(record) = self.roster.get(session) else { return };
        if record.home != self.id {
            return;
        }
        let attached = self.sessions.contains_key(&session);
        match (record.presence, attached) {
            (Presence::Online, false) => {
                self.restate(session, now, |record| record.presence = Presence::Away, out);
            }
            (Presence::Away | Presence::Gone, true) => {
                self.restate(session, now, |record| record.presence = Presence::Online, out);
            }
            _ => {}
        }
    }

    /// Departs those whose grace is over. One server does so: the home while it lives, else the
    /// one with the least id among those that live.
    pub(super) fn depart_overdue(&mut self, now: Time, out: &mut Outbox<Effect>) {
        let short = planted!(ShortGrace);
        let grace = if short { crate::time::SECOND_US } else { self.limits().grace_us };
        let overdue: Vec<SessionId> = self
            .roster
            .iter()
            .filter(|(_, record)| {
                record.is_here() && record.home != self.id || record.presence == Presence::Away
            })
            .filter(|(_, record)| {
                self.away_since(record).is_some_and(|since| now.since_us(since) >= grace)
            })
            .filter(|(_, record)| self.speaks_for(record.home))
            .map(|(session, _)| session)
            .collect();
        for session in overdue {
            self.restate(session, now, |record| record.presence = Presence::Gone, out);
        }
        let old: Vec<SessionId> = self
            .roster
            .iter()
            .filter(|(_, record)| {
                !record.is_here() && now.since_us(record.since) > FORGET_AFTER_GRACES * grace
            })
            .map(|(session, _)| session)
            .collect();
        for session in old {
            self.roster.remove(session);
        }
    }

    /// Since when a session has been without a server.
    fn away_since(&self, record: &Record) -> Option<Time> {
        if record.presence == Presence::Away {
            return Some(record.since);
        }
        if record.home == self.id || self.is_alive(record.home) {
            return None;
        }
        Some(self.members.get(record.home).map_or(self.started, |member| member.heard))
    }

    /// Whether this server speaks for the users of `home`.
    fn speaks_for(&self, home: ServerId) -> bool {
        if home == self.id || self.is_alive(home) {
            return home == self.id;
        }
        self.members.iter().filter(|(id, _)| self.is_alive(*id)).all(|(id, _)| self.id < id)
    }

    // Rooms.

    /// Learns that a room exists. Tells clients and peers when it is news.
    pub(super) fn know_room(&mut self, room: &str, made: Clock, out: &mut Outbox<Effect>) {
        if self.rooms.get(room).is_some() {
            return;
        }
        let made = if made == Clock(0) { Clock(self.clock.wall(self.now)) } else { made };
        self.merge_room(room, &Room { made, ..Room::default() }, None, out);
    }

    /// Takes a room in. `false` when there is no place for it.
    pub(super) fn merge_room(
        &mut self,
        name: &str,
        room: &Room,
        from: Option<ConnId>,
        out: &mut Outbox<Effect>,
    ) -> bool {
        let Some(change) = self.rooms.merge(name, room) else { return false };
        if !change.any {
            return true;
        }
        let Some(room) = self.rooms.get(name).cloned() else { return true };
        if change.made {
            self.publish(EVERYONE, &RoomMade { room: name }, out);
        }
        if change.topic {
            let scope = self.scope_of_room(name);
            let set = TopicSet { room: name, topic: &room.topic, by: &room.topic_by };
            self.publish(scope, &set, out);
        }
        self.for_each_told(|server, peer| {
            if Some(peer) != from {
                server.send_room_record(peer, name, &room, out);
            }
        });
        true
    }

    pub(super) fn send_room_record(
        &mut self,
        conn: ConnId,
        name: &str,
        room: &Room,
        out: &mut Outbox<Effect>,
    ) {
        let record = peer::Room {
            room: name,
            made: room.made,
            topic: &room.topic,
            topic_clock: room.topic_clock,
            topic_by: &room.topic_by,
        };
        self.send(conn, &record, out);
    }

    pub(super) fn on_room(
        &mut self,
        from: ConnId,
        room: &peer::Room<'_>,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        let name = names::room(room.room)?;
        if planted!(RoomUnheard) {
            return Ok(());
        }
        if room.topic.len() > self.limits().topic_bytes_max as usize {
            return Err(Reason::TopicTooLong);
        }
        let record = Room {
            made: room.made,
            topic: room.topic.to_string(),
            topic_clock: room.topic_clock,
            topic_by: room.topic_by.to_string(),
        };
        self.merge_room(&name, &record, Some(from), out);
        Ok(())
    }
}
