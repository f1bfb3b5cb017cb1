//! The load: many connections, one thread, readiness. The same engine and the same work for every
//! system: bytes are read in big pieces and parsed where they lie, each message is checked for its
//! place among its publisher's, nothing is copied but the beginning of a frame that is not whole.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::failure::{Context, Failure, Result, broken};
use crate::payload::Stamp;

/// Bytes read at once, for all connections together.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes that a publisher may have written and the network not yet taken.
const UNSENT_BYTES_MAX: usize = 64 << 10;
/// After so long without any progress something was lost.
const STUCK: Duration = Duration::from_secs(20);

/// What a frame from a server means to the load.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A message of the load.
    Message(&'a [u8]),
    /// So many of the connection's own messages are safe.
    Acknowledged(u64),
    /// Write this back.
    Answer(&'static [u8]),
    /// Nothing to count.
    Other,
}

/// What a load does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It waits for the network, so long at the most.
    Wait(Duration),
    /// It is over.
    Done,
}

impl Step {
    /// Over once `done`, until then it waits for the network alone.
    pub(crate) fn done_when(done: bool) -> Step {
        if done { Step::Done } else { Step::Wait(Duration::from_millis(100)) }
    }
}

/// One connection's side of a protocol.
pub(crate) trait Speaker {
    /// The first frame of `bytes`: its length and its meaning; `None` when it is not whole.
    fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(usize, Event<'a>)>>;
    /// Appends what publishes `payload`.
    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>);
}

/// A connection that was introduced to its server.
#[derive(Debug)]
pub(crate) struct Line<S> {
    /// The connection, still blocking.
    pub(crate) stream: TcpStream,
    /// What came beyond the introduction.
    pub(crate) early: Vec<u8>,
    /// Its side of the protocol.
    pub(crate) speaker: S,
}

/// A connection under load.
#[derive(Debug)]
struct Member<S> {
    stream: TcpStream,
    speaker: S,
    /// The beginning of a frame.
    tail: Vec<u8>,
    out: Vec<u8>,
    waits_to_write: bool,
    /// Messages that it published.
    sent: u64,
    /// Of these, how many are safe.
    acknowledged: u64,
    /// By publisher, the sequence that comes next; empty for who counts nothing.
    next: Vec<u64>,
    heard: u64,
}

/// The index of a connection of the swarm.
pub(crate) type MemberId = usize;

/// All connections of a load.
pub(crate) struct Swarm<S> {
    poll: OwnedFd,
    ready: Vec<epoll::Event>,
    members: Vec<Member<S>>,
    buffer: Box<[u8]>,
    started: Instant,
    /// Microseconds from publishing to hearing, of each message; only when asked for.
    latencies_us: Option<Vec<u32>>,
    moved: Instant,
}

impl<S: Speaker> Swarm<S> {
    /// A swarm of nobody.
    pub(crate) fn new() -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).when("epoll")?;
        Ok(Swarm {
            poll,
            ready: Vec::with_capacity(256),
            members: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            started: Instant::now(),
            latencies_us: None,
            moved: Instant::now(),
        })
    }

    /// Takes a connection in. With `publishers` it counts what it hears from so many of them.
    pub(crate) fn add(&mut self, line: Line<S>, publishers: usize) -> Result<MemberId> {
        line.stream.set_nonblocking(true).when("a socket")?;
        line.stream.set_nodelay(true).when("a socket")?;
        let id = self.members.len();
        let data = epoll::EventData::new_u64(id as u64);
        epoll::add(&self.poll, &line.stream, data, epoll::EventFlags::IN).when("epoll")?;
        self.members.push(Member {
            stream: line.stream,
            speaker: line.speaker,
            tail: Vec::new(),
            out: Vec::new(),
            waits_to_write: false,
            sent: 0,
            acknowledged: 0,
            next: vec![0; publishers],
            heard: 0,
        });
        self.take(id, &line.early)?;
        Ok(id)
    }

    /// Measures latencies from now on; gives those measured so far.
    pub(crate) fn measure_latencies(&mut self) -> Vec<u32> {
        self.latencies_us.replace(Vec::new()).unwrap_or_default()
    }

    /// Messages that a member published.
    pub(crate) fn sent(&self, id: MemberId) -> u64 {
        self.members[id].sent
    }

    /// Of these, how many are safe.
    pub(crate) fn acknowledged(&self, id: MemberId) -> u64 {
        self.members[id].acknowledged
    }

    /// Messages that a member heard.
    pub(crate) fn heard(&self, id: MemberId) -> u64 {
        self.members[id].heard
    }

    /// The least number of messages that any of `ids` heard.
    pub(crate) fn heard_least(&self, ids: &[MemberId]) -> u64 {
        ids.iter().map(|id| self.members[*id].heard).min().unwrap_or(0)
    }

    /// Publishes up to `count` messages as `publisher`, fewer when the network takes no more.
    pub(crate) fn publish(
        &mut self,
        id: MemberId,
        publisher: u32,
        count: u64,
        payload: &mut [u8],
    ) -> Result<()> {
        let sent_us = self.now_us();
        let member = &mut self.members[id];
        for _ in 0..count {
            if member.out.len() >= UNSENT_BYTES_MAX {
                break;
            }
            Stamp { publisher, sequence: member.sent, sent_us }.put(payload);
            member.speaker.publish(payload, &mut member.out);
            member.sent += 1;
        }
        self.flush(id)
    }

    /// Lets `step` act, then waits for the network as long as it says, until it is done.
    pub(crate) fn run(&mut self, mut step: impl FnMut(&mut Self) -> Result<Step>) -> Result<()> {
        self.moved = Instant::now();
        while let Step::Wait(wait) = step(self)? {
            self.turn(wait)?;
            if self.moved.elapsed() > STUCK {
                return broken(format!("nothing came for {STUCK:?}: {}", self.state()));
            }
        }
        Ok(())
    }

    /// Takes what is there, without waiting.
    pub(crate) fn take_all(&mut self) -> Result<()> {
        self.turn(Duration::ZERO)
    }

    fn turn(&mut self, wait: Duration) -> Result<()> {
        let timeout =
            Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        let buffer = rustix::buffer::spare_capacity(&mut ready);
        match epoll::wait(&self.poll, buffer, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).when("epoll"),
        }
        let result = self.serve(&ready);
        self.ready = ready;
        result
    }

    /// Where everyone stands, for a failure.
    fn state(&self) -> String {
        let sent: u64 = self.members.iter().map(|member| member.sent).sum();
        let acknowledged: u64 = self.members.iter().map(|member| member.acknowledged).sum();
        let hearing = || self.members.iter().filter(|member| !member.next.is_empty());
        let least = hearing().map(|member| member.heard).min().unwrap_or(0);
        let most = hearing().map(|member| member.heard).max().unwrap_or(0);
        let behind = hearing().filter(|member| member.heard < most).count();
        format!(
            "{sent} sent, {acknowledged} acknowledged, {least} to {most} heard by {} ({behind} behind)",
            hearing().count()
        )
    }

    fn serve(&mut self, ready: &[epoll::Event]) -> Result<()> {
        for event in ready {
            let (id, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(epoll::EventFlags::OUT) {
                self.flush(id)?;
            }
            if flags.intersects(!epoll::EventFlags::OUT) {
                self.read(id)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, id: MemberId) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let member = &mut self.members[id];
        let tail = member.tail.len();
        buffer[..tail].copy_from_slice(&member.tail);
        let result = match member.stream.read(&mut buffer[tail..]) {
            Ok(0) => broken(format!("a server closed a connection: {}", self.state())),
            Ok(count) => self.take(id, &buffer[..tail + count]),
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(error).when("reading"),
        };
        self.buffer = buffer;
        result
    }

    /// Takes frames in; what is not whole is kept as the tail.
    fn take(&mut self, id: MemberId, bytes: &[u8]) -> Result<()> {
        let now_us = if self.latencies_us.is_some() { self.now_us() } else { 0 };
        let member = &mut self.members[id];
        let mut answer: Option<&[u8]> = None;
        let mut at = 0;
        while let Some((length, event)) = member.speaker.next(&bytes[at..])? {
            at += length;
            match event {
                Event::Message(payload) if !member.next.is_empty() => {
                    let stamp = member.check(payload)?;
                    if let Some(latencies) = &mut self.latencies_us {
                        latencies.push(now_us.saturating_sub(stamp.sent_us) as u32);
                    }
                }
                Event::Message(_) | Event::Other => {}
                Event::Acknowledged(count) => member.acknowledged += count,
                Event::Answer(bytes) => answer = Some(bytes),
            }
        }
        member.tail.clear();
        member.tail.extend_from_slice(&bytes[at..]);
        if at > 0 {
            self.moved = Instant::now();
        }
        if let Some(answer) = answer {
            member.out.extend_from_slice(answer);
            self.flush(id)?;
        }
        Ok(())
    }

    fn flush(&mut self, id: MemberId) -> Result<()> {
        let member = &mut self.members[id];
        let mut written = 0;
        while written < member.out.len() {
            match member.stream.write(&member.out[written..]) {
                Ok(count) => written += count,
                Err(error) if is_transient(&error) => break,
                Err(error) => return Err(error).when("writing"),
            }
        }
        member.out.drain(..written);
        let waits = !member.out.is_empty();
        if waits != member.waits_to_write {
            member.waits_to_write = waits;
            let flags = if waits {
                epoll::EventFlags::IN | epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            let data = epoll::EventData::new_u64(id as u64);
            epoll::modify(&self.poll, &member.stream, data, flags).when("epoll")?;
        }
        Ok(())
    }

    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

impl<S> Member<S> {
    /// Counts a message that came in its place; anything else is a failure of the server.
    fn check(&mut self, payload: &[u8]) -> Result<Stamp> {
        let stamp = Stamp::of(payload);
        let next = stamp.and_then(|stamp| self.next.get_mut(stamp.publisher as usize));
        match (stamp, next) {
            (Some(stamp), Some(next)) if *next == stamp.sequence => {
                *next += 1;
                self.heard += 1;
                Ok(stamp)
            }
            (stamp, next) => Err(Failure::Broken(format!(
                "lost, doubled or out of order: {stamp:?} instead of {next:?}"
            ))),
        }
    }
}

fn is_transient(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
