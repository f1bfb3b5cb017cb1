//! JSON lines in, JSON lines out.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use cordee_core::wire::Reason;
use cordee_net::client::{Event, Unsaid};
use serde_json::Value;

use super::Face;
use super::conversation::{Conversation, Heard, Refused};
use super::escape::escape_json;
use super::json::{self, Asked, Wrong};
use super::lines::{self, LINE_BYTES_MAX, Line};
use crate::failure::{Failure, failed};
use crate::print;

/// Prints events as JSON lines.
#[derive(Debug)]
pub(crate) struct FaceJson {
    conversation: Arc<Conversation>,
    output: Arc<Output>,
}

/// Standard output, written by the thread that reads (what is wrong with a line) and the one that
/// shows.
#[derive(Debug)]
struct Output(Mutex<BufWriter<Stdout>>);

impl Output {
    fn line(&self, object: &Value) -> io::Result<()> {
        let text = object.to_string();
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(escape_json(&text).as_bytes())?;
        out.write_all(b"\n")
    }

    fn flush(&self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

impl FaceJson {
    /// Begins to read standard input. Without a `name` it asks for one.
    pub(crate) fn start(conversation: &Arc<Conversation>, name: &str) -> Result<Self, Failure> {
        let output = Arc::new(Output(Mutex::new(BufWriter::new(io::stdout()))));
        if name.is_empty() {
            let reason = Reason::NotAttached;
            let printed = output.line(&json::error(reason.word(), reason.text(), None));
            printed.and_then(|()| output.flush()).map_err(|error| failed(error.to_string()))?;
        }
        let (reading, printing) = (Arc::clone(conversation), Arc::clone(&output));
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || read(&reading, &printing))
            .map_err(|error| failed(format!("no thread to read with: {error}")))?;
        Ok(FaceJson { conversation: Arc::clone(conversation), output })
    }
}

impl Face for FaceJson {
    fn show(&mut self, event: &Event, heard: &Heard) -> io::Result<()> {
        let me = self.conversation.standing().name;
        if let Some(object) = json::event(event, heard.reference.clone(), &me) {
            self.output.line(&object)?;
        }
        heard.done.iter().try_for_each(|reference| self.output.line(&json::done(reference.clone())))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    fn finish(
        &mut self,
        why: Option<Reason>,
        unacknowledged: &[Unsaid],
        unanswered: &[Option<Value>],
    ) -> io::Result<()> {
        for unsaid in unacknowledged {
            let reference = self.conversation.take_reference(unsaid.reference);
            let text = "the client ended before this was acknowledged";
            self.output.line(&json::error("not_acknowledged", text, reference))?;
        }
        for reference in unanswered {
            let text = "the client ended before this was answered";
            self.output.line(&json::error("not_answered", text, reference.clone()))?;
        }
        if let Some(why) = why {
            self.output.line(&json::error(why.word(), why.text(), None))?;
        }
        self.output.flush()
    }
}

/// Reads lines until the end of input, then leaves.
fn read(conversation: &Arc<Conversation>, output: &Output) {
    let mut input = io::stdin().lock();
    let mut number = 0;
    while let Ok(Some(line)) = lines::next(&mut input) {
        number += 1;
        let wrong = match line {
            Line::Text(text) if text.trim().is_empty() => Ok(()),
            Line::Text(text) => match json::parse(&text) {
                Ok(asked) => ask(conversation, asked),
                Err(wrong) => Err(wrong),
            },
            Line::TooLong => {
                let text = format!("a line has at most {LINE_BYTES_MAX} bytes");
                Err(Wrong { code: "line_too_long", text, reference: None })
            }
            Line::NotUtf8 => {
                let text = "a line is UTF-8".to_owned();
                Err(Wrong { code: "bad_json", text, reference: None })
            }
        };
        conversation.line_read(wrong.is_err());
        if let Err(Wrong { code, text, reference }) = wrong {
            // The thread that shows learns of a reader that has gone, and ends all.
            let _ = output.line(&json::error(code, &text, reference));
            let _ = output.flush();
            print::note(format_args!("line {number}: {text}"));
        }
        if conversation.is_leaving() {
            break;
        }
    }
    conversation.input_ended();
    conversation.leave();
}

fn ask(conversation: &Arc<Conversation>, asked: Asked) -> Result<(), Wrong> {
    let reference = asked.reference.clone();
    match conversation.ask(asked.request, asked.reference) {
        // An end shows by itself.
        Ok(()) | Err(Refused::Ended) => Ok(()),
        Err(Refused::Senseless(reason, text)) => {
            Err(Wrong { code: reason.word(), text: text.to_owned(), reference })
        }
    }
}
