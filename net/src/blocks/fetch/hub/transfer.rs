//! Blocks come: the scheduler says who is asked for which.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use cordee_core::blocks::BlockSet;
use cordee_core::blocks::scheduler::{
    Config, Effect, Fault, FetchConn, Input, Progress, Scheduler, SourceId, Trouble,
};
use cordee_core::{Machine, Outbox, Time};

use super::super::error::FetchError;
use super::super::link::{Gone, Job, Sink, Spool, What};
use super::super::report::{Event, Stage};
use super::super::target::Part;
use super::agree::Agreed;
use super::links::{Heard, fault_of};
use super::{Hub, Peer};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering};

/// What is to be done for one file.
#[derive(Debug)]
pub(in super::super) struct Work<'w> {
    pub(in super::super) name: &'w str,
    pub(in super::super) agreed: &'w Agreed,
    pub(in super::super) stored: BlockSet,
    pub(in super::super) output: Output<'w>,
    /// Only this source is asked.
    pub(in super::super) only: Option<usize>,
}

/// Where blocks go.
#[derive(Debug)]
pub(in super::super) enum Output<'w> {
    Part(&'w mut Part),
    Spool(Arc<Spool>),
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Received {
    pub(in super::super) duplicate_bytes: u64,
}

/// A fetch of one file that is under way.
struct Transfer<'w> {
    work: Work<'w>,
    scheduler: Scheduler,
    out: Outbox<Effect>,
    job: Arc<Job>,
    inputs: VecDeque<Input>,
    /// Blocks that were written and are not in the journal.
    unrecorded: Vec<Range<u64>>,
    unrecorded_bytes: u64,
    /// For so long the scheduler's clock stood still, because nobody took what came.
    paused: Duration,
    /// When it was last looked whether it has to.
    looked: Instant,
    ended: Option<Result<(), ()>>,
}

impl Hub<'_> {
    /// Fetches every block that is not stored.
    ///
    /// # Errors
    ///
    /// Whatever ends it; what was stored until then is in the journal.
    pub(in super::super) fn transfer(&mut self, work: Work<'_>) -> Result<Received, FetchError> {
        let mut transfer = self.begin(work);
        let result = self.run(&mut transfer);
        // Nobody writes to the file any more, whatever comes next.
        transfer.job.closed.store(true, Ordering::SeqCst);
        let quiet = self.quiet().map(|told| {
            for what in told {
                if let What::Came { job, stored, .. } = what
                    && job == transfer.job.id
                    && !stored.is_empty()
                {
                    transfer.stored(stored);
                }
            }
        });
        let recorded = self.record(&mut transfer);
        let progress = transfer.scheduler.progress(self.now(&transfer));
        self.copy_reports(&transfer);
        for peer in &mut self.peers {
            peer.bytes_before += std::mem::take(&mut peer.seen.bytes);
        }
        self.tell_transfer(&progress, true);
        result.and(quiet).and(recorded)?;
        Ok(Received { duplicate_bytes: progress.duplicate_bytes })
    }

    fn begin<'w>(&mut self, work: Work<'w>) -> Transfer<'w> {
        let layout = work.agreed.layout;
        let mut config = Config::new(layout);
        config.connections = self.config.connections;
        config.connection_per_block = self.config.connection_per_block;
        config.sequential = self.config.sequential;
        config.limit_rate = self.config.limit_rate;
        config.timeout_us = self.config.timeout.as_micros().try_into().unwrap_or(u64::MAX);
        let sink = match &work.output {
            Output::Part(part) => Sink::File(part.file()),
            Output::Spool(spool) => {
                config.sequential = true;
                config.in_flight_bytes_max = SPOOL_BYTES.max(4 * u64::from(layout.block_bytes()));
                Sink::Spool(Arc::clone(spool))
            }
        };
        self.next_job += 1;
        let seed = u64::from(std::process::id()) << 32 ^ self.next_job ^ crate::clock::wall().0;
        Transfer {
            scheduler: Scheduler::new(config, &work.stored, seed),
            out: Outbox::new(),
            job: Arc::new(Job {
                id: self.next_job,
                layout,
                manifest: work.agreed.manifest.clone(),
                sink,
                closed: AtomicBool::new(false),
            }),
            inputs: VecDeque::new(),
            unrecorded: Vec::new(),
            unrecorded_bytes: 0,
            paused: Duration::ZERO,
            looked: Instant::now(),
            ended: None,
            work,
        }
    }

    fn now(&self, transfer: &Transfer<'_>) -> Time {
        self.clock.now() - transfer.paused.as_micros() as u64
    }

    fn run(&mut self, transfer: &mut Transfer<'_>) -> Result<(), FetchError> {
        for source in 0..self.peers.len() as u32 {
            transfer.inputs.push_back(Input::SourceAdded { source: SourceId(source) });
        }
        loop {
            self.hold_still(transfer)?;
            self.feed(transfer)?;
            self.record(transfer)?;
            match transfer.ended {
                Some(Ok(())) => return Ok(()),
                Some(Err(())) => {
                    self.copy_reports(transfer);
                    let sources = self.peers.iter().map(Peer::progress).collect();
                    let why = format!("no source gives the rest of {}", transfer.work.name);
                    return Err(FetchError::Sources { why, sources });
                }
                None => {}
            }
            if self.progress_due() <= Instant::now() {
                self.copy_reports(transfer);
                let progress = transfer.scheduler.progress(self.now(transfer));
                self.tell_transfer(&progress, false);
            }
            let mut until = self.progress_due();
            if let Some(at) = transfer.scheduler.poll_timeout() {
                let at = self.clock.instant(at).and_then(|at| at.checked_add(transfer.paused));
                until = until.min(at.unwrap_or(until));
            }
            until = until.min(self.overdue_at().unwrap_or(until));
            let mut heard = self.next(until)?;
            for _ in 0..BATCH_MAX {
                let Some(one) = heard else { break };
                self.take(transfer, one)?;
                heard = match self.events.try_recv() {
                    Ok(event) => self.hear(event)?,
                    Err(_) => None,
                };
            }
            for (peer, conn) in self.overdue() {
                self.peers[peer].explain(Fault::Silent, "it accepts, and says nothing");
                if let Some(conn) = conn {
                    transfer.inputs.push_back(Input::Closed { conn, fault: Fault::Silent });
                }
            }
        }
    }

    /// Tells the scheduler what happened, and does what it wants, until nothing is left.
    fn feed(&mut self, transfer: &mut Transfer<'_>) -> Result<(), FetchError> {
        let mut out = std::mem::take(&mut transfer.out);
        loop {
            let now = self.now(transfer);
            let input = transfer.inputs.pop_front();
            let is_last = input.is_none();
            match input {
                Some(input) => transfer.scheduler.handle_input(now, input, &mut out),
                None => transfer.scheduler.handle_timeout(now, &mut out),
            }
            let mut effects = Vec::new();
            out.drain(|effect, _| effects.push(effect));
            for effect in effects {
                self.perform(transfer, effect)?;
            }
            if is_last && transfer.inputs.is_empty() {
                break;
            }
        }
        transfer.out = out;
        Ok(())
    }

    fn perform(&mut self, transfer: &mut Transfer<'_>, effect: Effect) -> Result<(), FetchError> {
        match effect {
            Effect::Connect { source, conn } => self.connect(transfer, source.0 as usize, conn)?,
            Effect::Request { conn, request, first, count } => {
                if let Some((_, link)) = self.link_of(conn) {
                    link.ask_blocks(conn, &transfer.job, request, first, count);
                }
            }
            Effect::Cancel { conn, request } => {
                if let Some((_, link)) = self.link_of(conn)
                    && !link.cancel(request)
                {
                    link.conn = None;
                    link.close();
                    transfer.inputs.push_back(Input::Closed { conn, fault: Fault::Asked });
                }
            }
            Effect::Close { conn } => {
                if let Some((_, link)) = self.link_of(conn) {
                    link.conn = None;
                    link.close();
                }
                transfer.inputs.push_back(Input::Closed { conn, fault: Fault::Asked });
            }
            Effect::Drop { source, why } => self.note_drop(source.0 as usize, why),
            Effect::Done => transfer.ended = Some(Ok(())),
            Effect::Failed => transfer.ended = Some(Err(())),
        }
        Ok(())
    }

    /// A connection for the scheduler: one that stands, or a new one.
    fn connect(
        &mut self,
        transfer: &mut Transfer<'_>,
        peer: usize,
        conn: FetchConn,
    ) -> Result<(), FetchError> {
        let others = transfer.work.only.is_some_and(|only| only != peer);
        let left_out = if others { Some(Fault::OtherVersion) } else { self.peers[peer].left_out };
        if let Some(fault) = left_out {
            transfer.inputs.push_back(Input::Closed { conn, fault });
            return Ok(());
        }
        let agreed = transfer.work.agreed;
        let free = self.links.iter().find(|(_, link)| {
            let usable = link.peer == peer && link.conn.is_none() && !link.closing;
            let opened = link.opened.as_ref();
            // A file that is being hashed there may have been opened with the wish to have hashes;
            // it is the same one.
            usable
                && !link.shared.has_runs()
                && (link.opening.is_some()
                    || opened.is_some_and(|opened| self.is_of(agreed, opened)))
        });
        if let Some(id) = free.map(|(id, _)| *id)
            && let Some(link) = self.links.get_mut(&id)
        {
            link.conn = Some(conn);
            if link.opening.is_none() {
                let (rtt_us, requests_max) = (link.rtt_us, link.requests_max);
                transfer.inputs.push_back(Input::Connected { conn, rtt_us, requests_max });
            }
            return Ok(());
        }
        // Whoever holds the hashes need not make the source hash the file.
        self.open(peer, transfer.work.name, false, Some(conn)).map(drop)
    }

    /// Takes in what was heard.
    fn take(&mut self, transfer: &mut Transfer<'_>, heard: Heard) -> Result<(), FetchError> {
        match heard {
            Heard::Data(what) => return self.take_data(transfer, what),
            Heard::Opened { link: id } => {
                let Some(link) = self.links.get(&id) else { return Ok(()) };
                let Some(conn) = link.conn else { return Ok(()) };
                let Some(opened) = &link.opened else { return Ok(()) };
                let (rtt_us, requests_max) = (link.rtt_us, link.requests_max);
                if self.is_of(transfer.work.agreed, opened) {
                    transfer.inputs.push_back(Input::Connected { conn, rtt_us, requests_max });
                    return Ok(());
                }
                let peer = link.peer;
                let detail = match opened.root {
                    Some(root) => format!("its hash is {root}"),
                    None => format!("its length is {}", opened.length),
                };
                self.peers[peer].explain(Fault::OtherVersion, &detail);
                self.refuse(transfer, conn, Fault::OtherVersion);
            }
            Heard::NotOpened { link, reason, retry_us, detail } => {
                let Some(link) = self.links.get(&link) else { return Ok(()) };
                let (peer, Some(conn)) = (link.peer, link.conn) else { return Ok(()) };
                let fault = fault_of(reason, retry_us);
                let detail = if detail.is_empty() { reason.text() } else { &detail };
                self.peers[peer].explain(fault, detail);
                self.refuse(transfer, conn, fault);
            }
            Heard::Gone { peer, conn, gone: Gone { fault, detail } } => {
                self.peers[peer].explain(fault, &detail);
                if let Some(conn) = conn {
                    transfer.inputs.push_back(Input::Closed { conn, fault });
                }
            }
            Heard::Refused { .. }
            | Heard::Hashes { .. }
            | Heard::Listing { .. }
            | Heard::Nothing => {}
        }
        Ok(())
    }

    /// The connection is no good for this file.
    fn refuse(&mut self, transfer: &mut Transfer<'_>, conn: FetchConn, fault: Fault) {
        if let Some((_, link)) = self.link_of(conn) {
            link.conn = None;
            link.close();
        }
        transfer.inputs.push_back(Input::Closed { conn, fault });
    }

    fn take_data(&mut self, transfer: &mut Transfer<'_>, what: What) -> Result<(), FetchError> {
        let own = transfer.job.id;
        match what {
            What::Came { conn, job, arrived, stored } if job == own => {
                if arrived > 0 {
                    transfer.inputs.push_back(Input::Arrived { conn, bytes: arrived });
                }
                for block in stored.clone() {
                    transfer.inputs.push_back(Input::Stored { conn, block });
                }
                if !stored.is_empty() {
                    transfer.stored(stored);
                }
            }
            What::Bad { conn, job, block } if job == own => {
                transfer.inputs.push_back(Input::Bad { conn, block });
            }
            What::Ended { conn, job, request, end } if job == own => {
                transfer.inputs.push_back(Input::Ended { conn, request, end });
            }
            What::Broken(error) => return Err(transfer.broken(error)),
            _ => {}
        }
        Ok(())
    }

    /// Puts what was written into the journal.
    fn record(&mut self, transfer: &mut Transfer<'_>) -> Result<(), FetchError> {
        if transfer.unrecorded.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut transfer.unrecorded_bytes);
        let runs = transfer.unrecorded.drain(..);
        match &mut transfer.work.output {
            Output::Part(part) => part.record(runs, bytes, self.config.durable),
            Output::Spool(_) => Ok(()),
        }
    }

    /// While nobody takes what came, or the disk takes nothing, the scheduler's time stands still: it
    /// is no source's fault.
    fn hold_still(&mut self, transfer: &mut Transfer<'_>) -> Result<(), FetchError> {
        let mut is_held_up = self.is_held_up();
        if let Output::Spool(spool) = &transfer.work.output {
            while spool.is_full() {
                is_held_up = true;
                spool.wait(TAKER_WAIT);
                if self.cancel.is_cancelled() {
                    return Err(FetchError::Cancelled);
                }
            }
            if let Some(error) = spool.take_failure() {
                return Err(FetchError::target("write to", "standard output", error));
            }
        }
        let elapsed = transfer.looked.elapsed();
        transfer.looked += elapsed;
        if is_held_up {
            transfer.paused += elapsed;
        }
        Ok(())
    }

    fn note_drop(&mut self, peer: usize, why: Trouble) {
        // Those that were never in have been named already.
        if self.peers[peer].left_out.is_none() {
            let address = self.peers[peer].source.to_string();
            self.note(format!("{address} is left out: {why}"));
        }
    }

    fn copy_reports(&mut self, transfer: &Transfer<'_>) {
        let now = self.now(transfer);
        for report in transfer.scheduler.sources(now) {
            let Some(peer) = self.peers.get_mut(report.source.0 as usize) else { continue };
            if transfer.work.only.is_some_and(|only| only != report.source.0 as usize) {
                continue;
            }
            peer.seen.state = report.state;
            peer.seen.connections = report.connections;
            peer.seen.bytes = report.bytes;
            peer.seen.bytes_per_s = report.bytes_per_s;
            // What kept it out from the beginning is told with more words elsewhere.
            if peer.left_out.is_none() {
                peer.seen.troubles.clear();
                peer.seen.troubles.extend_from_slice(report.troubles);
            }
        }
    }

    fn tell_transfer(&mut self, progress: &Progress, now: bool) {
        self.tell_progress(Stage::Fetching, now, |told| {
            told.bytes = progress.bytes_stored;
            told.total = progress.bytes;
            told.bytes_per_s = progress.bytes_per_s;
        });
    }

    /// Tells how much of what lies on the disk was hashed; false when it is to stop.
    pub(in super::super) fn checked(&mut self, bytes: u64, total: u64) -> bool {
        self.tell_progress(Stage::Checking, false, |told| {
            told.bytes = bytes;
            told.total = total;
        });
        !self.cancel.is_cancelled()
    }

    /// Tells that the file is whole and is being put in its place.
    pub(in super::super) fn finishing(&mut self, total: u64) {
        self.tell_progress(Stage::Finishing, true, |told| {
            told.bytes = total;
            told.total = total;
        });
    }

    /// The sources, for the report.
    pub(in super::super) fn sources(&self) -> Vec<super::super::report::SourceProgress> {
        self.peers.iter().map(Peer::progress).collect()
    }

    /// A source whose bytes turned out to be wrong in the end.
    pub(in super::super) fn blame_alone(&mut self, peer: usize) {
        let detail = "its file has another hash";
        self.peers[peer].blame(Trouble::Corrupt, detail);
        let address = self.peers[peer].source.to_string();
        (self.tell)(Event::Note(format!(
            "{address} gave the whole file, and it is wrong: {detail}"
        )));
    }

    /// Sources that were not left out.
    pub(in super::super) fn hopeful(&self) -> Vec<usize> {
        let peers = self.peers.iter().enumerate();
        peers.filter(|(_, peer)| peer.left_out.is_none()).map(|(at, _)| at).collect()
    }
}

impl Transfer<'_> {
    fn stored(&mut self, blocks: Range<u64>) {
        let range = self.job.layout.range(blocks.start, blocks.end - blocks.start);
        self.unrecorded_bytes += range.end - range.start;
        match self.unrecorded.last_mut() {
            Some(last) if last.end == blocks.start => last.end = blocks.end,
            _ => self.unrecorded.push(blocks),
        }
    }

    fn broken(&self, error: std::io::Error) -> FetchError {
        match &self.work.output {
            Output::Part(part) => FetchError::target("write", part.path(), error),
            Output::Spool(_) => FetchError::target("write to", "standard output", error),
        }
    }
}

/// Reports that are taken in at once, before the scheduler decides.
const BATCH_MAX: usize = 256;
/// What may be asked for at a time when it goes to standard output.
const SPOOL_BYTES: u64 = 16 << 20;
const TAKER_WAIT: Duration = Duration::from_millis(50);
