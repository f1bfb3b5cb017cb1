//! A TCP relay that misbehaves: a server is reached through it, by peers and by clients.
//!
//! What it does to a connection depends on the address from which that came: servers dial from the
//! address on which they listen, so each has a [`Path`] of its own; clients come from another.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use cordee_core::prng::Prng;
use socket2::SockRef;

use crate::lane::{Framing, Lane};

/// What happens to the connections from one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Path {
    /// None is let in.
    pub refused: bool,
    /// From whoever connected to the server.
    pub inward: Lane,
    /// From the server to whoever connected.
    pub outward: Lane,
}

/// How connections are ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// In order, both ways.
    Close,
    /// By a reset, both ways.
    Reset,
    /// In order, towards the server only: the other way stays open.
    HalfInward,
    /// In order, away from the server only.
    HalfOutward,
}

/// Leads whoever connects to a target.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    target: Option<SocketAddr>,
    paths: HashMap<IpAddr, Path>,
    connections: Vec<Weak<Connection>>,
    draw: Prng,
    garbled: u64,
}

/// A connection through the relay. Its sockets close when both carriers are done with it.
#[derive(Debug)]
struct Connection {
    from: IpAddr,
    inner: TcpStream,
    outer: TcpStream,
    /// Whether it is to end at once, whatever is on its way.
    over: Mutex<bool>,
}

/// A direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    Inward,
    Outward,
}

impl Relay {
    /// Listens on a free port of `host`. `seed` decides what harm looks like.
    ///
    /// # Errors
    ///
    /// When there is no such address, port or thread.
    pub fn start(host: &str, seed: u64) -> io::Result<Relay> {
        let listener = TcpListener::bind((host, 0))?;
        let address = listener.local_addr()?;
        let state = State {
            target: None,
            paths: HashMap::new(),
            connections: Vec::new(),
            draw: Prng::new(seed),
            garbled: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::Builder::new().name("relay".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // One that cannot be led on is dropped: whoever connected sees it closed.
                let _ = accepting.accept(stream);
            }
        })?;
        Ok(Relay { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where it leads from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        self.shared.lock().target = Some(target);
    }

    /// Changes what happens to connections from `host`, those that stand included.
    pub fn change(&self, host: IpAddr, change: impl FnOnce(&mut Path)) {
        change(self.shared.lock().paths.entry(host).or_default());
        self.shared.changed.notify_all();
    }

    /// Ends the connections from `host` that stand. Returns how many there were.
    pub fn end(&self, host: IpAddr, end: End) -> usize {
        let connections = self.connections(host);
        for connection in &connections {
            connection.end(end);
        }
        self.shared.changed.notify_all();
        connections.len()
    }

    /// Ends every connection from `host`, and lets none from there in.
    pub fn cut(&self, host: IpAddr) {
        self.change(host, |path| path.refused = true);
        self.end(host, End::Close);
    }

    /// Lets everyone in, and everything through.
    pub fn heal(&self) {
        self.shared.lock().paths.clear();
        self.shared.changed.notify_all();
    }

    /// How many connections from `host` stand.
    #[must_use]
    pub fn connections_from(&self, host: IpAddr) -> usize {
        self.connections(host).len()
    }

    /// How many frames were spoilt so far.
    #[must_use]
    pub fn garbled(&self) -> u64 {
        self.shared.lock().garbled
    }

    fn connections(&self, host: IpAddr) -> Vec<Arc<Connection>> {
        let mut state = self.shared.lock();
        state.connections.retain(|connection| connection.strong_count() > 0);
        let all = state.connections.iter().filter_map(Weak::upgrade);
        all.filter(|connection| connection.from == host && !connection.is_over()).collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, outer: TcpStream) -> io::Result<()> {
        let from = outer.peer_addr()?.ip();
        let (target, refused) = {
            let state = self.lock();
            (state.target, state.paths.get(&from).is_some_and(|path| path.refused))
        };
        let Some(target) = target.filter(|_| !refused) else { return Ok(()) };
        // A server that is stopped still takes connections: the kernel does.
        let inner = TcpStream::connect_timeout(&target, CONNECT)?;
        for stream in [&inner, &outer] {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(LOOK))?;
        }
        let connection = Arc::new(Connection { from, inner, outer, over: Mutex::new(false) });
        {
            let mut state = self.lock();
            // It may have been cut off meanwhile.
            if state.paths.get(&from).is_some_and(|path| path.refused) {
                return Ok(());
            }
            state.connections.push(Arc::downgrade(&connection));
        }
        for direction in [Direction::Inward, Direction::Outward] {
            let (shared, connection) = (Arc::clone(self), Arc::clone(&connection));
            thread::Builder::new().name("carrier".to_owned()).stack_size(STACK_BYTES).spawn(
                move || {
                    let whole = shared.carry(&connection, direction).is_ok();
                    connection.done(direction, whole);
                },
            )?;
        }
        Ok(())
    }

    /// Carries one direction to its end.
    fn carry(&self, connection: &Connection, direction: Direction) -> io::Result<()> {
        let (mut from, to) = connection.ends(direction);
        let mut framing = Framing::default();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let piece = &mut buffer[..count];
            let lane = self.await_lane(connection, direction)?;
            if !lane.delay.is_zero() {
                thread::sleep(lane.delay);
            }
            if lane.garbled {
                let mut state = self.lock();
                let spoilt = framing.pass(piece, Some(&mut state.draw));
                state.garbled += u64::from(spoilt);
            } else {
                framing.pass(piece, None);
            }
            for part in piece.chunks(if lane.dribbles { 1 } else { count }) {
                connection.write(to, part)?;
            }
        }
    }

    /// What is to happen to a piece that was read, as soon as anything is to happen to it.
    fn await_lane(&self, connection: &Connection, direction: Direction) -> io::Result<Lane> {
        let mut state = self.lock();
        loop {
            if connection.is_over() {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            let path = state.paths.get(&connection.from).copied().unwrap_or_default();
            let lane = match direction {
                Direction::Inward => path.inward,
                Direction::Outward => path.outward,
            };
            if !lane.stalled {
                return Ok(lane);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Connection {
    fn is_over(&self) -> bool {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self, direction: Direction) -> (&TcpStream, &TcpStream) {
        match direction {
            Direction::Inward => (&self.outer, &self.inner),
            Direction::Outward => (&self.inner, &self.outer),
        }
    }

    fn write(&self, mut to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match to.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted) => {}
                // Nobody reads for a while; whether it is all over shows now and then.
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.is_over() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn end(&self, end: End) {
        // Each fails only for a socket that has ended already.
        match end {
            End::HalfInward => drop(self.inner.shutdown(Shutdown::Write)),
            End::HalfOutward => drop(self.outer.shutdown(Shutdown::Write)),
            End::Close | End::Reset => {
                *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
                for stream in [&self.inner, &self.outer] {
                    if end == End::Reset {
                        // Then the last one to let go of it resets it.
                        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
                    }
                    // Wakes a carrier that reads; on the wire nothing shows.
                    let _ = stream.shutdown(Shutdown::Read);
                }
            }
        }
    }

    /// A carrier is done, with everything up to the end of its stream or not.
    fn done(&self, direction: Direction, whole: bool) {
        let (from, to) = self.ends(direction);
        if whole && !self.is_over() {
            let _ = to.shutdown(Shutdown::Write);
        } else if !self.is_over() {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        }
    }
}

/// How long a server may take to accept.
const CONNECT: Duration = Duration::from_secs(2);
/// How often a carrier that cannot write looks whether all is over.
const LOOK: Duration = Duration::from_millis(100);
const STACK_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay, the far end of a connection through it, and the near end.
    fn rig() -> (Relay, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let relay = Relay::start("127.0.0.1", 1).expect("a free port");
        relay.lead_to(listener.local_addr().expect("bound"));
        let near = TcpStream::connect(relay.address()).expect("it listens");
        let (far, _) = listener.accept().expect("it leads there");
        while relay.connections_from(host()) == 0 {
            thread::yield_now();
        }
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
        }
        (relay, near, far)
    }

    fn host() -> IpAddr {
        IpAddr::from([127, 0, 0, 1])
    }

    #[test]
    fn a_stall_holds_one_direction_and_loses_nothing() {
        let (relay, mut near, mut far) = rig();
        relay.change(host(), |path| path.inward.stalled = true);
        near.write_all(b"there").expect("connected");
        far.write_all(b"back").expect("connected");
        let mut four = [0; 4];
        near.read_exact(&mut four).expect("the other way is open");
        far.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        assert!(far.read(&mut [0; 8]).is_err(), "nothing gets through");
        relay.heal();
        far.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
        let mut five = [0; 5];
        far.read_exact(&mut five).expect("it was held");
        assert_eq!((&four, &five), (b"back", b"there"));
    }

    #[test]
    fn a_reset_is_a_reset_and_a_close_is_none() {
        let (relay, mut near, mut far) = rig();
        assert_eq!(relay.end(host(), End::Reset), 1);
        let kind = |result: io::Result<usize>| result.map_err(|error| error.kind());
        assert_eq!(kind(near.read(&mut [0; 8])), Err(ErrorKind::ConnectionReset));
        assert_eq!(kind(far.read(&mut [0; 8])), Err(ErrorKind::ConnectionReset));
        let (relay, mut near, _far) = rig();
        relay.cut(host());
        assert_eq!(kind(near.read(&mut [0; 8])), Ok(0));
        let mut again = TcpStream::connect(relay.address()).expect("the kernel accepts");
        assert_eq!(again.read(&mut [0; 8]).unwrap_or(0), 0, "nobody is led on");
    }

    #[test]
    fn a_half_close_leaves_the_other_half() {
        let (relay, mut near, mut far) = rig();
        relay.end(host(), End::HalfInward);
        assert_eq!(far.read(&mut [0; 8]).expect("in order"), 0);
        far.write_all(b"still").expect("this half is open");
        let mut five = [0; 5];
        near.read_exact(&mut five).expect("it arrives");
        assert_eq!(&five, b"still");
    }

    #[test]
    fn bytes_that_come_one_by_one_are_all_there() {
        let (relay, mut near, mut far) = rig();
        relay.change(host(), |path| path.inward.dribbles = true);
        let sent: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        near.write_all(&sent).expect("connected");
        near.shutdown(Shutdown::Write).expect("connected");
        let mut got = Vec::new();
        far.read_to_end(&mut got).expect("it ends in order");
        assert_eq!(got, sent);
    }
}
