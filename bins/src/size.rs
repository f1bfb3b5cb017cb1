//! Sizes on the command line: bytes, or with K, M, G for 10³, 10⁶, 10⁹.

use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let wrong = || {
            format!("{text:?} is no size: write bytes, or with K, M or G (powers of 1000), as 500M")
        };
        let (digits, unit) = match text.as_bytes().last() {
            Some(b'K' | b'k') => (&text[..text.len() - 1], 1_000),
            Some(b'M' | b'm') => (&text[..text.len() - 1], 1_000_000),
            Some(b'G' | b'g') => (&text[..text.len() - 1], 1_000_000_000),
            _ => (text, 1),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: Option<u64> = digits.parse().ok();
        number.and_then(|number| number.checked_mul(unit)).map(Size).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1000() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1_048_576),
            ("64K", 64_000),
            ("500M", 500_000_000),
            ("2g", 2_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
        }
        for text in ["", "M", "-1", "+1", "1.5G", "1 M", "1KB", "99999999999G", "ä"] {
            let error = text.parse::<Size>().expect_err(text);
            assert!(error.ends_with("as 500M"), "{error}");
        }
    }
}
