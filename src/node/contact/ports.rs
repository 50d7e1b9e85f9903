//! Ports that routers forward to the node's sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_nat::host::HostInterface;
use peersock_nat::portmap::{Gateway, PortMapper, Protocol, Transport};

use super::gather::is_private;
use crate::sync;

/// At most so many routers are asked.
const MAX_GATEWAYS: usize = 4;

/// A port to have forwarded, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    gateway: Gateway,
    port: u16,
}

/// The ports that are kept open. They are shared: whoever ends the node closes them, whatever the thread is
/// waiting for.
#[derive(Default)]
pub(super) struct Ports(Mutex<Mappers>);

#[derive(Default)]
struct Mappers {
    all: Vec<(Ask, PortMapper)>,
    /// No more are opened.
    is_closed: bool,
}

/// A port that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Forwarded {
    pub(in crate::node) external: SocketAddr,
    pub(in crate::node) by: Protocol,
}

impl Ports {
    /// Keeps these open and closes others. `tell` is called when one was opened or lost.
    pub(super) fn set(&self, asks: Vec<Ask>, tell: &Arc<dyn Fn() + Send + Sync>) {
        let mut mappers = sync::lock(&self.0);
        if mappers.is_closed {
            return;
        }
        for (_, mapper) in mappers.all.extract_if(.., |(known, _)| !asks.contains(known)) {
            mapper.stop_within(Duration::ZERO);
        }
        for ask in asks {
            if mappers.all.iter().any(|(known, _)| *known == ask) {
                continue;
            }
            let (gateway, tell) = (ask.gateway.clone(), Arc::clone(tell));
            let mapper = PortMapper::start_telling(
                gateway,
                Transport::Udp,
                ask.port,
                PortMapper::LIFETIME,
                Box::new(move || tell()),
            );
            mappers.all.push((ask, mapper));
        }
    }

    /// Closes all, for ever. Waits no longer than that.
    pub(super) fn close(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mappers = {
            let mut mappers = sync::lock(&self.0);
            mappers.is_closed = true;
            std::mem::take(&mut mappers.all)
        };
        for (_, mapper) in &mappers {
            mapper.begin_stop();
        }
        for (_, mapper) in mappers {
            if !mapper.stop_within(until.saturating_duration_since(Instant::now())) {
                tracing::debug!("a router did not close the port that it forwards, in time");
            }
        }
    }

    /// Has the routers asked at once: the network has changed.
    pub(super) fn refresh(&self) {
        for (_, mapper) in &sync::lock(&self.0).all {
            mapper.refresh();
        }
    }

    /// What is open now.
    pub(super) fn forwarded(&self) -> Vec<Forwarded> {
        let mappers = sync::lock(&self.0);
        let mappings = mappers.all.iter().filter_map(|(_, mapper)| mapper.mapping());
        mappings.map(|mapping| Forwarded { external: mapping.external, by: mapping.protocol }).collect()
    }
}

/// What to ask for: on each interface with a router, the IPv4 port if its address is a private one, and the
/// IPv6 port if it has a public address, which a firewall may keep from others.
pub(super) fn asks(
    interfaces: &[HostInterface],
    port_on: impl Fn(&HostInterface, bool) -> Option<u16>,
) -> Vec<Ask> {
    let mut asks = Vec::new();
    for interface in interfaces.iter().filter(|interface| !interface.loopback) {
        for is_ipv4 in [true, false] {
            let Some(router) = interface.router(!is_ipv4) else { continue };
            let Some(port) = port_on(interface, is_ipv4) else { continue };
            let local = match is_ipv4 {
                true => interface.source_towards(router).filter(|ip| is_private(*ip)),
                false => interface.addresses.iter().map(|address| address.ip).find(is_public_v6),
            };
            let Some(local) = local else { continue };
            asks.push(Ask {
                gateway: Gateway { interface: Some(interface.name.clone()), local, router },
                port,
            });
        }
    }
    asks.truncate(MAX_GATEWAYS);
    asks
}

fn is_public_v6(ip: &IpAddr) -> bool {
    ip.is_ipv6() && !is_private(*ip)
}
