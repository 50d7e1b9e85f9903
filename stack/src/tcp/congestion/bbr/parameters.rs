//! What BBR's variants differ in.

use super::window::Window;

/// Gains and thresholds are percentages.
#[derive(Debug)]
pub(super) struct Parameters {
    /// Losses of a bad link are told from those of a full queue, and change nothing in the model.
    pub(super) sorts_losses: bool,
    /// The short-term bounds need more loss in a round than `loss_threshold`, instead of any.
    pub(super) tolerates_rare_loss: bool,
    /// Loss of what was in flight beyond which it was too much.
    pub(super) loss_threshold: u64,
    /// Loss of a round trip that ends start-up.
    pub(super) startup_loss_threshold: u64,
    /// The first window leaves at once, even if a round trip time is known.
    pub(super) bursts_first_window: bool,
    /// Start-up sends faster than doubling needs until it has overflowed a queue.
    pub(super) hastens: bool,
    /// The window in relation to the estimated bandwidth-delay product.
    pub(super) startup_window: u64,
    pub(super) probe_rtt_window: u64,
    pub(super) down_window: Window,
    pub(super) cruise_window: Window,
    pub(super) up_window: Window,
}

/// As published in draft-ietf-ccwg-bbr.
pub(super) static PUBLISHED: Parameters = Parameters {
    sorts_losses: false,
    tolerates_rare_loss: false,
    loss_threshold: 2,
    startup_loss_threshold: 2,
    bursts_first_window: false,
    hastens: false,
    startup_window: 200,
    probe_rtt_window: 50,
    down_window: Window::Share(200),
    cruise_window: Window::Share(200),
    up_window: Window::Share(225),
};

/// Changed for links that lose packets of themselves, and for many flows in deep queues.
pub(super) static ADAPTED: Parameters = Parameters {
    sorts_losses: true,
    tolerates_rare_loss: true,
    loss_threshold: 5,
    // Start-up loses a third or more of a flight when it overflows a queue. Left too early, because of a bad
    // link whose round trips vary, it may be minutes until the bandwidth is found.
    startup_loss_threshold: 10,
    bursts_first_window: true,
    hastens: true,
    startup_window: 200,
    probe_rtt_window: 75,
    // With twice the product in flight, flows that share a deep queue are held by their windows, and pacing
    // slower than the bottleneck does not drain the queue that they have built. Room in `Down` helps short
    // round trips a little more, but ten equal flows share less evenly.
    down_window: Window::Share(100),
    cruise_window: Window::Room(1),
    up_window: Window::Room(3),
};
