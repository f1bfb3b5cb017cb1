//! Archives against a naive model: entries come in any order that the protocol allows, are
//! trimmed, exchanged and caught up with.

use std::format;
use std::string::String;
use std::vec::Vec;

use arbitrary::{Result, Unstructured};

use cordee_core::archive::{Archive, CatchUp, NewEntry};
use cordee_core::hash;
use cordee_core::ids::{Clock, OriginRef, ScopeRef, Tag};
use cordee_core::wire::entry::{Portable, Scope};
use cordee_core::wire::{Field, Seq};
use model::{
    AUTHORS, Fact, Model, Moment, ORIGINS, SCOPES, author_value, origin_value, scope_value,
};

mod model;

const REPLICAS: usize = 3;
/// So small that a dozen of the longest bodies have to go.
const SMALL_BYTES: u64 = 600 << 10;
const LONG_BODY_BYTES: usize = 60_000;
/// What one input may ask for: more finds nothing new, and takes its time.
const OPERATIONS_MAX: usize = 400;
const FACTS_MAX: usize = 300;
const LONG_MAX: usize = 60;
const READINGS_MAX: usize = 8;
const WORDS: [&str; 3] = ["rope", "knot", "rock"];

/// A list of operations, one byte each and one for each of its arguments:
///
/// | byte modulo 9 | operation, arguments |
/// | --- | --- |
/// | 0 | an origin writes: origin, author, what (0 a long body, 1 the same again, 2 the same in another scope, 3 after a gap, else the author's next), clock's step, scope |
/// | 1 | a replica takes entries in: replica, origin, how many |
/// | 2 | a replica adopts a floor: replica, of which |
/// | 3 | a moment is remembered: replica |
/// | 4 | a catch-up begins: replica, whether from the moment, scopes, and per origin what was seen |
/// | 5 | a catch-up goes on: which, how far |
/// | 6 | a catch-up loses a scope: which, scope |
/// | 7 | a page and a count are asked for: replica, scope, from, count, per origin what was seen |
/// | 8 | a word is searched for: replica, word, where to go on |
pub fn archive(data: &[u8]) {
    let mut random = Unstructured::new(data);
    let mut world = World::new();
    for _ in 0..OPERATIONS_MAX {
        if random.is_empty() {
            break;
        }
        // A list that ends amid an operation is a shorter list.
        if world.operate(&mut random).is_err() {
            break;
        }
    }
    world.end();
}

/// One archive and what it must hold.
struct Replica {
    archive: Archive,
    model: Model,
    moment: Moment,
}

/// A catch-up under way, and what it has still to give.
struct Reading {
    replica: usize,
    catch_up: CatchUp,
    expected: Vec<usize>,
}

struct World {
    /// What each origin wrote.
    logs: [Vec<Fact>; ORIGINS],
    /// What each author said first under which number.
    said: [Vec<Fact>; AUTHORS],
    replicas: Vec<Replica>,
    readings: Vec<Reading>,
    long: usize,
    /// Whether all said the same to all: then all must end alike.
    honest: bool,
}

impl World {
    fn new() -> Self {
        let sizes = [SMALL_BYTES, 1 << 30, SMALL_BYTES];
        let replicas = sizes.map(|bytes_max| {
            let model = Model::default();
            let moment = model.now();
            Replica { archive: Archive::new(bytes_max, 8, 8), model, moment }
        });
        World {
            logs: Default::default(),
            said: Default::default(),
            replicas: replicas.into(),
            readings: Vec::new(),
            long: 0,
            honest: true,
        }
    }

    fn operate(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        match random.arbitrary::<u8>()? % 9 {
            0 => self.write(random)?,
            1 => {
                let replica = random.choose_index(REPLICAS)?;
                let origin = random.choose_index(ORIGINS)?;
                let count = random.int_in_range(1..=32)?;
                self.take(replica, origin, count);
            }
            2 => {
                let to = random.choose_index(REPLICAS)?;
                self.adopt(to, random.choose_index(REPLICAS)?);
            }
            3 => {
                let replica = &mut self.replicas[random.choose_index(REPLICAS)?];
                replica.moment = replica.model.now();
            }
            4 => self.begin_reading(random)?,
            5 => self.read_on(random)?,
            6 => self.drop_scope(random)?,
            7 => self.ask(random)?,
            _ => self.search(random)?,
        }
        self.replicas.iter().for_each(|replica| replica.archive.check());
        Ok(())
    }

    fn write(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let origin = random.choose_index(ORIGINS)?;
        let author = random.choose_index(AUTHORS)?;
        let what = random.arbitrary::<u8>()? % 8;
        let step = random.int_in_range(1..=8)?;
        let scope = random.choose_index(SCOPES)?;
        if self.logs.iter().map(Vec::len).sum::<usize>() >= FACTS_MAX {
            return Ok(());
        }
        let said = &self.said[author];
        let repeated = said.len().checked_sub(1).map(|last| &said[last - scope.min(last)]);
        let last = said.last().map_or(0, |fact| fact.author_number);
        let (author_number, scope, body) = match (what, repeated) {
            (1, Some(fact)) => (fact.author_number, fact.scope, fact.body.clone()),
            (2, Some(fact)) => {
                self.honest = false;
                (fact.author_number, (fact.scope + 1) % SCOPES, fact.body.clone())
            }
            _ => {
                let number = last + if what == 3 { 3 } else { 1 };
                (number, scope, self.body_of(author, number, what == 0))
            }
        };
        let log = &mut self.logs[origin];
        let (clock, rolling) = log.last().map_or((0, Tag::default()), |f| (f.clock, f.rolling));
        let number = log.len() as u64 + 1;
        let clock = clock + step;
        let mut fact = Fact { origin, number, clock, author, author_number, scope, body, rolling };
        fact.rolling = hash::rolling(&rolling, &portable(&fact));
        log.push(fact.clone());
        if author_number > last {
            self.said[author].push(fact);
        }
        Ok(())
    }

    fn body_of(&mut self, author: usize, number: u64, long: bool) -> String {
        let mut body = format!("{author}:{number} {}", WORDS[number as usize % WORDS.len()]);
        if long && self.long < LONG_MAX {
            self.long += 1;
            body.push_str(&"x".repeat(LONG_BODY_BYTES - body.len()));
        }
        body
    }

    fn take(&mut self, replica: usize, origin: usize, count: usize) {
        let Replica { archive, model, .. } = &mut self.replicas[replica];
        let next = model.shown[origin] as usize;
        for fact in self.logs[origin].iter().skip(next).take(count) {
            let author = author_value(fact.author);
            assert!(archive.may_follow(&author, fact.author_number), "nothing is far ahead here");
            let after: Vec<(OriginRef, u64)> =
                (0..origin).map(|other| (reference(archive, other), fact.clock)).collect();
            let own = reference(archive, origin);
            let inserted = archive.insert(&NewEntry {
                origin: own,
                number: fact.number,
                clock: Clock(fact.clock),
                author,
                author_number: fact.author_number,
                name: "someone",
                scope: scope_value(fact.scope),
                after: &after,
                body: &fact.body,
                tag: Tag([fact.clock as u8; 16]),
            });
            model.insert(archive, fact, &inserted);
        }
        assert!(archive.memory_bytes() <= if replica == 1 { 1 << 30 } else { SMALL_BYTES });
    }

    fn adopt(&mut self, to: usize, from: usize) {
        let mut floor = self.replicas[from].archive.floor();
        let origins: Vec<_> =
            floor.origins.iter().map(|f| self.replicas[from].archive.origin(f.origin)).collect();
        let scopes: Vec<Vec<usize>> = floor
            .origins
            .iter()
            .map(|f| f.rows.iter().map(|row| self.number_of_scope(from, row.0)).collect())
            .collect();
        let Replica { archive, model, .. } = &mut self.replicas[to];
        for (at, below) in floor.origins.iter_mut().enumerate() {
            below.origin = archive.define_origin(origins[at]).expect("few").0;
            for (row, scope) in below.rows.iter_mut().zip(&scopes[at]) {
                row.0 = archive.scope(&scope_value(*scope));
            }
        }
        let before = archive.rows();
        let raised = archive.adopt_floor(&floor).raised;
        model.adopt(archive, &floor);
        let change: i128 = raised.iter().map(|r| i128::from(r.after) - i128::from(r.before)).sum();
        assert_eq!(i128::from(archive.rows()) - i128::from(before), change, "every change is told");
    }

    fn number_of_scope(&self, replica: usize, reference: ScopeRef) -> usize {
        let archive = &self.replicas[replica].archive;
        let is = |scope: &usize| archive.find_scope(&scope_value(*scope)) == Some(reference);
        (0..SCOPES).find(is).expect("one of ours")
    }

    // Catching up.

    fn begin_reading(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let at = random.choose_index(REPLICAS)?;
        let earlier = random.arbitrary::<u8>()? % 2 == 1;
        let mask = random.arbitrary::<u8>()?;
        let Replica { archive, model, moment } = &self.replicas[at];
        let moment = if earlier { moment.clone() } else { model.now() };
        let seen = some_vector(random, &moment.until)?;
        let scopes: Vec<usize> = (0..SCOPES).filter(|scope| mask >> scope & 1 == 1).collect();
        let references: Vec<ScopeRef> =
            scopes.iter().filter_map(|scope| archive.find_scope(&scope_value(*scope))).collect();
        let catch_up = CatchUp::new(
            &references,
            by_reference(archive, &seen),
            by_reference(archive, &moment.until),
        );
        let expected = model.lacking(&moment, &scopes, &seen);
        if self.readings.len() < READINGS_MAX {
            self.readings.push(Reading { replica: at, catch_up, expected });
        }
        Ok(())
    }

    fn read_on(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let which = random.arbitrary::<u8>()? as usize;
        let count = random.int_in_range(1..=16)?;
        if !self.readings.is_empty() {
            let which = which % self.readings.len();
            for _ in 0..count {
                if !self.readings[which].step(&self.replicas) {
                    self.readings.swap_remove(which);
                    break;
                }
            }
        }
        Ok(())
    }

    fn drop_scope(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let which = random.arbitrary::<u8>()? as usize;
        let scope = random.choose_index(SCOPES)?;
        if !self.readings.is_empty() {
            let which = which % self.readings.len();
            let reading = &mut self.readings[which];
            let Replica { archive, model, .. } = &self.replicas[reading.replica];
            if let Some(reference) = archive.find_scope(&scope_value(scope)) {
                reading.catch_up.drop_scope(reference);
            }
            reading.expected.retain(|at| model.scope(*at) != scope);
        }
        Ok(())
    }

    // Questions.

    fn ask(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let Replica { archive, model, .. } = &self.replicas[random.choose_index(REPLICAS)?];
        let scope = random.choose_index(SCOPES)?;
        let from = u64::from(random.arbitrary::<u8>()?);
        let count = usize::from(random.arbitrary::<u8>()?);
        let seen = some_vector(random, &model.shown)?;
        let Some(reference) = archive.find_scope(&scope_value(scope)) else { return Ok(()) };
        let page: Vec<_> = archive.page(reference, from, count).collect();
        assert_eq!(page, model.page(scope, from, count), "a page");
        let seen_there = by_reference(archive, &seen);
        let at = |origin: OriginRef| seen_there.get(origin.0 as usize).copied().unwrap_or(0);
        assert_eq!(archive.rows_through(reference, &at), model.rows_through(scope, &seen));
        Ok(())
    }

    fn search(&mut self, random: &mut Unstructured<'_>) -> Result<()> {
        let Replica { archive, model, .. } = &self.replicas[random.choose_index(REPLICAS)?];
        let word = WORDS[random.choose_index(WORDS.len())?];
        let skip = usize::from(random.arbitrary::<u8>()?);
        let has = |id: &cordee_core::archive::EntryId| archive.body_of(*id).contains(word);
        let found: Vec<_> = archive.newest_first(None).filter(has).collect();
        assert_eq!(found, model.search(word));
        if let Some(before) = found.get(skip % found.len().max(1)) {
            let rest: Vec<_> = archive.newest_first(Some(*before)).filter(has).collect();
            assert_eq!(rest, found[skip % found.len() + 1..], "a search goes on");
        }
        Ok(())
    }

    /// Everyone gets everything, as far as it is in anyone's memory; then all that can be asked is
    /// asked.
    fn end(&mut self) {
        for at in 0..self.readings.len() {
            while self.readings[at].step(&self.replicas) {}
        }
        for replica in &self.replicas {
            replica.model.assert_agrees(&replica.archive, &self.logs);
            replica.model.assert_floor(&replica.archive);
        }
        for replica in 0..REPLICAS {
            (0..ORIGINS).for_each(|origin| self.take(replica, origin, usize::MAX));
            let Replica { archive, model, .. } = &self.replicas[replica];
            archive.check();
            model.assert_agrees(archive, &self.logs);
            let first = &self.replicas[0].archive;
            assert_eq!(archive.digest(&[]), first.digest(&[]), "equal archives, equal digests");
            assert_eq!(archive.vector_hash(), first.vector_hash());
            if self.honest {
                assert_eq!(archive.rows(), first.rows(), "and as many rows");
            }
        }
        if self.honest && self.replicas.iter().all(|r| r.archive.rows_trimmed() == 0) {
            let pages = |replica: &Replica| -> Vec<Vec<Vec<u8>>> {
                (0..SCOPES).map(|scope| portable_page(&replica.archive, scope)).collect()
            };
            let first = pages(&self.replicas[0]);
            for replica in &self.replicas {
                assert_eq!(pages(replica), first, "every index means the same entry");
            }
        }
    }
}

impl Reading {
    /// The next row; `false` when there is none.
    fn step(&mut self, replicas: &[Replica]) -> bool {
        let Replica { archive, model, .. } = &replicas[self.replica];
        let given = self.catch_up.next(archive);
        loop {
            let Some(&at) = self.expected.first() else {
                assert_eq!(given, None, "nothing is lacking any more");
                return false;
            };
            let is_it = given == Some(model.id(at));
            // What was trimmed since is left out; what is counted below a floor may be.
            if !is_it {
                let may_lack = !archive.contains(model.id(at)) || model.is_uncounted(at);
                assert!(may_lack, "{given:?} instead of {:?}", model.id(at));
            }
            self.expected.remove(0);
            if is_it {
                return true;
            }
        }
    }
}

/// For each origin a number up to one more than there is.
fn some_vector(random: &mut Unstructured<'_>, most: &[u64; ORIGINS]) -> Result<[u64; ORIGINS]> {
    let mut vector = [0; ORIGINS];
    for (number, most) in vector.iter_mut().zip(most) {
        *number = u64::from(random.arbitrary::<u8>()?) % (most + 2);
    }
    Ok(vector)
}

fn reference(archive: &mut Archive, origin: usize) -> OriginRef {
    archive.define_origin(origin_value(origin)).expect("few").0
}

fn by_reference(archive: &Archive, vector: &[u64; ORIGINS]) -> Vec<u64> {
    let number = |value| {
        let origin = (0..ORIGINS).find(|origin| origin_value(*origin) == value);
        origin.map_or(0, |origin| vector[origin])
    };
    archive.origins().map(|(_, value)| number(value)).collect()
}

/// The portable form of an entry, which is what hashes go over.
fn portable(fact: &Fact) -> Vec<u8> {
    let after: Vec<_> = (0..fact.origin).map(|other| (origin_value(other), fact.clock)).collect();
    let mut bytes = Vec::new();
    let scope: Scope<'_> = scope_value(fact.scope);
    Portable {
        origin: origin_value(fact.origin),
        number: fact.number,
        clock: Clock(fact.clock),
        author: author_value(fact.author),
        author_number: fact.author_number,
        name: "someone",
        scope,
        after: Seq::new(&after),
        body: &fact.body,
    }
    .put(&mut bytes);
    bytes
}

fn portable_page(archive: &Archive, scope: usize) -> Vec<Vec<u8>> {
    let Some(reference) = archive.find_scope(&scope_value(scope)) else { return Vec::new() };
    let page = archive.page(reference, 1, usize::MAX);
    page.map(|id| {
        let mut bytes = Vec::new();
        archive.put_portable(id, &mut bytes);
        bytes
    })
    .collect()
}
