//! What others wrote, made safe for a terminal: nothing in it moves the cursor, changes colours,
//! rings, reorders the line or begins a new one, and nothing hides. What legitimate text needs
//! stays: joiners between letters of the scripts that know them and in emoji, and one selector after
//! a character that is seen.

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
    // Most text costs a look, and nothing more.
    let Some(first) = text.find(|c: char| c.is_control() || is_suspect(c)) else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    let mut before = text[..first].chars().next_back();
    let mut rest = text[first..].chars();
    let mut escaped = false;
    while let Some(c) = rest.next() {
        let safe = match kind(c) {
            Kind::Shown => true,
            Kind::Unsafe => false,
            Kind::Joiner => {
                before.is_some_and(is_joined) && rest.clone().next().is_some_and(is_joined)
            }
            Kind::Selector => before.is_some_and(is_selected),
            Kind::Mongolian => before.is_some_and(is_mongolian),
        };
        if safe {
            out.push(c);
        } else {
            put(&mut out, c);
            escaped = true;
        }
        // What is shown by its code ends in ASCII, which nothing invisible belongs to.
        before = Some(if safe { c } else { ' ' });
    }
    if escaped { Cow::Owned(out) } else { Cow::Borrowed(text) }
}

/// What a character may do to a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is seen.
    Shown,
    /// It moves the cursor, reorders the line or ends it, or is never seen.
    Unsafe,
    /// It joins or parts its neighbours, as letters of some scripts and emoji want it.
    Joiner,
    /// It chooses among the forms of the character before it.
    Selector,
    /// The same for Mongolian letters.
    Mongolian,
}

/// Control characters (C0, DEL, C1); what reorders text or ends a line (Unicode Standard Annex 9,
/// section 2); what is never seen (`Default_Ignorable_Code_Point`, chapter 5.21 of the standard).
fn kind(c: char) -> Kind {
    match c {
        _ if c.is_control() => Kind::Unsafe,
        '\u{200c}' | '\u{200d}' => Kind::Joiner,
        '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => Kind::Selector,
        '\u{180b}'..='\u{180f}' => Kind::Mongolian,
        _ if is_suspect(c) => Kind::Unsafe,
        _ => Kind::Shown,
    }
}

/// All that is not always shown, control characters apart.
fn is_suspect(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a joiner may stand beside it: letters and marks of the scripts that know joiners, and
/// emoji; not Latin, Greek or Cyrillic, where a joiner would only make names look alike.
fn is_joined(c: char) -> bool {
    let shown = matches!(kind(c), Kind::Shown | Kind::Selector | Kind::Mongolian);
    c >= '\u{590}' && shown && !c.is_whitespace()
}

/// Whether a selector may follow it: one, on what is seen.
fn is_selected(c: char) -> bool {
    kind(c) == Kind::Shown && !c.is_whitespace()
}

fn is_mongolian(c: char) -> bool {
    matches!(c, '\u{1820}'..='\u{18aa}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_text_stays_and_costs_nothing() {
        for text in [
            "",
            "hello",
            "Grüße, 世界 👩‍💻",
            "a \\u{1b} typed out",
            "\"quoted\"",
            // Joiners within words and emoji, and what chooses a form: colours, glyphs, digits.
            "می\u{200c}خواهم ක්\u{200d}ර क्\u{200d}ष",
            "❤\u{fe0f}\u{200d}🔥 🏳\u{fe0f}\u{200d}⚧\u{fe0f} 1\u{fe0f}\u{20e3} ☺\u{fe0e}",
            "葛\u{e0100} ᠠ\u{180b}",
            "non\u{a0}breaking e\u{301}",
        ] {
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
    fn what_is_never_seen_is_shown_by_its_code() {
        for (text, shown) in [
            ("pay\u{200b}pal", "pay\\u{200b}pal"),
            ("pay\u{200c}pal \u{200d}", "pay\\u{200c}pal \\u{200d}"),
            ("na\u{200d}\u{200d}me", "na\\u{200d}\\u{200d}me"),
            ("خ\u{200c}\u{200c}و", "خ\\u{200c}\\u{200c}و"),
            ("\u{200c}خ\u{200c}", "\\u{200c}خ\\u{200c}"),
            ("a\u{ad}b\u{2060}c\u{feff}d", "a\\u{ad}b\\u{2060}c\\u{feff}d"),
            ("x\u{200e}\u{200f}\u{61c}", "x\\u{200e}\\u{200f}\\u{61c}"),
            ("🏴\u{e0067}\u{e007f}", "🏴\\u{e0067}\\u{e007f}"),
            ("a\u{fe0f}\u{fe0f} \u{fe0f}", "a\u{fe0f}\\u{fe0f} \\u{fe0f}"),
            ("\u{e0100}\u{180b}", "\\u{e0100}\\u{180b}"),
            ("\u{3164}\u{115f}\u{ffa0}\u{34f}", "\\u{3164}\\u{115f}\\u{ffa0}\\u{34f}"),
            ("\u{2064}\u{206a}\u{1d173}\u{17b4}", "\\u{2064}\\u{206a}\\u{1d173}\\u{17b4}"),
        ] {
            assert_eq!(escape(text), shown);
            let plain = serde_json::Value::from(text).to_string();
            let json: serde_json::Value = serde_json::from_str(&escape_json(&plain)).expect("JSON");
            assert_eq!(json, text, "JSON stays exact");
        }
    }

    #[test]
    fn escaped_json_is_the_same_value() {
        let text = "c1 \u{9b} bidi \u{202e} tag \u{e0041} del \u{7f} esc \u{1b} ünï 👩‍💻";
        let plain = serde_json::Value::from(text).to_string();
        let escaped = escape_json(&plain);
        assert!(!escaped.contains(|c| kind(c) == Kind::Unsafe));
        assert!(escaped.contains("\\u009b") && escaped.contains("\\udb40\\udc41"), "{escaped}");
        let back: serde_json::Value = serde_json::from_str(&escaped).expect("valid JSON");
        assert_eq!(back, text);
    }
}
