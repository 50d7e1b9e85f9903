//! `peersock up --dns`: members' names for all programs of the machine.

use std::io;
use std::net::{IpAddr, SocketAddr};

use peersock::Network;
use peersock_tun::{DOMAIN, NameServer, Names, zones};

use super::resolved::resolvectl;
use crate::failure::{Failure, Outcome};
use crate::stdio;

/// Returns the names of the networks' members.
pub(super) fn of(networks: &[Network]) -> Outcome<Names> {
    let mut names = Names::default();
    for network in networks {
        let named = network.members().iter().filter_map(|member| {
            Some((member.name.as_deref()?, network.addresses_of(&member.identity).unwrap_or_default()))
        });
        names.add(&network.id().to_string(), named);
    }
    if !names.is_empty() {
        return Ok(names);
    }
    let ids: Vec<_> = networks.iter().map(|network| network.id().to_string()).collect();
    Err(Failure::usage(
        format_args!("no member of network {} has a name that --dns could serve", ids.join(" or ")),
        "leave --dns out, or describe the network in a file that names its members (docs/use/NETWORKS.md)",
    ))
}

/// The name server, bound to its port.
pub(super) struct Server {
    server: NameServer,
    /// True if the machine's resolver knows the server.
    is_announced: bool,
}

impl Server {
    /// Binds the port at an address of the interface.
    pub(super) fn bind(address: IpAddr, port: u16, names: Names) -> Outcome<Server> {
        let at = SocketAddr::new(address, port);
        let server = NameServer::bind(at, names).map_err(|error| {
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
    pub(super) fn start(self) -> Outcome {
        let at = self.server.address();
        self.server.serve()?;
        stdio::note(match self.is_announced {
            true => format!("members have names in {DOMAIN}"),
            false => format!(
                "members have names in {DOMAIN}, once the machine's resolver asks {at} for it (docs/use/NETWORKS.md)"
            ),
        });
        Ok(())
    }
}
