//! Why a server did not start, or ended.

use std::io;
use std::net::SocketAddr;

use cordee_core::LimitError;

use crate::threads::ThreadFailure;

/// Why a server did not start, or ended. Each names the thing and the mend.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with -i and -p")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others cannot be told how to reach the server.
    #[error("{address} is no address that others can reach: say which is, with --advertise")]
    Advertise {
        /// The address that it listens on.
        address: SocketAddr,
    },
    /// A limit that the protocol does not allow.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The operating system gives no more of something.
    #[error("cannot make {what}: {source}; raise ulimit -n")]
    Resource {
        /// What.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A thread could not be made, or died.
    #[error(transparent)]
    Thread(#[from] ThreadFailure),
}
