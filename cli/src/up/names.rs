//! `peersock up --dns`: members' names for all programs of the machine.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fmt, io};

use peersock::attach::NodeHandle;
use peersock::overlay::membership::MemberName;
use peersock::{Network, NetworkId, Node};
use peersock_tun::{DOMAIN, Found, Members, NameServer, Names, zones};

use super::resolved::resolvectl;
use crate::failure::{Failure, Outcome};
use crate::stdio;

/// Fails if no member of the networks has a name.
pub(super) fn check(networks: &[Network]) -> Outcome {
    let is_named = |network: &Network| {
        network.id().is_managed() || network.members().iter().any(|member| member.name.is_some())
    };
    if networks.iter().any(is_named) {
        return Ok(());
    }
    let ids: Vec<_> = networks.iter().map(|network| network.id().to_string()).collect();
    Err(Failure::usage(
        format_args!("no member of network {} has a name that --dns could serve", ids.join(" or ")),
        "leave --dns out, or describe the network in a file that names its members (docs/use/NETWORKS.md)",
    ))
}

/// Returns the names of the networks' members, for a node that has joined them.
pub(super) fn of(networks: &[Network], node: &Node) -> Names {
    let mut names = Names::default();
    for network in networks {
        let id = network.id();
        let local = network.local_name().filter(|_| id.admits_programs()).map(MemberName::as_str);
        if id.is_managed() {
            names.add_asked(
                &id.to_string(),
                local,
                Arc::new(Managed { node: NodeHandle::of(node), id, waiting: AtomicUsize::new(0) }),
            );
            continue;
        }
        let named = network.members().iter().filter_map(|member| {
            Some((member.name.as_deref()?, network.addresses_of(&member.identity).unwrap_or_default()))
        });
        names.add(&id.to_string(), local, named);
    }
    names
}

/// Number of questions that may wait for a controller at once. Others are answered from what is known.
const MAX_WAITING: usize = 6;

/// Members of a managed network, of which the node knows some and asks the controllers for the others.
struct Managed {
    node: NodeHandle,
    id: NetworkId,
    waiting: AtomicUsize,
}

impl fmt::Debug for Managed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Managed").field(&self.id).finish()
    }
}

impl Members for Managed {
    fn find(&self, name: &str) -> Found {
        let name = format!("{name}.{}", self.id);
        let mut addresses = self.node.addresses_named(&name);
        if addresses.is_empty() {
            let is_room = self.waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING;
            if is_room {
                addresses = self.node.resolve(&name).unwrap_or_default();
            }
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        match addresses.is_empty() {
            false => Found::Member(addresses),
            true if self.node.is_name_absent(&name) => Found::Nobody,
            true => Found::Unanswered,
        }
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        self.node.datapath().name_at(address, |id| id == self.id)
    }
}

/// The name server, bound to its port.
pub(super) struct Server {
    server: NameServer,
    /// True if the machine's resolver knows the server.
    is_announced: bool,
}

impl Server {
    /// Binds the port at an address of the interface.
    pub(super) fn bind(address: IpAddr, port: u16) -> Outcome<Server> {
        let at = SocketAddr::new(address, port);
        let server = NameServer::bind(at).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "give another one with --dns-port, or CAP_NET_BIND_SERVICE"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "check the address with `ip addr`: it is `dadfailed` if another machine has it, too"
                }
                _ => "give another one with --dns-port: `ss -lnup` shows who has this one",
            };
            Failure::new(format_args!("cannot answer questions for names at {at}: {error}"), hint)
        })?;
        Ok(Server { server, is_announced: false })
    }

    /// Makes the machine's resolver ask this server for names in [`DOMAIN`] and addresses with these
    /// prefixes, if the resolver can be configured. Call this before privileges are dropped, because
    /// systemd-resolved requires them.
    pub(super) fn announce(&mut self, interface: &str, prefixes: &[(IpAddr, u8)]) {
        let at = self.server.address();
        let server = match at.port() {
            53 => at.ip().to_string(),
            _ => at.to_string(),
        };
        // Lists the prefixes, because the resolver sees only the interface's addresses.
        let zones = prefixes.iter().flat_map(|(address, length)| zones(*address, *length));
        // The tilde makes them routing domains only.
        let zones: Vec<_> = zones.map(|zone| format!("~{zone}")).collect();
        let mut domains = vec!["domain", interface, DOMAIN];
        domains.extend(zones.iter().map(String::as_str));
        // Other names are not sent to this server.
        self.is_announced = resolvectl(&["dns", interface, &server])
            && resolvectl(&domains)
            && resolvectl(&["default-route", interface, "no"]);
    }

    /// Starts answering.
    pub(super) fn start(self, names: Names) -> Outcome {
        let at = self.server.address();
        self.server.serve(names)?;
        stdio::note(match self.is_announced {
            true => format!("members have names in {DOMAIN}"),
            false => format!(
                "members have names in {DOMAIN}, once the machine's resolver asks {at} for it (docs/use/NETWORKS.md)"
            ),
        });
        Ok(())
    }
}
