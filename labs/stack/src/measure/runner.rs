//! Parallel runs of many seeds of many cases on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Case, Figure};
use crate::secs;

/// Extent of the runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Number of seeds.
    pub seeds: u64,
    /// Duration in seconds that replaces the scenarios' own.
    pub secs: Option<f64>,
}

/// Runs every case and returns its figures in the order of the cases. `progress` gets each finished case with
/// its figures.
/// Fails with a description of a failed run: its name, seed and the failure.
pub fn run(
    mut cases: Vec<Case>,
    settings: Settings,
    progress: impl Fn(&Case, &[Figure]) + Sync,
) -> Result<Vec<Figure>, String> {
    for case in &mut cases {
        // The mark keeps its place within the shorter or longer run.
        if let Some(seconds) = settings.secs {
            case.scenario.mark =
                (case.scenario.mark as f64 / case.scenario.lasting as f64 * seconds * 1e9) as u64;
            case.scenario.lasting = secs(seconds);
        }
    }
    let runs: Vec<(usize, u64)> = (0..cases.len())
        .flat_map(|case| (1..=cases[case].runs(settings.seeds)).map(move |seed| (case, seed)))
        .collect();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Results::new(&cases, settings));
    let work = || {
        while let Some(&(index, seed)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let case = &cases[index];
            let outcome = case.scenario.run(seed);
            let failures = outcome.connections.iter().filter_map(|connection| connection.failure.as_ref());
            let failure = failures.map(|failure| format!("{} with seed {seed}: {failure}", case.name)).next();
            let values =
                case.measures.iter().map(|measure| measure.quantity.of(&case.scenario, &outcome)).collect();
            let mut results = results.lock().expect("no thread panics while it holds it");
            // The first failure is enough for the report.
            results.failure = results.failure.take().or(failure);
            if let Some(figures) = results.add(case, index, values) {
                progress(case, &figures);
                results.figures[index] = figures;
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let results = results.into_inner().expect("every thread has ended well");
    match results.failure {
        Some(failure) => Err(failure),
        None => Ok(results.figures.into_iter().flatten().collect()),
    }
}

struct Results {
    /// Values by case and run.
    values: Vec<Vec<Vec<f64>>>,
    expected: Vec<usize>,
    figures: Vec<Vec<Figure>>,
    failure: Option<String>,
}

impl Results {
    fn new(cases: &[Case], settings: Settings) -> Self {
        Self {
            values: vec![Vec::new(); cases.len()],
            expected: cases.iter().map(|case| case.runs(settings.seeds) as usize).collect(),
            figures: vec![Vec::new(); cases.len()],
            failure: None,
        }
    }

    /// Adds a run; returns the case's figures if it was the last.
    fn add(&mut self, case: &Case, index: usize, values: Vec<f64>) -> Option<Vec<Figure>> {
        let runs = &mut self.values[index];
        runs.push(values);
        if runs.len() < self.expected[index] {
            return None;
        }
        let figure = |(at, measure): (usize, &super::Measure)| {
            let values = runs.iter().map(|run| run[at]).collect();
            Figure::new(&measure.name, measure.quantity.unit(), values, &measure.targets)
        };
        Some(case.measures.iter().enumerate().map(figure).collect())
    }
}
