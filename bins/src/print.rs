//! Lines on standard output and standard error. A reader that has gone is no reason to panic.

use std::io::{self, Write};

/// Writes a line to standard output and flushes it.
///
/// # Errors
///
/// When nobody reads any more.
pub(crate) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Writes a line to standard error, `cordee: ` before it. Nothing can be done when that fails.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "cordee: {text}");
}
