//! The client's three faces, against real servers.

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use common::{Client, Cluster, PATIENCE, cordee, pid, text, wait_until};
use rustix::process::{Signal, kill_process};
use serde_json::json;

/// Runs the plain face with this input, to its end.
fn plain(servers: &[String], args: &[&str], input: &str) -> std::process::Output {
    let state = tempfile::tempdir().expect("a directory for its sessions");
    let mut process = cordee()
        .arg("chat")
        .args(args)
        .args(servers)
        .env("XDG_STATE_HOME", state.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = process.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    process.wait_with_output().expect("it ends")
}

#[test]
fn json_says_who_is_there_and_acknowledges_in_order() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut ada = Client::spawn(&cluster.addresses[..1], &["--name", "ada"], None);
    // Before it is connected.
    ada.send_line(r#"{"say":"first","ref":{"any":[1]}}"#);
    let connected = ada.wait_for("connected");
    assert_eq!(connected["name"], "ada");
    assert_eq!(connected["server"], cluster.addresses[0]);
    let mut servers: Vec<_> = cluster.addresses.iter().map(|address| json!(address)).collect();
    servers.sort_by_key(ToString::to_string);
    let mut told = connected["servers"].as_array().expect("a list").clone();
    told.sort_by_key(ToString::to_string);
    assert_eq!(told, servers);
    let users = ada.wait_for("users");
    assert_eq!(users["users"][0]["name"], "ada");
    let sent = ada.wait_for("sent");
    assert_eq!((&sent["ref"], &sent["index"]), (&json!({"any": [1]}), &json!(1)));
    let mut bob = Client::start(&cluster.addresses[1..], "bob");
    ada.wait("bob", |event| event["event"] == "arrived" && event["name"] == "bob");
    let replayed = bob.wait_for_body("first");
    assert_eq!(
        (&replayed["room"], &replayed["from"], &replayed["replay"], &replayed["index"]),
        (&json!("#all"), &json!("ada"), &json!(true), &json!(1))
    );
    assert_eq!(replayed["id"], sent["id"]);
    for number in 0..20 {
        ada.say(&number.to_string());
    }
    for number in 0..20 {
        let sent = ada.wait_for("sent");
        assert_eq!(sent["ref"], number.to_string(), "one for each, in order");
        assert_eq!((&sent["copies"], &sent["durable"]), (&json!(2), &json!(false)));
        assert_eq!(bob.wait_for("message")["body"], number.to_string());
    }
    let done = ada.finish();
    assert!(done.status.success(), "{done:?}");
    bob.wait("ada to be gone", |event| event["event"] == "departed" && event["name"] == "ada");
}

#[test]
fn json_requests_are_answered_with_their_reference() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut ada = Client::start(&cluster.addresses, "ada");
    let mut bob = Client::start(&cluster.addresses, "bob");
    ada.send(&json!({"join": "#Ops", "ref": 1}));
    ada.send(&json!({"say": "in the room", "ref": 2}));
    ada.send(&json!({"topic": "on call: ada", "ref": 3}));
    let joined =
        ada.wait("the room", |event| event["event"] == "arrived" && event["room"] == "#ops");
    assert_eq!(
        (&joined["name"], &joined["room"], &joined["ref"]),
        (&"ada".into(), &"#ops".into(), &1.into())
    );
    bob.wait("the room", |event| event["event"] == "room" && event["name"] == "#ops");
    let topic = ada.wait_for("topic");
    assert_eq!((&topic["room"], &topic["topic"]), (&json!("#ops"), &json!("on call: ada")));
    ada.say_to("bob", "for you");
    let talk = bob.wait_for_body("for you");
    assert_eq!(
        (&talk["with"], &talk["from"], &talk["room"]),
        (&"ada".into(), &"ada".into(), &json!(null))
    );
    bob.send(&json!({"history": {"room": "#ops", "last": 5}, "ref": "h"}));
    let refused = bob.wait_for("error");
    assert_eq!((&refused["code"], &refused["ref"]), (&json!("not_member"), &json!("h")));
    bob.send(&json!({"join": "#ops"}));
    assert_eq!(bob.wait_for_body("in the room")["replay"], true);
    bob.send(&json!({"history": {"room": "#ops", "from": 1, "count": 5}, "ref": "h"}));
    let history = bob.wait_for("history");
    assert_eq!((&history["ref"], &history["room"]), (&json!("h"), &json!("#ops")));
    assert_eq!(history["messages"][0]["body"], "in the room");
    assert_eq!(history["messages"][0]["index"], 1);
    bob.send(&json!({"search": "ROOM the", "ref": "s"}));
    let found = bob.wait_for("search");
    assert_eq!(
        (&found["ref"], &found["messages"][0]["body"]),
        (&json!("s"), &json!("in the room"))
    );
    bob.send(&json!({"rooms": true, "ref": "r"}));
    let rooms = bob.wait("rooms", |event| event["event"] == "rooms" && event["ref"] == "r");
    let ops = rooms["rooms"].as_array().expect("a list").iter().find(|room| room["name"] == "#ops");
    assert_eq!(ops.expect("it is there")["users"], 2);
    bob.send(&json!({"name": "robert"}));
    let renamed = ada.wait_for("renamed");
    assert_eq!((&renamed["from"], &renamed["to"]), (&json!("bob"), &json!("robert")));
    bob.send(&json!({"leave": "#ops"}));
    let left = ada.wait_for("departed");
    assert_eq!((&left["name"], &left["room"]), (&json!("robert"), &json!("#ops")));
    ada.wait_until_drained();
    bob.wait_until_drained();
}

#[test]
fn json_that_makes_no_sense_is_an_error_and_never_the_end() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut ada = Client::start(&cluster.addresses, "ada");
    let long = "x".repeat(70_000);
    for (line, code) in [
        ("nonsense", "bad_json"),
        ("[1]", "bad_json"),
        (long.as_str(), "line_too_long"),
        (r#"{"fly":true,"ref":9}"#, "unknown_key"),
        (r#"{"say":7,"ref":9}"#, "bad_value"),
        (r#"{"say":"","ref":9}"#, "body_empty"),
        (r#"{"say":"x","to":"nobody","ref":9}"#, "user_unknown"),
        (r##"{"say":"x","to":"#nowhere","ref":9}"##, "not_member"),
        (r#"{"join":"no hash","ref":9}"#, "room_invalid"),
        (r#"{"name":"no spaces","ref":9}"#, "name_invalid"),
        (r##"{"leave":"#all","ref":9}"##, "common_room"),
        (r#"{"kill_server":true,"ref":9}"#, "kill_forbidden"),
        (r#"{"search":"","ref":9}"#, "search_empty"),
    ] {
        ada.send_line(line);
        let error = ada.wait_for("error");
        assert_eq!(error["code"], code, "{error}");
        assert!(error["text"].as_str().is_some_and(|text| !text.is_empty()));
        if line.contains("ref") {
            assert_eq!(error["ref"], 9, "{error}");
        }
    }
    ada.send(&json!({"say": "y".repeat(9_000), "ref": 9}));
    assert_eq!(ada.wait_for("error")["code"], "body_too_long");
    ada.say("still there");
    ada.wait_for_sent("still there");
    let finished = ada.finish();
    // What could not be said is listed once more, each with its reason.
    assert_eq!(finished.status.code(), Some(1));
    let listed = finished.stderr.iter().filter(|line| line.contains("not said: ")).count();
    assert_eq!(listed, 4, "{:?}", finished.stderr);
}

#[test]
fn a_name_that_is_taken_is_asked_for_again() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let _ada = Client::start(&cluster.addresses[..1], "ada");
    let mut other = Client::spawn(&cluster.addresses[1..], &["--name", "Ada"], None);
    assert_eq!(other.wait_for("error")["code"], "name_taken");
    other.send(&json!({"name": "ada", "ref": "again"}));
    let error = other.wait_for("error");
    assert_eq!((&error["code"], &error["ref"]), (&json!("name_taken"), &json!("again")));
    other.send(&json!({"name": "eve"}));
    assert_eq!(other.wait_for("connected")["name"], "eve");
    assert!(other.finish().status.success());
    // Nobody is left to give another name.
    let mut third = Client::spawn(&cluster.addresses, &["--name", "ada"], None);
    third.send_line(r#"{"say":"lost","ref":"lost"}"#);
    let done = third.finish();
    assert_eq!(done.status.code(), Some(1), "{done:#?}");
    assert!(done.stderr.iter().any(|line| line.ends_with("not acknowledged: lost")), "{done:?}");
    let last = done.seen.last().expect("events");
    assert_eq!((&last["code"], &last["ref"]), (&json!("not_acknowledged"), &json!("lost")));
    // Without a name it waits for one.
    let mut nameless = Client::spawn(&cluster.addresses, &[], None);
    assert_eq!(nameless.wait_for("error")["code"], "not_attached");
    nameless.send(&json!({"name": "bob"}));
    assert_eq!(nameless.wait_for("connected")["name"], "bob");
}

#[test]
fn what_nobody_acknowledges_is_listed_and_the_exit_code_is_1() {
    let reserved = cordee_net::supervise::ReservedPort::new(([127, 0, 0, 1], 0).into());
    let nobody = reserved.expect("a free port");
    let servers = [nobody.address().to_string()];
    let mut ada = Client::spawn(&servers, &["--name", "ada"], None);
    ada.say("one");
    ada.say("two\u{1b}[31m");
    let done = ada.finish();
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(
        done.stderr,
        ["cordee: not acknowledged: one", "cordee: not acknowledged: two\\u{1b}[31m"]
    );
}

#[test]
fn plain_lines_hold_no_escape_codes_whatever_others_write() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut ada = Client::start(&cluster.addresses, "ada");
    ada.say("red \u{1b}[31m bell \u{7} two\nlines \u{202e}sdrawkcab");
    ada.wait_for("sent");
    let input = "hello\n/help\n/users\n/history\n/nonsense\n//etc\n/status\n";
    let output = plain(&cluster.addresses, &["--name", "bob"], input);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(!out.contains(|c: char| c.is_control() && c != '\n'), "{out:?}");
    assert!(
        out.contains("#all ada: red \\u{1b}[31m bell \\u{7} two\\u{a}lines \\u{202e}sdrawkcab"),
        "{out}"
    );
    assert!(out.contains("* connected to") && out.contains("as bob"), "{out}");
    assert!(out.contains("/kill-server") && out.contains("MA "), "{out}");
    assert_eq!(err, "cordee: no such command: /nonsense; /help lists them\n");
    ada.wait_for_body("hello");
    ada.wait_for_body("/etc");
}

#[test]
fn a_login_name_that_others_have_gets_a_number() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut ada = Client::start(&cluster.addresses, "ada");
    let state = tempfile::tempdir().expect("a directory for its sessions");
    let output = cordee()
        .arg("chat")
        .args(&cluster.addresses)
        .env("USER", "ada")
        .env("XDG_STATE_HOME", state.path())
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    assert!(text(&output.stdout).contains("as ada-2"), "{output:?}");
    ada.wait("ada-2", |event| event["event"] == "arrived" && event["name"] == "ada-2");
}

#[test]
fn a_signal_ends_the_client_cleanly() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut bob = Client::start(&cluster.addresses, "bob");
    for signal in [Signal::INT, Signal::TERM] {
        let mut ada = Client::start(&cluster.addresses, "ada");
        ada.say("last words");
        ada.wait_for("sent");
        kill_process(pid(ada.pid()), signal).expect("it runs");
        assert!(ada.finish().status.success());
        bob.wait("the departure", |event| event["event"] == "departed" && event["name"] == "ada");
    }
}

#[test]
fn the_session_file_gives_a_name_back_at_once() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let state = tempfile::tempdir().expect("a directory for sessions");
    let mut bob = Client::start(&cluster.addresses, "bob");
    for _ in 0..3 {
        let mut ada = Client::spawn(&cluster.addresses, &["--name", "ada"], Some(state.path()));
        ada.wait("connected", |event| event["event"] == "connected");
        kill_process(pid(ada.pid()), Signal::KILL).expect("it runs");
        ada.finish();
    }
    let file = state.path().join("cordee/sessions/cordee/ada");
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let refused = Client::spawn(&cluster.addresses, &["--name", "ada"], Some(state.path()));
    let done = refused.finish();
    assert_eq!(done.status.code(), Some(1));
    assert!(done.stderr[0].contains("chmod 600"), "{done:?}");
    bob.send(&json!({"users": true, "ref": "u"}));
    bob.wait("the list", |event| event["event"] == "users" && event["ref"] == "u");
    let went = |event: &serde_json::Value| event["event"] == "departed" && event["name"] == "ada";
    assert!(!bob.seen.iter().any(went), "who comes back at once never left");
}

/// A client on a terminal, and what it drew.
struct Terminal {
    process: Child,
    keys: Option<Arc<std::fs::File>>,
    hung_up: Arc<AtomicBool>,
    drawn: Receiver<Vec<u8>>,
    screen: String,
}

impl Terminal {
    fn start(servers: &[String], args: &[&str]) -> Terminal {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal");
        grantpt(&master).expect("ours");
        unlockpt(&master).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let slave = || {
            let mut options = std::fs::OpenOptions::new();
            options.read(true).write(true);
            options.open(name.to_str().expect("a path")).expect("it opens")
        };
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(slave(), size).expect("it has a size");
        let state = tempfile::tempdir().expect("a directory for its sessions");
        let process = Command::new(env!("CARGO_BIN_EXE_cordee"))
            .arg("chat")
            .args(args)
            .args(servers)
            .env("XDG_STATE_HOME", state.path())
            .env("TERM", "xterm")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .expect("the program runs");
        let keys = Arc::new(std::fs::File::from(master));
        let hung_up = Arc::new(AtomicBool::new(false));
        let (sender, drawn) = channel();
        thread::spawn({
            let (keys, hung_up) = (Arc::clone(&keys), Arc::clone(&hung_up));
            move || draw(&keys, &hung_up, &sender)
        });
        Terminal { process, keys: Some(keys), hung_up, drawn, screen: String::new() }
    }

    /// Closes the terminal under the client.
    fn hang_up(&mut self) {
        self.keys = None;
        self.hung_up.store(true, Ordering::Relaxed);
    }

    fn type_keys(&mut self, keys: &str) {
        let mut terminal = self.keys.as_deref().expect("it is not hung up");
        terminal.write_all(keys.as_bytes()).expect("it reads");
    }

    /// Waits until that was drawn after what was waited for before.
    fn wait_for(&mut self, what: &str) {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.screen.find(what) {
                self.screen.drain(..at + what.len());
                return;
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.drawn.recv_timeout(left) {
                Ok(bytes) => self.screen.push_str(&without_codes(&bytes)),
                Err(_) => panic!("waited in vain for {what:?}; drawn: {:?}", self.screen),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Takes what is drawn, until the terminal is hung up.
fn draw(mut terminal: &std::fs::File, hung_up: &AtomicBool, drawn: &Sender<Vec<u8>>) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let mut bytes = [0; 4_096];
    while !hung_up.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(&terminal, PollFlags::IN)];
        if poll(&mut fds, Some(&moment)).expect("it is open") == 0 {
            continue;
        }
        let Ok(count @ 1..) = terminal.read(&mut bytes) else { return };
        // Where is the cursor? A terminal answers; this one always alike.
        if bytes[..count].windows(4).any(|window| window == b"\x1b[6n") {
            let _ = terminal.write_all(b"\x1b[10;1R");
        }
        let _ = drawn.send(bytes[..count].to_vec());
    }
}

/// What was drawn, without the codes that colour it and move the cursor.
fn without_codes(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
            continue;
        }
        if chars.next() == Some('[') {
            chars.by_ref().find(|c| ('@'..='~').contains(c));
        }
    }
    out
}

#[test]
fn a_terminal_has_a_prompt_completion_and_messages_above_the_line() {
    let cluster = Cluster::start(&["--servers", "2", "--allow-kill"]);
    let port =
        |index: usize| cluster.addresses[index].rsplit(':').next().expect("a port").to_owned();
    let mut bob = Client::start(&cluster.addresses[1..], "bob");
    let mut ada = Terminal::start(&cluster.addresses[..1], &["--name", "ada"]);
    ada.wait_for("* here: ");
    ada.wait_for(&format!("ada #all {}> ", port(0)));
    ada.type_keys("half a li");
    ada.wait_for("half a li");
    bob.say("meanwhile");
    ada.wait_for("#all bob: meanwhile");
    ada.wait_for("half a li");
    ada.type_keys("ne\r");
    bob.wait_for_body("half a line");
    // Completion of a command, then of a name.
    ada.type_keys("/ms\t");
    ada.wait_for("/msg ");
    ada.type_keys("bo\t");
    ada.wait_for("bob ");
    ada.type_keys("psst\r");
    assert_eq!(bob.wait_for_body("psst")["with"], "ada");
    ada.type_keys("/join #ops\r");
    ada.wait_for(&format!("ada #ops {}> ", port(0)));
    // A crash shows in the prompt, and nowhere else.
    ada.type_keys("kill server\r");
    ada.wait_for(&format!("ada #ops {}> ", port(1)));
    ada.type_keys("/nonsense\r");
    ada.wait_for("! no such command: /nonsense");
    ada.type_keys("/quit\r");
    let status = wait_until("its end", || ada.process.try_wait().expect("it is ours"));
    assert!(status.success());
    bob.wait("the departure", |event| event["event"] == "departed" && event["name"] == "ada");
}

#[test]
fn a_terminal_that_is_hung_up_ends_the_client() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut bob = Client::start(&cluster.addresses, "bob");
    let mut ada = Terminal::start(&cluster.addresses, &["--name", "ada"]);
    ada.wait_for("> ");
    ada.hang_up();
    wait_until("its end", || ada.process.try_wait().expect("it is ours"));
    bob.wait("the departure", |event| event["event"] == "departed" && event["name"] == "ada");
}

#[test]
fn a_terminal_shows_the_lines_of_a_message_and_keeps_a_wide_line_that_is_typed() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut bob = Client::start(&cluster.addresses, "bob");
    let mut ada = Terminal::start(&cluster.addresses, &["--name", "ada"]);
    ada.wait_for("ada #all ");
    // More bytes than the terminal has columns, and fewer columns.
    let wide = "世界".repeat(14);
    ada.type_keys(&wide);
    ada.wait_for(&wide);
    bob.say("one\ntwo\u{1b}[31m");
    ada.wait_for("#all bob: one");
    ada.wait_for("    two\\u{1b}[31m");
    ada.wait_for(&wide);
    ada.type_keys("\r/talk nobody\r");
    bob.wait_for_body(&wide);
    ada.wait_for("! there is no such user");
    // The end of input leaves, too.
    ada.wait_for("ada #all ");
    ada.type_keys("\u{4}");
    let status = wait_until("its end", || ada.process.try_wait().expect("it is ours"));
    assert!(status.success());
}
