//! A chat client for programs: say what to do with [`Command`]s, hear what happens by [`Event`]s.
//!
//! One thread of ours owns the client's machine ([`cordee_core::chat::client`]) and its sockets.
//! It keeps the session alive over the death of servers, by itself. Nothing here prints, exits or
//! touches signals.
//!
//! ```no_run
//! use cordee_net::client::{ChatClient, ChatConfig, Command, Event, Target};
//!
//! let mut config = ChatConfig::new("cordee", vec!["127.0.0.1:5000".into()])?;
//! config.name = "ada".into();
//! let (client, events) = ChatClient::start(config)?;
//! let to = Target::Room("#all".into());
//! client.send(Command::Say { to, body: "hello".into(), reference: 1 })?;
//! client.send(Command::Quit)?;
//! for event in events {
//!     if let Event::Sent { reference, index, .. } = event {
//!         assert_eq!((reference, index > 0), (1, true));
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod command;
mod config;
mod event;

pub use command::{Command, Target};
pub use config::{ChatConfig, ClientError, draw_secret};
pub use event::{Event, Member, MemberState, Message, MessageId, Room, Scope, Unsaid, User};

use std::time::Duration;

/// A running client: a handle to give commands by. Clones are handles to the same client.
#[derive(Clone, Debug)]
pub struct ChatClient {}

impl ChatClient {
    /// Starts a client. It connects, and keeps trying for ever when nobody answers.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when the configuration makes no sense, or the system has no thread or
    /// descriptor left.
    pub fn start(config: ChatConfig) -> Result<(ChatClient, Events), ClientError> {
        let _ = config;
        todo!()
    }

    /// Gives a command. Commands are taken in order.
    ///
    /// Waits while as many messages are unacknowledged as may be, unless the client has no
    /// server; [`ChatClient::close`] from another thread ends that.
    ///
    /// # Errors
    ///
    /// [`ClientError::Closed`] when the client has ended.
    pub fn send(&self, command: Command) -> Result<(), ClientError> {
        let _ = command;
        todo!()
    }

    /// Ends the client at once, without waiting for acknowledgements ([`Command::Quit`] waits).
    /// Returns at once; the last event is [`Event::Closed`].
    pub fn close(&self) {
        todo!()
    }
}

/// What happens, in order: an iterator that waits, and ends after [`Event::Closed`].
///
/// Dropping it ends the client and waits until its thread is gone. Whoever does not take events
/// makes the client read no more from its server, which after a while ends the connection; then
/// it resumes, and nothing is lost.
#[derive(Debug)]
pub struct Events {}

impl Events {
    /// The next event, waiting for it for at most `timeout`; `None` when none came, or when all
    /// is over ([`Events::is_over`]).
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        let _ = timeout;
        todo!()
    }

    /// Whether [`Event::Closed`] was taken: nothing will come any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        todo!()
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        todo!()
    }
}
