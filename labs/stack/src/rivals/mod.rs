//! Our sender beside the kernel's, over the same impaired link in real time. The receiver is the kernel's in
//! all cases.

mod completion;
mod ends;
mod fairness;
mod goodput;
mod trial;

use peersock_stack::CongestionControl;
use peersock_stack_lab::kernel::unavailable;
use peersock_stack_lab::measure::Figure;

pub(crate) use trial::{Trial, Trials};

/// What the names of its figures begin with. They are measured only if asked for by name: it takes minutes.
const PREFIX: &str = "kernel/";
/// Fewer rounds than seeds: these take real time.
const MOST_ROUNDS: u64 = 5;

/// How a round is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// Counts from 1.
    pub(crate) seed: u64,
    /// Of our sender.
    pub(crate) congestion: CongestionControl,
    /// Instead of the trials' own lengths, seconds.
    pub(crate) secs: Option<f64>,
}

/// All trials of which a figure is wanted.
pub(crate) fn trials(wanted: impl Fn(&str) -> bool) -> Trials {
    let mut trials = goodput::trials();
    trials.extend(completion::trials());
    trials.extend(fairness::trials());
    trials.retain_mut(|trial| {
        trial.retain(&wanted);
        trial.names().next().is_some()
    });
    trials
}

/// Tries everything once in each round, so that a machine that gets slower in between slows all.
///
/// # Errors
/// Why it cannot be done here, or what failed.
pub(crate) fn run(
    mut trials: Trials,
    congestion: CongestionControl,
    seeds: u64,
    secs: Option<f64>,
) -> Result<Vec<Figure>, String> {
    if let Some(reason) = unavailable() {
        return Err(reason);
    }
    let rounds = seeds.min(MOST_ROUNDS);
    for seed in 1..=rounds {
        for trial in trials.iter_mut().filter(|trial| seed <= trial.most_rounds) {
            let result = trial.run(Round { seed, congestion, secs });
            let text = result.map_err(|e| format!("{}: {e}", trial.title))?;
            eprintln!("round {seed}, {}: {text}", trial.title);
        }
    }
    Ok(trials.iter().flat_map(|trial| trial.figures()).collect())
}
