//! What a block server is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cordee_core::blocks::BLOCK_BYTES_DEFAULT;

use super::BlockLimits;
use crate::log::Log;

/// What a block server is started with. [`BlockServerConfig::new`] gives defaults for all but where
/// to listen and what to serve.
#[derive(Debug)]
pub struct BlockServerConfig {
    /// Where to listen; port 0 draws a free one.
    pub listen: SocketAddr,
    /// The directory below which files are served.
    pub directory: PathBuf,
    /// Threads that serve, at least 1, and as many that hash. By default one for each processor.
    pub threads: u32,
    /// Bytes of files that all connections together get each second; none for no limit.
    pub limit_rate: Option<u64>,
    /// The length of a block in bytes, a power of two from 2^10 to 2^24; files of more than 2^22 of
    /// them get longer ones.
    pub block_bytes: u32,
    /// What bounds everything.
    pub limits: BlockLimits,
    /// Where reports go.
    pub log: Log,
}

impl BlockServerConfig {
    /// A server of the files below `directory` that listens on `listen` and reports nothing.
    #[must_use]
    pub fn new(listen: SocketAddr, directory: impl Into<PathBuf>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        BlockServerConfig {
            listen,
            directory: directory.into(),
            threads: processors,
            limit_rate: None,
            block_bytes: BLOCK_BYTES_DEFAULT,
            limits: BlockLimits::default(),
            log: Log::none(),
        }
    }
}

/// For how long a server that is asked to stop may finish the blocks that it is sending.
pub const DRAIN: Duration = Duration::from_secs(5);
