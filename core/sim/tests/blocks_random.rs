//! Fetches of many seeds: whatever sources do, what must hold holds.

use cordee_sim::blocks::{Ending, draw_fetch, run_fetch};

#[test]
fn whatever_sources_do_every_block_is_stored_once_or_everybody_is_named() {
    let (mut done, mut failed) = (0, 0);
    let seeds: std::ops::Range<u64> = match std::env::var("SEEDS") {
        Ok(s) => {
            let (a, b) = s.split_once("..").unwrap();
            a.parse().unwrap()..b.parse().unwrap()
        }
        Err(_) => 0..400,
    };
    let one = seeds.end - seeds.start == 1;
    let mut bad = Vec::new();
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run_fetch(&draw_fetch(seed), one));
        let Ok(outcome) = outcome else {
            println!("seed {seed}");
            bad.push(seed);
            if bad.len() > 5 {
                break;
            }
            continue;
        };
        match outcome.ending {
            Ending::Done => done += 1,
            _ => failed += 1,
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
    assert!(done > 300 && failed > 10, "{done} done, {failed} failed");
}
