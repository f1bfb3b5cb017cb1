//! Servers behind relays, clients, and what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path as FilePath, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cordee_core::prng::Prng;
use cordee_net::client::MemberState;
use cordee_net::observe::ServerReport;
use rustix::process::{Resource, Rlimit, Signal};
use serde_json::json;

use crate::book::{Body, Book, ODD_ROOM, Said, Scope};
use crate::failure::{Failure, Result, broken, violated};
use crate::harm::{block, harm_clients, harm_link, is_parted, reset};
use crate::namespaces::{self, Host, Namespaces};
use crate::party::Party;
use crate::plan::Fault;
use crate::process::Process;
use crate::relay::{End, Path, Relay};
use crate::server::{Place, Server, Setup};

/// The cluster, those who talk, and what they said.
#[derive(Debug)]
pub(crate) struct World {
    begun: Instant,
    pub(crate) servers: Vec<Server>,
    pub(crate) parties: Vec<Party>,
    pub(crate) book: Book,
    /// Faults under way, by their place in the plan.
    active: BTreeMap<usize, Active>,
    /// Messages that were lost with all servers that held them.
    pub(crate) lost: Vec<(usize, u64)>,
    /// The processes that served when all was well last.
    pids: Vec<u32>,
    /// Servers that were killed or starved since.
    hit: BTreeSet<usize>,
    /// Processes that were told to end.
    terminated: Vec<Process>,
    /// Where clients come from, when there are relays.
    clients_host: IpAddr,
    /// In place of relays.
    namespaces: Option<Namespaces>,
}

/// A fault under way, and what ending it takes.
#[derive(Debug)]
struct Active {
    fault: Fault,
    limited: Option<(Process, Resource, Rlimit)>,
    strangers: Vec<TcpStream>,
    stopped: Option<Process>,
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub(crate) struct Make<'a> {
    pub(crate) binary: &'a FilePath,
    pub(crate) directory: PathBuf,
    pub(crate) seed: u64,
    pub(crate) servers: usize,
    pub(crate) parties: usize,
    pub(crate) copies: u8,
    pub(crate) life: Duration,
    /// How the names of the namespaces begin; none where there are relays.
    pub(crate) namespaces: Option<String>,
}

impl World {
    /// Starts everything, and waits until all are linked and have arrived.
    pub(crate) fn start(make: &Make<'_>) -> Result<World> {
        let mut places = Vec::new();
        for server in 0..make.servers {
            places.push(match &make.namespaces {
                None => place_behind_relay(server, make.seed)?,
                Some(prefix) => place_of_its_own(&Namespaces::known(prefix), server),
            });
        }
        let addresses: Vec<String> = places.iter().map(|place| place.address.clone()).collect();
        let setup = Setup {
            binary: make.binary,
            copies: make.copies,
            life: make.life,
            directory: &make.directory,
        };
        let mut servers = Vec::new();
        for (server, place) in places.into_iter().enumerate() {
            let peers: Vec<String> =
                addresses.iter().filter(|other| **other != addresses[server]).cloned().collect();
            servers.push(Server::start(setup, place, &peers)?);
        }
        let namespaces = make.namespaces.as_deref().map(Namespaces::known);
        let within = namespaces.as_ref().map_or(Vec::new(), |all| all.at(Host::People));
        let mut world = World {
            begun: Instant::now(),
            servers,
            parties: Vec::new(),
            book: Book::new(make.parties),
            active: BTreeMap::new(),
            lost: Vec::new(),
            pids: Vec::new(),
            hit: BTreeSet::new(),
            terminated: Vec::new(),
            clients_host: Ipv4Addr::LOCALHOST.into(),
            namespaces,
        };
        world.wait("the servers link", |world| world.equal_reports().is_some())?;
        for number in 0..make.parties {
            let at = &addresses[number % addresses.len()];
            let mut party =
                Party::start(make.binary, &within, &make.directory, at, number, make.parties)?;
            if number % 2 == 1 {
                party.send(&json!({"join": ODD_ROOM}))?;
            }
            world.parties.push(party);
        }
        world.wait("all arrive", |world| {
            let arrived = |(number, party): (usize, &Party)| {
                let screen = party.screen();
                screen.is_connected && (number % 2 == 0 || screen.joined)
            };
            world.parties.iter().enumerate().all(arrived)
        })?;
        world.judge_deaths()?;
        Ok(world)
    }

    /// Milliseconds since the run began.
    pub(crate) fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Someone says something somewhere.
    pub(crate) fn say_something(&mut self, draw: &mut Prng) -> Result<()> {
        let parties = self.parties.len();
        let author = draw.below(parties as u64) as usize;
        let other = (author + 1 + draw.below(parties as u64 - 1) as usize) % parties;
        let scope = match draw.below(10) {
            0 | 1 if author % 2 == 1 => Scope::Odd,
            2 | 3 => Scope::talk(author, other),
            _ => Scope::All,
        };
        let after = self.parties[author].screen().context();
        let at_ms = self.now_ms();
        let number = self.book.say(author, Said { scope, at_ms });
        self.parties[author].say(&Body { key: (author, number), scope, after })
    }

    // Faults.

    /// A fault begins. `alone`: nothing else goes wrong in this cycle.
    pub(crate) fn begin(&mut self, at: usize, fault: Fault, alone: bool) -> Result<()> {
        self.hit.extend(fault.kills());
        let mut active = Active { fault, limited: None, strangers: Vec::new(), stopped: None };
        match fault {
            Fault::Kill { server } => {
                self.signal(server, Signal::KILL);
                let now = self.now_ms();
                self.book.wipe(now);
            }
            Fault::Terminate { server } => {
                self.terminated.extend(self.signal(server, Signal::TERM));
                // Undisturbed, it hands everything on before it goes.
                let now = self.now_ms();
                if !alone {
                    self.book.wipe(now + TERMINATING_MS);
                }
            }
            Fault::Stop { server } => active.stopped = self.signal(server, Signal::STOP),
            Fault::Descriptors { server } => {
                let server = &self.servers[server];
                if let Some(process) = server.process() {
                    let before = process.starve_of_descriptors(1);
                    let limited = before.map(|before| (process, Resource::Nofile, before));
                    active.limited = limited.ok();
                }
                for _ in 0..STRANGERS {
                    let stranger = TcpStream::connect_timeout(&server.listens, CONNECT);
                    active.strangers.extend(stranger.ok());
                }
            }
            Fault::Memory { server } => {
                if let Some(process) = self.servers[server].process() {
                    let before = process.starve_of_memory(MEMORY_BYTES);
                    active.limited = before.map(|before| (process, Resource::As, before)).ok();
                }
            }
            _ => {}
        }
        self.active.insert(at, active);
        self.apply()?;
        self.end_connections(fault);
        Ok(())
    }

    /// A fault ends.
    pub(crate) fn end(&mut self, at: usize) -> Result<()> {
        let Some(active) = self.active.remove(&at) else { return Ok(()) };
        if let Some(process) = active.stopped {
            // One that was killed meanwhile needs no waking.
            let _ = process.signal(Signal::CONT);
        }
        if let Some((process, resource, before)) = active.limited {
            process.allow(resource, before);
            if resource == Resource::As && !process.runs() {
                let now = self.now_ms();
                self.book.wipe(now);
            }
        }
        self.apply()
    }

    /// Everything is well again.
    pub(crate) fn heal(&mut self) -> Result<()> {
        self.active.keys().copied().collect::<Vec<_>>().into_iter().try_for_each(|at| self.end(at))
    }

    fn signal(&self, server: usize, signal: Signal) -> Option<Process> {
        let process = self.servers[server].process()?;
        process.signal(signal).ok().map(|()| process)
    }

    /// What the network is to do, by all faults under way.
    fn apply(&mut self) -> Result<()> {
        let count = self.servers.len();
        if let Some(namespaces) = &mut self.namespaces {
            let (mut blocked, mut slow) = (BTreeSet::new(), BTreeSet::new());
            for active in self.active.values() {
                block(&mut blocked, &mut slow, active.fault, count);
            }
            return namespaces.change(blocked, slow);
        }
        for (number, server) in self.servers.iter().enumerate() {
            let hosts = self.servers.iter().map(|other| other.host).enumerate();
            for (other, host) in hosts.filter(|(other, _)| *other != number) {
                let mut path = Path::default();
                for active in self.active.values() {
                    harm_link(&mut path, active.fault, number, other);
                }
                server.change(host, path);
            }
            let mut path = Path::default();
            for active in self.active.values() {
                harm_clients(&mut path, active.fault, number);
            }
            server.change(self.clients_host, path);
        }
        Ok(())
    }

    /// Ends connections that a fault ends when it begins.
    fn end_connections(&self, fault: Fault) {
        if let Some(namespaces) = &self.namespaces {
            return reset(namespaces, fault, self.servers.len());
        }
        let count = self.servers.len();
        let links_of = |server: usize| (0..count).filter(move |other| *other != server);
        let link = |one: usize, other: usize, how: End| {
            self.servers[one].end(self.servers[other].host, how);
            self.servers[other].end(self.servers[one].host, how);
        };
        let half = |inward| if inward { End::HalfInward } else { End::HalfOutward };
        match fault {
            Fault::CutLink { one, other } => link(one, other, End::Close),
            Fault::Partition { side } => {
                for one in 0..count {
                    for other in links_of(one).filter(|other| is_parted(side, one, *other)) {
                        link(one, other, End::Reset);
                    }
                }
            }
            Fault::CutClients { server } => {
                self.servers[server].end(self.clients_host, End::Reset);
            }
            Fault::Reset { server, clients: true } => {
                self.servers[server].end(self.clients_host, End::Reset);
            }
            Fault::Reset { server, clients: false } => {
                links_of(server).for_each(|other| link(server, other, End::Reset));
            }
            Fault::HalfClose { server, clients: true, inward } => {
                self.servers[server].end(self.clients_host, half(inward));
            }
            Fault::HalfClose { server, clients: false, inward } => {
                for other in links_of(server) {
                    self.servers[server].end(self.servers[other].host, half(inward));
                    self.servers[other].end(self.servers[server].host, half(!inward));
                }
            }
            _ => {}
        }
    }

    // Peace.

    /// Waits until something is so.
    pub(crate) fn wait(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut World) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            self.look_for_violations()?;
            if Instant::now() > end {
                return violated(format!("not within {PATIENCE:?}: {what}\n{}", self.describe()));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Reports of all servers, if all are linked with all and hold the same.
    pub(crate) fn equal_reports(&self) -> Option<Vec<ServerReport>> {
        let reports: Option<Vec<ServerReport>> = self.servers.iter().map(Server::report).collect();
        let reports = reports?;
        let count = self.servers.len();
        let linked = |report: &ServerReport| {
            let members = report.members.iter();
            members.filter(|member| member.state == MemberState::Linked).count() == count
        };
        let first = reports.first()?;
        let equal = reports
            .iter()
            .all(|report| (report.ma, report.digest) == (first.ma, first.digest) && linked(report));
        equal.then_some(reports)
    }

    /// Waits until whoever was told to end has.
    pub(crate) fn await_terminated(&mut self) -> Result<()> {
        let terminated = std::mem::take(&mut self.terminated);
        self.wait("a server that was told to end ends", |_| {
            !terminated.iter().any(|process| process.runs())
        })
    }

    /// Nobody died who was not killed.
    pub(crate) fn judge_deaths(&mut self) -> Result<()> {
        let mut pids = Vec::new();
        for server in &self.servers {
            let Some(process) = server.process() else { return broken("a server is not there") };
            pids.push(process.0);
        }
        let before = std::mem::replace(&mut self.pids, pids);
        let hit = std::mem::take(&mut self.hit);
        for (number, (before, now)) in before.iter().zip(&self.pids).enumerate() {
            if before != now && !hit.contains(&number) {
                return violated(format!("server {number}, process {before}, died by itself"));
            }
        }
        Ok(())
    }

    /// What must never happen has not happened.
    pub(crate) fn look_for_violations(&self) -> Result<()> {
        for party in &self.parties {
            let screen = party.screen();
            if let Some(violation) = screen.violations.first() {
                return violated(violation);
            }
            if screen.ended {
                return violated(format!("a client ended: {}", screen.tail()));
            }
        }
        Ok(())
    }

    /// How everything stands, for a report.
    pub(crate) fn describe(&self) -> String {
        let servers = self.servers.iter().map(|server| match server.report() {
            Some(report) => format!(
                "{} at {}: process {}, ma {}, digest {}, users {}, members {:?}",
                report.address,
                server.listens,
                report.pid,
                report.ma,
                report.digest,
                report.users,
                report
                    .members
                    .iter()
                    .map(|member| (&member.address, member.state))
                    .collect::<Vec<_>>(),
            ),
            None => format!("{} at {}: no answer", server.address, server.listens),
        });
        let parties = self.parties.iter().enumerate().map(|(number, party)| {
            let screen = party.screen();
            format!(
                "p{number}: said {}, sent {}, refused {:?}, shown {}, status {:?}, connected {}\n{}",
                self.book.last(number),
                screen.sent.len(),
                screen.refused,
                screen.shown(),
                screen.status,
                screen.is_connected,
                screen.tail(),
            )
        });
        servers.chain(parties).collect::<Vec<_>>().join("\n")
    }

    /// Everyone leaves in order.
    pub(crate) fn finish(mut self) -> Result<()> {
        for number in 0..self.parties.len() {
            let status = self.parties[number].finish(PATIENCE)?;
            if !status.success() {
                return broken(format!("p{number} ended: {status}"));
            }
        }
        Ok(())
    }
}

/// A place on an address of this machine, reached through a relay on the same address.
fn place_behind_relay(server: usize, seed: u64) -> Result<Place> {
    let host = Ipv4Addr::new(127, 0, 77, 1 + server as u8);
    let relay = Relay::start(&host.to_string(), seed ^ server as u64);
    let relay = relay.map_err(Failure::io(format!("a relay on {host}")))?;
    let (address, within) = (relay.address(), Vec::new());
    Ok(Place { host: host.into(), port: 0, within, relay: Some(relay), address })
}

/// A place in a namespace of its own.
fn place_of_its_own(namespaces: &Namespaces, server: usize) -> Place {
    let host = namespaces::address(Host::Server(server));
    let address = SocketAddr::new(host, PORT).to_string();
    let within = namespaces.at(Host::Server(server));
    Place { host, port: PORT, within, relay: None, address }
}

/// For what must happen once all is well. A limit against hanging, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(40);
/// How long a server that was told to end may take, in milliseconds.
const TERMINATING_MS: u64 = 2_000;
/// Who connects to a server that has no descriptors.
const STRANGERS: usize = 40;
/// Where servers listen that have a network of their own.
const PORT: u16 = 5_000;
const CONNECT: Duration = Duration::from_millis(200);
/// What a server may still map when it has no memory.
const MEMORY_BYTES: u64 = 4 << 20;
