//! How servers are reached: by which interface, and by way of a NAT64 where the machine has no IPv4.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::PROBE;
use crate::behavior::Observations;
use crate::host::{ANYWHERE, HostInterface};
use crate::nat64::{self, Nat64Prefix};
use crate::probe;

/// The interfaces that may be used, and the network's NAT64 if servers with IPv4 are reached by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways<'a> {
    pub(super) interfaces: &'a [HostInterface],
    pub(super) nat64: Option<Nat64Prefix>,
}

/// The answer of the system's resolver, when it is there.
pub(super) type Asked = mpsc::Receiver<io::Result<Vec<Nat64Prefix>>>;

impl Ways<'_> {
    /// Where to send what is for a server.
    pub(super) fn outer(&self, server: SocketAddr) -> SocketAddr {
        self.nat64.map_or(server, |prefix| prefix.synthesize(server))
    }

    /// Whether any interface leads to a server.
    pub(super) fn lead_to(&self, server: SocketAddr) -> bool {
        self.interfaces.iter().any(|interface| interface.source_towards(self.outer(server)).is_some())
    }

    /// Probes the NAT in front of an interface, in one family; `None` if no server is reached by it.
    pub(super) fn observe(
        &self,
        interface: &HostInterface,
        v6: bool,
        servers: &[SocketAddr],
    ) -> Option<Observations> {
        let leads = |server: &&SocketAddr| {
            server.is_ipv6() == v6 && interface.source_towards(self.outer(**server)).is_some()
        };
        let servers: Vec<SocketAddr> = servers.iter().filter(leads).copied().collect();
        let local = interface.source_towards(self.outer(*servers.first()?))?;
        let nat64 = self.nat64.filter(|_| !v6 && local.is_ipv6());
        let settings = probe::Settings { deadline: PROBE, nat64, ..probe::Settings::new(servers) };
        let name = (!interface.loopback).then_some(interface.name.as_str());
        probe::run(local, name, &settings)
            .inspect_err(|error| tracing::debug!(%error, interface = interface.name, "not probed"))
            .ok()
    }
}

/// Begins to ask the system's resolver for a NAT64, if the interfaces lead to the Internet by IPv6 alone. A
/// resolver that hangs keeps its thread, but not us.
pub(super) fn ask_for_nat64(interfaces: &[HostInterface]) -> Option<Asked> {
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

/// Waits for the answer: the first prefix, if there is one.
pub(super) fn nat64_of(asked: &Asked, most: Duration) -> Option<Nat64Prefix> {
    asked.recv_timeout(most).ok()?.ok()?.first().copied()
}
