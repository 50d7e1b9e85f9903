//! Creation of the device, with its addresses and routes.

use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;
use tun_rs::DeviceBuilder;

use crate::placing::Placing;
use crate::{Tun, netlink};

/// MTU that fits most networks' paths, with the overlay's overhead, over IPv6 and Ethernet. On a smaller path
/// the kernel gets an ICMP error (RFC 1191, RFC 8201).
const MTU: u16 = 1420;

/// Longest name of an interface in bytes (IFNAMSIZ without the final zero).
const LONGEST_NAME: usize = 15;

/// Settings of a device.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The interface's name, 1 to 15 bytes.
    pub name: String,
    /// The MTU: the largest IP packet that the kernel sends, in bytes, from 1280 (the minimum of IPv6) to
    /// 65,535.
    pub mtu: u16,
    /// This node's addresses, each with the prefix length of its network; the whole prefix is routed to the
    /// device.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Further prefixes that are routed to the device.
    pub routes: Vec<(IpAddr, u8)>,
}

impl Settings {
    /// Makes settings without addresses, for packets of up to 1420 bytes.
    pub fn new(name: impl Into<String>) -> Settings {
        Settings { name: name.into(), mtu: MTU, addresses: Vec::new(), routes: Vec::new() }
    }
}

/// Reasons for having no device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name is empty or too long, or contains a character that interface names must not have.
    #[error("the name of an interface has 1 to 15 bytes, no `/`, `:`, `%` or space")]
    Name,
    /// The MTU is below the minimum of IPv6.
    #[error("the MTU of an interface is 1280 at least")]
    Mtu,
    /// The kernel refused a step.
    #[error("{step}: {source}")]
    Kernel {
        /// The step.
        step: String,
        /// The error of the kernel; [`io::ErrorKind::PermissionDenied`] without `CAP_NET_ADMIN`.
        source: io::Error,
    },
}

impl Tun {
    /// Makes the device with all its addresses and routes, and sets it up. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// [`OpenError`]. Parts made before the error are removed.
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
        let opening = || failed(format!("opening {name}"));
        let tun = Tun::new(device).map_err(opening())?;
        let placing = Placing::new(tun.index().map_err(opening())?, settings);
        let socket = netlink::open(NETLINK_ROUTE).map_err(opening())?;
        let mut step = String::new();
        let placed = placing.place(&socket, |part, added| {
            step = format!("giving {name} {part}");
            match added {
                // The device is new, so another one has the address or route.
                Ok(false) => Err(io::ErrorKind::AlreadyExists.into()),
                added => added.map(drop),
            }
        });
        placed.map_err(failed(step))?;
        Ok(tun)
    }
}

fn failed(step: String) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Kernel { step, source }
}
