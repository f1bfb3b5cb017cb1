//! Connections begin and end, and what that means for whoever was on them.

use std::vec::Vec;

use arbitrary::{Result, Unstructured};

use super::person::Link;
use super::{LINKS_MAX, World};
use cordee_core::chat::server::Source;
use cordee_core::time::Time;
use cordee_core::wire::chat::{self, Attach};
use cordee_core::wire::hello::{Hello, Magic, Role, Transport};
use cordee_core::wire::{Fixed64, Reason, VERSION_MAJOR};

impl World {
    pub(super) fn open(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
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

    pub(super) fn end_link(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
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

    pub(super) fn say_anything(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let at = self.some_link(random)?;
        let kind = random.arbitrary::<u8>()?;
        let length = usize::from(random.arbitrary::<u8>()?).min(random.len());
        let bytes = random.bytes(length)?;
        let Some(at) = at else { return Ok(()) };
        let link = &mut self.links[at];
        // Nobody is to be attached in a way that the model does not see.
        if link.person.is_none()
            && link.former.is_none()
            && kind != <Attach<'_> as cordee_core::wire::Message>::KIND
        {
            link.wild = true;
            let mut frame = Vec::new();
            cordee_core::framing::put_frame(&mut frame, kind, |out| out.extend_from_slice(bytes));
            self.net.write(link.wire, &frame);
        }
        Ok(())
    }

    /// Connections that nobody reads are closed without anybody's knowing, but for the server's.
    pub(super) fn note_unread(&mut self) {
        for at in 0..self.links.len() {
            let link = &self.links[at];
            let Some(&(reason, when)) = self.net.closed.get(&link.wire) else { continue };
            if let Some(person) = link.former {
                self.links[at].former = None;
                self.note_away(person, when);
                continue;
            }
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
    pub(super) fn lose(&mut self, at: usize) {
        let link = self.links.remove(at);
        self.net.hang_up(link.wire);
        if let (Some((reason, _)), false) = (self.net.closed.get(&link.wire), link.wild) {
            assert!(link.may_close.contains(reason), "closed for {reason:?}: {link:?}");
        }
        self.forget(&link);
    }

    pub(super) fn forget(&mut self, link: &Link) {
        if let Some(person) = link.former {
            return self.note_away(person, self.net.now);
        }
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
        if had_one {
            self.note_away(person, self.net.now);
        }
    }

    /// Somebody is attached nowhere any more.
    fn note_away(&mut self, person: usize, since: Time) {
        if let Some((_, away @ None)) = &mut self.persons[person].known {
            *away = Some(since);
        }
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
