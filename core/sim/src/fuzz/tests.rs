//! The committed corpora pass.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// Gives every file of a corpus to its body; says which one it was that failed.
fn replay(target: &str, body: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let folder = folder(target);
    let files = fs::read_dir(&folder).expect("the corpus is part of the repository");
    let mut count = 0;
    for file in files {
        let path = file.expect("a readable folder").path();
        let data = fs::read(&path).expect("a readable file");
        let outcome = std::panic::catch_unwind(|| body(&data));
        assert!(outcome.is_ok(), "{}", path.display());
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn the_corpus_of_archive_passes() {
    replay("archive", archive);
}

#[test]
fn the_corpus_of_blocks_passes() {
    replay("blocks", blocks);
}

#[test]
fn the_corpus_of_session_passes() {
    replay("session", session);
}

#[test]
fn the_corpus_of_mesh_passes() {
    replay("mesh", mesh);
}

#[test]
fn the_corpus_of_world_passes() {
    replay("world", world);
}
