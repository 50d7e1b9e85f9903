//! `cargo xtask cells`: processes behind every pair of kinds of NATs, in network namespaces; what was seen is
//! written into `docs/CELLS.md`.
//!
//! The tests are `cli/tests/program/cells`; each leaves a line of JSON here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use crate::{Result, cargo, root};

/// Shown by `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  cargo xtask cells --write             all cells, and what was seen goes into docs/CELLS.md
  cargo xtask cells --only all::ei_apd  some of them

This needs root and natlab, which PEERSOCK_NATLAB names.";

/// The kinds of the table, in its order.
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

/// What stands before the section in the document; the simulator's command leaves it and all below alone.
const HEADING: &str = "\n## Real processes\n";

/// Options of `cells`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only tests with this text in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// How many at a time
    #[arg(long, value_name = "N", default_value_t = 3)]
    jobs: usize,
    /// Put the table into docs/CELLS.md
    #[arg(long)]
    write: bool,
}

/// What a test has seen.
#[derive(Deserialize)]
struct Seen {
    kinds: [String; 2],
    expected: String,
    direct: bool,
    first_byte_ms: u64,
    direct_ms: Option<u64>,
}

/// Runs the cells and prints the table. False if one was not as expected.
///
/// # Errors
///
/// When nothing was seen, or a file cannot be written.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let results = root().join("target/cells.jsonl");
    let _ = fs::remove_file(&results);
    let mut command = cargo();
    command.args(["test", "--package", "peersock-cli", "--test", "program", "--"]);
    command.args(["--ignored", "--test-threads", &options.jobs.to_string(), "--skip", "selection"]);
    command.arg(format!("cells::{}", options.only)).env("PEERSOCK_CELLS", &results);
    let success = command.status()?.success();
    let text = fs::read_to_string(&results).map_err(|_| "no test has seen anything: are they skipped?")?;
    let seen: Vec<Seen> = text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let section = section(&seen);
    println!("{section}");
    if options.write {
        let path: PathBuf = root().join("docs/CELLS.md");
        let old = fs::read_to_string(&path)?;
        let simulated = old.split_once(HEADING).map_or(old.as_str(), |(before, _)| before);
        fs::write(&path, format!("{simulated}{section}"))?;
    }
    Ok(success)
}

/// The section of the document.
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

/// The median and the greatest of some numbers.
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
        assert!(section.contains("first byte 41 / 42; direct 71 / 71"), "{section}");
    }
}
