//! What a connection talks: our own protocol or HTTP, which its first byte decides.

use std::time::Instant;

use cordee_core::wire::Reason;

use super::fetcher::Fetcher;
use super::http::Http;
use super::outgoing::Outgoing;
use super::shared::Shared;

/// See the module's documentation.
#[derive(Debug)]
pub(super) enum Talk {
    /// Nothing came yet.
    Unknown,
    Fetcher(Box<Fetcher>),
    Http(Box<Http>),
}

/// What a worker lends to a connection that it serves.
#[derive(Debug)]
pub(super) struct Serving<'a> {
    pub(super) shared: &'a Shared,
    pub(super) now: Instant,
    pub(super) scratch: &'a mut Vec<u8>,
}

impl Serving<'_> {
    /// To read a file into.
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        self.scratch.resize(SCRATCH_BYTES, 0);
        self.scratch
    }
}

/// What came of asking for what is sent next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is something, or may be.
    Some,
    /// There is nothing until more is read.
    Nothing,
    /// It has to wait until then.
    Wait(Instant),
    /// What waits is the last.
    Close,
}

impl Talk {
    /// The talk that begins with this byte. A frame that is not refused begins with a zero, as it is short.
    pub(super) fn beginning_with(byte: u8, shared: &Shared) -> Talk {
        // A request may have empty lines before it.
        if byte.is_ascii_uppercase() || matches!(byte, b'\r' | b'\n') {
            Talk::Http(Box::new(Http::new()))
        } else {
            Talk::Fetcher(Box::new(Fetcher::new(shared)))
        }
    }

    /// Whether the other end has said properly what it is.
    pub(super) fn is_greeted(&self) -> bool {
        match self {
            Talk::Unknown => false,
            Talk::Fetcher(fetcher) => fetcher.is_greeted(),
            Talk::Http(http) => http.is_greeted(),
        }
    }

    /// Whether something was begun by the other end, the rest of which is waited for.
    pub(super) fn is_amid_frame(&self) -> bool {
        match self {
            Talk::Unknown => false,
            Talk::Fetcher(fetcher) => fetcher.is_amid_frame(),
            Talk::Http(http) => http.is_amid_head(),
        }
    }

    /// Whether more may be read.
    pub(super) fn wants_input(&self) -> bool {
        match self {
            Talk::Unknown => true,
            Talk::Fetcher(fetcher) => fetcher.wants_input(),
            Talk::Http(http) => http.wants_input(),
        }
    }

    /// Where to put what comes; none when nothing more is read for now.
    pub(super) fn space(&mut self) -> &mut [u8] {
        match self {
            Talk::Unknown => &mut [],
            Talk::Fetcher(fetcher) => fetcher.space(),
            Talk::Http(http) => http.space(),
        }
    }

    /// So many bytes were put there. Returns how many requests they made whole.
    pub(super) fn filled(&mut self, count: usize, shared: &Shared) -> u32 {
        match self {
            Talk::Unknown => 0,
            Talk::Fetcher(fetcher) => fetcher.filled(count, shared),
            Talk::Http(http) => http.filled(count),
        }
    }

    /// What is sent next.
    pub(super) fn next(&mut self, serving: &mut Serving<'_>, out: &mut Outgoing) -> Next {
        match self {
            Talk::Unknown if serving.shared.is_stopping() => Next::Close,
            Talk::Unknown => Next::Nothing,
            Talk::Fetcher(fetcher) => fetcher.next(serving, out),
            Talk::Http(http) => http.next(serving, out),
        }
    }

    /// A body ended, with its last byte or without.
    pub(super) fn body_ended(&mut self, result: Result<(), Reason>) {
        match self {
            Talk::Unknown => {}
            Talk::Fetcher(fetcher) => fetcher.body_ended(result),
            Talk::Http(http) => http.body_ended(result),
        }
    }

    /// The connection is to end; whoever understands it is told why.
    pub(super) fn end(&mut self, reason: Reason, shared: &Shared) {
        if matches!(self, Talk::Unknown) {
            *self = Talk::Fetcher(Box::new(Fetcher::new(shared)));
        }
        match self {
            Talk::Unknown => {}
            Talk::Fetcher(fetcher) => fetcher.end(reason),
            Talk::Http(http) => http.end(reason),
        }
    }

    /// Lets go of memory while nothing comes.
    pub(super) fn release(&mut self) {
        match self {
            Talk::Unknown => {}
            Talk::Fetcher(fetcher) => fetcher.release(),
            Talk::Http(http) => http.release(),
        }
    }
}

/// What a worker reads of a file at once when it hashes it.
const SCRATCH_BYTES: usize = 128 << 10;
