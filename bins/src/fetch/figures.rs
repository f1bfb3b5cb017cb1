//! Amounts and sources as people read them.

use std::fmt::Write;
use std::time::Duration;

use cordee_net::blocks::fetch::{Report, SourceProgress, SourceState, TreeReport};

use crate::chat::escape::escape;

/// Bytes in the unit that leaves one to three digits before the point; units are powers of 1000.
pub(super) fn bytes(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        value /= 1_000.0;
        unit = next;
    }
    match unit {
        "B" => format!("{count} B"),
        _ if value < 9.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// The time that is left at this rate; nothing while it cannot be said.
pub(super) fn left(missing: u64, bytes_per_s: u64) -> String {
    match missing.checked_div(bytes_per_s) {
        Some(seconds) if seconds < 100 * 3_600 => {
            let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
            match hours {
                0 => format!("{minutes}:{:02} left", seconds % 60),
                _ => format!("{hours}:{minutes:02}:{:02} left", seconds % 60),
            }
        }
        _ => String::new(),
    }
}

/// Per cent, rounded down: 100 only when all is there.
pub(super) fn share(bytes: u64, total: u64) -> u64 {
    match total {
        0 => 0,
        _ => (u128::from(bytes) * 100 / u128::from(total)) as u64,
    }
}

/// A source in one line.
pub(super) fn source(source: &SourceProgress) -> String {
    let mut line = format!("{}: ", escape(&source.address));
    match (source.state, source.faults.last()) {
        (SourceState::Waiting, Some(fault)) => {
            let _ = write!(line, "{}, is tried again", fault.trouble);
        }
        (now, _) => line.push_str(state(now)),
    }
    if source.bytes > 0 || source.bytes_per_s > 0 {
        let _ = write!(line, ", {}", bytes(source.bytes));
    }
    if source.bytes_per_s > 0 {
        let _ = write!(line, ", {}/s", bytes(source.bytes_per_s));
    }
    line
}

/// A word for a state.
pub(super) fn state(state: SourceState) -> &'static str {
    match state {
        SourceState::Waiting => "waiting",
        SourceState::Connecting => "connecting",
        SourceState::Working => "working",
        SourceState::Suspect => "suspect",
        SourceState::Dropped(_) => "left out",
    }
}

/// What was wrong with a source, in one line; nothing when nothing was.
pub(super) fn faults(source: &SourceProgress) -> Option<String> {
    let mut line = format!("{}: ", escape(&source.address));
    for (at, fault) in source.faults.iter().enumerate() {
        let trouble = fault.trouble.to_string();
        let _ = write!(line, "{}{trouble}", if at > 0 { "; " } else { "" });
        if !fault.detail.is_empty() && fault.detail != trouble {
            let _ = write!(line, " ({})", escape(&fault.detail));
        }
        if fault.count > 1 {
            let _ = write!(line, ", {} times", fault.count);
        }
    }
    (!source.faults.is_empty()).then_some(line)
}

/// The result, in the form of `b3sum`, and what is to be said beside it.
pub(super) fn result(report: &Report) -> String {
    let path = report.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let path = escape(&path);
    let doubt = if report.verified { "" } else { "  (unverified)" };
    match report.hash {
        Some(hash) => format!("{hash}  {path}{doubt}"),
        None => format!("{path}{doubt}"),
    }
}

/// How it went, in a few words.
pub(super) fn summary(report: &Report) -> String {
    if report.was_there {
        return format!("{} is there already", escape(&report.name));
    }
    let came = report.bytes - report.resumed_bytes.min(report.bytes);
    let mut line = format!("{} in {}", bytes(came), duration(report.elapsed));
    let _ = write!(line, " ({}/s)", bytes(rate(came, report.elapsed)));
    if report.resumed_bytes > 0 {
        let _ = write!(line, ", {} were there", bytes(report.resumed_bytes));
    }
    line.push_str(if report.verified { ", verified" } else { ", unverified" });
    line
}

/// The same for a directory.
pub(super) fn tree_summary(report: &TreeReport) -> String {
    let doubt = if report.verified { "verified" } else { "unverified" };
    let took = duration(report.elapsed);
    format!("{} files, {} in {took}, {doubt}", report.files, bytes(report.bytes))
}

fn rate(count: u64, elapsed: Duration) -> u64 {
    (count as f64 / elapsed.as_secs_f64().max(0.001)) as u64
}

fn duration(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_one_to_three_digits() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (9_960, "10 kB"),
            (999_600, "1.0 MB"),
            (123_456_789, "123 MB"),
            (5_000_000_000, "5.0 GB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn time_left_is_said_when_it_is_known() {
        assert_eq!(left(1_000, 0), "");
        assert_eq!(left(65_000, 1_000), "1:05 left");
        assert_eq!(left(3_700_000, 1_000), "1:01:40 left");
        assert_eq!(left(u64::MAX, 1), "");
    }

    #[test]
    fn a_hundred_per_cent_is_all() {
        assert_eq!(share(999, 1_000), 99);
        assert_eq!(share(1_000, 1_000), 100);
        assert_eq!(share(u64::MAX, u64::MAX), 100);
        assert_eq!(share(0, 0), 0);
    }
}
