//! `peersock up --dns`: names of members for all programs of the machine.

use std::io;
use std::net::{IpAddr, SocketAddr};

use peersock::Network;
use peersock_tun::{DOMAIN, NameServer, Names, zones};

use super::resolved::resolvectl;
use crate::failure::{Failure, Outcome};
use crate::stdio;

/// The names of the networks' members.
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
        "leave --dns out, or describe the network in a file that names its members (docs/NETWORKS.md)",
    ))
}

/// The name server, which has its port.
pub(super) struct Server {
    server: NameServer,
    /// The machine's resolver knows of it.
    is_announced: bool,
}

impl Server {
    /// Takes the port at an address of the interface.
    pub(super) fn bind(address: IpAddr, port: u16, names: Names) -> Outcome<Server> {
        let at = SocketAddr::new(address, port);
        let server = NameServer::bind(at, names).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "give another one with --dns-port, or CAP_NET_BIND_SERVICE"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "look at the address with `ip addr`: one that another machine has, too, is `dadfailed`"
                }
                _ => "give another one with --dns-port: `ss -lnup` shows who has this one",
            };
            Failure::new(format_args!("cannot answer questions for names at {at}: {error}"), hint)
        })?;
        Ok(Server { server, is_announced: false })
    }

    /// Has the machine's resolver ask here for names of [`DOMAIN`] and of addresses with these prefixes, if
    /// it is one that can be told. It believes who may set the interface up: call this before that privilege
    /// is given up.
    pub(super) fn announce(&mut self, interface: &str, prefixes: &[(IpAddr, u8)]) {
        let at = self.server.address();
        let server = match at.port() {
            53 => at.ip().to_string(),
            _ => at.to_string(),
        };
        // It does not see the prefixes: the interface's addresses stand alone.
        let zones = prefixes.iter().flat_map(|(address, length)| zones(*address, *length));
        // Those are for routing alone.
        let zones: Vec<_> = zones.map(|zone| format!("~{zone}")).collect();
        let mut domains = vec!["domain", interface, DOMAIN];
        domains.extend(zones.iter().map(String::as_str));
        // Names of others are not asked for here.
        self.is_announced = resolvectl(&["dns", interface, &server])
            && resolvectl(&domains)
            && resolvectl(&["default-route", interface, "no"]);
    }

    /// Answers from now on.
    pub(super) fn start(self) -> Outcome {
        let at = self.server.address();
        self.server.serve()?;
        stdio::note(match self.is_announced {
            true => format!("members have names in {DOMAIN}"),
            false => format!(
                "members have names in {DOMAIN}, once the machine's resolver asks {at} for it (docs/NETWORKS.md)"
            ),
        });
        Ok(())
    }
}
