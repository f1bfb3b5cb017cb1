//! A small machine that does what frames tell it, and notes what it was told.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use cordee_core::chat::server::{Config, DialId, Effect, Input, Source};
use cordee_core::framing::put_frame;
use cordee_core::ids::{ConnId, OriginRef, Position, ScopeRef};
use cordee_core::log::{Audience, Item};
use cordee_core::slab::Slab;
use cordee_core::wire::hello::Bye;
use cordee_core::wire::{Message, Reason};
use cordee_core::{Outbox, Time};

use crate::server::node::Node;
use crate::sync::{Arc, lock};

/// What a frame of this kind asks for.
pub(crate) mod ask {
    /// Send the frame back.
    pub(crate) const ECHO: u8 = 0x40;
    /// Publish the frame, for the scope in its first byte.
    pub(crate) const PUBLISH: u8 = 0x41;
    /// Follow the log from here on; the payload is the scopes to see.
    pub(crate) const FOLLOW: u8 = 0x42;
    /// Follow the log as a peer.
    pub(crate) const LINK: u8 = 0x43;
    /// Read this connection no more.
    pub(crate) const PAUSE: u8 = 0x44;
    /// Read all that are paused again.
    pub(crate) const UNPAUSE: u8 = 0x45;
    /// Persist the payload, and answer with the frame when it is.
    pub(crate) const PERSIST: u8 = 0x46;
    /// Dial the address in the payload.
    pub(crate) const DIAL: u8 = 0x47;
    /// Close this connection.
    pub(crate) const CLOSE: u8 = 0x48;
    /// Crash.
    pub(crate) const CRASH: u8 = 0x49;
    /// Panic.
    pub(crate) const PANIC: u8 = 0x4a;
    /// Nothing.
    pub(crate) const NOTE: u8 = 0x4b;
    /// Answer with the frame at a later time, in milliseconds in the first byte.
    pub(crate) const LATER: u8 = 0x4c;
}

/// What the machine was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    Accepted(ConnId),
    Dialled(ConnId),
    Frame(ConnId, u8, Vec<u8>),
    Broken(ConnId),
    MidFrame(ConnId, bool),
    Closed(ConnId),
    DialFailed,
    Drained(ConnId, u32),
    Stalled(ConnId),
    Drain,
}

/// The notes, to read from the test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<(Mutex<Vec<Seen>>, Condvar)>);

impl Notes {
    fn add(&self, seen: Seen) {
        lock(&self.0.0).push(seen);
        self.0.1.notify_all();
    }

    /// All so far.
    pub(crate) fn all(&self) -> Vec<Seen> {
        lock(&self.0.0).clone()
    }

    /// Waits until `found` finds what it looks for.
    pub(crate) fn wait<T>(&self, found: impl Fn(&[Seen]) -> Option<T>) -> T {
        let mut notes = lock(&self.0.0);
        loop {
            if let Some(found) = found(&notes) {
                return found;
            }
            let (after, waited) = crate::sync::wait_timeout(&self.0.1, notes, PATIENCE);
            notes = after;
            assert!(!waited.timed_out(), "it never came; there was {notes:?}");
        }
    }

    pub(crate) fn wait_for(&self, seen: &Seen) {
        self.wait(|notes| notes.contains(seen).then_some(()));
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) config: Config,
    notes: Notes,
    conns: Slab<Vec<ScopeRef>>,
    paused: Vec<ConnId>,
    next: u64,
    sequence: u64,
    unpersisted: Vec<(u64, ConnId, Vec<u8>)>,
    later: Vec<(Time, ConnId, Vec<u8>)>,
    dials: u64,
    /// Says nothing to a drain when set.
    pub(crate) stubborn: bool,
}

impl Script {
    pub(crate) fn new(config: Config, notes: Notes) -> Self {
        Script {
            config,
            notes,
            conns: Slab::new(),
            paused: Vec::new(),
            next: 0,
            sequence: 0,
            unpersisted: Vec::new(),
            later: Vec::new(),
            dials: 0,
            stubborn: false,
        }
    }

    fn on_frame(
        &mut self,
        now: Time,
        conn: ConnId,
        kind: u8,
        payload: &[u8],
        out: &mut Outbox<Effect>,
    ) {
        let mut frame = Vec::new();
        put_frame(&mut frame, kind, |out| out.extend_from_slice(payload));
        let bytes = out.encode(|out| out.extend_from_slice(&frame));
        let at = Position(self.next);
        match kind {
            ask::ECHO => out.push(Effect::Send { conn, bytes, notify: true }),
            ask::PUBLISH => {
                self.next += 1;
                let scope = ScopeRef(payload[0].into());
                let items = out.encode(|out| put_item(out, frame.len(), scope, at.0 + 1));
                out.push(Effect::Publish { frames: bytes, items });
            }
            ask::FOLLOW | ask::LINK => {
                let peer = kind == ask::LINK;
                out.push(Effect::Follow { conn, from: at, peer, mt: 0 });
                for scope in payload {
                    let scope = ScopeRef((*scope).into());
                    out.push(Effect::Show { conn, scope, at, mt: 0 });
                }
                out.push(Effect::SendAt { conn, at, bytes });
            }
            ask::PAUSE => {
                self.paused.push(conn);
                out.push(Effect::Pause { conn });
            }
            ask::UNPAUSE => {
                self.paused.drain(..).for_each(|conn| out.push(Effect::Unpause { conn }));
            }
            ask::PERSIST => {
                self.sequence += 1;
                self.unpersisted.push((self.sequence, conn, frame));
                out.push(Effect::Persist { sequence: self.sequence, bytes });
            }
            ask::DIAL => {
                self.dials += 1;
                let address = out.encode(|out| out.extend_from_slice(payload));
                out.push(Effect::Dial { dial: DialId(self.dials), address });
            }
            ask::CLOSE => self.close(conn, Reason::Goodbye, out),
            ask::CRASH => out.push(Effect::Crash),
            ask::PANIC => panic!("asked to"),
            ask::LATER => self.later.push((now + u64::from(payload[0]) * 1_000, conn, frame)),
            _ => {}
        }
    }

    fn close(&mut self, conn: ConnId, reason: Reason, out: &mut Outbox<Effect>) {
        let bye = Bye { reason, retry_ms: 0, next: "", detail: "" };
        let bytes = out.encode(|out| bye.put_frame(out));
        out.push(Effect::Send { conn, bytes, notify: false });
        out.push(Effect::Close { conn, reason });
        self.conns.remove(conn);
    }
}

fn put_item(out: &mut Vec<u8>, bytes: usize, scope: ScopeRef, number: u64) {
    let (bytes, origin) = (bytes as u32, OriginRef(0));
    Item { bytes, scope, origin, number, audience: Audience::All, row: true }.put(out);
}

impl Node for Script {
    fn accept(
        &mut self,
        _now: Time,
        _source: Source,
        out: &mut Outbox<Effect>,
    ) -> Result<ConnId, Reason> {
        if self.conns.len() >= self.config.limits.pending_max as usize {
            // The oldest makes room, and the newcomer takes its very place.
            let (oldest, _) = self.conns.iter().next().ok_or(Reason::Full)?;
            self.close(oldest, Reason::Displaced, out);
        }
        if self.conns.len() >= self.config.limits.connections_max as usize {
            return Err(Reason::TooManyConnections);
        }
        let conn = self.conns.insert(Vec::new());
        self.notes.add(Seen::Accepted(conn));
        Ok(conn)
    }

    fn dialled(&mut self, _now: Time, _dial: DialId, out: &mut Outbox<Effect>) -> Option<ConnId> {
        let conn = self.conns.insert(Vec::new());
        self.notes.add(Seen::Dialled(conn));
        let bytes = out.encode(|out| put_frame(out, ask::NOTE, |_| ()));
        out.push(Effect::Send { conn, bytes, notify: false });
        Some(conn)
    }

    fn handle_input(&mut self, now: Time, input: Input<'_>, out: &mut Outbox<Effect>) {
        let seen = match input {
            Input::Frame { conn, frame } => {
                assert!(self.conns.get(conn).is_some(), "frames of known connections only");
                self.on_frame(now, conn, frame.kind, frame.payload, out);
                Seen::Frame(conn, frame.kind, frame.payload.to_vec())
            }
            Input::Broken { conn, .. } => {
                self.close(conn, Reason::BadFrame, out);
                Seen::Broken(conn)
            }
            Input::MidFrame { conn, bytes } => Seen::MidFrame(conn, bytes > 0),
            Input::Closed { conn } => {
                self.conns.remove(conn).expect("closed once");
                Seen::Closed(conn)
            }
            Input::DialFailed { .. } => Seen::DialFailed,
            Input::Drained { conn, bytes } => Seen::Drained(conn, bytes),
            Input::Stalled { conn } => Seen::Stalled(conn),
            Input::Persisted { through, .. } => {
                for (_, conn, frame) in self.unpersisted.extract_if(.., |(s, _, _)| *s <= through) {
                    let bytes = out.encode(|out| out.extend_from_slice(&frame));
                    out.push(Effect::Send { conn, bytes, notify: false });
                }
                return;
            }
            Input::Drain => {
                if !self.stubborn {
                    let conns: Vec<_> = self.conns.iter().map(|(conn, _)| conn).collect();
                    conns.into_iter().for_each(|conn| self.close(conn, Reason::Draining, out));
                    out.push(Effect::Stopped);
                }
                Seen::Drain
            }
            Input::Wall(_) | Input::Lagged { .. } => return,
        };
        self.notes.add(seen);
    }

    fn handle_timeout(&mut self, now: Time, out: &mut Outbox<Effect>) {
        for (_, conn, frame) in self.later.extract_if(.., |(due, _, _)| *due <= now) {
            let bytes = out.encode(|out| out.extend_from_slice(&frame));
            out.push(Effect::Send { conn, bytes, notify: false });
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.later.iter().map(|(due, _, _)| *due).min()
    }
}

/// How long a test waits before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
