//! Names of users and rooms: what is allowed, and when two are the same.
//!
//! Allowed are letters and digits of any script, then also `.`, `_`, `-` and `~`. Two names are the
//! same when their NFKC forms in lower case are: compared alike everywhere, whatever was typed.

use alloc::string::String;
use unicode_normalization::UnicodeNormalization;

use crate::wire::Reason;

/// The longest name of a user, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 32;
/// The longest name of a room, with its `#`, in bytes of UTF-8.
pub const ROOM_BYTES_MAX: usize = 64;
/// The common room: everyone is in it.
pub const COMMON_ROOM: &str = "#all";

/// The form in which names are compared.
///
/// # Errors
///
/// [`Reason::NameInvalid`] for a name that is not allowed.
pub fn user_key(name: &str) -> Result<String, Reason> {
    if name.len() > NAME_BYTES_MAX || !allowed(name) {
        return Err(Reason::NameInvalid);
    }
    let key = folded(name);
    if key.is_empty() || key.len() > 4 * NAME_BYTES_MAX || !allowed(&key) {
        return Err(Reason::NameInvalid);
    }
    Ok(key)
}

/// The name of a room as it is kept and compared, `#` included.
///
/// # Errors
///
/// [`Reason::RoomInvalid`] for a name that is not allowed.
pub fn room(name: &str) -> Result<String, Reason> {
    let bare = name.strip_prefix('#').ok_or(Reason::RoomInvalid)?;
    if name.len() > ROOM_BYTES_MAX || !allowed(bare) {
        return Err(Reason::RoomInvalid);
    }
    let mut room = String::from("#");
    room.push_str(&folded(bare));
    if room.len() > ROOM_BYTES_MAX || !allowed(&room[1..]) {
        return Err(Reason::RoomInvalid);
    }
    Ok(room)
}

fn folded(name: &str) -> String {
    if name.is_ascii() {
        // It is in normal form, and stays so.
        return name.to_ascii_lowercase();
    }
    // Lower case can undo the normal form, so it is taken once more.
    name.nfkc().flat_map(char::to_lowercase).nfkc().collect()
}

fn allowed(name: &str) -> bool {
    let mut chars = name.chars();
    !name.contains(is_invisible)
        && chars.next().is_some_and(char::is_alphanumeric)
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~') || is_mark(c))
}

/// Letters and marks that are never seen: a name of such would look like none, or like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}')
}

/// Combining marks, without which many scripts cannot be written; a name never begins with one.
fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_the_same_are_the_same() {
        assert_eq!(user_key("Bob"), user_key("bob"));
        assert_eq!(user_key("Ａｄａ"), user_key("ada"));
        assert_eq!(user_key("e\u{301}mile"), user_key("Émile"));
        assert_ne!(user_key("bob"), user_key("bob2"));
        assert_eq!(room("#Ops").as_deref(), Ok("#ops"));
    }

    #[test]
    fn names_that_could_deceive_or_break_a_terminal_are_refused() {
        for bad in ["", " ", "a b", "a\u{1b}[31m", "a\u{202e}b", "a\nb", "#a", "-a", "a\u{0}"] {
            assert_eq!(user_key(bad), Err(Reason::NameInvalid), "{bad:?}");
        }
        assert_eq!(user_key(&"x".repeat(33)), Err(Reason::NameInvalid));
        assert!(user_key(&"x".repeat(32)).is_ok());
        for bad in ["all", "#", "# a", "#a b", "##a"] {
            assert_eq!(room(bad), Err(Reason::RoomInvalid), "{bad:?}");
        }
    }

    #[test]
    fn names_that_are_not_seen_are_refused() {
        for bad in ["\u{3164}", "\u{115f}a", "a\u{1160}", "a\u{ffa0}", "a\u{34f}", "a\u{fe0f}"] {
            assert_eq!(user_key(bad), Err(Reason::NameInvalid), "{bad:?}");
            assert_eq!(room(&alloc::format!("#{bad}")), Err(Reason::RoomInvalid), "{bad:?}");
        }
        assert!(user_key("한글").is_ok() && user_key("हिन्दी").is_ok());
    }

    #[test]
    fn names_are_as_long_as_they_may_be_as_typed_and_as_compared() {
        let room_of = |bare: &str| room(&alloc::format!("#{bare}"));
        assert!(room_of(&"x".repeat(63)).is_ok());
        assert_eq!(room_of(&"x".repeat(64)), Err(Reason::RoomInvalid));
        assert_eq!(room_of(&"Ｘ".repeat(22)), Err(Reason::RoomInvalid), "short only when compared");
        // One character of three bytes, four letters of two when compared.
        let long = "\u{fdf4}";
        assert!(room_of(&long.repeat(7)).is_ok());
        assert_eq!(room_of(&long.repeat(8)), Err(Reason::RoomInvalid));
        assert_eq!(user_key(&long.repeat(10)).map(|key| key.len()), Ok(80));
    }

    #[test]
    fn what_would_be_allowed_in_one_form_only_is_refused() {
        // No letter, but letters in normal form; and a letter that has spaces in it.
        for bad in ["\u{3316}", "a\u{3316}", "\u{fdfa}"] {
            assert_eq!(user_key(bad), Err(Reason::NameInvalid), "{bad:?}");
            assert_eq!(room(&alloc::format!("#{bad}")), Err(Reason::RoomInvalid), "{bad:?}");
        }
    }

    #[test]
    fn no_character_grows_so_much_that_a_key_is_longer_than_four_names() {
        let may_be_in_one = |c: char| c.is_alphanumeric() || is_mark(c);
        for c in ('\0'..=char::MAX).filter(|c| may_be_in_one(*c)) {
            let key = folded(c.encode_utf8(&mut [0; 4]));
            let is_good = key.chars().all(may_be_in_one);
            assert!(!is_good || key.len() <= 4 * c.len_utf8(), "{c:?} is {key:?}");
        }
    }

    #[test]
    fn a_key_is_its_own_key() {
        for name in ["Bob", "Émile", "ǅ", "İx", "ﬁn", "Straße"] {
            if let Ok(key) = user_key(name) {
                assert_eq!(user_key(&key).as_ref(), Ok(&key), "{name}");
            }
        }
    }
}
