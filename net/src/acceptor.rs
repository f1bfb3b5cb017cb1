//! The acceptor of any server: takes connections off its listener and hands them on.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use socket2::Socket;

use crate::log::Log;
use crate::socket::prepare;
use crate::sync::Arc;

/// Ends the acceptor from another thread; it closes the listener.
#[derive(Debug)]
pub(crate) struct AcceptorStop(OwnedFd);

impl AcceptorStop {
    pub(crate) fn stop(&self) {
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Socket,
    stop: Arc<AcceptorStop>,
    log: Log,
    /// Given up when there are no descriptors, so that who waits can be refused.
    spare: Option<OwnedFd>,
    starved: bool,
}

impl Acceptor {
    /// # Errors
    ///
    /// When there is no descriptor for its own needs.
    pub(crate) fn new(listener: Socket, log: Log) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AcceptorStop(new_descriptor()?));
        let spare = Some(new_descriptor()?);
        Ok(Acceptor { listener, stop, log, spare, starved: false })
    }

    pub(crate) fn stopper(&self) -> Arc<AcceptorStop> {
        Arc::clone(&self.stop)
    }

    /// Accepts until it is stopped or `take` returns that nobody wants connections any more.
    pub(crate) fn run(mut self, mut take: impl FnMut(Socket, SocketAddr) -> bool) {
        while !self.wait(None) {
            loop {
                match self.listener.accept() {
                    Ok((socket, from)) => {
                        self.starved = false;
                        // Either fails only when the connection has gone already.
                        let (Some(from), Ok(())) = (from.as_socket(), prepare(&socket)) else {
                            continue;
                        };
                        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                        if !take(socket, from) {
                            return;
                        }
                    }
                    Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                        Some(Errno::AGAIN) => break,
                        // The one who connected has gone, or the network would not have it.
                        Some(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => {}
                        errno => {
                            self.shed(errno, &error);
                            if self.wait(Some(BACK_OFF)) {
                                return;
                            }
                        }
                    },
                }
            }
        }
    }

    /// Without descriptors: takes one who waits, at the cost of the spare one, and closes, so that
    /// it learns at once that there is no place.
    fn shed(&mut self, errno: Option<Errno>, error: &std::io::Error) {
        if !self.starved {
            self.log.warn(&format!("cannot accept connections: {error}; raise ulimit -n"));
            self.starved = true;
        }
        if matches!(errno, Some(Errno::MFILE | Errno::NFILE)) {
            self.spare = None;
            drop(self.listener.accept());
            self.spare = new_descriptor().ok();
        }
    }

    /// Waits for a connection, or just for `time`. Returns whether to stop.
    fn wait(&self, time: Option<Duration>) -> bool {
        let stop = PollFd::new(&self.stop.0, PollFlags::IN);
        let mut polled = [stop, PollFd::new(&self.listener, PollFlags::IN)];
        let watched = if time.is_some() { &mut polled[..1] } else { &mut polled[..] };
        let time = time.map(|time| Timespec {
            tv_sec: time.as_secs().cast_signed(),
            tv_nsec: time.subsec_nanos().into(),
        });
        // An interrupted wait is over early, no more.
        let _ = poll(watched, time.as_ref());
        !polled[0].revents().is_empty()
    }
}

fn new_descriptor() -> rustix::io::Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

const BACK_OFF: Duration = Duration::from_millis(75);
