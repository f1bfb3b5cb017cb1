//! The client on a terminal, against real servers.

mod common;

use common::terminal::Terminal;
use common::{Client, Cluster, pid, wait_until};
use rustix::process::{Signal, kill_process};

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

#[test]
fn a_terminal_that_says_not_where_its_cursor_is_gets_plain_lines() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut bob = Client::start(&cluster.addresses, "bob");
    let mut ada = Terminal::start_mute(&cluster.addresses, &["--name", "ada"], "xterm");
    ada.type_keys("typed early\r");
    ada.wait_for("does not say where its cursor is: plain lines");
    ada.wait_for("* connected to ");
    bob.wait_for_body("typed early");
    // An answer that comes late is no part of what is said.
    ada.type_keys("\u{1b}[10;1Rlate\n");
    bob.wait_for_body("late");
    bob.say("heard");
    ada.wait_for("#all bob: heard");
    ada.type_keys("\u{4}");
    let status = wait_until("its end", || ada.process.try_wait().expect("it is ours"));
    assert!(status.success());
}

#[test]
fn a_dumb_terminal_gets_plain_lines() {
    let cluster = Cluster::start(&["--servers", "1"]);
    let mut bob = Client::start(&cluster.addresses, "bob");
    let mut ada = Terminal::start_mute(&cluster.addresses, &["--name", "ada"], "dumb");
    ada.wait_for("TERM=dumb): plain lines");
    ada.wait_for("* connected to ");
    ada.type_keys("hello\n");
    bob.wait_for_body("hello");
    ada.type_keys("/quit\n");
    let status = wait_until("its end", || ada.process.try_wait().expect("it is ours"));
    assert!(status.success());
    assert!(!ada.drew_codes(), "nothing but text was drawn");
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let cluster = Cluster::start(&["--servers", "1"]);
    for answers in [false, true] {
        let args = ["--name", "ada"];
        let mut ada = match answers {
            true => Terminal::start(&cluster.addresses, &args),
            // It is still waiting for the answer.
            false => Terminal::start_mute(&cluster.addresses, &args, "xterm"),
        };
        ada.wait_for_code();
        if answers {
            ada.wait_for("ada #all ");
        }
        wait_until("keys to be read one by one", || (!ada.is_as_it_was()).then_some(()));
        kill_process(pid(ada.process.id().into()), Signal::TERM).expect("it runs");
        let status = wait_until("its end", || ada.process.try_wait().expect("it is ours"));
        assert!(status.success(), "{status}");
        assert!(ada.is_as_it_was());
    }
}

#[test]
fn what_is_typed_before_a_server_is_there_is_kept_or_listed() {
    let reserved = cordee_net::supervise::ReservedPort::new(([127, 0, 0, 1], 0).into());
    let nobody = reserved.expect("a free port");
    let servers = [nobody.address().to_string()];
    let mut ada = Terminal::start(&servers, &["--name", "ada"]);
    ada.wait_for("connecting ");
    ada.wait_for("start some with cordee up");
    ada.type_keys("am I said?\r");
    ada.type_keys("/quit\r");
    ada.wait_for("not all you said is acknowledged");
    ada.wait_for("not acknowledged: am I said?");
    let status = wait_until("its end", || ada.process.try_wait().expect("it is ours"));
    assert_eq!(status.code(), Some(1));

    let cluster = Cluster::start(&["--servers", "1"]);
    let mut bob = Client::start(&cluster.addresses, "bob");
    let mut eve = Terminal::start(&cluster.addresses, &["--name", "eve"]);
    eve.type_keys("said at once\r");
    bob.wait_for_body("said at once");
}
