//! The log: what goes to many, encoded once, and the cursors that read it.
//!
//! A server appends every item to its log in the order in which it shows them: entries, the
//! definitions of origins, and events (arrivals, rooms, topics). Connections do not have queues
//! of such items; each is a [`Cursor`]: a position, what it may see, and MT. The driver keeps the
//! log as immutable [`Chunk`]s and asks a cursor which bytes to send; the simulator does the same.
//!
//! ```text
//! machine ── Publish(frames, items) ──▶ ChunkBuilder ──▶ Arc<Chunk> ──▶ Cursor::advance ──▶ bytes
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use byteorder::{BigEndian, ByteOrder};

use crate::ids::{OriginRef, Position, ScopeRef};

/// The scope of an item that everyone in its audience sees.
pub const EVERYONE: ScopeRef = ScopeRef(u32::MAX);

/// Whom an item is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// Clients alone: events, and entries of other origins.
    Clients,
    /// Clients and peers: entries of this server's own origin, and definitions of origins.
    All,
    /// Peers alone: copies of rows of this server's own origin.
    Peers,
    /// Nobody: copies of rows that came from elsewhere. They move cursors.
    Nobody,
}

/// What the log knows of one frame in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item {
    /// Length of its frame in bytes.
    pub bytes: u32,
    /// Who may see it among clients; [`EVERYONE`] for what is not bound to a room or talk.
    pub scope: ScopeRef,
    /// The origin of an entry.
    pub origin: OriginRef,
    /// The number of an entry; 0 for anything else.
    pub number: u64,
    /// Whom it is for.
    pub audience: Audience,
    /// Whether it is a row: counts in MA and MT.
    pub row: bool,
}

/// Bytes of an encoded [`Item`].
const ITEM_BYTES: usize = 22;

impl Item {
    /// Appends the item in the form that [`Items`] reads.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; ITEM_BYTES];
        BigEndian::write_u32(&mut bytes[0..], self.bytes);
        BigEndian::write_u32(&mut bytes[4..], self.scope.0);
        BigEndian::write_u32(&mut bytes[8..], self.origin.0);
        BigEndian::write_u64(&mut bytes[12..], self.number);
        bytes[20] = match self.audience {
            Audience::Clients => 0,
            Audience::All => 1,
            Audience::Peers => 2,
            Audience::Nobody => 3,
        };
        bytes[21] = u8::from(self.row);
        out.extend_from_slice(&bytes);
    }
}

/// Reads items that [`Item::put`] wrote.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    /// The items in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        debug_assert!(bytes.len().is_multiple_of(ITEM_BYTES));
        Items { rest: bytes }
    }
}

impl Iterator for Items<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let (bytes, rest) = self.rest.split_at_checked(ITEM_BYTES)?;
        self.rest = rest;
        Some(Item {
            bytes: BigEndian::read_u32(&bytes[0..]),
            scope: ScopeRef(BigEndian::read_u32(&bytes[4..])),
            origin: OriginRef(BigEndian::read_u32(&bytes[8..])),
            number: BigEndian::read_u64(&bytes[12..]),
            audience: match bytes[20] {
                0 => Audience::Clients,
                1 => Audience::All,
                2 => Audience::Peers,
                _ => Audience::Nobody,
            },
            row: bytes[21] != 0,
        })
    }
}

/// An item in a chunk, with the place where its frame ends.
#[derive(Clone, Copy, Debug)]
struct Placed {
    end: u32,
    item: Item,
}

/// A part of the log that never changes.
#[derive(Debug)]
pub struct Chunk {
    first: Position,
    frames: Box<[u8]>,
    items: Box<[Placed]>,
    summary: Summary,
}

/// What lets a cursor pass a whole chunk without looking at its items.
#[derive(Clone, Debug, Default)]
struct Summary {
    /// The scopes of items for clients, each once, [`EVERYONE`] left out.
    scopes: Vec<ScopeRef>,
    /// Whether any item is for clients and for everyone.
    everyone: bool,
    /// Whether every item is for clients (and perhaps for peers).
    all_clients: bool,
    /// Whether every item is for peers (and perhaps for clients).
    all_peers: bool,
    /// Whether any item is for peers.
    any_peers: bool,
    /// How many rows.
    rows: u64,
    /// Per origin, the highest number.
    ends: Vec<(OriginRef, u64)>,
}

impl Chunk {
    /// The position of its first item.
    #[must_use]
    pub fn first(&self) -> Position {
        self.first
    }

    /// The position after its last item.
    #[must_use]
    pub fn end(&self) -> Position {
        Position(self.first.0 + self.items.len() as u64)
    }

    /// Its frames, one after the other.
    #[must_use]
    pub fn frames(&self) -> &[u8] {
        &self.frames
    }

    fn start_of(&self, index: usize) -> u32 {
        if index == 0 { 0 } else { self.items[index - 1].end }
    }
}

/// Collects what is published until the driver makes a chunk of it.
#[derive(Debug, Default)]
pub struct ChunkBuilder {
    first: u64,
    frames: Vec<u8>,
    items: Vec<Placed>,
    summary: Summary,
}

impl ChunkBuilder {
    /// A builder for a log that begins at `first`.
    #[must_use]
    pub fn new(first: Position) -> Self {
        let mut builder = ChunkBuilder { first: first.0, ..ChunkBuilder::default() };
        builder.reset_summary();
        builder
    }

    /// Adds frames and what is known of them.
    pub fn push(&mut self, frames: &[u8], items: Items<'_>) {
        let mut end = self.frames.len() as u32;
        self.frames.extend_from_slice(frames);
        for item in items {
            end += item.bytes;
            self.items.push(Placed { end, item });
            self.summary.add(&item);
        }
        debug_assert_eq!(end as usize, self.frames.len(), "the items describe the frames");
    }

    /// Whether nothing was added since the last chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of frames added since the last chunk.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// The chunk of all that was added, and begins the next.
    pub fn take(&mut self) -> Chunk {
        let chunk = Chunk {
            first: Position(self.first),
            frames: Box::from(self.frames.as_slice()),
            items: Box::from(self.items.as_slice()),
            summary: core::mem::take(&mut self.summary),
        };
        self.first += self.items.len() as u64;
        self.frames.clear();
        self.items.clear();
        self.reset_summary();
        chunk
    }

    fn reset_summary(&mut self) {
        self.summary = Summary { all_clients: true, all_peers: true, ..Summary::default() };
    }
}

impl Summary {
    fn add(&mut self, item: &Item) {
        let for_clients = matches!(item.audience, Audience::Clients | Audience::All);
        let for_peers = matches!(item.audience, Audience::Peers | Audience::All);
        self.all_clients &= for_clients;
        self.all_peers &= for_peers;
        self.any_peers |= for_peers;
        if for_clients {
            if item.scope == EVERYONE {
                self.everyone = true;
            } else if self.scopes.last() != Some(&item.scope) && !self.scopes.contains(&item.scope)
            {
                self.scopes.push(item.scope);
            }
        }
        self.rows += u64::from(item.row);
        if item.number > 0 {
            match self.ends.iter_mut().find(|(origin, _)| *origin == item.origin) {
                Some((_, number)) => *number = item.number,
                None => self.ends.push((item.origin, item.number)),
            }
        }
    }
}

/// What a cursor may see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Visibility {
    /// A peer: what is for peers.
    Peer,
    /// A client: what is for everyone, and these scopes, sorted.
    Client(Vec<ScopeRef>),
}

/// One connection's place in the log: position, visibility and MT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor {
    position: Position,
    visibility: Visibility,
    mt: u64,
    /// By origin, the highest number passed since the cursor was made; 0 for none.
    passed: Vec<u64>,
}

impl Cursor {
    /// A cursor at `position`, with `mt` rows transferred before.
    #[must_use]
    pub fn new(position: Position, visibility: Visibility, mt: u64) -> Self {
        Cursor { position, visibility, mt, passed: Vec::new() }
    }

    /// The position of the next item.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many rows were transferred.
    #[must_use]
    pub fn mt(&self) -> u64 {
        self.mt
    }

    /// Sets MT, after a room came in or went out.
    pub fn set_mt(&mut self, mt: u64) {
        self.mt = mt;
    }

    /// What it sees.
    #[must_use]
    pub fn visibility(&self) -> &Visibility {
        &self.visibility
    }

    /// Per origin, the highest number passed since the cursor was made.
    pub fn passed(&self) -> impl Iterator<Item = (OriginRef, u64)> {
        let numbers = self.passed.iter().enumerate().filter(|(_, number)| **number > 0);
        numbers.map(|(origin, number)| (OriginRef(origin as u32), *number))
    }

    /// Lets a client's cursor see `scope` from here on. Returns whether it did not before.
    pub fn show(&mut self, scope: ScopeRef) -> bool {
        let Visibility::Client(scopes) = &mut self.visibility else { return false };
        match scopes.binary_search(&scope) {
            Ok(_) => false,
            Err(at) => {
                scopes.insert(at, scope);
                true
            }
        }
    }

    /// Hides `scope` from here on. Returns whether it was seen before.
    pub fn hide(&mut self, scope: ScopeRef) -> bool {
        let Visibility::Client(scopes) = &mut self.visibility else { return false };
        scopes.binary_search(&scope).map(|at| scopes.remove(at)).is_ok()
    }

    /// The next bytes of `chunk` to send: whole frames that lie next to each other, about
    /// `bytes_max` at the most and one frame at the least, none at or beyond `stop`. The cursor
    /// moves behind them.
    ///
    /// `None` when nothing more in the chunk and before `stop` is to be seen; the cursor has then
    /// passed it. The cursor must stand in the chunk or at its end.
    pub fn advance(
        &mut self,
        chunk: &Chunk,
        bytes_max: usize,
        stop: Position,
    ) -> Option<Range<usize>> {
        assert!(
            chunk.first <= self.position && self.position <= chunk.end(),
            "a cursor reads the chunk it stands in"
        );
        if self.position == chunk.first
            && chunk.end() <= stop
            && let Some(whole) = self.pass_whole(chunk, bytes_max)
        {
            return whole;
        }
        let until = (stop.min(chunk.end()).0.saturating_sub(chunk.first.0)) as usize;
        let mut at = (self.position.0 - chunk.first.0) as usize;
        while at < until && !self.sees(&chunk.items[at].item) {
            self.pass(&chunk.items[at].item, false);
            at += 1;
        }
        let begin = chunk.start_of(at);
        let mut end = begin;
        while at < until && self.sees(&chunk.items[at].item) {
            let next = chunk.items[at].end;
            if end > begin && (next - begin) as usize > bytes_max {
                break;
            }
            self.pass(&chunk.items[at].item, true);
            end = next;
            at += 1;
        }
        (end > begin).then_some(begin as usize..end as usize)
    }

    /// Passes the whole chunk when its summary says that all of it, or nothing, is to be seen.
    fn pass_whole(&mut self, chunk: &Chunk, bytes_max: usize) -> Option<Option<Range<usize>>> {
        let summary = &chunk.summary;
        let (all, none) = match &self.visibility {
            Visibility::Peer => (summary.all_peers, !summary.any_peers),
            Visibility::Client(seen) => {
                let sees = |scope: &ScopeRef| seen.binary_search(scope).is_ok();
                let all = summary.all_clients && summary.scopes.iter().all(sees);
                (all, !summary.everyone && !summary.scopes.iter().any(sees))
            }
        };
        let all = all && chunk.frames.len() <= bytes_max;
        if !all && !none {
            return None;
        }
        for &(origin, number) in &summary.ends {
            self.note(origin, number);
        }
        self.position = chunk.end();
        if all && !chunk.frames.is_empty() {
            self.mt += summary.rows;
            return Some(Some(0..chunk.frames.len()));
        }
        Some(None)
    }

    fn sees(&self, item: &Item) -> bool {
        match (&self.visibility, item.audience) {
            (_, Audience::Nobody)
            | (Visibility::Peer, Audience::Clients)
            | (Visibility::Client(_), Audience::Peers) => false,
            (Visibility::Peer, _) => true,
            (Visibility::Client(scopes), _) => {
                item.scope == EVERYONE || scopes.binary_search(&item.scope).is_ok()
            }
        }
    }

    fn pass(&mut self, item: &Item, seen: bool) {
        self.position.0 += 1;
        self.mt += u64::from(seen && item.row);
        if item.number > 0 {
            self.note(item.origin, item.number);
        }
    }

    fn note(&mut self, origin: OriginRef, number: u64) {
        let index = origin.0 as usize;
        if self.passed.len() <= index {
            self.passed.resize(index + 1, 0);
        }
        self.passed[index] = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn item(scope: u32, number: u64, audience: Audience) -> Item {
        Item {
            bytes: 3,
            scope: ScopeRef(scope),
            origin: OriginRef(1),
            number,
            audience,
            row: number > 0 && matches!(audience, Audience::Clients | Audience::All),
        }
    }

    fn chunk(items: &[Item]) -> Chunk {
        let (mut frames, mut encoded) = (Vec::new(), Vec::new());
        for (at, item) in items.iter().enumerate() {
            frames.extend_from_slice(&[at as u8; 3]);
            item.put(&mut encoded);
        }
        let mut builder = ChunkBuilder::new(Position(10));
        builder.push(&frames, Items::new(&encoded));
        builder.take()
    }

    fn read(cursor: &mut Cursor, chunk: &Chunk, bytes_max: usize, stop: u64) -> Vec<u8> {
        let mut seen = Vec::new();
        while let Some(range) = cursor.advance(chunk, bytes_max, Position(stop)) {
            seen.extend(chunk.frames()[range].iter().step_by(3));
        }
        seen
    }

    #[test]
    fn a_cursor_sees_its_scopes_and_what_is_for_everyone_and_counts_rows() {
        let chunk = chunk(&[
            item(1, 1, Audience::All),
            item(2, 2, Audience::All),
            item(u32::MAX, 0, Audience::Clients),
            item(1, 3, Audience::Peers),
            item(1, 4, Audience::Nobody),
            item(1, 5, Audience::Clients),
        ]);
        for bytes_max in [1, 6, 1_000] {
            let mut client = Cursor::new(Position(10), Visibility::Client(vec![ScopeRef(1)]), 100);
            assert_eq!(read(&mut client, &chunk, bytes_max, 99), [0, 2, 5]);
            assert_eq!((client.position(), client.mt()), (Position(16), 102));
            assert_eq!(client.passed().collect::<Vec<_>>(), [(OriginRef(1), 5)]);
            let mut peer = Cursor::new(Position(10), Visibility::Peer, 0);
            assert_eq!(read(&mut peer, &chunk, bytes_max, 99), [0, 1, 3]);
        }
    }

    #[test]
    fn a_change_of_visibility_holds_from_its_position_on() {
        let chunk = chunk(&[1, 1, 1, 1].map(|scope| item(scope, 1, Audience::All)));
        let mut client = Cursor::new(Position(10), Visibility::Client(Vec::new()), 0);
        assert_eq!(read(&mut client, &chunk, 1_000, 12), []);
        assert_eq!(client.position(), Position(12));
        assert!(client.show(ScopeRef(1)));
        assert_eq!(read(&mut client, &chunk, 1_000, 13), [2]);
        assert!(client.hide(ScopeRef(1)));
        assert_eq!(read(&mut client, &chunk, 1_000, 99), []);
        assert_eq!(client.mt(), 1);
    }

    #[test]
    fn the_whole_chunk_goes_out_in_one_piece_when_all_of_it_is_seen() {
        let chunk = chunk(&[item(1, 1, Audience::All), item(1, 2, Audience::All)]);
        let mut client = Cursor::new(Position(10), Visibility::Client(vec![ScopeRef(1)]), 0);
        assert_eq!(client.advance(&chunk, 1_000, Position(12)), Some(0..6));
        assert_eq!(client.advance(&chunk, 1_000, Position(12)), None);
        assert_eq!(client.mt(), 2);
    }
}
