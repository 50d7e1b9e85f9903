//! A command as a member of a network: by the node that programs share, or by its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use peersock::attach::NodeHandle;
use peersock::blocking::{TcpListener, TcpStream, UdpSocket};
use peersock::{Network, Status};
use peersock_proxy::Overlay;
use peersock_proxy::serving::Owner;

use crate::args::{NetworkArgs, SharedNodeArgs, managed_state, managed_target, parse_targets};
use crate::failure::{Failure, Outcome};
use crate::names::Named;
use crate::root_watch::RootWatch;
use crate::session::{self, Session};
use crate::shared::Shared;
use crate::silence::Heard;
use crate::sockets::{Datagrams, Listener, Stream};
use crate::{managed, names, path, reach, signals, waiting};

/// Time for which a shared node searches a name for one request.
const SEARCH: Duration = Duration::from_secs(1);

/// This command's place in a network.
pub(crate) enum Member {
    Own(Session, RootWatch),
    Shared(Shared),
}

impl Member {
    /// Attaches to the node that is shared in the state directory, or starts one. Ctrl-C ends both properly,
    /// after `farewell`. `command` is the name for other users of the node.
    pub(crate) fn open_until(
        command: &str,
        node: &SharedNodeArgs,
        network: &NetworkArgs,
        farewell: impl FnOnce() + Send + 'static,
    ) -> Outcome<Member> {
        let network = network.resolve_for(node, &node.state)?;
        Member::open_in_until(command, node, network, farewell)
    }

    /// Opens a membership of a network that is known already; see [`open_until`](Self::open_until).
    pub(crate) fn open_in_until(
        command: &str,
        node: &SharedNodeArgs,
        network: Network,
        farewell: impl FnOnce() + Send + 'static,
    ) -> Outcome<Member> {
        Member::open_in_within(command, node, network, Duration::MAX, farewell)
    }

    /// Opens a membership, and waits until the member of a target is found: `NAME:PORT`, `[IPV6]:PORT` or
    /// `IPV4:PORT`. Returns its addresses, at least one. On Ctrl-C, `farewell` runs first.
    pub(crate) fn open_to(
        command: &str,
        node: &SharedNodeArgs,
        network: Network,
        target: &str,
        (within, quiet): (Duration, bool),
        farewell: impl FnOnce() + Send + 'static,
    ) -> Outcome<(Member, Vec<SocketAddr>)> {
        // A mistake in the target starts no node, which its peers would then miss.
        if let Some((name, port)) = managed_target(&network, target) {
            session::check_port(&network, port)?;
            let member = Member::open_in_within(command, node, network, within, farewell)?;
            let found = member.find_named(&name, within)?;
            let targets: Vec<_> = found.into_iter().map(|address| SocketAddr::new(address, port)).collect();
            member.wait_peer(targets[0].ip(), within, quiet)?;
            return Ok((member, targets));
        }
        let targets = parse_targets(&network, target)?;
        session::check_port(&network, targets[0].port())?;
        session::check_address(&network, targets[0].ip())?;
        let member = Member::open_in_within(command, node, network, within, farewell)?;
        member.wait_peer(targets[0].ip(), within, quiet)?;
        Ok((member, targets))
    }

    /// Waits no longer than `within` for an earlier node that ends.
    fn open_in_within(
        command: &str,
        node: &SharedNodeArgs,
        network: Network,
        within: Duration,
        farewell: impl FnOnce() + Send + 'static,
    ) -> Outcome<Member> {
        if let Some(shared) = Shared::attach(command, node, &network, within)? {
            shared.end_on_signals(farewell)?;
            return Ok(Member::Shared(shared));
        }
        Member::open_own(node, network, farewell)
    }

    /// Starts a node of this process alone.
    fn open_own(
        node: &SharedNodeArgs,
        network: Network,
        farewell: impl FnOnce() + Send + 'static,
    ) -> Outcome<Member> {
        let networks = [network.clone()];
        let prepare = |builder| node.beside(builder, &networks);
        let session = Session::open_in(node, network, prepare, |signal, _| {
            farewell();
            128 + signal
        })?;
        let roots = session.watch_roots()?;
        Ok(Member::Own(session, roots))
    }

    pub(crate) fn network(&self) -> &Network {
        match self {
            Member::Own(session, _) => &session.network,
            Member::Shared(shared) => &shared.network,
        }
    }

    /// Returns the addresses in the network, the self-certifying one first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Member::Own(session, _) => session.joined.addresses(),
            Member::Shared(shared) => shared.member.addresses(),
        }
    }

    /// Returns the address of the same family as another one.
    pub(crate) fn address_like(&self, other: IpAddr) -> IpAddr {
        let own = self.addresses();
        own.iter().find(|own| own.is_ipv4() == other.is_ipv4()).copied().unwrap_or(own[0])
    }

    /// Checks that a member of the network can have an address.
    pub(crate) fn check_address(&self, address: IpAddr) -> Outcome {
        let found = match self {
            Member::Own(session, _) => session.joined.wait_peer(address, Duration::ZERO),
            Member::Shared(shared) => shared.member.attached().find(address, Duration::ZERO),
        };
        match found {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Err(reach::no_such_member(self.network().id(), self.network().summary().by_file, address))
            }
            _ => Ok(()),
        }
    }

    /// Returns the way of the packets to a member; `None` without a session.
    pub(crate) fn way_to(&self, address: IpAddr) -> Option<&'static str> {
        self.ways()(address)
    }

    /// Returns the function that finds the way of the packets to a member, as [`way_to`](Self::way_to) does.
    pub(crate) fn ways(&self) -> Box<dyn Fn(IpAddr) -> Option<&'static str> + Send + Sync> {
        match self {
            Member::Own(session, _) => {
                let node = session.node.clone();
                Box::new(move |address| path::way_to(&node, address))
            }
            Member::Shared(shared) => {
                let member = shared.member.clone();
                Box::new(move |address| {
                    let status = member.attached().read_status().ok()?;
                    path::way(status.peers.iter().find(|peer| peer.addresses.contains(&address))?)
                })
            }
        }
    }

    /// Returns the name of this machine in the network, if the network gives it one.
    pub(crate) fn own_name(&self) -> Option<String> {
        let id = self.network().id();
        self.status()?.networks.into_iter().find(|network| network.id == id)?.name
    }

    /// Returns the addresses of a member of a managed network, at least one.
    pub(crate) fn find_named(&self, name: &str, within: Duration) -> Outcome<Vec<IpAddr>> {
        names::find(self.network(), name, within, || match self {
            Member::Own(session, _) => Ok(names::ask(&session.node, &session.network, name)),
            Member::Shared(shared) => {
                let begun = Instant::now();
                Ok(match shared.member.addresses_named(name)? {
                    found if !found.is_empty() => Named::Found(found),
                    // It ends a search without an answer after a second, and not earlier.
                    _ if begun.elapsed() >= SEARCH => Named::Unknown,
                    _ => Named::Absent,
                })
            }
        })
    }

    /// Returns the failure of a machine that was removed from the network in place of the failure of a
    /// connection that this has ended.
    pub(crate) fn explained(&self, failure: Failure) -> Failure {
        let id = self.network().id();
        let standing = || {
            let network = self.status()?.networks.into_iter().find(|network| network.id == id)?;
            network.standing.map(String::from)
        };
        managed::explained(&managed_state(), id, failure, standing)
    }

    /// Returns the node's status; `None` if the shared node has ended.
    fn status(&self) -> Option<Status> {
        match self {
            Member::Own(session, _) => Some(session.node.status()),
            Member::Shared(shared) => shared.member.attached().read_status().ok(),
        }
    }

    /// Returns the failure for a port that the network does not allow.
    pub(crate) fn port_outside(&self, port: u16) -> Failure {
        session::port_outside(self.network(), port)
    }

    /// Waits until a peer is found and a session with it is established. Unless `quiet`, prints what it waits
    /// for if that takes long.
    pub(crate) fn wait_peer(&self, address: IpAddr, within: Duration, quiet: bool) -> Outcome {
        let shared = match self {
            Member::Own(session, _) => return session.wait_peer(address, within, quiet),
            Member::Shared(shared) => shared,
        };
        let (network, called) = (&shared.network, names::called(&shared.network, address));
        let text = format!(
            "looking for {called} in network {}, by the node that programs share, for up to {} s",
            network.id(),
            within.as_secs_f64()
        );
        let waiting = if quiet { None } else { Some(waiting::start(move || text)?) };
        let found = shared.member.attached().find(address, within);
        drop(waiting);
        let advice = || shared.member.attached().advice(address).unwrap_or_default();
        found.map_err(|error| match error.kind() {
            io::ErrorKind::NetworkDown => node_has_ended("the peer was not found"),
            _ => session::not_found(network, address, within, error, advice),
        })
    }

    pub(crate) fn connect(&self, target: SocketAddr, within: Duration) -> io::Result<Stream> {
        match self {
            Member::Own(session, _) => {
                TcpStream::connect_timeout_on(&session.node, &target, within).map(Stream::Own)
            }
            Member::Shared(shared) => {
                Stream::shared(peersock_attached::TcpStream::connect(&shared.member, target, within)?)
            }
        }
    }

    pub(crate) fn listen(&self, local: SocketAddr) -> io::Result<Listener> {
        match self {
            Member::Own(session, _) => TcpListener::bind_on(&session.node, local).map(Listener::Own),
            Member::Shared(shared) => {
                peersock_attached::TcpListener::bind(&shared.member, local).map(Listener::Shared)
            }
        }
    }

    pub(crate) fn datagrams(&self, local: SocketAddr) -> io::Result<Datagrams> {
        match self {
            Member::Own(session, _) => UdpSocket::bind_on(&session.node, local).map(Datagrams::Own),
            Member::Shared(shared) => {
                peersock_attached::UdpSocket::bind(&shared.member, local).map(Datagrams::Shared)
            }
        }
    }

    /// Returns true if the path to a peer carries datagrams, as far as known.
    pub(crate) fn carries_datagrams(&self, address: IpAddr) -> bool {
        match self {
            Member::Own(session, _) => session.joined.check_path(address, reach::CHECK).is_ok(),
            Member::Shared(shared) => {
                let checked = shared.member.attached().check_path(address);
                !checked.is_err_and(|error| reach::is_too_small(&error))
            }
        }
    }

    /// Returns the source of the times at which peers were last heard.
    pub(crate) fn heard(&self) -> Heard {
        match self {
            Member::Own(session, _) => Heard::Own(session.joined.clone()),
            Member::Shared(shared) => Heard::Shared(shared.member.clone()),
        }
    }

    /// Returns the function that finds the owner of a connection with a peer.
    pub(crate) fn owners(&self) -> Box<dyn Fn(IpAddr) -> Owner + Send + Sync> {
        match self {
            Member::Own(session, _) => {
                let handle = NodeHandle::of(&session.node);
                Box::new(move |peer| handle.member_at(peer).map_or(Owner::Address(peer), Owner::Member))
            }
            Member::Shared(shared) => {
                let member = shared.member.clone();
                Box::new(move |peer| {
                    let id = member.attached().member_at(peer).and_then(|id| id.parse().ok());
                    id.map_or(Owner::Address(peer), Owner::Member)
                })
            }
        }
    }

    /// Returns the node for a proxy.
    pub(crate) fn overlay(&self) -> Overlay {
        match self {
            Member::Own(session, _) => (&session.node).into(),
            Member::Shared(shared) => (&shared.member).into(),
        }
    }

    /// Returns the function that delivers data of closed connections, for a time at most, at the end.
    pub(crate) fn finisher(&self) -> Box<dyn Fn(Duration) + Send + Sync> {
        match self {
            Member::Own(session, _) => {
                let node = session.node.clone();
                Box::new(move |within| {
                    let _ = node.shutdown(within);
                })
            }
            Member::Shared(shared) => {
                let shared = shared.clone();
                Box::new(move |within| shared.deliver(within))
            }
        }
    }

    /// Waits until the shared node has ended; for ever if the node is this process's own.
    pub(crate) async fn lost(&self) {
        match self {
            Member::Own(..) => std::future::pending().await,
            Member::Shared(shared) => shared.lost().await,
        }
    }

    /// Warns if the network's file gives this node another port than it uses.
    pub(crate) fn warn_of_other_port(&self, asked: u16) {
        let network = self.network();
        // Its status is worth asking for only if the file says anything.
        if !network.members().iter().any(|member| !network.endpoints_of(&member.identity).is_empty()) {
            return;
        }
        if let Some(status) = self.status() {
            reach::warn_of_other_port(network, &status, asked);
        }
    }

    /// Ends the membership once all written data has arrived. On a shared node, connections have waited for
    /// that one by one, because the node cannot tell this program's data from others'.
    pub(crate) fn close(self) -> Outcome {
        match self {
            Member::Own(session, _roots) => session.close(),
            Member::Shared(shared) => {
                signals::leave_to_cleanup();
                shared.end(session::DELIVERY_TIMEOUT);
                Ok(())
            }
        }
    }
}

/// Returns the failure if the shared node has ended, or has not answered for long: `what` is the consequence.
pub(crate) fn node_has_ended(what: &str) -> Failure {
    Failure::new(
        format_args!("{what}: the node that programs share has ended, or does not answer"),
        "start the command again, and look why the node has ended or was stopped",
    )
}
