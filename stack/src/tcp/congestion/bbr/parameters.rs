//! Parameters in which BBR's variants differ. The default, [`ADAPTED`], changes the draft so:
//!
//! - Loss counts as congestion only with a queue that was lately long, or with a large part of a flight lost:
//!   bad links lose packets without a queue. With 1 % of random loss, the draft uses .84 of a link of
//!   100 Mbit/s and 40 ms.
//! - The window is 1 BDP in `Down`; `Cruise` and `Refill` add room for 10 ms of queue, and `Up` for three
//!   times as much, at least a quarter and at most a half of the shortest round trip. Room in proportion to
//!   the round trip would give flows with long round trips the queue, and with it the link.
//! - `ProbeRtt` keeps 0.75 BDP in flight, so less of the link is idle meanwhile.
//! - The first window is not paced, and start-up sends faster than doubling needs until it has overflowed a
//!   queue: otherwise short transfers take longer than with slow start.

use super::window::Window;

/// Parameters of a variant. Gains and thresholds are percentages.
#[derive(Debug)]
pub(super) struct Parameters {
    /// True if losses of a bad link are distinguished from losses of a full queue, and ignored by the model.
    pub(super) sorts_losses: bool,
    /// True if the short-term bounds need more loss in a round than `loss_threshold`, instead of any loss.
    pub(super) tolerates_rare_loss: bool,
    /// Loss in percent of the bytes in flight beyond which too much was in flight.
    pub(super) loss_threshold: u64,
    /// Loss of a round trip that ends start-up.
    pub(super) startup_loss_threshold: u64,
    /// True if the first window leaves at once, even if a round-trip time is known.
    pub(super) bursts_first_window: bool,
    /// True if start-up sends faster than doubling requires until it has overflowed a queue.
    pub(super) hastens: bool,
    /// Windows in relation to the estimated bandwidth-delay product.
    pub(super) startup_window: u64,
    pub(super) probe_rtt_window: u64,
    pub(super) down_window: Window,
    pub(super) cruise_window: Window,
    pub(super) up_window: Window,
}

/// Parameters of draft-ietf-ccwg-bbr.
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

/// Parameters adapted to links with random loss, and to many flows in deep queues.
pub(super) static ADAPTED: Parameters = Parameters {
    sorts_losses: true,
    tolerates_rare_loss: true,
    loss_threshold: 5,
    // Start-up loses a third or more of a flight when it overflows a queue. A lower threshold would end
    // start-up too early on bad links with varying round trips. Finding the bandwidth could then take
    // minutes.
    startup_loss_threshold: 10,
    bursts_first_window: true,
    hastens: true,
    startup_window: 200,
    probe_rtt_window: 75,
    // With twice the product in flight, windows limit the flows that share a deep queue. Pacing below the
    // bottleneck's rate then does not drain their queue. Room in `Down` helps short round trips slightly, but
    // ten equal flows share less evenly.
    down_window: Window::Share(100),
    cruise_window: Window::Room(1),
    up_window: Window::Room(3),
};
