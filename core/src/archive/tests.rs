//! The archive against a model that sorts everything anew for each question.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use arbtest::arbitrary::{Result, Unstructured};

use super::*;
use crate::ids::ServerId;
use crate::wire::entry::Portable;
use crate::wire::{Field, Reader};

mod floors;
mod pasts;

/// An entry as the cluster knows it: origins and scopes by value.
#[derive(Clone, Debug)]
struct Fact {
    origin: usize,
    number: u64,
    clock: u64,
    author: usize,
    author_number: u64,
    scope: usize,
    body: String,
}

const ROOMS: [&str; 2] = ["#all", "#ops"];

fn scope_value(scope: usize) -> Scope<'static> {
    match ROOMS.get(scope) {
        Some(room) => Scope::Room(room),
        None => Scope::talk(SessionId(9), SessionId(scope as u64), "other"),
    }
}

fn origin_value(origin: usize) -> Origin {
    // Not ascending, so that references and values are in different orders.
    Origin { server: ServerId([5, 3, 8, 1][origin]), incarnation: 1, nonce: origin as u64 }
}

fn author_value(author: usize) -> AuthorId {
    AuthorId { session: SessionId(author as u64), process: 7 }
}

/// An archive of facts, and what was put into it.
struct World {
    archive: Archive,
    facts: Vec<(Fact, EntryId)>,
}

impl World {
    fn new(archive: Archive) -> Self {
        World { archive, facts: Vec::new() }
    }

    fn insert(&mut self, fact: &Fact) -> Inserted {
        let archive = &mut self.archive;
        let (origin, _) = archive.define_origin(origin_value(fact.origin)).expect("few");
        let others = (0..fact.origin).map(origin_value);
        let after: Vec<_> = others
            .map(|other| (archive.define_origin(other).expect("few").0, fact.clock))
            .collect();
        let inserted = archive.insert(&NewEntry {
            origin,
            number: fact.number,
            clock: Clock(fact.clock),
            author: author_value(fact.author),
            author_number: fact.author_number,
            name: "someone",
            scope: scope_value(fact.scope),
            after: &after,
            body: &fact.body,
            tag: Tag([fact.clock as u8; 16]),
        });
        self.facts.push((fact.clone(), inserted.id));
        assert_eq!(archive.scope_of(inserted.id), inserted.scope);
        assert_eq!(archive.index(inserted.id), inserted.index);
        assert_eq!(archive.is_copy(inserted.id), inserted.copy && !inserted.moved);
        inserted
    }

    fn insert_all<'a>(&mut self, facts: impl IntoIterator<Item = &'a Fact>) {
        for fact in facts {
            self.insert(fact);
        }
    }

    fn vector(&self) -> Vec<u64> {
        self.archive.origins().map(|(origin, _)| self.archive.shown(origin)).collect()
    }

    /// Rows in canonical order among the entries within a vector.
    fn rows_within(&self, until: &[u64]) -> Vec<&(Fact, EntryId)> {
        let within = |fact: &Fact| {
            let origin = self.archive.find_origin(&origin_value(fact.origin)).expect("defined");
            until.get(origin.0 as usize).is_some_and(|last| fact.number <= *last)
        };
        let mut sorted: Vec<_> = self.facts.iter().filter(|(fact, _)| within(fact)).collect();
        sorted.sort_by_key(|(fact, _)| (fact.clock, origin_value(fact.origin), fact.number));
        let mut met = BTreeSet::new();
        sorted.retain(|(fact, _)| met.insert((fact.author, fact.author_number)));
        sorted
    }

    fn rows(&self) -> Vec<&(Fact, EntryId)> {
        self.rows_within(&self.vector())
    }

    /// Compares everything that is asked by scope, author or number.
    fn assert_agrees(&self) {
        let archive = &self.archive;
        archive.check();
        let rows = self.rows();
        assert_eq!(archive.rows(), rows.len() as u64);
        for scope in 0..5 {
            let of_scope: Vec<_> = rows.iter().filter(|row| row.0.scope == scope).collect();
            let Some(reference) = archive.find_scope(&scope_value(scope)) else {
                assert!(of_scope.is_empty());
                continue;
            };
            assert_eq!(archive.scope_rows(reference), of_scope.len() as u64);
            let ids: Vec<_> = of_scope.iter().map(|row| row.1).collect();
            assert_eq!(archive.page(reference, 1, usize::MAX).collect::<Vec<_>>(), ids);
            let page: Vec<_> = archive.page(reference, 3, 4).collect();
            assert_eq!(page, ids.iter().copied().skip(2).take(4).collect::<Vec<_>>());
            for (at, &id) in ids.iter().enumerate() {
                assert_eq!(archive.index(id), at as u64 + 1);
            }
        }
        for (fact, id) in &self.facts {
            let row = rows.iter().find(|(row, _)| same_message(row, fact)).expect("it has one");
            assert_eq!(archive.row(&author_value(fact.author), fact.author_number), Some(row.1));
            assert_eq!(archive.is_copy(*id), row.1 != *id);
            assert_eq!(archive.index(*id), archive.index(row.1));
        }
        let newest: Vec<_> = archive.newest_first(None).collect();
        let mut expected: Vec<_> = rows.iter().map(|row| row.1).collect();
        expected.sort_by(|a, b| b.cmp(a));
        assert_eq!(newest, expected);
        if let Some(&middle) = newest.get(newest.len() / 2) {
            let rest: Vec<_> = archive.newest_first(Some(middle)).collect();
            assert_eq!(rest, newest[newest.len() / 2 + 1..]);
        }
    }

    fn assert_counts_through(&self, seen: &[u64]) {
        let at = |origin: OriginRef| seen.get(origin.0 as usize).copied().unwrap_or(0);
        for scope in 0..5 {
            let Some(reference) = self.archive.find_scope(&scope_value(scope)) else { continue };
            let expected = self.rows().into_iter().filter(|(fact, id)| {
                fact.scope == scope && fact.number <= at(self.archive.origin_of(*id))
            });
            let counted = self.archive.rows_through(reference, &at);
            assert_eq!(counted, expected.count() as u64, "scope {scope} through {seen:?}");
        }
    }

    /// What a catch-up over some scopes must give.
    fn lacking(&self, scopes: &[usize], seen: &[u64], until: &[u64]) -> Vec<EntryId> {
        let rows = self.rows_within(until).into_iter().filter(|(fact, id)| {
            let origin = self.archive.origin_of(*id).0 as usize;
            scopes.contains(&fact.scope) && fact.number > seen.get(origin).copied().unwrap_or(0)
        });
        rows.map(|row| row.1).collect()
    }

    fn references(&self, scopes: &[usize]) -> Vec<ScopeRef> {
        scopes.iter().filter_map(|scope| self.archive.find_scope(&scope_value(*scope))).collect()
    }
}

fn same_message(a: &Fact, b: &Fact) -> bool {
    (a.author, a.author_number) == (b.author, b.author_number)
}

/// A history of up to four origins: what each accepted, in its order. Authors move between
/// origins, and send some messages again.
fn history(random: &mut Unstructured<'_>, length: usize) -> Result<Vec<Vec<Fact>>> {
    let mut logs: Vec<Vec<Fact>> = vec![Vec::new(); random.int_in_range(1..=4)?];
    let mut sent: Vec<Vec<Fact>> = vec![Vec::new(); 3];
    for at in 0..length {
        let origin = random.choose_index(logs.len())?;
        let author = random.choose_index(sent.len())?;
        let again = random.ratio(1, 4)? && !sent[author].is_empty();
        // Few clocks, so that they often tie between origins.
        let clock = 1
            + logs[origin].last().map_or(at as u64 / 3, |last| last.clock)
            + random.int_in_range(0..=5)?;
        let mut fact = if again {
            let repeated = random.choose_index(sent[author].len())?;
            sent[author][repeated].clone()
        } else {
            let author_number = sent[author].len() as u64 + 1;
            let scope = random.choose_index(5)?;
            let body = format!("{author}:{author_number}");
            Fact { origin, number: 0, clock: 0, author, author_number, scope, body }
        };
        fact.origin = origin;
        fact.clock = clock;
        fact.number = logs[origin].len() as u64 + 1;
        if !again {
            sent[author].push(fact.clone());
        }
        logs[origin].push(fact);
    }
    Ok(logs)
}

/// Some valid order of a history: numbers in order, and mostly an author's messages, too.
fn interleave(random: &mut Unstructured<'_>, logs: &[Vec<Fact>]) -> Result<Vec<Fact>> {
    // Otherwise some were taken for lost before they came.
    let in_order = random.ratio(2, 3)?;
    let mut taken = vec![0; logs.len()];
    let mut authors = BTreeMap::new();
    let mut order = Vec::new();
    loop {
        let ready: Vec<_> = (0..logs.len())
            .filter(|origin| {
                logs[*origin].get(taken[*origin]).is_some_and(|fact| {
                    let highest = authors.get(&fact.author).copied().unwrap_or(0);
                    !in_order || fact.author_number <= highest + 1
                })
            })
            .collect();
        if ready.is_empty() {
            return Ok(order);
        }
        let origin = ready[random.choose_index(ready.len())?];
        let fact = logs[origin][taken[origin]].clone();
        taken[origin] += 1;
        let highest = authors.entry(fact.author).or_insert(0);
        *highest = fact.author_number.max(*highest);
        order.push(fact);
    }
}

fn some_vector(random: &mut Unstructured<'_>, most: &[u64]) -> Result<Vec<u64>> {
    most.iter().map(|last| random.int_in_range(0..=last + 1)).collect()
}

fn roomy() -> Archive {
    Archive::new(1 << 30, 8, 8)
}

#[test]
fn an_archive_agrees_with_sorting_everything() {
    arbtest::arbtest(|random| {
        let length = random.int_in_range(1..=120)?;
        let logs = history(random, length)?;
        let mut world = World::new(roomy());
        for fact in interleave(random, &logs)? {
            world.insert(&fact);
            if random.ratio(1, 16)? {
                world.assert_agrees();
            }
        }
        world.assert_agrees();
        for _ in 0..4 {
            let seen = some_vector(random, &world.vector())?;
            world.assert_counts_through(&seen);
        }
        Ok(())
    });
}

#[test]
fn a_catch_up_gives_what_was_lacking_at_its_moment_whatever_comes_meanwhile() {
    arbtest::arbtest(|random| {
        let length = random.int_in_range(1..=120)?;
        let logs = history(random, length)?;
        let order = interleave(random, &logs)?;
        let mut world = World::new(roomy());
        let begin = random.int_in_range(1..=order.len())?;
        world.insert_all(&order[..begin]);
        let until = world.vector();
        let seen = some_vector(random, &until)?;
        let scopes: Vec<_> = (0..5).filter(|scope| scope % 2 == begin % 2).collect();
        let expected = world.lacking(&scopes, &seen, &until);
        let references = world.references(&scopes);
        let places = random.int_in_range(1..=8)?;
        let mut catch_up = CatchUp::new(&references, seen, until).with_places(places);
        let (mut given, mut later) = (Vec::new(), order[begin..].iter());
        loop {
            world.insert_all(later.by_ref().take(random.int_in_range(0..=3)?));
            let Some(id) = catch_up.next(&world.archive) else { break };
            given.push(id);
            assert!(catch_up.heads_held() <= 2 * places.max(4), "the merge is bounded");
        }
        assert_eq!(given, expected);
        Ok(())
    });
}

#[test]
fn archives_of_the_same_entries_are_alike_in_whatever_order_these_came() {
    arbtest::arbtest(|random| {
        let length = random.int_in_range(1..=80)?;
        let logs = history(random, length)?;
        let mut worlds = Vec::new();
        for _ in 0..2 {
            let mut world = World::new(roomy());
            world.insert_all(&interleave(random, &logs)?);
            worlds.push(world);
        }
        assert!(worlds.iter().all(|world| world.facts.len() == length));
        let [a, b] = [&worlds[0].archive, &worlds[1].archive];
        assert_eq!(a.vector_hash(), b.vector_hash());
        assert_eq!(a.digest(&[b"rooms"]), b.digest(&[b"rooms"]));
        assert_ne!(a.digest(&[b"rooms"]), b.digest(&[]));
        for scope in (0..5).map(scope_value) {
            assert_eq!(portable_page(a, &scope), portable_page(b, &scope));
        }
        Ok(())
    });
}

fn portable_page(archive: &Archive, scope: &Scope<'_>) -> Vec<Vec<u8>> {
    let Some(scope) = archive.find_scope(scope) else { return Vec::new() };
    let page = archive.page(scope, 0, usize::MAX);
    page.map(|id| {
        let mut bytes = Vec::new();
        archive.put_portable(id, &mut bytes);
        bytes
    })
    .collect()
}

fn fact(number: u64) -> Fact {
    Fact {
        origin: 1,
        number,
        clock: 10 * number,
        author: 0,
        author_number: number,
        scope: 0,
        body: format!("message {number}"),
    }
}

#[test]
fn an_entry_comes_out_as_it_went_in_in_both_forms() {
    let mut world = World::new(roomy());
    world.archive.define_origin(origin_value(0));
    let id = world.insert(&fact(1)).id;
    let archive = &world.archive;
    let entry = archive.entry(id, Clock(10));
    assert_eq!((entry.origin, entry.number, entry.clock), (OriginRef(1), 1, Clock(10)));
    assert_eq!((entry.author, entry.author_number, entry.name), (author_value(0), 1, "someone"));
    assert_eq!((entry.scope, entry.body), (Scope::Room("#all"), "message 1"));
    assert_eq!(entry.after.iter().collect::<Vec<_>>(), [(OriginRef(0), 10)]);
    assert_eq!((entry.index, entry.flags, entry.tag), (1, flags::FINAL, Tag([10; 16])));
    assert_eq!(archive.entry(id, Clock(9)).flags, 0);
    assert_eq!(archive.tag(id), entry.tag);

    let (mut put, mut expected) = (vec![7], vec![7]);
    archive.put_entry(id, Clock(10), flags::REPLAY, &mut put);
    Entry { flags: flags::FINAL | flags::REPLAY, ..entry }.put_frame(&mut expected);
    assert_eq!(put, expected);

    let mut portable = Vec::new();
    archive.put_portable(id, &mut portable);
    let mut expected = Vec::new();
    let after = [(origin_value(0), 10)];
    Portable {
        origin: origin_value(1),
        number: 1,
        clock: Clock(10),
        author: author_value(0),
        author_number: 1,
        name: "someone",
        scope: Scope::Room("#all"),
        after: crate::wire::Seq::new(&after),
        body: "message 1",
    }
    .put(&mut expected);
    assert_eq!(portable, expected);
    assert!(Portable::take(&mut Reader::new(&portable)).is_ok());
    assert_eq!(archive.rolling(OriginRef(1)), crate::hash::rolling(&Tag::default(), &portable));
}

#[test]
fn a_lesser_copy_takes_the_place_of_the_row_and_counts_nothing() {
    let mut world = World::new(roomy());
    let row = world.insert(&Fact { clock: 20, ..fact(1) });
    assert!(!row.copy && !row.moved);
    let greater = world.insert(&Fact { origin: 2, clock: 30, ..fact(1) });
    assert!(greater.copy && !greater.moved);
    let lesser = world.insert(&Fact { origin: 3, clock: 10, ..fact(1) });
    assert!(lesser.copy && lesser.moved);
    let archive = &world.archive;
    assert_eq!(archive.scope_rows(row.scope), 1);
    assert_eq!(archive.page(row.scope, 1, 9).collect::<Vec<_>>(), [lesser.id]);
    // What once was shown as a row is not marked as a copy to whoever is still to get it.
    let marked = |id| archive.entry(id, Clock(0)).flags & flags::COPY != 0;
    assert_eq!([row.id, greater.id, lesser.id].map(marked), [false, true, false]);
}

#[test]
fn what_was_taken_for_lost_is_a_row_when_it_comes_after_all() {
    let mut world = World::new(roomy());
    let late = Fact { author_number: 4, ..fact(1) };
    world.insert(&late);
    let has = |world: &World| {
        [1, 2, 3, 4, 5].map(|number| world.archive.has_row(&author_value(0), number))
    };
    assert_eq!(has(&world), [false, false, false, true, false]);
    let found = world.insert(&Fact { origin: 2, clock: 5, author_number: 2, ..fact(1) });
    assert!(!found.copy);
    assert_eq!(found.index, 1);
    assert!(world.insert(&Fact { author_number: 2, ..fact(2) }).copy);
    assert_eq!(has(&world), [false, true, false, true, false]);
    assert_eq!(world.archive.author_number(&author_value(0)), 4);
    world.archive.check();
}

#[test]
fn a_talk_is_its_two_sessions_whatever_they_were_called() {
    let mut archive = roomy();
    let (a, b, c) = (SessionId(4), SessionId(2), SessionId(3));
    let talk = archive.scope(&Scope::talk(a, b, "bob"));
    assert_eq!(archive.scope(&Scope::talk(b, a, "rob")), talk);
    let other = archive.scope(&Scope::talk(a, c, "eve"));
    let alone = archive.scope(&Scope::talk(a, a, "me"));
    let room = archive.scope(&Scope::Room("#all"));
    assert_eq!(archive.talk_members(talk), Some((b, a)));
    assert_eq!(archive.room_name(room), Some("#all"));
    assert_eq!(archive.talk_members(room), None);
    assert_eq!(archive.talks_of(a).collect::<Vec<_>>(), [talk, other, alone]);
    assert_eq!(archive.talks_of(c).collect::<Vec<_>>(), [other]);
    assert_eq!(archive.find_scope(&Scope::talk(b, c, "x")), None);
}

#[test]
fn there_are_no_more_origins_than_allowed() {
    let mut archive = Archive::new(1 << 30, 2, 8);
    assert_eq!(archive.define_origin(origin_value(0)), Some((OriginRef(0), true)));
    assert_eq!(archive.define_origin(origin_value(1)), Some((OriginRef(1), true)));
    assert_eq!(archive.define_origin(origin_value(2)), None);
    assert_eq!(archive.define_origin(origin_value(1)), Some((OriginRef(1), false)));
    assert_eq!(archive.find_origin(&origin_value(2)), None);
}

/// Large bodies fill chunks quickly. The three origins' clocks run apart, so that the order of
/// arrival is not the canonical one.
fn long_fact(at: u64) -> Fact {
    let (origin, number) = ((at % 3) as usize, at / 3 + 1);
    let body = "x".repeat(7_000 + (at % 1_000) as usize);
    let clock = 30 * number + at % 3 * 100;
    // Some messages were lost.
    let (author, author_number) = (origin, number + number / 5);
    let scope = usize::from(number.is_multiple_of(4));
    Fact { origin, number, clock, author, author_number, scope, body }
}

#[test]
fn what_is_trimmed_stays_counted() {
    let bytes_max = 2 << 20;
    let mut trimming = World::new(Archive::new(bytes_max, 8, 8));
    let mut whole = World::new(roomy());
    for at in 0..1_000 {
        let id = trimming.insert(&long_fact(at)).id;
        whole.insert(&long_fact(at));
        // Copies of what is there, of what was trimmed, and lesser ones now and then.
        if at % 7 == 6 {
            let repeated = long_fact(at - [1, 6, 300][at as usize % 3].min(at));
            let (origin, _) = trimming.archive.define_origin(origin_value(3)).expect("few");
            let number = trimming.archive.shown(origin) + 1;
            let copy = Fact { origin: 3, number, clock: at * 10 + 1, ..repeated };
            trimming.insert(&copy);
            whole.insert(&copy);
        }
        assert!(trimming.archive.contains(id));
        assert!(trimming.archive.memory_bytes() <= bytes_max);
        if at % 50 == 0 {
            trimming.archive.check();
        }
    }
    let (archive, whole) = (&trimming.archive, &whole.archive);
    assert!(archive.rows_trimmed() > 500, "{} rows were trimmed", archive.rows_trimmed());
    assert_eq!(archive.digest(&[]), whole.digest(&[]));
    assert_eq!(archive.vector_hash(), whole.vector_hash());
    assert_eq!(archive.rows(), whole.rows());
    for scope in [0, 1].map(scope_value) {
        let scope = archive.find_scope(&scope).expect("defined");
        assert_eq!(archive.scope_rows(scope), whole.scope_rows(scope));
        let trimmed = archive.scope_trimmed(scope);
        let page: Vec<_> = archive.page(scope, 1, usize::MAX).collect();
        assert_eq!(trimmed + page.len() as u64, archive.scope_rows(scope));
        assert_eq!(archive.index(page[0]), trimmed + 1);
        // Well above the floor every index is what it would be without trimming.
        let last = archive.scope_rows(scope);
        for index in last - 20..=last {
            let of = |archive: &Archive| {
                let id = archive.page(scope, index, 1).next().expect("it is there");
                (archive.origin_of(id), archive.number_of(id))
            };
            assert_eq!(of(archive), of(whole));
        }
        let nothing = archive.rows_through(scope, &|_| 0);
        assert_eq!(nothing, trimmed, "whoever has nothing starts at the floor");
        let mut catch_up = CatchUp::new(&[scope], Vec::new(), trimming.vector()).with_places(1);
        let lacking = core::iter::from_fn(|| catch_up.next(archive));
        assert_eq!(lacking.collect::<Vec<_>>(), page);
    }
    for (origin, _) in archive.origins() {
        let first = archive.first_number(origin);
        assert_eq!(archive.id(origin, first - 1), None);
        assert!(archive.id(origin, first).is_some());
        assert_eq!(archive.shown(origin), whole.shown(origin));
        assert_eq!(archive.rolling(origin), whole.rolling(origin));
    }
}

#[test]
fn a_catch_up_misses_nothing_when_a_row_behind_it_moves_away() {
    let mut world = World::new(roomy());
    let ids: Vec<_> = (1..=5).map(|number| world.insert(&fact(number)).id).collect();
    let references = world.references(&[0]);
    let mut catch_up = CatchUp::new(&references, Vec::new(), world.vector()).with_places(1);
    let mut given = vec![catch_up.next(&world.archive), catch_up.next(&world.archive)];
    assert!(world.insert(&Fact { origin: 2, clock: 1, ..fact(1) }).moved);
    given.extend(core::iter::repeat_with(|| catch_up.next(&world.archive)).take(4));
    let expected: Vec<_> = ids.into_iter().map(Some).chain([None]).collect();
    assert_eq!(given, expected);
}

#[test]
fn a_catch_up_leaves_out_what_is_trimmed_before_its_turn() {
    let mut world = World::new(Archive::new(1 << 20, 8, 8));
    world.insert_all(&(0..100).map(long_fact).collect::<Vec<_>>());
    let references = world.references(&[0, 1]);
    let mut catch_up = CatchUp::new(&references, Vec::new(), world.vector()).with_places(1);
    let first = catch_up.next(&world.archive).expect("something is lacking");
    let until = world.archive.newest_first(None).next().expect("not empty");
    world.insert_all(&(100..160).map(long_fact).collect::<Vec<_>>());
    assert!(!world.archive.contains(first));
    let left = world.archive.page(references[0], 1, usize::MAX);
    let left = left.chain(world.archive.page(references[1], 1, usize::MAX));
    let left = left.filter(|id| *id <= until).count();
    assert!(left > 0);
    assert_eq!(core::iter::from_fn(|| catch_up.next(&world.archive)).count(), left);
}

#[test]
fn of_authors_without_rows_the_one_silent_longest_is_forgotten() {
    let mut world = World::new(Archive::new(1, 8, 2));
    let mut number = 0;
    let mut say = |world: &mut World, author, author_number| {
        number += 1;
        let body = "x".repeat(8_000);
        world.insert(&Fact { author, author_number, body, ..fact(number) });
    };
    for author in [1, 2, 3] {
        say(&mut world, author, 1);
    }
    assert!(!world.archive.may_follow(&author_value(4), 1 << 20), "nobody was forgotten yet");
    // Enough of one author to trim the others.
    (1..100).for_each(|own| say(&mut world, 0, own));
    let archive = &world.archive;
    archive.check();
    let known = [0, 1, 2, 3].map(|author| archive.author_number(&author_value(author)));
    assert_eq!(known, [99, 0, 0, 1]);
    assert!(archive.may_follow(&author_value(1), 1 << 20), "it may have been forgotten");
    assert!(!archive.may_follow(&author_value(3), 1 << 20));
    say(&mut world, 1, 2);
    say(&mut world, 3, 2);
    assert_eq!([1, 3].map(|author| world.archive.author_number(&author_value(author))), [2, 2]);
    assert_eq!(world.archive.row(&author_value(1), 1), None);
    assert!(world.archive.row(&author_value(1), 2).is_some());
    world.archive.check();
}

#[test]
fn ids_go_on_beyond_32_bits() {
    let mut archive = Archive::new(1 << 20, 8, 8);
    archive.store = Store::starting_at(u64::from(u32::MAX) - 80);
    let mut world = World::new(archive);
    for at in 0..300 {
        world.insert(&long_fact(at));
        world.archive.check();
    }
    assert!(world.archive.rows_trimmed() > 100);
    let id = world.archive.id(OriginRef(0), 100).expect("it is there");
    assert!(id.0 > u64::from(u32::MAX));
    assert_eq!(world.archive.row(&author_value(0), 120), Some(id));
}

#[test]
fn an_entry_that_no_frame_holds_does_not_fit() {
    let body = "x".repeat(60_000);
    let after = vec![(OriginRef(0), 1); 1_000];
    let entry = NewEntry {
        origin: OriginRef(0),
        number: 1,
        clock: Clock(1),
        author: author_value(0),
        author_number: 1,
        name: "someone",
        scope: scope_value(0),
        after: &[],
        body: &body,
        tag: Tag::default(),
    };
    assert!(Archive::fits(&entry));
    assert!(!Archive::fits(&NewEntry { after: &after, ..entry }));
    assert!(!Archive::fits(&NewEntry { body: &"x".repeat(65_600), ..entry }));
    let mut archive = roomy();
    archive.define_origin(origin_value(0));
    let id = archive.insert(&entry).id;
    let mut frame = Vec::new();
    archive.put_entry(id, Clock(0), 0, &mut frame);
    assert!(frame.len() <= crate::framing::FRAME_BYTES_MAX);
}
