//! Web servers as sources: those that do as they should, and those that do not.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use common::block_server::content;
use common::fetching::fetch;
use common::sources::{Manner, Source, hash};

/// How a web server behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Web {
    Good,
    /// Leads elsewhere, so many times before the file comes.
    Redirects(u32),
    /// Leads to where we do not go.
    ToHttps,
    /// Gives the whole file, whatever is asked for.
    NoRanges,
    /// Gives another part than was asked for.
    OtherRange,
    WrongBytes,
    /// Closes after each answer but the first.
    Closes,
    Missing,
}

/// Starts one; returns the URL of its file. It ends with the test's process.
fn start(web: Web, bytes: &[u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let bytes: Arc<[u8]> = bytes.into();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let bytes = Arc::clone(&bytes);
            // Whoever goes in the middle is no failure.
            thread::spawn(move || drop(serve(web, stream, &bytes)));
        }
    });
    format!("http://{address}/0")
}

fn serve(web: Web, stream: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut stream = stream;
    loop {
        let Some(request) = lines.next().transpose()? else { return Ok(()) };
        let mut range = None;
        loop {
            let Some(line) = lines.next().transpose()? else { return Ok(()) };
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("Range: bytes=") {
                let (first, last) = value.split_once('-').expect("a range");
                let number = |text: &str| text.parse::<usize>().expect("a number");
                range = Some((number(first), number(last)));
            }
        }
        let (first, last) = range.expect("only ranges are asked for");
        let at: u32 = request[5..].split(' ').next().unwrap_or("").parse().expect("a number");
        let empty = |status: &str, more: &str| {
            format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n{more}\r\n").into_bytes()
        };
        let mut closes = false;
        let answer = match web {
            Web::Redirects(count) if at < count => {
                empty("302 Found", &format!("Location: /{}\r\n", at + 1))
            }
            Web::ToHttps => empty("301 Moved", "Location: https://127.0.0.1/0\r\n"),
            Web::Missing => empty("404 Not Found", ""),
            Web::NoRanges => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
                [head.as_bytes(), bytes].concat()
            }
            _ => {
                let shift = usize::from(web == Web::OtherRange && last > first);
                let mut body = bytes[first + shift..=last].to_vec();
                if web == Web::WrongBytes {
                    body.iter_mut().step_by(1_000).for_each(|byte| *byte ^= 1);
                }
                closes = web == Web::Closes && last > first;
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\n\
                     Content-Range: bytes {}-{last}/{}\r\nETag: \"1\"\r\n{}\r\n",
                    body.len(),
                    first + shift,
                    bytes.len(),
                    if closes { "Connection: close\r\n" } else { "" },
                );
                [head.into_bytes(), body].concat()
            }
        };
        stream.write_all(&answer)?;
        if closes {
            return Ok(());
        }
    }
}

#[test]
fn web_servers_that_do_as_they_should_are_enough() {
    let bytes = content(3_000_001);
    let hash = hash(&bytes);
    for web in [Web::Good, Web::Redirects(5), Web::Closes] {
        let directory = tempfile::tempdir().expect("a directory");
        let url = start(web, &bytes);
        let fetched = fetch(directory.path(), "film", &[&url], &["--hash", &hash]);
        assert_eq!(fetched.done()["verified"], true, "{web:?}");
        assert!(std::fs::read(directory.path().join("film")).expect("there") == bytes, "{web:?}");
    }
}

#[test]
fn those_that_do_not_are_named_with_the_reason() {
    let bytes = content(300_001);
    for (web, fault) in [
        (Web::Redirects(6), "garbage"),
        (Web::ToHttps, "forbidden"),
        (Web::NoRanges, "garbage"),
        (Web::Missing, "unknown"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let url = start(web, &bytes);
        let fetched = fetch(directory.path(), "film", &[&url], &["--timeout", "5"]);
        fetched.why();
        assert_eq!(fetched.faults(0), [fault], "{web:?}: {fetched:?}");
    }
}

#[test]
fn wrong_bytes_of_a_web_server_are_found_block_by_block() {
    let bytes = content(3_000_001);
    for (web, fault) in [(Web::WrongBytes, "corrupt"), (Web::OtherRange, "garbage")] {
        let directory = tempfile::tempdir().expect("a directory");
        let good = Source::start(Manner::Slow(3_000_000), &bytes, 64 << 10);
        let url = start(web, &bytes);
        let fetched = fetch(directory.path(), "film", &[&good.address, &url], &[]);
        fetched.done();
        assert!(fetched.faults(1).contains(&fault.to_owned()), "{web:?}: {fetched:?}");
        assert!(std::fs::read(directory.path().join("film")).expect("there") == bytes, "{web:?}");
    }
}

#[test]
fn with_the_hash_alone_a_liar_among_web_servers_is_found_in_the_end() {
    let bytes = content(3_000_001);
    let directory = tempfile::tempdir().expect("a directory");
    let urls = [start(Web::WrongBytes, &bytes), start(Web::Good, &bytes)];
    let urls = urls.each_ref().map(String::as_str);
    let fetched = fetch(directory.path(), "film", &urls, &["--hash", &hash(&bytes)]);
    assert_eq!(fetched.done()["verified"], true, "{fetched:?}");
    assert!(std::fs::read(directory.path().join("film")).expect("there") == bytes);
    // With nobody else it cannot but give wrong bytes.
    let args = ["--hash", &hash(&bytes), "-o", "alone", "--timeout", "5"];
    let fetched = fetch(directory.path(), "film", &urls[..1], &args);
    assert!(fetched.why().contains("what came has"), "{fetched:?}");
    assert_eq!(fetched.faults(0), ["corrupt"]);
    assert!(!directory.path().join("alone").exists());
}
