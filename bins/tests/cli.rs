//! What the command line promises: help, exit codes, one line on what is wrong.

mod common;

use common::{run, text};

#[test]
fn help_is_everywhere_with_an_example() {
    for command in
        [&[][..], &["up"], &["chat-server"], &["block-server"], &["chat"], &["status"], &["forget"]]
    {
        for help in ["--help", "-h", "help"] {
            let output = run(&[command, &[help]].concat());
            assert_eq!(output.status.code(), Some(0), "{command:?} {help}");
            let text = text(&output.stdout);
            assert!(text.starts_with("Usage: cordee"), "{text}");
            assert!(text.contains("Examples:"), "{text}");
            assert!(!text.contains("__"), "nothing internal is shown: {text}");
            assert!(output.stderr.is_empty());
        }
    }
}

#[test]
fn wrong_usage_is_2_and_one_line() {
    for (args, names) in [
        (&[][..], "--help"),
        (&["fly"], "fly"),
        (&["chat", "--fly"], "--fly"),
        (&["chat", "127.0.0.1:x"], "127.0.0.1:x"),
        (&["chat", "--name", "no spaces"], "no spaces"),
        (&["chat", "--name", "ada", "--room", "ops"], "ops"),
        (&["chat", "--name", "ada", "--cluster", ""], "--cluster"),
        (&["chat-server", "--servers", "0"], "--servers"),
        (&["chat-server", "--servers", "65"], "--servers"),
        (&["chat-server", "-p", "65535"], "65535"),
        (&["chat-server", "-p", "65536"], "65536"),
        (&["chat-server", "-i", "127.0.0.1:5000"], "-p"),
        (&["chat-server", "-i", "0.0.0.0"], "--advertise"),
        (&["chat-server", "--limit", "0"], "--limit"),
        (&["chat-server", "--limit", "9", "--hard-limit", "8"], "--hard-limit"),
        (&["chat-server", "--copies", "0"], "--copies"),
        (&["chat-server", "--secret-file", "x"], "--secret-file"),
        (&["block-server"], "dir"),
        (&["block-server", ".", "-i", "127.0.0.1:4545"], "-p"),
        (&["block-server", ".", "-p", "65536"], "65536"),
        (&["block-server", ".", "--threads", "0"], "--threads"),
        (&["block-server", ".", "--limit-rate", "0"], "--limit-rate"),
        (&["block-server", ".", "--limit-rate", "fast"], "fast"),
        (&["block-server", ".", "--block-size", "1000"], "power of two"),
        (&["block-server", ".", "--connections", "0"], "--connections"),
        (&["__block-server"], "cordee alone"),
        (&["forget"], "server"),
        (&["status", "a b:1"], "a b:1"),
        (&["fetch", ""], "names nothing"),
        (&["fetch", "/"], "names nothing"),
        (&["__chat-server"], "cordee alone"),
    ] {
        let output = run(args);
        let text = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(text.starts_with("cordee: ") && text.contains(names), "{args:?}: {text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_cannot_be_done_is_1_and_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    for (args, names) in [
        (&["chat-server", "--servers", "1", "-p", &port][..], port.as_str()),
        (&["chat-server", "-i", "192.0.2.1"], "192.0.2.1"),
        (&["block-server", ".", "-p", &port], port.as_str()),
        (&["block-server", "/nonexistent/files", "-p", "0"], "/nonexistent/files"),
        (&["chat", "--name", "ada", "--session", "/dev/null"], "/dev/null"),
        (&["chat", "--name", "ada", "--session", "/nonexistent/file"], "/nonexistent/file"),
        (&["status", "127.0.0.1:1"], "127.0.0.1:1"),
        (&["forget", "127.0.0.1:2", "-p", "1"], "127.0.0.1:1"),
    ] {
        let output = run(args);
        let text = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(text.starts_with("cordee: ") && text.contains(names), "{args:?}: {text}");
    }
}

#[test]
fn status_of_nobody_is_a_json_line_all_the_same() {
    let output = run(&["status", "--json", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(line["address"], "127.0.0.1:1");
    assert!(line["error"].as_str().is_some_and(|error| error.starts_with("nobody answers")));
    assert!(output.stderr.is_empty());
}
