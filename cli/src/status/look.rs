//! One look at a running node, and whether another one saw the same run of it.

use std::path::Path;
use std::time::{Duration, Instant};

use peersock::management::{self, ManagementError};

use super::Answer;
use crate::failure::{Failure, Outcome};

/// Two clocks are read one after the other, so they may seem to differ by this much.
const SLACK: Duration = Duration::from_millis(100);

/// What a node has said, and when.
pub(crate) struct Look {
    pub(crate) answer: Answer,
    /// Before it was asked, and after it has answered.
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
}

impl Look {
    /// Looks at the node that runs with a state directory.
    pub(crate) fn at(path: &Path) -> Outcome<Look> {
        Look::try_at(path)?.map_err(Failure::from)
    }

    /// As [`Look::at`], for those who want to know why the node did not answer.
    pub(crate) fn try_at(path: &Path) -> Outcome<Result<Look, ManagementError>> {
        let asked = Instant::now();
        let text = match management::status(path, usize::MAX) {
            Ok(text) => text,
            Err(error) => return Ok(Err(error)),
        };
        let answered = Instant::now();
        Ok(Ok(Look { answer: Answer::parse(&text)?, asked, answered }))
    }

    /// How long the node has run since an earlier look, by its own clock; `None` if it was another run, or
    /// another node. A node that was restarted has been running for less time than has passed, also where
    /// that is longer than before, and its counters are larger.
    pub(crate) fn since(&self, before: &Look) -> Option<f64> {
        let gained = self.answer.uptime_s - before.answer.uptime_s;
        let least = self.asked.saturating_duration_since(before.answered).saturating_sub(SLACK);
        let is_same =
            before.answer.node_id == self.answer.node_id && gained >= 0.0 && gained >= least.as_secs_f64();
        is_same.then_some(gained)
    }
}
