//! What a cluster must be able to do to be measured.

use crate::failure::Result;
use crate::swarm::{Line, Speaker};

/// How many servers a cluster has.
pub(crate) const SERVERS: usize = 3;

/// A running cluster of [`SERVERS`] servers. Dropping it ends it.
pub(crate) trait System: Sized {
    /// What it is called in the figures.
    const NAME: &'static str;
    /// A connection's side of its protocol.
    type Speaker: Speaker;

    /// Starts a cluster and waits until its servers are linked. With `kept` it is to keep messages.
    fn start(kept: bool) -> Result<Self>;
    /// The server processes.
    fn pids(&self) -> &[u32];
    /// A connection to a server that hears everything said in the room.
    fn subscriber(&mut self, server: usize) -> Result<Line<Self::Speaker>>;
    /// A connection that publishes to the room.
    fn publisher(&mut self, server: usize) -> Result<Line<Self::Speaker>>;
    /// A connection whose messages are kept on several servers and acknowledged, on the server
    /// that is best for that.
    fn keeper(&mut self) -> Result<Line<Self::Speaker>>;
    /// A connection that has just asked for everything kept.
    fn newcomer(&mut self, server: usize) -> Result<Line<Self::Speaker>>;
    /// How many messages the cluster says it keeps.
    fn kept(&mut self) -> Result<u64>;
    /// To be called when everyone is connected: waits until all servers know.
    fn settle(&mut self) -> Result<()>;
}
