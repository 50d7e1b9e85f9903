//! What the log says for people to read: plain text, never Rust's debug form. Addresses and names at debug
//! level at most.

use std::fmt::{self, Display, Write};
use std::time::Instant;

use super::Endpoint;
use crate::reach::RecvMeta;

/// Refused messages that are logged: so many at once, and the same number per second. Anybody can send more.
pub(super) const REFUSALS: u32 = 20;

impl Endpoint {
    /// Says why somebody's message was dropped, unless that was said very often in the last second.
    pub(super) fn log_refusal(&mut self, now: Instant, meta: &RecvMeta, message: &str, why: &str) {
        if tracing::enabled!(tracing::Level::DEBUG) && self.refusals_logged.take(now) {
            tracing::debug!(from = %meta.remote, "{message} refused: {why}");
        }
    }
}

/// Shows items one after the other.
pub(super) struct List<I>(pub(super) I);

impl<T: Display, I: Iterator<Item = T> + Clone> Display for List<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, item) in self.0.clone().enumerate() {
            if n > 0 {
                f.write_char(' ')?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_separated_by_spaces() {
        assert_eq!(List([1, 2, 3].iter()).to_string(), "1 2 3");
        assert_eq!(List([0; 0].iter()).to_string(), "");
    }
}
