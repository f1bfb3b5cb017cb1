//! A connection and the runs of blocks that were asked of it.

use alloc::collections::VecDeque;
use core::ops::Range;

use super::api::{FetchConn, Trouble};
use super::meters::{RateMeter, WaitMeter};
use crate::time::Time;

/// A run that was asked for and has not come whole.
///
/// ```text
/// first ──────── next ─────────── keep ─────────── end
///   came already   awaited of it    another's, or free: welcome if it comes first (extra), or not
/// ```
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) request: u64,
    /// The next block that is to come.
    pub(super) next: u64,
    /// The end of the blocks that are this run's and nobody else's.
    pub(super) keep: u64,
    pub(super) end: u64,
    /// It was taken back; what is awaited of it is on its way.
    pub(super) is_cancelled: bool,
    /// What comes beyond `keep` is welcome: it is not taken back before others have stored it, or
    /// are asked for it while it is free.
    pub(super) is_extra_welcome: bool,
    /// It asks for a block that another is asked for as well.
    pub(super) is_hedge: bool,
}

impl Run {
    pub(super) const fn new(request: u64, blocks: Range<u64>) -> Run {
        Run {
            request,
            next: blocks.start,
            keep: blocks.end,
            end: blocks.end,
            is_cancelled: false,
            is_extra_welcome: false,
            is_hedge: false,
        }
    }

    /// The blocks that are awaited of this run and of no other.
    pub(super) const fn owned(&self) -> Range<u64> {
        self.next..self.keep
    }

    /// The blocks that may still be sent, as far as we know.
    pub(super) const fn in_flight(&self) -> Range<u64> {
        self.next..if self.is_cancelled { self.keep } else { self.end }
    }

    /// Whether blocks of `range` will be sent that are not its own.
    pub(super) fn sends_others(&self, range: &Range<u64>) -> bool {
        let keep = self.keep.max(self.next);
        !self.is_cancelled && keep < range.end && range.start < self.end && keep < self.end
    }
}

/// Where a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Connecting,
    Open,
    /// We closed it, because of something or for good order.
    Closing(Option<Trouble>),
}

/// Since when a connection gave nothing, and when it is asked for one block again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    pub(super) since: Time,
    pub(super) probe_at: Time,
    pub(super) probe_us: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Conn {
    pub(super) id: FetchConn,
    /// Index of its source.
    pub(super) source: usize,
    pub(super) stage: Stage,
    /// When it was begun.
    pub(super) since: Time,
    pub(super) rtt_us: u64,
    pub(super) requests_max: u32,
    /// In the order in which they were asked for.
    pub(super) runs: VecDeque<Run>,
    /// Requests so far.
    pub(super) asked: u64,
    /// What has come of the block that is to come next, in bytes.
    pub(super) partial: u64,
    pub(super) rate: RateMeter,
    pub(super) waits: WaitMeter,
    /// The last sign of life while something was awaited.
    pub(super) heard: Time,
    /// The last byte.
    pub(super) byte_at: Time,
    pub(super) suspicion: Option<Suspicion>,
    /// It refused: nothing is asked before.
    pub(super) paused_until: Time,
    /// It gets nothing any more and is closed when it is through.
    pub(super) is_retiring: bool,
}

impl Conn {
    pub(super) fn new(id: FetchConn, source: usize, now: Time) -> Conn {
        Conn {
            id,
            source,
            stage: Stage::Connecting,
            since: now,
            rtt_us: 0,
            requests_max: 1,
            runs: VecDeque::new(),
            asked: 0,
            partial: 0,
            rate: RateMeter::default(),
            waits: WaitMeter::new(now, 0),
            heard: now,
            byte_at: Time::ZERO,
            suspicion: None,
            paused_until: Time::ZERO,
            is_retiring: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing(_))
    }

    /// Open and not suspect.
    pub(super) fn is_sound(&self) -> bool {
        self.is_open() && self.suspicion.is_none()
    }

    /// Where among the runs the one is that `block` comes of.
    pub(super) fn run_of(&self, block: u64) -> Option<usize> {
        self.runs.iter().position(|run| run.next <= block && block < run.end)
    }

    /// Blocks that are in flight.
    pub(super) fn in_flight_blocks(&self) -> u64 {
        let count = |run: &Run| {
            let blocks = run.in_flight();
            blocks.end.saturating_sub(blocks.start)
        };
        self.runs.iter().map(count).sum()
    }
}
