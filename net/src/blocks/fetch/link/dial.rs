//! Connects, and can be told to stop.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cordee_core::blocks::scheduler::Fault;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::Socket;

use super::{Gone, Shared};
use crate::address::resolve;
use crate::socket::{begin_to_connect, connected};

/// Connects to the first address of `host:port` that answers. Returns how long that took, too, in
/// microseconds: a round trip.
pub(super) fn dial(address: &str, shared: &Shared) -> Result<(Socket, u64), Gone> {
    let unreachable = |error: io::Error| Gone::new(Fault::Unreachable, error.to_string());
    let addresses = resolve(address).map_err(unreachable)?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let begun = Instant::now();
        match connect(address, shared) {
            Ok(socket) => return Ok((socket, begun.elapsed().as_micros() as u64)),
            Err(error) => last = error,
        }
        if shared.is_closing() {
            return Err(Gone::asked());
        }
    }
    Err(unreachable(last))
}

fn connect(address: SocketAddr, shared: &Shared) -> io::Result<Socket> {
    let socket = begin_to_connect(address, None)?;
    let begun = Instant::now();
    loop {
        let mut polled = [PollFd::new(&socket, PollFlags::OUT)];
        match poll(&mut polled, Some(&LOOK_EVERY)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
        if shared.is_closing() || begun.elapsed() > CONNECT_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    connected(&socket, address)?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}

const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Nobody who answers at all takes longer.
const CONNECT_MAX: Duration = Duration::from_secs(5);
