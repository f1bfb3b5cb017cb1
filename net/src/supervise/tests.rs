//! With real processes: what is tested is what the system does.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// `script`, run by a shell, under a policy that does not keep a test waiting.
fn supervise(script: &str, early_deaths_max: u32) -> (Supervisor, Receiver<Event>) {
    let program = Program {
        name: "script".to_owned(),
        path: "/bin/sh".into(),
        arg0: "sh".into(),
        args: vec!["-c".into(), script.into()],
        env: Vec::new(),
        ready: "ready ".to_owned(),
    };
    let policy = Policy {
        delay: Duration::from_millis(1),
        delay_max: Duration::from_millis(4),
        early_deaths_max,
        ..Policy::default()
    };
    let (sender, events) = channel();
    let supervisor = Supervisor::start(vec![program], policy, move |event| {
        // A test that has seen enough no longer listens.
        let _ = sender.send(event);
    });
    (supervisor.expect("a thread and a pipe"), events)
}

fn next(events: &Receiver<Event>) -> Event {
    events.recv_timeout(PATIENCE).expect("an event in time")
}

fn next_ready(events: &Receiver<Event>) -> (u32, u64) {
    loop {
        if let Event::Ready { pid, rest, restarts, .. } = next(events) {
            assert_eq!(rest, "on port 7");
            return (pid, restarts);
        }
    }
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw as i32).expect("not zero")
}

/// Waits until the process has ended; it need not be a child of ours.
fn wait_for_end(raw: u32) {
    let Ok(pidfd) = pidfd_open(pid(raw), PidfdFlags::empty()) else { return };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&timespec(PATIENCE))), Ok(1), "process {raw} still runs");
}

#[test]
fn a_killed_child_is_started_again_and_says_so_when_it_is_ready() {
    let (supervisor, events) = supervise("echo hello; echo ready on port 7; exec sleep 1000", 3);
    let (mut last, restarts) = next_ready(&events);
    assert_eq!(restarts, 0);
    for expected in 1..=4 {
        rustix::process::kill_process(pid(last), Signal::KILL).expect("it runs");
        match next(&events) {
            Event::Died { child: 0, why, restart_in } => {
                assert_eq!(why, "signal: 9 (SIGKILL)");
                assert_eq!(restart_in.is_zero(), expected == 1, "the first restart is at once");
            }
            other => panic!("{other:?}"),
        }
        let (pid, restarts) = next_ready(&events);
        assert_ne!(pid, last);
        assert_eq!(restarts, expected);
        last = pid;
    }
    drop(supervisor);
    wait_for_end(last);
}

#[test]
fn a_child_that_never_gets_ready_is_given_up() {
    let (supervisor, events) = supervise("exit 3", 4);
    let mut deaths = 0;
    loop {
        match next(&events) {
            Event::Started { .. } => {}
            Event::Died { why, .. } => {
                assert_eq!(why, "exit status: 3");
                deaths += 1;
            }
            Event::GaveUp { why, .. } => {
                assert_eq!(why, "exit status: 3");
                break;
            }
            other @ (Event::Ready { .. } | Event::Stopped) => panic!("{other:?}"),
        }
    }
    assert_eq!(deaths, 3);
    supervisor.stop(PATIENCE);
    supervisor.wait();
}

#[test]
fn a_program_that_is_not_there_is_given_up_with_the_reason() {
    let program = Program {
        name: "nothing".to_owned(),
        path: "/nonexistent/program".into(),
        arg0: "program".into(),
        args: Vec::new(),
        env: Vec::new(),
        ready: String::new(),
    };
    let policy = Policy { early_deaths_max: 1, ..Policy::default() };
    let (sender, events) = channel();
    let supervisor =
        Supervisor::start(vec![program], policy, move |event| drop(sender.send(event)));
    match next(&events) {
        Event::GaveUp { why, .. } => {
            assert!(why.starts_with("/nonexistent/program cannot be run"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    drop(supervisor);
}

#[test]
fn stopping_asks_first_and_does_not_restart() {
    let (supervisor, events) =
        supervise("trap 'exit 0' TERM; echo ready on port 7; while :; do sleep 0.01; done", 3);
    let (pid, _) = next_ready(&events);
    supervisor.stop(PATIENCE);
    supervisor.wait();
    wait_for_end(pid);
    assert_eq!(next(&events), Event::Stopped);
    assert!(events.recv().is_err(), "nothing follows");
}

#[test]
fn who_does_not_stop_in_time_is_killed() {
    let (supervisor, events) =
        supervise("trap '' TERM; echo ready on port 7; while :; do sleep 0.01; done", 3);
    let (pid, _) = next_ready(&events);
    supervisor.stop(Duration::from_millis(1));
    supervisor.wait();
    wait_for_end(pid);
}

#[test]
fn a_second_order_kills_at_once() {
    let (supervisor, events) =
        supervise("trap '' TERM; echo ready on port 7; while :; do sleep 0.01; done", 3);
    let (pid, _) = next_ready(&events);
    supervisor.stop(Duration::from_secs(100_000));
    supervisor.kill();
    supervisor.wait();
    wait_for_end(pid);
}

/// Binds as a server does: std sets `SO_REUSEADDR`. Another test may be about to run a program, and
/// that process then holds the listener of before for a moment, until it executes.
fn bind(address: SocketAddr) -> std::net::TcpListener {
    let begun = Instant::now();
    loop {
        match std::net::TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_reserved_port_refuses_connections_and_can_be_bound_by_who_reuses() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let reserved = ReservedPort::new(any).expect("a free port");
    let address = reserved.address();
    let refused = std::net::TcpStream::connect(address).expect_err("nobody listens");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    for _ in 0..2 {
        let listener = bind(address);
        std::net::TcpStream::connect(address).expect("it listens");
        drop(listener);
    }
    let listener = bind(address);
    let taken = ReservedPort::new(address).expect_err("somebody listens");
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    drop(listener);
}

/// The name of the variable that makes this test binary play a part in the test below.
const ROLE: &str = "CORDEE_TEST_ROLE";

#[test]
fn no_child_outlives_a_parent_that_is_killed() {
    let mut parent = Command::new(env::current_exe().expect("our own path"))
        .args(["--exact", "supervise::tests::plays_the_parent", "--ignored", "--nocapture"])
        .env(ROLE, "parent")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test binary runs");
    let mut lines = BufReader::new(parent.stdout.take().expect("piped")).lines();
    let child = loop {
        let line = lines.next().expect("it says who its child is").expect("text");
        // The test runner may have begun the line.
        if let Some((_, child)) = line.split_once("the child is ") {
            break child.parse().expect("a process id");
        }
    };
    parent.kill().expect("it runs");
    parent.wait().expect("it ends");
    wait_for_end(child);
}

#[test]
#[ignore = "a part played in another test"]
fn plays_the_parent() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let name = "supervise::tests::plays_the_child";
    let program = Program {
        name: "child".to_owned(),
        path: env::current_exe().expect("our own path"),
        arg0: "child".into(),
        args: ["--exact", name, "--ignored", "--nocapture"].map(Into::into).to_vec(),
        env: Vec::new(),
        ready: "this child is ready".to_owned(),
    };
    let (sender, events) = channel();
    let _supervisor =
        Supervisor::start(vec![program], Policy::default(), move |event| drop(sender.send(event)));
    for event in events {
        if let Event::Ready { pid, .. } = event {
            let mut out = io::stdout();
            writeln!(out, "the child is {pid}").expect("somebody reads");
            out.flush().expect("somebody reads");
        }
    }
}

#[test]
#[ignore = "a part played in another test"]
fn plays_the_child() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let parent = getppid().expect("a parent").as_raw_pid() as u32;
    die_with_parent(parent).expect("the parent lives");
    let mut out = io::stdout();
    writeln!(out, "\nthis child is ready").expect("somebody reads");
    out.flush().expect("somebody reads");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_child_whose_parent_died_before_it_could_ask_is_told_so() {
    let status = Command::new(env::current_exe().expect("our own path"))
        .args(["--exact", "supervise::tests::plays_the_orphan", "--ignored"])
        .env(ROLE, "orphan")
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("the test binary runs").success());
}

#[test]
#[ignore = "a part played in another test"]
fn plays_the_orphan() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    // It is nobody's parent, least of all its own.
    die_with_parent(process::id()).expect_err("another process is the parent");
}
