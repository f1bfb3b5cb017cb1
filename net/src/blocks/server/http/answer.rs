//! What is answered to a request.

use std::fmt::Write;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cordee_core::blocks::Root;
use cordee_core::wire::Reason;

use super::head::Head;
use super::page;
use super::range::{Asked, asked};
use crate::blocks::server::files::{OpenFile, Refusal};
use crate::blocks::server::hashing::Hashed;
use crate::blocks::server::shared::Shared;
use crate::blocks::server::talk::Serving;
use crate::sync::Arc;

/// An answer, but for what depends on the connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Fields of the head, each with the end of its line.
    fields: String,
    length: u64,
    pub(super) content: Content,
}

/// What an answer carries.
#[derive(Debug)]
pub(super) enum Content {
    None,
    Text(String),
    File { file: Arc<OpenFile>, range: Range<u64> },
}

impl Answer {
    /// An answer of one line.
    pub(super) fn error(status: u16, text: &str) -> Answer {
        let text = format!("{text}\n");
        let mut answer = Answer::text(status, "text/plain; charset=utf-8", text);
        if status == 405 {
            answer.field("Allow", "GET, HEAD");
        }
        answer
    }

    /// There is no place for the connection, or no descriptor for the file.
    pub(super) fn busy(shared: &Shared) -> Answer {
        let mut answer = Answer::error(503, "too much is going on here: try again soon");
        answer.field("Retry-After", shared.limits.retry.as_secs().max(1));
        answer
    }

    fn text(status: u16, kind: &str, text: String) -> Answer {
        let length = text.len() as u64;
        let mut answer =
            Answer { status, fields: String::new(), length, content: Content::Text(text) };
        answer.field("Content-Type", kind);
        answer
    }

    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a string never fails.
        let _ = write!(self.fields, "{name}: {value}\r\n");
    }

    /// Appends the head.
    pub(super) fn put_head(&self, closing: bool, out: &mut Vec<u8>) {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let connection = if closing { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 {} {}\r\nServer: cordee\r\nDate: {date}\r\nConnection: {connection}\r\n{}",
            self.status,
            phrase(self.status),
            self.fields,
        );
        out.extend_from_slice(head.as_bytes());
        // A file that was not modified has a length all the same, of what is not sent.
        if self.status != 304 {
            out.extend_from_slice(format!("Content-Length: {}\r\n", self.length).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// What is answered; `None` when directories cannot be walked through just now.
pub(super) fn answer(head: &Head, serving: &Serving<'_>) -> Option<Answer> {
    let shared = serving.shared;
    if head.name.is_empty() || head.name.ends_with('/') {
        let _walking = shared.walk()?;
        let name = head.name.strip_suffix('/').unwrap_or(&head.name);
        return Some(match page::page(&shared.directory, name, &head.after) {
            Ok(html) => Answer::text(200, "text/html; charset=utf-8", html),
            Err(refusal) => refused(refusal, shared),
        });
    }
    Some(match shared.directory.file(&head.name) {
        Ok(file) => of_file(head, Arc::new(file), shared),
        Err(Refusal { reason: Reason::FileIsDirectory, .. }) => {
            let mut answer = Answer::error(301, "that is a directory");
            answer.field("Location", format_args!("/{}/", page::encoded(&head.name)));
            answer
        }
        Err(refusal) => refused(refusal, shared),
    })
}

fn refused(refusal: Refusal, shared: &Shared) -> Answer {
    match refusal.reason {
        Reason::Busy => Answer::busy(shared),
        reason => Answer::error(404, reason.text()),
    }
}

fn of_file(head: &Head, file: Arc<OpenFile>, shared: &Shared) -> Answer {
    let length = file.identity.size;
    let root = match shared.hashing.known(&file) {
        Hashed::Whole(manifest) => Some(manifest.root()),
        Hashed::Part(_) => None,
    };
    let tags = Tags::new(&file, root);
    let modified = modified(&file);
    if is_not_modified(head, &tags, modified) {
        let mut answer =
            Answer { status: 304, fields: String::new(), length, content: Content::None };
        describe(&mut answer, &tags, modified);
        return answer;
    }
    // A range is that of the version of which the client has the rest.
    let same = head.if_range.as_ref().is_none_or(|wanted| {
        tags.are(wanted) || httpdate::parse_http_date(wanted).is_ok_and(|date| date == modified)
    });
    let asked = match &head.range {
        Some(text) if same && head.method == Some(super::Method::Get) => asked(text, length),
        _ => Asked::Whole,
    };
    let (status, range) = match asked {
        Asked::Whole => (200, 0..length),
        Asked::Part(range) => (206, range),
        Asked::Beyond => {
            let mut answer = Answer::error(416, "the file has no such part");
            answer.field("Content-Range", format_args!("bytes */{length}"));
            return answer;
        }
    };
    let mut answer = Answer {
        status,
        fields: String::new(),
        length: range.end - range.start,
        content: Content::None,
    };
    let kind = mime_guess::from_path(&head.name).first_or_octet_stream();
    answer.field("Content-Type", kind);
    if status == 206 {
        let part = format_args!("bytes {}-{}/{length}", range.start, range.end - 1);
        answer.field("Content-Range", part);
    }
    describe(&mut answer, &tags, modified);
    answer.content = Content::File { file, range };
    answer
}

fn describe(answer: &mut Answer, tags: &Tags, modified: SystemTime) {
    answer.field("Accept-Ranges", "bytes");
    answer.field("ETag", tags.best());
    answer.field("Last-Modified", httpdate::fmt_http_date(modified));
}

/// When the file was modified, in whole seconds, as HTTP knows it.
fn modified(file: &OpenFile) -> SystemTime {
    let seconds = u64::try_from(file.identity.modified.0).unwrap_or(0).min(YEAR_9999);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn is_not_modified(head: &Head, tags: &Tags, modified: SystemTime) -> bool {
    if let Some(known) = &head.if_none_match {
        return known.trim() == "*" || known.split(',').any(|tag| tags.are_weakly(tag.trim()));
    }
    let since =
        head.if_modified_since.as_ref().and_then(|date| httpdate::parse_http_date(date).ok());
    since.is_some_and(|since| modified <= since)
}

/// What a version of a file is called: by its hash once it is known, before that by its identity.
/// Who learned one of them need not forget it when the other comes up.
#[derive(Debug)]
struct Tags {
    by_hash: Option<String>,
    by_identity: String,
}

impl Tags {
    fn new(file: &OpenFile, root: Option<Root>) -> Tags {
        let identity = blake3::hash(&file.identity.bytes()).to_hex();
        let by_identity = format!("\"i-{}\"", &identity[..32]);
        Tags { by_hash: root.map(|root| format!("\"b3-{root}\"")), by_identity }
    }

    fn best(&self) -> &str {
        self.by_hash.as_ref().unwrap_or(&self.by_identity)
    }

    fn are(&self, tag: &str) -> bool {
        tag == self.by_identity || self.by_hash.as_ref().is_some_and(|hash| tag == hash)
    }

    fn are_weakly(&self, tag: &str) -> bool {
        self.are(tag.strip_prefix("W/").unwrap_or(tag))
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    }
}

/// When to look again whether directories may be walked through.
pub(super) const WALK_AGAIN: Duration = Duration::from_millis(5);
/// Dates beyond that are not written in HTTP.
const YEAR_9999: u64 = 253_402_300_799;
