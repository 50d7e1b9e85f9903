//! Figures of a connection and of its path: TCP_INFO.

use std::time::{Duration, Instant};

use super::Flow;
use crate::{CongestionControl, State};

/// Figures of a connection, as in Linux's TCP_INFO.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// State of the connection.
    pub state: State,
    /// Congestion control algorithm.
    pub congestion: CongestionControl,
    /// Smoothed round-trip time (RFC 6298), its mean deviation, and the minimum of the last minutes. `None`
    /// before the first measurement.
    pub rtt: Option<Duration>,
    /// Mean deviation of `rtt`.
    pub rtt_variation: Duration,
    /// Minimum of `rtt` over the last minutes.
    pub min_rtt: Option<Duration>,
    /// Retransmission timeout, and the number of consecutive expiries.
    pub retransmission_timeout: Duration,
    /// Number of consecutive expiries of `retransmission_timeout`.
    pub backoff: u32,
    /// Payload of a full segment, bytes.
    pub mss: u64,
    /// MTU of the path, bytes of an IP packet. See [`Flow::path_mtu`].
    pub path_mtu: u64,
    /// Congestion window, and the slow start threshold if there is one, bytes.
    pub congestion_window: u64,
    /// Slow start threshold, bytes.
    pub slow_start_threshold: Option<u64>,
    /// Pacing rate, bytes per second; `None` if only windows limit sending.
    pub pacing_rate: Option<u64>,
    /// Window of the peer: bytes that it accepts beyond its acknowledgement.
    pub peer_window: u64,
    /// Bytes sent and neither acknowledged, reported as arrived out of order, nor lost.
    pub in_flight: u64,
    /// Bytes that the peer has out of order.
    pub sacked: u64,
    /// Bytes that are lost and wait for retransmission.
    pub lost: u64,
    /// Bytes written and not acknowledged, and the part of them that was never sent.
    pub unacked: u64,
    /// Bytes written and never sent.
    pub unsent: u64,
    /// Bytes that the peer has received.
    pub delivered: u64,
    /// Number of retransmissions; segments sent together count once.
    pub retransmits: u64,
    /// Bytes that arrived in order.
    pub received: u64,
    /// Present sizes of the queues, bytes.
    pub send_buffer: u64,
    /// Present size of the receive queue, bytes.
    pub receive_buffer: u64,
    /// True if both ends use explicit congestion notification (RFC 3168).
    pub ecn: bool,
}

impl Flow {
    /// Returns TCP_INFO. `None` once the connection has ended, TIME-WAIT included.
    pub fn info(&self) -> Option<TcpInfo> {
        self.lock().live().map(|connection| connection.info(self.local()))
    }

    /// Returns TCP_CONGESTION. `None` once the connection has ended.
    pub fn congestion(&self) -> Option<CongestionControl> {
        self.lock().live().map(|connection| connection.congestion())
    }

    /// Sets TCP_CONGESTION. The new algorithm starts with the present window.
    pub fn set_congestion(&self, now: Instant, congestion: CongestionControl) {
        let (mut inner, time) = self.lock_at(now);
        if let Some(connection) = inner.live() {
            connection.set_congestion(time, congestion);
        }
    }

    /// Sets TCP_CORK: a partial segment waits for more data, for 200 ms at most. Turning it off may produce
    /// output.
    pub fn set_cork(&self, on: bool) {
        if let Some(connection) = self.lock().live() {
            connection.set_cork(on);
        }
    }

    /// Notes that the application waits for data, which releases held acknowledgements, see
    /// [`TcpOptions::prompt`](crate::TcpOptions::prompt). Returns `true` if there is output.
    pub fn wait_for_data(&self, now: Instant) -> bool {
        let (mut inner, time) = self.lock_at(now);
        let Some(connection) = inner.live() else { return false };
        connection.wait_for_data();
        connection.has_output(time)
    }

    /// Sets TCP_QUICKACK: the next segments are acknowledged at once, or acknowledgements wait for data to
    /// carry them. May produce output.
    pub fn set_quick_ack(&self, on: bool) {
        if let Some(connection) = self.lock().live() {
            connection.set_quick_ack(on);
        }
    }
}
