//! Ends that nobody wished for, and what the process runs out of. Tests that count what a whole
//! process has run in one of their own.

use std::process::Command;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

#[test]
fn a_crash_cuts_every_connection_and_is_told_of() {
    let called = Arc::new(Mutex::new(0));
    let count = Arc::clone(&called);
    let call = OnCrash::Call(Arc::new(move || *lock(&count) += 1));
    let rig = Rig::with(|config| config.on_crash = call, |_| ());
    let mut streams = [rig.connect(), rig.connect()];
    rig.accepted(2);
    say(&mut streams[0], ask::CRASH, b"");
    for stream in &mut streams {
        assert_eq!(hear(stream), None, "without a word");
    }
    assert_eq!(rig.server.wait().expect("no thread died"), Ended::Crashed);
    assert_eq!(*lock(&called), 1);
}

#[test]
fn a_hub_that_panics_takes_the_server_with_it_and_says_why() {
    let rig = Rig::start();
    let mut stream = rig.connect();
    let mut other = rig.connect();
    rig.accepted(2);
    say(&mut stream, ask::PANIC, b"");
    assert_eq!(hear(&mut stream), None);
    assert_eq!(hear(&mut other), None);
    let said = rig.server.wait().expect_err("the hub died").to_string();
    assert!(said.contains("cordee-hub") && said.contains("asked to"), "{said}");
}

/// Runs this test alone in a process of its own; returns whether this is that process.
fn alone(test: &str) -> bool {
    const ALONE: &str = "CORDEE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some_and(|alone| alone == test) {
        return true;
    }
    let name = format!("server::tests::faults::{test}");
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args([&name, "--exact", "--nocapture"])
        .env(ALONE, test)
        .output()
        .expect("it can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{failed}");
    false
}

/// Names of the threads of this process that belong to a server.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread may end while we look.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).filter(|name| name.starts_with("cordee-")).collect()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}

#[test]
fn a_stop_joins_every_thread_and_closes_every_descriptor() {
    if !alone("a_stop_joins_every_thread_and_closes_every_descriptor") {
        return;
    }
    let before = descriptors();
    for way in 0..3 {
        let rig = Rig::with(|config| config.pumps = 1, |_| ());
        let mut streams: Vec<_> = (0..20).map(|_| rig.connect()).collect();
        rig.accepted(20);
        say(&mut streams[0], ask::PAUSE, b"");
        say(&mut streams[0], ask::NOTE, b"not read");
        say(&mut streams[1], ask::DIAL, b"127.0.0.1:1");
        rig.notes.wait_for(&Seen::DialFailed);
        // However many are connected: hub, acceptor, keeper, a pump and a reader. The one that
        // dialled ends.
        while threads().len() != 5 {
            std::thread::yield_now();
        }
        match way {
            0 => {
                rig.server.stop();
                rig.server.wait().expect("no thread died");
            }
            1 => drop(rig),
            _ => {
                say(&mut streams[1], ask::CRASH, b"");
                rig.server.wait().expect("no thread died");
            }
        }
        assert_eq!(crate::threads::running(), 0, "all were joined");
        // A thread that was joined is listed until the kernel has put it away.
        let latest = Instant::now() + PATIENCE;
        while !threads().is_empty() {
            assert!(Instant::now() < latest, "still there: {:?}", threads());
            std::thread::yield_now();
        }
        drop(streams);
        assert_eq!(descriptors(), before);
    }
}

#[test]
fn without_descriptors_a_server_refuses_and_goes_on_when_there_are_some() {
    if !alone("without_descriptors_a_server_refuses_and_goes_on_when_there_are_some") {
        return;
    }
    let rig = Rig::start();
    let mut first = rig.connect();
    rig.accepted(1);
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(descriptors() as u64 + 5), maximum: limit.maximum };
    setrlimit(Resource::Nofile, few).expect("less is always allowed");
    let mut streams = Vec::new();
    while let Ok(stream) = TcpStream::connect(rig.server.local_addr()) {
        streams.push(stream);
    }
    say(&mut first, ask::ECHO, b"served");
    assert_eq!(hear(&mut first), Some((ask::ECHO, b"served".to_vec())));
    let starved = || lock(&rig.lines).iter().any(|line| line.contains("ulimit -n"));
    while !starved() {
        std::thread::yield_now();
    }
    drop(streams);
    setrlimit(Resource::Nofile, limit).expect("up to the maximum");
    let mut later = rig.connect();
    say(&mut later, ask::ECHO, b"served");
    assert_eq!(hear(&mut later), Some((ask::ECHO, b"served".to_vec())));
    assert_eq!(rig.server.wait_stopped(), Ended::Stopped);
}

impl RunningServer {
    fn wait_stopped(self) -> Ended {
        self.stop();
        self.wait().expect("no thread died")
    }
}
