//! Asks the sources for a file; what follows from their answers is for the agreement to say.

use std::time::{Duration, Instant};

use cordee_core::blocks::agreement::{
    Agreement, AgreementEffect, AgreementInput, Answer as Said, Version,
};
use cordee_core::blocks::scheduler::{Fault, SourceId, SourceState, Trouble};
use cordee_core::blocks::{Layout, Manifest, Root};
use cordee_core::wire::Reason;
use cordee_core::{Machine, Outbox};

use super::super::config::Verify;
use super::super::error::FetchError;
use super::super::link::LinkId;
use super::super::report::Stage;
use super::Hub;
use super::faults::{Answer, Peer};
use super::links::{HASHING_RETRY_US, Heard, Opened, fault_of};

/// What is fetched.
#[derive(Clone, Debug)]
pub(in super::super) struct Agreed {
    pub(in super::super) layout: Layout,
    /// None where no source knows it, and nobody said it.
    pub(in super::super) root: Option<Root>,
    /// By which blocks are verified; none where they are not, or nobody has them.
    pub(in super::super) manifest: Option<Manifest>,
    /// What stands for the version of a file that only web servers have.
    pub(in super::super) etag: Option<String>,
}

/// The sources being asked for one file.
struct Asking {
    agreement: Agreement,
    out: Outbox<AgreementEffect>,
    /// What was done, and what there is to do.
    effects: Vec<AgreementEffect>,
    manifest: Option<Manifest>,
    /// Nothing more is to be waited for.
    chosen: Option<Version>,
    failed: bool,
    /// Blocks that all sources together had hashed when they were last looked at.
    hashed: u64,
}

impl Hub<'_> {
    /// Asks every source for the file, until it is known which version is fetched, and its hashes.
    ///
    /// # Errors
    ///
    /// [`FetchError::Sources`] when none has it, [`FetchError::IsDirectory`].
    pub(in super::super) fn agree(&mut self, name: &str) -> Result<Agreed, FetchError> {
        let now = Instant::now();
        for peer in &mut self.peers {
            peer.begin_file(now);
        }
        let mut asking = self.begin_to_ask();
        loop {
            self.ask_due(name)?;
            self.tell_agreement(&mut asking);
            self.perform_agreement(&mut asking)?;
            if let Some(version) = asking.chosen {
                return Ok(self.agreed(version, asking.manifest));
            }
            let directory = self.peers.iter().any(|peer| peer.answer == Answer::Directory);
            if asking.failed && directory {
                return Err(FetchError::IsDirectory);
            }
            if asking.failed {
                // Whoever is still hashing, and gets on with it, is waited for.
                if self.hashed() == asking.hashed {
                    return Err(self.hopeless(name));
                }
                asking = self.begin_to_ask();
                self.peers.iter_mut().for_each(|peer| peer.is_news = true);
            }
            let (bytes, total) = self.hashed_bytes();
            self.tell_progress(Stage::Asking, false, |told| {
                told.bytes = bytes;
                told.total = total;
            });
            let mut until = self.ask_next().min(self.progress_due());
            if let Some(at) = asking.agreement.poll_timeout() {
                until = until.min(self.clock.instant(at).unwrap_or(until));
            }
            if let Some(heard) = self.next(until)? {
                self.take_answer(heard);
            }
        }
    }

    fn begin_to_ask(&self) -> Asking {
        let timeout_us = self.config.timeout.as_micros().try_into().unwrap_or(u64::MAX);
        let mut asking = Asking {
            agreement: Agreement::new(self.config.hash, timeout_us),
            out: Outbox::new(),
            effects: Vec::new(),
            manifest: None,
            chosen: None,
            failed: false,
            hashed: self.hashed(),
        };
        for source in (0..self.peers.len() as u32).map(SourceId) {
            self.tell_one(&mut asking, AgreementInput::SourceAdded { source });
        }
        asking
    }

    fn tell_one(&self, asking: &mut Asking, input: AgreementInput) {
        asking.agreement.handle_input(self.clock.now(), input, &mut asking.out);
        let effects = &mut asking.effects;
        asking.out.drain(|effect, _| effects.push(effect));
    }

    /// Tells what the sources answered since the last time, and what time it is.
    fn tell_agreement(&mut self, asking: &mut Asking) {
        for at in 0..self.peers.len() {
            if std::mem::take(&mut self.peers[at].is_news)
                && let Some(answer) = self.said(at)
            {
                let source = SourceId(at as u32);
                self.tell_one(asking, AgreementInput::Answered { source, answer });
            }
        }
        asking.agreement.handle_timeout(self.clock.now(), &mut asking.out);
        let effects = &mut asking.effects;
        asking.out.drain(|effect, _| effects.push(effect));
    }

    /// A source's answer, as the agreement knows it.
    fn said(&self, at: usize) -> Option<Said> {
        let peer = &self.peers[at];
        let fault = match &peer.answer {
            Answer::None => return None,
            // The agreement knows no other way to say that a source is of no use for this file.
            _ if peer.left_out.is_some() => Fault::Unknown,
            Answer::Directory => Fault::Unknown,
            Answer::Fault(fault) => *fault,
            Answer::Hashing { length, block_bytes, .. } => {
                return Some(Said::Hashing { length: *length, block_bytes: *block_bytes });
            }
            Answer::Opened(Opened {
                root: Some(root),
                length,
                block_bytes: Some(block_bytes),
                ..
            }) if self.wants_hashes() => {
                let (root, length, block_bytes) = (*root, *length, *block_bytes);
                return Some(Said::Hashed { root, length, block_bytes });
            }
            Answer::Opened(opened) => {
                let tag = match (&opened.etag, opened.block_bytes) {
                    // Only the length is compared where nothing is to be verified, or all of it is.
                    _ if !self.wants_hashes() || self.config.hash.is_some() => 0,
                    (Some(etag), _) => xxhash_rust::xxh3::xxh3_64(etag.as_bytes()),
                    // Nothing says that it is the same as another's.
                    (None, _) => at as u64 + 1,
                };
                let (length, block_bytes) = (opened.length, opened.block_bytes);
                return Some(Said::Plain { length, block_bytes, tag });
            }
        };
        Some(Said::Failed(fault))
    }

    fn perform_agreement(&mut self, asking: &mut Asking) -> Result<(), FetchError> {
        while !asking.effects.is_empty() {
            for effect in std::mem::take(&mut asking.effects) {
                match effect {
                    AgreementEffect::Choose { version, sources } => {
                        self.note_choice(&version, sources);
                        let hashed = self.wants_hashes() && !self.only_plain(&version);
                        asking.chosen = if hashed { None } else { Some(version) };
                    }
                    AgreementEffect::AskHashes { source } => {
                        self.ask_hashes(asking, source)?;
                    }
                    AgreementEffect::Use { .. } => {}
                    AgreementEffect::LeaveOut { source, why } => {
                        self.note_left_out(source.0 as usize, why);
                    }
                    AgreementEffect::Fail => asking.failed = true,
                }
            }
        }
        Ok(())
    }

    /// Whether nobody has hashes of this version.
    fn only_plain(&self, version: &Version) -> bool {
        !self.peers.iter().any(|peer| match &peer.answer {
            Answer::Opened(opened) => {
                opened.root == Some(version.root) && opened.layout() == Some(version.layout)
            }
            _ => false,
        })
    }

    fn ask_hashes(&mut self, asking: &mut Asking, source: SourceId) -> Result<(), FetchError> {
        let Some(version) = asking.agreement.chosen() else { return Ok(()) };
        if self.config.verify == Verify::None {
            // That the hash of the whole is the one which was wanted is all that is asked for.
            asking.chosen = Some(version);
            self.tell_one(asking, AgreementInput::HashesTaken { source });
            return Ok(());
        }
        let peer = source.0 as usize;
        let input = match self.manifest_of(peer, &version)? {
            Ok(manifest) => {
                asking.manifest = Some(manifest);
                asking.chosen = Some(version);
                AgreementInput::HashesTaken { source }
            }
            Err((why, detail)) => {
                self.gave_no_hashes(peer, why, &detail);
                AgreementInput::HashesRefused { source, why }
            }
        };
        self.tell_one(asking, input);
        Ok(())
    }

    /// It may still be asked for blocks, or for the hashes another time.
    fn gave_no_hashes(&mut self, peer: usize, why: Trouble, detail: &str) {
        for link in self.links.values_mut().filter(|link| link.peer == peer) {
            link.close();
        }
        let address = self.peers[peer].source.to_string();
        if why == Trouble::Corrupt {
            self.note(format!("{address} lies about the file, and is left out: {detail}"));
            self.peers[peer].blame(why, detail);
            self.peers[peer].answer = Answer::Fault(Fault::Garbage);
            self.peers[peer].left_out = Some(Fault::Garbage);
        } else if self.peers[peer].failures >= LOST_MAX {
            self.leave_out(peer, Fault::Ended, "it opens the file, and gives nothing of it");
        } else {
            self.failed_to_answer(peer, Fault::Ended, detail);
            self.peers[peer].is_news = false;
        }
    }

    fn agreed(&self, version: Version, manifest: Option<Manifest>) -> Agreed {
        let root = Some(version.root).filter(|root| !root.is_unknown());
        let etag = self.peers.iter().find_map(|peer| match &peer.answer {
            Answer::Opened(opened) if peer.left_out.is_none() => opened.etag.clone(),
            _ => None,
        });
        Agreed { layout: version.layout, root, manifest, etag }
    }

    /// Asks those whose time has come.
    fn ask_due(&mut self, name: &str) -> Result<(), FetchError> {
        let hashes = self.wants_hashes();
        for peer in 0..self.peers.len() {
            let at = self.peers[peer].ask_at;
            if self.peers[peer].left_out.is_none() && at.is_some_and(|at| at <= Instant::now()) {
                self.peers[peer].ask_at = None;
                self.open(peer, name, hashes, None)?;
            }
        }
        for (peer, _) in self.overdue() {
            self.failed_to_answer(peer, Fault::Silent, "it accepts, and says nothing");
        }
        Ok(())
    }

    fn ask_next(&self) -> Instant {
        let far = Instant::now() + LOOK_EVERY;
        let asks = self.peers.iter().filter(|peer| peer.left_out.is_none());
        let ask = asks.filter_map(|peer| peer.ask_at).min().unwrap_or(far);
        ask.min(self.overdue_at().unwrap_or(far))
    }

    /// Whether the sources are to hash the file.
    pub(super) fn wants_hashes(&self) -> bool {
        self.config.verify == Verify::Full || self.config.hash.is_some()
    }

    /// How many blocks the sources have hashed, all together.
    fn hashed(&self) -> u64 {
        let hashed = |peer: &Peer| match peer.answer {
            Answer::Hashing { hashed, .. } => hashed,
            _ => 0,
        };
        self.peers.iter().map(hashed).sum()
    }

    /// How far the source is that has hashed most of the file, and the file's length; zeros when none
    /// is hashing.
    fn hashed_bytes(&self) -> (u64, u64) {
        let hashing = self.peers.iter().filter_map(|peer| match peer.answer {
            Answer::Hashing { hashed, length, block_bytes } => {
                Some((hashed.saturating_mul(block_bytes.into()).min(length), length))
            }
            _ => None,
        });
        hashing.max().unwrap_or_default()
    }

    /// Takes what was heard while sources are asked.
    pub(super) fn take_answer(&mut self, heard: Heard) {
        match heard {
            Heard::Opened { link } => self.take_opened(link),
            Heard::NotOpened { link, reason, retry_us, detail } => {
                let Some(peer) = self.links.get(&link).map(|link| link.peer) else { return };
                match fault_of(reason, retry_us) {
                    _ if reason == Reason::FileIsDirectory => {
                        self.peers[peer].answer(Answer::Directory);
                    }
                    fault @ (Fault::Busy { .. } | Fault::Hashing { .. } | Fault::Changed) => {
                        self.failed_to_answer(peer, fault, reason.text());
                    }
                    fault => {
                        let detail = if detail.is_empty() { reason.text() } else { &detail };
                        self.leave_out(peer, fault, detail);
                    }
                }
            }
            // One of several connections to it may go without harm.
            Heard::Gone { peer, gone, .. }
                if !matches!(self.peers[peer].answer, Answer::Opened(_)) =>
            {
                self.failed_to_answer(peer, gone.fault, &gone.detail);
            }
            _ => {}
        }
    }

    fn take_opened(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let (peer, Some(opened)) = (link.peer, link.opened.clone()) else { return };
        let wants_hashes = self.wants_hashes();
        let peer = &mut self.peers[peer];
        match opened.block_bytes {
            Some(block_bytes) if opened.root.is_none() && wants_hashes => {
                let Opened { length, hashed, .. } = opened;
                peer.answer(Answer::Hashing { hashed, length, block_bytes });
                peer.ask_at = Some(Instant::now() + Duration::from_micros(HASHING_RETRY_US));
            }
            _ => peer.answer(Answer::Opened(opened)),
        }
    }

    /// A source that gave no answer is asked again, later each time.
    fn failed_to_answer(&mut self, at: usize, fault: Fault, detail: &str) {
        let only_present = self.config.only_present && fault == Fault::Unreachable;
        let peer = &mut self.peers[at];
        peer.failures += 1;
        let is_final = match fault {
            Fault::Garbage => peer.failures >= GARBAGE_MAX,
            Fault::Forbidden | Fault::Unknown | Fault::OtherVersion => true,
            _ => only_present,
        };
        if is_final {
            self.leave_out(at, fault, detail);
            return;
        }
        if let Some(trouble) = Trouble::of(fault) {
            peer.blame(trouble, detail);
        }
        peer.answer(Answer::Fault(fault));
        let wait = (RETRY_US_MIN << peer.failures.min(7)).min(RETRY_US_MAX);
        let wait = match fault {
            Fault::Busy { retry_us } | Fault::Hashing { retry_us } => retry_us.min(RETRY_US_MAX),
            _ => wait,
        };
        peer.ask_at = Some(Instant::now() + Duration::from_micros(wait));
    }

    /// A source is not asked for this file any more.
    pub(super) fn leave_out(&mut self, peer: usize, fault: Fault, detail: &str) {
        let peer = &mut self.peers[peer];
        peer.answer(Answer::Fault(fault));
        peer.left_out = Some(fault);
        peer.ask_at = None;
        if let Some(trouble) = Trouble::of(fault) {
            peer.blame(trouble, detail);
            peer.seen.state = SourceState::Dropped(trouble);
        }
    }

    /// The agreement leaves a source out: says so, unless it was said.
    fn note_left_out(&mut self, at: usize, why: Trouble) {
        if self.peers[at].left_out.is_some() || self.peers[at].answer == Answer::Directory {
            return;
        }
        let detail = match &self.peers[at].answer {
            Answer::Opened(Opened { root: Some(root), .. }) => format!("its hash is {root}"),
            Answer::Opened(opened) => format!("its length is {}", opened.length),
            _ => String::new(),
        };
        let fault = match why {
            Trouble::OtherVersion => Fault::OtherVersion,
            _ => Fault::Garbage,
        };
        let address = self.peers[at].source.to_string();
        self.note(format!("{address} is left out: {why} ({detail})"));
        self.leave_out(at, fault, &detail);
    }

    fn note_choice(&mut self, version: &Version, sources: u32) {
        if sources > 1 || self.config.hash.is_some() || version.root.is_unknown() {
            return;
        }
        let address = self.peers.iter().find_map(|peer| match &peer.answer {
            Answer::Opened(opened) if opened.root == Some(version.root) => {
                Some(peer.source.to_string())
            }
            _ => None,
        });
        if let Some(address) = address {
            self.note(format!(
                "warning: only {address} says what the file is; --hash would prove it right"
            ));
        }
    }

    /// Whether a source's answer, which came later, is about the version that was agreed on.
    pub(super) fn is_of(&self, agreed: &Agreed, opened: &Opened) -> bool {
        if opened.length != agreed.layout.length() {
            return false;
        }
        match opened.block_bytes {
            // Its hash may not be known yet: then every block is still compared with its own.
            Some(block_bytes) => {
                block_bytes == agreed.layout.block_bytes()
                    && (opened.root.is_none() || !self.wants_hashes() || opened.root == agreed.root)
            }
            None => agreed.root.is_some() || !self.wants_hashes() || opened.etag == agreed.etag,
        }
    }

    fn hopeless(&self, name: &str) -> FetchError {
        let other = |peer: &Peer| peer.left_out == Some(Fault::OtherVersion);
        let all = |fault| {
            self.peers.iter().all(|peer| {
                matches!(peer.answer, Answer::Fault(own) if own == fault || own == Fault::Unreachable)
            })
        };
        let why = match self.config.hash {
            Some(hash) if self.peers.iter().any(other) => {
                format!("no source has {name} with the hash {hash}")
            }
            _ if all(Fault::Unreachable) => format!(
                "nobody answers who could have {name}: start cordee block-server, or say where \
                 one is with --from"
            ),
            _ if all(Fault::Unknown) => format!("no source has {name}"),
            _ => format!("no source gives {name}"),
        };
        FetchError::Sources { why, sources: self.peers.iter().map(Peer::progress).collect() }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(250);
const RETRY_US_MIN: u64 = 50_000;
const RETRY_US_MAX: u64 = 10_000_000;
/// Who says what makes no sense so often has nothing else to say.
const GARBAGE_MAX: u32 = 2;
/// As often a source may open the file and not give its hashes.
const LOST_MAX: u32 = 5;
