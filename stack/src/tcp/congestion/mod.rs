//! Congestion control: how much may be in flight, and how fast it may leave.
//!
//! The sender tells its [`Algorithm`] what happens and asks it for the window and the pacing rate. Which
//! losses there are, when they are noticed and what is sent again is the sender's business, the same for all
//! algorithms.

mod bbr;
mod controller;
mod cubic;
mod filter;
mod hystart;
mod loss_based;
mod prr;
mod reno;
#[cfg(test)]
mod tests;
mod usage;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub(crate) use self::controller::Controller;
use crate::host::clock::Time;
use crate::tcp::rate::{RateSample, Snapshot};

/// What the sender knows when it tells something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) now: Time,
    /// The segment's payload at most, bytes. It may change.
    pub(crate) mss: u64,
    /// Bytes sent and neither acknowledged, SACKed nor marked lost, after what is told.
    pub(crate) in_flight: u64,
    /// Bytes ever acknowledged or SACKed, and bytes ever marked lost.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    /// Stream offsets: the oldest byte without an acknowledgement, and the next one to send for the first
    /// time.
    pub(crate) una: u64,
    pub(crate) nxt: u64,
    /// RFC 6298's; `None` before the first sample.
    pub(crate) srtt: Option<Duration>,
    /// The window, and not the application or the receiver, has kept data back since the last
    /// acknowledgement.
    pub(crate) window_limited: bool,
}

/// The sender's state of recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// No loss is being repaired.
    #[default]
    Open,
    /// Fast recovery (RFC 6675), until what was sent at its beginning is acknowledged.
    Recovery,
    /// After a retransmission timeout (RFC 5681 3.1), likewise.
    Loss,
}

/// One arriving acknowledgement, after the scoreboard and loss detection have dealt with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ack {
    /// Bytes by which the cumulative acknowledgement moved.
    pub(crate) acked: u64,
    /// Bytes newly acknowledged or SACKed: what left the network at the other end.
    pub(crate) delivered: u64,
    /// Bytes newly marked lost; each was told to [`Algorithm::on_lost`] before.
    pub(crate) lost: u64,
    /// Bytes in flight before it.
    pub(crate) prior_in_flight: u64,
    /// The round trip time it measures, of the newest segment it delivers that was sent once.
    pub(crate) rtt: Option<Duration>,
    pub(crate) sample: RateSample,
}

/// A transmission that was marked lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    pub(crate) bytes: u64,
    pub(crate) snapshot: Snapshot,
}

/// What calls for a smaller window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Loss,
    /// RFC 3168: a router marked a packet instead of dropping it.
    Mark,
}

/// An algorithm. Units: bytes, and bytes per second.
pub(crate) trait Algorithm {
    /// `bytes` are about to leave; the view is of before.
    fn on_sent(&mut self, view: &View, bytes: u64);

    /// A transmission was marked lost. Comes before the [`on_ack`](Self::on_ack) that revealed it.
    fn on_lost(&mut self, view: &View, lost: &Lost);

    /// The first loss or mark of a window of data; of a loss, fast recovery begins. Comes before the
    /// `on_ack`.
    fn on_congestion(&mut self, view: &View, cause: Cause);

    /// The retransmission timer has ended: everything in flight was marked lost.
    fn on_timeout(&mut self, view: &View);

    /// An acknowledgement has been dealt with.
    fn on_ack(&mut self, view: &View, ack: &Ack);

    /// What was in flight at the last congestion or timeout has been acknowledged. Comes before the `on_ack`.
    fn on_recovered(&mut self, view: &View);

    /// The last congestion or timeout was none: nothing had been lost.
    fn on_undo(&mut self, view: &View);

    /// A path that was dead carries packets again, or another one does, after a timeout: what was in flight
    /// is marked lost, and this may leave at once.
    fn on_revived(&mut self, initial_window: u64);

    /// The connection has been idle for longer than a retransmission timeout and is about to send again.
    fn on_idle(&mut self, view: &View);

    /// Bytes that may be in flight.
    fn window(&self) -> u64;

    /// Slow start threshold, `None` if there was no reason for one yet.
    fn slow_start_threshold(&self) -> Option<u64>;

    /// How fast data may leave, `None`: as fast as the window lets it.
    fn pacing_rate(&self) -> Option<u64>;
}

/// The largest segment there is, bytes.
const MAX_SEGMENT: u64 = 1 << 16;

/// The segment's size, such that nothing can go wrong with it.
fn segment(view: &View) -> u64 {
    view.mss.clamp(1, MAX_SEGMENT)
}

/// A TCP congestion control algorithm: TCP_CONGESTION.
///
/// ```
/// use peersock_stack::CongestionControl;
///
/// assert_eq!("cubic".parse(), Ok(CongestionControl::Cubic));
/// assert_eq!(CongestionControl::default().to_string(), "bbr");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CongestionControl {
    /// BBR (draft-ietf-ccwg-bbr) that tells losses of congestion from those of a bad link: `bbr`.
    #[default]
    Bbr,
    /// BBR version 3 as published: `bbr3`.
    Bbr3,
    /// CUBIC (RFC 9438) with HyStart++ (RFC 9406): `cubic`.
    Cubic,
    /// NewReno (RFC 5681, RFC 6582): `reno`.
    Reno,
}

impl CongestionControl {
    /// All of them, the default first.
    pub const ALL: [CongestionControl; 4] = [Self::Bbr, Self::Bbr3, Self::Cubic, Self::Reno];

    /// Its name in TCP_CONGESTION.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bbr => "bbr",
            Self::Bbr3 => "bbr3",
            Self::Cubic => "cubic",
            Self::Reno => "reno",
        }
    }

    /// A new connection's, with `mss` bytes in a segment and `initial_window` bytes to start with.
    pub(crate) fn start(self, now: Time, mss: u64, initial_window: u64) -> Controller {
        Controller::new(self, now, mss, initial_window)
    }
}

impl fmt::Display for CongestionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no congestion control algorithm of that name.
///
/// ```
/// let error = "vegas".parse::<peersock_stack::CongestionControl>().unwrap_err();
/// assert_eq!(error.to_string(), "no such congestion control; there are bbr, bbr3, cubic and reno");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such congestion control; there are bbr, bbr3, cubic and reno")]
pub struct UnknownCongestionControl;

impl FromStr for CongestionControl {
    type Err = UnknownCongestionControl;

    fn from_str(name: &str) -> Result<Self, UnknownCongestionControl> {
        Self::ALL.into_iter().find(|one| one.name() == name).ok_or(UnknownCongestionControl)
    }
}
