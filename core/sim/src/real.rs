//! Clients that are the machine of `cordee-core`, driven as a driver of sockets drives them.
//!
//! The history that judges them is the one that judges the simulation's own clients.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cordee_core::chat::client::{
    ChatClient, ClientLimits, Command, Config, Effect, Event as Told, Input, LinkId, Message,
    Place, Target,
};
use cordee_core::framing::{Deframer, FRAME_BYTES_MAX, frames};
use cordee_core::ids::{AuthorId, SessionSecret};
use cordee_core::names::COMMON_ROOM;
use cordee_core::time::Time;
use cordee_core::wire::Reason;
use cordee_core::wire::entry::Scope;
use cordee_core::{Machine, Outbox, Span};

use crate::client::{Happened, Shown, scope_key};
use crate::rule::{Rule, holds};
use crate::world::{CLUSTER, End, Event, World, address};

/// A client and its connections.
#[derive(Debug)]
pub struct Real {
    pub(crate) client: ChatClient,
    out: Outbox<Effect>,
    name: String,
    author: AuthorId,
    /// The last number that this author gave.
    number: u64,
    links: BTreeMap<LinkId, Link>,
    timer: Option<Time>,
    /// What it was told to say: where, and what. A reference is a place in this list, from 1.
    said: Vec<(String, String)>,
    /// The references of what was acknowledged, in order.
    sent: Vec<u64>,
    /// What is neither acknowledged nor refused: references, and the numbers that they must have.
    open: VecDeque<(u64, u64)>,
    /// What was refused.
    refused: Vec<u64>,
    /// Whether its name was refused, and it waits for another.
    lacks_name: bool,
    /// Everything shown, in order.
    shown: Vec<Shown>,
    happened: Vec<Happened>,
    /// What it was told, when somebody wants to read it.
    pub(crate) story: Vec<(Time, String)>,
    /// How often each room was left.
    stays: BTreeMap<String, u64>,
    server: Option<String>,
    /// MA, MT and how many it held, as last told.
    status: Option<(u64, u64, u64)>,
    /// Errors, by the caller's reference.
    errors: Vec<(u64, &'static str)>,
}

#[derive(Debug)]
struct Link {
    /// The connection; none while it is being made.
    wire: Option<usize>,
    deframer: Deframer,
}

impl Real {
    /// Its name, as far as it knows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its name was refused, and it waits for another.
    #[must_use]
    pub fn lacks_name(&self) -> bool {
        self.lacks_name
    }

    /// How many messages are neither acknowledged nor refused.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.open.len()
    }

    /// The server that it says it is connected to.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// The references of what was acknowledged, in order.
    #[must_use]
    pub fn sent(&self) -> &[u64] {
        &self.sent
    }

    /// How many messages it was told to say.
    #[must_use]
    pub fn said(&self) -> u64 {
        self.said.len() as u64
    }

    /// The bodies shown of a scope, in order.
    #[must_use]
    pub fn bodies(&self, scope: &str) -> Vec<&str> {
        let shown = self.shown.iter().filter(|shown| shown.scope == scope);
        shown.map(|shown| shown.body.as_str()).collect()
    }

    /// MA, MT and how many it held, as last told.
    #[must_use]
    pub fn status(&self) -> Option<(u64, u64, u64)> {
        self.status
    }

    /// What failed: the caller's reference and the reason.
    #[must_use]
    pub fn errors(&self) -> &[(u64, &'static str)] {
        &self.errors
    }

    /// Whether it is in a room.
    #[must_use]
    pub fn is_in(&self, room: &str) -> bool {
        let last = self.happened.iter().rev().find_map(|happened| match happened {
            Happened::Joined(joined) if joined == room => Some(true),
            Happened::Left(left) if left == room => Some(false),
            _ => None,
        });
        room == COMMON_ROOM || last == Some(true)
    }

    /// What else happened, in order.
    #[must_use]
    pub fn happened(&self) -> &[Happened] {
        &self.happened
    }

    fn take_event(&mut self, event: &Told, out: &Outbox<Effect>) {
        let text = |span| text(out, span);
        match *event {
            Told::Message(message) => self.shown.push(self.show(&message, out)),
            Told::Sent { reference, id, index, copies, durable } => {
                assert_eq!(id.author, self.author, "{}: its own message", self.name);
                let next = self.open.pop_front();
                assert_eq!(
                    next,
                    Some((reference, id.number)),
                    "{}: {}: acknowledged out of order",
                    Rule::InOrder.code(),
                    self.name
                );
                self.sent.push(reference);
                self.happened.push(Happened::Acked(id.number, copies, durable, index));
            }
            Told::Connected { server, name, .. } => {
                let (server, name) = (text(server), text(name));
                assert!(self.server.is_none(), "{}: connected twice", self.name);
                self.happened.push(Happened::Attached(server.clone(), name.clone()));
                self.server = Some(server);
                self.name = name;
                self.lacks_name = false;
            }
            Told::Disconnected { server, why } => {
                assert_eq!(self.server.take(), Some(text(server)), "{}: of that server", self.name);
                self.happened.push(Happened::Ended(why));
            }
            Told::Arrived { name, room } => {
                self.happened.push(Happened::Arrived(text(name), text(room)));
            }
            Told::Departed { name, room } => {
                self.happened.push(Happened::Departed(text(name), text(room)));
            }
            Told::CaughtUp { room } => self.happened.push(Happened::CaughtUp(text(room))),
            Told::Joined { room, .. } => self.happened.push(Happened::Joined(text(room))),
            Told::Left { room, .. } => {
                *self.stays.entry(text(room)).or_default() += 1;
                self.happened.push(Happened::Left(text(room)));
            }
            Told::Renamed { from, to, own, why } => {
                if own {
                    self.name = text(to);
                }
                let why = why.unwrap_or(Reason::Unknown);
                self.happened.push(Happened::Renamed(text(from), text(to), why));
            }
            Told::Status { ma, mt, held, .. } => self.status = Some((ma, mt, held)),
            Told::Error { reference, reason, .. } => {
                self.errors.push((reference, reason.word()));
                self.lacks_name |= self.server.is_none()
                    && matches!(reason, Reason::NameTaken | Reason::NameInvalid);
                self.on_refused(reference, reason);
            }
            Told::Closed { why, .. } => panic!("{}: closed, {why:?}", self.name),
            _ => {}
        }
    }

    /// What was said is not taken: those after it have the numbers before theirs.
    fn on_refused(&mut self, reference: u64, reason: Reason) {
        let Some(at) = self.open.iter().position(|open| open.0 == reference) else { return };
        let number = self.open.remove(at).map_or(0, |open| open.1);
        self.open.range_mut(at..).for_each(|open| open.1 -= 1);
        self.number -= 1;
        self.refused.push(reference);
        self.happened.push(Happened::Refused(number, reason));
    }

    fn show(&self, message: &Message<Span>, out: &Outbox<Effect>) -> Shown {
        let scope = match message.place {
            Place::Room(room) => text(out, room),
            Place::Talk { session, .. } => {
                scope_key(&Scope::talk(self.client.session(), session, ""))
            }
        };
        let stay = self.stays.get(&scope).copied().unwrap_or(0);
        Shown {
            author: message.id.author,
            number: message.id.number,
            scope,
            name: text(out, message.from),
            body: text(out, message.body),
            replay: message.replay,
            own: message.own,
            stay,
            index: message.index,
            is_final: message.is_final,
        }
    }
}

/// An event as a line of a story; none for what every client is told of every other.
fn line_of(event: &Told, out: &Outbox<Effect>) -> Option<String> {
    let text = |span| text(out, span);
    Some(match *event {
        Told::Connected { server, name, .. } => format!("at {} as {}", text(server), text(name)),
        Told::Disconnected { server, why } => format!("lost {}: {why:?}", text(server)),
        Told::Reset { held } => format!("receives all anew, held {held}"),
        Told::CaughtUp { room } => format!("has caught up {}", text(room)),
        Told::Joined { room, .. } => format!("is in {}", text(room)),
        Told::Left { room, .. } => format!("has left {}", text(room)),
        Told::Renamed { from, to, own: true, .. } => {
            format!("is called {}, not {}", text(to), text(from))
        }
        Told::Status { ma, mt, held, .. } => format!("MA {ma}, MT {mt}, holds {held}"),
        Told::Error { reason, detail, .. } => format!("{reason:?} {}", text(detail)),
        _ => return None,
    })
}

fn text(out: &Outbox<Effect>, span: Span) -> String {
    std::str::from_utf8(out.bytes(span)).expect("text").to_owned()
}

impl World {
    /// A client that comes in at a server.
    pub fn join_real(&mut self, name: &str, node: usize) -> usize {
        let index = self.reals.len();
        let mut servers: Vec<String> = (0..self.options.servers).map(address).collect();
        servers.rotate_left(node);
        let identity = self.draw.bits("real", &[index as u64]);
        let mut secret = [1; 16];
        secret[..8].copy_from_slice(&identity.to_be_bytes());
        let config = Config {
            cluster: CLUSTER.to_owned(),
            servers,
            name: name.to_owned(),
            rooms: Vec::new(),
            secret: SessionSecret(secret),
            process: identity,
            attachment: 0,
            reset: false,
            limits: ClientLimits::default(),
        };
        let client = ChatClient::new(config, identity, self.now);
        let author = AuthorId { session: client.session(), process: identity };
        self.reals.push(Real {
            client,
            out: Outbox::new(),
            name: name.to_owned(),
            author,
            number: 0,
            links: BTreeMap::new(),
            timer: None,
            said: Vec::new(),
            sent: Vec::new(),
            open: VecDeque::new(),
            refused: Vec::new(),
            lacks_name: false,
            shown: Vec::new(),
            happened: Vec::new(),
            story: Vec::new(),
            stays: BTreeMap::new(),
            server: None,
            status: None,
            errors: Vec::new(),
        });
        self.settle_real(index);
        index
    }

    /// A client.
    #[must_use]
    pub fn real(&self, real: usize) -> &Real {
        &self.reals[real]
    }

    /// Says something in a room or to a user. Its number among all that the client said is its
    /// reference.
    pub fn say_real(&mut self, real: usize, to: &str, body: &str) -> u64 {
        let scope = match Target::parse(to) {
            Target::Room(room) => room,
            Target::User(name) => {
                let of = |real: &Real| real.client.session();
                let other = self.reals.iter().find(|real| real.name == name).map(of);
                scope_key(&Scope::talk(of(&self.reals[real]), other.expect("known"), ""))
            }
        };
        self.look_at_real(real);
        let held = &mut self.reals[real];
        held.number += 1;
        held.said.push((scope.clone(), body.to_owned()));
        let (number, author, reference) = (held.number, held.author, held.said());
        held.open.push_back((reference, number));
        self.history.on_say(REAL + real, author, number, &scope, body);
        let command = Command::Say { to: Target::parse(to), body: body.to_owned(), reference };
        self.command_real(real, command);
        reference
    }

    /// A cluster that lost messages for good gets what is not acknowledged from another author.
    fn follow_author(&mut self, index: usize) {
        let real = &mut self.reals[index];
        if real.author == real.client.author() {
            return;
        }
        real.author = real.client.author();
        let author = real.author;
        real.number = real.open.len() as u64;
        let mut unsent = Vec::new();
        for (number, open) in (1..).zip(&mut real.open) {
            open.1 = number;
            unsent.push(real.said[open.0 as usize - 1].clone());
        }
        for (number, (scope, body)) in (1..).zip(&unsent) {
            self.history.on_say(REAL + index, author, number, scope, body);
        }
    }

    /// Gives a client a command.
    pub fn command_real(&mut self, real: usize, command: Command) {
        let now = self.now;
        if matches!(command, Command::Name { .. }) {
            self.reals[real].lacks_name = false;
        }
        if command == Command::Reset {
            self.look_at_real(real);
            self.history.on_reset(REAL + real);
            self.reals[real].shown.clear();
        }
        self.input_real(real, now, Input::Command(command));
        self.settle_real(real);
    }

    /// Heals everything, waits at most `ms` milliseconds until all agree, and judges the clients:
    /// everything said is acknowledged once and in order, everything that is there was shown, and
    /// what they hold is what they may see.
    #[track_caller]
    pub fn heal_and_judge_reals(&mut self, ms: u64) {
        self.heal_all();
        self.wait(ms, "the servers link", World::is_meshed);
        self.wait(ms, "everything is acknowledged", |world| {
            world.reals.iter().all(|real| real.open.is_empty())
        });
        self.wait(ms, "the servers hold the same", World::is_converged);
        self.run_ms(2_000);
        self.judge();
        self.judge_reals();
    }

    /// Judges the clients in a world that was left in peace.
    #[track_caller]
    pub fn judge_reals(&mut self) {
        for real in 0..self.reals.len() {
            self.command_real(real, Command::Status { reference: 0 });
        }
        self.run_ms(500);
        let there: BTreeSet<(AuthorId, u64)> = self.history.must_be_there().collect();
        for real in &self.reals {
            let name = &real.name;
            let expected: BTreeSet<u64> = (1..=real.said()).collect();
            let answered = real.sent.iter().chain(&real.refused);
            assert!(
                real.sent.is_sorted() && answered.copied().collect::<BTreeSet<u64>>() == expected,
                "{}: {name}: of {} said {:?} were acknowledged and {:?} refused",
                Rule::InOrder.code(),
                real.said(),
                real.sent,
                real.refused
            );
            let shown: BTreeSet<(AuthorId, u64)> =
                real.shown.iter().map(|shown| (shown.author, shown.number)).collect();
            let may_see = |key: &&(AuthorId, u64)| {
                key.0.session != real.author.session
                    && self.history.scope_of(key).is_some_and(|scope| real.is_in(scope))
            };
            let missed: Vec<_> =
                there.iter().filter(may_see).filter(|key| !shown.contains(*key)).collect();
            let whole = missed.is_empty() || self.trims();
            holds!(
                self.history.tally,
                Kept,
                whole,
                "{name} was never shown {missed:?}\n{}",
                self.describe()
            );
            let (ma, mt, held) = real.status.unwrap_or_else(|| panic!("{name} is nowhere"));
            holds!(self.history.tally, Counts, ma == mt, "{name} is not up to date: {mt} of {ma}");
            if self.history.wiped() == 0 && !self.trims() {
                holds!(self.history.tally, OwnCount, held == ma, "{name} holds {held} of {ma}");
            }
        }
    }

    /// Nobody was told of anybody that he left.
    #[track_caller]
    pub fn assert_nobody_left(&self) {
        for index in 0..self.reals.len() {
            for other in &self.reals {
                let departures = self.history.departures(REAL + index, &other.name);
                assert_eq!(departures, 0, "{} never left", other.name);
            }
        }
    }

    fn input_real(&mut self, real: usize, now: Time, input: Input<'_>) {
        let real = &mut self.reals[real];
        real.client.handle_input(now, input, &mut real.out);
    }

    pub(crate) fn on_real_timer(&mut self, real: usize) {
        let now = self.now;
        let held = &mut self.reals[real];
        if held.timer == Some(now) {
            held.timer = None;
            held.client.handle_timeout(now, &mut held.out);
            let next = held.client.poll_timeout();
            assert!(next.is_none_or(|next| next > now), "a deadline fires or moves");
            self.settle_real(real);
        }
    }

    pub(crate) fn on_real_reach(&mut self, real: usize, link: LinkId, target: Option<usize>) {
        if !self.reals[real].links.contains_key(&link) {
            return;
        }
        let now = self.now;
        if let Some(target) = target.filter(|target| self.nodes[*target].is_up()) {
            let wire = self.connect(End::Real(real, link), target);
            if let Some(held) = self.reals[real].links.get_mut(&link) {
                held.wire = Some(wire);
            }
            self.input_real(real, now, Input::Opened { link });
        } else {
            self.reals[real].links.remove(&link);
            self.input_real(real, now, Input::Failed { link });
        }
        self.settle_real(real);
    }

    pub(crate) fn real_reads(&mut self, real: usize, link: LinkId, wire: usize, side: usize) {
        let now = self.now;
        let bytes = self.wires[wire].pipes[side].take();
        let over = self.wires[wire].pipes[side].is_over();
        if !bytes.is_empty() {
            self.wake_writer(wire, side);
            let Real { client, out, links, .. } = &mut self.reals[real];
            let Some(held) = links.get_mut(&link) else { return };
            client.handle_input(now, Input::Heard { link }, out);
            held.deframer.extend(&bytes);
            let whole = held.deframer.ready().expect("a server sends valid frames");
            for frame in frames(whole) {
                client.handle_input(now, Input::Frame { link, frame }, out);
            }
            let length = whole.len();
            held.deframer.consume(length);
        }
        if over && self.reals[real].links.remove(&link).is_some() {
            self.let_go(wire);
            self.input_real(real, now, Input::Closed { link });
        }
        self.settle_real(real);
    }

    /// The client's end of a connection is closed.
    fn let_go(&mut self, wire: usize) {
        self.wires[wire].ends[0] = End::Nobody;
        self.finish(wire, 0);
    }

    /// Does what a client wants, looks at what it was shown, and sets its timer.
    fn settle_real(&mut self, index: usize) {
        while !self.reals[index].out.is_empty() {
            self.reals[index].client.check();
            let out = std::mem::take(&mut self.reals[index].out);
            for effect in out.effects() {
                match effect {
                    Effect::Tell(event) => {
                        if self.story.is_some() {
                            let line = line_of(event, &out).map(|line| (self.now, line));
                            self.reals[index].story.extend(line);
                        }
                        self.reals[index].take_event(event, &out);
                    }
                    Effect::Send { link, bytes } => {
                        self.send_real(index, *link, out.bytes(*bytes));
                    }
                    Effect::Connect { link, address } => {
                        self.connect_real(index, *link, out.bytes(*address));
                    }
                    Effect::Close { link } => {
                        let link = self.reals[index].links.remove(link);
                        link.and_then(|link| link.wire).into_iter().for_each(|w| self.let_go(w));
                    }
                }
            }
        }
        self.follow_author(index);
        self.look_at_real(index);
        let real = &mut self.reals[index];
        if let Some(at) = real.client.poll_timeout()
            && real.timer.is_none_or(|timer| at < timer)
        {
            let at = at.max(self.now);
            real.timer = Some(at);
            self.schedule(at, Event::RealTimer { real: index });
        }
    }

    fn connect_real(&mut self, real: usize, link: LinkId, address: &[u8]) {
        let target = self.nodes.iter().position(|n| n.setup.address.as_bytes() == address);
        let held = Link { wire: None, deframer: Deframer::new(FRAME_BYTES_MAX) };
        self.reals[real].links.insert(link, held);
        let at = self.now + self.options.latency_us.0;
        self.schedule(at, Event::RealReach { real, link, target });
    }

    fn send_real(&mut self, real: usize, link: LinkId, bytes: &[u8]) {
        let wire = self.reals[real].links.get(&link).and_then(|link| link.wire);
        // The stream may have ended behind what this answers.
        let Some(wire) = wire else { return };
        self.transmit(wire, 0, bytes);
        let drained = Input::Drained { link, bytes: bytes.len() as u32 };
        self.input_real(real, self.now, drained);
    }

    fn look_at_real(&mut self, real: usize) {
        let Real { author, shown, happened, server, .. } = &self.reals[real];
        let at = server.as_deref();
        let node = at.and_then(|at| self.nodes.iter().position(|n| n.setup.address == at));
        let archive = node.and_then(|node| self.nodes[node].machine()).map(|m| m.archive());
        let has = |(author, number): &(AuthorId, u64)| {
            archive.is_none_or(|archive| archive.has_row(author, *number))
        };
        let expected = self.expected();
        self.history.look(REAL + real, Some(*author), shown, happened, has, expected);
    }
}

/// Real clients are told apart from the simulation's own by this, in the history.
pub(crate) const REAL: usize = 1 << 20;
