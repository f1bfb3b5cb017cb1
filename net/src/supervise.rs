//! Keeps child processes alive, and never lets one outlive its parent.
//!
//! ```text
//!            spawn             its ready line
//!  Waiting ────────▶ Starting ────────────────▶ Ready
//!     ▲                 │ dies                    │ dies
//!     └── at once, then 50 ms doubling to 5 s ────┘
//!                       │ was never ready and died ten times
//!                       ▼
//!                    Given up
//! ```
//!
//! One thread spawns every child, waits for all of them at once (by their process descriptors, so
//! a signal never reaches a stranger that took a dead child's number) and lives as long as the
//! [`Supervisor`]. That matters: the kernel sends a child its death signal when the *thread* that
//! made it ends. A child asks for that signal itself, by [`die_with_parent`], first of all.
//!
//! Every child leads a process group of its own: Ctrl-C at a terminal reaches the parent alone,
//! which then stops its children in good order.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};

mod port;
mod restarts;

pub use port::ReservedPort;
pub use restarts::Policy;
use restarts::Restarts;

/// What to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// What people call it: it stands in errors.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// The name under which it is listed.
    pub arg0: OsString,
    /// Its arguments, without its own name.
    pub args: Vec<OsString>,
    /// What its environment has beside, or instead of, the parent's.
    pub env: Vec<(OsString, OsString)>,
    /// How the line on its standard output begins by which it says that it accepts connections.
    pub ready: String,
}

/// What became of a child. `child` is its place in the list that [`Supervisor::start`] was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It runs.
    Started {
        /// Which.
        child: usize,
        /// Its process.
        pid: u32,
    },
    /// It accepts connections.
    Ready {
        /// Which.
        child: usize,
        /// Its process.
        pid: u32,
        /// The line by which it said so, without what was expected at its beginning.
        rest: String,
        /// How often it was started before.
        restarts: u64,
    },
    /// It ended without being told to, and is started again.
    Died {
        /// Which.
        child: usize,
        /// How it ended.
        why: String,
        /// When it is started again.
        restart_in: Duration,
    },
    /// It was never ready, died again and again, and is left alone.
    GaveUp {
        /// Which.
        child: usize,
        /// How it ended the last time.
        why: String,
    },
    /// All have ended, after [`Supervisor::stop`] or [`Supervisor::kill`]. Nothing follows.
    Stopped,
}

/// Runs children and restarts those that die. Dropping it kills them.
#[derive(Debug)]
pub struct Supervisor {
    order: Arc<Mutex<Order>>,
    wake: PipeWriter,
    thread: Option<JoinHandle<()>>,
}

/// What the children are to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Run,
    Stop { deadline: Instant },
    Kill,
}

impl Supervisor {
    /// Starts `programs` and keeps them alive. `on_event` is called by the supervising thread: while
    /// it blocks, nothing is restarted.
    ///
    /// # Errors
    ///
    /// When the system has no thread or pipe left. A program that cannot be started counts as one
    /// that died, and is told to `on_event`.
    pub fn start(
        programs: Vec<Program>,
        policy: Policy,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> io::Result<Supervisor> {
        let (woken, wake) = io::pipe()?;
        let order = Arc::new(Mutex::new(Order::Run));
        let now = Instant::now();
        let seed = u64::from(process::id());
        let children = programs.into_iter().enumerate().map(|(index, program)| Child {
            program,
            restarts: Restarts::new(&policy, seed + index as u64),
            starts: 0,
            state: State::Waiting { until: now },
        });
        let mut supervision = Supervision {
            children: children.collect(),
            order: Arc::clone(&order),
            woken,
            asked: Order::Run,
            on_event: Box::new(on_event),
        };
        let thread = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || supervision.run())?;
        Ok(Supervisor { order, wake, thread: Some(thread) })
    }

    /// Asks all children to stop (`SIGTERM`); those that still run after `grace` are killed.
    pub fn stop(&self, grace: Duration) {
        self.ask(Order::Stop { deadline: Instant::now() + grace });
    }

    /// Kills all children at once.
    pub fn kill(&self) {
        self.ask(Order::Kill);
    }

    /// Waits until all children have ended, after [`stop`](Self::stop) or [`kill`](Self::kill).
    pub fn wait(mut self) {
        self.join();
    }

    fn ask(&self, order: Order) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = order;
        // A full pipe means that the thread is about to look anyway.
        let _ = (&self.wake).write(&[1]);
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened; the children died with the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.kill();
            self.join();
        }
    }
}

/// To be called by a child before anything else: from now on it dies (`SIGKILL`) with the thread
/// that made it, in the process `parent`.
///
/// # Errors
///
/// When that process is not the parent any more (it died before the call), or the system refuses.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    match getppid() {
        Some(pid) if pid.as_raw_pid() as u32 == parent => Ok(()),
        _ => Err(io::Error::other("the process that started this one has gone")),
    }
}

/// What the supervising thread holds.
struct Supervision {
    children: Vec<Child>,
    order: Arc<Mutex<Order>>,
    woken: PipeReader,
    /// The order that was carried out last.
    asked: Order,
    on_event: Box<dyn FnMut(Event) + Send>,
}

struct Child {
    program: Program,
    restarts: Restarts,
    starts: u64,
    state: State,
}

enum State {
    Waiting { until: Instant },
    Running(Running),
    Ended,
}

struct Running {
    process: process::Child,
    pidfd: OwnedFd,
    stdout: Option<ChildStdout>,
    /// The line that is being read.
    line: Vec<u8>,
    started: Instant,
    ready: bool,
}

impl Supervision {
    fn run(&mut self) {
        loop {
            self.obey();
            if self.asked == Order::Run {
                self.spawn_due();
            }
            if self.asked != Order::Run
                && !self.children.iter().any(|child| matches!(child.state, State::Running(_)))
            {
                (self.on_event)(Event::Stopped);
                return;
            }
            self.sleep();
            for index in 0..self.children.len() {
                self.look_at(index);
            }
        }
    }

    /// Carries out a new order, and kills those who did not stop in time.
    fn obey(&mut self) {
        let mut order = *self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Order::Stop { deadline } = order
            && Instant::now() >= deadline
        {
            order = Order::Kill;
        }
        if order == self.asked || self.asked == Order::Kill {
            return;
        }
        self.asked = order;
        let signal = match order {
            Order::Run => return,
            Order::Stop { .. } => Signal::TERM,
            Order::Kill => Signal::KILL,
        };
        for child in &self.children {
            if let State::Running(running) = &child.state {
                // It fails only for a child that has ended and is seen to have in a moment.
                let _ = pidfd_send_signal(&running.pidfd, signal);
            }
        }
    }

    fn spawn_due(&mut self) {
        for (index, child) in self.children.iter_mut().enumerate() {
            match child.state {
                State::Waiting { until } if until <= Instant::now() => {}
                _ => continue,
            }
            match child.spawn() {
                Ok(running) => {
                    let pid = running.process.id();
                    child.state = State::Running(running);
                    child.starts += 1;
                    (self.on_event)(Event::Started { child: index, pid });
                }
                Err(error) => {
                    let why = format!("{} cannot be run: {error}", child.program.path.display());
                    let event = child.after_death(index, Duration::ZERO, false, why);
                    (self.on_event)(event);
                }
            }
        }
    }

    /// Sleeps until a child says something or ends, an order comes, or something is due.
    fn sleep(&mut self) {
        let mut due: Option<Instant> = match self.asked {
            Order::Stop { deadline } => Some(deadline),
            Order::Run | Order::Kill => None,
        };
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
        for child in &self.children {
            match &child.state {
                State::Running(running) => {
                    fds.push(PollFd::new(&running.pidfd, PollFlags::IN));
                    if let Some(stdout) = &running.stdout {
                        fds.push(PollFd::new(stdout, PollFlags::IN));
                    }
                }
                State::Waiting { until } if self.asked == Order::Run => {
                    due = Some(due.map_or(*until, |due| due.min(*until)));
                }
                State::Waiting { .. } | State::Ended => {}
            }
        }
        let timeout = due.map(|due| timespec(due.saturating_duration_since(Instant::now())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) if !fds[0].revents().is_empty() => {
                let _ = (&self.woken).read(&mut [0; 64]);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // The system is short of memory: everything is looked at again in a moment.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }

    /// Reads what the child says, then sees whether it has ended.
    fn look_at(&mut self, index: usize) {
        let child = &mut self.children[index];
        let State::Running(running) = &mut child.state else { return };
        if let Some(rest) = running.read_ready_line(&child.program.ready) {
            running.ready = true;
            let (pid, restarts) = (running.process.id(), child.starts - 1);
            (self.on_event)(Event::Ready { child: index, pid, rest, restarts });
        }
        let State::Running(running) = &mut child.state else { return };
        let why = match running.process.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => status.to_string(),
            Err(error) => format!("its end cannot be learned: {error}"),
        };
        let (ran, ready) = (running.started.elapsed(), running.ready);
        if self.asked != Order::Run {
            child.state = State::Ended;
            return;
        }
        let event = child.after_death(index, ran, ready, why);
        (self.on_event)(event);
    }
}

impl Child {
    fn spawn(&self) -> io::Result<Running> {
        let mut process = Command::new(&self.program.path)
            .arg0(&self.program.arg0)
            .args(&self.program.args)
            .envs(self.program.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&process);
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // Not supervised is not left running.
                let _ = process.kill();
                let _ = process.wait();
                return Err(error.into());
            }
        };
        let stdout = process.stdout.take();
        let started = Instant::now();
        Ok(Running { process, pidfd, stdout, line: Vec::new(), started, ready: false })
    }

    fn after_death(&mut self, child: usize, ran: Duration, ready: bool, why: String) -> Event {
        match self.restarts.after_death(ran, ready) {
            Some(restart_in) => {
                self.state = State::Waiting { until: Instant::now() + restart_in };
                Event::Died { child, why, restart_in }
            }
            None => {
                self.state = State::Ended;
                Event::GaveUp { child, why }
            }
        }
    }
}

impl Running {
    /// Reads once, if there is something. Returns what follows `expected` on the first line that
    /// begins so; later lines are read and dropped, so that the child never blocks on them.
    fn read_ready_line(&mut self, expected: &str) -> Option<String> {
        let stdout = self.stdout.as_mut().filter(is_readable)?;
        let mut bytes = [0; 4_096];
        let count = match stdout.read(&mut bytes) {
            Ok(0) | Err(_) => {
                self.stdout = None;
                return None;
            }
            Ok(count) => count,
        };
        let mut found = None;
        for &byte in &bytes[..count] {
            if byte != b'\n' {
                if self.line.len() < READY_LINE_BYTES_MAX {
                    self.line.push(byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line);
            if let Some(rest) = line.strip_prefix(expected)
                && !self.ready
                && found.is_none()
            {
                found = Some(rest.to_owned());
            }
            self.line.clear();
        }
        found
    }
}

fn is_readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let now = timespec(Duration::ZERO);
    matches!(poll(&mut fds, Some(&now)), Ok(count) if count > 0)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// More of a line than this is not kept.
const READY_LINE_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests;
