//! The scenarios that a fetch must come through near the ideal, and what each came to.

use std::sync::Mutex;

use cordee_core::blocks::scheduler::{Config, Fault};
use cordee_core::blocks::{BlockSet, Layout};
use cordee_sim::blocks::{Change, Ending, Fetch, MIB, Manner, Outcome, SourcePlan};

const BLOCK_BYTES: u32 = 256 << 10;

fn fetch(length: u64) -> Fetch {
    let layout = Layout::new(length, BLOCK_BYTES).expect("a layout");
    Fetch::new(Config::new(layout), &BlockSet::new(layout.blocks()), 1)
}

fn rate(mib_per_s: f64) -> SourcePlan {
    SourcePlan::of_rate((mib_per_s * MIB as f64) as u64)
}

/// One line of the table at a time.
static TABLE: Mutex<()> = Mutex::new(());

fn print(name: &str, length: u64, outcome: &Outcome, ideal_us: f64) -> f64 {
    let ratio = outcome.wall_us as f64 / ideal_us;
    let wasted = outcome.wasted_bytes as f64 * 100.0 / length as f64;
    let _guard = TABLE.lock();
    println!(
        "{name:<44} {:>8.3} s, ideal {:>8.3} s: {ratio:.4}, wasted {wasted:.3} %, {} connections",
        outcome.wall_us as f64 / 1e6,
        ideal_us / 1e6,
        outcome.connects
    );
    ratio
}

/// Sources of these rates; wall ÷ ideal, and the share of bytes that were of no use in per cent.
fn steady(name: &str, rates: &[f64], length: u64) -> (f64, f64) {
    let mut fetch = fetch(length);
    for mib_per_s in rates {
        fetch.source(rate(*mib_per_s));
    }
    let outcome = fetch.run(3_600_000_000);
    assert_eq!(outcome.ending, Ending::Done, "{name}");
    let ideal_us = length as f64 * 1e6 / (rates.iter().sum::<f64>() * MIB as f64);
    let ratio = print(name, length, &outcome, ideal_us);
    (ratio, outcome.wasted_bytes as f64 * 100.0 / length as f64)
}

#[test]
fn a_slow_source_beside_a_fast_one_costs_nothing() {
    for (name, rates, length) in [
        ("20 + 20 MiB/s", &[20.0, 20.0][..], 1 << 30),
        ("20 + 1 MiB/s", &[20.0, 1.0], 1 << 30),
        ("20 + 0.02 MiB/s", &[20.0, 0.02], 1 << 30),
        ("200 + 1 MiB/s", &[200.0, 1.0], 4 << 30),
        ("10 + 5 + 2 + 0.1 MiB/s", &[10.0, 5.0, 2.0, 0.1], 1 << 30),
        ("20 + 1 MiB/s, 64 MiB", &[20.0, 1.0], 64 << 20),
        ("1 + 20 MiB/s, 64 MiB", &[1.0, 20.0], 64 << 20),
        ("20 + 0.02 MiB/s, 64 MiB", &[20.0, 0.02], 64 << 20),
        ("eight of 10 MiB/s", &[10.0; 8], 1 << 30),
        ("1 MiB/s alone", &[1.0], 16 << 20),
        ("0.02 MiB/s alone", &[0.02], 1 << 20),
    ] {
        let (ratio, wasted) = steady(name, rates, length);
        assert!(ratio <= 1.05, "{name}: {ratio}");
        assert!(wasted <= 0.5, "{name}: {wasted} % came for nothing");
    }
}
