//! Limits of the memory and time that strangers can take from a server.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock_primitives::Counter;
use peersock_primitives::admission::{self, Admission, Full, Places};
use peersock_primitives::sync::{AtomicBool, AtomicUsize, Ordering};

use super::ServerCounters;
use crate::connection::Shared;

/// Limits of a server's connections and of their cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections in total. Each needs a file descriptor. Default: 10,000.
    pub connections: usize,
    /// Connections of one source prefix: 24 bits of IPv4 addresses, 56 of IPv6. All nodes behind one proxy
    /// count together. Default: 1,000.
    pub per_prefix: usize,
    /// Connections that are not admitted yet, including those in their handshakes. When this or another limit
    /// is reached, a new connection evicts the oldest unadmitted one of the prefix that has most of them.
    /// Default: 1,000.
    pub unadmitted: usize,
    /// Timeout of TLS, the HTTP request and the first frame together. Default: 10 s.
    pub handshake_timeout: Duration,
    /// Timeout from then until the connection is [admitted](super::ServerHandle::admit). Default: 15 s.
    pub admission_timeout: Duration,
    /// Bytes of datagrams of all connections that wait for [`Server::recv`](super::Server::recv). Default: 16
    /// MiB.
    pub inbox: usize,
    /// The same for one admitted connection. Default: 256 KiB.
    pub inbox_per_connection: usize,
    /// The same for one unadmitted connection; one datagram always fits. Default: 16 KiB.
    pub inbox_unadmitted: usize,
    /// Maximum age: a datagram that has waited longer for [`Server::recv`](super::Server::recv) is dropped.
    /// Default: 1 s.
    pub inbox_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            per_prefix: 1_000,
            unadmitted: 1_000,
            handshake_timeout: Duration::from_secs(10),
            admission_timeout: Duration::from_secs(15),
            inbox: 16 << 20,
            inbox_per_connection: 256 << 10,
            inbox_unadmitted: 16 << 10,
            inbox_age: Duration::from_secs(1),
        }
    }
}

/// Numbers of connections, by source prefix.
#[derive(Debug)]
pub(super) struct Ledger(Admission<u64>);

/// The permit for one connection, returned when dropped.
pub(super) type Permit = admission::Permit<u64>;

/// A connection, as the server's other tasks see it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(super) shared: Arc<Shared>,
    permit: Permit,
    /// An atomic, because each datagram checks it, so without the ledger's lock.
    is_admitted: AtomicBool,
    /// Bytes of this connection's datagrams in the inbox.
    pub(super) queued: AtomicUsize,
}

impl Ledger {
    pub(super) fn new(limits: Limits) -> Self {
        let Limits { connections, per_prefix, unadmitted, .. } = limits;
        let places =
            Places { all: connections, of_sources: connections, of_one: per_prefix, unproven: unadmitted };
        Self(Admission::new(places))
    }

    /// Permits a connection from `source`, which may evict another. `Err` holds the counter of the refusal.
    pub(super) fn permit<'a>(
        &self,
        source: IpAddr,
        counters: &'a ServerCounters,
    ) -> Result<Permit, &'a Counter> {
        self.0.admit(Some(prefix_of(source))).map_err(|full| match full {
            Full::All | Full::Sources => &counters.refused_total,
            Full::Source => &counters.refused_prefix,
        })
    }
}

impl Peer {
    pub(super) fn new(shared: Arc<Shared>, permit: Permit) -> Self {
        Self { shared, permit, is_admitted: AtomicBool::new(false), queued: AtomicUsize::new(0) }
    }

    pub(super) fn admit(&self) {
        if !self.is_admitted() && self.permit.standing().prove() {
            self.is_admitted.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.is_admitted.load(Ordering::Relaxed)
    }

    /// Waits until this connection has lost its place to another one.
    pub(super) async fn evicted(&self) {
        self.permit.standing().evicted().await;
    }
}

/// Returns the prefix that one subscriber is likely to have, the same as in the overlay's limit of
/// handshakes.
fn prefix_of(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
        IpAddr::V6(address) => ((address.to_bits() >> 72) as u64) | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_and_what_ends_makes_room() {
        let limits = Limits { connections: 4, per_prefix: 2, unadmitted: 3, ..Limits::default() };
        let (ledger, counters) = (Ledger::new(limits), ServerCounters::default());
        let from = |text: &str| {
            let permit = ledger.permit(text.parse().expect("an address"), &counters);
            permit.inspect_err(|counter| counter.increment())
        };
        let admitted = |text: &str| from(text).inspect(|permit| assert!(permit.standing().prove()));
        let _first = admitted("192.0.2.1").expect("room");
        let second = admitted("192.0.2.200").expect("room");
        assert!(from("192.0.2.3").is_err() && from("::ffff:192.0.2.4").is_err());
        assert_eq!(counters.refused_prefix.get(), 2);
        let third = from("2001:db8::1").expect("room");
        let fourth = admitted("198.51.100.1").expect("room");
        let fifth = admitted("203.0.113.1").expect("the third makes room");
        assert!(third.standing().is_evicted() && !fourth.standing().is_evicted());
        assert!(from("203.0.114.1").is_err());
        assert_eq!(counters.refused_total.get(), 1);
        drop((second, fifth));
        assert!(from("192.0.2.5").is_ok());
    }

    #[test]
    fn an_ipv6_prefix_has_56_bits() {
        let prefix = |text: &str| prefix_of(text.parse().expect("an address"));
        assert_eq!(prefix("2001:db8:0:ff::1"), prefix("2001:db8::"));
        assert_ne!(prefix("2001:db8:0:100::1"), prefix("2001:db8::"));
    }
}
