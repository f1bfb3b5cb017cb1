//! Programs: servers that are killed by pid when they are dropped, and clients that are waited for.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;

/// A server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) ports: Vec<u16>,
}

impl Server {
    /// A block server of ours.
    pub(crate) fn cordee(program: &Path, directory: &Path, rate: Option<u64>) -> Result<Server> {
        let mut command = Command::new(program);
        command.arg("block-server").arg(directory).args(["-p", "0"]);
        if let Some(rate) = rate {
            command.arg("--limit-rate").arg(rate.to_string());
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let mut server = Server { child, ports: Vec::new() };
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        server.ports.push(port.ok_or("a block server did not start")?);
        Ok(server)
    }

    /// An nginx that listens on `mirrors` ports, with a worker for each of two cores.
    pub(crate) fn nginx(directory: &Path, home: &Path, mirrors: usize) -> Result<Server> {
        let program = find("nginx").ok_or("nginx is not installed")?;
        let ports = free_ports(mirrors)?;
        let listen: String =
            ports.iter().map(|port| format!("listen 127.0.0.1:{port} backlog=4096;\n")).collect();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let home_ = home.display();
        let config = format!(
            "{user} worker_processes 2; daemon off; pid {home_}/nginx.pid;\n\
             error_log stderr crit; events {{ worker_connections 4096; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;\n\
             open_file_cache max=100; client_body_temp_path {home_}/b; proxy_temp_path {home_}/p;\n\
             fastcgi_temp_path {home_}/f; uwsgi_temp_path {home_}/u; scgi_temp_path {home_}/s;\n\
             server {{ {listen} root {}; }} }}\n",
            directory.display()
        );
        let path = home.join("nginx.conf");
        fs::write(&path, config)?;
        let child = Command::new(program).arg("-c").arg(&path).stdin(Stdio::null()).spawn()?;
        let server = Server { child, ports };
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(server.address(0)).is_err() {
            if Instant::now() > end {
                return Err("nginx did not start".into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    pub(crate) fn address(&self, mirror: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[mirror]))
    }

    /// Freezes it. What is frozen can still be killed.
    pub(crate) fn freeze(&self) {
        signal(self.child.id(), Signal::STOP);
    }

    /// User and system time so far of it and its workers, in seconds.
    pub(crate) fn cpu_s(&self) -> f64 {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let workers = children.split_whitespace().map(|child| times(child)[0]);
        times(&pid.to_string())[0] + workers.sum::<f64>()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx ends its workers when it is asked; whatever is frozen or slow is killed.
        signal(self.child.id(), Signal::TERM);
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    pub(crate) wall_s: f64,
    pub(crate) client_cpu_s: f64,
    pub(crate) server_cpu_s: f64,
}

impl Took {
    pub(crate) fn cpu_s(&self) -> f64 {
        self.client_cpu_s + self.server_cpu_s
    }
}

/// Runs a client to its end; returns what it said, too.
pub(crate) fn client(command: &mut Command, servers: &[&Server]) -> Result<(Took, String)> {
    let servers_cpu_s = || servers.iter().map(|server| server.cpu_s()).sum::<f64>();
    let (served, own) = (servers_cpu_s(), times("self")[1]);
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let wall_s = begun.elapsed().as_secs_f64();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {said}", output.status).into());
    }
    let client_cpu_s = times("self")[1] - own;
    let took = Took { wall_s, client_cpu_s, server_cpu_s: servers_cpu_s() - served };
    Ok((took, String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Processor time of this program so far, in seconds.
pub(crate) fn own_cpu_s() -> f64 {
    times("self")[0]
}

/// Processor time of a process, and that of its children which were waited for, in seconds.
fn times(pid: &str) -> [f64; 2] {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; times are from the 12th field after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(4).filter_map(|field| field.parse().ok()).collect();
    let second = rustix::param::clock_ticks_per_second() as f64;
    match ticks[..] {
        [user, system, users, systems] => [(user + system) / second, (users + systems) / second],
        _ => [0.0; 2],
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Where a program is, if it is installed.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    directories.map(|directory| directory.join(name)).find(|path| path.is_file())
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = (0..count).map(bind).collect::<std::io::Result<Vec<_>>>()?;
    let port = |listener: &TcpListener| Ok(listener.local_addr()?.port());
    listeners.iter().map(port).collect()
}
