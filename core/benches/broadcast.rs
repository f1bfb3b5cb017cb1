//! A message's way through the core, to 50 clients of a server: the machine, the chunk, and the
//! cursors that read it. Figures are per message; divide by 50 for one target.

use std::hint::black_box;

use cordee_core::chat::server::Effect;
use cordee_core::ids::{Position, ScopeRef};
use cordee_core::log::{ChunkBuilder, Cursor, Items, Visibility};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[path = "../tests/rig/mod.rs"]
mod rig;
use rig::Rig;

const TARGETS: usize = 50;
/// Messages in a batch, which is one chunk.
const BATCH: usize = 64;

fn broadcast(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("broadcast");
    group.sample_size(20);
    for body_bytes in [64, 1_024] {
        let mut rig = Rig::new(TARGETS);
        let body = "x".repeat(body_bytes);
        let mut builder = ChunkBuilder::new(Position(0));
        let visibility = Visibility::Client(vec![ScopeRef(0)]);
        let mut cursors = vec![Cursor::new(Position(0), visibility, 0); TARGETS];
        group.throughput(Throughput::Elements((BATCH * TARGETS) as u64));
        group.bench_function(
            format!("1 to {TARGETS}, {body_bytes} B, {BATCH} at once"),
            |bencher| {
                bencher.iter(|| {
                    for _ in 0..BATCH {
                        rig.say(0, &body);
                        rig.out.drain(|effect, arena| {
                            if let Effect::Publish { frames, items } = effect {
                                builder.push(
                                    &arena[frames.range()],
                                    Items::new(&arena[items.range()]),
                                );
                            }
                        });
                    }
                    let chunk = builder.take();
                    for cursor in &mut cursors {
                        while let Some(range) = cursor.advance(&chunk, 256 << 10, chunk.end()) {
                            black_box(&chunk.frames()[range]);
                        }
                    }
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, broadcast);
criterion_main!(benches);
