//! How far a fetch is, and what became of it.

use std::path::PathBuf;
use std::time::Duration;

use cordee_core::blocks::Root;
use cordee_core::blocks::scheduler::{SourceState, Trouble};

/// What a fetch tells while it goes on.
#[derive(Clone, Debug)]
pub enum Event {
    /// How far it is: at the beginning, then as often as the configuration says, and at the end.
    Progress(Progress),
    /// Something that a person should know, in one line.
    Note(String),
}

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stage {
    /// The sources are asked for the file and its hashes.
    #[default]
    Asking,
    /// What is on the disk is hashed.
    Checking,
    /// Blocks come.
    Fetching,
    /// The file is synced and gets its name.
    Finishing,
}

/// How far it is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes that are stored, those of earlier runs among them; while checking, those checked;
    /// while asking, those that a source has hashed.
    pub bytes: u64,
    /// The file's length; 0 while it is not known.
    pub total: u64,
    /// What all sources together give now.
    pub bytes_per_s: u64,
    /// Files that are done, and how many there are: more than one only of a directory.
    pub files: (u64, u64),
    /// The sources, in the order in which they were named.
    pub sources: Vec<SourceProgress>,
}

/// How a source does.
#[derive(Clone, Debug)]
pub struct SourceProgress {
    /// As it was named.
    pub address: String,
    /// What it is doing.
    pub state: SourceState,
    /// Connections that stand.
    pub connections: u32,
    /// Payload that came from it in this run.
    pub bytes: u64,
    /// What it gives now.
    pub bytes_per_s: u64,
    /// What was wrong with it, in the order of the first time.
    pub faults: Vec<SourceFault>,
}

/// Something that was wrong with a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceFault {
    /// What.
    pub trouble: Trouble,
    /// How often.
    pub count: u32,
    /// More for people to read; may be empty.
    pub detail: String,
}

/// A file that is there.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its name at the sources.
    pub name: String,
    /// Where it is; none if it went to standard output.
    pub path: Option<PathBuf>,
    /// Its length.
    pub bytes: u64,
    /// Its BLAKE3 hash, as `b3sum` prints it; none if it is not known. Not verified, it is only
    /// what the sources said of it.
    pub hash: Option<Root>,
    /// Whether every byte is proved to be of that hash.
    pub verified: bool,
    /// Whether it was there before, and nothing was fetched.
    pub was_there: bool,
    /// Bytes that earlier runs had stored.
    pub resumed_bytes: u64,
    /// Bytes of blocks that came more than once.
    pub duplicate_bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// The sources, in the order in which they were named.
    pub sources: Vec<SourceProgress>,
}

/// What became of the files below a directory.
#[derive(Clone, Debug)]
pub struct TreeReport {
    /// The directory's name at the sources.
    pub name: String,
    /// Where the files are.
    pub path: PathBuf,
    /// How many are there.
    pub files: u64,
    /// Their length in all.
    pub bytes: u64,
    /// Whether all of them are verified.
    pub verified: bool,
    /// Bytes of blocks that came more than once.
    pub duplicate_bytes: u64,
    /// The names of those that are not there, and why.
    pub failed: Vec<(String, String)>,
    /// How long it took.
    pub elapsed: Duration,
    /// The sources, in the order in which they were named.
    pub sources: Vec<SourceProgress>,
}

/// Adds what one more file brought.
pub(super) fn add_sources(all: &mut Vec<SourceProgress>, more: &[SourceProgress]) {
    if all.is_empty() {
        all.extend_from_slice(more);
        return;
    }
    for (all, more) in all.iter_mut().zip(more) {
        all.bytes += more.bytes;
        all.state = more.state;
        all.connections = more.connections;
        for fault in &more.faults {
            match all.faults.iter_mut().find(|known| known.trouble == fault.trouble) {
                Some(known) => known.count = known.count.saturating_add(fault.count),
                None => all.faults.push(fault.clone()),
            }
        }
    }
}
