//! Why a command failed, as the user is told: one line, and an exit code.

use std::fmt;

/// A failure that ends the program.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense: exit code 2.
    Usage(String),
    /// What was asked for could not be done: exit code 1. Names the thing and the mend.
    Failed(String),
    /// As before, and everything was said already.
    Told,
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Failed(_) | Failure::Told => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Failed(text) => f.write_str(text),
            Failure::Told => Ok(()),
        }
    }
}

/// A usage failure with this text.
pub(crate) fn usage(text: impl Into<String>) -> Failure {
    Failure::Usage(text.into())
}

/// A failure with this text.
pub(crate) fn failed(text: impl Into<String>) -> Failure {
    Failure::Failed(text.into())
}
