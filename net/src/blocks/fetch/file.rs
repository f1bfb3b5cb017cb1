//! One file, from the question who has it to its name on the disk.

use std::path::Path;
use std::time::Instant;

use cordee_core::blocks::{BlockSet, Manifest, Root};

use super::config::{FetchConfig, Target, Verify};
use super::error::{FetchError, PathText};
use super::hub::{Agreed, Hub, Output, Received, Work};
use super::link::Spool;
use super::report::Report;
use super::target::{Found, Part, Version, directory_of, hash_file, look_at};

/// Fetches the file `name`.
pub(super) fn fetch(
    hub: &mut Hub<'_>,
    config: &FetchConfig,
    name: &str,
    target: &Target,
) -> Result<Report, FetchError> {
    let begun = Instant::now();
    if let Target::File(path) = target {
        check_place(path, config.force)?;
    }
    let known = hub.agree(name)?;
    let mut report = Report {
        name: name.to_owned(),
        path: None,
        bytes: known.layout.length(),
        // Nobody looked whether the bytes have it.
        hash: known.root.filter(|_| config.verify == Verify::Full),
        verified: known.manifest.is_some(),
        was_there: false,
        resumed_bytes: 0,
        duplicate_bytes: 0,
        elapsed: begun.elapsed(),
        sources: Vec::new(),
    };
    match target {
        Target::File(path) => {
            report.path = Some(path.clone());
            to_file(hub, config, name, path, &known, &mut report)?;
        }
        Target::Stdout => {
            let received = to_stdout(hub, name, &known)?;
            report.duplicate_bytes = received.duplicate_bytes;
        }
    }
    report.elapsed = begun.elapsed();
    report.sources = hub.sources();
    Ok(report)
}

/// What can be said before anybody is asked.
fn check_place(path: &Path, force: bool) -> Result<(), FetchError> {
    let directory = directory_of(path);
    std::fs::metadata(directory)
        .map_err(|error| FetchError::target("write into", directory, error))?;
    // What a link leads to, where it leads anywhere, is compared later.
    let is_dangling = || std::fs::metadata(path).is_err();
    match std::fs::symlink_metadata(path).map(|found| found.file_type()) {
        Ok(kind) if kind.is_symlink() && !force && is_dangling() => {
            Err(FetchError::Exists { path: PathText(path.to_owned()) })
        }
        Ok(kind) if !kind.is_symlink() && !kind.is_file() && !kind.is_dir() => {
            let why = std::io::Error::other("it is a device, a pipe or a socket");
            Err(FetchError::target("replace", path, why))
        }
        _ => Ok(()),
    }
}

fn to_file(
    hub: &mut Hub<'_>,
    config: &FetchConfig,
    name: &str,
    path: &Path,
    known: &Agreed,
    report: &mut Report,
) -> Result<(), FetchError> {
    let agreed = known;
    let manifest = &known.manifest;
    let total = agreed.layout.length();
    let wanted = agreed.root.map(|root| (agreed.layout, root));
    match look_at(path, manifest.as_ref(), wanted, |bytes| hub.checked(bytes, total))? {
        Found::Nothing => {}
        Found::Same => {
            report.was_there = true;
            report.verified = true;
            return Ok(());
        }
        Found::Other if config.force => {}
        Found::Other => return Err(FetchError::Exists { path: PathText(path.to_owned()) }),
        Found::Stopped => return Err(FetchError::Cancelled),
    }
    let mut part = Part::open(path)?;
    let mut stored_any = false;
    let result = receive(hub, config, name, known, &mut part, report, &mut stored_any);
    match result {
        Ok(()) => {
            hub.finishing(total);
            part.finish(config.durable)
        }
        Err(error) => {
            // What was said first matters more.
            let _ = part.leave(stored_any);
            Err(error)
        }
    }
}

fn receive(
    hub: &mut Hub<'_>,
    config: &FetchConfig,
    name: &str,
    known: &Agreed,
    part: &mut Part,
    report: &mut Report,
    stored_any: &mut bool,
) -> Result<(), FetchError> {
    let agreed = known;
    let manifest = &known.manifest;
    let version = version(agreed, manifest.is_some());
    let total = agreed.layout.length();
    let hashes = manifest.as_ref().map(Manifest::hashes);
    let stored =
        part.stored(&version, hashes, config.recheck, |bytes| hub.checked(bytes, total))?;
    let stored = stored.ok_or(FetchError::Cancelled)?;
    report.resumed_bytes = bytes_of(&stored, agreed);
    *stored_any = !stored.is_empty();
    let result = hub.transfer(work(name, known, part, stored, None));
    *stored_any |= hub.sources().iter().any(|source| source.bytes > 0);
    report.duplicate_bytes = result?.duplicate_bytes;
    if manifest.is_some() {
        return Ok(());
    }
    if config.verify == Verify::None {
        return Ok(());
    }
    // Without hashes of blocks only the whole can be looked at.
    let mut root = root_of(hub, part, agreed)?;
    let Some(wanted) = agreed.root else {
        report.hash = Some(root);
        return Ok(());
    };
    let alone = hub.hopeful();
    let alone: Vec<usize> = if root == wanted { Vec::new() } else { alone };
    for peer in alone {
        part.start_anew(&version)?;
        let none = BlockSet::new(agreed.layout.blocks());
        match hub.transfer(work(name, known, part, none, Some(peer))) {
            Ok(received) => report.duplicate_bytes += received.duplicate_bytes,
            Err(FetchError::Sources { .. }) => continue,
            Err(error) => return Err(error),
        }
        root = root_of(hub, part, agreed)?;
        if root == wanted {
            break;
        }
        hub.blame_alone(peer);
    }
    if root != wanted {
        part.start_anew(&version)?;
        *stored_any = false;
        let why = format!("no source gives {name} with the hash {wanted}: what came has {root}");
        return Err(FetchError::Sources { why, sources: hub.sources() });
    }
    report.verified = true;
    Ok(())
}

fn work<'w>(
    name: &'w str,
    known: &'w Agreed,
    part: &'w mut Part,
    stored: BlockSet,
    only: Option<usize>,
) -> Work<'w> {
    Work { name, agreed: known, stored, output: Output::Part(part), only }
}

/// The hash of what was received.
fn root_of(hub: &mut Hub<'_>, part: &Part, agreed: &Agreed) -> Result<Root, FetchError> {
    let total = agreed.layout.length();
    let root = hash_file(&part.file(), &agreed.layout, |bytes| hub.checked(bytes, total));
    let root = root.map_err(|error| FetchError::target("read", part.path(), error))?;
    let root = root.ok_or(FetchError::Cancelled)?;
    let shorter = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    root.ok_or_else(|| FetchError::target("read", part.path(), shorter()))
}

/// What the journal is to belong to.
fn version(agreed: &Agreed, verified: bool) -> Version {
    let root = agreed.root.unwrap_or_else(|| {
        let etag = agreed.etag.clone().unwrap_or_default();
        Root(*blake3::hash(format!("{etag}\n{}", agreed.layout.length()).as_bytes()).as_bytes())
    });
    Version { root, layout: agreed.layout, verified }
}

fn bytes_of(stored: &BlockSet, agreed: &Agreed) -> u64 {
    stored
        .runs()
        .map(|run| {
            let range = agreed.layout.range(run.start, run.end - run.start);
            range.end - range.start
        })
        .sum()
}

fn to_stdout(hub: &mut Hub<'_>, name: &str, known: &Agreed) -> Result<Received, FetchError> {
    let (spool, thread) = Spool::start()?;
    let result = hub.transfer(Work {
        name,
        agreed: known,
        stored: BlockSet::new(known.layout.blocks()),
        output: Output::Spool(std::sync::Arc::clone(&spool)),
        only: None,
    });
    spool.end(result.is_ok());
    // A reader that takes nothing any more holds only the thread.
    let stopped = matches!(result, Err(FetchError::Cancelled));
    if !stopped {
        thread.join()?;
    }
    if let (true, Some(error)) = (result.is_ok(), spool.take_failure()) {
        return Err(FetchError::target("write to", "standard output", error));
    }
    result
}
