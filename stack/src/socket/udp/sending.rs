//! Routes of datagrams, and their packets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use smoltcp::wire::{IpProtocol, UdpPacket};

use super::{UDP_HEADER, UdpRoute, UdpSocket};
use crate::host::clock::Time;
use crate::host::route::Wanted;
use crate::ip::extension_headers::write_headers;
use crate::ip::{Fields, canonical};
use crate::{Error, ErrorOrigin, ErrorReport, IpOptions, SendOptions};

impl UdpSocket {
    /// Sets or replaces the peer: only its datagrams are received, and ICMP errors are reported.
    /// Fails as [`route`](Self::route) does, and with [`Error::AddrInUse`] if another socket has this pair.
    pub fn connect(self: &Arc<Self>, remote: SocketAddr) -> Result<(), Error> {
        self.connect_with(remote, &SendOptions::default())
    }

    /// Connects as [`connect`](Self::connect) does, with a [source](SendOptions::source) and an
    /// [interface](SendOptions::interface) for the time of the connection.
    ///
    /// # Errors
    /// Fails as [`route_with`](Self::route_with) does, and with [`Error::AddrInUse`] if another socket has
    /// this pair.
    pub fn connect_with(
        self: &Arc<Self>,
        remote: SocketAddr,
        options: &SendOptions<'_>,
    ) -> Result<(), Error> {
        let route = self.route_to(canonical(remote), options)?;
        // A socket may connect to the same peer again, which its old entry would prevent.
        self.disconnect();
        // Both addresses must be unique, because the peer's datagrams and errors find the socket by them.
        if !self.shared.udp_connected.insert(route, self) {
            return Err(Error::AddrInUse);
        }
        self.lock().peer = Some(route);
        // The flag comes last, so that the peer's datagrams find the new entry before strangers' are refused.
        self.connected.store(true, Ordering::Release);
        Ok(())
    }

    /// Removes the peer, if there is one.
    pub fn disconnect(&self) {
        // First the flag: the socket takes strangers' datagrams again before it leaves the table, so none is
        // refused in between.
        self.connected.store(false, Ordering::Release);
        if let Some(route) = self.lock().peer.take() {
            self.shared.udp_connected.remove(&route);
        }
    }

    /// Returns the route of a datagram to `remote`; `None` means the connected peer.
    ///
    /// # Errors
    /// The error of an earlier datagram, once. [`Error::NotConnected`] without any peer,
    /// [`Error::NetworkUnreachable`] if no interface leads there, [`Error::AddressFamily`] if the socket is
    /// of the other family, [`Error::PermissionDenied`] if the network allows neither port,
    /// [`Error::InvalidInput`] for port 0, [`Error::Closed`].
    pub fn route(&self, remote: Option<SocketAddr>) -> Result<UdpRoute, Error> {
        self.route_with(remote, &SendOptions::default())
    }

    /// Returns the route as [`route`](Self::route) does, with a [source](SendOptions::source) and an
    /// [interface](SendOptions::interface) for this datagram.
    ///
    /// # Errors
    /// Fails as [`route`](Self::route) does, and with [`Error::AddrNotAvailable`] if the source is not a
    /// local address of the interface.
    pub fn route_with(
        &self,
        remote: Option<SocketAddr>,
        options: &SendOptions<'_>,
    ) -> Result<UdpRoute, Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let (peer, error) = {
            let mut inner = self.lock();
            (inner.peer, inner.inbox.take_error())
        };
        // As in Linux, the error of an earlier datagram fails the next call on the socket, whichever it is.
        if let Some(error) = error {
            return Err(error);
        }
        let own = options.source.is_some() || options.interface.is_some() || options.headers.is_some();
        match (remote, peer) {
            (Some(remote), _) => self.route_to(canonical(remote), options),
            // The kept route was chosen without these options.
            (None, Some(peer)) if own => self.route_to(peer.destination, options),
            (None, Some(peer)) => Ok(peer),
            (None, None) => Err(Error::NotConnected),
        }
    }

    fn route_to(&self, remote: SocketAddr, options: &SendOptions<'_>) -> Result<UdpRoute, Error> {
        // RFC 768: port 0 means "none", so no receiver has it.
        if remote.port() == 0 {
            return Err(Error::InvalidInput);
        }
        let wanted = Wanted { scope: &self.scope, local: self.local.ip(), ip: self.ip.load() };
        let (interface, source) = self.shared.choose_route(&wanted, remote.ip(), options)?;
        if !interface.allows(remote.port()) && !interface.allows(self.local.port()) {
            return Err(Error::PermissionDenied);
        }
        let source = SocketAddr::new(source, self.local.port());
        Ok(UdpRoute { interface: interface.id, source, destination: remote })
    }

    /// Writes a datagram as one IP packet to `buf` and returns its length. `mtu` is the path MTU in bytes.
    /// Unless the socket's [`fragmentation`](IpOptions::fragmentation) forbids it, the packet may exceed the
    /// MTU: cut it with [`Stack::fragments`](crate::Stack::fragments).
    ///
    /// If the destination is a group, the driver sends the packet to every member that it knows. If
    /// [`multicast_loop`](IpOptions::multicast_loop) is on, it also gives the packet to
    /// [`Stack::receive`](crate::Stack::receive). A packet with a hop limit of 0 must not leave the node.
    ///
    /// # Errors
    /// [`Error::MessageSize`] if the packet would exceed 65,535 bytes of payload or `buf`, or exceeds `mtu`
    /// or the [reported MTU](crate::Stack::path_mtu) and must not be fragmented.
    pub fn send(
        &self,
        now: Instant,
        route: &UdpRoute,
        data: &[u8],
        mtu: usize,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        self.send_with(now, route, data, &SendOptions::default(), mtu, buf)
    }

    /// Sends as [`send`](Self::send) does, with options for this datagram. [`route_with`](Self::route_with)
    /// has already used the source and interface among them.
    ///
    /// # Errors
    /// Fails as [`send`](Self::send) does, and with [`Error::InvalidInput`] for a hop limit of 0 to a single
    /// node.
    pub fn send_with(
        &self,
        now: Instant,
        route: &UdpRoute,
        data: &[u8],
        options: &SendOptions<'_>,
        mtu: usize,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        let interface = self.shared.interfaces.find(route.interface);
        let checksums = interface.as_ref().is_some_and(|interface| interface.checksums);
        let len = UDP_HEADER + data.len();
        let addresses = (route.source.ip(), route.destination.ip());
        let fields = self.fields(route, len, options, mtu)?;
        let headers = options.headers_to(addresses.1);
        let ip_len = write_headers(buf, addresses, &fields, headers, len, checksums);
        let ip_len = ip_len.ok_or(Error::MessageSize)?;
        let total = ip_len + len;
        buf[ip_len + UDP_HEADER..total].copy_from_slice(data);
        let mut udp = UdpPacket::new_unchecked(&mut buf[ip_len..total]);
        udp.set_src_port(route.source.port());
        udp.set_dst_port(route.destination.port());
        udp.set_len(len as u16);
        // RFC 768: a field of 0 marks a datagram without a checksum.
        udp.set_checksum(0);
        if checksums {
            udp.fill_checksum(&addresses.0.into(), &addresses.1.into());
        }
        self.shared.counters.udp_sent.increment();
        if interface.is_some_and(|interface| !interface.allows(route.source.port())) {
            self.expect_answers(self.shared.clock.time(now), route);
        }
        Ok(total)
    }

    /// Records the destination as a correspondent, because the network does not allow this port as a
    /// service's. The connected peer may answer anyway.
    fn expect_answers(&self, now: Time, route: &UdpRoute) {
        let mut inner = self.lock();
        if inner.peer.is_none_or(|peer| peer.destination != route.destination) {
            inner.correspondents.get_or_insert_default().note(now, route.interface, route.destination);
        }
    }

    /// Returns, and reports, the error that [`send_with`](Self::send_with) would return for `len` bytes,
    /// except errors about `buf`.
    /// Fails as [`send_with`](Self::send_with) does.
    pub fn check_length(
        &self,
        route: &UdpRoute,
        len: usize,
        options: &SendOptions<'_>,
        mtu: usize,
    ) -> Result<(), Error> {
        self.fields(route, UDP_HEADER + len, options, mtu).map(drop)
    }

    fn fields(
        &self,
        route: &UdpRoute,
        len: usize,
        options: &SendOptions<'_>,
        mtu: usize,
    ) -> Result<Fields, Error> {
        let destination = route.destination.ip();
        let fits = self.shared.fits(route.interface, destination, (options, len), mtu);
        let ip = self.ip.load();
        let fields = ip.fields(options, IpProtocol::Udp, destination, fits);
        // As in Linux: IP_RECVERR also queues local EMSGSIZE errors, with the MTU.
        if fields.is_err_and(|error| error == Error::MessageSize) && ip.receive_errors {
            let reported = self.shared.path_mtus.find(route.interface, options.first_hop(destination));
            self.report_too_big(route.destination, reported.map_or(mtu, |reported| reported.min(mtu)));
        }
        fields
    }

    /// Returns the settings of its IP headers.
    pub fn ip_options(&self) -> IpOptions {
        self.ip.load()
    }

    /// Changes the settings of its IP headers.
    /// Errors: [`Error::InvalidInput`] for a [`hop_limit`](IpOptions::hop_limit) of 0.
    pub fn set_ip_options(&self, options: IpOptions) -> Result<(), Error> {
        self.ip.store(options)
    }

    fn report_too_big(&self, destination: SocketAddr, mtu: usize) {
        let report = ErrorReport {
            error: Error::MessageSize,
            origin: ErrorOrigin::Local,
            kind: 0,
            code: 0,
            info: mtu as u32,
            offender: None,
            destination,
            len: 0,
        };
        self.lock().inbox.push_report(&self.shared, report, &[]);
    }
}
