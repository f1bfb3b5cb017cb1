//! What a user asks for, and how it is typed. [`super::json`] reads the same requests from JSON.

use cordee_net::client::Target;

/// What a user asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// Say something, to the current room or talk unless told otherwise.
    Say {
        /// To whom.
        to: Option<Target>,
        /// What.
        body: String,
    },
    /// Join a room and make it the current one.
    Join(String),
    /// Leave a room: the current one unless told otherwise.
    Leave(Option<String>),
    /// Set the topic of the current room; empty for none.
    Topic(String),
    /// Take another name.
    Name(String),
    /// Who is there?
    Users,
    /// Which rooms are there?
    Rooms,
    /// How does this connection stand?
    Status,
    /// What was said, by index.
    History {
        /// Where; the current room or talk unless told otherwise.
        of: Option<Target>,
        /// Which messages.
        window: Window,
    },
    /// Look for words in all that may be seen.
    Search(String),
    /// Crash the server, to rehearse it.
    KillServer,
    /// Forget what was received, and receive it again.
    Reset,
    /// Change where plain text goes.
    Talk(Target),
    /// List the commands.
    Help,
    /// Leave.
    Quit,
}

/// Which messages of a room or talk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Window {
    /// The last so many.
    Last(u32),
    /// So many from an index on; the first has index 1.
    From {
        /// The index of the first.
        from: u64,
        /// How many.
        count: u32,
    },
}

/// A command as it is typed: its name, its arguments, what it does.
#[derive(Debug)]
pub(crate) struct Command {
    /// With its slash.
    pub(crate) name: &'static str,
    /// As `/help` shows them.
    pub(crate) arguments: &'static str,
    /// In one line.
    pub(crate) does: &'static str,
}

/// Every command that can be typed.
pub(crate) const COMMANDS: &[Command] = &[
    command("/users", "", "who is there, and where"),
    command("/rooms", "", "which rooms there are"),
    command("/join", "#room", "join a room (made when there is none) and write there"),
    command("/leave", "[#room]", "leave the current room, or that one"),
    command("/topic", "TEXT", "set the topic of the current room"),
    command("/msg", "NAME TEXT", "say something to one person"),
    command("/talk", "NAME or #room", "plain text goes there from now on"),
    command("/name", "NEW", "take another name"),
    command("/history", "[N]", "the last N messages here (20)"),
    command("/search", "WORDS", "messages that contain all these words"),
    command("/status", "", "server, members, MA and MT"),
    command("/kill-server", "", "crash the server that you are on, where that is allowed"),
    command("/help", "", "this list"),
    command("/quit", "", "leave"),
];

const fn command(name: &'static str, arguments: &'static str, does: &'static str) -> Command {
    Command { name, arguments, does }
}

/// What `/help` prints, a line each.
pub(crate) fn help() -> Vec<String> {
    let mut lines = vec!["Plain text goes to the current room or person. Commands:".to_owned()];
    lines.extend(COMMANDS.iter().map(|command| {
        let usage = format!("{} {}", command.name, command.arguments);
        format!("  {usage:<22} {}", command.does)
    }));
    lines.push("A text that begins with a slash is typed with two: //text".to_owned());
    lines
}

/// Reads a typed line; `None` for an empty one.
///
/// # Errors
///
/// One line that says what is wrong and how it is typed.
pub(crate) fn parse(line: &str) -> Result<Option<Request>, String> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.trim().is_empty() {
        return Ok(None);
    }
    if line.trim() == "kill server" {
        return Ok(Some(Request::KillServer));
    }
    let Some(command) = line.strip_prefix('/') else {
        return Ok(Some(Request::Say { to: None, body: line.to_owned() }));
    };
    if command.starts_with('/') {
        return Ok(Some(Request::Say { to: None, body: command.to_owned() }));
    }
    let (name, rest) = first_word(command);
    parse_command(name, rest).map(Some)
}

fn parse_command(name: &str, rest: &str) -> Result<Request, String> {
    let none = |request| if rest.is_empty() { Ok(request) } else { Err(usage(name)) };
    let text = |request: fn(String) -> Request| match rest {
        "" => Err(usage(name)),
        text => Ok(request(text.to_owned())),
    };
    let word = |request: fn(String) -> Request| match rest.contains(char::is_whitespace) {
        true => Err(usage(name)),
        false => text(request),
    };
    match name {
        "help" => none(Request::Help),
        "users" => none(Request::Users),
        "rooms" => none(Request::Rooms),
        "status" => none(Request::Status),
        "kill-server" => none(Request::KillServer),
        "quit" => none(Request::Quit),
        "join" => word(|room| Request::Join(with_hash(&room))),
        "leave" if rest.is_empty() => Ok(Request::Leave(None)),
        "leave" => word(|room| Request::Leave(Some(with_hash(&room)))),
        "topic" => text(Request::Topic),
        "talk" => word(|name| Request::Talk(target(&name))),
        "name" => word(Request::Name),
        "search" => text(Request::Search),
        "msg" => match first_word(rest) {
            (_, "") => Err(usage(name)),
            (to, body) => Ok(Request::Say { to: Some(target(to)), body: body.to_owned() }),
        },
        "history" => {
            let count = if rest.is_empty() { HISTORY_DEFAULT } else { count(name, rest)? };
            Ok(Request::History { of: None, window: Window::Last(count) })
        }
        _ => Err(format!("no such command: /{name}; /help lists them")),
    }
}

fn count(name: &str, text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| usage(name))
}

/// How a command is typed.
fn usage(name: &str) -> String {
    let found = COMMANDS.iter().find(|command| command.name[1..] == *name);
    let arguments = found.map_or("", |command| command.arguments);
    format!("usage: /{}", format!("{name} {arguments}").trim_end())
}

fn first_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim())
}

/// A person may be written as the prompt shows one: `@bob`.
fn target(text: &str) -> Target {
    Target::parse(text.strip_prefix('@').unwrap_or(text))
}

fn with_hash(room: &str) -> String {
    if room.starts_with('#') { room.to_owned() } else { format!("#{room}") }
}

/// How many messages `/history` shows when not told.
const HISTORY_DEFAULT: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn say(to: Option<&str>, body: &str) -> Request {
        Request::Say { to: to.map(Target::parse), body: body.to_owned() }
    }

    #[test]
    fn plain_text_is_said_as_it_was_typed() {
        for text in ["hello", "  indented", "kill servers", "tell me: kill server"] {
            assert_eq!(parse(text), Ok(Some(say(None, text))));
        }
        assert_eq!(parse("//etc/passwd"), Ok(Some(say(None, "/etc/passwd"))));
        for empty in ["", "   ", "\r\n", "\t"] {
            assert_eq!(parse(empty), Ok(None));
        }
    }

    #[test]
    fn every_command_is_understood() {
        let cases = [
            ("/users", Request::Users),
            ("/rooms ", Request::Rooms),
            ("/join #ops", Request::Join("#ops".into())),
            ("/join ops", Request::Join("#ops".into())),
            ("/leave", Request::Leave(None)),
            ("/leave #ops", Request::Leave(Some("#ops".into()))),
            ("/topic on call: bob", Request::Topic("on call: bob".into())),
            ("/msg bob  are you there?", say(Some("bob"), "are you there?")),
            ("/msg #ops all fine", say(Some("#ops"), "all fine")),
            ("/talk bob", Request::Talk(Target::User("bob".into()))),
            ("/talk @bob", Request::Talk(Target::User("bob".into()))),
            ("/talk #all", Request::Talk(Target::Room("#all".into()))),
            ("/name Zoë", Request::Name("Zoë".into())),
            ("/history", Request::History { of: None, window: Window::Last(20) }),
            ("/history 5", Request::History { of: None, window: Window::Last(5) }),
            ("/search two words", Request::Search("two words".into())),
            ("/status", Request::Status),
            ("/kill-server", Request::KillServer),
            (" kill server ", Request::KillServer),
            ("/help", Request::Help),
            ("/quit", Request::Quit),
        ];
        for (line, request) in &cases {
            assert_eq!(parse(line).as_ref(), Ok(&Some(request.clone())), "{line}");
        }
        for command in COMMANDS {
            let typed = |(line, _): &(&str, Request)| line.split(' ').next() == Some(command.name);
            assert!(cases.iter().any(typed), "{} is tried above", command.name);
        }
    }

    #[test]
    fn what_is_typed_wrong_says_how_it_is_typed() {
        for (line, error) in [
            ("/join", "usage: /join #room"),
            ("/join #a #b", "usage: /join #room"),
            ("/msg bob", "usage: /msg NAME TEXT"),
            ("/msg", "usage: /msg NAME TEXT"),
            ("/name two words", "usage: /name NEW"),
            ("/history none", "usage: /history [N]"),
            ("/history 0", "usage: /history [N]"),
            ("/users all", "usage: /users"),
            ("/search", "usage: /search WORDS"),
            ("/topic", "usage: /topic TEXT"),
            ("/jion #a", "no such command: /jion; /help lists them"),
            ("/", "no such command: /; /help lists them"),
        ] {
            assert_eq!(parse(line), Err(error.to_owned()), "{line}");
        }
    }

    #[test]
    fn help_lists_every_command() {
        let help = help().join("\n");
        for command in COMMANDS {
            assert!(help.contains(command.name));
        }
    }
}
