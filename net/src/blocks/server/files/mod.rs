//! The files of one directory, and nothing outside of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cordee_core::blocks::{Layout, Manifest};
use cordee_core::wire::Reason;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2};
use rustix::io::Errno;

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, lock};

mod listing;
mod names;
#[cfg(all(test, not(feature = "loom")))]
mod tests;

/// The directory that is served. Files are opened beneath its handle, wherever its path leads later.
#[derive(Debug)]
pub(super) struct Directory {
    handle: OwnedFd,
    block_bytes: u32,
    /// Whether the kernel resolves names beneath a directory (`openat2`, Linux 5.6).
    beneath: AtomicBool,
    open: Arc<AtomicUsize>,
    open_max: usize,
    listing_entries_max: usize,
}

/// Which version of which file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    pub(super) modified: Stamp,
    pub(super) changed: Stamp,
}

/// Seconds and nanoseconds since 1970-01-01 UTC.
pub(super) type Stamp = (i64, u32);

impl Identity {
    fn of(stat: &Stat) -> Identity {
        Identity {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size.cast_unsigned(),
            modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
            changed: (stat.st_ctime, stat.st_ctime_nsec as u32),
        }
    }

    /// As bytes, for whoever hashes it.
    pub(super) fn bytes(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        let (modified, changed) = (self.modified, self.changed);
        let numbers = [
            self.device,
            self.inode,
            self.size,
            modified.0.cast_unsigned(),
            changed.0.cast_unsigned(),
            u64::from(modified.1) << 32 | u64::from(changed.1),
        ];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }
}

/// A file in one version.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) handle: OwnedFd,
    pub(super) identity: Identity,
    pub(super) layout: Layout,
    manifest: Mutex<Option<Arc<Manifest>>>,
    _place: Place,
}

impl OpenFile {
    /// Whether it is still the version that was opened.
    pub(super) fn is_unchanged(&self) -> bool {
        fstat(&self.handle).is_ok_and(|stat| Identity::of(&stat) == self.identity)
    }

    /// The hashes of this version, when they are known.
    pub(super) fn manifest(&self) -> Option<Arc<Manifest>> {
        lock(&self.manifest).clone()
    }

    /// Keeps the hashes.
    pub(super) fn set_manifest(&self, manifest: Arc<Manifest>) {
        *lock(&self.manifest) = Some(manifest);
    }
}

/// One of the places for open files.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a file is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) detail: &'static str,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal { reason, detail: "" }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => Reason::FileUnknown.into(),
            // Out of the directory; or over a symbolic link, where the kernel cannot tell whither.
            Errno::XDEV | Errno::LOOP => Reason::FileForbidden.into(),
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => {
                Refusal { reason: Reason::Busy, detail: "too many files are open" }
            }
            Errno::ACCESS | Errno::PERM => {
                Refusal { reason: Reason::FileUnreadable, detail: "permission denied" }
            }
            _ => Reason::FileUnreadable.into(),
        }
    }
}

impl Directory {
    /// Serves what is below `path`, with `open_max` files open at once.
    pub(super) fn open(
        path: &Path,
        block_bytes: u32,
        open_max: usize,
        listing_entries_max: usize,
    ) -> io::Result<Directory> {
        let handle =
            open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Directory {
            handle,
            block_bytes,
            beneath: AtomicBool::new(true),
            open: Arc::new(AtomicUsize::new(0)),
            open_max,
            listing_entries_max,
        })
    }

    /// Opens the file of that name.
    pub(super) fn file(&self, name: &str) -> Result<OpenFile, Refusal> {
        if name.is_empty() {
            return Err(Reason::FileIsDirectory.into());
        }
        // A directory may be called as no file may.
        if !names::is_served(name) && !names::is_served_directory(name) {
            return Err(Reason::FileForbidden.into());
        }
        let place = self.place()?;
        // Opening a FIFO or a device does not wait.
        let handle = self.resolve(name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = fstat(&handle)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if names::is_served(name) => {}
            FileType::Directory => return Err(Reason::FileIsDirectory.into()),
            _ => return Err(Reason::FileForbidden.into()),
        }
        let identity = Identity::of(&stat);
        let layout = Layout::for_file(identity.size, self.block_bytes)
            .map_err(|_| Refusal { reason: Reason::FileUnreadable, detail: "it is too long" })?;
        Ok(OpenFile { handle, identity, layout, manifest: Mutex::new(None), _place: place })
    }

    fn place(&self) -> Result<Place, Refusal> {
        let place = Place(Arc::clone(&self.open));
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.open_max {
            return Err(Refusal { reason: Reason::Busy, detail: "too many files are open" });
        }
        Ok(place)
    }

    /// Opens what has that name below the directory, and only below it.
    fn resolve(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Refusal> {
        let flags = flags | OFlags::CLOEXEC;
        if !self.beneath.load(Ordering::Relaxed) {
            return Ok(self.resolve_by_parts(name, flags)?);
        }
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match self.resolve_beneath(name, flags, within | ResolveFlags::NO_SYMLINKS) {
            Ok(handle) => Ok(handle),
            Err(Errno::LOOP) => {
                let handle = self.resolve_beneath(name, flags, within)?;
                self.check_link(&handle)?;
                Ok(handle)
            }
            Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
                // Not known to the kernel, or not allowed by a sandbox; else the other way says so, too.
                let handle = self.resolve_by_parts(name, flags)?;
                self.beneath.store(false, Ordering::Relaxed);
                Ok(handle)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn resolve_beneath(
        &self,
        name: &str,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        let mut tries = 0;
        loop {
            match openat2(&self.handle, name, flags, Mode::empty(), resolve) {
                // Something was renamed meanwhile, and the kernel is not sure any more.
                Err(Errno::AGAIN | Errno::INTR) if tries < TRIES_MAX => tries += 1,
                result => return result,
            }
        }
    }

    /// The same without the kernel's help: part by part, over no symbolic link at all.
    fn resolve_by_parts(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW;
        let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (path, last) = name.rsplit_once('/').unwrap_or(("", name));
        let mut parent: Option<OwnedFd> = None;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let at = parent.as_ref().unwrap_or(&self.handle).as_fd();
            parent = Some(openat(at, part, through, Mode::empty())?);
        }
        let at = parent.as_ref().unwrap_or(&self.handle).as_fd();
        openat(at, last, flags, Mode::empty())
    }

    /// Whether where links led to is served under its own name, too.
    fn check_link(&self, handle: &OwnedFd) -> Result<(), Refusal> {
        let (root, target) = (real_path(&self.handle)?, real_path(handle)?);
        let name = target.strip_prefix(&root).ok().and_then(Path::to_str);
        let stat = fstat(handle)?;
        let is_served = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => names::is_served_directory,
            _ => names::is_served,
        };
        if name.is_some_and(is_served) { Ok(()) } else { Err(Reason::FileForbidden.into()) }
    }
}

/// Where the file lies now.
fn real_path(handle: &OwnedFd) -> Result<PathBuf, Errno> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let path = rustix::fs::readlinkat(CWD, link, Vec::new())?;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(path.as_bytes())))
}

/// How often a name is resolved again when something is renamed meanwhile.
const TRIES_MAX: u32 = 16;
