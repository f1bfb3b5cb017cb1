//! JSON, an object a line, on standard output.

use cordee_net::blocks::fetch::{Progress, Report, SourceProgress, Stage, TreeReport};
use serde_json::{Value, json};

use super::face::Face;
use super::figures;
use crate::chat::escape::escape_json;
use crate::failure::Failure;
use crate::print;

/// For programs.
#[derive(Debug, Default)]
pub(super) struct Json;

impl Face for Json {
    fn progress(&mut self, progress: &Progress) {
        let mut value = json!({
            "event": "progress",
            "stage": match progress.stage {
                Stage::Asking => "asking",
                Stage::Checking => "checking",
                Stage::Fetching => "fetching",
                Stage::Finishing => "finishing",
            },
            "bytes": progress.bytes,
            "total": progress.total,
            "bytes_per_s": progress.bytes_per_s,
            "sources": progress.sources.iter().map(|source| json!({
                "address": source.address,
                "state": figures::state(source.state),
                "connections": source.connections,
                "bytes": source.bytes,
                "bytes_per_s": source.bytes_per_s,
            })).collect::<Value>(),
        });
        if progress.files.1 > 1 {
            value["files"] = json!(progress.files.0);
            value["files_total"] = json!(progress.files.1);
        }
        put(&value);
    }

    fn note(&mut self, note: &str) {
        put(&json!({"event": "note", "text": note}));
    }

    fn done(&mut self, report: &Report, _: bool) {
        put(&json!({
            "event": "done",
            "name": report.name,
            "path": report.path.as_ref().map(|path| path.display().to_string()),
            "bytes": report.bytes,
            "seconds": report.elapsed.as_secs_f64(),
            "hash": report.hash.map(|hash| hash.to_string()),
            "verified": report.verified,
            "was_there": report.was_there,
            "resumed_bytes": report.resumed_bytes,
            "duplicate_bytes": report.duplicate_bytes,
            "sources": sources(&report.sources),
        }));
    }

    fn done_tree(&mut self, report: &TreeReport) {
        put(&json!({
            "event": "done",
            "name": report.name,
            "path": report.path.display().to_string(),
            "files": report.files,
            "bytes": report.bytes,
            "seconds": report.elapsed.as_secs_f64(),
            "verified": report.verified,
            "duplicate_bytes": report.duplicate_bytes,
            "sources": sources(&report.sources),
        }));
    }

    fn failed(&mut self, why: &str, of: &[SourceProgress], files: &[(String, String)]) {
        let mut value = json!({"event": "failed", "why": why, "sources": sources(of)});
        if !files.is_empty() {
            let files = files.iter().map(|(name, why)| json!({"name": name, "why": why}));
            value["files"] = files.collect();
        }
        put(&value);
    }

    fn failure(&self, _: String) -> Failure {
        Failure::Told
    }
}

fn sources(sources: &[SourceProgress]) -> Value {
    let one = |source: &SourceProgress| {
        let faults: Vec<_> = source.faults.iter().map(|fault| fault.trouble.word()).collect();
        json!({"address": source.address, "bytes": source.bytes, "faults": faults})
    };
    sources.iter().map(one).collect()
}

/// When nobody reads any more, the file is fetched all the same.
fn put(value: &Value) {
    let _ = print::line(escape_json(&value.to_string()));
}
