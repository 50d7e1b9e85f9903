//! CUBIC (RFC 9438): the window is a cubic function of the time since the last congestion. The function is
//! flat at the window of that congestion, and the window never grows more slowly than Reno's.

use crate::host::clock::{Time, after, since};

use super::hystart::HyStart;
use super::loss_based::{Growth, LossBased};
use super::{View, segment};

/// Constant C of RFC 9438, segments per second cubed.
const C: f64 = 0.4;

/// Factor by which congestion reduces the window.
const BETA: f64 = 0.7;

/// Segments per window by which Reno must grow to get the same mean rate, if it reduced its window by BETA,
/// too.
const RENO_ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

pub(crate) fn start(mss: u64, initial_window: u64) -> LossBased<Cubic> {
    let growth = Cubic { max: 0.0, prior: 0.0, epoch: None, seen: Time::ZERO };
    LossBased::new(growth, Some(HyStart::new()), mss, initial_window)
}

/// State of CUBIC. Windows are in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cubic {
    /// Window at which the curve is flat: the window at the last congestion, or less for fast convergence. 0
    /// for the window with which congestion avoidance starts.
    max: f64,
    /// Window at the last congestion.
    prior: f64,
    epoch: Option<Epoch>,
    /// Time of the last acknowledgement.
    seen: Time,
}

/// State since the last reduction of the window.
#[derive(Debug, Clone, Copy)]
struct Epoch {
    /// Start, moved on by the time in which the window was not used.
    start: Time,
    /// Seconds until the curve is flat, and the window there.
    k: f64,
    origin: f64,
    /// Estimate of Reno's window.
    reno: f64,
    /// Fraction of a byte by which the window has yet to grow.
    rest: f64,
}

impl Epoch {
    // If the window has outgrown the last maximum, the curve begins flat.
    fn new(now: Time, window: f64, max: f64, mss: f64) -> Self {
        let origin = max.max(window);
        let k = ((origin - window) / mss / C).cbrt();
        Self { start: now, k, origin, reno: window, rest: 0.0 }
    }

    /// Returns the value of the curve, `seconds` after the start.
    fn window_at(&self, seconds: f64, mss: f64) -> f64 {
        self.origin + C * (seconds - self.k).powi(3) * mss
    }
}

impl Growth for Cubic {
    fn reduce(&mut self, window: u64) -> u64 {
        let window = window as f64;
        // Fast convergence: a flow whose window shrinks from one congestion to the next releases bandwidth
        // for new flows.
        self.max = if window < self.max { window * (1.0 + BETA) / 2.0 } else { window };
        self.prior = window;
        self.epoch = None;
        (window * BETA) as u64
    }

    fn on_timeout(&mut self) {
        // RFC 9438 (4.8): the curve is flat at the window with which congestion avoidance starts.
        self.max = 0.0;
        self.epoch = None;
    }

    fn grow(&mut self, view: &View, window: u64, bytes: u64, used: bool) -> u64 {
        let now = view.now;
        let mss = segment(view) as f64;
        let cwnd = window.max(1) as f64;
        let pause = since(now, self.seen);
        self.seen = now;
        let epoch = self.epoch.get_or_insert_with(|| Epoch::new(now, cwnd, self.max, mss));
        if !used {
            // RFC 9438 (5.8): the curve pauses while the application has too little to send.
            if now > epoch.start {
                epoch.start = after(epoch.start, pause).min(now);
            }
            return window;
        }
        let acked = bytes as f64;
        let elapsed = since(now, epoch.start).as_secs_f64();
        let ahead = elapsed + view.srtt.unwrap_or_default().as_secs_f64();
        // RFC 9438 4.3: beyond the window of the last congestion, the estimate grows as Reno does.
        let alpha = if epoch.reno >= self.prior { 1.0 } else { RENO_ALPHA };
        epoch.reno += alpha * mss * acked / cwnd;
        let target = if epoch.window_at(elapsed, mss) < epoch.reno {
            epoch.reno.max(cwnd)
        } else {
            // RFC 9438 4.2: at most one and a half times the window per round trip.
            let target = epoch.window_at(ahead, mss).clamp(cwnd, 1.5 * cwnd);
            cwnd + (target - cwnd) * (acked / cwnd).min(1.0)
        };
        // Slow growth would be lost to rounding without the rest.
        let grown = target - cwnd + epoch.rest;
        let whole = grown.floor();
        epoch.rest = grown - whole;
        window.saturating_add(whole as u64)
    }

    fn on_idle(&mut self) {
        // The curve would otherwise have run on through the idle time.
        self.epoch = None;
    }
}
