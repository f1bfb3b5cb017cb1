//! A whole server on real sockets, with a scripted machine in place of the real one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use cordee_core::framing::{HELLO_BYTES_MAX, frames, put_frame};
use cordee_core::ids::ConnId;
use cordee_core::wire::hello::Bye;
use cordee_core::wire::{Message, Reason};

use super::*;
use crate::sync::{Mutex, lock};
use script::{Notes, PATIENCE, Script, Seen, ask};

mod faults;
pub(super) mod script;

/// A server with a scripted machine.
pub(super) struct Rig {
    pub(super) server: RunningServer,
    pub(super) notes: Notes,
    pub(super) lines: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    pub(super) fn start() -> Self {
        Rig::with(|_| (), |_| ())
    }

    pub(super) fn with(
        configure: impl FnOnce(&mut ServerConfig),
        script: impl FnOnce(&mut Script),
    ) -> Self {
        let (notes, lines) = (Notes::default(), Arc::new(Mutex::new(Vec::new())));
        let mut config = ServerConfig::new("127.0.0.1:0".parse().expect("an address"), "test");
        let kept = Arc::clone(&lines);
        config.log = Log::new(move |_, line| lock(&kept).push(line.to_owned()));
        configure(&mut config);
        let noted = notes.clone();
        let server = start(config, move |config, _, _| {
            let mut machine = Script::new(config, noted);
            script(&mut machine);
            machine
        });
        Rig { server: server.expect("it starts"), notes, lines }
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.local_addr()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream.set_nodelay(true).expect("TCP");
        stream
    }

    pub(super) fn accepted(&self, count: usize) -> ConnId {
        self.notes.wait(|notes| {
            let accepted = |seen: &Seen| match seen {
                Seen::Accepted(conn) => Some(*conn),
                _ => None,
            };
            notes.iter().filter_map(accepted).nth(count - 1)
        })
    }
}

pub(super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, kind, |out| out.extend_from_slice(payload));
    bytes
}

pub(super) fn say(stream: &mut TcpStream, kind: u8, payload: &[u8]) {
    stream.write_all(&frame(kind, payload)).expect("the server reads");
}

/// The next frame; `None` at the end of the stream.
pub(super) fn hear(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut bytes = vec![0; 4];
    let read = stream.read(&mut bytes[..1]).expect("a frame or the end");
    if read == 0 {
        return None;
    }
    stream.read_exact(&mut bytes[1..]).expect("a length");
    let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    bytes.resize(4 + length as usize, 0);
    stream.read_exact(&mut bytes[4..]).expect("a whole frame");
    let frame = frames(&bytes).next().expect("a whole frame");
    Some((frame.kind, frame.payload.to_vec()))
}

pub(super) fn hear_bye(stream: &mut TcpStream) -> Reason {
    let (kind, payload) = hear(stream).expect("a last word");
    assert_eq!(kind, Bye::KIND);
    assert_eq!(hear(stream), None, "and nothing after it");
    Bye::parse(&payload).expect("valid").reason
}

/// What the machine saw of one connection, besides drained bytes.
fn of(notes: &[Seen], conn: ConnId) -> Vec<Seen> {
    let about = |seen: &&Seen| match seen {
        Seen::Frame(of, ..) | Seen::MidFrame(of, _) | Seen::Broken(of) | Seen::Closed(of) => {
            *of == conn
        }
        _ => false,
    };
    notes.iter().filter(about).cloned().collect()
}

#[test]
fn what_is_said_is_heard_by_those_who_follow_and_answered_to_the_one() {
    let rig = Rig::with(|config| config.pumps = 2, |_| ());
    let mut streams: Vec<_> = (0..5).map(|_| rig.connect()).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        say(stream, ask::FOLLOW, &[7, number as u8]);
        assert_eq!(hear(stream), Some((ask::FOLLOW, vec![7, number as u8])));
    }
    for payload in [b"\x07all", b"\x03one", b"\x07end"] {
        say(&mut streams[0], ask::PUBLISH, payload);
    }
    say(&mut streams[0], ask::LATER, &[1, b'!']);
    for (number, stream) in streams.iter_mut().enumerate() {
        assert_eq!(hear(stream), Some((ask::PUBLISH, b"\x07all".to_vec())));
        if number == 3 {
            assert_eq!(hear(stream), Some((ask::PUBLISH, b"\x03one".to_vec())));
        }
        assert_eq!(hear(stream), Some((ask::PUBLISH, b"\x07end".to_vec())));
    }
    assert_eq!(hear(&mut streams[0]), Some((ask::LATER, vec![1, b'!'])));
}

#[test]
fn frames_come_whole_however_they_are_cut_and_begun_ones_are_told_of() {
    let rig = Rig::start();
    let mut stream = rig.connect();
    let conn = rig.accepted(1);
    let mut bytes = frame(ask::NOTE, b"first");
    bytes.extend(frame(ask::NOTE, b""));
    for byte in &bytes {
        stream.write_all(&[*byte]).expect("the server reads");
    }
    let note = |payload: &[u8]| Seen::Frame(conn, ask::NOTE, payload.to_vec());
    rig.notes.wait_for(&note(b""));
    let seen = of(&rig.notes.all(), conn);
    let begun = [Seen::MidFrame(conn, true), Seen::MidFrame(conn, false)];
    assert!(seen.contains(&note(b"first")));
    // How the bytes came together is the network's: each frame was begun at most once.
    let news: Vec<_> = seen.iter().filter(|seen| matches!(seen, Seen::MidFrame(..))).collect();
    assert!(news.chunks(2).all(|pair| pair == [&begun[0], &begun[1]]), "{news:?}");
    assert!(news.len() <= 4, "{news:?}");
    // One frame whole and the next begun: that is told after it.
    let long = frame(ask::NOTE, &[5; 60_000]);
    stream.write_all(&long[..30_000]).expect("the server reads");
    // It is told again as more of it is held, in steps.
    rig.notes.wait(|notes| (of(notes, conn).last() == Some(&begun[0])).then_some(()));
    stream.write_all(&long[30_000..]).expect("the server reads");
    rig.notes.wait_for(&note(&[5; 60_000]));
    assert!(of(&rig.notes.all(), conn).ends_with(&[begun[1].clone(), note(&[5; 60_000])]));
}

#[test]
fn a_broken_stream_is_closed_with_a_reason_after_its_good_frames() {
    for (length, first) in [(0_u32, false), (u32::MAX, false), (HELLO_BYTES_MAX as u32, true)] {
        let rig = Rig::start();
        let mut stream = rig.connect();
        let mut bytes = if first { Vec::new() } else { frame(ask::ECHO, b"good") };
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.resize(bytes.len() + 5_000, 0);
        stream.write_all(&bytes).expect("the server reads");
        if !first {
            assert_eq!(hear(&mut stream), Some((ask::ECHO, b"good".to_vec())));
        }
        assert_eq!(hear_bye(&mut stream), Reason::BadFrame);
        rig.notes.wait_for(&Seen::Broken(rig.accepted(1)));
        assert!(!rig.notes.all().iter().any(|seen| matches!(seen, Seen::Closed(_))));
    }
}

#[test]
fn one_who_is_not_read_has_one_batch_in_the_queue_and_nobody_else_waits() {
    let rig = Rig::start();
    let mut flooder = rig.connect();
    let flooding = rig.accepted(1);
    let mut other = rig.connect();
    say(&mut flooder, ask::PAUSE, b"");
    rig.notes.wait_for(&Seen::Frame(flooding, ask::PAUSE, Vec::new()));
    // More than the reader's buffer takes, and less than the kernel's do.
    for number in 0..100_u8 {
        say(&mut flooder, ask::NOTE, &[number; 1_000]);
    }
    for number in 0..50 {
        say(&mut other, ask::ECHO, &[number]);
        assert_eq!(hear(&mut other), Some((ask::ECHO, vec![number])));
    }
    let seen = of(&rig.notes.all(), flooding);
    assert_eq!(seen, [Seen::Frame(flooding, ask::PAUSE, Vec::new())]);
    say(&mut other, ask::UNPAUSE, b"");
    rig.notes.wait_for(&Seen::Frame(flooding, ask::NOTE, vec![99; 1_000]));
    let notes = of(&rig.notes.all(), flooding);
    let frames: Vec<_> = notes
        .iter()
        .filter_map(|seen| match seen {
            Seen::Frame(_, ask::NOTE, payload) => Some(payload[0]),
            _ => None,
        })
        .collect();
    assert_eq!(frames, (0..100).collect::<Vec<_>>());
}

#[test]
fn one_who_ends_its_side_still_gets_its_answers() {
    let rig = Rig::start();
    let mut stream = rig.connect();
    say(&mut stream, ask::ECHO, &[1; 200]);
    say(&mut stream, ask::ECHO, &[2; 60_000]);
    stream.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(hear(&mut stream), Some((ask::ECHO, vec![1; 200])));
    assert_eq!(hear(&mut stream), Some((ask::ECHO, vec![2; 60_000])));
    assert_eq!(hear(&mut stream), None);
    rig.notes.wait_for(&Seen::Closed(rig.accepted(1)));
}

#[test]
fn who_is_refused_or_displaced_is_told_why() {
    let few = |config: &mut ServerConfig| {
        config.limits.connections_max = 1;
        config.limits.connections_reserved = 0;
    };
    let rig = Rig::with(few, |_| ());
    let mut first = rig.connect();
    rig.accepted(1);
    let mut second = rig.connect();
    say(&mut second, ask::NOTE, b"hello");
    assert_eq!(hear_bye(&mut second), Reason::TooManyConnections);
    say(&mut first, ask::ECHO, b"still here");
    assert_eq!(hear(&mut first), Some((ask::ECHO, b"still here".to_vec())));
    let lines = lock(&rig.lines).clone();
    assert!(lines.iter().any(|line| line.contains("too_many_connections")), "{lines:?}");

    let rig = Rig::with(|config| config.limits.pending_max = 1, |_| ());
    let mut first = rig.connect();
    let old = rig.accepted(1);
    let mut second = rig.connect();
    assert_eq!(hear_bye(&mut first), Reason::Displaced);
    let new = rig.accepted(2);
    assert_eq!((old.index, old.generation + 1), (new.index, new.generation));
    say(&mut second, ask::ECHO, b"in its place");
    assert_eq!(hear(&mut second), Some((ask::ECHO, b"in its place".to_vec())));
}

#[test]
fn a_dial_comes_from_the_servers_own_address_and_a_failed_one_is_told() {
    let listen = "127.0.0.2:0".parse().expect("an address");
    let rig = Rig::with(|config| config.listen = listen, |_| ());
    let mut stream = rig.connect();
    let member = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = member.local_addr().expect("bound").to_string();
    say(&mut stream, ask::DIAL, address.as_bytes());
    let (mut dialled, from) = member.accept().expect("it dials");
    assert_eq!(from.ip(), rig.server.local_addr().ip());
    assert_eq!(hear(&mut dialled), Some((ask::NOTE, Vec::new())));
    // What a member says first may be longer than a stranger's hello.
    say(&mut dialled, ask::ECHO, &[1; 9_000]);
    assert_eq!(hear(&mut dialled), Some((ask::ECHO, vec![1; 9_000])));
    drop(member);
    say(&mut stream, ask::DIAL, address.as_bytes());
    rig.notes.wait_for(&Seen::DialFailed);
    say(&mut stream, ask::DIAL, b"no address");
    let failed = |notes: &[Seen]| notes.iter().filter(|seen| **seen == Seen::DialFailed).count();
    rig.notes.wait(|notes| (failed(notes) == 2).then_some(()));
}

#[test]
fn peers_are_served_first() {
    let (notes, inbox) = (Notes::default(), Arc::new(Inbox::new(1 << 20)));
    let mut hub = hub::testing(&inbox, |config| Script::new(config, notes.clone()));
    let [client, peer] = [0, 1].map(|_| hub.connected());
    for (conn, is_peer) in [(client, false), (client, false), (peer, true)] {
        let bytes = frame(ask::NOTE, b"");
        let batch = inbox::Batch { conn, bytes, begun: 0, end: None };
        assert!(inbox.put_batch(batch, is_peer));
    }
    hub.one_round();
    let seen = [peer, client, client].map(|conn| Seen::Frame(conn, ask::NOTE, Vec::new()));
    assert!(notes.all().ends_with(&seen), "{:?}", notes.all());
}

/// Answers from another thread, when it is told to.
#[derive(Debug)]
struct DelayedStorage {
    given: u64,
    orders: crossbeam_channel::Receiver<()>,
    commits: crossbeam_channel::Sender<u64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Storage for DelayedStorage {
    fn start(&mut self, answer: PersistAnswer) -> u32 {
        let (commits, orders) = crossbeam_channel::unbounded();
        self.commits = commits;
        let allowed = self.orders.clone();
        self.thread = Some(std::thread::spawn(move || {
            for through in orders {
                if allowed.recv().is_err() {
                    return;
                }
                answer.persisted(Persisted { through, durable: true });
            }
        }));
        8
    }

    fn persist(&mut self, sequence: u64, _bytes: &[u8]) {
        self.given = sequence;
    }

    fn commit(&mut self) -> Option<Persisted> {
        self.commits.send(self.given).expect("the thread waits");
        None
    }
}

#[test]
fn what_waits_for_storage_comes_when_storage_says_so() {
    let (allow, orders) = crossbeam_channel::unbounded();
    let (commits, _) = crossbeam_channel::unbounded();
    let storage = DelayedStorage { given: 0, orders, commits, thread: None };
    let rig = Rig::with(
        |config| config.storage = Box::new(storage),
        |script| assert_eq!(script.config.incarnation, 8),
    );
    let mut stream = rig.connect();
    say(&mut stream, ask::PERSIST, b"kept");
    say(&mut stream, ask::ECHO, b"meanwhile");
    assert_eq!(hear(&mut stream), Some((ask::ECHO, b"meanwhile".to_vec())));
    allow.send(()).expect("storage waits");
    assert_eq!(hear(&mut stream), Some((ask::PERSIST, b"kept".to_vec())));
}

#[test]
fn memory_counts_as_persisted_at_once() {
    let rig = Rig::start();
    let mut stream = rig.connect();
    say(&mut stream, ask::PERSIST, b"kept");
    say(&mut stream, ask::ECHO, b"after");
    let heard = [hear(&mut stream), hear(&mut stream)];
    assert!(heard.contains(&Some((ask::PERSIST, b"kept".to_vec()))), "{heard:?}");
}

#[test]
fn a_reader_that_takes_nothing_is_told_of() {
    let rig = Rig::with(|config| config.limits.stall_us_max = 100_000, |_| ());
    let mut stream = rig.connect();
    let conn = rig.accepted(1);
    say(&mut stream, ask::FOLLOW, &[1]);
    assert_eq!(hear(&mut stream).map(|(kind, _)| kind), Some(ask::FOLLOW));
    let mut other = rig.connect();
    say(&mut other, ask::NOTE, b"hello");
    let rows = 1_000;
    for number in 0..rows {
        let mut payload = vec![1; 40_000];
        payload[1] = (number % 251) as u8;
        say(&mut other, ask::PUBLISH, &payload);
    }
    rig.notes.wait_for(&Seen::Stalled(conn));
    for number in 0..rows {
        let (kind, payload) = hear(&mut stream).expect("it goes on");
        assert_eq!((kind, payload[1]), (ask::PUBLISH, (number % 251) as u8));
    }
}

#[test]
fn a_stop_hands_clients_on_and_ends() {
    let rig = Rig::start();
    let mut streams: Vec<_> = (0..5).map(|_| rig.connect()).collect();
    rig.accepted(5);
    rig.server.stop();
    for stream in &mut streams {
        assert_eq!(hear_bye(stream), Reason::Draining);
    }
    let address = rig.server.local_addr();
    assert_eq!(rig.server.wait().expect("no thread died"), Ended::Stopped);
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let rig = Rig::with(|_| (), |script| script.stubborn = true);
    let mut stream = rig.connect();
    rig.accepted(1);
    rig.server.stop();
    rig.server.stopper().stop_within(Duration::from_millis(50));
    assert_eq!(hear(&mut stream), None);
    assert_eq!(rig.server.wait().expect("no thread died"), Ended::Stopped);
    let drains = rig.notes.all().iter().filter(|seen| **seen == Seen::Drain).count();
    assert_eq!(drains, 1);
}

#[test]
fn what_cannot_start_says_what_to_mend() {
    let rig = Rig::start();
    let said = |config| {
        let started = start(config, |config, _, _| Script::new(config, Notes::default()));
        started.expect_err("it cannot start").to_string()
    };
    let taken = said(ServerConfig::new(rig.server.local_addr(), "test"));
    assert!(taken.contains(&rig.server.local_addr().to_string()), "{taken}");
    assert!(taken.contains("-p"), "{taken}");
    let everywhere = said(ServerConfig::new("0.0.0.0:0".parse().expect("an address"), "test"));
    assert!(everywhere.contains("--advertise"), "{everywhere}");
    let mut config = ServerConfig::new("127.0.0.1:0".parse().expect("an address"), "test");
    config.limits.frame_bytes_max = 70_000;
    assert!(said(config).contains("frame_bytes_max"));
}
