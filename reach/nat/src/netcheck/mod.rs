//! An examination of the machine's whole network within a known time: for people, and for programs as JSON.

mod advice;
mod dns;
mod proxies;
mod tcp;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use peersock_primitives::beside;
use serde::{Serialize, Serializer};

use crate::behavior::{Nat, NatKind, Observations};
use crate::host::{self, HostInterface};
use crate::nat64::Nat64Prefix;
use crate::portmap::{self, Found, Gateway};
use crate::server_paths::{self, Ways};
pub use advice::Advice;
pub use dns::Nameserver;
pub use proxies::Proxy;
pub use tcp::TcpCheck;

/// Timeout of name resolution; later names count as unresolved.
const RESOLVE: Duration = Duration::from_millis(1500);
/// Time for the NAT64 query after the names are resolved; it starts in parallel with them.
const AFTER_NAMES: Duration = Duration::from_millis(500);
/// Timeout of all later checks.
const PROBE: Duration = Duration::from_secs(4);
/// Timeout of routers, which answer within milliseconds; the rest is for retransmissions.
const PORT_MAPPING: Duration = Duration::from_secs(2);
/// Limit of the interfaces that are examined, because machines with hundreds of virtual interfaces exist.
const MAX_INTERFACES: usize = 16;

/// A server to ask.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Target {
    /// A host name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The transport of the request.
    pub transport: Transport,
}

/// The transport by which a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// STUN over UDP.
    Udp,
    /// Opening a TCP connection.
    Tcp,
}

impl Target {
    /// Parses `HOST:PORT`, with brackets around an IPv6 address.
    pub fn parse(text: &str, transport: Transport) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_host = !host.is_empty() && (bare.is_some() || !host.contains(':'));
        let port = port.parse().ok().filter(|port| *port != 0)?;
        is_host.then(|| Self { host: host.to_owned(), port, transport })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

/// The result of the examination.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The interfaces that are up, by index.
    pub interfaces: Vec<InterfaceReport>,
    /// The servers that were asked over UDP.
    pub servers: Vec<ServerReport>,
    /// The nameservers of the system.
    pub nameservers: Vec<Nameserver>,
    /// TCP connections that were tried.
    pub tcp: Vec<TcpCheck>,
    /// Proxies that the environment names.
    pub proxies: Vec<Proxy>,
    /// The network's NAT64. IPv4 servers are asked through it if the machine has no IPv4 route.
    pub nat64: Option<Nat64Prefix>,
    /// True if UDP works in both directions; `None` if no server could be asked.
    pub udp: Option<bool>,
    /// The conclusions, the most important first.
    pub advice: Vec<Advice>,
    /// Duration of the examination.
    #[serde(rename = "took_ms", serialize_with = "milliseconds")]
    pub took: Duration,
}

/// One interface.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct InterfaceReport {
    /// The interface itself.
    #[serde(flatten)]
    pub host: HostInterface,
    /// The NAT in front of its IPv4 addresses, or the network's [NAT64](Report::nat64); `None` if no server
    /// could be asked through it.
    pub ipv4: Option<NatReport>,
    /// The same for IPv6.
    pub ipv6: Option<NatReport>,
    /// The protocols by which its router opens ports.
    pub port_mapping: Vec<Found>,
}

/// The NAT of an interface and a family.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct NatReport {
    /// Its usual name; `None` if unknown.
    pub kind: Option<NatKind>,
    /// The details.
    #[serde(flatten)]
    pub nat: Nat,
}

/// A STUN server or root.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ServerReport {
    /// The server as the caller named it.
    #[serde(serialize_with = "as_text")]
    pub target: Target,
    /// The server's addresses.
    pub addresses: Vec<ServerAddress>,
    /// The reason for having no address.
    pub error: Option<String>,
}

/// An address of a server.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ServerAddress {
    /// The address with the port that was asked.
    pub address: SocketAddr,
    /// True if an interface leads there; otherwise it was not asked.
    pub reachable: bool,
    /// The shortest round-trip time over UDP in milliseconds; `None` if it does not answer.
    pub rtt_ms: Option<f64>,
}

/// Examines the network. Takes less than six seconds in any network.
///
/// All servers come from the caller; without any, the kind of NAT stays unknown. If `only` names interfaces,
/// nothing is sent by others.
///
/// ```no_run
/// use peersock_nat::netcheck::{self, Target, Transport};
///
/// let server = Target::parse("192.0.2.1:3478", Transport::Udp).expect("it is HOST:PORT");
/// let report = netcheck::run(&[server], &[])?;
/// for advice in &report.advice {
///     println!("{}", advice.finding);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Fails if the system does not list its interfaces.
pub fn run(targets: &[Target], only: &[String]) -> io::Result<Report> {
    let begin = Instant::now();
    let mut interfaces = host::interfaces()?;
    interfaces.retain(|interface| only.is_empty() || only.contains(&interface.name));
    interfaces.truncate(MAX_INTERFACES);
    let proxies = proxies::from_environment();
    let (nameservers, port_mapping, nat64, (resolved, observed, tcp)) = thread::scope(|scope| {
        let nameservers = beside(scope, || dns::check(&interfaces));
        let ports: Vec<_> =
            interfaces.iter().map(|interface| beside(scope, || ports_of(interface))).collect();
        let asked = server_paths::ask_for_nat64(&interfaces);
        let mut resolved = resolve(targets, &proxies);
        let left = RESOLVE.saturating_sub(begin.elapsed()).max(AFTER_NAMES);
        let nat64 = asked.and_then(|asked| server_paths::nat64_of(&asked, left));
        if let Some(prefix) = nat64 {
            // The system's resolver returns names of IPv4 hosts in the NAT64's prefix.
            let addresses = resolved.iter_mut().filter_map(|(_, addresses)| addresses.as_mut().ok());
            addresses.flatten().for_each(|address| *address = prefix.restore(*address));
        }
        let ways = Ways { interfaces: &interfaces, nat64 };
        let servers: Vec<SocketAddr> = udp_servers(&resolved);
        let connections = tcp_targets(&resolved, &proxies, ways);
        let tcp = beside(scope, move || tcp::check(&connections, nat64, PROBE));
        let observe = |interface| {
            let servers = servers.clone();
            beside(scope, move || ways.observe(interface, &servers, PROBE))
        };
        let observed: Vec<_> = interfaces.iter().map(observe).collect();
        let told = |error: &io::Error| tracing::debug!(%error, "an interface is not probed");
        let known = |seen: io::Result<Option<Observations>>| seen.inspect_err(told).ok().flatten();
        let known = |families: [_; 2]| families.map(known);
        let observed = observed.into_iter().map(|thread| thread.join().map(known).unwrap_or_default());
        let observed: Vec<_> = observed.collect();
        let ports: Vec<_> = ports.into_iter().map(|thread| thread.join().unwrap_or_default()).collect();
        let found = (resolved, observed, tcp.join().unwrap_or_default());
        (nameservers.join().unwrap_or_default(), ports, nat64, found)
    });

    let ways = Ways { interfaces: &interfaces, nat64 };
    let servers = server_reports(&resolved, ways, observed.iter().flatten().flatten());
    let decide = |seen: &Option<Observations>| {
        let nat = seen.as_ref()?.decide();
        Some(NatReport { kind: nat.kind(), nat })
    };
    let interfaces = interfaces.into_iter().zip(&observed).zip(port_mapping);
    let interfaces: Vec<_> = interfaces
        .map(|((host, [ipv4, ipv6]), port_mapping)| InterfaceReport {
            host,
            ipv4: decide(ipv4),
            ipv6: decide(ipv6),
            port_mapping,
        })
        .collect();
    let udp = servers.iter().any(ServerReport::is_asked).then(|| servers.iter().any(ServerReport::answers));
    let mut report = Report {
        interfaces,
        servers,
        nameservers,
        tcp,
        proxies,
        nat64,
        udp,
        advice: Vec::new(),
        took: begin.elapsed(),
    };
    report.advice = advice::advise(&report);
    Ok(report)
}

impl ServerReport {
    /// Returns true if any interface leads to any of its addresses.
    pub fn is_asked(&self) -> bool {
        self.addresses.iter().any(|address| address.reachable)
    }

    /// Returns true if it answered over UDP from any of its addresses.
    pub fn answers(&self) -> bool {
        self.addresses.iter().any(|address| address.rtt_ms.is_some())
    }
}

/// A target with its addresses, or the reason for having none.
type Resolved = (Target, Result<Vec<SocketAddr>, String>);

/// Resolves names in parallel. A resolver that hangs blocks its thread, but not the caller.
fn resolve(targets: &[Target], proxies: &[Proxy]) -> Vec<Resolved> {
    let proxies = proxies.iter().filter_map(|proxy| proxy.target.clone());
    let asked: Vec<_> = targets
        .iter()
        .cloned()
        .chain(proxies)
        .map(|target| {
            let (sender, receiver) = mpsc::channel();
            let name = (target.host.clone(), target.port);
            let thread = thread::Builder::new().name("resolver".into());
            let spawned = thread.spawn(move || {
                let found = name.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
                let _ = sender.send(found.map_err(|error| error.to_string()));
            });
            if let Err(error) = spawned {
                tracing::debug!(%error, "no thread for a resolver");
            }
            (target, receiver)
        })
        .collect();
    let until = Instant::now() + RESOLVE;
    let wait = |receiver: mpsc::Receiver<Result<Vec<SocketAddr>, String>>| {
        let left = until.saturating_duration_since(Instant::now());
        receiver.recv_timeout(left).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => "the name was not resolved in time".into(),
                RecvTimeoutError::Disconnected => {
                    "no thread can be started to resolve the name: look at the limits (`ulimit -u -v`)".into()
                }
            })
        })
    };
    asked.into_iter().map(|(target, receiver)| (target, wait(receiver))).collect()
}

fn udp_servers(resolved: &[Resolved]) -> Vec<SocketAddr> {
    let udp = resolved.iter().filter(|(target, _)| target.transport == Transport::Udp);
    udp.filter_map(|(_, addresses)| addresses.as_ref().ok()).flatten().copied().collect()
}

/// Returns the TCP connections to try: those that the caller and the environment name, and port 443 of every
/// server. The latter shows if the servers are up when UDP brings no answer.
fn tcp_targets(resolved: &[Resolved], proxies: &[Proxy], ways: Ways<'_>) -> Vec<(Target, SocketAddr)> {
    let mut targets: BTreeMap<Target, SocketAddr> = BTreeMap::new();
    for (target, addresses) in resolved {
        let Some(first) = addresses.as_ref().ok().and_then(|addresses| addresses.first()) else { continue };
        let is_proxy = proxies.iter().any(|proxy| proxy.target.as_ref() == Some(target));
        if target.transport == Transport::Tcp {
            targets.insert(target.clone(), *first);
        }
        if !is_proxy && !first.ip().is_loopback() {
            let https = Target { port: 443, transport: Transport::Tcp, ..target.clone() };
            targets.entry(https).or_insert(SocketAddr::new(first.ip(), 443));
        }
    }
    targets.into_iter().filter(|(_, address)| ways.lead_to(*address)).collect()
}

/// Returns the protocols by which the interface's router opens ports: the IPv4 router, else the IPv6 router.
fn ports_of(interface: &HostInterface) -> Vec<Found> {
    let Some(router) = interface.router(false).or_else(|| interface.router(true)) else { return Vec::new() };
    let Some(local) = interface.source_towards(router) else { return Vec::new() };
    portmap::find(&Gateway { interface: Some(interface.name.clone()), local, router }, PORT_MAPPING)
}

fn server_reports<'a>(
    resolved: &[Resolved],
    ways: Ways<'_>,
    seen: impl Iterator<Item = &'a Observations>,
) -> Vec<ServerReport> {
    let mut shortest: BTreeMap<SocketAddr, Duration> = BTreeMap::new();
    for sample in seen.flat_map(|seen| &seen.main) {
        let rtt = shortest.entry(sample.server).or_insert(sample.rtt);
        *rtt = sample.rtt.min(*rtt);
    }
    let at = |address: &SocketAddr| ServerAddress {
        address: *address,
        reachable: ways.lead_to(*address),
        rtt_ms: shortest.get(address).map(|rtt| round(rtt.as_secs_f64() * 1e3)),
    };
    let udp = resolved.iter().filter(|(target, _)| target.transport == Transport::Udp);
    udp.map(|(target, addresses)| ServerReport {
        target: target.clone(),
        addresses: addresses.as_deref().unwrap_or_default().iter().map(at).collect(),
        error: addresses.as_ref().err().cloned(),
    })
    .collect()
}

/// Returns true if the address's range is reachable from the whole Internet.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
                || crate::behavior::is_shared(ip.into()))
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unique_local()
                || ip.is_unicast_link_local())
        }
    }
}

/// Rounds to microseconds, the precision of a round trip.
fn round(milliseconds: f64) -> f64 {
    (milliseconds * 1e3).round() / 1e3
}

fn milliseconds<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(round(value.as_secs_f64() * 1e3))
}

fn as_text<S: Serializer>(value: &Target, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written_alike() {
        for text in ["stun.example.org:3478", "192.0.2.1:3478", "[2001:db8::1]:3478"] {
            let target = Target::parse(text, Transport::Udp).expect("it is one");
            assert_eq!(target.to_string(), text);
        }
        for text in ["", "host", "host:", ":1", "host:0", "host:65536", "2001:db8::1:3478"] {
            assert_eq!(Target::parse(text, Transport::Udp), None, "{text:?}");
        }
    }
}
