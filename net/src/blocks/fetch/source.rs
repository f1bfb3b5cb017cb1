//! Sources as people write them: `host:port` of a block server, or the URL of a file.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Who may have a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A block server: `host:port`.
    Server(String),
    /// A web server.
    Web(Url),
}

/// The URL of a file, or of the directory that it lies in, on a web server without encryption.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// `host:port`.
    pub(super) authority: String,
    /// From the first slash on: path and query.
    pub(super) path: String,
}

/// Text that is no source.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SourceError {
    /// A URL of another scheme than `http`.
    #[error("{0}: only http:// is spoken, without encryption; the bytes are verified all the same")]
    Scheme(String),
    /// Neither an address nor a URL.
    #[error("{0:?} is no source: write host:port of a block server, or http://host:port/path")]
    Neither(String),
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Source, SourceError> {
        if text.contains("://") {
            return Ok(Source::Web(Url::parse(text)?));
        }
        let neither = || SourceError::Neither(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(neither)?;
        let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
        if !is_host || port.parse::<u16>().is_err() {
            return Err(neither());
        }
        Ok(Source::Server(text.to_owned()))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Server(address) => f.write_str(address),
            Source::Web(url) => write!(f, "http://{}{}", url.authority, url.path),
        }
    }
}

impl Url {
    /// Reads a URL; what stands behind a `#` is not for the server.
    pub(super) fn parse(text: &str) -> Result<Url, SourceError> {
        let neither = || SourceError::Neither(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(neither)?;
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(SourceError::Scheme(text.to_owned()));
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let bad = |c: char| c.is_whitespace() || c.is_control();
        if authority.is_empty() || authority.contains('@') || rest.contains(bad) {
            return Err(neither());
        }
        let has_port = match authority.rsplit_once(':') {
            Some((_, port)) if !authority.ends_with(']') => {
                port.parse::<u16>().map_err(|_| neither())?;
                true
            }
            _ => false,
        };
        let authority =
            if has_port { authority.to_owned() } else { format!("{authority}:{HTTP_PORT}") };
        let path = utf8_percent_encode(&path, NOT_ASCII).to_string();
        Ok(Url { authority, path })
    }

    /// Where a redirect leads.
    pub(super) fn join(&self, location: &str) -> Result<Url, SourceError> {
        if location.contains("://") {
            return Url::parse(location);
        }
        let path = match location {
            _ if location.starts_with("//") => return Url::parse(&format!("http:{location}")),
            _ if location.starts_with('/') => location.to_owned(),
            _ => {
                let path = self.path.split('?').next().unwrap_or_default();
                let directory = path.rfind('/').map_or("/", |at| &path[..=at]);
                format!("{directory}{location}")
            }
        };
        Url::parse(&format!("http://{}{path}", self.authority))
    }

    /// Of the file `name`: a URL that ends with a slash is the directory's that it lies in.
    pub(super) fn of_file(&self, name: &str) -> Url {
        let mut url = self.clone();
        if url.path.ends_with('/') {
            url.path.extend(utf8_percent_encode(name, NAME));
        }
        url
    }
}

const HTTP_PORT: u16 = 80;
/// Only what no URL may have as it is.
const NOT_ASCII: &AsciiSet = &percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>');
/// In a name everything but what stands for itself (RFC 3986, section 2.3), and the slashes.
const NAME: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Result<Source, SourceError> {
        text.parse()
    }

    #[test]
    fn sources_are_read_and_written_alike() {
        for text in ["127.0.0.1:4545", "[::1]:4545", "host.example:1", "http://h:8080/a/b%20c?d=e"]
        {
            assert_eq!(source(text).map(|source| source.to_string()), Ok(text.to_owned()));
        }
        let short = source("http://h").map(|source| source.to_string());
        assert_eq!(short, Ok("http://h:80/".to_owned()));
        let fragment = source("HTTP://h/ä#x").map(|source| source.to_string());
        assert_eq!(fragment, Ok("http://h:80/%C3%A4".to_owned()));
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for text in
            ["", "h", "h:", "h:70000", ":1", "a b:1", "http://", "http://u@h/", "http://h:x/"]
        {
            assert_eq!(source(text), Err(SourceError::Neither(text.to_owned())), "{text}");
        }
        for text in ["https://h/a", "ftp://h/a"] {
            assert_eq!(source(text), Err(SourceError::Scheme(text.to_owned())));
        }
        assert!(source("http://h/a\r\nHost: x").is_err(), "a header smuggled in");
    }

    #[test]
    fn redirects_and_names_are_resolved() {
        let url = Url::parse("http://h:1/a/b?c").expect("a URL");
        for (location, result) in [
            ("http://x/y", "http://x:80/y"),
            ("//x:2/y", "http://x:2/y"),
            ("/z", "http://h:1/z"),
            ("d", "http://h:1/a/d"),
        ] {
            let joined = url.join(location).map(|url| Source::Web(url).to_string());
            assert_eq!(joined, Ok(result.to_owned()));
        }
        assert!(matches!(url.join("https://h/a"), Err(SourceError::Scheme(_))));
        let directory = Url::parse("http://h/d/").expect("a URL");
        assert_eq!(directory.of_file("e f/ü?").path, "/d/e%20f/%C3%BC%3F");
        assert_eq!(url.of_file("other").path, "/a/b?c");
    }
}
