//! Sending of raw sockets' packets.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::{RawOptions, RawSocket, unspecified};
use crate::host::route::Wanted;
use crate::ip::checksum;
use crate::ip::extension_headers::write_headers;
use crate::ip::{Fields, IpHeader, MAX_PACKET};
use crate::{Error, InterfaceId, SendOptions, icmp};

/// Outgoing route of a raw socket's packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawRoute {
    /// Outgoing interface.
    pub interface: InterfaceId,
    /// Local address.
    pub source: IpAddr,
    /// Address of the peer, or of a group.
    pub destination: IpAddr,
}

impl RawSocket {
    /// Returns the route of a packet to `remote`; `None` means the connected peer.
    ///
    /// # Errors
    /// The error of an earlier packet, once. [`Error::NotConnected`] without any peer,
    /// [`Error::NetworkUnreachable`] if no interface leads there, [`Error::AddressFamily`],
    /// [`Error::AddrNotAvailable`] if the requested source is not a local address of the interface,
    /// [`Error::Closed`].
    pub fn route(&self, remote: Option<IpAddr>, options: &SendOptions<'_>) -> Result<RawRoute, Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let (peer, local) = {
            let mut inner = self.lock();
            if let Some(error) = inner.inbox.take_error() {
                return Err(error);
            }
            (inner.peer, inner.local)
        };
        // A destination in the call goes before the connected peer, as for UDP.
        let destination = remote.or(peer).ok_or(Error::NotConnected)?;
        let wanted = Wanted { scope: &self.scope, local, ip: self.ip.load() };
        let (interface, source) = self.shared.choose_route(&wanted, destination, options)?;
        Ok(RawRoute { interface: interface.id, source, destination })
    }

    /// Writes `data` as one IP packet to `buf` and returns its length. With
    /// [`header_included`](RawOptions::header_included), `data` is the packet. `mtu` and fragmentation are as
    /// in [`UdpSocket::send`](crate::UdpSocket::send), but a packet with its own header is never fragmented.
    ///
    /// # Errors
    /// [`Error::MessageSize`] if the packet exceeds 65,535 bytes or `buf`, or exceeds `mtu` and must not be
    /// fragmented. [`Error::InvalidInput`] for an invalid header, for data too short for the
    /// [checksum](RawOptions::checksum_offset), and for a hop limit of 0 to a single node.
    /// [`Error::AddrNotAvailable`] for a header with a foreign source, because peers would drop the packet.
    pub fn send(
        &self,
        route: &RawRoute,
        data: &[u8],
        options: &SendOptions<'_>,
        mtu: usize,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        let own = self.lock().options;
        let len = if own.header_included && !self.ipv6 {
            self.write_included(route, data, mtu, buf)?
        } else {
            self.write(route, data, options, &own, mtu, buf)?
        };
        self.shared.counters.raw_sent.increment();
        Ok(len)
    }

    /// Returns the error that [`send`](Self::send) would return for `len` bytes, except errors about `buf`.
    /// Fails as [`send`](Self::send) does.
    pub fn check_length(
        &self,
        route: &RawRoute,
        len: usize,
        options: &SendOptions<'_>,
        mtu: usize,
    ) -> Result<(), Error> {
        if self.lock().options.header_included && !self.ipv6 {
            return if len > self.longest_included(route, mtu) { Err(Error::MessageSize) } else { Ok(()) };
        }
        self.fields(route, len, options, mtu).map(drop)
    }

    fn fields(
        &self,
        route: &RawRoute,
        len: usize,
        options: &SendOptions<'_>,
        mtu: usize,
    ) -> Result<Fields, Error> {
        let fits = self.shared.fits(route.interface, route.destination, (options, len), mtu);
        self.ip.load().fields(options, IpProtocol::from(self.protocol), route.destination, fits)
    }

    /// Returns the maximum length of a packet with its own header, which is never fragmented.
    fn longest_included(&self, route: &RawRoute, mtu: usize) -> usize {
        let reported = self.shared.path_mtus.find(route.interface, route.destination).unwrap_or(MAX_PACKET);
        mtu.min(reported).min(MAX_PACKET)
    }

    fn write(
        &self,
        route: &RawRoute,
        data: &[u8],
        options: &SendOptions<'_>,
        own: &RawOptions,
        mtu: usize,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        let protocol = IpProtocol::from(self.protocol);
        let interface = self.shared.interfaces.find(route.interface).ok_or(Error::NetworkDown)?;
        let addresses = (route.source, route.destination);
        let fields = self.fields(route, data.len(), options, mtu)?;
        let checksum_at = self.checksum_offset(own);
        // RFC 3542 3.1: there is no place for the checksum.
        if checksum_at.is_some_and(|offset| offset + 2 > data.len()) {
            return Err(Error::InvalidInput);
        }
        let headers = options.headers_to(route.destination);
        let ip_len = write_headers(buf, addresses, &fields, headers, data.len(), interface.checksums)
            .ok_or(Error::MessageSize)?;
        let payload = &mut buf[ip_len..ip_len + data.len()];
        payload.copy_from_slice(data);
        if let Some(at) = checksum_at {
            payload[at..at + 2].fill(0);
            let sum = checksum::pseudo(addresses, protocol, payload);
            payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        Ok(ip_len + data.len())
    }

    /// Writes a packet with its own header, as Linux's `raw_send_hdrinc` does.
    fn write_included(
        &self,
        route: &RawRoute,
        data: &[u8],
        mtu: usize,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        if data.len() > self.longest_included(route, mtu).min(buf.len()) {
            return Err(Error::MessageSize);
        }
        let header_len = data.first().map_or(0, |byte| usize::from(byte & 15) * 4);
        if data.len() < header_len || header_len < 20 || data[0] >> 4 != 4 {
            return Err(Error::InvalidInput);
        }
        let packet = &mut buf[..data.len()];
        packet.copy_from_slice(data);
        let mut view = Ipv4Packet::new_unchecked(&mut *packet);
        // As in Linux (raw(7)): length and checksum are always filled in.
        view.set_total_len(data.len() as u16);
        if let (Ipv4Addr::UNSPECIFIED, IpAddr::V4(source)) = (view.src_addr(), route.source) {
            view.set_src_addr(source);
        }
        let interface = self.shared.interfaces.find(route.interface).ok_or(Error::NetworkDown)?;
        // Peers accept only packets from addresses that belong to this node.
        if !interface.is_local(view.src_addr().into()) {
            return Err(Error::AddrNotAvailable);
        }
        // Zero asks the stack to choose, as in Linux.
        if view.ident() == 0 {
            let ip = IpHeader::parse(packet, false).map_err(|_| Error::InvalidInput)?;
            let ident = self.shared.idents.next(&ip);
            Ipv4Packet::new_unchecked(&mut *packet).set_ident(ident as u16);
        }
        Ipv4Packet::new_unchecked(&mut *packet).fill_checksum();
        Ok(data.len())
    }

    /// Returns the offset of the checksum if the stack fills it in and verifies it.
    pub(super) fn checksum_offset(&self, options: &RawOptions) -> Option<usize> {
        let any = unspecified(self.ipv6);
        match self.ipv6 {
            // RFC 3542 3.1: for ICMPv6 the system computes the checksum whatever the application asks for.
            true if icmp::is_for(any, IpProtocol::from(self.protocol)) => Some(2),
            true => options.checksum_offset.map(usize::from),
            false => None,
        }
    }
}
