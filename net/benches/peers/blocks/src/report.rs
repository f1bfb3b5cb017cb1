//! Rows on standard output: what was measured, what must be, what is aimed at.

use std::fmt;
use std::io::Write;

/// Prints a line. Whoever closes the pipe wants no more of it.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What a figure is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// At most: must, goal.
    Most(f64, f64),
    /// At least: must, goal.
    Least(f64, f64),
    /// Nothing: it is only told.
    Told,
}

/// Prints a row: the median of the runs or pairs, and each of them. Whether the must is reached.
pub(crate) fn row(name: &str, unit: &str, each: &[f64], bound: Bound) -> bool {
    let mut sorted = each.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let Some(&median) = sorted.get(sorted.len() / 2) else {
        line(format_args!("{name:<48} not measured"));
        return true;
    };
    let (reached, wanted) = match bound {
        Bound::Most(must, goal) => (median <= must, format!("must ≤ {must} goal ≤ {goal}")),
        Bound::Least(must, goal) => (median >= must, format!("must ≥ {must} goal ≥ {goal}")),
        Bound::Told => (true, String::new()),
    };
    let verdict = match (bound, reached) {
        (Bound::Told, _) => "",
        (_, true) => "reached",
        (_, false) => "MISSED",
    };
    let each: Vec<String> = each.iter().map(|value| format!("{value:.3}")).collect();
    let each = each.join(" ");
    line(format_args!("{name:<48} {median:9.3} {unit:<8} {wanted:<24} {verdict:<8} of {each}"));
    reached
}
