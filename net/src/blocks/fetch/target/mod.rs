//! Where a file is received: `FILE.part`, which gets its name when it is whole, and
//! `FILE.part.journal`, which says how much of it is there.
//!
//! ```text
//! open ──▶ lock ──▶ journal trusted? ──▶ the rest hashed ──▶ space for all ──▶ blocks come
//!                                                                                 │
//!            journal removed ◀── directory synced ◀── renamed ◀── synced ◀── all are there
//! ```

mod hashing;
mod journal;
mod syncing;

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cordee_core::blocks::{BlockHash, BlockSet, Layout, Manifest, Root};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

use super::error::{FetchError, PathText};
use crate::sync::Arc;
pub(super) use hashing::hash_blocks;
use journal::{Identity, Journal, with_suffix};
use syncing::Syncer;

/// An unfinished file, locked.
#[derive(Debug)]
pub(super) struct Part {
    file: Arc<File>,
    path: PathBuf,
    target: PathBuf,
    journal_path: PathBuf,
    journal: Option<Journal>,
    syncer: Option<Syncer>,
    inode: u64,
    existed: bool,
    /// Since the last marker was asked for.
    unsynced_bytes: u64,
    marked: Instant,
}

/// What is to be received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    /// The file's hash, or what stands for this version of it.
    pub(super) root: Root,
    pub(super) layout: Layout,
    /// Whether its blocks are verified.
    pub(super) verified: bool,
}

impl Part {
    /// Opens the unfinished file of `target`, or makes it, and locks it.
    pub(super) fn open(target: &Path) -> Result<Part, FetchError> {
        let path = with_suffix(target, ".part");
        let failed = |error| FetchError::target("open", &path, error);
        let begun = Instant::now();
        loop {
            let existed = path.symlink_metadata().is_ok();
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // One that was killed may need a moment to be gone.
                Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_WAIT / 20);
                    continue;
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(FetchError::Locked { path: PathText(path) });
                }
                result => result.map_err(|error| failed(error.into()))?,
            }
            // Whoever had the lock before may have given the file its name meanwhile.
            let own = file.metadata().map_err(failed)?;
            let now = std::fs::metadata(&path).ok();
            if now.is_some_and(|now| (now.dev(), now.ino()) == (own.dev(), own.ino())) {
                return Ok(Part {
                    file: Arc::new(file),
                    journal_path: with_suffix(&path, ".journal"),
                    path,
                    target: target.to_owned(),
                    journal: None,
                    syncer: None,
                    inode: own.ino(),
                    existed,
                    unsynced_bytes: 0,
                    marked: Instant::now(),
                });
            }
        }
    }

    /// The blocks that are there: what the journal is trusted with, and of the rest what has the
    /// right hash, as far as that has to be looked at. `None` if `go_on` said no.
    pub(super) fn stored(
        &mut self,
        version: &Version,
        hashes: Option<&[BlockHash]>,
        recheck: bool,
        go_on: impl FnMut(u64) -> bool,
    ) -> Result<Option<BlockSet>, FetchError> {
        let blocks = version.layout.blocks();
        let identity = self.identity(version);
        let (mut stored, mut synced) = (BlockSet::new(blocks), BlockSet::new(blocks));
        if self.existed {
            let loaded = journal::load(&self.journal_path, &identity)
                .map_err(|error| FetchError::target("read", &self.journal_path, error))?;
            let look_further = loaded.as_ref().is_none_or(|loaded| loaded.more) || recheck;
            if let Some(loaded) = loaded.filter(|_| !recheck) {
                (stored, synced) = (loaded.trusted, loaded.synced);
            }
            if let (true, Some(hashes)) = (look_further, hashes) {
                let mut missing = BlockSet::new(blocks);
                stored.missing_runs().for_each(|run| {
                    missing.insert_range(run);
                });
                let found = hash_blocks(&self.file, &version.layout, &missing, go_on)
                    .map_err(|error| FetchError::target("read", &self.path, error))?;
                let Some(found) = found else { return Ok(None) };
                for (block, hash) in found {
                    if hash == hashes[block as usize] {
                        stored.insert(block);
                    }
                }
            }
        }
        self.allocate(version.layout.length())?;
        // A file of one block is there, or is not.
        if blocks > 1 {
            let journal = Journal::create(&self.journal_path, &identity, &stored, &synced)
                .map_err(|error| FetchError::target("write", &self.journal_path, error))?;
            self.journal = Some(journal);
        }
        Ok(Some(stored))
    }

    fn identity(&self, version: &Version) -> Identity {
        let Version { root, layout, verified } = *version;
        Identity { root, layout, verified, inode: self.inode, boot: boot_id() }
    }

    /// Reserves the space for all of it: so a full disk shows at once, and writing costs less.
    fn allocate(&self, length: u64) -> Result<(), FetchError> {
        let failed = |error| FetchError::target("make room for", &self.path, error);
        let has = self.file.metadata().map_err(failed)?.len();
        if has > length {
            self.file.set_len(length).map_err(failed)?;
        }
        if length == 0 {
            return Ok(());
        }
        match fallocate(&*self.file, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill(has, length).map_err(failed),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// What takes the place of allocating where that is not known: a byte in each page.
    fn fill(&self, from: u64, length: u64) -> io::Result<()> {
        let mut at = from;
        while at < length {
            self.file.write_all_at(&[0], at)?;
            at = (at / PAGE_BYTES + 1) * PAGE_BYTES;
        }
        self.file.set_len(length)
    }

    /// The file, for those who write blocks.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Where the unfinished file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// These blocks were written, `bytes` in all.
    pub(super) fn record(
        &mut self,
        runs: impl Iterator<Item = Range<u64>>,
        bytes: u64,
        durable: bool,
    ) -> Result<(), FetchError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let failed = |error| FetchError::target("write", &self.journal_path, error);
        journal.append(runs).map_err(failed)?;
        self.unsynced_bytes += bytes;
        let due = self.unsynced_bytes >= SYNC_BYTES || self.marked.elapsed() >= SYNC_EVERY;
        if durable && due { self.sync_soon() } else { Ok(()) }
    }

    /// Has everything that was recorded synced, and then a marker appended, unless that is being
    /// done already; appends the marker of what was.
    fn sync_soon(&mut self) -> Result<(), FetchError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let failed = |error| FetchError::target("sync", &self.path, error);
        let syncer = match &mut self.syncer {
            Some(syncer) => syncer,
            empty => {
                let journal = journal.file().map_err(failed)?;
                empty.insert(Syncer::start(Arc::clone(&self.file), journal)?)
            }
        };
        if let Some(covered) = syncer.synced() {
            journal.mark(covered.map_err(failed)?).map_err(failed)?;
        }
        if syncer.sync(journal.len()) {
            self.unsynced_bytes = 0;
            self.marked = Instant::now();
        }
        Ok(())
    }

    /// The whole file is there: syncs it, gives it its name, and removes the journal.
    pub(super) fn finish(mut self, durable: bool) -> Result<(), FetchError> {
        if let Some(syncer) = self.syncer.take() {
            syncer.join()?;
        }
        if durable {
            let failed = |error| FetchError::target("sync", &self.path, error);
            self.file.sync_all().map_err(failed)?;
        }
        let failed = |error| FetchError::target("write", &self.target, error);
        std::fs::rename(&self.path, &self.target).map_err(failed)?;
        if durable {
            let directory = directory_of(&self.target);
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| FetchError::target("sync", directory, error))?;
        }
        remove_if_there(&self.journal_path)
    }

    /// Lets go of it; what is there stays. A file that nothing was stored in is removed.
    pub(super) fn leave(mut self, stored: bool) -> Result<(), FetchError> {
        if let Some(syncer) = self.syncer.take() {
            syncer.join()?;
        }
        if !stored && !self.existed {
            remove_if_there(&self.path)?;
            remove_if_there(&self.journal_path)?;
        }
        Ok(())
    }

    /// Nothing of it is right: forgets what the journal says.
    pub(super) fn start_anew(&mut self, version: &Version) -> Result<(), FetchError> {
        let identity = self.identity(version);
        let none = BlockSet::new(version.layout.blocks());
        if self.journal.is_some() {
            let journal = Journal::create(&self.journal_path, &identity, &none, &none)
                .map_err(|error| FetchError::target("write", &self.journal_path, error))?;
            self.journal = Some(journal);
            if let Some(syncer) = self.syncer.take() {
                syncer.join()?;
            }
        }
        Ok(())
    }
}

/// What is at the target already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// The very file.
    Same,
    /// Another one.
    Other,
    /// It was told to stop looking.
    Stopped,
}

/// Looks whether `target` is the file that the manifest is of.
pub(super) fn look_at(
    target: &Path,
    manifest: Option<&Manifest>,
    wanted: Option<(Layout, Root)>,
    go_on: impl FnMut(u64) -> bool,
) -> Result<Found, FetchError> {
    let failed = |error| FetchError::target("read", target, error);
    let found = match std::fs::metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        result => result.map_err(failed)?,
    };
    if found.is_dir() {
        return Err(FetchError::TargetIsDirectory { path: PathText(target.to_owned()) });
    }
    let layout = match (manifest, wanted) {
        (Some(manifest), _) => *manifest.layout(),
        (None, Some((layout, _))) => layout,
        (None, None) => return Ok(Found::Other),
    };
    if !found.is_file() || found.len() != layout.length() {
        return Ok(Found::Other);
    }
    let file = File::open(target).map_err(failed)?;
    let root = hash_file(&file, &layout, go_on).map_err(failed)?;
    let Some(root) = root else { return Ok(Found::Stopped) };
    let right = manifest.map(Manifest::root).or(wanted.map(|(_, root)| root));
    Ok(if root.is_some() && root == right { Found::Same } else { Found::Other })
}

/// The hash of a whole file; none if it is shorter than the layout. `None` if `go_on` said no.
pub(super) fn hash_file(
    file: &File,
    layout: &Layout,
    go_on: impl FnMut(u64) -> bool,
) -> io::Result<Option<Option<Root>>> {
    if layout.blocks() == 0 {
        return Ok(Some(Some(empty_root(layout))));
    }
    let all = BlockSet::full(layout.blocks());
    let Some(mut hashes) = hash_blocks(file, layout, &all, go_on)? else { return Ok(None) };
    hashes.sort_unstable_by_key(|(block, _)| *block);
    let hashes = hashes.into_iter().map(|(_, hash)| hash).collect();
    Ok(Some(Manifest::of_hashes(*layout, hashes).ok().map(|manifest| manifest.root())))
}

/// The hash of no bytes.
pub(super) fn empty_root(layout: &Layout) -> Root {
    Root(cordee_core::blocks::BlockHasher::new(layout, 0).finish().0)
}

/// The directory that a file lies in.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn remove_if_there(path: &Path) -> Result<(), FetchError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FetchError::target("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Which start of the machine this is; zeros where it does not say, which then never differ.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_default().to_be_bytes()
}

/// So long another fetch of the same file is waited for, in case it is ending.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const PAGE_BYTES: u64 = 4_096;
/// A marker is due after so long,
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// or so many bytes.
const SYNC_BYTES: u64 = 256 << 20;

#[cfg(test)]
mod tests;
