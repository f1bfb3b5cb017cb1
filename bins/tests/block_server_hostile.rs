//! Tricks with names, bytes that nobody honest sends, clients that freeze, and files that change.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::time::Duration;

use common::block_server::{Answer, Fetcher, Server, content};
use common::raw::{encoded, frame, hello};
use common::{PATIENCE, wait_until};
use cordee_core::wire::block::{AskBlocks, AskList, BlockWelcome, Open};
use cordee_core::wire::hello::{Hello, Role, Transport};
use cordee_core::wire::{Message, Reason};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// A hello of a fetcher.
fn fetcher_hello() -> Hello<'static> {
    Hello { role: Role::Fetcher, cluster: "", ..hello() }
}

#[test]
fn names_that_lead_elsewhere_are_refused_with_a_reason() {
    let outside = directory();
    fs::write(outside.path().join("secret"), b"secret").expect("it can be written");
    let inside = directory();
    let at = |name: &str| inside.path().join(name);
    for path in ["dir", ".hidden", "dir/.git"] {
        fs::create_dir(at(path)).expect("a directory");
    }
    for path in
        ["f", ".dot", ".hidden/f", "dir/.git/config", "film.part", "film.part.journal", "dir/g"]
    {
        fs::write(at(path), b"content").expect("it can be written");
    }
    let link = |target: &std::path::Path, name: &str| symlink(target, at(name)).expect("a link");
    link(outside.path(), "way out");
    link(&outside.path().join("secret"), "secret");
    link("../secret".as_ref(), "up");
    link("/etc/passwd".as_ref(), "passwd");
    link("/proc/self/root/etc/passwd".as_ref(), "magic");
    link("loop".as_ref(), "loop");
    link("f".as_ref(), "alias");
    link("dir".as_ref(), "also dir");
    link(".dot".as_ref(), "to hidden");
    link("film.part".as_ref(), "to unfinished");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("a FIFO");
    let server = Server::start(inside.path(), &[]);
    let mut fetcher = server.greet();
    for (name, reason) in [
        ("..", Reason::FileForbidden),
        ("../secret", Reason::FileForbidden),
        ("dir/../f", Reason::FileForbidden),
        ("dir/..", Reason::FileForbidden),
        ("/etc/passwd", Reason::FileForbidden),
        ("//f", Reason::FileForbidden),
        ("dir//g", Reason::FileForbidden),
        ("f/", Reason::FileForbidden),
        ("./f", Reason::FileForbidden),
        ("f\0", Reason::FileForbidden),
        ("\0", Reason::FileForbidden),
        (".dot", Reason::FileForbidden),
        (".hidden/f", Reason::FileForbidden),
        ("dir/.git/config", Reason::FileForbidden),
        ("film.part", Reason::FileForbidden),
        ("film.part.journal", Reason::FileForbidden),
        ("way out/secret", Reason::FileForbidden),
        ("secret", Reason::FileForbidden),
        ("up", Reason::FileForbidden),
        ("passwd", Reason::FileForbidden),
        ("magic", Reason::FileForbidden),
        ("loop", Reason::FileForbidden),
        ("to hidden", Reason::FileForbidden),
        ("to unfinished", Reason::FileForbidden),
        ("fifo", Reason::FileForbidden),
        ("nothing", Reason::FileUnknown),
        ("f/g", Reason::FileUnknown),
        (&"n".repeat(300), Reason::FileUnknown),
        (&"d/".repeat(2_000), Reason::FileForbidden),
        ("", Reason::FileIsDirectory),
        ("dir", Reason::FileIsDirectory),
        ("also dir", Reason::FileIsDirectory),
    ] {
        assert_eq!(fetcher.open(0, name, true).err(), Some(reason), "{name:?}");
    }
    for name in ["f", "dir/g", "alias", "also dir/g"] {
        assert!(fetcher.open(0, name, true).is_ok(), "{name}: links may stay inside");
    }
    let listed: Vec<String> =
        fetcher.list("").expect("all").into_iter().map(|(name, _)| name).collect();
    assert_eq!(listed, ["alias", "dir/g", "f"]);
    assert_eq!(server.status().files, 3);
}

#[test]
fn who_does_not_say_hello_properly_is_told_why() {
    let directory = directory();
    let server = Server::start(directory.path(), &[]);
    let reason = |bytes: &[u8]| {
        let mut fetcher = server.connect();
        fetcher.send_bytes(bytes);
        fetcher.bye().0
    };
    let hello = fetcher_hello();
    assert_eq!(reason(&encoded(&Hello { major: 2, ..hello })), Reason::WrongVersion);
    assert_eq!(reason(&encoded(&Hello { role: Role::Client, ..hello })), Reason::WrongService);
    assert_eq!(reason(&encoded(&Hello { role: Role::Peer, ..hello })), Reason::WrongService);
    let noise = Hello { transport: Transport::Noise, ..hello };
    assert_eq!(reason(&encoded(&noise)), Reason::WrongSecret);
    let long = "n".repeat(4_000);
    let open = Open { request: 1, file: 0, name: &long, hashes: false };
    assert_eq!(reason(&encoded(&open)), Reason::NotCordee, "too long for a first frame");
    assert_eq!(reason(&frame(AskList::KIND, &[0; 20])), Reason::NotCordee);
    assert_eq!(reason(&[0xff; 64]), Reason::NotCordee);
    assert_eq!(reason(&[0, 0, 0, 0]), Reason::NotCordee);
    assert_eq!(reason(&u32::MAX.to_be_bytes()), Reason::NotCordee, "four gigabytes");
    let mut wrong = encoded(&hello);
    wrong[5] = b'X';
    assert_eq!(reason(&wrong), Reason::NotCordee);
    // The name of a cluster says nothing here.
    let mut any = server.connect();
    any.send(&Hello { cluster: "another", ..hello });
    any.frame(BlockWelcome::KIND);
}

#[test]
fn frames_that_are_wrong_end_the_connection_and_unknown_ones_are_passed_over() {
    let directory = directory();
    fs::write(directory.path().join("f"), content(10_000)).expect("it can be written");
    let server = Server::start(directory.path(), &[]);
    let reason = |bytes: &[u8]| {
        let mut fetcher = server.greet();
        fetcher.send_bytes(bytes);
        fetcher.bye().0
    };
    assert_eq!(reason(&u32::MAX.to_be_bytes()), Reason::BadFrame);
    assert_eq!(reason(&[0, 0, 0, 0]), Reason::BadFrame);
    assert_eq!(reason(&frame(AskBlocks::KIND, &[1])), Reason::BadFrame);
    assert_eq!(reason(&frame(Open::KIND, &[1, 0, 2, 0xc3, 0x28, 0])), Reason::BadFrame);
    assert_eq!(reason(&encoded(&fetcher_hello())), Reason::Unexpected);
    let mut fetcher = server.greet();
    fetcher.send_bytes(&frame(0xee, &[7; 1_000]));
    fetcher.send_bytes(&frame(BlockWelcome::KIND, &[]));
    assert!(fetcher.open(0, "f", false).is_ok());
}

#[test]
fn random_bytes_at_every_stage_hurt_nobody() {
    let directory = directory();
    fs::write(directory.path().join("f"), content(100_000)).expect("it can be written");
    let server = Server::start(directory.path(), &[]);
    let mut honest = server.greet();
    honest.open(0, "f", false).expect("it is served");
    let noise = content(200_000);
    for (number, piece) in noise.chunks(1_000).enumerate() {
        let mut stream = TcpStream::connect(&server.address).expect("it listens");
        let mut bytes = Vec::new();
        if number % 3 > 0 {
            bytes = encoded(&fetcher_hello());
        }
        if number % 3 > 1 {
            let name = String::from_utf8_lossy(&piece[..40]);
            Open { request: 1, file: 0, name: &name, hashes: true }.put_frame(&mut bytes);
        }
        if number % 5 == 0 {
            bytes.extend_from_slice(b"GET /");
        }
        bytes.extend_from_slice(piece);
        // It may be gone before all is written.
        let _ = stream.write_all(&bytes);
        if number % 2 == 0 {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
        }
    }
    honest.ask(1, 0, 0, 1);
    assert_eq!(honest.run(1, 0, 1).len(), 100_000);
    wait_until("the others to be gone", || (server.status().connections <= 2).then_some(()));
}

#[test]
fn a_flood_of_requests_is_not_read_on_and_delays_nobody() {
    let directory = directory();
    let bytes = content(1 << 20);
    fs::write(directory.path().join("f"), &bytes).expect("it can be written");
    let server = Server::start(directory.path(), &["--threads", "2"]);
    let floods: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut fetcher = server.greet();
            fetcher.open(0, "f", false).expect("it is served");
            let mut request = Vec::new();
            for number in 0..1_000 {
                AskBlocks { request: number, file: 0, first: 0, count: 4 }.put_frame(&mut request);
            }
            fetcher.stream.set_nonblocking(true).expect("it can be");
            // Until nothing more is taken.
            let begun = std::time::Instant::now();
            let (mut idle, mut at) = (0, 0);
            while idle < 20 && begun.elapsed() < PATIENCE {
                match fetcher.stream.write(&request[at..]) {
                    Ok(count) => {
                        at = (at + count) % request.len();
                        idle = 0;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "it stays");
                        idle += 1;
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            }
            assert_eq!(idle, 20, "at some time it reads no more");
            fetcher.stream.try_clone().expect("a descriptor")
        })
        .collect();
    let mut honest = server.greet();
    honest.open(0, "f", false).expect("it is served");
    for request in 0..20 {
        honest.ask(request, 0, 0, 4);
        assert!(honest.run(request, 0, 4) == bytes);
    }
    assert!(resident_bytes(server.pid()) < 200 << 20);
    drop(floods);
}

/// What a process has in memory.
fn resident_bytes(pid: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}

#[test]
fn a_thousand_idle_and_a_hundred_frozen_clients_delay_no_newcomer() {
    let directory = directory();
    let bytes = content(16 << 20);
    fs::write(directory.path().join("f"), &bytes).expect("it can be written");
    let server = Server::start(directory.path(), &["--threads", "2", "--connections", "2000"]);
    // A third says nothing at all, a third has half a hello, a third is welcome.
    let half = &encoded(&fetcher_hello())[..10];
    let mut idle = Vec::new();
    for number in 0..1_000 {
        let mut stream = TcpStream::connect(&server.address).expect("it listens");
        match number % 3 {
            0 => {}
            1 => stream.write_all(half).expect("it is taken"),
            _ => stream.write_all(&encoded(&fetcher_hello())).expect("it is taken"),
        }
        idle.push(stream);
    }
    let frozen: Vec<Fetcher> = (0..100)
        .map(|number| {
            let mut fetcher = server.connect();
            if number % 4 == 0 {
                fetcher.send_bytes(b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
            } else {
                fetcher.send(&fetcher_hello());
                fetcher.send(&Open { request: 1, file: 0, name: "f", hashes: false });
                fetcher.send(&AskBlocks { request: 2, file: 0, first: 0, count: 64 });
            }
            fetcher
        })
        .collect();
    // All of them have got what the kernel holds for them, and nobody reads it.
    wait_until("them to freeze", || {
        let before = server.status().bytes_sent;
        std::thread::sleep(Duration::from_millis(100));
        (before > 0 && server.status().bytes_sent == before).then_some(())
    });
    let mut newcomer = server.greet();
    let file = newcomer.open_hashed(0, "f");
    newcomer.ask(1, 0, 0, file.blocks());
    assert!(newcomer.run(1, 0, file.blocks()) == bytes);
    assert!(server.status().connections > 400, "they are still there");
    drop((idle, frozen));
    wait_until("all to be gone", || (server.status().connections <= 2).then_some(()));
    assert!(server.stop().success());
}

#[test]
fn one_who_reads_a_byte_at_a_time_gets_every_byte() {
    let directory = directory();
    let bytes = content(30_000);
    fs::write(directory.path().join("f"), &bytes).expect("it can be written");
    let server = Server::start(directory.path(), &["--block-size", "4096"]);
    let mut stream = TcpStream::connect(&server.address).expect("it listens");
    socket2::SockRef::from(&stream).set_recv_buffer_size(1).expect("the least that there is");
    for byte in encoded(&fetcher_hello()) {
        stream.write_all(&[byte]).expect("it is taken");
    }
    let open = Open { request: 1, file: 0, name: "f", hashes: false };
    stream.write_all(&encoded(&open)).expect("it is taken");
    for request in 0..8 {
        let ask = AskBlocks { request, file: 0, first: request, count: 1 };
        stream.write_all(&encoded(&ask)).expect("it is taken");
    }
    stream.shutdown(std::net::Shutdown::Write).expect("it can be");
    let mut all = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).expect("it comes") == 1 {
        all.push(byte[0]);
    }
    // The payload lies in pieces between frames; it is enough that every block is there.
    for block in bytes.chunks(4_096) {
        let inner = &block[..block.len() - 1];
        assert!(all.windows(inner.len()).any(|window| window == inner));
    }
}

#[test]
fn a_file_that_changes_while_it_is_served_ends_the_connection_before_its_last_byte() {
    let directory = directory();
    let path = directory.path().join("f");
    let bytes = content(16 << 20);
    for (block_size, truncate) in
        [("262144", false), ("16384", false), ("262144", true), ("16384", true), ("8388608", true)]
    {
        fs::write(&path, &bytes).expect("it can be written");
        let server = Server::start(
            directory.path(),
            &["--block-size", block_size, "--limit-rate", "8M", "--threads", "1"],
        );
        let mut fetcher = server.greet();
        let file = fetcher.open(0, "f", false).expect("it is served");
        fetcher.ask(1, 0, 0, file.blocks());
        let begun = match fetcher.next() {
            _ if block_size == "8388608" => None,
            Answer::Slice { result: Ok(bytes), .. } => Some(bytes),
            other => panic!("{other:?}"),
        };
        if let Some(begun) = &begun {
            assert!(*begun == bytes[..begun.len()]);
        }
        let changed = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
        if truncate {
            changed.set_len(1 << 20).expect("it can be cut");
        } else {
            (&changed).write_all(&[0xee; 64]).expect("it can be written");
        }
        drop(changed);
        let mut good = begun.map_or(0, |begun| begun.len());
        loop {
            match fetcher.next() {
                // What was whole before the change was found out.
                Answer::Slice { result: Ok(slice), .. } => {
                    assert!(
                        slice == bytes[good..good + slice.len()],
                        "a wrong byte was vouched for"
                    );
                    good += slice.len();
                }
                Answer::Slice { result: Err(reason), .. } => {
                    assert_eq!(reason, Reason::FileChanged);
                    break;
                }
                Answer::Frame { kind, payload } => {
                    assert_eq!(kind, cordee_core::wire::hello::Bye::KIND);
                    let bye = cordee_core::wire::hello::Bye::parse(&payload).expect("valid");
                    assert_eq!(bye.reason, Reason::FileChanged);
                    break;
                }
                Answer::End => panic!("it ends without a reason"),
            }
        }
        assert!(good < bytes.len());
        // Another connection gets the file as it is now.
        let now = fs::read(&path).expect("it is there");
        let mut again = server.greet();
        let file = again.open(0, "f", false).expect("it is served");
        assert_eq!(file.opened.length, now.len() as u64);
        again.ask(1, 0, 0, 1);
        assert!(again.run(1, 0, 1) == now[..file.layout.block_len(0) as usize]);
    }
}

#[test]
fn a_file_that_is_replaced_is_served_on_as_it_was_opened() {
    let directory = directory();
    let (old, new) = (content(3 << 20), vec![1; 1 << 20]);
    let path = directory.path().join("f");
    fs::write(&path, &old).expect("it can be written");
    let server = Server::start(directory.path(), &[]);
    let mut fetcher = server.greet();
    let file = fetcher.open_hashed(0, "f");
    let other = directory.path().join("g");
    fs::write(&other, &new).expect("it can be written");
    fs::rename(&other, &path).expect("it can be renamed");
    // Its last name has gone, which is a change; a connection of now sees the new one.
    fetcher.ask(1, 0, 0, file.blocks());
    match fetcher.next() {
        Answer::Slice { result: Ok(slice), .. } => assert!(slice == old[..slice.len()]),
        Answer::Frame { kind, .. } => assert_eq!(kind, cordee_core::wire::hello::Bye::KIND),
        other => panic!("{other:?}"),
    }
    let mut again = server.greet();
    let now = again.open_hashed(0, "f");
    assert_ne!(now.opened.root, file.opened.root);
    again.ask(1, 0, 0, now.blocks());
    assert!(again.run(1, 0, now.blocks()) == new);
}

#[test]
fn over_the_limit_a_newcomer_is_told_when_to_come_again() {
    let directory = directory();
    fs::write(directory.path().join("f"), b"abc").expect("it can be written");
    let server = Server::start(directory.path(), &["--connections", "3"]);
    let welcome: Vec<Fetcher> = (0..3).map(|_| server.greet()).collect();
    for _ in 0..100 {
        let mut newcomer = server.connect();
        newcomer.send(&fetcher_hello());
        let (reason, retry_ms) = newcomer.bye();
        assert_eq!((reason, retry_ms), (Reason::TooManyConnections, 1_000));
    }
    let mut browser = TcpStream::connect(&server.address).expect("it listens");
    browser.write_all(b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is taken");
    let mut answer = String::new();
    browser.read_to_string(&mut answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1"), "{answer}");
    drop(welcome);
    wait_until("a place", || {
        let mut newcomer = server.connect();
        newcomer.send(&fetcher_hello());
        matches!(newcomer.next(), Answer::Frame { kind: BlockWelcome::KIND, .. }).then_some(())
    });
}

#[test]
fn those_who_say_nothing_give_their_places_to_those_who_do() {
    let directory = directory();
    fs::write(directory.path().join("f"), b"abc").expect("it can be written");
    let server = Server::start(directory.path(), &["--connections", "8"]);
    let mut silent: Vec<Fetcher> = (0..8).map(|_| server.connect()).collect();
    // Whoever connects before these are known to be silent is asked to come again.
    let mut fetcher = wait_until("a place", || {
        let mut fetcher = server.connect();
        fetcher.send(&fetcher_hello());
        let welcome = matches!(fetcher.next(), Answer::Frame { kind: BlockWelcome::KIND, .. });
        welcome.then_some(fetcher)
    });
    assert!(fetcher.open(0, "f", false).is_ok());
    let (mut displaced, mut waiting) = (0, 0);
    for one in &mut silent {
        one.stream.set_nonblocking(true).expect("it can be");
        match one.stream.peek(&mut [0]) {
            Ok(1..) => displaced += 1,
            Ok(0) => panic!("it is told"),
            Err(_) => waiting += 1,
        }
    }
    assert!(displaced > 0 && waiting > 0, "{displaced} had to go, {waiting} have their time");
    for mut one in silent {
        one.stream.set_nonblocking(false).expect("it can be");
        let (reason, _) = one.bye();
        assert!(matches!(reason, Reason::Displaced | Reason::HelloTimeout), "{reason:?}");
    }
}

#[test]
fn without_descriptors_it_backs_off_and_recovers() {
    let directory = directory();
    fs::write(directory.path().join("f"), b"abc").expect("it can be written");
    let server = Server::start(directory.path(), &["--threads", "1"]);
    let mut honest = server.greet();
    let pid = common::pid(server.pid());
    let used = fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count() as u64;
    let limit = rustix::process::Rlimit { current: Some(used + 4), maximum: Some(used + 4) };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limit)
        .expect("it is ours");
    let flood: Vec<TcpStream> = (0..60)
        .map(|_| TcpStream::connect(&server.address).expect("the kernel takes it"))
        .collect();
    wait_until("it to say so", || {
        let said = server.stderr();
        said.iter().any(|line| line.contains("ulimit -n")).then_some(())
    });
    let before = cpu_ticks(pid.as_raw_pid());
    std::thread::sleep(Duration::from_secs(1));
    let spent = cpu_ticks(pid.as_raw_pid()) - before;
    assert!(spent < 50, "{spent} hundredths of a second in one: it spins");
    drop(flood);
    wait_until("files to be served again", || honest.open(0, "f", false).ok());
    wait_until("connections to be taken again", || {
        let mut fetcher = Fetcher::connect(&server.address);
        fetcher.send(&fetcher_hello());
        matches!(fetcher.next(), Answer::Frame { kind: BlockWelcome::KIND, .. }).then_some(())
    });
}

/// Processor time of a process, in hundredths of a second.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = stat.rsplit_once(") ").expect("a name in parentheses");
    let fields: Vec<u64> =
        rest.split(' ').skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
    fields.iter().sum()
}
