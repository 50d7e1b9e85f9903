//! Detection of a fully used window, which a larger window would help.

/// Use of a window. It counts as full for the round trip in which it limited sending and for the next,
/// because between two acknowledgements pacing may be the limit.
#[derive(Debug, Default)]
pub(super) struct Usage {
    now: bool,
    before: bool,
}

impl Usage {
    /// Updates the state. `limited` is set if the window has limited sending since the last acknowledgement.
    pub(super) fn on_ack(&mut self, limited: bool, round_begins: bool) {
        if round_begins {
            self.before = self.now;
            self.now = false;
        }
        // One limited moment is enough, because sending in bursts fills the window only at times.
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
