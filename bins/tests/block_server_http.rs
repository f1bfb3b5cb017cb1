//! HTTP/1.1 from the block server's port: byte by byte, and with the programs that people use.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use common::PATIENCE;
use common::block_server::{Server, content};

/// A connection as a browser has it.
struct Browser {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// What was answered.
#[derive(Debug)]
struct Response {
    status: u16,
    head: Vec<String>,
    body: Vec<u8>,
}

impl Response {
    fn field(&self, name: &str) -> Option<&str> {
        let is = |line: &&String| {
            line.split_once(": ").is_some_and(|(field, _)| field.eq_ignore_ascii_case(name))
        };
        self.head.iter().find(is).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }
}

impl Browser {
    fn new(server: &Server) -> Browser {
        let stream = TcpStream::connect(&server.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let reader = BufReader::new(stream.try_clone().expect("a descriptor"));
        Browser { stream, reader }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // It may have been answered and closed already.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    fn get(&mut self, path: &str, fields: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        self.response(true)
    }

    fn head(&mut self, path: &str, fields: &str) -> Response {
        self.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        self.response(false)
    }

    fn response(&mut self, has_body: bool) -> Response {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).expect("a line") > 0, "after {lines:?}");
            let line = line.strip_suffix("\r\n").expect("a whole line").to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let first = lines.remove(0);
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|status| status.parse().ok()).expect("a status");
        let mut response = Response { status, head: lines, body: Vec::new() };
        if has_body && status != 304 {
            let length = response.field("Content-Length").expect("a length");
            response.body = vec![0; length.parse().expect("a number")];
            self.reader.read_exact(&mut response.body).expect("so many bytes");
        }
        response
    }

    fn is_closed(&mut self) -> bool {
        self.reader.read(&mut [0]).is_ok_and(|count| count == 0)
    }
}

fn serve(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, bytes) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        fs::write(path, bytes).expect("it can be written");
    }
    let server = Server::start(directory.path(), &[]);
    (directory, server)
}

#[test]
fn files_come_whole_and_in_part_over_one_connection() {
    let bytes = content(1_000_000);
    let (_directory, server) = serve(&[("film.mp4", &bytes), ("a.txt", b"text"), ("none", b"")]);
    let mut browser = Browser::new(&server);
    let whole = browser.get("/film.mp4", "");
    assert_eq!((whole.status, whole.field("Content-Type")), (200, Some("video/mp4")));
    assert_eq!(whole.field("Accept-Ranges"), Some("bytes"));
    assert!(whole.body == bytes);
    for (range, from, to) in [
        ("0-0", 0, 1),
        ("0-99999", 0, 100_000),
        ("999999-", 999_999, 1_000_000),
        ("500000-2000000", 500_000, 1_000_000),
        ("-1", 999_999, 1_000_000),
        ("-5000000", 0, 1_000_000),
    ] {
        let part = browser.get("/film.mp4", &format!("Range: bytes={range}\r\n"));
        assert_eq!(part.status, 206, "{range}");
        let expected = format!("bytes {from}-{}/1000000", to - 1);
        assert_eq!(part.field("Content-Range"), Some(expected.as_str()));
        assert!(part.body == bytes[from..to], "{range}");
    }
    for range in ["1000000-", "2000000-3000000", "-0"] {
        let part = browser.get("/film.mp4", &format!("Range: bytes={range}\r\n"));
        assert_eq!((part.status, part.field("Content-Range")), (416, Some("bytes */1000000")));
    }
    for range in ["bytes=0-1,5-6", "bytes=x", "lines=1-2", "bytes=5-1"] {
        let all = browser.get("/film.mp4", &format!("Range: {range}\r\n"));
        assert_eq!((all.status, all.body.len()), (200, 1_000_000), "{range}");
    }
    let head = browser.head("/film.mp4", "Range: bytes=0-1\r\n");
    assert_eq!((head.status, head.field("Content-Length")), (200, Some("1000000")));
    let none = browser.get("/none", "");
    assert_eq!((none.status, none.body.len()), (200, 0));
    assert_eq!(none.field("Content-Type"), Some("application/octet-stream"));
    let text = browser.get("/a.txt?whatever=1", "");
    assert_eq!((text.text().as_str(), text.field("Content-Type")), ("text", Some("text/plain")));
}

#[test]
fn who_has_the_file_already_is_not_sent_it_again() {
    let bytes = content(300_000);
    let (directory, server) = serve(&[("f", &bytes)]);
    let mut browser = Browser::new(&server);
    let first = browser.get("/f", "");
    let by_identity = first.field("ETag").expect("a tag").to_owned();
    let modified = first.field("Last-Modified").expect("a date").to_owned();
    assert!(by_identity.starts_with("\"i-"), "not hashed yet: {by_identity}");
    let file = server.greet().open_hashed(0, "f");
    // A file that was written just now is not kept in mind at once.
    let by_hash = common::wait_until("its hash to be known", || {
        server.greet().open_hashed(0, "f");
        let tag = browser.head("/f", "").field("ETag").expect("a tag").to_owned();
        tag.starts_with("\"b3-").then_some(tag)
    });
    assert_eq!(by_hash, format!("\"b3-{}\"", file.opened.root));
    for tag in [&by_identity, &by_hash] {
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let answer = browser.get("/f", &format!("If-None-Match: {known}\r\n"));
            assert_eq!(answer.status, 304, "{known}");
        }
        // A part of the version that the other end has the beginning of.
        let part = browser.get("/f", &format!("If-Range: {tag}\r\nRange: bytes=5-9\r\n"));
        assert!(part.status == 206 && part.body == bytes[5..10]);
    }
    let part = browser.get("/f", &format!("If-Range: {modified}\r\nRange: bytes=5-9\r\n"));
    assert_eq!(part.status, 206);
    for other in ["\"another\"", "W/\"b3\"", "Thu, 01 Jan 1970 00:00:00 GMT"] {
        let whole = browser.get("/f", &format!("If-Range: {other}\r\nRange: bytes=5-9\r\n"));
        assert_eq!((whole.status, whole.body.len()), (200, 300_000), "{other}");
    }
    let since = |date: &str| format!("If-Modified-Since: {date}\r\n");
    assert_eq!(browser.get("/f", &since(&modified)).status, 304);
    assert_eq!(browser.get("/f", &since("Thu, 01 Jan 1970 00:00:00 GMT")).status, 200);
    let both = format!("If-None-Match: \"other\"\r\n{}", since(&modified));
    assert_eq!(browser.get("/f", &both).status, 200, "the tag is the better judge");
    fs::write(directory.path().join("f"), content(300_001)).expect("it can be written");
    let answer = browser.get("/f", &format!("If-None-Match: {by_hash}, {by_identity}\r\n"));
    assert_eq!((answer.status, answer.body.len()), (200, 300_001));
}

#[test]
fn requests_may_come_at_once_and_in_any_pieces() {
    let (_directory, server) = serve(&[("a", b"first"), ("b", &content(200_000)), ("c", b"third")]);
    let mut browser = Browser::new(&server);
    let requests = "\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\nHEAD /b HTTP/1.1\r\nHost: x\r\n\r\n\
        GET /b HTTP/1.1\nHost: x\n\nGET http://x/c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n\
        GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    for piece in requests.as_bytes().chunks(7) {
        browser.send(piece);
    }
    assert_eq!(browser.response(true).text(), "first");
    assert_eq!(browser.response(false).field("Content-Length"), Some("200000"));
    assert!(browser.response(true).body == content(200_000));
    let last = browser.response(true);
    assert_eq!((last.text().as_str(), last.field("Connection")), ("third", Some("close")));
    assert!(browser.is_closed(), "what comes after that is not answered");
    let mut old = Browser::new(&server);
    old.send("GET /a HTTP/1.0\r\n\r\n");
    assert_eq!(old.response(true).text(), "first");
    assert!(old.is_closed());
    let mut kept = Browser::new(&server);
    kept.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /c HTTP/1.0\r\n\r\n");
    assert_eq!(kept.response(true).text(), "first");
    assert_eq!(kept.response(true).text(), "third");
}

#[test]
fn what_cannot_be_answered_is_said_in_a_line() {
    let (_directory, server) = serve(&[("f", b"abc"), (".hidden", b"x"), ("x.part", b"x")]);
    for (request, status) in [
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /.hidden HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /x.part HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /../f HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /%2e%2e/f HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET //etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /f%00 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /nowhere/ HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("GET /f HTTP/1.1\r\n\r\n", 400),
        ("GET /f HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /f HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("GET /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET /f HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET /f HTTP/9.9\r\n\r\n", 400),
        ("GET /f\r\n\r\n", 400),
        ("POST /f HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "n".repeat(20_000)), 431),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(100)), 431),
        (&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "n".repeat(10_000)), 404),
    ] {
        let mut browser = Browser::new(&server);
        browser.send(request);
        let answer = browser.response(true);
        assert_eq!(answer.status, status, "{request:?}");
        let text = answer.text();
        assert!(text.lines().count() == 1 && text.len() < 200, "{text}");
        if status != 404 {
            assert!(browser.is_closed(), "{request:?}");
        }
    }
}

#[test]
fn directories_are_pages_with_links_that_lead_to_their_files() {
    let odd = "a <b> & \"c\" 100% к#?.txt";
    let (directory, server) = serve(&[(odd, b"odd"), ("dir/f", b"abc"), (".hidden", b"x")]);
    let mut browser = Browser::new(&server);
    let page = browser.get("/", "");
    assert_eq!(page.field("Content-Type"), Some("text/html; charset=utf-8"));
    let text = page.text();
    assert!(text.contains("a &lt;b&gt; &amp; &quot;c&quot; 100% к#?.txt</a> 3 bytes"), "{text}");
    assert!(!text.contains("hidden"), "{text}");
    let links: Vec<&str> =
        text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(links.len(), 2);
    assert_eq!(browser.get(links[0], "").text(), "odd");
    assert_eq!(links[1], "/dir/");
    assert!(browser.get("/dir/", "").text().contains("<a href=\"/dir/f\">f</a>"));
    let moved = browser.get("/dir", "");
    assert_eq!((moved.status, moved.field("Location")), (301, Some("/dir/")));
    // Thousands of files are on several pages.
    for number in 0..2_500 {
        fs::write(directory.path().join(format!("dir/{number:04}")), b"x").expect("written");
    }
    let (mut path, mut names) = ("/dir/".to_owned(), Vec::new());
    loop {
        let text = browser.get(&path, "").text();
        let entries = text.split("<li><a href=\"/dir/").skip(1);
        names.extend(entries.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        let Some((_, more)) = text.split_once("<p><a href=\"") else { break };
        path = format!("/dir/{}", more.split('"').next().expect("a link"));
    }
    assert_eq!(names.len(), 2_501);
    assert!(names.is_sorted());
}

#[test]
fn a_file_that_changes_ends_the_answer_before_its_last_byte() {
    let bytes = content(8 << 20);
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("f"), &bytes).expect("it can be written");
    let server = Server::start(directory.path(), &["--limit-rate", "8M"]);
    let mut browser = Browser::new(&server);
    browser.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
    browser.reader.read_exact(&mut [0; 1_000]).expect("it begins");
    fs::write(directory.path().join("f"), &bytes[..bytes.len() / 2]).expect("it can be written");
    let mut rest = Vec::new();
    let _ = browser.reader.read_to_end(&mut rest);
    assert!(rest.len() + 1_000 < bytes.len(), "the last byte did not come");
}

/// Runs a program, unless it is not there: then the test says so and is over.
fn tool(name: &str, directory: &Path, args: &[&str]) -> Option<std::process::Output> {
    match Command::new(name).args(args).current_dir(directory).output() {
        Ok(output) => Some(output),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{name} is not here ({error}): not tested");
            None
        }
    }
}

#[test]
fn curl_gets_ranges_and_goes_on_where_it_stopped() {
    let bytes = content(3_000_000);
    let (_directory, server) = serve(&[("dir/f", &bytes)]);
    let here = tempfile::tempdir().expect("a directory");
    let url = format!("http://{}/dir/f", server.address);
    let Some(part) = tool("curl", here.path(), &["-sf", "-r", "1000000-1999999", &url]) else {
        return;
    };
    assert!(part.stdout == bytes[1_000_000..2_000_000]);
    fs::write(here.path().join("f"), &bytes[..1_234_567]).expect("it can be written");
    let resumed = tool("curl", here.path(), &["-sf", "-C", "-", "-o", "f", &url]);
    assert!(resumed.is_some_and(|output| output.status.success()));
    assert!(fs::read(here.path().join("f")).expect("it is there") == bytes);
    let head = tool("curl", here.path(), &["-sfI", &url]).expect("it was here");
    assert!(common::text(&head.stdout).contains("Content-Length: 3000000"));
}

#[test]
fn aria2c_gets_a_file_over_two_connections() {
    let bytes = content(12_000_000);
    let (_directory, server) = serve(&[("f", &bytes)]);
    let here = tempfile::tempdir().expect("a directory");
    let url = format!("http://{}/f", server.address);
    let args = ["-q", "-x2", "-s2", "-k1M", "--no-conf", "-o", "f", &url];
    let Some(output) = tool("aria2c", here.path(), &args) else { return };
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read(here.path().join("f")).expect("it is there") == bytes);
}
