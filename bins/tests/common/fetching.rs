//! `cordee fetch`, run to its end or watched, and what it said.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::{cordee, text, wait_until};

/// What came of a fetch.
#[derive(Debug)]
pub struct Fetched {
    pub status: ExitStatus,
    /// Every line of JSON.
    pub events: Vec<Value>,
    pub stderr: String,
}

impl Fetched {
    /// The last line: `done` or `failed`.
    pub fn last(&self) -> &Value {
        self.events.last().unwrap_or_else(|| panic!("nothing was said: {self:?}"))
    }

    /// The last line of a fetch that ended well.
    pub fn done(&self) -> &Value {
        let last = self.last();
        assert!(self.status.success() && last["event"] == "done", "{self:?}");
        last
    }

    /// Why it failed.
    pub fn why(&self) -> &str {
        let last = self.last();
        assert!(self.status.code() == Some(1) && last["event"] == "failed", "{self:?}");
        last["why"].as_str().expect("a sentence")
    }

    /// What was wrong with the source at that place.
    pub fn faults(&self, source: usize) -> Vec<String> {
        let faults = self.last()["sources"][source]["faults"].as_array().expect("a list");
        faults.iter().map(|fault| fault.as_str().expect("a word").to_owned()).collect()
    }

    /// The payload that came from all sources.
    pub fn received(&self) -> u64 {
        let sources = self.last()["sources"].as_array().expect("a list");
        sources.iter().map(|source| source["bytes"].as_u64().expect("a number")).sum()
    }

    /// What was noted.
    pub fn notes(&self) -> String {
        let notes = self.events.iter().filter(|event| event["event"] == "note");
        notes.map(|note| format!("{}\n", note["text"].as_str().expect("text"))).collect()
    }
}

/// A fetch in `directory`, ready to be run: `--json`, from these sources.
pub fn command(directory: &Path, name: &str, sources: &[&str], args: &[&str]) -> Command {
    let mut command = cordee();
    command.current_dir(directory).arg("fetch").arg(name).arg("--json").args(args);
    for source in sources {
        command.args(["--from", source]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Fetches to the end.
pub fn fetch(directory: &Path, name: &str, sources: &[&str], args: &[&str]) -> Fetched {
    finish(command(directory, name, sources, args))
}

/// Runs a command of [`command`]'s making to its end.
pub fn finish(mut command: Command) -> Fetched {
    let output = command.output().expect("the program runs");
    Fetched {
        status: output.status,
        events: events(&text(&output.stdout)),
        stderr: text(&output.stderr),
    }
}

/// Lines of JSON; the last may have been cut off.
pub fn events(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Starts a fetch and waits until `bytes` of the file are there.
pub fn begin(mut command: Command, part: &Path, bytes: u64) -> Child {
    let mut child = command.spawn().expect("the program runs");
    // It is not to wait for somebody who reads.
    let stdout = child.stdout.take().expect("piped");
    std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).for_each(drop));
    let journal = part.with_file_name(format!(
        "{}.part.journal",
        part.file_name().expect("a name").to_string_lossy()
    ));
    wait_until("the fetch to begin", || {
        // A record says that one run of blocks is there.
        let records =
            std::fs::metadata(&journal).map_or(0, |found| found.len().saturating_sub(96) / 24);
        (records > 0 && records * (64 << 10) >= bytes).then_some(())
    });
    child
}
