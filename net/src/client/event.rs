//! What a client hears.

use std::sync::Arc;

use cordee_core::chat::client::{MessageId, Target};
use cordee_core::ids::{Clock, SessionId};
use cordee_core::wire::Reason;
pub use cordee_core::wire::chat::MemberState;

/// Where a message belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// A room, by its normalised name with the `#`.
    Room(Arc<str>),
    /// The talk with somebody.
    Talk {
        /// How the other was called then.
        name: Arc<str>,
        /// The other's session, which is what the talk belongs to.
        session: SessionId,
    },
}

impl From<&Scope> for Target {
    fn from(scope: &Scope) -> Target {
        match scope {
            Scope::Room(room) => Target::Room(room.to_string()),
            Scope::Talk { name, .. } => Target::User(name.to_string()),
        }
    }
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The room, or the talk.
    pub scope: Scope,
    /// The author's name then.
    pub from: Arc<str>,
    /// What was said: any UTF-8, control characters included.
    pub body: Box<str>,
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

/// A user in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// Who it is.
    pub session: SessionId,
    /// Whether a live server has it attached; otherwise it may still come back.
    pub online: bool,
    /// The address of its server.
    pub server: String,
    /// The rooms it is in.
    pub rooms: Vec<String>,
}

/// A room in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Room {
    /// Its name, with the `#`.
    pub name: String,
    /// How many are in it.
    pub users: u32,
    /// How many messages it has.
    pub messages: u64,
    /// Its topic; may be empty.
    pub topic: String,
}

/// A member of the cluster, as the client's server sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its advertised address.
    pub address: String,
    /// How it stands.
    pub state: MemberState,
    /// How many messages its archive has, as last heard.
    pub ma: u64,
}

/// A message that the client could not see through to its acknowledgement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsaid {
    /// The caller's own.
    pub reference: u64,
    /// What was to be said.
    pub body: String,
}

/// What happens. `reference` is that of the command that is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The session is attached: after the first connection, and after every loss of one.
    Connected {
        /// The server's advertised address.
        server: String,
        /// All servers of the cluster, in the order of the ring.
        servers: Vec<String>,
        /// The user's name.
        name: String,
        /// The rooms that the user is in.
        rooms: Vec<String>,
        /// To be stored with the session, see [`super::ChatConfig::attachment`].
        attachment: u32,
    },
    /// The server is lost; the client is on its way to the next.
    Disconnected {
        /// The server's advertised address.
        server: String,
        /// Why.
        why: Reason,
    },
    /// The cluster does not have what was received any more: all servers had ended at once, or the
    /// address leads to another cluster. What the client kept was handed back as far as a server
    /// could verify it. Comes right after [`Event::Connected`]; then comes whatever there is, less
    /// what was shown before. Indexes begin anew.
    Reset {
        /// How many messages the client had received.
        held: u64,
    },
    /// The servers of the cluster are these from now on, in the order of the ring.
    Servers {
        /// Their advertised addresses.
        servers: Vec<String>,
    },
    /// Someone else said something, or, in a replay, anyone did.
    Message(Message),
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
        name: String,
        /// The room; `None` for the cluster.
        room: Option<String>,
    },
    /// Someone went: from the cluster, or out of a room.
    Departed {
        /// Who.
        name: String,
        /// The room; `None` for the cluster.
        room: Option<String>,
    },
    /// Someone has another name.
    Renamed {
        /// The name until now.
        from: String,
        /// The name from now on.
        to: String,
        /// Whether it is this user.
        own: bool,
        /// Why, when it was not the user's wish.
        why: Option<Reason>,
    },
    /// A room was made.
    RoomMade {
        /// Its name.
        room: String,
    },
    /// A room has a new topic.
    Topic {
        /// The room.
        room: String,
        /// The topic; may be empty.
        topic: String,
        /// Who set it; empty when that is not known.
        by: String,
    },
    /// The user is in the room; its archive follows as messages with `replay`, then
    /// [`Event::CaughtUp`] for the room.
    Joined {
        /// The room, normalised.
        room: String,
        /// Its topic; may be empty.
        topic: String,
        /// The caller's own.
        reference: u64,
    },
    /// The user is out of the room.
    Left {
        /// The room.
        room: String,
        /// The caller's own.
        reference: u64,
    },
    /// Who is there: on arrival (`reference` 0), and when asked.
    Users {
        /// The caller's own.
        reference: u64,
        /// The users.
        users: Vec<User>,
    },
    /// Which rooms there are: on arrival (`reference` 0), and when asked.
    Rooms {
        /// The caller's own.
        reference: u64,
        /// The rooms.
        rooms: Vec<Room>,
    },
    /// Messages by index, in canonical order.
    History {
        /// The caller's own.
        reference: u64,
        /// The room, or the talk.
        scope: Scope,
        /// How many messages there are in all.
        total: u64,
        /// Those that were asked for.
        messages: Vec<Message>,
    },
    /// What was found, newest first.
    Search {
        /// The caller's own.
        reference: u64,
        /// What was found: the newest, at most [`Limits::search_results_max`].
        ///
        /// [`Limits::search_results_max`]: cordee_core::Limits::search_results_max
        messages: Vec<Message>,
        /// Whether there is more.
        more: bool,
    },
    /// How the connection stands.
    Status {
        /// The caller's own.
        reference: u64,
        /// The server's advertised address.
        server: String,
        /// The members of the cluster.
        members: Vec<Member>,
        /// How many messages the archive has that this user may see.
        ma: u64,
        /// How many of them came from here or were sent here.
        mt: u64,
        /// How many of them the client has seen: when all is drained equal to both, less what the
        /// archive had dropped before.
        held: u64,
    },
    /// A request is done that has no other answer.
    Done {
        /// The caller's own.
        reference: u64,
    },
    /// The archive was received up to here: of all rooms and talks, or of one that was joined.
    CaughtUp {
        /// The room; `None` for all.
        room: Option<String>,
    },
    /// A command failed, or (`reference` 0) something is wrong that the caller should know. After
    /// `name_taken` or `name_invalid` on arrival the client waits for [`super::Command::Name`].
    Error {
        /// The caller's own.
        reference: u64,
        /// What is wrong; [`Reason::word`] is its code.
        reason: Reason,
        /// A sentence for people.
        text: String,
    },
    /// The client has ended: the last event.
    Closed {
        /// Why, when it was not the caller's wish: a refusal that trying again cannot mend.
        why: Option<Reason>,
        /// What was not acknowledged, in order.
        unacknowledged: Vec<Unsaid>,
    },
}
