//! Real clusters and clients for tests: the binary itself, started, talked to by JSON lines, killed
//! by process id, and ended when a test is over, whatever its outcome.
//!
//! ```text
//! let cluster = Cluster::start(&["--servers", "3", "--allow-kill"]);
//! let mut ada = Client::start(&cluster.addresses[..1], "ada");
//! let mut bob = Client::start(&cluster.addresses[1..2], "bob");
//! ada.say("hello");
//! bob.wait("ada's hello", |event| event["body"] == "hello");
//! cluster.kill(0);
//! cluster.wait_until_equal();
//! ```

#![allow(dead_code, unreachable_pub, reason = "each test file takes what it needs")]

pub mod block_server;
pub mod fetching;
pub mod raw;
pub mod sources;
pub mod terminal;
pub mod witness;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// For how long a test waits for what must happen. A limit against hanging, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// After this even a server whose test was killed ends.
const SERVER_SECONDS_MAX: &str = "900";

/// The program under test.
pub fn cordee() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cordee"))
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> std::process::Output {
    cordee().args(args).stdin(Stdio::null()).output().expect("the program runs")
}

/// What it printed, as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until `done` gives something.
pub fn wait_until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A process id for signals.
pub fn pid(number: u64) -> Pid {
    Pid::from_raw(number as i32).expect("a process id")
}

/// Whether a process with that id runs. A zombie does not.
pub fn runs(number: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Whether every thread of the process with that id is stopped.
fn is_stopped(number: u64) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{number}/task")).expect("it is there");
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// Lines that a process prints, collected as they come.
pub struct Lines {
    so_far: Arc<Mutex<Vec<String>>>,
    thread: thread::JoinHandle<()>,
}

impl Lines {
    /// Collects what is read from there.
    pub fn collect(from: impl std::io::Read + Send + 'static) -> Lines {
        let so_far = Arc::default();
        let into: Arc<Mutex<Vec<String>>> = Arc::clone(&so_far);
        let thread = thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                into.lock().expect("nobody panics with it").push(line);
            }
        });
        Lines { so_far, thread }
    }

    /// All lines so far.
    pub fn copy(&self) -> Vec<String> {
        self.so_far.lock().expect("nobody panics with it").clone()
    }

    /// All lines of a process that has ended.
    fn all(&self) -> Vec<String> {
        wait_until("the last line", || self.thread.is_finished().then_some(()));
        self.copy()
    }
}

/// Chat servers under one parent.
pub struct Cluster {
    /// `timeout`, which ends the servers when a killed test no longer can.
    process: Child,
    /// Where each server listens.
    pub addresses: Vec<String>,
    cluster: String,
    stderr: Lines,
}

impl Cluster {
    /// Runs `cordee chat-server` with these arguments; on free ports unless they say which. Waits
    /// until every server accepts connections, and without peers elsewhere until all are linked.
    pub fn start(args: &[&str]) -> Cluster {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=20", SERVER_SECONDS_MAX, env!("CARGO_BIN_EXE_cordee")]);
        command.arg("chat-server").args(args);
        if !args.contains(&"-p") && !args.contains(&"--port") {
            command.args(["-p", "0"]);
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("timeout (of coreutils) runs");
        let stdout = Lines::collect(process.stdout.take().expect("piped"));
        let stderr = Lines::collect(process.stderr.take().expect("piped"));
        let value = |name| {
            let at = args.iter().position(|arg| *arg == name)?;
            args.get(at + 1).copied()
        };
        let servers = if args.contains(&"--peer") { "1" } else { "5" };
        let servers: usize = value("--servers").unwrap_or(servers).parse().expect("a number");
        let cluster = value("--cluster").unwrap_or("cordee").to_owned();
        let mut cluster = Cluster { process, addresses: Vec::new(), cluster, stderr };
        cluster.addresses = wait_until("the servers to listen", || {
            if let Ok(Some(status)) = cluster.process.try_wait() {
                panic!("the servers ended: {status}\n{}", cluster.stderr().join("\n"));
            }
            let lines = stdout.copy();
            let addresses = lines.iter().filter_map(|line| line.strip_prefix("listening on "));
            let addresses: Vec<String> = addresses.map(str::to_owned).collect();
            (addresses.len() == servers).then_some(addresses)
        });
        if !args.contains(&"--peer") {
            // Until they are linked, a server may send a newcomer on to the next.
            cluster.wait_until_equal();
        }
        cluster
    }

    /// What the servers and their parent said on standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.copy()
    }

    /// What `cordee status --json` prints of that server now; `None` when it does not answer.
    pub fn try_status(&self, index: usize) -> Option<Value> {
        try_status(&self.addresses[index], &self.cluster)
    }

    /// As [`try_status`](Self::try_status), waiting for an answer.
    pub fn status(&self, index: usize) -> Value {
        wait_until("a server to answer", || self.try_status(index))
    }

    /// The process that serves, by its own word.
    pub fn pid(&self, index: usize) -> u64 {
        self.status(index)["pid"].as_u64().expect("a process id")
    }

    /// The process that keeps the servers alive.
    pub fn parent_pid(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid(0));
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        line.expect("every process has one").trim().parse().expect("a number")
    }

    /// Sends a signal to the process that serves. Returns its id. One that is stopped has stopped: its
    /// threads do so one by one.
    pub fn signal(&self, index: usize, signal: Signal) -> u64 {
        let number = self.pid(index);
        kill_process(pid(number), signal).expect("it runs");
        if signal == Signal::STOP {
            wait_until("all threads to stop", || is_stopped(number).then_some(()));
        }
        number
    }

    /// `kill -9` of the process that serves. Returns its id.
    pub fn kill(&self, index: usize) -> u64 {
        self.signal(index, Signal::KILL)
    }

    /// Waits until another process serves at that place than `before`.
    pub fn wait_until_back(&self, index: usize, before: u64) {
        wait_until("the server to be back", || {
            let status = self.try_status(index)?;
            (status["pid"].as_u64() != Some(before)).then_some(())
        });
    }

    /// Waits until all servers hold the same: equal MA, equal digest, all linked. Returns MA.
    pub fn wait_until_equal(&self) -> u64 {
        wait_until_equal(&self.addresses, &self.cluster)
    }

    /// Asks all servers to stop (`SIGTERM`) and waits until they have.
    pub fn stop(mut self) -> ExitStatus {
        kill_process(pid(self.process.id().into()), Signal::TERM).expect("it runs");
        wait_until("the servers to stop", || self.process.try_wait().expect("it is ours"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            let told = self.stderr().join("\n");
            let _ = writeln!(std::io::stderr(), "servers {:?} said:\n{told}", self.addresses);
        }
        if matches!(self.process.try_wait(), Ok(None)) {
            // It passes the signal on; the servers die with their parent.
            let timeout = pid(self.process.id().into());
            let _ = kill_process(timeout, Signal::TERM);
            let begun = Instant::now();
            while matches!(self.process.try_wait(), Ok(None)) {
                if begun.elapsed() > Duration::from_secs(15) {
                    let _ = self.process.kill();
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// What `cordee status --json` prints of the server at `address`; `None` when it does not answer.
pub fn try_status(address: &str, cluster: &str) -> Option<Value> {
    let output = run(&["status", address, "--json", "--cluster", cluster]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    status.get("error").is_none().then_some(status)
}

/// Waits until all these servers hold the same: equal MA, equal digest, all linked. Returns MA.
pub fn wait_until_equal(addresses: &[String], cluster: &str) -> u64 {
    let mut last = Vec::new();
    let begun = Instant::now();
    loop {
        let statuses: Vec<Option<Value>> =
            addresses.iter().map(|address| try_status(address, cluster)).collect();
        if let Some(statuses) = statuses.iter().cloned().collect::<Option<Vec<Value>>>() {
            let first = &statuses[0];
            let same = |status: &Value| {
                let members = status["members"].as_array().expect("a list");
                status["ma"] == first["ma"]
                    && status["digest"] == first["digest"]
                    && members.iter().all(|member| member["state"] == "linked")
                    && members.len() >= addresses.len()
            };
            if statuses.iter().all(same) {
                return first["ma"].as_u64().expect("a number");
            }
        }
        last.clone_from(&statuses);
        assert!(begun.elapsed() < PATIENCE, "the servers never hold the same: {last:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// `cordee chat --json`.
pub struct Client {
    name: String,
    process: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Value>,
    /// Every event so far that was taken, in order.
    pub seen: Vec<Value>,
    stderr: Lines,
    _state: tempfile::TempDir,
}

impl Client {
    /// A client that is connected to one of these servers.
    pub fn start(servers: &[String], name: &str) -> Client {
        Client::start_with(servers, &["--name", name])
    }

    /// As [`start`](Self::start), with these arguments besides `--json`.
    pub fn start_with(servers: &[String], args: &[&str]) -> Client {
        let mut client = Client::spawn(servers, args, None);
        client.wait("connected", |event| event["event"] == "connected");
        client
    }

    /// A client that need not be connected. Its sessions are kept in `state`, by default in a place
    /// of its own.
    pub fn spawn(servers: &[String], args: &[&str], state: Option<&Path>) -> Client {
        let own = tempfile::tempdir().expect("a directory for its sessions");
        let mut process = cordee()
            .args(["chat", "--json"])
            .args(args)
            .args(servers)
            .env("XDG_STATE_HOME", state.unwrap_or(own.path()))
            // Whose login name is no name has none.
            .env("USER", "...")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().expect("piped");
        let stderr = Lines::collect(process.stderr.take().expect("piped"));
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("not a JSON line ({error}): {line:?}"));
                // The client may be dropped before its end.
                let _ = sender.send(event);
            }
        });
        let name = args.join(" ");
        Client { name, process, stdin, events, seen: Vec::new(), stderr, _state: own }
    }

    /// The client's process.
    pub fn pid(&self) -> u64 {
        self.process.id().into()
    }

    /// What the client said on standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.copy()
    }

    /// Sends one line.
    pub fn send(&mut self, request: &Value) {
        self.send_line(&request.to_string());
    }

    /// Sends one line, JSON or not.
    pub fn send_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// Says something to the current room; `ref` is the text.
    pub fn say(&mut self, text: &str) {
        self.send(&json!({"say": text, "ref": text}));
    }

    /// Says something to a person or a room; `ref` is the text.
    pub fn say_to(&mut self, to: &str, text: &str) {
        self.send(&json!({"say": text, "to": to, "ref": text}));
    }

    /// Takes events until one is what the test waits for.
    pub fn wait(&mut self, what: &str, mut is_it: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if is_it(&event) {
                        return event;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.fail(&format!("waited in vain for {what}")),
                Err(RecvTimeoutError::Disconnected) => {
                    self.fail(&format!("the client ended before {what}"));
                }
            }
        }
    }

    /// Takes events until one of that kind.
    pub fn wait_for(&mut self, kind: &str) -> Value {
        self.wait(kind, |event| event["event"] == kind)
    }

    /// Takes events until that body is shown.
    pub fn wait_for_body(&mut self, body: &str) -> Value {
        self.wait(body, |event| event["event"] == "message" && event["body"] == body)
    }

    /// Takes events until what was said with that `ref` is acknowledged.
    pub fn wait_for_sent(&mut self, reference: &str) -> Value {
        self.wait(reference, |event| event["event"] == "sent" && event["ref"] == reference)
    }

    /// Asks for the status of the connection.
    pub fn status(&mut self) -> Value {
        self.send(&json!({"status": true}));
        self.wait_for("status")
    }

    /// Waits until MT = MA, both equal to what the client holds. Returns MA.
    pub fn wait_until_drained(&mut self) -> u64 {
        wait_until("MT = MA", || {
            let status = self.status();
            let drained = status["ma"] == status["mt"] && status["ma"] == status["held"];
            drained.then(|| status["ma"].as_u64().expect("a number"))
        })
    }

    /// The bodies of all messages that were shown so far, in order.
    pub fn bodies(&self) -> Vec<String> {
        let messages = self.seen.iter().filter(|event| event["event"] == "message");
        messages.map(|event| event["body"].as_str().expect("a string").to_owned()).collect()
    }

    /// Ends its input.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("it is ours").is_some()
    }

    /// Ends its input and waits for its end; takes all events that are left.
    pub fn finish(mut self) -> Finished {
        self.end_input();
        let status =
            wait_until("the client to end", || self.process.try_wait().expect("it is ours"));
        while let Ok(event) = self.events.recv_timeout(PATIENCE) {
            self.seen.push(event);
        }
        let seen = std::mem::take(&mut self.seen);
        Finished { status, seen, stderr: self.stderr.all() }
    }

    fn fail(&self, what: &str) -> ! {
        let seen: Vec<String> = self.seen.iter().map(Value::to_string).collect();
        panic!(
            "{} {what}; seen:\n{}\nstandard error:\n{}",
            self.name,
            seen.join("\n"),
            self.stderr().join("\n")
        );
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// A client that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// Every event of its life.
    pub seen: Vec<Value>,
    /// What it said on standard error.
    pub stderr: Vec<String>,
}
