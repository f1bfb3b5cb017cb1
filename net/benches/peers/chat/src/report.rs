//! Figures on standard output.

use std::fmt;
use std::io::Write;

use crate::shapes::Outcome;
use crate::shapes::idle::Memory;

/// Prints a line. Whoever closes the pipe wants no more of it.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A figure of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// What it says.
    pub(crate) name: &'static str,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// How much.
    pub(crate) value: f64,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = (self.value, self.unit);
        match value {
            _ if value >= 1_000_000.0 => write!(f, "{:.2} M{unit}", value / 1_000_000.0),
            _ if value >= 10_000.0 => write!(f, "{:.1} k{unit}", value / 1_000.0),
            _ if value >= 100.0 => write!(f, "{value:.0} {unit}"),
            _ => write!(f, "{value:.3} {unit}"),
        }
    }
}

/// The figures of a run, the ones that decide first.
pub(crate) trait Figures {
    /// In the same order for every run of a shape.
    fn figures(&self) -> Vec<Figure>;
}

impl Figures for Outcome {
    fn figures(&self) -> Vec<Figure> {
        let millions = self.amount / 1_000_000.0;
        let mut figures = vec![
            Figure { name: "rate", unit: "/s", value: self.amount / self.wall_s },
            Figure { name: "server CPU", unit: "s/M", value: self.server_cpu_s / millions },
            Figure { name: "client CPU", unit: "s/M", value: self.client_cpu_s / millions },
        ];
        if let Some((median, high)) = self.latency_us {
            figures.push(Figure { name: "p50", unit: "µs", value: f64::from(median) });
            figures.push(Figure { name: "p99", unit: "µs", value: f64::from(high) });
        }
        figures
    }
}

impl Figures for Memory {
    fn figures(&self) -> Vec<Figure> {
        let with = self.with_kernel_stacks_bytes;
        vec![
            Figure { name: "resident", unit: "B", value: self.resident_bytes },
            Figure { name: "with kernel stacks", unit: "B", value: with },
        ]
    }
}

/// The figures of a run on one line.
pub(crate) fn print_run(system: &str, figures: &[Figure]) {
    let figures: Vec<String> =
        figures.iter().map(|figure| format!("{} {figure}", figure.name)).collect();
    line(format_args!("    {system:<7} {}", figures.join(", ")));
}

/// The ratios of pairs: ours to theirs, all of them and their median.
pub(crate) fn print_ratios(pairs: &[(Vec<Figure>, Vec<Figure>)]) {
    let Some((first, _)) = pairs.first() else { return };
    for (at, figure) in first.iter().enumerate() {
        let ratio = |(theirs, ours): &(Vec<Figure>, Vec<Figure>)| {
            let (theirs, ours) = (theirs.get(at)?, ours.get(at)?);
            (theirs.value > 0.0).then_some(ours.value / theirs.value)
        };
        let mut ratios: Vec<f64> = pairs.iter().filter_map(ratio).collect();
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        if let Some(median) = ratios.get(ratios.len() / 2) {
            let name = figure.name;
            line(format_args!("  {name}: median ×{median:.3} of {}", each.join(" ")));
        }
    }
}
