//! What was asked of whom, kept by the plainest means: what must hold at every step.

use std::collections::BTreeMap;

use cordee_core::blocks::Layout;
use cordee_core::blocks::scheduler::{Config, Effect, FetchConn, Input, RunEnd};

/// A connection as the model sees it.
#[derive(Default, Debug)]
struct Conn {
    is_open: bool,
    is_closing: bool,
    requests_max: usize,
    /// Per request the blocks that are still to come, and whether it was taken back.
    requests: BTreeMap<u64, (Vec<u64>, bool)>,
    asked: usize,
}

/// Judges every effect, and every block that is stored.
#[derive(Debug)]
pub struct Model {
    layout: Layout,
    in_flight_bytes_max: u64,
    requests_max: usize,
    connection_per_block: bool,
    window_blocks: Option<u64>,
    stored: Vec<bool>,
    /// Per block from how many connections it may come.
    in_flight: Vec<u8>,
    in_flight_bytes: u64,
    /// The most that was in flight.
    pub in_flight_bytes_peak: u64,
    conns: BTreeMap<FetchConn, Conn>,
    requests_seen: u64,
    low: usize,
    /// The last effect has come.
    pub is_over: bool,
}

impl Model {
    /// Of a fetch that lacks all blocks but those in `stored`.
    #[must_use]
    pub fn new(config: &Config, stored: impl Iterator<Item = u64>) -> Model {
        let blocks = config.layout.blocks() as usize;
        let mut known = vec![false; blocks];
        stored.for_each(|block| known[block as usize] = true);
        let block = u64::from(config.layout.block_bytes());
        Model {
            layout: config.layout,
            in_flight_bytes_max: config.in_flight_bytes_max,
            requests_max: config.requests_max as usize,
            connection_per_block: config.connection_per_block,
            window_blocks: config.sequential.then_some(config.in_flight_bytes_max / block),
            low: known.iter().take_while(|stored| **stored).count(),
            stored: known,
            in_flight: vec![0; blocks],
            in_flight_bytes: 0,
            in_flight_bytes_peak: 0,
            conns: BTreeMap::new(),
            requests_seen: 0,
            is_over: false,
        }
    }

    /// How many blocks are not stored.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.stored.iter().filter(|stored| !**stored).count()
    }

    /// Whether a connection may be asked for something, or was.
    #[must_use]
    pub fn is_open(&self, conn: FetchConn) -> bool {
        self.conns.get(&conn).is_some_and(|conn| conn.is_open && !conn.is_closing)
    }

    /// What comes next on a connection: the request, the block, and whether it was taken back.
    #[must_use]
    pub fn next_of(&self, conn: FetchConn) -> Option<(u64, u64, bool)> {
        let requests = &self.conns.get(&conn)?.requests;
        let (request, (blocks, is_cancelled)) = requests.first_key_value()?;
        Some((*request, *blocks.first()?, *is_cancelled))
    }

    /// Before the scheduler is told.
    pub fn before(&mut self, input: &Input) {
        match *input {
            Input::Connected { conn, requests_max, .. } => {
                let conn = self.conns.get_mut(&conn).expect("it was connected to");
                conn.is_open = true;
                conn.requests_max = self.requests_max.min(requests_max.max(1) as usize);
            }
            Input::Stored { conn, block } => {
                self.came(conn, block);
                self.stored[block as usize] = true;
                while self.stored.get(self.low) == Some(&true) {
                    self.low += 1;
                }
            }
            Input::Bad { conn, block } => self.came(conn, block),
            Input::Ended { conn, request, end } => {
                let ended =
                    self.conns.get_mut(&conn).and_then(|conn| conn.requests.remove(&request));
                if let Some((blocks, is_cancelled)) = ended {
                    assert!(is_cancelled || end != RunEnd::Cancelled);
                    if !is_cancelled {
                        blocks.iter().for_each(|block| self.gone(*block));
                    }
                }
            }
            Input::Closed { conn, .. } => {
                self.drop_requests(conn);
                self.conns.remove(&conn);
            }
            Input::SourceAdded { .. } | Input::Arrived { .. } | Input::Cancelled => {}
        }
    }

    fn came(&mut self, conn: FetchConn, block: u64) {
        let Some(conn) = self.conns.get_mut(&conn) else { return };
        let request = conn.requests.iter().find(|(_, (blocks, _))| blocks.contains(&block));
        let Some((request, is_cancelled)) = request.map(|(request, (_, c))| (*request, *c)) else {
            assert!(conn.is_closing, "block {block} was not asked of it");
            return;
        };
        let (blocks, _) = conn.requests.get_mut(&request).expect("it was found");
        blocks.retain(|other| *other != block);
        if blocks.is_empty() {
            conn.requests.remove(&request);
        }
        if !is_cancelled {
            self.gone(block);
        }
    }

    fn gone(&mut self, block: u64) {
        self.in_flight[block as usize] -= 1;
        self.in_flight_bytes -= u64::from(self.layout.block_len(block));
    }

    fn drop_requests(&mut self, conn: FetchConn) {
        let Some(conn) = self.conns.get_mut(&conn) else { return };
        for (blocks, is_cancelled) in std::mem::take(&mut conn.requests).into_values() {
            if !is_cancelled {
                blocks.iter().for_each(|block| self.gone(*block));
            }
        }
    }

    /// What the scheduler wants, one after the other.
    pub fn effect(&mut self, effect: &Effect) {
        assert!(!self.is_over, "{effect:?} after the end");
        match *effect {
            Effect::Connect { conn, .. } => {
                let is_new = self.conns.insert(conn, Conn::default()).is_none();
                assert!(is_new, "{conn:?} is used twice");
            }
            Effect::Request { conn, request, first, count } => {
                self.requested(conn, request, first..first + u64::from(count));
            }
            Effect::Cancel { conn, request } => {
                let conn = self.conns.get_mut(&conn).expect("a connection");
                let (blocks, is_cancelled) =
                    conn.requests.get_mut(&request).expect("an outstanding request");
                assert!(!std::mem::replace(is_cancelled, true), "{request} is cancelled twice");
                let blocks = blocks.clone();
                blocks.iter().for_each(|block| self.gone(*block));
            }
            Effect::Close { conn } => {
                self.drop_requests(conn);
                let conn = self.conns.get_mut(&conn).expect("a connection");
                assert!(!std::mem::replace(&mut conn.is_closing, true), "closed twice");
            }
            Effect::Drop { .. } => {}
            Effect::Done => {
                assert_eq!(self.missing(), 0, "done, and not all is there");
                self.ended();
            }
            Effect::Failed => self.ended(),
        }
    }

    fn ended(&mut self) {
        self.is_over = true;
        assert!(self.conns.values().all(|conn| conn.is_closing), "all is closed at the end");
    }

    fn requested(&mut self, id: FetchConn, request: u64, blocks: std::ops::Range<u64>) {
        assert!(!blocks.is_empty() && blocks.end <= self.layout.blocks(), "{blocks:?}");
        assert!(request > self.requests_seen, "requests differ");
        self.requests_seen = request;
        for block in blocks.clone() {
            assert!(!self.stored[block as usize], "block {block} is stored");
            let in_flight = &mut self.in_flight[block as usize];
            *in_flight += 1;
            assert!(*in_flight <= 2, "block {block} comes from more than two");
            self.in_flight_bytes += u64::from(self.layout.block_len(block));
        }
        self.in_flight_bytes_peak = self.in_flight_bytes_peak.max(self.in_flight_bytes);
        assert!(self.in_flight_bytes <= self.in_flight_bytes_max, "too much in flight");
        if let Some(window) = self.window_blocks {
            assert!(blocks.end <= self.low as u64 + window, "too far ahead");
        }
        let conn = self.conns.get_mut(&id).expect("a connection");
        assert!(conn.is_open && !conn.is_closing, "{id:?} is asked and not open");
        conn.asked += 1;
        conn.requests.insert(request, (blocks.clone().collect(), false));
        assert!(conn.requests.len() <= conn.requests_max, "too many requests wait");
        if self.connection_per_block {
            assert!(conn.asked == 1 && blocks.end - blocks.start == 1, "one block a connection");
        }
    }
}
