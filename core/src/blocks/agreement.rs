//! Which version of a file is fetched, when sources may have different ones.
//!
//! ```text
//!  asked ──▶ all have answered, or 300 ms have passed since the first hash, or it is the one wanted
//!        ──▶ chosen: the largest group, its first source is asked for the hashes
//!        ──▶ they do not fold into the root: that one is left out, the next is asked …
//!                          … and the next group is chosen when a group has none left
//! ```
//!
//! Whoever answers later is judged as it comes.

use alloc::vec::Vec;

use super::scheduler::{Fault, SourceId, Trouble};
use super::{BLOCK_BYTES_DEFAULT, Layout, Root};
use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::time::{MILLI_US, Time};

/// What a source answered when it was asked to open the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It has hashed the file.
    Hashed {
        /// The hash of the whole.
        root: Root,
        /// In bytes.
        length: u64,
        /// Of a block.
        block_bytes: u32,
    },
    /// It has yet to hash it. The driver asks again.
    Hashing {
        /// In bytes.
        length: u64,
        /// Of a block.
        block_bytes: u32,
    },
    /// It has no hashes, or was not asked for any.
    Plain {
        /// In bytes.
        length: u64,
        /// Of a block; none if it can be asked for any range.
        block_bytes: Option<u32>,
        /// What differs between versions: a hash of an ETag, or the time of the last change.
        tag: u64,
    },
    /// It did not open the file. Where that can pass, the driver tries again.
    Failed(Fault),
}

/// A version of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// The hash of the whole; unknown where nobody gave one and none is wanted.
    pub root: Root,
    /// How it is cut.
    pub layout: Layout,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgreementInput {
    /// A source is asked from now on.
    SourceAdded {
        /// The next number.
        source: SourceId,
    },
    /// It answered, perhaps not for the first time.
    Answered {
        /// Who.
        source: SourceId,
        /// What.
        answer: Answer,
    },
    /// The hashes that it gave are those of the version that was chosen.
    HashesTaken {
        /// Who gave them.
        source: SourceId,
    },
    /// The hashes that it gave do not fold into the root, or it gave none.
    HashesRefused {
        /// Who was to give them.
        source: SourceId,
        /// What was wrong: [`Trouble::Corrupt`] where they do not fold.
        why: Trouble,
    },
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgreementEffect {
    /// This version is fetched; in place of any that was chosen before.
    Choose {
        /// Which.
        version: Version,
        /// How many sources have it, so far. One that nobody confirms deserves a warning.
        sources: u32,
    },
    /// Ask for all hashes; answered by `HashesTaken` or `HashesRefused`. Never for a version
    /// whose hashes nobody has.
    AskHashes {
        /// Whom.
        source: SourceId,
    },
    /// A source has the version that was chosen.
    Use {
        /// Who.
        source: SourceId,
    },
    /// A source is left out for good.
    LeaveOut {
        /// Who.
        source: SourceId,
        /// Why.
        why: Trouble,
    },
    /// No source is left, or none gave an answer in time.
    Fail,
}

/// What is known of a source.
#[derive(Clone, Copy, Debug)]
struct Known {
    answer: Option<Answer>,
    is_left_out: bool,
    is_used: bool,
}

/// Decides which version is fetched, and from whom.
#[derive(Debug)]
pub struct Agreement {
    wanted: Option<Root>,
    timeout_us: u64,
    sources: Vec<Known>,
    chosen: Option<Version>,
    /// Who is asked for the hashes.
    asked: Option<SourceId>,
    has_hashes: bool,
    is_over: bool,
    /// When the first source was added, and when the first answered with a hash.
    since: Option<Time>,
    hash_at: Option<Time>,
}

/// So long is waited for others after the first hash.
const WAIT_US: u64 = 300 * MILLI_US;

impl Agreement {
    /// For a file whose hash is `wanted`, or that of most sources. `timeout_us` without anything
    /// to choose, in microseconds, and it fails.
    #[must_use]
    pub fn new(wanted: Option<Root>, timeout_us: u64) -> Agreement {
        Agreement {
            wanted,
            timeout_us,
            sources: Vec::new(),
            chosen: None,
            asked: None,
            has_hashes: false,
            is_over: false,
            since: None,
            hash_at: None,
        }
    }

    /// The version that was chosen.
    #[must_use]
    pub const fn chosen(&self) -> Option<Version> {
        self.chosen
    }

    fn on_answered(
        &mut self,
        now: Time,
        source: SourceId,
        answer: Answer,
        out: &mut Outbox<AgreementEffect>,
    ) {
        let known = &mut self.sources[source.0 as usize];
        if known.is_left_out {
            return;
        }
        known.answer = Some(answer);
        if let Answer::Hashed { .. } = answer {
            self.hash_at.get_or_insert(now);
        }
        if let Some(why) = self.why_never(&answer) {
            self.leave_out(source, why, out);
        }
    }

    /// What makes an answer useless whatever the others say.
    fn why_never(&self, answer: &Answer) -> Option<Trouble> {
        let layout = match *answer {
            Answer::Failed(fault @ (Fault::Unknown | Fault::Forbidden | Fault::OtherVersion)) => {
                return Trouble::of(fault);
            }
            Answer::Failed(_) => return None,
            Answer::Hashed { root, .. } if self.wanted.is_some_and(|wanted| wanted != root) => {
                return Some(Trouble::OtherVersion);
            }
            Answer::Hashed { length, block_bytes, .. }
            | Answer::Hashing { length, block_bytes } => Layout::new(length, block_bytes),
            Answer::Plain { length, block_bytes: Some(block_bytes), .. } => {
                Layout::new(length, block_bytes)
            }
            Answer::Plain { length, block_bytes: None, .. } => {
                Layout::for_file(length, BLOCK_BYTES_DEFAULT)
            }
        };
        layout.is_err().then_some(Trouble::Garbage)
    }

    fn leave_out(&mut self, source: SourceId, why: Trouble, out: &mut Outbox<AgreementEffect>) {
        let known = &mut self.sources[source.0 as usize];
        if !core::mem::replace(&mut known.is_left_out, true) {
            known.is_used = false;
            out.push(AgreementEffect::LeaveOut { source, why });
        }
    }

    /// The version that an answer stands for by itself.
    fn version_of(&self, answer: &Answer) -> Option<Version> {
        let (root, layout) = match *answer {
            Answer::Hashed { root, length, block_bytes } => {
                (root, Layout::new(length, block_bytes))
            }
            Answer::Plain { length, block_bytes, .. } => (
                self.wanted.unwrap_or_default(),
                match block_bytes {
                    Some(block_bytes) => Layout::new(length, block_bytes),
                    None => Layout::for_file(length, BLOCK_BYTES_DEFAULT),
                },
            ),
            Answer::Hashing { .. } | Answer::Failed(_) => return None,
        };
        Some(Version { root, layout: layout.ok()? })
    }

    /// Those that are not left out, with their answers.
    fn answers(&self) -> impl Iterator<Item = (SourceId, Option<Answer>)> {
        let sources = self.sources.iter().enumerate().filter(|(_, known)| !known.is_left_out);
        sources.map(|(at, known)| (SourceId(at as u32), known.answer))
    }

    fn settle(&mut self, now: Time, out: &mut Outbox<AgreementEffect>) {
        if self.is_over || self.sources.is_empty() {
            return;
        }
        if self.chosen.is_none()
            && self.is_time(now)
            && let Some((first, version)) = self.largest()
        {
            self.choose(first, version, out);
        }
        self.judge(out);
        let is_late = self.chosen.is_none() && self.deadline().is_some_and(|at| at <= now);
        if self.sources.iter().all(|known| known.is_left_out) || is_late {
            self.is_over = true;
            out.push(AgreementEffect::Fail);
        }
    }

    /// Whether it can be said which version is fetched.
    fn is_time(&self, now: Time) -> bool {
        let is_final = |answer: &Option<Answer>| {
            matches!(answer, Some(Answer::Hashed { .. } | Answer::Plain { .. } | Answer::Failed(_)))
        };
        let hashed = |answer: &Option<Answer>| matches!(answer, Some(Answer::Hashed { .. }));
        let has_hash = self.answers().any(|(_, answer)| hashed(&answer));
        let has_waited = self.hash_at.is_some_and(|at| at + WAIT_US <= now);
        self.answers().all(|(_, answer)| is_final(&answer))
            || has_hash && (self.wanted.is_some() || has_waited)
    }

    /// The version of most sources, hashed ones before others, and its first source.
    fn largest(&self) -> Option<(SourceId, Version)> {
        let is_hashed = |answer: &Answer| matches!(answer, Answer::Hashed { .. });
        let known: Vec<(SourceId, Answer)> =
            self.answers().filter_map(|(source, answer)| Some((source, answer?))).collect();
        let size = |answer: &Answer| known.iter().filter(|(_, other)| other == answer).count();
        let candidates = known.iter().filter(|(_, answer)| self.version_of(answer).is_some());
        let (first, answer) = candidates.max_by_key(|(source, answer)| {
            (is_hashed(answer), size(answer), core::cmp::Reverse(*source))
        })?;
        Some((*first, self.version_of(answer)?))
    }

    fn choose(&mut self, first: SourceId, version: Version, out: &mut Outbox<AgreementEffect>) {
        self.chosen = Some(version);
        let answer = self.sources[first.0 as usize].answer;
        let sources = self.answers().filter(|(_, other)| *other == answer).count() as u32;
        out.push(AgreementEffect::Choose { version, sources });
        self.has_hashes = !matches!(answer, Some(Answer::Hashed { .. }));
        if let Some(Answer::Plain { tag: chosen, .. }) = answer {
            // Without hashes nothing but the tag tells versions apart.
            for (source, other) in self.answers().collect::<Vec<_>>() {
                if let Some(Answer::Plain { tag, .. }) = other
                    && tag != chosen
                {
                    self.leave_out(source, Trouble::OtherVersion, out);
                }
            }
        }
    }

    /// Uses those that have the version that was chosen, leaves out those that have another, and
    /// asks for the hashes.
    fn judge(&mut self, out: &mut Outbox<AgreementEffect>) {
        let Some(version) = self.chosen else { return };
        for (source, answer) in self.answers().collect::<Vec<_>>() {
            match answer {
                None | Some(Answer::Failed(_)) => {}
                Some(answer) if !has_version(&answer, &version) => {
                    self.leave_out(source, Trouble::OtherVersion, out);
                }
                Some(_) if !self.sources[source.0 as usize].is_used => {
                    self.sources[source.0 as usize].is_used = true;
                    out.push(AgreementEffect::Use { source });
                }
                Some(_) => {}
            }
        }
        if self.has_hashes || self.asked.is_some() {
            return;
        }
        let is_hashed = |answer: &Option<Answer>| matches!(answer, Some(Answer::Hashed { .. }));
        let next = self.answers().find(|(_, answer)| is_hashed(answer)).map(|(source, _)| source);
        self.asked = next;
        if let Some(source) = self.asked {
            out.push(AgreementEffect::AskHashes { source });
        }
    }

    fn on_hashes_refused(
        &mut self,
        now: Time,
        source: SourceId,
        why: Trouble,
        out: &mut Outbox<AgreementEffect>,
    ) {
        if self.has_hashes || self.asked != Some(source) {
            return;
        }
        self.asked = None;
        if why == Trouble::Corrupt {
            self.leave_out(source, why, out);
        } else {
            // It may come back; meanwhile its word does not count.
            let known = &mut self.sources[source.0 as usize];
            (known.answer, known.is_used) = (Some(Answer::Failed(Fault::Ended)), false);
        }
        let is_hashed = |answer: Option<Answer>| matches!(answer, Some(Answer::Hashed { .. }));
        if !self.answers().any(|(_, answer)| is_hashed(answer)) {
            self.chosen = None;
            self.hash_at = None;
            self.since = Some(now);
            self.sources.iter_mut().for_each(|known| known.is_used = false);
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.since.map(|since| since + self.timeout_us)
    }
}

/// Whether who gave this answer can send blocks of a version.
fn has_version(answer: &Answer, version: &Version) -> bool {
    let (length, own) = (version.layout.length(), version.layout.block_bytes());
    match *answer {
        Answer::Hashed { root, length: theirs, block_bytes } => {
            (root == version.root || version.root.is_unknown())
                && theirs == length
                && block_bytes == own
        }
        // Each block is checked by hashes that others gave.
        Answer::Hashing { length: theirs, block_bytes } => theirs == length && block_bytes == own,
        Answer::Plain { length: theirs, block_bytes, .. } => {
            theirs == length && block_bytes.is_none_or(|block_bytes| block_bytes == own)
        }
        Answer::Failed(_) => false,
    }
}

impl Machine for Agreement {
    type Input<'a> = AgreementInput;
    type Effect = AgreementEffect;

    fn handle_input(
        &mut self,
        now: Time,
        input: AgreementInput,
        out: &mut Outbox<AgreementEffect>,
    ) {
        match input {
            AgreementInput::SourceAdded { source } => {
                assert_eq!(source.0 as usize, self.sources.len(), "sources are numbered in order");
                self.since.get_or_insert(now);
                self.sources.push(Known { answer: None, is_left_out: false, is_used: false });
            }
            AgreementInput::Answered { source, answer } => {
                self.on_answered(now, source, answer, out);
            }
            AgreementInput::HashesTaken { source } => {
                self.has_hashes |= self.asked == Some(source);
            }
            AgreementInput::HashesRefused { source, why } => {
                self.on_hashes_refused(now, source, why, out);
            }
        }
        self.settle(now, out);
    }

    fn handle_timeout(&mut self, now: Time, out: &mut Outbox<AgreementEffect>) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.settle(now, out);
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        if self.is_over || self.chosen.is_some() {
            return None;
        }
        let has_waited = self.hash_at.map(|at| at + WAIT_US);
        let has_hash = |known: &Known| {
            !known.is_left_out && matches!(known.answer, Some(Answer::Hashed { .. }))
        };
        let wait = has_waited.filter(|_| self.sources.iter().any(has_hash));
        [wait, self.deadline()].into_iter().flatten().min()
    }

    fn check(&self) {
        let standing = |at: SourceId| !self.sources[at.0 as usize].is_left_out;
        assert!(self.has_hashes || self.asked.is_none_or(standing), "who is asked is not left out");
        assert!(self.asked.is_none() || self.chosen.is_some() || self.has_hashes, "for a version");
        for known in &self.sources {
            assert!(!known.is_used || !known.is_left_out, "used or left out");
            assert!(!known.is_used || self.chosen.is_some(), "used for a version");
        }
    }
}

#[cfg(test)]
mod tests;
