//! Lines from standard input, bounded: whoever writes a line without end is told so and costs no
//! memory.

use std::io::{self, BufRead};

/// A line that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// Its text, without the end of the line.
    Text(String),
    /// It was longer than allowed, and was skipped.
    TooLong,
    /// It was not UTF-8.
    NotUtf8,
}

/// The longest line, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;

/// Reads the next line; `None` at the end.
///
/// # Errors
///
/// When reading fails.
pub(crate) fn next(from: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let bytes = match from.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            let nothing = line.is_empty() && !too_long;
            return Ok((!nothing).then(|| finish(line, too_long)));
        }
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let taken = end.unwrap_or(bytes.len());
        too_long |= line.len() + taken > LINE_BYTES_MAX;
        if !too_long {
            line.extend_from_slice(&bytes[..taken]);
        }
        from.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            return Ok(Some(finish(line, too_long)));
        }
    }
}

fn finish(mut line: Vec<u8>, too_long: bool) -> Line {
    if too_long {
        return Line::TooLong;
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_or(Line::NotUtf8, Line::Text)
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn all(bytes: &[u8], buffer: usize) -> Vec<Line> {
        let mut from = BufReader::with_capacity(buffer, bytes);
        let mut lines = Vec::new();
        while let Some(line) = next(&mut from).expect("memory does not fail") {
            lines.push(line);
        }
        lines
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let text = |text: &str| Line::Text(text.to_owned());
        for buffer in [1, 3, 1_000] {
            assert_eq!(
                all(b"one\r\n\n\xff\nlast", buffer),
                [text("one"), text(""), Line::NotUtf8, text("last")]
            );
            assert_eq!(all(b"", buffer), []);
            assert_eq!(all(b"\n", buffer), [text("")]);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_is_not() {
        for (extra, expected) in [(0, true), (1, false), (1 << 20, false)] {
            let mut bytes = vec![b'x'; LINE_BYTES_MAX + extra];
            bytes.extend_from_slice(b"\nnext\n");
            let lines = all(&bytes, 4_096);
            assert_eq!(matches!(lines[0], Line::Text(_)), expected);
            assert_eq!(lines[1..], [Line::Text("next".to_owned())]);
        }
    }
}
