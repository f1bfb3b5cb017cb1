//! What a driver does with a server's effects: the log, and per connection what goes out when.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cordee_core::Time;
use cordee_core::framing::Deframer;
use cordee_core::ids::{ConnId, OriginRef, Position, ScopeRef};
use cordee_core::log::{Chunk, ChunkBuilder, Cursor, Items, Visibility};

/// About how many bytes of the log go out in one piece.
const SLICE_BYTES: usize = 16 << 10;
/// Drained bytes that are reported at the latest.
const DRAINED_BYTES: u32 = 16 << 10;

/// Frames that wait outside the log.
#[derive(Debug)]
pub(crate) enum Private {
    Plain { bytes: Vec<u8>, notify: bool },
    Stamped { bytes: Vec<u8> },
}

/// What happens to a connection when its cursor stands somewhere.
#[derive(Debug)]
pub(crate) enum Change {
    Send(Vec<u8>),
    Show(ScopeRef, u64),
    Hide(ScopeRef, u64),
}

/// One connection as the driver sees it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) wire: usize,
    pub(crate) side: usize,
    pub(crate) deframer: Deframer,
    pub(crate) greeted: bool,
    pub(crate) mid_frame: bool,
    pub(crate) paused: bool,
    pub(crate) closing: Option<Time>,
    pub(crate) blocked_since: Option<Time>,
    private: VecDeque<Private>,
    at: VecDeque<(Position, Change)>,
    pub(crate) cursor: Option<Cursor>,
    /// What the cursor sees.
    pub(crate) visible: Vec<ScopeRef>,
    /// Bytes on their way into the socket; so many of them count as queued.
    going: VecDeque<u8>,
    going_counted: u32,
    drained: u32,
    notify: bool,
}

/// What the pump tells the machine.
#[derive(Debug)]
pub(crate) enum Feedback {
    Drained(ConnId, u32),
    Lagged(ConnId, Vec<(OriginRef, u64)>),
}

impl Line {
    pub(crate) fn new(wire: usize, side: usize, frame_bytes_max: usize, greeted: bool) -> Self {
        Line {
            wire,
            side,
            deframer: Deframer::new(frame_bytes_max),
            greeted,
            mid_frame: false,
            paused: false,
            closing: None,
            blocked_since: None,
            private: VecDeque::new(),
            at: VecDeque::new(),
            cursor: None,
            visible: Vec::new(),
            going: VecDeque::new(),
            going_counted: 0,
            drained: 0,
            notify: false,
        }
    }

    pub(crate) fn send(&mut self, private: Private) {
        assert!(self.closing.is_none(), "nothing is sent on a connection that was closed");
        self.private.push_back(private);
    }

    pub(crate) fn follow(&mut self, from: Position, peer: bool, mt: u64) {
        assert!(self.cursor.is_none(), "a connection follows once");
        assert!(self.at.is_empty(), "changes come after the cursor");
        let visibility = if peer { Visibility::Peer } else { Visibility::Client(Vec::new()) };
        self.cursor = Some(Cursor::new(from, visibility, mt));
        self.visible.clear();
    }

    pub(crate) fn unfollow(&mut self) {
        self.cursor = None;
        self.at.clear();
    }

    pub(crate) fn change_at(&mut self, position: Position, change: Change) {
        let cursor = self.cursor.as_ref().expect("a change comes after the cursor");
        assert!(position >= cursor.position(), "a change lies ahead of the cursor");
        let last = self.at.back().map_or(Position(0), |(last, _)| *last);
        assert!(position >= last, "changes come in ascending order");
        self.at.push_back((position, change));
    }

    /// Whether nothing is left to be said before the log.
    pub(crate) fn is_flushed(&self) -> bool {
        self.private.is_empty() && self.going.is_empty()
    }

    /// Whether the connection has everything up to `end`.
    pub(crate) fn is_drained(&self, end: Position) -> bool {
        self.is_flushed()
            && self.at.is_empty()
            && self.cursor.as_ref().is_some_and(|cursor| cursor.position() == end)
    }

    /// Decides what goes out next; `false` when there is nothing.
    fn next(&mut self, log: &VecDeque<Arc<Chunk>>, end: Position) -> Result<bool, ()> {
        match self.private.pop_front() {
            Some(Private::Plain { bytes, notify }) => {
                self.going_counted += bytes.len() as u32;
                self.going.extend(bytes);
                self.notify |= notify;
                return Ok(true);
            }
            Some(Private::Stamped { mut bytes }) => {
                if let Some(cursor) = &self.cursor {
                    bytes[5..13].copy_from_slice(&cursor.mt().to_be_bytes());
                }
                self.going_counted += bytes.len() as u32;
                self.going.extend(bytes);
                return Ok(true);
            }
            None => {}
        }
        if self.closing.is_some() {
            return Ok(false);
        }
        self.next_of_log(log, end)
    }

    fn next_of_log(&mut self, log: &VecDeque<Arc<Chunk>>, end: Position) -> Result<bool, ()> {
        loop {
            let Some(cursor) = &mut self.cursor else { return Ok(false) };
            if self.at.front().is_some_and(|(at, _)| *at <= cursor.position()) {
                let (at, change) = self.at.pop_front().expect("looked at");
                assert_eq!(at, cursor.position(), "a change is made where it belongs");
                match change {
                    Change::Send(bytes) => {
                        self.going_counted += bytes.len() as u32;
                        self.going.extend(bytes);
                        return Ok(true);
                    }
                    Change::Show(scope, mt) => {
                        assert!(cursor.show(scope), "a scope is shown once");
                        cursor.set_mt(cursor.mt() + mt);
                        self.visible.push(scope);
                    }
                    Change::Hide(scope, mt) => {
                        assert!(cursor.hide(scope), "what is hidden was shown");
                        let before = cursor.mt();
                        assert!(before >= mt, "MT holds the rows of each scope that is seen");
                        cursor.set_mt(before - mt);
                        self.visible.retain(|other| *other != scope);
                    }
                }
                continue;
            }
            if cursor.position() >= end {
                return Ok(false);
            }
            let first = log.front().expect("a log that does not end here").first();
            if cursor.position() < first {
                return Err(());
            }
            let chunk = log.iter().rev().find(|chunk| chunk.first() <= cursor.position());
            let chunk = chunk.expect("the chunk of a position");
            let stop = self.at.front().map_or(end, |(at, _)| *at);
            if let Some(range) = cursor.advance(chunk, SLICE_BYTES, stop) {
                self.going.extend(&chunk.frames()[range]);
                return Ok(true);
            }
        }
    }
}

/// The log of one server, and its connections.
#[derive(Debug)]
pub(crate) struct Pump {
    builder: ChunkBuilder,
    log: VecDeque<Arc<Chunk>>,
    end: Position,
    pub(crate) lines: BTreeMap<ConnId, Line>,
}

impl Pump {
    pub(crate) fn new() -> Self {
        Pump {
            builder: ChunkBuilder::new(Position(0)),
            log: VecDeque::new(),
            end: Position(0),
            lines: BTreeMap::new(),
        }
    }

    /// A connection that the machine speaks of; it must be there.
    pub(crate) fn line(&mut self, conn: ConnId) -> &mut Line {
        let line = self.lines.get_mut(&conn).expect("an effect is for a connection that is there");
        assert!(line.closing.is_none(), "nothing is wanted of a connection that was closed");
        line
    }

    pub(crate) fn publish(&mut self, frames: &[u8], items: &[u8]) {
        self.builder.push(frames, Items::new(items));
    }

    /// Makes a chunk of what was published.
    pub(crate) fn end_batch(&mut self) {
        if !self.builder.is_empty() {
            let chunk = self.builder.take();
            self.end = chunk.end();
            self.log.push_back(Arc::new(chunk));
        }
    }

    pub(crate) fn end(&self) -> Position {
        self.end
    }

    pub(crate) fn trim(&mut self, before: Position) {
        self.end_batch();
        while self.log.len() > 1 && self.log.front().is_some_and(|chunk| chunk.end() <= before) {
            self.log.pop_front();
        }
    }

    /// Sends on a connection what it takes: `take` is given bytes and says how many it took.
    pub(crate) fn pump(
        &mut self,
        id: ConnId,
        now: Time,
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> Vec<Feedback> {
        let Some(line) = self.lines.get_mut(&id) else { return Vec::new() };
        let mut told = Vec::new();
        let mut took_any = false;
        loop {
            if line.going.is_empty() {
                line.drained += core::mem::take(&mut line.going_counted);
                match line.next(&self.log, self.end) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(()) => {
                        let passed = line.cursor.take().map(|cursor| cursor.passed().collect());
                        line.at.clear();
                        told.push(Feedback::Lagged(id, passed.unwrap_or_default()));
                        break;
                    }
                }
            }
            let bytes = line.going.make_contiguous();
            let took = take(bytes);
            line.going.drain(..took);
            took_any |= took > 0;
            if !line.going.is_empty() {
                break;
            }
        }
        line.blocked_since = match (line.going.is_empty(), took_any, line.blocked_since) {
            (true, ..) => None,
            (false, false, Some(since)) => Some(since),
            (false, ..) => Some(now),
        };
        let idle = line.is_flushed();
        if line.drained > 0 && (line.notify || idle || line.drained >= DRAINED_BYTES) {
            line.notify &= !idle;
            told.push(Feedback::Drained(id, core::mem::take(&mut line.drained)));
        }
        told
    }
}
