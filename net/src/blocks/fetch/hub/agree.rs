//! Which version of the file is fetched: what the sources say of it, and which of these is taken.

use std::time::{Duration, Instant};

use cordee_core::blocks::scheduler::{Fault, Trouble};
use cordee_core::blocks::{BLOCK_BYTES_DEFAULT, Layout, Root};
use cordee_core::wire::Reason;

use super::super::config::Verify;
use super::super::error::FetchError;
use super::super::link::LinkId;
use super::super::report::Stage;
use super::Hub;
use super::faults::{Answer, Peer};
use super::links::{HASHING_RETRY_US, Heard, Opened, fault_of};

/// What is fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Agreed {
    pub(in super::super) layout: Layout,
    /// None where no source knows it, and nobody said it.
    pub(in super::super) root: Option<Root>,
    /// Whether there are block servers, which have hashes of blocks.
    pub(in super::super) has_hashes: bool,
    /// What stands for the version of a file that only web servers have.
    pub(in super::super) etag: Option<String>,
}

impl Hub<'_> {
    /// Asks every source for the file, until it can be said which version is fetched.
    ///
    /// # Errors
    ///
    /// [`FetchError::Sources`] when none has it, [`FetchError::IsDirectory`].
    pub(in super::super) fn agree(&mut self, name: &str) -> Result<Agreed, FetchError> {
        let begun = Instant::now();
        for peer in &mut self.peers {
            peer.begin_file(begun);
        }
        self.agree_again(name)
    }

    /// As [`agree`](Self::agree), after a source turned out to lie about the file.
    pub(in super::super) fn agree_again(&mut self, name: &str) -> Result<Agreed, FetchError> {
        self.ask_the_lost();
        // The last sign that waiting has use.
        let mut alive = Instant::now();
        let (mut first_root, mut first_web) = (None, None);
        loop {
            self.ask_due(name)?;
            for peer in &self.peers {
                match &peer.answer {
                    Answer::Opened(opened) if opened.block_bytes.is_some() => {
                        first_root.get_or_insert_with(Instant::now);
                    }
                    Answer::Opened(_) => {
                        first_web.get_or_insert_with(Instant::now);
                    }
                    _ => {}
                }
            }
            let elapsed = |since: Option<Instant>, wait| since.is_some_and(|at: Instant| at.elapsed() >= wait);
            let settled = self.peers.iter().all(|peer| !matches!(peer.answer, Answer::None | Answer::Hashing { .. }));
            let ready = settled || elapsed(first_root, ROOT_WAIT) || elapsed(first_web, WEB_WAIT);
            if let Some(agreed) = self.decide(ready) {
                self.leave_others_out(&agreed);
                return Ok(agreed);
            }
            self.check_hope(name, alive)?;
            let until = self.ask_next().min(self.progress_due()).min(Instant::now() + LOOK_EVERY);
            self.tell_progress(Stage::Asking, false, |_| {});
            if let Some(heard) = self.next(until)? {
                let before = self.hashed();
                self.take_answer(heard);
                if self.hashed() > before {
                    alive = Instant::now();
                }
            }
        }
    }

    /// Those whose connection went after they had the file are asked anew, a few times.
    fn ask_the_lost(&mut self) {
        for at in 0..self.peers.len() {
            let stands = self.links.values().any(|link| {
                link.peer == at && !link.closing && (link.opened.is_some() || link.opening.is_some())
            });
            if matches!(self.peers[at].answer, Answer::Opened(_)) && !stands {
                if self.peers[at].failures >= LOST_MAX {
                    self.leave_out(at, Fault::Ended, "it opens the file, and gives nothing of it");
                } else {
                    self.failed_to_answer(at, Fault::Ended, "");
                }
            }
        }
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
        self.peers
            .iter()
            .map(|peer| match peer.answer {
                Answer::Hashing { hashed, .. } => hashed,
                _ => 0,
            })
            .sum()
    }

    /// Takes what was heard while sources are asked.
    pub(super) fn take_answer(&mut self, heard: Heard) {
        match heard {
            Heard::Opened { link } => self.take_opened(link),
            Heard::NotOpened { link, reason, retry_us, detail } => {
                let Some(peer) = self.links.get(&link).map(|link| link.peer) else { return };
                match fault_of(reason, retry_us) {
                    _ if reason == Reason::FileIsDirectory => {
                        self.peers[peer].answer = Answer::Directory;
                    }
                    Fault::Hashing { retry_us } => self.wait_for_hashes(peer, 0, 0, retry_us),
                    Fault::Busy { .. } => self.failed_to_answer(peer, Fault::Busy { retry_us }, reason.text()),
                    fault => {
                        let detail = if detail.is_empty() { reason.text() } else { &detail };
                        self.leave_out(peer, fault, detail);
                    }
                }
            }
            Heard::Gone { peer, gone, .. } => {
                // One of several connections to it may go without harm.
                if !matches!(self.peers[peer].answer, Answer::Opened(_)) {
                    self.failed_to_answer(peer, gone.fault, &gone.detail);
                }
            }
            _ => {}
        }
    }

    fn take_opened(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (peer, Some(opened)) = (link.peer, link.opened.clone()) else { return };
        if opened.block_bytes.is_some() && opened.layout().is_none() {
            link.close();
            self.leave_out(peer, Fault::Garbage, "it says that the file has an absurd length");
            return;
        }
        if opened.root.is_none() && opened.block_bytes.is_some() && self.wants_hashes() {
            let blocks = opened.layout().map_or(0, |layout| layout.blocks());
            self.wait_for_hashes(peer, opened.hashed, blocks, HASHING_RETRY_US);
            return;
        }
        self.peers[peer].answer = Answer::Opened(opened);
    }

    fn wait_for_hashes(&mut self, peer: usize, hashed: u64, blocks: u64, retry_us: u64) {
        let peer = &mut self.peers[peer];
        peer.answer = Answer::Hashing { hashed, blocks };
        peer.ask_at = Some(Instant::now() + Duration::from_micros(retry_us.min(RETRY_US_MAX)));
    }

    /// A source that gave no answer is asked again, later each time.
    fn failed_to_answer(&mut self, peer: usize, fault: Fault, detail: &str) {
        let trouble = Trouble::of(fault);
        let is_first = self.config.only_present && fault == Fault::Unreachable;
        let peer_state = &mut self.peers[peer];
        peer_state.failures += 1;
        let failures = peer_state.failures;
        if is_first || (fault == Fault::Garbage && failures >= GARBAGE_MAX) || fault == Fault::Forbidden || fault == Fault::Unknown {
            self.leave_out(peer, fault, detail);
            return;
        }
        if let Some(trouble) = trouble {
            peer_state.blame(trouble, detail);
        }
        peer_state.answer = Answer::Fault(fault);
        let wait = (RETRY_US_MIN << failures.min(7)).min(RETRY_US_MAX);
        let wait = match fault {
            Fault::Busy { retry_us } => wait.max(retry_us.min(RETRY_US_MAX)),
            _ => wait,
        };
        peer_state.ask_at = Some(Instant::now() + Duration::from_micros(wait));
    }

    /// A source is not asked for this file any more.
    pub(super) fn leave_out(&mut self, peer: usize, fault: Fault, detail: &str) {
        let peer = &mut self.peers[peer];
        peer.answer = Answer::Fault(fault);
        peer.left_out = Some(fault);
        peer.ask_at = None;
        if let Some(trouble) = Trouble::of(fault) {
            peer.blame(trouble, detail);
            peer.seen.state = cordee_core::blocks::scheduler::SourceState::Dropped(trouble);
        }
    }

    /// Which version it is, once that can be said.
    fn decide(&self, ready: bool) -> Option<Agreed> {
        let verifies = self.wants_hashes();
        let key = |opened: &Opened| {
            let root = if verifies { opened.root } else { None };
            (root, opened.length, opened.block_bytes)
        };
        let servers = || {
            self.peers.iter().filter_map(|peer| match &peer.answer {
                Answer::Opened(opened) if opened.block_bytes.is_some() => Some(opened),
                _ => None,
            })
        };
        let chosen = match self.config.hash {
            // Who holds the hash need not ask what the others say.
            Some(hash) => servers().find(|opened| opened.root == Some(hash)),
            None if !ready => None,
            // The last of those that are the greatest, from behind: the first named.
            None => servers().collect::<Vec<_>>().into_iter().rev().max_by_key(|opened| {
                servers().filter(|other| key(other) == key(opened)).count()
            }),
        };
        if let Some(opened) = chosen {
            let (root, ..) = key(opened);
            let has_hashes = self.config.verify == Verify::Full;
            return Some(Agreed { layout: opened.layout()?, root, has_hashes, etag: None });
        }
        let hopeful = servers().next().is_some();
        if ready && (!hopeful || self.config.hash.is_some()) { self.decide_web() } else { None }
    }

    /// Only web servers have it.
    fn decide_web(&self) -> Option<Agreed> {
        let webs = || {
            self.peers.iter().filter_map(|peer| match &peer.answer {
                Answer::Opened(opened) if opened.block_bytes.is_none() => Some(opened),
                _ => None,
            })
        };
        let same = |a: &Opened, b: &Opened| {
            a.length == b.length && (self.config.hash.is_some() || a.etag == b.etag)
        };
        let most = webs().collect::<Vec<_>>().into_iter().rev();
        let opened = most.max_by_key(|opened| webs().filter(|other| same(other, opened)).count())?;
        let layout = Layout::for_file(opened.length, BLOCK_BYTES_DEFAULT).ok()?;
        let etag = opened.etag.clone();
        Some(Agreed { layout, root: self.config.hash, has_hashes: false, etag })
    }

    /// Names those who have another version, and says when only one says what it is.
    fn leave_others_out(&mut self, agreed: &Agreed) {
        let mut same = 0;
        for peer in 0..self.peers.len() {
            let Answer::Opened(opened) = self.peers[peer].answer.clone() else { continue };
            if self.is_of(agreed, &opened) {
                same += u32::from(opened.block_bytes.is_some());
                continue;
            }
            let detail = match opened.root {
                Some(root) if agreed.root != Some(root) => format!("its hash is {root}"),
                _ => format!("its length is {}", opened.length),
            };
            let address = self.peers[peer].source.to_string();
            self.note(format!("{address} has another version of the file, and is left out: {detail}"));
            self.leave_out(peer, Fault::OtherVersion, &detail);
        }
        let alone = same == 1 && self.config.hash.is_none() && agreed.has_hashes;
        let address = self.peers.iter().find_map(|peer| match &peer.answer {
            Answer::Opened(opened) if opened.block_bytes.is_some() => Some(peer.source.to_string()),
            _ => None,
        });
        if let Some(address) = address.filter(|_| alone) {
            self.note(format!(
                "only {address} says what the file is; --hash would prove that it is the right one"
            ));
        }
    }

    /// Whether a source's answer is about the version that was agreed on.
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
            None => agreed.has_hashes || agreed.root.is_some() || opened.etag == agreed.etag,
        }
    }

    /// Whether there is any hope left.
    fn check_hope(&self, name: &str, alive: Instant) -> Result<(), FetchError> {
        let settled = |peer: &Peer| {
            peer.left_out.is_some() || matches!(peer.answer, Answer::Opened(_) | Answer::Directory)
        };
        let directory = self.peers.iter().any(|peer| peer.answer == Answer::Directory);
        let heard_all = self.peers.iter().all(|peer| peer.answer != Answer::None);
        if directory && heard_all {
            return Err(FetchError::IsDirectory);
        }
        let negative = self.peers.iter().any(settled);
        let hashing = self.peers.iter().any(|peer| matches!(peer.answer, Answer::Hashing { .. }));
        let patience = if negative && !hashing { NEGATIVE_WAIT } else { self.config.timeout };
        if self.peers.iter().all(settled) || alive.elapsed() >= patience.min(self.config.timeout) {
            return Err(self.hopeless(name));
        }
        Ok(())
    }

    fn hopeless(&self, name: &str) -> FetchError {
        let opened = self.peers.iter().any(|peer| matches!(peer.answer, Answer::Opened(_)));
        let all = |fault| {
            self.peers.iter().all(|peer| peer.answer == Answer::Fault(fault) || matches!(peer.answer, Answer::Fault(Fault::Unreachable)))
        };
        let why = match self.config.hash {
            Some(hash) if opened => format!("no source has {name} with the hash {hash}"),
            _ if all(Fault::Unreachable) => {
                format!("nobody answers who could have {name}: start cordee block-server, or say where one is with --from")
            }
            _ if all(Fault::Unknown) => format!("no source has {name}"),
            _ => format!("no source gives {name}"),
        };
        let mut sources: Vec<_> = self.peers.iter().map(Peer::progress).collect();
        for (source, peer) in sources.iter_mut().zip(&self.peers) {
            if let Answer::Opened(Opened { root: Some(root), .. }) = &peer.answer {
                source.faults.push(super::super::report::SourceFault {
                    trouble: Trouble::OtherVersion,
                    count: 1,
                    detail: format!("its hash is {root}"),
                });
            }
        }
        FetchError::Sources { why, sources }
    }
}

/// Others may answer so long after the first that knows the hash.
const ROOT_WAIT: Duration = Duration::from_millis(300);
/// Whoever could verify the bytes of web servers may take longer.
const WEB_WAIT: Duration = Duration::from_secs(3);
/// When somebody said no, the rest is waited for so long.
const NEGATIVE_WAIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(250);
const RETRY_US_MIN: u64 = 50_000;
const RETRY_US_MAX: u64 = 10_000_000;
/// Who says what makes no sense so often has nothing else to say.
const GARBAGE_MAX: u32 = 2;
/// As often a connection may go before the hashes came.
const LOST_MAX: u32 = 5;
