//! What goes into a client's machine and what comes out.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::limits::ClientLimits;
use crate::framing::Frame;
use crate::ids::{AuthorId, Clock, SessionId, SessionSecret};
use crate::outbox::Span;
use crate::wire::entry::{Entry, Scope, flags};
use crate::wire::{Field, Reader, Reason, WireError};

/// What a client is told when it starts. The driver draws what must be unguessable.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name.
    pub cluster: String,
    /// Where to look for a server first, `host:port` each; at least one.
    pub servers: Vec<String>,
    /// The user's name; empty to wait for [`Command::Name`].
    pub name: String,
    /// Rooms to join besides the common one, as [`crate::names::room`] gives them.
    pub rooms: Vec<String>,
    /// The session.
    pub secret: SessionSecret,
    /// Drawn at every start: half of the author's id.
    pub process: u64,
    /// Attachments are counted from above this.
    pub attachment: u32,
    /// Forget everything at every change of server.
    pub reset: bool,
    /// What bounds everything.
    pub limits: ClientLimits,
}

/// A connection that the machine asked for. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// What can happen to a client.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection is open.
    Opened {
        /// Which.
        link: LinkId,
    },
    /// A connection could not be opened. The id is void afterwards.
    Failed {
        /// Which.
        link: LinkId,
    },
    /// Bytes came, whole frames or not. Given once a read, before its frames.
    Heard {
        /// On which connection.
        link: LinkId,
    },
    /// A whole frame came.
    Frame {
        /// On which connection.
        link: LinkId,
        /// The frame.
        frame: Frame<'a>,
    },
    /// What came is no frame; nothing more will come of it.
    Broken {
        /// On which connection.
        link: LinkId,
        /// What is wrong.
        error: WireError,
    },
    /// Bytes of [`Effect::Send`] left for the network.
    Drained {
        /// On which connection.
        link: LinkId,
        /// How many, since this was last said.
        bytes: u32,
    },
    /// The stream ended or failed. The id is void afterwards.
    Closed {
        /// Which connection.
        link: LinkId,
    },
    /// The application takes no events, so nothing is read and silence means nothing (`true`);
    /// or it takes them again.
    Paused(bool),
    /// The application wants something.
    Command(Command),
    /// The application wants to end now, acknowledged or not.
    Stop,
}

/// Whom a message goes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A room, with its `#`; the client must be in it.
    Room(String),
    /// The user of that name.
    User(String),
}

impl Target {
    /// `#room` is a room, anything else a user.
    #[must_use]
    pub fn parse(text: &str) -> Target {
        if text.starts_with('#') { Target::Room(text.into()) } else { Target::User(text.into()) }
    }
}

/// What to do. `reference` is the caller's own and comes back in the answer or in
/// [`Event::Error`]; 0 when the caller does not care.
///
/// Commands may be given before the client is connected: they are kept, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Say something. One [`Event::Sent`] or one [`Event::Error`] follows.
    Say {
        /// To whom.
        to: Target,
        /// What: 1 to 8192 bytes.
        body: String,
        /// Comes back.
        reference: u64,
    },
    /// Join a room, and make it when there is none. Answered by [`Event::Joined`].
    Join {
        /// The room, with its `#`.
        room: String,
        /// Comes back.
        reference: u64,
    },
    /// Leave a room. Answered by [`Event::Left`].
    Leave {
        /// The room, with its `#`.
        room: String,
        /// Comes back.
        reference: u64,
    },
    /// Set a room's topic. Answered by [`Event::Done`]; everyone hears [`Event::Topic`].
    Topic {
        /// The room, with its `#`.
        room: String,
        /// Its topic; empty for none.
        topic: String,
        /// Comes back.
        reference: u64,
    },
    /// Take a name: the first one when the client waits for one, or another. Answered by
    /// [`Event::Connected`], or by [`Event::Renamed`] and [`Event::Done`].
    Name {
        /// The name.
        name: String,
        /// Comes back.
        reference: u64,
    },
    /// Ask who is there. Answered by [`Event::Users`].
    Users {
        /// Comes back.
        reference: u64,
    },
    /// Ask which rooms there are. Answered by [`Event::Rooms`].
    Rooms {
        /// Comes back.
        reference: u64,
    },
    /// Ask for messages by index. Answered by [`Event::History`].
    History {
        /// The room, or the talk with a user.
        of: Target,
        /// The index of the first, from 1; `None` for the last `count`.
        from: Option<u64>,
        /// How many.
        count: u32,
        /// Comes back.
        reference: u64,
    },
    /// Look for words in all that the user may see. Answered by [`Event::Search`].
    Search {
        /// What each result contains: all of these words.
        words: String,
        /// Comes back.
        reference: u64,
    },
    /// Ask how the connection stands. Answered by [`Event::Status`].
    Status {
        /// Comes back.
        reference: u64,
    },
    /// Crash the server that the client is on, where that is allowed; then the client goes on at
    /// the next. Answered only when it is refused, by [`Event::Error`].
    KillServer {
        /// Comes back.
        reference: u64,
    },
    /// Forget everything and receive the whole archive again.
    Reset,
    /// Leave once everything said is acknowledged and every question answered; then
    /// [`Event::Closed`].
    Quit,
}

/// What a client wants done. Spans are of the outbox's arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Connect. Answered by [`Input::Opened`] or [`Input::Failed`].
    Connect {
        /// Which connection it will be.
        link: LinkId,
        /// The address, `host:port`, UTF-8.
        address: Span,
    },
    /// Send these frames.
    Send {
        /// On which connection.
        link: LinkId,
        /// Whole frames.
        bytes: Span,
    },
    /// Close, or give up connecting. What was to be sent is sent for at most a second. The id is
    /// void at once.
    Close {
        /// Which connection.
        link: LinkId,
    },
    /// Tell the application.
    Tell(Event),
}

/// What makes a message unique in the cluster: who wrote it, and the author's own count.
/// Displayed as three numbers in hexadecimal with `-` between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId {
    /// Who wrote it.
    pub author: AuthorId,
    /// The author's count, from 1.
    pub number: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AuthorId { session, process } = self.author;
        write!(f, "{session}-{process:016x}-{:x}", self.number)
    }
}

/// Where a message belongs, as this session sees it. `T` is the text: a span or a string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place<T> {
    /// A room, by its normalised name with the `#`.
    Room(T),
    /// The talk with somebody.
    Talk {
        /// The other's session, which is what the talk belongs to.
        session: SessionId,
        /// How the other was called then.
        name: T,
    },
}

/// A message as this session sees it. `T` is the text: a span or a string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<T> {
    /// The room, or the talk.
    pub place: Place<T>,
    /// The author's name then.
    pub from: T,
    /// What was said: any UTF-8, control characters included.
    pub body: T,
    /// Its place in the canonical order of its room or talk, from 1.
    pub index: u64,
    /// Whether nothing will be inserted before it any more.
    pub is_final: bool,
    /// When: microseconds since 1970-01-01 UTC.
    pub clock: Clock,
    /// Unique in the cluster.
    pub id: MessageId,
    /// Whether it comes from the archive, not as it happens.
    pub replay: bool,
    /// Whether this session wrote it.
    pub own: bool,
}

impl<'a> Message<&'a str> {
    /// An entry as the session `me` sees it; `None` when it is of a talk between two others.
    #[must_use]
    pub fn of(entry: &Entry<'a>, me: SessionId) -> Option<Self> {
        let own = entry.author.session == me;
        let place = match entry.scope {
            Scope::Room(room) => Place::Room(room),
            Scope::Talk { low, high, other } => {
                let session = match (low == me, high == me) {
                    (true, _) => high,
                    (false, true) => low,
                    (false, false) => return None,
                };
                Place::Talk { session, name: if own { other } else { entry.name } }
            }
        };
        Some(Message {
            place,
            from: entry.name,
            body: entry.body,
            index: entry.index,
            is_final: entry.flags & flags::FINAL != 0,
            clock: entry.clock,
            id: MessageId { author: entry.author, number: entry.author_number },
            replay: entry.flags & flags::REPLAY != 0,
            own,
        })
    }
}

/// What the application is told. Lists are fields of the wire, one after the other, for
/// [`items`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The session is attached: after the first connection, and after every loss of one.
    Connected {
        /// The server's advertised address.
        server: Span,
        /// All servers of the cluster, in the order of the ring: `&str` each.
        servers: Span,
        /// The user's name.
        name: Span,
        /// The rooms that the user is in: `&str` each.
        rooms: Span,
        /// The count of this attachment.
        attachment: u32,
    },
    /// The server is lost; the client is on its way to the next.
    Disconnected {
        /// The server's advertised address.
        server: Span,
        /// Why.
        why: Reason,
    },
    /// The cluster does not have what was received any more: all servers had ended at once, or the
    /// address leads to another cluster. What the client kept was handed back as far as a server
    /// could verify it. Told right after [`Event::Connected`]; then comes whatever there is, less
    /// what was shown before.
    Reset {
        /// How many messages had come.
        held: u64,
    },
    /// The servers of the cluster are these from now on.
    Servers {
        /// In the order of the ring: `&str` each.
        servers: Span,
    },
    /// Someone else said something, or, in a replay, anyone did.
    Message(Message<Span>),
    /// What was said is safe: one for each message, in order.
    Sent {
        /// The caller's own.
        reference: u64,
        /// Unique in the cluster.
        id: MessageId,
        /// Its place in the canonical order of its room or talk, from 1.
        index: u64,
        /// How many servers hold it.
        copies: u8,
        /// Whether it is synced to disk.
        durable: bool,
    },
    /// Someone came: to the cluster, or into a room.
    Arrived {
        /// Who.
        name: Span,
        /// The room; empty for the cluster.
        room: Span,
    },
    /// Someone went: from the cluster, or out of a room.
    Departed {
        /// Who.
        name: Span,
        /// The room; empty for the cluster.
        room: Span,
    },
    /// Someone has another name.
    Renamed {
        /// The name until now.
        from: Span,
        /// The name from now on.
        to: Span,
        /// Whether it is this user.
        own: bool,
        /// Why, when it was not the user's wish.
        why: Option<Reason>,
    },
    /// A room was made.
    RoomMade {
        /// Its name.
        room: Span,
    },
    /// A room has a new topic.
    Topic {
        /// The room.
        room: Span,
        /// The topic; may be empty.
        topic: Span,
        /// Who set it; empty when that is not known.
        by: Span,
    },
    /// The user is in the room; its archive follows, then [`Event::CaughtUp`].
    Joined {
        /// The room, normalised.
        room: Span,
        /// Its topic; may be empty.
        topic: Span,
        /// The caller's own.
        reference: u64,
    },
    /// The user is out of the room.
    Left {
        /// The room.
        room: Span,
        /// The caller's own.
        reference: u64,
    },
    /// Who is there: on arrival (`reference` 0), and when asked.
    Users {
        /// The caller's own.
        reference: u64,
        /// [`crate::wire::chat::UserInfo`] each.
        users: Span,
    },
    /// Which rooms there are: on arrival (`reference` 0), and when asked.
    Rooms {
        /// The caller's own.
        reference: u64,
        /// [`crate::wire::chat::RoomInfo`] each.
        rooms: Span,
    },
    /// Messages by index, in canonical order.
    History {
        /// The caller's own.
        reference: u64,
        /// The room, or the talk.
        place: Place<Span>,
        /// How many messages there are in all.
        total: u64,
        /// [`Entry`] each.
        entries: Span,
    },
    /// What was found, newest first.
    Search {
        /// The caller's own.
        reference: u64,
        /// How many were found; more than there are entries when not all are here.
        total: u64,
        /// [`Entry`] each.
        entries: Span,
    },
    /// How the connection stands.
    Status {
        /// The caller's own.
        reference: u64,
        /// The server's advertised address.
        server: Span,
        /// [`crate::wire::chat::Member`] each.
        members: Span,
        /// How many messages the archive has that this user may see.
        ma: u64,
        /// How many of them came from here or were sent here.
        mt: u64,
        /// How many of them came here: when all is drained equal to both, less what the archive had
        /// dropped before.
        held: u64,
    },
    /// A request is done that has no other answer.
    Done {
        /// The caller's own.
        reference: u64,
    },
    /// The archive was received up to here: of all rooms and talks, or of one that was joined.
    CaughtUp {
        /// The room; empty for all.
        room: Span,
    },
    /// A command failed, or (`reference` 0) something is wrong that the caller should know. After
    /// `NameTaken` or `NameInvalid` on arrival the client waits for [`Command::Name`].
    Error {
        /// The caller's own.
        reference: u64,
        /// What is wrong.
        reason: Reason,
        /// More for people than the reason's own sentence; may be empty.
        detail: Span,
    },
    /// The client has ended: the last event.
    Closed {
        /// Why, when it was not the caller's wish.
        why: Option<Reason>,
        /// What was not acknowledged, in order: `(u64, &str)` each, reference and body.
        unacknowledged: Span,
    },
}

/// Reads a list of an event.
pub fn items<'a, T: Field<'a>>(bytes: &'a [u8]) -> impl Iterator<Item = T> {
    let mut reader = Reader::new(bytes);
    core::iter::from_fn(move || {
        if reader.rest().is_empty() {
            return None;
        }
        T::take(&mut reader).ok()
    })
}
