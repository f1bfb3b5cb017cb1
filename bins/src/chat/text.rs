//! Events as lines for people. What others wrote is escaped.

use cordee_core::wire::Reason;
use cordee_net::client::{Event, Member, Message, Room, Scope, User};

use super::conversation::Heard;
use super::escape::escape;
use super::json::time;
use crate::status::state_word;

/// What becomes of a message of several lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Breaks {
    /// It is one line, for those who read line by line.
    Escaped,
    /// Its lines but the first are indented, so that none looks like another message.
    Shown,
}

/// The lines that show an event; none for what people need not see. `me` is the user's own name.
pub(crate) fn lines(event: &Event, heard: &Heard, me: &str, breaks: Breaks) -> Vec<String> {
    match event {
        Event::Connected { server, name, .. } => {
            vec![format!("* connected to {} as {}", escape(server), escape(name))]
        }
        Event::Disconnected { server, why } => {
            vec![format!("* lost {} ({why}), going on at the next", escape(server))]
        }
        Event::Reset { held } => {
            let messages = if *held == 1 { "message" } else { "messages" };
            vec![format!(
                "! the archive is gone: the servers do not hold any more what you had received \
                 ({held} {messages}); all of them had ended at once, or this is another cluster. \
                 What they hold now is received anew"
            )]
        }
        Event::Message(message) if message.replay => {
            vec![format!("{} {}", when(message), said(message, breaks))]
        }
        Event::Message(message) => vec![said(message, breaks)],
        Event::Arrived { name, room } => moved(name, room.as_deref(), "arrived", "joined"),
        Event::Departed { name, room } => moved(name, room.as_deref(), "departed", "left"),
        Event::Joined { room, topic, .. } => {
            let mut lines = moved(me, Some(room), "", "joined");
            if !topic.is_empty() {
                lines.push(format!("* topic of {}: {}", escape(room), escape(topic)));
            }
            lines
        }
        Event::Left { room, .. } => moved(me, Some(room), "", "left"),
        Event::RoomMade { room } => vec![format!("* new room {}", escape(room))],
        Event::Topic { room, topic, by } => {
            let by = if by.is_empty() { String::new() } else { format!(" (by {})", escape(by)) };
            match topic.as_str() {
                "" => vec![format!("* {} has no topic any more{by}", escape(room))],
                topic => vec![format!("* topic of {}: {}{by}", escape(room), escape(topic))],
            }
        }
        Event::Renamed { from, to, why, .. } => {
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            vec![format!("* {} is now {}{why}", escape(from), escape(to))]
        }
        Event::Users { users, .. } if heard.asked => user_table(users),
        Event::Users { users, .. } => {
            let names: Vec<_> = by_name(users).map(|user| escape(&user.name)).collect();
            vec![format!("* here: {}", names.join(", "))]
        }
        Event::Rooms { rooms, .. } if heard.asked => room_table(rooms),
        Event::Rooms { rooms, .. } => {
            let rooms: Vec<_> = rooms
                .iter()
                .map(|room| format!("{} ({})", escape(&room.name), room.users))
                .collect();
            vec![format!("* rooms: {}", rooms.join(", "))]
        }
        Event::History { scope, total, messages, .. } => {
            let mut lines =
                vec![format!("* {} of {total} messages of {}", messages.len(), place(scope))];
            lines.extend(messages.iter().map(|message| indexed(message, breaks)));
            lines
        }
        Event::Search { messages, more, .. } => {
            let found = match more {
                true => format!("* the newest {} found; there are more", messages.len()),
                false => format!("* {} found, the newest first", messages.len()),
            };
            let mut lines = vec![found];
            lines.extend(messages.iter().map(|message| indexed(message, breaks)));
            lines
        }
        Event::Status { server, members, ma, mt, .. } => status(server, members, *ma, *mt),
        Event::Error { reason: Reason::NameTaken | Reason::NameInvalid, text, .. } => {
            vec![format!("! {} (/name NEW)", escape(text))]
        }
        Event::Error { text, .. } => vec![format!("! {}", escape(text))],
        Event::Servers { .. }
        | Event::Sent { .. }
        | Event::Done { .. }
        | Event::CaughtUp { .. }
        | Event::Closed { .. } => Vec::new(),
    }
}

/// `#room author: body`, or in a talk `@other author: body`.
fn said(message: &Message, breaks: Breaks) -> String {
    let body = match breaks {
        Breaks::Escaped => escape(&message.body).into_owned(),
        Breaks::Shown => message.body.split('\n').map(escape).collect::<Vec<_>>().join("\n    "),
    };
    format!("{} {}: {body}", place(&message.scope), escape(&message.from))
}

fn place(scope: &Scope) -> String {
    match scope {
        Scope::Room(room) => escape(room).into_owned(),
        Scope::Talk { name, .. } => format!("@{}", escape(name)),
    }
}

/// With the index, marked while it may still change.
fn indexed(message: &Message, breaks: Breaks) -> String {
    let open = if message.is_final { ' ' } else { '?' };
    format!("{:>6}{open} {} {}", message.index, when(message), said(message, breaks))
}

/// Date and time of day, UTC.
fn when(message: &Message) -> String {
    let time = time(message.clock);
    let seconds = time.split('.').next().unwrap_or_default();
    format!("{}Z", seconds.replace('T', " "))
}

fn moved(name: &str, room: Option<&str>, here: &str, there: &str) -> Vec<String> {
    vec![match room {
        None => format!("* {} {here}", escape(name)),
        Some(room) => format!("* {} {there} {}", escape(name), escape(room)),
    }]
}

fn user_table(users: &[User]) -> Vec<String> {
    let line = |user: &User| {
        let state = if user.online { "" } else { " (away)" };
        let rooms = user.rooms.join(" ");
        let name = format!("{}{state}", escape(&user.name));
        format!("  {name:<24} {:<22} {}", escape(&user.server), escape(&rooms))
    };
    let mut lines = vec![format!("* {} users: name, server, rooms", users.len())];
    lines.extend(by_name(users).map(line));
    lines
}

fn by_name(users: &[User]) -> impl Iterator<Item = &User> {
    let mut users: Vec<&User> = users.iter().collect();
    users.sort_by_key(|user| user.name.to_lowercase());
    users.into_iter()
}

fn room_table(rooms: &[Room]) -> Vec<String> {
    let line = |room: &Room| {
        format!(
            "  {:<24} {:>5} {:>8} {}",
            escape(&room.name),
            room.users,
            room.messages,
            escape(&room.topic)
        )
    };
    let mut lines = vec![format!("* {} rooms: name, users, messages, topic", rooms.len())];
    lines.extend(rooms.iter().map(|room| line(room).trim_end().to_owned()));
    lines
}

fn status(server: &str, members: &[Member], ma: u64, mt: u64) -> Vec<String> {
    let drained = if ma == mt { "up to date" } else { "on the way" };
    let mut lines = vec![format!("* server {}, MA {ma}, MT {mt}: {drained}", escape(server))];
    lines.extend(members.iter().map(|member| {
        let state = state_word(member.state);
        format!("  {:<24} {state:<9} {} messages", escape(&member.address), member.ma)
    }));
    lines
}

#[cfg(test)]
mod tests;
