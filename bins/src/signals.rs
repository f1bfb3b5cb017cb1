//! SIGINT, SIGTERM and SIGHUP: the first asks for an orderly end, the second for one at once.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, failed};

/// Calls `on_signal` with 1, 2, … at each of these signals, from now on and in a thread of its own.
pub(crate) fn watch(mut on_signal: impl FnMut(u32) + Send + 'static) -> Result<(), Failure> {
    let start = || -> io::Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for (count, _) in (1..).zip(signals.forever()) {
                on_signal(count);
            }
        })?;
        Ok(())
    };
    start().map_err(|error| failed(format!("signals cannot be watched: {error}")))
}

/// As [`watch`], given by a channel. Only the first two matter; later ones are dropped.
pub(crate) fn channel() -> Result<Receiver<u32>, Failure> {
    let (sender, receiver) = bounded(2);
    watch(move |count| {
        let _ = sender.try_send(count);
    })?;
    Ok(receiver)
}
