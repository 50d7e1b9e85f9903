//! The table of rivals, one line each, and all figures as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::Rival;
use crate::Result;
use crate::bench::figures::{Figures, Quantity};
use crate::bench::machine::Machine;
use crate::bench::table::{json_line, number};

/// Columns of the table: quantity, unit and heading.
const COLUMNS: [(Quantity, &str, &str); 7] = [
    (Quantity::Stream1, "Gbit/s", "1 stream"),
    (Quantity::Stream8, "Gbit/s", "8 streams"),
    (Quantity::BothCpu, "s/GB", "CPU"),
    (Quantity::PingP50, "us", "ping p50"),
    (Quantity::PingP99, "us", "p99"),
    (Quantity::Connections, "1/s", "connections"),
    (Quantity::IdleRss, "MiB", "memory"),
];

/// Describes the conditions of the measurement.
pub(super) fn conditions(rounds: u32, secs: f64) -> String {
    format!(
        "wire: veth pair, MTU 1500, no segmentation offload, GRO at the receiver; medians of {rounds} rounds, \
         each transfer {secs} s; in parentheses the least and the greatest"
    )
}

/// Makes the table with a line for each rival. An asterisk marks figures with rounds in which the machine was
/// not idle.
pub(super) fn table(figures: &Figures<Rival>) -> String {
    let mut out = format!("{:<22}", "");
    for (quantity, unit, heading) in COLUMNS {
        let _ = write!(out, " {:>w$}", format!("{heading} {unit}"), w = width(quantity));
    }
    out.push('\n');
    let mut rivals: Vec<Rival> = figures.rows().map(|(_, rival, _)| rival).collect();
    rivals.sort_unstable();
    rivals.dedup();
    for rival in rivals {
        let _ = write!(out, "{rival:<22}");
        for (quantity, _, _) in COLUMNS {
            let cell = figures.row(quantity, rival).map_or("-".to_owned(), |row| {
                let mark = if row.disturbances.not_idle() > 0 { "*" } else { "" };
                let spread = row.spread;
                let [min, median, max] = [spread.min, spread.median, spread.max].map(number);
                match quantity {
                    Quantity::Stream1 => format!("{median} ({min}-{max}){mark}"),
                    _ => format!("{median}{mark}"),
                }
            });
            let _ = write!(out, " {cell:>w$}", w = width(quantity));
        }
        out.push('\n');
    }
    out
}

fn width(quantity: Quantity) -> usize {
    match quantity {
        Quantity::Stream1 => 20,
        Quantity::Connections | Quantity::Stream8 => 16,
        _ => 12,
    }
}

/// Writes the machine as the first line, then one JSON object per figure.
/// Fails if the file cannot be written.
pub(super) fn write_json(machine: &Machine, figures: &Figures<Rival>, path: &Path) -> Result<()> {
    let mut out = format!("{}\n", json!({ "machine": machine.json() }));
    for (quantity, rival, row) in figures.rows() {
        let (name, unit) = quantity.name_and_unit();
        writeln!(out, "{}", json_line(&format!("{name}.{}", rival.name()), unit, &row))?;
    }
    fs::write(path, out).map_err(|e| format!("cannot write {}: {e}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::idle::Disturbance;

    #[test]
    fn each_rival_has_a_line_and_what_was_not_measured_a_dash() {
        let mut figures = Figures::default();
        for (round, value) in [3.0, 1.0, 2.0].into_iter().enumerate() {
            figures.add(round, Quantity::Stream1, Rival::Tinc, (value, Disturbance::default()));
        }
        let busy = Disturbance { steal: 0.0, others: 0.5 };
        figures.add(0, Quantity::PingP50, Rival::Kernel, (50.0, busy));
        let text = table(&figures);
        let lines: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["kernel", "TCP,", "no", "cipher", "-", "-", "-", "50.0*", "-", "-", "-"]);
        assert_eq!(lines[1], ["tinc", "2.00", "(1.00-3.00)", "-", "-", "-", "-", "-", "-"]);
    }
}
