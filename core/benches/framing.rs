//! Framing by size of pieces and of frames, and an entry written and read.

use std::hint::black_box;

use cordee_core::framing::{Deframer, FRAME_BYTES_MAX, frames, put_frame};
use cordee_core::ids::{AuthorId, Clock, OriginRef, SessionId, Tag};
use cordee_core::wire::entry::{Entry, Scope, flags};
use cordee_core::wire::{Message, Seq};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Bytes that go through the deframer in one measured run.
const STREAM_BYTES: usize = 1 << 20;

fn stream(frame_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < STREAM_BYTES {
        put_frame(&mut bytes, 0x33, |out| out.resize(out.len() + frame_bytes - 5, 7));
    }
    bytes
}

/// Reads `stream` as from a socket that gives `piece_bytes` at most, and returns what the frames
/// hold.
fn deframe(stream: &[u8], piece_bytes: usize) -> usize {
    let mut deframer = Deframer::new(FRAME_BYTES_MAX);
    let (mut rest, mut payload_bytes) = (stream, 0);
    while !rest.is_empty() {
        let space = deframer.space();
        let count = rest.len().min(piece_bytes).min(space.len());
        space[..count].copy_from_slice(&rest[..count]);
        deframer.filled(count);
        rest = &rest[count..];
        let ready = deframer.ready().expect("a valid stream");
        payload_bytes += frames(ready).map(|frame| frame.payload.len()).sum::<usize>();
        let taken = ready.len();
        deframer.consume(taken);
    }
    payload_bytes
}

fn bench_deframe(c: &mut Criterion) {
    for frame_bytes in [64, 1 << 10, 8 << 10, FRAME_BYTES_MAX] {
        let stream = stream(frame_bytes);
        let mut group = c.benchmark_group(format!("deframe/frames of {frame_bytes}"));
        group.throughput(Throughput::Bytes(stream.len() as u64));
        for piece_bytes in [1, 64, 1 << 10, 4 << 10, 64 << 10] {
            let id = BenchmarkId::new("pieces", piece_bytes);
            group.bench_function(id, |b| b.iter(|| deframe(black_box(&stream), piece_bytes)));
        }
        group.finish();
    }
}

fn entry(body: &str) -> Entry<'_> {
    Entry {
        origin: OriginRef(3),
        number: 123_456,
        clock: Clock(1_767_225_600_000_000),
        author: AuthorId { session: SessionId(1 << 63), process: 1 << 62 },
        author_number: 4_711,
        name: "ada",
        scope: Scope::Room("#all"),
        after: Seq::new(&[(OriginRef(0), 99_000), (OriginRef(1), 98_000)]),
        body,
        tag: Tag([7; 16]),
        index: 234_567,
        flags: flags::FINAL,
    }
}

fn bench_entry(c: &mut Criterion) {
    for body_bytes in [64, 1 << 10] {
        let body = "b".repeat(body_bytes);
        let mut frame = Vec::new();
        entry(&body).put_frame(&mut frame);
        let mut group = c.benchmark_group(format!("entry/body of {body_bytes}"));
        group.throughput(Throughput::Bytes(frame.len() as u64));
        let mut out = Vec::with_capacity(frame.len());
        group.bench_function("write", |b| {
            b.iter(|| {
                out.clear();
                black_box(entry(black_box(&body))).put_frame(&mut out);
                out.len()
            });
        });
        group.bench_function("read", |b| {
            b.iter(|| {
                let frame = frames(black_box(&frame)).next().expect("one frame");
                let entry = Entry::parse(frame.payload).expect("a valid entry");
                entry.after.iter().map(|(_, number)| number).sum::<u64>() + entry.index
            });
        });
        group.finish();
    }
}

criterion_group!(benches, bench_deframe, bench_entry);
criterion_main!(benches);
