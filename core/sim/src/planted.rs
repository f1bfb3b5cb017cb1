//! Deliberate faults of the machines: does the simulator find them, and how soon?

use cordee_core::planted::plant;

use crate::plan::Plan;
use crate::story::{Failure, run};

pub use cordee_core::planted::Planted;

/// Every deliberate fault must be found within so many seeds, from 0 on.
pub const SEEDS_MAX: u64 = 1_000;

/// Looks for a deliberate fault, in the worlds of the seeds from 0 on. How many it took, and what
/// was found; `None` when `seeds_max` were not enough. A world that fails without it proves nothing.
#[must_use]
pub fn hunt(fault: Planted, seeds_max: u64) -> Option<(u64, Failure)> {
    (0..seeds_max).find_map(|seed| {
        plant(Some(fault));
        let outcome = run(&Plan::new(seed), false);
        plant(None);
        let failure = outcome.failure?;
        let is_its = run(&Plan::new(seed), false).failure.is_none();
        is_its.then_some((seed + 1, failure))
    })
}
