//! The device is made, and gets its addresses and routes.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use peersock::overlay::Prefix;
use route_manager::{Route, RouteManager};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::{Tun, netlink};

/// What the paths of most networks take, with the overlay's own bytes, over IPv6 and Ethernet. Where one
/// takes less, the kernel is told (RFC 1191, RFC 8201).
const MTU: u16 = 1420;

/// The longest name of an interface, bytes (IFNAMSIZ, with the zero behind it).
const LONGEST_NAME: usize = 15;

/// What the device is to be.
///
/// ```
/// let settings = peersock_tun::Settings::new("peersock0");
/// assert_eq!((settings.mtu, settings.addresses.len()), (1420, 0));
/// ```
#[derive(Debug, Clone)]
pub struct Settings {
    /// The interface's name, 1 to 15 bytes.
    pub name: String,
    /// The largest IP packet that the kernel sends, bytes: 1280 (IPv6's least) to 65,535.
    pub mtu: u16,
    /// This node's addresses, each with the bits of its network's prefix: what lies in there goes to the
    /// device.
    pub addresses: Vec<(IpAddr, u8)>,
    /// What else is reached by the device.
    pub routes: Vec<(IpAddr, u8)>,
}

impl Settings {
    /// Settings without an address, for packets of up to 1420 bytes.
    pub fn new(name: impl Into<String>) -> Settings {
        Settings { name: name.into(), mtu: MTU, addresses: Vec::new(), routes: Vec::new() }
    }
}

/// Why there is no device.
///
/// ```
/// use peersock_tun::{OpenError, Settings, Tun};
///
/// assert!(matches!(Tun::open(&Settings::new("")), Err(OpenError::Name)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name is empty or too long, or has a character that no interface's name may have.
    #[error("the name of an interface has 1 to 15 bytes, no `/`, `:`, `%` or space")]
    Name,
    /// The MTU is less than IPv6 wants of a link.
    #[error("the MTU of an interface is 1280 at least")]
    Mtu,
    /// The kernel did not do one step.
    #[error("{step}: {source}")]
    Kernel {
        /// What was to be done.
        step: String,
        /// What it said; [`io::ErrorKind::PermissionDenied`] without `CAP_NET_ADMIN`.
        source: io::Error,
    },
}

impl Tun {
    /// Makes the device with all its addresses and routes, and sets it up. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// [`OpenError`]. What was made until then is gone again.
    pub fn open(settings: &Settings) -> Result<Tun, OpenError> {
        let is_name = |name: &str| {
            let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
            (1..=LONGEST_NAME).contains(&name.len())
                && name.bytes().all(is_plain)
                && !matches!(name, "." | "..")
        };
        if !is_name(&settings.name) {
            return Err(OpenError::Name);
        }
        if settings.mtu < 1280 {
            return Err(OpenError::Mtu);
        }
        let Settings { name, mtu, .. } = settings;
        let device = DeviceBuilder::new().name(name).mtu(*mtu).offload(true).enable(true).build_sync();
        let device = device.map_err(failed(format!("making the interface {name}")))?;
        for (address, _) in &settings.addresses {
            let step = format!("giving {name} the address {address}");
            add_address(&device, *address).map_err(failed(step))?;
        }
        let step = format!("setting routes to {name}");
        add_prefixes(&device, &settings.addresses)
            .and_then(|()| add_routes(&device, &settings.routes))
            .map_err(failed(step))?;
        Tun::new(device).map_err(failed(format!("opening {name}")))
    }
}

fn failed(step: String) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Kernel { step, source }
}

/// Gives the device an address that is alone: with a prefix the kernel would take the last address of one of
/// IPv4 for broadcasts and, where it forwards, the first of one of IPv6 for its own (RFC 4291, 2.6.1), and
/// members have these.
fn add_address(device: &SyncDevice, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(address) => device.add_address_v4(address, 32),
        IpAddr::V6(address) => device.add_address_v6(address, 128u8),
    }
}

/// Has what lies in the prefixes of the addresses go to the device, from these addresses. As with those that
/// the kernel makes for addresses with a prefix, a route that another interface has already is no error: it
/// comes first then.
fn add_prefixes(device: &SyncDevice, addresses: &[(IpAddr, u8)]) -> io::Result<()> {
    let (index, socket) = (device.if_index()?, netlink::open(NETLINK_ROUTE)?);
    for (at, (own, length)) in addresses.iter().enumerate() {
        let Some(prefix) = Prefix::new(*own, *length) else { continue };
        let is_same = |(other, bits): &(IpAddr, u8)| Prefix::new(*other, *bits) == Some(prefix);
        let is_v4 = own.is_ipv4();
        let is_alone = *length == if is_v4 { 32 } else { 128 };
        if is_alone || addresses[..at].iter().any(is_same) {
            continue;
        }
        let mut route = RouteMessage::default();
        route.header.address_family = if is_v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        route.header.destination_prefix_length = *length;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.protocol = RouteProtocol::Static;
        // What is in IPv4's prefix is at the device itself, behind no gateway.
        route.header.scope = if is_v4 { RouteScope::Link } else { RouteScope::Universe };
        route.header.kind = RouteType::Unicast;
        route.attributes =
            vec![RouteAttribute::Destination(prefix.address().into()), RouteAttribute::Oif(index)];
        // In IPv6 the longest common prefix decides, and the kernel takes no new address here for a moment.
        if is_v4 {
            route.attributes.push(RouteAttribute::PrefSource((*own).into()));
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
        netlink::exchange(&socket, RouteNetlinkMessage::NewRoute(route), flags)?;
    }
    Ok(())
}

fn add_routes(device: &SyncDevice, routes: &[(IpAddr, u8)]) -> io::Result<()> {
    if routes.is_empty() {
        return Ok(());
    }
    let (index, mut manager) = (device.if_index()?, RouteManager::new()?);
    routes
        .iter()
        .try_for_each(|(address, length)| manager.add(&Route::new(*address, *length).with_if_index(index)))
}
