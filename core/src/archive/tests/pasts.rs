//! Pasts: starts of a server that ended and of which nothing is in memory stand together.

use super::*;
use crate::wire::entry::Portable;

fn start(server: u64, incarnation: u32) -> Origin {
    Origin { server: ServerId(server), incarnation, nonce: 7 }
}

/// A message of an author who says nothing else, in the room of all.
fn say(archive: &mut Archive, origin: Origin, after: &[Origin], author: usize) -> EntryId {
    let (reference, _) = archive.define_origin(origin).expect("place");
    let after: Vec<_> =
        after.iter().map(|other| (archive.define_origin(*other).expect("place").0, 1)).collect();
    let number = archive.shown(reference) + 1;
    archive
        .insert(&NewEntry {
            origin: reference,
            number,
            clock: Clock(1_000 + author as u64),
            author: author_value(author),
            author_number: 1,
            name: "someone",
            scope: scope_value(0),
            after: &after,
            body: "hello",
            tag: Tag::default(),
        })
        .id
}

/// Folds all starts of a server that are spent, in their order.
fn fold(archive: &mut Archive, server: u64) -> usize {
    let mut spent: Vec<_> =
        archive.origins().filter(|(_, origin)| origin.server == ServerId(server)).collect();
    spent.sort_by_key(|(_, origin)| *origin);
    let spent = spent.into_iter().take_while(|(reference, _)| archive.is_spent(*reference));
    let spent: Vec<_> = spent.collect();
    for (reference, _) in &spent {
        assert!(archive.fold(*reference));
        archive.reuse(*reference);
        archive.check();
    }
    spent.len()
}

fn adopt(archive: &mut Archive, other: &Archive) -> Adopted {
    let mut floor = other.floor();
    for origin in &mut floor.origins {
        origin.origin = archive.define_origin(other.origin(origin.origin)).expect("place").0;
    }
    for rows in floor.origins.iter_mut().map(|origin| &mut origin.rows) {
        rows.iter_mut().for_each(|(scope, _)| *scope = archive.scope(&scope_value(0)));
    }
    for rows in floor.pasts.iter_mut().map(|past| &mut past.rows) {
        rows.iter_mut().for_each(|(scope, _)| *scope = archive.scope(&scope_value(0)));
    }
    assert!(floor.is_believable());
    let adopted = archive.adopt_floor(&floor);
    archive.check();
    adopted
}

fn assert_alike(a: &Archive, b: &Archive) {
    a.check();
    b.check();
    assert_eq!((a.rows(), a.vector_hash()), (b.rows(), b.vector_hash()));
    assert_eq!(a.digest(&[]), b.digest(&[]));
}

#[test]
fn starts_that_were_trimmed_take_no_place_and_count_as_before() {
    let mut whole = Archive::new(1 << 20, 4_096, 4_096);
    let mut small = Archive::new(1 << 20, 8, 4_096);
    for at in 0..2_000 {
        let origin = start(1 + at as u64 % 2, at);
        say(&mut whole, origin, &[], at as usize);
        let last = say(&mut small, origin, &[], at as usize);
        if at % 3 == 2 {
            small.trim_through(last);
            assert_eq!(fold(&mut small, 1) + fold(&mut small, 2), 3);
        }
        assert!(small.places_left() > 4);
    }
    assert_alike(&small, &whole);
    assert_eq!((small.rows(), small.pasts().count()), (2_000, 2));
    for (through, sums) in small.pasts() {
        assert_eq!(whole.compare_past(through, sums), PastOrder::Equal, "in another form");
    }
    // Whoever said the first message says it again: it is known.
    let late = start(9, 1);
    let id = say(&mut small, late, &[], 0);
    assert!(small.is_copy(id) && small.rows() == 2_000);
    small.check();
}

#[test]
fn an_origin_that_entries_name_keeps_its_place() {
    let mut archive = Archive::new(1 << 20, 8, 8);
    let first = say(&mut archive, start(1, 1), &[], 0);
    let second = say(&mut archive, start(2, 1), &[start(1, 1), start(3, 1)], 1);
    archive.trim_through(first);
    assert_eq!((fold(&mut archive, 1), fold(&mut archive, 3)), (0, 0), "they are named");
    let mut portable = Vec::new();
    archive.put_portable(second, &mut portable);
    let named = Portable::take(&mut Reader::new(&portable)).expect("valid").after;
    assert_eq!(named.iter().next(), Some((start(1, 1), 1)));
    archive.trim_through(second);
    assert_eq!((fold(&mut archive, 1), fold(&mut archive, 3), fold(&mut archive, 2)), (1, 1, 1));
    assert_eq!(archive.places_left(), 8);
    assert_eq!(archive.pasts().count(), 2, "one without entries leaves nothing");
}

#[test]
fn a_newcomer_adopts_pasts_and_others_add_up_the_same() {
    let mut old = Archive::new(1 << 20, 8, 100);
    let mut newcomer = Archive::new(1 << 20, 8, 100);
    for at in 0..20 {
        let last = say(&mut old, start(1, at), &[], at as usize);
        if at < 15 {
            old.trim_through(last);
            fold(&mut old, 1);
        }
    }
    let (through, sums) = old.pasts().next().expect("a past");
    assert_eq!(newcomer.compare_past(through, sums), PastOrder::Greater);
    let adopted = adopt(&mut newcomer, &old);
    assert_eq!(adopted.raised.len(), 1);
    assert!(adopted.orphans.is_empty());
    assert_eq!(newcomer.compare_past(through, sums), PastOrder::Equal);
    assert_eq!(newcomer.rows(), 15);
    assert!(newcomer.is_past(&start(1, 14)) && !newcomer.is_past(&start(1, 15)));
    for at in 15..20 {
        say(&mut newcomer, start(1, at), &[], at as usize);
    }
    assert_alike(&newcomer, &old);
    assert_eq!(adopt(&mut newcomer, &old), Adopted::default(), "nothing is lacking");
}

#[test]
fn what_was_here_alone_is_given_back_when_a_past_is_adopted() {
    let mut many = Archive::new(1 << 20, 16, 100);
    for at in 0..10 {
        say(&mut many, start(1, at), &[], at as usize);
    }
    let last = say(&mut many, start(1, 10), &[], 10);
    many.trim_through(last);
    fold(&mut many, 1);
    // Some of that, and a start that nobody heard of with a message of its own.
    let mut away = Archive::new(1 << 20, 16, 100);
    say(&mut away, start(1, 3), &[], 3);
    let mut alone = start(1, 3);
    alone.nonce = 8;
    say(&mut away, alone, &[], 50);
    let adopted = adopt(&mut away, &many);
    let authors = adopted.orphans.iter().map(|orphan| {
        let entry = Portable::take(&mut Reader::new(orphan)).expect("valid");
        (entry.origin, entry.author)
    });
    assert_eq!(authors.collect::<Vec<_>>(), [(alone, author_value(50))]);
    assert_alike(&away, &many);
    // Each says it anew, as its own.
    say(&mut away, start(2, 1), &[], 50);
    say(&mut many, start(2, 1), &[], 50);
    assert_alike(&away, &many);
}

#[test]
fn of_two_pasts_the_later_stays_and_of_equally_late_ones_the_greater() {
    let past_of = |authors: core::ops::Range<usize>| {
        let mut archive = Archive::new(1 << 20, 8, 100);
        let mut last = None;
        for author in authors {
            last = Some(say(&mut archive, start(1, 5), &[], author));
        }
        archive.trim_through(last.expect("some"));
        fold(&mut archive, 1);
        archive
    };
    let (mut a, mut b) = (past_of(0..3), past_of(10..12));
    let order = |a: &Archive, b: &Archive| {
        let (through, sums) = b.pasts().next().expect("a past");
        a.compare_past(through, sums)
    };
    let first = order(&a, &b);
    assert_ne!(first, PastOrder::Equal);
    assert_ne!(first, order(&b, &a), "both say the same");
    let (lesser, greater) = if first == PastOrder::Greater { (&mut a, &b) } else { (&mut b, &a) };
    adopt(lesser, greater);
    assert_alike(lesser, greater);
}

#[test]
fn a_catch_up_goes_on_when_a_place_is_given_up_and_taken_by_another() {
    let mut archive = Archive::new(1 << 20, 3, 100);
    for author in 0..4 {
        say(&mut archive, start(1, 1), &[], author);
    }
    for author in 4..8 {
        say(&mut archive, start(2, 1), &[], author);
    }
    let scope = archive.find_scope(&scope_value(0)).expect("known");
    let mut catch_up = CatchUp::new(&[scope], Vec::new(), vec![4, 4]);
    assert!(catch_up.next(&archive).is_some());
    let origin = archive.find_origin(&start(1, 1)).expect("known");
    archive.trim_through(archive.last_id(origin).expect("some"));
    assert!(archive.fold(origin));
    catch_up.drop_origin(origin);
    archive.reuse(origin);
    // Its successor takes the place of a reference that the catch-up knew.
    say(&mut archive, start(3, 1), &[], 20);
    say(&mut archive, start(4, 1), &[], 21);
    let rest: Vec<_> = core::iter::from_fn(|| catch_up.next(&archive)).collect();
    let authors: Vec<_> =
        rest.iter().map(|id| archive.entry(*id, Clock(0)).author.session.0).collect();
    assert_eq!(authors, [4, 5, 6, 7]);
}
