//! Lines on stderr about what peers do, of which there may be many: few are written, and the others counted.

use std::time::{Duration, Instant};

/// The time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets a line through now and then.
#[derive(Default)]
pub(crate) struct Rarely {
    last: Option<Instant>,
    /// Lines that were not let through since.
    unsaid: u64,
}

impl Rarely {
    /// The line, with how many like it were left out before, if it is time for one.
    pub(crate) fn tell(&mut self, now: Instant, line: impl FnOnce() -> String) -> Option<String> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        let unsaid = std::mem::take(&mut self.unsaid);
        let line = line();
        Some(if unsaid == 0 { line } else { format!("{line} ({unsaid} more lines like this were left out)") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_let_through_in_a_while_and_the_others_are_counted() {
        let (mut rarely, begin) = (Rarely::default(), Instant::now());
        let mut tell = |seconds| rarely.tell(begin + Duration::from_secs(seconds), || "a line".to_owned());
        assert_eq!(tell(0), Some("a line".to_owned()));
        assert_eq!(tell(1), None);
        assert_eq!(tell(9), None);
        assert_eq!(tell(10), Some("a line (2 more lines like this were left out)".to_owned()));
        assert_eq!(tell(25), Some("a line".to_owned()));
    }
}
