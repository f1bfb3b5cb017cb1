//! Where a driver reports what an operator may want to know.

use std::fmt;
use std::sync::Arc;

/// How much a report matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Something is wrong and somebody should look.
    Warn,
    /// Something that happens rarely: a peer linked or lost, a start, a stop.
    Info,
    /// Every connection that comes and goes.
    Debug,
}

/// A callback that takes reports: one line each, no secrets, nothing that was received.
///
/// It is called from the driver's threads, the hub's included, so it must not block for long.
#[derive(Clone)]
pub struct Log(Arc<Take>);

type Take = dyn Fn(Level, &str) + Send + Sync;

impl Log {
    /// Reports go to `take`.
    #[must_use]
    pub fn new(take: impl Fn(Level, &str) + Send + Sync + 'static) -> Self {
        Log(Arc::new(take))
    }

    /// Reports go nowhere.
    #[must_use]
    pub fn none() -> Self {
        Log::new(|_, _| ())
    }

    pub(crate) fn warn(&self, line: &str) {
        (self.0)(Level::Warn, line);
    }

    pub(crate) fn info(&self, line: &str) {
        (self.0)(Level::Info, line);
    }

    pub(crate) fn debug(&self, line: &str) {
        (self.0)(Level::Debug, line);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log(…)")
    }
}
