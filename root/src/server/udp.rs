//! UDP sockets, with batches of GRO and GSO trains.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::task::{Context, Poll};

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::messages::{Message, is_refused, send_messages};
use super::{SecondPort, at};
use crate::{Source, stun};

/// Requested size in bytes of each socket's receive and send buffer. The kernel grants up to its limit.
const BUFFER: usize = 8 << 20;

/// Number of buffers for one receive call.
pub(super) const TRAINS: usize = quinn_udp::BATCH_SIZE;

/// Size of the largest train in bytes.
pub(super) const TRAIN: usize = 64 << 10;

/// Distance from one buffer to the next. It is no power of two, because then the first bytes of all buffers
/// would share a few sets of the processor's cache. Single datagrams use only these bytes.
pub(super) const SPACING: usize = TRAIN + 1536;

/// Limit of numbered local addresses to which datagrams have come.
const MAX_LOCALS: usize = 1024;

/// Limit of loopback addresses among them, because a program on this machine can send to each of 127.0.0.0/8.
const MAX_LOOPBACKS: usize = 64;

/// All UDP sockets of a root.
#[derive(Debug)]
pub(super) struct Sockets {
    sockets: Vec<Bound>,
    /// Second port of each of the first sockets, if it has one: the number of a socket behind all of them,
    /// which answers STUN requests alone.
    second: Vec<Option<usize>>,
    /// Origins of answers: a socket and a local address. A [`Source`] holds the number.
    locals: Locals,
}

#[derive(Debug)]
struct Bound {
    io: UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Local {
    socket: usize,
    /// Local address, only where the socket is bound to all addresses.
    ip: Option<IpAddr>,
}

/// Origins by number. The first ones belong to the sockets and let the system choose the address.
#[derive(Debug)]
struct Locals(Vec<Local>);

impl Locals {
    fn of_sockets(count: usize) -> Self {
        Self((0..count).map(|socket| Local { socket, ip: None }).collect())
    }

    fn get(&self, number: u16) -> Option<Local> {
        self.0.get(usize::from(number)).copied()
    }

    /// Returns the number of an origin. Beyond the limits, that is the number of its socket.
    fn number_of(&mut self, local: Local) -> u16 {
        let is_loopback = |local: &Local| local.ip.is_some_and(|ip| ip.is_loopback());
        let known = self.0.iter().position(|known| *known == local);
        let number = known.unwrap_or_else(|| {
            let is_full = self.0.len() >= MAX_LOCALS
                || is_loopback(&local)
                    && self.0.iter().filter(|local| is_loopback(local)).count() >= MAX_LOOPBACKS;
            if is_full {
                return local.socket;
            }
            self.0.push(local);
            self.0.len() - 1
        });
        number as u16
    }
}

impl Sockets {
    pub(super) fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        if addresses.is_empty() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no address to listen on"));
        }
        let mut sockets: Vec<Bound> = Vec::new();
        for address in addresses {
            // The port that the system chose for the first address is used for all, if it is free there.
            let chosen = sockets.first().map(|socket| socket.address.port()).filter(|_| address.port() == 0);
            let again = chosen.map(|port| Bound::new(SocketAddr::new(address.ip(), port)));
            let bound = match again {
                Some(Ok(bound)) => Ok(bound),
                Some(Err(_)) | None => Bound::new(*address),
            };
            sockets.push(bound.map_err(|error| at(*address, &error))?);
        }
        let (locals, second) = (Locals::of_sockets(sockets.len()), vec![None; sockets.len()]);
        Ok(Self { sockets, second, locals })
    }

    /// Opens a second port for each socket. Stops at the first one that cannot be opened, with its error;
    /// earlier ones stay.
    pub(super) fn bind_second(&mut self, port: SecondPort) -> io::Result<()> {
        let bound = self.bind_second_of_each(port);
        // Also after an error, because sockets before it stay.
        self.locals = Locals::of_sockets(self.sockets.len());
        bound
    }

    fn bind_second_of_each(&mut self, port: SecondPort) -> io::Result<()> {
        let mut chosen = None;
        for number in 0..self.second.len() {
            let address = self.sockets[number].address;
            let port = match port {
                SecondPort::None => return Ok(()),
                SecondPort::Next => address.port().checked_add(1).unwrap_or(0),
                SecondPort::Number(port) => port,
            };
            let bind = |port| {
                let address = SocketAddr::new(address.ip(), port);
                Bound::new(address).map_err(|error| at(address, &error))
            };
            // As for the first ports: one number for all addresses, if it is free there.
            let again = chosen.filter(|_| port == 0).map(bind);
            let bound = match again {
                Some(Ok(bound)) => bound,
                Some(Err(_)) | None => bind(port)?,
            };
            chosen = chosen.or(Some(bound.address.port()));
            self.sockets.push(bound);
            self.second[number] = Some(self.sockets.len() - 1);
        }
        Ok(())
    }

    /// Returns the addresses of the first ports.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets[..self.second.len()].iter().map(|socket| socket.address).collect()
    }

    /// Returns the addresses of the second ports.
    pub(super) fn second_addresses(&self) -> Vec<SocketAddr> {
        self.sockets[self.second.len()..].iter().map(|socket| socket.address).collect()
    }

    /// Returns true if a socket answers STUN requests alone.
    pub(super) fn is_second(&self, number: usize) -> bool {
        number >= self.second.len()
    }

    /// Returns the second port of the socket at which a datagram has arrived.
    pub(super) fn second_port(&mut self, source: Source) -> Option<stun::SecondPort> {
        let Source::Udp { socket, remote } = source else { return None };
        let Local { socket: first, ip } = self.locals.get(socket)?;
        let second = (*self.second.get(first)?)?;
        let number = self.locals.number_of(Local { socket: second, ip });
        let port = self.sockets[second].address.port();
        Some(stun::SecondPort { port, source: Source::Udp { socket: number, remote } })
    }

    /// Duplicates the sockets for occasional senders, with the addresses that they are bound to.
    pub(super) fn copies(&self) -> io::Result<Vec<(std::net::UdpSocket, IpAddr)>> {
        let copy = |socket: &Bound| Ok((socket.io.as_fd().try_clone_to_owned()?.into(), socket.address.ip()));
        self.sockets[..self.second.len()].iter().map(copy).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Returns the smallest receive buffer as the kernel accounts it, in bytes.
    pub(super) fn receive_buffer(&self) -> u32 {
        let sizes =
            self.sockets.iter().map(|socket| socket.state.recv_buffer_size(UdpSockRef::from(&socket.io)));
        sizes.filter_map(Result::ok).min().and_then(|size| u32::try_from(size).ok()).unwrap_or(212_992)
    }

    /// Returns the number of a readable socket; others may be readable, too.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>, first: usize) -> Poll<io::Result<usize>> {
        // The search begins at another socket each time, so that a busy one does not starve the others.
        let order = (first..self.len()).chain(0..first);
        for number in order {
            if let Poll::Ready(result) = self.sockets[number].io.poll_recv_ready(context) {
                return Poll::Ready(result.map(|()| number));
            }
        }
        Poll::Pending
    }

    /// Receives up to a batch of available datagrams, without waiting.
    pub(super) fn receive(
        &self,
        number: usize,
        buffers: &mut [IoSliceMut<'_>; TRAINS],
        metas: &mut [RecvMeta; TRAINS],
    ) -> io::Result<usize> {
        let Bound { io, state, .. } = &self.sockets[number];
        let mut count = 0;
        // A smaller batch means that the socket is empty. A call to find that out would double the calls for
        // datagrams that come alone.
        let result = io.try_io(Interest::READABLE, || {
            count = state.recv(UdpSockRef::from(io), buffers, metas)?;
            // Later datagrams make the socket readable again, because tokio's epoll(7) is edge-triggered.
            if count < TRAINS { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if count > 0 { Ok(count) } else { result.map(|()| 0) }
    }

    /// Returns the source of a train, to which answers go.
    pub(super) fn source(&mut self, number: usize, meta: &RecvMeta) -> Source {
        // A socket that is bound to one address answers from it anyway.
        let is_wild = self.sockets[number].address.ip().is_unspecified();
        let local = Local { socket: number, ip: meta.dst_ip.filter(|_| is_wild) };
        Source::Udp { socket: self.locals.number_of(local), remote: meta.addr }
    }

    /// Returns how many datagrams of equal size (the last one may be shorter) one call may send.
    pub(super) fn most_segments(&self, local: u16) -> usize {
        let socket = self.locals.get(local).map(|local| &self.sockets[local.socket]);
        socket.map_or(1, |socket| socket.state.max_gso_segments())
    }

    /// Sends a train without waiting: a relay drops what finds no buffer space, as any router does.
    pub(super) fn send(
        &self,
        local: u16,
        remote: SocketAddr,
        contents: &[u8],
        segment: Option<usize>,
        ecn: Option<EcnCodepoint>,
    ) -> io::Result<()> {
        let Some(Local { socket, ip }) = self.locals.get(local) else {
            return Err(ErrorKind::NotFound.into());
        };
        let Bound { io, state, .. } = &self.sockets[socket];
        let transmit = Transmit { destination: remote, ecn, contents, segment_size: segment, src_ip: ip };
        let send = || io.try_io(Interest::WRITABLE, || state.try_send(UdpSockRef::from(io), &transmit));
        match send() {
            // The error may belong to an earlier datagram to another destination (ICMP). Reading it clears
            // it, so try again.
            Err(error) if error.kind() != ErrorKind::WouldBlock => send(),
            result => result,
        }
    }

    /// Returns the local address of answers, where the socket has several.
    pub(super) fn ip(&self, local: u16) -> Option<IpAddr> {
        self.locals.get(local)?.ip
    }

    /// Returns the number of the socket that answers leave from.
    pub(super) fn number(&self, local: u16) -> usize {
        self.locals.get(local).map_or(0, |local| local.socket)
    }

    /// Sends datagrams and trains to several destinations without waiting; returns how many have left.
    pub(super) fn send_several(&self, socket: usize, messages: &[Message<'_>]) -> io::Result<usize> {
        let io = &self.sockets[socket].io;
        io.try_io(Interest::WRITABLE, || send_messages(io.as_fd(), messages))
    }
}

impl Bound {
    fn new(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // IPv4 has separate sockets, so the kernel need not map addresses.
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let io = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        check_receiving(&io, &state)?;
        for result in [
            state.set_recv_buffer_size(UdpSockRef::from(&io), BUFFER),
            state.set_send_buffer_size(UdpSockRef::from(&io), BUFFER),
        ] {
            if let Err(error) = result {
                tracing::debug!(%error, "the socket's buffers stay as they are");
            }
        }
        let address = io.local_addr()?;
        Ok(Self { io, state, address })
    }
}

/// Fails where a sandbox refuses the receive call; otherwise the root would receive nothing, without any
/// message.
fn check_receiving(io: &UdpSocket, state: &UdpSocketState) -> io::Result<()> {
    let mut byte = [0];
    let mut meta = [RecvMeta::default()];
    match state.recv(UdpSockRef::from(io), &mut [IoSliceMut::new(&mut byte)], &mut meta) {
        Err(error) if is_refused(&error) => {
            let text = format!("a sandbox refuses the system call recvmmsg, by which roots receive: {error}");
            Err(io::Error::new(ErrorKind::Unsupported, text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn local(ip: u32) -> Local {
        Local { socket: 1, ip: Some(Ipv4Addr::from_bits(ip).into()) }
    }

    #[test]
    fn loopback_addresses_leave_room_for_others() {
        let mut locals = Locals::of_sockets(2);
        let loopback = Ipv4Addr::LOCALHOST.to_bits();
        let numbers: Vec<u16> = (0..2000).map(|n| locals.number_of(local(loopback + n))).collect();
        assert_eq!(numbers[..3], [2, 3, 4]);
        assert!(numbers[MAX_LOOPBACKS..].iter().all(|number| *number == 1), "the socket's own number");

        let number = locals.number_of(local(0x0a00_0001));
        assert_eq!(locals.get(number), Some(local(0x0a00_0001)));
        assert_eq!(locals.number_of(local(0x0a00_0001)), number);
        let last = (0..2000).map(|n| locals.number_of(local(0x0a00_0002 + n))).last();
        assert_eq!((last, locals.0.len()), (Some(1), MAX_LOCALS));
    }
}
