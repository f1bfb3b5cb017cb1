//! What a client can be told to do.

use super::event::Scope;

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

impl From<&Scope> for Target {
    fn from(scope: &Scope) -> Target {
        match scope {
            Scope::Room(room) => Target::Room(room.to_string()),
            Scope::Talk { name, .. } => Target::User(name.to_string()),
        }
    }
}

/// What to do. `reference` is the caller's own and comes back in the answer or in the
/// [`super::Event::Error`]; 0 when the caller does not care.
///
/// Commands may be given before the client is connected: they are kept, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Say something. One [`super::Event::Sent`] or one [`super::Event::Error`] follows.
    Say {
        /// To whom.
        to: Target,
        /// What: 1 to 8192 bytes.
        body: String,
        /// Comes back.
        reference: u64,
    },
    /// Join a room, and make it when there is none. Answered by [`super::Event::Joined`].
    Join {
        /// The room, with its `#`.
        room: String,
        /// Comes back.
        reference: u64,
    },
    /// Leave a room. Answered by [`super::Event::Left`].
    Leave {
        /// The room, with its `#`.
        room: String,
        /// Comes back.
        reference: u64,
    },
    /// Set a room's topic. Answered by [`super::Event::Done`]; everyone hears
    /// [`super::Event::Topic`].
    Topic {
        /// The room, with its `#`.
        room: String,
        /// Its topic; empty for none.
        topic: String,
        /// Comes back.
        reference: u64,
    },
    /// Take a name: the first one when the client waits for one, or another. Answered by
    /// [`super::Event::Connected`] or by [`super::Event::Renamed`] and [`super::Event::Done`].
    Name {
        /// The name.
        name: String,
        /// Comes back.
        reference: u64,
    },
    /// Ask who is there. Answered by [`super::Event::Users`].
    Users {
        /// Comes back.
        reference: u64,
    },
    /// Ask which rooms there are. Answered by [`super::Event::Rooms`].
    Rooms {
        /// Comes back.
        reference: u64,
    },
    /// Ask for messages by index. Answered by [`super::Event::History`].
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
    /// Look for words in all that the user may see. Answered by [`super::Event::Search`].
    Search {
        /// What each result contains: all of these words.
        words: String,
        /// Comes back.
        reference: u64,
    },
    /// Ask how the connection stands. Answered by [`super::Event::Status`].
    Status {
        /// Comes back.
        reference: u64,
    },
    /// Crash the server that the client is on, where that is allowed; then the client goes on at
    /// the next. Answered only when it is refused, by [`super::Event::Error`].
    KillServer {
        /// Comes back.
        reference: u64,
    },
    /// Forget everything and receive the whole archive again.
    Reset,
    /// Leave once everything said is acknowledged and every question answered; then
    /// [`super::Event::Closed`]. The caller bounds the wait by [`super::ChatClient::close`].
    Quit,
}
