//! One status report of a running node, and its comparison with an earlier one.

use std::path::Path;
use std::time::{Duration, Instant};

use peersock::Status;
use peersock::management::{self, ManagementError};

use super::parse;
use crate::failure::{Failure, Outcome};

/// Tolerance for two clocks that are read one after the other.
const SLACK: Duration = Duration::from_millis(100);

/// A node's answer, with its time.
pub(crate) struct Look {
    pub(crate) answer: Status,
    /// Times before the request and after the answer.
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
}

impl Look {
    /// Queries the node that runs with a state directory.
    pub(crate) fn at(path: &Path) -> Outcome<Look> {
        Look::try_at(path)?.map_err(Failure::from)
    }

    /// Queries as [`Look::at`] does, but returns the reason if the node did not answer.
    pub(crate) fn try_at(path: &Path) -> Outcome<Result<Look, ManagementError>> {
        let asked = Instant::now();
        let text = match management::status(path, usize::MAX) {
            Ok(text) => text,
            Err(error) => return Ok(Err(error)),
        };
        let answered = Instant::now();
        Ok(Ok(Look { answer: parse(&text)?, asked, answered }))
    }

    /// Returns how long the node has run since an earlier report, by its own clock; `None` for another run or
    /// another node. A restarted node has run for less time than has passed, even if its uptime and counters
    /// are larger than before.
    pub(crate) fn since(&self, before: &Look) -> Option<f64> {
        let gained = self.answer.uptime_s - before.answer.uptime_s;
        let least = self.asked.saturating_duration_since(before.answered).saturating_sub(SLACK);
        let is_same =
            before.answer.node_id == self.answer.node_id && gained >= 0.0 && gained >= least.as_secs_f64();
        is_same.then_some(gained)
    }
}
