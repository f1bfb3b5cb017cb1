//! A chat client for programs: say what to do with [`Command`]s, hear what happens by [`Event`]s.
//!
//! One thread of ours owns the client's machine ([`cordee_core::chat::client`]) and its sockets,
//! and waits for all of them at once. It keeps the session alive over the death of servers, by
//! itself. Nothing here prints, exits or touches signals.
//!
//! ```no_run
//! use cordee_net::client::{ChatClient, ChatConfig, Command, Event, Target};
//!
//! let mut config = ChatConfig::new("cordee", vec!["127.0.0.1:5000".into()])?;
//! config.name = "ada".into();
//! let (client, events) = ChatClient::start(config)?;
//! let all = Target::Room("#all".into());
//! client.send(Command::Say { to: all.clone(), body: "hello".into(), reference: 1 })?;
//! client.send(Command::History { of: all, from: Some(1), count: 50, reference: 2 })?;
//! client.send(Command::Quit)?;
//! for event in events {
//!     match event {
//!         Event::Message(message) => println!("{}: {}", message.from, message.body),
//!         Event::Sent { reference: 1, index, .. } => println!("that was message {index}"),
//!         Event::History { reference: 2, messages, .. } => assert!(messages.len() <= 50),
//!         Event::Error { reference, text, .. } => eprintln!("{reference}: {text}"),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A name that is taken is an [`Event::Error`] with [`Reason::NameTaken`](cordee_core::wire::Reason)
//! on arrival; the client then waits for [`Command::Name`].
//!
//! | file | concept |
//! | --- | --- |
//! | `hub` | the thread: waits, reads, asks the machine, writes |
//! | `link` | one connection: dialled, read, written and closed without blocking |
//! | `resolve` | host names, by threads of their own, since resolvers block |
//! | `translate` | the machine's events as owned values |
//! | `wake` | how other threads reach the one that waits |

mod config;
mod event;
mod hub;
mod link;
mod resolve;
mod translate;
mod wake;

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use std::vec;

use cordee_core::wire::Reason;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

pub use config::{ChatConfig, ClientError, draw_secret};
pub use cordee_core::chat::client::{Command, MessageId, Target};
pub use event::{Event, Member, MemberState, Message, Room, Scope, Unsaid, User};

use hub::Hub;
use wake::{Batch, Shared};

/// A running client: a handle to give commands by. Clones are handles to the same client.
#[derive(Clone, Debug)]
pub struct ChatClient {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

impl ChatClient {
    /// Starts a client. It connects, and keeps trying for ever when nobody answers.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when the configuration makes no sense, or the system has no thread or
    /// descriptor left.
    pub fn start(config: ChatConfig) -> Result<(ChatClient, Events), ClientError> {
        let seed = config::draw_u64()?;
        let config = config.checked()?;
        let (shared, waker) = Shared::new().map_err(ClientError::Start)?;
        let (commands, taken) = bounded(COMMANDS_MAX);
        let (told, batches) = unbounded();
        let hub = Hub::new(config, seed, taken, told, Arc::clone(&shared), waker);
        let thread = Builder::new()
            .name("cordee-client".into())
            .stack_size(STACK_BYTES)
            .spawn(move || hub.run())
            .map_err(ClientError::Start)?;
        let events = Events {
            batches,
            batch: Vec::new().into_iter(),
            over: false,
            shared: Arc::clone(&shared),
            thread: Some(thread),
        };
        Ok((ChatClient { commands, shared }, events))
    }

    /// Gives a command. Commands are taken in order.
    ///
    /// Waits while as many messages are unacknowledged as may be; [`ChatClient::close`] from
    /// another thread ends that. Acknowledgements are events, too: whoever says thousands of things
    /// without taking events waits for ever.
    ///
    /// # Errors
    ///
    /// [`ClientError::Closed`] when the client has ended.
    pub fn send(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).map_err(|_| ClientError::Closed)?;
        self.shared.wake();
        Ok(())
    }

    /// Ends the client at once, without waiting for acknowledgements ([`Command::Quit`] waits).
    /// Returns at once; the last event is [`Event::Closed`].
    pub fn close(&self) {
        self.shared.stop();
    }
}

/// What happens, in order: an iterator that waits, and ends after [`Event::Closed`].
///
/// Dropping it ends the client and waits until its thread is gone. Whoever does not take events
/// makes the client read no more from its server, which after a while ends the connection; then
/// it resumes, and nothing is lost.
#[derive(Debug)]
pub struct Events {
    batches: Receiver<Batch>,
    batch: vec::IntoIter<Event>,
    over: bool,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Events {
    /// The next event, waiting for it for at most `timeout`; `None` when none came, or when all
    /// is over ([`Events::is_over`]).
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        if let Some(event) = self.batch.next() {
            return Some(self.taken(event));
        }
        if self.over {
            return None;
        }
        let batch = match Instant::now().checked_add(timeout) {
            Some(deadline) => self.batches.recv_deadline(deadline),
            None => self.batches.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match batch {
            Ok(batch) => {
                self.shared.took(batch.bytes);
                self.batch = batch.events.into_iter();
                let event = self.batch.next()?;
                Some(self.taken(event))
            }
            Err(RecvTimeoutError::Timeout) => None,
            // The thread died without a word: a fault of ours, and the end all the same.
            Err(RecvTimeoutError::Disconnected) => {
                let (why, unacknowledged) = (Some(Reason::Unknown), Vec::new());
                Some(self.taken(Event::Closed { why, unacknowledged }))
            }
        }
    }

    /// Takes events until `choose` makes something of one; the others are dropped. `None` when that
    /// did not happen within `timeout`, or before the end.
    ///
    /// ```no_run
    /// # use cordee_net::client::{Event, Events};
    /// # fn wait(events: &mut Events) {
    /// let name = events.wait_for(std::time::Duration::from_secs(5), |event| match event {
    ///     Event::Connected { name, .. } => Some(name),
    ///     _ => None,
    /// });
    /// # }
    /// ```
    pub fn wait_for<T>(
        &mut self,
        timeout: Duration,
        mut choose: impl FnMut(Event) -> Option<T>,
    ) -> Option<T> {
        let begun = Instant::now();
        loop {
            let event = self.next_timeout(timeout.saturating_sub(begun.elapsed()))?;
            if let Some(chosen) = choose(event) {
                return Some(chosen);
            }
        }
    }

    /// Whether [`Event::Closed`] was taken: nothing will come any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    fn taken(&mut self, event: Event) -> Event {
        self.over |= matches!(event, Event::Closed { .. });
        event
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.next_timeout(Duration::MAX)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was told as the end of the events.
            let _ = thread.join();
        }
    }
}

/// Commands on their way to the machine.
const COMMANDS_MAX: usize = 256;
/// Stack of the client's thread, in bytes of address space.
const STACK_BYTES: usize = 1 << 20;
