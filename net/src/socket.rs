//! Sockets: how they are made, and what is set on each.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// A listener on `address`. Takes bursts of connections: the backlog is [`BACKLOG`], cut by the
/// system to `net.core.somaxconn`.
pub(crate) fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Connects to `target` within `time`, from the IP `from` where that makes sense.
pub(crate) fn connect(
    target: SocketAddr,
    from: Option<IpAddr>,
    time: Duration,
) -> io::Result<Socket> {
    let socket = dialling(target, from)?;
    socket.connect_timeout(&target.into(), time)?;
    connected(&socket, target)?;
    Ok(socket)
}

/// Begins to connect to `target`. When the socket can be written to, [`connected`] says whether it
/// is connected.
pub(crate) fn begin_to_connect(target: SocketAddr, from: Option<IpAddr>) -> io::Result<Socket> {
    let socket = dialling(target, from)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        result => result?,
    }
    Ok(socket)
}

fn dialling(target: SocketAddr, from: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(from) = from.filter(|from| reaches(*from, target.ip())) {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    Ok(socket)
}

/// Looks what came of connecting, and sets what every connection has.
pub(crate) fn connected(socket: &Socket, target: SocketAddr) -> io::Result<()> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    // A port of our own range may have been drawn as our own: then we talk to ourselves.
    if socket.local_addr()?.as_socket() == Some(target) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    prepare(socket)
}

/// Sets what every connection has: no delay for small segments, probes on silence, for ends that
/// went without a word, and little unsent in the kernel. Otherwise the kernel takes megabytes for a
/// slow link, where nothing urgent can overtake them and nobody sees that they have not left.
pub(crate) fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    socket.set_tcp_keepalive(&keepalive)
}

/// Sends what the kernel takes at once and returns how many bytes that was.
pub(crate) fn send_now(socket: &Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = (SendFlags::DONTWAIT | SendFlags::NOSIGNAL).bits().cast_signed();
    loop {
        match socket.send_vectored_with_flags(slices, flags) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a socket bound to `from` may connect to `target`: the same family, and not from
/// loopback to elsewhere.
fn reaches(from: IpAddr, target: IpAddr) -> bool {
    !from.is_unspecified()
        && from.is_ipv4() == target.is_ipv4()
        && from.is_loopback() == target.is_loopback()
}

const UNSENT_BYTES_MAX: u32 = 128 << 10;
const BACKLOG: i32 = 4_096;
const KEEPALIVE: Duration = Duration::from_secs(30);
