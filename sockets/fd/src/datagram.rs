//! Datagram sockets: for each remote address the node has a socket, whose name is the address that the
//! application's end sends to and receives from.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, sendmsg, sendmsg_addr};

use crate::headers::{AncillaryData, Header};
use crate::interface_index::network_of_index;
use crate::known_sizes::{ALWAYS_FITS, ALWAYS_WHOLE};
use crate::name::{Details, Family, Kind, Name, PacketInfo, Remote};
use crate::remote_names;
use crate::requests::{Reply, Report, Request};
use crate::socket::{Socket, name_of};
use crate::sys::{self, Datagram, Timestamp};

/// A datagram for the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Number of bytes copied; with MSG_TRUNC the datagram's length.
    pub length: usize,
    /// True if the datagram was longer than the buffer.
    pub truncated: bool,
    /// Its sender. For ICMP and raw sockets the port is 0.
    pub remote: Option<SocketAddr>,
    /// Fields of its IP header that the socket has requested.
    pub details: Option<Details>,
    /// Its extension headers that the socket has requested.
    pub headers: Vec<Header>,
    /// Time of its arrival, if the socket has requested it.
    pub timestamp: Option<Timestamp>,
}

impl Socket<'_> {
    /// Connects a datagram socket as connect(2) does.
    pub(crate) fn associate(&self, remote: Option<SocketAddr>) -> Result<(), Errno> {
        let remote = remote.map(|remote| self.without_port(remote));
        self.introduce(Request::Associate(self.opened(), remote))?;
        match remote {
            Some(remote) => rustix::net::connect(self.fd(), &self.remote_name(remote, None)?),
            None => rustix::net::connect_unspec(self.fd()),
        }
    }

    /// Sends with an address, as sendto(2) and sendmsg(2) do.
    ///
    /// The scope of an IPv6 address selects an interface.
    ///
    /// # Errors
    /// EMSGSIZE (longer than any packet), EINVAL (port 0), EACCES (the network does not allow the port),
    /// ENETUNREACH, EADDRNOTAVAIL (the requested source is not this node's). Also the error of an earlier
    /// datagram, and errors of sendmsg(2).
    pub fn send_to(
        &self,
        data: &[IoSlice<'_>],
        flags: SendFlags,
        remote: SocketAddr,
        details: Option<Details>,
    ) -> Result<usize, Errno> {
        let remote = self.destination(remote)?;
        if segment_of(details).is_some() {
            return self.send_with_headers(data, flags, Some(remote), details, Vec::new());
        }
        self.check_length(length_of(data), remote.ip())?;
        if remote.port() == 0 && self.kind() == Kind::Datagram {
            return Err(Errno::INVAL);
        }
        let details = scoped(remote, details);
        let remote = self.without_port(remote);
        self.check_path(length_of(data), remote, details)?;
        let name = self.remote_name(remote, details)?;
        self.send_named(data, flags, &name, || Request::Reach(self.opened(), remote, details, Vec::new()))
    }

    /// Like [`send_to`](Self::send_to), or like [`send`](Self::send) without an address, with extension
    /// headers that replace the headers of the socket's options. Datagrams to IPv4 addresses leave without
    /// extension headers.
    ///
    /// The node has one end per combination of requested settings. Programs that seldom change them pay only
    /// for the first datagram.
    ///
    /// # Errors
    /// Errors of [`send_to`](Self::send_to) and [`send`](Self::send), and EINVAL for invalid headers.
    pub fn send_with_headers(
        &self,
        data: &[IoSlice<'_>],
        flags: SendFlags,
        remote: Option<SocketAddr>,
        details: Option<Details>,
        headers: Vec<Header>,
    ) -> Result<usize, Errno> {
        let remote = remote.or_else(|| self.associated()).ok_or(Errno::DESTADDRREQ)?;
        let headers = if remote.ip().to_canonical().is_ipv4() { Vec::new() } else { headers };
        let segment = segment_of(details);
        if headers.is_empty() && segment.is_none() {
            return self.send_to(data, flags, remote, details);
        }
        self.check_family(remote)?;
        self.check_length(length_of(data), remote.ip())?;
        if remote.port() == 0 && self.kind() == Kind::Datagram {
            return Err(Errno::INVAL);
        }
        let (details, remote) = (scoped(remote, details), self.without_port(remote));
        let socket = self.opened();
        let length = segment.map_or(length_of(data), |segment| length_of(data).min(segment.into()));
        let between: usize = headers.iter().map(|header| header.bytes.len()).sum();
        if headers.is_empty() {
            self.check_path(length, remote, details)?;
        } else if length + between > ALWAYS_WHOLE {
            let (headers, length) = (headers.clone(), length as u32);
            self.introduce(Request::Fits { socket, remote, details, headers, length })?;
        }
        let digest = Some(self.client().name_key()?.digest(details, &headers));
        let name = self.remote_name(remote, Some(Details { digest, ..Details::default() }))?;
        self.send_named(data, flags, &name, || Request::Reach(socket, remote, details, headers))
    }

    /// Sends to an end of the node. Requests the end if the node has none with this name.
    fn send_named(
        &self,
        data: &[IoSlice<'_>],
        flags: SendFlags,
        name: &SocketAddrUnix,
        reach: impl FnOnce() -> Request,
    ) -> Result<usize, Errno> {
        let send = || sendmsg_addr(self.fd(), name, data, &mut SendAncillaryBuffer::default(), flags);
        match send() {
            // The node has no such socket, or no longer has it.
            Err(Errno::CONNREFUSED | Errno::NOENT) => {
                self.introduce(reach())?;
                send()
            }
            Err(Errno::CONNRESET) => Err(self.meaning()),
            Err(Errno::PIPE) => Err(self.end().unwrap_or(Errno::PIPE)),
            result => result,
        }
    }

    /// Sends to the connected address, as send(2), and sendmsg(2) without an address.
    ///
    /// # Errors
    /// Errors of [`send_to`](Self::send_to), and EDESTADDRREQ if it is not connected.
    pub fn send(
        &self,
        data: &[IoSlice<'_>],
        flags: SendFlags,
        details: Option<Details>,
    ) -> Result<usize, Errno> {
        if details.is_some() {
            let remote = self.associated().ok_or(Errno::DESTADDRREQ)?;
            return self.send_to(data, flags, remote, details);
        }
        let length = length_of(data);
        if length > ALWAYS_FITS || (length > ALWAYS_WHOLE && self.may_forbid_cutting()) {
            let remote = self.associated().ok_or(Errno::DESTADDRREQ)?;
            self.check_length(length, remote.ip())?;
            self.check_path(length, remote, None)?;
        }
        match sendmsg(self.fd(), data, &mut SendAncillaryBuffer::default(), flags) {
            Err(Errno::CONNRESET) => Err(self.meaning()),
            Err(Errno::NOTCONN) => Err(Errno::DESTADDRREQ),
            Err(Errno::PIPE | Errno::CONNREFUSED) if self.is_down() => Err(Errno::NETDOWN),
            result => result,
        }
    }

    /// Receives as recvfrom(2) and recvmsg(2) do.
    ///
    /// # Errors
    /// The error of an earlier datagram, and errors of recvmsg(2).
    pub fn recv_from(&self, buf: &mut [IoSliceMut<'_>], flags: RecvFlags) -> Result<Received, Errno> {
        loop {
            let datagram = match sys::receive_datagram(self.fd(), buf, flags) {
                Err(Errno::CONNRESET) => return Err(self.meaning()),
                Err(Errno::AGAIN) => return Err(self.end().unwrap_or(Errno::AGAIN)),
                datagram => datagram?,
            };
            // An empty message without a sender is the end: the socket has been shut down.
            if datagram.length == 0 && datagram.sender.is_none() && datagram.name.is_none() {
                if let Some(error) = self.end() {
                    return Err(error);
                }
                let (remote, details, headers, timestamp) = (None, None, Vec::new(), None);
                return Ok(Received { length: 0, truncated: false, remote, details, headers, timestamp });
            }
            let is_by_node =
                |name: &Remote| datagram.sender.is_some_and(|sender| self.client().is_end(sender, name));
            let remote = match datagram.name.as_deref().and_then(Name::parse) {
                Some(Name::Remote(tag, remote)) if tag == self.tag() && is_by_node(&remote) => remote,
                // Another program of this machine has sent it.
                _ => {
                    self.drop_peeked(flags);
                    continue;
                }
            };
            if is_notice(&remote) {
                self.drop_peeked(flags);
                match self.noticed() {
                    Some(error) => return Err(error),
                    None => continue,
                }
            }
            let Datagram { length, truncated, fd, timestamp, .. } = datagram;
            let beside =
                if remote.details.is_none() { fd.as_ref().and_then(AncillaryData::read) } else { None };
            let (details, headers) = match beside {
                Some(AncillaryData { details, headers }) => {
                    (Some(details).filter(|it| !it.is_empty()), headers)
                }
                None => (remote.details, Vec::new()),
            };
            let remote = Some(remote.address);
            return Ok(Received { length, truncated, remote, details, headers, timestamp });
        }
    }

    /// Returns true if an empty datagram from an end of this name (an abstract one without its first zero)
    /// announces an error, which [`noticed`](Self::noticed) returns. A caller of recv(2) must not see it as a
    /// datagram.
    pub fn is_notice(&self, name: &[u8]) -> bool {
        let name = Name::parse(name);
        matches!(name, Some(Name::Remote(tag, remote)) if tag == self.tag() && is_notice(&remote))
    }

    /// Returns true if an abstract name, without its first zero, is that of one of the node's ends, by its
    /// seal. Datagrams from other names come from other programs of this machine.
    pub fn is_end(&self, name: &[u8]) -> bool {
        match Name::parse(name) {
            Some(Name::Remote(tag, remote)) if tag == self.tag() => {
                self.client().name_key().is_ok_and(|key| key.has_sealed(&remote))
            }
            _ => false,
        }
    }

    /// Takes the error that the node has announced, if it was not reported yet.
    pub fn noticed(&self) -> Option<Errno> {
        match self.ask(Request::TakeError(self.which())) {
            Ok(Reply::Error(errno)) if errno != 0 => Some(Errno::from_raw_os_error(errno)),
            _ => None,
        }
    }

    /// Makes the next call on a datagram socket return `error`, and poll(2) report it before. A stream
    /// reports the cause of its end without this.
    pub fn keep_error(&self, error: Errno) {
        if self.kind() != Kind::Stream {
            // If the node is gone, the next call reports that instead.
            let _ = self.ask(Request::KeepError(self.which(), error.raw_os_error()));
        }
    }

    /// Takes a datagram's error, as recvmsg(2) with MSG_ERRQUEUE, if the socket has requested it with
    /// IP_RECVERR or IPV6_RECVERR.
    ///
    /// # Errors
    /// EAGAIN if there is none.
    pub fn recv_error(&self) -> Result<Report, Errno> {
        match self.ask(Request::TakeReport(self.which()))? {
            Reply::Report(report) => report.ok_or(Errno::AGAIN),
            _ => Err(Errno::PROTO),
        }
    }

    /// Returns the error behind an ECONNRESET of the kernel, by which the node signals that it has one to
    /// report.
    fn meaning(&self) -> Errno {
        match self.ask(Request::TakeError(self.which())) {
            Ok(Reply::Error(errno)) if errno != 0 => Errno::from_raw_os_error(errno),
            Err(Errno::NETDOWN) => Errno::NETDOWN,
            _ => Errno::CONNREFUSED,
        }
    }

    /// Removes a datagram that was only peeked at and is not for the application.
    fn drop_peeked(&self, flags: RecvFlags) {
        if flags.contains(RecvFlags::PEEK) {
            let _ = sys::receive_datagram(self.fd(), &mut [], RecvFlags::DONTWAIT);
        }
    }

    /// Returns the address it is connected to, from the kernel.
    fn associated(&self) -> Option<SocketAddr> {
        match name_of(rustix::net::getpeername(self.fd()).ok()??)? {
            Name::Remote(_, remote) => Some(remote.address),
            _ => None,
        }
    }

    /// Returns true if a datagram of `length` bytes exceeds any packet to the connected address: the kernel
    /// takes it, but the node cannot send it.
    pub fn is_too_long(&self, length: usize) -> bool {
        let is_beyond = |remote: SocketAddr| self.check_length(length, remote.ip()).is_err();
        length > ALWAYS_FITS && self.kind() != Kind::Stream && self.associated().is_some_and(is_beyond)
    }

    fn check_length(&self, length: usize, remote: IpAddr) -> Result<(), Errno> {
        let is_v4 = remote.to_canonical().is_ipv4();
        // The IPv4 header counts into the packet's length, IPv6's does not (RFC 8200 3).
        let room = 65535 - if is_v4 { 20 } else { 0 };
        let longest = match self.kind() {
            Kind::Datagram => room - 8,
            // It may include its header.
            Kind::Raw(_) => 65535,
            _ => room,
        };
        if length > longest { Err(Errno::MSGSIZE) } else { Ok(()) }
    }

    /// Asks the node if a datagram may be too long for its path and must not be fragmented: IP_MTU_DISCOVER,
    /// IPV6_MTU_DISCOVER, IPV6_DONTFRAG.
    fn check_path(&self, length: usize, remote: SocketAddr, details: Option<Details>) -> Result<(), Errno> {
        if length <= ALWAYS_WHOLE || !self.may_forbid_cutting() {
            return Ok(());
        }
        let (client, socket) = (self.client(), self.opened());
        if client.has_passed((socket.id, remote), length) {
            return Ok(());
        }
        let headers = Vec::new();
        self.introduce(Request::Fits { socket, remote, details, headers, length: length as u32 })?;
        client.note_passed((socket.id, remote), length);
        Ok(())
    }

    /// Clears the port, which ICMP and raw sockets do not use.
    fn without_port(&self, remote: SocketAddr) -> SocketAddr {
        let port = if self.kind() == Kind::Datagram { remote.port() } else { 0 };
        SocketAddr::new(remote.ip(), port)
    }

    fn remote_name(&self, remote: SocketAddr, details: Option<Details>) -> Result<SocketAddrUnix, Errno> {
        let key = self.client().name_key()?;
        Ok(remote_names::address_of(self.tag(), key, self.opened().id, remote, details))
    }
}

/// Returns true for the unspecified sender of announcements, because an unconnected AF_UNIX socket can be
/// notified in no other way.
fn is_notice(remote: &Remote) -> bool {
    remote.address.port() == 0 && remote.address.ip().is_unspecified()
}

/// Returns UDP_SEGMENT, bytes.
fn segment_of(details: Option<Details>) -> Option<u16> {
    details.and_then(|details| details.segment).map(NonZeroU16::get)
}

fn length_of(data: &[IoSlice<'_>]) -> usize {
    data.iter().map(|piece| piece.len()).sum()
}

/// Adds the interface selected by the address's scope, unless the details name one.
fn scoped(remote: SocketAddr, details: Option<Details>) -> Option<Details> {
    let SocketAddr::V6(v6) = remote else { return details };
    // There is no network with this number, so the node refuses it.
    let interface = network_of_index(v6.scope_id()).unwrap_or(u16::MAX);
    let details = details.filter(|details| !details.is_empty());
    if interface == 0 || details.is_some_and(|details| details.packet_info.is_some()) {
        return details;
    }
    let packet_info = Some(PacketInfo { local: Family::of(remote.ip()).unspecified(), interface });
    Some(Details { packet_info, ..details.unwrap_or_default() })
}
