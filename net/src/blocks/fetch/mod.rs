//! Fetches a file from all who have it, block by block, verified.
//!
//! ```no_run
//! use cordee_net::blocks::fetch::{Event, Fetch, FetchConfig, Target};
//!
//! let sources = vec!["10.0.0.1:4545".parse()?, "http://10.0.0.2/films/film.mp4".parse()?];
//! let config = FetchConfig::new("films/film.mp4", sources, Target::File("film.mp4".into()));
//! let fetch = Fetch::new(config);
//! let cancel = fetch.cancel(); // may go to another thread, and stop it there
//! let report = fetch.run(|event| match event {
//!     Event::Progress(progress) => eprintln!("{} of {}", progress.bytes, progress.total),
//!     Event::Note(note) => eprintln!("{note}"),
//! })?;
//! assert!(report.verified);
//! # drop(cancel);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The caller's thread is the hub; it returns when the file is there, or cannot be.

mod cancel;
mod config;
mod error;
mod file;
mod hub;
mod link;
mod names;
mod report;
mod source;
mod target;
mod tree;

pub use cancel::Cancel;
pub use config::{FetchConfig, Target, Verify};
pub use cordee_core::blocks::Root;
pub use cordee_core::blocks::scheduler::{SourceState, Trouble};
pub use error::{FetchError, PathText};
pub use report::{Event, Progress, Report, SourceFault, SourceProgress, Stage, TreeReport};
pub use source::{Source, SourceError, Url};

/// One file to be fetched.
#[derive(Debug)]
pub struct Fetch {
    config: FetchConfig,
    cancel: Cancel,
}

impl Fetch {
    /// Of this configuration. Nothing happens before it runs.
    #[must_use]
    pub fn new(config: FetchConfig) -> Fetch {
        Fetch { config, cancel: Cancel::new() }
    }

    /// The same, stopped by `cancel`, which may stop others, too.
    #[must_use]
    pub fn stopped_by(self, cancel: Cancel) -> Fetch {
        Fetch { cancel, ..self }
    }

    /// What stops it.
    #[must_use]
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Fetches it on this thread; `tell` is called with how far it is, and should not take long.
    ///
    /// # Errors
    ///
    /// A [`FetchError`]; [`FetchError::IsDirectory`] when the name is that of a directory, which
    /// [`FetchTree`] fetches.
    pub fn run(self, mut tell: impl FnMut(Event)) -> Result<Report, FetchError> {
        check(&self.config)?;
        let (name, target) = (self.config.name.clone(), self.config.target.clone());
        let mut hub = hub::Hub::new(self.config.clone(), self.cancel, &mut tell);
        file::fetch(&mut hub, &self.config, &name, &target)
    }
}

/// All files below a directory to be fetched.
#[derive(Debug)]
pub struct FetchTree {
    config: FetchConfig,
    cancel: Cancel,
}

impl FetchTree {
    /// Of this configuration, whose name is that of a directory, or empty for all that is served;
    /// whose target is the directory that the files go into. `hash` is not looked at.
    #[must_use]
    pub fn new(config: FetchConfig) -> FetchTree {
        FetchTree { config, cancel: Cancel::new() }
    }

    /// The same, stopped by `cancel`, which may stop others, too.
    #[must_use]
    pub fn stopped_by(self, cancel: Cancel) -> FetchTree {
        FetchTree { cancel, ..self }
    }

    /// What stops it.
    #[must_use]
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Fetches them on this thread and a few others. A file that cannot be fetched is reported, and
    /// does not keep the others from being fetched.
    ///
    /// # Errors
    ///
    /// A [`FetchError`] when the directory cannot be listed, or it was stopped.
    pub fn run(self, tell: impl FnMut(Event)) -> Result<TreeReport, FetchError> {
        check(&self.config)?;
        tree::fetch(&self.config, &self.cancel, tell)
    }
}

fn check(config: &FetchConfig) -> Result<(), FetchError> {
    let zero = config.connections == Some(0) || config.limit_rate == Some(0);
    if config.sources.is_empty() {
        return Err(FetchError::Config("no source is given"));
    }
    if zero || config.timeout.is_zero() {
        return Err(FetchError::Config("no connections, no rate or no time: nothing could come"));
    }
    if config.sources.len() > SOURCES_MAX {
        return Err(FetchError::Config("more than 256 sources"));
    }
    Ok(())
}

const SOURCES_MAX: usize = 256;
