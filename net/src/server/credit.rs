//! A connection's read credit: who has it may act, its reader or the hub.
//!
//! ```text
//! reader: readable ─ take the credit ─ read ─ batch to the hub ─┐
//! hub:                  handles it ─ gives the credit back ◀────┘ or withholds it
//! ```
//!
//! One batch of a connection is in the hub's queue at a time, whatever it sends. A reader that
//! finds the credit gone stops watching the connection until it is back: what more was sent waits
//! in the kernel, and from there in the sender's.

use std::io;
use std::os::fd::OwnedFd;

use cordee_core::ids::ConnId;
use rustix::event::epoll::{self, EventData, EventFlags};
use socket2::Socket;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, lock};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Credit {
    conn: ConnId,
    socket: Arc<Socket>,
    /// Where its reader waits.
    epoll: Arc<OwnedFd>,
    state: Mutex<State>,
    /// Whether the other end is a peer: its batches are served first.
    peer: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State {
    holder: Holder,
    /// Whether readiness of the socket is told to the reader.
    watched: bool,
}

/// Who has the credit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holder {
    Reader,
    Hub,
    /// The hub is done with the connection.
    Nobody,
}

impl Credit {
    /// The credit is with the reader that waits at `epoll`.
    pub(crate) fn new(conn: ConnId, socket: Arc<Socket>, epoll: Arc<OwnedFd>) -> Self {
        let state = Mutex::new(State { holder: Holder::Reader, watched: true });
        Credit { conn, socket, epoll, state, peer: AtomicBool::new(false) }
    }

    /// Readiness is told from now on.
    pub(crate) fn begin(&self) -> io::Result<()> {
        Ok(epoll::add(&*self.epoll, &*self.socket, token_of(self.conn), EventFlags::IN)?)
    }

    pub(crate) fn conn(&self) -> ConnId {
        self.conn
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Who has the credit. When it is the hub, readiness is not told any more until that gives it
    /// back.
    pub(crate) fn holder(&self) -> Holder {
        let mut state = lock(&self.state);
        if state.holder == Holder::Hub && state.watched {
            self.watch(&mut state, false);
        }
        state.holder
    }

    /// The reader hands the credit over, with a batch.
    pub(crate) fn hand_over(&self) {
        let mut state = lock(&self.state);
        if state.holder == Holder::Reader {
            state.holder = Holder::Hub;
        }
    }

    /// The hub gives the credit back.
    pub(crate) fn give_back(&self) {
        self.pass_to(Holder::Reader);
    }

    /// The hub wants nothing more of the connection: its reader discards what still comes.
    pub(crate) fn close(&self) {
        self.pass_to(Holder::Nobody);
    }

    fn pass_to(&self, holder: Holder) {
        let mut state = lock(&self.state);
        state.holder = holder;
        if !state.watched {
            self.watch(&mut state, true);
        }
    }

    /// Readiness is not told any more.
    pub(crate) fn end(&self) {
        let _ = epoll::delete(&*self.epoll, &*self.socket);
    }

    pub(crate) fn set_peer(&self) {
        self.peer.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_peer(&self) -> bool {
        self.peer.load(Ordering::Relaxed)
    }

    fn watch(&self, state: &mut State, watched: bool) {
        // An end or an error would be told again and again, whatever is asked for, but for this.
        let flags = if watched { EventFlags::IN } else { EventFlags::ONESHOT };
        // It fails only for a socket that is not there, and the reader has this one.
        let _ = epoll::modify(&*self.epoll, &*self.socket, token_of(self.conn), flags);
        state.watched = watched;
    }
}

/// What the reader learns of a connection that is ready.
fn token_of(conn: ConnId) -> EventData {
    EventData::new_u64(u64::from(conn.index) << 32 | u64::from(conn.generation))
}

/// The connection that a token stands for.
pub(crate) fn conn_of(token: u64) -> ConnId {
    ConnId { index: (token >> 32) as u32, generation: token as u32 }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::mem::MaybeUninit;
    use std::net::{TcpListener, TcpStream};

    use rustix::event::Timespec;

    use super::*;

    /// A credit, its epoll, and the other end of its connection.
    fn rig() -> (Credit, Arc<OwnedFd>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let theirs = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (ours, _) = listener.accept().expect("connected");
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor");
        let poll = Arc::new(poll);
        let conn = ConnId { index: 3, generation: 9 };
        let socket = Arc::new(Socket::from(ours));
        let credit = Credit::new(conn, socket, Arc::clone(&poll));
        credit.begin().expect("it is added");
        (credit, poll, theirs)
    }

    /// Which connection is told to be ready, if any.
    fn told(poll: &OwnedFd, wait_s: i64) -> Option<ConnId> {
        let mut events = [MaybeUninit::uninit(); 4];
        let time = Timespec { tv_sec: wait_s, tv_nsec: 0 };
        let (events, _) = epoll::wait(poll, &mut events, Some(&time)).expect("it waits");
        events.first().map(|event| conn_of(event.data.u64()))
    }

    #[test]
    fn readiness_is_told_only_while_the_reader_has_the_credit() {
        let (credit, poll, mut theirs) = rig();
        let conn = Some(ConnId { index: 3, generation: 9 });
        theirs.write_all(b"x").expect("connected");
        assert_eq!(told(&poll, 20), conn);
        assert_eq!(credit.holder(), Holder::Reader);
        credit.hand_over();
        assert_eq!(told(&poll, 20), conn, "it is still watched");
        assert_eq!(credit.holder(), Holder::Hub);
        assert_eq!(told(&poll, 0), None);
        credit.give_back();
        assert_eq!(told(&poll, 20), conn);
        assert_eq!(credit.holder(), Holder::Reader);
    }

    #[test]
    fn a_close_is_told_and_a_closed_credit_stays_closed() {
        let (credit, poll, theirs) = rig();
        credit.hand_over();
        assert_eq!(credit.holder(), Holder::Hub);
        drop(theirs);
        // At most once while the hub has it, whatever became of the connection.
        told(&poll, 0);
        assert_eq!(told(&poll, 0), None);
        credit.close();
        assert!(told(&poll, 20).is_some());
        assert_eq!(credit.holder(), Holder::Nobody);
        credit.hand_over();
        assert_eq!(credit.holder(), Holder::Nobody);
    }
}
