//! A worker: takes the connections that have something to be done, one after the other, and serves
//! each for a bounded turn. It waits for nobody but the disk.

use super::connection::{Bench, Handle, Outcome};
use super::queue::Queue;
use super::shared::Shared;
use super::table::Table;
use crate::sync::Arc;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) table: Arc<Table>,
    pub(super) queue: Arc<Queue<Handle>>,
    pub(super) shared: Arc<Shared>,
}

impl Worker {
    /// Serves until the queue is closed.
    pub(super) fn run(self) {
        let mut bench = Bench::default();
        while let Some(mut connection) = self.queue.pop() {
            match connection.turn(&self.shared, &mut bench) {
                Outcome::Again => self.queue.push(connection),
                Outcome::Park { interest, until } => self.table.park(connection, interest, until),
                Outcome::Close => drop(connection),
            }
        }
    }
}
