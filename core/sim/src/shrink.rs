//! A plan that fails is made as short as can be: Zeller and Hildebrandt's ddmin (2002) over its acts.

use crate::plan::{Act, Plan};
use crate::story::{Failure, run};

/// The shortest plan that was found to break the same rule, in at most `runs_max` runs, and how it
/// fails. `None` when the plan does not fail.
#[must_use]
pub fn shrink(plan: &Plan, runs_max: usize) -> Option<(Plan, Failure)> {
    let first = run(plan, false).failure?;
    let mut runs = 0;
    let mut best = (plan.clone(), first);
    let mut parts = 2;
    while best.0.acts.len() > 1 && runs < runs_max {
        let size = best.0.acts.len().div_ceil(parts);
        let mut shorter = None;
        for part in 0..parts {
            let acts = without(&best.0.acts, part * size, size);
            if acts.len() == best.0.acts.len() || runs >= runs_max {
                continue;
            }
            runs += 1;
            let candidate = Plan { acts, ..best.0.clone() };
            let failure = run(&candidate, false).failure;
            if let Some(failure) = failure.filter(|failure| failure.rule == best.1.rule) {
                shorter = Some((candidate, failure));
                break;
            }
        }
        match shorter {
            Some(found) => {
                best = found;
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(best.0.acts.len()),
        }
    }
    Some(best)
}

fn without(acts: &[Act], from: usize, count: usize) -> Vec<Act> {
    let out = from..from.saturating_add(count);
    let rest = acts.iter().enumerate().filter(|(at, _)| !out.contains(at));
    rest.map(|(_, act)| *act).collect()
}
