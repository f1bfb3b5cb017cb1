//! Messages: as they come, as they are kept, and as they are acknowledged.

use super::*;
use crate::rule::Rule;

impl Client {
    pub(super) fn on_entry(&mut self, entry: &Entry<'_>) {
        let origin = self.origin(entry.origin);
        self.refs[entry.origin.0 as usize] = Some((origin, self.now));
        let scope = scope_key(&entry.scope);
        let replay = entry.flags & flags::REPLAY != 0;
        assert!(
            scope.starts_with('@') || self.rooms.contains(&scope),
            "{}: not its room",
            self.name
        );
        if let Scope::Talk { low, high, .. } = entry.scope {
            let me = self.session.expect("attached");
            assert!(me == low || me == high, "{}: a talk of others", self.name);
        }
        let vector = match self.partial.get_mut(&scope) {
            Some(partial) => {
                assert!(replay, "{}: nothing of {scope} comes live before it caught up", self.name);
                partial
            }
            None => &mut self.seen,
        };
        let seen = vector.entry(origin).or_default();
        assert!(
            *seen < entry.number,
            "{}: {origin:?} {} comes after {seen} was seen",
            self.name,
            entry.number
        );
        *seen = entry.number;
        let any = self.seen_any.entry(origin).or_default();
        *any = entry.number.max(*any);
        let after: Vec<(Origin, u64)> =
            entry.after.iter().map(|(origin, number)| (self.origin(origin), number)).collect();
        self.keep(entry, origin, &after);
        let me = self.author();
        if Some(entry.author) == me {
            if let Some(own) = self.queue.iter_mut().find(|o| o.number == entry.author_number) {
                assert_eq!(own.body, entry.body, "its own message as it said it");
                own.seen = true;
            }
            self.settle();
        }
        assert!(entry.flags & flags::COPY == 0, "{}: a client is sent rows only", self.name);
        let row = (entry.author, entry.author_number);
        if !self.rows.entry(scope.clone()).or_default().insert(row) {
            return;
        }
        let stay = self.stays.get(&scope).copied().unwrap_or(0);
        self.shown.push(Shown {
            author: entry.author,
            number: entry.author_number,
            scope,
            name: entry.name.to_owned(),
            body: entry.body.to_owned(),
            replay,
            own: Some(entry.author) == me,
            stay,
            index: entry.index,
            is_final: entry.flags & flags::FINAL != 0,
        });
    }

    pub(super) fn keep(&mut self, entry: &Entry<'_>, origin: Origin, after: &[(Origin, u64)]) {
        if self.stable.get(&origin).is_some_and(|stable| entry.number <= *stable) {
            return;
        }
        let portable = Portable {
            origin,
            number: entry.number,
            clock: entry.clock,
            author: entry.author,
            author_number: entry.author_number,
            name: entry.name,
            scope: entry.scope,
            after: Seq::new(after),
            body: entry.body,
        };
        let mut bytes = Vec::new();
        portable.put(&mut bytes);
        self.held.insert((origin, entry.number), (entry.clock.0, bytes, entry.tag));
    }

    pub(super) fn origin(&self, reference: OriginRef) -> Origin {
        let known = self.refs.get(reference.0 as usize).copied().flatten();
        known.unwrap_or_else(|| panic!("{}: {reference:?} was not defined", self.name)).0
    }

    /// What the server had at the attach and is seen since is as good as acknowledged.
    pub(super) fn settle(&mut self) {
        let has = self.has;
        for own in &mut self.queue {
            own.acked |= own.seen && own.number <= has;
        }
        self.release();
    }

    pub(super) fn release(&mut self) {
        while self.queue.front().is_some_and(|own| own.acked && own.seen) {
            self.queue.pop_front();
        }
    }

    pub(super) fn on_ack(&mut self, ack: &chat::Ack<'_>) {
        for (number, index) in (ack.first..).zip(ack.indexes) {
            let before = self.queue.iter().find(|own| !own.acked).map(|own| own.number);
            if let Some(own) = self.queue.iter_mut().find(|own| own.number == number) {
                if !own.acked {
                    assert_eq!(
                        before,
                        Some(number),
                        "{}: {}: acknowledged out of order",
                        Rule::InOrder.code(),
                        self.name
                    );
                }
                own.acked = true;
            } else {
                assert!(number <= self.last_number, "{}: only what was said", self.name);
            }
            self.tell(Happened::Acked(number, ack.copies, ack.durable, index));
        }
        self.release();
    }

    pub(super) fn on_failed(&mut self, failed: &chat::Failed<'_>) {
        if failed.say {
            self.on_refused(failed.request, failed.reason);
        } else {
            self.lacks_name |= failed.request == 0 && self.state == State::Attaching;
            self.tell(Happened::Failed(failed.request, failed.reason));
        }
    }

    /// A message is not taken: those after it get the numbers before theirs and are sent again.
    pub(super) fn on_refused(&mut self, number: u64, reason: Reason) {
        if self.stale > 0 {
            assert_eq!(
                reason,
                Reason::OutOfOrder,
                "{}: {number} comes after a refused one",
                self.name
            );
            self.stale -= 1;
            return;
        }
        assert!(
            number > self.said_before,
            "{}: {number}, which others may have: {reason:?}",
            self.name
        );
        let at = self.queue.iter().position(|own| own.number == number).expect("it was said");
        self.queue.remove(at);
        self.queue.iter_mut().filter(|own| own.number > number).for_each(|own| own.number -= 1);
        self.stale = self.last_number - number;
        self.last_number -= 1;
        self.tell(Happened::Refused(number, reason));
        for again in number..=self.last_number {
            self.send_own(again);
        }
    }

    pub(super) fn on_stable(&mut self, stable: &chat::Stable<'_>) {
        for (reference, number) in stable.held {
            let origin = self.origin(reference);
            self.stable.insert(origin, number);
            self.held.retain(|(held, n), _| *held != origin || *n > number);
        }
    }

    pub(super) fn on_caught_up(&mut self, room: &str) {
        if room.is_empty() {
            self.caught_up = true;
        } else if let Some(partial) = self.partial.remove(room) {
            for (origin, number) in partial {
                let seen = self.seen.entry(origin).or_default();
                *seen = number.max(*seen);
            }
        }
        if self.caught_up {
            // What the server had and did not send was trimmed there.
            let (has, partial) = (self.has, &self.partial);
            let trimmed = self.queue.iter_mut().filter(|own| own.number <= has);
            trimmed.for_each(|own| own.seen |= !partial.contains_key(&own.scope));
            self.settle();
        }
        self.tell(Happened::CaughtUp(room.to_owned()));
    }
}
