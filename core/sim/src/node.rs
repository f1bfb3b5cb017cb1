//! One server: its machine, and what a driver keeps beside it.

use std::collections::{BTreeMap, BTreeSet};

use cordee_core::chat::server::{ChatServer, Config, Inlet, Outlets};
use cordee_core::ids::ConnId;
use cordee_core::time::Time;
use cordee_core::{Limits, Outbox, Wall};

use crate::draw::Draw;
use crate::world::Event;

/// When the world begins, on the wall: some time in 2026.
const WALL_US: u64 = 1_780_000_000_000_000;

/// What a server is started with, every time.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its address.
    pub address: String,
    /// Whom it looks for.
    pub peers: Vec<String>,
    /// Copies to be acknowledged.
    pub copies: u8,
    /// Whether a user may crash it.
    pub allow_kill: bool,
    /// How far its wall clock is ahead, in microseconds; behind when negative.
    pub ahead_us: i64,
    /// By how many millionths its wall clock is too fast.
    pub fast_ppm: i64,
    /// Whether its key for tags is the one of all others.
    pub shared_key: bool,
    /// What bounds it.
    pub limits: Limits,
}

/// One connection of a server: which end of which wire it is, and its read side.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) wire: usize,
    pub(crate) side: usize,
    /// `None` while what came is being handled.
    pub(crate) inlet: Option<Inlet>,
    pub(crate) paused: bool,
}

impl Line {
    pub(crate) fn new(wire: usize, side: usize, inlet: Inlet) -> Self {
        Line { wire, side, inlet: Some(inlet), paused: false }
    }
}

/// One server, running or not.
#[derive(Debug)]
pub struct Node {
    pub(crate) setup: Setup,
    /// How often it was started.
    pub(crate) starts: u64,
    pub(crate) machine: Option<ChatServer>,
    pub(crate) frozen: bool,
    /// It wants to stop, once what it sent is on its way.
    pub(crate) stopping: bool,
    /// What happened while it was frozen.
    pub(crate) deferred: Vec<Event>,
    pub(crate) outlets: Outlets,
    pub(crate) lines: BTreeMap<ConnId, Line>,
    pub(crate) out: Outbox<cordee_core::chat::server::Effect>,
    /// For when a timer is set.
    pub(crate) timer: Option<Time>,
    /// When its storage is done with what it has.
    pub(crate) persisted: Time,
    pub(crate) stalls_checked: Time,
    pub(crate) steps: u64,
    /// Its storage takes so many times as long as usual.
    pub(crate) storage_slow: u64,
    /// Its storage does nothing; what it was done with meanwhile.
    pub(crate) storage_stuck: bool,
    pub(crate) stored_meanwhile: Option<u64>,
    /// Connections of those that came in as newcomers.
    pub(crate) newcomers: BTreeSet<ConnId>,
    /// Whether it was seen to be active.
    pub(crate) was_active: bool,
    /// How many servers it was linked with when a story was last told of it.
    pub(crate) linked_then: usize,
}

impl Node {
    pub(crate) fn new(setup: Setup) -> Self {
        Node {
            setup,
            starts: 0,
            machine: None,
            frozen: false,
            stopping: false,
            deferred: Vec::new(),
            outlets: Outlets::new(),
            lines: BTreeMap::new(),
            out: Outbox::new(),
            timer: None,
            persisted: Time::ZERO,
            stalls_checked: Time::ZERO,
            steps: 0,
            storage_slow: 1,
            storage_stuck: false,
            stored_meanwhile: None,
            newcomers: BTreeSet::new(),
            was_active: false,
            linked_then: 0,
        }
    }

    /// Its machine, while it runs.
    #[must_use]
    pub fn machine(&self) -> Option<&ChatServer> {
        self.machine.as_ref()
    }

    /// What bounds it.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.setup.limits
    }

    /// What is queued for its connections outside the log takes so much memory.
    #[must_use]
    pub fn queued_memory_bytes(&self) -> usize {
        self.outlets.queued_memory_bytes()
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    pub(crate) fn wall(&self, now: Time) -> Wall {
        let drift = now.0 as i64 / 1_000_000 * self.setup.fast_ppm;
        Wall((WALL_US + now.0).saturating_add_signed(self.setup.ahead_us + drift))
    }

    pub(crate) fn start(&mut self, now: Time, cluster: &str, index: u64, draw: Draw) {
        assert!(self.machine.is_none(), "it runs already");
        self.starts += 1;
        let mut entropy = [0; 64];
        for (at, chunk) in entropy.chunks_mut(8).enumerate() {
            let bits = draw.bits("entropy", &[index, self.starts, at as u64]);
            chunk.copy_from_slice(&bits.to_be_bytes());
        }
        if self.setup.shared_key {
            entropy[32..].fill(7);
        }
        let config = Config {
            cluster: cluster.to_owned(),
            advertise: self.setup.address.clone(),
            peers: self.setup.peers.clone(),
            copies: self.setup.copies,
            allow_kill: self.setup.allow_kill,
            pid: index as u32,
            incarnation: 1,
            entropy,
            wall: self.wall(now),
            limits: self.setup.limits.clone(),
        };
        let seed = draw.bits("machine", &[index, self.starts]);
        self.machine = Some(ChatServer::new(config, seed, now));
        self.outlets = Outlets::new();
        self.lines.clear();
        self.out = Outbox::new();
        (self.frozen, self.stopping) = (false, false);
        self.deferred.clear();
        self.timer = None;
        self.persisted = now;
        self.stored_meanwhile = None;
        self.newcomers.clear();
        (self.was_active, self.linked_then) = (false, 0);
    }
}
