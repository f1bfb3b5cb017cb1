//! A whole server with limits so short that they are seen, and admission by address.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use cordee_core::framing::{Deframer, FRAME_BYTES_MAX, frames};
use cordee_core::wire::block::{AskBlocks, BlockWelcome, Open, Opened, Refused};
use cordee_core::wire::hello::{Bye, Hello, Magic, Role, Transport};
use cordee_core::wire::{Fixed64, Message, Reason, VERSION_MAJOR};

use super::table::{Admission, Table};
use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn start(limits: BlockLimits) -> (tempfile::TempDir, RunningBlockServer) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("f"), vec![7; 64 << 20]).expect("it can be written");
    let mut config =
        BlockServerConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)), directory.path());
    config.limits = limits;
    config.threads = 2;
    (directory, BlockServer::start(config).expect("a free port"))
}

fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    Hello {
        magic: Magic,
        major: VERSION_MAJOR,
        minor: 0,
        role: Role::Fetcher,
        transport: Transport::Plain,
        key_id: Fixed64(0),
        cluster: "",
    }
    .put_frame(&mut bytes);
    bytes
}

fn connect(server: &RunningBlockServer, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.local_addr()).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.write_all(first).expect("it is taken");
    stream
}

/// All that comes until the end, as frames of these kinds.
fn frames_until_end(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("it ends in time");
    let mut deframer = Deframer::new(FRAME_BYTES_MAX);
    deframer.extend(&bytes);
    let whole = deframer.ready().expect("frames");
    frames(whole).map(|frame| (frame.kind, frame.payload.to_vec())).collect()
}

fn last_reason(stream: &mut TcpStream) -> Reason {
    let frames = frames_until_end(stream);
    let (kind, payload) = frames.last().expect("a last word");
    assert_eq!(*kind, Bye::KIND);
    Bye::parse(payload).expect("valid").reason
}

fn short() -> BlockLimits {
    BlockLimits {
        hello: Duration::from_millis(100),
        frame: Duration::from_millis(200),
        idle: Duration::from_millis(300),
        stall: Duration::from_millis(300),
        ..BlockLimits::default()
    }
}

#[test]
fn who_is_not_quick_is_told_which_time_has_passed() {
    let (_directory, server) = start(short());
    assert_eq!(last_reason(&mut connect(&server, b"")), Reason::HelloTimeout);
    assert_eq!(last_reason(&mut connect(&server, &hello()[..9])), Reason::HelloTimeout);
    assert_eq!(last_reason(&mut connect(&server, &hello())), Reason::Idle);
    let mut begun = hello();
    begun.extend_from_slice(&[0, 0, 1, 0, Open::KIND, 1]);
    assert_eq!(last_reason(&mut connect(&server, &begun)), Reason::FrameTimeout);
    // Over HTTP nothing is said.
    for head in ["GET / HT", "GET /f HTTP/1.1\r\nHost: a\r\nRange: bytes=0-9\r\n\r\nGET"] {
        let mut bytes = Vec::new();
        connect(&server, head.as_bytes()).read_to_end(&mut bytes).expect("it ends");
        assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 206"));
    }
}

#[test]
fn single_bytes_do_not_renew_a_deadline() {
    let (_directory, server) = start(short());
    for first in [Vec::new(), hello(), b"GET /".to_vec()] {
        let mut stream = connect(&server, &first);
        let begun = Instant::now();
        // Of a frame that is never whole, and of a head that never ends.
        let drop = if first.first() == Some(&b'G') { b"a" } else { b"\0" };
        let mut frame = [&[0, 0, 255, 0, 0xee][..], &[0; 2_000]].concat();
        if drop == b"a" {
            frame.fill(b'a');
        }
        let mut sent = frame.chunks(1);
        while begun.elapsed() < PATIENCE {
            let byte = sent.next().unwrap_or(drop);
            if stream.write_all(byte).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(begun.elapsed() < PATIENCE, "it is closed at last");
    }
}

#[test]
fn who_does_not_read_is_closed_and_who_reads_slowly_is_not() {
    let (_directory, server) = start(short());
    let mut bytes = hello();
    Open { request: 1, file: 0, name: "f", hashes: false }.put_frame(&mut bytes);
    AskBlocks { request: 2, file: 0, first: 0, count: 256 }.put_frame(&mut bytes);
    let frozen = connect(&server, &bytes);
    let mut slow = connect(&server, b"GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    // Slowly: a little several times in each of the server's times.
    let (mut got, mut piece) = (0, vec![0; 256 << 10]);
    let begun = Instant::now();
    loop {
        let count = slow.read(&mut piece).expect("it goes on");
        got += count;
        if count == 0 || begun.elapsed() > PATIENCE {
            break;
        }
        if begun.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert!(got > 64 << 20, "{got} bytes came: all, and a head");
    // What fits the kernel's buffers came, and then the connection was cut.
    let mut rest = Vec::new();
    let _ = { frozen }.read_to_end(&mut rest);
    assert!(rest.len() < 64 << 20, "{} bytes", rest.len());
}

#[test]
fn files_beyond_the_limit_are_refused_as_busy() {
    let (_directory, server) = start(BlockLimits { open_files_max: 2, ..BlockLimits::default() });
    let mut bytes = hello();
    for file in 0..3 {
        Open { request: file.into(), file, name: "f", hashes: false }.put_frame(&mut bytes);
    }
    // A number that stands for another file gives its place up first.
    Open { request: 3, file: 0, name: "f", hashes: false }.put_frame(&mut bytes);
    let mut with_goodbye = bytes.clone();
    let goodbye = Bye { reason: Reason::Goodbye, retry_ms: 0, next: "", detail: "" };
    goodbye.put_frame(&mut with_goodbye);
    let mut stream = connect(&server, &with_goodbye);
    stream.shutdown(std::net::Shutdown::Write).expect("it can be");
    let kinds: Vec<u8> = frames_until_end(&mut stream).iter().map(|(kind, _)| *kind).collect();
    // Who says goodbye may leave without the answers.
    let all = [BlockWelcome::KIND, Opened::KIND, Opened::KIND, Refused::KIND, Opened::KIND];
    assert!(all.starts_with(&kinds), "{kinds:?}");
    let mut stream = connect(&server, &bytes);
    stream.shutdown(std::net::Shutdown::Write).expect("it can be");
    let answers = frames_until_end(&mut stream);
    let kinds: Vec<u8> = answers.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, all);
    let refused = Refused::parse(&answers[3].1).expect("valid");
    assert_eq!((refused.request, refused.reason, refused.retry_ms), (2, Reason::Busy, 1_000));
}

#[test]
fn another_machine_has_its_share_of_places() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = BlockLimits {
        connections_max: 10,
        connections_per_address_max: 2,
        refused_max: 3,
        ..BlockLimits::default()
    };
    let files = Directory::open(directory.path(), 1_024, 4, 100).expect("it is there");
    let shared = Arc::new(Shared::new(files, limits, None, 1, Log::none()));
    let table = Table::new(shared).expect("descriptors");
    let enter = |from: [u8; 4]| table.enter(IpAddr::from(from)).0;
    let one: Vec<Admission> = (0..7).map(|_| enter([10, 0, 0, 1])).collect();
    let kinds: String = one
        .iter()
        .map(|admission| match admission {
            Admission::Taken(_) => 't',
            Admission::Refused(_) => 'r',
            Admission::None => '-',
        })
        .collect();
    assert_eq!(kinds, "ttrrr--");
    assert!(matches!(enter([10, 0, 0, 2]), Admission::Taken(_)), "another has its own");
    let here: Vec<Admission> = (0..8).map(|_| enter([127, 0, 0, 1])).collect();
    assert!(here.iter().all(|admission| matches!(admission, Admission::Taken(_))));
    assert!(matches!(enter([127, 0, 0, 1]), Admission::None), "ten are all");
    drop(one);
    assert!(matches!(enter([10, 0, 0, 1]), Admission::Taken(_)));
    drop(here);
    assert_eq!(table.len(), 0);
}

#[test]
fn over_loopback_the_control_of_congestion_is_the_fast_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = Directory::open(directory.path(), 1_024, 4, 100).expect("it is there");
    let shared = Arc::new(Shared::new(files, BlockLimits::default(), None, 1, Log::none()));
    let table = Table::new(shared).expect("descriptors");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let stream = TcpStream::connect(address).expect("it listens");
    let Admission::Taken(place) = table.enter(address.ip()).0 else { panic!("there is room") };
    let connection = connection::Connection::new(stream.into(), place, address, false);
    let control = connection.socket().tcp_congestion().expect("TCP");
    assert!(control.starts_with(b"reno"), "{}", String::from_utf8_lossy(&control));
}

#[test]
fn a_server_that_is_dropped_leaves_no_thread_and_no_listener() {
    let (_directory, server) = start(BlockLimits::default());
    let address = server.local_addr();
    let idle = connect(&server, &hello());
    drop(server);
    assert!(TcpStream::connect(address).is_err());
    drop(idle);
}

#[test]
fn what_cannot_be_served_is_refused_with_the_mend() {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let error = |config| BlockServer::start(config).expect_err("it cannot be").to_string();
    let said = error(BlockServerConfig::new(listen, "/nonexistent/directory"));
    assert!(said.contains("/nonexistent/directory"), "{said}");
    let here = || BlockServerConfig::new(listen, "/");
    let said = error(BlockServerConfig { block_bytes: 1_000, ..here() });
    assert!(said.contains("a power of two"), "{said}");
    let limits = BlockLimits { requests_max: 0, ..BlockLimits::default() };
    assert!(error(BlockServerConfig { limits, ..here() }).contains("requests_max"));
    let taken = std::net::TcpListener::bind(listen).expect("a free port");
    let address = taken.local_addr().expect("bound");
    let said = error(BlockServerConfig { listen: address, ..here() });
    assert!(said.contains(&address.to_string()) && said.contains("-p"), "{said}");
}
