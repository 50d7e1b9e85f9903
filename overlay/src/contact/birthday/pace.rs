//! Timing of the two sides of a search.

use std::time::Duration;

/// Timing of a search. It is fast if both sides know the fast timing: the question and the agreement say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Timing of versions that know no other: 200 packets a second, and one try.
    Slow,
    /// 800 packets a second. The hard side has made all mappings after 0.32 s, and the easy side has sent to
    /// 2,048 ports, in two tries, after 2.56 s.
    Fast,
}

impl Pace {
    /// Returns the timing of a question or an agreement with this flag.
    pub(crate) fn of_flag(is_fast: bool) -> Self {
        if is_fast { Self::Fast } else { Self::Slow }
    }

    /// Returns the number of packets that leave together.
    pub(super) fn tick_shots(self) -> usize {
        match self {
            Self::Slow => 4,
            Self::Fast => 8,
        }
    }

    /// Returns the pause after each group of packets.
    pub(super) fn tick(self) -> Duration {
        Duration::from_millis(match self {
            Self::Slow => 20,
            Self::Fast => 10,
        })
    }

    /// Returns the delay of the easy side after its agreement, in which the hard side makes its mappings.
    pub(super) fn lead(self) -> Duration {
        Duration::from_millis(match self {
            Self::Slow => 1500,
            Self::Fast => 300,
        })
    }

    /// Returns how long the hard side's sockets stay open if nothing is heard: twice the easy side's maximum
    /// sending time, in case its agreement was lost or its timers are late.
    pub(super) fn listening(self) -> Duration {
        Duration::from_secs(match self {
            Self::Slow => 12,
            Self::Fast => 6,
        })
    }

    /// Returns the number of tries with different ports.
    pub(super) fn tries(self) -> usize {
        match self {
            Self::Slow => 1,
            Self::Fast => 2,
        }
    }
}
