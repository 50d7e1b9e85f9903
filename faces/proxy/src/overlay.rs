//! The node over which members are reached: one in this process, or the one that programs share.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use peersock::attach::NodeHandle;
use peersock::overlay::NodeId;
use peersock::{Event, Events, Joined, Node, Status};
use peersock_attached::{Member, tokio as attached};
use tokio::sync::mpsc;

use crate::connection::Connection;
use crate::datagrams::Datagrams;
use crate::listener::Listener;

/// Limit of events that wait for a reader; further ones are dropped.
const MAX_EVENTS: usize = 1024;

/// A node with its networks. Clones are the same.
#[derive(Debug, Clone)]
pub enum Overlay {
    /// A node in this process.
    Own(Node),
    /// This program's place at the node that programs share.
    Shared(Member),
}

impl From<&Node> for Overlay {
    fn from(node: &Node) -> Overlay {
        Overlay::Own(node.clone())
    }
}

impl From<&Member> for Overlay {
    fn from(member: &Member) -> Overlay {
        Overlay::Shared(member.clone())
    }
}

impl Overlay {
    /// Returns the node, if it is in this process.
    pub(crate) fn own(&self) -> Option<&Node> {
        match self {
            Overlay::Own(node) => Some(node),
            Overlay::Shared(_) => None,
        }
    }

    /// Fails once the node has ended.
    ///
    /// # Errors
    /// `NetworkDown`.
    pub fn check_up(&self) -> io::Result<()> {
        match self {
            Overlay::Own(node) => NodeHandle::of(node).check_up(),
            Overlay::Shared(member) => member.check_up(),
        }
    }

    /// Returns true if an address belongs to one of the networks. Loopback never does.
    pub fn contains(&self, address: IpAddr) -> bool {
        let leads = || match self {
            Overlay::Own(node) => {
                let networks = NodeHandle::of(node).datapath().networks();
                networks.iter().any(|network| network.routes.iter().any(|route| route.contains(address)))
            }
            Overlay::Shared(member) => member.routes().iter().any(|route| route.contains(address)),
        };
        !address.is_loopback() && leads()
    }

    /// Returns the addresses of the member with a name; none if the name may be another host's.
    ///
    /// # Errors
    /// `NotFound` if the name ends with a network's, and no member has it; `NetworkDown` if the shared node
    /// has ended.
    pub fn addresses_named(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            Overlay::Own(node) => attached::in_place(|| NodeHandle::of(node).resolve(name)),
            Overlay::Shared(member) => attached::in_place(|| member.addresses_named(name)),
        }
    }

    /// Returns the node's own addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Overlay::Own(node) => node.networks().iter().flat_map(Joined::addresses).collect(),
            Overlay::Shared(member) => member.addresses(),
        }
    }

    /// Returns the node's address as a peer sees it.
    pub(crate) fn address_for(&self, peer: IpAddr) -> Option<IpAddr> {
        let addresses = match self {
            Overlay::Own(node) => {
                let networks = node.networks();
                let with_peer = networks.iter().find(|network| network.peer_at(peer).is_some());
                with_peer.or(networks.first())?.addresses()
            }
            Overlay::Shared(member) => member.addresses(),
        };
        let is_v4 = peer.is_ipv4() && !peer.is_unspecified();
        addresses.into_iter().find(|own| own.is_ipv4() == is_v4)
    }

    /// Returns the member with an address.
    pub(crate) fn member_at(&self, address: IpAddr) -> Option<NodeId> {
        match self {
            Overlay::Own(node) => NodeHandle::of(node).member_at(address),
            Overlay::Shared(member) => {
                attached::in_place(|| member.attached().member_at(address))?.parse().ok()
            }
        }
    }

    /// Returns the ports that the first network allows.
    pub fn allowed_ports(&self) -> Option<RangeInclusive<u16>> {
        match self {
            Overlay::Own(node) => node.networks().first().map(Joined::allowed_ports),
            Overlay::Shared(member) => {
                let (first, last) = member.attached().networks().first()?.ports;
                Some(first..=last)
            }
        }
    }

    /// Returns the state of the node; of a shared one, with the networks of this program alone.
    ///
    /// # Errors
    /// `NetworkDown` if the shared node has ended.
    pub fn status(&self) -> io::Result<Status> {
        match self {
            Overlay::Own(node) => Ok(node.status()),
            Overlay::Shared(member) => attached::in_place(|| member.attached().read_status()),
        }
    }

    /// Returns the future events of the node; of a shared one, about the networks of this program alone.
    ///
    /// # Errors
    /// `NetworkDown` if the shared node has ended.
    pub fn events(&self) -> io::Result<OverlayEvents> {
        match self {
            Overlay::Own(node) => Ok(OverlayEvents::Own(node.events())),
            Overlay::Shared(member) => {
                let (sender, receiver) = mpsc::channel(MAX_EVENTS);
                let take = move |event: &Event| {
                    let sent = sender.try_send(event.clone());
                    !matches!(sent, Err(mpsc::error::TrySendError::Closed(_)))
                };
                attached::in_place(|| member.attached().subscribe(take))?;
                Ok(OverlayEvents::Shared(receiver))
            }
        }
    }

    /// Checks that members can reach a service at a port.
    ///
    /// # Errors
    /// `PermissionDenied` if no network allows it; `NetworkDown` if the shared node has ended.
    pub fn check_port(&self, port: u16) -> io::Result<()> {
        match self {
            Overlay::Own(node) => match node.port_refusal(port) {
                Some(refusal) => Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal)),
                None => Ok(()),
            },
            Overlay::Shared(member) => attached::in_place(|| member.check_port(port)),
        }
    }

    /// Connects to the first of these addresses that accepts. Also returns the local address.
    ///
    /// # Errors
    /// Errors of connect(2) to the last address, `NetworkDown`.
    pub async fn connect(&self, addresses: &[SocketAddr]) -> io::Result<(Connection, SocketAddr)> {
        match self {
            Overlay::Own(node) => {
                let stream = peersock::TcpStream::connect_on(node, addresses).await?;
                let local = stream.local_addr()?;
                Ok((Connection::Own(stream), local))
            }
            Overlay::Shared(member) => {
                let stream = attached::TcpStream::connect(member, addresses).await?;
                // It may have ended already, of which reading tells.
                let peer = stream.get_ref().peer_addr();
                let local = attached::in_place(|| stream.get_ref().local_addr());
                let local = local.unwrap_or(unspecified(peer.ip()));
                Ok((Connection::Shared(stream), local))
            }
        }
    }

    /// Listens at an address of the node.
    ///
    /// # Errors
    /// Errors of bind(2) and listen(2), `NetworkDown`.
    pub async fn listen(&self, local: SocketAddr) -> io::Result<Listener> {
        match self {
            Overlay::Own(node) => peersock::TcpListener::bind_on(node, local).await.map(Listener::Overlay),
            Overlay::Shared(member) => attached::TcpListener::bind(member, local).map(Listener::Shared),
        }
    }

    /// Binds a socket for datagrams to an address of the node.
    ///
    /// # Errors
    /// Errors of bind(2), `NetworkDown`.
    pub async fn bind(&self, local: SocketAddr) -> io::Result<Datagrams> {
        match self {
            Overlay::Own(node) => peersock::UdpSocket::bind_on(node, local).await.map(Datagrams::Overlay),
            Overlay::Shared(member) => attached::UdpSocket::bind(member, local).map(Datagrams::Shared),
        }
    }

    /// Makes a socket for datagrams to addresses of the family of `like`.
    ///
    /// # Errors
    /// `AddrNotAvailable` if the node has no such address, `NetworkDown`.
    pub async fn client(&self, like: IpAddr) -> io::Result<Datagrams> {
        match self {
            Overlay::Own(node) => peersock::UdpSocket::client_on(node, like).await.map(Datagrams::Overlay),
            Overlay::Shared(member) => attached::UdpSocket::client(member, like).map(Datagrams::Shared),
        }
    }
}

/// Returns the unspecified address of the same family, with port 0.
pub(crate) fn unspecified(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Events of a node.
#[derive(Debug)]
pub enum OverlayEvents {
    /// Of a node in this process.
    Own(Events),
    /// Of the node that programs share.
    Shared(mpsc::Receiver<Event>),
}

impl OverlayEvents {
    /// Waits for the next event; `None` once the shared node has ended.
    pub async fn next(&mut self) -> Option<Event> {
        match self {
            OverlayEvents::Own(events) => Some(events.recv().await),
            OverlayEvents::Shared(events) => events.recv().await,
        }
    }

    /// Returns true if no event comes any more.
    pub fn is_over(&self) -> bool {
        match self {
            OverlayEvents::Own(events) => events.is_over(),
            OverlayEvents::Shared(events) => events.is_closed() && events.is_empty(),
        }
    }
}
