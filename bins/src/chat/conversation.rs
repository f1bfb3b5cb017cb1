//! What the faces have in common: where plain text goes, which answer belongs to which request, and
//! how one leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cordee_core::names::{self, COMMON_ROOM};
use cordee_core::wire::Reason;
use cordee_net::client::{ChatClient, Command, Event, Target, Unsaid};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

use super::commands::{Request, Window};

/// One user's conversation with the cluster. Shared by the threads that read and that print.
#[derive(Debug)]
pub(crate) struct Conversation {
    client: ChatClient,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    name: String,
    /// The server, while there is one.
    server: Option<String>,
    /// Whether there ever was one.
    was_inside: bool,
    /// Since when there is none.
    offline_since: Instant,
    /// Every server was tried since, in vain.
    unreachable: bool,
    /// Whether the servers want another name before they let the user in.
    wants_name: bool,
    /// How many names may still be tried: others than the first only for one that nobody chose.
    names_left: u32,
    current: Target,
    next_reference: u64,
    open: BTreeMap<u64, Open>,
    names: BTreeSet<String>,
    rooms: BTreeSet<String>,
    leaving: bool,
    ended: bool,
    input: Input,
}

/// What became of the lines that the user wrote.
#[derive(Debug, Default)]
struct Input {
    /// How many were read.
    lines: u64,
    /// Whether the last was.
    ended: bool,
    /// Whether nothing came of any.
    wrong: bool,
}

/// A request that is not answered yet.
#[derive(Debug)]
struct Open {
    reference: Option<Value>,
    /// Of a request to join or leave: what is current since, and what was before.
    went: Option<(Target, Target)>,
    /// What answers it, unless it is refused.
    answer: Answer,
    /// Of a message: what it says.
    said: Option<String>,
}

/// What answers a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    /// An event of its own.
    Own,
    /// The next connection.
    Connection,
    /// That the archive was received.
    CaughtUp,
}

/// Why a request goes nowhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// It makes no sense now.
    Senseless(Reason, &'static str),
    /// The client has ended.
    Ended,
}

/// What is known of an event beyond itself.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Heard {
    /// The `ref` of the request that it answers.
    pub(crate) reference: Option<Value>,
    /// Whether it answers a request, or was sent unasked.
    pub(crate) asked: bool,
    /// The `ref`s of the requests that it answers beside others: what a connection brings, or the archive.
    pub(crate) done: Vec<Value>,
    /// What the message says that was refused.
    pub(crate) refused: Option<String>,
    /// The name to try next: others have the one that nobody chose.
    pub(crate) next_name: Option<String>,
}

/// What a prompt shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    /// The user's name.
    pub(crate) name: String,
    /// Where plain text goes.
    pub(crate) current: Target,
    /// The server, while there is one.
    pub(crate) server: Option<String>,
    /// Whether any server has let the user in.
    pub(crate) was_inside: bool,
}

impl Conversation {
    /// A conversation by `client`, which was started with that name, and where plain text goes to
    /// `current`.
    /// Unless it was `chosen`, the name gets a number when others have it.
    pub(crate) fn new(client: ChatClient, name: &str, chosen: bool, current: Target) -> Self {
        Conversation { client, state: Mutex::new(State::new(name, chosen, current)) }
    }

    /// Passes a request to the client. `reference` comes back with the answer. Waits while too much
    /// is said and not acknowledged.
    ///
    /// # Errors
    ///
    /// Why it goes nowhere.
    pub(crate) fn ask(
        self: &Arc<Self>,
        request: Request,
        reference: Option<Value>,
    ) -> Result<(), Refused> {
        let command = match request {
            Request::Quit => {
                self.leave();
                return Ok(());
            }
            Request::Talk(target) => return self.state().talk(target),
            // The faces know how to show it.
            Request::Help => return Ok(()),
            request => self.state().command(request, reference)?,
        };
        self.client.send(command).map_err(|_| Refused::Ended)
    }

    /// Leaves once everything said is acknowledged and every question answered; gives that up after
    /// [`QUIT_WAIT`] without a server, or at once when there is nothing to wait for and nobody
    /// answers. Returns at once: the last event tells the end.
    pub(crate) fn leave(self: &Arc<Self>) {
        if std::mem::replace(&mut self.state().leaving, true) {
            return;
        }
        let conversation = Arc::clone(self);
        let leaving = move || conversation.see_to_leaving();
        if thread::Builder::new().name("leaving".to_owned()).spawn(leaving).is_err() {
            self.client.close();
        }
    }

    /// Leaves, because the user will not wait long: at once when nothing is under way and no server
    /// is there.
    pub(crate) fn interrupt(self: &Arc<Self>) {
        let state = self.state();
        let idle = state.server.is_none() && state.is_idle();
        drop(state);
        if idle {
            self.client.close();
        }
        self.leave();
    }

    fn see_to_leaving(&self) {
        let begun = Instant::now();
        let wait_while = |goes_on: &dyn Fn(&State) -> bool| {
            while goes_on(&self.state()) {
                thread::sleep(Duration::from_millis(20));
            }
        };
        // The client takes no other name once it is told to quit.
        wait_while(&|state| state.server.is_none() && !state.is_hopeless(begun));
        thread::scope(|scope| {
            // This waits for its turn behind what is said, at worst until the client has ended.
            scope.spawn(|| drop(self.client.send(Command::Quit)));
            wait_while(&|state| !state.is_hopeless(begun));
            self.client.close();
        });
    }

    /// Takes another name in place of one that others have.
    pub(crate) fn take_name(&self, name: String) {
        // A client that has ended needs no name.
        let _ = self.client.send(Command::Name { name, reference: 0 });
    }

    /// The `ref` of a message that will not be acknowledged any more.
    pub(crate) fn take_reference(&self, reference: u64) -> Option<Value> {
        self.state().open.remove(&reference).and_then(|open| open.reference)
    }

    /// A line was read, as whoever reads them says; `wrong` if nothing comes of it.
    pub(crate) fn line_read(&self, wrong: bool) {
        let mut state = self.state();
        state.input.lines += 1;
        state.input.wrong |= wrong;
    }

    /// The input is at its end.
    pub(crate) fn input_ended(&self) {
        self.state().input.ended = true;
    }

    /// Whether any line was wrong.
    pub(crate) fn had_wrong_line(&self) -> bool {
        self.state().input.wrong
    }

    /// Waits until all input that is there was read, so that nothing of it ends without a word: to its
    /// end, or until it pauses; for a second at most.
    pub(crate) fn wait_for_input(&self) {
        let begun = Instant::now();
        let mut lines = u64::MAX;
        while begun.elapsed() < INPUT_WAIT {
            let read = match &self.state().input {
                Input { ended: true, .. } => return,
                input => input.lines,
            };
            if read == lines && !input_is_there() {
                return;
            }
            lines = read;
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The messages that will not be acknowledged any more: those that the client gave up, and
    /// those that it did not take any more.
    pub(crate) fn unsaid(&self, given_up: Vec<Unsaid>) -> Vec<Unsaid> {
        let known = |reference| given_up.iter().any(|unsaid| unsaid.reference == reference);
        let state = self.state();
        let said = state.open.iter().filter(|(reference, _)| !known(**reference));
        let late = said.filter_map(|(&reference, open)| {
            open.said.clone().map(|body| Unsaid { reference, body })
        });
        let late: Vec<Unsaid> = late.collect();
        given_up.into_iter().chain(late).collect()
    }

    /// The `ref` of each question that will not be answered any more.
    pub(crate) fn take_unanswered(&self) -> Vec<Option<Value>> {
        let mut taken = Vec::new();
        self.state().open.retain(|_, open| {
            let unanswered = open.said.is_none() && open.answer == Answer::Own;
            if unanswered {
                taken.push(open.reference.take());
            }
            !unanswered
        });
        taken
    }

    /// Leaves at once.
    pub(crate) fn close(&self) {
        self.client.close();
    }

    /// Whether something is under way that no server is there to answer.
    pub(crate) fn is_waiting(&self) -> bool {
        let state = self.state();
        state.server.is_none() && !state.is_idle()
    }

    /// Whether the user is on the way out.
    pub(crate) fn is_leaving(&self) -> bool {
        self.state().leaving
    }

    /// Whether the servers want another name before they let the user in.
    pub(crate) fn wants_name(&self) -> bool {
        let state = self.state();
        state.wants_name && state.server.is_none()
    }

    /// Keeps what an event changes.
    pub(crate) fn heard(&self, event: &Event) -> Heard {
        self.state().heard(event)
    }

    /// What a prompt shows.
    pub(crate) fn standing(&self) -> Standing {
        let state = self.state();
        Standing {
            name: state.name.clone(),
            current: state.current.clone(),
            server: state.server.clone(),
            was_inside: state.was_inside,
        }
    }

    /// The names of users, or of rooms with their `#`, that begin with `prefix`; at most `max`.
    pub(crate) fn complete(&self, prefix: &str, max: usize) -> Vec<String> {
        let state = self.state();
        let set = if prefix.starts_with('#') { &state.rooms } else { &state.names };
        let lower = prefix.to_lowercase();
        let fits = |name: &&String| name.to_lowercase().starts_with(&lower);
        set.iter().filter(fits).take(max).cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(name: &str, chosen: bool, current: Target) -> Self {
        State {
            name: name.to_owned(),
            server: None,
            was_inside: false,
            offline_since: Instant::now(),
            unreachable: false,
            wants_name: name.is_empty(),
            names_left: if chosen { 0 } else { NAMES_MORE_MAX },
            current,
            next_reference: 1,
            open: BTreeMap::new(),
            names: BTreeSet::new(),
            rooms: BTreeSet::from([COMMON_ROOM.to_owned()]),
            leaving: false,
            ended: false,
            input: Input::default(),
        }
    }

    fn command(&mut self, request: Request, tag: Option<Value>) -> Result<Command, Refused> {
        let reference = self.next_reference;
        let mut went = None;
        let command = match request {
            Request::Say { to, body } => {
                Command::Say { to: to.unwrap_or_else(|| self.current.clone()), body, reference }
            }
            Request::Join(room) => {
                // What is no room is refused before what is said next is meant for there.
                if let Err(why) = names::room(&room) {
                    return Err(Refused::Senseless(why, why.text()));
                }
                went = Some(self.go(Target::Room(room.clone())));
                Command::Join { room, reference }
            }
            Request::Leave(room) => {
                let room = match room {
                    Some(room) => room,
                    None => self.current_room()?,
                };
                if names::room(&room).is_ok_and(|room| is_room(&self.current, &room)) {
                    went = Some(self.go(Target::Room(COMMON_ROOM.to_owned())));
                }
                Command::Leave { room, reference }
            }
            Request::Topic(topic) => {
                Command::Topic { room: self.current_room()?, topic, reference }
            }
            Request::Name(name) => {
                self.wants_name = false;
                Command::Name { name, reference }
            }
            Request::Users => Command::Users { reference },
            Request::Rooms => Command::Rooms { reference },
            Request::Status => Command::Status { reference },
            Request::History { of, window } => {
                let of = of.unwrap_or_else(|| self.current.clone());
                match window {
                    Window::Last(count) => Command::History { of, from: None, count, reference },
                    Window::From { from, count } => {
                        Command::History { of, from: Some(from), count, reference }
                    }
                }
            }
            Request::Search(words) => Command::Search { words, reference },
            Request::KillServer => Command::KillServer { reference },
            Request::Reset => Command::Reset,
            Request::Quit | Request::Talk(_) | Request::Help => return Err(Refused::Ended),
        };
        self.next_reference += 1;
        let answer = match command {
            Command::Reset => Answer::CaughtUp,
            Command::KillServer { .. } => Answer::Connection,
            Command::Name { .. } if self.server.is_none() => Answer::Connection,
            _ => Answer::Own,
        };
        let said = match &command {
            Command::Say { body, .. } => Some(body.clone()),
            _ => None,
        };
        self.open.insert(reference, Open { reference: tag, went, answer, said });
        Ok(command)
    }

    /// From now on plain text goes there: at once, as what is said next is meant for there. Returns
    /// where it goes and where it went before.
    fn go(&mut self, target: Target) -> (Target, Target) {
        let before = std::mem::replace(&mut self.current, target.clone());
        (target, before)
    }

    /// From now on plain text goes there, when there is such a place.
    fn talk(&mut self, target: Target) -> Result<(), Refused> {
        let (known, name, reason, what) = match &target {
            Target::Room(name) => {
                (&self.rooms, name, Reason::RoomUnknown, "there is no such room: /join makes it")
            }
            Target::User(name) => (&self.names, name, Reason::UserUnknown, "there is no such user"),
        };
        // Before the lists have come nothing is known. Names that look alike are told apart by the
        // servers, when something is said.
        let lower = name.to_lowercase();
        if !self.names.is_empty() && !known.iter().any(|known| known.to_lowercase() == lower) {
            return Err(Refused::Senseless(reason, what));
        }
        self.current = target;
        Ok(())
    }

    /// Whether a client that leaves since `begun` has ended, or has nothing to wait for.
    fn is_hopeless(&self, begun: Instant) -> bool {
        let long = begun.elapsed() >= QUIT_WAIT && self.offline_since.elapsed() >= QUIT_WAIT;
        let pointless = self.unreachable && self.is_idle();
        // Without a name there is no way in, and nobody is left to give one.
        self.ended || (self.server.is_none() && (long || pointless || self.wants_name))
    }

    /// Whether nothing is under way that a server would have to answer.
    fn is_idle(&self) -> bool {
        self.open.values().all(|open| open.answer != Answer::Own)
    }

    fn current_room(&self) -> Result<String, Refused> {
        match &self.current {
            Target::Room(room) => Ok(room.clone()),
            Target::User(_) => Err(Refused::Senseless(
                Reason::BadRequest,
                "this is a talk and not a room: change to one with /talk #room",
            )),
        }
    }

    fn heard(&mut self, event: &Event) -> Heard {
        let answered = answered(event);
        let open = self.open.remove(&answered);
        let mut heard = Heard { asked: answered != 0, ..Heard::default() };
        match event {
            Event::Connected { server, name, rooms, .. } => {
                self.server = Some(server.clone());
                self.was_inside = true;
                self.unreachable = false;
                self.name.clone_from(name);
                self.wants_name = false;
                heard.done = self.take_answered(Answer::Connection);
                self.rooms.extend(rooms.iter().cloned());
            }
            Event::Disconnected { .. } => {
                self.server = None;
                self.offline_since = Instant::now();
            }
            Event::Joined { room, .. } => {
                self.rooms.insert(room.clone());
                if let Some((asked, _)) = open.as_ref().and_then(|open| open.went.as_ref())
                    && self.current == *asked
                {
                    self.current = Target::Room(room.clone());
                }
            }
            Event::Left { room, .. } if is_room(&self.current, room) => {
                self.current = Target::Room(COMMON_ROOM.to_owned());
            }
            Event::Error { reason, .. } => {
                if let Some((asked, before)) = open.as_ref().and_then(|open| open.went.clone())
                    && self.current == asked
                {
                    self.current = before;
                }
                if self.server.is_none() {
                    self.unreachable |= *reason == Reason::Unreachable;
                    self.on_refused_name(*reason, &mut heard);
                }
            }
            Event::Renamed { from, to, own, .. } => {
                self.names.remove(from);
                self.names.insert(to.clone());
                if *own {
                    self.name.clone_from(to);
                }
                if self.current == Target::User(from.clone()) {
                    self.current = Target::User(to.clone());
                }
            }
            Event::Arrived { name, room: None } => {
                self.names.insert(name.clone());
            }
            Event::Departed { name, room: None } => {
                self.names.remove(name);
            }
            Event::RoomMade { room } => {
                self.rooms.insert(room.clone());
            }
            Event::CaughtUp { room: None } => heard.done = self.take_answered(Answer::CaughtUp),
            Event::Users { users, .. } => {
                self.names = users.iter().map(|user| user.name.clone()).collect();
            }
            Event::Rooms { rooms, .. } => {
                self.rooms.extend(rooms.iter().map(|room| room.name.clone()));
            }
            Event::Closed { .. } => self.ended = true,
            _ => {}
        }
        if let Some(open) = open {
            heard.reference = open.reference;
            heard.refused = open.said.filter(|_| matches!(event, Event::Error { .. }));
        }
        heard
    }

    /// Takes the requests that are answered so; returns their `ref`s.
    fn take_answered(&mut self, by: Answer) -> Vec<Value> {
        let mut taken = Vec::new();
        self.open.retain(|_, open| {
            let answered = open.answer == by;
            if answered {
                taken.extend(open.reference.take());
            }
            !answered
        });
        taken
    }

    /// The servers do not let the user in under that name.
    fn on_refused_name(&mut self, reason: Reason, heard: &mut Heard) {
        if reason == Reason::NameTaken && !heard.asked && self.names_left > 0 {
            let number = NAMES_MORE_MAX + 2 - self.names_left;
            self.names_left -= 1;
            heard.next_name = Some(format!("{}-{number}", self.name));
            return;
        }
        self.wants_name |= matches!(reason, Reason::NameTaken | Reason::NameInvalid);
    }
}

/// Whether standard input has something to read, or its end.
fn input_is_there() -> bool {
    let stdin = std::io::stdin();
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// The reference of the command that an event answers; 0 for none.
fn answered(event: &Event) -> u64 {
    match event {
        Event::Sent { reference, .. }
        | Event::Joined { reference, .. }
        | Event::Left { reference, .. }
        | Event::Users { reference, .. }
        | Event::Rooms { reference, .. }
        | Event::History { reference, .. }
        | Event::Search { reference, .. }
        | Event::Status { reference, .. }
        | Event::Done { reference }
        | Event::Error { reference, .. } => *reference,
        _ => 0,
    }
}

/// Whether a target is that room, whatever way its name was typed.
fn is_room(target: &Target, room: &str) -> bool {
    matches!(target, Target::Room(name) if names::room(name).as_deref() == Ok(room))
}

/// A name that others have and nobody chose becomes `name-2`, `name-3` and so on, so often.
const NAMES_MORE_MAX: u32 = 20;
/// For how long a client that has ended reads what was written to it.
const INPUT_WAIT: Duration = Duration::from_secs(1);
/// For how long a client that leaves looks for a server while something it said is not
/// acknowledged.
pub(crate) const QUIT_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
