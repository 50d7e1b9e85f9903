//! Data sockets, bound to the node's port: one for each address family, and for each interface if only some
//! may be used. An interface that appears while the node runs gets a separate pair.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use super::{batches, bind_by_itself};
use crate::driver::interfaces::{HostInterface, Interfaces};
use crate::sys::{icmp_errors, socket_buffer};

/// Requested size of a data socket's receive buffer, bytes. The kernel grants up to `rmem_max` unless
/// privileged.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Requested size of a data socket's send buffer, bytes.
const SEND_BUFFER: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct DataSocket {
    pub(super) io: UdpSocket,
    pub(super) state: UdpSocketState,
    pub(super) local: SocketAddr,
    pub(super) loopback: bool,
    /// Interface that the socket is bound to, if any.
    pub(super) device: Option<Device>,
}

/// Interface to which a socket is bound. An interface that is recreated under the same name has another
/// index, and the kernel binds to the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    index: u32,
}

impl Device {
    fn of(interface: &HostInterface) -> Device {
        Device { name: interface.name.clone(), index: interface.index }
    }
}

/// Limit of data sockets if each interface has separate ones, with room for interfaces that come and go.
const MAX_SOCKETS: usize = 256;

/// Data sockets. Sockets are added while the node runs and never removed, so that waiting or sending threads
/// need no lock, and a position always means the same socket.
pub(super) struct DataSockets {
    slots: Box<[OnceLock<DataSocket>]>,
    len: AtomicUsize,
}

impl DataSockets {
    fn with_room(most: usize) -> DataSockets {
        let slots = (0..most).map(|_| OnceLock::new()).collect();
        DataSockets { slots, len: AtomicUsize::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    pub(super) fn get(&self, position: usize) -> Option<&DataSocket> {
        self.slots.get(position)?.get()
    }

    /// Returns all sockets with their positions, even if their interface is gone.
    fn all(&self) -> impl Iterator<Item = (usize, &DataSocket)> {
        (0..self.len()).filter_map(|position| Some((position, self.get(position)?)))
    }

    /// Returns the sockets in use, with their positions: the last one for each interface and family.
    pub(super) fn current(&self) -> impl Iterator<Item = (usize, &DataSocket)> {
        let is_same = |one: &DataSocket, other: &DataSocket| {
            one.local.is_ipv4() == other.local.is_ipv4() && one.device_name() == other.device_name()
        };
        let is_replaced = move |position: usize, socket: &DataSocket| {
            (position + 1..self.len()).filter_map(|later| self.get(later)).any(|other| is_same(socket, other))
        };
        self.all().filter(move |(position, socket)| !is_replaced(*position, socket))
    }

    /// Adds a socket; returns false if there is no room. Callers must be serialized.
    fn push(&self, socket: DataSocket) -> bool {
        let len = self.len();
        let is_added = self.slots.get(len).is_some_and(|slot| slot.set(socket).is_ok());
        if is_added {
            // After the slot is filled, because readers take no lock.
            self.len.store(len + 1, Ordering::Release);
        }
        is_added
    }

    /// Opens sockets on interfaces that have none yet, if each interface has separate ones. Callers must be
    /// serialized.
    pub(super) fn add_missing(&self, allowed: &Interfaces, list: &[HostInterface], port: u16) {
        if allowed.is_loopback_only() || !matches!(allowed, Interfaces::Named(_)) {
            return;
        }
        for interface in list {
            let device = Some(Device::of(interface));
            if self.all().any(|(_, socket)| socket.device == device) {
                continue;
            }
            let pushed = bind_pair(interface, port).map(|pair| pair.into_iter().all(|one| self.push(one)));
            match pushed {
                Ok(true) => {}
                Ok(false) => tracing::warn!(
                    "a network interface is not used, because too many have come and gone and no room is \
                     left for its sockets; restart the node"
                ),
                Err(error) => tracing::warn!(%error, "a network interface that has appeared is not used"),
            }
        }
    }
}

/// Binds one IPv4 and one IPv6 socket, or such a pair for each interface if only some may be used.
pub(super) fn bind(allowed: &Interfaces, list: &[HostInterface], port: u16) -> io::Result<DataSockets> {
    let sockets = match allowed {
        _ if allowed.is_loopback_only() => {
            open([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], port, None, true)?
        }
        Interfaces::Named(_) => {
            let pairs = list.iter().map(|interface| bind_pair(interface, port));
            pairs.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect()
        }
        Interfaces::All | Interfaces::Except(_) | Interfaces::Loopback => {
            open(UNSPECIFIED, port, None, false)?
        }
    };
    let is_fixed = allowed.is_loopback_only() || !matches!(allowed, Interfaces::Named(_));
    let all = DataSockets::with_room(if is_fixed { sockets.len() } else { MAX_SOCKETS });
    match sockets.into_iter().all(|socket| all.push(socket)) {
        true => Ok(all),
        false => Err(io::Error::other("more network interfaces are named than a node can use")),
    }
}

const UNSPECIFIED: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

fn bind_pair(interface: &HostInterface, port: u16) -> io::Result<Vec<DataSocket>> {
    open(UNSPECIFIED, port, Some(&Device::of(interface)), interface.loopback)
}

fn open(
    addresses: [IpAddr; 2],
    port: u16,
    device: Option<&Device>,
    loopback: bool,
) -> io::Result<Vec<DataSocket>> {
    let mut sockets = Vec::new();
    for address in addresses {
        match DataSocket::bind(SocketAddr::new(address, port), device, loopback) {
            Ok(socket) => {
                let any = if loopback { "the loopback interface" } else { "every interface" };
                let interface = socket.device_name().unwrap_or(any);
                tracing::debug!(address = %socket.local, interface, "UDP socket for the overlay's packets");
                sockets.push(socket);
            }
            // A machine may lack IPv6; but a port that is taken is an error.
            Err(error) if address.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => {
                tracing::debug!(%error, "no IPv6 socket");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

impl DataSocket {
    /// Returns the name of the interface that the socket is bound to, if any.
    pub(super) fn device_name(&self) -> Option<&str> {
        self.device.as_ref().map(|device| device.name.as_str())
    }

    pub(super) fn bind(
        address: SocketAddr,
        device: Option<&Device>,
        loopback: bool,
    ) -> io::Result<DataSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // IPv4 has a separate socket.
            socket.set_only_v6(true)?;
        } else {
            // Beacons also go to broadcast addresses.
            socket.set_broadcast(true)?;
        }
        if let Some(device) = device {
            socket.bind_device(Some(device.name.as_bytes()))?;
        }
        socket_buffer::set_receive(&socket, RECEIVE_BUFFER)?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        bind_by_itself(&socket, address)?;
        let io: UdpSocket = socket.into();
        let state = batches(&io)?;
        // A port unreachable error shows at once that a peer's program has ended.
        if let Err(error) = icmp_errors::enable(&io, address.is_ipv4()) {
            tracing::debug!(%error, "peers whose program is killed will be noticed late");
        }
        let local = io.local_addr()?;
        Ok(DataSocket { io, state, local, loopback, device: device.cloned() })
    }

    /// Sends without waiting. An error may belong to an earlier datagram, perhaps to another destination.
    /// Then nothing was sent, and reading the error clears it, so a second call shows the result.
    pub(super) fn try_send(&self, transmit: &quinn_udp::Transmit<'_>) -> io::Result<()> {
        let send = || self.state.try_send(UdpSockRef::from(&self.io), transmit);
        match send() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => send(),
            result => result,
        }
    }

    pub(super) fn reaches(&self, interface: &HostInterface) -> bool {
        match &self.device {
            Some(device) => *device == Device::of(interface),
            None => !self.loopback || interface.loopback,
        }
    }
}
