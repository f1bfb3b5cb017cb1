//! Floors: an archive that adopts one counts as if it had shown everything and trimmed it.

use super::*;

/// As `history`, with bodies so long that a few dozen entries fill a chunk.
fn long_history(random: &mut Unstructured<'_>, length: usize) -> Result<Vec<Vec<Fact>>> {
    let mut logs = history(random, length)?;
    for fact in logs.iter_mut().flatten() {
        fact.body = fact.body.repeat(20_000 / fact.body.len());
    }
    Ok(logs)
}

fn trimming() -> Archive {
    Archive::new(600 << 10, 8, 8)
}

/// What the floor of one archive is to another.
fn floor_for(archive: &mut Archive, other: &Archive) -> Floor {
    let mut floor = other.floor();
    for origin in &mut floor.origins {
        let value = other.origin(origin.origin);
        origin.origin = archive.define_origin(value).expect("few").0;
        for (scope, _) in &mut origin.rows {
            *scope = scope_for(archive, other, *scope);
        }
    }
    for past in &mut floor.pasts {
        for (scope, _) in &mut past.rows {
            *scope = scope_for(archive, other, *scope);
        }
    }
    assert!(floor.is_believable());
    floor
}

/// One's own scope for one of another archive.
fn scope_for(archive: &mut Archive, other: &Archive, scope: ScopeRef) -> ScopeRef {
    match (other.room_name(scope), other.talk_members(scope)) {
        (Some(room), _) => archive.scope(&Scope::Room(room)),
        (_, Some((low, high))) => archive.scope(&Scope::talk(low, high, "")),
        _ => unreachable!("a room or a talk"),
    }
}

fn adopt(world: &mut World, other: &Archive) -> Vec<Raised> {
    let floor = floor_for(&mut world.archive, other);
    let before = world.archive.rows();
    let raised = world.archive.adopt_floor(&floor).raised;
    let change: i64 = raised.iter().map(|r| r.after as i64 - r.before as i64).sum();
    assert_eq!(world.archive.rows() as i64 - before as i64, change, "every change is told");
    world.archive.check();
    raised
}

/// Inserts what is in memory at `from` and lacking at `world`, in the order of its arrival.
fn pull(world: &mut World, from: &World) {
    for (fact, id) in &from.facts {
        let origin = world.archive.define_origin(origin_value(fact.origin)).expect("few").0;
        if from.archive.contains(*id) && fact.number > world.archive.shown(origin) {
            world.insert(fact);
        }
    }
}

fn world_of(archive: Archive, facts: &[Fact]) -> World {
    let mut world = World::new(archive);
    world.insert_all(facts);
    world
}

fn assert_alike(a: &Archive, b: &Archive) {
    a.check();
    b.check();
    assert_eq!(a.vector_hash(), b.vector_hash());
    assert_eq!(a.digest(&[]), b.digest(&[]));
    assert_eq!(a.rows(), b.rows());
    for scope in (0..5).map(scope_value) {
        let rows = |archive: &Archive| {
            archive.find_scope(&scope).map_or(0, |scope| archive.scope_rows(scope))
        };
        assert_eq!(rows(a), rows(b), "{scope:?}");
    }
}

#[test]
fn a_newcomer_that_adopts_a_floor_counts_as_if_it_had_shown_everything_and_trimmed_it() {
    arbtest::arbtest(|random| {
        let length = random.int_in_range(1..=150)?;
        let logs = long_history(random, length)?;
        let peer = world_of(trimming(), &interleave(random, &logs)?);
        let mut joiner = World::new(roomy());
        let raised = adopt(&mut joiner, &peer.archive);
        assert_eq!(raised.is_empty(), peer.archive.rows_trimmed() == 0);
        assert_eq!(joiner.archive.rows(), peer.archive.rows_trimmed());
        pull(&mut joiner, &peer);
        let (a, b) = (&joiner.archive, &peer.archive);
        assert_alike(a, b);
        assert_eq!(a.rows_trimmed(), b.rows_trimmed());
        // An origin without entries may have been named by a trimmed one alone.
        for (origin, value) in b.origins().filter(|(origin, _)| b.shown(*origin) > 0) {
            let here = a.find_origin(&value).expect("it is known");
            assert_eq!(a.first_number(here), b.first_number(origin));
            assert_eq!(a.rolling(here), b.rolling(origin));
        }
        for scope in (0..5).map(scope_value) {
            assert_eq!(portable_page(a, &scope), portable_page(b, &scope));
            let Some(here) = a.find_scope(&scope) else { continue };
            let there = b.find_scope(&scope).expect("it is known");
            assert_eq!(a.scope_trimmed(here), b.scope_trimmed(there));
            assert_eq!(a.rows_through(here, &|_| 0), b.rows_through(there, &|_| 0));
        }
        for (fact, _) in &peer.facts {
            let author = author_value(fact.author);
            assert!(a.has_row(&author, fact.author_number));
            assert_eq!(a.author_number(&author), b.author_number(&author));
        }
        assert_eq!(a.floor().origins.len(), b.floor().origins.len());
        // Whoever adopts from the joiner is no worse off.
        let mut third = World::new(roomy());
        adopt(&mut third, &joiner.archive);
        pull(&mut third, &joiner);
        assert_alike(&third.archive, b);
        Ok(())
    });
}

#[test]
fn who_had_a_part_and_adopts_a_floor_agrees_with_its_peer_once_both_have_all() {
    arbtest::arbtest(|random| {
        let length = random.int_in_range(40..=200)?;
        let logs = long_history(random, length)?;
        let order = interleave(random, &logs)?;
        let until = random.int_in_range(0..=order.len())?;
        let mut peer = world_of(trimming(), &order[..until]);
        let order = interleave(random, &logs)?;
        let until = random.int_in_range(0..=order.len())?;
        let mut joiner = world_of(roomy(), &order[..until]);
        adopt(&mut joiner, &peer.archive);
        pull(&mut joiner, &peer);
        pull(&mut peer, &joiner);
        // What the peer trimmed meanwhile changes nothing.
        assert_alike(&joiner.archive, &peer.archive);
        Ok(())
    });
}

#[test]
fn of_two_floors_the_higher_stays() {
    let facts: Vec<_> = (0..300).map(long_fact).collect();
    let early = world_of(trimming(), &facts[..200]);
    let late = world_of(trimming(), &facts);
    let whole = world_of(roomy(), &facts);
    let mut joiner = World::new(roomy());
    adopt(&mut joiner, &late.archive);
    let first = joiner.archive.first_number(OriginRef(0));
    assert!(first > early.archive.first_number(OriginRef(0)));
    assert_eq!(adopt(&mut joiner, &early.archive), []);
    assert_eq!(joiner.archive.first_number(OriginRef(0)), first);
    pull(&mut joiner, &whole);
    assert_alike(&joiner.archive, &whole.archive);
    // The other way round it rises.
    let mut joiner = World::new(roomy());
    adopt(&mut joiner, &early.archive);
    assert!(!adopt(&mut joiner, &late.archive).is_empty());
    pull(&mut joiner, &late);
    assert_alike(&joiner.archive, &whole.archive);
}

#[test]
fn a_message_below_an_adopted_floor_is_never_shown_again() {
    let facts: Vec<_> = (0..150).map(long_fact).collect();
    let peer = world_of(trimming(), &facts);
    let mut joiner = World::new(roomy());
    adopt(&mut joiner, &peer.archive);
    pull(&mut joiner, &peer);
    let rows = joiner.archive.rows();
    for (at, fact) in facts.iter().enumerate() {
        let again =
            Fact { origin: 3, number: at as u64 + 1, clock: 9_000 + at as u64, ..fact.clone() };
        assert!(joiner.insert(&again).copy);
    }
    assert_eq!(joiner.archive.rows(), rows);
}

#[test]
fn a_catch_up_goes_on_when_a_floor_is_adopted_amid() {
    let facts: Vec<_> = (0..150).map(long_fact).collect();
    let peer = world_of(trimming(), &facts);
    let mut joiner = world_of(roomy(), &facts[..30]);
    joiner.insert_all(&[Fact { origin: 3, author: 9, clock: 9_000, ..fact(1) }]);
    let references = joiner.references(&[0, 1]);
    let until = joiner.vector();
    let mut catch_up = CatchUp::new(&references, Vec::new(), until.clone());
    let first = catch_up.next(&joiner.archive).expect("something is lacking");
    adopt(&mut joiner, &peer.archive);
    assert!(!joiner.archive.contains(first));
    let rest: Vec<_> = core::iter::from_fn(|| catch_up.next(&joiner.archive)).collect();
    let own = joiner.archive.find_origin(&origin_value(3)).expect("defined");
    assert_eq!(rest, joiner.archive.id(own, 1).into_iter().collect::<Vec<_>>());
    // Whoever has seen what the catch-up went up to has everything that is counted.
    let through = |o: OriginRef| until.get(o.0 as usize).copied().unwrap_or(0);
    for scope in references {
        let rows = joiner.archive.scope_rows(scope);
        assert_eq!(joiner.archive.rows_through(scope, &through), rows);
    }
}

#[test]
fn a_floor_that_cannot_be_is_not_believed() {
    let peer = world_of(trimming(), &(0..150).map(long_fact).collect::<Vec<_>>());
    let floor = peer.archive.floor();
    assert!(floor.is_believable());
    let mut twice = floor.clone();
    twice.origins.push(floor.origins[0].clone());
    let mut crowded = floor.clone();
    crowded.origins[0].rows[0].1 = floor.origins[0].number + 1;
    let mut endless = floor.clone();
    endless.origins[0].number = u64::MAX;
    let author = floor.authors[0];
    let mut backwards = floor.clone();
    backwards.authors.push(FloorAuthor { from: 9, through: 8, ..author });
    let mut scattered = floor.clone();
    scattered.authors.push(FloorAuthor { from: 2, through: 1 << 40, ..author });
    for wrong in [twice, crowded, endless, backwards, scattered] {
        assert!(!wrong.is_believable());
    }
}

#[test]
fn what_was_lost_of_an_author_takes_no_memory() {
    let mut world = World::new(roomy());
    world.insert(&fact(1));
    let before = world.archive.memory_bytes();
    for number in 2..=40 {
        world.insert(&Fact { author_number: (number - 1) * 60_000, ..fact(number) });
    }
    world.archive.check();
    let each = (world.archive.memory_bytes() - before) / 39;
    assert!(each < 1_000, "{each} bytes an entry");
}

#[test]
fn a_copy_in_another_scope_moves_no_row() {
    let mut world = World::new(roomy());
    let row = world.insert(&Fact { clock: 20, ..fact(1) });
    let elsewhere = world.insert(&Fact { origin: 2, clock: 10, scope: 1, ..fact(1) });
    assert!(elsewhere.copy && !elsewhere.moved);
    let archive = &world.archive;
    archive.check();
    assert_eq!((archive.scope_rows(row.scope), archive.scope_rows(elsewhere.scope)), (1, 0));
    assert_eq!(archive.page(row.scope, 1, 9).collect::<Vec<_>>(), [row.id]);
    assert!(archive.entry(elsewhere.id, Clock(0)).flags & flags::COPY != 0);
}

#[test]
fn a_message_taken_for_lost_counts_when_it_comes_after_later_ones_were_trimmed() {
    let said = |author_number: u64, number: u64, origin: usize| {
        let clock = 10 * author_number;
        Fact { origin, number, clock, author: 0, author_number, scope: 0, ..long_fact(0) }
    };
    // The second was said in another half of a split network.
    let facts: Vec<_> = (2..150).map(|number| said(number + 1, number, 0)).collect();
    let facts = [vec![said(1, 1, 0)], facts].concat();
    let late = said(2, 1, 1);
    let mut small = world_of(trimming(), &facts);
    let mut whole = world_of(roomy(), &facts);
    assert!(small.archive.rows_trimmed() > 10);
    for world in [&mut small, &mut whole] {
        assert!(!world.insert(&late).copy);
    }
    assert_alike(&small.archive, &whole.archive);
}
