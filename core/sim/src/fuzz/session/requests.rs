//! Requests, and how each must be answered.

use std::format;
use std::vec::Vec;

use arbitrary::{Result, Unstructured};

use super::model::{is_talk_of, scope_key};
use super::person::{Asked, Person};
use super::{NAMES, PAGE_MAX, PERSONS, RESULTS_MAX, ROOMS, ROOMS_MAX, WORDS, World};
use cordee_core::names::{self, COMMON_ROOM};
use cordee_core::wire::Reason;
use cordee_core::wire::chat;
use cordee_core::wire::entry::Scope;

impl World {
    pub(super) fn request(&mut self, at: usize, asked: Asked) -> u64 {
        self.requests += 1;
        self.links[at].asked.insert(self.requests, asked);
        self.requests
    }

    pub(super) fn join(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
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

    pub(super) fn leave(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
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

    pub(super) fn set(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
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

    pub(super) fn ask(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
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
}
