//! Server processes: started with a time limit, measured through /proc, killed by pid.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Context, Result, broken};

/// A child process. `timeout` ends it even when this program dies first.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program`, to live for `limit` at the most.
    pub(crate) fn start<I, S>(program: &Path, arguments: I, limit: Duration) -> Result<Process>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let child = Command::new("timeout")
            .arg("--kill-after=5")
            .arg(limit.as_secs().to_string())
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .when(format!("starting {}", program.display()))?;
        Ok(Process { child })
    }

    /// The pid of the program itself, below `timeout`.
    pub(crate) fn pid(&self) -> Result<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            let children = fs::read_to_string(&path).when(path.as_str())?;
            if let Some(Ok(pid)) = children.split_whitespace().next().map(str::parse) {
                return Ok(pid);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        broken("a server did not start")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // `timeout` hands the signal on, and kills five seconds later.
        signal(self.child.id(), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process; whether there was one.
pub(crate) fn signal(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// What processes use of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time so far, in seconds.
    pub(crate) cpu_s: f64,
    /// Resident memory, in bytes.
    pub(crate) resident_bytes: u64,
    /// Threads.
    pub(crate) threads: u64,
}

/// The sum over `pids`.
pub(crate) fn usage(pids: &[u32]) -> Result<Usage> {
    let mut sum = Usage::default();
    for pid in pids {
        sum.cpu_s += cpu_s(&pid.to_string())?;
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).when(path.as_str())?;
        sum.resident_bytes += field(&status, "VmRSS:") * 1024;
        sum.threads += field(&status, "Threads:");
    }
    Ok(sum)
}

/// User and system time of this program so far, in seconds.
pub(crate) fn own_cpu_s() -> Result<f64> {
    cpu_s("self")
}

fn cpu_s(pid: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).when(path.as_str())?;
    // The name, in parentheses, may hold anything; times are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// `count` free ports of loopback that follow one another, none of which the system would give to
/// whoever connects from here.
pub(crate) fn free_ports(count: u16) -> Result<Vec<u16>> {
    // Another program that looks for ports begins elsewhere.
    let mut first = FIRST_PORT + (std::process::id() % 10_000) as u16;
    for _ in 0..1_000 {
        first = if first + count >= END_PORT { FIRST_PORT } else { first + count };
        let ports = first..first + count;
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        if ports.clone().map(bind).all(|listener| listener.is_ok()) {
            return Ok(ports.collect());
        }
    }
    broken("no free ports")
}

/// Below the ports that Linux draws for those who connect.
const FIRST_PORT: u16 = 15_000;
const END_PORT: u16 = 32_768;

/// A port of loopback as an address.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
