//! Lines on stderr about what peers do, of which there may be many: few are written, and the others counted.

use std::time::{Duration, Instant};

/// The time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets a line through now and then.
#[derive(Default)]
pub(crate) struct LineLimit {
    last: Option<Instant>,
    /// Lines that were not let through since.
    left_out: u64,
}

impl LineLimit {
    /// The line, with how many like it were left out before, if it is time for one.
    pub(crate) fn pass(&mut self, now: Instant, line: impl FnOnce() -> String) -> Option<String> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        let left_out = std::mem::take(&mut self.left_out);
        let line = line();
        Some(if left_out == 0 {
            line
        } else {
            format!("{line} ({left_out} more lines like this were left out)")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_let_through_in_a_while_and_the_others_are_counted() {
        let (mut limit, begin) = (LineLimit::default(), Instant::now());
        let mut pass = |seconds| limit.pass(begin + Duration::from_secs(seconds), || "a line".to_owned());
        assert_eq!(pass(0), Some("a line".to_owned()));
        assert_eq!(pass(1), None);
        assert_eq!(pass(9), None);
        assert_eq!(pass(10), Some("a line (2 more lines like this were left out)".to_owned()));
        assert_eq!(pass(25), Some("a line".to_owned()));
    }
}
