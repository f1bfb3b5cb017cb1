//! What ends a run.

use std::fmt::Display;
use std::io;

/// What ends a run.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something that must hold does not.
    #[error("violated: {0}")]
    Violated(String),
    /// The run itself cannot go on.
    #[error("{0}")]
    Broken(String),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was wanted.
        what: String,
        /// Why it was refused.
        source: io::Error,
    },
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn io(what: impl Display) -> impl FnOnce(io::Error) -> Failure {
        move |source| Failure::Io { what: what.to_string(), source }
    }
}

/// The run cannot go on.
pub(crate) fn broken<T>(why: impl Display) -> Result<T> {
    Err(Failure::Broken(why.to_string()))
}

/// Something that must hold does not.
pub(crate) fn violated<T>(what: impl Display) -> Result<T> {
    Err(Failure::Violated(what.to_string()))
}
