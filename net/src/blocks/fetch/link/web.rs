//! A connection to a web server: HTTP/1.1 (RFC 9110, RFC 9112), one request of a range a run.

use std::io::{self, Write};
use std::time::Instant;

use cordee_core::blocks::scheduler::{Fault, RunEnd};

use super::blocks::Intake;
use super::dial::dial;
use super::{Expected, Gone, Start, WebFile, What};
use crate::blocks::fetch::source::{SourceError, Url};
use crate::sync::lock;

/// Connects, looks what the file is, and takes the runs that the hub asks for.
pub(super) fn run(start: &Start, url: &Url) -> Result<std::convert::Infallible, Gone> {
    let mut url = url.clone();
    for _ in 0..=REDIRECTS_MAX {
        match probe(start, &url)? {
            Probe::Redirect(to) => url = to,
            // The hub cannot send on a socket that is not the one which the file was found on.
            Probe::Found { file, socket } => {
                let socket = start.shared.socket.get_or_init(|| socket);
                if start.shared.is_closing() {
                    return Err(Gone::asked());
                }
                let mut intake = Intake::new(start, socket);
                start.tell(What::Web(file.clone()))?;
                loop {
                    take_answer(&mut intake, &file)?;
                }
            }
        }
    }
    Err(Gone::garbage(format!("more than {REDIRECTS_MAX} redirects")))
}

enum Probe {
    Redirect(Url),
    Found { file: WebFile, socket: socket2::Socket },
}

/// Asks for the first byte: that tells the length, the version, and whether ranges are honoured.
fn probe(start: &Start, url: &Url) -> Result<Probe, Gone> {
    let (socket, rtt_us) = dial(&url.authority, &start.shared)?;
    socket.set_read_timeout(Some(PROBE_WAIT)).map_err(|error| Gone::broken(&error))?;
    let sent = Instant::now();
    (&socket).write_all(&request(url, 0, 0)).map_err(|error| Gone::broken(&error))?;
    let mut intake = Intake::new(start, &socket);
    let head = take_head(&mut intake).map_err(|gone| match gone.fault {
        Fault::Ended if sent.elapsed() >= PROBE_WAIT => Gone::new(Fault::Silent, gone.detail),
        _ => gone,
    })?;
    if let Some(location) = head.location.as_deref().filter(|_| is_redirect(head.status)) {
        let to = url.join(location).map_err(|error| match error {
            SourceError::Scheme(to) => {
                Gone::new(Fault::Forbidden, format!("redirects to {to}: only http:// is spoken"))
            }
            SourceError::Neither(to) => Gone::garbage(format!("redirects to {to:?}")),
        })?;
        return Ok(Probe::Redirect(to));
    }
    let length = match (head.status, head.range) {
        (206, Some(ContentRange { first: 0, last: 0, length })) => length,
        // No first byte: the file is empty.
        (416, Some(ContentRange { length: 0, .. })) => 0,
        (status, _) => return Err(refused(status, &head)),
    };
    if head.closes {
        return Err(Gone::garbage("it does not keep connections"));
    }
    let body = head.content_length.unwrap_or(u64::from(head.status == 206));
    if body > PROBE_BODY_MAX {
        return Err(Gone::garbage("more bytes than were asked for"));
    }
    intake.inlet.fill(&socket, body as usize)?;
    if intake.inlet.len() != body as usize {
        return Err(Gone::garbage("more bytes than it announced"));
    }
    drop(intake);
    socket.set_read_timeout(None).map_err(|error| Gone::broken(&error))?;
    let file = WebFile { length, etag: head.strong_etag(), url: url.clone(), rtt_us };
    Ok(Probe::Found { file, socket })
}

/// A request for the bytes `first..=last`.
pub(in super::super) fn request(url: &Url, first: u64, last: u64) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let Url { authority, path } = url;
    let host = authority.strip_suffix(":80").unwrap_or(authority);
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nRange: bytes={first}-{last}\r\n\
         Accept-Encoding: identity\r\nUser-Agent: cordee/{version}\r\n\r\n"
    )
    .into_bytes()
}

/// Takes the answer to the run that was asked for.
fn take_answer(intake: &mut Intake<'_>, file: &WebFile) -> Result<(), Gone> {
    let head = take_head(intake)?;
    let run = match lock(&intake.start.shared.expected).front() {
        Some(Expected::Run(run)) => run.clone(),
        _ => return Err(Gone::garbage("an answer to nothing that was asked")),
    };
    let bytes = run.job.layout.range(run.left.start, run.left.end - run.left.start);
    let wanted = ContentRange { first: bytes.start, last: bytes.end - 1, length: file.length };
    match (head.status, &head.range) {
        (206, Some(range)) if *range == wanted => {}
        (206, Some(range)) if range.length != file.length => {
            return Err(Gone::new(Fault::Changed, "the file has another length now"));
        }
        (206, _) => return Err(Gone::garbage("another range than was asked for")),
        (429 | 503, _) if head.content_length.is_some_and(|len| len <= PROBE_BODY_MAX) => {
            let body = head.content_length.unwrap_or(0) as usize;
            intake.inlet.fill(intake.socket, body)?;
            intake.inlet.consume(body);
            lock(&intake.start.shared.expected).pop_front();
            let reason = cordee_core::wire::Reason::Busy;
            let end = RunEnd::Refused { reason, retry_us: head.retry_us() };
            let (conn, job, request) = (run.conn, run.job.id, run.request);
            return intake.start.tell(What::Ended { conn, job, request, end });
        }
        (status, _) => return Err(refused(status, &head)),
    }
    if head.content_length.is_some_and(|len| len != bytes.end - bytes.start) || head.is_chunked {
        return Err(Gone::garbage("a body of another length than its range"));
    }
    // Where blocks are verified, a server may know its file by several names.
    let etag = head.strong_etag();
    if run.job.manifest.is_none() && file.etag.is_some() && etag != file.etag {
        return Err(Gone::new(Fault::Changed, "the file has another ETag now"));
    }
    intake.take(&run, run.left.end - run.left.start, false)?;
    lock(&intake.start.shared.expected).pop_front();
    // Nothing is lost with it: it is made anew for the next run.
    if head.closes { Err(Gone::asked()) } else { Ok(()) }
}

/// What the head of an answer says.
#[derive(Debug, Default)]
struct Head {
    status: u16,
    content_length: Option<u64>,
    range: Option<ContentRange>,
    etag: Option<String>,
    location: Option<String>,
    retry_after: Option<u64>,
    closes: bool,
    is_chunked: bool,
}

/// `bytes first-last/length`, or of a range that does not exist `bytes */length`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ContentRange {
    first: u64,
    last: u64,
    length: u64,
}

impl Head {
    fn strong_etag(&self) -> Option<String> {
        self.etag.clone().filter(|etag| !etag.starts_with("W/"))
    }

    fn retry_us(&self) -> u64 {
        self.retry_after.unwrap_or(1).clamp(1, 60) * 1_000_000
    }
}

/// Reads the head of the next answer that is not just one on the way (1xx).
fn take_head(intake: &mut Intake<'_>) -> Result<Head, Gone> {
    loop {
        match parse_head(intake.inlet.bytes())? {
            Some((len, head)) => {
                intake.inlet.consume(len);
                if !(100..200).contains(&head.status) {
                    return Ok(head);
                }
            }
            None if intake.inlet.len() >= HEAD_BYTES_MAX => {
                return Err(Gone::garbage("a head that does not end"));
            }
            None => {
                let there = intake.inlet.len();
                intake.inlet.make_room(there + HEAD_BYTES_MAX);
                intake.inlet.read(intake.socket, HEAD_BYTES_MAX)?;
            }
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Head)>, Gone> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(bytes) {
        Err(error) => return Err(Gone::garbage(format!("no answer of HTTP ({error})"))),
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete(len)) => len,
    };
    let mut head = Head {
        status: response.code.unwrap_or(0),
        closes: response.version == Some(0),
        ..Head::default()
    };
    for header in response.headers.iter() {
        let Ok(value) = std::str::from_utf8(header.value) else { continue };
        let value = value.trim();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let length = value.parse().map_err(|_| Gone::garbage("a length that is no number"))?;
            if head.content_length.is_some_and(|known| known != length) {
                return Err(Gone::garbage("two lengths"));
            }
            head.content_length = Some(length);
        } else if is("content-range") {
            head.range = content_range(value);
        } else if is("etag") {
            head.etag = Some(value.to_owned());
        } else if is("location") {
            head.location = Some(value.to_owned());
        } else if is("retry-after") {
            head.retry_after = value.parse().ok();
        } else if is("connection") {
            head.closes |= value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"));
        } else if is("transfer-encoding") {
            head.is_chunked = true;
        }
    }
    Ok(Some((len, head)))
}

fn content_range(value: &str) -> Option<ContentRange> {
    let (range, length) = value.strip_prefix("bytes ")?.trim().split_once('/')?;
    let length = length.trim().parse().ok()?;
    if range.trim() == "*" {
        return Some(ContentRange { first: 0, last: 0, length });
    }
    let (first, last) = range.trim().split_once('-')?;
    Some(ContentRange { first: first.parse().ok()?, last: last.parse().ok()?, length })
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// An answer that gives no bytes.
fn refused(status: u16, head: &Head) -> Gone {
    let fault = match status {
        404 | 410 => Fault::Unknown,
        401 | 403 | 405 => Fault::Forbidden,
        416 => Fault::Changed,
        429 | 500..=599 => Fault::Busy { retry_us: head.retry_us() },
        200 => return Gone::garbage("it does not honour ranges"),
        _ => Fault::Garbage,
    };
    Gone::new(fault, format!("HTTP status {status}"))
}

impl From<io::Error> for Gone {
    fn from(error: io::Error) -> Gone {
        Gone::broken(&error)
    }
}

const REDIRECTS_MAX: usize = 5;
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A page that says what went wrong, to be read over.
const PROBE_BODY_MAX: u64 = 32 << 10;
const PROBE_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        parse_head(text.as_bytes()).expect("it is HTTP").expect("whole").1
    }

    #[test]
    fn an_answer_says_what_it_is() {
        let head = head(
            "HTTP/1.1 206 Partial Content\r\ncontent-length: 10\r\nContent-Range: bytes 5-14/100\r\n\
             ETag: \"x\"\r\nConnection: keep-alive\r\n\r\n",
        );
        assert_eq!((head.status, head.content_length, head.closes), (206, Some(10), false));
        assert_eq!(head.range, Some(ContentRange { first: 5, last: 14, length: 100 }));
        assert_eq!(head.strong_etag().as_deref(), Some("\"x\""));
    }

    #[test]
    fn a_weak_etag_is_none() {
        assert_eq!(head("HTTP/1.1 200 OK\r\nETag: W/\"x\"\r\n\r\n").strong_etag(), None);
    }

    #[test]
    fn answers_that_close_are_known() {
        assert!(head("HTTP/1.0 200 OK\r\n\r\n").closes);
        assert!(head("HTTP/1.1 200 OK\r\nConnection: foo, Close\r\n\r\n").closes);
    }

    #[test]
    fn what_is_not_http_is_garbage() {
        for text in ["\x01\x02\x03\x04 garbage", "SSH-2.0-OpenSSH\r\n"] {
            let gone = parse_head(text.as_bytes()).expect_err("it is not HTTP");
            assert_eq!(gone.fault, Fault::Garbage);
        }
        let two = "HTTP/1.1 206 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
        assert!(parse_head(two.as_bytes()).is_err(), "two lengths");
        assert!(parse_head(b"HTTP/1.1 206 X\r\nContent-Length: -1\r\n\r\n").is_err());
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes */7"), Some(ContentRange { first: 0, last: 0, length: 7 }));
        for text in ["", "bytes", "bytes 1-2", "bytes 1-2/*", "bytes -2/3", "lines 1-2/3"] {
            assert_eq!(content_range(text), None, "{text:?}");
        }
    }
}
