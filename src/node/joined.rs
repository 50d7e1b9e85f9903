//! Network that a node has joined.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use peersock_overlay::{Lookup, NetworkId, NodeId, SizeState};
use peersock_stack::{Batch, Error, InterfaceId};

use super::{DeviceSender, Node, PeerStatus, Standing};
use peersock_datapath::JoinedNetwork;

/// Network that a node has joined.
///
/// ```
/// # use peersock::{IdentitySource, Interfaces, Network, Node};
/// # let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
/// let node = builder.start()?;
/// let network = node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
/// assert_eq!(network.allowed_ports(), 80..=80);
/// assert!(network.addresses().contains(&network.address().into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Joined {
    node: Node,
    network: JoinedNetwork,
}

impl Joined {
    pub(super) fn new(node: Node, network: JoinedNetwork) -> Joined {
        Joined { node, network }
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// Returns the network's interface in the stack.
    pub(super) fn interface(&self) -> InterfaceId {
        self.network.interface
    }

    /// Returns the network's handle in the overlay.
    pub(super) fn index(&self) -> peersock_overlay::NetworkIndex {
        self.network.index
    }

    /// Returns the network's ID.
    pub fn id(&self) -> NetworkId {
        self.network.id
    }

    /// Returns this node's self-certifying address: no other node can have it.
    pub fn address(&self) -> Ipv6Addr {
        self.id().address_of(&self.node.id())
    }

    /// Returns all addresses of this node in the network, the self-certifying one first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        // In a managed network they change when a controller admits the node.
        let now = self.node.inner.driver.datapath.network(self.id());
        now.map_or_else(|| self.network.addresses.clone(), |now| now.addresses)
    }

    /// Returns the TCP and UDP ports on which services may be offered and reached in this network.
    pub fn allowed_ports(&self) -> RangeInclusive<u16> {
        self.network.ports.clone()
    }

    /// Returns the prefixes of addresses that are reached over the network.
    pub fn routes(&self) -> Vec<(IpAddr, u8)> {
        self.network.routes.iter().map(|route| (route.address(), route.prefix())).collect()
    }

    /// Returns a sender for packets of the device that the network was joined for ([`Node::join_device`]);
    /// `None` if it was joined for sockets.
    pub fn device_sender(&self) -> Option<DeviceSender> {
        DeviceSender::new(&self.node, &self.network)
    }

    /// Waits until the node has its addresses in the network and can open sockets.
    ///
    /// A network is ready as soon as it is joined, unless a controller has to admit this node first.
    ///
    /// # Errors
    /// Returns `TimedOut` after `timeout`, `PermissionDenied` as soon as a controller refuses the node,
    /// `NetworkDown` if the network was left.
    pub fn wait_ready(&self, timeout: Duration) -> io::Result<()> {
        self.check_joined()?;
        let standing = self.wait_standing(timeout, |_| (), Standing::is_decided)?;
        let kind = match &standing {
            Standing::Member => return Ok(()),
            other if other.is_decided() => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::TimedOut,
        };
        Err(io::Error::new(kind, format!("network {}: {standing}", self.id())))
    }

    /// Waits like [`Joined::wait_ready`], on any executor.
    ///
    /// # Errors
    /// Returns `NetworkDown` if the network was left.
    pub async fn ready(&self) -> io::Result<()> {
        self.check_joined()?;
        let Some(shared) = self.shared() else { return Ok(()) };
        std::future::poll_fn(|cx| match shared.poll_member(cx.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        self.check_joined()
    }

    /// Waits until there is a session with the member that has `address`.
    ///
    /// # Errors
    /// Returns `TimedOut` after `timeout`, `AddrNotAvailable` if no member can have this address,
    /// `PermissionDenied` once the network's controller has removed this node, `NetworkDown` if the network
    /// was left or the node shut down.
    pub fn wait_peer(&self, address: IpAddr, timeout: Duration) -> io::Result<()> {
        // A timeout beyond the clock's range means no deadline.
        let deadline = Instant::now().checked_add(timeout);
        let datapath = &self.node.inner.driver.datapath;
        // Before the look-up, so that no event in between is missed.
        let events = datapath.subscribe();
        loop {
            self.check_joined()?;
            self.check_not_removed()?;
            let now = Instant::now();
            match datapath.find(now, &self.network, address) {
                Lookup::Local => return Ok(()),
                Lookup::Peer(peer) if peer.sender().is_some() => return Ok(()),
                Lookup::Peer(_) | Lookup::Unknown => {}
                // `NoRoute`; any variant that a later overlay may add fails here, too.
                _ => {
                    let message = format!("no member of network {} can have address {address}", self.id());
                    return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
                }
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
            if left.is_zero() {
                let message = format!("no answer from {address} in network {}", self.id());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            // Each call asks the local networks again, because a request may get lost.
            datapath.want_peer(now, &self.network, address, &mut Batch::default());
            let _ = events.next_timeout(left.min(SOLICIT));
        }
    }

    /// Checks that the path to a member carries datagrams at all, because short packets may pass while longer
    /// ones are silently lost. Returns as soon as the result is known, or after `timeout` without an answer.
    /// A silent member is no error here.
    ///
    /// # Errors
    /// Returns EMSGSIZE if the path carries less than any datagram of a node needs, IP packets of 246 bytes.
    pub fn check_path(&self, address: IpAddr, timeout: Duration) -> io::Result<()> {
        self.continue_check(address, timeout, true).map(drop)
    }

    /// Does a [check](Self::check_path) in parts, of which the first one `begins` it. Returns false if the
    /// result is not known after `timeout`.
    ///
    /// # Errors
    /// As of [`check_path`](Self::check_path).
    pub fn continue_check(&self, address: IpAddr, timeout: Duration, begins: bool) -> io::Result<bool> {
        let deadline = Instant::now().checked_add(timeout);
        // Each confirmation costs a probe, so only the first look requests one.
        let mut confirm = begins;
        loop {
            let now = Instant::now();
            let state = self.node.inner.driver.datapath.size_state(now, &self.network, address, confirm);
            match state {
                Some(SizeState::TooSmall) => return Err(Error::MessageSize.into()),
                Some(SizeState::Doubted) if deadline.is_none_or(|deadline| now < deadline) => {}
                state => return Ok(state != Some(SizeState::Doubted)),
            }
            confirm = false;
            thread::sleep(PATH_POLL_INTERVAL);
        }
    }

    /// Begins a handshake with a member, or asks for a sign of one that has a session.
    pub(super) fn ask(&self, address: IpAddr) {
        let (now, datapath) = (Instant::now(), &self.node.inner.driver.datapath);
        let _ = datapath.size_state(now, &self.network, address, true);
        datapath.want_peer(now, &self.network, address, &mut Batch::default());
    }

    /// Returns the members known now, without this node.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.node.peers().into_iter().filter(|peer| peer.network == self.id()).collect()
    }

    /// Returns the member that has `address`, as far as this node knows; none for its own addresses. Costs
    /// one look-up, however many members the network has.
    pub fn peer_at(&self, address: IpAddr) -> Option<NodeId> {
        match self.node.inner.driver.datapath.find(Instant::now(), &self.network, address) {
            Lookup::Peer(peer) => Some(*peer.id()),
            _ => None,
        }
    }

    /// Leaves the network. Returns false if that was done before.
    pub fn leave(&self) -> bool {
        self.node.leave(self.id())
    }

    pub(super) fn check_joined(&self) -> io::Result<()> {
        self.node.inner.check_up()?;
        if self.node.network(self.id()).is_none() {
            let message = format!("network {} was left", self.id());
            return Err(io::Error::new(io::ErrorKind::NetworkDown, message));
        }
        Ok(())
    }
}

/// Interval of the checks for a path's state.
const PATH_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Interval at which a wait for a peer searches for it again on the local networks.
const SOLICIT: Duration = Duration::from_secs(1);
