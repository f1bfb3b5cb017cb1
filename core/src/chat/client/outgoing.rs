//! What this client said: numbered 1, 2, 3, …, kept until it is acknowledged and was seen in the
//! archive, and said again wherever it may have been lost.

use alloc::collections::VecDeque;
use alloc::string::String;

use crate::ids::SessionId;
use crate::wire::entry::Scope;

/// Where a message goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Addressee {
    /// A room, by its normalised name.
    Room(String),
    /// Somebody, and the name at that time.
    Person(SessionId, String),
}

impl Addressee {
    /// The scope as the session `me` writes it.
    pub(super) fn scope(&self, me: SessionId) -> Scope<'_> {
        match self {
            Addressee::Room(room) => Scope::Room(room),
            Addressee::Person(other, name) => Scope::talk(me, *other, name),
        }
    }
}

/// A message.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) number: u64,
    /// Its place among all that the application wanted.
    pub(super) order: u64,
    pub(super) to: Addressee,
    pub(super) body: String,
    pub(super) reference: u64,
    /// It need not be seen: its room was left.
    out_of_sight: bool,
}

/// How the numbers of a server and ours go together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Agreement {
    /// What comes after the server's last is here to be said again.
    Good,
    /// The server lacks numbers that are not kept any more, or has some that were never given.
    Broken,
}

/// What was said, by ascending number without a gap.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    queue: VecDeque<Own>,
    /// The last number given.
    last: u64,
    /// Up to here everything is acknowledged.
    acknowledged: u64,
    /// The highest number seen in the archive.
    seen: u64,
    /// The last number sent on the present connection.
    sent: u64,
    /// The last number that the server had when the session was attached.
    had: u64,
    /// Refusals to come of numbers that were given anew since.
    stale: u64,
    bytes: usize,
}

impl Outgoing {
    /// Numbers a message.
    pub(super) fn say(&mut self, order: u64, to: Addressee, body: String, reference: u64) {
        self.last += 1;
        self.bytes += body.len();
        let number = self.last;
        self.queue.push_back(Own { number, order, to, body, reference, out_of_sight: false });
    }

    /// The next message that was not sent on the present connection.
    pub(super) fn unsent(&self) -> Option<&Own> {
        self.by_number(self.sent + 1)
    }

    /// Whether the server had a message when the session was attached: it takes no more of it then
    /// than that it is to be acknowledged.
    pub(super) fn was_there(&self, number: u64) -> bool {
        number <= self.had
    }

    /// The message of [`unsent`](Self::unsent) was sent.
    pub(super) fn mark_sent(&mut self) {
        self.sent += 1;
    }

    /// A server has everything up to `has`. What comes after is to be sent, and what is not
    /// acknowledged, too: only then the server acknowledges it.
    pub(super) fn attach(&mut self, has: u64) -> Agreement {
        let first_kept = self.queue.front().map_or(self.last + 1, |own| own.number);
        if has > self.last || has + 1 < first_kept {
            return Agreement::Broken;
        }
        self.had = has;
        self.sent = if planted!(NoResend) { self.last } else { has.min(self.acknowledged) };
        self.stale = 0;
        Agreement::Good
    }

    /// Numbers what is not acknowledged from 1, for another author; forgets the rest.
    pub(super) fn number_anew(&mut self) {
        let acknowledged = self.acknowledged;
        self.queue.retain(|own| own.number > acknowledged);
        for (number, own) in (1..).zip(&mut self.queue) {
            own.number = number;
        }
        self.last = self.queue.len() as u64;
        self.bytes = self.queue.iter().map(|own| own.body.len()).sum();
        (self.acknowledged, self.seen, self.sent, self.had, self.stale) = (0, 0, 0, 0, 0);
    }

    /// The message `number` was seen in the archive. Never said ones are nothing of ours.
    pub(super) fn see(&mut self, number: u64) {
        if number <= self.last {
            self.seen = self.seen.max(number);
            self.release();
        }
    }

    /// The next message that is not acknowledged, when its number is at most `through`: it is
    /// acknowledged now. Its number and reference.
    pub(super) fn acknowledge_next(&mut self, through: u64) -> Option<(u64, u64)> {
        let number = self.acknowledged + 1;
        if number > through.min(self.last) {
            return None;
        }
        let reference = self.by_number(number)?.reference;
        self.acknowledged = number;
        self.release();
        Some((number, reference))
    }

    /// The server refused `number`: takes the message out, unless the refusal is of an old number.
    /// Those after it are numbered, and are to be sent, anew.
    pub(super) fn refuse(&mut self, number: u64) -> Option<Own> {
        if self.stale > 0 {
            self.stale -= 1;
            return None;
        }
        if number <= self.acknowledged || number > self.sent {
            return None;
        }
        let own = self.queue.remove(self.position(number)?)?;
        self.bytes -= own.body.len();
        for later in self.queue.iter_mut().filter(|later| later.number > number) {
            later.number -= 1;
        }
        self.stale = self.sent - number;
        self.sent = number - 1;
        self.last -= 1;
        Some(own)
    }

    /// Whether refusals of old numbers are still to come.
    pub(super) fn expects_refusals(&self) -> bool {
        self.stale > 0
    }

    /// What `has_come` says of where a message went has come whole: of what the server had then,
    /// nothing is seen later.
    pub(super) fn catch_up(&mut self, has_come: impl Fn(&Addressee) -> bool) {
        let had = self.had;
        for own in self.queue.iter_mut().take_while(|own| own.number <= had) {
            own.out_of_sight |= has_come(&own.to);
        }
        self.release();
    }

    /// A room was left: what was said there need not be seen.
    pub(super) fn leave(&mut self, room: &str) {
        for own in &mut self.queue {
            own.out_of_sight |= matches!(&own.to, Addressee::Room(to) if to == room);
        }
        self.release();
    }

    /// What was received is forgotten: nothing was seen.
    pub(super) fn forget(&mut self) {
        self.seen = 0;
    }

    /// The last number given.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// What is not acknowledged, in order.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = &Own> {
        self.queue.iter().filter(|own| own.number > self.acknowledged)
    }

    /// How many are not acknowledged.
    pub(super) fn unacknowledged_count(&self) -> u64 {
        self.last - self.acknowledged
    }

    /// Bytes of all bodies that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages are kept.
    pub(super) fn kept(&self) -> usize {
        self.queue.len()
    }

    fn release(&mut self) {
        while let Some(front) = self.queue.front() {
            let seen = front.number <= self.seen || front.out_of_sight;
            if front.number > self.acknowledged || !seen {
                return;
            }
            self.bytes -= front.body.len();
            self.queue.pop_front();
        }
    }

    fn position(&self, number: u64) -> Option<usize> {
        let first = self.queue.front()?.number;
        let at = usize::try_from(number.checked_sub(first)?).ok()?;
        (at < self.queue.len()).then_some(at)
    }

    fn by_number(&self, number: u64) -> Option<&Own> {
        self.queue.get(self.position(number)?)
    }

    pub(super) fn check(&self) {
        for (number, own) in (1..).map(|n| self.last + n - self.queue.len() as u64).zip(&self.queue)
        {
            assert_eq!(own.number, number, "numbers are without a gap");
        }
        assert!(self.acknowledged <= self.last && self.sent <= self.last && self.seen <= self.last);
        assert!(self.queue.len() as u64 >= self.unacknowledged_count(), "the unsafe is kept");
        assert_eq!(self.bytes, self.queue.iter().map(|own| own.body.len()).sum::<usize>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn said(count: u64) -> Outgoing {
        let mut outgoing = Outgoing::default();
        for number in 1..=count {
            let to = Addressee::Room("#all".into());
            outgoing.say(number, to, alloc::format!("body {number}"), 100 + number);
        }
        outgoing
    }

    fn send_all(outgoing: &mut Outgoing) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some(own) = outgoing.unsent() {
            sent.push(own.number);
            outgoing.mark_sent();
        }
        outgoing.check();
        sent
    }

    #[test]
    fn a_message_is_kept_until_it_is_acknowledged_and_seen() {
        let mut outgoing = said(2);
        assert_eq!(send_all(&mut outgoing), [1, 2]);
        outgoing.see(1);
        assert_eq!(outgoing.kept(), 2);
        assert_eq!(outgoing.acknowledge_next(2), Some((1, 101)));
        assert_eq!(outgoing.kept(), 1);
        assert_eq!(outgoing.acknowledge_next(2), Some((2, 102)));
        assert_eq!(outgoing.acknowledge_next(2), None);
        assert_eq!(outgoing.kept(), 1);
        outgoing.see(2);
        assert_eq!((outgoing.kept(), outgoing.bytes()), (0, 0));
        outgoing.check();
    }

    #[test]
    fn what_the_next_server_lacks_is_sent_again_with_the_same_numbers() {
        let mut outgoing = said(5);
        send_all(&mut outgoing);
        assert!(outgoing.acknowledge_next(1).is_some());
        outgoing.see(1);
        assert_eq!(outgoing.attach(3), Agreement::Good);
        assert_eq!(send_all(&mut outgoing), [2, 3, 4, 5], "2 and 3 are to be acknowledged");
        outgoing.acknowledge_next(5);
        assert_eq!(outgoing.attach(1), Agreement::Good);
        assert_eq!(
            send_all(&mut outgoing),
            [2, 3, 4, 5],
            "the server lacks 2, acknowledged or not"
        );
        assert_eq!(outgoing.attach(0), Agreement::Broken, "1 is not kept any more");
        assert_eq!(outgoing.attach(6), Agreement::Broken, "6 was never given");
        outgoing.number_anew();
        outgoing.check();
        assert_eq!(outgoing.attach(0), Agreement::Good);
        assert_eq!(send_all(&mut outgoing), [1, 2, 3], "what is not acknowledged");
    }

    #[test]
    fn a_refusal_gives_its_number_to_the_next() {
        let mut outgoing = said(4);
        send_all(&mut outgoing);
        assert_eq!(outgoing.refuse(2).map(|own| own.reference), Some(102));
        assert_eq!(send_all(&mut outgoing), [2, 3]);
        assert!(outgoing.refuse(3).is_none() && outgoing.refuse(4).is_none(), "old numbers");
        assert!(!outgoing.expects_refusals());
        assert_eq!(outgoing.refuse(3).map(|own| own.reference), Some(104));
        assert_eq!(outgoing.unacknowledged_count(), 2);
        outgoing.check();
    }

    #[test]
    fn what_a_server_had_and_did_not_show_is_not_waited_for() {
        let mut outgoing = said(3);
        outgoing.acknowledge_next(1);
        outgoing.acknowledge_next(2);
        assert_eq!(outgoing.attach(2), Agreement::Good);
        outgoing.catch_up(|_| false);
        assert_eq!(outgoing.kept(), 3);
        outgoing.catch_up(|_| true);
        assert_eq!(outgoing.kept(), 1, "the third is not there yet");
        outgoing.check();
    }

    #[test]
    fn what_was_said_in_a_room_that_was_left_need_not_be_seen() {
        let mut outgoing = said(1);
        send_all(&mut outgoing);
        outgoing.leave("#all");
        assert_eq!(outgoing.kept(), 1);
        outgoing.acknowledge_next(1);
        assert_eq!(outgoing.kept(), 0);
    }
}
