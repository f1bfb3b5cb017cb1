//! A simulated source: connections that share its link, and what it does wrong.

use std::collections::VecDeque;

use cordee_core::Time;
use cordee_core::blocks::Layout;
use cordee_core::blocks::scheduler::{Fault, FetchConn};

/// How a source treats those who connect.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Manner {
    /// Serves.
    Good,
    /// Nobody listens there.
    Refuses,
    /// Accepts and says nothing.
    Mute,
    /// Ends every connection with this instead of opening the file.
    Says(Fault),
    /// Closes every connection after so many bytes of blocks.
    Closes(u64),
    /// Sends this share of its blocks, in per cent, with wrong bytes.
    Lies(u8),
}

/// What a source is like.
#[derive(Clone, Copy, Debug)]
pub struct SourcePlan {
    /// Of its link, in bytes per second.
    pub rate: u64,
    /// One way, in microseconds.
    pub latency_us: u64,
    /// What it has handed to its kernel ahead of the link: not to be taken back.
    pub begun_bytes: u64,
    /// A run cannot be taken back but by closing the connection, as with HTTP.
    pub is_http: bool,
    /// How many requests may wait on a connection.
    pub requests_max: u32,
    /// What it does with those who connect.
    pub manner: Manner,
    /// When it is there, in microseconds.
    pub from_us: u64,
}

impl SourcePlan {
    /// A good source in the same room.
    #[must_use]
    pub fn of_rate(rate: u64) -> SourcePlan {
        SourcePlan {
            rate,
            latency_us: 100,
            begun_bytes: 256 << 10,
            is_http: false,
            requests_max: 64,
            manner: Manner::Good,
            from_us: 0,
        }
    }
}

/// What is left to send of a request.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) request: u64,
    pub(super) next: u64,
    pub(super) end: u64,
    /// Bytes of `next` that are sent.
    pub(super) sent: u64,
    /// It is answered with the end of the run, once what was begun is sent.
    pub(super) is_cancelled: bool,
}

/// The source's side of a connection.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) conn: FetchConn,
    pub(super) tasks: VecDeque<Task>,
    /// Bytes of blocks that were sent on it.
    pub(super) bytes: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) plan: SourcePlan,
    pub(super) is_up: bool,
    pub(super) is_frozen: bool,
    /// Something was done to it that no scheduler can foresee.
    pub(super) is_faulty: bool,
    pub(super) served: Vec<Served>,
    /// Whose turn it is.
    turn: usize,
    /// A piece is on the link.
    pub(super) is_sending: bool,
    /// What came while it was frozen, to be dealt with afterwards.
    pub(super) held: Vec<(Time, super::fetch::Said)>,
}

/// A piece of a block on the link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) conn: FetchConn,
    pub(super) bytes: u64,
    /// The block that it completes.
    pub(super) completes: Option<u64>,
    /// The run that it is the end of, though not all was sent.
    pub(super) ends: Option<u64>,
}

impl Source {
    pub(super) fn new(plan: SourcePlan) -> Source {
        Source {
            plan,
            is_up: plan.from_us == 0,
            is_frozen: false,
            is_faulty: plan.manner != Manner::Good,
            served: Vec::new(),
            turn: 0,
            is_sending: false,
            held: Vec::new(),
        }
    }

    pub(super) fn served(&mut self, conn: FetchConn) -> Option<&mut Served> {
        self.served.iter_mut().find(|served| served.conn == conn)
    }

    /// Takes a run back but for what was begun.
    pub(super) fn cancel(&mut self, layout: &Layout, conn: FetchConn, request: u64) {
        let begun_bytes = self.plan.begun_bytes;
        let Some(served) = self.served(conn) else { return };
        let mut ahead = begun_bytes;
        for index in 0..served.tasks.len() {
            let task = &mut served.tasks[index];
            let mut begun = task.next;
            let mut left = 0;
            while begun < task.end && (ahead > 0 || left > 0) {
                let sent = if begun == task.next { task.sent } else { 0 };
                let len = u64::from(layout.block_len(begun)) - sent;
                left = len.saturating_sub(ahead);
                ahead = ahead.saturating_sub(len);
                begun += 1;
                if left > 0 {
                    break;
                }
            }
            if task.request == request {
                task.end = begun;
                task.is_cancelled = true;
                return;
            }
        }
    }

    /// Cuts the next piece off, in turn among the connections.
    pub(super) fn next_piece(&mut self, layout: &Layout) -> Option<Piece> {
        if self.is_frozen || !self.is_up {
            return None;
        }
        let count = self.served.len();
        let most = (self.plan.rate / 500).clamp(1_448, 256 << 10);
        for step in 0..count {
            let at = (self.turn + step) % count;
            let served = &mut self.served[at];
            let Some(task) = served.tasks.front_mut() else { continue };
            if task.next == task.end {
                // Nothing of it is left but to say so.
                let (conn, ends) = (served.conn, Some(task.request));
                served.tasks.pop_front();
                return Some(Piece { conn, bytes: 0, completes: None, ends });
            }
            let len = u64::from(layout.block_len(task.next));
            let bytes = most.min(len - task.sent);
            task.sent += bytes;
            served.bytes += bytes;
            let mut piece = Piece { conn: served.conn, bytes, completes: None, ends: None };
            if task.sent == len {
                piece.completes = Some(task.next);
                (task.next, task.sent) = (task.next + 1, 0);
                if task.next == task.end {
                    piece.ends = task.is_cancelled.then_some(task.request);
                    served.tasks.pop_front();
                }
            }
            self.turn = at + 1;
            return Some(piece);
        }
        None
    }

    pub(super) fn piece_us(&self, bytes: u64) -> u64 {
        (bytes * 1_000_000).div_ceil(self.plan.rate)
    }
}
