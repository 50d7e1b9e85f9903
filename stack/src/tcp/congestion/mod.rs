//! Congestion control: the number of bytes in flight, and the pacing rate.
//!
//! The sender reports events to its [`Algorithm`] and asks it for the window and the pacing rate. Loss
//! detection and retransmission belong to the sender and are the same for all algorithms.

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

/// State of the sender at the time of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) now: Time,
    /// Maximum payload of a segment, bytes. It may change.
    pub(crate) mss: u64,
    /// Bytes sent and neither acknowledged, SACKed nor marked lost, after the event.
    pub(crate) in_flight: u64,
    /// Bytes ever acknowledged or SACKed, and bytes ever marked lost.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    /// Stream offsets: the oldest unacknowledged byte, and the next byte to be sent for the first time.
    pub(crate) una: u64,
    pub(crate) nxt: u64,
    /// Smoothed round-trip time of RFC 6298; `None` before the first sample.
    pub(crate) srtt: Option<Duration>,
    /// True if the congestion window, not the application or the receiver, has limited sending since the last
    /// acknowledgement.
    pub(crate) window_limited: bool,
}

/// Recovery state of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// No loss is being repaired.
    #[default]
    Open,
    /// Fast recovery (RFC 6675), until everything sent before its start is acknowledged.
    Recovery,
    /// Recovery after a retransmission timeout (RFC 5681 3.1), until everything sent before it is
    /// acknowledged.
    Loss,
}

/// Summary of one acknowledgement, after the scoreboard and loss detection have processed it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ack {
    /// Bytes by which the cumulative acknowledgement advanced.
    pub(crate) acked: u64,
    /// Bytes newly acknowledged or SACKed, that is, bytes that have left the network.
    pub(crate) delivered: u64,
    /// Bytes newly marked lost; [`Algorithm::on_lost`] was called for each run before.
    pub(crate) lost: u64,
    /// Bytes in flight before the acknowledgement.
    pub(crate) prior_in_flight: u64,
    /// Round-trip time of the newest segment delivered that was sent once.
    pub(crate) rtt: Option<Duration>,
    pub(crate) sample: RateSample,
}

/// A transmission that was marked lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    pub(crate) bytes: u64,
    pub(crate) snapshot: Snapshot,
}

/// Reason to reduce the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Loss,
    /// Mark by a router instead of a drop (RFC 3168).
    Mark,
}

/// A congestion control algorithm. Units are bytes, and bytes per second.
pub(crate) trait Algorithm {
    /// Notes that `bytes` are about to leave; `view` is the state before.
    fn on_sent(&mut self, view: &View, bytes: u64);

    /// Notes that a transmission was marked lost. Comes before the [`on_ack`](Self::on_ack) that revealed the
    /// loss.
    fn on_lost(&mut self, view: &View, lost: &Lost);

    /// Reacts to the first loss or mark of a window of data; a loss starts fast recovery. Comes before the
    /// `on_ack`.
    fn on_congestion(&mut self, view: &View, cause: Cause);

    /// Reacts to a retransmission timeout: everything in flight was marked lost.
    fn on_timeout(&mut self, view: &View);

    /// Processes an acknowledgement.
    fn on_ack(&mut self, view: &View, ack: &Ack);

    /// Notes that everything in flight at the last congestion or timeout is acknowledged. Comes before the
    /// `on_ack`.
    fn on_recovered(&mut self, view: &View);

    /// Undoes the reaction to the last congestion or timeout, because nothing had been lost.
    fn on_undo(&mut self, view: &View);

    /// Restarts after a timeout on a path that works again, or on another path. Everything in flight is
    /// marked lost, and `initial_window` bytes may leave at once.
    fn on_revived(&mut self, initial_window: u64);

    /// Prepares for sending after an idle time longer than a retransmission timeout.
    fn on_idle(&mut self, view: &View);

    /// Returns the congestion window.
    fn window(&self) -> u64;

    /// Returns the slow start threshold, or `None` before the first congestion.
    fn slow_start_threshold(&self) -> Option<u64>;

    /// Returns the pacing rate; `None` if only the window limits sending.
    fn pacing_rate(&self) -> Option<u64>;
}

/// Size of the largest segment, bytes.
const MAX_SEGMENT: u64 = 1 << 16;

/// Returns the segment size, bounded so that arithmetic with it neither divides by zero nor overflows.
fn segment(view: &View) -> u64 {
    view.mss.clamp(1, MAX_SEGMENT)
}

/// TCP congestion control algorithm: TCP_CONGESTION.
///
/// ```
/// use peersock_stack::CongestionControl;
///
/// assert_eq!("cubic".parse(), Ok(CongestionControl::Cubic));
/// assert_eq!(CongestionControl::default().to_string(), "bbr");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CongestionControl {
    /// BBR (draft-ietf-ccwg-bbr) that distinguishes congestion losses from losses of a bad link: `bbr`.
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
    /// All algorithms, the default first.
    pub const ALL: [CongestionControl; 4] = [Self::Bbr, Self::Bbr3, Self::Cubic, Self::Reno];

    /// Returns the name in TCP_CONGESTION.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bbr => "bbr",
            Self::Bbr3 => "bbr3",
            Self::Cubic => "cubic",
            Self::Reno => "reno",
        }
    }

    /// Starts the algorithm of a new connection with `mss` bytes per segment and an initial window.
    pub(crate) fn start(self, now: Time, mss: u64, initial_window: u64) -> Controller {
        Controller::new(self, now, mss, initial_window)
    }
}

impl fmt::Display for CongestionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Error for an unknown congestion control algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such congestion control; there are bbr, bbr3, cubic and reno")]
pub struct UnknownCongestionControl;

impl FromStr for CongestionControl {
    type Err = UnknownCongestionControl;

    fn from_str(name: &str) -> Result<Self, UnknownCongestionControl> {
        Self::ALL.into_iter().find(|one| one.name() == name).ok_or(UnknownCongestionControl)
    }
}
