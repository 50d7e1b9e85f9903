//! One request until its answer: when it is sent again, and when it is given up (RFC 8489, 6.2.1).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Purpose, Transmit};
use crate::stun::TransactionId;

/// How often a request is sent, and the time after which the first repetition leaves. It doubles each time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    rto: Duration,
    count: u32,
}

impl Schedule {
    /// Nothing is known of the server: RFC 8489's 500 ms, three times, given up after 3.5 s.
    pub(super) const UNKNOWN: Self = Self { rto: Duration::from_millis(500), count: 3 };

    /// The server has answered within this time, so its silence shows earlier. RFC 8489 lets clients measure.
    pub(super) fn known(rtt: Duration) -> Self {
        let rto = (rtt * 2).clamp(Duration::from_millis(100), Duration::from_millis(500));
        Self { rto, count: if rto < Duration::from_millis(300) { 4 } else { 3 } }
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
    left: u32,
}

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
        Self { id, purpose, socket, to, data, sent: now, wait: schedule.rto, left: schedule.count - 1 }
    }

    pub(super) fn last_sent(&self) -> Instant {
        self.sent
    }

    /// When it is sent again, or given up.
    pub(super) fn next(&self) -> Instant {
        self.sent + self.wait
    }

    /// Counts a repetition; `false` if there have been enough.
    pub(super) fn repeat(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.sent = now;
        self.wait *= 2;
        true
    }

    pub(super) fn transmit(&self) -> Transmit {
        Transmit { socket: self.socket, to: self.to, data: self.data.clone() }
    }
}
