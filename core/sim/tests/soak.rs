//! Worlds drawn from seeds: a fixed set of them, and what the soak relies on.

use cordee_sim::{Fault, Habit, Plan, Planted, Rule, Tally, hunt, run, shrink};

/// Seeds that every test run goes through; the soak runs new ones.
const SEEDS: std::ops::Range<u64> = 0..100;

#[test]
fn everything_holds_in_every_world_of_a_fixed_set() {
    let mut tally = Tally::default();
    let mut faults = [0; Fault::ALL.len()];
    for seed in SEEDS {
        let outcome = run(&Plan::new(seed), false);
        let failure = outcome.failure;
        assert!(
            failure.is_none(),
            "cargo run --release -p cordee-sim --bin soak -- --seed {seed} --trace\n{failure:#?}"
        );
        tally.add(&outcome.tally);
        for (sum, count) in faults.iter_mut().zip(outcome.faults) {
            *sum += count;
        }
    }
    for rule in Rule::ALL {
        assert!(tally.of(*rule) > 0, "{rule:?} was never looked at");
    }
    for (fault, count) in Fault::ALL.iter().zip(faults) {
        assert!(count > 0, "{fault:?} never happened");
    }
}

/// What they showed is said in the history of the changes that mended it; the shortest of them
/// have scenarios of their own in `regressions.rs`.
#[test]
fn seeds_that_failed_once_hold() {
    for seed in [
        180, 192, 685, 926, 990, 1_686, 1_725, 1_759, 2_122, 2_431, 4_636, 5_416, 5_979, 6_172,
        6_436, 7_832, 8_580,
    ] {
        let failure = run(&Plan::new(seed), false).failure;
        assert_eq!(failure, None, "seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_trace_whatever_the_profile() {
    let pinned = [
        (3, 0x042c_eef7_6f3b_8b9d),
        (7, 0xa283_0215_5899_31f0),
        (17, 0xc676_24d9_aac6_73db),
        (2_026, 0x3d29_1c14_7ab3_f713),
    ];
    for (seed, hash) in pinned {
        let outcome = run(&Plan::new(seed), false);
        assert_eq!(outcome.hash, hash, "seed {seed}: {:#x}", outcome.hash);
        assert_eq!(outcome.hash, run(&Plan::new(seed), true).hash, "told or not");
    }
}

#[test]
fn each_seed_switches_on_faults_and_habits_of_its_own() {
    let plans: Vec<Plan> = (0..200).map(Plan::new).collect();
    for fault in Fault::ALL {
        let with = plans.iter().filter(|plan| plan.faults.contains(fault)).count();
        assert!((5..150).contains(&with), "{fault:?} in {with} of 200");
    }
    for habit in Habit::ALL {
        let with = plans.iter().filter(|plan| plan.habits.contains(habit)).count();
        assert!((5..150).contains(&with), "{habit:?} in {with} of 200");
    }
    assert!(plans.iter().any(|plan| plan.faults.is_empty()));
    assert!(plans.iter().any(|plan| plan.core.is_some()));
}

#[test]
fn leaving_an_act_out_changes_no_other() {
    let plan = Plan::new(5);
    let numbers: Vec<u64> = plan.acts.iter().map(|act| act.number).collect();
    let distinct: std::collections::BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), numbers.len(), "each is drawn by its own number");
    let acts: Vec<_> = plan.acts.iter().copied().step_by(2).collect();
    let half = run(&Plan { acts, ..plan.clone() }, false);
    assert_eq!(half.failure, None);
    assert_ne!(half.hash, run(&plan, false).hash);
}

#[test]
fn a_failing_world_is_made_shorter_and_still_fails() {
    cordee_core::planted::plant(Some(Planted::CopyTooMany));
    let plan = Plan::new(0);
    let (short, failure) = shrink(&plan, 60).expect("it fails");
    cordee_core::planted::plant(None);
    assert!(short.acts.len() * 10 <= plan.acts.len(), "{} acts left", short.acts.len());
    assert_eq!(failure.rule, Rule::Copies.code());
    assert_eq!(run(&short, false).failure, None, "without the fault it does not fail");
}

/// All of them: `soak --planted`.
#[test]
fn deliberate_faults_are_found() {
    for (fault, seeds_max) in [
        (Planted::AckBeforeStored, 4),
        (Planted::CopyTooMany, 4),
        (Planted::AckNext, 4),
        (Planted::CopyTooFew, 8),
        (Planted::ForgetDuplicate, 8),
        (Planted::PullTooLate, 4),
        (Planted::NoPull, 4),
        (Planted::PullFromOrigin, 4),
        (Planted::ReuseOrigin, 4),
        (Planted::IgnoreCause, 8),
        (Planted::NameKept, 4),
        (Planted::MtTwice, 4),
        (Planted::SilentDeparture, 4),
        (Planted::ShortGrace, 4),
        (Planted::WallInTimer, 4),
        (Planted::NoBackfill, 4),
        (Planted::ResumeTooFar, 8),
        (Planted::RoomUnheard, 4),
        (Planted::Chatter, 4),
        (Planted::DeadlineStays, 4),
        (Planted::NoResend, 8),
    ] {
        let found = hunt(fault, seeds_max);
        assert!(found.is_some(), "{fault:?} within {seeds_max} seeds");
    }
}
