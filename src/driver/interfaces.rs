//! The machine's network interfaces: which ones the node may use, and news when they change.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use if_addrs::{IfAddr, IfOperStatus};
use socket2::{Domain, Protocol, Socket, Type};

/// Which of the machine's network interfaces a node sends and receives on.
///
/// The limit covers everything: sealed traffic, handshakes, and discovery by multicast and broadcast.
///
/// ```
/// use peersock::Interfaces;
/// let only_this_machine = Interfaces::Loopback;
/// let two_cards = Interfaces::Named(vec!["eth0".into(), "wlan0".into()]);
/// assert_ne!(only_this_machine, two_cards);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Interfaces {
    /// Every interface, the loopback included. The default.
    #[default]
    All,
    /// Every interface but those of these names: tunnels through which no peer is reached, such as the
    /// interface that this node's own network is.
    Except(Vec<String>),
    /// Only the loopback interface: peers on this machine.
    Loopback,
    /// Only the interfaces of these names. `lo` stands for the loopback interface.
    Named(Vec<String>),
}

impl Interfaces {
    pub(crate) fn allows(&self, interface: &HostInterface) -> bool {
        self.allows_named(&interface.name, interface.loopback)
    }

    /// Whether the interface of that name may be used.
    pub(crate) fn allows_named(&self, name: &str, is_loopback: bool) -> bool {
        match self {
            Interfaces::All => true,
            Interfaces::Except(names) => names.iter().all(|refused| refused != name),
            Interfaces::Loopback => is_loopback,
            Interfaces::Named(names) => names.iter().any(|allowed| allowed == name),
        }
    }

    /// The first IPv4 address that may be used, one beyond the machine first.
    pub(crate) fn first_ipv4(&self) -> io::Result<Option<Ipv4Addr>> {
        let mut allowed = list(self)?;
        allowed.sort_by_key(|interface| interface.loopback);
        Ok(allowed.iter().find_map(|interface| interface.ipv4.first().copied()))
    }

    /// Whether no interface but the loopback can match.
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

/// One usable interface with the addresses it has now.
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

/// Says that none of the allowed interfaces is up, and which there are.
pub(crate) fn none_up(allowed: &Interfaces) -> String {
    let present = list(&Interfaces::All).unwrap_or_default();
    let names: Vec<_> = present.iter().map(|interface| interface.name.as_str()).collect();
    let present = match names.as_slice() {
        [] => "this machine has none that is up".to_owned(),
        names => format!("up are {}", names.join(", ")),
    };
    format!("no network interface that may be used is up: allowed is {allowed}, {present}")
}

/// Whether the system knows a way to `remote`.
pub(crate) fn has_route(remote: SocketAddr) -> bool {
    source_towards(remote, None).is_ok()
}

/// A UDP socket for the way to `remote` that leaves by this interface; `None` stands for any.
pub(crate) fn socket_towards(remote: SocketAddr, device: Option<&str>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    Ok(socket)
}

/// The address that the system sends to `remote` from, by this interface; `None` stands for any.
///
/// # Errors
/// The system knows no way there.
pub(crate) fn source_towards(remote: SocketAddr, device: Option<&str>) -> io::Result<IpAddr> {
    let socket: UdpSocket = socket_towards(remote, device)?.into();
    // No packet leaves: that only makes the system choose a route.
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

/// The interface over which the system sends to `remote`, for the log: asks the system, so it is not for
/// every packet.
pub(crate) fn leading_to(remote: SocketAddr) -> Option<String> {
    let local = source_towards(remote, None).ok()?;
    let entries = if_addrs::get_if_addrs().ok()?;
    entries.into_iter().find(|entry| entry.ip() == local).map(|entry| entry.name)
}

/// Lists the interfaces that are up, ordered by index.
pub(crate) fn list(allowed: &Interfaces) -> io::Result<Vec<HostInterface>> {
    let mut found: BTreeMap<u32, HostInterface> = BTreeMap::new();
    for entry in if_addrs::get_if_addrs()? {
        let Some(index) = entry.index else { continue };
        if entry.oper_status == IfOperStatus::Down && !entry.is_loopback() {
            continue;
        }
        let interface = found.entry(index).or_insert_with(|| HostInterface {
            name: entry.name.clone(),
            index,
            loopback: entry.is_loopback(),
            ipv4: Vec::new(),
            broadcast: Vec::new(),
            ipv6: Vec::new(),
        });
        match &entry.addr {
            IfAddr::V4(v4) => {
                interface.ipv4.push(v4.ip);
                let broadcast = if entry.is_loopback() { Some(LOOPBACK_BROADCAST) } else { v4.broadcast };
                interface.broadcast.extend(broadcast.filter(|b| *b != v4.ip));
            }
            IfAddr::V6(v6) => interface.ipv6.push(v6.ip),
        }
    }
    Ok(found.into_values().filter(|interface| allowed.allows(interface)).collect())
}

/// The broadcast address that the loopback interface delivers to, though it announces none.
const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

const LOOPBACK_NAME: &str = "lo";

/// Turns an IPv4-mapped IPv6 address into the IPv4 address it stands for.
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
        let name = format!("peersock-v6-{}", std::process::id());
        let ip = |words: &str| {
            let output = std::process::Command::new("ip").args(words.split(' ')).output();
            output.is_ok_and(|output| output.status.success())
        };
        if !ip(&format!("netns add {name}")) {
            eprintln!(
                "SKIP another_ipv6_address_is_a_change: network namespaces need root and the program ip"
            );
            return;
        }
        let list = || {
            let namespace = std::fs::File::open(format!("/run/netns/{name}")).expect("it is there");
            let inside = std::thread::spawn(move || {
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("root may");
                list(&Interfaces::All).expect("interfaces can be listed")
            });
            inside.join().expect("no panic")
        };
        let set_up = ip(&format!("-n {name} link set lo up"));
        let before = list();
        let added = ip(&format!("-n {name} addr add 2001:db8::1/128 dev lo"));
        let after = list();
        ip(&format!("netns del {name}"));
        assert!(set_up && added);
        assert_ne!(before, after);
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:7".parse().expect("address");
        assert_eq!(canonical(mapped), "192.0.2.1:7".parse().expect("address"));
    }
}
