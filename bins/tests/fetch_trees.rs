//! Fetching all files below a directory, from servers that may be hostile.

mod common;

use std::path::Path;

use common::block_server::{Server, content};
use common::fetching::fetch;
use common::sources::{Manner, Source};

const BLOCK: u32 = 64 << 10;

#[test]
fn a_directory_comes_with_all_that_is_below_it() {
    let served = tempfile::tempdir().expect("a directory");
    let directory = tempfile::tempdir().expect("a directory");
    let mut files = Vec::new();
    for at in 0..400_usize {
        let name = format!("music/{}/{at} ü 日本語 song.ogg", ["a b", "ж", "c/d"][at % 3]);
        files.push((name, content(at * 97)));
    }
    files.push(("music/long".to_owned(), content(3_000_000)));
    for (name, bytes) in &files {
        let path = served.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }
    std::fs::write(served.path().join("other"), "not below it").expect("written");
    let servers = [0, 1].map(|_| Server::start(served.path(), &[]));
    let addresses = servers.each_ref().map(|server| server.address.as_str());
    let fetched = fetch(directory.path(), "music", &addresses, &[]);
    let done = fetched.done();
    assert_eq!((&done["files"], &done["verified"]), (&files.len().into(), &true.into()));
    for (name, bytes) in &files {
        assert!(&std::fs::read(directory.path().join(name)).expect(name) == bytes, "{name}");
    }
    assert!(!directory.path().join("other").exists());
    assert!(!has_unfinished(directory.path()));
    // A second time everything is there.
    let again = fetch(directory.path(), "music", &addresses, &[]);
    assert_eq!((&again.done()["files"], again.received()), (&files.len().into(), 0));
}

#[test]
fn names_that_lead_elsewhere_are_refused_and_the_others_fetched() {
    let outside = tempfile::tempdir().expect("a directory");
    let directory = outside.path().join("deep/er");
    std::fs::create_dir_all(directory.join("d")).expect("made");
    let elsewhere = outside.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("made");
    std::os::unix::fs::symlink(&elsewhere, directory.join("d/link")).expect("made");
    let mut names: Vec<String> = [
        "/etc/cordee-test",
        "d/../../up",
        "d/.hidden/x",
        "d/good",
        "d/link/x",
        "d/nul\0x",
        "d//empty",
        "other/x",
    ]
    .map(str::to_owned)
    .to_vec();
    names.sort();
    let bytes = content(70_000);
    let source = Source::start_with(Manner::Good, &bytes, BLOCK, names.clone());
    let fetched = fetch(&directory, "d", &[&source.address], &[]);
    assert!(fetched.why().starts_with("7 of 8 files"), "{fetched:?}");
    let missing = fetched.last()["files"].as_array().expect("a list");
    for name in names.iter().filter(|name| *name != "d/good") {
        let file = missing.iter().find(|file| file["name"] == **name);
        let why = file.unwrap_or_else(|| panic!("{name} is not named"))["why"].as_str();
        assert!(why.expect("text").starts_with("refused: "), "{name}: {why:?}");
    }
    assert!(std::fs::read(directory.join("d/good")).expect("it is there") == bytes);
    assert_eq!(std::fs::read_dir(&elsewhere).expect("there").count(), 0);
    assert!(!outside.path().join("up").exists() && !outside.path().join("deep/up").exists());
}

#[test]
fn a_directory_has_no_hash() {
    let served = tempfile::tempdir().expect("a directory");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(served.path().join("d")).expect("made");
    std::fs::write(served.path().join("d/x"), "x").expect("written");
    let server = Server::start(served.path(), &[]);
    let hash = common::sources::hash(b"x");
    let fetched = fetch(directory.path(), "d", &[&server.address], &["--hash", &hash]);
    assert!(fetched.why().contains("is a directory"), "{fetched:?}");
}

#[test]
fn names_that_no_server_gives_are_unknown_or_forbidden() {
    let served = tempfile::tempdir().expect("a directory");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(served.path().join("x"), "x").expect("written");
    let server = Server::start(served.path(), &[]);
    for (name, fault) in [("y", "unknown"), ("../x", "forbidden"), (".hidden", "forbidden")] {
        let fetched = fetch(directory.path(), name, &[&server.address], &["-o", "got"]);
        fetched.why();
        assert_eq!(fetched.faults(0), [fault], "{name}: {fetched:?}");
    }
}

fn has_unfinished(directory: &Path) -> bool {
    std::fs::read_dir(directory).expect("there").any(|entry| {
        let path = entry.expect("readable").path();
        path.to_string_lossy().contains(".part") || path.is_dir() && has_unfinished(&path)
    })
}

#[test]
fn many_small_files_keep_to_the_rate() {
    let served = tempfile::tempdir().expect("a directory");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(served.path().join("many")).expect("made");
    for at in 0..10 {
        let path = served.path().join(format!("many/{at}"));
        std::fs::write(path, content(100_000)).expect("written");
    }
    let server = Server::start(served.path(), &[]);
    let args = ["--limit-rate", "500K"];
    let fetched = fetch(directory.path(), "many", &[&server.address], &args);
    let seconds = fetched.done()["seconds"].as_f64().expect("a number");
    // It cannot be faster but for the last file; how much slower it is depends on the machine.
    assert!(seconds > 1.6, "{seconds} s");
}
