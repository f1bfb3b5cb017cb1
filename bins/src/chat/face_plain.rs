//! Lines in, lines out, without any escape code: for pipes, files and simple terminals.

use std::io::{self, BufWriter, Cursor, Read, Stdout, Write};
use std::sync::Arc;
use std::thread;

use cordee_core::wire::Reason;
use cordee_net::client::{Event, Unsaid};
use serde_json::Value;

use super::Face;
use super::commands::{self, Request};
use super::conversation::{Conversation, Heard, Refused};
use super::lines::{self, LINE_BYTES_MAX, Line};
use super::terminal::without_reports;
use super::text::{self, Breaks};
use crate::failure::{Failure, failed};
use crate::print;

/// Prints events as lines; errors go to standard error.
#[derive(Debug)]
pub(crate) struct FacePlain {
    conversation: Arc<Conversation>,
    out: BufWriter<Stdout>,
}

impl FacePlain {
    /// Begins to read standard input; on a terminal, after what was `typed` before.
    pub(crate) fn start(
        conversation: &Arc<Conversation>,
        typed: Option<String>,
    ) -> Result<Self, Failure> {
        if conversation.wants_name() {
            print::note("choose a name: /name NEW");
        }
        let reading = Arc::clone(conversation);
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || read(&reading, typed))
            .map_err(|error| failed(format!("no thread to read with: {error}")))?;
        let out = BufWriter::new(io::stdout());
        Ok(FacePlain { conversation: Arc::clone(conversation), out })
    }
}

impl Face for FacePlain {
    fn show(&mut self, event: &Event, heard: &Heard) -> io::Result<()> {
        let me = self.conversation.standing().name;
        for line in text::lines(event, heard, &me, Breaks::Escaped) {
            if matches!(event, Event::Error { .. }) {
                print::note(line.trim_start_matches("! "));
            } else {
                writeln!(self.out, "{line}")?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(
        &mut self,
        _why: Option<Reason>,
        _unacknowledged: &[Unsaid],
        _unanswered: &[Option<Value>],
    ) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads lines until the end of input, then leaves.
fn read(conversation: &Arc<Conversation>, typed: Option<String>) {
    let on_terminal = typed.is_some();
    let mut input = Cursor::new(typed.unwrap_or_default()).chain(io::stdin().lock());
    while let Ok(Some(line)) = lines::next(&mut input) {
        let done = match line {
            Line::Text(text) => {
                // A terminal may still answer what it was asked.
                let text = if on_terminal { without_reports(&text) } else { text };
                obey(conversation, &text, |line| {
                    // The thread that shows learns of a reader that has gone, and ends all.
                    let _ = print::line(line);
                })
            }
            Line::TooLong => Err(format!("a line has at most {LINE_BYTES_MAX} bytes")),
            Line::NotUtf8 => Err("a line is UTF-8".to_owned()),
        };
        if let Err(wrong) = &done {
            print::note(wrong);
        }
        // A person has seen it and can type it anew; a script learns of it by the exit code.
        conversation.line_read(done.is_err() && !on_terminal);
        if conversation.is_leaving() {
            break;
        }
    }
    conversation.input_ended();
    conversation.leave();
}

/// Does what a typed line says; `tell` shows the lines of the answer that needs no server.
///
/// # Errors
///
/// One line that says what is wrong.
pub(crate) fn obey(
    conversation: &Arc<Conversation>,
    line: &str,
    mut tell: impl FnMut(&str),
) -> Result<(), String> {
    let Some(request) = commands::parse(line)? else { return Ok(()) };
    if request == Request::Help {
        for line in commands::help() {
            tell(&line);
        }
    }
    match conversation.ask(request, None) {
        Ok(()) | Err(Refused::Ended) => Ok(()),
        Err(Refused::Senseless(_, text)) => Err(text.to_owned()),
    }
}
