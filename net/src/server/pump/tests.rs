//! A pump on real sockets, without a hub.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use cordee_core::framing::{HEADER_BYTES, frames, put_frame};
use cordee_core::ids::{OriginRef, Position, ScopeRef};
use cordee_core::log::{Audience, ChunkBuilder, EVERYONE, Item, Items};
use socket2::{SockRef, Socket};

use super::*;
use crate::server::inbox::Taken;
use crate::threads::{STACK_BYTES, Thread};

/// A pump with connections, and what the hub would keep for it.
struct Rig {
    inbox: Arc<Inbox>,
    mailbox: Arc<Mailbox>,
    orders: Orders,
    builder: ChunkBuilder,
    thread: Option<Thread>,
    reports: Vec<Report>,
    opened: u32,
    number: u64,
}

impl Rig {
    fn new(stall: Duration) -> Self {
        let inbox = Arc::new(Inbox::new(1 << 20));
        let mailbox = Arc::new(Mailbox::new().expect("descriptors"));
        let pump = Pump::new(Arc::clone(&mailbox), Arc::clone(&inbox), 1, stall);
        let pump = pump.expect("descriptors");
        let thread = Thread::spawn("pump".to_owned(), STACK_BYTES, move || pump.run());
        Rig {
            inbox,
            mailbox,
            orders: Orders::default(),
            builder: ChunkBuilder::new(Position(0)),
            thread: Some(thread.expect("threads can be made")),
            reports: Vec::new(),
            opened: 0,
            number: 0,
        }
    }

    /// A connection whose other end buffers little.
    fn open(&mut self) -> (ConnId, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        SockRef::from(&listener).set_recv_buffer_size(4_096).expect("a small buffer");
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (theirs, _) = listener.accept().expect("connected");
        SockRef::from(&ours).set_send_buffer_size(16 << 10).expect("a small buffer");
        theirs.set_read_timeout(Some(PATIENCE)).expect("a time");
        let conn = ConnId { index: self.opened, generation: 7 };
        self.opened += 1;
        let socket = Arc::new(Socket::from(ours));
        let read = Arc::clone(&socket);
        // As a reader does that discards. It ends with its socket.
        std::thread::spawn(move || std::io::copy(&mut &*read, &mut std::io::sink()));
        self.orders.push(Command::Open { conn, socket });
        (conn, theirs)
    }

    fn follow(&mut self, conn: ConnId, scopes: &[u32]) {
        let at = Position(self.number);
        self.orders.push(Command::Follow { conn, from: at, peer: false, mt: 0 });
        for scope in scopes {
            self.orders.push(Command::Show { conn, scope: ScopeRef(*scope), at, mt: 0 });
        }
    }

    /// Publishes a row of `bytes` bytes in `scope`; its frame begins with its number.
    fn publish(&mut self, scope: u32, bytes: usize) {
        self.number += 1;
        let (mut out, mut item) = (Vec::new(), Vec::new());
        put_frame(&mut out, ROW, |out| {
            out.extend_from_slice(&self.number.to_be_bytes());
            out.resize(out.len() + bytes, scope as u8);
        });
        let scope = if scope == 0 { EVERYONE } else { ScopeRef(scope) };
        let (origin, number) = (OriginRef(3), self.number);
        let bytes = out.len() as u32;
        Item { bytes, scope, origin, number, audience: Audience::All, row: true }.put(&mut item);
        self.builder.push(&out, Items::new(&item));
    }

    fn cut(&mut self) {
        self.orders.push(Command::Chunk(Arc::new(self.builder.take())));
    }

    fn flush(&mut self) {
        self.mailbox.put(&mut self.orders);
    }

    fn send(&mut self, conn: ConnId, what: &[u8], notify: bool) {
        let bytes = put(&mut self.orders, what);
        self.orders.push(Command::Send { conn, bytes, notify });
    }

    fn send_at(&mut self, conn: ConnId, at: u64, what: &[u8]) {
        let bytes = put(&mut self.orders, what);
        self.orders.push(Command::SendAt { conn, at: Position(at), bytes });
    }

    /// Waits for a report.
    fn report(&mut self) -> Report {
        if self.reports.is_empty() {
            let mut taken = Taken::default();
            self.inbox.take(&mut taken, Some(Instant::now() + PATIENCE));
            self.reports.extend(taken.reports);
        }
        assert!(!self.reports.is_empty(), "a report comes");
        self.reports.remove(0)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.mailbox.halt(Halt::Now);
        let thread = self.thread.take().expect("joined once");
        if !std::thread::panicking() {
            thread.join().expect("the pump does not panic");
        }
    }
}

/// Puts one frame.
fn put(orders: &mut Orders, what: &[u8]) -> std::ops::Range<u32> {
    let mut frame = Vec::new();
    put_frame(&mut frame, PRIVATE, |out| out.extend_from_slice(what));
    orders.put(&frame)
}

/// The next frame: its kind, and a row's number or the payload's first eight bytes as a number.
fn next(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).expect("a frame");
    let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    bytes.resize(4 + length as usize, 0);
    stream.read_exact(&mut bytes[4..]).expect("the whole frame");
    let frame = frames(&bytes).next().expect("it is whole");
    (frame.kind, frame.payload.to_vec())
}

fn row(stream: &mut TcpStream) -> u64 {
    let (kind, payload) = next(stream);
    assert_eq!(kind, ROW);
    u64::from_be_bytes(payload[..8].try_into().expect("eight bytes"))
}

fn private(stream: &mut TcpStream) -> Vec<u8> {
    let (kind, payload) = next(stream);
    assert_eq!(kind, PRIVATE);
    payload
}

const ROW: u8 = 1;
const PRIVATE: u8 = 2;
const PATIENCE: Duration = Duration::from_secs(20);
const STALL: Duration = Duration::from_millis(100);
const NEVER: Duration = Duration::from_secs(3_600);

#[test]
fn each_connection_sees_its_scopes_in_order_with_what_is_sent_at_a_position() {
    let mut rig = Rig::new(NEVER);
    let ((a, mut to_a), (b, mut to_b)) = (rig.open(), rig.open());
    rig.follow(a, &[1]);
    rig.follow(b, &[2]);
    for (scope, bytes) in [(1, 10), (2, 2_000), (1, 10), (2, 10), (0, 3_000)] {
        rig.publish(scope, bytes);
    }
    rig.send_at(a, 3, b"after the third");
    rig.orders.push(Command::Show { conn: a, scope: ScopeRef(2), at: Position(3), mt: 40 });
    rig.send_at(a, 5, b"at the end");
    rig.cut();
    rig.publish(2, 10);
    rig.orders.push(Command::Hide { conn: b, scope: ScopeRef(2), at: Position(5), mt: 2 });
    rig.cut();
    rig.flush();
    assert_eq!([row(&mut to_a), row(&mut to_a)], [1, 3]);
    assert_eq!(private(&mut to_a), b"after the third");
    assert_eq!([row(&mut to_a), row(&mut to_a)], [4, 5]);
    assert_eq!(private(&mut to_a), b"at the end");
    assert_eq!(row(&mut to_a), 6);
    assert_eq!([row(&mut to_b), row(&mut to_b), row(&mut to_b)], [2, 4, 5]);
    // What was passed counts in MT, and so does what the changes of visibility brought and took.
    for (conn, stream, mt) in [(a, &mut to_a, 45_u64), (b, &mut to_b, 1)] {
        let bytes = put(&mut rig.orders, b"12345678 and more");
        rig.orders.push(Command::SendStamped { conn, bytes });
        rig.flush();
        let stamped = private(stream);
        assert_eq!((&stamped[..8], &stamped[8..]), (&mt.to_be_bytes()[..], &b" and more"[..]));
    }
}

#[test]
fn without_a_cursor_a_stamped_frame_stays_as_it_is() {
    let mut rig = Rig::new(NEVER);
    let (conn, mut stream) = rig.open();
    let bytes = put(&mut rig.orders, b"12345678");
    rig.orders.push(Command::SendStamped { conn, bytes });
    rig.flush();
    assert_eq!(private(&mut stream), b"12345678");
}

#[test]
fn a_slow_reader_gets_every_frame_whole_and_in_order_and_what_is_private_overtakes() {
    let mut rig = Rig::new(NEVER);
    let ((slow, mut to_slow), (quick, mut to_quick)) = (rig.open(), rig.open());
    rig.follow(slow, &[1, 2]);
    rig.follow(quick, &[2]);
    for number in 0..600_u64 {
        rig.publish(1 + (number % 2) as u32, [20, 700, 9_000][(number % 3) as usize]);
        if number % 7 == 0 {
            rig.send_at(slow, number, &number.to_be_bytes());
            rig.cut();
            rig.flush();
        }
    }
    rig.publish(2, 0);
    rig.cut();
    rig.flush();
    // Nobody waits for the slow one.
    for number in (2..=600).step_by(2) {
        assert_eq!(row(&mut to_quick), number);
    }
    rig.send(slow, b"urgent", true);
    rig.flush();
    let (mut rows, mut at, mut urgent) = (0, 0, None);
    while rows < 601 {
        let (kind, payload) = next(&mut to_slow);
        if kind == ROW {
            rows += 1;
            assert_eq!(payload[..8], rows_be(rows));
        } else if payload == b"urgent" {
            urgent = Some(rows);
        } else {
            assert_eq!(payload, rows.to_be_bytes(), "it stands before the row of its position");
            at += 1;
        }
    }
    assert_eq!(at, 86);
    assert!(urgent.expect("it came") < 600, "it overtook the log");
}

fn rows_be(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

#[test]
fn one_that_takes_nothing_is_reported_once_and_goes_on_when_it_reads() {
    let mut rig = Rig::new(STALL);
    let (conn, mut stream) = rig.open();
    rig.follow(conn, &[1]);
    for _ in 0..300 {
        rig.publish(1, 9_000);
    }
    rig.cut();
    rig.flush();
    assert_eq!(rig.report(), Report::Stalled { conn });
    std::thread::sleep(STALL * 4);
    let mut taken = Taken::default();
    rig.inbox.take(&mut taken, Some(Instant::now()));
    assert!(taken.is_empty(), "once is enough: {taken:?}");
    for number in 1..=300 {
        assert_eq!(row(&mut stream), number);
    }
}

#[test]
fn a_cursor_that_loses_its_place_is_dropped_and_can_be_made_anew() {
    let mut rig = Rig::new(NEVER);
    let ((conn, mut stream), (other, mut to_other)) = (rig.open(), rig.open());
    rig.follow(conn, &[1]);
    rig.follow(other, &[1]);
    for _ in 0..300 {
        rig.publish(1, 9_000);
        rig.cut();
    }
    rig.send_at(conn, 290, b"lost with the cursor");
    rig.flush();
    for number in 1..=300 {
        assert_eq!(row(&mut to_other), number);
    }
    rig.orders.push(Command::Trim { before: Position(280) });
    rig.flush();
    let Report::Lagged { conn: lagged, passed } = rig.report() else { panic!("it lags") };
    assert_eq!(lagged, conn);
    let [(OriginRef(3), last)] = passed[..] else { panic!("one origin: {passed:?}") };
    assert!(last < 280, "{last}");
    rig.follow(conn, &[1]);
    rig.publish(1, 10);
    rig.cut();
    rig.flush();
    // What the old cursor had passed comes whole, then what the new one finds.
    for number in 1..=last {
        assert_eq!(row(&mut stream), number);
    }
    assert_eq!(row(&mut stream), 301);
    // What was lost counts as drained.
    rig.send(conn, b"x", true);
    rig.flush();
    assert_eq!(rig.report(), Report::Drained { conn, bytes: 25 + 6 });
    assert_eq!(private(&mut stream), b"x");
}

const STAMPED: &[u8] = b"12345678 is stamped and counted, too";

#[test]
fn drained_bytes_are_told_in_pieces_or_when_asked_for_and_add_up() {
    let mut rig = Rig::new(NEVER);
    let (conn, mut stream) = rig.open();
    let bytes = put(&mut rig.orders, STAMPED);
    rig.orders.push(Command::SendStamped { conn, bytes });
    rig.send(conn, b"quiet", false);
    rig.flush();
    private(&mut stream);
    private(&mut stream);
    rig.send(conn, &vec![1; 50_000], true);
    rig.flush();
    let reader = std::thread::spawn(move || private(&mut stream).len());
    let all = (STAMPED.len() + b"quiet".len() + 50_000 + 3 * HEADER_BYTES) as u32;
    let (mut sum, mut reports) = (0, 0);
    while sum < all {
        let Report::Drained { bytes, .. } = rig.report() else { panic!("nothing else") };
        assert!(bytes >= 16 << 10 || sum + bytes == all, "{bytes} of {sum}");
        sum += bytes;
        reports += 1;
    }
    assert_eq!(sum, all);
    assert!(reports > 1, "the reader's end buffers little");
    assert_eq!(reader.join().expect("no panic"), 50_000);
}

#[test]
fn a_close_lets_out_what_is_queued_although_more_comes_in() {
    let mut rig = Rig::new(NEVER);
    let (conn, mut stream) = rig.open();
    stream.write_all(&[9; 3_000]).expect("it is open");
    rig.follow(conn, &[1]);
    rig.send(conn, &vec![1; 60_000], false);
    rig.send_at(conn, 0, b"goes with the cursor");
    rig.send(conn, b"bye", false);
    rig.orders.push(Command::Close { conn });
    rig.send(conn, b"too late", false);
    rig.flush();
    assert_eq!(private(&mut stream).len(), 60_000);
    assert_eq!(private(&mut stream), b"bye");
    assert_eq!(stream.read(&mut [0]).expect("an orderly end"), 0);
}

#[test]
fn a_place_that_is_taken_again_does_not_mix_old_and_new() {
    let mut rig = Rig::new(NEVER);
    let (old, mut to_old) = rig.open();
    rig.send(old, &vec![1; 60_000], false);
    rig.orders.push(Command::Close { conn: old });
    rig.opened = 0;
    let (new, mut to_new) = rig.open();
    let new = ConnId { generation: new.generation + 1, ..new };
    let Some(Command::Open { conn, .. }) = rig.orders.commands.last_mut() else { panic!("open") };
    *conn = new;
    rig.send(new, b"new", false);
    rig.flush();
    assert_eq!(private(&mut to_new), b"new");
    assert_eq!(private(&mut to_old).len(), 60_000);
    assert_eq!(to_old.read(&mut [0]).expect("an orderly end"), 0);
}

#[test]
fn a_halt_lets_out_what_is_queued() {
    let mut rig = Rig::new(NEVER);
    let mut streams = BTreeMap::new();
    for _ in 0..5 {
        let (conn, stream) = rig.open();
        rig.send(conn, b"goodbye", false);
        streams.insert(conn, stream);
    }
    rig.flush();
    rig.mailbox.halt(Halt::Flush);
    for (_, mut stream) in streams {
        assert_eq!(private(&mut stream), b"goodbye");
        assert_eq!(stream.read(&mut [0]).expect("an orderly end"), 0);
    }
}

#[test]
fn what_is_discarded_is_not_sent_but_for_the_rest_of_a_frame_that_left_in_part() {
    let mut rig = Rig::new(NEVER);
    let (conn, mut stream) = rig.open();
    rig.follow(conn, &[1]);
    // Far more than what the kernel takes: it ends amid a frame.
    for _ in 0..400 {
        rig.send(conn, &vec![1; 50_000], false);
    }
    rig.send_at(conn, 0, b"goes with the cursor");
    rig.flush();
    let Report::Drained { .. } = rig.report() else { panic!("it takes something") };
    rig.orders.push(Command::Discard { conn });
    rig.send(conn, b"bye", false);
    rig.orders.push(Command::Close { conn });
    rig.flush();
    let mut whole = 0;
    loop {
        let frame = private(&mut stream);
        if frame == b"bye" {
            break;
        }
        assert_eq!(frame.len(), 50_000, "frames are whole");
        whole += 1;
    }
    assert!(whole < 400, "{whole} frames were sent all the same");
}
