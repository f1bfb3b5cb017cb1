//! On a terminal: a bar, and a line for each source.

use std::time::Duration;

use cordee_net::blocks::fetch::{Progress, Report, SourceProgress, Stage, TreeReport};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::face::Face;
use super::face_lines::{describe, show_failed, show_result, show_tree};
use super::figures;
use crate::chat::escape::escape;

/// Bars on standard error.
#[derive(Debug)]
pub(super) struct Terminal {
    all: MultiProgress,
    bar: ProgressBar,
    sources: Vec<ProgressBar>,
    name: String,
    fetching: bool,
}

impl Terminal {
    pub(super) fn new(name: &str) -> Terminal {
        let all = MultiProgress::new();
        let bar = all.add(ProgressBar::new_spinner());
        bar.enable_steady_tick(Duration::from_millis(100));
        let name = escape(name).into_owned();
        Terminal { all, bar, sources: Vec::new(), name, fetching: false }
    }

    fn show_sources(&mut self, progress: &Progress) {
        for (at, source) in progress.sources.iter().take(SOURCES_SHOWN).enumerate() {
            if at == self.sources.len() {
                let line = self.all.add(ProgressBar::new_spinner());
                line.set_style(style("  {msg}"));
                self.sources.push(line);
            }
            self.sources[at].set_message(figures::source(source));
        }
    }

    /// Takes the bars away: what comes next is plain text.
    fn clear(&mut self) {
        for line in &self.sources {
            line.finish_and_clear();
        }
        self.bar.finish_and_clear();
        // It fails only when the terminal is gone.
        let _ = self.all.clear();
    }
}

impl Face for Terminal {
    fn progress(&mut self, progress: &Progress) {
        let fetching = progress.stage == Stage::Fetching;
        if fetching != self.fetching {
            self.fetching = fetching;
            self.bar.set_style(style(if fetching { BAR } else { "{spinner} {msg}" }));
        }
        if fetching {
            self.bar.set_length(progress.total);
            self.bar.set_position(progress.bytes);
            let Progress { bytes, total, bytes_per_s, .. } = *progress;
            let left = figures::left(total.saturating_sub(bytes), bytes_per_s);
            let files = match progress.files {
                (_, 0 | 1) => String::new(),
                (done, all) => format!("{done}/{all} files  "),
            };
            self.bar.set_message(format!("{files}{}/s  {left}", figures::bytes(bytes_per_s)));
            self.bar.set_prefix(self.name.clone());
        } else {
            self.bar.set_message(format!("{}: {}", self.name, describe(progress)));
        }
        self.show_sources(progress);
    }

    fn note(&mut self, note: &str) {
        // It fails only when the terminal is gone.
        let _ = self.all.println(format!("cordee: {}", escape(note)));
    }

    fn done(&mut self, report: &Report, to_stdout: bool) {
        self.clear();
        show_result(report, to_stdout);
    }

    fn done_tree(&mut self, report: &TreeReport) {
        self.clear();
        show_tree(report);
    }

    fn failed(&mut self, _: &str, sources: &[SourceProgress], files: &[(String, String)]) {
        self.clear();
        show_failed(sources, files);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

const BAR: &str = "{prefix} [{bar:30}] {percent:>3} % of {decimal_total_bytes}  {msg}";
/// More than that do not fit beside anything else.
const SOURCES_SHOWN: usize = 8;
