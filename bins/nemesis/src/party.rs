//! One who talks: `cordee chat --json`, written to and read from.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::book::{Body, ODD_ROOM, Scope};
use crate::failure::{Failure, Result, broken};
use crate::screen::{Screen, name};
use crate::server::{CLUSTER, command, lines};

/// A client and what it printed.
#[derive(Debug)]
pub(crate) struct Party {
    number: usize,
    process: Child,
    stdin: Option<ChildStdin>,
    screen: Arc<Mutex<Screen>>,
}

impl Party {
    /// Starts a client that knows one server.
    pub(crate) fn start(
        binary: &Path,
        within: &[String],
        directory: &Path,
        server: &str,
        number: usize,
        parties: usize,
    ) -> Result<Party> {
        let log = directory.join(format!("client-{}.log", name(number)));
        let log = File::create(&log).map_err(Failure::io(format!("{}", log.display())))?;
        let mut command = command(within, binary);
        command.args(["chat", "--json", "--cluster", CLUSTER, "--name", &name(number), server]);
        command.env("XDG_STATE_HOME", directory).stderr(log);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(Failure::io(format!("{}", binary.display())))?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let screen = Arc::new(Mutex::new(Screen::new(number, parties)));
        let shared = Arc::clone(&screen);
        let Some(stdout) = stdout else { return broken("a client has no standard output") };
        let printed = lines(stdout)?;
        let thread = thread::Builder::new().name(name(number));
        let read = move || {
            for line in printed {
                lock(&shared).take(&line);
            }
            lock(&shared).ended = true;
        };
        thread.spawn(read).map_err(Failure::io("a thread"))?;
        Ok(Party { number, process, stdin, screen })
    }

    /// What it printed so far.
    pub(crate) fn screen(&self) -> MutexGuard<'_, Screen> {
        lock(&self.screen)
    }

    /// Says something; what it says tells what it is.
    pub(crate) fn say(&mut self, body: &Body) -> Result<()> {
        let to = match body.scope {
            Scope::All => "#all".to_owned(),
            Scope::Odd => ODD_ROOM.to_owned(),
            Scope::Talk(low, high) => name(if low == self.number { high } else { low }),
        };
        self.send(&json!({"say": body.to_string(), "to": to, "ref": body.key.1}))
    }

    /// Writes one line.
    pub(crate) fn send(&mut self, request: &Value) -> Result<()> {
        let Some(stdin) = &mut self.stdin else { return broken("a client was told to end") };
        let who = name(self.number);
        writeln!(stdin, "{request}").map_err(Failure::io(format!("the client {who}")))
    }

    /// Ends its input and waits for its end.
    pub(crate) fn finish(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.stdin = None;
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.process.try_wait().map_err(Failure::io("a client"))? {
                return Ok(status);
            }
            if Instant::now() > end {
                return broken(format!("{} does not end", name(self.number)));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}
