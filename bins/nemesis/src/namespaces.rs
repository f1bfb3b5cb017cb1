//! Network namespaces: every server, and all clients together, on a machine of their own as far as
//! the kernel's network is concerned. What is cut is cut silently: no reset, no end, just nothing.
//!
//! ```text
//!  server 0 ──┐
//!  server 1 ──┤ hub: forwards, blackholes from one to another, limits rates; judged from here
//!  people   ──┘
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use crate::failure::{Failure, Result, broken};

/// Someone with a namespace of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Host {
    Server(usize),
    People,
}

/// Namespaces that are joined by a hub. They go with [`remove`](Self::remove).
#[derive(Debug)]
pub struct Namespaces {
    prefix: String,
    /// From whom nothing gets to whom.
    blocked: BTreeSet<(Host, Host)>,
    /// Who is behind a slow line.
    slow: BTreeSet<Host>,
}

impl Namespaces {
    /// Makes the namespaces, whose names begin with `prefix`.
    ///
    /// # Errors
    ///
    /// When that is not allowed, or the tools of iproute2 are not there.
    pub fn make(prefix: &str) -> Result<Namespaces> {
        let namespaces = Namespaces::known(prefix);
        let made = namespaces.make_all();
        if made.is_err() {
            namespaces.remove();
        }
        made.map(|()| namespaces)
    }

    /// Those that were made before.
    pub(crate) fn known(prefix: &str) -> Namespaces {
        Namespaces { prefix: prefix.to_owned(), blocked: BTreeSet::new(), slow: BTreeSet::new() }
    }

    fn make_all(&self) -> Result<()> {
        let hub = self.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "set", "lo", "up"])?;
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        ip(&["netns", "exec", &hub, "sh", "-c", forward])?;
        for host in hosts() {
            let (name, line) = (self.name(host), line(host));
            let inner = format!("{}/24", address(host));
            let outer = format!("10.213.{}.1", number(host));
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            let peer = ["peer", "name", "eth0", "netns", &name];
            ip(&[&["-n", &hub, "link", "add", &line, "type", "veth"], &peer[..]].concat())?;
            ip(&["-n", &hub, "addr", "add", &format!("{outer}/24"), "dev", &line])?;
            ip(&["-n", &hub, "link", "set", &line, "up"])?;
            ip(&["-n", &name, "addr", "add", &inner, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "route", "add", "default", "via", &outer])?;
        }
        Ok(())
    }

    /// Takes all of them away. Those that are not there are no matter.
    pub fn remove(&self) {
        for name in hosts().map(|host| self.name(host)).chain([self.hub()]) {
            let _ = ip(&["netns", "del", &name]);
        }
    }

    /// What runs a command in the hub, from where everyone can be asked.
    #[must_use]
    pub fn in_hub(&self) -> Vec<String> {
        within(self.hub())
    }

    /// What runs a command where `host` is.
    pub(crate) fn at(&self, host: Host) -> Vec<String> {
        within(self.name(host))
    }

    /// From now on nothing gets from whom to whom, and who is behind a slow line.
    pub(crate) fn change(
        &mut self,
        blocked: BTreeSet<(Host, Host)>,
        slow: BTreeSet<Host>,
    ) -> Result<()> {
        let hub = self.hub();
        let rule = |verb: &str, (from, to): (Host, Host)| {
            let (from, to) = (address(from).to_string(), address(to).to_string());
            ip(&["-n", &hub, "rule", verb, "blackhole", "from", &from, "to", &to, "priority", "9"])
        };
        for pair in self.blocked.difference(&blocked) {
            rule("del", *pair)?;
        }
        for pair in blocked.difference(&self.blocked) {
            rule("add", *pair)?;
        }
        let limit = |verb: &[&str], host: Host, rate: &[&str]| {
            let line = line(host);
            let begin = ["netns", "exec", &hub, "tc", "qdisc"];
            ip(&[&begin, verb, &["dev", &line, "root"], rate].concat())
        };
        for host in self.slow.difference(&slow) {
            limit(&["del"], *host, &[])?;
        }
        for host in slow.difference(&self.slow) {
            limit(
                &["add"],
                *host,
                &["tbf", "rate", "256kbit", "burst", "8kb", "latency", "400ms"],
            )?;
        }
        (self.blocked, self.slow) = (blocked, slow);
        Ok(())
    }

    /// Resets what stands between two, where the kernel can.
    pub(crate) fn reset(&self, at: Host, other: Host) {
        let (name, other) = (self.name(at), address(other).to_string());
        // A kernel that cannot says so for each socket; then nothing happens.
        let _ = ip(&["netns", "exec", &name, "ss", "-K", "dst", &other]);
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn name(&self, host: Host) -> String {
        format!("{}-{}", self.prefix, number(host))
    }
}

/// The address of a host.
pub(crate) fn address(host: Host) -> IpAddr {
    Ipv4Addr::new(10, 213, number(host), 2).into()
}

fn hosts() -> impl Iterator<Item = Host> {
    (0..SERVERS_MAX).map(Host::Server).chain([Host::People])
}

fn number(host: Host) -> u8 {
    match host {
        Host::Server(server) => 1 + server as u8,
        Host::People => 100,
    }
}

/// The hub's end of a host's line.
fn line(host: Host) -> String {
    format!("line{}", number(host))
}

fn within(name: String) -> Vec<String> {
    vec!["ip".to_owned(), "netns".to_owned(), "exec".to_owned(), name]
}

fn ip(args: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    let output = command.args(args).stdin(Stdio::null()).output();
    let output = output.map_err(Failure::io("ip (of iproute2)"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    broken(format!("ip {}: {}", args.join(" "), why.trim()))
}

/// The most servers that there is a namespace for.
const SERVERS_MAX: usize = 5;
