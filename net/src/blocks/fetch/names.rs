//! Names that sources give: of files below a directory, as hostile as any input.

use std::path::{Path, PathBuf};

/// Why a name is not written to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadName {
    #[error("the name is empty or has an empty part")]
    Empty,
    #[error("the name begins at the root")]
    Absolute,
    #[error("a part of the name begins with a dot")]
    Dot,
    #[error("the name has a NUL in it")]
    Nul,
    #[error("the name does not lie below the directory that was asked for")]
    Elsewhere,
    #[error("the name is too long")]
    TooLong,
    #[error("a part of the way is a symbolic link")]
    Link,
    #[error("a part of the way is no directory")]
    NoDirectory,
}

/// Where the file `name` goes below the target, given the directory that was asked for.
pub(super) fn below(directory: &str, name: &str) -> Result<PathBuf, BadName> {
    let directory = directory.trim_matches('/');
    let rest = if directory.is_empty() || directory == "." {
        name
    } else {
        let rest = name.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/'));
        rest.ok_or(BadName::Elsewhere)?
    };
    relative(rest)
}

/// A name as a path of plain parts.
pub(super) fn relative(name: &str) -> Result<PathBuf, BadName> {
    if name.contains('\0') {
        return Err(BadName::Nul);
    }
    if name.starts_with('/') {
        return Err(BadName::Absolute);
    }
    for part in name.split('/') {
        if part.is_empty() {
            return Err(BadName::Empty);
        }
        if part.starts_with('.') {
            return Err(BadName::Dot);
        }
        if part.len() > PART_BYTES_MAX {
            return Err(BadName::TooLong);
        }
    }
    Ok(PathBuf::from(name))
}

/// Looks whether the way from `root` to `path` below it leads over directories alone, as far as
/// there is one.
pub(super) fn check_way(root: &Path, path: &Path) -> Result<(), BadName> {
    let mut way = root.to_owned();
    let parents = path.parent().map(Path::components).into_iter().flatten();
    for part in parents {
        way.push(part);
        match way.symlink_metadata() {
            Ok(found) if found.is_symlink() => return Err(BadName::Link),
            Ok(found) if !found.is_dir() => return Err(BadName::NoDirectory),
            Ok(_) => {}
            // What is not there is made, or says itself why it cannot be.
            Err(_) => return Ok(()),
        }
    }
    match root.join(path).symlink_metadata() {
        Ok(found) if found.is_symlink() => Err(BadName::Link),
        _ => Ok(()),
    }
}

/// The longest name of a file on most file systems, less `.part.journal.new`.
const PART_BYTES_MAX: usize = 255 - 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_script_lie_below_the_directory() {
        for (directory, name, path) in [
            ("", "a/b c.txt", "a/b c.txt"),
            ("d", "d/ä/日本語", "ä/日本語"),
            ("d/", "d/x..y", "x..y"),
            (".", "d/x", "d/x"),
        ] {
            assert_eq!(below(directory, name), Ok(PathBuf::from(path)));
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        for (name, why) in [
            ("", BadName::Empty),
            ("a//b", BadName::Empty),
            ("a/", BadName::Empty),
            ("/etc/passwd", BadName::Absolute),
            ("../x", BadName::Dot),
            ("a/../../x", BadName::Dot),
            ("a/./b", BadName::Dot),
            (".ssh/authorized_keys", BadName::Dot),
            ("a\0b", BadName::Nul),
        ] {
            assert_eq!(below("", name), Err(why), "{name:?}");
        }
        assert_eq!(below("", &"x".repeat(239)), Err(BadName::TooLong));
        for name in ["e/x", "dd/x", "d", "/d/x"] {
            assert_eq!(below("d", name), Err(BadName::Elsewhere), "{name:?}");
        }
    }

    #[test]
    fn links_in_the_target_are_not_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let (root, outside) = (directory.path().join("root"), directory.path().join("outside"));
        std::fs::create_dir_all(root.join("d")).expect("made");
        std::fs::create_dir(&outside).expect("made");
        std::os::unix::fs::symlink(&outside, root.join("link")).expect("made");
        std::fs::write(root.join("file"), "").expect("written");
        assert_eq!(check_way(&root, Path::new("d/new/x")), Ok(()));
        assert_eq!(check_way(&root, Path::new("link/x")), Err(BadName::Link));
        assert_eq!(check_way(&root, Path::new("link")), Err(BadName::Link));
        assert_eq!(check_way(&root, Path::new("file/x")), Err(BadName::NoDirectory));
    }
}
