//! `cargo xtask cells`: runs processes behind every pair of kinds of NATs, in network namespaces, and writes
//! the results into `docs/measured/CELLS.md`.
//!
//! The tests are `cli/tests/program/cells`. Each writes a line of JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use crate::{Result, cargo, root};

/// Text for `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask cells --write             all cells; writes the results into docs/measured/CELLS.md
  cargo xtask cells --only all::ei_apd  some of them

This needs root.";

/// Kinds of the table, in its order.
const KINDS: [&str; 17] = [
    "open",
    "ei-ei",
    "ei-ad",
    "ei-apd",
    "apd-apd",
    "apd-apd+",
    "20s",
    "double",
    "cgn",
    "cgn-apd",
    "no-udp",
    "only-443",
    "ip6",
    "ip6-fw",
    "dual",
    "nat66",
    "nat66-apd",
];

/// Heading of the section in the document. The simulator's command preserves it and all text below it.
const HEADING: &str = "\n## Real processes\n";

/// Options of `cells`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run only tests with TEXT in their names
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Run N tests at a time
    #[arg(long, value_name = "N", default_value_t = 3)]
    jobs: usize,
    /// Write the table into docs/measured/CELLS.md
    #[arg(long)]
    write: bool,
}

/// Result of one test.
#[derive(Deserialize)]
struct Seen {
    kinds: [String; 2],
    expected: String,
    direct: bool,
    first_byte_ms: u64,
    direct_ms: Option<u64>,
    /// Time until the dialling program was registered at a root, and so could begin.
    ready_ms: Option<u64>,
    /// Bytes that the roots have relayed for both, until the end.
    relayed: Option<u64>,
}

/// Runs the cells and prints the table. Returns false if a result was unexpected.
/// Fails if there are no results, or a file cannot be written.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let results = root().join("target/cells.jsonl");
    let _ = fs::remove_file(&results);
    let mut command = cargo();
    // Test the whole workspace, as the other tests do: a package alone has other features, which would force
    // a rebuild.
    command.args(["test", "--workspace", "--test", "program", "--"]);
    command.args(["--ignored", "--test-threads", &options.jobs.to_string(), "--skip", "selection"]);
    command.arg(format!("cells::{}", options.only)).env("PEERSOCK_CELLS", &results);
    let success = command.status()?.success();
    let text = fs::read_to_string(&results).map_err(|_| "no test has seen anything: are they skipped?")?;
    let seen: Vec<Seen> = text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let section = section(&seen);
    println!("{section}");
    let missed = missed(&seen);
    for what in &missed {
        eprintln!("{what}");
    }
    if options.write {
        let path: PathBuf = root().join("docs/measured/CELLS.md");
        let old = fs::read_to_string(&path)?;
        let simulated = old.split_once(HEADING).map_or(old.as_str(), |(before, _)| before);
        fs::write(&path, format!("{simulated}{section}"))?;
    }
    Ok(success && missed.is_empty())
}

/// Promised times of the cells whose path becomes direct without a search by many ports.
const DIRECT_IN_THE_MEDIAN: u64 = 1000;
const DIRECT_ALWAYS: u64 = 5000;
/// Three round trips of 30 ms to a root, and 200 ms.
const FIRST_BYTE: u64 = 3 * 30 + 200;
const RELAYED: u64 = 4096;

/// Allowance for a busy machine, because all concurrent tests share its processors.
const SLACK: u64 = 500;

/// Returns the missed targets as texts. Each target holds in the median, and the direct time also has a
/// maximum. Other work on the machine adds to the times.
fn missed(all: &[Seen]) -> Vec<String> {
    let figures = Figures::of(all);
    let checks = [
        ("direct in the median, ms", figures.direct, DIRECT_IN_THE_MEDIAN + SLACK),
        ("direct at most, ms", figures.direct_at_most, DIRECT_ALWAYS + SLACK),
        ("first byte after the registration in the median, ms", figures.first_byte, FIRST_BYTE + SLACK),
        ("relayed before a direct path in the median, bytes", figures.relayed, RELAYED),
    ];
    let is_missed = |(_, seen, bound): &&(&str, Option<u64>, u64)| seen.is_some_and(|seen| seen > *bound);
    let say = |(what, seen, bound): &(&str, Option<u64>, u64)| {
        format!("{what}: {}, and {bound} is the bound", seen.unwrap_or_default())
    };
    checks.iter().filter(is_missed).map(say).collect()
}

/// Figures for the targets.
struct Figures {
    direct: Option<u64>,
    direct_at_most: Option<u64>,
    /// Time until the first byte over a relay, from the moment when the dialling program could begin.
    first_byte: Option<u64>,
    relayed: Option<u64>,
}

impl Figures {
    fn of(all: &[Seen]) -> Self {
        let is_punched = |seen: &&Seen| seen.expected == "direct" && seen.direct;
        let direct = || all.iter().filter(is_punched).filter_map(|seen| seen.direct_ms);
        // Saturate at zero: a byte cannot come earlier, and the registration time is known only to some
        // milliseconds.
        let waited = |seen: &Seen| Some(seen.first_byte_ms.saturating_sub(seen.ready_ms?));
        // Without UDP the node opens a stream first, after a second without an answer.
        let by_stream = |seen: &&Seen| seen.kinds.iter().any(|kind| STREAM_KINDS.contains(&kind.as_str()));
        let first_bytes = all.iter().filter(|seen| !by_stream(seen)).filter_map(waited);
        let relayed = all.iter().filter(is_punched).filter(|seen| !by_stream(seen));
        Self {
            direct: median(direct().collect()),
            direct_at_most: direct().max(),
            first_byte: median(first_bytes.collect()),
            relayed: median(relayed.filter_map(|seen| seen.relayed).collect()),
        }
    }
}

/// Kinds whose nodes reach roots by streams.
const STREAM_KINDS: [&str; 2] = ["no-udp", "only-443"];

fn median(mut numbers: Vec<u64>) -> Option<u64> {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied()
}

/// Returns the section of the document.
fn section(all: &[Seen]) -> String {
    let by_kinds: BTreeMap<[&str; 2], &Seen> =
        all.iter().map(|seen| ([seen.kinds[0].as_str(), seen.kinds[1].as_str()], seen)).collect();
    let mut out = format!("{HEADING}{INTRODUCTION}");
    let _ = writeln!(out, "| | {} |\n|---|{}", KINDS.join(" | "), "---|".repeat(KINDS.len()));
    for row in KINDS {
        let entry = |column| by_kinds.get(&[row, column]).or_else(|| by_kinds.get(&[column, row]));
        let cells = KINDS.map(|column| entry(column).map_or(String::new(), |seen| seen.entry()));
        let _ = writeln!(out, "| **{row}** | {} |", cells.join(" | "));
    }
    out += "\n| others | |\n|---|---|\n";
    for (kinds, seen) in by_kinds.iter().filter(|(kinds, _)| kinds.iter().any(|kind| !KINDS.contains(kind))) {
        let _ = writeln!(out, "| {} | {} |", kinds[0], seen.entry());
    }
    out += TARGETS;
    let figures = Figures::of(all);
    let or_none = |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    for (what, target, seen) in [
        ("direct in the median, ms", DIRECT_IN_THE_MEDIAN, figures.direct),
        ("direct at most, ms", DIRECT_ALWAYS, figures.direct_at_most),
        ("first byte over a relay in the median, ms", FIRST_BYTE, figures.first_byte),
        ("bytes relayed before a direct path in the median", RELAYED, figures.relayed),
    ] {
        let _ = writeln!(out, "| {what} | {target} | {} |", or_none(seen));
    }
    let first = all.iter().map(|seen| seen.first_byte_ms).collect();
    let direct = all.iter().filter_map(|seen| seen.direct_ms).collect();
    let _ = writeln!(
        out,
        "\n{} cells, {} of them direct. Median and greatest, in milliseconds: first byte {}; direct {}.",
        all.len(),
        all.iter().filter(|seen| seen.direct).count(),
        spread(first),
        spread(direct),
    );
    out
}

impl Seen {
    fn entry(&self) -> String {
        let is_wrong = match self.expected.as_str() {
            "direct" => !self.direct,
            "relay" => self.direct,
            _ => false,
        };
        let mark = if is_wrong { "!" } else { "" };
        match self.direct_ms.filter(|_| self.direct) {
            Some(direct) => format!("{mark}D {} / {direct}", self.first_byte_ms),
            None => format!("{mark}R {}", self.first_byte_ms),
        }
    }
}

const TARGETS: &str = "
## Targets of real processes

Of the cells that must be direct; the times to a direct path count from the start of the program `dial`, those to
the first byte from its registration at a root, which is three round trips of 30 ms to the root and 200 ms away at
most. The command fails where a number is above its target; times may be 500 ms more, since all that runs at once
shares the machine's processors. The cells marked `L` in the first table are left out: they try up to 2,048 ports,
and the root relays what is written meanwhile. So are those without UDP in the last two rows: there a stream
comes a second later.

| what | target | seen |
|---|---|---|
";

/// Formats the median and the maximum of some numbers.
fn spread(mut numbers: Vec<u64>) -> String {
    numbers.sort_unstable();
    match numbers[..] {
        [] => "none".into(),
        _ => format!("{} / {}", numbers[numbers.len() / 2], numbers[numbers.len() - 1]),
    }
}

const INTRODUCTION: &str = "
The same with the program itself: `peersock root` twice, `peersock listen` and `peersock dial`, in network
namespaces with the NATs of Linux, by

```console
cargo xtask cells --write
```

The kinds are those that `natlab` can build. It has no mapping that depends on the address alone. `no-udp` lets
any TCP out here, and `only-443` nothing but TCP to port 443; both use a stream to a root. Every line has a delay
of 10 ms in each direction, that of a root 5 ms. Each program writes 2,000 bytes, then 200 bytes five times a
second; every byte is compared.

`D`: direct in the end, with the milliseconds from the start of the program `dial` to the first byte, and until
both paths were direct; `R`: relayed, with those to the first byte. The time includes the start of the process
and its registration at the roots; a busy machine adds to it. `!`: not as expected.

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_are_missed_are_said_and_cells_of_luck_are_none() {
        let seen = |expected: &str, direct_ms: u64, ready_ms: u64, relayed: u64| Seen {
            kinds: ["ei-ei".into(), "20s".into()],
            expected: expected.into(),
            direct: true,
            first_byte_ms: 900,
            direct_ms: Some(direct_ms),
            ready_ms: Some(ready_ms),
            relayed: Some(relayed),
        };
        let good = || seen("direct", 900, 700, 3000);
        assert_eq!(missed(&[good(), seen("likely", 9000, 700, 30_000)]), Vec::<String>::new());
        let whole = missed(&[seen("direct", 5501, 100, 4097)]);
        assert_eq!(whole.len(), 4, "{whole:?}");
        assert_eq!(missed(&[good(), good(), seen("direct", 5501, 100, 4097)]).len(), 1, "only the greatest");
    }

    #[test]
    fn what_was_seen_is_found_in_both_halves_of_the_table() {
        let seen = |kinds, expected, direct, first_byte_ms, direct_ms: Option<u64>| {
            let line = serde_json::json!({
                "kinds": kinds, "expected": expected, "direct": direct,
                "first_byte_ms": first_byte_ms, "direct_ms": direct_ms
            });
            serde_json::from_value::<Seen>(line).expect("as the tests write it")
        };
        let section = section(&[
            seen(["open", "20s"], "direct", true, 41, Some(70)),
            seen(["20s", "ip6"], "relay", true, 42, Some(71)),
            seen(["one home"; 2], "direct", false, 9, None),
        ]);
        assert_eq!(section.matches("| D 41 / 70 |").count(), 2, "{section}");
        assert_eq!(section.matches("| !D 42 / 71 |").count(), 2, "{section}");
        assert!(section.contains("| one home | !R 9 |"), "{section}");
        assert!(section.contains("3 cells, 2 of them direct"), "{section}");
        assert!(section.contains("| direct in the median, ms | 1000 | 70 |"), "{section}");
        assert!(section.contains("first byte 41 / 42; direct 71 / 71"), "{section}");
    }
}
