//! Peers that are linked with a server that would be alone otherwise, and what it tells them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::{Input, Source};
use super::hostile::{Lone, attach};
use crate::hash::{self, ClusterKey};
use crate::ids::{Clock, ConnId, Origin, ServerId, SessionId, SessionSecret, Tag};
use crate::machine::Machine;
use crate::time::MILLI_US;
use crate::wire::chat::{Attach, Attached, Failed};
use crate::wire::hello::{Bye, Role};
use crate::wire::peer::{Beat, Linked, PeerHello, Presence, ServerState, Session};
use crate::wire::{Fixed64, Message, Reason, Seq};

/// A peer: its connection and its id.
#[derive(Clone, Copy)]
pub(super) struct Linkee {
    pub(super) conn: ConnId,
    pub(super) server: ServerId,
}

/// How a peer says that it stands.
pub(super) fn beat(state: ServerState, load: u32, limit: u32) -> Beat<'static> {
    Beat {
        clock: Clock(0),
        vector: Fixed64(0),
        digest: Tag::default(),
        ma: 0,
        state,
        load,
        limit,
        heard: Seq::default(),
    }
}

/// A user: secret and name follow from the number.
pub(super) fn user(number: u8, name: &'static str) -> Attach<'static> {
    Attach { secret: SessionSecret([number; 16]), name, ..attach() }
}

pub(super) fn session_of(number: u8) -> SessionId {
    hash::session_id("cordee", &SessionSecret([number; 16]))
}

impl Lone {
    /// Links with a server of that id, at `peer<id>:1`.
    pub(super) fn link(&mut self, id: u64) -> Linkee {
        let (conn, server) = (self.greet(Role::Peer), ServerId(id));
        let address = alloc::format!("peer{id}:1");
        let hello = PeerHello {
            server,
            origin: Origin { server, incarnation: 1, nonce: 1 },
            address: &address,
            cluster_id: Tag::default(),
            founded: Clock(u64::MAX),
            key: ClusterKey([0; 32]),
            clock: Clock(0),
            final_clock: Clock(0),
            known_incarnation: 0,
            state: ServerState::Active,
            members: Seq::default(),
        };
        self.tell(conn, &hello);
        self.tell(conn, &Linked { reserved: 0 });
        Linkee { conn, server }
    }

    /// Time passes in small steps, in which these peers give a sign of life.
    pub(super) fn pass(&mut self, us: u64, peers: &[Linkee]) {
        let until = self.now + us;
        while self.now < until {
            self.now = until.min(self.now + 100 * MILLI_US);
            for peer in peers {
                self.tell(peer.conn, &beat(ServerState::Active, 0, 100));
            }
            self.timeout();
        }
    }

    /// Somebody attaches on a connection of its own.
    pub(super) fn comes(&mut self, attach: &Attach<'_>) -> ConnId {
        let conn = self.greet(Role::Client);
        self.tell(conn, attach);
        conn
    }

    /// Somebody connects.
    pub(super) fn knocks(&mut self, source: Source) -> Result<ConnId, Reason> {
        let now = self.now;
        let mut accepted = Err(Reason::Unknown);
        self.with_server(|server, out| accepted = server.accept(now, source, out));
        accepted
    }

    pub(super) fn leaves(&mut self, conn: ConnId) {
        self.input(Input::Closed { conn });
    }

    /// The name under which a connection was attached.
    pub(super) fn name_of(&self, conn: ConnId) -> Option<String> {
        let attached = self.last(conn, Attached::KIND)?;
        Some(Attached::parse(&attached).expect("valid").name.to_string())
    }

    pub(super) fn is_attached(&self, conn: ConnId) -> bool {
        self.count(conn, Attached::KIND) > 0
    }

    /// Why a request of the connection failed last.
    pub(super) fn failure(&self, conn: ConnId) -> Option<Reason> {
        let failed = self.last(conn, Failed::KIND)?;
        Some(Failed::parse(&failed).expect("valid").reason)
    }

    /// With what it was sent away: the reason, when to try again, and where to go.
    pub(super) fn farewell(&self, conn: ConnId) -> Option<(Reason, u32, String)> {
        let bye = self.last(conn, Bye::KIND)?;
        let bye = Bye::parse(&bye).expect("valid");
        Some((bye.reason, bye.retry_ms, bye.next.to_string()))
    }

    /// The last message of a kind that a connection was sent.
    pub(super) fn last(&self, conn: ConnId, kind: u8) -> Option<Vec<u8>> {
        let sent = self.sent.iter().rev().find(|sent| (sent.0, sent.1) == (conn, kind));
        sent.map(|sent| sent.2.clone())
    }

    pub(super) fn timeout(&mut self) {
        let now = self.now;
        self.with_server(|server, out| server.handle_timeout(now, out));
    }

    /// What a peer says of a user at its place.
    pub(super) fn hears_of(&mut self, peer: Linkee, session: SessionId, name: &str, claim: Clock) {
        let record = Session {
            session,
            name,
            claim,
            attachment: 1,
            version: 0,
            home: peer.server,
            presence: Presence::Online,
            rooms: Seq::default(),
        };
        self.tell(peer.conn, &record);
    }
}
