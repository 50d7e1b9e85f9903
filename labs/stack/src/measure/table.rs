//! Figures as a table for people and as JSON lines for programs.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde_json::json;

use super::{Figure, Target};

/// Returns the whole table.
pub fn table(figures: &[Figure]) -> String {
    let mut out = String::new();
    row(&mut out, ["figure", "unit", "min", "median", "max", "target"].map(str::to_owned));
    for figure in figures {
        let [min, median, max] = [figure.min(), figure.median(), figure.max()].map(number);
        let verdicts = figure.targets.iter().map(|target| verdict(figure, *target));
        let verdicts = verdicts.collect::<Vec<_>>().join(", ");
        row(&mut out, [figure.name.clone(), figure.unit.to_owned(), min, median, max, verdicts]);
    }
    out
}

/// Writes one JSON object per figure: name, unit, min, median, max.
/// Fails if writing the file fails.
pub fn write_json(figures: &[Figure], path: &Path) -> io::Result<()> {
    let mut out = String::new();
    for figure in figures {
        let line = json!({
            "name": figure.name,
            "unit": figure.unit,
            "min": figure.min(),
            "median": figure.median(),
            "max": figure.max(),
        });
        out.push_str(&line.to_string());
        out.push('\n');
    }
    std::fs::write(path, out)
}

fn verdict(figure: &Figure, target: Target) -> String {
    let text = match target {
        Target::Median(least) => format!("median >= {least}"),
        Target::MedianUnder(bound) => format!("median < {bound}"),
        Target::Worst(least) => format!("min >= {least}"),
        Target::AllAtMost(most) => format!("max <= {most}"),
        Target::WorstOverHalfMedian => "min > median/2".to_owned(),
        Target::AimMedian(least) => format!("aim median >= {least}"),
        Target::AimMedianUnder(bound) => format!("aim median < {bound}"),
    };
    let missed = if target.is_required() { "MISS" } else { "not yet" };
    format!("{text} {}", if figure.meets(target) { "ok" } else { missed })
}

fn row(out: &mut String, [name, unit, min, median, max, note]: [String; 6]) {
    let mut line = String::new();
    let _ = write!(line, "{name:<55} {unit:<13} {min:>8} {median:>8} {max:>8}  {note}");
    out.push_str(line.trim_end());
    out.push('\n');
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_printed_with_its_verdict() {
        let targets = [Target::Median(0.5), Target::WorstOverHalfMedian];
        let figure = Figure::new("goodput_share/x", "of capacity", vec![0.1, 0.6, 0.7], &targets);
        let text = table(&[figure]);
        assert!(text.ends_with("median >= 0.5 ok, min > median/2 MISS\n"), "{text}");
    }
}
