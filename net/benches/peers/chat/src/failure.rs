//! Why a measurement could not be made.

use std::io;

/// What went wrong, in one sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The operating system refused.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        error: io::Error,
    },
    /// A server said or did something that the measurement does not allow.
    #[error("{0}")]
    Broken(String),
}

/// The result of whatever can fail here.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A failure that is not one of the operating system's.
pub(crate) fn broken<T>(what: impl Into<String>) -> Result<T> {
    Err(Failure::Broken(what.into()))
}

/// Says what was tried when the operating system refuses.
pub(crate) trait Context<T> {
    /// The same result; an error says that it came from `what`.
    fn when(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn when(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|error| Failure::Io { what: what.into(), error: error.into() })
    }
}
