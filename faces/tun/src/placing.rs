//! The wanted kernel state of a device: its MTU, addresses and routes. All of it can be set again; only
//! missing parts are set.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use peersock::overlay::Prefix;

use crate::Settings;
use crate::netlink::exchange;

/// The wanted state of a device, from its settings.
#[derive(Debug, Clone)]
pub(crate) struct Placing {
    pub(crate) index: u32,
    settings: Settings,
}

/// The state of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) is_up: bool,
    pub(crate) mtu: u32,
}

impl Placing {
    pub(crate) fn new(index: u32, settings: &Settings) -> Placing {
        Placing { index, settings: settings.clone() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// Sets each missing part, in order. Calls `done` with each part's name, and true if it was missing; the
    /// result of `done` decides if an error stops the work.
    pub(crate) fn place(
        &self,
        socket: &Socket,
        mut done: impl FnMut(String, io::Result<bool>) -> io::Result<()>,
    ) -> io::Result<()> {
        for (address, _) in &self.settings.addresses {
            done(format!("the address {address}"), add_address(socket, self.index, *address))?;
        }
        for (own, prefix) in self.prefixes() {
            // A route that another interface already has is no error; it comes first then. The kernel does
            // the same with its routes for addresses with a prefix.
            let how = NLM_F_APPEND;
            let route = route(self.index, prefix, RouteHeader::RT_TABLE_MAIN, Some(own));
            done(format!("the route to {prefix}"), add_route(socket, route, how))?;
        }
        for (address, length) in &self.settings.routes {
            let Some(prefix) = Prefix::new(*address, *length) else { continue };
            let route = route(self.index, prefix, RouteHeader::RT_TABLE_MAIN, None);
            done(format!("the route to {prefix}"), add_route(socket, route, NLM_F_EXCL))?;
        }
        Ok(())
    }

    /// Restores the device's MTU; `None` if it is already correct.
    pub(crate) fn resize(&self, socket: &Socket, now: Link) -> Option<io::Result<()>> {
        let mtu = u32::from(self.settings.mtu);
        (now.mtu != mtu).then(|| {
            let mut message = LinkMessage::default();
            message.header.index = self.index;
            message.attributes = vec![LinkAttribute::Mtu(mtu)];
            exchange(socket, RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
        })
    }

    /// Returns the current state of the interface.
    pub(crate) fn link(&self, socket: &Socket) -> io::Result<Link> {
        let mut question = LinkMessage::default();
        question.header.index = self.index;
        let answers = exchange(socket, RouteNetlinkMessage::GetLink(question), NLM_F_ACK)?;
        let found = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        let link = found.ok_or(io::ErrorKind::NotFound)?;
        let mtu = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        Ok(Link { is_up: link.header.flags.contains(LinkFlags::Up), mtu: mtu.unwrap_or_default() })
    }

    /// Returns the prefixes of the addresses, each with the first address in it.
    fn prefixes(&self) -> impl Iterator<Item = (IpAddr, Prefix)> {
        let addresses = &self.settings.addresses;
        addresses.iter().enumerate().filter_map(|(at, (own, length))| {
            let prefix = Prefix::new(*own, *length)?;
            let is_same = |(other, bits): &(IpAddr, u8)| Prefix::new(*other, *bits) == Some(prefix);
            let is_alone = *length == full_length(*own);
            (!is_alone && !addresses[..at].iter().any(is_same)).then_some((*own, prefix))
        })
    }
}

/// Returns the length of an address in bits.
pub(crate) fn full_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Adds an address to a device, with full prefix length. Returns true if it was missing. With a shorter
/// prefix the kernel would reserve addresses that members have. In IPv4 that is the last one, for broadcasts;
/// in IPv6, if it forwards, the first one, for itself (RFC 4291, 2.6.1).
fn add_address(socket: &Socket, index: u32, address: IpAddr) -> io::Result<bool> {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = full_length(address);
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    is_new(exchange(socket, RouteNetlinkMessage::NewAddress(message), flags))
}

/// Makes a route to a device. `source` is the source address of packets on this route.
pub(crate) fn route(index: u32, prefix: Prefix, table: u8, source: Option<IpAddr>) -> RouteMessage {
    let is_ipv4 = prefix.address().is_ipv4();
    let mut route = RouteMessage::default();
    route.header.address_family = family(prefix.address());
    route.header.destination_prefix_length = prefix.length();
    route.header.table = table;
    route.header.protocol = RouteProtocol::Static;
    // Addresses in an IPv4 prefix are directly at the device, without a gateway.
    route.header.scope = if is_ipv4 { RouteScope::Link } else { RouteScope::Universe };
    route.header.kind = RouteType::Unicast;
    if prefix.length() > 0 {
        route.attributes.push(RouteAttribute::Destination(prefix.address().into()));
    }
    route.attributes.push(RouteAttribute::Oif(index));
    // In IPv6 the longest common prefix decides, and the kernel refuses a new address here for a moment.
    if let Some(source) = source.filter(|_| is_ipv4) {
        route.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    route
}

/// Adds a route, in addition to another interface's route (NLM_F_APPEND) or only if none exists (NLM_F_EXCL).
/// Returns true if it was missing.
pub(crate) fn add_route(socket: &Socket, route: RouteMessage, how: u16) -> io::Result<bool> {
    let flags = NLM_F_ACK | NLM_F_CREATE | how;
    is_new(exchange(socket, RouteNetlinkMessage::NewRoute(route), flags))
}

/// Returns true if the added object was missing.
pub(crate) fn is_new(added: io::Result<Vec<RouteNetlinkMessage>>) -> io::Result<bool> {
    match added {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}
