//! How much may be in flight in each state.
//!
//! Flows divide a bottleneck as they divide its queue. If windows only grow in proportion to round trip
//! times, a flow with a short one has no room for its part of the queue that flows with long ones make: it
//! waits longer than its window lasts, gets less, and takes that for the path's bandwidth. So the window of a
//! flow with a short round trip has more room in proportion.

use crate::tcp::arithmetic::scaled;

use super::parameters::Parameters;
use super::{Bbr, BbrState};

/// How long a packet may wait behind others of all flows, microseconds,
const ROOM: u64 = 10_000;

/// and the least and the most of that in parts of the round trip: with less than a quarter, loss on long
/// paths costs more, and with more than a half, many flows with short round trips overflow a small buffer
/// more often.
const LEAST: u64 = 4;
const MOST: u64 = 2;

/// A window in relation to the path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Window {
    /// Percent of the bandwidth-delay product.
    Share(u64),
    /// The product, and so many times the room for a queue.
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
    /// Bytes in flight that the present state aims at.
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

/// The time that a queue may take, with a shortest round trip time of `min_rtt`. Microseconds.
fn room(min_rtt: u64) -> u64 {
    ROOM.clamp(min_rtt / LEAST, min_rtt / MOST)
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
