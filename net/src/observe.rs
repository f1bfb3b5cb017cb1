//! Asks one server how it stands: blocking, on the caller's thread, with a deadline. Whom it asks, a chat
//! server or a block server, it learns when it is welcomed.
//!
//! ```no_run
//! use std::time::Duration;
//! use cordee_net::observe::Observer;
//!
//! let wait = Duration::from_secs(2);
//! let mut observer = Observer::connect("127.0.0.1:5000", "cordee", wait)?;
//! let report = observer.report(wait)?;
//! assert_eq!(report.digest.to_string().len(), 32);
//! # Ok::<(), cordee_net::observe::ObserveError>(())
//! ```

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use cordee_core::framing::{Deframer, FRAME_BYTES_MAX, Frame, frames};
use cordee_core::ids::{Clock, ServerId, SessionId, Tag};
use cordee_core::wire::block::{AskBlockServer, BlockServerStatus, BlockWelcome, Refused};
use cordee_core::wire::chat::{
    AskServer, Done, Failed, Forget, MemberState, ServerStatus, UserList,
};
use cordee_core::wire::hello::{Bye, Hello, Magic, Role, Transport, Welcome};
use cordee_core::wire::{Fixed64, Message, Reason, VERSION_MAJOR, VERSION_MINOR, WireError};

/// What answers at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// A chat server: [`Observer::report`].
    Chat,
    /// A block server: [`Observer::block_report`].
    Blocks,
}

/// How a block server stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockServerReport {
    /// The process that serves.
    pub pid: u32,
    /// How many files it serves, as of a few seconds ago.
    pub files: u64,
    /// Runs of blocks and files that are being sent or wait.
    pub transfers: u32,
    /// Bytes of files that it has sent since it started.
    pub bytes_sent: u64,
    /// Open connections, this one among them.
    pub connections: u32,
}

/// How a server stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerReport {
    /// The address that it advertises.
    pub address: String,
    /// The process that serves.
    pub pid: u32,
    /// Who it is: the same over restarts.
    pub server: ServerId,
    /// Which start of it this is, from 1.
    pub incarnation: u32,
    /// How many messages its archive has.
    pub ma: u64,
    /// Over messages and rooms: equal on servers that hold the same.
    pub digest: Tag,
    /// From which message on the archive holds bodies; 1 when it holds all.
    pub from: u64,
    /// Users attached there.
    pub users: u32,
    /// How many of them it takes before it sends newcomers elsewhere.
    pub limit: u32,
    /// How many rooms there are.
    pub rooms: u32,
    /// Sessions known in the cluster.
    pub sessions: u32,
    /// What archive and log hold in memory, in bytes.
    pub memory_bytes: u64,
    /// Up to this clock every index is final.
    pub final_clock: Clock,
    /// The members of the cluster, this server among them.
    pub members: Vec<MemberReport>,
}

/// How a member stands, as the asked server sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberReport {
    /// The address that it advertises.
    pub address: String,
    /// How it stands.
    pub state: MemberState,
    /// How many messages its archive has, as last heard.
    pub ma: u64,
}

/// A user of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserReport {
    /// The name.
    pub name: String,
    /// The session's public id.
    pub session: SessionId,
    /// Whether a live server has it attached; otherwise it may still come back.
    pub online: bool,
    /// The address of its server.
    pub server: String,
    /// The rooms it is in.
    pub rooms: Vec<String>,
}

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The address is none, or its name is not known.
    #[error("no such address ({0})")]
    Address(#[source] io::Error),
    /// Nobody answers there.
    #[error("nobody answers ({0})")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("the connection broke ({0})")]
    Broken(#[source] io::Error),
    /// No answer came in time.
    #[error("no answer in time")]
    Timeout,
    /// What answers is no server of ours.
    #[error("what answers there is no Cordee server ({0})")]
    Wire(#[from] WireError),
    /// The server refused.
    #[error("refused: {reason}{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Refused {
        /// Why.
        reason: Reason,
        /// More for people to read; may be empty.
        detail: String,
    },
}

/// A connection to one server, to ask it and to operate it.
#[derive(Debug)]
pub struct Observer {
    stream: TcpStream,
    deframer: Deframer,
    requests: u64,
    service: Service,
}

impl Observer {
    /// Connects to the server at `address` (`host:port`), within `timeout`: a block server, or a chat
    /// server of the cluster of that name. Looking up a name takes as long as the system lets it.
    ///
    /// # Errors
    ///
    /// An [`ObserveError`] that says who did not answer, or why it refused.
    pub fn connect(
        address: &str,
        cluster: &str,
        timeout: Duration,
    ) -> Result<Observer, ObserveError> {
        let deadline = after(timeout);
        let addresses: Vec<SocketAddr> =
            address.to_socket_addrs().map_err(ObserveError::Address)?.collect();
        let stream = dial(&addresses, deadline)?;
        let deframer = Deframer::new(FRAME_BYTES_MAX);
        let mut observer = Observer { stream, deframer, requests: 0, service: Service::Chat };
        let hello = Hello {
            magic: Magic,
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            role: Role::Observer,
            transport: Transport::Plain,
            key_id: Fixed64(0),
            cluster,
        };
        observer.send(&hello, deadline)?;
        observer.service = observer.receive(deadline, |frame| match frame.kind {
            Welcome::KIND => Ok(Some(Service::Chat)),
            BlockWelcome::KIND => Ok(Some(Service::Blocks)),
            _ => Ok(None),
        })?;
        Ok(observer)
    }

    /// What answers there.
    #[must_use]
    pub fn service(&self) -> Service {
        self.service
    }

    /// Asks how the block server stands.
    ///
    /// # Errors
    ///
    /// An [`ObserveError`]: [`ObserveError::Timeout`] after `timeout`, [`ObserveError::Refused`] with
    /// [`Reason::WrongService`] when it is none.
    pub fn block_report(&mut self, timeout: Duration) -> Result<BlockServerReport, ObserveError> {
        self.ask(Service::Blocks)?;
        let deadline = after(timeout);
        self.requests += 1;
        let request = self.requests;
        self.send(&AskBlockServer { request }, deadline)?;
        self.receive(deadline, |frame| match frame.kind {
            BlockServerStatus::KIND => {
                Ok(Some(block_report(&BlockServerStatus::parse(frame.payload)?)))
            }
            Refused::KIND => {
                let Refused { reason, detail, .. } = Refused::parse(frame.payload)?;
                Err(refused(reason, detail))
            }
            _ => Ok(None),
        })
    }

    /// A server of another kind would not understand what is asked.
    fn ask(&self, service: Service) -> Result<(), ObserveError> {
        if self.service == service { Ok(()) } else { Err(refused(Reason::WrongService, "")) }
    }

    /// Asks how the server stands.
    ///
    /// # Errors
    ///
    /// As [`block_report`](Self::block_report).
    pub fn report(&mut self, timeout: Duration) -> Result<ServerReport, ObserveError> {
        self.ask(Service::Chat)?;
        let deadline = after(timeout);
        self.send(&AskServer { users: false }, deadline)?;
        self.receive(deadline, |frame| match frame.kind {
            ServerStatus::KIND => Ok(Some(report(&ServerStatus::parse(frame.payload)?))),
            _ => Ok(None),
        })
    }

    /// Asks how the server stands, and who is in the cluster.
    ///
    /// # Errors
    ///
    /// As [`report`](Self::report).
    pub fn report_with_users(
        &mut self,
        timeout: Duration,
    ) -> Result<(ServerReport, Vec<UserReport>), ObserveError> {
        self.ask(Service::Chat)?;
        let deadline = after(timeout);
        self.send(&AskServer { users: true }, deadline)?;
        let (mut status, mut users, mut complete) = (None, Vec::new(), false);
        self.receive(deadline, |frame| {
            match frame.kind {
                ServerStatus::KIND => status = Some(report(&ServerStatus::parse(frame.payload)?)),
                UserList::KIND => {
                    let list = UserList::parse(frame.payload)?;
                    add_users(&list, &mut users);
                    complete |= !list.more;
                    if users.len() > USERS_MAX {
                        return Err(WireError::BadValue.into());
                    }
                }
                _ => {}
            }
            Ok(if complete { status.take() } else { None })
        })
        .map(|status| (status, users))
    }

    /// Removes the member that advertises `address` and will not return.
    ///
    /// # Errors
    ///
    /// [`ObserveError::Refused`] with [`Reason::MemberUnknown`], [`Reason::MemberAlive`],
    /// [`Reason::MemberItself`] when it is the server that is asked, or [`Reason::OperatorOnly`];
    /// and as [`report`](Self::report).
    pub fn forget(&mut self, address: &str, timeout: Duration) -> Result<(), ObserveError> {
        self.ask(Service::Chat)?;
        let deadline = after(timeout);
        self.requests += 1;
        let request = self.requests;
        self.send(&Forget { request, address }, deadline)?;
        self.receive(deadline, |frame| match frame.kind {
            Done::KIND => Ok((Done::parse(frame.payload)?.request == request).then_some(())),
            Failed::KIND => {
                let Failed { request: failed, reason, detail, .. } = Failed::parse(frame.payload)?;
                if failed == request { Err(refused(reason, detail)) } else { Ok(None) }
            }
            _ => Ok(None),
        })
    }

    fn send<'a>(
        &mut self,
        message: &impl Message<'a>,
        deadline: Instant,
    ) -> Result<(), ObserveError> {
        let mut bytes = Vec::new();
        message.put_frame(&mut bytes);
        self.stream.set_write_timeout(Some(left(deadline)?)).map_err(ObserveError::Broken)?;
        self.stream.write_all(&bytes).map_err(broken)
    }

    /// Reads frames until `take` has what it wants.
    fn receive<T>(
        &mut self,
        deadline: Instant,
        mut take: impl FnMut(Frame<'_>) -> Result<Option<T>, ObserveError>,
    ) -> Result<T, ObserveError> {
        let mut bytes = [0; 4_096];
        loop {
            let whole = self.deframer.ready()?;
            let (mut consumed, mut found) = (0, None);
            for frame in frames(whole) {
                consumed += frame.payload.len() + cordee_core::framing::HEADER_BYTES;
                if frame.kind == Bye::KIND {
                    let bye = Bye::parse(frame.payload)?;
                    return Err(refused(bye.reason, bye.detail));
                }
                found = take(frame)?;
                if found.is_some() {
                    break;
                }
            }
            self.deframer.consume(consumed);
            if let Some(found) = found {
                return Ok(found);
            }
            self.stream.set_read_timeout(Some(left(deadline)?)).map_err(ObserveError::Broken)?;
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ObserveError::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.deframer.extend(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
    }
}

/// The end of a time that begins now; a day at the most, as no clock counts for ever.
fn after(time: Duration) -> Instant {
    Instant::now() + time.min(Duration::from_secs(24 * 3_600))
}

/// Connects to the first that answers.
fn dial(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, ObserveError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(address, left(deadline)?) {
            Ok(stream) => {
                // Only a small delay is lost when the system does not know the option.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(ObserveError::Connect(last))
}

/// What is left until the deadline: never nothing, which a socket would take for no limit at all.
fn left(deadline: Instant) -> Result<Duration, ObserveError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ObserveError::Timeout) } else { Ok(left) }
}

fn broken(error: io::Error) -> ObserveError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ObserveError::Timeout,
        _ => ObserveError::Broken(error),
    }
}

fn refused(reason: Reason, detail: &str) -> ObserveError {
    ObserveError::Refused { reason, detail: detail.to_owned() }
}

fn block_report(status: &BlockServerStatus) -> BlockServerReport {
    BlockServerReport {
        pid: status.pid,
        files: status.files,
        transfers: status.transfers,
        bytes_sent: status.bytes_sent,
        connections: status.connections,
    }
}

fn report(status: &ServerStatus<'_>) -> ServerReport {
    ServerReport {
        address: status.address.to_owned(),
        pid: status.pid,
        server: status.server,
        incarnation: status.incarnation,
        ma: status.ma,
        digest: status.digest,
        from: status.from,
        users: status.users,
        limit: status.limit,
        rooms: status.rooms,
        sessions: status.sessions,
        memory_bytes: status.memory_bytes,
        final_clock: status.final_clock,
        members: status
            .members
            .iter()
            .map(|member| MemberReport {
                address: member.address.to_owned(),
                state: member.state,
                ma: member.ma,
            })
            .collect(),
    }
}

fn add_users(list: &UserList<'_>, users: &mut Vec<UserReport>) {
    users.extend(list.users.iter().map(|user| UserReport {
        name: user.name.to_owned(),
        session: user.session,
        online: user.online,
        server: user.server.to_owned(),
        rooms: user.rooms.iter().map(str::to_owned).collect(),
    }));
}

/// More users than that are no list that a server of ours would send.
const USERS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests;
