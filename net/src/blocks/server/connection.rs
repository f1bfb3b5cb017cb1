//! A connection, and the turn that a worker gives it.
//!
//! ```text
//!          ┌──▶ read ─▶ gather what is next ─▶ send ──┐       Again    the turn was long enough
//!   turn ──┘      ▲                                   ├──▶    Park     the socket, the rate, the other end
//!                 └──── all was sent, more may come ──┘       Close
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use cordee_core::wire::Reason;
use rustix::event::epoll::EventFlags;
use rustix::net::RecvFlags;
use socket2::Socket;

use super::outgoing::{Moved, Outgoing};
use super::shared::Shared;
use super::table::Place;
use super::talk::{Next, Serving, Talk};
use super::tcp::{self, recv_now};
use crate::address::is_loopback;
use crate::sync::atomic::Ordering;
use crate::tcp_info::tcp_info;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Connection {
    // Closed before its place is given to another.
    socket: Socket,
    pub(super) place: Place,
    from: IpAddr,
    talk: Talk,
    out: Outgoing,
    waits_for: WaitsFor,
    /// It is refused as soon as it is known in which protocol.
    refused: bool,
    /// The other end sends nothing more.
    ended: bool,
    /// What waits is the last that is sent.
    closing: bool,
    /// Nothing more is sent, and this is the latest time for the other end to see it.
    lingering: Option<Instant>,
    /// Whether the congestion control was chosen.
    tuned: bool,
    accepted: Instant,
    /// When the last request came or was answered.
    active: Instant,
    /// Since when part of a frame is there.
    begun: Option<Instant>,
    /// When the kernel last took something.
    progress: Instant,
    /// What the other end had taken when it was last looked at.
    acknowledged: u64,
}

/// A connection, as it goes from hand to hand.
pub(super) type Handle = Box<Connection>;

/// What a connection that is not served waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WaitsFor {
    Input,
    Room,
    /// Until then.
    Rate(Instant),
}

/// What becomes of a connection after a turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has more to do: behind the others.
    Again,
    /// It waits for its socket, until that time at the latest.
    Park { interest: EventFlags, until: Instant },
    /// It is over.
    Close,
}

/// What a worker lends to the connections that it serves, one after the other.
#[derive(Debug, Default)]
pub(super) struct Bench {
    staged: Vec<u8>,
    scratch: Vec<u8>,
}

/// What came of gathering.
enum Gathered {
    Some,
    Nothing,
    Wait(Instant),
    Close,
}

/// What is left of a turn.
struct Turn {
    bytes: u64,
    answers: u32,
}

impl Connection {
    pub(super) fn new(socket: Socket, place: Place, from: SocketAddr, refused: bool) -> Connection {
        let now = Instant::now();
        let near = is_loopback(from.ip());
        if near {
            tcp::choose_reno(&socket);
        }
        Connection {
            socket,
            place,
            from: from.ip(),
            talk: Talk::Unknown,
            out: Outgoing::default(),
            waits_for: WaitsFor::Input,
            refused,
            ended: false,
            closing: false,
            lingering: None,
            tuned: near,
            accepted: now,
            active: now,
            begun: None,
            progress: now,
            acknowledged: 0,
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether it has not said yet what it wants.
    pub(super) fn is_pending(&self) -> bool {
        !self.refused && !self.talk.is_greeted() && self.lingering.is_none()
    }

    /// It gives its place to another.
    pub(super) fn displace(&mut self, shared: &Shared) {
        self.refused = true;
        self.talk.end(Reason::Displaced, shared);
    }

    /// Serves it for a bounded time.
    pub(super) fn turn(&mut self, shared: &Shared, bench: &mut Bench) -> Outcome {
        let now = Instant::now();
        if let Some(until) = self.lingering {
            return self.linger(until, now);
        }
        self.out.lend(&mut bench.staged);
        let mut serving = Serving { shared, now, scratch: &mut bench.scratch };
        let outcome = self.serve(&mut serving).unwrap_or_else(|error| {
            shared.log.debug(&format!("the connection of {} broke: {error}", self.from));
            Outcome::Close
        });
        shared.bytes_sent.fetch_add(self.out.take_moved(), Ordering::Relaxed);
        self.out.give_back(&mut bench.staged);
        outcome
    }

    fn serve(&mut self, serving: &mut Serving<'_>) -> io::Result<Outcome> {
        let shared = serving.shared;
        let mut turn = Turn { bytes: TURN_BYTES, answers: TURN_ANSWERS };
        if let WaitsFor::Rate(until) = self.waits_for
            && serving.now < until
        {
            // Its socket became ready for what it waited for before that.
            return Ok(self.wait_for_rate(until));
        }
        // First what came: it may have come in time, and waited for a worker.
        self.read(shared, serving.now, &mut turn)?;
        if !self.is_in_time(serving.now, shared) {
            return Ok(Outcome::Close);
        }
        loop {
            let gathered = self.gather(serving, &mut turn);
            if self.out.flush(&self.socket)? > 0 {
                self.progress = serving.now;
                self.active = serving.now;
            }
            if self.out.waiting() > 0 {
                return Ok(self.wait_for_room(shared));
            }
            match gathered {
                Gathered::Close => return Ok(self.close(serving.now)),
                Gathered::Wait(at) => return Ok(self.wait_for_rate(at)),
                Gathered::Some if self.out.is_long() => {
                    if let Some(outcome) = self.splice(serving, &mut turn)? {
                        return Ok(outcome);
                    }
                }
                Gathered::Some => {}
                Gathered::Nothing => {
                    if !self.read(shared, serving.now, &mut turn)? {
                        return Ok(self.wait_for_input(shared));
                    }
                }
            }
            if turn.bytes == 0 || turn.answers == 0 {
                return Ok(Outcome::Again);
            }
            serving.now = Instant::now();
        }
    }

    /// Reads what came. Returns whether something did.
    fn read(&mut self, shared: &Shared, now: Instant, turn: &mut Turn) -> io::Result<bool> {
        let mut some = false;
        if self.begun.is_some() && !self.talk.wants_input() {
            // It cannot go on as long as nothing is read.
            self.begun = Some(now);
        }
        if matches!(self.talk, Talk::Unknown) && !self.ended {
            let mut first = [0];
            match recv_now(&self.socket, &mut first, RecvFlags::PEEK)? {
                None => return Ok(false),
                Some(0) => self.ended = true,
                Some(_) => self.talk = Talk::beginning_with(first[0], shared),
            }
            if self.refused {
                self.talk.end(Reason::TooManyConnections, shared);
            }
        }
        for _ in 0..READS_MAX {
            let space = self.talk.space();
            if self.ended || space.is_empty() {
                break;
            }
            let most = space.len();
            let Some(count) = recv_now(&self.socket, space, RecvFlags::empty())? else { break };
            if count == 0 {
                self.ended = true;
                break;
            }
            some = true;
            let whole = self.talk.filled(count, shared);
            turn.answers = turn.answers.saturating_sub(whole / 16 + 1);
            if whole > 0 {
                self.active = now;
            }
            self.begun = match self.begun {
                _ if !self.talk.is_amid_frame() => None,
                Some(since) if whole == 0 => Some(since),
                _ => Some(now),
            };
            if count < most {
                break;
            }
        }
        Ok(some)
    }

    /// Puts together what is sent next.
    fn gather(&mut self, serving: &mut Serving<'_>, turn: &mut Turn) -> Gathered {
        let rate = serving.shared.rate.as_ref();
        let mut some = self.out.waiting() > 0;
        loop {
            if self.out.is_long() || self.out.waiting() >= STAGED_BYTES || turn.answers == 0 {
                return Gathered::Some;
            }
            if self.out.body().is_some() {
                let before = self.out.waiting();
                match self.out.copy(rate, STAGED_BYTES, serving.now) {
                    Moved::Wait(at) => return Gathered::Wait(at),
                    Moved::Whole(result) => self.talk.body_ended(result),
                    Moved::Some | Moved::Full => {}
                }
                let copied = self.out.waiting().saturating_sub(before) as u64;
                turn.bytes = turn.bytes.saturating_sub(copied);
                some = true;
                continue;
            }
            if self.closing {
                return Gathered::Close;
            }
            match self.talk.next(serving, &mut self.out) {
                Next::Some => {
                    turn.answers -= 1;
                    some = true;
                    if self.out.is_long() {
                        self.tune_by_rtt();
                    }
                }
                Next::Nothing if some => return Gathered::Some,
                Next::Nothing => return Gathered::Nothing,
                Next::Wait(at) => return Gathered::Wait(at),
                Next::Close => {
                    self.closing = true;
                    return Gathered::Close;
                }
            }
        }
    }

    fn splice(
        &mut self,
        serving: &mut Serving<'_>,
        turn: &mut Turn,
    ) -> io::Result<Option<Outcome>> {
        let shared = serving.shared;
        let left = turn.bytes.max(1);
        let before = self.out.body().map_or(0, |body| body.at);
        match self.out.splice(&self.socket, shared.rate.as_ref(), left, serving.now)? {
            Moved::Some => {
                let after = self.out.body().map_or(before, |body| body.at);
                turn.bytes = turn.bytes.saturating_sub(after - before);
                self.progress = serving.now;
                self.active = serving.now;
            }
            Moved::Whole(result) => self.talk.body_ended(result),
            Moved::Full => return Ok(Some(self.wait_for_room(shared))),
            Moved::Wait(at) => return Ok(Some(self.wait_for_rate(at))),
        }
        Ok(None)
    }

    /// Whether it may go on: a connection that let a deadline pass is told so, or is over.
    fn is_in_time(&mut self, now: Instant, shared: &Shared) -> bool {
        match self.waits_for {
            WaitsFor::Rate(_) => true,
            WaitsFor::Room => self.is_taking(now, shared),
            WaitsFor::Input => {
                let (deadline, reason) = self.deadline(shared);
                if now >= deadline {
                    shared.log.debug(&format!("{}: {reason}", self.from));
                    self.talk.end(reason, shared);
                }
                true
            }
        }
    }

    /// Whether the other end took something lately. Also what it takes of the kernel's buffer counts, as
    /// there is room in that again only when much of it has gone.
    fn is_taking(&mut self, now: Instant, shared: &Shared) -> bool {
        if now < self.progress + shared.limits.stall {
            return true;
        }
        let acknowledged = tcp_info(self.socket.as_fd()).map_or(0, |info| info.acknowledged);
        let taking = acknowledged > self.acknowledged;
        self.acknowledged = acknowledged;
        if taking {
            self.progress = now;
        } else {
            shared.log.debug(&format!("{}: {}", self.from, Reason::SlowReader));
        }
        taking
    }

    /// By when something must come, and what it is called when it does not.
    fn deadline(&self, shared: &Shared) -> (Instant, Reason) {
        let limits = &shared.limits;
        if !self.talk.is_greeted() {
            return (self.accepted + limits.hello, Reason::HelloTimeout);
        }
        match self.begun {
            Some(begun) => (begun + limits.frame, Reason::FrameTimeout),
            None => (self.active + limits.idle, Reason::Idle),
        }
    }

    fn wait_for_input(&mut self, shared: &Shared) -> Outcome {
        if self.ended {
            return Outcome::Close;
        }
        self.talk.release();
        self.waits_for = WaitsFor::Input;
        Outcome::Park { interest: EventFlags::IN, until: self.deadline(shared).0 }
    }

    fn wait_for_room(&mut self, shared: &Shared) -> Outcome {
        if self.waits_for != WaitsFor::Room {
            self.waits_for = WaitsFor::Room;
            self.progress = Instant::now();
            self.acknowledged = 0;
            if let Ok(info) = tcp_info(self.socket.as_fd()) {
                self.acknowledged = info.acknowledged;
            }
        }
        let mut interest = EventFlags::OUT;
        if !self.ended && self.talk.wants_input() {
            interest |= EventFlags::IN;
        }
        Outcome::Park { interest, until: self.progress + shared.limits.stall }
    }

    fn wait_for_rate(&mut self, until: Instant) -> Outcome {
        self.waits_for = WaitsFor::Rate(until);
        Outcome::Park { interest: EventFlags::empty(), until }
    }

    /// Nothing more is sent. What still comes is read and dropped for a while: otherwise the last words
    /// could be lost in a reset.
    fn close(&mut self, now: Instant) -> Outcome {
        if self.ended || self.socket.shutdown(std::net::Shutdown::Write).is_err() {
            return Outcome::Close;
        }
        let until = now + LINGER;
        self.lingering = Some(until);
        self.linger(until, now)
    }

    fn linger(&mut self, until: Instant, now: Instant) -> Outcome {
        let mut bytes = [0; 4_096];
        for _ in 0..READS_MAX {
            match recv_now(&self.socket, &mut bytes, RecvFlags::empty()) {
                Ok(None) if now < until => {
                    return Outcome::Park { interest: EventFlags::IN, until };
                }
                Ok(Some(1..)) => {}
                _ => return Outcome::Close,
            }
        }
        // It sends on and on.
        if now < until { Outcome::Again } else { Outcome::Close }
    }

    /// The same as over loopback holds in a network without delay, which is known after a while.
    fn tune_by_rtt(&mut self) {
        if !self.tuned {
            self.tuned = true;
            if tcp_info(self.socket.as_fd()).is_ok_and(|info| info.rtt < NEAR_RTT) {
                tcp::choose_reno(&self.socket);
            }
        }
    }
}

/// So many bytes of files a connection is sent in a turn.
const TURN_BYTES: u64 = 4 << 20;
/// So many answers a turn has.
const TURN_ANSWERS: u32 = 512;
/// So often a turn reads in a row.
const READS_MAX: u32 = 4;
/// So many bytes are put together before they are sent.
const STAGED_BYTES: usize = 128 << 10;
/// A round trip of less is one within a room.
const NEAR_RTT: Duration = Duration::from_micros(200);
/// For so long the other end may take to see the end.
const LINGER: Duration = Duration::from_secs(1);
