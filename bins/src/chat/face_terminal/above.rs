//! Printing above the line that is being typed.
//!
//! The line editor prints what comes from elsewhere where the line stands, and then paints the line
//! anew. For that it goes up as many rows as it takes the line to have: it counts bytes for columns,
//! from the line's last row, wherever the cursor is, and clears a single row. So just before, we go
//! to the first row ourselves, clear everything from there on, and go down by as many rows as it
//! will go up.
//!
//! ```text
//! painting: left prompt, right prompt, …, highlight(text, cursor)
//! printing:              right prompt, up, print
//! ```
//!
//! That the right prompt is asked for without the left one is how we know that it prints.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reedline::{Highlighter, SimpleMatchHighlighter, StyledText};
use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthChar;

/// What the line editor painted last. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Painted(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The prompt, all before what is typed.
    prompt: String,
    text: String,
    /// Where in the text the cursor is, in bytes.
    cursor: usize,
    /// Whether the left prompt was asked for, and the right one not yet.
    painting: bool,
}

impl Painted {
    /// The left prompt is being painted.
    pub(super) fn left(&self, prompt: String) {
        let mut state = self.state();
        (state.prompt, state.painting) = (prompt, true);
    }

    /// The right prompt is asked for: to paint it, or to print.
    pub(super) fn right(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.painting) {
            return;
        }
        let columns = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
        // Without a terminal there is nothing to tidy; the line editor notices by itself.
        let _ = state.make_room(columns.max(1), io::stderr().lock());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Highlighter for Painted {
    fn highlight(&self, line: &str, cursor: usize) -> StyledText {
        let mut state = self.state();
        (state.text, state.cursor) = (line.to_owned(), cursor);
        SimpleMatchHighlighter::default().highlight(line, cursor)
    }
}

impl State {
    /// Leaves the cursor where the line editor expects it, with nothing painted any more.
    fn make_room(&self, columns: usize, mut out: impl Write) -> io::Result<()> {
        let (mut up, full) = self.cursor_row(columns);
        if full {
            // The cursor is at the end of a full row or already on the next one, as terminals
            // please. After two blanks it is on the next one.
            write!(out, "  ")?;
            up += 1;
        }
        if up > 0 {
            write!(out, "\x1b[{up}A")?;
        }
        let down = editor_rows(&self.text, columns) - 1;
        write!(out, "\r\x1b[J{}", "\n".repeat(down))?;
        out.flush()
    }

    /// How many rows the cursor is below the prompt's first, and whether what stands before it
    /// fills its row.
    fn cursor_row(&self, columns: usize) -> (usize, bool) {
        let before = self.text.get(..self.cursor).unwrap_or(&self.text);
        let (mut row, mut column) = (0, 0);
        for c in self.prompt.chars().chain(before.chars()) {
            if c == '\n' {
                (row, column) = (row + 1, MULTILINE.len());
                continue;
            }
            let width = c.width().unwrap_or(0);
            if column + width > columns {
                (row, column) = (row + 1, 0);
            }
            column += width;
        }
        (row, column == columns)
    }
}

/// How many rows the line editor takes a line for, with a right prompt of no length.
fn editor_rows(text: &str, columns: usize) -> usize {
    let row = |(index, line): (usize, &str)| {
        let extra = if index == 0 { 3 } else { 0 };
        (line.len() + extra) / columns + 1
    };
    text.lines().enumerate().map(row).sum::<usize>().max(1)
}

/// What stands before each line but the first.
pub(super) const MULTILINE: &str = "  ";

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str, cursor: usize) -> State {
        State {
            prompt: "ada #all 5000> ".to_owned(),
            text: text.to_owned(),
            cursor,
            painting: false,
        }
    }

    #[test]
    fn the_cursor_s_row_is_counted_in_columns_up_to_the_cursor() {
        let ascii = "x".repeat(33);
        assert_eq!(state(&ascii, 33).cursor_row(80), (0, false));
        assert_eq!(state(&ascii, 33).cursor_row(32), (1, false));
        assert_eq!(state(&ascii, 33).cursor_row(24), (1, true));
        assert_eq!(state(&ascii, 0).cursor_row(24), (0, false));
        let wide = "世".repeat(30);
        assert_eq!(state(&wide, wide.len()).cursor_row(80), (0, false));
        assert_eq!(state(&wide, wide.len()).cursor_row(40), (1, false));
        // A wide character is not split: three columns are left for it and its neighbour.
        assert_eq!(state("世世", 6).cursor_row(18), (1, false));
        assert_eq!(state("one\ntwo", 7).cursor_row(80), (1, false));
        assert_eq!(state("", 0).cursor_row(80), (0, false));
    }

    #[test]
    fn everything_from_the_first_row_on_is_cleared_and_the_cursor_left_where_it_is_expected() {
        let codes = |state: &State, columns| {
            let mut out = Vec::new();
            state.make_room(columns, &mut out).expect("memory");
            String::from_utf8(out).expect("text")
        };
        assert_eq!(codes(&state("", 0), 80), "\r\x1b[J");
        // Two rows, and the line editor takes it for two.
        assert_eq!(codes(&state(&"x".repeat(30), 30), 24), "\x1b[1A\r\x1b[J\n");
        // The cursor is on the first of them.
        assert_eq!(codes(&state(&"x".repeat(30), 0), 24), "\r\x1b[J\n");
        // One row, and the line editor takes it for two.
        assert_eq!(codes(&state(&"世".repeat(30), 90), 80), "\r\x1b[J\n");
        assert_eq!(codes(&state(&"x".repeat(9), 9), 24), "  \x1b[1A\r\x1b[J");
    }

    #[test]
    fn the_line_editor_counts_bytes() {
        assert_eq!(editor_rows("", 80), 1);
        assert_eq!(editor_rows(&"x".repeat(76), 80), 1);
        assert_eq!(editor_rows(&"x".repeat(77), 80), 2);
        assert_eq!(editor_rows(&"世".repeat(30), 80), 2);
        assert_eq!(editor_rows("one\ntwo", 80), 2);
    }
}
