//! What is done with a socket directly.

use std::io;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::Socket;

/// Receives what is there; `None` when nothing is.
pub(super) fn recv_now(
    socket: &Socket,
    into: &mut [u8],
    flags: RecvFlags,
) -> io::Result<Option<usize>> {
    loop {
        match recv(socket, &mut *into, flags | RecvFlags::DONTWAIT) {
            Ok((count, _)) => return Ok(Some(count)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Chooses the control of congestion that is best where there is no delay: with the system's usual one
/// a connection over loopback may have less than half of the speed.
pub(super) fn choose_reno(socket: &Socket) {
    // Where the kernel does not have it, the connection is slower.
    let _ = socket.set_tcp_congestion(b"reno");
}
