use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::{Cell, Expected, Kind, Outcome, PathKind, Shared, Together};

/// The outcomes of all cells.
#[derive(Debug, Default)]
pub struct Table {
    cells: BTreeMap<[Kind; 2], Summary>,
    together: BTreeMap<Shared, Summary>,
}

/// The outcomes of one cell over all its seeds.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    outcomes: Vec<Outcome>,
    /// Seeds with an unexpected outcome, or with an event that must never happen.
    failed: Vec<u64>,
}

impl Table {
    /// Returns all pairs of kinds, each once.
    pub fn pairs() -> Vec<[Kind; 2]> {
        let all = Kind::all();
        let with = |(at, &first): (usize, &Kind)| all[at..].iter().map(move |&second| [first, second]);
        all.iter().enumerate().flat_map(|pair| with(pair).collect::<Vec<_>>()).collect()
    }

    /// Enters the outcome of a cell.
    pub fn add(&mut self, cell: &Cell, outcome: Option<Outcome>) {
        let [a, b] = cell.kinds;
        self.cells.entry(cell.kinds).or_default().add(cell.seed, outcome, Expected::of(a, b));
    }

    /// Enters the outcome of two nodes behind one box.
    pub fn add_together(&mut self, cell: &Together, outcome: Option<Outcome>) {
        let summary = self.together.entry(cell.shared).or_default();
        summary.add(cell.seed, outcome, cell.shared.expected());
    }

    /// Returns the cells that should mostly be direct but are too rarely, with the direct share in percent.
    pub fn unlikely(&self) -> impl Iterator<Item = ([Kind; 2], usize)> {
        let likely = self.cells.iter().filter(|([a, b], _)| Expected::of(*a, *b) == Expected::Likely);
        let shares = likely.map(|(&kinds, summary)| (kinds, summary.percent_direct()));
        shares.filter(|(_, share)| *share < Expected::LIKELY)
    }

    /// Returns the cells with failed seeds: name, expectation and seeds.
    pub fn failures(&self) -> impl Iterator<Item = (String, Expected, &[u64])> {
        let apart = self.cells.iter();
        let apart = apart.map(|([a, b], summary)| (format!("{a} and {b}"), Expected::of(*a, *b), summary));
        let together = self.together.iter();
        let together = together.map(|(shared, summary)| (shared.to_string(), shared.expected(), summary));
        let failed = apart.chain(together).filter(|(.., summary)| !summary.failed.is_empty());
        failed.map(|(name, expected, summary)| (name, expected, &summary.failed[..]))
    }

    /// Returns the mean number of bytes that roots relay before two nodes of the [`Kind::USUAL`] have a
    /// direct connection. `None` if there is no outcome of such a cell.
    pub fn relayed_in_usual_cells(&self) -> Option<u64> {
        let is_usual = |kinds: &[Kind; 2]| kinds.iter().all(|kind| Kind::USUAL.contains(kind));
        let usual = self.cells.iter().filter(|(kinds, _)| is_usual(kinds));
        let outcomes = usual.flat_map(|(_, summary)| &summary.outcomes);
        let relayed: Vec<_> =
            outcomes.filter(|one| one.direct_after.is_some()).map(|one| one.relayed_bytes).collect();
        relayed.iter().sum::<u64>().checked_div(relayed.len() as u64)
    }

    /// Renders the table as Markdown, without values that differ between runs of the same seeds.
    pub fn to_markdown(&self, command: &str) -> String {
        let mut out = INTRODUCTION.replace("COMMAND", command);
        let kinds: Vec<Kind> = Kind::all();
        out += "\n## Kinds\n\n| name | what it is |\n|---|---|\n";
        for same in kinds.chunk_by(|a, b| a.description() == b.description()) {
            let names: Vec<_> = same.iter().map(|kind| format!("`{kind}`")).collect();
            let _ = writeln!(out, "| {} | {} |", names.join(", "), same[0].description());
        }
        out += "\n## Directly connected in the end\n\n";
        out += MATRIX;
        let heads: Vec<String> = kinds.iter().map(Kind::to_string).collect();
        let _ = writeln!(out, "| | {} |\n|---|{}", heads.join(" | "), "---|".repeat(heads.len()));
        for &row in &kinds {
            let cells = kinds.iter().map(|&column| self.entry(row, column));
            let _ = writeln!(out, "| **{row}** | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
        if !self.together.is_empty() {
            out += TOGETHER;
        }
        for (shared, summary) in &self.together {
            let mark = summary.entry(shared.expected());
            let _ = writeln!(out, "| `{shared}` | {} | {mark} |", shared.description());
        }
        out += "\n## Times\n\n";
        out += TIMES;
        if let Some(bytes) = self.relayed_in_usual_cells() {
            let names = Kind::USUAL.map(|kind| format!("`{kind}`")).join(", ");
            let _ = write!(out, "Between two of {names} roots relay {bytes} bytes on average.\n{SHARES}");
        }
        out
    }

    /// Renders the times of all cells as comma-separated values (RFC 4180).
    pub fn to_csv(&self) -> String {
        let mut out = HEADS.to_owned();
        for ([a, b], summary) in &self.cells {
            let _ = writeln!(out, "{a},{b},{}", summary.columns(Expected::of(*a, *b)));
        }
        for (shared, summary) in &self.together {
            let _ = writeln!(out, "\"{shared}\",the same,{}", summary.columns(shared.expected()));
        }
        out
    }

    fn entry(&self, row: Kind, column: Kind) -> String {
        let key = [row.min(column), row.max(column)];
        let Some(summary) = self.cells.get(&key) else { return String::new() };
        summary.entry(Expected::of(row, column))
    }
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: Option<Outcome>, expected: Expected) {
        if !outcome.is_some_and(|outcome| outcome.fits(expected)) {
            self.failed.push(seed);
        }
        self.outcomes.extend(outcome);
    }

    /// Returns this cell's entry in the matrix.
    fn entry(&self, expected: Expected) -> String {
        let mark = match expected {
            Expected::Direct => "D",
            Expected::Likely => "L",
            Expected::Either => "E",
            Expected::Relay => "R",
        };
        let fails = if self.failed.is_empty() { "" } else { "!" };
        format!("{mark} {}{fails}", self.percent_direct())
    }

    fn percent_direct(&self) -> usize {
        let direct = self.outcomes.iter().filter(|outcome| outcome.path == PathKind::Direct).count();
        (direct * 100).checked_div(self.outcomes.len()).unwrap_or_default()
    }

    /// Returns this cell's columns in the list.
    fn columns(&self, expected: Expected) -> String {
        let expected = match expected {
            Expected::Direct => "direct",
            Expected::Likely => "likely",
            Expected::Either => "either",
            Expected::Relay => "relay",
        };
        let talked = self.outcomes.iter().filter(|outcome| outcome.is_complete).count();
        let millis = |time: Duration| time.as_millis() as u64;
        let first = self.outcomes.iter().filter_map(|outcome| outcome.first_byte).map(millis).collect();
        let direct: Vec<u64> =
            self.outcomes.iter().filter_map(|outcome| outcome.direct_after).map(millis).collect();
        let paid = self.outcomes.iter().filter(|outcome| outcome.direct_after.is_some());
        let paid = paid.map(|outcome| outcome.relayed_bytes).collect();
        let failed = match &self.failed[..] {
            [] => String::new(),
            [first, ..] => format!("{} (seed {first})", self.failed.len()),
        };
        format!(
            "{expected},{talked},{},{},{},{},{},{failed}",
            self.outcomes.len(),
            self.percent_direct(),
            spread(first),
            spread(direct),
            spread(paid),
        )
    }
}

/// Formats the median and the maximum of some numbers, as two columns.
fn spread(mut numbers: Vec<u64>) -> String {
    numbers.sort_unstable();
    match numbers[..] {
        [] => ",".to_owned(),
        _ => format!("{},{}", numbers[numbers.len() / 2], numbers[numbers.len() - 1]),
    }
}

const INTRODUCTION: &str = "\
# Cells

```console
COMMAND
```

measures in the simulator (`labs/sim/src/cells`), in virtual time and with the cores that run in the node and in
the root: do two programs, each behind one kind of box, with two roots on the open Internet, reach each other,
over which path, and how soon? Each writes 2,000 bytes, then 200 bytes five times a second, for twelve seconds.
A seed draws the delays of the lines (2 to 40 ms from each home and each root to the core), their rates, the
boxes' ports, and the nodes' random numbers.

The boxes alone decide what must be the case (`labs/sim/src/cells/expectation.rs`):

| boxes | path |
|---|---|
| both outer ports are fixed | direct |
| one is fixed, and its filter lets in the other one's port, or that port can be guessed from the last one | direct |
| one is fixed, none of that | direct with a chance of 99.97 in 100, by up to 2,048 ports against 256 sockets; 98 in 100 seeds must be |
| both ports depend on the destination | either, by luck |
| no family in common, or one lets no UDP pass | relayed; without UDP by a stream, which is opened after a second |

A NAT64 and a NAT66 count as the NATs that they are, because a node knows its mapping for each family, and roots
see the IPv4 mappings of a NAT64. The simulator has streams to roots (on the port of UDP, and by a WebSocket on
443) and no other TCP; real nodes punch by TCP (below).
";

const MATRIX: &str = "\
`D`: it must be direct; `L`: it is likely to be direct; `R`: it must be relayed; `E`: either; then the
percentage of seeds that were direct in the end. `!`: some seeds were not as expected.

";

const TOGETHER: &str = "
## Two nodes behind one box

The private addresses lead nowhere but in `one home`. A box that hairpins sends back in what goes to one of
the box's outer addresses.

| name | what it is | |
|---|---|---|
";

const TIMES: &str = "\
[cells.csv](cells.csv) has all times: milliseconds of virtual time since the call to connect, in the median and
at most. Its bytes are those of sealed datagrams that roots have relayed for both nodes together.

";

/// Bytes relayed for usual pairs, as counted at the root frame by frame.
const SHARES: &str = "\
About 1,030 of them always are: a handshake by one root, which tells where its sender is (650 bytes), the
initiator's answer to that (180), and the first two segments of the TCP connection (200). The rest is what the
first program writes until the path is direct, after a round trip straight.

In the cells marked `L` a path takes a second more in the median, and three at most. The search by many ports
begins about 0.5 s after the first packets, and then sends to 800 ports a second. Each is one of the other side's
256 mappings with a chance of 1 in 252:

| ports | chance, % | after, s |
|---|---|---|
| 175 | 50.1 | 0.22 |
| 579 | 90.0 | 0.72 |
| 1,024 | 98.3 | 1.28 |
| 1,158 | 99.0 | 1.45 |
| 2,048 | 99.97 | 2.56 |

Meanwhile the root relays what the programs write. The bytes on average of 60 seeds of `ei-apd` and `apd-apd`
(`L`), `ad-ei` and `ad-ad` (`E`), and two of `ei-apd` (`D`):

| what | `L` | `E` | `D` |
|---|---|---|---|
| a handshake, if there is one | 658 | 667 | 648 |
| where the initiator is | 188 | 197 | 178 |
| a search by many ports is asked for and agreed to | 70 | | |
| the first two segments of the TCP connection | 200 | 200 | 200 |
| what the programs write | 5,461 | 2,941 | 1,272 |
| headers of that | 992 | 258 | 111 |
| acknowledgements alone | 616 | 165 | 55 |

Nothing is sent twice, and nothing is probed. Less would be left to the root only if the programs' data waited
for a path that may not come.
";

const HEADS: &str = "\
one,the other,expected,talked,of,direct %,first byte,first byte at most,direct,direct at most,relayed before,\
relayed before at most,not as expected
";
