//! A plan is carried out: everything goes wrong for a while, then all is made good, and in the end
//! everyone must agree.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use cordee_core::Time;
use cordee_core::time::{MILLI_US, SECOND_US};
use cordee_core::wire::peer::ServerState;

use crate::client::Happened;
use crate::perform::{After, Who};
use crate::plan::{Fault, Plan};
use crate::rule::{Rule, Tally, holds};
use crate::world::{Counts, Options, World};

/// So long it may take until all agree, once everything is made good.
const AGREE_MS: u64 = 30_000;
/// After so long in calm everybody is in.
const CALM_MS: u64 = 10_000;
/// Entries that may be sent again besides a tenth of what was missing: those on their way when a
/// link was exchanged for another.
const RESENT_SLACK: u64 = 32;

/// What came of a plan.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Over every event: the same plan, the same hash.
    pub hash: u64,
    /// How much time passed in the world, in microseconds.
    pub virtual_us: u64,
    /// Messages that were said.
    pub said: usize,
    /// How much happened.
    pub counts: Counts,
    /// How often each rule was looked at.
    pub tally: Tally,
    /// How often each fault was done.
    pub faults: [u64; Fault::ALL.len()],
    /// What did not hold.
    pub failure: Option<Failure>,
    /// What happened, when it was asked for.
    pub story: Vec<(Time, String)>,
}

/// Something did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The code of the rule; `machine` for an invariant that a machine states itself.
    pub rule: String,
    /// When, in the world.
    pub at: Time,
    /// What was found.
    pub text: String,
    /// Where it was found: file and line.
    pub place: String,
}

/// A plan on its way.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) world: World,
    pub(crate) plan: Plan,
    pub(crate) who: Vec<Who>,
    pub(crate) after: Vec<(Time, After)>,
    pub(crate) arrived: usize,
    pub(crate) faults: [u64; Fault::ALL.len()],
}

/// Carries a plan out.
#[must_use]
pub fn run(plan: &Plan, tells: bool) -> Outcome {
    hear_panics();
    // Nobody is started yet: that can fail, too.
    let mut world = World::new(plan.seed, Options { started: 0, ..plan.options.clone() });
    world.options.started = plan.options.started;
    world.story = tells.then(Vec::new);
    let mut story = Story {
        world,
        plan: plan.clone(),
        who: Vec::new(),
        after: Vec::new(),
        arrived: 0,
        faults: [0; Fault::ALL.len()],
    };
    QUIET.set(true);
    let went = catch_unwind(AssertUnwindSafe(|| story.go()));
    QUIET.set(false);
    let at = story.world.now();
    let failure = went.err().map(|_| failure(at));
    Outcome {
        hash: story.world.hash(),
        virtual_us: at.0,
        said: story.world.history.said(),
        counts: story.world.counts,
        tally: story.world.history.tally.clone(),
        faults: story.faults,
        failure,
        story: story.tell(),
    }
}

impl Story {
    fn go(&mut self) {
        self.begin();
        let begun = self.world.now().0;
        for act in self.plan.acts.clone() {
            self.run_to(Time(begun + act.at_ms * MILLI_US));
            self.tend_names();
            self.look_around();
            self.perform(&act);
        }
        while let Some(last) = self.after.iter().map(|(at, _)| *at).max() {
            self.run_to(last);
        }
        self.make_good();
        self.conclude();
    }

    /// The servers link, and the first clients come in.
    fn begin(&mut self) {
        for node in 0..self.plan.options.servers {
            self.world.start(node);
        }
        self.world.wait(15_000, "all servers link", World::is_meshed);
        let (models, reals) = self.plan.clients;
        let servers = self.plan.options.servers;
        for at in 0..models {
            self.who.push(Who::Model(self.world.join_client(&format!("user{at}"), at % servers)));
        }
        for at in 0..reals {
            let name = format!("real{at}");
            self.who.push(Who::Real(self.world.join_real(&name, (models + at) % servers)));
        }
        self.world.run_ms(500);
    }

    /// Lets time pass, and ends what ends until then.
    fn run_to(&mut self, time: Time) {
        loop {
            let due = self.after.iter().enumerate().filter(|(_, (at, _))| *at <= time);
            let next = due.min_by_key(|(index, (at, _))| (*at, *index)).map(|(index, _)| index);
            let Some(index) = next else { break };
            let (at, what) = self.after.remove(index);
            self.world.run(at.since_us(self.world.now()));
            self.world.note(|| format!("  then: {what:?}"));
            self.end(what);
        }
        self.world.run(time.since_us(self.world.now()));
    }

    /// In calm everybody is in, and no two go by one name.
    fn look_around(&mut self) {
        if !self.world.is_calm(CALM_MS) || self.world.trims() {
            return;
        }
        let guests = self.world.guests();
        let limited = self.plan.is_limited();
        for guest in guests {
            let client = self.world.client(guest);
            let (name, since) = (client.name.clone(), self.world.out_for_us(guest));
            let excused = limited || client.lacks_name();
            let is_in = since < CALM_MS * MILLI_US || excused;
            holds!(self.world.history.tally, GetsIn, is_in, "{name} is out for {since} µs in calm");
        }
        let mut names = BTreeMap::new();
        for guest in self.world.guests() {
            let client = self.world.client(guest);
            if client.attached_at().is_some() && client.attached_us() >= SECOND_US {
                let name = client.name.to_lowercase();
                let before = names.insert(name, guest);
                let text = format!("{} and {before:?} are called alike in calm", client.name);
                holds!(self.world.history.tally, Names, before.is_none(), "{text}");
            }
        }
    }

    /// Everything that went wrong is made good, perhaps for a part of the servers alone: then the
    /// others never come back.
    fn make_good(&mut self) {
        self.world.options.latency_us = self.plan.options.latency_us;
        let core = self.plan.core.clone().filter(|core| {
            let works = |node: &usize| {
                let machine = self.world.server(*node).machine();
                machine.is_some_and(|machine| machine.state() == ServerState::Active)
            };
            core.iter().any(works)
        });
        let servers = 0..self.plan.options.servers;
        let gone = servers.filter(|node| core.as_ref().is_some_and(|core| !core.contains(node)));
        let gone: Vec<usize> = gone.collect();
        for node in &gone {
            self.world.bury(*node);
        }
        self.world.note(|| format!("everything is made good, but for {gone:?}"));
        let (before, resent) = (self.world.history.taken_in(), self.world.resent());
        self.world.heal_all();
        self.world.wait(AGREE_MS, "the servers link", World::is_meshed);
        if !gone.is_empty() {
            // Nobody hears them: an operator says that they will not return.
            self.world.run_ms(3_000);
            for node in gone {
                let address = self.world.server(node).setup.address.clone();
                let alive = self.world.alive();
                self.world.forget(alive[0], &address);
            }
        }
        self.agree();
        let resent = self.world.resent() - resent;
        if !self.world.trims() {
            // What was lacking anywhere then, and what has been written since.
            let missing = self.world.history.taken_in() - before;
            let most = missing + missing / 10 + RESENT_SLACK;
            let text = format!("{resent} entries were sent again where {missing} were missing");
            holds!(self.world.history.tally, Resent, resent <= most, "{text}");
        }
    }

    fn agree(&mut self) {
        self.wait("everyone has caught up", |world| {
            world.guests().iter().all(|client| world.client(*client).is_caught_up())
                && world.reals.iter().all(|real| real.server().is_some())
        });
        self.wait("everything is acknowledged", |world| {
            let acknowledged = |client: &usize| world.client(*client).unacknowledged() == 0;
            world.guests().iter().all(acknowledged)
                && world.reals.iter().all(|real| real.unacknowledged() == 0)
        });
        self.wait("the servers hold the same", World::is_converged);
    }

    /// Waits as [`World::wait`] does, and gives a name to whoever has none.
    fn wait(&mut self, what: &str, done: impl Fn(&World) -> bool) {
        let end = self.world.now() + AGREE_MS * MILLI_US;
        while !self.world.run_until(200, &done) && self.world.now() < end {
            self.tend_names();
        }
        self.world.wait(0, what, done);
    }

    /// Nothing is left to be done, and everyone agrees on everything.
    fn conclude(&mut self) {
        if self.plan.has_short_grace() {
            self.world.run_ms(2 * self.plan.options.limits.grace_us / MILLI_US + 2_000);
        } else {
            self.world.run_ms(2_000);
        }
        let (resent, pulls) = (self.world.resent(), self.world.pulls());
        self.world.run_ms(3_000);
        let silent = self.world.resent() == resent && self.world.pulls() == pulls;
        holds!(self.world.history.tally, Silent, silent, "repair goes on where nothing is missing");
        self.wait("everyone has caught up", |world| {
            world.guests().iter().all(|client| world.client(*client).is_caught_up())
        });
        if self.world.trims() {
            self.world.judge_trimmed();
            return;
        }
        self.world.judge();
        self.world.judge_reals();
        if self.plan.has_short_grace() {
            self.free_names();
        } else {
            self.nobody_left();
        }
    }

    /// Nobody was said to have left: the grace is longer than the world lasts.
    fn nobody_left(&mut self) {
        let history = &mut self.world.history;
        let departed = history
            .all_departures()
            .next()
            .map(|(client, name, _)| format!("client {client} was told that {name} left"));
        let text = departed.unwrap_or_default();
        holds!(history.tally, Grace, text.is_empty(), "{text}");
    }

    /// The name of somebody who is gone for good is free for another.
    fn free_names(&mut self) {
        let gone = self.who.iter().find_map(|who| match who {
            Who::Model(client) if self.world.client(*client).is_stopped() => {
                Some(self.world.client(*client).name.clone())
            }
            _ => None,
        });
        let taken = self.world.names();
        let Some(name) =
            gone.filter(|n| taken.iter().all(|t| t.to_lowercase() != n.to_lowercase()))
        else {
            return;
        };
        let listed =
            self.world.guests().iter().any(|g| self.world.client(*g).names().contains(&name));
        holds!(self.world.history.tally, Departed, !listed, "{name} is gone and is listed still");
        if self.plan.is_limited() {
            return;
        }
        let alive = self.world.alive();
        let heir = self.world.join_client(&name, alive[0]);
        self.world.run_ms(3_000);
        let client = self.world.client(heir);
        let got = client.attached_at().is_some() && client.name == name;
        holds!(self.world.history.tally, Freed, got, "{name} is free and not given");
    }

    /// The story by time, with what happened to the clients in between.
    fn tell(&mut self) -> Vec<(Time, String)> {
        let Some(mut lines) = self.world.story.take() else { return Vec::new() };
        for seat in &self.world.seats {
            let client = &seat.client;
            for (at, happened) in client.happened_at.iter().zip(&client.happened) {
                if !matches!(happened, Happened::Acked(..) | Happened::Done(_)) {
                    lines.push((*at, format!("    {}: {happened:?}", client.name)));
                }
            }
        }
        for real in &self.world.reals {
            let told = real.story.iter();
            lines.extend(told.map(|(at, line)| (*at, format!("    {}: {line}", real.name()))));
        }
        lines.sort_by_key(|(at, _)| *at);
        lines
    }
}

thread_local! {
    /// Whether panics on this thread are for [`run`] to hear, and the last of them.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static HEARD: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// From now on panics in a world are heard, not printed.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                return before(panic);
            }
            let text = text_of(panic.payload());
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            HEARD.set(Some((text, place)));
        }));
    });
}

/// What a panic says.
fn text_of(payload: &dyn std::any::Any) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("").to_owned()
}

/// What was heard last, and which rule it is of.
fn failure(at: Time) -> Failure {
    let (text, place) = HEARD.take().unwrap_or_default();
    let code = text.split_once(": ").map(|(code, _)| code);
    let known = code.and_then(|code| Rule::ALL.iter().find(|rule| rule.code() == code));
    let rule = match known {
        Some(rule) => rule.code(),
        None if place.contains("sim/src/client/") => Rule::Wire.code(),
        None if place.contains("sim/src") => Rule::Live.code(),
        None => Rule::Machine.code(),
    };
    Failure { rule: rule.to_owned(), at, text, place }
}
