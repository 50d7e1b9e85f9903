//! Network interfaces of the machine: the ones that the node may use, and notifications of changes.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use socket2::{Domain, Protocol, Socket, Type};

/// Network interfaces of the machine that a node may use.
///
/// The limit covers everything: sealed traffic, handshakes, and discovery by multicast and broadcast.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Interfaces {
    /// Every interface, including loopback. The default.
    #[default]
    All,
    /// Every interface except those with these names: tunnels through which no peer is reached, such as the
    /// interface of this node's network.
    Except(Vec<String>),
    /// Only the loopback interface: peers on this machine.
    Loopback,
    /// Only the interfaces with these names. `lo` means the loopback interface.
    Named(Vec<String>),
}

impl Interfaces {
    pub(crate) fn allows(&self, interface: &HostInterface) -> bool {
        self.allows_named(&interface.name, interface.loopback)
    }

    /// Returns true if the interface with that name may be used.
    pub(crate) fn allows_named(&self, name: &str, is_loopback: bool) -> bool {
        match self {
            Interfaces::All => true,
            Interfaces::Except(names) => names.iter().all(|refused| refused != name),
            Interfaces::Loopback => is_loopback,
            Interfaces::Named(names) => names.iter().any(|allowed| allowed == name),
        }
    }

    /// Returns true if only the loopback interface can match.
    pub(crate) fn is_loopback_only(&self) -> bool {
        match self {
            Interfaces::All | Interfaces::Except(_) => false,
            Interfaces::Loopback => true,
            Interfaces::Named(names) => names.iter().all(|name| name == LOOPBACK_NAME),
        }
    }
}

impl fmt::Display for Interfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interfaces::All => f.write_str("every interface"),
            Interfaces::Except(names) => write!(f, "every interface but {}", names.join(", ")),
            Interfaces::Loopback => f.write_str("the loopback interface"),
            Interfaces::Named(names) => f.write_str(&names.join(", ")),
        }
    }
}

/// Usable interface with its current addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostInterface {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) loopback: bool,
    pub(crate) ipv4: Vec<Ipv4Addr>,
    pub(crate) broadcast: Vec<Ipv4Addr>,
    pub(crate) ipv6: Vec<Ipv6Addr>,
}

impl fmt::Display for HostInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for address in &self.ipv4 {
            write!(f, " {address}")?;
        }
        for address in &self.broadcast {
            write!(f, " broadcast {address}")?;
        }
        if !self.ipv6.is_empty() {
            f.write_str(" IPv6")?;
        }
        Ok(())
    }
}

/// Returns an error text: none of the allowed interfaces is up, with a list of those that are.
pub(crate) fn none_up(allowed: &Interfaces) -> String {
    let present = list(&Interfaces::All).unwrap_or_default();
    let names: Vec<_> = present.iter().map(|interface| interface.name.as_str()).collect();
    let present = match names.as_slice() {
        [] => "this machine has none that is up".to_owned(),
        names => format!("up are {}", names.join(", ")),
    };
    format!("no network interface that may be used is up: allowed is {allowed}, {present}")
}

/// Returns true if the system has a route to `remote`.
pub(crate) fn has_route(remote: SocketAddr) -> bool {
    source_towards(remote, None).is_ok()
}

/// Opens a UDP socket of the family of `remote` that leaves by an interface; `None` means any.
pub(crate) fn socket_towards(remote: SocketAddr, device: Option<&str>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    Ok(socket)
}

/// Returns the source address that the system uses to `remote`, by an interface; `None` means any.
///
/// # Errors
/// Fails if the system has no route.
pub(crate) fn source_towards(remote: SocketAddr, device: Option<&str>) -> io::Result<IpAddr> {
    let socket: UdpSocket = socket_towards(remote, device)?.into();
    // No packet leaves, because connecting UDP only makes the system choose a route.
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

/// Returns the interface by which the system sends to `remote`, for the log. It makes system calls, so it is
/// too slow for every packet.
pub(crate) fn leading_to(remote: SocketAddr) -> Option<String> {
    let local = source_towards(remote, None).ok()?;
    let is_it = |entry: &InterfaceAddress| {
        ip_of(entry) == Some(local) && entry.flags.contains(InterfaceFlags::IFF_UP)
    };
    getifaddrs().ok()?.find(is_it).map(|entry| without_label(&entry.interface_name).to_owned())
}

/// Strips the label from an interface's name, because the system reports an IPv4 address with a label as
/// `eth0:1`.
fn without_label(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// Lists the interfaces that are up and have an address, ordered by index.
pub(crate) fn list(allowed: &Interfaces) -> io::Result<Vec<HostInterface>> {
    let mut found: BTreeMap<u32, HostInterface> = BTreeMap::new();
    for entry in getifaddrs()? {
        let Some(ip) = ip_of(&entry) else { continue };
        // Up as set by the administrator. The kernel has no routes by other interfaces, although they keep
        // their addresses. A lost carrier does not count, because it may return in a moment and no address
        // has changed.
        if !entry.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        // Fails if the interface is gone meanwhile.
        let Ok(index) = if_nametoindex(entry.interface_name.as_str()) else { continue };
        let interface = found.entry(index).or_insert_with(|| HostInterface {
            name: without_label(&entry.interface_name).to_owned(),
            index,
            loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            ipv4: Vec::new(),
            broadcast: Vec::new(),
            ipv6: Vec::new(),
        });
        match ip {
            IpAddr::V4(ip) => {
                interface.ipv4.push(ip);
                let announced = || Some(entry.broadcast.as_ref()?.as_sockaddr_in()?.ip());
                let broadcast = if ip.is_loopback() { Some(LOOPBACK_BROADCAST) } else { announced() };
                interface.broadcast.extend(broadcast.filter(|broadcast| *broadcast != ip));
            }
            IpAddr::V6(ip) => interface.ipv6.push(ip),
        }
    }
    Ok(found.into_values().filter(|interface| allowed.allows(interface)).collect())
}

/// Returns the IP address of an entry; `None` for a link-layer entry.
fn ip_of(entry: &InterfaceAddress) -> Option<IpAddr> {
    let address = entry.address.as_ref()?;
    let v6 = || Some(address.as_sockaddr_in6()?.ip().into());
    address.as_sockaddr_in().map(|v4| v4.ip().into()).or_else(v6)
}

/// Broadcast address that the loopback interface delivers to, although it announces none.
const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

const LOOPBACK_NAME: &str = "lo";

/// Converts an IPv4-mapped IPv6 address to IPv4.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => addr,
        },
        SocketAddr::V4(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn loopback_is_listed_with_its_broadcast_address() {
        let list = list(&Interfaces::Loopback).expect("interfaces can be listed");
        assert!(list.iter().all(|interface| interface.loopback));
        let lo = list.first().expect("a loopback interface");
        assert!(lo.ipv4.contains(&Ipv4Addr::LOCALHOST));
        assert_eq!(lo.broadcast, vec![LOOPBACK_BROADCAST]);
    }

    #[test]
    fn the_error_names_what_is_allowed_and_what_there_is() {
        let error = none_up(&Interfaces::Named(vec!["nosuch".into(), "eth7".into()]));
        assert!(error.contains("allowed is nosuch, eth7") && error.contains("lo"), "{error}");
        assert!(!error.contains(['"', '[', '(']), "{error}");
    }

    #[test]
    fn the_interface_of_a_path_is_found() {
        assert_eq!(leading_to("127.0.0.1:9".parse().expect("an address")).as_deref(), Some("lo"));
    }

    #[test]
    fn only_named_interfaces_are_listed() {
        assert_eq!(list(&Interfaces::Named(vec!["no-such-card".into()])).expect("list"), vec![]);
    }

    #[test]
    fn another_ipv6_address_is_a_change() {
        let Some(namespace) = Namespace::new("another_ipv6_address_is_a_change", "v6") else { return };
        namespace.ip("link set lo up");
        let before = namespace.list();
        namespace.ip("addr add 2001:db8::1/128 dev lo");
        assert_ne!(before, namespace.list());
    }

    #[test]
    fn an_interface_that_was_set_down_is_gone_and_one_without_carrier_is_not() {
        let test = "an_interface_that_was_set_down_is_gone_and_one_without_carrier_is_not";
        let Some(namespace) = Namespace::new(test, "down") else { return };
        let near = || namespace.list().into_iter().find(|interface| interface.name == "near");
        namespace.ip("link set lo up");
        namespace.ip("link add near type veth peer name far");
        namespace.ip("addr add 192.0.2.1/24 dev near");
        assert_eq!(near(), None, "it has an address, and was never set up");
        namespace.ip("link set near up");
        let before =
            near().expect("without its other end there is no carrier, which may be over in a moment");
        for carrier in ["link set far up", "link set far down"] {
            namespace.ip(carrier);
            let now = near().expect("it is up still");
            assert_eq!((now.index, now.ipv4), (before.index, before.ipv4.clone()));
        }
        namespace.ip("link set near down");
        assert_eq!(near(), None);
        assert_eq!(namespace.within(|| leading_to("192.0.2.9:9".parse().expect("an address"))), None);
        namespace.ip("link set near up");
        assert_eq!(near().map(|near| near.ipv4), Some(before.ipv4));
    }

    /// Network namespace that lives as long as the value.
    struct Namespace(String);

    impl Namespace {
        /// Creates a namespace; returns `None`, with a message, if that is impossible.
        fn new(test: &str, suffix: &str) -> Option<Self> {
            let name = format!("peersock-{suffix}-{}", std::process::id());
            if !ip(&format!("netns add {name}")) {
                eprintln!("SKIP {test}: network namespaces need root and the program ip");
                return None;
            }
            Some(Self(name))
        }

        /// Runs ip(8) inside.
        fn ip(&self, words: &str) {
            assert!(ip(&format!("-n {} {words}", self.0)), "ip {words}");
        }

        /// Returns the result of `work` inside.
        fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
            let namespace = std::fs::File::open(format!("/run/netns/{}", self.0)).expect("it is there");
            let inside = std::thread::spawn(move || {
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("root may");
                work()
            });
            inside.join().expect("no panic")
        }

        fn list(&self) -> Vec<HostInterface> {
            self.within(|| list(&Interfaces::All).expect("interfaces can be listed"))
        }
    }

    impl Drop for Namespace {
        fn drop(&mut self) {
            ip(&format!("netns del {}", self.0));
        }
    }

    /// Runs ip(8); returns true on success.
    fn ip(words: &str) -> bool {
        let output = std::process::Command::new("ip").args(words.split(' ')).output();
        output.is_ok_and(|output| output.status.success())
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:7".parse().expect("address");
        assert_eq!(canonical(mapped), "192.0.2.1:7".parse().expect("address"));
    }
}
