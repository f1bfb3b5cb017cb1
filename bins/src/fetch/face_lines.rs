//! Plain lines on standard error, one a second; the result on standard output.

use cordee_net::blocks::fetch::{Progress, Report, SourceProgress, SourceState, Stage, TreeReport};

use super::face::Face;
use super::figures;
use crate::chat::escape::escape;
use crate::print;

/// Not on a terminal.
#[derive(Debug)]
pub(super) struct Lines;

impl Face for Lines {
    fn progress(&mut self, progress: &Progress) {
        print::note(describe(progress));
    }

    fn note(&mut self, note: &str) {
        print::note(escape(note));
    }

    fn done(&mut self, report: &Report, to_stdout: bool) {
        show_result(report, to_stdout);
    }

    fn done_tree(&mut self, report: &TreeReport) {
        show_tree(report);
    }

    fn failed(&mut self, _: &str, sources: &[SourceProgress], files: &[(String, String)]) {
        show_failed(sources, files);
    }
}

/// Where it is, in one line.
pub(super) fn describe(progress: &Progress) -> String {
    let Progress { bytes, total, bytes_per_s, .. } = *progress;
    let working = |source: &&SourceProgress| source.state == SourceState::Working;
    let working = progress.sources.iter().filter(working).count();
    let of = progress.sources.len();
    let amount = format!(
        "{} % of {}, {} of {of} sources",
        figures::share(bytes, total),
        figures::bytes(total),
        working
    );
    match progress.stage {
        Stage::Asking if total > 0 => format!(
            "a source is hashing it: {} % of {}",
            figures::share(bytes, total),
            figures::bytes(total)
        ),
        Stage::Asking => format!("asking {of} sources"),
        Stage::Checking => {
            format!(
                "checking what is there: {} % of {}",
                figures::share(bytes, total),
                figures::bytes(total)
            )
        }
        Stage::Finishing => format!("{}: writing to the disk", figures::bytes(total)),
        Stage::Fetching => {
            let files = match progress.files {
                (_, 0 | 1) => String::new(),
                (done, all) => format!("{done} of {all} files, "),
            };
            let left = figures::left(total.saturating_sub(bytes), bytes_per_s);
            let left = if left.is_empty() { left } else { format!(", {left}") };
            format!("{files}{amount}, {}/s{left}", figures::bytes(bytes_per_s))
        }
    }
}

/// The result, on standard output unless the file itself went there.
pub(super) fn show_result(report: &Report, to_stdout: bool) {
    for source in &report.sources {
        if let Some(line) = figures::faults(source) {
            print::note(line);
        }
    }
    print::note(figures::summary(report));
    if to_stdout {
        if let Some(hash) = report.hash {
            print::note(format_args!("its hash is {hash}"));
        }
    } else {
        // The file is there, whether or not anybody reads of it.
        let _ = print::line(figures::result(report));
    }
}

/// The same of a directory.
pub(super) fn show_tree(report: &TreeReport) {
    for source in &report.sources {
        if let Some(line) = figures::faults(source) {
            print::note(line);
        }
    }
    let path = report.path.display().to_string();
    let _ = print::line(format_args!("{}: {}", escape(&path), figures::tree_summary(report)));
}

/// What is wrong with each source and file.
pub(super) fn show_failed(sources: &[SourceProgress], files: &[(String, String)]) {
    for (name, why) in files {
        print::note(format_args!("{}: {}", escape(name), escape(why)));
    }
    for source in sources {
        if let Some(line) = figures::faults(source) {
            print::note(line);
        }
    }
}
