//! Rate limit for lines on stderr about peers' actions: few are written, the others counted.

use std::time::{Duration, Instant};

/// Minimum interval between two lines.
const MIN_LINE_INTERVAL: Duration = Duration::from_secs(10);

/// A limiter that lets a line through now and then.
#[derive(Default)]
pub(crate) struct LineLimit {
    last: Option<Instant>,
    /// Number of lines suppressed since the last one.
    left_out: u64,
}

impl LineLimit {
    /// Returns the line, with the number of similar lines suppressed before it, if one is due.
    pub(crate) fn pass(&mut self, now: Instant, line: impl FnOnce() -> String) -> Option<String> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < MIN_LINE_INTERVAL) {
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
