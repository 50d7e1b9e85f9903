//! How soon and how fast the two sides of a search send.

use std::time::Duration;

/// The timing of a search. It is the fast one if both sides know it: who asks says so, and who agrees does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// That of versions that know no other: 200 packets a second, and one try.
    Slow,
    /// 800 packets a second. The hard side has made all mappings after 0.32 s, and the easy side has sent to
    /// 2,048 ports, in two tries, after 2.56 s.
    Fast,
}

impl Pace {
    /// That of a question or an agreement with this flag.
    pub(crate) fn of_flag(is_fast: bool) -> Self {
        if is_fast { Self::Fast } else { Self::Slow }
    }

    /// So many packets leave in one go.
    pub(super) fn tick_shots(self) -> usize {
        match self {
            Self::Slow => 4,
            Self::Fast => 8,
        }
    }

    /// The pause after that.
    pub(super) fn tick(self) -> Duration {
        Duration::from_millis(match self {
            Self::Slow => 20,
            Self::Fast => 10,
        })
    }

    /// The easy side begins so much later than it agrees: the hard side has made its mappings by then.
    pub(super) fn lead(self) -> Duration {
        Duration::from_millis(match self {
            Self::Slow => 1500,
            Self::Fast => 300,
        })
    }

    /// The hard side's sockets stay open for so long if nothing is heard on them: twice as long as the easy
    /// side sends at most, in case that its agreement was lost or its timers are late.
    pub(super) fn listening(self) -> Duration {
        Duration::from_secs(match self {
            Self::Slow => 12,
            Self::Fast => 6,
        })
    }

    /// How often as many ports are tried as one try has.
    pub(super) fn tries(self) -> usize {
        match self {
            Self::Slow => 1,
            Self::Fast => 2,
        }
    }
}
