//! nats-server: three nodes joined by routes; kept messages in a stream of three replicas.
//!
//! The client protocol is text; see docs.nats.io, "Client Protocol", and for streams "JetStream
//! wire API reference". Subjects are short and there is one reply subject for all acknowledgements:
//! what costs the server least.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::failure::{Context, Failure, Result, broken};
use crate::process::{Process, free_ports, loopback};
use crate::swarm::{Event, Line, Speaker};
use crate::system::{SERVERS, System};

/// A cluster is ended after so long, whatever happens.
const LIFE_MAX: Duration = Duration::from_secs(300);
/// For a cluster to come up, and for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Subscription ids: the room, acknowledgements, answers of the API.
const ROOM: u64 = 1;
const ACKNOWLEDGEMENTS: u64 = 2;
const ANSWERS: u64 = 3;

/// Three nodes.
#[derive(Debug)]
pub(crate) struct Nats {
    ports: Vec<u16>,
    pids: Vec<u32>,
    /// The node that leads the stream.
    leader: usize,
    newcomers: u32,
    // Ended before their directory is removed.
    _processes: Vec<Process>,
    _directory: tempfile::TempDir,
}

/// Where the program is, if it is installed.
pub(crate) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let sbin = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let places = std::env::split_paths(&path).chain(sbin);
    places.map(|place| place.join("nats-server")).find(|program| program.is_file())
}

impl System for Nats {
    const NAME: &'static str = "nats";
    type Speaker = NatsSpeaker;

    fn start(kept: bool) -> Result<Self> {
        let Some(program) = program() else { return broken("nats-server is not installed") };
        let directory = tempfile::tempdir().when("a directory for nats-server")?;
        let ports = free_ports(2 * SERVERS as u16)?;
        let (ports, routes) = ports.split_at(SERVERS);
        let route_list: Vec<String> =
            routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let mut processes = Vec::new();
        for at in 0..SERVERS {
            let mut arguments: Vec<String> = ["-a", "127.0.0.1", "-p"].map(String::from).to_vec();
            arguments.push(ports[at].to_string());
            arguments.extend(["-n".to_string(), format!("n{at}")]);
            arguments.extend(["--cluster_name".to_string(), "bench".to_string()]);
            arguments.extend(["--cluster".to_string(), route_list[at].clone()]);
            arguments.extend(["--routes".to_string(), route_list.join(",")]);
            let directory = directory.path().join(at.to_string());
            arguments.extend(["-l".to_string(), format!("{}.log", directory.display())]);
            if kept {
                arguments.push("-js".to_string());
                arguments.extend(["-sd".to_string(), directory.display().to_string()]);
            }
            processes.push(Process::start(&program, arguments, LIFE_MAX)?);
        }
        let pids = processes.iter().map(Process::pid).collect::<Result<_>>()?;
        let ports = ports.to_vec();
        let mut nats = Nats {
            ports,
            pids,
            leader: 0,
            newcomers: 0,
            _processes: processes,
            _directory: directory,
        };
        nats.await_routes()?;
        if kept {
            nats.make_stream()?;
        }
        Ok(nats)
    }

    fn pids(&self) -> &[u32] {
        &self.pids
    }

    fn subscriber(&mut self, server: usize) -> Result<Line<NatsSpeaker>> {
        Ok(self.talk(server, &format!("SUB all {ROOM}\r\n"))?.into_line(false))
    }

    fn publisher(&mut self, server: usize) -> Result<Line<NatsSpeaker>> {
        Ok(self.talk(server, "")?.into_line(false))
    }

    fn keeper(&mut self) -> Result<Line<NatsSpeaker>> {
        Ok(self.talk(self.leader, &format!("SUB a {ACKNOWLEDGEMENTS}\r\n"))?.into_line(true))
    }

    fn newcomer(&mut self, server: usize) -> Result<Line<NatsSpeaker>> {
        self.newcomers += 1;
        let subject = format!("deliver{}", self.newcomers);
        let mut talk = self.talk(server, &format!("SUB {subject} {ROOM}\r\n"))?;
        let consumer = json!({
            "stream_name": "BENCH",
            "config": {
                "deliver_subject": subject,
                "deliver_policy": "all",
                "ack_policy": "none",
                "replay_policy": "instant",
                "mem_storage": true,
            },
        });
        talk.send(&request("$JS.API.CONSUMER.CREATE.BENCH", &consumer))?;
        Ok(talk.into_line(false))
    }

    fn kept(&mut self) -> Result<u64> {
        let info = self.talk(self.leader, "")?.ask("$JS.API.STREAM.INFO.BENCH", &json!({}))?;
        Ok(info["state"]["messages"].as_u64().unwrap_or(0))
    }

    fn settle(&mut self) -> Result<()> {
        // Interest travels between the nodes unasked and unacknowledged.
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    }
}

impl Nats {
    /// Connects, introduces, and lets the server confirm that it took `commands`.
    fn talk(&self, server: usize, commands: &str) -> Result<Talk> {
        let stream = TcpStream::connect(loopback(self.ports[server])).when("nats-server")?;
        stream.set_read_timeout(Some(PATIENCE)).when("a socket")?;
        stream.set_nodelay(true).when("a socket")?;
        let mut talk = Talk { stream, bytes: Vec::new() };
        let options = r#"{"verbose":false,"pedantic":false,"lang":"bench","version":"0"}"#;
        talk.send(&format!("CONNECT {options}\r\n{commands}PING\r\n"))?;
        talk.await_frame(|frame| matches!(frame, Frame::Pong).then_some(()))?;
        Ok(talk)
    }

    /// Waits until a word said at any node is heard at every other.
    fn await_routes(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let connect = |at| {
            loop {
                match self.talk(at, &format!("SUB routes {ANSWERS}\r\n")) {
                    Ok(talk) => return Ok(talk),
                    Err(error) if Instant::now() > end => return Err(error),
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        };
        let mut talks = (0..SERVERS).map(connect).collect::<Result<Vec<Talk>>>()?;
        for from in 0..SERVERS {
            for to in (0..SERVERS).filter(|to| *to != from) {
                let word = format!("{from}{to}");
                loop {
                    talks[from].send(&format!("PUB routes 2\r\n{word}\r\n"))?;
                    if talks[to].hears(word.as_bytes(), Duration::from_millis(50))? {
                        break;
                    }
                    if Instant::now() > end {
                        return broken("the nodes of nats-server do not link");
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a stream of three replicas in memory, once JetStream has a leader.
    fn make_stream(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let stream = json!({
            "name": "BENCH",
            "subjects": ["kept"],
            "storage": "memory",
            "num_replicas": SERVERS,
            "retention": "limits",
        });
        loop {
            // Answers to questions asked too early never come, so each is asked anew.
            let mut talk = self.talk(0, "")?;
            talk.stream.set_read_timeout(Some(Duration::from_secs(1))).when("a socket")?;
            let answer = talk.ask("$JS.API.STREAM.CREATE.BENCH", &stream);
            let leader =
                answer.as_ref().ok().and_then(|answer| answer["cluster"]["leader"].as_str());
            if let Some(at) = leader.and_then(|leader| leader.strip_prefix('n')?.parse().ok()) {
                self.leader = at;
                break;
            }
            if Instant::now() > end {
                return broken(format!("JetStream does not make a stream: {answer:?}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// A request to the API, answered to the subject `api`.
fn request(subject: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("SUB api {ANSWERS}\r\nPUB {subject} api {}\r\n{body}\r\n", body.len())
}

/// A conversation before the load.
#[derive(Debug)]
struct Talk {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Talk {
    fn send(&mut self, commands: &str) -> Result<()> {
        self.stream.write_all(commands.as_bytes()).when("writing to nats-server")
    }

    fn ask(&mut self, subject: &str, body: &Value) -> Result<Value> {
        self.send(&request(subject, body))?;
        self.await_frame(|frame| match frame {
            Frame::Message { sid: ANSWERS, payload } => serde_json::from_slice(payload).ok(),
            _ => None,
        })
    }

    /// Whether `word` comes within `wait`.
    fn hears(&mut self, word: &[u8], wait: Duration) -> Result<bool> {
        self.stream.set_read_timeout(Some(wait)).when("a socket")?;
        let is_word = |frame: Frame<'_>| {
            matches!(frame, Frame::Message { payload, .. } if payload == word).then_some(())
        };
        match self.await_frame(is_word) {
            Ok(()) => Ok(true),
            Err(Failure::Io { error, .. }) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads until `take` finds what it waits for.
    fn await_frame<T>(&mut self, mut take: impl FnMut(Frame<'_>) -> Option<T>) -> Result<T> {
        let mut piece = [0; 4096];
        loop {
            while let Some((length, frame)) = next_frame(&self.bytes)? {
                let taken = take(frame);
                self.bytes.drain(..length);
                if let Some(taken) = taken {
                    return Ok(taken);
                }
            }
            let count = self.stream.read(&mut piece).when("reading from nats-server")?;
            if count == 0 {
                return broken("nats-server closed a connection");
            }
            self.bytes.extend_from_slice(&piece[..count]);
        }
    }

    fn into_line(self, keeps: bool) -> Line<NatsSpeaker> {
        Line { stream: self.stream, early: self.bytes, speaker: NatsSpeaker { keeps } }
    }
}

/// A client of nats-server.
#[derive(Debug)]
pub(crate) struct NatsSpeaker {
    /// Whether it publishes to the stream.
    keeps: bool,
}

impl Speaker for NatsSpeaker {
    #[inline]
    fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(usize, Event<'a>)>> {
        let Some((length, frame)) = next_frame(bytes)? else { return Ok(None) };
        let event = match frame {
            Frame::Message { sid: ROOM, payload } => Event::Message(payload),
            Frame::Message { sid: ACKNOWLEDGEMENTS, payload } => {
                if !payload.starts_with(b"{\"stream\"") {
                    return broken(format!("not kept: {}", String::from_utf8_lossy(payload)));
                }
                Event::Acknowledged(1)
            }
            Frame::Message { payload, .. } => {
                if payload.windows(7).any(|window| window == b"\"error\"") {
                    return broken(format!("refused: {}", String::from_utf8_lossy(payload)));
                }
                Event::Other
            }
            Frame::Ping => Event::Answer(b"PONG\r\n"),
            Frame::Pong | Frame::Other => Event::Other,
        };
        Ok(Some((length, event)))
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        let command: &[u8] = if self.keeps { b"PUB kept a " } else { b"PUB all " };
        out.extend_from_slice(command);
        let _ = write!(out, "{}", payload.len());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }
}

/// What nats-server sends.
#[derive(Debug)]
enum Frame<'a> {
    Message { sid: u64, payload: &'a [u8] },
    Ping,
    Pong,
    Other,
}

/// The first frame and its length: `MSG subject sid [reply] bytes\r\n`, the payload and `\r\n`, or
/// one line.
#[inline]
fn next_frame(bytes: &[u8]) -> Result<Option<(usize, Frame<'_>)>> {
    let Some(fields) = bytes.strip_prefix(b"MSG ") else { return next_line(bytes) };
    let (mut field, mut number, mut sid) = (0, 0_u64, 0);
    for (at, byte) in fields.iter().enumerate() {
        match byte {
            b' ' => {
                field += 1;
                if field == 2 {
                    sid = number;
                }
                number = 0;
            }
            b'\n' => {
                let payload = at + 5;
                let Some(bytes) = bytes.get(payload..payload + number as usize + 2) else {
                    return Ok(None);
                };
                let length = payload + bytes.len();
                let payload = &bytes[..bytes.len() - 2];
                return Ok(Some((length, Frame::Message { sid, payload })));
            }
            b'\r' => {}
            digit => number = number.wrapping_mul(10).wrapping_add(u64::from(digit & 15)),
        }
    }
    Ok(None)
}

#[cold]
fn next_line(bytes: &[u8]) -> Result<Option<(usize, Frame<'_>)>> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let frame = match &bytes[..end + 1] {
        b"PING\r\n" => Frame::Ping,
        b"PONG\r\n" => Frame::Pong,
        line if line.starts_with(b"-ERR") => {
            return broken(format!("nats-server: {}", String::from_utf8_lossy(line).trim_end()));
        }
        _ => Frame::Other,
    };
    Ok(Some((end + 1, frame)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_the_bytes_end() {
        let bytes = b"PING\r\nMSG all 1 5\r\nab\r\nc\r\nMSG all 2 reply.3 1\r\nx\r\n+OK\r\n";
        let mut seen = Vec::new();
        let mut at = 0;
        for end in 0..=bytes.len() {
            while let Some((length, frame)) = next_frame(&bytes[at..end]).expect("valid") {
                seen.push(format!("{frame:?}"));
                at += length;
            }
        }
        let (five, one) = (b"ab\r\nc".as_slice(), b"x".as_slice());
        let expected = [
            Frame::Ping,
            Frame::Message { sid: 1, payload: five },
            Frame::Message { sid: 2, payload: one },
            Frame::Other,
        ];
        assert_eq!(seen, expected.map(|frame| format!("{frame:?}")));
        assert!(next_frame(b"-ERR 'no'\r\n").is_err());
    }
}
