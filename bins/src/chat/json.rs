//! JSON lines: requests in, events out. `docs/chat.md` documents them; members and events are only
//! ever added.

use std::time::{Duration, SystemTime};

use cordee_core::ids::Clock;
use cordee_net::client::{Event, Message, Room, Scope, Target, User};
use serde_json::{Map, Value, json};

use super::commands::{Request, Window};
use crate::status::state_word;

/// A line that was understood.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Asked {
    /// What is asked for.
    pub(crate) request: Request,
    /// The `ref` that comes back in the answer.
    pub(crate) reference: Option<Value>,
}

/// A line that was not.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Wrong {
    /// The code of the error: `bad_json`, `unknown_key` or `bad_value`.
    pub(crate) code: &'static str,
    /// What is wrong, and the mend.
    pub(crate) text: String,
    /// The line's `ref`, where one could be read.
    pub(crate) reference: Option<Value>,
}

/// Reads one line.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn parse(line: &str) -> Result<Asked, Wrong> {
    let wrong = |code, text: String| Wrong { code, text, reference: None };
    let mut object = match serde_json::from_str(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err(wrong("bad_json", "a line is one JSON object".to_owned())),
        Err(error) => return Err(wrong("bad_json", format!("this is not JSON: {error}"))),
    };
    let reference = object.shift_remove("ref");
    match parse_request(&mut object) {
        Ok(request) => Ok(Asked { request, reference }),
        Err((code, text)) => Err(Wrong { code, text, reference }),
    }
}

fn parse_request(object: &mut Map<String, Value>) -> Result<Request, (&'static str, String)> {
    let Some(key) = object.keys().find(|key| KEYS.contains(&key.as_str())).cloned() else {
        return Err(match object.keys().next() {
            Some(key) => unknown(key),
            None => ("bad_value", "the object is empty: say what to do".to_owned()),
        });
    };
    let value = object.shift_remove(&key).unwrap_or_default();
    let to = if key == "say" { object.shift_remove("to") } else { None };
    if let Some(other) = object.keys().next() {
        return Err(match KEYS.contains(&other.as_str()) {
            true => ("bad_value", format!("{key:?} and {other:?}: one thing a line")),
            false => unknown(other),
        });
    }
    let text = || match &value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(("bad_value", format!("{key:?} takes a string"))),
    };
    let when_true = |request| match value {
        Value::Bool(true) => Ok(request),
        _ => Err(("bad_value", format!("{key:?} takes true"))),
    };
    match key.as_str() {
        "say" => match to {
            None => Ok(Request::Say { to: None, body: text()? }),
            Some(Value::String(to)) => {
                Ok(Request::Say { to: Some(Target::parse(&to)), body: text()? })
            }
            Some(_) => Err(("bad_value", "\"to\" takes a string".to_owned())),
        },
        "join" => Ok(Request::Join(text()?)),
        "leave" => Ok(Request::Leave(Some(text()?))),
        "topic" => Ok(Request::Topic(text()?)),
        "name" => Ok(Request::Name(text()?)),
        "search" => Ok(Request::Search(text()?)),
        "users" => when_true(Request::Users),
        "rooms" => when_true(Request::Rooms),
        "status" => when_true(Request::Status),
        "kill_server" => when_true(Request::KillServer),
        "reset" => when_true(Request::Reset),
        "quit" => when_true(Request::Quit),
        _ => parse_history(value),
    }
}

/// `{"room":"#all","from":1,"count":50}` or `{"with":"bob","last":50}`.
fn parse_history(value: Value) -> Result<Request, (&'static str, String)> {
    let bad = |text: &str| Err(bad_history(text));
    let Value::Object(mut object) = value else { return bad("takes an object") };
    let of = match (object.shift_remove("room"), object.shift_remove("with")) {
        (None, None) => None,
        (Some(Value::String(room)), None) => Some(Target::Room(room)),
        (None, Some(Value::String(name))) => Some(Target::User(name)),
        (Some(_), Some(_)) => return bad("\"room\" or \"with\", not both"),
        _ => return bad("\"room\" and \"with\" take a string"),
    };
    let mut number = |key: &str, max: u64| match object.shift_remove(key) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) if (1..=max).contains(&number) => Ok(Some(number)),
            _ => Err(bad_history(&format!("{key:?} takes a number from 1 to {max}"))),
        },
    };
    let last = number("last", u32::MAX.into())?;
    let from = number("from", u64::MAX)?;
    let count = number("count", u32::MAX.into())?;
    if let Some(key) = object.keys().next() {
        return Err(unknown(key));
    }
    let window = match (last, from, count) {
        (Some(last), None, None) => Window::Last(last as u32),
        (None, Some(from), Some(count)) => Window::From { from, count: count as u32 },
        _ => return bad("takes \"last\", or \"from\" and \"count\""),
    };
    Ok(Request::History { of, window })
}

fn bad_history(text: &str) -> (&'static str, String) {
    ("bad_value", format!("\"history\": {text}"))
}

fn unknown(key: &str) -> (&'static str, String) {
    ("unknown_key", format!("{key:?} is not known; a line has one of: {}", KEYS.join(", ")))
}

/// What can be asked for.
const KEYS: &[&str] = &[
    "say",
    "join",
    "leave",
    "topic",
    "name",
    "users",
    "rooms",
    "status",
    "history",
    "search",
    "kill_server",
    "reset",
    "quit",
];

/// An `error` event.
pub(crate) fn error(code: &str, text: &str, reference: Option<Value>) -> Value {
    json!({"event": "error", "code": code, "text": text, "ref": reference})
}

/// The answer to a request that has no other, when it has a `ref`.
pub(crate) fn done(reference: Value) -> Value {
    json!({"event": "done", "ref": reference})
}

/// What a line says of an event; `None` for those that JSON leaves out. `reference` is the `ref` of
/// the request that the event answers, `me` is the user's own name.
pub(crate) fn event(event: &Event, reference: Option<Value>, me: &str) -> Option<Value> {
    let mut object = match event {
        Event::Connected { server, servers, name, .. } => {
            json!({"event": "connected", "server": server, "servers": servers, "name": name})
        }
        Event::Disconnected { server, why } => {
            json!({"event": "disconnected", "server": server, "why": why.word()})
        }
        Event::Reset { held } => json!({"event": "reset", "why": "archive_lost", "held": held}),
        Event::Message(message) => {
            let mut object = with_event("message", message_object(message));
            object["replay"] = message.replay.into();
            object
        }
        Event::Sent { id, index, copies, durable, .. } => {
            return Some(json!({
                "event": "sent",
                "id": id.to_string(),
                "ref": reference,
                "index": index,
                "copies": copies,
                "durable": durable,
            }));
        }
        Event::Arrived { name, room } => moved("arrived", name, room.as_deref()),
        Event::Departed { name, room } => moved("departed", name, room.as_deref()),
        Event::Joined { room, .. } => moved("arrived", me, Some(room)),
        Event::Left { room, .. } => moved("departed", me, Some(room)),
        Event::RoomMade { room } => json!({"event": "room", "name": room}),
        Event::Topic { room, topic, by } => {
            json!({"event": "topic", "room": room, "topic": topic, "by": by})
        }
        Event::Renamed { from, to, own, why } => {
            let mut object = json!({"event": "renamed", "from": from, "to": to, "own": own});
            if let Some(why) = why {
                object["why"] = why.word().into();
            }
            object
        }
        Event::Users { .. }
        | Event::Rooms { .. }
        | Event::History { .. }
        | Event::Search { .. }
        | Event::Status { .. } => answer(event)?,
        Event::CaughtUp { room: Some(room) } => json!({"event": "caught_up", "room": room}),
        Event::CaughtUp { room: None } => json!({"event": "caught_up"}),
        Event::Error { reason, text, .. } => return Some(error(reason.word(), text, reference)),
        // To whom did not ask it by name, it says nothing that another event does not.
        Event::Done { .. } => return reference.map(done),
        // An ending shows by the end.
        Event::Servers { .. } | Event::Closed { .. } => return None,
    };
    if let Some(reference) = reference {
        object["ref"] = reference;
    }
    Some(object)
}

/// The answer to a question.
fn answer(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Users { users, .. } => json!({"event": "users", "users": list(users, user)}),
        Event::Rooms { rooms, .. } => json!({"event": "rooms", "rooms": list(rooms, room)}),
        Event::History { scope, total, messages, .. } => {
            let mut object = with_event("history", scope_object(scope));
            object["total"] = (*total).into();
            object["messages"] = list(messages, |message| message_object(message).into());
            object
        }
        Event::Search { messages, more, .. } => {
            let total = messages.len();
            let messages = list(messages, |message| message_object(message).into());
            json!({"event": "search", "total": total, "more": more, "messages": messages})
        }
        Event::Status { server, members, ma, mt, held, .. } => {
            let servers: Vec<&str> = members.iter().map(|member| member.address.as_str()).collect();
            let members = list(members, |member| {
                json!({
                    "address": member.address,
                    "state": state_word(member.state),
                    "ma": member.ma,
                })
            });
            json!({
                "event": "status",
                "server": server,
                "servers": servers,
                "ma": ma,
                "mt": mt,
                "held": held,
                "members": members,
            })
        }
        _ => return None,
    })
}

fn moved(event: &str, name: &str, room: Option<&str>) -> Value {
    match room {
        Some(room) => json!({"event": event, "name": name, "room": room}),
        None => json!({"event": event, "name": name}),
    }
}

/// A message without what only the event has.
fn message_object(message: &Message) -> Map<String, Value> {
    let mut object = scope_object(&message.scope);
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("from", (*message.from).into());
    put("body", (*message.body).into());
    put("index", message.index.into());
    put("final", message.is_final.into());
    put("time", time(message.clock).into());
    put("id", message.id.to_string().into());
    object
}

/// `room`, or `with` and the other's name.
fn scope_object(scope: &Scope) -> Map<String, Value> {
    let (key, name) = match scope {
        Scope::Room(room) => ("room", room),
        Scope::Talk { name, .. } => ("with", name),
    };
    Map::from_iter([(key.to_owned(), (**name).into())])
}

fn with_event(event: &str, rest: Map<String, Value>) -> Value {
    let first = ("event".to_owned(), event.into());
    Map::from_iter(std::iter::once(first).chain(rest)).into()
}

fn user(user: &User) -> Value {
    json!({"name": user.name, "online": user.online, "server": user.server, "rooms": user.rooms})
}

fn room(room: &Room) -> Value {
    json!({
        "name": room.name,
        "users": room.users,
        "messages": room.messages,
        "topic": room.topic,
    })
}

fn list<T>(items: &[T], of: impl Fn(&T) -> Value) -> Value {
    items.iter().map(of).collect()
}

/// RFC 3339 with milliseconds, UTC. A clock beyond the year 9999 stands at its end.
pub(crate) fn time(clock: Clock) -> String {
    let us = clock.0.min(CLOCK_US_MAX);
    let time = SystemTime::UNIX_EPOCH + Duration::from_micros(us);
    humantime::format_rfc3339_millis(time).to_string()
}

/// 9999-12-31T23:59:59.999999Z.
const CLOCK_US_MAX: u64 = 253_402_300_799_999_999;

#[cfg(test)]
mod tests;
