//! Listeners: on the overlay, on the system's network, at a Unix domain socket.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use peersock_attached::tokio as attached;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::activation::Activated;
use crate::connection::Connection;
use crate::datagrams::Datagrams;
use crate::overlay::Overlay;
use crate::place::Place;
use crate::stream::Link;
use crate::target::Host;

/// Limit of connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Mode of a Unix domain socket: only its owner may connect.
const MODE: u32 = 0o600;

/// A listener for connections.
#[derive(Debug)]
pub enum Listener {
    /// On the overlay.
    Overlay(peersock::TcpListener),
    /// On the overlay, by the node that programs share.
    Shared(attached::TcpListener),
    /// On the system's network.
    Tcp(TcpListener),
    /// At a path.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// The path, which is removed on drop, if this process has made it.
        _path: Option<OwnedPath>,
    },
}

/// An accepted connection.
pub(crate) struct Accepted {
    pub(crate) link: Link,
    /// Addresses of both ends; `None` at a Unix domain socket.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) is_overlay: bool,
}

impl Listener {
    /// Waits for a connection.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Listener::Overlay(_) | Listener::Shared(_) => {
                let (connection, peer) = self.accept_member().await?;
                let local = connection.local_addr().ok();
                Accepted { link: Link::new(connection), peer: Some(peer), local, is_overlay: true }
            }
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let local = stream.local_addr().ok();
                Accepted { link: Link::new(stream), peer: Some(peer), local, is_overlay: false }
            }
            Listener::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Accepted { link: Link::new(stream), peer: None, local: None, is_overlay: false }
            }
        })
    }

    /// Waits for a connection of a member. Returns it with the member's address.
    ///
    /// # Errors
    /// Errors of accept(2), `NetworkDown`; `Unsupported` if the listener is not on the overlay.
    pub async fn accept_member(&self) -> io::Result<(Connection, SocketAddr)> {
        match self {
            Listener::Overlay(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Connection::Own(stream), peer))
            }
            Listener::Shared(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Connection::Shared(stream), peer))
            }
            Listener::Tcp(_) | Listener::Unix { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Returns the listener's address.
    ///
    /// # Errors
    /// `NetworkDown`; `Unsupported` at a path.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Overlay(listener) => listener.local_addr(),
            Listener::Shared(listener) => listener.local_addr(),
            Listener::Tcp(listener) => listener.local_addr(),
            Listener::Unix { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Returns the listener's place.
    pub fn place(&self) -> Option<Place> {
        if let Listener::Unix { listener, .. } = self {
            return Some(Place::Unix(listener.local_addr().ok()?.as_pathname()?.to_owned()));
        }
        let local = self.local_addr().ok()?;
        Some(place_of(matches!(self, Listener::Overlay(_) | Listener::Shared(_)), local))
    }

    /// Returns true if programs of other machines may connect.
    pub fn is_exposed(&self) -> bool {
        match self {
            Listener::Overlay(_) | Listener::Shared(_) => true,
            Listener::Tcp(listener) => !listener.local_addr().is_ok_and(|at| at.ip().is_loopback()),
            Listener::Unix { .. } => false,
        }
    }

    /// Returns true if only this user's programs may connect: at a path that this process has made. The mode
    /// of a passed socket is unknown.
    pub fn is_own_users(&self) -> bool {
        matches!(self, Listener::Unix { _path: Some(_), .. })
    }
}

/// Returns the place with this address.
pub(crate) fn place_of(is_overlay: bool, at: SocketAddr) -> Place {
    let host = (!at.ip().is_unspecified()).then(|| Host::Ip(at.ip().to_canonical()));
    match is_overlay {
        true => Place::Overlay { host, port: at.port() },
        false => Place::System { host, port: at.port() },
    }
}

/// Listens for connections at a place, with one listener for each of its addresses.
/// # Errors
/// The errors of the system or of the overlay.
pub async fn listen(
    overlay: &Overlay,
    place: &Place,
    activated: &mut Activated,
) -> io::Result<Vec<Listener>> {
    match place {
        Place::Overlay { host, port } => {
            let mut listeners = Vec::new();
            let mut port = *port;
            for address in own_addresses(overlay, host.as_ref())? {
                let listener = overlay.listen((address, port).into()).await?;
                // If the first listener has picked a port, the others get the same.
                port = listener.local_addr()?.port();
                overlay.check_port(port)?;
                listeners.push(listener);
            }
            Ok(listeners)
        }
        Place::System { host, port } => {
            let mut listeners = Vec::new();
            let mut port = *port;
            for address in system_addresses(host.as_ref()).await? {
                let listener = TcpListener::bind((address, port)).await?;
                port = listener.local_addr()?.port();
                listeners.push(Listener::Tcp(listener));
            }
            Ok(listeners)
        }
        Place::Unix(path) => Ok(vec![listen_at_path(path).await?]),
        Place::Activated(name) => activated.listeners(name),
    }
}

/// Binds datagram sockets at a place, one for each of its addresses.
pub(crate) async fn bind(
    overlay: &Overlay,
    place: &Place,
    activated: &mut Activated,
) -> io::Result<Vec<Datagrams>> {
    let mut sockets = Vec::new();
    match place {
        Place::Overlay { host, port } => {
            let mut port = *port;
            for address in own_addresses(overlay, host.as_ref())? {
                let socket = overlay.bind((address, port).into()).await?;
                port = socket.local_addr()?.port();
                // Binding is allowed, because a client may have any port. But peers could not reach a server
                // there.
                overlay.check_port(port)?;
                sockets.push(socket);
            }
        }
        Place::System { host, port } => {
            let mut port = *port;
            for address in system_addresses(host.as_ref()).await? {
                let socket = tokio::net::UdpSocket::bind((address, port)).await?;
                port = socket.local_addr()?.port();
                sockets.push(Datagrams::System(socket));
            }
        }
        Place::Activated(name) => {
            sockets.extend(activated.datagrams(name)?.into_iter().map(Datagrams::System));
        }
        Place::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
    }
    Ok(sockets)
}

/// Returns the node's named address, or all its addresses.
fn own_addresses(overlay: &Overlay, host: Option<&Host>) -> io::Result<Vec<IpAddr>> {
    let own = overlay.addresses();
    match host {
        None if own.is_empty() => Err(io::ErrorKind::NetworkDown.into()),
        None => Ok(own),
        Some(Host::Ip(address)) => Ok(vec![*address]),
        // A name is the name of a member, which is this node or another one.
        Some(Host::Name(name)) => {
            let named = overlay.addresses_named(name)?;
            let named: Vec<_> = named.into_iter().filter(|address| own.contains(address)).collect();
            if named.is_empty() { Err(io::ErrorKind::AddrNotAvailable.into()) } else { Ok(named) }
        }
    }
}

/// Returns the addresses to listen at for a host of the system.
async fn system_addresses(host: Option<&Host>) -> io::Result<Vec<IpAddr>> {
    match host {
        Some(Host::Ip(address)) => Ok(vec![*address]),
        Some(Host::Name(name)) => {
            let found = peersock_primitives::resolve(name, 0).await?;
            let mut addresses: Vec<_> = found.iter().map(SocketAddr::ip).collect();
            addresses.sort();
            addresses.dedup();
            Ok(addresses)
        }
        // One IPv6 socket takes both families, if both exist.
        None => match std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) {
            Ok(_) => Ok(vec![Ipv6Addr::UNSPECIFIED.into()]),
            Err(_) => Ok(vec![Ipv4Addr::UNSPECIFIED.into()]),
        },
    }
}

/// Listens at a path, for this user only. Replaces a socket that is no longer served.
async fn listen_at_path(path: &Path) -> io::Result<Listener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let path = OwnedPath(std::path::absolute(path)?);
    // No program can connect before the socket listens, whatever its earlier mode.
    fs::set_permissions(&path.0, fs::Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())?;
    Ok(Listener::Unix { listener, _path: Some(path) })
}

/// A path that is removed on drop.
#[derive(Debug)]
pub struct OwnedPath(PathBuf);

impl Drop for OwnedPath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
