//! Whether a window is used up, so that a larger one would make a difference.

/// A window counts as used up for the round trip in which it kept data back, and the next: between two
/// acknowledgements it may be pacing that does.
#[derive(Debug, Default)]
pub(super) struct Usage {
    now: bool,
    before: bool,
}

impl Usage {
    /// `limited`: the window has kept data back since the last acknowledgement.
    pub(super) fn on_ack(&mut self, limited: bool, round_begins: bool) {
        if round_begins {
            self.before = self.now;
            self.now = false;
        }
        self.now |= limited;
    }

    pub(super) fn is_full(&self) -> bool {
        self.now || self.before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_used_up_for_one_to_two_round_trips() {
        let mut usage = Usage::default();
        assert!(!usage.is_full());
        usage.on_ack(true, true);
        usage.on_ack(false, false);
        assert!(usage.is_full());
        usage.on_ack(false, true);
        assert!(usage.is_full());
        usage.on_ack(false, true);
        assert!(!usage.is_full());
    }
}
