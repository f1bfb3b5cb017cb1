//! What is known of a source, over all of its connections.

use alloc::vec::Vec;

use super::api::Trouble;
use super::meters::{RateMeter, WaitMeter};
use crate::backoff::Backoff;
use crate::time::{MILLI_US, SECOND_US, Time};

/// The first and the longest wait before a source that failed is tried again.
const RETRY_US: u64 = 100 * MILLI_US;
const RETRY_US_MAX: u64 = 10 * SECOND_US;

#[derive(Clone, Debug)]
pub(super) struct Source {
    /// What its last connection gave, and how long that could be silent.
    pub(super) rate: RateMeter,
    pub(super) waits: Option<WaitMeter>,
    /// Where in the file it goes on.
    pub(super) cursor: u64,
    pub(super) dropped: Option<Trouble>,
    /// Not connected to before.
    pub(super) retry_at: Time,
    pub(super) backoff: Backoff,
    /// The last block, or the first failure since, or the beginning.
    pub(super) alive_at: Time,
    /// It failed since its last block.
    pub(super) is_failing: bool,
    /// How often it spoke something else than the protocol.
    pub(super) garbage: u32,
    /// It gave a block since it last took one from another: taking back and forth comes to an end.
    pub(super) may_take: bool,
    /// So many good blocks, one at a time, and it is trusted again.
    pub(super) probation: u32,
    /// Connections beyond the first that helped, or may.
    pub(super) extra: u32,
    pub(super) bytes: u64,
    pub(super) blocks_stored: u64,
    pub(super) blocks_bad: u64,
    pub(super) troubles: Vec<(Trouble, u32)>,
}

impl Source {
    pub(super) fn new(cursor: u64, now: Time) -> Source {
        Source {
            rate: RateMeter::default(),
            waits: None,
            cursor,
            dropped: None,
            retry_at: now,
            backoff: Backoff::new(RETRY_US, RETRY_US_MAX),
            alive_at: now,
            is_failing: false,
            garbage: 0,
            may_take: true,
            probation: 0,
            extra: 0,
            bytes: 0,
            blocks_stored: 0,
            blocks_bad: 0,
            troubles: Vec::new(),
        }
    }

    /// Keeps in mind what was wrong.
    pub(super) fn note(&mut self, trouble: Trouble) {
        match self.troubles.iter_mut().find(|(known, _)| *known == trouble) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.troubles.push((trouble, 1)),
        }
    }

    /// A block came from it.
    pub(super) fn succeeded(&mut self, now: Time) {
        self.alive_at = now;
        self.is_failing = false;
        self.may_take = true;
        self.backoff.reset();
        self.probation = self.probation.saturating_sub(1);
    }
}
