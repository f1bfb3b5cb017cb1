//! Why a file could not be fetched.

use std::io;
use std::path::PathBuf;

use super::report::SourceProgress;
use crate::ThreadFailure;

/// Why a file could not be fetched. What was verified so far is kept, and the same fetch goes on
/// from there, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It was stopped.
    #[error("stopped; the same command goes on from here")]
    Cancelled,
    /// The name is a directory's: [`FetchTree`](super::FetchTree) fetches those.
    #[error("that is a directory")]
    IsDirectory,
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(&'static str),
    /// No source could give the file, or the rest of it.
    #[error("{why}")]
    Sources {
        /// What for.
        why: String,
        /// What is wrong with each.
        sources: Vec<SourceProgress>,
    },
    /// A file exists at the target, and is another one.
    #[error("{path} exists and is another file: remove it, or say --force to replace it")]
    Exists {
        /// Where.
        path: PathText,
    },
    /// A directory is at the target.
    #[error("{path} is a directory: give the file's own name with -o")]
    TargetIsDirectory {
        /// Where.
        path: PathText,
    },
    /// Somebody else fetches that file.
    #[error(
        "{path} is being fetched by another process: wait for its end, or give another name with -o"
    )]
    Locked {
        /// The unfinished file.
        path: PathText,
    },
    /// The disk, or what else the bytes go to.
    #[error("cannot {doing} {path}: {source}{}", mend(source))]
    Target {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathText,
        /// What the operating system said.
        source: io::Error,
    },
    /// A thread could not be made, or died.
    #[error(transparent)]
    Thread(#[from] ThreadFailure),
}

impl FetchError {
    /// The sources and what is wrong with them; none where they do not matter.
    #[must_use]
    pub fn sources(&self) -> &[SourceProgress] {
        match self {
            FetchError::Sources { sources, .. } => sources,
            _ => &[],
        }
    }

    pub(super) fn target(
        doing: &'static str,
        path: impl Into<PathBuf>,
        source: io::Error,
    ) -> FetchError {
        FetchError::Target { doing, path: PathText(path.into()), source }
    }
}

/// A path, written as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathText(pub PathBuf);

impl std::fmt::Display for PathText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

/// What helps.
fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room, and the same command goes on"
        }
        io::ErrorKind::NotFound => "; its directory is gone",
        io::ErrorKind::FileTooLarge => {
            "; allow longer files (ulimit -f), and the same command goes on"
        }
        _ => "",
    }
}
