//! A loopback cluster: three servers in this process, clients that speak the protocol on their
//! sockets and do no more than they must.
//!
//! Figures beside another system's, server CPU and memory: `net/benches/peers/chat`.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use cordee_core::Limits;
use cordee_core::framing::{Deframer, FRAME_BYTES_MAX, Frame, frames};
use cordee_core::ids::SessionSecret;
use cordee_core::wire::chat::{Ack, Attach, CaughtUp, Intent, Say};
use cordee_core::wire::entry::{Entry, Scope};
use cordee_core::wire::hello::{Bye, Hello, Magic, Role, Transport};
use cordee_core::wire::{Fixed64, Message, Seq, VERSION_MAJOR, VERSION_MINOR};
use cordee_net::server::{ChatServer, RunningServer, ServerConfig};
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};

const CLUSTER: &str = "bench";
const SERVERS: usize = 3;
/// Messages that each publisher sends before anyone is waited for.
const BATCH: u64 = 1_000;
/// Entries that a newcomer receives.
const ENTRIES: u64 = 50_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Three linked servers. Dropping it stops them.
struct Cluster {
    servers: Vec<RunningServer>,
    clients: u64,
}

impl Cluster {
    fn start() -> Self {
        let mut servers: Vec<RunningServer> = Vec::new();
        for _ in 0..SERVERS {
            let listen = SocketAddr::from(([127, 0, 0, 1], 0));
            let mut config = ServerConfig::new(listen, CLUSTER);
            config.peers = servers.iter().map(|server| server.local_addr().to_string()).collect();
            // What is measured does not depend on how long it is measured.
            config.limits = Limits { archive_bytes_max: 64 << 20, ..Limits::default() };
            servers.push(ChatServer::start(config).expect("a server on a free port"));
        }
        Cluster { servers, clients: 0 }
    }

    /// A client that is in the common room and has what was said there.
    fn join(&mut self, server: usize) -> Client {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut client = self.attach(server);
            let mut caught_up = false;
            let mut refused = false;
            while !caught_up && !refused {
                client.read(|frame| {
                    caught_up |= frame.kind == CaughtUp::KIND;
                    refused |= frame.kind == Bye::KIND;
                });
            }
            if caught_up {
                return client;
            }
            assert!(Instant::now() < end, "a server does not take a client");
            // It holds not yet what the others do.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A client that has just asked to attach.
    fn attach(&mut self, server: usize) -> Client {
        self.clients += 1;
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&self.clients.to_be_bytes());
        let mut client = Client::connect(self.servers[server % SERVERS].local_addr());
        client.send(&Hello {
            magic: Magic,
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            role: Role::Client,
            transport: Transport::Plain,
            key_id: Fixed64(0),
            cluster: CLUSTER,
        });
        client.send(&Attach {
            secret: SessionSecret(secret),
            process: Fixed64(self.clients),
            attachment: 1,
            intent: Intent::New,
            name: &format!("u{}", self.clients),
            reservation: Fixed64(0),
            hops: 0,
            author_number: 0,
            rooms: Seq::new(&[]),
            seen: Seq::new(&[]),
            partial: Seq::new(&[]),
        });
        client
    }
}

/// A connection that counts.
struct Client {
    stream: TcpStream,
    deframer: Deframer,
    piece: Vec<u8>,
    said: u64,
    acknowledged: u64,
    heard: u64,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a server that listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let deframer = Deframer::new(FRAME_BYTES_MAX);
        let piece = vec![0; 64 << 10];
        Client { stream, deframer, piece, said: 0, acknowledged: 0, heard: 0 }
    }

    fn send<'a, M: Message<'a>>(&mut self, message: &M) {
        let mut bytes = Vec::new();
        message.put_frame(&mut bytes);
        self.stream.write_all(&bytes).expect("a server that reads");
    }

    fn say(&mut self, count: u64, body: &str) {
        let mut bytes = Vec::new();
        for _ in 0..count {
            self.said += 1;
            let scope = Scope::Room("#all");
            Say { number: self.said, scope, after: Seq::new(&[]), body }.put_frame(&mut bytes);
        }
        self.stream.write_all(&bytes).expect("a server that reads");
    }

    /// Reads once, counts what came, and shows each frame.
    fn read(&mut self, mut show: impl FnMut(&Frame<'_>)) {
        let count = self.stream.read(&mut self.piece).expect("a server that writes");
        assert!(count > 0, "the server closed the connection");
        self.deframer.extend(&self.piece[..count]);
        let whole = self.deframer.ready().expect("good frames");
        for frame in frames(whole) {
            match frame.kind {
                Entry::KIND => self.heard += 1,
                Ack::KIND => {
                    let ack = Ack::parse(frame.payload).expect("a good frame");
                    self.acknowledged += ack.indexes.len() as u64;
                }
                _ => show(&frame),
            }
        }
        let taken = whole.len();
        self.deframer.consume(taken);
    }

    fn hear(&mut self, count: u64) {
        while self.heard < count {
            self.read(|_| ());
        }
        assert_eq!(self.heard, count, "nothing is heard twice");
    }
}

fn fan_out(
    group: &mut BenchmarkGroup<'_, WallTime>,
    publishers: usize,
    subscribers: usize,
    bytes: usize,
) {
    let mut cluster = Cluster::start();
    let mut speaking: Vec<Client> = (0..publishers).map(|at| cluster.join(at)).collect();
    let mut hearing: Vec<Client> = (0..subscribers).map(|at| cluster.join(at)).collect();
    let body = "x".repeat(bytes);
    // Deliveries of an iteration do not depend on how many publish.
    let share = BATCH / publishers as u64;
    let batch = share * publishers as u64;
    group.throughput(Throughput::Elements(batch * subscribers as u64));
    let name = BenchmarkId::new(format!("deliveries {publishers} to {subscribers}"), bytes);
    let mut said = 0;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            for client in &mut speaking {
                client.say(share, &body);
            }
            said += batch;
            for client in &mut hearing {
                client.hear(said);
            }
            // They are in the room, too, and hear themselves.
            for client in &mut speaking {
                client.hear(said);
            }
        });
    });
}

fn acknowledgements(group: &mut BenchmarkGroup<'_, WallTime>, window: u64) {
    let mut cluster = Cluster::start();
    // Without the others there would be one copy to wait for.
    let _others = [cluster.join(1), cluster.join(2)];
    let mut client = cluster.join(0);
    let body = "x".repeat(64);
    group.throughput(Throughput::Elements(window));
    group.bench_function(BenchmarkId::new("acknowledgements, window", window), |bencher| {
        bencher.iter(|| {
            client.say(window, &body);
            while client.acknowledged < client.said {
                client.read(|_| ());
            }
        });
    });
}

fn replay(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut cluster = Cluster::start();
    let _others = [cluster.join(1), cluster.join(2)];
    let mut client = cluster.join(0);
    let body = "x".repeat(64);
    while client.said < ENTRIES {
        client.say(BATCH, &body);
        while client.acknowledged < client.said {
            client.read(|_| ());
        }
    }
    let mut turn = 0;
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function(BenchmarkId::new("replay to a newcomer", ENTRIES), |bencher| {
        bencher.iter(|| {
            turn += 1;
            let mut newcomer = cluster.attach(turn);
            newcomer.hear(ENTRIES);
            black_box(newcomer.heard)
        });
    });
}

fn chat(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chat cluster");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    group.warm_up_time(Duration::from_millis(500));
    for bytes in [64, 1_024] {
        fan_out(&mut group, 1, 50, bytes);
        fan_out(&mut group, 10, 100, bytes);
    }
    for window in [1, 256] {
        acknowledgements(&mut group, window);
    }
    replay(&mut group);
    group.finish();
}

criterion_group!(benches, chat);
criterion_main!(benches);
