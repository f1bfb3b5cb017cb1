//! All files below a directory, page by page, in the order of the bytes of their names.
//!
//! Directories are walked in the order of their names with a slash behind them: then the names of all
//! files come in order, and whatever lies before the page is passed over without being read.

use std::os::fd::{AsFd, OwnedFd};

use cordee_core::wire::Reason;
use cordee_core::wire::block::FILE_NAME_BYTES_MAX;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::{Directory, Refusal, names};

/// A page of files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Listing {
    /// The files, in order.
    pub(crate) files: Vec<Listed>,
    /// Whether there are more.
    pub(crate) more: bool,
}

/// A file, or a directory where one level is listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listed {
    /// Its name below the served directory; a directory's ends with a slash.
    pub(crate) name: String,
    /// Its length in bytes; 0 for a directory.
    pub(crate) length: u64,
}

/// A directory on the way, and what is left of it.
struct Level {
    handle: OwnedFd,
    /// What the names in it begin with: empty, or a name with a slash behind it.
    prefix: String,
    /// The last is the next.
    entries: Vec<Entry>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// The name in its directory, a slash behind that of a directory.
    name: String,
    link: bool,
}

/// What a walk is looking for.
struct Walk<'a> {
    directory: &'a Directory,
    after: &'a str,
    /// How many more entries may be looked at.
    entries_left: usize,
    levels: Vec<Level>,
}

impl Directory {
    /// Up to `count` files below the directory `name`, those of all directories in it, after the file `after`.
    pub(crate) fn list(&self, name: &str, after: &str, count: usize) -> Result<Listing, Refusal> {
        let mut walk = self.walk(name, after)?;
        let mut listing = Listing::default();
        while let Some(file) = walk.next(true) {
            if listing.files.len() == count {
                listing.more = true;
                break;
            }
            listing.files.push(file);
        }
        Ok(listing)
    }

    /// Up to `count` files and directories in the directory `name` itself, after `after`.
    pub(crate) fn list_level(
        &self,
        name: &str,
        after: &str,
        count: usize,
    ) -> Result<Listing, Refusal> {
        let mut walk = self.walk(name, after)?;
        let mut listing = Listing::default();
        while let Some(file) = walk.next(false) {
            if file.name.as_str() <= after {
                continue;
            }
            if listing.files.len() == count {
                listing.more = true;
                break;
            }
            listing.files.push(file);
        }
        Ok(listing)
    }

    /// How many files are served.
    pub(crate) fn count(&self) -> u64 {
        let Ok(mut walk) = self.walk("", "") else { return 0 };
        std::iter::from_fn(|| walk.next(true)).count() as u64
    }

    fn walk<'a>(&'a self, name: &str, after: &'a str) -> Result<Walk<'a>, Refusal> {
        if !names::is_served_directory(name) {
            return Err(Reason::FileForbidden.into());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let handle = if name.is_empty() {
            openat(&self.handle, c".", flags | OFlags::CLOEXEC, Mode::empty())?
        } else {
            self.resolve(name, flags)?
        };
        let prefix = if name.is_empty() { String::new() } else { format!("{name}/") };
        let entries_left = self.listing_entries_max;
        let mut walk = Walk { directory: self, after, entries_left, levels: Vec::new() };
        walk.enter(handle, prefix)?;
        Ok(walk)
    }
}

impl Walk<'_> {
    /// The next file; without `deep` directories are not entered but given, too.
    fn next(&mut self, deep: bool) -> Option<Listed> {
        loop {
            let depth = self.levels.len();
            let level = self.levels.last_mut()?;
            let Some(entry) = level.entries.pop() else {
                self.levels.pop();
                continue;
            };
            let name = format!("{}{}", level.prefix, entry.name);
            let Some(in_level) = entry.name.strip_suffix('/') else {
                // Whatever vanished meanwhile, or cannot be read, is not there.
                if let Some(length) = self.length(&name, &entry) {
                    return Some(Listed { name, length });
                }
                continue;
            };
            if !deep {
                return Some(Listed { name, length: 0 });
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if depth < DEPTH_MAX
                && let Ok(handle) = openat(&level.handle, in_level, flags, Mode::empty())
            {
                let _ = self.enter(handle, name);
            }
        }
    }

    /// Reads a directory; what lies before the page is left out.
    fn enter(&mut self, handle: OwnedFd, prefix: String) -> Result<(), Errno> {
        let mut entries = Vec::new();
        let mut dir = Dir::read_from(&handle)?;
        while let Some(entry) = dir.read() {
            if self.entries_left == 0 {
                break;
            }
            self.entries_left -= 1;
            let entry = entry?;
            // Names that are no text cannot be asked for.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !names::is_served_part(name) || prefix.len() + name.len() >= FILE_NAME_BYTES_MAX {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => kind(&handle, entry.file_name()),
                kind => kind,
            };
            let (slash, link) = match kind {
                FileType::Directory => ("/", false),
                FileType::RegularFile => ("", false),
                FileType::Symlink => ("", true),
                _ => continue,
            };
            let name = format!("{name}{slash}");
            if self.is_wanted(&prefix, &name) {
                entries.push(Entry { name, link });
            }
        }
        entries.sort_unstable_by(|one, other| other.cmp(one));
        self.levels.push(Level { handle, prefix, entries });
        Ok(())
    }

    /// Whether it comes after `after`, or something in it may.
    fn is_wanted(&self, prefix: &str, name: &str) -> bool {
        if name.ends_with('/') {
            let whole = format!("{prefix}{name}");
            return whole.as_str() > self.after || self.after.starts_with(&whole);
        }
        // Compared in two steps, without making a text of every name.
        match self.after.as_bytes().split_at_checked(prefix.len()) {
            Some((begin, rest)) if begin == prefix.as_bytes() => {
                name.as_bytes() > rest && names::is_served(name)
            }
            _ => prefix > self.after && names::is_served(name),
        }
    }

    /// The length of a regular file that is served.
    fn length(&self, name: &str, entry: &Entry) -> Option<u64> {
        let stat: Stat = if entry.link {
            let handle = self.directory.resolve(name, OFlags::PATH).ok()?;
            fstat(&handle).ok()?
        } else {
            let level = self.levels.last()?;
            statat(&level.handle, entry.name.as_str(), AtFlags::SYMLINK_NOFOLLOW).ok()?
        };
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        regular.then_some(stat.st_size.cast_unsigned())
    }
}

/// What it is, where the file system does not say so in the directory.
fn kind(handle: impl AsFd, name: &std::ffi::CStr) -> FileType {
    statat(handle, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}

/// Files deeper than that are not listed: each level on the way holds a descriptor.
const DEPTH_MAX: usize = 64;
