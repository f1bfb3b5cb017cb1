//! What kind of terminal there is. Line editing needs one that says where its cursor is: one that
//! does not would make every line wait. So it is asked once, before anything else, and its answer
//! awaited for a bounded time.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Where a person types and reads.
#[derive(Debug)]
pub(crate) enum Terminal {
    /// Not on a terminal, or not both.
    None,
    /// On a terminal that cannot do what line editing needs.
    Simple {
        /// What it cannot do.
        why: String,
        /// What was typed before that was known.
        typed: String,
    },
    /// On a terminal that can.
    Edits {
        /// What was typed before that was known.
        typed: String,
    },
}

impl Terminal {
    /// Looks at standard input and output; takes at most [`ANSWER_WAIT`].
    pub(crate) fn find() -> Terminal {
        if !is_there() {
            return Terminal::None;
        }
        let name = std::env::var_os("TERM").unwrap_or_default();
        if name.is_empty() || name == "dumb" {
            let why = format!("the terminal is a simple one (TERM={})", name.display());
            return Terminal::Simple { why, typed: String::new() };
        }
        match ask() {
            Ok(Answer { answered: true, typed }) => Terminal::Edits { typed },
            Ok(Answer { answered: false, typed }) => Terminal::Simple {
                why: "the terminal does not say where its cursor is".to_owned(),
                typed,
            },
            Err(error) => {
                Terminal::Simple { why: format!("the terminal: {error}"), typed: String::new() }
            }
        }
    }
}

/// Whether a person types and reads on a terminal.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// What came of asking for the cursor.
struct Answer {
    answered: bool,
    /// What else came: keys that were typed.
    typed: String,
}

/// Gives the terminal back as it was.
struct Raw(Termios);

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Asks for the cursor's place (ECMA-48, 8.3.35: DSR 6) and waits for the report.
fn ask() -> io::Result<Answer> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&stdin, OptionalActions::Now, &raw)?;
    let _back = Raw(before);
    let mut out = io::stdout().lock();
    out.write_all(b"\x1b[6n")?;
    out.flush()?;
    let deadline = Instant::now() + ANSWER_WAIT;
    let (mut bytes, mut answered) = (Vec::new(), false);
    while !answered && bytes.len() < TYPED_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&left)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        // Not by way of the library's buffer, which would keep keys from the line editor.
        let mut some = [0; 256];
        match rustix::io::read(&stdin, &mut some) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&some[..count]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some((start, end)) = find_report(&bytes) {
            bytes.drain(start..end);
            answered = true;
        }
    }
    let mut typed = String::from_utf8_lossy(&bytes).replace('\r', "\n");
    // Keys that edit have nothing to edit yet.
    typed.retain(|c| c == '\n' || !c.is_control());
    Ok(Answer { answered, typed })
}

/// `line` without reports of the cursor's place: they came late.
pub(crate) fn without_reports(line: &str) -> String {
    let mut line = line.to_owned();
    while let Some((start, end)) = find_report(line.as_bytes()) {
        // It is of ASCII, so that it begins and ends with characters.
        line.drain(start..end);
    }
    line
}

/// Where a report of the cursor's place stands: `ESC [ row ; column R`.
fn find_report(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut from = 0;
    while let Some(at) = bytes[from..].windows(2).position(|pair| pair == b"\x1b[") {
        let start = from + at;
        let body = &bytes[start + 2..];
        let length = body.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
        let is_pair = body[..length].split(|byte| *byte == b';').count() == 2;
        if is_pair && length > 2 && body.get(length) == Some(&b'R') {
            return Some((start, start + 2 + length + 1));
        }
        from = start + 2;
    }
    None
}

/// For how long an answer is awaited: longer than the way to any terminal and back.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// More than that is not typed by anybody meanwhile.
const TYPED_BYTES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_found_wherever_it_stands() {
        assert_eq!(find_report(b"\x1b[10;1R"), Some((0, 7)));
        assert_eq!(find_report(b"typed\x1b[A\x1b[1;22Rmore"), Some((8, 15)));
        for none in
            [&b""[..], b"\x1b[", b"\x1b[10;1", b"\x1b[10R", b"\x1b[1;2;3R", b"\x1b[;R", b"[1;1R"]
        {
            assert_eq!(find_report(none), None, "{none:?}");
        }
        assert_eq!(without_reports("\x1b[1;1Rhe\x1b[2;7Rllo"), "hello");
        assert_eq!(without_reports("[1;1R stays"), "[1;1R stays");
    }
}
