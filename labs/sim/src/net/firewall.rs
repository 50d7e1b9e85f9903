use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Behaviour;
use super::nat::Scope;
use crate::Time;

/// A firewall without translation. It lets everything out, and only answers to inside hosts in.
#[derive(Debug)]
pub struct Firewall {
    filtering: Behaviour,
    timeout: Duration,
    /// Remote scopes each inner endpoint has sent to, as wide as the filter looks, with the time of the last
    /// packet.
    allowed: BTreeMap<(SocketAddr, Scope), Time>,
}

impl Firewall {
    /// Makes a firewall without state. Permissions expire `timeout` after the last outbound packet.
    pub fn new(filtering: Behaviour, timeout: Duration) -> Self {
        Self { filtering, timeout, allowed: BTreeMap::new() }
    }

    /// Records a packet that leaves.
    pub fn note_outbound(&mut self, now: Time, inner: SocketAddr, remote: SocketAddr) {
        self.allowed.insert((inner, self.filtering.scope(remote)), now);
    }

    /// Returns true if a packet may come in.
    pub fn lets_in(&self, now: Time, remote: SocketAddr, inner: SocketAddr) -> bool {
        let permission = self.allowed.get(&(inner, self.filtering.scope(remote)));
        permission.is_some_and(|at| now.saturating_sub(*at) < self.timeout)
    }

    /// Forgets everything, as a reboot does.
    pub fn reboot(&mut self) {
        self.allowed.clear();
    }
}
