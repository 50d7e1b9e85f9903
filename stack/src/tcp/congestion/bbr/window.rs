//! Target of the bytes in flight in each state.
//!
//! Flows share a bottleneck in proportion to their shares of its queue. Suppose windows grew only in
//! proportion to round-trip times. Then a flow with a short round trip would have no room for its share of a
//! queue made by flows with long round trips. It waits longer than its window lasts, gets less, and mistakes
//! that for the path's bandwidth. So the window of a flow with a short round trip has proportionally more
//! room.

use crate::tcp::arithmetic::scaled;

use super::parameters::Parameters;
use super::{Bbr, BbrState};

/// Time for which a packet may wait behind packets of all flows, microseconds.
const MAX_WAIT_US: u64 = 10_000;

/// Divisors of the round-trip time that give the minimum and the maximum of that time. With less than a
/// quarter, loss on long paths costs more. With more than a half, many flows with short round trips overflow
/// a small buffer more often.
const MIN_WAIT_DIVISOR: u64 = 4;
const MAX_WAIT_DIVISOR: u64 = 2;

/// Window in relation to the path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Window {
    /// Percentage of the bandwidth-delay product.
    Share(u64),
    /// Bandwidth-delay product plus a multiple of the room for a queue.
    Room(u64),
}

impl BbrState {
    fn window(self, parameters: &Parameters) -> Window {
        match self {
            BbrState::Startup | BbrState::Drain => Window::Share(parameters.startup_window),
            BbrState::Down => parameters.down_window,
            BbrState::Cruise | BbrState::Refill => parameters.cruise_window,
            BbrState::Up => parameters.up_window,
            BbrState::ProbeRtt => Window::Share(parameters.probe_rtt_window),
        }
    }
}

impl Bbr {
    /// Returns the target of bytes in flight in the present state.
    pub(super) fn aim(&self) -> u64 {
        match self.state.window(self.parameters) {
            Window::Share(gain) => self.bdp(gain),
            Window::Room(times) => {
                let room = self.round_trip.min().map_or(0, |min_rtt| room(min_rtt).saturating_mul(times));
                self.bdp(100).saturating_add(scaled(self.rate(), room, 1_000_000))
            }
        }
    }
}

/// Returns the time that a queue may take at a minimum round-trip time of `min_rtt`. Microseconds.
fn room(min_rtt: u64) -> u64 {
    MAX_WAIT_US.clamp(min_rtt / MIN_WAIT_DIVISOR, min_rtt / MAX_WAIT_DIVISOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_have_room_for_a_queue_of_the_same_time_at_usual_round_trips() {
        for min_rtt in [20_000, 30_000, 40_000] {
            assert_eq!(room(min_rtt), 10_000);
        }
    }

    #[test]
    fn room_is_a_quarter_to_a_half_of_the_round_trip() {
        let all = [(0, 0), (1, 0), (200, 100), (10_000, 5000), (200_000, 50_000), (u64::MAX, u64::MAX / 4)];
        for (min_rtt, expected) in all {
            assert_eq!(room(min_rtt), expected);
        }
    }
}
