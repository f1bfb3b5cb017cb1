//! The client's driver against scripted servers on real sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use cordee_core::chat::client::Target;
use cordee_core::framing::{Deframer, FRAME_BYTES_MAX, frames};
use cordee_core::hash::session_id;
use cordee_core::ids::{AuthorId, Clock, Origin, OriginRef, ServerId, SessionId, Tag};
use cordee_core::wire::chat::{self, Attached, CaughtUp, Intent, ServerInfo, Servers, UserList};
use cordee_core::wire::entry::{Entry, Scope, flags};
use cordee_core::wire::hello::{Hello, Ping, Pong, Welcome};
use cordee_core::wire::{Message as _, Seq};
use cordee_net::client::{ChatClient, ChatConfig, ClientError, Command, Event, Events};

/// Longer than anything here takes; a test that reaches it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that does what the test says.
struct Server {
    listener: TcpListener,
    address: String,
}

/// A connection to it.
struct Conn {
    stream: TcpStream,
    deframer: Deframer,
    taken: Vec<(u8, Vec<u8>)>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        Server { listener, address }
    }

    fn id(&self) -> ServerId {
        ServerId(u64::from(self.listener.local_addr().expect("bound").port()))
    }

    /// Accepts a connection, and welcomes it.
    fn accept(&self) -> Conn {
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut conn = Conn { stream, deframer: Deframer::new(FRAME_BYTES_MAX), taken: Vec::new() };
        conn.expect(Hello::KIND);
        let origin = Origin { server: self.id(), incarnation: 1, nonce: 1 };
        conn.send(&Welcome {
            minor: 0,
            server: self.id(),
            origin,
            cluster_id: Tag([1; 16]),
            address: &self.address,
            body_bytes_max: 8_192,
            ping_ms: 500,
        });
        conn
    }

    /// Accepts a connection and attaches its session; `others` are the cluster's other servers.
    fn attach(&self, others: &[&Server]) -> Conn {
        let mut conn = self.accept();
        self.attach_on(&mut conn, others);
        conn
    }

    fn attach_on(&self, conn: &mut Conn, others: &[&Server]) {
        let payload = conn.expect(chat::Attach::KIND);
        let attach = chat::Attach::parse(&payload).expect("valid");
        let rooms: Vec<&str> = attach.rooms.iter().collect();
        conn.send(&Attached {
            session: session_id("test", &attach.secret),
            name: attach.name,
            intent: if attach.intent == Intent::Resume { Intent::Resume } else { Intent::New },
            author_number: attach.author_number,
            ma: 0,
            mt: 0,
            cut: Seq::default(),
            rooms: Seq::new(&rooms),
        });
        let state = chat::MemberState::Linked;
        let info = |server: &Server| (server.id(), server.address.clone());
        let all: Vec<_> = others.iter().copied().chain([self]).map(info).collect();
        let infos: Vec<_> = all
            .iter()
            .map(|(server, address)| ServerInfo { server: *server, address, state })
            .collect();
        conn.send(&Servers { servers: Seq::new(&infos) });
        conn.send(&UserList { request: 0, more: false, users: Seq::default() });
        conn.send(&CaughtUp { room: "" });
    }
}

impl Conn {
    fn send<'m>(&mut self, message: &impl cordee_core::wire::Message<'m>) {
        let mut bytes = Vec::new();
        message.put_frame(&mut bytes);
        self.stream.write_all(&bytes).expect("the client reads");
    }

    /// The payload of the next frame, which is of `kind`; pings are answered and left out.
    fn expect(&mut self, kind: u8) -> Vec<u8> {
        let (came, payload) = self.next().expect("a frame");
        assert_eq!(came, kind, "of the next frame");
        payload
    }

    /// The next frame, `None` at the end of the stream.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if !self.taken.is_empty() {
                let (kind, payload) = self.taken.remove(0);
                if kind == Ping::KIND {
                    let Ping { nonce } = Ping::parse(&payload).expect("valid");
                    self.send(&Pong { nonce });
                    continue;
                }
                return Some((kind, payload));
            }
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).expect("the client writes in time");
            if count == 0 {
                return None;
            }
            self.deframer.extend(&buffer[..count]);
            let whole = self.deframer.ready().expect("valid frames");
            self.taken.extend(frames(whole).map(|frame| (frame.kind, frame.payload.to_vec())));
            let length = whole.len();
            self.deframer.consume(length);
        }
    }
}

fn config(servers: &[&str]) -> ChatConfig {
    let servers = servers.iter().map(ToString::to_string).collect();
    let mut config = ChatConfig::new("test", servers).expect("random bytes");
    config.name = "ada".into();
    config
}

/// The next event that `pick` wants; others are passed over.
fn wait_for<T>(events: &mut Events, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    loop {
        let event = events.next_timeout(PATIENCE).expect("an event");
        if let Some(picked) = pick(event) {
            return picked;
        }
    }
}

fn connected_to(events: &mut Events) -> String {
    wait_for(events, |event| match event {
        Event::Connected { server, .. } => Some(server),
        _ => None,
    })
}

fn entry(number: u64, body: &str) -> Entry<'_> {
    Entry {
        origin: OriginRef(0),
        number,
        clock: Clock(number),
        author: AuthorId { session: SessionId(5), process: 1 },
        author_number: number,
        name: "bob",
        scope: Scope::Room("#all"),
        after: Seq::default(),
        body,
        tag: Tag([2; 16]),
        index: number,
        flags: flags::REPLAY,
    }
}

#[test]
fn a_client_comes_by_a_name_and_leaves_with_a_word() {
    let server = Server::start();
    let by_name = server.address.replace("127.0.0.1", "localhost");
    let (client, mut events) = ChatClient::start(config(&[&by_name])).expect("it starts");
    let mut conn = server.attach(&[]);
    assert_eq!(connected_to(&mut events), server.address);
    conn.send(&entry(1, "hello"));
    let body = wait_for(&mut events, |event| match event {
        Event::Message(message) => Some((message.from, message.body)),
        _ => None,
    });
    assert_eq!((&*body.0, &*body.1), ("bob", "hello"));
    // Bytes that the client does not read any more must not swallow its last word.
    client.send(Command::Quit).expect("it runs");
    for number in 2..2_000 {
        conn.send(&entry(number, "chatter"));
    }
    conn.expect(chat::Quit::KIND);
    assert!(conn.next().is_none());
    wait_for(&mut events, |event| matches!(event, Event::Closed { why: None, .. }).then_some(()));
    assert!(events.is_over() && events.next().is_none());
    assert!(matches!(client.send(Command::Reset), Err(ClientError::Closed)));
}

#[test]
fn when_its_server_goes_it_attaches_on_the_connection_that_stands_by() {
    let (first, second) = (Server::start(), Server::start());
    let (client, mut events) = ChatClient::start(config(&[&first.address])).expect("it starts");
    let mut conn = first.attach(&[&second]);
    assert_eq!(connected_to(&mut events), first.address);
    let mut standby = second.accept();
    let say = |body: &str| Command::Say {
        to: Target::Room("#all".into()),
        body: body.into(),
        reference: 7,
    };
    client.send(say("lost")).expect("it runs");
    conn.expect(chat::Say::KIND);
    drop(conn);
    second.attach_on(&mut standby, &[&first]);
    assert_eq!(connected_to(&mut events), second.address);
    let again = standby.expect(chat::Say::KIND);
    assert_eq!(chat::Say::parse(&again).expect("valid").body, "lost");
    client.close();
    let left = wait_for(&mut events, |event| match event {
        Event::Closed { unacknowledged, .. } => Some(unacknowledged),
        _ => None,
    });
    assert_eq!((left.len(), left[0].reference), (1, 7));
}

#[test]
fn whoever_takes_no_events_stops_the_reading_and_loses_nothing() {
    const COUNT: u64 = 100_000;
    // Before anybody connects: a server that is silent for so long is taken for dead.
    let body = "x".repeat(1_000);
    let mut bytes = Vec::new();
    (1..=COUNT).for_each(|number| entry(number, &body).put_frame(&mut bytes));
    let server = Server::start();
    let (client, mut events) = ChatClient::start(config(&[&server.address])).expect("it starts");
    let mut conn = server.attach(&[]);
    connected_to(&mut events);
    let mut stream = conn.stream.try_clone().expect("a socket");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a socket");
    // A hundred megabytes are more than sockets and events hold: without somebody who takes
    // events the writer gets stuck.
    let mut written = 0;
    while let Ok(count) = stream.write(&bytes[written..]) {
        written += count;
        assert!(written < bytes.len(), "somebody read it all");
    }
    stream.set_write_timeout(None).expect("a socket");
    let writer = std::thread::spawn(move || stream.write_all(&bytes[written..]));
    for number in 1..=COUNT {
        let came = wait_for(&mut events, |event| match event {
            Event::Message(message) => Some(message.index),
            _ => None,
        });
        assert_eq!(came, number);
    }
    writer.join().expect("no panic").expect("all is written");
    assert!(events.next_timeout(Duration::ZERO).is_none());
    client.close();
    while conn.next().is_some() {}
}

#[test]
fn a_client_that_finds_nobody_can_be_closed_and_dropped() {
    let nobody = Server::start().address;
    let (client, mut events) = ChatClient::start(config(&[&nobody])).expect("it starts");
    let unreachable = |event| matches!(event, Event::Error { reference: 0, .. }).then_some(());
    wait_for(&mut events, unreachable);
    drop(events);
    assert!(matches!(client.send(Command::Quit), Err(ClientError::Closed)));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let start = |change: &dyn Fn(&mut ChatConfig)| {
        let mut config = config(&["127.0.0.1:1"]);
        change(&mut config);
        ChatClient::start(config).map(|_| ()).expect_err("it makes no sense").to_string()
    };
    assert!(start(&|config| config.servers.clear()).contains("no server"));
    assert!(start(&|config| config.servers.push("here".into())).contains("\"here\""));
    assert!(start(&|config| config.name = "a b".into()).contains("\"a b\""));
    assert!(start(&|config| config.rooms.push("ops".into())).contains("\"ops\""));
}
