//! Saying things, and whether they must be taken.

use std::format;
use std::string::String;
use std::vec::Vec;

use arbitrary::{Result, Unstructured};

use super::model::{Row, is_talk_of, scope_key};
use super::person::Saying;
use super::{LONG_MAX, PERSONS, ROOMS, WORDS, World};
use cordee_core::ids::OriginRef;
use cordee_core::names::COMMON_ROOM;
use cordee_core::wire::chat::Say;
use cordee_core::wire::entry::Scope;
use cordee_core::wire::{Reason, Seq};

impl World {
    pub(super) fn say(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
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

    pub(super) fn say_much(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
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
}
