//! The block server's own protocol on the real binary: what an honest fetcher gets, and what it is
//! refused.

mod common;

use std::fs;
use std::path::Path;

use common::block_server::{Answer, Fetcher, Server, content};
use common::{run, wait_until};
use cordee_core::blocks::{BlockHash, Manifest, Root};
use cordee_core::wire::block::{AskBlocks, Cancel, Open, Refused};
use cordee_core::wire::hello::{Ping, Pong, Role};
use cordee_core::wire::{Message, Reason};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn write(directory: &Path, name: &str, bytes: &[u8]) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
    fs::write(path, bytes).expect("it can be written");
}

#[test]
fn a_file_comes_block_by_block_with_hashes_that_fold_into_its_own() {
    let directory = directory();
    for (name, length, block_size) in [
        ("long blocks", 5_000_001, "262144"),
        ("short blocks", 3_000_000, "16384"),
        ("the shortest", 100_001, "1024"),
        ("one byte", 1, "262144"),
        ("whole blocks", 1 << 20, "65536"),
    ] {
        let bytes = content(length);
        write(directory.path(), name, &bytes);
        let server = Server::start(directory.path(), &["--block-size", block_size]);
        let mut fetcher = server.greet();
        let file = fetcher.open_hashed(0, name);
        assert_eq!(file.opened.length, length as u64);
        assert_eq!(file.opened.hashed, file.layout.blocks());
        assert_eq!(file.opened.root, Root(*blake3(&bytes)), "{name}");
        let mut hashes = Vec::new();
        while (hashes.len() as u64) < file.layout.blocks() {
            let first = hashes.len() as u64;
            let count = (file.layout.blocks() - first).min(2_000) as u32;
            let page = fetcher.hashes(0, first, count).expect("they are known");
            hashes
                .extend(page.chunks_exact(32).map(|hash| BlockHash(hash.try_into().expect("32"))));
        }
        Manifest::new(file.layout, file.opened.root, hashes).expect("they belong together");
        fetcher.ask(7, 0, 0, file.blocks());
        assert!(fetcher.run(7, 0, file.blocks()) == bytes, "{name}");
        wait_until("it to be counted", || {
            (server.status().bytes_sent == length as u64).then_some(())
        });
        assert!(server.stop().success());
    }
}

/// As the ordinary tool makes it.
fn blake3(bytes: &[u8]) -> Box<[u8; 32]> {
    let layout = cordee_core::blocks::Layout::new(bytes.len() as u64, 16 << 20).expect("a layout");
    assert!(layout.blocks() == 1, "one block's hash is the file's");
    let mut hasher = cordee_core::blocks::BlockHasher::new(&layout, 0);
    hasher.update(bytes);
    Box::new(hasher.finish().0)
}

#[test]
fn requests_are_pipelined_and_answered_in_their_order() {
    let directory = directory();
    let (one, two) = (content(300_000), vec![7; 70_000]);
    write(directory.path(), "one", &one);
    write(directory.path(), "dir/two", &two);
    let server = Server::start(directory.path(), &["--block-size", "65536"]);
    let mut fetcher = server.greet();
    fetcher.open(0, "one", false).expect("it is served");
    // Everything at once, in one write, in pieces that end anywhere.
    let mut bytes = Vec::new();
    AskBlocks { request: 1, file: 0, first: 4, count: 1 }.put_frame(&mut bytes);
    Ping { nonce: 5 }.put_frame(&mut bytes);
    AskBlocks { request: 2, file: 0, first: 0, count: 2 }.put_frame(&mut bytes);
    AskBlocks { request: 3, file: 1, first: 0, count: 1 }.put_frame(&mut bytes);
    Open { request: 4, file: 0, name: "nothing", hashes: false }.put_frame(&mut bytes);
    AskBlocks { request: 6, file: 0, first: 0, count: 1 }.put_frame(&mut bytes);
    for piece in bytes.chunks(3) {
        fetcher.send_bytes(piece);
    }
    assert!(fetcher.run(1, 4, 1) == one[262_144..]);
    let (_, pong) = fetcher.frame(Pong::KIND);
    assert_eq!(Pong::parse(&pong).expect("valid").nonce, 5);
    assert!(fetcher.run(2, 0, 2) == one[..131_072]);
    assert_eq!(fetcher.refusal(3).0, Reason::BadRequest, "no file has that number");
    assert_eq!(fetcher.refusal(4).0, Reason::FileUnknown);
    assert_eq!(fetcher.refusal(6).0, Reason::BadRequest, "the number stands for nothing now");
    let file = fetcher.open(0, "dir/two", false).expect("it is served");
    assert_eq!(file.blocks(), 2);
    fetcher.ask(8, 0, 0, 2);
    assert!(fetcher.run(8, 0, 2) == two);
}

#[test]
fn slices_are_whole_blocks_of_about_a_megabyte() {
    let directory = directory();
    write(directory.path(), "f", &content(5 << 20));
    for (block_size, counts) in [("262144", [4, 4, 4, 4, 4].as_slice()), ("2097152", &[1, 1, 1])] {
        let server = Server::start(directory.path(), &["--block-size", block_size]);
        let mut fetcher = server.greet();
        let file = fetcher.open(0, "f", false).expect("it is served");
        fetcher.ask(1, 0, 0, file.blocks());
        let slices = (0..counts.len()).map(|_| match fetcher.next() {
            Answer::Slice { count, result: Ok(_), .. } => count,
            other => panic!("{other:?}"),
        });
        assert_eq!(slices.collect::<Vec<u32>>(), counts);
    }
}

#[test]
fn a_file_of_more_than_four_gigabytes_is_served_to_its_end() {
    let directory = directory();
    let path = directory.path().join("f");
    let file = fs::File::create(&path).expect("it can be made");
    // All but its end is a hole, which takes no room on the disk.
    file.set_len(5 << 30).expect("it can be that long");
    let end = content(1_000_000);
    std::os::unix::fs::FileExt::write_all_at(&file, &end, (5 << 30) - 1_000_000).expect("written");
    drop(file);
    let server = Server::start(directory.path(), &[]);
    let mut fetcher = server.greet();
    let file = fetcher.open(0, "f", false).expect("it is served");
    assert_eq!((file.opened.length, file.blocks()), (5 << 30, 20_480));
    fetcher.ask(1, 0, 20_476, 4);
    let last = fetcher.run(1, 20_476, 4);
    assert!(last.len() == 1 << 20 && last.ends_with(&end));
    fetcher.ask(2, 0, 20_479, 2);
    assert_eq!(fetcher.refusal(2).0, Reason::BadRequest);
}

#[test]
fn what_was_not_begun_of_a_cancelled_run_is_not_sent() {
    let directory = directory();
    let bytes = content(40 << 20);
    write(directory.path(), "f", &bytes);
    let server = Server::start(directory.path(), &[]);
    let mut fetcher = server.greet();
    let file = fetcher.open(0, "f", false).expect("it is served");
    fetcher.ask(1, 0, 0, file.blocks());
    fetcher.ask(2, 0, 0, 1);
    fetcher.ask(3, 0, 1, 1);
    fetcher.send(&Cancel { request: 2 });
    fetcher.send(&Cancel { request: 99 });
    let mut got = 0;
    loop {
        match fetcher.next() {
            Answer::Slice { request: 1, first, count, result: Ok(slice) } => {
                assert_eq!(first, got);
                got += u64::from(count);
                let range = file.layout.range(first, count.into());
                assert!(slice == bytes[range.start as usize..range.end as usize]);
                if first == 0 {
                    fetcher.send(&Cancel { request: 1 });
                }
            }
            Answer::Frame { kind: Refused::KIND, payload } => {
                let refused = Refused::parse(&payload).expect("valid");
                assert_eq!((refused.request, refused.reason), (1, Reason::Cancelled));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(got < file.layout.blocks(), "forty megabytes do not fit what is on the way");
    assert_eq!(fetcher.refusal(2).0, Reason::Cancelled);
    assert!(fetcher.run(3, 1, 1) == bytes[262_144..524_288]);
    // Once all was sent there is nothing to take back.
    fetcher.send(&Cancel { request: 3 });
    fetcher.ask(4, 0, 0, 1);
    assert!(fetcher.run(4, 0, 1) == bytes[..262_144]);
}

#[test]
fn every_request_that_makes_no_sense_is_refused_by_itself() {
    let directory = directory();
    write(directory.path(), "f", &content(300_000));
    write(directory.path(), "empty", &[]);
    let server = Server::start(directory.path(), &[]);
    let mut fetcher = server.greet();
    fetcher.open(0, "f", false).expect("it is served");
    for (first, count) in [(0, 0), (0, 3), (2, 1), (1, 2), (u64::MAX, 1), (u64::MAX, u32::MAX)] {
        fetcher.ask(1, 0, first, count);
        assert_eq!(fetcher.refusal(1).0, Reason::BadRequest, "{first}, {count}");
        fetcher.open_hashed(1, "f");
        assert_eq!(fetcher.hashes(1, first, count).err(), Some(Reason::BadRequest));
    }
    fetcher.ask(1, 64, 0, 1);
    assert_eq!(fetcher.refusal(1).0, Reason::BadRequest);
    assert_eq!(fetcher.hashes(5, 0, 1).err(), Some(Reason::BadRequest));
    assert_eq!(fetcher.hashes(1, 0, 2_001).err(), Some(Reason::BadRequest));
    assert_eq!(fetcher.open(64, "f", false).err(), Some(Reason::BadRequest));
    assert_eq!(fetcher.open(u32::MAX, "f", false).err(), Some(Reason::BadRequest));
    let empty = fetcher.open(2, "empty", true).expect("it is served");
    assert_eq!((empty.opened.length, empty.opened.hashed), (0, 0));
    assert_eq!(empty.opened.root, Root(*blake3_of_nothing()));
    fetcher.ask(1, 2, 0, 1);
    assert_eq!(fetcher.refusal(1).0, Reason::BadRequest, "nothing has no blocks");
}

fn blake3_of_nothing() -> Box<[u8; 32]> {
    let layout = cordee_core::blocks::Layout::new(0, 1_024).expect("a layout");
    Box::new(cordee_core::blocks::BlockHasher::new(&layout, 0).finish().0)
}

#[test]
fn more_requests_than_may_wait_are_refused_in_their_place() {
    let directory = directory();
    let bytes = content(8 << 20);
    write(directory.path(), "f", &bytes);
    // So slow that the first is still under way when the last has come.
    let server = Server::start(directory.path(), &["--limit-rate", "2M", "--block-size", "65536"]);
    let mut fetcher = server.greet();
    fetcher.open(0, "f", false).expect("it is served");
    let mut all = Vec::new();
    for request in 0..100 {
        AskBlocks { request, file: 0, first: 0, count: 1 }.put_frame(&mut all);
    }
    fetcher.send_bytes(&all);
    let (mut served, mut busy) = (0, 0);
    for wanted in 0..100 {
        match fetcher.next() {
            Answer::Slice { request, result: Ok(_), .. } => {
                assert_eq!(request, wanted);
                served += 1;
            }
            Answer::Frame { kind: Refused::KIND, payload } => {
                let refused = Refused::parse(&payload).expect("valid");
                assert_eq!((refused.request, refused.reason), (wanted, Reason::Busy));
                assert!(refused.retry_ms > 0);
                busy += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((64..=66).contains(&served) && busy >= 34, "{served} served, {busy} refused");
}

#[test]
fn thousands_of_files_are_listed_in_the_order_of_their_bytes() {
    let directory = directory();
    let mut expected = Vec::new();
    for number in 0..3_000 {
        let name = format!("many/file {number}");
        write(directory.path(), &name, b"x");
        expected.push((name, 1));
    }
    for name in ["a-b", "a/b", "a/b-c", "a/b/", "a/b.d/e", "a0", "日本語/峠.txt", "б"] {
        if !name.ends_with('/') {
            write(directory.path(), name, b"abc");
            expected.push((name.to_owned(), 3));
        }
    }
    // Nobody is to see these.
    for name in [".hidden", "x/.hidden/f", "film.part", "film.part.journal", "many/.f"] {
        write(directory.path(), name, b"secret");
    }
    expected.sort();
    let server = Server::start(directory.path(), &[]);
    let mut fetcher = server.greet();
    assert_eq!(fetcher.list(""), Ok(expected.clone()));
    let below = |prefix: &str| {
        let files = expected.iter().filter(|(name, _)| name.starts_with(prefix));
        files.cloned().collect::<Vec<_>>()
    };
    assert_eq!(fetcher.list("many"), Ok(below("many/")));
    assert_eq!(fetcher.list("a"), Ok(below("a/")));
    assert_eq!(fetcher.list("日本語"), Ok(below("日本語/")));
    assert_eq!(fetcher.list("nowhere"), Err(Reason::FileUnknown));
    assert_eq!(fetcher.list("a-b"), Err(Reason::FileUnknown), "a file has nothing below it");
    for forbidden in ["..", "/", "many/", "a/../many", "x/.hidden", ".", "a\0"] {
        assert_eq!(fetcher.list(forbidden), Err(Reason::FileForbidden), "{forbidden:?}");
    }
    assert_eq!(server.status().files, expected.len() as u64);
}

#[test]
fn observers_ask_how_it_stands_and_nothing_else() {
    let directory = directory();
    write(directory.path(), "f", b"abc");
    let server = Server::start(directory.path(), &[]);
    let mut observer = Fetcher::greet_as(&server.address, Role::Observer);
    observer.send(&Open { request: 1, file: 0, name: "f", hashes: false });
    observer.send(&Ping { nonce: 3 });
    observer.frame(Pong::KIND);
    let line = run(&["status", &server.address, "--json"]);
    assert!(line.status.success());
    let status: serde_json::Value = serde_json::from_slice(&line.stdout).expect("one JSON object");
    assert_eq!(status["role"], "block-server");
    assert_eq!(status["address"], server.address.as_str());
    assert_eq!((&status["files"], &status["transfers"]), (&1.into(), &0.into()));
    assert_eq!(status["pid"].as_u64(), Some(server.pid()));
    let text = common::text(&run(&["status", &server.address]).stdout);
    assert!(text.starts_with(&format!("block server {}, process ", server.address)), "{text}");
    let forget =
        run(&["forget", "127.0.0.1:1", "-p", server.address.rsplit(':').next().expect("a port")]);
    assert!(common::text(&forget.stderr).contains("another service"), "{forget:?}");
}

#[test]
fn a_stopped_server_ends_what_it_is_amid_tells_everybody_and_exits() {
    let directory = directory();
    let bytes = content(64 << 20);
    write(directory.path(), "f", &bytes);
    let mut server = Server::start(directory.path(), &[]);
    let mut idle = server.greet();
    let mut busy = server.greet();
    let file = busy.open(0, "f", false).expect("it is served");
    busy.ask(1, 0, 0, file.blocks());
    // The first slice is under way, and the rest is more than fits the kernel's buffers.
    wait_until("it to be sent", || (server.status().bytes_sent > 0).then_some(()));
    server.terminate();
    assert_eq!(idle.bye().0, Reason::Draining);
    let mut slices = 0;
    loop {
        match busy.next() {
            Answer::Slice { result: Ok(_), .. } => slices += 1,
            Answer::Frame { kind, .. } => {
                assert_eq!(kind, cordee_core::wire::hello::Bye::KIND);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((1..64).contains(&slices), "{slices}");
    assert!(server.wait().success());
    assert!(std::net::TcpStream::connect(&server.address).is_err());
}

#[test]
fn a_rate_is_that_of_all_connections_together() {
    let directory = directory();
    write(directory.path(), "f", &content(1 << 20));
    let server = Server::start(directory.path(), &["--limit-rate", "1M", "--threads", "2"]);
    let begun = std::time::Instant::now();
    let fetchers: Vec<_> = (0..4)
        .map(|_| {
            let mut fetcher = server.greet();
            std::thread::spawn(move || {
                fetcher.open(0, "f", false).expect("it is served");
                fetcher.ask(1, 0, 0, 2);
                fetcher.run(1, 0, 2).len()
            })
        })
        .collect();
    let bytes: usize = fetchers.into_iter().map(|thread| thread.join().expect("it got all")).sum();
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(bytes, 4 * 524_288);
    let rate = bytes as f64 / seconds;
    // Never faster; how much slower a busy machine makes it is not said.
    assert!(rate < 1_050_000.0, "{rate} bytes per second");
}

#[test]
fn up_keeps_a_block_server_on_shared_alive() {
    // Its ports are the well-known ones: in a network of its own nobody else has them.
    let script = r#"
        ip link set lo up || exit 77
        "$CORDEE" up > up.txt 2>&1 & up=$!
        status() { "$CORDEE" status 127.0.0.1:4545 --json; }
        again() { for i in $(seq 600); do status && return; sleep 0.1; done > status.txt; }
        again; cat status.txt | grep -v error
        echo new > shared/new.txt
        kill -9 $(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' status.txt)
        again; grep -v error status.txt
        "$CORDEE" status --json | grep -c role
        kill -TERM $up; wait $up; echo "ended $?"
        cat up.txt
    "#;
    let directory = directory();
    let output = std::process::Command::new("unshare")
        .args(["--net", "--map-root-user", "timeout", "120", "sh", "-c", script])
        .env("CORDEE", env!("CARGO_BIN_EXE_cordee"))
        .current_dir(directory.path())
        .output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        other => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "no network of its own ({other:?}): not tested");
            return;
        }
    };
    let text = common::text(&output.stdout);
    let statuses: Vec<serde_json::Value> = text
        .lines()
        .filter(|line| line.contains("block-server"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(statuses.len() >= 2, "{text}");
    let last = statuses.last().expect("two");
    assert_eq!((&statuses[0]["files"], &last["files"]), (&0.into(), &1.into()), "{text}");
    assert_ne!(statuses[0]["pid"], last["pid"], "another process: {text}");
    assert!(text.lines().any(|line| line == "6"), "five chat servers and that one: {text}");
    assert!(text.contains("ended 0") && text.contains("listening on 127.0.0.1:4545"), "{text}");
    assert!(text.contains("serves what is in ./shared") && text.contains("died"), "{text}");
}
