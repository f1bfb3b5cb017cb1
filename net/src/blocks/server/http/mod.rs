//! A connection that speaks HTTP/1.1: `GET` and `HEAD` with `Range`, one answer after the other
//! (RFC 9110, RFC 9112).

use cordee_core::wire::Reason;

use super::outgoing::{Body, Outgoing};
use super::shared::Shared;
use super::talk::{Next, Serving};
use crate::sync::Arc;
use answer::{Answer, Content};
use head::Method;

mod answer;
mod head;
mod page;
mod range;
#[cfg(all(test, not(feature = "loom")))]
mod tests;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Http {
    /// What came and was not answered; the first `filled` bytes of it.
    bytes: Vec<u8>,
    filled: usize,
    /// Up to here no head ends.
    scanned: usize,
    /// Where the first head ends.
    whole: Option<usize>,
    greeted: bool,
    /// Whether the connection ends with what waits.
    closing: bool,
    refused: bool,
}

impl Http {
    pub(super) fn new() -> Http {
        Http {
            bytes: Vec::new(),
            filled: 0,
            scanned: 0,
            whole: None,
            greeted: false,
            closing: false,
            refused: false,
        }
    }

    /// Whether a whole head came.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Whether part of a head came.
    pub(super) fn is_amid_head(&self) -> bool {
        self.filled > 0 && self.whole.is_none()
    }

    pub(super) fn wants_input(&self) -> bool {
        !self.closing && self.whole.is_none() && self.filled < HEAD_BYTES_MAX
    }

    pub(super) fn space(&mut self) -> &mut [u8] {
        if !self.wants_input() {
            return &mut [];
        }
        let most = (2 * self.filled).clamp(READ_BYTES, HEAD_BYTES_MAX);
        if self.bytes.len() < most {
            self.bytes.resize(most, 0);
        }
        &mut self.bytes[self.filled..]
    }

    pub(super) fn filled(&mut self, count: usize) -> u32 {
        self.filled += count;
        self.scan();
        u32::from(self.whole.is_some())
    }

    pub(super) fn release(&mut self) {
        if self.filled == 0 {
            self.bytes = Vec::new();
        }
    }

    /// There are no words for why a connection ends, but for want of a place.
    pub(super) fn end(&mut self, reason: Reason) {
        self.closing = true;
        self.refused = reason == Reason::TooManyConnections;
    }

    pub(super) fn body_ended(&mut self, result: Result<(), Reason>) {
        // A body that is cut short is seen by the length that was announced.
        self.closing |= result.is_err();
    }

    /// Answers the first request, behind what waits; there is no body.
    pub(super) fn next(&mut self, serving: &mut Serving<'_>, out: &mut Outgoing) -> Next {
        let shared = serving.shared;
        if std::mem::take(&mut self.refused) {
            self.put(Answer::busy(shared), None, shared, out);
        }
        if self.closing || shared.is_stopping() {
            return Next::Close;
        }
        let Some(end) = self.whole else {
            if self.filled < HEAD_BYTES_MAX {
                return Next::Nothing;
            }
            self.closing = true;
            self.put(Answer::error(431, "the head of the request is too long"), None, shared, out);
            return Next::Close;
        };
        let answer = match head::parse(&self.bytes[..end]) {
            Ok(head) => {
                self.closing |= !head.keep_alive;
                let method = head.method;
                match answer::answer(&head, serving) {
                    Some(answer) => (answer, method),
                    // Directories cannot be walked through just now.
                    None => return Next::Wait(serving.now + answer::WALK_AGAIN),
                }
            }
            Err(answer) => {
                self.closing = true;
                (answer, None)
            }
        };
        self.consume(end);
        let (answer, method) = answer;
        self.put(answer, method, shared, out);
        Next::Some
    }

    fn put(&self, answer: Answer, method: Option<Method>, shared: &Shared, out: &mut Outgoing) {
        answer.put_head(self.closing, out.bytes());
        if method == Some(Method::Head) {
            return;
        }
        match answer.content {
            Content::None => {}
            Content::Text(text) => out.bytes().extend_from_slice(text.as_bytes()),
            Content::File { file, range } => {
                if range.start < range.end {
                    let mut body = Body::new(Arc::clone(&file), range.start, range.end - 1);
                    body.short = range.end - range.start < LONG_BYTES;
                    body.transfer = Some(shared.transfer());
                    out.begin(body);
                }
            }
        }
    }

    /// Lets go of a head that was answered.
    fn consume(&mut self, end: usize) {
        self.bytes.copy_within(end..self.filled, 0);
        self.filled -= end;
        (self.scanned, self.whole) = (0, None);
        self.scan();
    }

    /// Looks for the end of the first head: an empty line, but for those before the head.
    fn scan(&mut self) {
        let bytes = &self.bytes[..self.filled];
        self.greeted |= self.whole.is_some();
        if self.whole.is_some() {
            return;
        }
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if blank > 0 {
            self.bytes.copy_within(blank..self.filled, 0);
            self.filled -= blank;
            self.scanned = 0;
        }
        let bytes = &self.bytes[..self.filled];
        let from = self.scanned.saturating_sub(3);
        self.whole = head::end(&bytes[from..]).map(|end| from + end);
        self.scanned = self.filled;
        self.greeted |= self.whole.is_some();
    }
}

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// What is read at once at first.
const READ_BYTES: usize = 2 << 10;
/// Bodies of that length or more are sent from the page cache.
const LONG_BYTES: u64 = 64 << 10;
