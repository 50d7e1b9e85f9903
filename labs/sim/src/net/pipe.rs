use std::time::Duration;

use super::Datagram;
use super::stage::{Memory, Stage, Timed};
use crate::{Random, Time};

/// Identifier of a fault, by which its end finds the stages that its start added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultId(pub u32);

/// One direction of a link: a row of [`Stage`]s, followed by the temporary stages of faults.
///
/// `Delay` and `Rate` keep the order in which datagrams entered the pipe. So stages that change the order
/// (`Reorder`, `Duplicate`) belong behind them.
#[derive(Debug, Clone, Default)]
pub struct Pipe {
    stages: Vec<(Stage, Memory)>,
    faults: Vec<(FaultId, Stage, Memory)>,
}

impl Pipe {
    /// Makes a pipe from these stages.
    pub fn new(stages: impl IntoIterator<Item = Stage>) -> Self {
        let stages = stages.into_iter().map(|stage| (stage, Memory::default())).collect();
        Self { stages, faults: Vec::new() }
    }

    /// Returns the minimum delay of a datagram.
    pub fn delay(&self) -> Duration {
        let stages = self.stages.iter().map(|(stage, _)| stage);
        let delays = stages.filter_map(|stage| match stage {
            Stage::Delay { base, .. } => Some(*base),
            _ => None,
        });
        delays.sum()
    }

    /// Adds a stage until [`Self::repair`].
    pub fn break_with(&mut self, fault: FaultId, stage: Stage) {
        self.faults.push((fault, stage, Memory::default()));
    }

    /// Removes the stages of a fault.
    pub fn repair(&mut self, fault: FaultId) {
        self.faults.retain(|(id, _, _)| *id != fault);
    }

    /// Returns true while a fault is in force.
    pub fn is_broken(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Passes a datagram that enters at `now`. Returns the outgoing datagrams and their times, in no
    /// particular order.
    pub fn pass(&mut self, random: &mut Random, now: Time, datagram: Datagram) -> Vec<(Time, Datagram)> {
        let mut inside: Vec<Timed> = vec![(now, datagram)];
        let faults = self.faults.iter_mut().map(|(_, stage, memory)| (&*stage, memory));
        let stages = self.stages.iter_mut().map(|(stage, memory)| (&*stage, memory));
        for (stage, memory) in stages.chain(faults) {
            let mut out = Vec::with_capacity(inside.len());
            for timed in inside {
                stage.pass(memory, random, timed, &mut out);
            }
            inside = out;
        }
        inside
    }
}
