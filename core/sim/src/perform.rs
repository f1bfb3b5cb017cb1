//! How an act of a plan is done to a world.

use cordee_core::Time;
use cordee_core::chat::client::Command;
use cordee_core::framing::put_frame;
use cordee_core::time::MILLI_US;
use cordee_core::wire::Message;
use cordee_core::wire::hello::{Hello, Role};
use cordee_core::wire::peer::ServerState;

use crate::plan::{ARRIVALS_MAX, Act, Fault, Habit, What};
use crate::story::Story;
use crate::world::{Cut, RawId};

/// A client of a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// One of the simulation's own.
    Model(usize),
    /// One that is driven by the real machine.
    Real(usize),
}

/// What ends something that was begun for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum After {
    Thaw(usize),
    Heal(usize, usize),
    Hang(usize, usize),
    Release(usize),
    Read(usize),
    Storage(usize),
    Network,
    Start(usize),
    Crash(usize),
    HangUp(RawId),
}

impl Story {
    /// Does an act.
    pub(crate) fn perform(&mut self, act: &Act) {
        self.world.note(|| format!("  act {}: {:?}", act.number, act.what));
        let [whom, ..] = act.dice;
        let who = self.who[whom as usize % self.who.len()];
        match act.what {
            What::Talk => self.talk(act, who, 1 + act.dice[1] % 3, 1),
            What::Habit(habit) => self.do_habit(act, who, habit),
            What::Fault(fault) => {
                if self.fail(act, fault) {
                    self.faults[fault as usize] += 1;
                }
            }
        }
    }

    fn later(&mut self, ms: u64, what: After) {
        let at = Time(self.world.now().0 + ms * MILLI_US);
        self.after.push((at, what));
    }

    // People.

    fn talk(&mut self, act: &Act, who: Who, count: u64, bytes: usize) {
        for more in 0..count {
            let body = format!("{}.{more}{}", act.number, "x".repeat(bytes - 1));
            match who {
                Who::Model(client) => {
                    if !self.may_speak(client) {
                        return;
                    }
                    let rooms: Vec<String> =
                        self.world.client(client).speakable().into_iter().collect();
                    let room = &rooms[(act.dice[2] + more) as usize % rooms.len()];
                    self.world.say(client, room, &body);
                }
                Who::Real(real) => {
                    let rooms = ["#all", "#room0", "#room1", "#room2"];
                    let room = rooms[(act.dice[2] + more) as usize % rooms.len()];
                    let room = if self.world.real(real).is_in(room) { room } else { "#all" };
                    self.world.say_real(real, room, &body);
                }
            }
        }
    }

    /// Who was never attached does not know who it is; who has left says nothing.
    fn may_speak(&self, client: usize) -> bool {
        let client = self.world.client(client);
        client.author().is_some() && !client.is_stopped()
    }

    fn do_habit(&mut self, act: &Act, who: Who, habit: Habit) {
        let room = format!("#room{}", act.dice[1] % 3);
        match (habit, who) {
            (Habit::Flood, _) => self.talk(act, who, 50 + act.dice[1] % 150, 1),
            (Habit::Long, _) => self.talk(act, who, 1 + act.dice[1] % 40, 6_000),
            (Habit::Clash, _) => self.clash(act),
            (Habit::Arrive, _) => self.arrive(act, 1),
            (Habit::Rush, _) => self.arrive(act, 2 + act.dice[1] % 4),
            (_, Who::Model(client)) => self.do_model(act, client, habit, &room),
            (_, Who::Real(real)) => self.do_real(act, real, habit, room),
        }
    }

    fn do_model(&mut self, act: &Act, client: usize, habit: Habit, room: &str) {
        let leavers = self.leavers();
        let world = &mut self.world;
        let attached = world.client(client).attached_at().is_some();
        let stopped = world.client(client).is_stopped();
        match habit {
            Habit::Alone => {
                let others: Vec<usize> = (0..world.seats.len()).collect();
                let other = others[act.dice[1] as usize % others.len()];
                if self.may_speak(client) && self.may_speak(other) && client != other {
                    let talk = self.world.talk(client, other);
                    self.world.say(client, &talk, &format!("{} alone", act.number));
                }
            }
            Habit::Move if !stopped => world.move_on(client),
            Habit::Forgetful if attached => world.reset(client),
            Habit::Quit if attached && leavers => world.quit(client),
            Habit::Vanish if !stopped && leavers => world.vanish(client),
            _ if !attached => {}
            Habit::Join => world.join(client, room),
            Habit::Leave => world.leave(client, room),
            Habit::Ask => world.ask_status(client),
            Habit::Rename => world.rename(client, &format!("name{}", act.dice[1] % 8)),
            Habit::Topic => world.topic(client, "#all", &format!("topic {}", act.number)),
            Habit::Look if act.dice[1].is_multiple_of(2) => {
                world.ask_history(client, "#all", 1, 50)
            }
            Habit::Look => world.search(client, &format!("{}", act.dice[2] % 100)),
            Habit::Pester => {
                for _ in 0..10 + act.dice[1] % 100 {
                    world.ask_status(client);
                }
            }
            _ => {}
        }
    }

    /// Whether somebody may leave for good: some must stay to see it.
    fn leavers(&self) -> bool {
        self.who.iter().filter(|who| self.is_here(**who)).count() > 2
    }

    fn is_here(&self, who: Who) -> bool {
        match who {
            Who::Model(client) => !self.world.client(client).is_stopped(),
            Who::Real(_) => true,
        }
    }

    fn do_real(&mut self, act: &Act, real: usize, habit: Habit, room: String) {
        let command = match habit {
            Habit::Alone => {
                // Names are known for sure only where nobody takes others.
                let other = act.dice[1] as usize % self.world.reals.len();
                let renaming = [Habit::Rename, Habit::Clash, Habit::Arrive, Habit::Rush];
                let renamed = renaming.iter().any(|habit| self.plan.habits.contains(habit));
                if other != real && !renamed {
                    let name = self.world.reals[other].name().to_owned();
                    self.world.say_real(real, &name, &format!("{} alone", act.number));
                }
                return;
            }
            Habit::Join => Command::Join { room, reference: 0 },
            Habit::Leave => Command::Leave { room, reference: 0 },
            Habit::Ask => Command::Status { reference: 0 },
            Habit::Forgetful => Command::Reset,
            Habit::Rename => {
                Command::Name { name: format!("name{}", act.dice[1] % 8), reference: 0 }
            }
            Habit::Topic => Command::Topic {
                room: "#all".into(),
                topic: format!("topic {}", act.number),
                reference: 0,
            },
            _ => return,
        };
        self.world.command_real(real, command);
    }

    /// Several take the same name at once, however it is written.
    fn clash(&mut self, act: &Act) {
        for at in 0..3 {
            let who = self.who[(act.dice[1] as usize + at) % self.who.len()];
            let name = ["Star", "star", "STAR"][at];
            match who {
                Who::Model(client) if self.world.client(client).attached_at().is_some() => {
                    self.world.rename(client, name);
                }
                Who::Model(_) => {}
                Who::Real(real) => {
                    let command = Command::Name { name: name.into(), reference: 0 };
                    self.world.command_real(real, command);
                }
            }
        }
    }

    /// Newcomers at one server, some of them by a name that somebody may have.
    fn arrive(&mut self, act: &Act, count: u64) {
        for more in 0..count {
            if self.arrived >= ARRIVALS_MAX {
                return;
            }
            self.arrived += 1;
            let name = match act.dice[2] % 3 {
                0 => "Star".to_owned(),
                _ => format!("late{}", self.arrived),
            };
            let node = act.dice[0] as usize % self.plan.options.servers;
            let who =
                if (act.dice[1].wrapping_add(more)).is_multiple_of(2) && self.plan.clients.1 > 0 {
                    Who::Real(self.world.join_real(&name, node))
                } else {
                    Who::Model(self.world.join_client(&name, node))
                };
            self.who.push(who);
        }
    }

    // Faults.

    /// Does a fault, if it can be done now. Says whether it was.
    fn fail(&mut self, act: &Act, fault: Fault) -> bool {
        let servers = self.plan.options.servers;
        let [first, second, third] = act.dice;
        let a = first as usize % servers;
        let b = (a + 1 + second as usize % (servers - 1)) % servers;
        let ms = 100 + third % 4_000;
        match fault {
            Fault::Crash => {
                return self.others_remember(a) && {
                    self.world.crash(a);
                    true
                };
            }
            Fault::Restart => return self.restart(a),
            Fault::FalseStart => {
                if !self.restart(a) {
                    return false;
                }
                self.later(third % 200, After::Crash(a));
            }
            Fault::Freeze => {
                self.world.freeze(a);
                self.later(ms, After::Thaw(a));
            }
            Fault::Hang => self.world.cut(a, b, Cut::Stall),
            Fault::Refuse => self.world.cut(a, b, Cut::Reset),
            Fault::OneWay => self.world.deafen(a, b),
            Fault::Split => self.split(second, third, None),
            Fault::Bridge if servers > 2 => self.split(second, third, Some(a)),
            Fault::Bridge => return false,
            Fault::Swizzle => self.swizzle(act),
            Fault::Heal => self.world.heal(a, b),
            Fault::Drain => {
                if !self.others_remember(a) || self.world.server(a).frozen {
                    return false;
                }
                self.world.drain(a);
                self.later(2_000 + ms, After::Start(a));
            }
            Fault::Forget => {
                if self.world.server(a).is_up() || !self.remembers(b) {
                    return false;
                }
                let address = self.world.server(a).setup.address.clone();
                let raw = self.world.forget(b, &address);
                self.later(1_000, After::HangUp(raw));
            }
            Fault::Kill => return self.kill(act),
            Fault::SlowDisk => {
                self.world.set_storage(a, 100, false);
                self.later(ms, After::Storage(a));
            }
            Fault::StuckDisk => {
                self.world.set_storage(a, 1, true);
                self.later(ms, After::Storage(a));
            }
            Fault::ClockJump => {
                let by = (second % (4 * 3_600_000_000)) as i64 - 2 * 3_600_000_000;
                self.world.set_clock(a, by);
            }
            Fault::ClockDrift => {
                self.world.setup(a, |setup| setup.fast_ppm = (second % 20_000) as i64 - 10_000);
            }
            Fault::SlowNetwork => {
                self.world.options.latency_us = (20_000, 1 + second % 200_000);
                self.world.disturb();
                self.later(ms, After::Network);
            }
            Fault::Reset | Fault::Stall => return self.break_stream(act, fault, ms),
            Fault::HalfOpen | Fault::SlowReader => return self.trouble_client(first, fault, ms),
            Fault::Garbage | Fault::Nonsense | Fault::Loris | Fault::Crowd => {
                return self.intrude(act, a, fault);
            }
        }
        true
    }

    fn remembers(&self, node: usize) -> bool {
        let server = self.world.server(node);
        let active = server.machine().is_some_and(|m| m.state() == ServerState::Active);
        active && !server.frozen
    }

    /// Whether a server is up without which the cluster is still there: one that finds nobody
    /// founds another, to which what was said in this one is nothing.
    fn others_remember(&self, node: usize) -> bool {
        let others = (0..self.plan.options.servers).filter(|other| *other != node);
        self.world.server(node).is_up() && others.filter(|o| self.remembers(*o)).count() > 0
    }

    /// Starts a server that is down, `from` on. One that cannot be heard by any other would found a
    /// cluster of its own.
    fn restart(&mut self, from: usize) -> bool {
        let servers = self.plan.options.servers;
        let nodes = (0..servers).map(|at| (from + at) % servers);
        let mut down = nodes.filter(|node| !self.world.server(*node).is_up());
        let Some(down) = down.find(|n| !self.world.dead.contains(n)) else { return false };
        for other in 0..servers {
            self.world.heal(down, other);
        }
        self.world.start(down);
        true
    }

    fn split(&mut self, parts: u64, how: u64, bridge: Option<usize>) {
        let servers = self.plan.options.servers;
        let part = |node: usize| (parts >> node) & 1;
        for a in 0..servers {
            for b in a + 1..servers {
                if part(a) != part(b) && bridge != Some(a) && bridge != Some(b) {
                    self.world.cut(
                        a,
                        b,
                        if how.is_multiple_of(2) { Cut::Stall } else { Cut::Reset },
                    );
                }
            }
        }
        self.later(1_000 + how % 8_000, After::Network);
        for a in 0..servers {
            for b in a + 1..servers {
                self.later(1_000 + how % 8_000, After::Heal(a, b));
            }
        }
    }

    fn swizzle(&mut self, act: &Act) {
        let servers = self.plan.options.servers;
        let node = act.dice[0] as usize % servers;
        for other in (0..servers).filter(|other| *other != node) {
            let roll =
                |what: &str| self.world.draw().below(what, &[act.number, other as u64], 3_000);
            let (clog, unclog) = (roll("clog"), roll("unclog"));
            self.later(clog, After::Hang(node, other));
            self.later(3_000 + unclog, After::Heal(node, other));
        }
    }

    fn kill(&mut self, act: &Act) -> bool {
        let Who::Model(client) = self.who[act.dice[1] as usize % self.who.len()] else {
            return false;
        };
        let at = self.world.client(client).attached_at();
        let node = at.and_then(|at| {
            (0..self.plan.options.servers).find(|n| self.world.server(*n).setup.address == at)
        });
        let may = node.is_some_and(|node| self.others_remember(node));
        if may {
            self.world.kill_server(client);
        }
        may
    }

    fn break_stream(&mut self, act: &Act, fault: Fault, ms: u64) -> bool {
        let streams = self.world.streams();
        if streams.is_empty() {
            return false;
        }
        let wire = streams[act.dice[0] as usize % streams.len()];
        if fault == Fault::Stall {
            self.world.stall_stream(wire);
            self.later(ms, After::Release(wire));
        } else {
            let draw = self.world.draw();
            let number = act.number;
            self.world
                .reset_stream(wire, |side, flying| draw.below("kept", &[number, side], flying + 1));
        }
        true
    }

    fn trouble_client(&mut self, die: u64, fault: Fault, ms: u64) -> bool {
        let Who::Model(client) = self.who[die as usize % self.who.len()] else { return false };
        if self.world.client(client).attached_at().is_none() {
            return false;
        }
        if fault == Fault::HalfOpen {
            self.world.half_open(client);
        } else {
            self.world.set_reading(client, false);
            self.later(4 * ms, After::Read(client));
        }
        true
    }

    /// Somebody connects who means no good.
    fn intrude(&mut self, act: &Act, node: usize, fault: Fault) -> bool {
        if !self.world.server(node).is_up() {
            return false;
        }
        let draw = self.world.draw();
        let byte = |at: u64| draw.bits("byte", &[act.number, at]) as u8;
        let count = if fault == Fault::Crowd { 4 + act.dice[1] % 30 } else { 1 };
        for each in 0..count {
            let role = [Role::Client, Role::Peer, Role::Observer][act.dice[1] as usize % 3];
            let raw = match fault {
                Fault::Nonsense => self.world.open_as(node, role),
                _ => self.world.open(node),
            };
            match fault {
                Fault::Garbage => {
                    let bytes: Vec<u8> = (0..act.dice[2] % 400).map(byte).collect();
                    self.world.write(raw, &bytes);
                }
                Fault::Loris => self.world.write(raw, &[0, 0, 0, 40, Hello::KIND]),
                Fault::Nonsense => {
                    for frame in 0..1 + act.dice[2] % 4 {
                        let mut bytes = Vec::new();
                        let kind = byte(1_000 + frame);
                        let length = byte(2_000 + frame) % 60;
                        put_frame(&mut bytes, kind, |payload| {
                            payload.extend((0..u64::from(length)).map(|at| byte(frame * 100 + at)));
                        });
                        self.world.write(raw, &bytes);
                    }
                }
                _ => {}
            }
            self.later(500 + each + act.dice[2] % 8_000, After::HangUp(raw));
        }
        true
    }

    /// Ends what was begun for a while.
    pub(crate) fn end(&mut self, what: After) {
        match what {
            After::Thaw(node) => self.world.thaw(node),
            After::Heal(a, b) => self.world.heal(a, b),
            After::Hang(a, b) => self.world.cut(a, b, Cut::Stall),
            After::Release(wire) => self.world.release_stream(wire),
            After::Read(client) => self.world.set_reading(client, true),
            After::Storage(node) => self.world.set_storage(node, 1, false),
            After::Network => {
                self.world.options.latency_us = self.plan.options.latency_us;
                self.world.disturb();
            }
            After::Start(node) => {
                if !self.world.server(node).is_up() && !self.world.dead.contains(&node) {
                    (0..self.plan.options.servers).for_each(|other| self.world.heal(node, other));
                    self.world.start(node);
                }
            }
            After::Crash(node) => {
                if self.others_remember(node) {
                    self.world.crash(node);
                }
            }
            After::HangUp(raw) => self.world.hang_up(raw),
        }
    }

    /// Whoever waits for a name that is free takes another.
    pub(crate) fn tend_names(&mut self) {
        for index in 0..self.who.len() {
            let name = format!("other{index}x{}", self.world.now().0 / 1_000_000);
            match self.who[index] {
                Who::Model(client) if self.world.client(client).lacks_name() => {
                    self.world.try_name(client, &name);
                }
                Who::Real(real) if self.world.real(real).lacks_name() => {
                    let command = Command::Name { name, reference: 0 };
                    self.world.command_real(real, command);
                }
                _ => {}
            }
        }
    }
}
