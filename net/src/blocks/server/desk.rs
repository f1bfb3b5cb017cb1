//! What a fetcher asked for, and the answers, one after the other.

use std::time::Duration;

use cordee_core::framing::{FRAME_BYTES_MAX, Frame};
use cordee_core::wire::block::{
    AskBlockServer, AskBlocks, AskHashes, AskList, BlockServerStatus, BlockWelcome, Cancel,
    HASHES_MAX, Hashes, LISTED_MAX, ListedFile, Listing, Open, Opened, Refused, Slice,
};
use cordee_core::wire::hello::{Bye, Hello, Ping, Pong, Role, Transport};
use cordee_core::wire::{Fixed64, Message, Reason, Seq, VERSION_MAJOR, VERSION_MINOR};

use super::files::{OpenFile, Refusal};
use super::hashing::Hashed;
use super::outgoing::{Body, Outgoing};
use super::requests::{Request, Requests};
use super::shared::{Shared, Transfer};
use super::talk::{Next, Serving};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// What is known of the one at the other end, and what it asked for.
#[derive(Debug)]
pub(super) struct Desk {
    role: Option<Role>,
    requests: Requests,
    files: Vec<Option<Arc<OpenFile>>>,
    run: Option<Run>,
    /// Why the connection is about to end.
    bye: Option<Reason>,
    gone: bool,
}

/// Blocks that were asked for and are being sent.
#[derive(Debug)]
struct Run {
    request: u64,
    file: Arc<OpenFile>,
    next: u64,
    end: u64,
    cancelled: bool,
    transfer: Option<Transfer>,
}

impl Desk {
    pub(super) fn new(shared: &Shared) -> Desk {
        let requests = Requests::new(shared.limits.requests_max as usize);
        Desk { role: None, requests, files: Vec::new(), run: None, bye: None, gone: false }
    }

    /// Whether its hello was accepted.
    pub(super) fn is_greeted(&self) -> bool {
        self.role.is_some()
    }

    /// Whether more may be read.
    pub(super) fn wants_input(&self) -> bool {
        !self.requests.is_full() && self.bye.is_none() && !self.gone
    }

    /// The connection is to end with a reason, as soon as no block is amid being sent.
    pub(super) fn end(&mut self, reason: Reason) {
        self.bye.get_or_insert(reason);
    }

    /// Takes what the other end said, or says why the connection is to end.
    pub(super) fn on_frame(&mut self, frame: Frame<'_>, shared: &Shared) -> Result<(), Reason> {
        let Some(role) = self.role else { return self.on_hello(frame) };
        let from_fetcher = role == Role::Fetcher;
        match frame.kind {
            Hello::KIND => return Err(Reason::Unexpected),
            Bye::KIND => self.gone = true,
            Ping::KIND => self.requests.put_ping(Ping::parse(frame.payload)?.nonce),
            Open::KIND if from_fetcher => self.requests.put_open(&Open::parse(frame.payload)?),
            AskHashes::KIND if from_fetcher => {
                self.requests.put_hashes(&AskHashes::parse(frame.payload)?);
            }
            AskBlocks::KIND if from_fetcher => {
                let ask = AskBlocks::parse(frame.payload)?;
                self.requests.put_blocks(&ask, || shared.transfer());
            }
            Cancel::KIND if from_fetcher => self.on_cancel(Cancel::parse(frame.payload)?.request),
            AskList::KIND if from_fetcher => {
                self.requests.put_list(&AskList::parse(frame.payload)?)
            }
            AskBlockServer::KIND => {
                self.requests.put_status(AskBlockServer::parse(frame.payload)?.request);
            }
            // Of a newer version, or from someone who never sends it.
            _ => {}
        }
        Ok(())
    }

    fn on_hello(&mut self, frame: Frame<'_>) -> Result<(), Reason> {
        if frame.kind != Hello::KIND {
            return Err(Reason::NotCordee);
        }
        let hello = Hello::parse(frame.payload)?;
        if hello.major != VERSION_MAJOR {
            return Err(Reason::WrongVersion);
        }
        if hello.transport != Transport::Plain {
            return Err(Reason::WrongSecret);
        }
        match hello.role {
            Role::Fetcher | Role::Observer => {
                self.role = Some(hello.role);
                self.requests.put_welcome();
                Ok(())
            }
            Role::Client | Role::Peer => Err(Reason::WrongService),
        }
    }

    fn on_cancel(&mut self, request: u64) {
        match &mut self.run {
            Some(run) if run.request == request => run.cancelled = true,
            _ => self.requests.cancel(request),
        }
    }

    /// Puts what is sent next behind what waits.
    pub(super) fn next(&mut self, serving: &mut Serving<'_>, out: &mut Outgoing) -> Next {
        let shared = serving.shared;
        if self.gone {
            return Next::Close;
        }
        if shared.is_stopping() {
            self.bye.get_or_insert(Reason::Draining);
        }
        if let Some(reason) = self.bye {
            let retry_ms =
                if reason == Reason::TooManyConnections { shared.limits.retry_ms() } else { 0 };
            Bye { reason, retry_ms, next: "", detail: "" }.put_frame(out.bytes());
            return Next::Close;
        }
        if self.run.is_some() {
            self.slice(out);
            return Next::Some;
        }
        let Some(request) = self.requests.pop() else { return Next::Nothing };
        match self.answer(request, serving, out) {
            Ok(()) => Next::Some,
            // It is the first again.
            Err(request) => {
                self.requests.put_back(request);
                Next::Wait(serving.now + WALK_AGAIN)
            }
        }
    }

    /// The next slice of the run.
    fn slice(&mut self, out: &mut Outgoing) {
        let Some(run) = &mut self.run else { return };
        if run.cancelled {
            refuse(out, run.request, Reason::Cancelled.into(), 0);
            self.run = None;
            return;
        }
        if !run.file.is_unchanged() {
            self.bye = Some(Reason::FileChanged);
            self.run = None;
            return;
        }
        let layout = run.file.layout;
        let most = (SLICE_BYTES / u64::from(layout.block_bytes())).max(1);
        let (first, count) = (run.next, most.min(run.end - run.next));
        let range = layout.range(first, count);
        // At most a slice's worth of the shortest blocks.
        let message = Slice { request: run.request, first, count: count as u32 };
        message.put_frame(out.bytes());
        let mut body = Body::new(Arc::clone(&run.file), range.start, range.end - 1);
        body.framed = true;
        body.short = layout.block_bytes() < LONG_BLOCK_BYTES;
        run.next += count;
        if run.next == run.end {
            // Until its last byte is sent it is under way.
            body.transfer = run.transfer.take();
            self.run = None;
        }
        out.begin(body);
    }

    /// Answers a request, or gives it back when it has to wait.
    fn answer(
        &mut self,
        request: Request,
        serving: &mut Serving<'_>,
        out: &mut Outgoing,
    ) -> Result<(), Request> {
        let shared = serving.shared;
        match request {
            Request::Welcome => {
                let requests_max = shared.limits.requests_max;
                BlockWelcome { minor: VERSION_MINOR, requests_max }.put_frame(out.bytes());
            }
            Request::Ping { nonce } => Pong { nonce }.put_frame(out.bytes()),
            Request::Refused { request, reason } => {
                let retry_ms = if reason == Reason::Busy { shared.limits.retry_ms() } else { 0 };
                refuse(out, request, reason.into(), retry_ms);
            }
            Request::Open { request, file, name, hashes } => {
                self.open(request, file, &name, hashes, serving, out);
            }
            Request::Hashes { request, file, first, count } => {
                self.hashes(request, file, (first, count), shared, out);
            }
            Request::Blocks { request, file, first, count, transfer } => {
                self.begin_run(request, file, (first, count), transfer, out);
            }
            Request::List { request, ref name, ref after } => {
                let Some(_walking) = shared.walk() else { return Err(redo(request, name, after)) };
                list(request, name, after, shared, out);
            }
            Request::Status { request } => {
                let Some(files) = shared.files() else { return Err(Request::Status { request }) };
                status(request, files, shared).put_frame(out.bytes());
            }
        }
        Ok(())
    }

    fn open(
        &mut self,
        request: u64,
        number: u32,
        name: &str,
        hashes: bool,
        serving: &mut Serving<'_>,
        out: &mut Outgoing,
    ) {
        let shared = serving.shared;
        let place = number as usize;
        if number >= shared.limits.requests_max {
            let detail = "a file's number is below requests_max";
            return refuse(out, request, Refusal { reason: Reason::BadRequest, detail }, 0);
        }
        if self.files.len() <= place {
            self.files.resize(place + 1, None);
        }
        // First the place of the one that had this number becomes free.
        self.files[place] = None;
        let file = match shared.directory.file(name) {
            Ok(file) => Arc::new(file),
            Err(refusal) => {
                let busy = refusal.reason == Reason::Busy;
                let retry_ms = if busy { shared.limits.retry_ms() } else { 0 };
                return refuse(out, request, refusal, retry_ms);
            }
        };
        let hashed = if hashes {
            shared.hashing.wanted(&file, serving.buffer())
        } else {
            shared.hashing.known(&file)
        };
        let (root, hashed) = match hashed {
            Hashed::Whole(manifest) => (manifest.root(), file.layout.blocks()),
            Hashed::Part(done) => (cordee_core::blocks::Root::default(), done),
        };
        let (seconds, nanos) = file.identity.modified;
        let micros = u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000);
        let opened = Opened {
            request,
            length: file.identity.size,
            block_bytes: file.layout.block_bytes(),
            modified: Fixed64(micros.saturating_add(u64::from(nanos / 1_000))),
            root,
            hashed,
        };
        opened.put_frame(out.bytes());
        self.files[place] = Some(file);
    }

    fn file(&self, number: u32) -> Result<&Arc<OpenFile>, Refusal> {
        let file = self.files.get(number as usize).and_then(Option::as_ref);
        let detail = "no file is open under that number";
        file.ok_or(Refusal { reason: Reason::BadRequest, detail })
    }

    fn hashes(
        &self,
        request: u64,
        number: u32,
        (first, count): (u64, u32),
        shared: &Shared,
        out: &mut Outgoing,
    ) {
        let file = match self.file(number) {
            Ok(file) => file,
            Err(refusal) => return refuse(out, request, refusal, 0),
        };
        let manifest = match shared.hashing.known(file) {
            Hashed::Whole(manifest) => manifest,
            Hashed::Part(done) => {
                let detail = format!("{done} of {} blocks", file.layout.blocks());
                let (reason, retry_ms) = (Reason::FileHashing, HASHING_AGAIN_MS);
                Refused { request, reason, retry_ms, detail: &detail }.put_frame(out.bytes());
                return;
            }
        };
        let end = first.checked_add(count.into());
        let range = end.filter(|_| (1..=HASHES_MAX).contains(&(count as usize)));
        let range = range.and_then(|end| manifest.hashes().get(first as usize..end as usize));
        match range {
            Some(hashes) => {
                Hashes { request, first, hashes: Seq::new(hashes) }.put_frame(out.bytes());
            }
            None => {
                let detail = "no such hashes, or too many at once";
                refuse(out, request, Refusal { reason: Reason::BadRequest, detail }, 0);
            }
        }
    }

    fn begin_run(
        &mut self,
        request: u64,
        number: u32,
        (first, count): (u64, u32),
        transfer: Transfer,
        out: &mut Outgoing,
    ) {
        let file = match self.file(number) {
            Ok(file) => Arc::clone(file),
            Err(refusal) => return refuse(out, request, refusal, 0),
        };
        let end = first.checked_add(count.into()).filter(|end| *end <= file.layout.blocks());
        let Some(end) = end.filter(|end| *end > first) else {
            let detail = "no such blocks";
            return refuse(out, request, Refusal { reason: Reason::BadRequest, detail }, 0);
        };
        let transfer = Some(transfer);
        self.run = Some(Run { request, file, next: first, end, cancelled: false, transfer });
    }
}

fn redo(request: u64, name: &str, after: &str) -> Request {
    Request::List { request, name: name.to_owned(), after: after.to_owned() }
}

fn list(request: u64, name: &str, after: &str, shared: &Shared, out: &mut Outgoing) {
    let listing = match shared.directory.list(name, after, LISTED_MAX) {
        Ok(listing) => listing,
        Err(refusal) => return refuse(out, request, refusal, 0),
    };
    let (mut bytes, mut more) = (LISTING_BYTES, listing.more);
    let mut files = Vec::with_capacity(listing.files.len());
    for file in &listing.files {
        bytes += file.name.len() + LISTED_BYTES;
        if bytes > FRAME_BYTES_MAX {
            more = true;
            break;
        }
        files.push(ListedFile { name: &file.name, length: file.length });
    }
    Listing { request, files: Seq::new(&files), more }.put_frame(out.bytes());
}

fn status(request: u64, files: u64, shared: &Shared) -> BlockServerStatus {
    BlockServerStatus {
        request,
        pid: std::process::id(),
        files,
        transfers: shared.transfers(),
        bytes_sent: shared.bytes_sent.load(Ordering::Relaxed),
        connections: shared.connections.load(Ordering::Relaxed),
    }
}

fn refuse(out: &mut Outgoing, request: u64, refusal: Refusal, retry_ms: u32) {
    let Refusal { reason, detail } = refusal;
    Refused { request, reason, retry_ms, detail }.put_frame(out.bytes());
}

/// A slice has whole blocks, one at least, and not many more bytes than that.
const SLICE_BYTES: u64 = 1 << 20;
/// Blocks of that length or more are sent from the page cache.
const LONG_BLOCK_BYTES: u32 = 64 << 10;
/// When to look again whether a file is hashed, in milliseconds.
const HASHING_AGAIN_MS: u32 = 100;
/// When to look again whether directories may be walked through.
const WALK_AGAIN: Duration = Duration::from_millis(5);
/// The most bytes of a listing beside its files, and of a file in it beside its name.
const LISTING_BYTES: usize = 32;
const LISTED_BYTES: usize = 2 + 10;
