//! What others wrote, made safe for a terminal: nothing in it moves the cursor, changes colours,
//! rings, reorders the line or begins a new one.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` with each unsafe character as `\u{…}`: for people.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    replace(text, |out, c| {
        // Writing to a string never fails.
        let _ = write!(out, "\\u{{{:x}}}", c as u32);
    })
}

/// `json`, a serialised value, with each unsafe character as `\uXXXX`, which means the same in
/// JSON. Unsafe characters can stand only in its strings.
pub(crate) fn escape_json(json: &str) -> Cow<'_, str> {
    replace(json, |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn replace(text: &str, put: impl Fn(&mut String, char)) -> Cow<'_, str> {
    let Some(first) = text.find(is_unsafe) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if is_unsafe(c) {
            put(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Control characters (C0, DEL, C1), what reorders text or ends a line, and what is never seen:
/// Unicode Standard Annex 9, section 2, and chapter 23 of the standard.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_text_stays_and_costs_nothing() {
        for text in ["", "hello", "Grüße, 世界 👩‍💻", "a \\u{1b} typed out", "\"quoted\""]
        {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn what_could_deceive_or_break_a_terminal_is_shown_by_its_code() {
        assert_eq!(escape("a\u{1b}[31mred"), "a\\u{1b}[31mred");
        assert_eq!(escape("one\ntwo\r\t"), "one\\u{a}two\\u{d}\\u{9}");
        assert_eq!(escape("\u{9b}2J\u{7f}"), "\\u{9b}2J\\u{7f}");
        assert_eq!(escape("user\u{202e}txt.exe"), "user\\u{202e}txt.exe");
        assert_eq!(
            escape("\u{2066}x\u{2069}\u{2028}\u{feff}"),
            "\\u{2066}x\\u{2069}\\u{2028}\\u{feff}"
        );
    }

    #[test]
    fn escaped_json_is_the_same_value() {
        let text = "c1 \u{9b} bidi \u{202e} tag \u{e0041} del \u{7f} esc \u{1b} ünï 👩‍💻";
        let plain = serde_json::Value::from(text).to_string();
        let escaped = escape_json(&plain);
        assert!(!escaped.contains(is_unsafe));
        assert!(escaped.contains("\\u009b") && escaped.contains("\\udb40\\udc41"), "{escaped}");
        let back: serde_json::Value = serde_json::from_str(&escaped).expect("valid JSON");
        assert_eq!(back, text);
    }
}
