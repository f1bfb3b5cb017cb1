//! Connections as the hub sees them: what was asked on each, what it answered.

use std::time::{Duration, Instant};

use cordee_core::blocks::scheduler::{Fault, FetchConn};
use cordee_core::blocks::{Layout, Root};
use cordee_core::wire::block::{
    AskBlocks, AskHashes, AskList, BlockWelcome, Cancel, Hashes, Listing, Open,
    Opened as OpenedFrame, Refused,
};
use cordee_core::wire::{Message, Reason};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::super::error::FetchError;
use super::super::link::{Expected, FIRST_REQUEST, Gone, Job, LinkId, Run, Shared, WebFile, What};
use super::super::source::Source;
use super::{Hub, link};
use crate::sync::{Arc, lock};
use crate::threads::Thread;

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) thread: Option<Thread>,
    /// The scheduler's name for it, while it belongs to a file.
    pub(super) conn: Option<FetchConn>,
    pub(super) rtt_us: u64,
    pub(super) requests_max: u32,
    /// The file that is open on it, by number of the hub's opening.
    pub(super) opened: Option<Opened>,
    /// An answer to opening is awaited until then.
    pub(super) opening: Option<Instant>,
    /// The hub let go of it.
    pub(super) closing: bool,
    /// A web server's answer, which is about the same file as long as the connection lasts.
    web: Option<WebFile>,
    next_request: u64,
    /// What the socket did not take at once.
    outgoing: Vec<u8>,
}

/// What a source says of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Opened {
    /// None where it is not known.
    pub(super) root: Option<Root>,
    pub(super) length: u64,
    /// None of web servers, who know no blocks.
    pub(super) block_bytes: Option<u32>,
    pub(super) hashed: u64,
    /// Of web servers: what stands for the version.
    pub(super) etag: Option<String>,
}

/// What a report means to the phase that waits for it.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing that matters beyond the connection.
    Nothing,
    /// A source has the file.
    Opened { link: LinkId },
    /// A source refused to open it.
    NotOpened { link: LinkId, reason: Reason, retry_us: u64, detail: String },
    /// Hashes, as they came.
    Hashes { link: LinkId, payload: Vec<u8> },
    /// A part of a directory, as it came.
    Listing { link: LinkId, payload: Vec<u8> },
    /// A request for either was refused.
    Refused { link: LinkId, reason: Reason },
    /// Payload.
    Data(What),
    /// A connection is gone.
    Gone { peer: usize, conn: Option<FetchConn>, gone: Gone },
}

impl Hub<'_> {
    /// Takes a report in.
    pub(super) fn hear(&mut self, event: link::Event) -> Result<Option<Heard>, FetchError> {
        let id = event.link;
        let Some(link) = self.links.get_mut(&id) else { return Ok(Some(Heard::Nothing)) };
        let heard = match event.what {
            What::Up { rtt_us } => {
                link.rtt_us = rtt_us;
                Heard::Nothing
            }
            What::Web(file) => {
                link.opening = None;
                link.rtt_us = file.rtt_us;
                link.requests_max = 1;
                link.opened = Some(Opened {
                    root: None,
                    length: file.length,
                    block_bytes: None,
                    hashed: 0,
                    etag: file.etag.clone(),
                });
                link.web = Some(file);
                Heard::Opened { link: id }
            }
            What::Frame { kind, payload } => link.take_frame(id, kind, payload),
            What::Gone(gone) => {
                let Some(mut link) = self.links.remove(&id) else { return Ok(None) };
                if let Some(thread) = link.thread.take() {
                    thread.join()?;
                }
                let (peer, conn) = (link.peer, link.conn);
                if link.closing {
                    return Ok(Some(Heard::Nothing));
                }
                Heard::Gone { peer, conn, gone }
            }
            what => Heard::Data(what),
        };
        Ok(Some(heard))
    }

    /// Asks a source for the file, on a connection that stands if there is one.
    pub(super) fn open(
        &mut self,
        peer: usize,
        name: &str,
        hashes: bool,
        conn: Option<FetchConn>,
    ) -> Result<LinkId, FetchError> {
        let deadline = Instant::now() + OPEN_WAIT;
        let is_web = matches!(self.peers[peer].source, Source::Web(_));
        let idle = self.links.iter_mut().find(|(_, link)| {
            link.peer == peer
                && link.conn.is_none()
                && link.opening.is_none()
                && !link.closing
                && !link.shared.has_runs()
        });
        if let Some((id, link)) = idle {
            if !is_web {
                link.opening = Some(deadline);
                link.opened = None;
                link.conn = conn;
                let request = link.next_request();
                link.expect(Expected::Answer { request, kind: OpenedFrame::KIND });
                link.send(&Open { request, file: 0, name, hashes });
                return Ok(*id);
            }
            // What is open there is another file.
            link.close();
        }
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let source = &self.peers[peer].source;
        let (shared, thread) =
            link::start(id, source, name, hashes, self.sender.clone(), self.clock)?;
        self.links.insert(
            id,
            Link {
                peer,
                shared,
                thread: Some(thread),
                conn,
                rtt_us: 0,
                requests_max: 1,
                opened: None,
                opening: Some(deadline),
                closing: false,
                web: None,
                next_request: FIRST_REQUEST,
                outgoing: Vec::new(),
            },
        );
        Ok(id)
    }

    /// The connection that the scheduler means.
    pub(super) fn link_of(&mut self, conn: FetchConn) -> Option<(LinkId, &mut Link)> {
        let found = self.links.iter_mut().find(|(_, link)| link.conn == Some(conn));
        found.map(|(id, link)| (*id, link))
    }

    /// Lets go of connections that have not answered to opening in time: who they belong to.
    pub(super) fn overdue(&mut self) -> Vec<(usize, Option<FetchConn>)> {
        let now = Instant::now();
        let late = self
            .links
            .values_mut()
            .filter(|link| !link.closing && link.opening.is_some_and(|deadline| deadline <= now));
        late.map(|link| {
            link.close();
            (link.peer, link.conn.take())
        })
        .collect()
    }

    /// Whether some connection waits for our own disk.
    pub(super) fn is_held_up(&self) -> bool {
        self.links.values().any(|link| !link.closing && link.shared.is_held_up())
    }

    /// When the next one is overdue.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        let open = self.links.values().filter(|link| !link.closing);
        open.filter_map(|link| link.opening).min()
    }

    /// Sends what sockets did not take before.
    pub(super) fn flush(&mut self) {
        for link in self.links.values_mut() {
            link.flush();
        }
    }

    pub(super) fn waits_to_send(&self) -> bool {
        self.links.values().any(|link| !link.closing && !link.outgoing.is_empty())
    }

    /// Ends the connections on which blocks are still to come, and waits until none of them writes
    /// any more. Returns what they told before that.
    pub(super) fn quiet(&mut self) -> Result<Vec<What>, FetchError> {
        let mut told = Vec::new();
        for link in self.links.values_mut() {
            link.conn = None;
            if link.shared.has_runs() {
                link.close();
            }
        }
        while self.links.values().any(|link| link.closing && link.shared.has_runs()) {
            // It ends soon: whatever it waits for was ended.
            let Ok(event) = self.events.recv() else { break };
            if let Some(Heard::Data(what)) = self.hear(event)? {
                told.push(what);
            }
        }
        Ok(told)
    }
}

impl Link {
    fn take_frame(&mut self, id: LinkId, kind: u8, payload: Vec<u8>) -> Heard {
        match kind {
            BlockWelcome::KIND => {
                if let Ok(welcome) = BlockWelcome::parse(&payload) {
                    self.requests_max = welcome.requests_max.max(1);
                }
                Heard::Nothing
            }
            OpenedFrame::KIND => {
                let Ok(opened) = OpenedFrame::parse(&payload) else { return Heard::Nothing };
                self.opening = None;
                self.opened = Some(Opened {
                    root: Some(opened.root).filter(|root| !root.is_unknown()),
                    length: opened.length,
                    block_bytes: Some(opened.block_bytes),
                    hashed: opened.hashed,
                    etag: None,
                });
                Heard::Opened { link: id }
            }
            Refused::KIND => {
                let Ok(refused) = Refused::parse(&payload) else { return Heard::Nothing };
                let (reason, detail) = (refused.reason, refused.detail.to_owned());
                if self.opening.take().is_some() {
                    let retry_us = u64::from(refused.retry_ms) * 1_000;
                    return Heard::NotOpened { link: id, reason, retry_us, detail };
                }
                Heard::Refused { link: id, reason }
            }
            Hashes::KIND => Heard::Hashes { link: id, payload },
            Listing::KIND => Heard::Listing { link: id, payload },
            _ => Heard::Nothing,
        }
    }

    /// Asks for hashes; returns the number of the request.
    pub(super) fn ask_hashes(&mut self, first: u64, count: u32) -> u64 {
        let request = self.next_request();
        self.expect(Expected::Answer { request, kind: Hashes::KIND });
        self.send(&AskHashes { request, file: 0, first, count });
        request
    }

    /// Asks for a part of a directory.
    pub(super) fn ask_list(&mut self, name: &str, after: &str) {
        let request = self.next_request();
        self.expect(Expected::Answer { request, kind: Listing::KIND });
        self.send(&AskList { request, name, after });
    }

    /// Asks for a run of blocks.
    pub(super) fn ask_blocks(
        &mut self,
        conn: FetchConn,
        job: &Arc<Job>,
        request: u64,
        first: u64,
        count: u32,
    ) {
        let wire = self.next_request();
        let left = first..first + u64::from(count);
        let range = job.layout.range(first, count.into());
        self.expect(Expected::Run(Run { conn, job: Arc::clone(job), request, wire, left }));
        match &self.web {
            Some(file) => {
                let bytes = link::web_request(&file.url, range.start, range.end - 1);
                self.outgoing.extend_from_slice(&bytes);
                self.flush();
            }
            None => self.send(&AskBlocks { request: wire, file: 0, first, count }),
        }
    }

    /// Takes a run back; false where that cannot be done but by closing.
    pub(super) fn cancel(&mut self, request: u64) -> bool {
        if self.web.is_some() {
            return false;
        }
        let wire = lock(&self.shared.expected).iter().find_map(|expected| match expected {
            Expected::Run(run) if run.request == request => Some(run.wire),
            _ => None,
        });
        // All of it came meanwhile.
        if let Some(request) = wire {
            self.send(&Cancel { request });
        }
        true
    }

    /// Lets go of it.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.shared.close();
    }

    fn next_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    fn expect(&self, expected: Expected) {
        lock(&self.shared.expected).push_back(expected);
    }

    fn send<'m>(&mut self, message: &impl Message<'m>) {
        message.put_frame(&mut self.outgoing);
        self.flush();
    }

    /// Sends what the socket takes at once. A connection that is broken is reported by its thread.
    fn flush(&mut self) {
        let Some(socket) = self.shared.socket.get() else { return };
        while !self.outgoing.is_empty() && !self.closing {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(socket, &self.outgoing, flags) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return,
                Err(_) => self.outgoing.clear(),
            }
        }
    }
}

impl Opened {
    /// How it is cut, where it is; an absurd one is none of ours.
    pub(super) fn layout(&self) -> Option<Layout> {
        Layout::new(self.length, self.block_bytes?).ok()
    }
}

/// Why a source does not open a file, as the scheduler knows it.
pub(super) fn fault_of(reason: Reason, retry_us: u64) -> Fault {
    match reason {
        Reason::FileUnknown | Reason::FileIsDirectory => Fault::Unknown,
        Reason::FileForbidden => Fault::Forbidden,
        Reason::FileChanged => Fault::Changed,
        Reason::FileHashing => Fault::Hashing { retry_us: retry_us.max(HASHING_RETRY_US) },
        _ => Fault::Busy { retry_us: retry_us.max(HASHING_RETRY_US) },
    }
}

/// Opening a file takes no longer, or the source is taken for a silent one.
const OPEN_WAIT: Duration = Duration::from_secs(5);
pub(super) const HASHING_RETRY_US: u64 = 100_000;
