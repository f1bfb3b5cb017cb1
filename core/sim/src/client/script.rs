//! What a script asks of a client, and what it looks at.

use super::*;

impl Client {
    /// Its author's id, once it was attached.
    #[must_use]
    pub fn author(&self) -> Option<AuthorId> {
        Some(AuthorId { session: self.session?, process: self.process })
    }

    /// Its session's public id, once it was attached.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Where it is attached.
    #[must_use]
    pub fn attached_at(&self) -> Option<&str> {
        (self.state == State::Attached).then_some(&self.server)
    }

    /// Whether it is attached and was sent all it lacked.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.state == State::Attached && self.caught_up && self.partial.is_empty()
    }

    /// For how long it has been without a server, in microseconds.
    #[must_use]
    pub fn unattached_us(&self) -> u64 {
        if self.state == State::Attached { 0 } else { self.now.since_us(self.changed) }
    }

    /// For how long it has been attached, in microseconds, as far as it looked at the time.
    #[must_use]
    pub fn attached_us(&self) -> u64 {
        if self.state == State::Attached { self.now.since_us(self.changed) } else { 0 }
    }

    /// Whether its name was refused, and it waits for another.
    #[must_use]
    pub fn lacks_name(&self) -> bool {
        self.lacks_name && self.state == State::Attaching
    }

    /// Whether it wants no connection any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// How many messages of its own are not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.queue.iter().filter(|own| !own.acked).count()
    }

    /// The last number it gave.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    /// How many rows it holds of the rooms it is in and of its talks.
    #[must_use]
    pub fn rows_held(&self) -> u64 {
        let mine = |scope: &&String| scope.starts_with('@') || self.rooms.contains(*scope);
        self.rows.iter().filter(|(scope, _)| mine(scope)).map(|(_, rows)| rows.len() as u64).sum()
    }

    /// What it holds of a room.
    #[must_use]
    pub fn rows_of(&self, scope: &str) -> BTreeSet<(AuthorId, u64)> {
        self.rows.get(scope).cloned().unwrap_or_default()
    }

    /// The rooms it is in.
    #[must_use]
    pub fn rooms(&self) -> &BTreeSet<String> {
        &self.rooms
    }

    /// The rooms in which it can say something: it is in them and is not leaving.
    #[must_use]
    pub fn speakable(&self) -> BTreeSet<String> {
        self.rooms.difference(&self.leaving).cloned().collect()
    }

    /// Who is there as far as it was told, sorted by name.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.roster.values().map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// The bodies shown of a scope, in order.
    #[must_use]
    pub fn bodies(&self, scope: &str) -> Vec<&str> {
        let shown = self.shown.iter().filter(|shown| shown.scope == scope);
        shown.map(|shown| shown.body.as_str()).collect()
    }

    /// What happened, with times in milliseconds and runs of acknowledgements in one line.
    #[must_use]
    pub fn story(&self) -> String {
        let mut story = String::new();
        let mut acked = 0;
        for (at, happened) in self.happened_at.iter().zip(&self.happened) {
            if matches!(happened, Happened::Acked(..)) {
                acked += 1;
                continue;
            }
            if acked > 0 {
                story += &format!("   {acked} acknowledged\n");
                acked = 0;
            }
            story += &format!("   {} ms: {happened:?}\n", at.0 / 1_000);
        }
        story
    }

    /// Messages that it could hand back.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (AuthorId, u64)> {
        self.held.values().map(|(_, bytes, _)| {
            let entry = Portable::take(&mut Reader::new(bytes)).expect("kept as it was built");
            (entry.author, entry.author_number)
        })
    }

    pub(crate) fn say(&mut self, scope: &str, body: &str) -> u64 {
        self.last_number += 1;
        let told = &mut self.told;
        let news = self.seen_any.iter().filter(|(o, n)| told.get(o).is_none_or(|t| t < *n));
        let after: Vec<(Origin, u64)> = news.map(|(origin, number)| (*origin, *number)).collect();
        told.extend(after.iter().copied());
        let own = Own {
            number: self.last_number,
            scope: scope.to_owned(),
            body: body.to_owned(),
            after,
            seen: false,
            acked: false,
        };
        self.queue.push_back(own);
        if self.state == State::Attached {
            self.send_own(self.last_number);
        }
        self.last_number
    }

    pub(crate) fn request<'a, M: Message<'a>>(&mut self, make: impl FnOnce(u64) -> M) -> u64 {
        self.request += 1;
        let message = make(self.request);
        self.put(&message);
        self.request
    }

    pub(crate) fn leave(&mut self, room: &str) {
        self.leaving.insert(room.to_owned());
        self.request(|request| chat::Leave { request, room });
    }

    pub(crate) fn put<'a, M: Message<'a>>(&mut self, message: &M) {
        let mut bytes = Vec::new();
        message.put_frame(&mut bytes);
        self.actions.push_back(Action::Send(bytes));
    }

    /// Forgets everything it was shown, and attaches for all of it.
    pub(crate) fn reset(&mut self, now: Time) {
        self.intent = Intent::Reset;
        self.seen.clear();
        self.seen_any.clear();
        self.told.clear();
        self.partial.clear();
        self.held.clear();
        self.rows.clear();
        self.shown.clear();
        // What it forgot it cannot name any more.
        self.queue.iter_mut().for_each(|own| own.after.clear());
        let server = self.server.clone();
        self.leave_connection();
        self.server = server;
        self.state = State::Waiting(now);
    }

    /// Takes another name to attach with, after one was refused.
    pub(crate) fn try_name(&mut self, name: &str) {
        self.wanted_name = name.to_owned();
        self.name = name.to_owned();
        if self.state == State::Attaching {
            self.send_attach();
        }
    }

    pub(crate) fn stop(&mut self) {
        self.leave_connection();
        self.state = State::Stopped;
    }

    /// Breaks its connection and goes on at the next server.
    pub(crate) fn move_on(&mut self, now: Time) {
        self.lose(now, Reason::Ended);
    }
}
