//! One value at least of every message; its bytes stand in `docs/PROTOCOL.md`.

use alloc::vec::Vec;

use super::{Pieces, hold};
use crate::blocks::{BlockHash, Root};
use crate::hash::ClusterKey;
use crate::ids::{AuthorId, Clock, Origin, OriginRef, ServerId, SessionId, SessionSecret, Tag};
use crate::wire::block;
use crate::wire::chat::{self, Intent, MemberState};
use crate::wire::entry::{self, Scope, flags};
use crate::wire::hello::{self, Magic, Role, Transport};
use crate::wire::peer::{self, Presence, ServerState};
use crate::wire::{Fixed64, Reader, Reason, Seq, WireError};

const ADA: SessionId = SessionId(0xada0_0000_0000_0001);
const BOB: SessionId = SessionId(0xb0b0_0000_0000_0002);
const FIRST: ServerId = ServerId(0x1111_1111_1111_1111);
const SECOND: ServerId = ServerId(0x2222_2222_2222_2222);
pub(super) const HERE: Origin =
    Origin { server: FIRST, incarnation: 3, nonce: 0xaaaa_aaaa_aaaa_aaaa };
const THERE: Origin = Origin { server: SECOND, incarnation: 1, nonce: 0xbbbb_bbbb_bbbb_bbbb };
const BY_ADA: AuthorId = AuthorId { session: ADA, process: 0xcccc_cccc_cccc_cccc };
/// 2026-01-01 00:00:00 UTC.
const NEW_YEAR: Clock = Clock(1_767_225_600_000_000);
const ALL: Scope<'static> = Scope::Room("#all");
pub(super) const TALK: Scope<'static> = Scope::Talk { low: ADA, high: BOB, other: "bob" };
const TAG: Tag = Tag([0x77; 16]);
const PAST: peer::Past =
    peer::Past { through: THERE, vector: Fixed64(0x5555_5555_5555_5555), digest: TAG };
const CLUSTER: Tag = Tag([0x99; 16]);

const ENTRY: entry::Entry<'static> = entry::Entry {
    origin: OriginRef(0),
    number: 7,
    clock: NEW_YEAR,
    author: BY_ADA,
    author_number: 2,
    name: "ada",
    scope: ALL,
    after: Seq::new(&[(OriginRef(1), 300)]),
    body: "hello",
    tag: TAG,
    index: 12,
    flags: flags::FINAL | flags::REPLAY,
};

pub(super) const PORTABLE: entry::Portable<'static> = entry::Portable {
    origin: HERE,
    number: 7,
    clock: NEW_YEAR,
    author: BY_ADA,
    author_number: 2,
    name: "ada",
    scope: ALL,
    after: Seq::new(&[(THERE, 300)]),
    body: "hello",
};

const MEMBERS: [chat::Member<'static>; 1] =
    [chat::Member { server: FIRST, address: "127.0.0.1:5000", state: MemberState::Linked, ma: 9 }];

const RECORDS: [peer::MemberRecord<'static>; 1] = [peer::MemberRecord {
    server: SECOND,
    address: "127.0.0.1:5001",
    origin: THERE,
    state: MemberState::Lost,
    version: 2,
}];

const RANGES: [peer::MessageRange; 1] =
    [peer::MessageRange { author: BY_ADA, from: 1, through: 299, clock: NEW_YEAR }];

/// Holds values against the examples of their section, in their order.
macro_rules! hold {
    ($held:ident: $($module:ident::$name:ident $fields:tt),* $(,)?) => {$(
        hold_one!($held, $module, $name, $module::$name $fields);
    )*};
}

macro_rules! hold_one {
    ($held:ident, $module:ident, $name:ident, $value:expr) => {
        match $value {
            value => {
                let named = |defined: &&super::Defined| defined.name == stringify!($name);
                let defined = $module::DEFINED.iter().find(named).expect("it is defined");
                let nth = $held.iter().filter(|name| **name == defined.name).count();
                $held.push(defined.name);
                hold(defined, nth, value.pieces(), |payload| {
                    $module::$name::take_whole(payload).map(|read| read == value)
                });
            }
        }
    };
}

/// Reads what is no message as if it were one.
trait TakeWhole<'a>: crate::wire::Field<'a> {
    fn take_whole(payload: &'a [u8]) -> Result<Self, WireError> {
        Self::take(&mut Reader::new(payload))
    }
}

impl<'a, T: crate::wire::Field<'a>> TakeWhole<'a> for T {}

/// Holds all of them, and says which.
pub(super) fn hold_all(held: &mut Vec<&'static str>) {
    hold_hello(held);
    hold_requests(held);
    hold_answers(held);
    hold_events(held);
    hold_lists(held);
    hold_linking(held);
    hold_replicated(held);
    hold_blocks(held);
    hold_one!(held, entry, Portable, PORTABLE);
    let talk = entry::Portable { scope: TALK, after: Seq::default(), ..PORTABLE };
    hold_one!(held, entry, Portable, talk);
}

fn hold_hello(held: &mut Vec<&'static str>) {
    hold!(held:
        hello::Hello {
            magic: Magic,
            major: 1,
            minor: 0,
            role: Role::Client,
            transport: Transport::Plain,
            key_id: Fixed64(0),
            cluster: "cordee",
        },
        hello::Hello {
            magic: Magic,
            major: 1,
            minor: 2,
            role: Role::Peer,
            transport: Transport::Noise,
            key_id: Fixed64(0x0123_4567_89ab_cdef),
            cluster: "bergwacht-süd",
        },
        hello::Welcome {
            minor: 0,
            server: FIRST,
            origin: HERE,
            cluster_id: CLUSTER,
            address: "127.0.0.1:5000",
            body_bytes_max: 8_192,
            ping_ms: 500,
        },
        hello::Bye { reason: Reason::Full, retry_ms: 5_000, next: "", detail: "" },
        hello::Bye { reason: Reason::Draining, retry_ms: 0, next: "[::1]:5001", detail: "update" },
        hello::Ping { nonce: 300 },
        hello::Pong { nonce: 300 },
    );
}

fn hold_requests(held: &mut Vec<&'static str>) {
    hold!(held:
        chat::Attach {
            secret: SessionSecret([0x55; 16]),
            process: Fixed64(BY_ADA.process),
            attachment: 1,
            intent: Intent::New,
            name: "ada",
            reservation: Fixed64(0),
            hops: 0,
            author_number: 0,
            rooms: Seq::new(&["#all"]),
            seen: Seq::default(),
            partial: Seq::default(),
        },
        chat::Attach {
            secret: SessionSecret([0x55; 16]),
            process: Fixed64(BY_ADA.process),
            attachment: 2,
            intent: Intent::Resume,
            name: "ada",
            reservation: Fixed64(0xdddd_dddd_dddd_dddd),
            hops: 1,
            author_number: 2,
            rooms: Seq::new(&["#all", "#ops"]),
            seen: Seq::new(&[(HERE, 7), (THERE, 300)]),
            partial: Seq::new(&[chat::Partial { room: "#ops", seen: Seq::new(&[(HERE, 4)]) }]),
        },
        chat::Say { number: 1, scope: ALL, after: Seq::default(), body: "hello" },
        chat::Say {
            number: 2,
            scope: TALK,
            after: Seq::new(&[(OriginRef(0), 7), (OriginRef(1), 300)]),
            body: "grüß dich",
        },
        chat::Join { request: 1, room: "#ops" },
        chat::Leave { request: 2, room: "#ops" },
        chat::SetTopic { request: 3, room: "#ops", topic: "night shift" },
        chat::SetName { request: 4, name: "ada.l" },
        chat::AskUsers { request: 5 },
        chat::AskRooms { request: 6 },
        chat::AskHistory { request: 7, scope: ALL, from: 0, count: 50 },
        chat::Search { request: 8, words: "pump seal" },
        chat::AskStatus { request: 9 },
        chat::KillServer { request: 10 },
        chat::Quit { reserved: 0 },
        chat::Return { entry: PORTABLE, tag: TAG },
        chat::Returned { count: 1 },
        chat::AskServer { users: true },
        chat::Forget { request: 1, address: "127.0.0.1:5004" },
    );
}

fn hold_answers(held: &mut Vec<&'static str>) {
    hold!(held:
        chat::Attached {
            session: ADA,
            name: "ada",
            intent: Intent::Resume,
            author_number: 2,
            ma: 310,
            mt: 305,
            cut: Seq::new(&[(THERE, 298)]),
            rooms: Seq::new(&["#all", "#ops"]),
        },
        chat::Redirect { address: "127.0.0.1:5001", reservation: Fixed64(0xdddd_dddd_dddd_dddd) },
        chat::CaughtUp { room: "" },
        chat::CaughtUp { room: "#ops" },
        chat::Ack { first: 3, copies: 2, durable: true, indexes: Seq::new(&[12, 300]) },
        chat::Failed { request: 4, say: false, reason: Reason::NameTaken, detail: "" },
        chat::Failed { request: 3, say: true, reason: Reason::BodyTooLong, detail: "8192 bytes" },
        chat::Done { request: 3 },
        chat::Joined { request: 1, room: "#ops", topic: "night shift" },
        chat::Left { request: 2, room: "#ops" },
        chat::Want { ranges: Seq::new(&[(THERE, 299, 300)]) },
    );
    hold_one!(held, entry, OriginDef, entry::OriginDef { reference: OriginRef(1), origin: THERE });
    hold_one!(held, entry, Entry, ENTRY);
    let talk = entry::Entry { scope: TALK, after: Seq::default(), flags: 0, ..ENTRY };
    hold_one!(held, entry, Entry, talk);
}

fn hold_events(held: &mut Vec<&'static str>) {
    let server = |server, address, state| chat::ServerInfo { server, address, state };
    hold!(held:
        chat::Servers {
            servers: Seq::new(&[
                server(FIRST, "127.0.0.1:5000", MemberState::Linked),
                server(SECOND, "127.0.0.1:5001", MemberState::Lost),
            ]),
        },
        chat::Arrived { session: BOB, name: "bob", room: "" },
        chat::Arrived { session: BOB, name: "bob", room: "#ops" },
        chat::Departed { session: BOB, name: "bob", room: "" },
        chat::Renamed { session: BOB, from: "bob", to: "bob~2", reason: Reason::NameLost },
        chat::RoomMade { room: "#ops" },
        chat::TopicSet { room: "#ops", topic: "night shift", by: "ada" },
        chat::Stable { held: Seq::new(&[(OriginRef(0), 7), (OriginRef(1), 298)]) },
    );
}

fn hold_lists(held: &mut Vec<&'static str>) {
    hold!(held:
        chat::UserList {
            request: 0,
            more: false,
            users: Seq::new(&[chat::UserInfo {
                session: ADA,
                name: "ada",
                online: true,
                server: "127.0.0.1:5000",
                rooms: Seq::new(&["#all", "#ops"]),
            }]),
        },
        chat::RoomList {
            request: 6,
            more: true,
            rooms: Seq::new(&[chat::RoomInfo {
                room: "#ops",
                users: 2,
                entries: 300,
                topic: "night shift",
            }]),
        },
        chat::Page { request: 7, more: false, total: 12, entries: Seq::new(&[ENTRY]) },
        chat::Status {
            mt: Fixed64(305),
            ma: 310,
            request: 9,
            server: "127.0.0.1:5000",
            members: Seq::new(&MEMBERS),
        },
        chat::ServerStatus {
            address: "127.0.0.1:5000",
            pid: 4_711,
            server: FIRST,
            incarnation: 3,
            ma: 310,
            digest: TAG,
            from: 1,
            users: 2,
            limit: 100,
            rooms: 2,
            sessions: 3,
            memory_bytes: 65_536,
            final_clock: NEW_YEAR,
            members: Seq::new(&MEMBERS),
        },
    );
}

fn hold_linking(held: &mut Vec<&'static str>) {
    hold!(held:
        peer::PeerHello {
            server: FIRST,
            origin: HERE,
            address: "127.0.0.1:5000",
            cluster_id: CLUSTER,
            founded: NEW_YEAR,
            key: ClusterKey([0x66; 32]),
            clock: Clock(NEW_YEAR.0 + 1),
            final_clock: NEW_YEAR,
            known_incarnation: 1,
            state: ServerState::Joining,
            members: Seq::new(&RECORDS),
        },
        peer::PeerVector { more: false, held: Seq::new(&[(HERE, 7, TAG)]) },
        peer::Have { held: Seq::new(&[(OriginRef(0), 7), (OriginRef(1), 300)]) },
        peer::Beat {
            clock: NEW_YEAR,
            vector: Fixed64(0x0123_4567_89ab_cdef),
            digest: TAG,
            ma: 310,
            state: ServerState::Active,
            load: 2,
            limit: 100,
            heard: Seq::new(&[(SECOND, 40)]),
        },
        peer::Pull { origin: THERE, from: 299, to: 300 },
        peer::Linked { reserved: 0 },
        peer::Floor {
            origin: THERE,
            number: 300,
            rolling: TAG,
            clock: NEW_YEAR,
            rows: Seq::new(&[(Scope::Room("#all"), 250), (Scope::talk(ADA, BOB, ""), 49)]),
        },
        peer::FloorAuthors {
            more: false,
            forgot: false,
            counted: Seq::new(&RANGES),
        },
        peer::Pasts { pasts: Seq::new(&[PAST]) },
        peer::FloorPast {
            past: PAST,
            clock: NEW_YEAR,
            rows: Seq::new(&[(Scope::Room("#all"), 250)]),
        },
    );
}

fn hold_replicated(held: &mut Vec<&'static str>) {
    hold!(held:
        peer::Claim { claim: 1, session: ADA, name: "ada", clock: NEW_YEAR },
        peer::Vote { claim: 1, granted: true },
        peer::Session {
            session: ADA,
            name: "ada",
            claim: NEW_YEAR,
            attachment: 2,
            version: 1,
            home: FIRST,
            presence: Presence::Away,
            rooms: Seq::new(&["#all", "#ops"]),
        },
        peer::Room {
            room: "#ops",
            made: NEW_YEAR,
            topic: "night shift",
            topic_clock: Clock(NEW_YEAR.0 + 1),
            topic_by: "ada",
        },
        peer::Reserve { reservation: Fixed64(0xdddd_dddd_dddd_dddd) },
        peer::Members { members: Seq::new(&RECORDS) },
    );
}

const FILE: Root = Root([0x55; 32]);

fn hold_blocks(held: &mut Vec<&'static str>) {
    hold!(held:
        block::BlockWelcome { minor: 0, requests_max: 64 },
        block::Open { request: 1, file: 0, name: "talks/rope.mkv", hashes: true },
        block::AskHashes { request: 2, file: 0, first: 2_000, count: 1 },
        block::AskBlocks { request: 3, file: 0, first: 300, count: 4 },
        block::Cancel { request: 3 },
        block::AskList { request: 4, name: "talks", after: "" },
        block::AskBlockServer { request: 5 },
        block::Opened {
            request: 1,
            length: 1_000_000,
            block_bytes: 262_144,
            modified: Fixed64(NEW_YEAR.0),
            root: FILE,
            hashed: 4,
        },
        block::Hashes { request: 2, first: 2_000, hashes: Seq::new(&[BlockHash([0x66; 32])]) },
        block::Slice { request: 3, first: 300, count: 4 },
        block::SliceEnd { last: 0x2a },
        block::Refused {
            request: 3,
            reason: Reason::Cancelled,
            retry_ms: 0,
            detail: "",
        },
        block::Listing { request: 4, files: Seq::new(&LISTED), more: false },
        block::BlockServerStatus {
            request: 5,
            pid: 4_242,
            files: 7,
            transfers: 2,
            bytes_sent: 1_000_000,
            connections: 3,
        },
    );
}

const LISTED: [block::ListedFile<'static>; 1] =
    [block::ListedFile { name: "talks/rope.mkv", length: 1_000_000 }];
