//! Requests under way. Those that a dead server did not answer are asked again of the next.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::api::Effect;
use super::link::Link;
use super::outgoing::Addressee;
use crate::ids::SessionId;
use crate::outbox::Outbox;
use crate::wire::chat;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    /// To join a room.
    Join(String),
    /// To leave a room.
    Leave(String),
    /// To set a room's topic.
    Topic(String, String),
    /// To take another name.
    Name(String),
    /// Who is there.
    Users,
    /// Which rooms there are.
    Rooms,
    /// Entries by index: of what, from where (0: the last), how many.
    History(Addressee, u64, u32),
    /// What contains these words.
    Search(String),
    /// How the connection stands.
    Status,
    /// That the server crash.
    Kill,
}

impl Ask {
    /// Whether a server answers one such request before it takes another.
    fn is_one_at_a_time(&self) -> bool {
        matches!(self, Ask::Name(_) | Ask::Search(_))
    }

    fn is_like(&self, other: &Ask) -> bool {
        mem::discriminant(self) == mem::discriminant(other)
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) reference: u64,
    pub(super) ask: Ask,
    /// The parts of its answer that came so far.
    pub(super) answer: Vec<u8>,
}

/// The requests by their ids, which ascend in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Requests {
    map: BTreeMap<u64, Request>,
    answer_bytes: usize,
}

impl Requests {
    pub(super) fn insert(&mut self, id: u64, reference: u64, ask: Ask) {
        self.map.insert(id, Request { reference, ask, answer: Vec::new() });
    }

    /// The first id that is at least `id`.
    pub(super) fn next(&self, id: u64) -> Option<u64> {
        self.map.range(id..).next().map(|(id, _)| *id)
    }

    /// The request, unless it must wait for the answer to another.
    pub(super) fn sendable(&self, id: u64) -> Option<&Request> {
        let request = self.map.get(&id)?;
        let mut before = self.map.range(..id).map(|(_, request)| request);
        let waits =
            request.ask.is_one_at_a_time() && before.any(|other| other.ask.is_like(&request.ask));
        (!waits).then_some(request)
    }

    /// The one that waited for the answer to `answered`.
    pub(super) fn released_by(&self, answered: &Request) -> Option<u64> {
        let waited = |ask: &Ask| answered.ask.is_one_at_a_time() && ask.is_like(&answered.ask);
        self.find(waited)
    }

    /// The first that fits.
    pub(super) fn find(&self, fits: impl Fn(&Ask) -> bool) -> Option<u64> {
        self.map.iter().find(|(_, request)| fits(&request.ask)).map(|(id, _)| *id)
    }

    /// Takes a request out: it is answered.
    pub(super) fn remove(&mut self, id: u64) -> Option<Request> {
        let request = self.map.remove(&id)?;
        self.answer_bytes -= request.answer.len();
        Some(request)
    }

    /// Adds a part to an answer. Returns whether there was room for it.
    pub(super) fn add(
        &mut self,
        id: u64,
        bytes_max: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let Some(request) = self.map.get_mut(&id) else { return true };
        let before = request.answer.len();
        write(&mut request.answer);
        self.answer_bytes += request.answer.len() - before;
        self.answer_bytes <= bytes_max as usize
    }

    /// The server is lost: answers begin anew, and no other server is asked to crash.
    pub(super) fn detach(&mut self) {
        self.map.retain(|_, request| request.ask != Ask::Kill);
        for request in self.map.values_mut() {
            request.answer.clear();
        }
        self.answer_bytes = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(super) fn check(&self) {
        let sum: usize = self.map.values().map(|request| request.answer.len()).sum();
        assert_eq!(self.answer_bytes, sum, "answers are counted");
    }
}

impl Request {
    /// Sends the request.
    pub(super) fn send(
        &self,
        request: u64,
        me: SessionId,
        link: &mut Link,
        out: &mut Outbox<Effect>,
    ) {
        match &self.ask {
            Ask::Join(room) => link.send(&chat::Join { request, room }, out),
            Ask::Leave(room) => link.send(&chat::Leave { request, room }, out),
            Ask::Topic(room, topic) => link.send(&chat::SetTopic { request, room, topic }, out),
            Ask::Name(name) => link.send(&chat::SetName { request, name }, out),
            Ask::Users => link.send(&chat::AskUsers { request }, out),
            Ask::Rooms => link.send(&chat::AskRooms { request }, out),
            Ask::History(of, from, count) => {
                let (scope, from, count) = (of.scope(me), *from, *count);
                link.send(&chat::AskHistory { request, scope, from, count }, out);
            }
            Ask::Search(words) => link.send(&chat::Search { request, words }, out),
            Ask::Status => link.send(&chat::AskStatus { request }, out),
            Ask::Kill => link.send(&chat::KillServer { request }, out),
        }
    }
}
