//! Comparison of peersock's sender with the Linux kernel's, over the same impaired link in real time. The
//! receiver is always the kernel.

mod completion;
mod ends;
mod fairness;
mod goodput;
mod trial;

use peersock_stack::CongestionControl;
use peersock_stack_lab::kernel::unavailable;
use peersock_stack_lab::measure::Figure;

pub(crate) use trial::{Trial, Trials};

/// Prefix of its figures' names. They are measured only on request, because they take minutes.
const PREFIX: &str = "kernel/";
/// Maximum number of rounds, less than the number of seeds, because rounds take real time.
const MAX_ROUNDS: u64 = 5;

/// Parameters of a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// Number of the round, starting at 1.
    pub(crate) seed: u64,
    /// Congestion control of peersock's sender.
    pub(crate) congestion: CongestionControl,
    /// Duration in seconds that replaces the trials' own.
    pub(crate) secs: Option<f64>,
}

/// Returns all trials with a wanted figure.
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

/// Runs all trials once in each round, so that a slowdown of the machine affects all of them.
/// Fails with the reason why trials are impossible here, or a failure.
pub(crate) fn run(
    mut trials: Trials,
    congestion: CongestionControl,
    seeds: u64,
    secs: Option<f64>,
) -> Result<Vec<Figure>, String> {
    if let Some(reason) = unavailable() {
        return Err(reason);
    }
    let rounds = seeds.min(MAX_ROUNDS);
    for seed in 1..=rounds {
        for trial in trials.iter_mut().filter(|trial| seed <= trial.most_rounds) {
            let result = trial.run(Round { seed, congestion, secs });
            let text = result.map_err(|e| format!("{}: {e}", trial.title))?;
            eprintln!("round {seed}, {}: {text}", trial.title);
        }
    }
    Ok(trials.iter().flat_map(|trial| trial.figures()).collect())
}
