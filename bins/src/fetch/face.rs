//! What every face of a fetch shows.

use cordee_net::blocks::fetch::{Progress, Report, SourceProgress, TreeReport};

use crate::failure::Failure;

/// Shows how a fetch goes on.
pub(super) trait Face {
    /// How far it is.
    fn progress(&mut self, progress: &Progress);
    /// Something that a person should know.
    fn note(&mut self, note: &str);
    /// The file is there, or went to standard output.
    fn done(&mut self, report: &Report, to_stdout: bool);
    /// All files are there.
    fn done_tree(&mut self, report: &TreeReport);
    /// It failed; the files are those that are missing, and why.
    fn failed(&mut self, why: &str, sources: &[SourceProgress], files: &[(String, String)]);
    /// What the command ends with then.
    fn failure(&self, why: String) -> Failure {
        Failure::Failed(why)
    }
}
