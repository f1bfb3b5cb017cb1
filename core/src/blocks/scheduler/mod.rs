//! Which source is asked for which block, and when: the scheduler of a fetch.

mod api;

use alloc::vec::Vec;

pub use api::{
    Config, Effect, Fault, FetchConn, IN_FLIGHT_BYTES_DEFAULT, Input, Progress, REQUESTS_DEFAULT,
    RunEnd, SourceId, SourceReport, SourceState, TIMEOUT_US_DEFAULT, Trouble,
};

use super::BlockSet;
use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::time::Time;

/// Fetches every block of a file exactly once from sources that may be slow, silent or lying.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    stored: BlockSet,
    seed: u64,
    troubles: Vec<(Trouble, u32)>,
}

impl Scheduler {
    /// A fetch of what is not in `stored`. Panics when `config` or `stored` makes no sense.
    #[must_use]
    pub fn new(config: Config, stored: &BlockSet, seed: u64) -> Scheduler {
        assert_eq!(stored.blocks(), config.layout.blocks(), "a set of this file's blocks");
        Scheduler { config, stored: stored.clone(), seed, troubles: Vec::new() }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self, _now: Time) -> Progress {
        Progress { blocks: self.config.layout.blocks(), ..Progress::default() }
    }

    /// How each source does, in the order in which they were added.
    pub fn sources(&self, _now: Time) -> impl Iterator<Item = SourceReport<'_>> {
        self.troubles.iter().map(|_| SourceReport {
            source: SourceId(self.seed as u32),
            state: SourceState::Waiting,
            connections: 0,
            bytes: 0,
            blocks_stored: 0,
            blocks_bad: 0,
            bytes_per_s: 0,
            troubles: &self.troubles,
        })
    }

    /// The blocks that are stored.
    #[must_use]
    pub fn stored(&self) -> &BlockSet {
        &self.stored
    }
}

impl Machine for Scheduler {
    type Input<'a> = Input;
    type Effect = Effect;

    fn handle_input(&mut self, _now: Time, _input: Input, _out: &mut Outbox<Effect>) {}

    fn handle_timeout(&mut self, _now: Time, _out: &mut Outbox<Effect>) {}

    fn poll_timeout(&self) -> Option<Time> {
        None
    }

    fn check(&self) {}
}
