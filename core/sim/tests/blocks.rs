//! The scenarios that a fetch must come through near the ideal, and what each came to.
#![allow(clippy::print_stdout, reason = "a table, for those who want to see it")]

use std::sync::Mutex;

use cordee_core::blocks::scheduler::{Config, Fault};
use cordee_core::blocks::{BlockSet, Layout};
use cordee_sim::blocks::{
    Change, Ending, Fetch, MIB, Manner, Outcome, SourcePlan, draw_fetch, run_fetch,
};

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

/// Two sources of 20 MiB/s, 1 GiB; something is done to the first after a share of the time that
/// both need. What it goes on giving, in MiB/s.
fn disturbed(name: &str, share: f64, change: Change, left: f64) -> (f64, f64) {
    let length = 1 << 30;
    let mut fetch = fetch(length);
    let first = fetch.source(rate(20.0));
    fetch.source(rate(20.0));
    let both_us = length as f64 * 1e6 / (40.0 * MIB as f64);
    let at_us = both_us * share;
    fetch.change(at_us as u64, first, change);
    let outcome = fetch.run(3_600_000_000);
    assert_eq!(outcome.ending, Ending::Done, "{name}");
    let ideal_us = at_us + (both_us - at_us) * 40.0 / (20.0 + left);
    let ratio = print(name, length, &outcome, ideal_us);
    let wasted = outcome.wasted_bytes as f64 * 100.0 / length as f64;
    assert!(wasted <= 2.0, "{name}: {wasted} % came for nothing");
    (ratio, outcome.wall_us as f64 - ideal_us)
}

#[test]
fn one_of_two_that_falls_silent_is_noticed_in_under_half_a_second() {
    let (ratio, _) = disturbed("20 + 20, one frozen at 30 %", 0.3, Change::Freeze, 0.0);
    assert!(ratio <= 1.02, "{ratio}");
    let (_, late_us) = disturbed("20 + 20, one frozen at 97 %", 0.97, Change::Freeze, 0.0);
    assert!(late_us <= 400_000.0, "{late_us} us later than ideal");
    let (_, late_us) = disturbed("20 + 20, one frozen at 99.9 %", 0.999, Change::Freeze, 0.0);
    assert!(late_us <= 400_000.0, "{late_us} us later than ideal");
}

#[test]
fn one_of_two_that_dies_is_done_without() {
    for share in [0.01, 0.5, 0.97] {
        let name = format!("20 + 20, one killed at {} %", share * 100.0);
        let (ratio, _) = disturbed(&name, share, Change::Kill, 0.0);
        assert!(ratio <= 1.02, "{ratio}");
    }
}

#[test]
fn one_of_two_that_becomes_slow_is_helped() {
    for (share, left) in [(0.3, 1.0), (0.5, 0.02), (0.97, 0.5), (0.99, 0.02)] {
        let name = format!("20 + 20, one slows to {left} at {} %", share * 100.0);
        let change = Change::Rate((left * MIB as f64) as u64);
        let (ratio, _) = disturbed(&name, share, change, left);
        assert!(ratio <= 1.02, "{ratio}");
    }
}

#[test]
fn a_slow_source_does_not_hold_up_one_that_knows_no_limit() {
    let length = 1 << 30;
    let run = |rates: &[f64]| {
        let mut fetch = fetch(length);
        rates.iter().for_each(|mib_per_s| {
            fetch.source(rate(*mib_per_s));
        });
        fetch.run(3_600_000_000)
    };
    let alone = run(&[2_000.0]);
    let both = run(&[2_000.0, 1.0]);
    print("2000 + 1 MiB/s, beside 2000 alone", length, &both, alone.wall_us as f64);
    let late_us = both.wall_us.saturating_sub(alone.wall_us);
    assert!(late_us <= 50_000, "{late_us} us later than alone");
    // A new connection starts with one block, a round trip at a time.
    assert!(alone.wall_us < 580_000, "{} us of 512 ms", alone.wall_us);
}

#[test]
fn beside_one_good_source_the_bad_ones_of_every_kind_cost_nothing() {
    let bad = [
        Manner::Refuses,
        Manner::Mute,
        Manner::Says(Fault::Garbage),
        Manner::Says(Fault::Unknown),
        Manner::Says(Fault::Busy { retry_us: 5_000_000 }),
        Manner::Closes(10_000),
        Manner::Lies(100),
    ];
    let length = 256 << 20;
    for count in 1..=7 {
        for good in [0, count] {
            let mut fetch = fetch(length);
            for at in 0..=count {
                let manner = if at == good { Manner::Good } else { bad[(at + count) % bad.len()] };
                fetch.source(SourcePlan { manner, ..rate(20.0) });
            }
            let outcome = fetch.run(3_600_000_000);
            assert_eq!(outcome.ending, Ending::Done);
            let ideal_us = length as f64 * 1e6 / (20.0 * MIB as f64);
            let name = format!("one good of 20 among {} that are bad", count);
            let ratio = print(&name, length, &outcome, ideal_us);
            assert!(ratio <= 1.02, "{name}: {ratio}");
        }
    }
}

#[test]
fn a_rate_that_is_to_be_kept_is_kept_and_used() {
    let length = 64 << 20;
    let layout = Layout::new(length, BLOCK_BYTES).expect("a layout");
    let config = Config { limit_rate: Some(4 * MIB), ..Config::new(layout) };
    let mut fetch = Fetch::new(config, &BlockSet::new(layout.blocks()), 1);
    fetch.source(rate(20.0));
    fetch.source(rate(1.0));
    let outcome = fetch.run(3_600_000_000);
    let ratio = print("20 + 1, no more than 4 MiB/s", length, &outcome, 16e6);
    assert!((0.97..=1.03).contains(&ratio), "{ratio}");
}

#[test]
fn a_connection_for_each_block_and_in_order_work_and_cost_what_they_cost() {
    let length = 256 << 20;
    let layout = Layout::new(length, BLOCK_BYTES).expect("a layout");
    let plain = Config::new(layout);
    let per_block = Config { connection_per_block: true, ..plain.clone() };
    let two = Config { connections: Some(2), ..per_block.clone() };
    let sequential = Config { sequential: true, in_flight_bytes_max: 16 << 20, ..plain.clone() };
    for (name, config, most) in [
        ("20 + 20, a connection per block", per_block, 1.10),
        ("20 + 20, two connections at once per block", two, 1.05),
        ("20 + 20, in order, 16 MiB ahead", sequential, 1.02),
    ] {
        let mut fetch = Fetch::new(config, &BlockSet::new(layout.blocks()), 1);
        fetch.source(rate(20.0));
        fetch.source(rate(20.0));
        let outcome = fetch.run(3_600_000_000);
        assert_eq!(outcome.ending, Ending::Done, "{name}");
        let ratio = print(name, length, &outcome, length as f64 * 1e6 / (40.0 * MIB as f64));
        assert!(ratio <= most, "{name}: {ratio}");
    }
}

#[test]
fn only_what_is_missing_is_fetched() {
    let layout = Layout::new(100 << 20, BLOCK_BYTES).expect("a layout");
    let mut stored = BlockSet::new(layout.blocks());
    stored.insert_range(0..150);
    stored.insert_range(200..390);
    let mut fetch = Fetch::new(Config::new(layout), &stored, 1);
    fetch.source(rate(20.0));
    let outcome = fetch.run(3_600_000_000);
    assert_eq!(outcome.ending, Ending::Done);
    assert_eq!(outcome.bytes, [60 * u64::from(BLOCK_BYTES)]);
}

#[test]
fn far_sources_are_used_as_well_as_near_ones() {
    let length = 256 << 20;
    for latency_us in [5_000, 50_000, 150_000] {
        let mut fetch = fetch(length);
        fetch.source(SourcePlan { latency_us, ..rate(20.0) });
        fetch.source(SourcePlan { latency_us: 100, ..rate(5.0) });
        let outcome = fetch.run(3_600_000_000);
        let name = format!("20 at {} ms + 5 MiB/s", 2 * latency_us / 1_000);
        let ratio = print(&name, length, &outcome, length as f64 * 1e6 / (25.0 * MIB as f64));
        assert!(ratio <= 1.10, "{name}: {ratio}");
    }
}

#[test]
fn a_second_connection_stays_only_where_it_helps() {
    let length = 1 << 30;
    let mut shared = fetch(length);
    shared.source(rate(100.0));
    let outcome = shared.run(3_600_000_000);
    print("100 MiB/s, one link", length, &outcome, length as f64 * 1e6 / (100.0 * MIB as f64));
    assert_eq!(outcome.connects, 2, "one was tried and given up");
}

#[test]
fn whatever_sources_do_every_block_is_stored_once_or_everybody_is_named() {
    let (mut done, mut failed) = (0, 0);
    for seed in 0..400 {
        let outcome = std::panic::catch_unwind(|| run_fetch(&draw_fetch(seed), false));
        let outcome = outcome.unwrap_or_else(|_| panic!("soak_blocks --seed {seed}"));
        done += u32::from(outcome.ending == Ending::Done);
        failed += u32::from(outcome.ending == Ending::Failed);
    }
    assert!(done > 300 && failed > 10, "{done} done, {failed} failed");
}

#[test]
fn the_same_seed_gives_the_same_fetch() {
    for seed in 0..20 {
        let hash = || run_fetch(&draw_fetch(seed), false).hash;
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}
