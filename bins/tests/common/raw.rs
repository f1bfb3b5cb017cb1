//! Connections of our own making, for what no honest program sends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use cordee_core::framing::{Deframer, frames, put_frame};
use cordee_core::ids::{SessionId, SessionSecret};
use cordee_core::wire::chat::{Attach, Attached, Failed, Intent, Say};
use cordee_core::wire::entry::Scope;
use cordee_core::wire::hello::{Bye, Hello, Magic, Role, Transport, Welcome};
use cordee_core::wire::{Fixed64, Message, Reason, Seq, VERSION_MAJOR};

/// A connection of our own making.
pub struct Raw {
    pub stream: TcpStream,
    deframer: Deframer,
}

impl Raw {
    pub fn connect(address: &str) -> Raw {
        Raw::over(TcpStream::connect(address).expect("it listens"))
    }

    /// Over a connection that stands.
    pub fn over(stream: TcpStream) -> Raw {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        stream.set_write_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        Raw { stream, deframer: Deframer::new(65_519) }
    }

    /// A connection on which the hello was accepted.
    pub fn greet(address: &str, role: Role) -> (Raw, Vec<u8>) {
        let mut raw = Raw::connect(address);
        raw.send_message(&Hello { role, ..hello() });
        let (_, payload) = raw.next(&[Welcome::KIND]).expect("welcome");
        (raw, payload)
    }

    /// Sends bytes; whether they were taken.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        // It may have been closed already: the answer says why.
        self.stream.write_all(bytes).is_ok()
    }

    pub fn send_message<'a>(&mut self, message: &impl Message<'a>) -> bool {
        self.send(&encoded(message))
    }

    /// The next frame of one of these kinds; `None` at the end of the stream.
    pub fn next(&mut self, kinds: &[u8]) -> Option<(u8, Vec<u8>)> {
        loop {
            let whole = self.deframer.ready().expect("a server sends whole frames").to_vec();
            if let Some(frame) = frames(&whole).next() {
                self.deframer.consume(frame.payload.len() + 5);
                if kinds.contains(&frame.kind) {
                    return Some((frame.kind, frame.payload.to_vec()));
                }
                continue;
            }
            let mut buffer = [0; 4_096];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.deframer.extend(&buffer[..count]),
            }
        }
    }

    /// Why the server closes the connection.
    pub fn reason(&mut self) -> Reason {
        let (_, payload) = self.next(&[Bye::KIND]).expect("the server says why");
        let reason = Bye::parse(&payload).expect("valid").reason;
        assert!(self.next(&[]).is_none(), "then the connection ends");
        reason
    }

    /// Says hello and comes in under that name, with a secret made of it.
    pub fn attach(&mut self, name: &str) -> SessionId {
        self.send_message(&hello());
        self.send_message(&attach(name));
        let (_, payload) = self.next(&[Attached::KIND]).expect("attached");
        Attached::parse(&payload).expect("valid").session
    }

    pub fn say(&mut self, number: u64, scope: Scope<'_>, body: &str) -> bool {
        self.send_message(&Say { number, scope, after: Seq::default(), body })
    }

    /// Why the last request was not granted.
    pub fn refusal(&mut self) -> Reason {
        let (_, payload) = self.next(&[Failed::KIND]).expect("refused");
        Failed::parse(&payload).expect("valid").reason
    }
}

/// What a client of this cluster says first.
pub fn hello() -> Hello<'static> {
    Hello {
        magic: Magic,
        major: VERSION_MAJOR,
        minor: 0,
        role: Role::Client,
        transport: Transport::Plain,
        key_id: Fixed64(0),
        cluster: "cordee",
    }
}

/// How somebody of that name comes in.
pub fn attach(name: &str) -> Attach<'_> {
    let mut secret = [0; 16];
    let cut = name.len().min(16);
    secret[..cut].copy_from_slice(&name.as_bytes()[..cut]);
    Attach {
        secret: SessionSecret(secret),
        process: Fixed64(7),
        attachment: 1,
        intent: Intent::New,
        name,
        reservation: Fixed64(0),
        hops: 0,
        author_number: 0,
        rooms: Seq::default(),
        seen: Seq::default(),
        partial: Seq::default(),
    }
}

pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, kind, |out| out.extend_from_slice(payload));
    bytes
}

pub fn encoded<'a>(message: &impl Message<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.put_frame(&mut bytes);
    bytes
}
