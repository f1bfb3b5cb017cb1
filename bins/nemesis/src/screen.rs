//! What one client printed, event by event, and what is wrong with it at once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::book::{Body, Key, ODD_ROOM, Scope};

/// A message that was shown before one that it comes after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Early {
    pub(crate) shown: Key,
    pub(crate) lacking: Key,
}

/// Everything that one client printed.
#[derive(Debug)]
pub(crate) struct Screen {
    party: usize,
    /// Numbers of messages that were shown, by author.
    shown: Vec<BTreeSet<u64>>,
    /// The last that was shown in the room of all, by author.
    last_in_all: Vec<u64>,
    /// Own messages: how many servers held them when they were acknowledged.
    pub(crate) sent: BTreeMap<u64, u64>,
    /// Own messages that were refused, and why.
    pub(crate) refused: BTreeMap<u64, String>,
    last_sent: u64,
    pub(crate) early: Vec<Early>,
    /// What must never happen, whatever else does.
    pub(crate) violations: Vec<String>,
    /// Indexes that were called final, by scope and id.
    pub(crate) finals: BTreeMap<(Scope, String), u64>,
    /// MA, MT, and what it holds, as last told.
    pub(crate) status: Option<(u64, u64, u64)>,
    /// Of answers about its status, those to earlier questions are none.
    pub(crate) status_asked: u64,
    /// The last answer to a question for history: indexes, ids and bodies.
    pub(crate) history: Option<Vec<(u64, String, String)>>,
    pub(crate) connected: u64,
    pub(crate) is_connected: bool,
    pub(crate) joined: bool,
    pub(crate) ended: bool,
    /// The last lines, for a report.
    tail: Vec<String>,
}

impl Screen {
    pub(crate) fn new(party: usize, parties: usize) -> Screen {
        Screen {
            party,
            shown: vec![BTreeSet::new(); parties],
            last_in_all: vec![0; parties],
            sent: BTreeMap::new(),
            refused: BTreeMap::new(),
            last_sent: 0,
            early: Vec::new(),
            violations: Vec::new(),
            finals: BTreeMap::new(),
            status: None,
            status_asked: 0,
            history: None,
            connected: 0,
            is_connected: false,
            joined: false,
            ended: false,
            tail: Vec::new(),
        }
    }

    /// Takes one line.
    pub(crate) fn take(&mut self, line: &str) {
        if self.tail.len() == TAIL {
            self.tail.remove(0);
        }
        self.tail.push(line.to_owned());
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            return self.violated("printed no JSON", line);
        };
        match event["event"].as_str().unwrap_or_default() {
            "message" => self.on_message(&event, line),
            "sent" => self.on_sent(&event, line),
            "error" => self.on_error(&event, line),
            "connected" => {
                self.connected += 1;
                self.is_connected = true;
                if event["name"] != name(self.party) {
                    self.violated("has another name", line);
                }
            }
            "disconnected" => self.is_connected = false,
            "status" => {
                let number = |key: &str| event[key].as_u64().unwrap_or(u64::MAX);
                if number("ref") == self.status_asked {
                    self.status = Some((number("ma"), number("mt"), number("held")));
                }
            }
            "history" => self.on_history(&event),
            // Nobody leaves, and all are back within the grace.
            "departed" => self.violated("was told that somebody left", line),
            "renamed" => self.violated("was told of another name", line),
            "arrived" if event["room"] == ODD_ROOM && event["name"] == name(self.party) => {
                self.joined = true;
            }
            _ => {}
        }
    }

    fn on_message(&mut self, event: &Value, line: &str) {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        let Some(body) = Body::parse(text("body")) else {
            return self.violated("was shown what nobody said", line);
        };
        let (author, number) = body.key;
        let place = match (text("room"), text("with")) {
            ("#all", "") => Some(Scope::All),
            (ODD_ROOM, "") => Some(Scope::Odd),
            ("", with) => party(with).map(|other| Scope::talk(self.party, other)),
            _ => None,
        };
        if place != Some(body.scope)
            || text("from") != name(author)
            || author >= self.shown.len()
            || !body.scope.is_seen_by(self.party)
        {
            return self.violated("was shown a message in the wrong place", line);
        }
        if author == self.party {
            // One's own come back in a replay only.
            if event["replay"] != true {
                self.violated("was shown its own message", line);
            }
            return;
        }
        let last = self.shown[author].last().copied().unwrap_or(0);
        if !self.shown[author].insert(number) {
            return self.violated("was shown a message twice", line);
        }
        if number < last {
            return self.violated("was shown an author's messages out of order", line);
        }
        for &(other, lacking) in &body.after {
            let seen = other == self.party || self.shown[other].contains(&lacking);
            if body.scope == Scope::All && !seen {
                self.early.push(Early { shown: body.key, lacking: (other, lacking) });
            }
        }
        if body.scope == Scope::All {
            self.last_in_all[author] = number;
        }
        if event["final"] == true {
            let index = event["index"].as_u64().unwrap_or(0);
            self.finals.insert((body.scope, text("id").to_owned()), index);
        }
    }

    fn on_sent(&mut self, event: &Value, line: &str) {
        let (Some(number), Some(copies)) = (event["ref"].as_u64(), event["copies"].as_u64()) else {
            return self.violated("printed an acknowledgement of nothing", line);
        };
        if number <= self.last_sent {
            return self.violated("was acknowledged twice, or out of order", line);
        }
        self.last_sent = number;
        if self.sent.insert(number, copies).is_some() || self.refused.contains_key(&number) {
            self.violated("had a message settled twice", line);
        }
    }

    fn on_error(&mut self, event: &Value, line: &str) {
        let code = event["code"].as_str().unwrap_or_default().to_owned();
        match event["ref"].as_u64() {
            Some(number) if self.sent.contains_key(&number) => {
                self.violated("had a message settled twice", line);
            }
            Some(number) => drop(self.refused.insert(number, code)),
            None => self.violated("met an error", line),
        }
    }

    fn on_history(&mut self, event: &Value) {
        let messages = event["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let row = |message: &Value| {
            let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
            (message["index"].as_u64().unwrap_or(0), text("id"), text("body"))
        };
        self.history = Some(messages.iter().map(row).collect());
    }

    fn violated(&mut self, what: &str, line: &str) {
        self.violations.push(format!("{} {what}: {line}", name(self.party)));
    }

    /// Whether a message was shown.
    pub(crate) fn has(&self, key: Key) -> bool {
        self.shown[key.0].contains(&key.1)
    }

    /// How many messages of others were shown.
    pub(crate) fn shown(&self) -> u64 {
        self.shown.iter().map(|shown| shown.len() as u64).sum()
    }

    /// How many own messages are settled.
    pub(crate) fn settled(&self) -> u64 {
        (self.sent.len() + self.refused.len()) as u64
    }

    /// The last of each other that was shown in the room of all.
    pub(crate) fn context(&self) -> Vec<Key> {
        let others = self.last_in_all.iter().copied().enumerate();
        others.filter(|(other, last)| *other != self.party && *last > 0).collect()
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> String {
        self.tail.join("\n")
    }
}

/// What a party is called.
pub(crate) fn name(party: usize) -> String {
    format!("p{party}")
}

fn party(name: &str) -> Option<usize> {
    name.strip_prefix('p')?.parse().ok()
}

/// How many lines are kept for a report.
const TAIL: usize = 150;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(author: usize, body: &str) -> String {
        let room = if body.contains(" odd") { ODD_ROOM } else { "#all" };
        json!({"event": "message", "room": room, "from": name(author), "body": body,
            "index": 1, "final": false, "id": "x"})
        .to_string()
    }

    fn violations(party: usize, lines: &[String]) -> Vec<String> {
        let mut screen = Screen::new(party, 4);
        lines.iter().for_each(|line| screen.take(line));
        screen.violations
    }

    #[test]
    fn each_author_s_messages_in_order_are_fine() {
        let lines = [message(0, "0.1 all"), message(2, "2.1 all 0.1"), message(0, "0.3 all 2.1")];
        assert_eq!(violations(1, &lines), [""; 0]);
    }

    #[test]
    fn what_must_not_happen_is_seen() {
        let departed = json!({"event": "departed", "name": "p2"}).to_string();
        for (what, lines) in [
            ("twice", vec![message(0, "0.1 all"), message(0, "0.1 all")]),
            ("out of order", vec![message(0, "0.2 all"), message(0, "0.1 all")]),
            ("wrong place", vec![message(2, "0.1 all")]),
            ("nobody said", vec![message(0, "garbage")]),
            ("left", vec![departed]),
            ("no JSON", vec!["{".to_owned()]),
        ] {
            let found = violations(1, &lines);
            assert!(found.len() == 1 && found[0].contains(what), "{what}: {found:?}");
        }
        assert!(violations(2, &[message(1, "1.1 odd")])[0].contains("wrong place"), "not for p2");
    }

    #[test]
    fn an_answer_before_its_question_is_noted() {
        let mut screen = Screen::new(1, 4);
        screen.take(&message(2, "2.1 all 0.1"));
        screen.take(&message(0, "0.1 all"));
        assert_eq!(screen.early.len(), 1);
        assert_eq!((screen.early[0].shown, screen.early[0].lacking), ((2, 1), (0, 1)));
    }

    #[test]
    fn acknowledgements_are_taken_in_order_and_once() {
        let sent = |number: u64| json!({"event": "sent", "ref": number, "copies": 2}).to_string();
        assert_eq!(violations(1, &[sent(1), sent(2)]), [""; 0]);
        assert_eq!(violations(1, &[sent(2), sent(1)]).len(), 1);
        assert_eq!(violations(1, &[sent(1), sent(1)]).len(), 1);
        let error = json!({"event": "error", "ref": 1, "code": "x"}).to_string();
        assert_eq!(violations(1, &[error, sent(1)]).len(), 1);
    }
}
