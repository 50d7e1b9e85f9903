//! TCP connections from a host to an unfiltered server: reachability and delay.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Gateway, HostId, Net};

/// The protocols that a gateway lets out of its LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Passes {
    /// Everything.
    #[default]
    All,
    /// No UDP, but any TCP.
    Tcp,
    /// TCP to port 443, and nothing else.
    TcpTo443,
}

impl Passes {
    /// Returns true if UDP passes.
    pub fn udp(self) -> bool {
        self == Self::All
    }

    /// Returns true if TCP connections to that port pass.
    pub fn tcp(self, port: u16) -> bool {
        self != Self::TcpTo443 || port == 443
    }
}

/// The path of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpWay {
    /// The host's IP address as the server sees it.
    pub seen: IpAddr,
    /// One-way delay in each direction.
    pub delay: Duration,
}

impl Net {
    /// Returns the path of a TCP connection from a host to a server without a box in front; `None` if none
    /// exists.
    ///
    /// Only the delays of the crossed links count, because TCP repeats lost bytes and adapts to the links'
    /// rates.
    pub fn tcp_way(&self, host: HostId, mut to: SocketAddr) -> Option<TcpWay> {
        let cards = self.hosts.get(&host)?;
        let card = cards.iter().find(|card| {
            card.attachment.address_for(&to).is_some() && self.lans[&card.attachment.lan].gateway.is_some()
        })?;
        let (first, mut lan) = (card.attachment.lan, card.attachment.lan);
        let (mut seen, mut delay) = (card.attachment.address_for(&to)?, card.up.delay());
        loop {
            let gateway = self.lans[&lan].gateway.as_ref()?;
            if !gateway.passes.tcp(to.port()) {
                return None;
            }
            if let Some(prefix) = gateway.nat64 {
                to = prefix.restore(to);
            }
            seen = outer(gateway, seen, &to)?;
            delay += gateway.out.delay();
            match gateway.upstream {
                Some(upstream) => lan = upstream,
                None => break,
            }
        }
        let is_there = |place: &super::topology::Lan| {
            place.prefixes.contain(to.ip()) && place.gateway.as_ref().is_some_and(|gate| gate.nat.is_none())
        };
        let (&last, place) = self.lans.iter().find(|(_, place)| is_there(place))?;
        let is_blocked = self.blocked.contains(&(first, last)) || self.blocked.contains(&(last, first));
        let mut cards = self.hosts.values().flatten();
        let server = cards.find(|card| card.attachment.owns(to.ip())).filter(|_| !is_blocked)?;
        delay += place.gateway.as_ref()?.into.delay() + server.down.delay();
        Some(TcpWay { seen, delay })
    }
}

/// Returns the source address after translation; `None` if the family does not pass.
fn outer(gateway: &Gateway, seen: IpAddr, to: &SocketAddr) -> Option<IpAddr> {
    match (&gateway.nat, &gateway.firewall) {
        (Some(nat), _) if gateway.translates(to.ip()) => Some(nat.config().external),
        (Some(_), None) => None,
        _ => Some(seen),
    }
}
