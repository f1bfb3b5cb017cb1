use std::fs;
use std::path::Path;
use std::time::Instant;

use cordee_core::blocks::Root;

use super::cache::Cache;
use super::*;
use crate::blocks::server::files::Directory;

const PATIENCE: Duration = Duration::from_secs(60);

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn open(directory: &Path, name: &str) -> Arc<OpenFile> {
    let directory = Directory::open(directory, 64 << 10, 16, 100).expect("it is there");
    Arc::new(directory.file(name).expect("it is there"))
}

/// A file whose times are old enough to be relied on.
fn old(directory: &Path, name: &str, length: usize) -> (Vec<u8>, Arc<OpenFile>) {
    let content = bytes(length);
    fs::write(directory.join(name), &content).expect("it can be written");
    std::thread::sleep(2 * GRAIN);
    (content, open(directory, name))
}

fn root(hashed: &Hashed) -> Option<Root> {
    match hashed {
        Hashed::Whole(manifest) => Some(manifest.root()),
        Hashed::Part(_) => None,
    }
}

#[test]
fn a_small_file_is_hashed_at_once_and_known_from_then_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let hashing = Hashing::new(4, 1 << 20);
    let (content, file) = old(directory.path(), "f", 300_000);
    assert_eq!(root(&hashing.known(&file)), None);
    let expected = Some(Root(*blake3::hash(&content).as_bytes()));
    assert_eq!(root(&hashing.wanted(&file, &mut [0; 4_096])), expected);
    assert_eq!(root(&hashing.known(&open(directory.path(), "f"))), expected);
}

#[test]
fn a_file_that_changed_just_now_is_hashed_anew_for_everyone() {
    let directory = tempfile::tempdir().expect("a directory");
    let hashing = Hashing::new(4, 1 << 20);
    fs::write(directory.path().join("f"), bytes(100)).expect("it can be written");
    let file = open(directory.path(), "f");
    if until_old(&file.identity).is_none() {
        // So slow a machine is that it is old already.
        return;
    }
    let first = root(&hashing.wanted(&file, &mut [0; 4_096]));
    assert_eq!(first, Some(Root(*blake3::hash(&bytes(100)).as_bytes())));
    let kept = lock(&hashing.state).cache.bytes();
    assert_eq!(kept, 0, "another change might have the same times");
}

#[test]
fn a_long_file_is_hashed_by_several_threads_while_others_hear_how_far() {
    let directory = tempfile::tempdir().expect("a directory");
    let hashing = Arc::new(Hashing::new(4, 1 << 20));
    let (content, file) = old(directory.path(), "f", (8 << 20) + 5);
    assert!(matches!(hashing.wanted(&file, &mut []), Hashed::Part(0)));
    // Nobody hashes yet, and asking again changes nothing.
    assert!(matches!(hashing.wanted(&file, &mut []), Hashed::Part(0)));
    assert_eq!(lock(&hashing.state).jobs.len(), 1);
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let hashing = Arc::clone(&hashing);
            std::thread::spawn(move || hashing.run())
        })
        .collect();
    let begun = Instant::now();
    let found = loop {
        match hashing.known(&file) {
            Hashed::Whole(manifest) => break manifest,
            Hashed::Part(done) => assert!(done < file.layout.blocks()),
        }
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(found.root(), Root(*blake3::hash(&content).as_bytes()));
    hashing.end();
    threads.into_iter().for_each(|thread| thread.join().expect("it ended"));
}

#[test]
fn a_file_that_changes_meanwhile_is_let_go_of() {
    let directory = tempfile::tempdir().expect("a directory");
    let hashing = Hashing::new(4, 1 << 20);
    let (_, file) = old(directory.path(), "f", 5 << 20);
    hashing.wanted(&file, &mut []);
    fs::write(directory.path().join("f"), bytes(5 << 20)).expect("it can be written");
    std::thread::scope(|scope| {
        scope.spawn(|| hashing.run());
        let begun = Instant::now();
        while !lock(&hashing.state).jobs.is_empty() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(1));
        }
        hashing.end();
    });
    assert_eq!(root(&hashing.known(&file)), None);
}

#[test]
fn no_more_files_wait_than_may() {
    let directory = tempfile::tempdir().expect("a directory");
    let hashing = Hashing::new(2, 1 << 20);
    for name in ["a", "b", "c"] {
        fs::write(directory.path().join(name), bytes(5 << 20)).expect("it can be written");
        assert!(matches!(hashing.wanted(&open(directory.path(), name), &mut []), Hashed::Part(0)));
    }
    assert_eq!(lock(&hashing.state).jobs.len(), 2);
}

#[test]
fn the_hashes_that_were_not_asked_for_longest_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut files = Vec::new();
    for name in ["a", "b", "c"] {
        fs::write(directory.path().join(name), name).expect("it can be written");
        let file = open(directory.path(), name);
        let hash = vec![hash_block(&file, 0, &mut [0; 64]).expect("it can be read")];
        let manifest = Manifest::of_hashes(file.layout, hash).expect("one block");
        files.push((file.identity, Arc::new(manifest)));
    }
    let mut cache = Cache::new(800);
    for (identity, manifest) in &files[..2] {
        cache.keep(*identity, Arc::clone(manifest));
    }
    assert!(cache.find(&files[0].0).is_some());
    cache.keep(files[2].0, Arc::clone(&files[2].1));
    let kept: Vec<bool> = files.iter().map(|(at, _)| cache.find(at).is_some()).collect();
    assert_eq!(kept, [true, false, true]);
    assert!(cache.bytes() <= 800);
    cache.keep(files[2].0, Arc::clone(&files[2].1));
    assert!(cache.find(&files[0].0).is_some(), "what is there is not counted twice");
}
