//! The machine's interfaces as an API: their addresses, the NAT in front of them, and their routes. A route
//! maps addresses of an interface to external addresses. The names are P2PD's.
//!
//! ```no_run
//! use std::time::Duration;
//! use peersock_nat::interfaces::{Family, Interface};
//!
//! let servers = ["192.0.2.1:3478".parse()?];
//! // The default interface, with its routes.
//! let mut nic = Interface::load(None, &servers, Duration::from_secs(2))?;
//! nic.load_nat(&servers, Duration::from_secs(4))?;
//! println!("{}", nic.to_json());
//! for route in nic.rp(Family::Ip4).iter() {
//!     println!("{:?} is seen as {:?}", route.nic(), route.ext());
//! }
//! let socket = nic.route(Family::Ip4).ok_or("no IPv4")?.bind(0, None)?.udp()?;
//! # drop(socket);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod block;
mod grouping;
mod nat;
mod route;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use peersock_primitives::beside;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::host::{self, ANYWHERE, HostInterface};
use crate::probe::{self, Settings};
use crate::server_paths::{self, Ways};
pub use block::IpBlock;
pub use nat::InterfaceNat;
pub use route::{BoundRoute, Route, RoutePool};

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ip4,
    /// IPv6.
    Ip6,
}

impl Family {
    /// Both families.
    pub const ALL: [Self; 2] = [Self::Ip4, Self::Ip6];

    /// Returns the family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::Ip4 } else { Self::Ip6 }
    }

    /// Returns this system's number of the family: `AF_INET`, `AF_INET6`.
    pub fn number(self) -> i32 {
        match self {
            Self::Ip4 => i32::from(rustix::net::AddressFamily::INET.as_raw()),
            Self::Ip6 => i32::from(rustix::net::AddressFamily::INET6.as_raw()),
        }
    }

    /// Returns the family of a number. Also accepts other systems' numbers of IPv6 (10, 23, 28, 30), so that
    /// dictionaries are portable.
    pub fn from_number(number: i32) -> Option<Self> {
        match number {
            2 => Some(Self::Ip4),
            10 | 23 | 28 | 30 => Some(Self::Ip6),
            _ => None,
        }
    }

    fn width(self) -> u8 {
        match self {
            Self::Ip4 => 32,
            Self::Ip6 => 128,
        }
    }
}

/// The form of families in dictionaries.
mod family_number {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Family;

    // serde requires this signature.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(family: &Family, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(family.number())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Family, D::Error> {
        let number = i32::deserialize(deserializer)?;
        Family::from_number(number).ok_or_else(|| serde::de::Error::custom(format!("{number} is no family")))
    }
}

/// An interface of the machine with its routes and its NAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    name: String,
    index: u32,
    nat: InterfaceNat,
    pools: [RoutePool; 2],
}

/// Error: a dictionary does not describe an interface.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this is not an interface: {0}")]
pub struct ParseInterfaceError(String);

/// The form of an interface in dictionaries.
#[derive(Serialize, Deserialize)]
struct Dict {
    name: String,
    #[serde(default)]
    index: u32,
    nat: InterfaceNat,
    /// Route pools by the number of their family.
    rp: BTreeMap<i32, RoutePool>,
}

/// Lists the names of the interfaces that are up, the default one first.
/// Fails if the system does not list its interfaces.
pub fn list_interfaces() -> io::Result<Vec<String>> {
    let all = host::interfaces()?;
    let first = default_interface(&all).map(|interface| interface.index);
    let (mut names, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| Some(one.index) == first);
    names.extend(rest);
    Ok(names.into_iter().map(|interface| interface.name).collect())
}

/// Loads interfaces with routes and NAT, in parallel. Skips interfaces that no longer exist. Blocks for at
/// most twice the timeout.
/// Fails if the system does not list its interfaces.
pub fn load_interfaces(
    names: &[String],
    servers: &[SocketAddr],
    timeout: Duration,
) -> io::Result<Vec<Interface>> {
    let load = |name: &String| {
        let mut nic = Interface::load(Some(name), servers, timeout)?;
        nic.load_nat(servers, timeout)?;
        Ok(nic)
    };
    let loaded: Vec<io::Result<Interface>> = thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| beside(scope, move || load(name))).collect();
        let died = |_| Err(io::Error::other("a thread that loads an interface died"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect()
    });
    let is_gone = |loaded: &io::Result<Interface>| {
        loaded.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    loaded.into_iter().filter(|loaded| !is_gone(loaded)).collect()
}

impl Interface {
    /// Loads an interface (without a name, the default one): its addresses, and their external addresses as
    /// the servers see them. Blocks for at most the timeout. Without servers the external addresses are the
    /// interface's public ones.
    ///
    /// A usual NAT is assumed until [`Interface::load_nat`].
    /// Fails if there is no such interface, or the system does not list its interfaces.
    pub fn load(name: Option<&str>, servers: &[SocketAddr], timeout: Duration) -> io::Result<Self> {
        let all = host::interfaces()?;
        let found = match name {
            Some(name) => all.iter().find(|interface| interface.name == name),
            None => default_interface(&all),
        };
        let missing = || match name {
            Some(name) => {
                io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {name} that is up"))
            }
            None => io::Error::new(io::ErrorKind::NotFound, "no interface is up"),
        };
        let host = found.ok_or_else(missing)?;
        let blocks: Vec<IpBlock> =
            host.addresses.iter().map(|address| IpBlock::of_interface(address.ip, address.prefix)).collect();
        let begin = Instant::now();
        let ways = Ways { interfaces: &all, nat64: server_paths::find_nat64(host, servers, timeout) };
        let left = timeout.saturating_sub(begin.elapsed());
        let seen = external(host, &blocks, &ways.inner(servers), left);
        let seen_as = |ip: IpAddr| seen.get(&ip).copied();
        let of = |family| blocks.iter().filter(|block| block.family() == family).copied().collect::<Vec<_>>();
        let routes = [grouping::ipv4(&of(Family::Ip4), seen_as), grouping::ipv6(&of(Family::Ip6), seen_as)];
        let pools = routes.map(RoutePool::new);
        Ok(Self::tied(host.name.clone(), host.index, InterfaceNat::assumed(), pools))
    }

    /// Determines the NAT in front of the interface. Blocks for at most the timeout.
    ///
    /// Of several families the one with a NAT counts, because IPv6 usually has none. If the interface leads
    /// to the Internet by IPv6 only, IPv4 servers are asked through the network's NAT64, if it has one. The
    /// result is then that NAT.
    /// Fails if the interface is gone, or no socket can be made.
    pub fn load_nat(&mut self, servers: &[SocketAddr], timeout: Duration) -> io::Result<&InterfaceNat> {
        let all = host::interfaces()?;
        let host = all.iter().find(|interface| interface.name == self.name).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("the interface {} is gone", self.name))
        })?;
        let begin = Instant::now();
        let ways = Ways { interfaces: &all, nat64: server_paths::find_nat64(host, servers, timeout) };
        let (servers, left) = (ways.inner(servers), timeout.saturating_sub(begin.elapsed()));
        for seen in ways.observe(host, &servers, left) {
            let Some(nat) = seen?.map(|seen| seen.decide()) else { continue };
            self.nat = InterfaceNat::of(&nat);
            if nat.translated == Some(true) {
                break;
            }
        }
        Ok(&self.nat)
    }

    /// Returns the interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the NAT in front of the interface.
    pub fn nat(&self) -> &InterfaceNat {
        &self.nat
    }

    /// Returns the routes of a family.
    pub fn rp(&self, family: Family) -> &RoutePool {
        &self.pools[usize::from(family == Family::Ip6)]
    }

    /// Returns the families with routes.
    pub fn supported(&self) -> Vec<Family> {
        Family::ALL.into_iter().filter(|family| !self.rp(*family).routes().is_empty()).collect()
    }

    /// Returns a copy of the first route of a family.
    pub fn route(&self, family: Family) -> Option<Route> {
        self.rp(family).routes().first().cloned()
    }

    /// Writes the interface as a JSON dictionary.
    pub fn to_json(&self) -> String {
        let [ip4, ip6] = self.pools.clone();
        let dict = Dict {
            name: self.name.clone(),
            index: self.index,
            nat: self.nat.clone(),
            rp: BTreeMap::from([(Family::Ip4.number(), ip4), (Family::Ip6.number(), ip6)]),
        };
        serde_json::to_string(&dict).expect("all its keys are texts")
    }

    /// Parses the output of [`Interface::to_json`], from this or another machine.
    ///
    /// ```
    /// use peersock_nat::interfaces::{Family, Interface};
    ///
    /// let text = r#"{"name": "eth0", "nat": {"type": 5, "delta": {"type": 6, "value": 0}},
    ///     "rp": {"2": [{"af": 2, "nic_ips": [{"ip": "192.168.21.21", "cidr": 32, "af": 2}],
    ///                   "ext_ips": [{"ip": "1.3.3.7", "cidr": 32, "af": 2}]}], "23": []}}"#;
    /// let nic = Interface::from_json(text)?;
    /// assert_eq!(nic.route(Family::Ip4).and_then(|route| route.ext()), Some([1, 3, 3, 7].into()));
    /// assert_eq!(Interface::from_json(&nic.to_json())?, nic);
    /// # Ok::<(), peersock_nat::interfaces::ParseInterfaceError>(())
    /// ```
    ///
    /// Fails if the text is no such dictionary.
    pub fn from_json(text: &str) -> Result<Self, ParseInterfaceError> {
        let dict: Dict =
            serde_json::from_str(text).map_err(|error| ParseInterfaceError(error.to_string()))?;
        let mut pools = [RoutePool::default(), RoutePool::default()];
        for (number, pool) in dict.rp {
            let unknown = || ParseInterfaceError(format!("{number} is no family"));
            let family = Family::from_number(number).ok_or_else(unknown)?;
            pools[usize::from(family == Family::Ip6)] = pool;
        }
        Ok(Self::tied(dict.name, dict.index, dict.nat, pools))
    }

    fn tied(name: String, index: u32, nat: InterfaceNat, mut pools: [RoutePool; 2]) -> Self {
        for route in pools.iter_mut().flat_map(RoutePool::routes_mut) {
            route.tie(&name, index);
        }
        Self { name, index, nat, pools }
    }
}

/// Returns the interface by which the system sends to the Internet, IPv4 before IPv6. Without any, returns
/// the first interface that is not loopback, or else the first one.
fn default_interface(all: &[HostInterface]) -> Option<&HostInterface> {
    let has = |ip: IpAddr| all.iter().find(|one| one.addresses.iter().any(|address| address.ip == ip));
    let chosen = ANYWHERE.into_iter().find_map(|remote| host::source(None, remote).and_then(has));
    chosen.or_else(|| all.iter().find(|one| !one.loopback)).or_else(|| all.first())
}

/// Returns the external address of each block's first address, asked in parallel. Of private IPv4 blocks only
/// the first is asked, because the others do not count.
fn external(
    host: &HostInterface,
    blocks: &[IpBlock],
    servers: &[SocketAddr],
    timeout: Duration,
) -> BTreeMap<IpAddr, IpAddr> {
    let mut has_private = false;
    let asks = |block: &&IpBlock| {
        let is_first =
            block.is_public() || block.family() == Family::Ip6 || !std::mem::replace(&mut has_private, true);
        is_first && !block.is_link_local()
    };
    let settings = Settings { deadline: timeout, address_only: true, ..Settings::new(servers.to_vec()) };
    let settings = &settings;
    thread::scope(|scope| {
        let ask = |ip: IpAddr| {
            beside(scope, move || {
                let seen = probe::run(ip, host.device(), settings).ok()?.decide().mapped?.ip();
                // An IPv4 server may answer through a NAT64 that was not discovered.
                (Family::of(seen) == Family::of(ip)).then_some((ip, seen))
            })
        };
        let asked: Vec<_> = blocks.iter().filter(asks).filter_map(|block| block.nth(0)).map(ask).collect();
        asked.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn loopback() -> Interface {
        Interface::load(Some("lo"), &[], Duration::from_secs(1)).expect("there is lo")
    }

    #[test]
    fn the_loopback_interface_is_loaded_bound_and_written() {
        let nic = loopback();
        let route = nic.route(Family::Ip4).expect("it has IPv4");
        assert_eq!((route.nic(), route.ext()), (Some(Ipv4Addr::LOCALHOST.into()), None));
        assert!(nic.rp(Family::Ip4).is_empty());
        let bound = route.bind(0, None).expect("it has an address");
        let listener = bound.listen().expect("a port is free");
        assert!(listener.local_addr().expect("it is bound").ip().is_loopback());
        let again = Interface::from_json(&nic.to_json()).expect("it was written so");
        assert_eq!(again, nic);
        assert_eq!(again.route(Family::Ip4), Some(route));
    }

    #[test]
    fn a_missing_interface_is_an_error_alone_and_left_out_of_several() {
        let error = Interface::load(Some("no such"), &[], Duration::from_secs(1)).expect_err("there is none");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let names = ["no such".to_owned(), "lo".to_owned()];
        let loaded = load_interfaces(&names, &[], Duration::from_secs(1)).expect("the system tells");
        assert_eq!(loaded.iter().map(Interface::name).collect::<Vec<_>>(), ["lo"]);
    }

    #[test]
    fn dictionaries_that_are_none_are_refused() {
        for text in [
            "",
            "{}",
            r#"{"name": "a", "nat": {"type": 5, "delta": {"type": 6, "value": 0}}, "rp": {"3": []}}"#,
            r#"{"name": "a", "nat": {"type": 99, "delta": {"type": 6, "value": 0}}, "rp": {}}"#,
            r#"{"name": "a", "nat": {"type": 5, "delta": {"type": 6, "value": 0}}, "rp": {"2": [{"af": 2,
                "nic_ips": [{"ip": "1.2.3.4", "cidr": 33, "af": 2}], "ext_ips": []}]}}"#,
        ] {
            assert!(Interface::from_json(text).is_err(), "{text}");
        }
    }
}
