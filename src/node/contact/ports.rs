//! Ports that routers forward to the node's sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_nat::host::HostInterface;
use peersock_nat::portmap::{Gateway, PortMapper, Protocol, Transport};

use super::gather::is_private;
use crate::sync;

/// Limit of requested ports, because each has a thread.
const MAX_ASKS: usize = 8;

/// Limit of forwarded IPv6 addresses per interface: machines have several temporary ones.
const MAX_PINHOLES: usize = 3;

/// Request to forward a port, and its router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    gateway: Gateway,
    port: u16,
}

/// Ports that are kept open. They are shared, because the node's end closes them, whatever the thread is
/// waiting for.
#[derive(Default)]
pub(super) struct Ports(Mutex<Mappers>);

#[derive(Default)]
struct Mappers {
    all: Vec<(Ask, PortMapper)>,
    /// True once no more ports may be opened.
    is_closed: bool,
}

/// Open port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Forwarded {
    pub(in crate::node) external: SocketAddr,
    pub(in crate::node) by: Protocol,
}

impl Ports {
    /// Keeps the requested ports open and closes others. Calls `tell` when one was opened or lost.
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

    /// Closes all ports, for ever. Waits at most `patience`.
    pub(super) fn close(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mappers = {
            let mut mappers = sync::lock(&self.0);
            mappers.is_closed = true;
            std::mem::take(&mut mappers.all)
        };
        // All stops begin before any is awaited, so that they share the time.
        for (_, mapper) in &mappers {
            mapper.begin_stop();
        }
        for (_, mapper) in mappers {
            if !mapper.stop_within(until.saturating_duration_since(Instant::now())) {
                tracing::debug!("a router did not close the port that it forwards, in time");
            }
        }
    }

    /// Asks the routers at once.
    pub(super) fn refresh(&self) {
        // The router may be another one, or have lost its mappings.
        for (_, mapper) in &sync::lock(&self.0).all {
            mapper.refresh();
        }
    }

    /// Returns the open ports.
    pub(super) fn forwarded(&self) -> Vec<Forwarded> {
        let mappers = sync::lock(&self.0);
        let mappings = mappers.all.iter().filter_map(|(_, mapper)| mapper.mapping());
        mappings.map(|mapping| Forwarded { external: mapping.external, by: mapping.protocol }).collect()
    }
}

/// Returns the ports to request: on each interface with a router, the IPv4 port if its address is private,
/// and the IPv6 port of its public addresses, which a firewall may block. The system's source address comes
/// first.
pub(super) fn asks(
    interfaces: &[HostInterface],
    port_on: impl Fn(&HostInterface, bool) -> Option<u16>,
) -> Vec<Ask> {
    let (mut asks, mut more) = (Vec::new(), Vec::new());
    for interface in interfaces.iter().filter(|interface| !interface.loopback) {
        for is_ipv4 in [true, false] {
            let Some(router) = interface.router(!is_ipv4) else { continue };
            let Some(port) = port_on(interface, is_ipv4) else { continue };
            let locals = match is_ipv4 {
                // A public IPv4 address needs no mapping.
                true => interface.source_towards(router).filter(|ip| is_private(*ip)).into_iter().collect(),
                false => pinholes(interface),
            };
            for (at, local) in locals.into_iter().enumerate() {
                let gateway = Gateway { interface: Some(interface.name.clone()), local, router };
                // Each interface gets its first address forwarded before any gets its second.
                let list = if at == 0 { &mut asks } else { &mut more };
                list.push(Ask { gateway, port });
            }
        }
    }
    asks.append(&mut more);
    asks.truncate(MAX_ASKS);
    asks
}

/// Returns the addresses of an interface for which its router is asked to open its firewall.
fn pinholes(interface: &HostInterface) -> Vec<IpAddr> {
    let usual = interface.source_outwards().filter(is_public_v6);
    let others = interface.addresses.iter().map(|address| address.ip).filter(is_public_v6);
    let others = others.filter(|ip| Some(*ip) != usual);
    usual.into_iter().chain(others).take(MAX_PINHOLES).collect()
}

fn is_public_v6(ip: &IpAddr) -> bool {
    ip.is_ipv6() && !is_private(*ip)
}

#[cfg(test)]
mod tests {
    use peersock_nat::host::HostAddress;

    use super::*;

    fn interface(name: &str, addresses: &[&str], routers: &[&str]) -> HostInterface {
        let ip = |text: &&str| text.parse::<IpAddr>().expect("an address");
        HostInterface {
            name: name.to_owned(),
            index: 7,
            loopback: false,
            addresses: addresses.iter().map(|text| HostAddress { ip: ip(text), prefix: 64 }).collect(),
            routers: routers.iter().map(ip).collect(),
        }
    }

    #[test]
    fn each_public_address_of_ipv6_is_asked_for_those_of_other_interfaces_first() {
        let many = ["fe80::2", "2001:db8::1", "2001:db8::2", "fd00::2", "2001:db8::3", "2001:db8::4"];
        let interfaces = [
            // Interfaces with these names do not exist, so the system sends from none of their addresses.
            interface("none1", &many, &["fe80::1"]),
            interface("none2", &["2001:db8:1::1"], &["fe80::1"]),
            interface("none3", &["2001:db8:2::1"], &[]),
        ];
        let asks = asks(&interfaces, |_, is_ipv4| (!is_ipv4).then_some(7420));
        let locals: Vec<_> = asks.iter().map(|ask| ask.gateway.local.to_string()).collect();
        assert_eq!(locals, ["2001:db8::1", "2001:db8:1::1", "2001:db8::2", "2001:db8::3"]);
        assert!(asks.iter().all(|ask| ask.port == 7420 && ask.gateway.router.is_ipv6()));
    }
}
