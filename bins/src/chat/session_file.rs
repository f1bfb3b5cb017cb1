//! Who the user is, from one run of the client to the next: the session's secret and the count of
//! its attachments, in a file that only the user can read.
//!
//! ```text
//! cordee session 1
//! secret 00112233445566778899aabbccddeeff
//! attachment 0000000007
//! ```
//!
//! The file is locked while a client uses it. It always has the same length and is overwritten in
//! place, because a lock is on a file and not on a name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cordee_core::ids::SessionSecret;
use cordee_core::names;
use cordee_net::client::draw_secret;
use rustix::fs::{FlockOperation, OFlags, flock};

use crate::failure::{Failure, failed};

/// A locked session file.
#[derive(Debug)]
pub(crate) struct SessionFile {
    file: File,
    path: PathBuf,
    secret: SessionSecret,
    attachment: u32,
}

/// What came of opening a session file.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It is ours.
    Ours(SessionFile),
    /// Another client uses it.
    Locked,
}

impl SessionFile {
    /// Opens the file and locks it; makes it, with a new secret, when there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written, can be read by others, or is no session file.
    pub(crate) fn open(path: &Path) -> Result<Opened, Failure> {
        let wrong = |why: &str| failed(format!("session file {}: {why}", path.display()));
        let not = |error: io::Error| wrong(&error.to_string());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // A device or a pipe is refused below, and must not block before.
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(path)
            .map_err(not)?;
        let metadata = file.metadata().map_err(not)?;
        if !metadata.is_file() {
            return Err(wrong("not a file"));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            let path = path.display();
            return Err(wrong(&format!("others can read it; mend it with: chmod 600 {path}")));
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Opened::Locked),
            Err(error) => return Err(not(error.into())),
        }
        let mut text = String::new();
        let bytes_max = text_of(&SessionSecret([0; 16]), 0).len() as u64 + 1;
        (&mut file).take(bytes_max).read_to_string(&mut text).map_err(not)?;
        let path = path.to_owned();
        let session = if text.is_empty() {
            let secret = draw_secret().map_err(|error| failed(error.to_string()))?;
            SessionFile { file, path, secret, attachment: 0 }
        } else {
            let (secret, attachment) =
                parse(&text).ok_or_else(|| wrong("no session file: remove it, or take another"))?;
            SessionFile { file, path, secret, attachment }
        };
        session.write()?;
        Ok(Opened::Ours(session))
    }

    /// The session's secret.
    pub(crate) fn secret(&self) -> SessionSecret {
        self.secret
    }

    /// The count of the last attachment that was stored.
    pub(crate) fn attachment(&self) -> u32 {
        self.attachment
    }

    /// Stores the count of an attachment.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn set_attachment(&mut self, attachment: u32) -> Result<(), Failure> {
        self.attachment = attachment;
        self.write()
    }

    fn write(&self) -> Result<(), Failure> {
        let text = text_of(&self.secret, self.attachment);
        self.file
            .write_all_at(text.as_bytes(), 0)
            .map_err(|error| failed(format!("session file {}: {error}", self.path.display())))
    }
}

/// Where the session of that name in that cluster is kept: beneath `$XDG_STATE_HOME`, or
/// `~/.local/state` (XDG Base Directory Specification 0.8). Makes the directories.
///
/// # Errors
///
/// Why there is no place for it.
pub(crate) fn default_path(
    state_home: Option<PathBuf>,
    home: Option<PathBuf>,
    cluster: &str,
    name: &str,
) -> Result<PathBuf, String> {
    let key = names::user_key(name).map_err(|why| why.text().to_owned())?;
    let absolute = |path: &PathBuf| path.is_absolute();
    let base = state_home
        .filter(absolute)
        .or_else(|| Some(home.filter(absolute)?.join(".local").join("state")))
        .ok_or("neither HOME nor XDG_STATE_HOME says where")?;
    let directory = base.join("cordee").join("sessions").join(encode(cluster));
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(|error| format!("{} cannot be made: {error}", directory.display()))?;
    // The key of a name has no slash and does not begin with a dot.
    Ok(directory.join(key))
}

/// A file name for any text: what is not plain stands as `%` and two hexadecimal digits.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let bytes = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02x}"),
    });
    bytes.collect()
}

fn text_of(secret: &SessionSecret, attachment: u32) -> String {
    let secret = u128::from_be_bytes(secret.0);
    format!("{HEADER}\nsecret {secret:032x}\nattachment {attachment:010}\n")
}

fn parse(text: &str) -> Option<(SessionSecret, u32)> {
    let mut lines = text.lines();
    if lines.next()? != HEADER {
        return None;
    }
    let secret = u128::from_str_radix(lines.next()?.strip_prefix("secret ")?, 16).ok()?;
    let attachment = lines.next()?.strip_prefix("attachment ")?.parse().ok()?;
    let secret = SessionSecret(secret.to_be_bytes());
    // Nothing else is in the file, and nothing in another form.
    (text_of(&secret, attachment) == text).then_some((secret, attachment))
}

const HEADER: &str = "cordee session 1";

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory for the test")
    }

    fn ours(path: &Path) -> SessionFile {
        match SessionFile::open(path).expect("it opens") {
            Opened::Ours(file) => file,
            Opened::Locked => panic!("nobody has it"),
        }
    }

    #[test]
    fn a_session_is_the_same_the_next_time_and_its_count_is_kept() {
        let directory = directory();
        let path = directory.path().join("session");
        let mut file = ours(&path);
        assert_eq!(file.attachment(), 0);
        let secret = file.secret();
        file.set_attachment(41).expect("it writes");
        file.set_attachment(7).expect("it writes");
        drop(file);
        let file = ours(&path);
        assert_eq!((file.secret(), file.attachment()), (secret, 7));
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = ours(&directory.path().join("other"));
        assert_ne!(other.secret(), secret);
    }

    #[test]
    fn one_client_at_a_time_has_it() {
        let directory = directory();
        let path = directory.path().join("session");
        let first = ours(&path);
        assert!(matches!(SessionFile::open(&path), Ok(Opened::Locked)));
        drop(first);
        ours(&path);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_mend() {
        let directory = directory();
        let path = directory.path().join("session");
        drop(ours(&path));
        for mode in [0o644, 0o640, 0o606] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            let error = SessionFile::open(&path).expect_err("refused").to_string();
            assert!(error.ends_with(&format!("chmod 600 {}", path.display())), "{error}");
        }
    }

    #[test]
    fn what_is_no_session_file_is_refused_and_left_alone() {
        let directory = directory();
        let path = directory.path().join("session");
        let secret = "00112233445566778899aabbccddeeff";
        for text in [
            "dear diary\n".to_owned(),
            format!("{HEADER}\nsecret {secret}\n"),
            format!("{HEADER}\nsecret {secret}\nattachment 0000000001\nmore\n"),
            format!("{HEADER}\nsecret +{}\nattachment 0000000001\n", &secret[1..]),
            format!("{HEADER}\nsecret {secret}\nattachment 9999999999\n"),
            "x".repeat(1 << 20),
        ] {
            fs::write(&path, &text).expect("it writes");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
            let error = SessionFile::open(&path).expect_err("refused").to_string();
            assert!(error.contains("no session file"), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
        }
        let error = SessionFile::open(Path::new("/dev/null")).expect_err("refused").to_string();
        assert!(error.ends_with("not a file"), "{error}");
        SessionFile::open(directory.path()).expect_err("a directory is refused");
        SessionFile::open(&path.join("x")).expect_err("no such directory");
    }

    #[test]
    fn the_default_place_depends_on_cluster_and_name() {
        let directory = directory();
        let home = Some(directory.path().to_owned());
        let at = |cluster, name| default_path(None, home.clone(), cluster, name);
        let ada = at("cordee", "Ada").expect("a place");
        assert_eq!(ada, directory.path().join(".local/state/cordee/sessions/cordee/ada"));
        assert_eq!(at("cordee", "ada"), Ok(ada.clone()));
        assert_ne!(at("lab", "ada"), Ok(ada.clone()));
        assert_eq!(
            at("../a b", "ada"),
            Ok(directory.path().join(".local/state/cordee/sessions/%2e%2e%2fa%20b/ada"))
        );
        ours(&ada);
        assert!(at("cordee", "no name").is_err());
        assert!(default_path(None, None, "cordee", "ada").is_err());
        let nowhere = default_path(None, Some("/proc/nobody".into()), "cordee", "ada");
        assert!(nowhere.is_err_and(|why| why.contains("/proc/nobody/.local")));
        let state = directory.path().join("state");
        let path = default_path(Some(state.clone()), home.clone(), "cordee", "ada");
        assert_eq!(path, Ok(state.join("cordee/sessions/cordee/ada")));
        let relative = default_path(Some("state".into()), home.clone(), "cordee", "ada");
        assert_eq!(relative, Ok(ada));
    }
}
