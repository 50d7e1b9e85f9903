//! The device is made, and gets its addresses and routes.

use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;
use tun_rs::DeviceBuilder;

use crate::placing::Placing;
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
        let opening = || failed(format!("opening {name}"));
        let tun = Tun::new(device).map_err(opening())?;
        let placing = Placing::new(tun.index().map_err(opening())?, settings);
        let socket = netlink::open(NETLINK_ROUTE).map_err(opening())?;
        let mut step = String::new();
        let placed = placing.place(&socket, |part, added| {
            step = format!("giving {name} {part}");
            match added {
                // The device is new, so another one has it.
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
