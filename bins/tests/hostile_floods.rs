//! Floods of connections: honest people come in and talk meanwhile, and the server stays within
//! its bounds.

mod common;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::raw::{Raw, attach, encoded, hello};
use common::witness::{Meter, Witnesses, a_newcomer_is_served};
use common::{Client, Cluster, wait_until};
use cordee_core::framing::{Deframer, frames};
use cordee_core::wire::chat::{Attach, Attached, Intent, Redirect};
use cordee_core::wire::hello::{Bye, Hello, Welcome};
use cordee_core::wire::{Fixed64, Message, Reason};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

/// Connections that have not said hello, of a server.
const PENDING_MAX: u64 = 256;
/// Connections whose end waits for the other end, of each pump; pumps are a quarter of the cores.
const CLOSING_MAX: u64 = 256;
/// Connections that were accepted and wait to be taken up, twice: some are being taken up.
const ACCEPTED_MAX: u64 = 128;

/// What strangers may hold in descriptors.
fn descriptors_max() -> u64 {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    PENDING_MAX + CLOSING_MAX * cores.div_ceil(4) + ACCEPTED_MAX + 16
}

/// What a flood may cost in memory.
const MEMORY_MAX: u64 = 64 << 20;

/// These tests need many descriptors themselves.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, all).expect("up to the hard limit it may be raised");
}

fn connect(address: &str) -> Option<TcpStream> {
    let address: SocketAddr = address.parse().expect("an address");
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(30)).ok()?;
    stream.set_nonblocking(true).expect("a socket");
    Some(stream)
}

/// Whether a connection was ended by the server.
fn is_closed(mut stream: &TcpStream) -> bool {
    let mut buffer = [0; 256];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn two_thousand_connections_in_a_burst_keep_nobody_out() {
    raise_descriptors();
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut witnesses = Witnesses::new(&cluster);
    let meter = Meter::new(&cluster, 0);
    let burst: Vec<TcpStream> = (0..2_000).filter_map(|_| connect(&cluster.addresses[0])).collect();
    assert_eq!(burst.len(), 2_000, "all are taken off the kernel's hands");
    a_newcomer_is_served(&cluster, "cyd");
    witnesses.talk_for(Duration::from_secs(1));
    wait_until("the older ones to be dropped", || {
        let open = burst.iter().filter(|stream| !is_closed(stream)).count() as u64;
        (open <= PENDING_MAX).then_some(())
    });
    meter.assert_descriptors(descriptors_max());
    meter.assert_memory(MEMORY_MAX);
    // Those that are left never say hello.
    wait_until("the deadline of the rest", || burst.iter().all(is_closed).then_some(()));
    meter.wait_until_closed();
    witnesses.assert_undisturbed();
}

#[test]
fn five_thousand_who_come_and_say_nothing_are_gone_again() {
    raise_descriptors();
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut witnesses = Witnesses::new(&cluster);
    let meter = Meter::new(&cluster, 0);
    for wave in 0..10 {
        let silent: Vec<TcpStream> =
            (0..500).filter_map(|_| connect(&cluster.addresses[0])).collect();
        assert_eq!(silent.len(), 500);
        witnesses.talk();
        a_newcomer_is_served(&cluster, &format!("cyd{wave}"));
        meter.assert_memory(MEMORY_MAX);
    }
    meter.wait_until_closed();
    meter.assert_memory(MEMORY_MAX);
    witnesses.assert_undisturbed();
}

#[test]
fn two_thousand_slow_ones_that_return_as_they_are_dropped_delay_no_newcomer() {
    raise_descriptors();
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut witnesses = Witnesses::new(&cluster);
    let meter = Meter::new(&cluster, 0);
    let bytes = encoded(&hello());
    let address = cluster.addresses[0].clone();
    let renewed = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicUsize::new(0));
    let (count, stop) = (Arc::clone(&renewed), Arc::clone(&over));
    let attacker = thread::spawn(move || {
        let mut slow: VecDeque<(TcpStream, usize)> = VecDeque::new();
        while stop.load(Ordering::Relaxed) == 0 {
            while slow.len() < 2_000 {
                let Some(stream) = connect(&address) else { break };
                slow.push_back((stream, 0));
            }
            for _ in 0..slow.len() {
                let Some((mut stream, sent)) = slow.pop_front() else { break };
                // One byte now and then; the last never comes.
                let next = bytes.get(sent).filter(|_| sent + 1 < bytes.len());
                let gone = next.is_some_and(|byte| stream.write_all(&[*byte]).is_err());
                if gone || is_closed(&stream) {
                    count.fetch_add(1, Ordering::Relaxed);
                } else {
                    slow.push_back((stream, sent + usize::from(next.is_some())));
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    wait_until("the attack to stand", || (renewed.load(Ordering::Relaxed) > 2_000).then_some(()));
    for number in 0..10 {
        a_newcomer_is_served(&cluster, &format!("newcomer{number}"));
        witnesses.talk();
    }
    meter.assert_memory(MEMORY_MAX);
    // Those that are being dropped are many, and still far fewer than those who attack.
    meter.assert_descriptors(1_024);
    over.store(1, Ordering::Relaxed);
    attacker.join().expect("the attacker lives");
    meter.wait_until_closed();
    witnesses.assert_undisturbed();
}

#[test]
fn without_descriptors_a_server_keeps_its_links_and_does_not_spin() {
    let cluster = Cluster::start(&["--servers", "3"]);
    let mut witnesses = Witnesses::new(&cluster);
    let meter = Meter::new(&cluster, 0);
    let before = meter.process().starve_of_descriptors(1).expect("it runs");
    let mut strangers: Vec<TcpStream> =
        (0..200).filter_map(|_| connect(&cluster.addresses[0])).collect();
    // Ada is at that server, bob is not: what they say goes over its links.
    witnesses.talk_for(Duration::from_secs(4));
    meter.assert_cpu(0.5);
    meter.assert_memory(MEMORY_MAX);
    for other in 1..3 {
        let status = cluster.status(other);
        let members = status["members"].as_array().expect("a list");
        assert!(members.iter().all(|member| member["state"] == "linked"), "{status}");
    }
    // Whoever has no place is told at once, not left to wait.
    wait_until("the strangers to be turned away", || {
        let open = strangers.iter().filter(|stream| !is_closed(stream)).count();
        (open < 20).then_some(())
    });
    strangers.clear();
    meter.process().allow(Resource::Nofile, before);
    a_newcomer_is_served(&cluster, "cyd");
    witnesses.assert_undisturbed();
    cluster.wait_until_equal();
}

/// Sessions that are attached, by connections of our own making.
struct Crowd {
    names: Vec<String>,
    attachment: u32,
}

impl Crowd {
    /// All come at once, and each waits for its answer only when all have asked.
    fn attach(&mut self, address: &str, intent: Intent) -> Vec<Raw> {
        self.attachment += 1;
        let attachment = self.attachment;
        let ask = |name: &String| {
            let mut raw = Raw::connect(address);
            raw.send_message(&hello());
            raw.send_message(&Attach { attachment, intent, ..attach(name) });
            raw
        };
        let mut raws: Vec<Raw> = self.names.iter().map(ask).collect();
        for (raw, name) in raws.iter_mut().zip(&self.names) {
            let mut tries = 0;
            loop {
                let (kind, payload) = raw.next(&[Attached::KIND, Bye::KIND]).expect("an answer");
                if kind == Attached::KIND {
                    break;
                }
                // So many at once that its hello was not read before the next ones came.
                let reason = Bye::parse(&payload).expect("valid").reason;
                assert_eq!(reason, Reason::Displaced, "whoever fails over is taken");
                tries += 1;
                assert!(tries < 5, "it comes in soon");
                *raw = ask(name);
            }
        }
        raws
    }
}

#[test]
fn three_hundred_who_return_at_once_are_all_taken_and_delay_nobody() {
    let cluster = Cluster::start(&["--servers", "2", "--limit", "400"]);
    let mut bob = Client::start(&cluster.addresses[1..], "bob");
    let meter = Meter::new(&cluster, 1);
    let names = (0..300).map(|number| format!("guest{number}")).collect();
    let mut crowd = Crowd { names, attachment: 0 };
    let first = crowd.attach(&cluster.addresses[0], Intent::New);
    cluster.kill(0);
    drop(first);
    for _ in 0..3 {
        let guests = crowd.attach(&cluster.addresses[1], Intent::Resume);
        let begun = Instant::now();
        bob.say("still here");
        bob.wait_for_sent("still here");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(guests.len(), 300);
    }
    meter.assert_memory(4 * MEMORY_MAX);
    let left = bob.seen.iter().filter(|event| event["event"] == "departed").count();
    assert_eq!(left, 0, "nobody was away for long enough");
}

#[test]
fn whoever_was_sent_around_often_enough_is_told_that_all_are_full() {
    let cluster = Cluster::start(&["--servers", "2", "--limit", "1", "--hard-limit", "1"]);
    let _first = Client::start(&cluster.addresses[..1], "ada");
    let mut raw = Raw::connect(&cluster.addresses[0]);
    raw.send_message(&hello());
    raw.send_message(&Attach { hops: 4, ..attach("mallory") });
    assert_eq!(raw.reason(), Reason::Full, "though the other server has a place");
    // A made-up reservation is worth nothing.
    let mut raw = Raw::connect(&cluster.addresses[0]);
    raw.send_message(&hello());
    raw.send_message(&Attach { hops: 4, reservation: Fixed64(12_345), ..attach("mallory") });
    assert_eq!(raw.reason(), Reason::Full);
    // On a machine that is busy the other server may be unheard for a moment.
    let address = wait_until("a newcomer to be sent on", || {
        let mut raw = Raw::connect(&cluster.addresses[0]);
        raw.send_message(&hello());
        raw.send_message(&attach("mallory"));
        let (_, payload) = raw.next(&[Redirect::KIND])?;
        Some(Redirect::parse(&payload).expect("valid").address.to_owned())
    });
    assert_eq!(address, cluster.addresses[1]);
}

/// A server that sends everyone to itself. Returns its address and how many came.
fn redirects_to_itself() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let came = Arc::new(AtomicUsize::new(0));
    let (own, count) = (address.clone(), Arc::clone(&came));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let own = own.clone();
            thread::spawn(move || send_on(stream, &own));
        }
    });
    (address, came)
}

fn send_on(mut stream: TcpStream, own: &str) -> Option<()> {
    let mut deframer = Deframer::new(65_519);
    let mut buffer = [0; 4_096];
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        deframer.extend(&buffer[..count]);
        let whole = deframer.ready().ok()?.to_vec();
        deframer.consume(whole.len());
        for frame in frames(&whole) {
            match frame.kind {
                Hello::KIND => {
                    let welcome = Welcome {
                        minor: 0,
                        server: Default::default(),
                        origin: Default::default(),
                        cluster_id: Default::default(),
                        address: own,
                        body_bytes_max: 8_192,
                        ping_ms: 500,
                    };
                    stream.write_all(&encoded(&welcome)).ok()?;
                }
                Attach::KIND => {
                    let redirect = Redirect { address: own, reservation: Fixed64(1) };
                    stream.write_all(&encoded(&redirect)).ok()?;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_client_that_is_sent_in_circles_gives_up_and_finds_the_honest_server() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let (liar, came) = redirects_to_itself();
    let servers = [liar, cluster.addresses[0].clone()];
    let begun = Instant::now();
    let mut ada = Client::start(&servers, "ada");
    assert_eq!(ada.status()["server"], cluster.addresses[0].as_str());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let before = came.load(Ordering::Relaxed);
    assert!((1..50).contains(&before), "it was sent around {before} times");
}

#[test]
fn a_client_that_knows_liars_alone_does_not_spin() {
    let (liar, came) = redirects_to_itself();
    let client = Client::spawn(&[liar], &["--name", "ada"], None);
    thread::sleep(Duration::from_secs(3));
    let process = cordee_nemesis::Process(client.pid() as u32);
    let (came, cpu) = (came.load(Ordering::Relaxed), process.cpu_seconds());
    assert!(process.runs() && cpu < 1.5, "{cpu} s of processor time in 3 s");
    assert!((1..600).contains(&came), "it connected {came} times in 3 s");
    process.signal(Signal::KILL).expect("it runs");
}
