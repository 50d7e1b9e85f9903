//! NewReno (RFC 5681, RFC 6582): one more segment per round trip, half the window after a loss.

use super::loss_based::{Growth, LossBased};
use super::{View, segment};

pub(crate) fn start(mss: u64, initial_window: u64) -> LossBased<Reno> {
    LossBased::new(Reno { counted: 0 }, None, mss, initial_window)
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Reno {
    /// Acknowledged bytes that have not grown the window yet (RFC 3465: appropriate byte counting).
    counted: u64,
}

impl Growth for Reno {
    fn reduce(&mut self, window: u64) -> u64 {
        self.counted = 0;
        window / 2
    }

    fn on_timeout(&mut self) {}

    fn grow(&mut self, view: &View, window: u64, bytes: u64, used: bool) -> u64 {
        // RFC 7661: a window that was not used says nothing about the path, so it must not grow.
        if !used {
            return window;
        }
        self.counted = self.counted.saturating_add(bytes);
        let windows = self.counted / window.max(1);
        // The rest counts for the next growth, or small acknowledgements would never grow the window.
        self.counted %= window.max(1);
        window.saturating_add(windows.saturating_mul(segment(view)))
    }

    fn on_idle(&mut self) {}
}
