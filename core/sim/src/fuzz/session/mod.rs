//! One server and the connections of its clients: whatever is asked, in whatever order, what comes
//! back is what a naive model says.

use std::collections::BTreeSet;
use std::vec::Vec;

use arbitrary::{Result, Unstructured};

use super::net::Net;
use cordee_core::limits::Limits;
use cordee_core::time::{MILLI_US, SECOND_US, Time};
use cordee_core::wire::Reason;
use cordee_core::wire::chat;
use cordee_core::wire::hello::Ping;
use model::Model;
use person::{Asked, Link, Person};

mod answers;
mod attaching;
mod connections;
mod model;
mod person;
mod requests;
mod saying;

const PERSONS: usize = 6;
const LINKS_MAX: usize = 12;
const OPERATIONS_MAX: usize = 250;
/// Long bodies that one input may have said.
const LONG_MAX: usize = 300;
const USERS_MAX: usize = 3;
const USERS_HARD_MAX: usize = 5;
const ROOMS_MAX: usize = 4;
const PAGE_MAX: u32 = 20;
const RESULTS_MAX: usize = 5;
const GRACE_US: u64 = 2 * SECOND_US;
/// Names that two persons may want at once, and one that nobody may have.
const NAMES: [&str; 6] = ["ada", "bob", "ADA", "eve", "Bob", "a\nb"];
const ROOMS: [&str; 6] = ["#a", "#b", "#A", "#all", "#c", "no room"];
const WORDS: [&str; 3] = ["rope", "knot", "rock"];
const TIMES_US: [u64; 8] = [
    1,
    MILLI_US,
    100 * MILLI_US,
    700 * MILLI_US,
    1_500 * MILLI_US,
    4 * SECOND_US,
    11 * SECOND_US,
    70 * SECOND_US,
];

/// A list of operations, one byte each and one for each of its arguments:
///
/// | byte modulo 16 | operation, arguments |
/// | --- | --- |
/// | 0 | a connection is opened: whether it says hello |
/// | 1, 2 | attach: connection, person, intent, name, rooms, what it claims to have seen, how it hands back |
/// | 3, 4 | say: connection, where, which number, which body, after what |
/// | 5 | many long messages: connection, how many |
/// | 6 | join: connection, room |
/// | 7 | leave: connection, room |
/// | 8 | topic or name: connection, which, room or name |
/// | 9 | a list, a page, a search, the status, a kill: connection, which, scope, from, count |
/// | 10 | close, quit or hang up: connection, how |
/// | 11 | time: how long |
/// | 12 | a connection that is not attached says anything: connection, kind, length, bytes |
/// | 13 | a connection reads no more, or again: connection |
/// | 14 | storage is slow, or no more |
/// | 15 | the server dies and starts with nothing |
pub fn session(data: &[u8]) {
    let mut random = Unstructured::new(data);
    let mut world = World::new();
    for _ in 0..OPERATIONS_MAX {
        if random.is_empty() || world.operate(&mut random).is_err() {
            break;
        }
    }
    world.end();
}

struct World {
    net: Net,
    model: Model,
    persons: Vec<Person>,
    links: Vec<Link>,
    /// When this start of the server began.
    started: Time,
    requests: u64,
    long: usize,
}

impl World {
    fn new() -> Self {
        let limits = Limits {
            users_max: USERS_MAX as u32,
            users_hard_max: USERS_HARD_MAX as u32,
            rooms_per_session_max: ROOMS_MAX as u32,
            page_entries_max: PAGE_MAX,
            search_results_max: RESULTS_MAX as u32,
            // So small that slow readers are left behind.
            log_bytes_max: 1 << 20,
            catch_up_bytes_max: 64 << 10,
            queue_bytes_max: 256 << 10,
            grace_us: GRACE_US,
            ..Limits::default()
        };
        let mut world = World {
            net: Net::new(1, 1, &limits),
            model: Model::new(),
            persons: (0..PERSONS).map(Person::new).collect(),
            links: Vec::new(),
            started: Time::ZERO,
            requests: 0,
            long: 0,
        };
        world.net.pass(200 * MILLI_US);
        world
    }

    fn operate(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        match random.arbitrary::<u8>()? % 16 {
            0 => self.open(random)?,
            1 | 2 => self.attach(random)?,
            3 | 4 => self.say(random)?,
            5 => self.say_much(random)?,
            6 => self.join(random)?,
            7 => self.leave(random)?,
            8 => self.set(random)?,
            9 => self.ask(random)?,
            10 => self.end_link(random)?,
            11 => self.wait(TIMES_US[random.choose_index(TIMES_US.len())?]),
            12 => self.say_anything(random)?,
            13 => {
                if let Some(link) = self.some_link(random)? {
                    let link = &mut self.links[link];
                    link.reads = !link.reads;
                    if !link.reads {
                        link.may_close.push(Reason::SlowReader);
                    }
                }
            }
            14 => self.net.nodes[0].slow_storage ^= true,
            _ => self.restart(),
        }
        self.settle();
        self.net.check();
        Ok(())
    }

    /// Everything arrives, is read and answered.
    fn settle(&mut self) {
        loop {
            self.net.settle();
            let mut read = false;
            for link in 0..self.links.len() {
                if self.links[link].reads {
                    let bytes = self.net.read(self.links[link].wire);
                    read |= !bytes.is_empty();
                    self.take_in(link, &bytes);
                }
            }
            if !read {
                break;
            }
        }
        for link in (0..self.links.len()).rev() {
            if self.links[link].reads && self.net.is_over(self.links[link].wire) {
                self.lose(link);
            }
        }
        self.note_unread();
        for link in self.links.iter().filter(|link| link.reads && !link.wild) {
            assert!(link.asked.is_empty(), "what is asked is answered: {:?}", link.asked);
            let storage = self.net.nodes[0].slow_storage;
            assert!(storage || link.saying.is_empty(), "and what is said: {:?}", link.saying);
        }
    }

    fn restart(&mut self) {
        self.net.restart(0);
        for link in self.links.drain(..) {
            self.net.hang_up(link.wire);
        }
        self.model.lose_all();
        self.persons.iter_mut().for_each(|person| person.known = None);
        self.started = self.net.now;
        self.net.pass(200 * MILLI_US);
    }

    fn wait(&mut self, us: u64) {
        let mut left = us;
        while left > 0 {
            let now = left.min(4 * SECOND_US);
            left -= now;
            for link in &self.links {
                if link.greeted && !link.wild {
                    self.net.tell(link.wire, &Ping { nonce: left });
                }
            }
            self.net.pass(now);
            self.settle();
        }
    }

    fn some_link(&self, random: &mut Unstructured<'_>) -> Result<Option<usize>> {
        let byte = usize::from(random.arbitrary::<u8>()?);
        Ok((!self.links.is_empty()).then(|| byte % self.links.len()))
    }

    /// A connection that is attached and reads, so that what is said on it is handled at once.
    fn some_attached(&self, random: &mut Unstructured<'_>) -> Result<Option<usize>> {
        let byte = usize::from(random.arbitrary::<u8>()?);
        let fit = |at: &usize| self.links[*at].attached && self.links[*at].reads;
        let all: Vec<usize> = (0..self.links.len()).filter(fit).collect();
        Ok((!all.is_empty()).then(|| all[byte % all.len()]))
    }

    /// All read again, storage is quick: everyone has everything.
    fn end(&mut self) {
        self.net.nodes[0].slow_storage = false;
        self.links.iter_mut().for_each(|link| link.reads = true);
        self.settle();
        self.wait(2 * SECOND_US);
        self.net.check();
        for link in 0..self.links.len() {
            if self.links[link].attached && !self.links[link].wild {
                let request = self.request(link, Asked::Status);
                self.net.tell(self.links[link].wire, &chat::AskStatus { request });
                let request = self.request(link, Asked::Users);
                self.net.tell(self.links[link].wire, &chat::AskUsers { request });
            }
        }
        self.settle();
        let mut names = BTreeSet::new();
        for link in self.links.iter().filter(|link| link.attached && !link.wild) {
            let person = &self.persons[link.person.expect("attached")];
            assert!(link.caught_up && person.partial.is_empty(), "everyone has caught up");
            person.assert_has_all(&self.model);
            let (name, _) = person.known.as_ref().expect("attached");
            assert!(names.insert(name.clone()), "names are unique");
        }
        let archive = self.net.nodes[0].server.archive();
        assert_eq!(archive.rows(), self.model.rows.len() as u64, "what was said is there, once");
    }
}
