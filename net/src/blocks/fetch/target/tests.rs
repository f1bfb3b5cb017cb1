#![allow(clippy::single_range_in_vec_init, reason = "lists of runs, some of one")]

use super::*;

use cordee_core::blocks::BlockHasher;

const BLOCK: u32 = 1 << 10;

fn content(blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK as usize - 100).map(|at| (at * 7 + at / 300) as u8).collect()
}

fn manifest(bytes: &[u8]) -> Manifest {
    let layout = Layout::new(bytes.len() as u64, BLOCK).expect("a layout");
    let hashes = bytes.chunks(BLOCK as usize).zip(0..).map(|(bytes, block)| {
        let mut hasher = BlockHasher::new(&layout, block);
        hasher.update(bytes);
        hasher.finish()
    });
    Manifest::of_hashes(layout, hashes.collect()).expect("as many as blocks")
}

fn version(manifest: &Manifest) -> Version {
    Version { root: manifest.root(), layout: *manifest.layout(), verified: true }
}

fn stored(part: &mut Part, manifest: &Manifest, recheck: bool) -> Vec<Range<u64>> {
    let hashes = Some(manifest.hashes());
    let stored = part.stored(&version(manifest), hashes, recheck, |_| true).expect("no failure");
    stored.expect("not stopped").runs().collect()
}

/// Writes blocks as a fetch does.
fn write(part: &mut Part, bytes: &[u8], run: Range<u64>) {
    let range = run.start as usize * 1_024..(run.end as usize * 1_024).min(bytes.len());
    part.file().write_all_at(&bytes[range.clone()], range.start as u64).expect("written");
    part.record(std::iter::once(run), range.len() as u64, true).expect("recorded");
}

#[test]
fn a_fetch_goes_on_where_it_was_left_and_finishes() {
    let directory = tempfile::tempdir().expect("a directory");
    let target = directory.path().join("file");
    let bytes = content(20);
    let manifest = manifest(&bytes);
    let mut part = Part::open(&target).expect("opened");
    assert_eq!(stored(&mut part, &manifest, false), []);
    assert_eq!(part.file().metadata().expect("there").len(), bytes.len() as u64);
    write(&mut part, &bytes, 3..9);
    drop(part);
    let mut part = Part::open(&target).expect("opened");
    assert_eq!(stored(&mut part, &manifest, false), [3..9]);
    write(&mut part, &bytes, 0..3);
    write(&mut part, &bytes, 9..20);
    part.finish(true).expect("finished");
    assert_eq!(std::fs::read(&target).expect("there"), bytes);
    let left = std::fs::read_dir(directory.path()).expect("there").count();
    assert_eq!(left, 1, "only the file itself");
    let found = look_at(&target, Some(&manifest), None, |_| true).expect("read");
    assert_eq!(found, Found::Same);
}

#[test]
fn without_a_journal_the_part_is_hashed() {
    let directory = tempfile::tempdir().expect("a directory");
    let target = directory.path().join("file");
    let bytes = content(20);
    let manifest = manifest(&bytes);
    let mut part = Part::open(&target).expect("opened");
    stored(&mut part, &manifest, false);
    write(&mut part, &bytes, 3..9);
    part.leave(true).expect("left");
    std::fs::remove_file(directory.path().join("file.part.journal")).expect("there");
    let mut part = Part::open(&target).expect("opened");
    assert_eq!(stored(&mut part, &manifest, false), [3..9]);
}

#[test]
fn a_recheck_finds_what_changed_on_the_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let target = directory.path().join("file");
    let bytes = content(20);
    let manifest = manifest(&bytes);
    let mut part = Part::open(&target).expect("opened");
    stored(&mut part, &manifest, false);
    write(&mut part, &bytes, 3..9);
    part.file().write_all_at(b"x", 5 * 1_024 + 1).expect("written");
    drop(part);
    let mut part = Part::open(&target).expect("opened");
    assert_eq!(stored(&mut part, &manifest, false), [3..9], "the journal is trusted");
    drop(part);
    let mut part = Part::open(&target).expect("opened");
    assert_eq!(stored(&mut part, &manifest, true), [3..5, 6..9]);
}

#[test]
fn another_version_is_compared_block_by_block() {
    let directory = tempfile::tempdir().expect("a directory");
    let target = directory.path().join("file");
    let mut bytes = content(20);
    let mut part = Part::open(&target).expect("opened");
    stored(&mut part, &manifest(&bytes), false);
    write(&mut part, &bytes, 3..9);
    drop(part);
    bytes[4 * 1_024] ^= 1;
    bytes.truncate(12 * 1_024 + 7);
    let mut part = Part::open(&target).expect("opened");
    assert_eq!(stored(&mut part, &manifest(&bytes), false), [3..4, 5..9]);
    assert_eq!(part.file().metadata().expect("there").len(), bytes.len() as u64);
}

#[test]
fn two_do_not_write_to_one_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let target = directory.path().join("file");
    let part = Part::open(&target).expect("opened");
    let error = Part::open(&target).expect_err("it is locked");
    assert!(matches!(error, FetchError::Locked { .. }), "{error}");
    drop(part);
    Part::open(&target).expect("it is free again");
}

#[test]
fn what_was_not_begun_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let bytes = content(3);
    let mut part = Part::open(&directory.path().join("file")).expect("opened");
    stored(&mut part, &manifest(&bytes), false);
    part.leave(false).expect("left");
    assert_eq!(std::fs::read_dir(directory.path()).expect("there").count(), 0);
}

#[test]
fn another_file_at_the_target_is_told_from_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let target = directory.path().join("file");
    let mut bytes = content(5);
    let manifest = manifest(&bytes);
    let look = || look_at(&target, Some(&manifest), None, |_| true).expect("read");
    assert_eq!(look(), Found::Nothing);
    std::fs::write(&target, &bytes).expect("written");
    assert_eq!(look(), Found::Same);
    bytes[77] ^= 1;
    std::fs::write(&target, &bytes).expect("written");
    assert_eq!(look(), Found::Other);
    std::fs::write(&target, &bytes[1..]).expect("written");
    assert_eq!(look(), Found::Other);
}
