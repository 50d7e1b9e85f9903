//! The results as a table for people and as JSON lines for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::figures::{Contender, Figures, Quantity, Row, Spread};
use super::network::Mode;
use crate::Result;

/// Comparison of a figure.
struct Target {
    quantity: Quantity,
    of: Contender,
    /// Divisor of the figure, within each round; None compares the figure itself.
    to: Option<(Quantity, Contender)>,
    bound: Bound,
    /// True if the comparison is fair only in wire mode, where the sides are like two machines.
    wire_only: bool,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// No target; the ratio is for information.
    None,
}

impl Bound {
    fn verdict(self, value: f64) -> String {
        match self {
            Bound::AtLeast(least) => {
                format!(">= {least:<5} {}", if value >= least { "ok" } else { "MISSED" })
            }
            Bound::AtMost(most) => format!("<= {most:<5} {}", if value <= most { "ok" } else { "MISSED" }),
            Bound::None => String::new(),
        }
    }
}

/// Targets of the project's present stage.
const TARGETS: &[Target] = &[
    Target::ratio(Quantity::Stream1, Contender::Peersock, Contender::Limit, Bound::AtLeast(1.15)).on_wire(),
    Target::ratio(Quantity::Stream1, Contender::Peersock, Contender::Kernel, Bound::AtLeast(0.95)).on_wire(),
    Target::ratio(Quantity::Stream1, Contender::Peersock, Contender::Quinn, Bound::None),
    Target::within(Quantity::Stream8, Quantity::Stream1, Contender::Peersock, Bound::AtLeast(1.0)).on_wire(),
    Target::ratio(Quantity::Stream8, Contender::Peersock, Contender::Kernel, Bound::AtLeast(0.9)).on_wire(),
    Target::ratio(Quantity::BothCpu, Contender::Peersock, Contender::Limit, Bound::AtMost(1.15)).on_wire(),
    Target::ratio(Quantity::Stream1, Contender::PeersockChacha, Contender::Limit, Bound::AtLeast(0.65))
        .on_wire(),
    Target::ratio(Quantity::Faults, Contender::Peersock, Contender::Limit, Bound::None),
    Target::within(Quantity::Stream1Busy, Quantity::Stream1, Contender::Kernel, Bound::None),
    // It should not fall more than the kernel TCP figure.
    Target::within(Quantity::Stream1Busy, Quantity::Stream1, Contender::Peersock, Bound::None),
    Target::ratio(Quantity::PingP50, Contender::Peersock, Contender::Kernel, Bound::AtMost(1.0)).on_wire(),
    Target::ratio(Quantity::PingP99, Contender::Peersock, Contender::Kernel, Bound::AtMost(1.1)).on_wire(),
    Target::figure(Quantity::PingP50, Contender::PeersockBusy, Bound::AtMost(10.0)).on_wire(),
    Target::ratio(Quantity::Connections, Contender::Peersock, Contender::Kernel, Bound::AtLeast(0.8))
        .on_wire(),
    Target::figure(Quantity::Switches, Contender::Peersock, Bound::AtMost(4.0)).on_wire(),
    Target::ratio(Quantity::Requests, Contender::Peersock, Contender::Kernel, Bound::AtLeast(0.8)).on_wire(),
    Target::within(Quantity::Message10k, Quantity::Message10, Contender::Kernel, Bound::None),
    Target::within(Quantity::Message10k, Quantity::Message10, Contender::Peersock, Bound::AtMost(1.2))
        .on_wire(),
    Target::ratio(Quantity::Datagrams, Contender::Peersock, Contender::Limit, Bound::AtLeast(0.9)).on_wire(),
    Target::ratio(Quantity::Stream1, Contender::PeersockFd, Contender::Peersock, Bound::AtLeast(0.85))
        .on_wire(),
    Target::ratio(Quantity::Stream8, Contender::PeersockFd, Contender::Peersock, Bound::None),
    Target::ratio(Quantity::PingP50, Contender::PeersockFd, Contender::Peersock, Bound::None),
    Target::ratio(Quantity::Connections, Contender::PeersockFd, Contender::Peersock, Bound::AtLeast(0.75))
        .on_wire(),
    Target::figure(Quantity::HeldRss, Contender::PeersockFd, Bound::AtMost(64.0)),
    Target::figure(Quantity::FirstByte, Contender::Peersock, Bound::AtMost(500.0)),
    Target::figure(Quantity::Recovery, Contender::Peersock, Bound::AtMost(1000.0)),
    Target::figure(Quantity::IdleRss, Contender::Peersock, Bound::AtMost(6.0)),
    Target::figure(Quantity::IdleCpu, Contender::Peersock, Bound::AtMost(0.01)),
];

/// Returns the whole table.
pub(crate) fn table(figures: &Figures, mode: Mode) -> String {
    let mut out = String::new();
    line(&mut out, ["figure", "unit", "of", "min", "median", "max", "steal %", "others %", ""]);
    let mut last = None;
    for (quantity, contender, row) in figures.rows() {
        let (_, unit) = quantity.name_and_unit();
        let new = last.replace(quantity) != Some(quantity);
        let figure = if new { quantity.to_string() } else { String::new() };
        row_line(&mut out, &figure, if new { unit } else { "" }, &contender.to_string(), &row, "");
    }
    let compared: Vec<_> = TARGETS.iter().filter_map(|t| Some((t, t.row(figures)?))).collect();
    if compared.is_empty() {
        return out;
    }
    line(&mut out, ["", "", "", "", "", "", "", "", ""]);
    line(&mut out, ["compared", "", "", "min", "median", "max", "steal %", "others %", "target (median)"]);
    for (target, row) in compared {
        let (_, unit) = target.quantity.name_and_unit();
        let (unit, with) = match target.to {
            Some((quantity, to)) if quantity == target.quantity => {
                ("ratio", format!("{} / {}", target.of.name(), to.name()))
            }
            Some((quantity, _)) => ("ratio", format!("{} / {}", target.of.name(), quantity.divisor())),
            None => (unit, target.of.to_string()),
        };
        let verdict = if target.wire_only && mode != Mode::Wire {
            "(target is for wire mode)".to_owned()
        } else {
            target.bound.verdict(row.spread.median)
        };
        row_line(&mut out, &target.quantity.to_string(), unit, &with, &row, &verdict);
    }
    out
}

/// Writes `head` as the first line, then one JSON object per figure and per ratio.
/// Fails if the file cannot be written.
pub(crate) fn write_json(head: &Value, figures: &Figures, path: &Path) -> Result<()> {
    let mut out = format!("{head}\n");
    for (quantity, contender, row) in figures.rows() {
        let (name, unit) = quantity.name_and_unit();
        writeln!(out, "{}", json_line(&format!("{name}.{}", contender.name()), unit, &row))?;
    }
    for target in TARGETS {
        if let (Some((quantity, to)), Some(row)) = (target.to, target.row(figures)) {
            let (name, _) = target.quantity.name_and_unit();
            let to = if quantity == target.quantity { to.name() } else { quantity.name_and_unit().0 };
            let name = format!("{name}.{}_to_{to}", target.of.name());
            writeln!(out, "{}", json_line(&name, "ratio", &row))?;
        }
    }
    fs::write(path, out).map_err(|e| format!("cannot write {}: {e}", path.display()).into())
}

/// Returns a figure as JSON. Steal and others are in percent of one processor.
pub(super) fn json_line(name: &str, unit: &str, row: &Row) -> Value {
    let Spread { min, median, max } = row.spread;
    let [steal, others] = row.disturbances.spreads().unwrap_or_default();
    json!({
        "name": name, "unit": unit, "min": min, "median": median, "max": max,
        "rounds": row.disturbances.len(), "not_idle": row.disturbances.not_idle(),
        "steal": { "median": steal.median, "max": steal.max },
        "others": { "median": others.median, "max": others.max },
    })
}

impl Target {
    const fn ratio(quantity: Quantity, of: Contender, to: Contender, bound: Bound) -> Target {
        Target { quantity, of, to: Some((quantity, to)), bound, wire_only: false }
    }

    /// Makes a target for two figures of one contender.
    const fn within(quantity: Quantity, to: Quantity, of: Contender, bound: Bound) -> Target {
        Target { quantity, of, to: Some((to, of)), bound, wire_only: false }
    }

    const fn figure(quantity: Quantity, of: Contender, bound: Bound) -> Target {
        Target { quantity, of, to: None, bound, wire_only: false }
    }

    const fn on_wire(self) -> Target {
        Target { wire_only: true, ..self }
    }

    fn row(&self, figures: &Figures) -> Option<Row> {
        match self.to {
            Some(to) => figures.ratio((self.quantity, self.of), to),
            None => figures.row(self.quantity, self.of),
        }
    }
}

fn row_line(out: &mut String, figure: &str, unit: &str, of: &str, row: &Row, verdict: &str) {
    let [min, median, max] = [row.spread.min, row.spread.median, row.spread.max].map(number);
    let [steal, others] = row.disturbances.columns();
    let mark = row.disturbances.mark();
    let note = if verdict.is_empty() { mark } else { format!("{verdict:<17} {mark}") };
    line(out, [figure, unit, of, &min, &median, &max, &steal, &others, &note]);
}

fn line(out: &mut String, [figure, unit, of, min, median, max, steal, others, note]: [&str; 9]) {
    let text = format!(
        "{figure:<23} {unit:<12} {of:<22} {min:>9} {median:>9} {max:>9} {steal:>9} {others:>11}  {note}"
    );
    out.push_str(text.trim_end());
    out.push('\n');
}

/// Formats three significant digits.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::idle::Disturbance;

    const IDLE: Disturbance = Disturbance { steal: 0.0, others: 0.01 };
    const BUSY: Disturbance = Disturbance { steal: 0.02, others: 1.5 };

    /// Makes figures in which peersock has 0.9 of the limit and 1.2 of the kernel rate.
    fn figures() -> Figures {
        let mut figures = Figures::default();
        for (contender, value) in
            [(Contender::Limit, 10.0), (Contender::Kernel, 7.5), (Contender::Peersock, 9.0)]
        {
            figures.add(0, Quantity::Stream1, contender, (value, IDLE));
        }
        figures
    }

    #[test]
    fn targets_are_judged_like_two_machines_only() {
        let lines = |mode| table(&figures(), mode).lines().map(str::to_owned).collect::<Vec<_>>();
        let verdicts =
            |mode| lines(mode).iter().filter(|l| l.ends_with("ok") || l.ends_with("MISSED")).count();
        assert_eq!(verdicts(Mode::Wire), 2);
        assert_eq!(verdicts(Mode::Loopback), 0);
        let line = |of: &str| lines(Mode::Wire).into_iter().find(|l| l.contains(of)).unwrap_or_default();
        assert!(line("peersock / limit").ends_with(">= 1.15  MISSED"), "{}", line("peersock / limit"));
        assert!(line("peersock / kernel").ends_with(">= 0.95  ok"), "{}", line("peersock / kernel"));
    }

    #[test]
    fn json_has_one_object_per_figure_and_ratio() {
        let path = std::env::temp_dir().join(format!("peersock-xtask-{}.jsonl", std::process::id()));
        let head = json!({ "measurements": 3 });
        write_json(&head, &figures(), &path).expect("a writable folder");
        let text = fs::read_to_string(&path).expect("just written");
        fs::remove_file(&path).expect("just written");
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!(lines.len(), 1 + 3 + 2);
        assert_eq!(lines[0], head);
        let ratio = lines.iter().find(|l| l["name"] == "goodput_1_stream.peersock_to_limit");
        assert_eq!(ratio.map(|l| (&l["unit"], &l["median"])), Some((&json!("ratio"), &json!(0.9))));
    }

    #[test]
    fn rounds_that_were_not_idle_are_marked_in_their_lines() {
        let mut figures = figures();
        figures.add(1, Quantity::Stream1, Contender::Peersock, (7.0, BUSY));
        figures.add(1, Quantity::Stream1, Contender::Limit, (10.0, IDLE));
        let text = table(&figures, Mode::Wire);
        let marked: Vec<&str> = text.lines().filter(|line| line.contains('*')).collect();
        let [figure, to_limit] = marked[..] else { panic!("{text}") };
        assert!(figure.ends_with(" 1.0/2.0  75.5/150.0  * 1 of 2 not idle"), "{figure}");
        assert!(to_limit.contains("peersock / limit"), "{to_limit}");
        // The kernel was not measured in that round, so this ratio has no disturbance from it.
        assert!(to_limit.ends_with(">= 1.15  MISSED   * 1 of 2 not idle"), "{to_limit}");
    }

    #[test]
    fn json_has_how_many_rounds_were_disturbed() {
        let row = Row::of([(3.0, IDLE), (1.0, BUSY), (2.0, BUSY)]).expect("rounds");
        let line = json_line("a", "s", &row);
        assert_eq!((&line["rounds"], &line["not_idle"]), (&json!(3), &json!(2)));
        assert_eq!(line["others"], json!({ "median": 150.0, "max": 150.0 }));
        assert_eq!(line["steal"]["median"], json!(2.0));
    }
}
