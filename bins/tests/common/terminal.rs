//! A client on a pseudo-terminal.

use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use super::PATIENCE;

/// A client on a terminal, and what it drew.
pub struct Terminal {
    /// The client.
    pub process: Child,
    keys: Option<Arc<std::fs::File>>,
    hung_up: Arc<AtomicBool>,
    drawn: Receiver<Vec<u8>>,
    screen: String,
    codes: bool,
}

impl Terminal {
    /// On a terminal that answers.
    pub fn start(servers: &[String], args: &[&str]) -> Terminal {
        Terminal::start_as(servers, args, "xterm", true)
    }

    /// On a terminal that does not answer what it is asked, and calls itself `term`.
    pub fn start_mute(servers: &[String], args: &[&str], term: &str) -> Terminal {
        Terminal::start_as(servers, args, term, false)
    }

    fn start_as(servers: &[String], args: &[&str], term: &str, answers: bool) -> Terminal {
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
            .env("TERM", term)
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
            move || draw(&keys, &hung_up, answers, &sender)
        });
        Terminal { process, keys: Some(keys), hung_up, drawn, screen: String::new(), codes: false }
    }

    /// Closes the terminal under the client.
    pub fn hang_up(&mut self) {
        self.keys = None;
        self.hung_up.store(true, Ordering::Relaxed);
    }

    /// Types.
    pub fn type_keys(&mut self, keys: &str) {
        let mut terminal = self.keys.as_deref().expect("it is not hung up");
        terminal.write_all(keys.as_bytes()).expect("it reads");
    }

    /// Waits until that was drawn after what was waited for before.
    pub fn wait_for(&mut self, what: &str) {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.screen.find(what) {
                self.screen.drain(..at + what.len());
                return;
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.drawn.recv_timeout(left) {
                Ok(bytes) => {
                    self.codes |= bytes.contains(&0x1b);
                    self.screen.push_str(&without_codes(&bytes));
                }
                Err(_) => panic!("waited in vain for {what:?}; drawn: {:?}", self.screen),
            }
        }
    }
}

impl Terminal {
    /// Whether anything was drawn so far by escape codes.
    pub fn drew_codes(&self) -> bool {
        self.codes
    }

    /// Waits until something is drawn by an escape code.
    pub fn wait_for_code(&mut self) {
        while !self.codes {
            let bytes = self.drawn.recv_timeout(PATIENCE).expect("it draws");
            self.codes |= bytes.contains(&0x1b);
            self.screen.push_str(&without_codes(&bytes));
        }
    }

    /// Whether the terminal edits lines itself, as it does for whoever does not want otherwise.
    pub fn is_as_it_was(&self) -> bool {
        let terminal = self.keys.as_deref().expect("it is not hung up");
        let modes = rustix::termios::tcgetattr(terminal).expect("a terminal").local_modes;
        use rustix::termios::LocalModes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Takes what is drawn, until the terminal is hung up.
fn draw(
    mut terminal: &std::fs::File,
    hung_up: &AtomicBool,
    answers: bool,
    drawn: &Sender<Vec<u8>>,
) {
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
        if answers && bytes[..count].windows(4).any(|window| window == b"\x1b[6n") {
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
