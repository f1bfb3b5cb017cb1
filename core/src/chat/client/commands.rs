//! What the application wants.

use alloc::string::String;

use super::api::{Command, Effect, Target};
use super::link::Phase;
use super::outgoing::Addressee;
use super::requests::Ask;
use super::rooms::{OwnRoom, Standing};
use super::{ChatClient, Stage};
use crate::names;
use crate::outbox::Outbox;
use crate::time::Time;
use crate::wire::Reason;

impl ChatClient {
    pub(super) fn on_command(&mut self, now: Time, command: Command, out: &mut Outbox<Effect>) {
        if self.quitting {
            return self.tell_error(command.reference(), Reason::Goodbye, "", out);
        }
        match command {
            Command::Quit => self.quitting = true,
            Command::Name { name, reference } if self.chooses_name() => {
                self.choose_name(now, name, reference, out);
            }
            // Everything will come anyway.
            Command::Reset if self.stage == Stage::Arriving => {}
            command if self.stage == Stage::Arriving => self.wait(command, out),
            command => self.run(now, command, out),
        }
    }

    /// Whether a name is for the next attachment, not for the present one.
    fn chooses_name(&self) -> bool {
        let attaching = self.primary.as_ref().is_some_and(|link| link.phase > Phase::Ready);
        self.me.name.is_empty() || (self.stage == Stage::Arriving && !attaching)
    }

    fn choose_name(&mut self, now: Time, name: String, reference: u64, out: &mut Outbox<Effect>) {
        if let Err(reason) = names::user_key(&name) {
            return self.tell_error(reference, reason, &name, out);
        }
        self.me.name = name;
        self.me.name_reference = reference;
        if self.primary.as_ref().is_some_and(|link| link.phase == Phase::Ready) {
            self.on_ready(now, out);
        }
    }

    /// Keeps a command until the client has arrived.
    fn wait(&mut self, command: Command, out: &mut Outbox<Effect>) {
        if self.is_full() {
            return self.tell_error(command.reference(), Reason::Busy, "", out);
        }
        self.waiting_bytes += command.bytes();
        self.waiting_requests += usize::from(!matches!(command, Command::Say { .. }));
        self.waiting.push_back(command);
    }

    /// Does what a client that has arrived can do.
    pub(super) fn run(&mut self, now: Time, command: Command, out: &mut Outbox<Effect>) {
        let reference = command.reference();
        let done = match command {
            Command::Say { to, body, reference } => self.say(&to, body, reference, out),
            Command::Reset => {
                self.reset(now, out);
                Ok(())
            }
            Command::Quit => Ok(()),
            command => self.request(command, out),
        };
        if let Err(reason) = done {
            self.tell_error(reference, reason, "", out);
        }
    }

    fn say(
        &mut self,
        to: &Target,
        body: String,
        reference: u64,
        out: &mut Outbox<Effect>,
    ) -> Result<(), Reason> {
        if body.is_empty() {
            return Err(Reason::BodyEmpty);
        }
        if body.len() > self.body_bytes_max as usize {
            return Err(Reason::BodyTooLong);
        }
        let to = self.resolve(to)?;
        if self.is_full() {
            return Err(Reason::Busy);
        }
        self.order += 1;
        self.outgoing.say(self.order, to, body, reference);
        if self.is_sending() {
            self.send_say(out);
        }
        Ok(())
    }

    /// Checks a request and makes it.
    fn request(&mut self, command: Command, out: &mut Outbox<Effect>) -> Result<(), Reason> {
        if self.requests.len() >= self.config.limits.requests_max as usize {
            return Err(Reason::Busy);
        }
        let reference = command.reference();
        let ask = match command {
            Command::Join { room, .. } => self.join(&room)?,
            Command::Leave { room, .. } => self.leave(&room)?,
            Command::Topic { room, topic, .. } => {
                if topic.len() > TOPIC_BYTES_MAX {
                    return Err(Reason::TopicTooLong);
                }
                Ask::Topic(names::room(&room)?, topic)
            }
            Command::Name { name, .. } => {
                names::user_key(&name)?;
                Ask::Name(name)
            }
            Command::Users { .. } => Ask::Users,
            Command::Rooms { .. } => Ask::Rooms,
            Command::History { of, from, count, .. } => {
                if count == 0 || from == Some(0) {
                    return Err(Reason::BadRequest);
                }
                Ask::History(self.resolve(&of)?, from.unwrap_or(0), count)
            }
            Command::Search { words, .. } => {
                if words.len() > SEARCH_BYTES_MAX {
                    return Err(Reason::BadRequest);
                }
                if words.trim().is_empty() {
                    return Err(Reason::SearchEmpty);
                }
                Ask::Search(words)
            }
            Command::Status { .. } => Ask::Status,
            // Between two servers there is none that could be meant.
            Command::KillServer { .. } if !self.is_attached() => return Err(Reason::NotAttached),
            Command::KillServer { .. } => Ask::Kill,
            Command::Say { .. } | Command::Reset | Command::Quit => return Ok(()),
        };
        self.order += 1;
        self.requests.insert(self.order, reference, ask);
        if self.is_sending() {
            self.send_request(self.order, out);
        }
        Ok(())
    }

    fn join(&mut self, room: &str) -> Result<Ask, Reason> {
        let room = names::room(room)?;
        let limit = self.config.limits.own_rooms_max as usize;
        // The server takes what was asked for in order: a room that is being left makes place.
        let leaving = |room: &OwnRoom| room.standing == Standing::Leaving;
        let leaving = self.rooms.iter().filter(|(_, room)| leaving(room)).count();
        if self.rooms.get(&room).is_none() && self.rooms.len() - leaving >= limit {
            return Err(Reason::TooManyRooms);
        }
        let own = self.rooms.insert(&room, Standing::Joining);
        if own.standing == Standing::Leaving {
            own.standing = Standing::Joining;
        }
        Ok(Ask::Join(room))
    }

    fn leave(&mut self, room: &str) -> Result<Ask, Reason> {
        let room = names::room(room)?;
        if room == names::COMMON_ROOM {
            return Err(Reason::CommonRoom);
        }
        let own = self.rooms.get_mut(&room).ok_or(Reason::NotMember)?;
        own.standing = Standing::Leaving;
        Ok(Ask::Leave(room))
    }

    /// Whom a target means now.
    fn resolve(&self, target: &Target) -> Result<Addressee, Reason> {
        match target {
            Target::Room(room) => {
                let room = names::room(room)?;
                if self.rooms.may_say(&room) {
                    Ok(Addressee::Room(room))
                } else {
                    Err(Reason::NotMember)
                }
            }
            Target::User(name) => {
                let session = self.roster.holder(name).ok_or(Reason::UserUnknown)?;
                let name = self.roster.name(session).unwrap_or(name);
                Ok(Addressee::Person(session, name.into()))
            }
        }
    }

    fn reset(&mut self, now: Time, out: &mut Outbox<Effect>) {
        self.forget();
        if self.primary.as_ref().is_some_and(|link| link.phase > Phase::Ready) {
            self.reconnect(now, out);
        }
    }

    /// Leaves when nothing is left to wait for.
    pub(super) fn quit_when_done(&mut self, out: &mut Outbox<Effect>) {
        let done = self.quitting
            && self.caught_up
            && self.is_attached()
            && self.waiting.is_empty()
            && self.requests.is_empty()
            && self.outgoing.unacknowledged_count() == 0;
        if done {
            self.finish(None, out);
        }
    }
}

impl Command {
    /// The caller's reference; 0 where there is none.
    #[must_use]
    pub fn reference(&self) -> u64 {
        match self {
            Command::Say { reference, .. }
            | Command::Join { reference, .. }
            | Command::Leave { reference, .. }
            | Command::Topic { reference, .. }
            | Command::Name { reference, .. }
            | Command::Users { reference }
            | Command::Rooms { reference }
            | Command::History { reference, .. }
            | Command::Search { reference, .. }
            | Command::Status { reference }
            | Command::KillServer { reference } => *reference,
            Command::Reset | Command::Quit => 0,
        }
    }

    /// How much text it carries, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Command::Say { to: Target::Room(text) | Target::User(text), body, .. }
            | Command::Topic { room: text, topic: body, .. } => text.len() + body.len(),
            Command::Join { room: text, .. }
            | Command::Leave { room: text, .. }
            | Command::Name { name: text, .. }
            | Command::History { of: Target::Room(text) | Target::User(text), .. }
            | Command::Search { words: text, .. } => text.len(),
            _ => 0,
        }
    }
}

/// The longest topic, in bytes of UTF-8.
const TOPIC_BYTES_MAX: usize = 512;
/// The longest list of words to search for, in bytes of UTF-8.
const SEARCH_BYTES_MAX: usize = 1_024;
