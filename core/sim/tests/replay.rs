//! Servers die while a newcomer receives the archive, and others talk.

use cordee_core::Limits;
use cordee_sim::{Draw, Options, World};

const ARCHIVE: usize = 1_500;

/// Frames and windows so small that the archive comes in many pieces.
fn limits() -> Limits {
    Limits {
        frame_bytes_max: 9_000,
        body_bytes_max: 512,
        origins_max: 128,
        rooms_per_session_max: 8,
        members_max: 8,
        unacknowledged_max: 256,
        catch_up_bytes_max: 9_000,
        queue_bytes_max: 64 << 10,
        log_bytes_max: 16 * 9_000,
        ..Limits::default()
    }
}

fn run(seed: u64) {
    let draw = Draw::new(seed);
    let options = Options { servers: 3, limits: limits(), ..Options::default() };
    let mut world = World::new(seed, options);
    world.wait(5_000, "all servers link", World::is_meshed);
    let keepers: Vec<usize> =
        (0..3).map(|at| world.join_real(&format!("keeper{at}"), at)).collect();
    world.run_ms(1_000);
    for at in 0..ARCHIVE {
        let body = format!("{at} {}", "x".repeat(draw.below("length", &[at as u64], 300) as usize));
        world.say_real(keepers[draw.below("keeper", &[at as u64], 3) as usize], "#all", &body);
        if at % 50 == 0 {
            world.run_ms(5);
        }
    }
    world.run_ms(2_000);
    let newcomers: Vec<usize> =
        (0..3).map(|at| world.join_real(&format!("newcomer{at}"), at)).collect();
    for round in 0..6_u64 {
        for step in 0..draw.below("steps", &[round], 60) {
            let who = draw.below("who", &[round, step], 6) as usize;
            let who = if who < 3 { keepers[who] } else { newcomers[who - 3] };
            world.say_real(who, "#all", &format!("{round} {step}"));
            world.run(draw.below("pause", &[round, step], 2_000));
        }
        let victim = draw.below("victim", &[round], 3) as usize;
        if world.server(victim).is_up() {
            world.crash(victim);
        }
        world.run(draw.below("down", &[round], 400_000));
        if !world.server(victim).is_up() {
            world.start(victim);
        }
        world.run(draw.below("up", &[round], 3_000_000));
    }
    world.heal_and_judge_reals(30_000);
}

#[test]
fn a_newcomer_whose_server_dies_misses_nothing_of_the_archive() {
    for seed in seeds() {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed} failed");
    }
}

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("CORDEE_SEEDS").ok().and_then(|seeds| {
        let (from, to) = seeds.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    }) {
        Some(seeds) => seeds,
        None => 0..6,
    }
}
