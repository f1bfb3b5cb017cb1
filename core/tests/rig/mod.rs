//! One server's machine with clients and a peer that are frames of our own making.

#![allow(dead_code, unreachable_pub, reason = "each user takes what it needs")]

use cordee_core::chat::server::{ChatServer, Config, Effect, Input, Source};
use cordee_core::framing::frames;
use cordee_core::hash::ClusterKey;
use cordee_core::ids::{
    AuthorId, Clock, ConnId, Origin, OriginRef, ServerId, SessionId, SessionSecret, Tag,
};
use cordee_core::names::COMMON_ROOM;
use cordee_core::wire::chat::{Attach, Intent, Say};
use cordee_core::wire::entry::{Entry, OriginDef, Scope};
use cordee_core::wire::hello::{Hello, Magic, Role, Transport};
use cordee_core::wire::peer::{Linked, PeerHello, ServerState};
use cordee_core::wire::{Fixed64, Message, Seq, VERSION_MAJOR};
use cordee_core::{Machine, Outbox, Time, Wall};

/// 2026-01-01 00:00:00 UTC.
const WALL: u64 = 1_767_225_600_000_000;
/// Who the peer is.
const PEER: Origin = Origin { server: ServerId(7), incarnation: 1, nonce: 7 };

/// A server, told everything by hand.
pub struct Rig {
    pub server: ChatServer,
    pub out: Outbox<Effect>,
    pub now: Time,
    clients: Vec<(ConnId, u64)>,
    peer: Option<ConnId>,
    peer_number: u64,
    bytes: Vec<u8>,
}

impl Rig {
    /// A server with so many attached clients, all in the common room.
    pub fn new(clients: usize) -> Rig {
        let mut entropy = [0; 64];
        entropy.iter_mut().zip(1..).for_each(|(byte, value)| *byte = value);
        let mut config = Config::new("cordee", "127.0.0.1:5000", entropy, Wall(WALL));
        config.copies = 1;
        // So that trimming, too, is part of what is looked at.
        config.limits.log_bytes_max = 256 << 10;
        config.limits.users_max = clients as u32 + 1;
        config.limits.users_hard_max = clients as u32 + 1;
        let mut rig = Rig {
            server: ChatServer::new(config, 1, Time::ZERO),
            out: Outbox::new(),
            now: Time::ZERO,
            clients: Vec::new(),
            peer: None,
            peer_number: 0,
            bytes: Vec::new(),
        };
        rig.wait(100_000);
        for client in 0..clients {
            rig.attach(client);
        }
        rig.wait(100_000);
        rig
    }

    /// Links a peer that says nothing of its own accord.
    pub fn link_peer(&mut self) {
        let peer = self.connect(Role::Peer);
        let clock = Clock(WALL);
        self.message(
            peer,
            &PeerHello {
                server: PEER.server,
                origin: PEER,
                address: "127.0.0.1:5001",
                cluster_id: Tag([1; 16]),
                founded: Clock(1),
                key: ClusterKey([2; 32]),
                clock,
                final_clock: Clock(0),
                known_incarnation: 0,
                state: ServerState::Active,
                members: Seq::default(),
            },
        );
        self.message(peer, &OriginDef { reference: OriginRef(0), origin: PEER });
        self.message(peer, &Linked { reserved: 0 });
        self.peer = Some(peer);
        assert_eq!(self.server.linked(), 1, "the link stands");
    }

    fn connect(&mut self, role: Role) -> ConnId {
        let source = Source { address: 1, loopback: true };
        let conn = self.server.accept(self.now, source, &mut self.out).expect("there is a place");
        let hello = Hello {
            magic: Magic,
            major: VERSION_MAJOR,
            minor: 0,
            role,
            transport: Transport::Plain,
            key_id: Fixed64(0),
            cluster: "cordee",
        };
        self.message(conn, &hello);
        conn
    }

    fn attach(&mut self, client: usize) {
        let conn = self.connect(Role::Client);
        let name = format!("user{client}");
        self.message(
            conn,
            &Attach {
                secret: SessionSecret([client as u8 + 1; 16]),
                process: Fixed64(1),
                attachment: 1,
                intent: Intent::New,
                name: &name,
                reservation: Fixed64(0),
                hops: 0,
                author_number: 0,
                rooms: Seq::default(),
                seen: Seq::default(),
                partial: Seq::default(),
            },
        );
        self.clients.push((conn, 0));
    }

    /// One client says something; everything that follows is done, up to the acknowledgement.
    pub fn say(&mut self, client: usize, body: &str) {
        let (conn, number) = &mut self.clients[client];
        *number += 1;
        let (conn, number) = (*conn, *number);
        let scope = Scope::Room(COMMON_ROOM);
        self.message(conn, &Say { number, scope, after: Seq::default(), body });
        self.end_batch();
    }

    /// The peer sends an entry of its own.
    pub fn replicate(&mut self, body: &str) {
        self.peer_number += 1;
        let entry = Entry {
            origin: OriginRef(0),
            number: self.peer_number,
            clock: Clock(WALL + self.peer_number),
            author: AuthorId { session: SessionId(9), process: 1 },
            author_number: self.peer_number,
            name: "somebody",
            scope: Scope::Room(COMMON_ROOM),
            after: Seq::default(),
            body,
            tag: Tag([3; 16]),
            index: 0,
            flags: 0,
        };
        let peer = self.peer.expect("a peer was linked");
        self.message(peer, &entry);
        self.end_batch();
    }

    fn message<'a>(&mut self, conn: ConnId, message: &impl Message<'a>) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        message.put_frame(&mut bytes);
        for frame in frames(&bytes) {
            self.server.handle_input(self.now, Input::Frame { conn, frame }, &mut self.out);
        }
        self.bytes = bytes;
    }

    /// Storage has all, then what is due is done; the outbox is left as a driver finds it.
    fn end_batch(&mut self) {
        let last = self.out.effects().iter().rev().find_map(|effect| match effect {
            Effect::Persist { sequence, .. } => Some(*sequence),
            _ => None,
        });
        if let Some(through) = last {
            let input = Input::Persisted { through, durable: false };
            self.server.handle_input(self.now, input, &mut self.out);
        }
        self.server.handle_timeout(self.now, &mut self.out);
        // What a driver would have sent by now.
        for at in 0..self.clients.len() {
            let input = Input::Drained { conn: self.clients[at].0, bytes: u32::MAX };
            self.server.handle_input(self.now, input, &mut self.out);
        }
    }

    /// Time passes; whoever pings is alive.
    pub fn wait(&mut self, us: u64) {
        for _ in 0..us / 10_000 {
            self.now = self.now + 10_000;
            self.end_batch();
        }
        self.out.clear();
    }
}
