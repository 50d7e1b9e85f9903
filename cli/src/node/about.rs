//! Answers to a program's questions about the members of its networks.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use peersock::attach::NodeHandle;
use peersock::overlay::Prefix;
use peersock::{Joined, Network, Node};
use peersock_attach::{Answer, Question};
use rustix::io::Errno;

use crate::reach::{self, NamedServers};

/// The parts of the node that a program may ask about.
pub(super) struct About {
    node: Node,
    named: NamedServers,
}

impl About {
    pub(super) fn new(node: &Node, named: &NamedServers) -> About {
        About { node: node.clone(), named: named.clone() }
    }

    /// Answers about members of a program's networks.
    pub(super) fn answer(&self, networks: &[Network], question: Question) -> Answer {
        match question {
            Question::Find(address, within) => {
                self.found(networks, address, |joined| joined.wait_peer(address, within))
            }
            Question::Path(address) => {
                self.found(networks, address, |joined| joined.check_path(address, reach::CHECK))
            }
            Question::Advice(address) => {
                let network = self.network_of(networks, address).map(|(network, _)| network);
                let advice = network.map(|it| reach::what_to_check(&self.node, it, &self.named, address));
                Answer::Advice(advice.unwrap_or_default())
            }
            Question::Heard(address) => Answer::Heard(
                self.network_of(networks, address).and_then(|(_, joined)| heard(&joined, address)),
            ),
            Question::Member(address) => {
                let ids = networks.iter().map(Network::id).collect::<Vec<_>>();
                let handle = NodeHandle::of(&self.node).within(&ids);
                Answer::Member(handle.member_at(address).map(|id| id.to_string()))
            }
        }
    }

    fn found(
        &self,
        networks: &[Network],
        address: IpAddr,
        search: impl FnOnce(&Joined) -> io::Result<()>,
    ) -> Answer {
        let found = match self.network_of(networks, address) {
            Some((_, joined)) => search(&joined),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        Answer::Found(found.map_or_else(|error| errno(&error).raw_os_error(), |()| 0))
    }

    /// Returns that of a program's networks to which an address leads.
    fn network_of<'a>(&self, networks: &'a [Network], address: IpAddr) -> Option<(&'a Network, Joined)> {
        let leads = |joined: &Joined| {
            let prefix = |(network, bits)| Prefix::new(network, bits).is_some_and(|it| it.contains(address));
            joined.routes().into_iter().any(prefix)
        };
        self.node.networks().into_iter().filter(leads).find_map(|joined| {
            let network = networks.iter().find(|network| network.id() == joined.id())?;
            Some((network, joined))
        })
    }
}

/// Returns the time since the last packet of a member, which may be this node itself.
fn heard(joined: &Joined, address: IpAddr) -> Option<Duration> {
    if joined.addresses().contains(&address) {
        return Some(Duration::ZERO);
    }
    let peers = joined.peers();
    let age = peers.iter().find(|peer| peer.addresses.contains(&address))?.last_seen_s?;
    Duration::try_from_secs_f64(age).ok()
}

fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        _ if error.raw_os_error().is_some() => Errno::from_io_error(error).unwrap_or(Errno::IO),
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => Errno::TIMEDOUT,
        io::ErrorKind::AddrNotAvailable => Errno::ADDRNOTAVAIL,
        io::ErrorKind::NetworkDown => Errno::NETDOWN,
        _ => Errno::IO,
    }
}
