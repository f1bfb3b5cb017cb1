//! Messages between a client (or an observer) and a server.

use super::entry::{AFTER_PAIRS_MAX, Entry, Portable, Scope};
use super::{ADDRESS_BYTES_MAX, Fixed64, Reason, Seq, VECTOR_PAIRS_MAX, wire, wire_enum};
use crate::ids::{Clock, Origin, OriginRef, ServerId, SessionId, SessionSecret, Tag};

wire_enum! {
    /// What a client wants when it attaches.
    Intent {
        /// To come in: the limit of users applies, the whole archive of its rooms is sent.
        New = 0,
        /// To go on: what it lacks is sent, the limit does not apply.
        Resume = 1,
        /// To go on with nothing: the whole archive of its rooms is sent.
        Reset = 2,
    }
    /// How a member stands, as one server sees it.
    MemberState {
        /// Linked or heard of by a linked one.
        Linked = 0,
        /// Nobody hears it.
        Lost = 1,
        /// It left in an orderly way.
        Left = 2,
        /// An operator removed it.
        Forgotten = 3,
    }
}

wire! {
    /// A room whose archive is still being received: it has a vector of its own.
    Partial<'a> {
        /// The room.
        room: &'a str,
        /// Per origin, the highest number received of that room.
        seen: Seq<'a, (Origin, u64)>[..=VECTOR_PAIRS_MAX],
    }

    /// Attaches a session to the connection.
    [0x10] Attach<'a> {
        /// The session's secret.
        secret: SessionSecret,
        /// Drawn when the client started: the second half of the author's id.
        process: Fixed64,
        /// Raised with every attachment, here or elsewhere; the highest wins.
        attachment: u32,
        /// What the client wants.
        intent: Intent,
        /// The name it asks for, or has.
        name: &'a str,
        /// What a redirect gave; 0 without.
        reservation: Fixed64,
        /// How often it was redirected on its way.
        hops: u8,
        /// The last number that it gave: messages up to it may be said again, and may have been
        /// accepted elsewhere.
        author_number: u64,
        /// The rooms it is in, the common room always among them, whether named or not.
        rooms: Seq<'a, &'a str>,
        /// Per origin, the highest number seen.
        seen: Seq<'a, (Origin, u64)>[..=VECTOR_PAIRS_MAX],
        /// The rooms for which `seen` does not hold yet.
        partial: Seq<'a, Partial<'a>>,
    }

    /// Says something. Answered by an [`Ack`] once it is safe, or by a [`Failed`] and then the
    /// same number is expected again.
    [0x11] Say<'a> {
        /// The author's count: one more than that of the one before.
        number: u64,
        /// The room, or the talk.
        scope: Scope<'a>,
        /// What was seen since the message before: per origin the highest number.
        after: Seq<'a, (OriginRef, u64)>[..=AFTER_PAIRS_MAX],
        /// What is said.
        body: &'a str,
    }

    /// Joins a room, and makes it when there is none. Answered by [`Joined`].
    [0x12] Join<'a> {
        /// Comes back in the answer.
        request: u64,
        /// The room.
        room: &'a str,
    }

    /// Leaves a room. Answered by [`Left`].
    [0x13] Leave<'a> {
        /// Comes back in the answer.
        request: u64,
        /// The room.
        room: &'a str,
    }

    /// Sets a room's topic. Answered by [`Done`].
    [0x14] SetTopic<'a> {
        /// Comes back in the answer.
        request: u64,
        /// The room.
        room: &'a str,
        /// Its new topic; may be empty.
        topic: &'a str,
    }

    /// Takes another name. Answered by [`Done`], after [`Renamed`].
    [0x15] SetName<'a> {
        /// Comes back in the answer.
        request: u64,
        /// The new name.
        name: &'a str,
    }

    /// Asks who is there. Answered by [`UserList`]s.
    [0x16] AskUsers {
        /// Comes back in the answer.
        request: u64,
    }

    /// Asks which rooms there are. Answered by [`RoomList`]s.
    [0x17] AskRooms {
        /// Comes back in the answer.
        request: u64,
    }

    /// Asks for entries by index. Answered by [`Page`]s.
    [0x18] AskHistory<'a> {
        /// Comes back in the answer.
        request: u64,
        /// The room, or one of the session's own talks.
        scope: Scope<'a>,
        /// The index of the first, from 1; 0 for the last `count`.
        from: u64,
        /// How many.
        count: u32,
    }

    /// Looks for words in what the session may see. Answered by [`Page`]s, newest first.
    [0x19] Search<'a> {
        /// Comes back in the answer.
        request: u64,
        /// What each result contains: all of these words, in any case.
        words: &'a str,
    }

    /// Asks how the connection stands. Answered by [`Status`].
    [0x1a] AskStatus {
        /// Comes back in the answer.
        request: u64,
    }

    /// Crashes the server, where that is allowed.
    [0x1b] KillServer {
        /// Comes back in a refusal.
        request: u64,
    }

    /// Leaves for good: the session departs at once.
    [0x1c] Quit {
        /// Nothing yet.
        reserved: u8,
    }

    /// Hands an entry back that the cluster has lost, as [`Want`] asked for.
    [0x1d] Return<'a> {
        /// The entry.
        entry: Portable<'a>,
        /// Its tag.
        tag: Tag,
    }

    /// Everything that could be handed back was.
    [0x1e] Returned {
        /// How many entries.
        count: u64,
    }

    /// An observer asks how the server stands. Answered by [`ServerStatus`] and [`UserList`]s.
    [0x20] AskServer {
        /// Whether the list of users is wanted, too.
        users: bool,
    }

    /// An operator removes a member that will not return. Answered by [`Done`].
    [0x21] Forget<'a> {
        /// Comes back in the answer.
        request: u64,
        /// Its advertised address.
        address: &'a str[..=ADDRESS_BYTES_MAX],
    }

    /// The session is attached.
    [0x30] Attached<'a> {
        /// Its public id.
        session: SessionId,
        /// Its name.
        name: &'a str,
        /// What was granted: a client that wanted to resume may have to begin anew.
        intent: Intent,
        /// The last of the author's numbers that this server has: the next is one more.
        author_number: u64,
        /// How many entries the session may see.
        ma: u64,
        /// How many of them the client has.
        mt: u64,
        /// Per origin, what the client's vector is cut back to: what it held beyond was handed
        /// back and comes again under another number.
        cut: Seq<'a, (Origin, u64)>[..=VECTOR_PAIRS_MAX],
        /// The rooms that the session is in now.
        rooms: Seq<'a, &'a str>,
    }

    /// Go to that server instead.
    [0x31] Redirect<'a> {
        /// Its address.
        address: &'a str[..=ADDRESS_BYTES_MAX],
        /// Opens the door there, once, within five seconds.
        reservation: Fixed64,
    }

    /// What a client lacked was sent up to here: of all its rooms, or of one that it joined.
    [0x34] CaughtUp<'a> {
        /// The room; empty for all.
        room: &'a str,
    }

    /// Messages of the session are safe: from number `first` on, one for each index.
    [0x35] Ack<'a> {
        /// The author's number of the first.
        first: u64,
        /// How many servers hold them.
        copies: u8,
        /// Whether they are synced to disk on this server.
        durable: bool,
        /// Per message, its index in its scope.
        indexes: Seq<'a, u64>,
    }

    /// A request failed. For a [`Say`], `request` is its number and `say` is set.
    [0x36] Failed<'a> {
        /// Whose failure.
        request: u64,
        /// Whether `request` is the number of a message.
        say: bool,
        /// Why.
        reason: Reason,
        /// More for people to read; may be empty.
        detail: &'a str,
    }

    /// A server of the cluster.
    ServerInfo<'a> {
        /// Its id.
        server: ServerId,
        /// Its advertised address.
        address: &'a str[..=ADDRESS_BYTES_MAX],
        /// How it stands.
        state: MemberState,
    }

    /// The servers of the cluster: sent after [`Welcome`](super::hello::Welcome) and whenever it changes.
    [0x37] Servers<'a> {
        /// All that are linked or lost, in no order.
        servers: Seq<'a, ServerInfo<'a>>,
    }

    /// Someone came: to the cluster, or into a room.
    [0x38] Arrived<'a> {
        /// Who.
        session: SessionId,
        /// Its name.
        name: &'a str,
        /// The room; empty for the cluster.
        room: &'a str,
    }

    /// Someone went: from the cluster, or out of a room.
    [0x39] Departed<'a> {
        /// Who.
        session: SessionId,
        /// Its name.
        name: &'a str,
        /// The room; empty for the cluster.
        room: &'a str,
    }

    /// Someone has another name.
    [0x3a] Renamed<'a> {
        /// Who.
        session: SessionId,
        /// The name until now.
        from: &'a str,
        /// The name from now on.
        to: &'a str,
        /// Why, when it was not its own wish; [`Reason::Unknown`] when it was.
        reason: Reason,
    }

    /// A room was made.
    [0x3b] RoomMade<'a> {
        /// Its name.
        room: &'a str,
    }

    /// A room has a new topic.
    [0x3c] TopicSet<'a> {
        /// The room.
        room: &'a str,
        /// The topic; may be empty.
        topic: &'a str,
        /// Who set it; empty when that is not known.
        by: &'a str,
    }

    /// A user in a list.
    UserInfo<'a> {
        /// Who.
        session: SessionId,
        /// Its name.
        name: &'a str,
        /// Whether it is attached to a live server now.
        online: bool,
        /// The address of its server.
        server: &'a str[..=ADDRESS_BYTES_MAX],
        /// The rooms it is in.
        rooms: Seq<'a, &'a str>,
    }

    /// A part of the list of users.
    [0x3d] UserList<'a> {
        /// As in the request; 0 on arrival.
        request: u64,
        /// Whether another part follows.
        more: bool,
        /// The users.
        users: Seq<'a, UserInfo<'a>>,
    }

    /// A room in a list.
    RoomInfo<'a> {
        /// Its name.
        room: &'a str,
        /// How many are in it.
        users: u32,
        /// How many entries it has.
        entries: u64,
        /// Its topic; may be empty.
        topic: &'a str,
    }

    /// A part of the list of rooms.
    [0x3e] RoomList<'a> {
        /// As in the request; 0 on arrival.
        request: u64,
        /// Whether another part follows.
        more: bool,
        /// The rooms.
        rooms: Seq<'a, RoomInfo<'a>>,
    }

    /// A part of the answer to a question for entries.
    [0x3f] Page<'a> {
        /// As in the request.
        request: u64,
        /// Whether another part follows.
        more: bool,
        /// How many entries the scope has; of a search, how many were found in all.
        total: u64,
        /// The entries.
        entries: Seq<'a, Entry<'a>>,
    }

    /// How the connection stands. `mt` comes first, so that whoever sends the frame can fill in
    /// the count of that moment.
    [0x40] Status<'a> {
        /// How many entries were transferred on this connection's behalf.
        mt: Fixed64,
        /// How many entries the session may see.
        ma: u64,
        /// As in the request.
        request: u64,
        /// The server's advertised address.
        server: &'a str[..=ADDRESS_BYTES_MAX],
        /// The members, this server among them.
        members: Seq<'a, Member<'a>>,
    }

    /// A member as a status shows it.
    Member<'a> {
        /// Its id.
        server: ServerId,
        /// Its advertised address.
        address: &'a str[..=ADDRESS_BYTES_MAX],
        /// How it stands.
        state: MemberState,
        /// How many entries its archive has, as last heard.
        ma: u64,
    }

    /// How the server stands.
    [0x41] ServerStatus<'a> {
        /// The server's advertised address.
        address: &'a str[..=ADDRESS_BYTES_MAX],
        /// The process that serves.
        pid: u32,
        /// The server's id.
        server: ServerId,
        /// Which start of it this is.
        incarnation: u32,
        /// How many rows its archive has.
        ma: u64,
        /// Over entries and rooms: equal on servers that hold the same.
        digest: Tag,
        /// From which row on the archive holds bodies; 1 when it holds all.
        from: u64,
        /// Users attached here.
        users: u32,
        /// The limit of users.
        limit: u32,
        /// How many rooms there are.
        rooms: u32,
        /// Sessions known in the cluster.
        sessions: u32,
        /// What the archive and the log hold in memory, in bytes.
        memory_bytes: u64,
        /// Up to this clock every index is final.
        final_clock: Clock,
        /// The members, this server among them.
        members: Seq<'a, Member<'a>>,
    }

    /// A request is done.
    [0x42] Done {
        /// As in the request.
        request: u64,
    }

    /// The session is in the room; its archive follows, then [`CaughtUp`].
    [0x43] Joined<'a> {
        /// As in the request.
        request: u64,
        /// The room.
        room: &'a str,
        /// Its topic; may be empty.
        topic: &'a str,
    }

    /// The session is out of the room: nothing of it follows.
    [0x44] Left<'a> {
        /// As in the request.
        request: u64,
        /// The room.
        room: &'a str,
    }

    /// The client holds entries that this cluster lacks: hand these back, then go on.
    [0x45] Want<'a> {
        /// Per origin, from the first number to the last.
        ranges: Seq<'a, (Origin, u64, u64)>[..=VECTOR_PAIRS_MAX],
    }

    /// Up to these numbers every member holds everything: it need not be kept to be handed back.
    [0x46] Stable<'a> {
        /// Per origin.
        held: Seq<'a, (OriginRef, u64)>[..=VECTOR_PAIRS_MAX],
    }
}
