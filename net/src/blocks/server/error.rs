//! Why a block server did not start, or ended.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use cordee_core::blocks::LayoutError;

use crate::threads::ThreadFailure;

/// Why a block server did not start, or ended. Each names the thing and the mend.
#[derive(Debug, thiserror::Error)]
pub enum BlockServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with -i and -p")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The directory cannot be served.
    #[error("cannot serve {}: {source}; name a directory that can be read", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The length of a block is not allowed.
    #[error(transparent)]
    BlockBytes(#[from] LayoutError),
    /// A limit with which nothing could be served.
    #[error("the limit {0} is out of its range")]
    Limit(&'static str),
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
