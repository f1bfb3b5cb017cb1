#![allow(clippy::single_range_in_vec_init, reason = "lists of runs, some of one")]

use super::*;

fn identity() -> Identity {
    let layout = Layout::new(100 << 10, 1 << 10).expect("a layout");
    Identity { root: Root([7; 32]), layout, verified: true, inode: 11, boot: [1; 16] }
}

fn rebooted() -> Identity {
    Identity { boot: [2; 16], ..identity() }
}

/// A journal of three records, a marker behind the first two of them.
fn written() -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    let none = BlockSet::new(100);
    let mut journal = Journal::create(&path, &identity(), &none, &none).expect("created");
    journal.append([0..4, 10..11].into_iter()).expect("appended");
    let covered = journal.len();
    journal.mark(covered).expect("marked");
    journal.append(std::iter::once(50..60)).expect("appended");
    let bytes = std::fs::read(&path).expect("read");
    assert_eq!(bytes.len() as u64, journal.len());
    bytes
}

fn runs(set: &BlockSet) -> Vec<Range<u64>> {
    set.runs().collect()
}

#[test]
fn on_the_same_boot_every_record_is_trusted() {
    let loaded = parse(&written(), &identity()).expect("of this file");
    assert_eq!(runs(&loaded.trusted), [0..4, 10..11, 50..60]);
    assert_eq!(runs(&loaded.synced), [0..4, 10..11]);
    assert!(!loaded.more);
}

#[test]
fn after_another_boot_only_what_a_marker_covers() {
    let loaded = parse(&written(), &rebooted()).expect("of this file");
    assert_eq!(runs(&loaded.trusted), [0..4, 10..11]);
    assert!(loaded.more, "the rest is to be hashed");
}

#[test]
fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let bytes = written();
    for len in HEADER_BYTES..=bytes.len() {
        let loaded = parse(&bytes[..len], &identity()).expect("of this file");
        let whole = (len - HEADER_BYTES) / RECORD_BYTES;
        let expected: &[Range<u64>] = match whole {
            0 => &[],
            1 => &[0..4],
            2 | 3 => &[0..4, 10..11],
            _ => &[0..4, 10..11, 50..60],
        };
        assert_eq!(runs(&loaded.trusted), expected, "{len} bytes");
        assert!(!loaded.more, "nothing but the tail is lost at {len} bytes");
    }
    for len in 0..HEADER_BYTES {
        assert!(parse(&bytes[..len], &identity()).is_none(), "{len} bytes");
    }
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let good = written();
    let all = [0..4, 10..11, 50..60];
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match parse(&bytes, &identity()) {
            // Damage in the header: of the boot id it looks like another boot, of the rest like
            // another file. Its checksum tells both.
            None => assert!(bit / 8 < HEADER_BYTES, "bit {bit}"),
            Some(loaded) => {
                let record = (bit / 8 - HEADER_BYTES) / RECORD_BYTES;
                let trusted = runs(&loaded.trusted);
                assert!(trusted.iter().all(|run| all.contains(run)), "bit {bit}: {trusted:?}");
                assert_eq!(loaded.more, record < 3, "bit {bit}");
                if record != 2 {
                    assert!(trusted.len() == 2, "bit {bit}: one record is not taken");
                }
            }
        }
    }
}

#[test]
fn a_journal_of_something_else_says_nothing() {
    let bytes = written();
    let own = identity();
    let others = [
        Identity { root: Root([8; 32]), ..own },
        Identity { layout: Layout::new(100 << 10, 2 << 10).expect("a layout"), ..own },
        Identity { layout: Layout::new((100 << 10) - 1, 1 << 10).expect("a layout"), ..own },
        Identity { verified: false, ..own },
        Identity { inode: 12, ..own },
    ];
    for other in others {
        assert!(parse(&bytes, &other).is_none(), "{other:?}");
    }
}

#[test]
fn a_record_that_was_moved_is_not_taken() {
    let mut bytes = written();
    let moved = bytes[HEADER_BYTES..HEADER_BYTES + RECORD_BYTES].to_vec();
    bytes.extend_from_slice(&moved);
    let last = bytes.len() - 2 * RECORD_BYTES..bytes.len() - RECORD_BYTES;
    bytes.copy_within(HEADER_BYTES..HEADER_BYTES + RECORD_BYTES, last.start);
    let loaded = parse(&bytes, &identity()).expect("of this file");
    assert_eq!(runs(&loaded.trusted), [0..4, 10..11]);
}

#[test]
fn a_journal_that_is_written_anew_says_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    let (mut stored, mut synced) = (BlockSet::new(100), BlockSet::new(100));
    stored.insert_range(3..9);
    stored.insert_range(20..30);
    synced.insert_range(4..6);
    drop(Journal::create(&path, &identity(), &stored, &synced).expect("created"));
    let loaded = load(&path, &identity()).expect("read").expect("of this file");
    assert_eq!((&loaded.trusted, &loaded.synced, loaded.more), (&stored, &synced, false));
    let after = load(&path, &rebooted()).expect("read").expect("of this file");
    assert_eq!(after.trusted, synced);
}

#[test]
fn blocks_beyond_the_file_are_not_believed() {
    let mut bytes = header(&identity());
    put_record(&mut bytes, 0, KIND_STORED, 5, 96);
    put_record(&mut bytes, 0, KIND_STORED, u32::MAX, u64::MAX);
    put_record(&mut bytes, 0, KIND_STORED, 5, 95);
    let loaded = parse(&bytes, &identity()).expect("of this file");
    assert_eq!(runs(&loaded.trusted), [95..100]);
    assert!(loaded.more);
}
