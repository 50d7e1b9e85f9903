//! UDP ASSOCIATE: datagrams between the client and any target (RFC 1928, 7).
//!
//! An association lives as long as the connection that requested it. Datagrams are accepted only from the
//! client's address, and answers only from addresses to which the client has sent.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_streams::socks::{DatagramHeader, Reply};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::send;
use crate::datagrams::Datagrams;
use crate::gate::Route;
use crate::overlay::Overlay;
use crate::proxy::{Client, Shared};
use crate::stream::Link;
use crate::target::{Host, Target};

/// Limit of addresses whose answers an association accepts. Beyond it the oldest one is forgotten.
const MAX_PEERS: usize = 1024;

/// Limit of names whose addresses an association keeps, and their lifetime.
const MAX_NAMES: usize = 64;
const NAME_LASTS: Duration = Duration::from_secs(60);

/// Timeout of the system's resolver.
const RESOLVE: Duration = Duration::from_secs(5);

/// Serves an association to its end. If it is refused, returns the client's link with the reply to send.
pub(super) async fn serve(mut client: Client, target: &Target, shared: &Shared) -> Result<(), (Link, Reply)> {
    let (Some(peer), Some(local)) = (client.peer, client.local) else {
        // A client at a Unix domain socket has no address to send from.
        return Err((client.link, Reply::COMMAND_NOT_SUPPORTED));
    };
    let Some(_slot) = shared.associations.take(client.owner) else {
        return Err((client.link, Reply::FAILURE));
    };
    let inner = match bind(client.is_overlay, local.ip(), shared).await {
        Ok(inner) => Arc::new(inner),
        Err(_) => return Err((client.link, Reply::FAILURE)),
    };
    let Ok(bound) = inner.local_addr() else { return Err((client.link, Reply::FAILURE)) };
    if send(&mut client.link, &Reply::SUCCEEDED.emit(bound)).await.is_err() {
        return Ok(());
    }
    let mut association = Association {
        shared,
        from: peer.ip().to_canonical(),
        client: expected_port(target, peer).map(|port| SocketAddr::new(peer.ip(), port)),
        inner,
        outer: HashMap::new(),
        answers: JoinSet::new(),
        peers: Arc::default(),
        names: HashMap::new(),
    };
    tokio::select! {
        () = association.run() => {}
        () = ended(&mut client.link) => {}
        () = shared.stop.draining() => {}
    }
    // Close in an orderly way, because no data could be incomplete.
    let _ = client.link.shutdown().await;
    Ok(())
}

/// Binds a socket on the client's side, at the address to which the client has connected.
async fn bind(is_overlay: bool, local: IpAddr, shared: &Shared) -> io::Result<Datagrams> {
    Ok(match is_overlay {
        true => overlay_socket(shared.gate.overlay(), local).await?,
        false => Datagrams::System(tokio::net::UdpSocket::bind((local, 0)).await?),
    })
}

/// Binds a socket at a local address to which members may send; fails if all such ports are in use.
async fn overlay_socket(overlay: &Overlay, local: IpAddr) -> io::Result<Datagrams> {
    let socket = overlay.bind((local, 0).into()).await?;
    match overlay.check_port(socket.local_addr()?.port()) {
        Err(refusal) => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, refusal)),
        Ok(()) => Ok(socket),
    }
}

/// Returns the port from which the client says it will send, if that refers to its own address.
fn expected_port(said: &Target, peer: SocketAddr) -> Option<u16> {
    let is_own = match &said.host {
        Host::Ip(ip) => ip.is_unspecified() || *ip == peer.ip().to_canonical(),
        Host::Name(_) => false,
    };
    Some(said.port).filter(|port| is_own && *port != 0)
}

/// Waits for the end of the connection. Data on it is ignored.
async fn ended(link: &mut Link) {
    while link.fill().await.unwrap_or(false) {
        let count = link.early().len();
        link.consume(count);
    }
}

struct Association<'a> {
    shared: &'a Shared,
    /// The client's address; datagrams from other addresses are dropped.
    from: IpAddr,
    /// The client's endpoint, once its port is known.
    client: Option<SocketAddr>,
    inner: Arc<Datagrams>,
    /// Sockets to the targets, by two flags: over the overlay, and IPv4.
    outer: HashMap<(bool, bool), Arc<Datagrams>>,
    answers: JoinSet<()>,
    peers: Arc<Mutex<Peers>>,
    names: HashMap<Target, (Instant, SocketAddr)>,
}

impl Association<'_> {
    /// Forwards the client's datagrams.
    async fn run(&mut self) {
        while let Ok((datagram, source)) = self.inner.receive().await {
            let is_client = match self.client {
                Some(client) => client.port() == source.port(),
                None => true,
            };
            if source.ip().to_canonical() != self.from || !is_client {
                continue;
            }
            // Fragments are refused, as RFC 1928 allows, because clients do not use them.
            let header = DatagramHeader::parse(&datagram).ok().filter(|header| header.fragment == 0);
            let Some(header) = header else { continue };
            let target = Target::of_socks(&header.address).filter(|target| target.port != 0);
            let Some(target) = target else { continue };
            // Learn the port from a valid datagram, so that an earlier stray one does not lock the client
            // out.
            self.client = Some(source);
            if let Some((is_overlay, to)) = self.place(&target).await
                && let Some(socket) = self.socket(is_overlay, to.ip(), source).await
            {
                self.peers.lock().expect("no panic under this lock").add(to.ip());
                socket.send_to(&datagram[header.length..], to).await;
            }
        }
    }

    /// Returns the endpoint of a target, if it may be reached.
    async fn place(&mut self, target: &Target) -> Option<(bool, SocketAddr)> {
        match self.shared.gate.route(target) {
            Ok(Route::Overlay(addresses)) => Some((true, *addresses.first()?)),
            Ok(Route::System) => {
                let place = self.resolve(target).await?;
                // A DNS name may have an address of the overlay.
                Some((self.shared.gate.overlay().contains(place.ip()), place))
            }
            Err(error) => {
                tracing::debug!(%error, "a datagram is not passed on");
                None
            }
        }
    }

    async fn resolve(&mut self, target: &Target) -> Option<SocketAddr> {
        if let Host::Ip(ip) = target.host {
            return Some((ip, target.port).into());
        }
        if let Some((since, place)) = self.names.get(target)
            && since.elapsed() < NAME_LASTS
        {
            return Some(*place);
        }
        let place = *timeout(RESOLVE, target.resolve()).await.ok()?.ok()?.first()?;
        if self.names.len() >= MAX_NAMES {
            self.names.clear();
        }
        self.names.insert(target.clone(), (Instant::now(), place));
        Some(place)
    }

    /// Returns the socket for targets of this kind; a new one gets a task that forwards its answers to the
    /// client.
    async fn socket(&mut self, is_overlay: bool, to: IpAddr, client: SocketAddr) -> Option<Arc<Datagrams>> {
        let kind = (is_overlay, to.is_ipv4());
        if let Some(socket) = self.outer.get(&kind) {
            return Some(Arc::clone(socket));
        }
        let socket = Arc::new(self.shared.gate.datagrams(is_overlay, to).await.ok()?);
        self.outer.insert(kind, Arc::clone(&socket));
        let (outer, inner, peers) = (Arc::clone(&socket), Arc::clone(&self.inner), Arc::clone(&self.peers));
        self.answers.spawn(async move {
            while let Ok((datagram, source)) = outer.receive().await {
                if peers.lock().expect("no panic under this lock").have(source.ip()) {
                    let mut message = DatagramHeader::emit(source);
                    message.extend_from_slice(&datagram);
                    inner.send_to(&message, client).await;
                }
            }
        });
        Some(socket)
    }
}

/// Addresses to which the client has sent.
#[derive(Default)]
struct Peers {
    known: std::collections::HashSet<IpAddr>,
    order: VecDeque<IpAddr>,
}

impl Peers {
    fn add(&mut self, ip: IpAddr) {
        let ip = ip.to_canonical();
        if self.known.insert(ip) {
            self.order.push_back(ip);
            if self.order.len() > MAX_PEERS
                && let Some(first) = self.order.pop_front()
            {
                self.known.remove(&first);
            }
        }
    }

    fn have(&self, ip: IpAddr) -> bool {
        self.known.contains(&ip.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_tells_the_port_of_its_own_address_only() {
        let peer = "127.0.0.1:5".parse().unwrap();
        for (said, port) in [
            ("0.0.0.0:0", None),
            ("0.0.0.0:7", Some(7)),
            ("127.0.0.1:7", Some(7)),
            ("[::ffff:127.0.0.1]:7", Some(7)),
            ("192.0.2.1:7", None),
            ("alpha:7", None),
        ] {
            assert_eq!(expected_port(&Target::parse(said).unwrap(), peer), port, "{said}");
        }
    }

    #[tokio::test]
    async fn a_client_on_the_overlay_is_given_a_port_that_its_network_allows() {
        let node = peersock::Node::builder().identity(peersock::IdentitySource::Ephemeral);
        let node = node.interfaces(peersock::Interfaces::Loopback).start().unwrap();
        let network = peersock::Network::ad_hoc("ff13881393000000".parse().unwrap());
        let own = node.join(network).unwrap().address().into();
        let mut sockets = Vec::new();
        for _ in 5000..=5011 {
            let socket = overlay_socket(&(&node).into(), own).await.unwrap();
            assert!((5000..=5011).contains(&socket.local_addr().unwrap().port()), "{socket:?}");
            sockets.push(socket);
        }
        let none_left = overlay_socket(&(&node).into(), own).await.unwrap_err();
        assert_eq!(none_left.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn the_first_of_many_peers_is_forgotten() {
        let mut peers = Peers::default();
        let ip = |number: usize| IpAddr::from((number as u128).to_be_bytes());
        (0..=MAX_PEERS).for_each(|number| peers.add(ip(number + 16)));
        peers.add(ip(MAX_PEERS + 16));
        assert!(!peers.have(ip(16)) && peers.have(ip(17)) && peers.have(ip(MAX_PEERS + 16)));
        assert_eq!((peers.order.len(), peers.known.len()), (MAX_PEERS, MAX_PEERS));
    }
}
