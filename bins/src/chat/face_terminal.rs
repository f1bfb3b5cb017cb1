//! For a person at a terminal: line editing, completion, a prompt that shows name, room and port,
//! and messages above the line that is being typed.
//!
//! ```text
//! connecting: a spinner; what arrives is kept (the last 200 lines of the archive, then the news)
//!     │ caught up, or a name is wanted
//!     ▼
//! editing: a thread reads lines (`editor`); what happens goes through its printer
//!     │ the line editor ended: Ctrl-D, /quit
//!     ▼
//! leaving: what happens is printed as it comes
//! ```

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cordee_core::wire::Reason;
use cordee_net::client::{Event, Unsaid};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::Face;
use super::conversation::{Conversation, Heard, Standing};
use super::text::{self, Breaks};
use crate::failure::Failure;
use crate::print;

mod above;
mod editor;

/// Shows events on a terminal.
pub(crate) struct FaceTerminal {
    conversation: Arc<Conversation>,
    phase: Phase,
    /// Keys for the line editor, which came before it.
    typed: String,
}

enum Phase {
    Connecting { spinner: ProgressBar, kept: Kept },
    Editing(Editing),
    Leaving,
}

/// What arrives before there is a prompt.
#[derive(Default)]
struct Kept {
    /// Lines of the archive, the last ones.
    archive: VecDeque<String>,
    /// How many lines of it came before.
    dropped: u64,
    /// What else there is to tell: who is here, above all.
    news: VecDeque<String>,
}

/// The line editor, as seen from the thread that shows.
struct Editing {
    printer: SyncSender<String>,
    /// Has the prompt painted anew.
    repaint: Box<dyn Fn()>,
    /// Tells the editor to stop.
    stop: Arc<AtomicBool>,
    /// Whether it reads a line now, and so takes what is to be printed.
    reading: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    /// What the prompt shows.
    standing: Standing,
}

impl FaceTerminal {
    /// Shows that it is connecting; asks for a name when there is none. The line editor begins with
    /// what was `typed` before.
    pub(crate) fn start(conversation: &Arc<Conversation>, typed: String) -> Result<Self, Failure> {
        let spinner = ProgressBar::new_spinner().with_message("connecting");
        spinner.set_style(ProgressStyle::default_spinner());
        spinner.enable_steady_tick(Duration::from_millis(100));
        let phase = Phase::Connecting { spinner, kept: Kept::default() };
        let mut face = FaceTerminal { conversation: Arc::clone(conversation), phase, typed };
        if conversation.wants_name() {
            face.print("* choose a name: /name NEW".to_owned(), false)
                .and_then(|()| face.edit())
                .map_err(|error| crate::failure::failed(format!("the terminal: {error}")))?;
        }
        Ok(face)
    }

    /// Ends the spinner, prints what was kept and begins to edit.
    fn edit(&mut self) -> io::Result<()> {
        let Phase::Connecting { spinner, kept } = &mut self.phase else { return Ok(()) };
        spinner.finish_and_clear();
        if kept.dropped > 0 {
            print::line(format_args!(
                "* {} earlier lines are left out: see /history",
                kept.dropped
            ))?;
        }
        for line in kept.archive.drain(..).chain(kept.news.drain(..)) {
            print::line(line)?;
        }
        let typed = std::mem::take(&mut self.typed);
        self.phase = Phase::Editing(editor::start(&self.conversation, typed)?);
        Ok(())
    }

    fn print(&mut self, line: String, replay: bool) -> io::Result<()> {
        match &mut self.phase {
            Phase::Connecting { kept, .. } => {
                kept.keep(line, replay);
                Ok(())
            }
            Phase::Editing(editing) => match editing.print(line) {
                Ok(()) => Ok(()),
                Err(line) => {
                    self.phase = Phase::Leaving;
                    print::line(line)
                }
            },
            Phase::Leaving => print::line(line),
        }
    }
}

impl Face for FaceTerminal {
    fn show(&mut self, event: &Event, heard: &Heard) -> io::Result<()> {
        let standing = self.conversation.standing();
        let lines = match (event, &self.phase) {
            // A change of server shows in the prompt.
            (Event::Connected { .. } | Event::Disconnected { .. }, Phase::Editing(editing))
                if !editing.standing.name.is_empty() =>
            {
                Vec::new()
            }
            (Event::Disconnected { .. }, _) => Vec::new(),
            _ => text::lines(event, heard, &standing.name, Breaks::Shown),
        };
        let replay = matches!(event, Event::Message(message) if message.replay);
        for line in lines {
            self.print(line, replay)?;
        }
        match &mut self.phase {
            Phase::Connecting { .. } => {
                let caught_up = matches!(event, Event::CaughtUp { room: None });
                if caught_up || self.conversation.wants_name() {
                    self.edit()?;
                }
            }
            Phase::Editing(editing) if editing.standing != standing => {
                editing.standing = standing;
                (editing.repaint)();
            }
            Phase::Editing(_) | Phase::Leaving => {}
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(
        &mut self,
        _why: Option<Reason>,
        _unacknowledged: &[Unsaid],
        _unanswered: &[Option<Value>],
    ) -> io::Result<()> {
        match std::mem::replace(&mut self.phase, Phase::Leaving) {
            Phase::Connecting { spinner, .. } => spinner.finish_and_clear(),
            Phase::Editing(editing) => {
                editing.stop.store(true, Ordering::Relaxed);
                // The editor's end gives the terminal back as it was. On one that was hung up it
                // may never end, and there is nothing to give back.
                let begun = Instant::now();
                while !editing.thread.is_finished() && begun.elapsed() < EDITOR_END_WAIT {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            Phase::Leaving => {}
        }
        Ok(())
    }
}

impl Kept {
    fn keep(&mut self, line: String, replay: bool) {
        let lines = if replay { &mut self.archive } else { &mut self.news };
        if lines.len() == KEPT_LINES_MAX {
            lines.pop_front();
            self.dropped += 1;
        }
        lines.push_back(line);
    }
}

impl Editing {
    /// Prints a line above the one that is being typed. Gives it back when nobody edits any more.
    fn print(&self, mut line: String) -> Result<(), String> {
        loop {
            line = match self.printer.try_send(line) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(line)) => return Err(line),
                Err(TrySendError::Full(line)) => line,
            };
            // The one who edits may itself wait for us to go on (too much is said and not
            // acknowledged): then nothing is being typed, and printing disturbs nobody.
            if !self.reading.load(Ordering::Relaxed) {
                return print::line(&line).map_err(|_| line);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// For how long the line editor may take to notice that it is over.
const EDITOR_END_WAIT: Duration = Duration::from_secs(2);
/// Of what arrives before there is a prompt, so many lines of each kind are shown.
const KEPT_LINES_MAX: usize = 200;
