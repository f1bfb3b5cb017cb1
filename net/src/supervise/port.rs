//! Ports that are kept for children.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// A port that is kept for a child: nobody else gets it by chance, not even while the child is
/// dead and before it has bound it again.
///
/// It is bound and does not listen, so that connecting to it is refused while the child is dead.
/// Whoever binds the address itself with `SO_REUSEADDR`, as the child does, still can.
#[derive(Debug)]
pub struct ReservedPort {
    address: SocketAddr,
    _socket: Socket,
}

impl ReservedPort {
    /// Reserves `address`; port 0 takes any that is free.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AddrInUse`] when somebody has it, and whatever else binding gives.
    pub fn new(address: SocketAddr) -> io::Result<ReservedPort> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(ReservedPort { address, _socket: socket })
    }

    /// The address, with the port that it got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
