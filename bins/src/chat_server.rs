//! `cordee chat-server`: chat servers on consecutive ports, each a process of its own.
//!
//! This process serves nobody: it keeps the ports, starts a worker for each and starts it again
//! when it dies ([`cordee_net::supervise`]). A worker is the same binary ([`worker`]).

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use argh::FromArgs;
use cordee_core::Limits;
use cordee_net::supervise::{Event, Policy, Program, ReservedPort, Supervisor};
use crossbeam_channel::{Receiver, never, select, unbounded};

use crate::address::{Address, CHAT_PORT, CHAT_SERVERS, LOOPBACK};
use crate::failure::{Failure, failed, usage};
use crate::size::Size;
use crate::{print, signals};

pub(crate) mod worker;

/// Run chat servers that hold one archive: on consecutive ports, each a process of its own that is
/// started again when it dies.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "chat-server",
    help_triggers("-h", "--help", "help"),
    example = "Five servers on this machine, 127.0.0.1:5000 to 5004:\n  {command_name}\n\
    Two servers, three users each:\n  {command_name} --servers 2 --limit 3\n\
    One server on this machine, linked with one on another:\n  \
    {command_name} -i 10.0.0.2 --peer 10.0.0.1:5000"
)]
pub(crate) struct ChatServer {
    /// address to listen on (127.0.0.1)
    #[argh(option, short = 'i', default = "loopback()", arg_name = "host")]
    pub(crate) address: Address,

    /// first port to listen on (5000); 0 takes free ports
    #[argh(option, short = 'p', default = "CHAT_PORT")]
    pub(crate) port: u16,

    /// how many servers, on consecutive ports (5, or 1 when --peer is given)
    #[argh(option, arg_name = "n")]
    pub(crate) servers: Option<u16>,

    /// a server of the cluster on another machine, host:port; may be given several times
    #[argh(option, arg_name = "addr")]
    pub(crate) peer: Vec<Address>,

    /// name of the cluster (cordee); only servers and clients of the same name talk
    #[argh(option, default = "CLUSTER_DEFAULT.to_owned()", arg_name = "name")]
    pub(crate) cluster: String,

    /// address under which others reach the first server, host or host:port (where it listens); the
    /// next servers have the next ports
    #[argh(option, arg_name = "addr")]
    pub(crate) advertise: Option<Address>,

    /// users of each server before newcomers are sent to another (100)
    #[argh(option, default = "USERS_DEFAULT", arg_name = "n")]
    pub(crate) limit: u32,

    /// users of each server in all, with those whose own server died (10 times the limit)
    #[argh(option, arg_name = "n")]
    pub(crate) hard_limit: Option<u32>,

    /// servers that hold a message before it is acknowledged (2); fewer when fewer live
    #[argh(option, default = "COPIES_DEFAULT", arg_name = "n")]
    pub(crate) copies: u8,

    /// memory of each server's archive, in bytes, or with K, M, G (thousands, millions, …); beyond
    /// that the oldest messages go (1 GiB)
    #[argh(option, arg_name = "size")]
    pub(crate) archive_memory: Option<Size>,

    /// allow users to crash the server that they are on, to rehearse it: kill server
    #[argh(switch)]
    pub(crate) allow_kill: bool,
}

/// Runs the servers until a signal ends them.
pub(crate) fn run(args: &ChatServer) -> Result<(), Failure> {
    serve(args, Vec::new(), || ())
}

/// Runs the servers and `others` beside them; `when_ready` is called once all of them accept
/// connections.
pub(crate) fn serve(
    args: &ChatServer,
    others: Vec<Program>,
    when_ready: impl FnOnce(),
) -> Result<(), Failure> {
    let plan = Plan::new(args)?;
    for place in &plan.places {
        if !place.port.address().ip().is_loopback() {
            print::note(format_args!(
                "warning: {} is open to other machines, and whoever reaches it can read and write: \
                 keep it within a network that you trust",
                place.port.address()
            ));
        }
    }
    let signals = signals::channel()?;
    let (sender, events) = unbounded();
    let mut programs = plan.programs(args);
    programs.extend(others);
    let names: Vec<String> = programs.iter().map(|program| program.name.clone()).collect();
    let supervisor = Supervisor::start(programs, Policy::default(), move |event| {
        // Nobody listens any more only at the very end. The queue stays short: restarts are slow.
        let _ = sender.send(event);
    });
    let supervisor = supervisor.map_err(|error| failed(format!("no server can run: {error}")))?;
    attend(&names, &supervisor, &signals, &events, when_ready)
}

/// Where each server listens, and how it is reached.
struct Plan {
    places: Vec<Place>,
}

struct Place {
    port: ReservedPort,
    advertise: String,
}

impl Plan {
    fn new(args: &ChatServer) -> Result<Plan, Failure> {
        let servers = args.servers.unwrap_or(if args.peer.is_empty() { CHAT_SERVERS } else { 1 });
        check(args, servers)?;
        let ip = args.address.ip()?;
        check_reachable(args, ip)?;
        let mut places = Vec::new();
        for index in 0..servers {
            let port = reserve(ip, args.port, index)?;
            let listen = port.address();
            let advertise = match &args.advertise {
                None => listen.to_string(),
                Some(address) => match address.port {
                    None => address.or_port(listen.port()).to_string(),
                    Some(first) => {
                        let port = first.checked_add(index).ok_or_else(|| {
                            usage(format!("--advertise {address}: {servers} ports do not fit"))
                        })?;
                        Address { port: Some(port), ..address.clone() }.to_string()
                    }
                },
            };
            places.push(Place { port, advertise });
        }
        Ok(Plan { places })
    }

    /// What the supervisor runs. The binary is named by what runs now: a newer one put in its place
    /// meanwhile does not take part.
    fn programs(&self, args: &ChatServer) -> Vec<Program> {
        let programs = self.places.iter().map(|place| {
            let siblings = self.places.iter().map(|other| other.advertise.clone());
            let elsewhere = args.peer.iter().map(|peer| peer.or_port(CHAT_PORT).to_string());
            let peers = siblings.chain(elsewhere).filter(|peer| *peer != place.advertise);
            let listen = place.port.address();
            Program {
                name: format!("chat server {listen}"),
                path: "/proc/self/exe".into(),
                arg0: "cordee".into(),
                args: worker::Worker {
                    parent: std::process::id(),
                    listen,
                    advertise: place.advertise.clone(),
                    peer: peers.collect(),
                    cluster: args.cluster.clone(),
                    limit: args.limit,
                    hard_limit: hard_limit(args),
                    copies: args.copies,
                    archive_memory: archive_memory(args),
                    allow_kill: args.allow_kill,
                }
                .to_args()
                .into_iter()
                .map(OsString::from)
                .collect(),
                env: vec![("GLIBC_TUNABLES".into(), malloc_tunables())],
                ready: worker::READY.to_owned(),
            }
        });
        programs.collect()
    }
}

/// Tells what happens, until all is over.
fn attend(
    names: &[String],
    supervisor: &Supervisor,
    signals: &Receiver<u32>,
    events: &Receiver<Event>,
    when_ready: impl FnOnce(),
) -> Result<(), Failure> {
    let name = |child: usize| names[child].as_str();
    let mut when_ready = Some(when_ready);
    let mut waiting = names.len();
    let mut outcome = Ok(());
    let mut signals = signals.clone();
    loop {
        let event = select! {
            recv(events) -> event => event,
            recv(signals) -> count => {
                match count {
                    Ok(1) => supervisor.stop(GRACE),
                    Ok(_) => supervisor.kill(),
                    Err(_) => signals = never(),
                }
                continue;
            }
        };
        match event {
            Ok(Event::Started { .. }) => {}
            Ok(Event::Ready { rest, restarts: 0, .. }) => {
                // Whoever started us may not want to hear it.
                let _ = print::line(format_args!("{}{rest}", worker::READY));
                waiting = waiting.saturating_sub(1);
                if waiting == 0
                    && let Some(when_ready) = when_ready.take()
                {
                    when_ready();
                }
            }
            Ok(Event::Ready { child, pid, .. }) => {
                print::note(format_args!("{} is back, process {pid}", name(child)));
            }
            Ok(Event::Died { child, why, restart_in }) => {
                let delay = match restart_in.as_millis() {
                    0 => "at once".to_owned(),
                    ms => format!("in {ms} ms"),
                };
                print::note(format_args!("{} died ({why}): started again {delay}", name(child)));
            }
            Ok(Event::GaveUp { child, why }) => {
                outcome = Err(failed(format!(
                    "{} died again and again before it was ready ({why}): all servers stop; the \
                     lines above say why",
                    name(child)
                )));
                supervisor.stop(GRACE);
            }
            Ok(Event::Stopped) | Err(_) => return outcome,
        }
    }
}

fn check(args: &ChatServer, servers: u16) -> Result<(), Failure> {
    let members_max = Limits::default().members_max;
    if servers == 0 || u32::from(servers) > members_max {
        return Err(usage(format!("--servers {servers}: from 1 to {members_max}")));
    }
    if args.address.port.is_some() {
        return Err(usage(format!("-i {}: give the port with -p", args.address)));
    }
    if args.port != 0 && args.port.checked_add(servers - 1).is_none() {
        return Err(usage(format!("-p {}: {servers} ports from there do not fit", args.port)));
    }
    check_cluster(&args.cluster)?;
    if args.limit == 0 {
        return Err(usage("--limit 0: at least 1"));
    }
    if hard_limit(args) < args.limit {
        return Err(usage(format!(
            "--hard-limit {}: at least the limit, {}",
            hard_limit(args),
            args.limit
        )));
    }
    if args.copies == 0 {
        return Err(usage("--copies 0: at least 1"));
    }
    if archive_memory(args) < ARCHIVE_BYTES_MIN {
        return Err(usage(format!(
            "--archive-memory {}: at least {}M",
            archive_memory(args),
            ARCHIVE_BYTES_MIN / 1_000_000
        )));
    }
    Ok(())
}

/// Whoever listens on every address says under which one it is reached.
fn check_reachable(args: &ChatServer, ip: IpAddr) -> Result<(), Failure> {
    match &args.advertise {
        None if ip.is_unspecified() => Err(usage(format!(
            "{ip} means every address of this machine, and is none that others can connect to: add \
             --advertise HOST, the address or name under which they reach this machine"
        ))),
        Some(address) if address.host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified()) => {
            Err(usage(format!("--advertise {address} is no address that others can connect to")))
        }
        Some(address) if address.port == Some(0) => Err(usage(format!(
            "--advertise {address}: a port that others can connect to, or none for where it listens"
        ))),
        _ => Ok(()),
    }
}

/// Asks the C library, where it is glibc, to map what is large on its own, in huge pages. A server that
/// is killed gives its memory back before its connections end: with small pages its clients learn
/// of it later, by 60 to 170 ms for each GiB. What the user's own environment says about it stays.
fn malloc_tunables() -> OsString {
    const HUGE_PAGES: &str = "glibc.malloc.hugetlb";
    let given = std::env::var("GLIBC_TUNABLES").unwrap_or_default();
    if given.contains(HUGE_PAGES) {
        return given.into();
    }
    let others = if given.is_empty() { given } else { given + ":" };
    format!("{others}{HUGE_PAGES}=1:glibc.malloc.mmap_threshold=1048576").into()
}

fn archive_memory(args: &ChatServer) -> u64 {
    args.archive_memory.map_or(Limits::default().archive_bytes_max, |size| size.0)
}

/// Checks the name of a cluster, as every command takes it.
pub(crate) fn check_cluster(name: &str) -> Result<(), Failure> {
    let fits = (1..=CLUSTER_BYTES_MAX).contains(&name.len());
    if fits && !name.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Ok(());
    }
    Err(usage(format!(
        "--cluster {name:?}: 1 to {CLUSTER_BYTES_MAX} bytes without spaces and control characters"
    )))
}

fn hard_limit(args: &ChatServer) -> u32 {
    args.hard_limit.unwrap_or(args.limit.saturating_mul(10))
}

fn reserve(ip: IpAddr, first: u16, index: u16) -> Result<ReservedPort, Failure> {
    let port = if first == 0 { 0 } else { first + index };
    reserve_port(SocketAddr::new(ip, port), "chat-server -p PORT")
}

/// Keeps a port for a child; `mend` is the command that takes another one.
pub(crate) fn reserve_port(address: SocketAddr, mend: &str) -> Result<ReservedPort, Failure> {
    ReservedPort::new(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => failed(format!(
            "{address} is in use: stop what listens there, or take other ports: cordee {mend}"
        )),
        _ => failed(format!("{address} cannot be listened on: {error}")),
    })
}

fn loopback() -> Address {
    Address { host: LOOPBACK.to_owned(), port: None }
}

/// The name of a cluster that was given none.
pub(crate) const CLUSTER_DEFAULT: &str = "cordee";
/// Of a cluster's name: it travels in the first frame of a connection, which is short.
const CLUSTER_BYTES_MAX: usize = cordee_core::wire::hello::CLUSTER_BYTES_MAX;
/// Users of a server before newcomers are sent elsewhere.
pub(crate) const USERS_DEFAULT: u32 = 100;
/// Servers that hold a message before it is acknowledged.
pub(crate) const COPIES_DEFAULT: u8 = 2;
/// An archive of less would hold a few messages of the longest kind only, see
/// [`Limits::archive_bytes_max`].
const ARCHIVE_BYTES_MIN: u64 = 2_000_000;
/// For how long a server may finish what it is at, after the first signal.
const GRACE: Duration = Duration::from_secs(10);
