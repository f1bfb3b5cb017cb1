//! Connections to members that are being made, without waiting.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use cordee_core::Time;
use cordee_core::chat::server::{DialId, Input};
use cordee_core::time::SECOND_US;
use socket2::Socket;

use super::{PollFd, PollFlags, PolledServer};
use crate::socket::{begin_to_connect, connected};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Dials {
    /// Dials leave from this address where that makes sense.
    from: IpAddr,
    under_way: BTreeMap<DialId, Dial>,
}

#[derive(Debug)]
struct Dial {
    socket: Socket,
    target: SocketAddr,
    latest: Time,
}

/// A dial that can be written to, or failed.
pub(super) type Ready = Vec<DialId>;

impl Dials {
    pub(super) fn new(from: IpAddr) -> Self {
        Dials { from, under_way: BTreeMap::new() }
    }

    /// Begins a dial. A name is no address here: to look it up would wait.
    pub(super) fn begin(&mut self, now: Time, dial: DialId, address: &str) -> io::Result<()> {
        if self.under_way.len() >= DIALS_MAX {
            return Err(ErrorKind::WouldBlock.into());
        }
        let target: SocketAddr = address.parse().map_err(|_| {
            io::Error::new(ErrorKind::InvalidInput, "a server without threads dials numbers only")
        })?;
        let socket = begin_to_connect(target, Some(self.from))?;
        self.under_way.insert(dial, Dial { socket, target, latest: now + DIAL_US });
        Ok(())
    }

    pub(super) fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.under_way.values().map(|dial| PollFd::new(&dial.socket, PollFlags::OUT)));
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.under_way.values().map(|dial| dial.latest).min()
    }

    pub(super) fn ready(&self, ready: &mut impl Iterator<Item = PollFlags>) -> Ready {
        let dials = self.under_way.keys().zip(ready.take(self.under_way.len()));
        dials.filter(|(_, flags)| !flags.is_empty()).map(|(dial, _)| *dial).collect()
    }

    fn end(&mut self, dial: DialId) -> io::Result<Socket> {
        let Dial { socket, target, .. } =
            self.under_way.remove(&dial).ok_or(ErrorKind::NotFound)?;
        connected(&socket, target)?;
        Ok(socket)
    }
}

impl PolledServer {
    pub(super) fn on_dialled(&mut self, now: Time, ready: Ready) {
        for dial in ready {
            match self.dials.end(dial) {
                Ok(socket) => match self.machine.dialled(now, dial, &mut self.outbox) {
                    Some(conn) => self.link(now, conn, socket, true),
                    None => self.apply(now),
                },
                Err(_) => self.input(now, Input::DialFailed { dial }),
            }
        }
        let late = |dial: &Dial| dial.latest <= now;
        let late: Vec<DialId> =
            self.dials.under_way.iter().filter(|(_, dial)| late(dial)).map(|(id, _)| *id).collect();
        for dial in late {
            self.dials.under_way.remove(&dial);
            self.input(now, Input::DialFailed { dial });
        }
    }
}

/// Dials at a time.
const DIALS_MAX: usize = 64;
/// How long a dial has.
const DIAL_US: u64 = SECOND_US;
