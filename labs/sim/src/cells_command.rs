//! Commands that measure the table of cells, and that run one cell again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use peersock_sim::Violation;
use peersock_sim::cells::{Cell, Expected, Kind, Outcome, Shared, Table, Together};

/// Heading of the part of the file that this command does not write.
const REAL: &str = "\n## Real processes\n";

/// Runs every cell with `seeds` seeds, prints or writes the table, and reports the cells with unexpected
/// results.
#[expect(clippy::print_stdout, reason = "the table is the program's result")]
pub(crate) fn measure(seeds: u64, out: Option<&Path>, only: &[String], jobs: usize) -> ExitCode {
    let named = |kind: Kind| only.contains(&kind.to_string());
    let is_wanted = |[a, b]: &[Kind; 2]| match only.len() {
        0 => true,
        1 => named(*a) || named(*b),
        _ => named(*a) && named(*b),
    };
    let pairs = Table::pairs().into_iter().filter(is_wanted);
    let apart = pairs.flat_map(|kinds| (0..seeds).map(move |seed| Place::Apart(Cell { kinds, seed })));
    let is_wanted = |shared: &Shared| only.is_empty() || only.contains(&shared.to_string());
    let together = Shared::all().into_iter().filter(is_wanted);
    let together =
        together.flat_map(|shared| (0..seeds).map(move |seed| Place::Together(Together { shared, seed })));
    let cells: Vec<Place> = apart.chain(together).collect();
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(vec![None; cells.len()]));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((at, cell)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, cells.get(at)?)))
                {
                    let outcome = cell.run(false);
                    outcomes.lock().expect("nothing panics while it is held")[at] = outcome;
                    if (at + 1).is_multiple_of(1000) {
                        eprintln!("{} of {}", at + 1, cells.len());
                    }
                }
            });
        }
    });
    let mut table = Table::default();
    let outcomes = outcomes.into_inner().expect("nothing panics while it is held");
    for (cell, outcome) in cells.iter().zip(outcomes) {
        match cell {
            Place::Apart(cell) => table.add(cell, outcome),
            Place::Together(cell) => table.add_together(cell, outcome),
        }
    }
    let only = only.iter().map(|kind| format!(" --only {kind}")).collect::<String>();
    let target = out.map(|path| format!(" --out {}", path.display())).unwrap_or_default();
    let command = format!("cargo run --release -p peersock-sim -- cells --seeds {seeds}{only}{target}");
    let text = table.to_markdown(&command);
    match out {
        Some(path) => {
            // Keep the results of real processes at the end of the file, which `cargo xtask cells` writes.
            let old = std::fs::read_to_string(path).unwrap_or_default();
            let real = old.find(REAL).map_or("", |at| &old[at..]);
            let times = path.with_file_name("cells.csv");
            for (path, text) in [(path, text + real), (&times, table.to_csv())] {
                if let Err(error) = std::fs::write(path, text) {
                    eprintln!("cannot write {}: {error}", path.display());
                    return ExitCode::FAILURE;
                }
            }
        }
        None => print!("{text}\n{}", table.to_csv()),
    }
    let mut failed = 0;
    for (name, expected, seeds) in table.failures() {
        failed += seeds.len();
        eprintln!("{name}: {expected:?} is not what seeds {seeds:?} gave");
    }
    eprintln!("{} of {} as expected", cells.len() - failed, cells.len());
    let mut rare = 0;
    // A handful of seeds proves nothing about the share.
    for ([a, b], share) in table.unlikely().filter(|_| seeds >= MIN_MEANINGFUL_SEEDS) {
        rare += 1;
        eprintln!(
            "{a} and {b}: {share} % of the seeds are direct, expected are {} % or more",
            Expected::LIKELY
        );
    }
    ExitCode::from(u8::from(failed + rare > 0))
}

/// Minimum number of seeds at which the direct share is meaningful.
const MIN_MEANINGFUL_SEEDS: u64 = 20;

/// Runs one seed of one cell.
pub(crate) fn again(kinds: [&str; 2], seed: u64, trace: bool) -> ExitCode {
    let parse = |name: &str| {
        let kind = Kind::all().into_iter().find(|kind| kind.to_string() == name);
        if kind.is_none() {
            let all: Vec<String> = Kind::all().iter().map(Kind::to_string).collect();
            eprintln!("there is no kind {name:?}; there are {}", all.join(", "));
        }
        kind
    };
    let [Some(a), Some(b)] = kinds.map(parse) else { return ExitCode::FAILURE };
    Place::Apart(Cell { kinds: [a, b], seed }).judge(trace)
}

/// Runs one seed of two nodes behind one box.
pub(crate) fn again_together(name: &str, seed: u64, trace: bool) -> ExitCode {
    let Some(shared) = Shared::all().into_iter().find(|shared| shared.to_string() == name) else {
        let all: Vec<String> = Shared::all().iter().map(Shared::to_string).collect();
        eprintln!("there is no {name:?}; there are {}", all.join("; "));
        return ExitCode::FAILURE;
    };
    Place::Together(Together { shared, seed }).judge(trace)
}

/// One cell with one seed.
enum Place {
    Apart(Cell),
    Together(Together),
}

impl Place {
    fn name(&self) -> (String, u64) {
        match self {
            Self::Apart(Cell { kinds: [a, b], seed }) => (format!("{a} and {b}"), *seed),
            Self::Together(Together { shared, seed }) => (shared.to_string(), *seed),
        }
    }

    fn expected(&self) -> Expected {
        match self {
            Self::Apart(Cell { kinds: [a, b], .. }) => Expected::of(*a, *b),
            Self::Together(Together { shared, .. }) => shared.expected(),
        }
    }

    /// Runs the place, prints its outcome, and fails if the outcome is not the expected one.
    fn judge(&self, trace: bool) -> ExitCode {
        let Some(outcome) = self.run(trace) else { return ExitCode::FAILURE };
        let expected = self.expected();
        eprintln!("{outcome:?}; expected: {expected:?}");
        ExitCode::from(u8::from(!outcome.fits(expected)))
    }

    /// Returns `None`, and prints the violation, if an event occurred that must never happen.
    fn run(&self, trace: bool) -> Option<Outcome> {
        let (name, seed) = self.name();
        let run = || -> Result<Outcome, Violation> {
            match self {
                Self::Apart(cell) => cell.run(trace),
                Self::Together(cell) => cell.run(trace),
            }
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(outcome)) => Some(outcome),
            Ok(Err(violation)) => {
                eprintln!("{name}, seed {seed}: {violation}");
                None
            }
            Err(_) => {
                eprintln!("{name}, seed {seed}: a panic");
                None
            }
        }
    }
}
