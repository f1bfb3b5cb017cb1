//! `cordee chat`: the client, with three faces: for a terminal, for plain lines, for JSON lines.
//!
//! One thread reads what the user wants, one (the first) shows what happens, the client's own does
//! the rest.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use argh::FromArgs;
use cordee_core::names::{self, COMMON_ROOM, NAME_BYTES_MAX};
use cordee_core::wire::Reason;
use cordee_net::client::{ChatClient, ChatConfig, Event, Events, Target, Unsaid};
use serde_json::Value;

use crate::address::{self, Address};
use crate::chat_server::{CLUSTER_DEFAULT, check_cluster};
use crate::failure::{Failure, failed, usage};
use crate::{print, signals};
use conversation::{Conversation, Heard};
use session_file::{Opened, SessionFile};
use terminal::Terminal;

mod commands;
mod conversation;
pub(crate) mod escape;
mod face_json;
mod face_plain;
mod face_terminal;
mod json;
mod lines;
mod session_file;
mod terminal;
mod text;

/// Talk: on a terminal with line editing, otherwise in plain lines or JSON lines. When a server
/// dies, the client goes on at the next; nothing is lost or shown twice.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "chat",
    help_triggers("-h", "--help", "help"),
    example = "On this machine:\n  {command_name} --name ada\n\
    Elsewhere, beginning in a room:\n  {command_name} 10.0.0.1:5000 --name ada --room '#ops'\n\
    For a program:\n  echo '{{\"say\":\"hello\"}}' | {command_name} --name bot --json",
    note = "What is said is acknowledged before the client ends; while no server answers, it tries \
    for 10 seconds, then lists what is not acknowledged and exits with 1. With nothing to say it \
    ends at once. Typed commands: /help."
)]
pub(crate) struct Chat {
    /// any server, host:port; the client learns the others (127.0.0.1:5000 to 5004)
    #[argh(positional, arg_name = "addr")]
    addresses: Vec<Address>,

    /// address of a server
    #[argh(option, short = 'i', arg_name = "host")]
    address: Option<Address>,

    /// port of a server (5000)
    #[argh(option, short = 'p')]
    port: Option<u16>,

    /// your name, 1 to 32 bytes (your login name)
    #[argh(option)]
    name: Option<String>,

    /// room to begin in; made when there is none (#all)
    #[argh(option)]
    room: Option<String>,

    /// name of the cluster (cordee)
    #[argh(option, default = "CLUSTER_DEFAULT.to_owned()", arg_name = "name")]
    cluster: String,

    /// file that makes you the same user the next time (one for each cluster and name, beneath
    /// ~/.local/state/cordee)
    #[argh(option, arg_name = "file")]
    session: Option<PathBuf>,

    /// forget everything at every change of server, and receive the whole archive of the new one
    #[argh(switch)]
    reset: bool,

    /// take and print one JSON object a line (docs/chat.md)
    #[argh(switch)]
    json: bool,
}

/// What shows events.
pub(crate) trait Face {
    /// Shows one.
    fn show(&mut self, event: &Event, heard: &Heard) -> io::Result<()>;
    /// Whether a person edits lines, who sees at once what becomes of each.
    fn edits(&self) -> bool {
        false
    }
    /// Nothing more is there for now.
    fn flush(&mut self) -> io::Result<()>;
    /// It is over: gives the terminal back. `unanswered` are the `ref`s of questions.
    fn finish(
        &mut self,
        why: Option<Reason>,
        unacknowledged: &[Unsaid],
        unanswered: &[Option<Value>],
    ) -> io::Result<()>;
}

/// Runs the client to its end.
pub(crate) fn run(args: &Chat) -> Result<(), Failure> {
    check_cluster(&args.cluster)?;
    let servers = address::servers(&args.addresses, args.address.as_ref(), args.port)?;
    let default = servers.is_empty();
    let servers = if default { address::default_servers() } else { servers };
    let room = match &args.room {
        Some(room) => names::room(room).map_err(|why| usage(format!("--room {room:?}: {why}")))?,
        None => COMMON_ROOM.to_owned(),
    };
    let name = match &args.name {
        Some(name) => {
            names::user_key(name).map_err(|why| usage(format!("--name {name:?}: {why}")))?;
            name.clone()
        }
        None => login_name().unwrap_or_default(),
    };
    if name.is_empty() && !args.json && !terminal::is_there() {
        return Err(usage("who are you? give a name with --name"));
    }
    let mut session = session(args, &name)?;
    let mut config =
        ChatConfig::new(args.cluster.as_str(), servers.clone()).map_err(not_started)?;
    if let Some(session) = &session {
        config.secret = session.secret();
        config.attachment = session.attachment();
    }
    config.name.clone_from(&name);
    config.rooms = if room == COMMON_ROOM { Vec::new() } else { vec![room.clone()] };
    config.reset = args.reset;
    let (client, events) = ChatClient::start(config).map_err(not_started)?;
    // Only a name that nobody chose may be changed without asking.
    let chosen = args.name.is_some() || args.json;
    let conversation = Conversation::new(client, &name, chosen, Target::Room(room));
    let conversation = Arc::new(conversation);
    let leaving = Arc::clone(&conversation);
    signals::watch(move |count| if count == 1 { leaving.interrupt() } else { leaving.close() })?;
    // Only now, when a signal waits until the terminal was given back.
    let terminal = if args.json { Terminal::None } else { Terminal::find() };
    if let Terminal::Simple { why, .. } = &terminal {
        print::note(format_args!("{why}: plain lines, without line editing"));
    }
    let mut face: Box<dyn Face> = match terminal {
        Terminal::None if args.json => Box::new(face_json::FaceJson::start(&conversation, &name)?),
        Terminal::None => Box::new(face_plain::FacePlain::start(&conversation, None)?),
        Terminal::Simple { typed, .. } => {
            Box::new(face_plain::FacePlain::start(&conversation, Some(typed))?)
        }
        Terminal::Edits { typed } => {
            Box::new(face_terminal::FaceTerminal::start(&conversation, typed)?)
        }
    };
    let mut refused = (!face.edits()).then(Refused::default);
    let servers = if default { "127.0.0.1:5000 to 5004".to_owned() } else { servers.join(", ") };
    let shown =
        show(&conversation, &servers, events, face.as_mut(), session.as_mut(), refused.as_mut());
    match shown {
        Ok(()) => Ok(()),
        Err(Ending::Failed(failure)) => Err(failure),
        // Whoever stopped reading knows.
        Err(Ending::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(Failure::Told)
        }
        Err(Ending::Output(error)) => Err(failed(format!("standard output: {error}"))),
    }
}

/// How showing ended, when not well.
enum Ending {
    Failed(Failure),
    Output(io::Error),
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Ending {
        Ending::Output(error)
    }
}

/// Shows what happens, until the client has ended.
fn show(
    conversation: &Arc<Conversation>,
    servers: &str,
    mut events: Events,
    face: &mut dyn Face,
    mut session: Option<&mut SessionFile>,
    mut refused: Option<&mut Refused>,
) -> Result<(), Ending> {
    let mut next = events.next();
    while let Some(event) = next {
        let heard = conversation.heard(&event);
        if let (Some(refused), true, Event::Error { reason, text, .. }) =
            (&mut refused, heard.asked, &event)
            // Looking for a name that is free is no failure: without one nothing is said.
            && *reason != Reason::NameTaken
        {
            refused.add(heard.refused.as_deref(), text);
        }
        match event {
            Event::Closed { why, unacknowledged } => {
                if !face.edits() {
                    conversation.wait_for_input();
                }
                let unacknowledged = conversation.unsaid(unacknowledged);
                let unanswered = conversation.take_unanswered();
                face.finish(why, &unacknowledged, &unanswered)?;
                let mut refused = refused.map(std::mem::take).unwrap_or_default();
                refused.any |= conversation.had_wrong_line();
                return closed(why, &unacknowledged, unanswered.len(), &refused)
                    .map_err(Ending::Failed);
            }
            Event::Connected { attachment, .. } => {
                if let Some(session) = &mut session
                    && let Err(failure) = session.set_attachment(attachment)
                {
                    print::note(failure);
                }
                face.show(&event, &heard)?;
            }
            event => match heard.next_name {
                Some(name) => conversation.take_name(name),
                None => face.show(&with_mend(event, servers), &heard)?,
            },
        }
        next = match events.next_timeout(Duration::ZERO) {
            None => {
                face.flush()?;
                events.next()
            }
            event => event,
        };
    }
    Ok(())
}

/// What people can do when nobody answers, which the client itself does not know.
fn with_mend(event: Event, servers: &str) -> Event {
    match event {
        Event::Error { reference: 0, reason: Reason::Unreachable, .. } => {
            let text = format!(
                "no chat server answers at {servers}: start some with cordee up, or say where they \
                 are (cordee chat HOST:PORT); trying on"
            );
            Event::Error { reference: 0, reason: Reason::Unreachable, text }
        }
        event => event,
    }
}

/// What was refused. Each was answered by an error when it was; the messages are listed once more.
#[derive(Debug, Default)]
struct Refused {
    any: bool,
    messages: Vec<String>,
}

impl Refused {
    fn add(&mut self, message: Option<&str>, why: &str) {
        self.any = true;
        if let Some(body) = message.filter(|_| self.messages.len() < REFUSED_MAX) {
            self.messages.push(format!("not said: {}: {why}", escape::escape(&shortened(body))));
        }
    }
}

/// How many refused messages are listed at the end.
const REFUSED_MAX: usize = 100;

/// The beginning of a text, to recognise it by.
fn shortened(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(60).collect();
    if chars.next().is_some() { start + "…" } else { start }
}

/// What is left to tell after the end, and whether it was a good one.
fn closed(
    why: Option<Reason>,
    unacknowledged: &[Unsaid],
    unanswered: usize,
    refused: &Refused,
) -> Result<(), Failure> {
    for line in &refused.messages {
        print::note(line);
    }
    for unsaid in unacknowledged {
        print::note(format_args!("not acknowledged: {}", escape::escape(&unsaid.body)));
    }
    if unanswered > 0 {
        let requests = if unanswered == 1 { "request" } else { "requests" };
        print::note(format_args!("not answered: {unanswered} {requests}"));
    }
    let all_done = unacknowledged.is_empty() && unanswered == 0 && !refused.any;
    match why {
        Some(why) => Err(failed(why.text())),
        None if !all_done => Err(Failure::Told),
        None => Ok(()),
    }
}

/// The session file that was asked for, or that of the name; none when another client uses it, or
/// there is no name or no place for it.
fn session(args: &Chat, name: &str) -> Result<Option<SessionFile>, Failure> {
    if let Some(path) = &args.session {
        return match SessionFile::open(path)? {
            Opened::Ours(file) => Ok(Some(file)),
            Opened::Locked => Err(failed(format!(
                "session file {} is in use by another client: end that one, or take another file",
                path.display()
            ))),
        };
    }
    if name.is_empty() {
        return Ok(None);
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let (state_home, home) = (variable("XDG_STATE_HOME"), variable("HOME"));
    let path = session_file::default_path(state_home, home, &args.cluster, name);
    let path = match path {
        Ok(path) => path,
        Err(why) => {
            print::note(format_args!(
                "who you are is not kept ({why}): should this client be killed, its name is taken for \
                 30 seconds"
            ));
            return Ok(None);
        }
    };
    Ok(match SessionFile::open(&path)? {
        Opened::Ours(file) => Some(file),
        Opened::Locked => None,
    })
}

fn not_started(error: cordee_net::client::ClientError) -> Failure {
    failed(error.to_string())
}

fn login_name() -> Option<String> {
    let variables = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    variables.or_else(|| whoami::fallible::username().ok()).as_deref().and_then(valid_name)
}

/// `login` without what a name must not have; `None` when nothing is left.
fn valid_name(login: &str) -> Option<String> {
    let mut name = String::new();
    for c in login.chars() {
        name.push(c);
        // Room for what makes it another one, when somebody has it.
        if name.len() > NAME_BYTES_MAX - 4 || names::user_key(&name).is_err() {
            name.pop();
        }
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_name_is_made_valid() {
        for (login, name) in [
            ("ada", Some("ada")),
            ("_www-data", Some("www-data")),
            ("DOMAIN\\ada l", Some("DOMAINadal")),
            ("\u{1b}[31m", Some("31m")),
            ("", None),
            ("...", None),
        ] {
            assert_eq!(valid_name(login).as_deref(), name, "{login:?}");
        }
        let long = valid_name(&"x".repeat(100)).expect("a name");
        assert!(names::user_key(&format!("{long}-20")).is_ok());
    }
}
