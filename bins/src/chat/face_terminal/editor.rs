//! The line editor: its thread, its prompt, its completion.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cordee_net::client::Target;
use reedline::{
    ColumnarMenu, Completer, CompletionResult, EditCommand, Emacs, ExternalPrinter, KeyCode,
    KeyModifiers, MenuBuilder, Prompt, PromptEditMode, PromptHistorySearch, Reedline,
    ReedlineEvent, ReedlineMenu, Signal, Span, Suggestion, default_emacs_keybindings,
};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::Editing;
use super::above::{MULTILINE, Painted};
use crate::chat::commands::COMMANDS;
use crate::chat::conversation::{Conversation, Standing};
use crate::chat::escape::escape;
use crate::chat::face_plain::obey;
use crate::print;

/// Begins to edit lines, in a thread of its own, as if `typed` had just been typed.
pub(super) fn start(conversation: &Arc<Conversation>, typed: String) -> io::Result<Editing> {
    let printer = ExternalPrinter::new(PRINTER_LINES_MAX);
    let lines = printer.sender();
    let (stop, reading) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let painted = Painted::default();
    let editor = editor(conversation, printer).with_break_signal(Arc::clone(&stop));
    let mut editor = editor.with_highlighter(Box::new(painted.clone()));
    let repaint = editor.repaint_signal();
    let standing = conversation.standing();
    watch_hangup(conversation)?;
    let turned = editor.repaint_signal();
    spin(conversation, &stop, move || turned.request_repaint())?;
    let thread = thread::Builder::new().name("editor".to_owned()).spawn({
        let (conversation, reading) = (Arc::clone(conversation), Arc::clone(&reading));
        move || edit(&conversation, &mut editor, painted, &reading, &typed)
    })?;
    let repaint = Box::new(move || repaint.request_repaint());
    Ok(Editing { printer: lines, repaint, stop, reading, thread, standing })
}

fn editor(conversation: &Arc<Conversation>, printer: ExternalPrinter<String>) -> Reedline {
    let mut keys = default_emacs_keybindings();
    keys.add_binding(
        KeyModifiers::NONE,
        KeyCode::Tab,
        ReedlineEvent::UntilFound(vec![
            ReedlineEvent::Menu(MENU.to_owned()),
            ReedlineEvent::MenuNext,
        ]),
    );
    let menu = ColumnarMenu::default().with_name(MENU);
    Reedline::create()
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_completer(Box::new(Names(Arc::clone(conversation))))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_external_printer(printer)
        .with_poll_interval(POLL_INTERVAL)
        .with_ansi_colors(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        .use_bracketed_paste(true)
}

/// Keeps the spinner in the prompt going, while there is one.
fn spin(
    conversation: &Arc<Conversation>,
    stop: &Arc<AtomicBool>,
    repaint: impl Fn() + Send + 'static,
) -> io::Result<()> {
    let (conversation, stop) = (Arc::clone(conversation), Arc::clone(stop));
    thread::Builder::new().name("spinner".to_owned()).spawn(move || {
        while !stop.load(Ordering::Relaxed) && !conversation.is_leaving() {
            if conversation.standing().server.is_none() {
                repaint();
            }
            thread::sleep(SPINNER_INTERVAL);
        }
    })?;
    Ok(())
}

/// Leaves when the terminal is hung up, which the line editor does not notice.
fn watch_hangup(conversation: &Arc<Conversation>) -> io::Result<()> {
    let conversation = Arc::clone(conversation);
    thread::Builder::new().name("hangup".to_owned()).spawn(move || {
        let stdin = io::stdin();
        // Without events to wait for, it returns when there is nothing to wait for any more.
        while let Ok(0) | Err(Errno::INTR) =
            poll(&mut [PollFd::new(&stdin, PollFlags::empty())], None)
        {}
        conversation.interrupt();
    })?;
    Ok(())
}

/// Reads lines until the user leaves or the client has ended.
fn edit(
    conversation: &Arc<Conversation>,
    editor: &mut Reedline,
    painted: Painted,
    reading: &AtomicBool,
    typed: &str,
) {
    // A terminal that has gone is noticed by the next line that is read from it.
    let tell = |line: &str| drop(print::line(line));
    let do_it = |line: &str| {
        if let Err(wrong) = obey(conversation, line, tell) {
            tell(&format!("! {wrong}"));
        }
    };
    let mut early = typed.split('\n');
    let unfinished = early.next_back().unwrap_or_default();
    early.for_each(do_it);
    let insert: String = unfinished.chars().filter(|c| !c.is_control()).collect();
    editor.run_edit_commands(&[EditCommand::InsertString(insert)]);
    let begun = Instant::now();
    let prompt = ChatPrompt { conversation: Arc::clone(conversation), painted, begun };
    let mut interrupted = false;
    while !conversation.is_leaving() {
        reading.store(true, Ordering::Relaxed);
        let signal = editor.read_line(&prompt);
        reading.store(false, Ordering::Relaxed);
        match signal {
            Ok(Signal::Success(line)) => {
                interrupted = false;
                do_it(&line);
            }
            Ok(Signal::CtrlC) if !std::mem::replace(&mut interrupted, true) => {
                tell("* /quit leaves, and so does Ctrl-C again");
            }
            // The client has ended: that is seen to by who said so.
            Ok(Signal::ExternalBreak(_)) => return,
            Ok(Signal::HostCommand(_)) => {}
            Ok(_) | Err(_) => break,
        }
    }
    if conversation.is_waiting() {
        tell(
            "* not all you said is acknowledged: waiting for it, 10 seconds at most; Ctrl-C twice ends at once",
        );
    }
    conversation.leave();
}

/// `ada #ops 5001> `
struct ChatPrompt {
    conversation: Arc<Conversation>,
    painted: Painted,
    begun: Instant,
}

/// The prompt's text before its `> `; without a server a spinner turns in it, one step each `turn`.
fn prompt_text(standing: &Standing, turn: usize) -> String {
    let place = match &standing.current {
        Target::Room(room) => room.clone(),
        Target::User(name) => format!("@{name}"),
    };
    let turned = SPINNER[turn % SPINNER.len()];
    let port = match &standing.server {
        Some(server) => {
            server.rsplit_once(':').map_or(server.as_str(), |(_, port)| port).to_owned()
        }
        None if standing.was_inside => turned.to_owned(),
        None => format!("connecting {turned}"),
    };
    escape(format!("{} {place} {port}", standing.name).trim_start()).into_owned()
}

impl Prompt for ChatPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        let turn = self.begun.elapsed().as_millis() / SPINNER_INTERVAL.as_millis();
        let text = prompt_text(&self.conversation.standing(), turn as usize);
        self.painted.left(format!("{text}{INDICATOR}"));
        text.into()
    }

    /// Nothing is to be seen there.
    fn render_prompt_right(&self) -> Cow<'_, str> {
        self.painted.right();
        "".into()
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        INDICATOR.into()
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        MULTILINE.into()
    }

    fn render_prompt_history_search_indicator(&self, of: PromptHistorySearch) -> Cow<'_, str> {
        format!("(said before: {}) ", of.term).into()
    }
}

/// Completes commands, names and rooms.
struct Names(Arc<Conversation>);

impl Completer for Names {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let typed = line.get(..pos).unwrap_or(line);
        let start = typed.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let word = &typed[start..];
        let suggestions: Vec<Suggestion> = match kind(&typed[..start], word) {
            Kind::Command => COMMANDS
                .iter()
                .filter(|command| command.name.starts_with(word))
                .map(|command| Suggestion {
                    description: Some(command.does.to_owned()),
                    ..suggestion(command.name.to_owned(), start, pos)
                })
                .collect(),
            Kind::Name => {
                // As the prompt shows a person.
                let at = if word.starts_with('@') { "@" } else { "" };
                let found = self.0.complete(&word[at.len()..], SUGGESTIONS_MAX);
                let names = found.into_iter().map(|name| format!("{at}{name}"));
                names.map(|name| suggestion(name, start, pos)).collect()
            }
            Kind::NameOrRoom => {
                let mut found = self.0.complete(word, SUGGESTIONS_MAX);
                if word.is_empty() {
                    found.extend(self.0.complete("#", SUGGESTIONS_MAX));
                }
                found.into_iter().map(|name| suggestion(name, start, pos)).collect()
            }
            Kind::RoomAlone => {
                let prefix = if word.is_empty() { "#" } else { word };
                let found = self.0.complete(prefix, SUGGESTIONS_MAX);
                let rooms = found.into_iter().filter(|name| name.starts_with('#'));
                rooms.map(|name| suggestion(name, start, pos)).collect()
            }
        };
        CompletionResult::fresh(suggestions)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Command,
    /// A user, or with a `#` a room.
    Name,
    NameOrRoom,
    RoomAlone,
}

/// What a word may be, after what stands before it.
fn kind(before: &str, word: &str) -> Kind {
    match before.trim() {
        "" if word.starts_with('/') => Kind::Command,
        "/join" | "/leave" => Kind::RoomAlone,
        "/talk" | "/msg" if !word.starts_with('@') => Kind::NameOrRoom,
        _ => Kind::Name,
    }
}

fn suggestion(value: String, start: usize, end: usize) -> Suggestion {
    Suggestion {
        value,
        span: Span::new(start, end),
        append_whitespace: true,
        ..Suggestion::default()
    }
}

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const SPINNER_INTERVAL: Duration = Duration::from_millis(100);
const MENU: &str = "names";
const INDICATOR: &str = "> ";
/// How often the line editor looks for lines to print.
const POLL_INTERVAL: Duration = Duration::from_millis(40);
/// Lines on their way to the screen.
const PRINTER_LINES_MAX: usize = 1_024;
/// Names shown at a time.
const SUGGESTIONS_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_shows_name_place_and_port() {
        let standing = |current: &str, server: Option<&str>| Standing {
            name: "ada".to_owned(),
            current: Target::parse(current),
            server: server.map(str::to_owned),
            was_inside: true,
        };
        let text = |standing| prompt_text(&standing, 11);
        assert_eq!(text(standing("#all", Some("127.0.0.1:5000"))), "ada #all 5000");
        assert_eq!(text(standing("bob", Some("[::1]:5001"))), "ada @bob 5001");
        assert_eq!(text(standing("#all", None)), "ada #all ⠙");
        let outside = Standing { was_inside: false, ..standing("#all", None) };
        assert_eq!(text(outside.clone()), "ada #all connecting ⠙");
        let nameless = Standing { name: String::new(), ..outside };
        assert_eq!(text(nameless), "#all connecting ⠙");
    }

    #[test]
    fn what_is_completed_depends_on_what_stands_before() {
        assert_eq!(kind("", "/jo"), Kind::Command);
        assert_eq!(kind("/join ", "#o"), Kind::RoomAlone);
        assert_eq!(kind("/talk ", ""), Kind::NameOrRoom);
        assert_eq!(kind("/msg ", "@b"), Kind::Name);
        assert_eq!(kind("hello ", "b"), Kind::Name);
        assert_eq!(kind("", "b"), Kind::Name);
        assert_eq!(kind("what is ", "/jo"), Kind::Name);
    }
}
