//! Sockets bound to a local address.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Domain, SockAddr, Socket as System, Type};
use tokio::net::{TcpListener, UdpSocket, UnixListener};

use super::dial::{of_unix, unix};
use super::kernel_packets::UdpPackets;
use super::overlay::{OverlayListener, OverlayPackets};
use super::wildcard::{Listeners, WildcardPackets};
use super::{Acceptance, Socket};
use crate::Side;
use crate::members::{Members, is_members};
use crate::network::Family;

/// Backlog of kernel listeners, in connections.
const BACKLOG: i32 = 1024;
/// Number of ports tried if one side chooses a port that the other side may lack.
const PORTS: usize = 32;

/// The local address at which a socket is bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Local address; if it is unspecified, `side` selects where it applies.
    pub(crate) local: SocketAddr,
    pub(crate) side: Side,
    /// Family of an unspecified address; `None` for both.
    pub(crate) family: Option<Family>,
}

/// The sockets to open for one wildcard or address.
struct Parts {
    overlay: Vec<SocketAddr>,
    kernel: Option<Kernel>,
}

#[derive(Clone, Copy)]
struct Kernel {
    local: SocketAddr,
    is_dual: bool,
}

impl Wanted {
    fn parts(self, members: Option<&Members>) -> io::Result<Parts> {
        let Wanted { local, side, family } = self;
        if !local.ip().is_unspecified() {
            let kernel = Kernel { local, is_dual: false };
            return Ok(match is_members(members, local.ip())? {
                true => Parts { overlay: vec![local], kernel: None },
                false => Parts { overlay: Vec::new(), kernel: Some(kernel) },
            });
        }
        let port = local.port();
        let v6 = (family != Some(Family::V4)).then(|| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let v4 = (family != Some(Family::V6)).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        let kernel = v6.or(v4).map(|local| Kernel { local, is_dual: family.is_none() });
        Ok(Parts {
            overlay: match side {
                Side::Kernel => Vec::new(),
                _ if members.is_none() => Vec::new(),
                _ => v6.into_iter().chain(v4).collect(),
            },
            kernel: kernel.filter(|_| side != Side::Overlay || members.is_none()),
        })
    }
}

/// Creates a TCP listener.
pub(crate) fn listen_tcp(members: Option<&Members>, wanted: Wanted) -> io::Result<Box<dyn Acceptance>> {
    let Parts { overlay, kernel } = wanted.parts(members)?;
    at_one_port(wanted.local.port(), |port| {
        let (mut all, mut port): (Vec<Box<dyn Acceptance>>, u16) = (Vec::new(), port);
        for local in members.iter().flat_map(|members| overlay.iter().map(move |local| (members, local))) {
            let listener = OverlayListener::bind(local.0, at(*local.1, port))?;
            port = port_of(listener.local()?);
            all.push(Box::new(listener));
        }
        if let Some(kernel) = kernel {
            all.push(Box::new(kernel_listener(kernel, port)?));
        }
        Ok(match all.len() {
            1 => all.remove(0),
            _ => Box::new(Listeners::new(all)),
        })
    })
}

/// Binds a UDP socket.
pub(crate) async fn bind_udp(members: Option<&Members>, wanted: Wanted) -> io::Result<Box<dyn Socket>> {
    let Parts { overlay, kernel } = wanted.parts(members)?;
    for _ in 1..PORTS {
        match bind_udp_parts(members, &overlay, kernel, wanted.local.port()).await {
            Err(error) if wanted.local.port() == 0 && is_taken(&error) => {}
            done => return done,
        }
    }
    bind_udp_parts(members, &overlay, kernel, wanted.local.port()).await
}

async fn bind_udp_parts(
    members: Option<&Members>,
    overlay: &[SocketAddr],
    kernel: Option<Kernel>,
    mut port: u16,
) -> io::Result<Box<dyn Socket>> {
    let mut opened = Vec::new();
    if let Some(members) = members {
        for local in overlay {
            let socket = OverlayPackets::bind(members, at(*local, port)).await?;
            port = port_of(socket.local()?);
            opened.push(socket);
        }
    }
    let kernel = match kernel {
        Some(kernel) => Some(kernel_packets(kernel, port)?),
        None => None,
    };
    Ok(Box::new(WildcardPackets::new(kernel, opened, members.cloned())))
}

/// Opens all parts at one port. If `port` is 0, one side chooses the port; other ports are tried if the other
/// side cannot bind it.
fn at_one_port<T>(port: u16, mut open: impl FnMut(u16) -> io::Result<T>) -> io::Result<T> {
    for _ in 1..PORTS {
        match open(port) {
            Err(error) if port == 0 && is_taken(&error) => {}
            done => return done,
        }
    }
    open(port)
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn at(local: SocketAddr, port: u16) -> SocketAddr {
    let mut local = local;
    local.set_port(port);
    local
}

fn port_of(addr: crate::Addr) -> u16 {
    match addr {
        crate::Addr::Tcp(addr) => addr.port(),
        crate::Addr::Udp(addr) => addr.port(),
        _ => 0,
    }
}

fn kernel_listener(wanted: Kernel, port: u16) -> io::Result<TcpListener> {
    let socket = kernel_socket(wanted, port, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn kernel_packets(wanted: Kernel, port: u16) -> io::Result<UdpPackets> {
    UdpSocket::from_std(kernel_socket(wanted, port, Type::DGRAM)?.into()).map(UdpPackets::new)
}

/// Binds a kernel socket. A wildcard of both families is one IPv6 socket if the machine has IPv6, else an
/// IPv4 socket.
fn kernel_socket(wanted: Kernel, port: u16, kind: Type) -> io::Result<System> {
    let local = at(wanted.local, port);
    let bound = bound(local, wanted.is_dual, kind);
    match bound.as_ref().map_err(io::Error::raw_os_error) {
        Err(Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) if wanted.is_dual => {
            self::bound((Ipv4Addr::UNSPECIFIED, port).into(), false, kind)
        }
        _ => bound,
    }
}

fn bound(local: SocketAddr, is_dual: bool, kind: Type) -> io::Result<System> {
    let socket = System::new(Domain::for_address(local), kind, None)?;
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    if local.is_ipv6() {
        socket.set_only_v6(!is_dual)?;
    }
    socket.bind(&local.into())?;
    Ok(socket)
}

/// Listens at the path, or abstract name, of a Unix domain socket.
pub(crate) fn listen_unix(local: &SockAddr) -> io::Result<Box<dyn Acceptance>> {
    let socket = unix(true)?;
    socket.bind(local)?;
    socket.listen(BACKLOG)?;
    Ok(Box::new(UnixListener::from_std(OwnedFd::from(socket).into())?))
}

/// Binds a Unix domain datagram socket to a path or abstract name.
pub(crate) fn bind_unixgram(local: &SockAddr) -> io::Result<Box<dyn Socket>> {
    let socket = unix(false)?;
    socket.bind(local)?;
    of_unix(socket, false)
}
