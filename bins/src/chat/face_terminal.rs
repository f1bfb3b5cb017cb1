//! For a person at a terminal: line editing, completion, a prompt that shows name, room and port,
//! and messages above the line that is being typed.
//!
//! ```text
//! editing: a thread reads lines (`editor`) from the start, and what happens goes through its printer.
//!     │    While there is no server the prompt has a spinner. Of the archive, the last 200 lines
//!     │    are printed once all of it came
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
use serde_json::Value;

use super::Face;
use super::conversation::{Conversation, Heard, Standing};
use super::text::{self, Breaks};
use crate::failure::{Failure, failed};
use crate::print;

mod above;
mod editor;

/// Shows events on a terminal.
pub(crate) struct FaceTerminal {
    conversation: Arc<Conversation>,
    phase: Phase,
    arrival: Arrival,
}

enum Phase {
    Editing(Editing),
    Leaving,
}

/// How far the user is in.
enum Arrival {
    /// No server has let the user in.
    Outside,
    /// The archive comes: it is shown before the news.
    CatchingUp(Kept),
    /// All that was there is shown.
    Inside,
}

/// What arrives with the archive.
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
    /// Begins to edit lines, with what was `typed` before; asks for a name when there is none.
    pub(crate) fn start(conversation: &Arc<Conversation>, typed: String) -> Result<Self, Failure> {
        if conversation.wants_name() {
            print::line("* choose a name: /name NEW").map_err(no_terminal)?;
        }
        let editing = editor::start(conversation, typed).map_err(no_terminal)?;
        Ok(FaceTerminal {
            conversation: Arc::clone(conversation),
            phase: Phase::Editing(editing),
            arrival: Arrival::Outside,
        })
    }

    /// Prints a line, or keeps it until the archive is there.
    fn print(&mut self, line: String, replay: bool) -> io::Result<()> {
        if let Arrival::CatchingUp(kept) = &mut self.arrival {
            kept.keep(line, replay);
            return Ok(());
        }
        self.print_now(line)
    }

    fn print_now(&mut self, line: String) -> io::Result<()> {
        match &mut self.phase {
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

    /// Prints what was kept, if anything was.
    fn print_kept(&mut self) -> io::Result<()> {
        let arrival = std::mem::replace(&mut self.arrival, Arrival::Inside);
        let Arrival::CatchingUp(kept) = arrival else {
            self.arrival = arrival;
            return Ok(());
        };
        if kept.dropped > 0 {
            let dropped = kept.dropped;
            self.print_now(format!("* {dropped} earlier lines are left out: see /history"))?;
        }
        kept.archive.into_iter().chain(kept.news).try_for_each(|line| self.print_now(line))
    }
}

impl Face for FaceTerminal {
    fn show(&mut self, event: &Event, heard: &Heard) -> io::Result<()> {
        let standing = self.conversation.standing();
        let outside = matches!(self.arrival, Arrival::Outside);
        let lines = match event {
            // A change of server shows in the prompt.
            Event::Connected { .. } if !outside => Vec::new(),
            Event::Disconnected { .. } => Vec::new(),
            _ => text::lines(event, heard, &standing.name, Breaks::Shown),
        };
        let replay = matches!(event, Event::Message(message) if message.replay);
        for line in lines {
            self.print(line, replay)?;
        }
        match event {
            Event::Connected { .. } if outside => {
                self.arrival = Arrival::CatchingUp(Kept::default());
            }
            Event::CaughtUp { room: None } => self.print_kept()?,
            _ => {}
        }
        if let Phase::Editing(editing) = &mut self.phase
            && editing.standing != standing
        {
            editing.standing = standing;
            (editing.repaint)();
        }
        Ok(())
    }

    fn edits(&self) -> bool {
        true
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
        self.print_kept()?;
        let Phase::Editing(editing) = std::mem::replace(&mut self.phase, Phase::Leaving) else {
            return Ok(());
        };
        let at_prompt = editing.reading.load(Ordering::Relaxed);
        editing.stop.store(true, Ordering::Relaxed);
        // The editor's end gives the terminal back as it was. On one that was hung up it may never
        // end, and there is nothing to give back.
        let begun = Instant::now();
        while !editing.thread.is_finished() && begun.elapsed() < EDITOR_END_WAIT {
            thread::sleep(Duration::from_millis(5));
        }
        if at_prompt {
            // What follows does not stand behind the prompt. A terminal may have gone by now.
            let _ = print::line("");
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

fn no_terminal(error: io::Error) -> Failure {
    failed(format!("the terminal: {error}"))
}

/// For how long the line editor may take to notice that it is over.
const EDITOR_END_WAIT: Duration = Duration::from_secs(2);
/// Of what arrives with the archive, so many lines of each kind are shown.
const KEPT_LINES_MAX: usize = 200;
