//! All files below a directory: a few at a time, so that small ones do not wait for each other's
//! round trips; each of those who fetch keeps its connections from one file to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::cancel::Cancel;
use super::config::{FetchConfig, Target};
use super::error::FetchError;
use super::hub::{Hub, Listed};
use super::report::{Event, Progress, Report, SourceProgress, Stage, TreeReport, add_sources};
use super::{file, names};

/// What those who fetch tell.
enum Told {
    Event { lane: usize, event: Event },
    File { lane: usize, name: String, length: u64, result: Box<Result<Report, FetchError>> },
}

/// What became of the files so far.
struct Sum {
    report: TreeReport,
    total_bytes: u64,
    total_files: u64,
    lanes: BTreeMap<usize, Progress>,
    notes: BTreeSet<String>,
    told: Option<Instant>,
}

/// Fetches them.
pub(super) fn fetch(
    config: &FetchConfig,
    cancel: &Cancel,
    mut tell: impl FnMut(Event),
) -> Result<TreeReport, FetchError> {
    let begun = Instant::now();
    let Target::File(root) = &config.target else {
        return Err(FetchError::Config("a directory cannot go to standard output"));
    };
    let files = list(config, cancel, &mut tell)?;
    make_directory(root)?;
    let mut sum = Sum {
        report: TreeReport {
            name: config.name.clone(),
            path: root.clone(),
            files: 0,
            bytes: 0,
            verified: true,
            duplicate_bytes: 0,
            failed: Vec::new(),
            elapsed: Duration::ZERO,
            sources: Vec::new(),
        },
        total_bytes: files.iter().map(|file| file.length).fold(0, u64::saturating_add),
        total_files: files.len() as u64,
        lanes: BTreeMap::new(),
        notes: BTreeSet::new(),
        told: None,
    };
    let lanes = if config.limit_rate.is_some() { 1 } else { LANES.min(files.len()) };
    let next = AtomicUsize::new(0);
    let (sender, told) = bounded(TOLD_MAX);
    std::thread::scope(|scope| {
        for lane in 0..lanes {
            let (files, next, sender) = (&files, &next, sender.clone());
            let run = move || run_lane(lane, config, root, cancel, files, next, &sender);
            let name = format!("fetch-lane-{lane}");
            let made = std::thread::Builder::new().name(name.clone()).spawn_scoped(scope, run);
            if let Err(source) = made {
                let failure = crate::ThreadFailure::Spawn { name, source };
                // With one of them it goes on, only slower.
                if lane == 0 {
                    return Err(FetchError::Thread(failure));
                }
                break;
            }
        }
        drop(sender);
        sum.take_all(config, &told, &mut tell);
        Ok(())
    })?;
    if cancel.is_cancelled() {
        return Err(FetchError::Cancelled);
    }
    sum.tell(config, true, &mut tell);
    sum.report.elapsed = begun.elapsed();
    Ok(sum.report)
}

fn list(
    config: &FetchConfig,
    cancel: &Cancel,
    tell: &mut dyn FnMut(Event),
) -> Result<Vec<Listed>, FetchError> {
    let mut hub = Hub::new(config.clone(), cancel.clone(), tell);
    match hub.agree(&config.name) {
        Err(FetchError::IsDirectory) => hub.list(&config.name),
        Err(error) => Err(error),
        Ok(_) => Err(FetchError::Config("that is a file, not a directory")),
    }
}

/// Fetches one file after the other, as long as there are any.
fn run_lane(
    lane: usize,
    config: &FetchConfig,
    root: &Path,
    cancel: &Cancel,
    files: &[Listed],
    next: &AtomicUsize,
    sender: &Sender<Told>,
) {
    let config = FetchConfig { hash: None, ..config.clone() };
    let mut tell = |event| {
        let _ = sender.send(Told::Event { lane, event });
    };
    let mut hub = Hub::new(config.clone(), cancel.clone(), &mut tell);
    let (begun, mut received) = (Instant::now(), 0_u64);
    while !cancel.is_cancelled() {
        if let Some(rate) = config.limit_rate {
            // Each file begins with what its first block costs; many of them keep to the rate, too.
            let due = Duration::from_secs_f64(received as f64 / rate.max(1) as f64);
            // It ends early when the fetch is cancelled.
            let _ = cancel.signal().recv_timeout(due.saturating_sub(begun.elapsed()));
        }
        let Some(listed) = files.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
        let result = place(&config.name, root, &listed.name)
            .and_then(|path| file::fetch(&mut hub, &config, &listed.name, &Target::File(path)));
        let sources = match &result {
            Ok(report) => &report.sources[..],
            Err(error) => error.sources(),
        };
        received += sources.iter().map(|source| source.bytes).sum::<u64>();
        let name = listed.name.clone();
        let length = listed.length;
        let result = Box::new(result);
        if sender.send(Told::File { lane, name, length, result }).is_err() {
            return;
        }
    }
}

/// Where a file goes; its directories are made.
fn place(directory: &str, root: &Path, name: &str) -> Result<PathBuf, FetchError> {
    let refused = |why: names::BadName| FetchError::Sources {
        why: format!("refused: {why}"),
        sources: Vec::new(),
    };
    let path = names::below(directory, name).map_err(refused)?;
    names::check_way(root, &path).map_err(refused)?;
    let path = root.join(path);
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    Ok(path)
}

fn make_directory(path: &Path) -> Result<(), FetchError> {
    std::fs::create_dir_all(path).map_err(|error| FetchError::target("make", path, error))
}

impl Sum {
    fn take_all(
        &mut self,
        config: &FetchConfig,
        told: &Receiver<Told>,
        tell: &mut impl FnMut(Event),
    ) {
        for told in told {
            match told {
                Told::Event { event: Event::Note(note), .. } => {
                    // What is said of one file is said of each.
                    if self.notes.len() < NOTES_MAX && self.notes.insert(note.clone()) {
                        tell(Event::Note(note));
                    }
                }
                Told::Event { lane, event: Event::Progress(progress) } => {
                    self.lanes.insert(lane, progress);
                }
                Told::File { lane, name, length, result } => {
                    self.lanes.remove(&lane);
                    self.take(name, length, *result);
                }
            }
            self.tell(config, false, tell);
        }
    }

    fn take(&mut self, name: String, length: u64, result: Result<Report, FetchError>) {
        match result {
            Ok(report) => {
                self.report.files += 1;
                self.report.bytes += report.bytes;
                self.report.verified &= report.verified;
                self.report.duplicate_bytes += report.duplicate_bytes;
                // It may have grown since it was listed.
                self.total_bytes = self.total_bytes.saturating_sub(length) + report.bytes;
                add_sources(&mut self.report.sources, &report.sources);
            }
            Err(FetchError::Cancelled) => {}
            Err(error) => {
                self.total_bytes = self.total_bytes.saturating_sub(length);
                add_sources(&mut self.report.sources, error.sources());
                self.report.failed.push((name, error.to_string()));
            }
        }
    }

    fn tell(&mut self, config: &FetchConfig, now: bool, tell: &mut impl FnMut(Event)) {
        let due = self.told.is_none_or(|told| told.elapsed() >= config.progress_every);
        if !due && !now {
            return;
        }
        self.told = Some(Instant::now());
        let lanes = self.lanes.values();
        let mut sources = self.report.sources.clone();
        lanes.clone().for_each(|lane| add_rates(&mut sources, &lane.sources));
        let coming: u64 =
            lanes.clone().filter(|lane| lane.stage == Stage::Fetching).map(|lane| lane.bytes).sum();
        tell(Event::Progress(Progress {
            stage: Stage::Fetching,
            bytes: self.report.bytes + coming,
            total: self.total_bytes,
            bytes_per_s: lanes.map(|lane| lane.bytes_per_s).sum(),
            files: (self.report.files, self.total_files),
            sources,
        }));
    }
}

/// What comes now, on top of what came.
fn add_rates(all: &mut Vec<SourceProgress>, more: &[SourceProgress]) {
    add_sources(all, more);
    for (all, more) in all.iter_mut().zip(more) {
        all.bytes_per_s += more.bytes_per_s;
    }
}

/// Files that are fetched at a time.
const LANES: usize = 4;
const TOLD_MAX: usize = 64;
const NOTES_MAX: usize = 1_000;
