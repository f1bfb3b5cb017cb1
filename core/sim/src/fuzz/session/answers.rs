//! What comes back, and whether it had to.

use std::collections::BTreeSet;
use std::string::String;
use std::vec::Vec;

use super::World;
use super::model::{Row, scope_key};
use super::person::{Asked, Person, Saying};
use cordee_core::ids::{Origin, Tag};
use cordee_core::names;
use cordee_core::wire::chat::{
    Ack, Arrived, Attached, CaughtUp, Departed, Done, Failed, Intent, Joined, Left, Page, Renamed,
    Return, Returned, RoomList, RoomMade, Servers, Stable, Status, TopicSet, UserList, Want,
};
use cordee_core::wire::entry::{Entry, OriginDef, Portable, Scope};
use cordee_core::wire::hello::{Bye, Pong, Welcome};
use cordee_core::wire::{Field, Message, Reader, Reason};

impl World {
    /// Takes in what came on a connection.
    pub(super) fn take_in(&mut self, at: usize, bytes: &[u8]) {
        for (kind, payload) in self.links[at].frames(bytes) {
            if !self.links[at].wild {
                self.take_frame(at, kind, &payload);
            }
        }
    }

    fn take_frame(&mut self, at: usize, kind: u8, payload: &[u8]) {
        let who = self.links[at].person;
        match kind {
            OriginDef::KIND => {
                let def: OriginDef = parse(payload);
                let before = self.links[at].refs.insert(def.reference, def.origin);
                assert!(before.is_none_or(|before| before == def.origin), "it keeps its meaning");
            }
            Entry::KIND => {
                let entry: Entry<'_> = parse(payload);
                let link = &self.links[at];
                let person = &mut self.persons[who.expect("a person")];
                person.receive(&entry, &link.refs, &self.model);
            }
            CaughtUp::KIND => self.caught_up(at, &parse(payload)),
            Attached::KIND => self.on_attached(at, &parse(payload)),
            Want::KIND => self.hand_back(at, &parse(payload)),
            Ack::KIND => {
                let ack: Ack<'_> = parse(payload);
                for number in ack.first..ack.first + ack.indexes.len() as u64 {
                    let place = self.links[at].saying.iter().position(|said| said.taken);
                    let said = place.and_then(|place| self.links[at].saying.remove(place));
                    // Who was attached again meanwhile does not know what it is told of.
                    assert_eq!(said.map(|said| said.number), Some(number), "acknowledged in order");
                }
            }
            Failed::KIND => self.failed(at, &parse(payload)),
            Joined::KIND => {
                let joined: Joined<'_> = parse(payload);
                let asked = self.answered(at, joined.request);
                assert_eq!(asked, Asked::Join(String::from(joined.room)));
                assert_eq!(
                    self.model.rooms.get(joined.room).map(String::as_str),
                    Some(joined.topic)
                );
                self.persons[who.expect("a person")].joined(joined.room);
            }
            Left::KIND => {
                let left: Left<'_> = parse(payload);
                let asked = self.answered(at, left.request);
                assert_eq!(asked, Asked::Leave(String::from(left.room)));
                self.persons[who.expect("a person")].left(left.room);
            }
            Done::KIND => {
                let done: Done = parse(payload);
                match self.answered(at, done.request) {
                    Asked::Topic => {}
                    Asked::Name(key) | Asked::Either(key) => {
                        let person = &mut self.persons[who.expect("a person")];
                        person.known = Some((key, None));
                    }
                    other => panic!("{other:?} is not answered so"),
                }
            }
            Page::KIND => self.on_page(at, &parse(payload)),
            UserList::KIND => self.on_users(at, &parse(payload)),
            RoomList::KIND => {
                let list: RoomList<'_> = parse(payload);
                if list.request > 0 && !list.more {
                    assert_eq!(self.answered(at, list.request), Asked::Rooms);
                    let known: BTreeSet<&str> =
                        self.model.rooms.keys().map(String::as_str).collect();
                    let told: BTreeSet<&str> = list.rooms.iter().map(|room| room.room).collect();
                    assert_eq!(told, known, "all rooms");
                }
            }
            Status::KIND => {
                let status: Status<'_> = parse(payload);
                assert_eq!(self.answered(at, status.request), Asked::Status);
                let person = &self.persons[who.expect("a person")];
                let rows = self.model.visible(person.session, &person.rooms).count() as u64;
                assert_eq!(status.ma, rows, "MA is what it may see");
                if self.links[at].caught_up && person.partial.is_empty() {
                    assert_eq!(status.mt.0, status.ma, "MT = MA for whoever has drained");
                }
            }
            Bye::KIND => {
                let bye: Bye<'_> = parse(payload);
                assert!(self.links[at].may_close.contains(&bye.reason), "{bye:?}");
            }
            Welcome::KIND => drop(parse::<Welcome<'_>>(payload)),
            Pong::KIND => drop(parse::<Pong>(payload)),
            Servers::KIND => drop(parse::<Servers<'_>>(payload)),
            Stable::KIND => drop(parse::<Stable<'_>>(payload)),
            Arrived::KIND => drop(parse::<Arrived<'_>>(payload)),
            Departed::KIND => drop(parse::<Departed<'_>>(payload)),
            Renamed::KIND => drop(parse::<Renamed<'_>>(payload)),
            RoomMade::KIND => drop(parse::<RoomMade<'_>>(payload)),
            TopicSet::KIND => drop(parse::<TopicSet<'_>>(payload)),
            other => panic!("a client is never sent {other:#04x}"),
        }
    }

    fn answered(&mut self, at: usize, request: u64) -> Asked {
        self.links[at].asked.remove(&request).expect("an answer to what was asked, and one")
    }

    fn failed(&mut self, at: usize, failed: &Failed<'_>) {
        let link = &mut self.links[at];
        if failed.say {
            let refused = |said: &Saying| !said.taken && said.number == failed.request;
            let place = link.saying.iter().position(refused);
            assert!(place.is_some(), "{failed:?} must be taken: {:?}", link.saying);
            place.map(|place| link.saying.remove(place));
        } else if failed.request == 0 {
            assert!(link.attaching.contains(&Some(failed.reason)), "{failed:?}");
            link.person = None;
        } else {
            match self.answered(at, failed.request) {
                Asked::Refused(reason) => assert_eq!(failed.reason, reason),
                Asked::Either(_) => assert_eq!(failed.reason, Reason::NameTaken),
                other => panic!("{other:?} must not fail: {failed:?}"),
            }
        }
    }

    fn on_attached(&mut self, at: usize, attached: &Attached<'_>) {
        let who = self.links[at].person.expect("it asked");
        assert!(self.links[at].attaching.contains(&None), "{:?}", self.links[at].attaching);
        let others = self.links.iter().filter(|l| l.attached && l.person != Some(who)).count();
        assert!(others < super::USERS_HARD_MAX, "never more than the hard limit");
        self.links[at].attached = true;
        for link in self.links.iter_mut().filter(|link| link.former == Some(who)) {
            link.former = None;
        }
        let person = &mut self.persons[who];
        assert_eq!(attached.session, person.session);
        assert_eq!(attached.author_number, self.model.last(person.author()));
        let rooms: BTreeSet<String> = attached.rooms.iter().map(String::from).collect();
        assert_eq!(rooms, person.rooms, "it is where it wanted to be");
        rooms.iter().for_each(|room| self.model.know_room(room));
        let cut: Vec<(Origin, u64)> = attached.cut.iter().collect();
        person.attached(&cut, rooms);
        let key = Person::key_of(attached.name).expect("a name");
        person.known = Some((key.clone(), None));
        for other in self.links.iter().filter(|l| l.attached && l.person != Some(who)) {
            let (name, _) =
                self.persons[other.person.expect("attached")].known.as_ref().expect("so");
            assert_ne!(*name, key, "names are unique");
        }
    }

    fn caught_up(&mut self, at: usize, caught_up: &CaughtUp<'_>) {
        let link = &mut self.links[at];
        let person = &mut self.persons[link.person.expect("a person")];
        if caught_up.room.is_empty() {
            assert!(!std::mem::replace(&mut link.caught_up, true), "once");
            return;
        }
        let seen = person.partial.remove(caught_up.room).expect("it was on its way");
        for (origin, number) in seen {
            let base = person.seen.entry(origin).or_default();
            *base = number.max(*base);
        }
    }

    fn on_page(&mut self, at: usize, page: &Page<'_>) {
        let rows = page.entries.iter().map(|entry| (entry.author, entry.author_number));
        self.links[at].page.extend(rows);
        if !page.more {
            let rows = std::mem::take(&mut self.links[at].page);
            assert_eq!(self.answered(at, page.request), Asked::Page(rows, page.total));
        }
    }

    fn on_users(&mut self, at: usize, list: &UserList<'_>) {
        if list.request == 0 || list.more {
            return;
        }
        assert_eq!(self.answered(at, list.request), Asked::Users);
        let mut names = BTreeSet::new();
        for user in list.users {
            let key = names::user_key(user.name).expect("a name");
            assert!(names.insert(key), "names are unique: {list:?}");
        }
        let attached = self.links.iter().filter(|link| link.attached && !link.wild);
        for person in attached.map(|link| &self.persons[link.person.expect("attached")]) {
            let listed = list.users.iter().find(|user| user.session == person.session);
            let listed = listed.expect("who is attached is listed");
            assert!(listed.online, "and online");
            let rooms: BTreeSet<String> = listed.rooms.iter().map(String::from).collect();
            assert_eq!(rooms, person.rooms);
            let key = names::user_key(listed.name).ok();
            assert_eq!(key, person.known.as_ref().map(|(key, _)| key.clone()));
        }
    }

    /// The server lacks what the client saw: it hands back what it kept, or something else.
    fn hand_back(&mut self, at: usize, want: &Want<'_>) {
        let link = &self.links[at];
        let who = link.person.expect("it asked");
        assert_ne!(link.intent, Intent::Reset, "who resets has seen nothing");
        let mut count = 0;
        let returns = link.returns;
        for (origin, from, to) in want.ranges {
            let kept = self.persons[who].kept.range((origin, from)..=(origin, to));
            let kept: Vec<(Vec<u8>, Tag)> =
                kept.map(|(_, kept)| (kept.portable.clone(), kept.tag)).collect();
            for (portable, mut tag) in kept.into_iter().filter(|_| returns < 2) {
                let entry = Portable::take(&mut Reader::new(&portable)).expect("we wrote it");
                if returns == 1 {
                    tag.0[0] ^= 1;
                } else {
                    self.note_returned(&entry);
                }
                let wire = self.links[at].wire;
                self.net.tell(wire, &Return { entry, tag });
                count += 1;
            }
        }
        // Otherwise it is silent, until it is closed.
        if returns < 3 {
            self.net.tell(self.links[at].wire, &Returned { count });
        }
    }

    /// What is handed back and proves to be of this cluster is taken, unless it is there.
    fn note_returned(&mut self, entry: &Portable<'_>) {
        if self.model.has(entry.author, entry.author_number) {
            return;
        }
        if let Scope::Room(room) = entry.scope {
            self.model.know_room(room);
        }
        self.model.rows.push(Row {
            scope: scope_key(&entry.scope),
            author: entry.author,
            number: entry.author_number,
            body: String::from(entry.body),
        });
    }
}

fn parse<'a, M: Message<'a>>(payload: &'a [u8]) -> M {
    M::parse(payload).expect("what a server sends can be read")
}
