//! Refusing a connection, and saying so without flooding the log.

use std::io::{self, IoSlice, Read};
use std::net::Shutdown;

use cordee_core::Time;
use cordee_core::time::SECOND_US;
use cordee_core::wire::hello::Bye;
use cordee_core::wire::{Message, Reason};
use socket2::Socket;

use crate::log::Log;
use crate::socket::send_now;

/// The frame that says why.
pub(crate) fn bye(reason: Reason) -> Vec<u8> {
    let mut frame = Vec::new();
    Bye { reason, retry_ms: RETRY_MS, next: "", detail: "" }.put_frame(&mut frame);
    frame
}

/// Says why and closes, without waiting for anything.
pub(crate) fn refuse(socket: &Socket, reason: Reason) {
    // Whether it arrives is of no concern: the connection ends either way.
    let _ = send_now(socket, &[IoSlice::new(&bye(reason))]);
    let _ = socket.shutdown(Shutdown::Write);
    let _ = discard_now(socket);
}

/// Takes the hello that may have come already: left unread it would reset the connection, and the
/// reason might not arrive.
fn discard_now(mut socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let mut hello = [0; 512];
    let _ = socket.read(&mut hello)?;
    Ok(())
}

/// Counts warnings, of which somebody who connects in a loop provokes any number.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    second: u64,
    said: u32,
    unsaid: u32,
}

impl Refusals {
    /// Warns, unless it was done often enough in this second.
    pub(crate) fn warn(&mut self, now: Time, log: &Log, line: &str) {
        let second = now.0 / SECOND_US;
        if second != self.second {
            if self.unsaid > 0 {
                log.warn(&format!("and {} more like this", self.unsaid));
            }
            *self = Refusals { second, said: 0, unsaid: 0 };
        }
        if self.said < WARNINGS_PER_SECOND {
            self.said += 1;
            log.warn(line);
        } else {
            self.unsaid += 1;
        }
    }
}

/// When one who was refused may try again.
const RETRY_MS: u32 = 1_000;
const WARNINGS_PER_SECOND: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, Mutex, lock};

    #[test]
    fn a_flood_of_refusals_is_a_few_lines_and_a_count() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let log = Log::new(move |_, line| lock(&kept).push(line.to_owned()));
        let mut refusals = Refusals::default();
        for _ in 0..100 {
            refusals.warn(Time(1), &log, "refused");
        }
        refusals.warn(Time(SECOND_US), &log, "refused again");
        let lines = lock(&lines);
        assert_eq!(lines.len(), 7);
        assert_eq!(lines[5..], ["and 95 more like this", "refused again"]);
    }
}
