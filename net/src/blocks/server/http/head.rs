//! The head of a request.

use percent_encoding::percent_decode_str;

use super::answer::Answer;

/// What may be done with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    Get,
    Head,
}

/// What matters of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Head {
    pub(super) method: Option<Method>,
    /// The path, decoded, without the slash before it.
    pub(super) name: String,
    /// In the listing of a directory, the last name of the page before.
    pub(super) after: String,
    pub(super) keep_alive: bool,
    pub(super) range: Option<String>,
    pub(super) if_range: Option<String>,
    pub(super) if_none_match: Option<String>,
    pub(super) if_modified_since: Option<String>,
}

/// Where the head at the beginning of `bytes` ends: behind its empty line.
pub(super) fn end(bytes: &[u8]) -> Option<usize> {
    let mut lines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    lines.find_map(|at| match &bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// Reads a whole head, or says what is answered to it.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, Answer> {
    let bad = |text| Err(Answer::error(400, text));
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Answer::error(431, "the head of the request has too many fields"));
        }
        Ok(httparse::Status::Partial) | Err(_) => return bad("this is no request of HTTP/1.1"),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return bad("this is no request of HTTP/1.1");
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        _ => return Err(Answer::error(405, "files can be read only: GET, HEAD")),
    };
    let minor = request.version.unwrap_or(0);
    let mut head = Head { method: Some(method), keep_alive: minor > 0, ..Head::default() };
    let mut hosts = 0;
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let Ok(value) = std::str::from_utf8(header.value) else {
            continue;
        };
        let value = value.trim();
        if is("host") {
            hosts += 1;
        } else if is("connection") {
            head.on_connection(value);
        } else if is("transfer-encoding") || (is("content-length") && value != "0") {
            return bad("a request for a file has no body");
        } else if is("range") {
            head.range = Some(value.to_owned());
        } else if is("if-range") {
            head.if_range = Some(value.to_owned());
        } else if is("if-none-match") {
            head.if_none_match = Some(value.to_owned());
        } else if is("if-modified-since") {
            head.if_modified_since = Some(value.to_owned());
        }
    }
    if hosts != 1 && minor > 0 {
        return bad("a request has one Host");
    }
    let Some((name, after)) = name(target) else { return bad("that is no path") };
    (head.name, head.after) = (name, after);
    Ok(head)
}

impl Head {
    fn on_connection(&mut self, value: &str) {
        for option in value.split(',').map(str::trim) {
            if option.eq_ignore_ascii_case("close") {
                self.keep_alive = false;
            } else if option.eq_ignore_ascii_case("keep-alive") {
                self.keep_alive = true;
            }
        }
    }
}

/// The name that a target stands for, and which part of a directory is asked for.
fn name(target: &str) -> Option<(String, String)> {
    let path = match target.split_once("://") {
        // To a proxy, which leads here.
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = path.strip_prefix('/')?;
    let decode =
        |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    let after = query.split('&').find_map(|pair| pair.strip_prefix("after=")).unwrap_or_default();
    Some((decode(path)?, decode(after)?))
}

/// The most fields of a head.
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line() {
        assert_eq!(end(b"GET / HTTP/1.1\r\n\r\nGET"), Some(18));
        assert_eq!(end(b"GET / HTTP/1.0\n\n"), Some(16));
        assert_eq!(end(b"GET / HTTP/1.1\r\nHost: a\r\n\r"), None);
        assert_eq!(end(b""), None);
    }

    #[test]
    fn names_are_decoded_once() {
        for (target, expected) in [
            ("/", Some("")),
            ("/a%20b/%D0%BA.txt", Some("a b/к.txt")),
            ("/a%252e", Some("a%2e")),
            ("/%2e%2e/x", Some("../x")),
            ("//etc/passwd", Some("/etc/passwd")),
            ("http://host:1/a?b=c", Some("a")),
            ("http://host", Some("")),
            ("/a#b", Some("a")),
            ("/%ff", None),
            ("*", None),
        ] {
            assert_eq!(name(target).map(|(name, _)| name).as_deref(), expected, "{target}");
        }
        assert_eq!(name("/d/?after=a%26b").map(|(_, after)| after).as_deref(), Some("a&b"));
    }
}
