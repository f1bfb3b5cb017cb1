//! Fetching from many sources, of which some are no good: the right file comes all the same, and
//! whoever was no good is named.

mod common;

use std::path::Path;

use common::block_server::{Server, content};
use common::fetching::{Fetched, fetch};
use common::sources::{Manner, Source, hash};

const BLOCK: u32 = 64 << 10;

fn bytes() -> Vec<u8> {
    content(5_000_011)
}

/// Fetches `film` from sources of these manners into a directory of its own, and looks whether it is
/// the right one.
fn fetch_from(manners: &[Manner], args: &[&str]) -> Fetched {
    let bytes = bytes();
    let directory = tempfile::tempdir().expect("a directory");
    let sources: Vec<Source> =
        manners.iter().map(|manner| Source::start(*manner, &bytes, BLOCK)).collect();
    let addresses: Vec<&str> = sources.iter().map(|source| source.address.as_str()).collect();
    let hash = hash(&bytes);
    let mut all = vec!["--hash", &hash];
    all.extend_from_slice(args);
    let fetched = fetch(directory.path(), "film", &addresses, &all);
    let done = fetched.done();
    assert_eq!((done["hash"].as_str(), &done["verified"]), (Some(hash.as_str()), &true.into()));
    assert_eq!(done["bytes"], bytes.len());
    is_there(directory.path(), "film", &bytes);
    fetched
}

fn is_there(directory: &Path, name: &str, bytes: &[u8]) {
    let there = std::fs::read(directory.join(name)).expect("the file is there");
    assert!(there == bytes, "the file is another one");
    let left: Vec<_> = std::fs::read_dir(directory)
        .expect("it is there")
        .map(|entry| entry.expect("readable").file_name())
        .filter(|name| name.to_string_lossy().contains(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?} is left");
}

#[test]
fn one_good_source_is_enough_beside_each_kind_of_bad_one() {
    for (manner, fault) in [
        (Manner::Absent, Some("unreachable")),
        (Manner::Silent, None),
        (Manner::Closes, Some("ended")),
        (Manner::Garbage, Some("garbage")),
        (Manner::WrongBytes, Some("corrupt")),
        (Manner::WrongManifest, None),
        (Manner::OtherVersion, Some("other_version")),
        (Manner::Dies(100_000), Some("ended")),
        (Manner::Slow(100_000), None),
    ] {
        // Slow enough that the other one is asked for something, too.
        let good = Manner::Slow(10_000_000);
        for manners in [[good, manner], [manner, good]] {
            let fetched = fetch_from(&manners, &[]);
            let bad = usize::from(manners[0] == good);
            if let Some(fault) = fault {
                let faults = fetched.faults(bad);
                assert!(faults.iter().any(|word| word == fault), "{manner:?}: {fetched:?}");
            }
            assert_eq!(fetched.faults(1 - bad), Vec::<String>::new(), "{manner:?}");
        }
    }
}

#[test]
fn every_mix_with_a_good_source_brings_the_right_file() {
    let bad = [
        Manner::Absent,
        Manner::WrongBytes,
        Manner::Garbage,
        Manner::Dies(200_000),
        Manner::Closes,
        Manner::OtherVersion,
        Manner::Silent,
    ];
    for count in 2..=8_usize {
        // The good one is at another place each time.
        let mut manners = bad[..count - 1].to_vec();
        manners.insert(count * 5 % count.max(3).min(count), Manner::Good);
        fetch_from(&manners, &[]);
    }
}

#[test]
fn without_a_hash_most_sources_decide_and_the_others_are_named() {
    let bytes = bytes();
    let directory = tempfile::tempdir().expect("a directory");
    let manners = [Manner::OtherVersion, Manner::Good, Manner::Good];
    let sources = manners.map(|manner| Source::start(manner, &bytes, BLOCK));
    let addresses = sources.each_ref().map(|source| source.address.as_str());
    let fetched = fetch(directory.path(), "film", &addresses, &[]);
    fetched.done();
    is_there(directory.path(), "film", &bytes);
    assert_eq!(fetched.faults(0), ["other_version"]);
    let notes = fetched.notes();
    assert!(notes.contains(addresses[0]) && notes.contains("another version"), "{notes}");
}

#[test]
fn a_lone_answer_is_used_with_a_warning() {
    let bytes = bytes();
    let directory = tempfile::tempdir().expect("a directory");
    let source = Source::start(Manner::Good, &bytes, BLOCK);
    let fetched = fetch(directory.path(), "film", &[&source.address], &[]);
    fetched.done();
    assert!(fetched.notes().contains("warning: only "), "{}", fetched.notes());
}

#[test]
fn a_source_that_lies_about_the_hashes_is_named_and_the_next_is_asked() {
    let bytes = bytes();
    let directory = tempfile::tempdir().expect("a directory");
    let manners = [Manner::WrongManifest, Manner::Good];
    let sources = manners.map(|manner| Source::start(manner, &bytes, BLOCK));
    let addresses = sources.each_ref().map(|source| source.address.as_str());
    let fetched = fetch(directory.path(), "film", &addresses, &[]);
    fetched.done();
    is_there(directory.path(), "film", &bytes);
    assert!(fetched.faults(0).contains(&"corrupt".to_owned()), "{fetched:?}");
    assert!(fetched.notes().contains(&format!("{} lies", addresses[0])), "{fetched:?}");
}

#[test]
fn a_wrong_hash_refuses_every_source() {
    let bytes = bytes();
    let directory = tempfile::tempdir().expect("a directory");
    let sources = [0, 1].map(|_| Source::start(Manner::Good, &bytes, BLOCK));
    let addresses = sources.each_ref().map(|source| source.address.as_str());
    let wrong = hash(b"something else");
    let fetched = fetch(directory.path(), "film", &addresses, &["--hash", &wrong]);
    assert!(fetched.why().contains(&wrong), "{}", fetched.why());
    assert_eq!(
        (fetched.faults(0), fetched.faults(1)),
        (vec!["other_version".to_owned()], vec!["other_version".to_owned()])
    );
    assert_eq!(std::fs::read_dir(directory.path()).expect("there").count(), 0);
}

#[test]
fn when_no_source_is_good_each_is_named_with_its_fault() {
    let bytes = bytes();
    let directory = tempfile::tempdir().expect("a directory");
    let manners = [Manner::Absent, Manner::Garbage, Manner::WrongBytes];
    let sources = manners.map(|manner| Source::start(manner, &bytes, BLOCK));
    let addresses = sources.each_ref().map(|source| source.address.as_str());
    let fetched = fetch(directory.path(), "film", &addresses, &["--timeout", "2"]);
    assert!(fetched.why().contains("film"), "{}", fetched.why());
    for (at, fault) in ["unreachable", "garbage", "corrupt"].iter().enumerate() {
        assert!(fetched.faults(at).contains(&(*fault).to_owned()), "{at}: {fetched:?}");
    }
    assert!(!directory.path().join("film").exists());
}

#[test]
fn every_way_of_fetching_brings_the_same_file() {
    for args in [
        &["--connections", "3"][..],
        &["--connection-per-block"],
        &["--sequential"],
        &["--limit-rate", "50M"],
    ] {
        fetch_from(&[Manner::Good, Manner::Good], args);
    }
}

#[test]
fn what_is_not_verified_says_so() {
    let bytes = bytes();
    let directory = tempfile::tempdir().expect("a directory");
    let served = tempfile::tempdir().expect("a directory");
    std::fs::write(served.path().join("film"), &bytes).expect("written");
    let server = Server::start(served.path(), &[]);
    let fetched = fetch(directory.path(), "film", &[&server.address], &["--verify", "none"]);
    assert_eq!(fetched.done()["verified"], false);
    is_there(directory.path(), "film", &bytes);
    // That the right version was asked for proves nothing of the bytes.
    let args = ["--verify", "none", "--hash", &hash(&bytes), "--force"];
    let fetched = fetch(directory.path(), "film", &[&server.address], &args);
    assert!(fetched.done()["hash"].is_null(), "{fetched:?}");
}

#[test]
fn web_servers_are_verified_by_the_hashes_of_block_servers() {
    let bytes = bytes();
    let served = tempfile::tempdir().expect("a directory");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(served.path().join("film ü.mp4"), &bytes).expect("written");
    let servers = [0, 1].map(|_| Server::start(served.path(), &["--limit-rate", "20M"]));
    let web = format!("http://{}/", servers[1].address);
    let fetched = fetch(directory.path(), "film ü.mp4", &[&servers[0].address, &web], &[]);
    let done = fetched.done();
    assert_eq!(
        (done["verified"].as_bool(), done["hash"].as_str()),
        (Some(true), Some(&*hash(&bytes)))
    );
    let from_web = done["sources"][1]["bytes"].as_u64().expect("a number");
    assert!(from_web > 0, "{fetched:?}");
    is_there(directory.path(), "film ü.mp4", &bytes);
}

#[test]
fn web_servers_alone_are_verified_by_the_hash_or_not_at_all() {
    let bytes = bytes();
    let served = tempfile::tempdir().expect("a directory");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(served.path().join("film"), &bytes).expect("written");
    let server = Server::start(served.path(), &[]);
    let web = format!("http://{}/film", server.address);
    let right = hash(&bytes);
    for (output, args, verified) in [("a", &[][..], false), ("b", &["--hash", &right][..], true)] {
        let fetched = fetch(directory.path(), "film", &[&web], &[args, &["-o", output]].concat());
        let done = fetched.done();
        assert_eq!((&done["verified"], &done["hash"]), (&verified.into(), &right.clone().into()));
        is_there(directory.path(), output, &bytes);
    }
    let wrong = hash(b"something else");
    let fetched = fetch(directory.path(), "film", &[&web], &["--hash", &wrong, "-o", "c"]);
    assert!(fetched.why().contains(&wrong), "{}", fetched.why());
    assert!(!directory.path().join("c").exists());
}

#[test]
fn a_block_server_gives_what_its_plain_face_says() {
    let bytes = bytes();
    let served = tempfile::tempdir().expect("a directory");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(served.path().join("film"), &bytes).expect("written");
    let server = Server::start(served.path(), &[]);
    let output = common::cordee()
        .current_dir(directory.path())
        .args(["fetch", "film", "--from", &server.address])
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", common::text(&output.stderr));
    assert_eq!(common::text(&output.stdout), format!("{}  film\n", hash(&bytes)));
    assert!(common::text(&output.stderr).contains("verified"));
    is_there(directory.path(), "film", &bytes);
}
