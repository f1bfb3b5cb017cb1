//! Which names may be served at all, before the file system is asked.

/// Whether a name below the served directory may be asked for: parts with single slashes between
/// them, none hidden, and not that of a file that is still being fetched.
pub(crate) fn is_served(name: &str) -> bool {
    !name.is_empty()
        && name.split('/').all(is_served_part)
        && UNFINISHED.iter().all(|ending| !name.ends_with(ending))
}

/// Whether a directory of that name may be listed; the empty name is all that is served.
pub(crate) fn is_served_directory(name: &str) -> bool {
    name.is_empty() || name.split('/').all(is_served_part)
}

/// Hidden are the names that begin with a dot, `.` and `..` among them.
pub(crate) fn is_served_part(part: &str) -> bool {
    !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\0'])
}

/// How the names end that a fetch gives to what it has not finished.
const UNFINISHED: [&str; 2] = [".part", ".part.journal"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_script_with_spaces_are_served() {
        for name in
            ["a", "a/b", "talks/крюк и верёвка.mkv", "登山 2026.txt", "a b/ c", "x.parts", "é"]
        {
            assert!(is_served(name), "{name}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_or_to_hidden_or_unfinished_files_are_not() {
        for name in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../a",
            "a/../b",
            "a/..",
            ".",
            "./a",
            "a//b",
            "a/",
            ".ssh",
            "a/.git/config",
            "film.part",
            "film.part.journal",
            "a\0b",
            "\0",
        ] {
            assert!(!is_served(name), "{name:?}");
        }
        assert!(is_served_directory("") && is_served_directory("a/b"));
        assert!(!is_served_directory("..") && !is_served_directory("a/"));
    }
}
