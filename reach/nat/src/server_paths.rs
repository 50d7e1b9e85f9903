//! Paths to servers: the interface, and a NAT64 if the machine has no IPv4.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use peersock_primitives::beside;

use crate::behavior::Observations;
use crate::host::{ANYWHERE, HostInterface};
use crate::nat64::{self, Nat64Prefix};
use crate::probe;

/// The usable interfaces, and the network's NAT64 if IPv4 servers are reached through it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ways<'a> {
    pub(crate) interfaces: &'a [HostInterface],
    pub(crate) nat64: Option<Nat64Prefix>,
}

/// The pending answer of the system's resolver.
pub(crate) type Asked = mpsc::Receiver<io::Result<Vec<Nat64Prefix>>>;

impl Ways<'_> {
    /// Returns the endpoint to send to for a server.
    pub(crate) fn outer(&self, server: SocketAddr) -> SocketAddr {
        self.nat64.map_or(server, |prefix| prefix.synthesize(server))
    }

    /// Returns true if any interface leads to a server.
    pub(crate) fn lead_to(&self, server: SocketAddr) -> bool {
        self.interfaces.iter().any(|interface| interface.source_towards(self.outer(server)).is_some())
    }

    /// Returns the servers' true endpoints, because the system's resolver returns IPv4 hosts in the NAT64's
    /// prefix.
    pub(crate) fn inner(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        servers.iter().map(|server| self.nat64.map_or(*server, |prefix| prefix.restore(*server))).collect()
    }

    /// Probes the NAT in front of an interface for IPv4 and IPv6, in parallel; `None` if it leads to no
    /// server of the family. Blocks for at most `deadline`.
    /// Fails if no socket can be made at the interface's address.
    pub(crate) fn observe(
        &self,
        interface: &HostInterface,
        servers: &[SocketAddr],
        deadline: Duration,
    ) -> [io::Result<Option<Observations>>; 2] {
        thread::scope(|scope| {
            let begin = |v6| beside(scope, move || self.observe_family(interface, v6, servers, deadline));
            let died = |_| Err(io::Error::other("a thread that probes a NAT died"));
            [false, true].map(begin).map(|thread| thread.join().unwrap_or_else(died))
        })
    }

    fn observe_family(
        &self,
        interface: &HostInterface,
        v6: bool,
        servers: &[SocketAddr],
        deadline: Duration,
    ) -> io::Result<Option<Observations>> {
        let leads = |server: &&SocketAddr| {
            server.is_ipv6() == v6 && interface.source_towards(self.outer(**server)).is_some()
        };
        let servers: Vec<SocketAddr> = servers.iter().filter(leads).copied().collect();
        let towards = |server: &SocketAddr| interface.source_towards(self.outer(*server));
        let Some(local) = servers.first().and_then(towards) else { return Ok(None) };
        let nat64 = self.nat64.filter(|_| !v6 && local.is_ipv6());
        let settings = probe::Settings { deadline, nat64, ..probe::Settings::new(servers) };
        probe::run(local, interface.device(), &settings).map(Some)
    }
}

/// Starts asking the system's resolver for a NAT64, if the interfaces lead to the Internet by IPv6 only. A
/// resolver that hangs blocks its thread, but not the caller.
pub(crate) fn ask_for_nat64(interfaces: &[HostInterface]) -> Option<Asked> {
    let leads = |remote| interfaces.iter().any(|interface| interface.source_towards(remote).is_some());
    let [v4, v6] = ANYWHERE;
    if leads(v4) || !leads(v6) {
        return None;
    }
    let (sender, receiver) = mpsc::channel();
    let thread = thread::Builder::new().name("nat64".into());
    let spawned = thread.spawn(move || _ = sender.send(nat64::discover()));
    spawned.inspect_err(|error| tracing::debug!(%error, "no thread to ask for a NAT64")).ok()?;
    Some(receiver)
}

/// Returns the network's NAT64, if the interface leads to the Internet by IPv6 only and there are servers.
/// Blocks for at most half of `timeout`, which leaves the rest for the servers.
pub(crate) fn find_nat64(
    interface: &HostInterface,
    servers: &[SocketAddr],
    timeout: Duration,
) -> Option<Nat64Prefix> {
    if servers.is_empty() {
        return None;
    }
    nat64_of(&ask_for_nat64(std::slice::from_ref(interface))?, timeout / 2)
}

/// Waits for the answer and returns the first prefix, if any.
pub(crate) fn nat64_of(asked: &Asked, most: Duration) -> Option<Nat64Prefix> {
    asked.recv_timeout(most).ok()?.ok()?.first().copied()
}
