//! How a client is attached to a server, and goes on at the next.

use super::*;

/// For so long a reference that an entry used keeps its meaning at the least.
const REFERENCE_US: u64 = 10_000_000;

impl Client {
    pub(super) fn send_attach(&mut self) {
        (self.said_before, self.stale) = (self.last_number, 0);
        self.lacks_name = false;
        self.attachment += 1;
        let rooms: Vec<String> = self.rooms.iter().cloned().collect();
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let seen: Vec<(Origin, u64)> = self.seen.iter().map(|(o, n)| (*o, *n)).collect();
        let partial: Vec<(String, Vec<(Origin, u64)>)> = self
            .partial
            .iter()
            .map(|(room, seen)| (room.clone(), seen.iter().map(|(o, n)| (*o, *n)).collect()))
            .collect();
        let partial: Vec<Partial<'_>> =
            partial.iter().map(|(room, seen)| Partial { room, seen: Seq::new(seen) }).collect();
        let name = self.name.clone();
        let attach = Attach {
            secret: self.secret,
            process: Fixed64(self.process),
            attachment: self.attachment,
            intent: self.intent,
            name: &name,
            reservation: Fixed64(self.reservation),
            hops: self.hops,
            author_number: self.last_number,
            rooms: Seq::new(&rooms),
            seen: Seq::new(&seen),
            partial: Seq::new(&partial),
        };
        self.put(&attach);
        self.reservation = 0;
    }

    pub(super) fn leave_connection(&mut self) {
        if self.state == State::Attached {
            self.changed = self.now;
        }
        self.leaving.clear();
        self.actions.push_back(Action::Close);
        self.caught_up = false;
    }

    pub(super) fn lose(&mut self, now: Time, why: Reason) {
        let connecting = matches!(self.state, State::Connecting(_));
        if !connecting {
            self.tell(Happened::Ended(why));
        }
        self.leave_connection();
        self.server = self.next_server();
        self.failures += 1;
        let wait = if self.failures > self.known.len() as u32 { RETRY_US } else { 0 };
        self.state = State::Waiting(now + wait);
    }

    pub(super) fn next_server(&self) -> String {
        let after = self.known.range(self.server.clone()..).find(|other| **other != self.server);
        after.or_else(|| self.known.first()).cloned().unwrap_or_else(|| self.server.clone())
    }

    pub(super) fn go_to(&mut self, server: &str, wait_us: u64) {
        self.leave_connection();
        server.clone_into(&mut self.server);
        self.state = State::Waiting(self.now + wait_us);
    }

    pub(super) fn on_frame(&mut self, frame: Frame<'_>) {
        let payload = frame.payload;
        match frame.kind {
            Entry::KIND => self.on_entry(&parse::<Entry<'_>>(payload)),
            Welcome::KIND => {
                parse::<Welcome<'_>>(payload);
            }
            OriginDef::KIND => {
                let def: OriginDef = parse(payload);
                let index = def.reference.0 as usize;
                if self.refs.len() <= index {
                    self.refs.resize(index + 1, None);
                }
                let (known, used) = self.refs[index].unwrap_or((def.origin, self.now));
                assert!(
                    known == def.origin || self.now.since_us(used) > REFERENCE_US,
                    "{}: a reference keeps its meaning while it is used: {known:?} {def:?}",
                    self.name,
                );
                if known != def.origin {
                    self.given_up.insert(known);
                }
                self.given_up.remove(&def.origin);
                self.refs[index] = Some((def.origin, used));
            }
            Pong::KIND => {}
            Bye::KIND => self.on_bye(&parse(payload)),
            Attached::KIND => self.on_attached(&parse(payload)),
            chat::Redirect::KIND => {
                let redirect: chat::Redirect<'_> = parse(payload);
                self.reservation = redirect.reservation.0;
                self.hops += 1;
                self.known.insert(redirect.address.to_owned());
                self.tell(Happened::Redirected(redirect.address.to_owned()));
                self.go_to(redirect.address, 0);
            }
            chat::Want::KIND => self.on_want(&parse(payload)),
            chat::Servers::KIND => {
                let servers: chat::Servers<'_> = parse(payload);
                for server in servers.servers {
                    self.known.insert(server.address.to_owned());
                }
            }
            _ => self.on_attached_frame(frame),
        }
    }

    pub(super) fn on_attached_frame(&mut self, frame: Frame<'_>) {
        let payload = frame.payload;
        match frame.kind {
            chat::CaughtUp::KIND => self.on_caught_up(parse::<chat::CaughtUp<'_>>(payload).room),
            chat::Ack::KIND => self.on_ack(&parse(payload)),
            chat::Failed::KIND => self.on_failed(&parse(payload)),
            chat::Stable::KIND => self.on_stable(&parse(payload)),
            chat::Done::KIND => {
                self.tell(Happened::Done(parse::<chat::Done>(payload).request));
            }
            chat::Joined::KIND => {
                let room = parse::<chat::Joined<'_>>(payload).room.to_owned();
                if self.rooms.insert(room.clone()) {
                    self.partial.insert(room.clone(), BTreeMap::new());
                }
                self.tell(Happened::Joined(room));
            }
            chat::Left::KIND => {
                let room = parse::<chat::Left<'_>>(payload).room.to_owned();
                self.rooms.remove(&room);
                self.leaving.remove(&room);
                self.partial.remove(&room);
                self.rows.remove(&room);
                *self.stays.entry(room.clone()).or_default() += 1;
                self.tell(Happened::Left(room));
            }
            chat::Status::KIND => {
                let status: chat::Status<'_> = parse(payload);
                assert!(status.mt.0 <= status.ma, "{}: MT ≤ MA: {status:?}", self.name);
                self.tell(Happened::Status(status.ma, status.mt.0));
            }
            chat::Page::KIND => self.on_page(&parse(payload)),
            _ => self.on_event(frame),
        }
    }

    pub(super) fn on_bye(&mut self, bye: &Bye<'_>) {
        self.tell(Happened::Ended(bye.reason));
        match bye.reason {
            Reason::Superseded | Reason::Goodbye => self.stop(),
            Reason::Full if bye.next.is_empty() => {
                self.hops = 0;
                let server = self.server.clone();
                self.go_to(&server, u64::from(bye.retry_ms) * 1_000);
            }
            Reason::Draining if !bye.next.is_empty() => self.go_to(bye.next, 0),
            Reason::Joining => {
                let next = self.next_server();
                self.go_to(&next, RETRY_US);
            }
            Reason::BadFrame | Reason::BadRequest | Reason::Unexpected | Reason::OutOfOrder => {
                panic!("{} was closed for what it sent: {bye:?}", self.name);
            }
            _ => {
                self.happened.pop();
                self.happened_at.pop();
                self.lose(self.now, bye.reason);
            }
        }
    }

    pub(super) fn on_attached(&mut self, attached: &Attached<'_>) {
        self.state = State::Attached;
        self.changed = self.now;
        self.failures = 0;
        self.hops = 0;
        assert!(self.session.is_none_or(|known| known == attached.session));
        self.session = Some(attached.session);
        attached.name.clone_into(&mut self.name);
        for (origin, number) in attached.cut {
            let maps = self.partial.values_mut().chain([&mut self.seen, &mut self.seen_any]);
            for seen in maps.chain([&mut self.told]) {
                if let Some(seen) = seen.get_mut(&origin) {
                    *seen = number.min(*seen);
                }
            }
            self.held.retain(|(held, n), _| *held != origin || *n <= number);
            for own in &mut self.queue {
                own.after.iter_mut().filter(|(o, _)| *o == origin).for_each(|pair| {
                    pair.1 = pair.1.min(number);
                });
            }
        }
        assert!(attached.mt <= attached.ma, "{}: MT ≤ MA at the attach: {attached:?}", self.name);
        let granted: BTreeSet<String> = attached.rooms.iter().map(str::to_owned).collect();
        assert!(granted.contains("#all"));
        self.rooms = granted;
        self.intent = Intent::Resume;
        self.has = attached.author_number;
        assert!(self.has <= self.last_number, "{}: numbers never given", self.name);
        self.tell(Happened::Attached(self.server.clone(), self.name.clone()));
        let first = self.has + 1;
        if self.queue.front().map_or(self.last_number + 1, |own| own.number) > first {
            return self.number_anew();
        }
        let open: Vec<u64> =
            self.queue.iter().filter(|own| !own.acked).map(|own| own.number).collect();
        open.into_iter().for_each(|number| self.send_own(number));
        self.settle();
    }

    /// The cluster lacks messages that are not kept any more: what is not acknowledged is said
    /// again by another author, numbered from 1.
    pub(super) fn number_anew(&mut self) {
        self.process = cordee_core::prng::mix(self.process);
        self.queue.retain(|own| !own.acked);
        let mut said = Vec::new();
        for (number, own) in (1..).zip(&mut self.queue) {
            (own.number, own.seen) = (number, false);
            said.push((number, own.scope.clone(), own.body.clone()));
        }
        self.last_number = self.queue.len() as u64;
        self.has = 0;
        self.tell(Happened::NumberedAnew(said));
        let server = self.server.clone();
        self.go_to(&server, 0);
    }

    pub(super) fn send_own(&mut self, number: u64) {
        let own = self.queue.iter().find(|own| own.number == number).expect("kept").clone();
        let reference = |origin: &Origin| {
            self.refs
                .iter()
                .position(|known| known.is_some_and(|(known, _)| known == *origin))
                .map(|at| OriginRef(at as u32))
        };
        // What the server had already needs no more than its number.
        let after: Vec<(OriginRef, u64)> = own
            .after
            .iter()
            .filter(|(origin, seen)| {
                *seen > 0 && number > self.has && !self.given_up.contains(origin)
            })
            .map(|(origin, number)| {
                let known = reference(origin);
                (known.unwrap_or_else(|| panic!("{}: {origin:?} is unknown", self.name)), *number)
            })
            .collect();
        let scope = parse_scope(&own.scope);
        let say = chat::Say { number, scope, after: Seq::new(&after), body: &own.body };
        let mut bytes = Vec::new();
        say.put_frame(&mut bytes);
        self.actions.push_back(Action::Send(bytes));
    }

    pub(super) fn on_want(&mut self, want: &chat::Want<'_>) {
        let mut back: Vec<(u64, Origin, u64)> = Vec::new();
        if !self.forgetful {
            for (origin, first, last) in want.ranges {
                for ((_, number), (clock, ..)) in self.held.range((origin, first)..=(origin, last))
                {
                    back.push((*clock, origin, *number));
                }
            }
        }
        back.sort_unstable();
        let count = back.len() as u64;
        for (_, origin, number) in back {
            let (_, bytes, tag) = self.held[&(origin, number)].clone();
            let entry = Portable::take(&mut Reader::new(&bytes)).expect("kept as it was built");
            self.put(&chat::Return { entry, tag });
        }
        self.tell(Happened::Wanted(count));
        self.put(&chat::Returned { count });
    }
}
