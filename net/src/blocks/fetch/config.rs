//! What to fetch, from whom, and how.

use std::path::PathBuf;
use std::time::Duration;

use cordee_core::blocks::Root;
use cordee_core::blocks::scheduler::TIMEOUT_US_DEFAULT;

use super::source::Source;

/// Whether the bytes that come are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verify {
    /// Every block is compared with its hash before it is written.
    #[default]
    Full,
    /// Nothing is: for networks where nobody lies and nothing breaks.
    None,
}

/// Where the bytes go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A file, which appears when it is whole; until then there are `FILE.part` and
    /// `FILE.part.journal`. Of a directory: the directory that its files go into.
    File(PathBuf),
    /// Standard output, in order.
    Stdout,
}

/// How a file is fetched. The fields may be set as one likes; [`new`](Self::new) has defaults for
/// all but three.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// The file's name at the sources: parts with slashes between them.
    pub name: String,
    /// Who may have it; at least one.
    pub sources: Vec<Source>,
    /// Where it goes.
    pub target: Target,
    /// The hash that it must have; then no source need be trusted.
    pub hash: Option<Root>,
    /// Whether blocks are verified.
    pub verify: Verify,
    /// Connections to each source, at least 1; none given: as many as help.
    pub connections: Option<u32>,
    /// A new connection for every block.
    pub connection_per_block: bool,
    /// The most bytes per second, at least 1, over all sources.
    pub limit_rate: Option<u64>,
    /// The lowest offset first.
    pub sequential: bool,
    /// Given up after so long without a byte from any source.
    pub timeout: Duration,
    /// What lies in the unfinished file is hashed again, whatever the journal says of it.
    pub recheck: bool,
    /// A file that exists at the target is replaced.
    pub force: bool,
    /// Data are synced to the disk: while it goes on, so that little is lost with the power, and
    /// before the file gets its name. Without, only the loss of power can harm what was fetched.
    pub durable: bool,
    /// Sources that nobody answers at when they are first tried are left out.
    pub only_present: bool,
    /// How often the progress is told.
    pub progress_every: Duration,
}

impl FetchConfig {
    /// The file `name` from `sources` to `target`, and defaults for the rest.
    #[must_use]
    pub fn new(name: impl Into<String>, sources: Vec<Source>, target: Target) -> FetchConfig {
        FetchConfig {
            name: name.into(),
            sources,
            target,
            hash: None,
            verify: Verify::Full,
            connections: None,
            connection_per_block: false,
            limit_rate: None,
            sequential: false,
            timeout: Duration::from_micros(TIMEOUT_US_DEFAULT),
            recheck: false,
            force: false,
            durable: true,
            only_present: false,
            progress_every: Duration::from_millis(100),
        }
    }
}
