//! What must hold after every step.

use super::Scheduler;
use super::runs::Stage;

impl Scheduler {
    pub(super) fn check_invariants(&self) {
        let layout = &self.config.layout;
        let mut owned = 0;
        let mut seen = super::BlockSet::new(layout.blocks());
        for conn in &self.conns {
            let is_idle = conn.runs.is_empty();
            assert!(is_idle || conn.is_open(), "{:?}: only open ones are asked", conn.id);
            assert!(conn.runs.len() <= conn.requests_max as usize, "{:?}: requests", conn.id);
            assert!(conn.source < self.sources.len(), "{:?}: its source", conn.id);
            for run in &conn.runs {
                assert!(run.next <= run.keep.max(run.next), "{run:?}");
                assert!(run.keep <= run.end && run.next < run.end, "{run:?}: in order");
                for block in run.owned().filter(|block| !self.stored.contains(*block)) {
                    assert!(seen.insert(block), "block {block} has two owners");
                    assert!(!self.free.contains(block), "block {block} is owned and free");
                    owned += 1;
                }
            }
        }
        let ids = self.conns.windows(2).all(|pair| pair[0].id < pair[1].id);
        assert!(ids, "connections are in order");
        let known = self.stored.len() + self.free.len() + owned;
        assert_eq!(known, layout.blocks(), "a block is stored, free, or owned");
        for run in self.free.runs() {
            let stored = self.stored.next(run.start);
            assert!(stored.is_none_or(|stored| stored >= run.end), "a stored block is free");
        }
        assert_eq!(self.low, self.stored.next_missing(0), "the first that is not stored");
        let in_flight = self.in_flight_bytes();
        assert!(in_flight <= self.config.in_flight_bytes_max, "{in_flight} bytes in flight");
        if self.is_over {
            let closing = |stage| matches!(stage, Stage::Closing(_));
            assert!(self.conns.iter().all(|conn| closing(conn.stage)), "all is closed at the end");
        }
        for (at, source) in self.sources.iter().enumerate() {
            let live = self.conns.iter().any(|conn| conn.source == at && !conn.is_closing());
            assert!(source.dropped.is_none() || !live, "a source that is left out is closed");
        }
    }
}
