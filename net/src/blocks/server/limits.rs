//! What bounds a block server.

use std::time::Duration;

/// What bounds a block server: everything that others can make it hold or wait for.
///
/// With these defaults it holds at most about 850 MB beside the kernel's buffers: 256 MiB of hashes that
/// are kept, 256 MiB of the two longest files that are being hashed, and for each of 1 024 connections
/// 192 KiB on their way to a reader that does not read, and 128 KiB of what came. The page of a directory
/// over HTTP comes on top, which is as long as 1 000 names in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockLimits {
    /// Connections. One more is told `too_many_connections`, or 503, with
    /// [`retry`](Self::retry). Cut to what the process has descriptors for.
    pub connections_max: u32,
    /// Connections from one address that is not this machine's own.
    pub connections_per_address_max: u32,
    /// Connections over the limit that are kept so long as it takes to refuse them in their own
    /// protocol. One more is refused in ours at once.
    pub refused_max: u32,
    /// Requests of one connection that wait; more are answered with `busy`. Numbers of files are
    /// below it, too. From 1 to 4096.
    pub requests_max: u32,
    /// How many files may be open, all connections together; for more, the answer is `busy`. Cut to
    /// what the process has descriptors for.
    pub open_files_max: u32,
    /// Files that wait to be hashed. More are hashed when they are asked for later.
    pub hashings_max: u32,
    /// Bytes of hashes that are kept; those that were not asked for longest go.
    pub hash_bytes_max: u64,
    /// Entries of directories that one listing or count looks at; there is no more in it.
    pub listing_entries_max: u32,
    /// For a whole hello, or the head of the first HTTP request, after connecting.
    pub hello: Duration,
    /// For the rest of a frame, or of the head of an HTTP request, after its first byte.
    pub frame: Duration,
    /// Without a request, when nothing is being sent.
    pub idle: Duration,
    /// Without anything being taken, while something is being sent.
    pub stall: Duration,
    /// After how long somebody who was refused for want of a place may try again.
    pub retry: Duration,
}

impl Default for BlockLimits {
    fn default() -> Self {
        BlockLimits {
            connections_max: 1_024,
            connections_per_address_max: 64,
            refused_max: 64,
            requests_max: 64,
            open_files_max: 16_384,
            hashings_max: 64,
            hash_bytes_max: 256 << 20,
            listing_entries_max: 1 << 20,
            hello: Duration::from_secs(5),
            frame: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(10),
            retry: Duration::from_secs(1),
        }
    }
}

impl BlockLimits {
    /// The retry time in milliseconds, as it travels.
    pub(super) fn retry_ms(&self) -> u32 {
        u32::try_from(self.retry.as_millis()).unwrap_or(u32::MAX)
    }

    /// The first limit with which nothing could be served.
    pub(super) fn wrong(&self) -> Option<&'static str> {
        let counts = [
            ("connections_max", self.connections_max),
            ("connections_per_address_max", self.connections_per_address_max),
            ("requests_max", self.requests_max),
            ("open_files_max", self.open_files_max),
            ("listing_entries_max", self.listing_entries_max),
        ];
        let times = [
            ("hello", self.hello),
            ("frame", self.frame),
            ("idle", self.idle),
            ("stall", self.stall),
        ];
        let none = counts.iter().find(|(_, count)| *count == 0).map(|(name, _)| *name);
        none.or_else(|| times.iter().find(|(_, time)| time.is_zero()).map(|(name, _)| *name))
            .or_else(|| (self.requests_max > 4_096).then_some("requests_max"))
    }
}
