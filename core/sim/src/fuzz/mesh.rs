//! Servers joined in memory, their users, and a stranger among the peers: the others stay
//! consistent and bounded whatever it says, and end alike when it keeps to the protocol.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use cordee_core::chat::server::Source;
use cordee_core::framing::put_frame;
use cordee_core::hash::ClusterKey;
use cordee_core::ids::{AuthorId, Clock, Origin, OriginRef, ServerId, SessionId, Tag};
use cordee_core::limits::Limits;
use cordee_core::names::COMMON_ROOM;
use cordee_core::time::{MILLI_US, SECOND_US};
use cordee_core::wire::chat::{Attach, Intent, MemberState, Say};
use cordee_core::wire::entry::{Entry, OriginDef, Scope};
use cordee_core::wire::hello::{Hello, Magic, Ping, Role, Transport};
use cordee_core::wire::peer::{
    Beat, Claim, Floor, FloorAuthors, Have, Linked, MemberRecord, Members, MessageRange, PeerHello,
    PeerVector, Presence, Pull, Reserve, Room, ServerState, Session, Vote,
};
use cordee_core::wire::{Fixed64, Message, Seq, VERSION_MAJOR};

use super::net::{Net, WALL_US, WireId, address_of};

const OPERATIONS_MAX: usize = 120;
/// Starts in one input: each is an origin, or two, of which there is a limited number for good.
const STARTS_MAX: usize = 12;
const STRANGER: ServerId = ServerId(7);
/// Within so much time the servers must hold the same, once they are left in peace.
const CONVERGE_US: u64 = 60 * SECOND_US;
const TIMES_US: [u64; 8] = [
    1,
    MILLI_US,
    20 * MILLI_US,
    160 * MILLI_US,
    400 * MILLI_US,
    SECOND_US,
    3 * SECOND_US,
    33 * SECOND_US,
];

/// The first byte: odd for three servers, even for two; its half odd for a stranger that says
/// anything, even for one that keeps to the protocol and may still write whatever it likes. Then a
/// list of operations, one byte each and one for each of its arguments:
///
/// | byte modulo 10 | operation, arguments |
/// | --- | --- |
/// | 0, 3 | a user says something: server, room |
/// | 1, 2 | time: how long |
/// | 4 | two servers are cut off from each other, or heal: first, second, which |
/// | 5 | a server dies and starts with nothing: which |
/// | 6 | the stranger connects: server, what it says of itself |
/// | 7 | the stranger writes an entry, or sends one that it wrote: which connection, which |
/// | 8 | the stranger hangs up: which connection |
/// | 9 | the stranger says something else: kind, and up to seven values; or any bytes |
pub fn mesh(data: &[u8]) {
    let mut random = Unstructured::new(data);
    let Ok(first) = random.arbitrary::<u8>() else { return };
    let mut world = World::new(2 + usize::from(first % 2), first / 2 % 2 == 0);
    for _ in 0..OPERATIONS_MAX {
        if random.is_empty() || world.operate(&mut random).is_err() {
            break;
        }
    }
    world.end();
}

struct World {
    net: Net,
    lawful: bool,
    /// By server: the connection of its user, and the last number that it gave.
    users: Vec<Option<(WireId, u64)>>,
    attachments: u32,
    starts: usize,
    strangers: Vec<WireId>,
    /// What the stranger wrote, whole frames: it never writes a number twice.
    written: Vec<Vec<u8>>,
    /// Every entry that any server ever showed.
    facts: BTreeMap<(Origin, u64), Vec<u8>>,
    /// By server, how far its origins were compared with these.
    compared: Vec<BTreeMap<Origin, u64>>,
}

impl World {
    fn new(servers: usize, lawful: bool) -> Self {
        let limits = Limits {
            sessions_max: 64,
            rooms_max: 64,
            members_max: 8,
            origins_max: 64,
            waiting_bytes_max: 1 << 20,
            log_bytes_max: 1 << 20,
            catch_up_bytes_max: 64 << 10,
            ..Limits::default()
        };
        let mut world = World {
            net: Net::new(servers, 2, &limits),
            lawful,
            users: vec![None; servers],
            attachments: 0,
            starts: 0,
            strangers: Vec::new(),
            written: Vec::new(),
            facts: BTreeMap::new(),
            compared: vec![BTreeMap::new(); servers],
        };
        world.pass(2 * SECOND_US);
        assert!(world.net.nodes.iter().all(|node| node.server.linked() == servers - 1), "all link");
        world
    }

    fn operate(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        match random.arbitrary::<u8>()? % 10 {
            0 | 3 => {
                let server = random.choose_index(self.users.len())?;
                let room = [COMMON_ROOM, "#ops", "#x"][random.choose_index(3)?];
                self.say(server, room);
            }
            1 | 2 => self.pass(TIMES_US[random.choose_index(TIMES_US.len())?]),
            4 => {
                let a = random.choose_index(self.users.len())?;
                let b = random.choose_index(self.users.len())?;
                let cut = random.arbitrary::<u8>()? % 2 == 0;
                if a != b {
                    self.net.cut(a, b, cut);
                }
            }
            5 => {
                let server = random.choose_index(self.users.len())?;
                if self.starts < STARTS_MAX {
                    self.starts += 1;
                    self.users[server] = None;
                    self.compared[server].clear();
                    self.net.restart(server);
                }
            }
            6 => self.connect(random)?,
            7 => self.write(random)?,
            8 => {
                if let Some(at) = self.some_stranger(random)? {
                    let wire = self.strangers.remove(at);
                    self.net.hang_up(wire);
                }
            }
            _ => self.say_something(random)?,
        }
        self.settle();
        Ok(())
    }

    fn settle(&mut self) {
        self.net.settle();
        for (wire, _) in self.users.iter().flatten() {
            self.net.read(*wire);
        }
        self.strangers.retain(|wire| {
            self.net.read(*wire);
            !self.net.is_over(*wire)
        });
        self.net.settle();
        self.net.check();
        self.remember();
    }

    fn pass(&mut self, us: u64) {
        let mut left = us;
        while left > 0 {
            let now = left.min(SECOND_US);
            left -= now;
            for (wire, _) in self.users.iter().flatten() {
                self.net.tell(*wire, &Ping { nonce: 1 });
            }
            self.net.pass(now);
            self.settle();
        }
    }

    /// One number of an origin is one entry, whoever shows it.
    fn remember(&mut self) {
        if !self.lawful {
            return;
        }
        for (node, compared) in self.net.nodes.iter().zip(&mut self.compared) {
            let archive = node.server.archive();
            for (reference, origin) in archive.origins() {
                let shown = archive.shown(reference);
                let before = compared.insert(origin, shown).unwrap_or(0);
                for number in before + 1..=shown {
                    let id = archive.id(reference, number).expect("no gap in an origin");
                    let mut bytes = Vec::new();
                    archive.put_portable(id, &mut bytes);
                    match self.facts.entry((origin, number)) {
                        std::collections::btree_map::Entry::Vacant(place) => {
                            place.insert(bytes);
                        }
                        std::collections::btree_map::Entry::Occupied(before) => {
                            assert_eq!(*before.get(), bytes, "{origin:?} {number} forked");
                        }
                    }
                }
            }
        }
    }

    // Users.

    fn say(&mut self, server: usize, room: &str) {
        if self.users[server].is_none_or(|(wire, _)| self.net.is_over(wire)) {
            self.users[server] = self.attach(server);
        }
        let Some((wire, number)) = &mut self.users[server] else { return };
        *number += 1;
        let body = format!("{number} at {server}");
        let say =
            Say { number: *number, scope: Scope::Room(room), after: Seq::default(), body: &body };
        let wire = *wire;
        self.net.tell(wire, &say);
    }

    fn attach(&mut self, server: usize) -> Option<(WireId, u64)> {
        let wire = self.net.open(server, Source { address: 1, loopback: true })?;
        self.net.tell(wire, &hello(Role::Client));
        self.attachments += 1;
        let name = format!("user{server}");
        let attach = Attach {
            secret: cordee_core::ids::SessionSecret([server as u8 + 1; 16]),
            process: Fixed64(u64::from(self.attachments)),
            attachment: self.attachments,
            intent: Intent::Reset,
            name: &name,
            reservation: Fixed64(0),
            hops: 0,
            author_number: 0,
            rooms: Seq::new(&["#ops", "#x"]),
            seen: Seq::default(),
            partial: Seq::default(),
        };
        self.net.tell(wire, &attach);
        self.net.settle();
        Some((wire, 0))
    }

    // The stranger.

    fn some_stranger(&self, random: &mut Unstructured<'_>) -> Result<Option<usize>> {
        let byte = usize::from(random.arbitrary::<u8>()?);
        Ok((!self.strangers.is_empty()).then(|| byte % self.strangers.len()))
    }

    fn connect(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let server = random.choose_index(self.users.len())?;
        let what = random.arbitrary::<u8>()?;
        let source = Source { address: 1, loopback: true };
        if self.strangers.len() >= 6 {
            return Ok(());
        }
        let Some(wire) = self.net.open(server, source) else { return Ok(()) };
        self.strangers.push(wire);
        self.net.tell(wire, &hello(Role::Peer));
        let clock = Clock(WALL_US + self.net.now.0);
        let mut introduction = PeerHello {
            server: STRANGER,
            origin: origin(0),
            address: "127.0.0.1:5999",
            cluster_id: Tag([1; 16]),
            founded: Clock(u64::MAX),
            key: ClusterKey([7; 32]),
            clock,
            final_clock: Clock(0),
            known_incarnation: 0,
            state: ServerState::Active,
            members: Seq::default(),
        };
        if !self.lawful {
            // What it says of itself may be as it likes.
            let of = |bit: u8| what >> bit & 1 == 1;
            introduction.founded = if of(0) { Clock(0) } else { introduction.founded };
            introduction.known_incarnation = if of(1) { u32::MAX } else { 0 };
            introduction.final_clock = if of(2) { Clock(u64::MAX) } else { Clock(0) };
            introduction.clock = Clock(clock.0 + if of(3) { 80_000 * SECOND_US } else { 0 });
            introduction.origin.incarnation = if of(4) { u32::MAX } else { 1 };
        }
        self.net.tell(wire, &introduction);
        self.net.tell(wire, &OriginDef { reference: OriginRef(0), origin: introduction.origin });
        let reference = OriginRef(1);
        let theirs = self.net.nodes[server].server.origin();
        self.net.tell(wire, &OriginDef { reference, origin: theirs });
        let others = (0..self.users.len()).filter(|other| *other != server);
        for (reference, other) in (2..).map(OriginRef).zip(others) {
            let origin = self.net.nodes[other].server.origin();
            self.net.tell(wire, &OriginDef { reference, origin });
        }
        self.net.tell(wire, &Linked { reserved: 0 });
        Ok(())
    }

    /// Sends an entry of its own. It is free in what it says in it.
    fn write(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let at = self.some_stranger(random)?;
        let which = usize::from(random.arbitrary::<u8>()?);
        let Some(at) = at else { return Ok(()) };
        if which >= 128 && !self.written.is_empty() {
            let frame = self.written[which % self.written.len()].clone();
            self.net.write(self.strangers[at], &frame);
            return Ok(());
        }
        let number = self.written.len() as u64 + 1;
        let same = which % 4 == 1;
        let body = format!("the stranger's {number}");
        let entry = Entry {
            origin: OriginRef(0),
            number,
            clock: Clock(WALL_US + number * 1_000),
            author: AuthorId { session: SessionId(9), process: 1 },
            // Now and then a message again, or one after messages that are lost.
            author_number: if same { number.div_ceil(2) } else { number },
            name: "stranger",
            scope: if which % 8 == 2 {
                Scope::talk(SessionId(8), SessionId(9), "x")
            } else {
                Scope::Room([COMMON_ROOM, "#ops", "#new"][which / 8 % 3])
            },
            after: Seq::default(),
            body: if same { "again" } else { &body },
            tag: Tag([3; 16]),
            index: 0,
            flags: (which / 16) as u8,
        };
        let mut frame = Vec::new();
        entry.put_frame(&mut frame);
        self.net.write(self.strangers[at], &frame);
        self.written.push(frame);
        Ok(())
    }

    fn say_something(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let kind = random.arbitrary::<u8>()?;
        let mut values = [0_u8; 7];
        random.fill_buffer(&mut values)?;
        let Some(&wire) = self.strangers.get(usize::from(values[0]) % self.strangers.len().max(1))
        else {
            return Ok(());
        };
        let mut frame = Vec::new();
        if kind >= 240 && !self.lawful {
            let length = usize::from(values[1]).min(random.len());
            let bytes = random.bytes(length)?;
            put_frame(&mut frame, 0x30 + kind % 64, |out| out.extend_from_slice(bytes));
        } else {
            self.put_message(kind % 14, values, &mut frame);
        }
        self.net.write(wire, &frame);
        Ok(())
    }

    /// A message that says what the values say. What would speak for others is left out by one
    /// who keeps to the protocol.
    fn put_message(&self, kind: u8, values: [u8; 7], frame: &mut Vec<u8>) {
        let [_, a, b, c, d, e, f] = values;
        let lies = !self.lawful;
        let far =
            |byte: u8| if byte >= 240 { u64::MAX - u64::from(255 - byte) } else { byte.into() };
        let far32 = |byte: u8| far(byte).min(u32::MAX.into()) as u32;
        let clock = Clock(if lies && a >= 128 { far(a) } else { WALL_US + self.net.now.0 });
        let known = (0..self.users.len()).map(|node| self.net.nodes[node].server.origin());
        let mut origins: Vec<Origin> = vec![origin(0), origin(1)];
        origins.extend(known.filter(|_| lies));
        let some = origins[usize::from(b) % origins.len()];
        let session = SessionId(if lies { session_of(c % 4).0 } else { 9 });
        let references = if lies { u32::from(b % 6) } else { 0 };
        let room = ["#all", "#ops", "#new", "#z"][usize::from(d) % 4];
        match kind {
            0 => Beat {
                clock,
                vector: Fixed64(u64::from(b)),
                digest: Tag([c; 16]),
                ma: far(d),
                state: [ServerState::Joining, ServerState::Active, ServerState::Draining]
                    [usize::from(e) % 3],
                load: far32(f),
                limit: far32(c),
                heard: Seq::new(&[(self.net.nodes[0].server.id(), far32(d)), (STRANGER, far32(f))]),
            }
            .put_frame(frame),
            1 => Have { held: Seq::new(&[(OriginRef(references), far(c))]) }.put_frame(frame),
            2 => PeerVector { more: a % 2 == 1, held: Seq::new(&[(some, far(c), Tag([d; 16]))]) }
                .put_frame(frame),
            3 => Pull { origin: self.net.nodes[0].server.origin(), from: far(c), to: far(d) }
                .put_frame(frame),
            4 => Claim {
                claim: far(b),
                session,
                name: ["x", "user0", "user1"][usize::from(d) % 3],
                clock,
            }
            .put_frame(frame),
            5 => Vote { claim: far(b), granted: c % 2 == 1 || !lies }.put_frame(frame),
            6 => Session {
                session,
                name: ["x", "user0", "user1", "USER0"][usize::from(d) % 4],
                claim: clock,
                attachment: far32(e),
                version: far(f),
                home: if lies { self.net.nodes[0].server.id() } else { STRANGER },
                presence: [Presence::Online, Presence::Away, Presence::Gone][usize::from(b) % 3],
                rooms: Seq::new(&[room, "#all"]),
            }
            .put_frame(frame),
            7 => Room { room, made: clock, topic: "a topic", topic_clock: clock, topic_by: "x" }
                .put_frame(frame),
            8 => Reserve { reservation: Fixed64(u64::from(b)) }.put_frame(frame),
            9 => {
                let about = if lies { some } else { origin(0) };
                let address = address_of(usize::from(d % 6));
                let record = MemberRecord {
                    server: about.server,
                    address: if lies { &address } else { "127.0.0.1:5999" },
                    origin: about,
                    state: [
                        MemberState::Linked,
                        MemberState::Lost,
                        MemberState::Left,
                        MemberState::Forgotten,
                    ][usize::from(c) % 4],
                    version: far(e),
                };
                Members { members: Seq::new(&[record]) }.put_frame(frame);
            }
            10 if lies => Floor {
                origin: some,
                number: far(c),
                rolling: Tag([d; 16]),
                clock,
                rows: Seq::new(&[(Scope::Room(room), far(e)), (Scope::Room("#all"), u64::from(f))]),
            }
            .put_frame(frame),
            11 if lies => FloorAuthors {
                more: a % 2 == 1,
                forgot: b % 2 == 1,
                counted: Seq::new(&[MessageRange {
                    author: AuthorId { session, process: u64::from(b % 4) },
                    from: far(d),
                    through: far(e),
                    clock,
                }]),
            }
            .put_frame(frame),
            12 => OriginDef { reference: OriginRef(10 + u32::from(b % 8)), origin: origin(c % 3) }
                .put_frame(frame),
            13 if lies => Entry {
                origin: OriginRef(references),
                number: far(c),
                clock,
                author: AuthorId { session, process: u64::from(e % 4) },
                author_number: far(d),
                name: "liar",
                scope: Scope::Room(room),
                after: Seq::new(&[(OriginRef(u32::from(f % 4)), far(e))]),
                body: "a lie",
                tag: Tag([3; 16]),
                index: far(f),
                flags: a,
            }
            .put_frame(frame),
            _ => Ping { nonce: u64::from(a) }.put_frame(frame),
        }
    }

    /// The stranger is gone and all is healed: the servers hold the same before long.
    fn end(&mut self) {
        for wire in std::mem::take(&mut self.strangers) {
            self.net.hang_up(wire);
        }
        for a in 0..self.users.len() {
            (0..a).for_each(|b| self.net.cut(a, b, false));
        }
        if !self.lawful {
            self.pass(3 * SECOND_US);
            return;
        }
        let begin = self.net.now;
        while !self.is_converged() {
            let waited = self.net.now.since_us(begin);
            assert!(waited < CONVERGE_US, "the servers never hold the same: {:#?}", self.story());
            self.pass(SECOND_US);
        }
    }

    fn is_converged(&self) -> bool {
        let others = self.users.len() - 1;
        let first = self.net.nodes[0].server.digest();
        let nodes = &self.net.nodes;
        nodes.iter().all(|node| node.server.linked() >= others && node.server.digest() == first)
    }

    fn story(&self) -> Vec<String> {
        let of = |node: &super::net::Node| {
            let archive = node.server.archive();
            let shown = archive.origins().map(|(o, origin)| (origin, archive.shown(o)));
            format!("linked {} {:?}", node.server.linked(), shown.collect::<Vec<_>>())
        };
        self.net.nodes.iter().map(of).collect()
    }
}

/// The origins of the stranger.
fn origin(start: u8) -> Origin {
    Origin { server: STRANGER, incarnation: 1 + u32::from(start), nonce: 7 }
}

/// The sessions of the users, and one that nobody has.
fn session_of(number: u8) -> SessionId {
    if number == 3 {
        return SessionId(9);
    }
    let secret = cordee_core::ids::SessionSecret([number + 1; 16]);
    cordee_core::hash::session_id("cordee", &secret)
}

fn hello(role: Role) -> Hello<'static> {
    Hello {
        magic: Magic,
        major: VERSION_MAJOR,
        minor: 0,
        role,
        transport: Transport::Plain,
        key_id: Fixed64(0),
        cluster: "cordee",
    }
}
