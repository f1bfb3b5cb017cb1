//! Which part of a file is asked for (RFC 9110, section 14).

use std::ops::Range;

/// What a `Range` asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// Everything: nothing else was said, or not in a way that is understood.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Nothing that there is.
    Beyond,
}

/// The part of a file of `length` bytes that `text` asks for. Several parts at once are not given
/// apart: the whole is, as the standard allows.
pub(super) fn asked(text: &str, length: u64) -> Asked {
    let Some(spec) = text.strip_prefix("bytes=") else { return Asked::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Asked::Whole };
    let (first, last) = (first.trim(), last.trim());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than a number has mean more than there is.
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    let range = match (is_number(first), is_number(last)) {
        (true, true) if number(first) > number(last) => return Asked::Whole,
        (true, true) => number(first)..number(last).saturating_add(1).min(length),
        (true, false) if last.is_empty() => number(first)..length,
        (false, true) if first.is_empty() => length.saturating_sub(number(last))..length,
        _ => return Asked::Whole,
    };
    if range.start < range.end { Asked::Part(range) } else { Asked::Beyond }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_is_given() {
        for (text, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-99", 0..100),
            ("bytes=0-1000", 0..100),
            ("bytes=50-", 50..100),
            ("bytes=-1", 99..100),
            ("bytes=-1000", 0..100),
            ("bytes=99-99999999999999999999999", 99..100),
        ] {
            assert_eq!(asked(text, 100), Asked::Part(range), "{text}");
        }
    }

    #[test]
    fn what_is_beyond_the_end_is_not_there() {
        for text in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(asked(text, 100), Asked::Beyond, "{text}");
        }
        assert_eq!(asked("bytes=0-", 0), Asked::Beyond);
        assert_eq!(asked("bytes=-5", 0), Asked::Beyond);
    }

    #[test]
    fn what_is_not_understood_is_as_if_it_were_not_said() {
        for text in [
            "",
            "0-1",
            "lines=0-1",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=2-1",
            "bytes=0-1,3-4",
            "bytes=+1-2",
        ] {
            assert_eq!(asked(text, 100), Asked::Whole, "{text}");
        }
    }
}
