//! A TCP relay that can be cut for those who come from one address.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

#[derive(Default)]
struct State {
    target: Option<SocketAddr>,
    cut: HashSet<IpAddr>,
    streams: Vec<(IpAddr, TcpStream)>,
}

/// Leads whoever connects to a target, from the address that the caller has.
pub struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Relay {
    /// Listens on a free port of `host`.
    pub fn start(host: &str) -> Relay {
        let listener = TcpListener::bind((host, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                accept(stream, &shared);
            }
        });
        Relay { address, state }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where it leads.
    pub fn lead_to(&self, target: &str) {
        self.lock().target = Some(target.parse().expect("an address"));
    }

    /// Ends every connection from `host`, and lets none from there in.
    pub fn cut(&self, host: &str) {
        let host: IpAddr = host.parse().expect("an address");
        let mut state = self.lock();
        state.cut.insert(host);
        state.streams.retain(|(from, stream)| {
            if *from == host {
                let _ = stream.shutdown(Shutdown::Both);
            }
            *from != host
        });
    }

    /// Lets everyone in again.
    pub fn heal(&self) {
        self.lock().cut.clear();
    }

    /// How many connections from `host` were let in and not cut.
    pub fn connections_from(&self, host: &str) -> usize {
        let host: IpAddr = host.parse().expect("an address");
        let mut state = self.lock();
        state.streams.retain(|(_, stream)| stream.peer_addr().is_ok());
        state.streams.iter().filter(|(from, _)| *from == host).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }
}

fn accept(stream: TcpStream, state: &Arc<Mutex<State>>) {
    let Ok(from) = stream.peer_addr() else { return };
    let mut state = state.lock().expect("nobody panics with it");
    let (Some(target), false) = (state.target, state.cut.contains(&from.ip())) else { return };
    let Ok(onward) = TcpStream::connect(target) else { return };
    let _ = stream.set_nodelay(true);
    let _ = onward.set_nodelay(true);
    for (from, to) in [(&stream, &onward), (&onward, &stream)] {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        thread::spawn(move || copy(from, to));
    }
    if let Ok(stream) = stream.try_clone() {
        state.streams.push((from.ip(), stream));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
