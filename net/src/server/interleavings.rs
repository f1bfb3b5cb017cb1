//! The hand-offs between a server's threads under every interleaving that loom finds, with few
//! preemptions: see "Threads" in `docs/testing.md`.

use std::io::Write;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;

use cordee_core::chat::server::DialId;
use cordee_core::ids::{ConnId, OriginRef, Position};
use cordee_core::log::{Audience, Chunk, ChunkBuilder, EVERYONE, Item, Items};
use rustix::event::{Timespec, epoll};
use socket2::{Domain, Socket, Type};

use super::credit::{Credit, Holder};
use super::inbox::{Accepted, Batch, Event, Inbox, Taken};
use super::keeper::Keeper;
use super::pump::{Command, Halt, Mailbox, Orders, Report};
use crate::log::Log;
use crate::sync::{Arc, thread};

/// Runs a model under all interleavings with at most so many preemptions. More than three have
/// never been what a hand-off of two or three threads depended on, and take hours.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

const CONN: ConnId = ConnId { index: 3, generation: 9 };

fn chunk(first: u64) -> Chunk {
    let item = Item {
        bytes: 5,
        scope: EVERYONE,
        origin: OriginRef(0),
        number: 0,
        audience: Audience::All,
        row: false,
    };
    let mut items = Vec::new();
    item.put(&mut items);
    let mut builder = ChunkBuilder::new(Position(first));
    builder.push(&[0, 0, 0, 1, 1], Items::new(&items));
    builder.take()
}

fn batch() -> Batch {
    Batch { conn: CONN, bytes: Vec::new(), begun: 0, end: None }
}

fn accepted() -> Accepted {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a descriptor");
    Accepted { socket, from: "127.0.0.1:1".parse().expect("an address") }
}

/// What a pump does with its mailbox: the log's positions as they came, until it is halted.
fn pump(mailbox: &Mailbox, mut turn: impl FnMut()) -> Vec<Position> {
    let (mut orders, mut positions) = (Vec::new(), Vec::new());
    loop {
        let halt = mailbox.take(&mut orders, true);
        for command in orders.iter().flat_map(|orders: &Orders| &orders.commands) {
            if let Command::Chunk(chunk) = command {
                positions.push(chunk.first());
            }
        }
        turn();
        if halt.is_some() {
            return positions;
        }
        if orders.is_empty() {
            mailbox.sleep();
        }
    }
}

#[test]
fn a_pump_sleeps_through_no_order_and_no_halt_and_gets_the_log_in_order() {
    check(3, || {
        let mailbox = Arc::new(Mailbox::new().expect("a descriptor"));
        let there = Arc::clone(&mailbox);
        let pump = thread::spawn(move || pump(&there, || ()));
        for first in 0..2 {
            let mut orders = Orders::default();
            orders.push(Command::Chunk(Arc::new(chunk(first))));
            mailbox.put(&mut orders);
            assert!(orders.is_empty());
        }
        mailbox.halt(Halt::Flush);
        assert_eq!(pump.join().expect("it ends"), [Position(0), Position(1)]);
    });
}

#[test]
fn the_hub_sleeps_through_nothing_that_is_put_in() {
    check(3, || {
        let inbox = Arc::new(Inbox::new(1 << 20));
        let there = Arc::clone(&inbox);
        let reader = thread::spawn(move || assert!(there.put_batch(batch(), false)));
        let there = Arc::clone(&inbox);
        let storage = thread::spawn(move || {
            there.put_reports(&mut vec![Report::Drained { conn: CONN, bytes: 1 }]);
            assert!(there.put_event(Event::Persisted { through: 1, durable: true }));
        });
        let (mut batches, mut reports, mut events) = (0, 0, 0);
        while batches + reports + events < 3 {
            let mut taken = Taken::default();
            inbox.take(&mut taken, None);
            assert!(!taken.is_empty(), "it waits for something");
            batches += taken.clients.len();
            reports += taken.reports.len();
            events += taken.events.len();
            assert!(events == 0 || reports == 1, "one thread's words come in order");
        }
        reader.join().expect("it ends");
        storage.join().expect("it ends");
    });
}

#[test]
fn an_acceptor_that_waits_for_room_goes_on_when_there_is_some_or_the_hub_is_gone() {
    check(3, || {
        let inbox = Arc::new(Inbox::new(1 << 20));
        let there = Arc::clone(&inbox);
        let acceptor = thread::spawn(move || {
            let mut count = 0;
            while there.put_accepted(accepted()) {
                count += 1;
            }
            count
        });
        let mut taken = Taken::default();
        inbox.take(&mut taken, None);
        assert_eq!(taken.accepted.len(), 1, "there is room for one here");
        inbox.close();
        let count = acceptor.join().expect("it ends");
        assert!((1..=2).contains(&count), "{count}");
        assert!(!inbox.put_batch(batch(), true), "the hub is gone");
    });
}

#[test]
fn a_connection_has_one_batch_with_the_hub_and_is_read_again_once_that_gives_the_credit_back() {
    check(2, || {
        let (mut theirs, ours) = UnixStream::pair().expect("descriptors");
        // It stays unread: readiness is told whenever it is watched.
        theirs.write_all(b"x").expect("it is connected");
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor");
        let poll = Arc::new(poll);
        let socket = Arc::new(Socket::from(std::os::fd::OwnedFd::from(ours)));
        let credit = Arc::new(Credit::new(CONN, socket, Arc::clone(&poll)));
        credit.begin().expect("it is watched");
        let is_told = move || {
            let mut events = [MaybeUninit::uninit(); 1];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let told = epoll::wait(&*poll, &mut events, Some(&at_once));
            !told.expect("it can be asked").0.is_empty()
        };
        let inbox = Arc::new(Inbox::new(1 << 20));
        let (there, theirs_too) = (Arc::clone(&inbox), Arc::clone(&credit));
        let reader = thread::spawn(move || {
            let mut batches = 0;
            while batches < 2 {
                if is_told() && theirs_too.holder() == Holder::Reader {
                    theirs_too.hand_over();
                    assert!(there.put_batch(batch(), theirs_too.is_peer()));
                    batches += 1;
                } else {
                    thread::yield_now();
                }
            }
            is_told
        });
        for number in 0..2 {
            let mut taken = Taken::default();
            inbox.take(&mut taken, None);
            assert_eq!(taken.clients.len(), 1, "one batch at a time");
            if number == 0 {
                credit.give_back();
            }
        }
        credit.close();
        let is_told = reader.join().expect("it ends");
        assert!(is_told(), "what comes after the end is told, to be discarded");
        assert_eq!(credit.holder(), Holder::Nobody);
        drop(theirs);
    });
}

#[test]
fn a_keeper_that_is_stopped_has_answered_every_dial_and_joined_its_thread() {
    check(2, || {
        let inbox = Arc::new(Inbox::new(1 << 20));
        let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (keeper, handle) = Keeper::new(Arc::clone(&inbox), Log::new(|_, _| ()), from);
        let keeper = thread::spawn(move || keeper.run());
        // No address at all: the dial fails without a look at the network.
        handle.dial(DialId(1), "nowhere".to_owned());
        handle.stop();
        keeper.join().expect("it ends");
        let mut taken = Taken::default();
        inbox.take(&mut taken, None);
        assert!(matches!(
            taken.events.pop_front(),
            Some(Event::Dialled { dial: DialId(1), result: Err(_) })
        ));
        assert!(taken.is_empty());
    });
}

#[test]
fn when_the_hub_ends_everyone_else_does() {
    check(2, || {
        let inbox = Arc::new(Inbox::new(1 << 20));
        let mailbox = Arc::new(Mailbox::new().expect("a descriptor"));
        let (there, box_there) = (Arc::clone(&inbox), Arc::clone(&mailbox));
        let pump = thread::spawn(move || {
            pump(&box_there, || there.put_reports(&mut vec![Report::Stalled { conn: CONN }]));
        });
        let there = Arc::clone(&inbox);
        let acceptor = thread::spawn(move || while there.put_accepted(accepted()) {});
        let mut taken = Taken::default();
        inbox.take(&mut taken, None);
        inbox.close();
        mailbox.halt(Halt::Now);
        pump.join().expect("it ends");
        acceptor.join().expect("it ends");
    });
}
