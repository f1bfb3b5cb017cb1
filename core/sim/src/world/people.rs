//! The clients written for the simulation, in the world.

use super::*;

impl World {
    /// A client that comes in at a server.
    pub fn join_client(&mut self, name: &str, node: usize) -> usize {
        let index = self.seats.len();
        let mut servers: Vec<String> = (0..self.options.servers).map(address).collect();
        servers.rotate_left(node);
        let identity = self.draw.bits("client", &[index as u64]);
        let client = Client::new(name, identity, CLUSTER, &servers, self.now);
        let reads_since = self.now;
        self.seats.push(Seat {
            client,
            wire: None,
            attempt: 0,
            timer: None,
            reads: true,
            reads_since,
        });
        self.settle_client(index);
        index
    }

    /// Clients that come in at a server each, by name; waits until all have caught up.
    #[track_caller]
    pub fn join_clients(&mut self, clients: &[(&str, usize)]) -> Vec<usize> {
        let joined: Vec<usize> =
            clients.iter().map(|(name, node)| self.join_client(name, *node)).collect();
        let wanted = joined.clone();
        self.wait(5_000, "clients come in", |world| {
            wanted.iter().all(|client| world.client(*client).is_caught_up())
        });
        joined
    }

    /// Says something in a room, or in a talk (see [`talk`](Self::talk)).
    pub fn say(&mut self, client: usize, scope: &str, body: &str) -> u64 {
        let author = self.seats[client].client.author().expect("attached once");
        self.look(client);
        let number = self.seats[client].client.say(scope, body);
        self.history.on_say(client, author, number, scope, body);
        self.settle_client(client);
        number
    }

    /// The talk between two clients.
    #[must_use]
    pub fn talk(&self, a: usize, b: usize) -> String {
        let session = |client: usize| self.client(client).session().expect("attached once");
        crate::client::scope_key(&Scope::talk(session(a), session(b), ""))
    }

    /// Lets a client do something to itself.
    pub fn with_client<R>(&mut self, client: usize, act: impl FnOnce(&mut Client) -> R) -> R {
        let done = act(&mut self.seats[client].client);
        self.settle_client(client);
        done
    }

    /// A client joins a room.
    pub fn join(&mut self, client: usize, room: &str) {
        self.with_client(client, |c| c.request(|request| chat::Join { request, room }));
    }

    /// A client leaves a room.
    pub fn leave(&mut self, client: usize, room: &str) {
        self.with_client(client, |c| c.leave(room));
    }

    /// A client takes another name.
    pub fn rename(&mut self, client: usize, name: &str) {
        self.with_client(client, |c| c.request(|request| chat::SetName { request, name }));
    }

    /// A client whose name was refused tries another.
    pub fn try_name(&mut self, client: usize, name: &str) {
        self.with_client(client, |c| c.try_name(name));
    }

    /// A client sets a topic.
    pub fn topic(&mut self, client: usize, room: &str, topic: &str) {
        self.with_client(client, |c| c.request(|request| chat::SetTopic { request, room, topic }));
    }

    /// A client asks how it stands.
    pub fn ask_status(&mut self, client: usize) {
        self.with_client(client, |c| c.request(|request| chat::AskStatus { request }));
    }

    /// A client asks who is there.
    pub fn ask_users(&mut self, client: usize) {
        self.with_client(client, |c| c.request(|request| chat::AskUsers { request }));
    }

    /// A client asks which rooms there are.
    pub fn ask_rooms(&mut self, client: usize) {
        self.with_client(client, |c| c.request(|request| chat::AskRooms { request }));
    }

    /// A client asks for a page of a room or talk.
    pub fn ask_history(&mut self, client: usize, scope: &str, from: u64, count: u32) {
        self.with_client(client, |c| {
            let scope = parse_scope(scope);
            c.request(|request| chat::AskHistory { request, scope, from, count })
        });
    }

    /// A client looks for words.
    pub fn search(&mut self, client: usize, words: &str) {
        self.with_client(client, |c| c.request(|request| chat::Search { request, words }));
    }

    /// A client wants its server to crash.
    pub fn kill_server(&mut self, client: usize) {
        self.with_client(client, |c| c.request(|request| chat::KillServer { request }));
    }

    /// A client leaves for good.
    pub fn quit(&mut self, client: usize) {
        self.with_client(client, |c| c.put(&chat::Quit { reserved: 0 }));
    }

    /// A client vanishes: its connection breaks and it does not come back.
    pub fn vanish(&mut self, client: usize) {
        self.with_client(client, Client::stop);
    }

    /// A client's connection breaks; it goes on at the next server.
    pub fn move_on(&mut self, client: usize) {
        let now = self.now;
        self.with_client(client, |c| c.move_on(now));
    }

    /// A client forgets what it has and wants all of it anew.
    pub fn reset(&mut self, client: usize) {
        self.look(client);
        self.history.on_reset(client);
        let now = self.now;
        self.with_client(client, |c| c.reset(now));
    }

    /// A client stops reading, or reads again.
    pub fn set_reading(&mut self, client: usize, reads: bool) {
        self.seats[client].reads_since = self.now;
        self.seats[client].reads = reads;
        self.seats[client].client.asleep = !reads;
        if let (true, Some(wire)) = (reads, self.seats[client].wire) {
            self.client_reads(client, wire, 1);
        }
    }

    /// For how long a client has been without a server although it reads what it is told, in
    /// microseconds.
    pub(crate) fn out_for_us(&self, client: usize) -> u64 {
        let seat = &self.seats[client];
        let reads = if seat.reads { self.now.since_us(seat.reads_since) } else { 0 };
        seat.client.unattached_us().min(reads)
    }

    pub(super) fn on_client_timer(&mut self, client: usize) {
        let seat = &mut self.seats[client];
        if seat.timer == Some(self.now) {
            seat.timer = None;
            seat.client.on_time(self.now);
            self.settle_client(client);
        }
    }

    pub(super) fn on_client_reach(&mut self, client: usize, attempt: u64, target: Option<usize>) {
        if self.seats[client].attempt != attempt {
            return;
        }
        let Some(target) = target.filter(|target| self.nodes[*target].is_up()) else {
            let at = self.now + self.options.latency_us.0;
            return self.schedule(at, Event::ClientRefused { client, attempt });
        };
        let wire = self.connect(End::Client(client), target);
        self.seats[client].wire = Some(wire);
        let now = self.now;
        self.seats[client].client.on_connected(now);
        self.settle_client(client);
    }

    pub(crate) fn client_reads(&mut self, client: usize, wire: usize, side: usize) {
        if self.seats[client].wire != Some(wire) || !self.seats[client].reads {
            return;
        }
        let bytes = self.wires[wire].pipes[side].take();
        let over = self.wires[wire].pipes[side].is_over();
        if !bytes.is_empty() {
            let now = self.now;
            self.history.tally.saw(Rule::Wire);
            self.seats[client].client.on_bytes(now, &bytes);
            self.wake_writer(wire, side);
        }
        if over && self.seats[client].wire == Some(wire) {
            self.drop_client_wire(client);
            let now = self.now;
            self.seats[client].client.on_closed(now);
        }
        self.settle_client(client);
    }

    pub(crate) fn drop_client_wire(&mut self, client: usize) {
        if let Some(wire) = self.seats[client].wire.take() {
            // Who connects is at the first end.
            self.wires[wire].ends[0] = End::Nobody;
            self.finish(wire, 0);
        }
    }

    /// Does what a client wants, looks at what it was shown, and sets its timer.
    pub(super) fn settle_client(&mut self, client: usize) {
        while let Some(action) = self.seats[client].client.take_action() {
            match action {
                Action::Connect(address) => {
                    self.drop_client_wire(client);
                    self.seats[client].attempt += 1;
                    let attempt = self.seats[client].attempt;
                    let target = self.nodes.iter().position(|n| n.setup.address == address);
                    let at = self.now + self.options.latency_us.0;
                    self.schedule(at, Event::ClientReach { client, attempt, target });
                }
                Action::Send(bytes) => {
                    if let Some(wire) = self.seats[client].wire {
                        self.transmit(wire, 0, &bytes);
                    }
                }
                Action::Close => {
                    self.seats[client].attempt += 1;
                    self.drop_client_wire(client);
                }
            }
        }
        self.look(client);
        let seat = &mut self.seats[client];
        if let Some(at) = seat.client.next_time()
            && seat.timer.is_none_or(|timer| at < timer)
        {
            let at = at.max(self.now);
            seat.timer = Some(at);
            self.schedule(at, Event::ClientTimer { client });
        }
    }

    pub(super) fn look(&mut self, client: usize) {
        let seat = &self.seats[client].client;
        let at = seat.attached_at();
        let node = at.and_then(|at| self.nodes.iter().position(|n| n.setup.address == at));
        let archive = node.and_then(|node| self.nodes[node].machine()).map(|m| m.archive());
        let has = |(author, number): &(AuthorId, u64)| {
            archive.is_none_or(|archive| archive.has_row(author, *number))
        };
        let expected = self.expected();
        self.history.look(client, seat.author(), &seat.shown, &seat.happened, has, expected);
    }

    /// What can be expected of servers now: as many copies as wanted, as long as nothing went
    /// wrong.
    pub(crate) fn expected(&self) -> Expected {
        let servers = self.options.servers.min(self.options.started) as u8;
        let calm = self.disturbed.is_none();
        let copies = if calm { self.options.copies.min(servers) } else { 1 };
        Expected { trims: self.trims(), calm, copies }
    }
}
