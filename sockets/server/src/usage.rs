//! Use of a server by its programs: their sockets, the bytes that they have moved, and the addresses that
//! they have contacted.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use crate::server::Server;
use crate::socket_table::Phase;
use crate::state::{Entry, ServerState};

/// Limit of remembered addresses to which programs have begun to connect or send.
const MAX_CONTACTED: usize = 1024;

/// Use of a server by its programs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Number of TCP connections, with those that are being made.
    pub streams: u64,
    /// Ports of TCP listeners.
    pub listeners: BTreeSet<u16>,
    /// Number of datagram sockets.
    pub datagram_sockets: u64,
    /// Addresses at the other ends of TCP connections and connected datagram sockets.
    pub peers: BTreeSet<IpAddr>,
    /// Bytes that programs have sent so far, without headers.
    pub sent_bytes: u64,
    /// Bytes that programs have received so far, without headers.
    pub received_bytes: u64,
}

/// Source of a server's [`Usage`], which does not keep the server.
#[derive(Clone, Default)]
pub struct Meter(Weak<Server>);

impl Meter {
    pub(crate) fn of(server: &Arc<Server>) -> Meter {
        Meter(Arc::downgrade(server))
    }

    /// Returns the use so far. It is empty once the server has ended.
    pub fn usage(&self) -> Usage {
        self.0.upgrade().map(|server| server.usage()).unwrap_or_default()
    }

    /// Returns true if a program has a connection with an address, or has begun to connect or send to it.
    /// Only the last 1024 such addresses are known.
    pub fn concerns(&self, address: IpAddr) -> bool {
        self.0.upgrade().is_some_and(|server| server.concerns(address))
    }
}

/// Bytes that applications have moved.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moved {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Addresses to which applications have begun to connect or send, the latest ones.
#[derive(Default)]
pub(crate) struct Contacted {
    known: HashSet<IpAddr>,
    order: VecDeque<IpAddr>,
}

impl Contacted {
    pub(crate) fn note(&mut self, address: IpAddr) {
        if !self.known.insert(address) {
            return;
        }
        self.order.push_back(address);
        if self.order.len() > MAX_CONTACTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl ServerState {
    pub(crate) fn usage(&self) -> Usage {
        let Moved { sent, received } = self.context.moved;
        let mut usage = Usage { sent_bytes: sent, received_bytes: received, ..Usage::default() };
        for entry in self.entries.values() {
            match entry {
                Entry::Stream(stream) => {
                    usage.streams += 1;
                    usage.peers.insert(stream.connection.flow().remote().ip());
                }
                Entry::Connecting(attempt) => {
                    usage.streams += 1;
                    usage.peers.extend(attempt.addresses().1.map(|remote| remote.ip()));
                }
                Entry::Datagrams(datagrams) => {
                    usage.datagram_sockets += 1;
                    usage.peers.extend(datagrams.peer().map(|peer| self.context.meant(peer).ip()));
                }
                _ => {}
            }
        }
        for opened in self.sockets.values().filter(|opened| matches!(opened.phase, Phase::Listening(_))) {
            usage.listeners.extend(opened.reserved.iter().map(|reserved| reserved.local_addr().port()));
        }
        usage
    }

    pub(crate) fn concerns(&self, address: IpAddr) -> bool {
        let is_remote = |entry: &Entry| match entry {
            Entry::Stream(stream) => stream.connection.flow().remote().ip() == address,
            _ => false,
        };
        self.context.contacted.known.contains(&address) || self.entries.values().any(is_remote)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_oldest_address_makes_room() {
        let mut contacted = Contacted::default();
        let address = |number: usize| IpAddr::from(Ipv4Addr::from(number as u32));
        (0..=MAX_CONTACTED).for_each(|number| contacted.note(address(number)));
        contacted.note(address(MAX_CONTACTED));
        assert_eq!(contacted.known.len(), MAX_CONTACTED);
        assert!(!contacted.known.contains(&address(0)) && contacted.known.contains(&address(1)));
    }
}
