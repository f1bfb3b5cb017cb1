//! The client's faces for lines and for JSON, against real servers.

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use common::{Client, Cluster, cordee, pid, run, text};
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
    ada.wait("the topic to be set", |event| event["event"] == "done" && event["ref"] == 3);
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
    bob.send(&json!({"name": "robert", "ref": "n"}));
    let renamed = ada.wait_for("renamed");
    assert_eq!((&renamed["from"], &renamed["to"]), (&json!("bob"), &json!("robert")));
    assert_eq!(renamed["own"], false);
    // These two come in either order.
    let (mut own, mut done) = (false, false);
    bob.wait("the name to be taken", |event| {
        own |= event["event"] == "renamed" && event["own"] == true;
        done |= event["event"] == "done" && event["ref"] == "n";
        own && done
    });
    bob.send(&json!({"reset": true, "ref": "all of it"}));
    bob.wait("the archive", |event| event["event"] == "done" && event["ref"] == "all of it");
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
    assert_eq!(output.status.code(), Some(1), "a line of it was no command: {out}{err}");
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

#[test]
fn a_client_with_nothing_to_say_ends_while_one_with_something_still_looks_for_a_server() {
    let reserved = cordee_net::supervise::ReservedPort::new(([127, 0, 0, 1], 0).into());
    let nobody = reserved.expect("a free port");
    let servers = [nobody.address().to_string()];
    let mut says = Client::spawn(&servers, &["--name", "ada"], None);
    says.say("one");
    let mut asks = Client::spawn(&servers, &["--name", "eve"], None);
    asks.send_line(r#"{"users":true,"ref":"u"}"#);
    says.end_input();
    asks.end_input();
    let output = plain(&servers, &["--name", "bob"], "");
    assert!(!says.has_ended() && !asks.has_ended(), "these look for a server for 10 seconds");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stderr).contains("start some with cordee up"), "{output:?}");
    let done = says.finish();
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(done.stderr, ["cordee: not acknowledged: one"]);
    let done = asks.finish();
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(done.stderr, ["cordee: not answered: 1 request"]);
    let last = done.seen.last().expect("events");
    assert_eq!((&last["code"], &last["ref"]), (&json!("not_answered"), &json!("u")));
}

#[test]
fn nothing_invisible_hides_in_plain_lines_and_json_stays_exact() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut ada = Client::start(&cluster.addresses, "ada");
    let mut bob = Client::start(&cluster.addresses, "bob");
    let body =
        "pay\u{200b}pal \u{202e}\u{2060}\u{feff}\u{ad}\u{e0041} 👩\u{200d}💻 می\u{200c}خواهم";
    ada.say(body);
    ada.send(&json!({"topic": "no\u{200e}thing"}));
    bob.wait_for_body(body);
    assert_eq!(bob.wait_for("topic")["topic"], "no\u{200e}thing");
    let output = plain(&cluster.addresses, &["--name", "eve"], "/rooms\n/history\n");
    let out = text(&output.stdout);
    let shown = "ada: pay\\u{200b}pal \\u{202e}\\u{2060}\\u{feff}\\u{ad}\\u{e0041} \
                 👩\u{200d}💻 می\u{200c}خواهم";
    assert_eq!(out.matches(shown).count(), 2, "{out}");
    assert!(out.contains("no\\u{200e}thing"), "{out}");
    // A name that nobody sees is none.
    for name in ["\u{3164}", "a\u{200b}b"] {
        let refused = run(&["chat", "--name", name, &cluster.addresses[0]]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
}

#[test]
fn a_session_file_serves_one_client_at_a_time() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let state = tempfile::tempdir().expect("a directory for sessions");
    let file = state.path().join("mine");
    let file = file.to_str().expect("a path");
    let args = ["--session", file, "--name", "ada"];
    let ada = Client::start_with(&cluster.addresses, &args);
    let output = run(&["chat", &cluster.addresses[0], "--session", file, "--name", "bob"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains(file) && told.contains("in use by another client"), "{told}");
    assert!(ada.finish().status.success());
    // It is the same user, under another name.
    let bob = Client::start_with(&cluster.addresses, &["--session", file, "--name", "bob"]);
    assert!(bob.finish().status.success());
}

#[test]
fn a_server_is_named_by_i_and_p_too() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let (host, port) = cluster.addresses[0].rsplit_once(':').expect("an address");
    let output = plain(&[], &["-i", host, "-p", port, "--name", "ada"], "here\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = plain(&[], &["--port", port, "--name", "ada", "--room", "ops"], "");
    assert_eq!(output.status.code(), Some(2), "a room's name has its #: {output:?}");
    let args = ["--port", port, "--name", "ada", "--room", "#Ops"];
    let output = plain(&[], &args, "in here\n/search IN HERE\n/history 1\n/search nothing\n");
    let out = text(&output.stdout);
    assert!(
        out.contains("* 1 found, the newest first") && out.contains("* 1 of 1 messages of #ops"),
        "{out}"
    );
    assert_eq!(out.matches("#ops ada: in here").count(), 2, "{out}");
    assert!(out.contains("* 0 found"), "{out}");
}

#[test]
fn a_second_signal_ends_a_client_that_waits_for_an_acknowledgement() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut ada = Client::start(&cluster.addresses, "ada");
    // The server is there and says nothing: only a second signal ends the wait.
    let stopped = cluster.signal(0, Signal::STOP);
    ada.say("unheard");
    ada.say("");
    ada.wait_for("error");
    kill_process(pid(ada.pid()), Signal::INT).expect("it runs");
    ada.send(&json!({"say": "too late", "ref": "late"}));
    kill_process(pid(ada.pid()), Signal::INT).expect("it runs");
    let done = ada.finish();
    assert_eq!(done.status.code(), Some(1));
    assert!(done.stderr.contains(&"cordee: not acknowledged: unheard".to_owned()), "{done:?}");
    kill_process(pid(stopped), Signal::CONT).expect("it is there");
}

#[test]
fn with_reset_every_change_of_server_brings_the_archive_again() {
    let cluster = Cluster::start(&["--servers", "2"]);
    let mut bob = Client::start(&cluster.addresses[1..], "bob");
    let mut ada = Client::start_with(&cluster.addresses[..1], &["--name", "ada", "--reset"]);
    bob.say("one");
    ada.say("two");
    ada.wait_for_body("one");
    bob.wait_for_body("two");
    cluster.wait_until_equal();
    let server = ada.status()["server"].clone();
    let own = cluster.addresses.iter().position(|address| server == json!(address));
    let own = own.expect("one of the two");
    let killed = cluster.kill(own);
    ada.wait("another server", |event| event["event"] == "connected" && event["server"] != server);
    ada.wait("the archive", |event| event["event"] == "caught_up");
    let mut bodies = ada.bodies();
    assert_eq!(bodies.remove(0), "one");
    bodies.sort();
    assert_eq!(bodies, ["one", "two"], "all of it again, one's own, too");
    assert_eq!(ada.wait_until_drained(), 2);
    cluster.wait_until_back(own, killed);
}

#[test]
fn lines_are_taken_in_order_whatever_was_answered_by_then() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut bob = Client::start(&cluster.addresses, "bob");
    let input = "/join #x\nthere\n/leave\nhere\n";
    let output = plain(&cluster.addresses, &["--name", "ada"], input);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(bob.wait_for_body("here")["room"], "#all");
    assert!(!bob.bodies().contains(&"there".to_owned()));
    let input = "/join #bad!\nhere all the same\n";
    let output = plain(&cluster.addresses, &["--name", "eve"], input);
    assert_eq!(output.status.code(), Some(1), "a line of it was refused: {output:?}");
    assert_eq!(bob.wait_for_body("here all the same")["room"], "#all");
}

#[test]
fn whatever_is_not_said_shows_in_the_exit_code() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let long = "x".repeat(70_000) + "\n";
    for (args, input) in [
        (&["--name", "ada"][..], long.as_str()),
        (&["--name", "ada"], "/fly\n"),
        (&["--name", "ada", "--json"], "{\"say\":5}\n"),
        (&["--name", "ada", "--json"], "nonsense\n"),
    ] {
        let output = plain(&cluster.addresses, args, input);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn every_message_has_its_answer_when_the_servers_refuse_the_client() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let says: String = (0..50).map(|at| format!("{{\"say\":\"{at}\",\"ref\":{at}}}\n")).collect();
    for _ in 0..5 {
        let args = ["--name", "ada", "--json", "--cluster", "another"];
        let output = plain(&cluster.addresses, &args, &says);
        assert_eq!(output.status.code(), Some(1));
        let out = text(&output.stdout);
        for at in 0..50 {
            let answer = format!("\"ref\":{at}}}");
            assert_eq!(out.matches(&answer).count(), 1, "{at}: {out}");
        }
    }
}
