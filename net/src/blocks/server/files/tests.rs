//! On a real file system. What a fetcher sees of it, tricks and all, is tested on the real binary.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn directory() -> (tempfile::TempDir, Directory) {
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(temporary.path(), 1_024, 4, 1 << 20).expect("it is there");
    (temporary, directory)
}

fn write(temporary: &tempfile::TempDir, name: &str) {
    let path = temporary.path().join(name);
    fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
    fs::write(path, name).expect("it can be written");
}

fn names(directory: &Directory, name: &str, after: &str, count: usize) -> (Vec<String>, bool) {
    let listing = directory.list(name, after, count).expect("it can be listed");
    (listing.files.into_iter().map(|file| file.name).collect(), listing.more)
}

#[test]
fn without_the_kernels_help_names_are_resolved_part_by_part_over_no_link() {
    let (temporary, directory) = directory();
    write(&temporary, "a/b/f");
    symlink("f", temporary.path().join("a/b/link")).expect("a link");
    symlink("a", temporary.path().join("linked")).expect("a link");
    symlink("/etc", temporary.path().join("out")).expect("a link");
    assert!(directory.file("a/b/link").is_ok(), "the kernel sees that it stays inside");
    directory.beneath.store(false, Ordering::Relaxed);
    assert!(directory.file("a/b/f").is_ok());
    for name in ["a/b/link", "linked/b/f", "out/passwd", "a/x", "a/b/f/g", "a/../a/b/f"] {
        assert!(directory.file(name).is_err(), "{name}");
    }
    let refused = directory.file("a/b").expect_err("a directory");
    assert_eq!(refused.reason, Reason::FileIsDirectory);
}

#[test]
fn no_more_files_are_open_than_may_be() {
    let (temporary, directory) = directory();
    write(&temporary, "f");
    let mut open: Vec<OpenFile> =
        (0..4).map(|_| directory.file("f").expect("there is room")).collect();
    let refused = directory.file("f").expect_err("there is no room");
    assert_eq!(refused.reason, Reason::Busy);
    assert_eq!(directory.file("g").expect_err("nor for that").reason, Reason::Busy);
    open.pop();
    assert_eq!(directory.file("g").expect_err("not there").reason, Reason::FileUnknown);
    assert!(directory.file("f").is_ok(), "a file that was not opened takes no room");
}

#[test]
fn a_version_is_known_by_size_and_times() {
    let (temporary, directory) = directory();
    write(&temporary, "f");
    let file = directory.file("f").expect("it is there");
    assert!(file.is_unchanged());
    let path = temporary.path().join("f");
    fs::write(&path, "another length").expect("it can be written");
    assert!(!file.is_unchanged());
    let file = directory.file("f").expect("it is there");
    // The same length, and the time of before: what changed it is still seen.
    let time = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a time");
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(&path, "another lengtH").expect("it can be written");
    let handle = fs::File::options().write(true).open(&path).expect("it is there");
    handle.set_modified(time).expect("it is ours");
    assert!(!file.is_unchanged());
}

#[test]
fn pages_follow_each_other_without_gap_or_repetition() {
    let (temporary, directory) = directory();
    for name in ["b", "a/2", "a/1", "a-", "a/1.d/x", "a0", "c/d/e/f", "a/.h/x", "z.part"] {
        write(&temporary, name);
    }
    let all = ["a-", "a/1", "a/1.d/x", "a/2", "a0", "b", "c/d/e/f"];
    assert_eq!(names(&directory, "", "", 100), (all.map(str::to_owned).to_vec(), false));
    for count in 1..all.len() {
        let (mut got, mut after) = (Vec::new(), String::new());
        loop {
            let (page, more) = names(&directory, "", &after, count);
            got.extend(page);
            after.clone_from(got.last().expect("a page is not empty"));
            if !more {
                break;
            }
        }
        assert_eq!(got, all, "pages of {count}");
    }
    // Also after a name that is gone, or was never there.
    assert_eq!(names(&directory, "", "a/1.x", 1), (vec!["a/2".to_owned()], true));
    assert_eq!(names(&directory, "a", "a/1", 9).0, ["a/1.d/x", "a/2"]);
    assert_eq!(names(&directory, "", "zz", 9), (Vec::new(), false));
    assert_eq!(directory.count(), 7);
}

#[test]
fn a_level_has_directories_and_files() {
    let (temporary, directory) = directory();
    for name in ["f", "d/1", "d/e/2", "g"] {
        write(&temporary, name);
    }
    let level = |name: &str, after: &str| -> Vec<String> {
        let listing = directory.list_level(name, after, 9).expect("it can be listed");
        listing.files.into_iter().map(|file| file.name).collect()
    };
    assert_eq!(level("", ""), ["d/", "f", "g"]);
    assert_eq!(level("d", ""), ["d/1", "d/e/"]);
    assert_eq!(level("", "d/"), ["f", "g"]);
}

#[test]
fn no_more_entries_are_looked_at_than_may_be() {
    let temporary = tempfile::tempdir().expect("a directory");
    for number in 0..50 {
        write(&temporary, &format!("{number:02}"));
    }
    let directory = Directory::open(temporary.path(), 1_024, 4, 20).expect("it is there");
    assert!(directory.count() <= 20);
    assert!(names(&directory, "", "", 100).0.len() <= 20);
}
