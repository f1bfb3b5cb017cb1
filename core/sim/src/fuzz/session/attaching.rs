//! Attaching: who asks for it, and what may come of it.

use std::collections::BTreeSet;
use std::string::String;
use std::vec::Vec;

use arbitrary::{Result, Unstructured};

use super::person::{Link, Person, with_common_room};
use super::{GRACE_US, NAMES, PERSONS, ROOMS, ROOMS_MAX, USERS_HARD_MAX, USERS_MAX, World};
use cordee_core::ids::{Origin, ServerId};
use cordee_core::time::SECOND_US;
use cordee_core::wire::chat::{Attach, Intent, Partial};
use cordee_core::wire::{Fixed64, Reason, Seq};

impl World {
    pub(super) fn attach(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
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
    pub(super) fn is_taken(&self, key: &str, who: usize) -> (bool, bool) {
        let others = (0..PERSONS).filter(|other| *other != who);
        let holders = others.filter(|other| {
            self.persons[*other].known.as_ref().is_some_and(|(name, _)| name == key)
        });
        let standing: Vec<(bool, bool)> = holders.map(|other| self.is_known(other)).collect();
        let certain = standing.iter().any(|(known, unsure)| *known && !unsure);
        (certain, !certain && standing.iter().any(|(_, unsure)| *unsure))
    }

    pub(super) fn is_attached(&self, person: usize) -> bool {
        self.links.iter().any(|link| link.attached && link.person == Some(person))
    }
}
