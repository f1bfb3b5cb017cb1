//! The thread that owns the client: it waits for all sockets at once, reads, asks the machine,
//! and writes. Nothing that it does blocks, but that one wait.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cordee_core::chat::client::{self as core, Command, Config, Effect, Input, LinkId};
use cordee_core::framing::frames;
use cordee_core::{Machine, Outbox, Time};
use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::event::Event;
use super::link::{Link, Received, State};
use super::resolve::Resolver;
use super::translate::Translator;
use super::wake::{Batch, Shared, Waker};

/// The thread's state.
#[derive(Debug)]
pub(super) struct Hub {
    client: core::ChatClient,
    out: Outbox<Effect>,
    start: Instant,
    links: Vec<Link>,
    resolver: Resolver,
    commands: Receiver<Command>,
    /// Commands may be left that could be taken at once.
    more_commands: bool,
    told: Sender<Batch>,
    batch: Vec<Event>,
    batch_bytes: usize,
    translator: Translator,
    shared: Arc<Shared>,
    waker: Waker,
    /// Nothing is read, because events wait to be taken.
    paused: bool,
    buffer: Box<[u8]>,
    ready: Vec<Ready>,
}

/// What a wait found out about a connection.
#[derive(Clone, Copy, Debug)]
struct Ready {
    link: usize,
    flags: PollFlags,
}

impl Hub {
    pub(super) fn new(
        config: Config,
        seed: u64,
        commands: Receiver<Command>,
        told: Sender<Batch>,
        shared: Arc<Shared>,
        waker: Waker,
    ) -> Self {
        Hub {
            client: core::ChatClient::new(config, seed, Time::ZERO),
            out: Outbox::new(),
            start: Instant::now(),
            links: Vec::new(),
            resolver: Resolver::new(Arc::clone(&shared)),
            commands,
            more_commands: false,
            told,
            batch: Vec::new(),
            batch_bytes: 0,
            translator: Translator::default(),
            shared,
            waker,
            paused: false,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            ready: Vec::new(),
        }
    }

    /// Runs until the client has ended, and what it said last is sent.
    pub(super) fn run(mut self) {
        loop {
            if self.shared.is_stopped() {
                // What was given before the stop is to be told as not acknowledged.
                for _ in 0..super::COMMANDS_MAX {
                    let Ok(command) = self.commands.try_recv() else { break };
                    self.input(Input::Command(command));
                }
                self.input(Input::Stop);
            }
            self.take_commands();
            let now = self.now();
            self.client.handle_timeout(now, &mut self.out);
            self.settle();
            self.publish();
            if self.client.is_over() {
                break;
            }
            self.wait();
            self.serve();
        }
        // Whoever gives commands, or waits to, learns now that it is over.
        let Hub { mut links, mut buffer, commands, told, .. } = self;
        drop((commands, told));
        linger(&mut links, &mut buffer);
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn input(&mut self, input: Input<'_>) {
        let now = self.now();
        self.client.handle_input(now, input, &mut self.out);
    }

    /// Gives commands to the machine while it takes any, but not for ever.
    fn take_commands(&mut self) {
        self.more_commands = false;
        for _ in 0..COMMANDS_A_TURN {
            if !self.client.takes_commands() {
                return;
            }
            match self.commands.try_recv() {
                Ok(command) => self.input(Input::Command(command)),
                Err(_) => return,
            }
        }
        self.more_commands = true;
    }

    /// Does what the machine wants until it wants nothing more.
    fn settle(&mut self) {
        loop {
            self.apply();
            let failed = |link: &Link| matches!(link.state, State::Failed);
            if let Some(index) = self.links.iter().position(failed) {
                // The machine ignores the end of what it let go.
                let Link { id: link, opened, .. } = self.links.swap_remove(index);
                self.input(if opened { Input::Closed { link } } else { Input::Failed { link } });
            } else if !self.flush() && self.out.is_empty() {
                return;
            }
        }
    }

    fn apply(&mut self) {
        let mut out = mem::take(&mut self.out);
        out.drain(|effect, arena| match effect {
            Effect::Send { link, bytes } => {
                if let Some(link) = self.link_mut(link) {
                    link.queue(&arena[bytes.range()]);
                }
            }
            Effect::Tell(event) => {
                let me = self.client.session();
                let (event, bytes) = self.translator.translate(event, me, arena);
                self.batch.push(event);
                self.batch_bytes += bytes;
            }
            Effect::Connect { link, address } => self.connect(link, &arena[address.range()]),
            Effect::Close { link } => {
                if let Some(link) = self.link_mut(link) {
                    link.close();
                }
            }
        });
        self.out = out;
    }

    fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    fn connect(&mut self, id: LinkId, address: &[u8]) {
        let mut link = Link::new(id);
        let address = std::str::from_utf8(address).unwrap_or_default();
        if let Some(addresses) = self.resolver.resolve(id, address) {
            link.connect(addresses.into());
        }
        self.links.push(link);
    }

    /// Sends what is queued. Returns whether the machine was told anything.
    fn flush(&mut self) -> bool {
        let now = self.now();
        let mut told = false;
        for link in &mut self.links {
            match link.flush() {
                Ok(0) => {}
                Ok(count) => {
                    let (link, bytes) = (link.id, u32::try_from(count).unwrap_or(u32::MAX));
                    self.client.handle_input(now, Input::Drained { link, bytes }, &mut self.out);
                    told = true;
                }
                Err(_) => {
                    link.state = State::Failed;
                    told = true;
                }
            }
            link.end_sending();
        }
        told
    }

    /// Hands the events over, and notes whether they are taken.
    fn publish(&mut self) {
        if !self.batch.is_empty() {
            let bytes = mem::take(&mut self.batch_bytes);
            self.shared.told(bytes);
            // Without somebody who takes events the client is about to be stopped.
            let _ = self.told.send(Batch { events: mem::take(&mut self.batch), bytes });
        }
        let behind = self.shared.is_behind();
        if behind != self.paused {
            self.paused = behind;
            self.input(Input::Paused(behind));
        }
    }

    /// Waits until a socket is ready, somebody wants something, or time is up.
    fn wait(&mut self) {
        let timeout = if self.more_commands { Some(Duration::ZERO) } else { self.timeout() };
        let timeout = timeout.map(timespec);
        let mut waited = Vec::with_capacity(1 + self.links.len());
        let mut indices = Vec::with_capacity(self.links.len());
        waited.push(PollFd::new(self.waker.stream(), PollFlags::IN));
        for (index, link) in self.links.iter().enumerate() {
            let flags = interest(link, self.paused);
            if let Some(socket) = link.socket().filter(|_| !flags.is_empty()) {
                waited.push(PollFd::new(socket, flags));
                indices.push(index);
            }
        }
        // An interrupted wait is a short one.
        let _ = poll(&mut waited, timeout.as_ref());
        let woken = !waited[0].revents().is_empty();
        let found = waited[1..].iter().zip(&indices);
        self.ready.clear();
        self.ready.extend(found.map(|(fd, link)| Ready { link: *link, flags: fd.revents() }));
        if woken {
            self.waker.reset(&self.shared);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.now();
        let machine = self.client.poll_timeout().map(|at| Duration::from_micros(at.since_us(now)));
        machine.into_iter().chain(self.links.iter().filter_map(closing_time)).min()
    }

    /// Looks at what is ready.
    fn serve(&mut self) {
        while let Some(resolved) = self.resolver.next() {
            if let Some(link) = self.link_mut(resolved.link) {
                link.connect(VecDeque::from(resolved.addresses));
            }
        }
        for ready in mem::take(&mut self.ready) {
            if !ready.flags.is_empty() {
                self.serve_link(ready);
            }
        }
        for link in &mut self.links {
            end_closing(link);
        }
    }

    fn serve_link(&mut self, Ready { link: index, flags }: Ready) {
        let link = &mut self.links[index];
        if flags.intersects(PollFlags::OUT) {
            link.unblock();
        }
        match link.state {
            State::Connecting(..) => {
                link.finish_connecting();
                if matches!(link.state, State::Open(_)) {
                    link.opened = true;
                    let link = link.id;
                    self.input(Input::Opened { link });
                }
            }
            State::Open(_) if flags.intersects(READABLE) => self.read(index),
            State::Closing(..) if flags.intersects(READABLE) => {
                if matches!(link.receive(&mut self.buffer), Received::End) {
                    link.state = State::Failed;
                }
            }
            _ => {}
        }
    }

    /// Reads once, and gives the machine all that is whole. What it wants done gathers meanwhile,
    /// so that a burst of messages is handed over in one piece.
    fn read(&mut self, index: usize) {
        let now = self.now();
        let link = &mut self.links[index];
        match link.receive(&mut self.buffer) {
            Received::Nothing => return,
            Received::End => {
                link.state = State::Failed;
                return;
            }
            Received::Bytes => {}
        }
        let id = link.id;
        self.client.handle_input(now, Input::Heard { link: id }, &mut self.out);
        let whole = link.deframer.ready().unwrap_or_default();
        for frame in frames(whole) {
            self.client.handle_input(now, Input::Frame { link: id, frame }, &mut self.out);
        }
        let taken = whole.len();
        link.deframer.consume(taken);
        if let Err(error) = link.deframer.ready() {
            self.client.handle_input(now, Input::Broken { link: id, error }, &mut self.out);
        }
    }
}

/// After the end: waits a moment for what was said last to arrive.
fn linger(links: &mut Vec<Link>, buffer: &mut [u8]) {
    loop {
        for link in links.iter_mut() {
            if link.flush().is_err() {
                link.state = State::Failed;
            }
            link.end_sending();
            end_closing(link);
        }
        links.retain(|link| matches!(link.state, State::Closing(..)));
        let Some(timeout) = links.iter().filter_map(closing_time).min() else { return };
        let mut waited: Vec<PollFd<'_>> = Vec::with_capacity(links.len());
        for link in links.iter() {
            waited.extend(link.socket().map(|socket| PollFd::new(socket, interest(link, false))));
        }
        let _ = poll(&mut waited, Some(&timespec(timeout)));
        for link in links.iter_mut() {
            link.unblock();
            if matches!(link.receive(buffer), Received::End) {
                link.state = State::Failed;
            }
        }
    }
}

/// What to wait for. Nothing at all means not to wait for the connection: even its end would be
/// reported again and again while nobody reads.
fn interest(link: &Link, paused: bool) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::OUT, link.waits_to_write());
    let reads = match link.state {
        State::Open(_) => !paused,
        State::Closing(..) => true,
        _ => false,
    };
    flags.set(PollFlags::IN, reads);
    flags
}

/// How long a connection that was let go still has.
fn closing_time(link: &Link) -> Option<Duration> {
    match link.state {
        State::Closing(_, until) => Some(until.saturating_duration_since(Instant::now())),
        _ => None,
    }
}

fn end_closing(link: &mut Link) {
    if closing_time(link).is_some_and(|left| left.is_zero()) {
        link.state = State::Failed;
    }
}

fn timespec(duration: Duration) -> Timespec {
    // Of a second that never comes, the longest wait that every system takes.
    let secs = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).min(86_400);
    Timespec { tv_sec: secs, tv_nsec: duration.subsec_nanos().into() }
}

const READABLE: PollFlags = PollFlags::IN.union(PollFlags::HUP).union(PollFlags::ERR);
/// The most that is read of a connection before others get their turn.
const READ_BYTES: usize = 256 << 10;
/// Commands that are taken before sockets get their turn.
const COMMANDS_A_TURN: usize = 256;
