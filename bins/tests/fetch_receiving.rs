//! What a fetch does with the disk: killed at any time it goes on, and when the disk is no good it
//! says so in one line and loses nothing.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::block_server::{Server, content};
use common::fetching::{begin, command, events, fetch, finish};
use common::sources::{Manner, Source, hash};
use common::{cordee, pid, text, wait_until};
use rustix::process::{Signal, kill_process};

const BLOCK: u32 = 64 << 10;

fn is_there(path: &Path, bytes: &[u8]) {
    assert!(std::fs::read(path).expect("the file is there") == bytes, "the file is another one");
}

#[test]
fn killed_at_any_time_the_same_command_goes_on() {
    let bytes = content(12_000_003);
    let directory = tempfile::tempdir().expect("a directory");
    let source = Source::start(Manner::Slow(8_000_000), &bytes, BLOCK);
    let hash = hash(&bytes);
    let args = ["--hash", &hash];
    let mut before = 0;
    for kill in 0..6_u64 {
        let mut child = command(directory.path(), "film", &[&source.address], &args);
        let mut child = child.spawn().expect("the program runs");
        thread::sleep(Duration::from_millis(60 + kill * 97 % 350));
        child.kill().expect("it is ours");
        let output = child.wait_with_output().expect("it ended");
        let events = events(&text(&output.stdout));
        if let Some(first) = events.iter().find(|event| event["stage"] == "fetching") {
            let there = first["bytes"].as_u64().expect("a number");
            assert!(there >= before, "{there} bytes are there, {before} were");
            before = there;
        }
    }
    let fetched = fetch(directory.path(), "film", &[&source.address], &args);
    let resumed = fetched.done()["resumed_bytes"].as_u64().expect("a number");
    let missing = bytes.len() as u64 - resumed;
    assert!(resumed >= before && resumed > 0, "{fetched:?}");
    assert!(fetched.received() as f64 <= missing as f64 * 1.05, "{missing} missing: {fetched:?}");
    is_there(&directory.path().join("film"), &bytes);
}

#[test]
fn interrupted_it_ends_cleanly_and_says_how_to_go_on() {
    let bytes = content(6_000_000);
    let directory = tempfile::tempdir().expect("a directory");
    let film = directory.path().join("film");
    let source = Source::start(Manner::Slow(2_000_000), &bytes, BLOCK);
    let mut slow = cordee();
    slow.current_dir(directory.path()).args(["fetch", "film", "--from", &source.address]);
    slow.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = begin(slow, &film, 1);
    kill_process(pid(child.id().into()), Signal::INT).expect("it runs");
    let status = wait_until("its end", || child.try_wait().expect("it is ours"));
    assert_eq!(status.code(), Some(1));
    assert!(!film.exists() && directory.path().join("film.part").exists());
    let again = Source::start(Manner::Good, &bytes, BLOCK);
    let fetched = fetch(directory.path(), "film", &[&again.address], &[]);
    assert!(fetched.done()["resumed_bytes"].as_u64() > Some(0), "{fetched:?}");
    is_there(&film, &bytes);
}

#[test]
fn a_second_fetcher_of_the_same_file_is_told() {
    let bytes = content(6_000_000);
    let directory = tempfile::tempdir().expect("a directory");
    let film = directory.path().join("film");
    let source = Source::start(Manner::Slow(1_000_000), &bytes, BLOCK);
    let first = command(directory.path(), "film", &[&source.address], &[]);
    let mut first = begin(first, &film, 1);
    let second = fetch(directory.path(), "film", &[&source.address], &[]);
    assert!(second.why().contains("is being fetched by another process"), "{second:?}");
    assert!(directory.path().join("film.part").exists(), "the first one's");
    first.kill().expect("it is ours");
    first.wait().expect("it ended");
}

#[test]
fn a_file_that_may_not_be_so_long_is_one_clear_error() {
    let bytes = content(6_000_000);
    let directory = tempfile::tempdir().expect("a directory");
    let source = Source::start(Manner::Good, &bytes, BLOCK);
    let program = env!("CARGO_BIN_EXE_cordee");
    let mut limited = Command::new("bash");
    let script = "ulimit -f 1000; exec \"$0\" \"$@\"";
    limited.args(["-c", script, program, "fetch", "film", "--json", "--from", &source.address]);
    limited.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let fetched = finish(limited);
    assert!(fetched.why().contains("film.part") && fetched.why().contains("ulimit"), "{fetched:?}");
    let fetched = fetch(directory.path(), "film", &[&source.address], &[]);
    fetched.done();
    is_there(&directory.path().join("film"), &bytes);
}

/// A tmpfs of a mebibyte where mounting is allowed; in a namespace of its own, which ends with it.
#[test]
fn a_full_disk_is_one_clear_error() {
    let bytes = content(6_000_000);
    let source = Source::start(Manner::Good, &bytes, BLOCK);
    let directory = tempfile::tempdir().expect("a directory");
    let probe = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(directory.path())
        .stderr(Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        // The test before this one stands for it.
        return;
    }
    let script = "mount -t tmpfs -o size=1m none \"$1\" && cd \"$1\" && \
                  \"$2\" fetch film --json --from \"$3\"; code=$?; ls >&2; exit $code";
    let mut full = Command::new("unshare");
    full.args(["-m", "sh", "-c", script, "sh"]).arg(directory.path());
    full.arg(env!("CARGO_BIN_EXE_cordee")).arg(&source.address);
    full.stdin(Stdio::null());
    let fetched = finish(full);
    assert!(fetched.why().contains("make room"), "{fetched:?}");
    assert_eq!(fetched.stderr, "", "nothing is left where nothing was stored");
}

#[test]
fn a_read_only_target_is_one_clear_error() {
    let bytes = content(100_000);
    let source = Source::start(Manner::Good, &bytes, BLOCK);
    let directory = tempfile::tempdir().expect("a directory");
    // Whoever is root may write wherever a directory only says otherwise; so there is another way.
    let fetched = fetch(directory.path(), "film", &[&source.address], &["-o", "/proc/film"]);
    assert!(fetched.why().starts_with("cannot open /proc/film.part"), "{fetched:?}");
}

#[test]
fn a_directory_that_is_gone_is_one_clear_error() {
    let bytes = content(6_000_000);
    let directory = tempfile::tempdir().expect("a directory");
    let source = Source::start(Manner::Slow(6_000_000), &bytes, BLOCK);
    let fetched = fetch(directory.path(), "film", &[&source.address], &["-o", "nowhere/film"]);
    assert!(fetched.why().contains("nowhere"), "{fetched:?}");
    // And in the middle.
    let inside = directory.path().join("inside");
    std::fs::create_dir(&inside).expect("made");
    let running = command(&inside, "film", &[&source.address], &[]);
    let mut child = begin(running, &inside.join("film"), 1);
    std::fs::remove_dir_all(&inside).expect("removed");
    let status = wait_until("its end", || child.try_wait().expect("it is ours"));
    assert_eq!(status.code(), Some(1));
}

#[test]
fn what_is_at_the_target_is_looked_at_first() {
    let bytes = content(700_000);
    let directory = tempfile::tempdir().expect("a directory");
    let film = directory.path().join("film");
    let source = Source::start(Manner::Good, &bytes, BLOCK);
    fetch(directory.path(), "film", &[&source.address], &[]).done();
    let again = fetch(directory.path(), "film", &[&source.address], &[]);
    assert_eq!((&again.done()["was_there"], again.received()), (&true.into(), 0));
    std::fs::write(&film, "another one").expect("written");
    let refused = fetch(directory.path(), "film", &[&source.address], &[]);
    assert!(refused.why().contains("--force"), "{refused:?}");
    is_there(&film, b"another one");
    fetch(directory.path(), "film", &[&source.address], &["--force"]).done();
    is_there(&film, &bytes);
    std::fs::create_dir(directory.path().join("there")).expect("made");
    let refused = fetch(directory.path(), "film", &[&source.address], &["-o", "there"]);
    assert!(refused.why().contains("is a directory"), "{refused:?}");
}

#[test]
fn only_a_file_is_replaced() {
    let bytes = content(100_000);
    let directory = tempfile::tempdir().expect("a directory");
    let source = Source::start(Manner::Good, &bytes, BLOCK);
    let film = directory.path().join("film");
    std::os::unix::fs::symlink("nowhere", &film).expect("made");
    let fetched = fetch(directory.path(), "film", &[&source.address], &[]);
    assert!(fetched.why().contains("--force"), "{fetched:?}");
    assert!(film.is_symlink());
    std::fs::remove_file(&film).expect("it is ours");
    let made = Command::new("mkfifo").arg(&film).status().expect("mkfifo (of coreutils) runs");
    assert!(made.success());
    for args in [&[][..], &["--force"]] {
        let fetched = fetch(directory.path(), "film", &[&source.address], args);
        assert!(fetched.why().contains("a pipe"), "{fetched:?}");
    }
}

#[test]
fn standard_output_gets_the_file_in_order() {
    let bytes = content(40_000_001);
    let sources = [0, 1].map(|_| Source::start(Manner::Good, &bytes, BLOCK));
    let mut child = cordee()
        .args(["fetch", "film", "-o", "-", "--hash", &hash(&bytes)])
        .args(["--from", &sources[0].address, "--from", &sources[1].address])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    let mut stdout = child.stdout.take().expect("piped");
    let mut piece = vec![0; 100_000];
    let mut there = 0;
    loop {
        let count = std::io::Read::read(&mut stdout, &mut piece).expect("it is open");
        if count == 0 {
            break;
        }
        assert!(bytes[there..there + count] == piece[..count], "wrong at {there}");
        there += count;
        // Whoever reads takes a break: that is no source's fault, and costs no memory.
        if there > 10_000_000 && there - count <= 10_000_000 {
            thread::sleep(Duration::from_millis(1_500));
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
            let status = status.expect("it runs");
            let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let rss = rss.expect("every process has one").trim().trim_end_matches(" kB");
            assert!(rss.parse::<u64>().expect("a number") < 80_000, "{rss} kB");
        }
    }
    assert_eq!(there, bytes.len());
    assert!(child.wait().expect("it ended").success());
}

#[test]
fn a_reader_that_goes_ends_it() {
    let bytes = content(40_000_000);
    let source = Source::start(Manner::Good, &bytes, BLOCK);
    let mut child = cordee()
        .args(["fetch", "film", "-o", "-", "--from", &source.address])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let status = wait_until("its end", || child.try_wait().expect("it is ours"));
    assert_eq!(status.code(), Some(1));
}

#[test]
fn one_of_two_servers_that_freezes_does_not_hold_it_up() {
    let bytes = content(8_000_000);
    let served = tempfile::tempdir().expect("a directory");
    std::fs::write(served.path().join("film"), &bytes).expect("written");
    let args = ["--limit-rate", "3M", "--block-size", "65536"];
    for share in [30_u64, 90] {
        let directory = tempfile::tempdir().expect("a directory");
        let servers = [0, 1].map(|_| Server::start(served.path(), &args));
        let addresses = servers.each_ref().map(|server| server.address.as_str());
        let running = command(directory.path(), "film", &addresses, &[]);
        let film = directory.path().join("film");
        let mut child = begin(running, &film, share * bytes.len() as u64 / 100 / 4);
        let frozen = pid(servers[0].pid());
        kill_process(frozen, Signal::STOP).expect("it runs");
        let status = wait_until("its end", || child.try_wait().expect("it is ours"));
        kill_process(frozen, Signal::CONT).expect("it is there");
        assert!(status.success(), "with one frozen at {share} %");
        is_there(&film, &bytes);
    }
}

#[test]
fn a_damaged_part_is_noticed_by_a_recheck() {
    let bytes = content(4_000_000);
    let directory = tempfile::tempdir().expect("a directory");
    let film = directory.path().join("film");
    let source = Source::start(Manner::Slow(2_000_000), &bytes, BLOCK);
    let running = command(directory.path(), "film", &[&source.address], &["--sequential"]);
    let mut child = begin(running, &film, 1);
    child.kill().expect("it is ours");
    child.wait().expect("it ended");
    let part = std::fs::OpenOptions::new().write(true).open(directory.path().join("film.part"));
    std::os::unix::fs::FileExt::write_all_at(&part.expect("there"), b"damage", 1_000)
        .expect("written");
    let good = Source::start(Manner::Good, &bytes, BLOCK);
    fetch(directory.path(), "film", &[&good.address], &["--recheck"]).done();
    is_there(&film, &bytes);
}

#[test]
fn a_limit_on_the_rate_holds() {
    let bytes = content(3_000_000);
    let directory = tempfile::tempdir().expect("a directory");
    let sources = [0, 1].map(|_| Source::start(Manner::Good, &bytes, BLOCK));
    let addresses = sources.each_ref().map(|source| source.address.as_str());
    let fetched = fetch(directory.path(), "film", &addresses, &["--limit-rate", "2M"]);
    let seconds = fetched.done()["seconds"].as_f64().expect("a number");
    // It cannot be faster; how much slower it is depends on the machine.
    assert!(seconds > 1.2, "{seconds} s");
    is_there(&directory.path().join("film"), &bytes);
}
