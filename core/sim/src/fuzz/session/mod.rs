//! One server and the connections of its clients: whatever is asked, in whatever order, what comes
//! back is what a naive model says.

use std::collections::BTreeSet;
use std::format;
use std::string::String;
use std::vec::Vec;

use arbitrary::{Result, Unstructured};

use super::net::Net;
use cordee_core::chat::server::Source;
use cordee_core::ids::{Origin, OriginRef, ServerId};
use cordee_core::limits::Limits;
use cordee_core::names::{self, COMMON_ROOM};
use cordee_core::time::{MILLI_US, SECOND_US, Time};
use cordee_core::wire::chat::{self, Attach, Intent, Partial, Say};
use cordee_core::wire::entry::Scope;
use cordee_core::wire::hello::{Hello, Magic, Ping, Role, Transport};
use cordee_core::wire::{Fixed64, Reason, Seq, VERSION_MAJOR};
use model::{Model, Row, is_talk_of, scope_key};
use person::{Asked, Link, Person, Saying, with_common_room};

mod answers;
mod model;
mod person;

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

    /// Connections that nobody reads are closed without anybody's knowing, but for the server's.
    fn note_unread(&mut self) {
        for at in 0..self.links.len() {
            let link = &self.links[at];
            let Some(&(reason, when)) = self.net.closed.get(&link.wire) else { continue };
            if link.reads || link.person.is_none() {
                continue;
            }
            assert!(link.may_close.contains(&reason), "closed for {reason:?}: {link:?}");
            let (person, attached) = (link.person.expect("a person"), link.attached);
            (self.links[at].attached, self.links[at].wild) = (false, true);
            self.links[at].person = None;
            if !attached {
                self.end_former(person);
            } else if let Some((_, away)) = &mut self.persons[person].known {
                *away = Some(when);
            }
        }
    }

    /// The server closed a connection: it must have had a reason.
    fn lose(&mut self, at: usize) {
        let link = self.links.remove(at);
        self.net.hang_up(link.wire);
        if let (Some((reason, _)), false) = (self.net.closed.get(&link.wire), link.wild) {
            assert!(link.may_close.contains(reason), "closed for {reason:?}: {link:?}");
        }
        self.forget(&link);
    }

    fn forget(&mut self, link: &Link) {
        let Some(person) = link.person else { return };
        if !link.attached {
            return self.end_former(person);
        }
        let elsewhere = self.links.iter().any(|l| l.attached && l.person == Some(person));
        if let (Some((_, away)), false) = (&mut self.persons[person].known, elsewhere) {
            *away = Some(self.net.now);
        }
    }

    /// Somebody wanted to attach anew, and that came to nothing: it was attached as before all the
    /// while. Now it hangs up there, too.
    fn end_former(&mut self, person: usize) {
        let mut had_one = false;
        for link in self.links.iter_mut().filter(|link| link.former == Some(person)) {
            link.former = None;
            self.net.hang_up(link.wire);
            had_one = true;
        }
        self.net.settle();
        if had_one && let Some((_, away @ None)) = &mut self.persons[person].known {
            *away = Some(self.net.now);
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

    // Connections.

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

    fn open(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let mute = random.arbitrary::<u8>()? % 8 == 7;
        if self.links.len() < LINKS_MAX
            && let Some(wire) = self.net.open(0, Source { address: 1, loopback: true })
        {
            let mut link = Link::new(wire);
            link.greeted = !mute;
            if mute {
                link.may_close.push(Reason::HelloTimeout);
            } else {
                self.net.tell(wire, &hello());
            }
            self.links.push(link);
        }
        Ok(())
    }

    fn end_link(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let Some(at) = self.some_link(random)? else { return Ok(()) };
        let how = random.arbitrary::<u8>()? % 3;
        let link = &mut self.links[at];
        if how == 0 && link.attached && link.reads {
            self.net.tell(link.wire, &chat::Quit { reserved: 0 });
            link.may_close.push(Reason::Goodbye);
            link.attached = false;
            // What was taken is safe, but who quits is not told so.
            link.saying.clear();
            let person = link.person.expect("attached");
            self.persons[person].known = None;
        } else {
            let link = self.links.remove(at);
            self.net.hang_up(link.wire);
            self.net.settle();
            self.forget(&link);
        }
        Ok(())
    }

    fn say_anything(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let at = self.some_link(random)?;
        let kind = random.arbitrary::<u8>()?;
        let length = usize::from(random.arbitrary::<u8>()?).min(random.len());
        let bytes = random.bytes(length)?;
        let Some(at) = at else { return Ok(()) };
        let link = &mut self.links[at];
        // Nobody is to be attached in a way that the model does not see.
        if link.person.is_none() && kind != <Attach<'_> as cordee_core::wire::Message>::KIND {
            link.wild = true;
            let mut frame = Vec::new();
            cordee_core::framing::put_frame(&mut frame, kind, |out| out.extend_from_slice(bytes));
            self.net.write(link.wire, &frame);
        }
        Ok(())
    }

    // Attaching.

    fn attach(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let byte = usize::from(random.arbitrary::<u8>()?);
        let who = random.choose_index(PERSONS)?;
        let intent = [Intent::New, Intent::Resume, Intent::Reset][random.choose_index(3)?];
        let name = NAMES[random.choose_index(NAMES.len())?];
        let mask = random.arbitrary::<u8>()?;
        let claims = random.arbitrary::<u8>()? % 8;
        let returns = random.arbitrary::<u8>()? % 4;
        let fit = |link: &Link| link.greeted && link.reads && !link.wild;
        let fitting: Vec<usize> = (0..self.links.len()).filter(|l| fit(&self.links[*l])).collect();
        // One client has one connection that hands back: it would not know what was taken.
        let busy = self.links.iter().any(|l| !l.attached && l.person == Some(who));
        if fitting.is_empty() || busy {
            return Ok(());
        }
        let at = fitting[byte % fitting.len()];
        let wanted: Vec<&str> =
            (0..ROOMS.len() - 1).filter(|room| mask >> room & 1 == 1).map(|r| ROOMS[r]).collect();
        let first = self.links[at].person.is_none();
        if !first {
            self.links[at].may_close.push(Reason::Unexpected);
        } else {
            let many = wanted.len().max(with_common_room(&wanted).len()) > ROOMS_MAX;
            let mut outcomes = self.outcomes(who, intent, name);
            if many && intent != Intent::Resume && outcomes != [Some(Reason::NameInvalid)] {
                outcomes = Vec::from([Some(Reason::TooManyRooms)]);
            }
            // Who is attached elsewhere goes on there unless it is sure to be taken here.
            if self.is_attached(who) && outcomes != [None] {
                return Ok(());
            }
            self.links[at].may_close.extend(outcomes.iter().flatten());
            self.links[at].attaching = outcomes;
            self.links[at].person = Some(who);
            self.links[at].intent = intent;
            self.links[at].returns = returns;
            self.links[at].may_close.push(Reason::HelloTimeout);
            if intent == Intent::New && mask & 0x80 != 0 {
                // Another process of the same client.
                let person = &mut self.persons[who];
                (person.process, person.given) = (person.process + 1, 0);
            }
            if intent != Intent::Resume {
                self.persons[who].begin_anew();
            }
            // Nobody listens to the former connection any more.
            for link in self.links.iter_mut().filter(|l| l.attached && l.person == Some(who)) {
                (link.wild, link.attached, link.person) = (true, false, None);
                link.former = Some(who);
            }
        }
        let rooms = self.send_attach(at, who, intent, name, &wanted, claims);
        if first {
            let person = &mut self.persons[who];
            (person.said_before, person.rooms) = (person.given, rooms);
        }
        Ok(())
    }

    /// Returns the rooms that it names.
    fn send_attach(
        &mut self,
        at: usize,
        who: usize,
        intent: Intent,
        name: &str,
        wanted: &[&str],
        claims: u8,
    ) -> BTreeSet<String> {
        let person = &mut self.persons[who];
        person.attachment += 1;
        // Who resumes is where it was.
        let own: Vec<String> = person.rooms.iter().cloned().collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let rooms = if intent == Intent::Resume { &own } else { wanted };
        let mut seen: Vec<(Origin, u64)> = person.seen.iter().map(|(o, n)| (*o, *n)).collect();
        match claims {
            // An origin that nobody ever heard of, and more than there is.
            1 => seen.push((Origin { server: ServerId(1), incarnation: 1, nonce: 1 }, 3)),
            2 => {
                // What comes under these numbers meanwhile it will never get.
                person.lied = true;
                seen.iter_mut().for_each(|(_, number)| *number += 1);
            }
            _ => {}
        }
        let partial: Vec<(String, Vec<(Origin, u64)>)> = person
            .partial
            .iter()
            .map(|(room, seen)| (room.clone(), seen.iter().map(|(o, n)| (*o, *n)).collect()))
            .collect();
        let partial: Vec<Partial<'_>> =
            partial.iter().map(|(room, seen)| Partial { room, seen: Seq::new(seen) }).collect();
        let attach = Attach {
            secret: person.secret,
            process: Fixed64(person.process),
            attachment: person.attachment,
            intent,
            name,
            reservation: Fixed64(0),
            hops: 0,
            author_number: person.given,
            rooms: Seq::new(rooms),
            seen: Seq::new(&seen),
            partial: Seq::new(&partial),
        };
        self.net.tell(self.links[at].wire, &attach);
        with_common_room(rooms)
    }

    /// What may come of an attach.
    fn outcomes(&self, who: usize, intent: Intent, name: &str) -> Vec<Option<Reason>> {
        let Some(key) = Person::key_of(name) else { return Vec::from([Some(Reason::NameInvalid)]) };
        let others = self
            .links
            .iter()
            .filter(|link| link.person.is_some_and(|person| person != who) && !link.wild);
        let others = others.count();
        let (known, unsure) = self.is_known(who);
        let young = self.net.now.since_us(self.started);
        let resumes = intent != Intent::New && (known || young < GRACE_US);
        let maybe = intent != Intent::New && (unsure || young.abs_diff(GRACE_US) < SECOND_US);
        let limit = if resumes { USERS_HARD_MAX } else { USERS_MAX };
        if others >= limit && !maybe {
            return Vec::from([Some(Reason::Full)]);
        }
        let mut outcomes = Vec::from([None]);
        if maybe && others >= USERS_MAX {
            outcomes.push(Some(Reason::Full));
        }
        let own = self.persons[who].known.as_ref().map(|(own, _)| own.clone());
        let keeps = known && (own.as_ref() == Some(&key) || intent != Intent::New);
        if keeps && !unsure {
            return outcomes;
        }
        match self.is_taken(&key, who) {
            (true, false) if !unsure => Vec::from([Some(Reason::NameTaken)]),
            (false, false) => outcomes,
            _ => {
                outcomes.push(Some(Reason::NameTaken));
                outcomes
            }
        }
    }

    /// Whether the server lists a person, and whether that is uncertain.
    fn is_known(&self, who: usize) -> (bool, bool) {
        match self.persons[who].known {
            None => (false, false),
            Some((_, None)) => (true, false),
            Some((_, Some(since))) => {
                let away = self.net.now.since_us(since);
                (away < GRACE_US, away.abs_diff(GRACE_US) < SECOND_US)
            }
        }
    }

    /// Whether somebody else has a name, and whether that is uncertain.
    fn is_taken(&self, key: &str, who: usize) -> (bool, bool) {
        let others = (0..PERSONS).filter(|other| *other != who);
        let holders = others.filter(|other| {
            self.persons[*other].known.as_ref().is_some_and(|(name, _)| name == key)
        });
        let standing: Vec<(bool, bool)> = holders.map(|other| self.is_known(other)).collect();
        let certain = standing.iter().any(|(known, unsure)| *known && !unsure);
        (certain, !certain && standing.iter().any(|(_, unsure)| *unsure))
    }

    // Saying.

    fn say(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let at = self.some_attached(random)?;
        let place = random.arbitrary::<u8>()?;
        let number = random.arbitrary::<u8>()? % 8;
        let body = random.arbitrary::<u8>()?;
        let after = random.arbitrary::<u8>()? % 4;
        let Some(at) = at else { return Ok(()) };
        let person = self.links[at].person.expect("attached");
        let last = self.persons[person].given;
        let number = match number {
            0 => last,
            1 => last + 2,
            2 => 0,
            3 => last.saturating_sub(1),
            _ => last + 1,
        };
        let body = match body {
            255 => String::new(),
            254 => "x".repeat(8_193),
            _ => format!("{} {} {body}", WORDS[usize::from(body) % WORDS.len()], last),
        };
        let place = usize::from(place) % (ROOMS.len() - 1 + PERSONS);
        if let Some(room) = ROOMS.get(place).filter(|_| place < ROOMS.len() - 1) {
            self.say_to(at, Scope::Room(room), number, body, after);
        } else {
            let other = place + 1 - ROOMS.len();
            let (own, theirs) = (self.persons[person].session, self.persons[other].session);
            // Those who are only remembered can be talked to for a while: for how long is not said.
            if self.is_attached(other) {
                self.say_to(at, Scope::talk(own, theirs, "x"), number, body, after);
            }
        }
        Ok(())
    }

    fn is_attached(&self, person: usize) -> bool {
        self.links.iter().any(|link| link.attached && link.person == Some(person))
    }

    fn say_much(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let at = self.some_attached(random)?;
        let count = random.int_in_range(1..=60)?;
        let Some(at) = at else { return Ok(()) };
        let person = self.links[at].person.expect("attached");
        for _ in 0..count {
            if self.long < LONG_MAX {
                self.long += 1;
                let number = self.persons[person].given + 1;
                let body = format!("{number} {}", "x".repeat(8_000));
                self.say_to(at, Scope::Room(COMMON_ROOM), number, body, 0);
                self.settle();
            }
        }
        Ok(())
    }

    fn say_to(&mut self, at: usize, scope: Scope<'_>, number: u64, body: String, after: u8) {
        let who = self.links[at].person.expect("attached");
        let author = self.persons[who].author();
        let key = scope_key(&scope);
        let row = Row { scope: key, author, number, body };
        let known = self.model.has(author, number);
        let taken = known || self.may_say(who, &row);
        let after = match after {
            1 if !known && taken => Vec::from([(OriginRef(0), u64::MAX)]),
            2 => Vec::from([(OriginRef(0), self.model.rows.len() as u64)]),
            _ => Vec::new(),
        };
        let absurd = after.iter().any(|(_, number)| *number == u64::MAX);
        // After floors and earlier starts the first origin is the present one still.
        let say = Say { number, scope, after: Seq::new(&after), body: &row.body };
        self.net.tell(self.links[at].wire, &say);
        if absurd {
            self.links[at].may_close.push(Reason::BadRequest);
            return;
        }
        self.links[at].saying.push_back(Saying { number, taken });
        if taken && !known {
            self.model.note_said(&row);
            self.model.rows.push(row);
        }
        let person = &mut self.persons[who];
        person.given = person.given.max(if taken { number } else { 0 });
    }

    /// Whether a message that is new must be taken.
    fn may_say(&self, who: usize, row: &Row) -> bool {
        let person = &self.persons[who];
        let last = self.model.last(row.author);
        let again = row.number <= person.said_before;
        let place = if row.scope.starts_with('#') {
            person.rooms.contains(&row.scope)
                || (again && self.model.rooms.contains_key(&row.scope))
        } else {
            is_talk_of(&row.scope, person.session)
        };
        let fits = !row.body.is_empty() && row.body.len() <= 8_192;
        fits && row.number > 0 && row.number <= last + 1 && place
    }

    // Requests.

    fn request(&mut self, at: usize, asked: Asked) -> u64 {
        self.requests += 1;
        self.links[at].asked.insert(self.requests, asked);
        self.requests
    }

    fn join(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let at = self.some_attached(random)?;
        let room = ROOMS[random.choose_index(ROOMS.len())?];
        let Some(at) = at else { return Ok(()) };
        let rooms = &self.persons[self.links[at].person.expect("attached")].rooms;
        let asked = match names::room(room) {
            Err(reason) => Asked::Refused(reason),
            Ok(room) if !rooms.contains(&room) && rooms.len() >= ROOMS_MAX => {
                Asked::Refused(Reason::TooManyRooms)
            }
            Ok(room) => {
                self.model.know_room(&room);
                Asked::Join(room)
            }
        };
        let request = self.request(at, asked);
        self.net.tell(self.links[at].wire, &chat::Join { request, room });
        Ok(())
    }

    fn leave(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let at = self.some_attached(random)?;
        let room = ROOMS[random.choose_index(ROOMS.len())?];
        let Some(at) = at else { return Ok(()) };
        let rooms = &self.persons[self.links[at].person.expect("attached")].rooms;
        let asked = match names::room(room) {
            Err(reason) => Asked::Refused(reason),
            Ok(room) if room == COMMON_ROOM => Asked::Refused(Reason::CommonRoom),
            Ok(room) if !self.model.rooms.contains_key(&room) => {
                Asked::Refused(Reason::RoomUnknown)
            }
            Ok(room) if !rooms.contains(&room) => Asked::Refused(Reason::NotMember),
            Ok(room) => Asked::Leave(room),
        };
        let request = self.request(at, asked);
        self.net.tell(self.links[at].wire, &chat::Leave { request, room });
        Ok(())
    }

    fn set(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let at = self.some_attached(random)?;
        let topic = random.arbitrary::<u8>()? % 2 == 0;
        let which = random.choose_index(NAMES.len())?;
        let Some(at) = at else { return Ok(()) };
        let who = self.links[at].person.expect("attached");
        if topic {
            let (room, topic) = (ROOMS[which], format!("about {}", self.requests));
            let asked = match names::room(room) {
                Err(reason) => Asked::Refused(reason),
                Ok(room) if !self.persons[who].rooms.contains(&room) => {
                    Asked::Refused(Reason::NotMember)
                }
                Ok(room) => {
                    self.model.rooms.insert(room, topic.clone());
                    Asked::Topic
                }
            };
            let request = self.request(at, asked);
            self.net.tell(self.links[at].wire, &chat::SetTopic { request, room, topic: &topic });
        } else {
            let name = NAMES[which];
            let asked = match Person::key_of(name) {
                None => Asked::Refused(Reason::NameInvalid),
                Some(key) => match self.is_taken(&key, who) {
                    (true, _) => Asked::Refused(Reason::NameTaken),
                    (false, true) => Asked::Either(key),
                    (false, false) => Asked::Name(key),
                },
            };
            let request = self.request(at, asked);
            self.net.tell(self.links[at].wire, &chat::SetName { request, name });
        }
        Ok(())
    }

    fn ask(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let at = self.some_attached(random)?;
        let which = random.arbitrary::<u8>()? % 6;
        let place = usize::from(random.arbitrary::<u8>()?);
        let from = u64::from(random.arbitrary::<u8>()?);
        let count = u32::from(random.arbitrary::<u8>()?);
        let Some(at) = at else { return Ok(()) };
        let wire = self.links[at].wire;
        match which {
            0 => {
                let request = self.request(at, Asked::Users);
                self.net.tell(wire, &chat::AskUsers { request });
            }
            1 => {
                let request = self.request(at, Asked::Rooms);
                self.net.tell(wire, &chat::AskRooms { request });
            }
            2 => {
                let request = self.request(at, Asked::Status);
                self.net.tell(wire, &chat::AskStatus { request });
            }
            3 => {
                let request = self.request(at, Asked::Refused(Reason::KillForbidden));
                self.net.tell(wire, &chat::KillServer { request });
            }
            4 => self.search(at, WORDS[place % WORDS.len()]),
            _ => self.history(at, place, from, count),
        }
        Ok(())
    }

    fn search(&mut self, at: usize, words: &str) {
        let person = &self.persons[self.links[at].person.expect("attached")];
        let rows = self.model.visible(person.session, &person.rooms).rev();
        let found = rows.filter(|row| row.body.contains(words)).take(RESULTS_MAX);
        let found: Vec<_> = found.map(|row| (row.author, row.number)).collect();
        let total = found.len() as u64;
        let request = self.request(at, Asked::Page(found, total));
        self.net.tell(self.links[at].wire, &chat::Search { request, words });
    }

    fn history(&mut self, at: usize, place: usize, from: u64, count: u32) {
        let who = self.links[at].person.expect("attached");
        let place = place % (ROOMS.len() + PERSONS);
        let own = self.persons[who].session;
        let scope = match place.checked_sub(ROOMS.len()) {
            None => Scope::Room(ROOMS[place]),
            Some(other) => {
                // Sometimes a talk of two others.
                let first =
                    if from % 4 == 3 { self.persons[(who + 1) % PERSONS].session } else { own };
                Scope::talk(first, self.persons[other].session, "x")
            }
        };
        let key = match scope {
            Scope::Room(room) => names::room(room),
            Scope::Talk { .. } => Ok(scope_key(&scope)),
        };
        let asked = match key {
            Err(reason) => Asked::Refused(reason),
            Ok(room) if room.starts_with('#') && !self.model.rooms.contains_key(&room) => {
                Asked::Refused(Reason::RoomUnknown)
            }
            Ok(talk) if !talk.starts_with('#') && !is_talk_of(&talk, own) => {
                Asked::Refused(Reason::UserUnknown)
            }
            Ok(key) => {
                let rows: Vec<_> =
                    self.model.rows_of(&key).map(|row| (row.author, row.number)).collect();
                let count = count.min(PAGE_MAX) as usize;
                let skip = if from == 0 {
                    rows.len().saturating_sub(count)
                } else {
                    (from as usize - 1).min(rows.len())
                };
                let page = rows[skip..].iter().copied().take(count).collect();
                Asked::Page(page, rows.len() as u64)
            }
        };
        let request = self.request(at, asked);
        self.net.tell(self.links[at].wire, &chat::AskHistory { request, scope, from, count });
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

fn hello() -> Hello<'static> {
    Hello {
        magic: Magic,
        major: VERSION_MAJOR,
        minor: 0,
        role: Role::Client,
        transport: Transport::Plain,
        key_id: Fixed64(0),
        cluster: "cordee",
    }
}
