//! One request until its answer: when it is sent again, and when it is given up (RFC 8489, 6.2.1).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Purpose, Transmit};
use crate::stun::TransactionId;

/// The pause between two repetitions stops to double here, so that a lossy path is asked often enough.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// How often a request is sent, and the time after which the first repetition leaves. It doubles each time,
/// up to half a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    rto: Duration,
    count: u32,
}

impl Schedule {
    /// Nothing is known of the server. One request more than RFC 8489's seven, because the time between them
    /// is short; given up after 3.75 s.
    pub(super) const UNKNOWN: Self = Self { rto: Duration::from_millis(250), count: 8 };

    /// The server has answered within this time, and an answer is owed: only loss keeps it away. RFC 8489
    /// lets clients measure. Given up after 2.7 to 3.5 s.
    pub(super) fn owed(rtt: Duration) -> Self {
        Self { rto: Self::rto(rtt), count: 7 }
    }

    /// The server has answered within this time, but here a NAT may keep the answer away for ever. Its
    /// silence has a meaning, and shows after about 1.5 s.
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

/// The most requests to an endpoint that a server has named, and whose host has not answered: with fewer, a
/// tenth of all datagrams lost in each direction would hide how the NAT maps.
const MOST_TO_NAMED: u32 = 3;

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

    /// When it is sent again, or given up.
    pub(super) fn next(&self) -> Instant {
        self.sent + self.wait
    }

    /// Counts a repetition; `false` if there have been enough. `is_named` is for whoever a server has named,
    /// and has not answered.
    pub(super) fn repeat(&mut self, now: Instant, is_named: bool) -> bool {
        if self.sendings >= if is_named { self.most.min(MOST_TO_NAMED) } else { self.most } {
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
