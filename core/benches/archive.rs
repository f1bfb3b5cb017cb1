//! The archive: taking in, reading by index, counting, catching up. Figures are for entries with
//! bodies of 64 bytes of 100 authors on 5 origins, in 4 rooms.

use std::hint::black_box;
use std::time::Duration;

use cordee_core::archive::{Archive, CatchUp, EntryId, NewEntry};
use cordee_core::ids::{AuthorId, Clock, Origin, OriginRef, ScopeRef, ServerId, SessionId, Tag};
use cordee_core::prng::Prng;
use cordee_core::wire::entry::Scope;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const ENTRIES: u64 = 100_000;
const ORIGINS: u64 = 5;
const AUTHORS: u64 = 100;
const ROOMS: [&str; 4] = ["#all", "#ops", "#dev", "#off"];

/// Writes entries without end.
struct Writer {
    next: u64,
    body: String,
}

impl Writer {
    fn new(body_bytes: usize) -> Self {
        Writer { next: 0, body: "x".repeat(body_bytes) }
    }

    /// The next entry, `late` clocks before its place.
    fn insert(&mut self, archive: &mut Archive, late: u64) -> EntryId {
        let at = self.next;
        self.next += 1;
        let after = [(OriginRef(((at + 1) % ORIGINS) as u32), at / ORIGINS)];
        let entry = NewEntry {
            origin: OriginRef((at % ORIGINS) as u32),
            number: at / ORIGINS + 1,
            clock: Clock(1_000_000_000 + at * 10 - late),
            author: AuthorId { session: SessionId(at % AUTHORS), process: 1 },
            author_number: at / AUTHORS + 1,
            name: "somebody",
            scope: Scope::Room(ROOMS[(at / 7 % 4) as usize]),
            after: &after,
            body: &self.body,
            tag: Tag([7; 16]),
        };
        archive.insert(&entry).id
    }
}

fn empty(bytes_max: u64) -> Archive {
    let mut archive = Archive::new(bytes_max, 64, 65_536);
    for server in (0..ORIGINS).map(ServerId) {
        archive.define_origin(Origin { server, incarnation: 1, nonce: 1 });
    }
    archive
}

fn filled(entries: u64, body_bytes: usize) -> (Archive, Writer) {
    let (mut archive, mut writer) = (empty(1 << 40), Writer::new(body_bytes));
    for _ in 0..entries {
        writer.insert(&mut archive, 0);
    }
    (archive, writer)
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("archive/append");
    group.throughput(Throughput::Elements(1_000));
    for body_bytes in [64, 1_024] {
        group.bench_function(format!("{body_bytes} B"), |bencher| {
            // Full, so that each chunk taken trims one.
            let (mut archive, mut writer) = (empty(64 << 20), Writer::new(body_bytes));
            while archive.rows_trimmed() == 0 {
                writer.insert(&mut archive, 0);
            }
            bencher.iter(|| (0..1_000).for_each(|_| drop_id(writer.insert(&mut archive, 0))));
        });
    }
    group.bench_function("64 B, each origin late by its own time", |bencher| {
        let (mut archive, mut writer) = (empty(64 << 20), Writer::new(64));
        bencher.iter(|| {
            for _ in 0..1_000 {
                let late = writer.next % ORIGINS * 10_000;
                writer.insert(&mut archive, late);
            }
        });
    });
    group.finish();
}

fn drop_id(id: EntryId) {
    black_box(id);
}

fn read(criterion: &mut Criterion) {
    let (archive, _) = filled(ENTRIES, 64);
    let scope = ScopeRef(0);
    let rows = archive.scope_rows(scope);
    let mut group = criterion.benchmark_group("archive/read");
    group.throughput(Throughput::Elements(1_000));
    let mut random = Prng::new(1);
    let indexes: Vec<u64> = (0..1_000).map(|_| 1 + random.below(rows)).collect();
    let mut frames = Vec::new();
    group.bench_function("by index, at random, as a frame", |bencher| {
        bencher.iter(|| {
            frames.clear();
            for &index in &indexes {
                let id = archive.page(scope, index, 1).next().expect("an index that is there");
                archive.put_entry(id, Clock(0), 0, &mut frames);
            }
            frames.len()
        });
    });
    group.bench_function("a page, as frames", |bencher| {
        bencher.iter(|| {
            frames.clear();
            for id in archive.page(scope, rows / 2, 1_000) {
                archive.put_entry(id, Clock(0), 0, &mut frames);
            }
            frames.len()
        });
    });
    let newest: Vec<EntryId> = archive.newest_first(None).take(1_000).collect();
    group.bench_function("the newest, as frames", |bencher| {
        bencher.iter(|| {
            frames.clear();
            newest.iter().for_each(|id| archive.put_entry(*id, Clock(0), 0, &mut frames));
            frames.len()
        });
    });
    group.bench_function("in portable form", |bencher| {
        bencher.iter(|| {
            frames.clear();
            newest.iter().for_each(|id| archive.put_portable(*id, &mut frames));
            frames.len()
        });
    });
    group.bench_function("bodies, newest first", |bencher| {
        let bodies = || archive.newest_first(None).take(1_000).map(|id| archive.body_of(id).len());
        bencher.iter(|| bodies().sum::<usize>());
    });
    group.finish();
}

fn count(criterion: &mut Criterion) {
    let (archive, _) = filled(ENTRIES, 64);
    let scopes: Vec<ScopeRef> = (0..4).map(ScopeRef).collect();
    let mut group = criterion.benchmark_group("archive/count");
    let mut random = Prng::new(2);
    group.bench_function("rows through a vector, 4 rooms of 5 origins", |bencher| {
        bencher.iter(|| {
            let seen = random.below(ENTRIES / ORIGINS);
            let rows = scopes.iter().map(|scope| archive.rows_through(*scope, &|_| seen));
            rows.sum::<u64>()
        });
    });
    group.bench_function("difference of vectors, 10 of 100 000 lacking", |bencher| {
        let until = vec![ENTRIES / ORIGINS; ORIGINS as usize];
        let seen: Vec<u64> = until.iter().map(|last| last - 2).collect();
        bencher.iter(|| {
            let mut lacking = CatchUp::new(&scopes, seen.clone(), until.clone());
            std::iter::from_fn(|| lacking.next(&archive)).count()
        });
    });
    group.bench_function("digest", |bencher| bencher.iter(|| archive.digest(&[])));
    group.finish();
}

fn catch_up(criterion: &mut Criterion) {
    let (archive, _) = filled(ENTRIES, 64);
    let scopes: Vec<ScopeRef> = (0..4).map(ScopeRef).collect();
    let until = vec![ENTRIES / ORIGINS; ORIGINS as usize];
    let mut group = criterion.benchmark_group("archive/catch up");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("100 000 entries, ids", |bencher| {
        bencher.iter_batched(
            || CatchUp::new(&scopes, Vec::new(), until.clone()),
            |mut lacking| std::iter::from_fn(|| lacking.next(&archive)).count(),
            BatchSize::SmallInput,
        );
    });
    let mut window = Vec::new();
    group.bench_function("100 000 entries, frames", |bencher| {
        bencher.iter_batched(
            || CatchUp::new(&scopes, Vec::new(), until.clone()),
            |mut lacking| {
                while let Some(id) = lacking.next(&archive) {
                    if window.len() > 64 << 10 {
                        window.clear();
                    }
                    archive.put_entry(id, Clock(0), 0, &mut window);
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = config(); targets = append, read, count, catch_up }
criterion_main!(benches);
