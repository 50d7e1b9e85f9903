//! Answers to a program's questions about the members of its networks.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use peersock::attach::NodeHandle;
use peersock::overlay::Prefix;
use peersock::{Joined, Network, Node};
use peersock_attach::{Answer, NicknameRefusal, Question, STEP};
use rustix::io::Errno;

use crate::reach::{self, NamedServers};
use crate::silence;

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
            Question::Find(address, within) => self.found(networks, address, |joined| {
                joined.wait_peer(address, within.min(STEP)).map(|()| true)
            }),
            Question::Path { address, begins } => {
                self.found(networks, address, |joined| joined.continue_check(address, STEP, begins))
            }
            Question::Advice(address) => {
                let network = self.network_of(networks, address).map(|(network, _)| network);
                let advice = network.map(|it| reach::what_to_check(&self.node, it, &self.named, address));
                Answer::Advice(advice.unwrap_or_default())
            }
            Question::Heard(addresses) => Answer::Heard(self.heard(networks, &addresses)),
            Question::Member(address) => {
                let ids = networks.iter().map(Network::id).collect::<Vec<_>>();
                let handle = NodeHandle::of(&self.node).within(&ids);
                Answer::Member(handle.member_at(address).map(|id| id.to_string()))
            }
            Question::Ready(id, within) => Answer::Ready(self.ready(networks, &id, within)),
            Question::Nickname { nickname, port, within } => {
                let claim = |nickname| self.node.nickname(&nickname, port, within.min(STEP));
                let claimed = parsed(&nickname).and_then(|nickname| Ok(claim(nickname)?.to_string()));
                Answer::Nickname(claimed)
            }
            Question::Nicknamed { text, within } => {
                let find = |text| self.node.find_nickname(&text, within.min(STEP));
                let found = parsed(&text).and_then(|text| Ok(find(text)?));
                Answer::Nicknamed(found.map(|found| (found.identity.node_id().to_string(), found.port)))
            }
            Question::Release(nickname) => {
                let release = |nickname| self.node.release_nickname(&nickname);
                Answer::Released(parsed(&nickname).is_ok_and(release))
            }
        }
    }

    /// Searches for a time; `search` returns false if there is no result yet.
    fn found(
        &self,
        networks: &[Network],
        address: IpAddr,
        search: impl FnOnce(&Joined) -> io::Result<bool>,
    ) -> Answer {
        let found = match self.network_of(networks, address) {
            Some((_, joined)) => search(&joined),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        match found {
            Ok(true) => Answer::Found(0),
            Ok(false) => Answer::InDoubt,
            Err(error) => Answer::Found(errno(&error).raw_os_error()),
        }
    }

    /// Waits until the node is a member of a program's network.
    fn ready(&self, networks: &[Network], id: &str, within: Duration) -> Result<Vec<IpAddr>, (i32, String)> {
        let of_program = networks.iter().find(|network| network.id().to_string() == id);
        let joined = of_program.and_then(|network| self.node.network(network.id()));
        let ready = joined.ok_or(io::ErrorKind::NetworkDown.into()).and_then(|joined| {
            joined.wait_ready(within.min(STEP))?;
            Ok(joined.addresses())
        });
        ready.map_err(|error: io::Error| (errno(&error).raw_os_error(), error.to_string()))
    }

    /// Returns the time since the last packet of each member, which may be this node itself.
    fn heard(&self, networks: &[Network], addresses: &[IpAddr]) -> Vec<(IpAddr, Duration)> {
        // Listing the members of a network costs more than an address.
        let mut ages = BTreeMap::new();
        let heard = |address: &IpAddr| {
            let (network, joined) = self.network_of(networks, *address)?;
            let of_network = ages.entry(network.id()).or_insert_with(|| {
                let own = joined.addresses().into_iter().map(|own| (own, Duration::ZERO));
                own.chain(silence::ages(&joined.peers())).collect::<HashMap<_, _>>()
            });
            Some((*address, *of_network.get(address)?))
        };
        addresses.iter().filter_map(heard).collect()
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

/// Reads a nickname of a program.
fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, NicknameRefusal> {
    let refused =
        |error: T::Err| NicknameRefusal { errno: Errno::INVAL.raw_os_error(), text: error.to_string() };
    text.parse().map_err(refused)
}

fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        _ if error.raw_os_error().is_some() => Errno::from_io_error(error).unwrap_or(Errno::IO),
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => Errno::TIMEDOUT,
        io::ErrorKind::AddrNotAvailable => Errno::ADDRNOTAVAIL,
        io::ErrorKind::NetworkDown => Errno::NETDOWN,
        io::ErrorKind::PermissionDenied => Errno::ACCESS,
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use peersock::{IdentitySource, Interfaces};

    use super::*;

    #[test]
    fn answers_come_soon_whatever_is_asked_for() {
        let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let node = node.start().unwrap();
        let network = Network::ad_hoc("ff0001ffff000000".parse().unwrap());
        let joined = node.join(network.clone()).unwrap();
        let about = About::new(&node, &NamedServers::default());
        let networks = [network];
        let own = IpAddr::from(joined.address());
        let mut silent = joined.address().octets();
        silent[15] ^= 1;
        let (silent, foreign) = (IpAddr::from(silent), IpAddr::from([192, 0, 2, 1]));

        let found = |address, within| about.answer(&networks, Question::Find(address, within));
        assert_eq!(found(own, Duration::MAX), Answer::Found(0));
        assert_eq!(found(foreign, Duration::MAX), Answer::Found(Errno::ADDRNOTAVAIL.raw_os_error()));
        let begun = Instant::now();
        assert_eq!(found(silent, Duration::from_secs(3600)), Answer::Found(Errno::TIMEDOUT.raw_os_error()));
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        for (address, answer) in [(own, 0), (silent, 0), (foreign, Errno::ADDRNOTAVAIL.raw_os_error())] {
            let asked = about.answer(&networks, Question::Path { address, begins: true });
            assert_eq!(asked, Answer::Found(answer), "{address}");
        }
        let begun = Instant::now();
        let within = Duration::from_secs(3600);
        let claim = Question::Nickname { nickname: "alice".to_owned(), port: 7, within };
        let Answer::Nickname(Err(refused)) = about.answer(&networks, claim) else {
            panic!("a node without roots claims no nickname")
        };
        assert_eq!(refused.errno, Errno::TIMEDOUT.raw_os_error());
        let wrong = Question::Nicknamed { text: "two words".to_owned(), within };
        let Answer::Nicknamed(Err(refused)) = about.answer(&networks, wrong) else {
            panic!("it is no nickname")
        };
        assert_eq!(refused.errno, Errno::INVAL.raw_os_error());
        let release = |nickname: &str| about.answer(&networks, Question::Release(nickname.to_owned()));
        assert_eq!(release("alice"), Answer::Released(true));
        assert_eq!(release("alice"), Answer::Released(false));
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        let heard = about.answer(&networks, Question::Heard(vec![silent, own, foreign]));
        assert_eq!(heard, Answer::Heard(vec![(own, Duration::ZERO)]));
    }
}
