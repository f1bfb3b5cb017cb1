//! Cordee: three servers under one `cordee chat-server`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cordee_core::framing::{FRAME_BYTES_MAX, Frame, HEADER_BYTES, first_frame};
use cordee_core::ids::{OriginRef, SessionSecret};
use cordee_core::wire::chat::{Ack, Attach, CaughtUp, Failed, Intent, MemberState, Say};
use cordee_core::wire::entry::{Entry, Scope};
use cordee_core::wire::hello::{Bye, Hello, Magic, Role, Transport};
use cordee_core::wire::{Fixed64, Message, Seq, VERSION_MAJOR, VERSION_MINOR};
use cordee_net::observe::{Observer, ServerReport};

use crate::failure::{Context, Failure, Result, broken};
use crate::process::{Process, free_ports, loopback};
use crate::swarm::{Event, Line, Speaker};
use crate::system::{SERVERS, System};

/// A cluster is ended after so long, whatever happens.
const LIFE_MAX: Duration = Duration::from_secs(300);
/// For a cluster to come up, and for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Their cluster's name.
pub(crate) const CLUSTER: &str = "bench";
const ROOM: Scope<'static> = Scope::Room("#all");

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Says where the program is. The first call holds.
pub(crate) fn set_program(path: &Path) {
    PROGRAM.get_or_init(|| path.to_path_buf());
}

/// Three servers.
#[derive(Debug)]
pub(crate) struct Cordee {
    ports: Vec<u16>,
    pids: Vec<u32>,
    clients: u64,
    _process: Process,
}

impl System for Cordee {
    const NAME: &'static str = "cordee";
    type Speaker = CordeeSpeaker;

    fn start(_kept: bool) -> Result<Self> {
        let Some(program) = PROGRAM.get() else { return broken("no program") };
        let ports = free_ports(SERVERS as u16)?;
        let arguments = [
            "chat-server".to_string(),
            "-p".to_string(),
            ports[0].to_string(),
            "--servers".to_string(),
            SERVERS.to_string(),
            "--cluster".to_string(),
            CLUSTER.to_string(),
            "--limit".to_string(),
            "10000".to_string(),
        ];
        let process = Process::start(program, arguments, LIFE_MAX)?;
        let pids = await_links(&ports)?;
        Ok(Cordee { ports, pids, clients: 0, _process: process })
    }

    fn pids(&self) -> &[u32] {
        &self.pids
    }

    fn subscriber(&mut self, server: usize) -> Result<Line<CordeeSpeaker>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut talk = self.attach(server)?;
            match talk.await_frame(CaughtUp::KIND, |_| Ok(())) {
                Ok(()) => return Ok(talk.into_line()),
                // A server that has just linked takes nobody before it holds what the others do.
                Err(failure) if Instant::now() > end => return Err(failure),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn publisher(&mut self, server: usize) -> Result<Line<CordeeSpeaker>> {
        self.subscriber(server)
    }

    fn keeper(&mut self) -> Result<Line<CordeeSpeaker>> {
        // They are all equal.
        self.subscriber(0)
    }

    fn newcomer(&mut self, server: usize) -> Result<Line<CordeeSpeaker>> {
        Ok(self.attach(server)?.into_line())
    }

    fn kept(&mut self) -> Result<u64> {
        let rows = self.ports.iter().map(|port| Ok(report(*port)?.ma));
        let rows: Vec<u64> = rows.collect::<Result<_>>()?;
        Ok(rows.into_iter().min().unwrap_or(0))
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Cordee {
    /// The ports of the servers, in the order of the ring.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Asks to attach a session of its own; nothing is read yet.
    fn attach(&mut self, server: usize) -> Result<Talk> {
        self.clients += 1;
        let mut talk = Talk::begin(self.ports[server])?;
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&self.clients.to_be_bytes());
        let name = format!("u{}", self.clients);
        talk.send(&Attach {
            secret: SessionSecret(secret),
            process: Fixed64(self.clients),
            attachment: 1,
            intent: Intent::New,
            name: &name,
            reservation: Fixed64(0),
            hops: 0,
            author_number: 0,
            rooms: Seq::new(&[]),
            seen: Seq::new(&[]),
            partial: Seq::new(&[]),
        })?;
        Ok(talk)
    }
}

/// Asks the server on a port how it stands.
pub(crate) fn report(port: u16) -> Result<ServerReport> {
    let report = Observer::connect(&loopback(port).to_string(), CLUSTER, PATIENCE)
        .and_then(|mut observer| observer.report(PATIENCE));
    report.map_err(|error| Failure::Broken(format!("the server on port {port}: {error}")))
}

/// Whether a server is linked with `count` members, itself included.
pub(crate) fn is_linked(report: &ServerReport, count: usize) -> bool {
    let linked = report.members.iter().filter(|member| member.state == MemberState::Linked);
    linked.count() == count
}

/// Waits until all servers serve and are linked with all; their pids.
pub(crate) fn await_links(ports: &[u16]) -> Result<Vec<u32>> {
    let end = Instant::now() + PATIENCE;
    loop {
        let all: Vec<ServerReport> = ports.iter().filter_map(|port| report(*port).ok()).collect();
        if all.len() == ports.len() && all.iter().all(|server| is_linked(server, ports.len())) {
            return Ok(all.iter().map(|server| server.pid).collect());
        }
        if Instant::now() > end {
            return broken(format!("the servers of cordee do not link: {all:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A conversation before the load.
#[derive(Debug)]
struct Talk {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Talk {
    fn begin(port: u16) -> Result<Talk> {
        let stream = TcpStream::connect(loopback(port)).when("a server of cordee")?;
        stream.set_read_timeout(Some(PATIENCE)).when("a socket")?;
        stream.set_nodelay(true).when("a socket")?;
        let mut talk = Talk { stream, bytes: Vec::new() };
        talk.send(&Hello {
            magic: Magic,
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            role: Role::Client,
            transport: Transport::Plain,
            key_id: Fixed64(0),
            cluster: CLUSTER,
        })?;
        Ok(talk)
    }

    fn send<'a, M: Message<'a>>(&mut self, message: &M) -> Result<()> {
        let mut bytes = Vec::new();
        message.put_frame(&mut bytes);
        self.stream.write_all(&bytes).when("writing to cordee")
    }

    /// Reads up to the first frame of `kind`, and that.
    fn await_frame<T>(&mut self, kind: u8, mut take: impl FnMut(&[u8]) -> Result<T>) -> Result<T> {
        let mut piece = vec![0; 64 << 10];
        loop {
            let (mut passed, mut taken) = (0, None);
            while taken.is_none() {
                let rest = &self.bytes[passed..];
                let Ok(whole) = first_frame(rest, FRAME_BYTES_MAX) else {
                    return broken("a bad frame");
                };
                let Some(length) = whole else { break };
                let frame = Frame { kind: rest[4], payload: &rest[HEADER_BYTES..length] };
                refuse(&frame)?;
                if frame.kind == kind {
                    taken = Some(take(frame.payload)?);
                }
                passed += length;
            }
            self.bytes.drain(..passed);
            if let Some(taken) = taken {
                return Ok(taken);
            }
            let count = self.stream.read(&mut piece).when("reading from cordee")?;
            if count == 0 {
                return broken("a server of cordee closed a connection");
            }
            self.bytes.extend_from_slice(&piece[..count]);
        }
    }

    fn into_line(self) -> Line<CordeeSpeaker> {
        Line { stream: self.stream, early: self.bytes, speaker: CordeeSpeaker::default() }
    }
}

/// A refusal is the end of the measurement.
fn refuse(frame: &Frame<'_>) -> Result<()> {
    match frame.kind {
        Bye::KIND => broken(format!("cordee said goodbye: {:?}", Bye::parse(frame.payload))),
        Failed::KIND => broken(format!("cordee refused: {:?}", Failed::parse(frame.payload))),
        _ => Ok(()),
    }
}

/// A client of Cordee.
#[derive(Debug, Default)]
pub(crate) struct CordeeSpeaker {
    said: u64,
    /// By origin reference, the highest number heard, and how much of it was stated.
    seen: Vec<(u64, u64)>,
}

impl Speaker for CordeeSpeaker {
    #[inline]
    fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(usize, Event<'a>)>> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(payload) = rest.get(..length.wrapping_sub(1)) else { return Ok(None) };
        let event = if header[4] == Entry::KIND {
            let Some(entry) = Heard::of(payload) else { return broken("a bad entry") };
            self.saw(entry.origin, entry.number);
            Event::Message(entry.body)
        } else {
            self.other(header[4], payload)?
        };
        Ok(Some((length + 4, event)))
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.said += 1;
        let Ok(body) = std::str::from_utf8(payload) else { return };
        // What was heard since the last message: the first origin's own is implied.
        let mut after = [(OriginRef(0), 0); SERVERS];
        let mut count = 0;
        for (at, (seen, stated)) in self.seen.iter_mut().enumerate().skip(1) {
            if *seen > *stated && count < after.len() {
                after[count] = (OriginRef(at as u32), *seen);
                count += 1;
                *stated = *seen;
            }
        }
        Say { number: self.said, scope: ROOM, after: Seq::new(&after[..count]), body }
            .put_frame(out);
    }
}

impl CordeeSpeaker {
    fn saw(&mut self, origin: usize, number: u64) {
        if self.seen.len() <= origin {
            self.seen.resize(origin + 1, (0, 0));
        }
        self.seen[origin].0 = number;
    }

    #[cold]
    fn other<'a>(&mut self, kind: u8, payload: &'a [u8]) -> Result<Event<'a>> {
        refuse(&Frame { kind, payload })?;
        Ok(match kind {
            Ack::KIND => match Ack::parse(payload) {
                Ok(ack) if ack.copies >= 2 => Event::Acknowledged(ack.indexes.len() as u64),
                other => return broken(format!("acknowledged too early: {other:?}")),
            },
            _ => Event::Other,
        })
    }
}

/// What the load looks at in an entry.
struct Heard<'a> {
    origin: usize,
    number: u64,
    body: &'a [u8],
}

impl<'a> Heard<'a> {
    /// Passes the fields up to the body, without validating what it does not use.
    #[inline]
    fn of(payload: &'a [u8]) -> Option<Heard<'a>> {
        let mut rest = payload;
        let origin = varint(&mut rest)? as usize;
        let number = varint(&mut rest)?;
        // Clock, author: 8 and 16 bytes.
        pass(&mut rest, 24)?;
        let _author_number = varint(&mut rest)?;
        let name = varint(&mut rest)?;
        pass(&mut rest, name as usize)?;
        let is_talk = pass(&mut rest, 1)?[0] == 1;
        pass(&mut rest, if is_talk { 16 } else { 0 })?;
        let scope = varint(&mut rest)?;
        pass(&mut rest, scope as usize)?;
        for _ in 0..2 * varint(&mut rest)? {
            varint(&mut rest)?;
        }
        let body = varint(&mut rest)?;
        Some(Heard { origin: origin.min(4_095), number, body: pass(&mut rest, body as usize)? })
    }
}

#[inline]
fn pass<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (passed, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(passed)
}

/// A number, by branches that a processor foresees: arithmetic without them would make the place of
/// each field wait for the value of the one before.
#[inline(always)]
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..10 {
        let byte = *rest.get(at)?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use cordee_core::ids::{AuthorId, Clock, SessionId, Tag};

    use super::*;

    #[test]
    fn what_is_heard_is_what_the_entry_says() {
        let after = [(OriginRef(1), 300), (OriginRef(2), 1 << 40)];
        for number in [1, 127, 128, 16_383, 16_384, 1 << 21, 1 << 35, (1 << 48) - 1] {
            for scope in [ROOM, Scope::talk(SessionId(7), SessionId(9), "other")] {
                let entry = Entry {
                    origin: OriginRef(number as u32 & 1_023),
                    number,
                    clock: Clock(u64::MAX),
                    author: AuthorId::default(),
                    author_number: number,
                    name: "someone",
                    scope,
                    after: Seq::new(&after),
                    body: "what was said",
                    tag: Tag::default(),
                    index: 1,
                    flags: 0,
                };
                let mut frame = Vec::new();
                entry.put_frame(&mut frame);
                let heard = Heard::of(&frame[HEADER_BYTES..]).expect("a whole entry");
                assert_eq!(heard.body, b"what was said");
                assert_eq!((heard.origin, heard.number), (number as usize & 1_023, number));
                assert!(Heard::of(&frame[HEADER_BYTES..60]).is_none());
            }
        }
    }
}
