//! Sources as the hub sees them, and what is wrong with them.

use std::time::Instant;

use cordee_core::blocks::scheduler::{Fault, SourceState, Trouble};

use super::super::report::{SourceFault, SourceProgress};
use super::super::source::Source;

/// A source.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) source: Source,
    /// What it answered when it was last asked for the file.
    pub(super) answer: Answer,
    /// The agreement was not told of the answer.
    pub(super) is_news: bool,
    /// When to ask again, if there is use in it.
    pub(super) ask_at: Option<Instant>,
    pub(super) failures: u32,
    /// It is not asked for this file any more.
    pub(super) left_out: Option<Fault>,
    /// What the scheduler last said of it.
    pub(super) seen: Seen,
    /// Payload of earlier files and attempts.
    pub(super) bytes_before: u64,
    /// What was wrong before there was a scheduler, and what is known beyond it.
    own: Vec<SourceFault>,
    details: Vec<(Trouble, String)>,
}

/// What a source answered to being asked for a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Nothing yet.
    None,
    /// The file is there.
    Opened(super::links::Opened),
    /// It is being hashed.
    Hashing { hashed: u64, length: u64, block_bytes: u32 },
    /// It does not have it, or does not answer.
    Fault(Fault),
    /// The name is a directory's.
    Directory,
}

/// A copy of what the scheduler said.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) state: SourceState,
    pub(super) connections: u32,
    pub(super) bytes: u64,
    pub(super) bytes_per_s: u64,
    pub(super) troubles: Vec<(Trouble, u32)>,
}

impl Default for Seen {
    fn default() -> Self {
        Seen {
            state: SourceState::Connecting,
            connections: 0,
            bytes: 0,
            bytes_per_s: 0,
            troubles: Vec::new(),
        }
    }
}

impl Peer {
    pub(super) fn new(source: &Source) -> Peer {
        Peer {
            source: source.clone(),
            answer: Answer::None,
            is_news: false,
            ask_at: None,
            failures: 0,
            left_out: None,
            seen: Seen::default(),
            bytes_before: 0,
            own: Vec::new(),
            details: Vec::new(),
        }
    }

    /// Forgets what belongs to one file.
    pub(super) fn begin_file(&mut self, now: Instant) {
        // Nobody waits for one who did not answer the last time.
        self.answer = match self.answer {
            Answer::Fault(fault @ (Fault::Unreachable | Fault::Silent | Fault::Ended)) => {
                Answer::Fault(fault)
            }
            _ => Answer::None,
        };
        self.is_news = true;
        self.ask_at = Some(now);
        self.failures = 0;
        self.left_out = None;
        self.own.clear();
        self.details.clear();
        self.bytes_before = 0;
        self.seen = Seen::default();
    }

    /// Takes an answer.
    pub(super) fn answer(&mut self, answer: Answer) {
        self.answer = answer;
        self.is_news = true;
    }

    /// Remembers what was wrong, for the report.
    pub(super) fn blame(&mut self, trouble: Trouble, detail: &str) {
        match self.own.iter_mut().find(|known| known.trouble == trouble) {
            Some(known) => known.count = known.count.saturating_add(1),
            None => self.own.push(SourceFault { trouble, count: 1, detail: detail.to_owned() }),
        }
    }

    /// Remembers what is known of a fault beyond what the scheduler counts.
    pub(super) fn explain(&mut self, fault: Fault, detail: &str) {
        let Some(trouble) = Trouble::of(fault) else { return };
        if detail.is_empty() || self.details.iter().any(|(known, _)| *known == trouble) {
            return;
        }
        self.details.push((trouble, detail.to_owned()));
    }

    /// For the report.
    pub(super) fn progress(&self) -> SourceProgress {
        let mut faults = self.own.clone();
        for (trouble, count) in &self.seen.troubles {
            match faults.iter_mut().find(|known| known.trouble == *trouble) {
                Some(known) => known.count = known.count.saturating_add(*count),
                None => {
                    let detail = self.details.iter().find(|(known, _)| known == trouble);
                    let detail = detail.map(|(_, detail)| detail.clone()).unwrap_or_default();
                    faults.push(SourceFault { trouble: *trouble, count: *count, detail });
                }
            }
        }
        SourceProgress {
            address: self.source.to_string(),
            state: self.seen.state,
            connections: self.seen.connections,
            bytes: self.bytes_before + self.seen.bytes,
            bytes_per_s: self.seen.bytes_per_s,
            faults,
        }
    }
}
