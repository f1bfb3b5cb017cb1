//! The hub: the caller's thread. It owns the scheduler, hears what connections report, and sends
//! requests, which are small; it never touches payload, and waits for nothing but the next report.
//!
//! ```text
//!  source ──▶ thread of a connection ──▶ disk
//!                  │ bounded channel: what came, what is stored, what is wrong
//!                  ▼
//!                 hub ──▶ scheduler ──▶ hub ──▶ requests
//!                  └─────▶ journal
//! ```

mod agree;
mod faults;
mod hashes;
mod links;
mod listing;
mod transfer;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::cancel::Cancel;
use super::config::FetchConfig;
use super::error::FetchError;
use super::link::{self, Event as LinkEvent, LinkId};
use super::report::{Event, Progress, Stage};
use crate::clock::Clock;
pub(super) use agree::Agreed;
use faults::{Answer, Peer};
use links::{Heard, Link};
pub(super) use listing::Listed;
pub(super) use transfer::{Output, Received, Work};

/// Fetches files one after the other, and keeps connections from one to the next.
pub(super) struct Hub<'a> {
    config: FetchConfig,
    cancel: Cancel,
    tell: &'a mut dyn FnMut(Event),
    clock: Clock,
    peers: Vec<Peer>,
    links: BTreeMap<LinkId, Link>,
    events: Receiver<LinkEvent>,
    sender: Sender<LinkEvent>,
    next_link: u64,
    next_job: u64,
    told: Option<Instant>,
}

impl<'a> Hub<'a> {
    pub(super) fn new(
        config: FetchConfig,
        cancel: Cancel,
        tell: &'a mut dyn FnMut(Event),
    ) -> Hub<'a> {
        let (sender, events) = bounded(EVENTS_MAX);
        let peers = config.sources.iter().map(Peer::new).collect();
        Hub {
            config,
            cancel,
            tell,
            clock: Clock::start(),
            peers,
            links: BTreeMap::new(),
            events,
            sender,
            next_link: 0,
            next_job: 0,
            told: None,
        }
    }

    /// Waits for the next report, at most until `until`; `None` when there was none.
    ///
    /// # Errors
    ///
    /// [`FetchError::Cancelled`].
    fn next(&mut self, until: Instant) -> Result<Option<Heard>, FetchError> {
        self.flush();
        let event = match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(_) => {
                let until = if self.waits_to_send() { soon(until) } else { until };
                select! {
                    recv(self.events) -> event => event.ok(),
                    recv(self.cancel.signal()) -> _ => None,
                    default(until.saturating_duration_since(Instant::now())) => None,
                }
            }
        };
        if self.cancel.is_cancelled() {
            return Err(FetchError::Cancelled);
        }
        match event {
            Some(event) => self.hear(event),
            None => Ok(None),
        }
    }

    /// Tells a person something.
    fn note(&mut self, text: String) {
        (self.tell)(Event::Note(text));
    }

    /// Tells how far it is, unless that was done just now.
    fn tell_progress(&mut self, stage: Stage, now: bool, fill: impl FnOnce(&mut Progress)) {
        let due = self.told.is_none_or(|told| told.elapsed() >= self.config.progress_every);
        if !due && !now {
            return;
        }
        self.told = Some(Instant::now());
        let sources = self.peers.iter().map(Peer::progress).collect();
        let mut progress = Progress { stage, sources, files: (0, 1), ..Progress::default() };
        fill(&mut progress);
        (self.tell)(Event::Progress(progress));
    }

    /// When progress is to be told next.
    fn progress_due(&self) -> Instant {
        self.told.map_or_else(Instant::now, |told| told + self.config.progress_every)
    }
}

impl Drop for Hub<'_> {
    /// Ends every thread.
    fn drop(&mut self) {
        // A thread that reports to nobody ends; one that waits for a report to be taken, too.
        let (_, nobody) = bounded(0);
        self.events = nobody;
        for (_, link) in std::mem::take(&mut self.links) {
            link.shared.close();
            // One that still connects may hang in a resolver; it holds nothing of ours.
            if link.shared.socket.get().is_some()
                && let Some(thread) = link.thread
            {
                // Whether it panicked was for the fetch to find out, which is over.
                let _ = thread.join();
            }
        }
    }
}

impl std::fmt::Debug for Hub<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("peers", &self.peers).finish_non_exhaustive()
    }
}

/// As soon as a socket may take more, but not after `until`.
fn soon(until: Instant) -> Instant {
    until.min(Instant::now() + Duration::from_millis(5))
}

/// Reports that wait for the hub, each of a few words, or of a frame while a file is opened.
const EVENTS_MAX: usize = 1_024;
