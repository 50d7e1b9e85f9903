//! What a connection knows of itself and of its path: TCP_INFO.

use std::time::{Duration, Instant};

use super::Flow;
use crate::{CongestionControl, State};

/// A connection's figures, as Linux's TCP_INFO has them.
///
/// ```
/// # use std::time::Instant;
/// # use peersock_stack::{Config, InterfaceConfig, Stack, State, TcpOptions};
/// # let now = Instant::now();
/// # let stack = Stack::new(Config::default(), [7; 32], now);
/// # let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
/// let flow = stack.tcp_connect(now, net, None, "10.0.0.2:80".parse()?, TcpOptions::default())?;
/// let info = flow.info().expect("it is not closed");
/// assert_eq!((info.state, info.rtt), (State::SynSent, None));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// The connection's state.
    pub state: State,
    /// What decides on the congestion window.
    pub congestion: CongestionControl,
    /// The smoothed round-trip time (RFC 6298), its mean deviation, and the shortest of the last minutes.
    /// `None` before the first measurement.
    pub rtt: Option<Duration>,
    /// See `rtt`.
    pub rtt_variation: Duration,
    /// See `rtt`.
    pub min_rtt: Option<Duration>,
    /// The retransmission timeout, and how often in a row it has passed.
    pub retransmission_timeout: Duration,
    /// See `retransmission_timeout`.
    pub backoff: u32,
    /// Payload of a full segment, bytes.
    pub mss: u64,
    /// What the path takes, bytes of an IP packet. See [`Flow::path_mtu`].
    pub path_mtu: u64,
    /// The congestion window, and the slow start threshold if there is one, bytes.
    pub congestion_window: u64,
    /// See `congestion_window`.
    pub slow_start_threshold: Option<u64>,
    /// How fast data may leave, bytes per second; `None` if nothing but windows limits it.
    pub pacing_rate: Option<u64>,
    /// The peer's window: bytes that it takes beyond what it has acknowledged.
    pub peer_window: u64,
    /// Bytes sent and neither acknowledged, reported as arrived out of order, nor lost.
    pub in_flight: u64,
    /// Bytes that the peer has out of order.
    pub sacked: u64,
    /// Bytes that are lost and wait to be sent again.
    pub lost: u64,
    /// Bytes written and not acknowledged, and those of them that were never sent.
    pub unacked: u64,
    /// See `unacked`.
    pub unsent: u64,
    /// Bytes that the peer has received.
    pub delivered: u64,
    /// Segments, counted as they left together, that were sent again.
    pub retransmits: u64,
    /// Bytes that arrived in order.
    pub received: u64,
    /// The present sizes of the queues, bytes.
    pub send_buffer: u64,
    /// See `send_buffer`.
    pub receive_buffer: u64,
    /// Both ends take part in explicit congestion notification (RFC 3168).
    pub ecn: bool,
}

impl Flow {
    /// TCP_INFO. `None` once the connection has ended, TIME-WAIT included.
    pub fn info(&self) -> Option<TcpInfo> {
        self.lock().live().map(|connection| connection.info(self.local()))
    }

    /// TCP_CONGESTION. `None` once the connection has ended.
    pub fn congestion(&self) -> Option<CongestionControl> {
        self.lock().live().map(|connection| connection.congestion())
    }

    /// Sets TCP_CONGESTION. The new algorithm starts with the window that the old one has come to.
    pub fn set_congestion(&self, now: Instant, congestion: CongestionControl) {
        let (mut inner, time) = self.lock_at(now);
        if let Some(connection) = inner.live() {
            connection.set_congestion(time, congestion);
        }
    }

    /// Sets TCP_CORK: a segment that is not full waits for more, for 200 ms at most. Output may follow when
    /// it is taken off.
    pub fn set_cork(&self, on: bool) {
        if let Some(connection) = self.lock().live() {
            connection.set_cork(on);
        }
    }

    /// The application waits for data: acknowledgements that were held for it are due, see
    /// [`TcpOptions::prompt`](crate::TcpOptions::prompt). `true`: output follows.
    pub fn wait_for_data(&self, now: Instant) -> bool {
        let (mut inner, time) = self.lock_at(now);
        let Some(connection) = inner.live() else { return false };
        connection.wait_for_data();
        connection.has_output(time)
    }

    /// Sets TCP_QUICKACK: the next segments are acknowledged at once, or wait for data to ride on. Output may
    /// follow.
    pub fn set_quick_ack(&self, on: bool) {
        if let Some(connection) = self.lock().live() {
            connection.set_quick_ack(on);
        }
    }
}
