//! Requests of one connection that wait for their turn.

use std::collections::VecDeque;

use cordee_core::wire::Reason;
use cordee_core::wire::block::{AskBlocks, AskHashes, AskList, Open};

use super::shared::Transfer;

/// Something to be answered.
#[derive(Debug)]
pub(super) enum Request {
    /// A hello that was accepted.
    Welcome,
    Ping {
        nonce: u64,
    },
    /// One that was not taken, or taken back: its answer has its place in the order all the same.
    Refused {
        request: u64,
        reason: Reason,
    },
    Open {
        request: u64,
        file: u32,
        name: String,
        hashes: bool,
    },
    Hashes {
        request: u64,
        file: u32,
        first: u64,
        count: u32,
    },
    Blocks {
        request: u64,
        file: u32,
        first: u64,
        count: u32,
        transfer: Transfer,
    },
    List {
        request: u64,
        name: String,
        after: String,
    },
    Status {
        request: u64,
    },
}

impl Request {
    fn name_bytes(&self) -> usize {
        match self {
            Request::Open { name, .. } => name.len(),
            Request::List { name, after, .. } => name.len() + after.len(),
            _ => 0,
        }
    }
}

/// See the module's documentation. So many wait at the most; of those beyond, the refusals wait, up
/// to as many again, and then nothing more is read.
#[derive(Debug)]
pub(super) struct Requests {
    waiting: VecDeque<Request>,
    most: usize,
    name_bytes: usize,
}

impl Requests {
    pub(super) fn new(most: usize) -> Requests {
        Requests { waiting: VecDeque::new(), most, name_bytes: 0 }
    }

    /// Whether nothing more is taken for now.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= 2 * self.most || self.name_bytes >= NAME_BYTES_MAX
    }

    pub(super) fn pop(&mut self) -> Option<Request> {
        let request = self.waiting.pop_front()?;
        self.name_bytes -= request.name_bytes();
        Some(request)
    }

    /// The request is the first again.
    pub(super) fn put_back(&mut self, request: Request) {
        self.name_bytes += request.name_bytes();
        self.waiting.push_front(request);
    }

    pub(super) fn put_welcome(&mut self) {
        self.put(Request::Welcome);
    }

    pub(super) fn put_ping(&mut self, nonce: u64) {
        self.put(Request::Ping { nonce });
    }

    pub(super) fn put_open(&mut self, ask: &Open<'_>) {
        self.put_request(ask.request, || Request::Open {
            request: ask.request,
            file: ask.file,
            name: ask.name.to_owned(),
            hashes: ask.hashes,
        });
    }

    pub(super) fn put_hashes(&mut self, ask: &AskHashes) {
        self.put_request(ask.request, || Request::Hashes {
            request: ask.request,
            file: ask.file,
            first: ask.first,
            count: ask.count,
        });
    }

    pub(super) fn put_blocks(&mut self, ask: &AskBlocks, transfer: impl FnOnce() -> Transfer) {
        self.put_request(ask.request, || Request::Blocks {
            request: ask.request,
            file: ask.file,
            first: ask.first,
            count: ask.count,
            transfer: transfer(),
        });
    }

    pub(super) fn put_list(&mut self, ask: &AskList<'_>) {
        self.put_request(ask.request, || Request::List {
            request: ask.request,
            name: ask.name.to_owned(),
            after: ask.after.to_owned(),
        });
    }

    pub(super) fn put_status(&mut self, request: u64) {
        self.put_request(request, || Request::Status { request });
    }

    /// Blocks that were not begun are not sent.
    pub(super) fn cancel(&mut self, request: u64) {
        let asked = |waiting: &&mut Request| matches!(waiting, Request::Blocks { request: blocks, .. } if *blocks == request);
        if let Some(waiting) = self.waiting.iter_mut().find(asked) {
            *waiting = Request::Refused { request, reason: Reason::Cancelled };
        }
    }

    fn put_request(&mut self, request: u64, taken: impl FnOnce() -> Request) {
        let taken = if self.waiting.len() < self.most {
            taken()
        } else {
            Request::Refused { request, reason: Reason::Busy }
        };
        self.put(taken);
    }

    fn put(&mut self, request: Request) {
        self.name_bytes += request.name_bytes();
        self.waiting.push_back(request);
    }
}

/// With so many bytes of names nothing more is taken.
const NAME_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: u64) -> impl Fn(&Request) -> bool {
        move |waiting| matches!(waiting, Request::Status { request: asked } if *asked == request)
    }

    #[test]
    fn beyond_the_limit_requests_are_refused_in_their_place_and_then_not_read() {
        let mut requests = Requests::new(2);
        for request in 0..3 {
            requests.put_status(request);
        }
        assert!(!requests.is_full());
        requests.put_status(3);
        assert!(
            requests.is_full(),
            "the fourth is not the last that is refused, but the last read"
        );
        assert!(requests.pop().is_some_and(|first| status(0)(&first)));
        assert!(!requests.is_full());
        requests.put_status(4);
        let mut refused = Vec::new();
        while let Some(waiting) = requests.pop() {
            if let Request::Refused { request, reason: Reason::Busy } = waiting {
                refused.push(request);
            }
        }
        assert_eq!(refused, [2, 3, 4]);
    }

    #[test]
    fn long_names_fill_it_sooner() {
        let mut requests = Requests::new(64);
        let name = "n".repeat(4_096);
        let mut asked = 0;
        while !requests.is_full() {
            requests.put_open(&Open { request: asked, file: 0, name: &name, hashes: false });
            asked += 1;
        }
        assert_eq!(asked, 16);
        requests.pop();
        assert!(!requests.is_full());
    }
}
