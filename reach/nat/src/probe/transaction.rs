//! One request until its answer: the retransmissions, and the timeout (RFC 8489, 6.2.1).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Purpose, Transmit};
use crate::stun::TransactionId;

/// Longest wait between two retransmissions, short enough that a lossy path is asked often.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// Number of transmissions, and the time until the first retransmission. It doubles each time, up to half a
/// second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    rto: Duration,
    count: u32,
}

impl Schedule {
    /// Schedule for an unknown server: one request more than RFC 8489's seven, because the intervals are
    /// short. Times out after 3.75 s.
    pub(super) const UNKNOWN: Self = Self { rto: Duration::from_millis(250), count: 8 };

    /// Returns the schedule for a server that has answered within `rtt` and should answer again, so that only
    /// loss can prevent the answer. RFC 8489 allows clients to measure. Times out after 2.7 to 3.5 s.
    pub(super) fn owed(rtt: Duration) -> Self {
        Self { rto: Self::rto(rtt), count: 7 }
    }

    /// Returns the schedule for a server that has answered within `rtt`, when a NAT may block this answer
    /// forever. The silence has a meaning, and is noticed after about 1.5 s.
    pub(super) fn filtered(rtt: Duration) -> Self {
        let rto = Self::rto(rtt);
        Self { rto, count: if rto < Duration::from_millis(300) { 4 } else { 3 } }
    }

    fn rto(rtt: Duration) -> Duration {
        (rtt * 2).clamp(Duration::from_millis(100), MAX_WAIT)
    }
}

#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: TransactionId,
    pub(super) purpose: Purpose,
    pub(super) socket: usize,
    pub(super) to: SocketAddr,
    data: Vec<u8>,
    sent: Instant,
    wait: Duration,
    sendings: u32,
    most: u32,
}

/// Limit of requests to an endpoint that a server has named and whose host has not answered. With fewer, a
/// loss of a tenth of all datagrams in each direction would hide the mapping.
const MAX_REQUESTS_TO_NAMED: u32 = 3;

impl Transaction {
    pub(super) fn new(
        id: TransactionId,
        purpose: Purpose,
        socket: usize,
        to: SocketAddr,
        data: Vec<u8>,
        schedule: Schedule,
        now: Instant,
    ) -> Self {
        Self {
            id,
            purpose,
            socket,
            to,
            data,
            sent: now,
            wait: schedule.rto,
            sendings: 1,
            most: schedule.count,
        }
    }

    pub(super) fn last_sent(&self) -> Instant {
        self.sent
    }

    /// Returns the time of the next retransmission, or of the timeout.
    pub(super) fn next(&self) -> Instant {
        self.sent + self.wait
    }

    /// Counts a retransmission; returns `false` if there have been enough. `is_named` marks an endpoint that
    /// a server has named and whose host has not answered.
    pub(super) fn repeat(&mut self, now: Instant, is_named: bool) -> bool {
        if self.sendings >= if is_named { self.most.min(MAX_REQUESTS_TO_NAMED) } else { self.most } {
            return false;
        }
        self.sendings += 1;
        self.sent = now;
        self.wait = (self.wait * 2).min(MAX_WAIT);
        true
    }

    pub(super) fn transmit(&self) -> Transmit {
        Transmit { socket: self.socket, to: self.to, data: self.data.clone() }
    }
}
