//! `peersock up --exit --exit-dns`: name resolution by a resolver behind the exit.

use std::net::IpAddr;

use super::exit::Chosen;
use super::resolved::resolvectl;
use crate::failure::{Failure, Outcome};

#[derive(clap::Args)]
pub(super) struct ExitNamesArgs {
    /// With --exit, resolve all names at the resolver ADDR, through the exit; may be repeated [default: the
    /// same name servers as before]
    ///
    /// This needs systemd-resolved, which is configured accordingly. Without this option, a name server on
    /// the local network still sees the names.
    #[arg(long = "exit-dns", value_name = "ADDR", requires = "exit")]
    servers: Vec<IpAddr>,
}

impl ExitNamesArgs {
    /// Returns the resolvers; empty if the resolvers stay unchanged.
    pub(super) fn servers(&self) -> &[IpAddr] {
        &self.servers
    }

    /// Rejects combinations that cannot work. `has_names`: the first network's interface has a server for
    /// members' names. It excludes --exit-dns there, because systemd-resolved has one list of servers per
    /// interface.
    pub(super) fn check(&self, exit: Option<&Chosen>, has_names: bool) -> Outcome {
        let Some(exit) = exit.filter(|_| !self.servers.is_empty()) else { return Ok(()) };
        if let Some(server) = self.servers.iter().find(|server| !is_reached(exit, **server)) {
            return Err(Failure::usage(
                format_args!("--exit-dns {server}: no resolver can be reached there through the exit"),
                "give an address in the Internet, of IPv4 where the exit takes no IPv6",
            ));
        }
        if has_names && exit.at == 0 {
            return Err(Failure::usage(
                "--dns and --exit-dns are for the same interface, which can have the servers of only one of \
                 them",
                "leave one out, or name another network before that of the exit",
            ));
        }
        Ok(())
    }

    /// Makes the machine's resolver send all queries to the servers through the exit's interface. Call this
    /// before privileges are dropped, because systemd-resolved requires them.
    pub(super) fn announce(&self, interface: &str) -> Outcome {
        if self.servers.is_empty() {
            return Ok(());
        }
        let servers: Vec<_> = self.servers.iter().map(ToString::to_string).collect();
        let mut words = vec!["dns", interface];
        words.extend(servers.iter().map(String::as_str));
        // Routes all names to this interface, with precedence over other interfaces' servers.
        let is_told = resolvectl(&words)
            && resolvectl(&["domain", interface, "~."])
            && resolvectl(&["default-route", interface, "yes"]);
        if is_told {
            return Ok(());
        }
        // Fails, because names would otherwise be sent to unwanted servers.
        Err(Failure::new(
            "systemd-resolved cannot be told which resolver --exit-dns names",
            format_args!(
                "check that it runs (`resolvectl status`), and start this as root; without it write \
                 `nameserver {}` into /etc/resolv.conf and leave --exit-dns out",
                servers[0]
            ),
        ))
    }
}

/// Returns true if the exit may lead to an address: an Internet address, or one in a block behind members.
fn is_reached(exit: &Chosen, server: IpAddr) -> bool {
    let is_own = server.is_loopback() || server.is_unspecified() || server.is_multicast();
    !is_own && (server.is_ipv4() || exit.ipv6)
}
