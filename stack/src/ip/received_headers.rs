//! Extension headers of a received datagram, for sockets that request them (RFC 3542 section 20.1).

use smoltcp::wire::IpProtocol;

use crate::ip::{IpHeader, extensions};

/// Extension headers of a received datagram, in order, without fragment headers: the content of
/// IPV6_RECVHOPOPTS, IPV6_RECVDSTOPTS and IPV6_RECVRTHDR.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceivedHeaders {
    /// Headers, each after its protocol number.
    pub(crate) listed: Vec<u8>,
}

impl ReceivedHeaders {
    /// Removes the headers; the memory stays.
    pub fn clear(&mut self) {
        self.listed.clear();
    }

    /// Returns each header's protocol number (0 hop-by-hop options, 43 routing, 60 destination options) and
    /// its bytes, a multiple of eight.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = &self.listed[..];
        std::iter::from_fn(move || {
            let (&protocol, behind) = rest.split_first()?;
            let header = extensions::extension(behind, 0)?;
            rest = &behind[header.len()..];
            Some((protocol, header))
        })
    }
}

/// Bytes between the IP header of an arriving packet and its upper layer, nearly always none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderChain<'a> {
    first: IpProtocol,
    bytes: &'a [u8],
}

impl<'a> HeaderChain<'a> {
    pub(crate) const NOTHING: Self = Self { first: IpProtocol::Ipv6NoNxt, bytes: &[] };

    /// Returns the chain of a packet in which the upper layer was found.
    pub(crate) fn of(packet: &'a [u8], ip: &IpHeader) -> Self {
        if ip.plain || ip.source.is_ipv4() {
            return Self { first: ip.protocol, bytes: &[] };
        }
        Self { first: packet[6].into(), bytes: &packet[40..ip.header_len] }
    }

    /// Returns the headers in the form of a queue, if the socket `wants` them. Allocates only if there are
    /// any.
    pub(crate) fn listed(self, wants: impl FnOnce() -> bool) -> Vec<u8> {
        if self.bytes.is_empty() || !wants() {
            return Vec::new();
        }
        let (mut listed, mut at, mut protocol) = (Vec::with_capacity(self.bytes.len() + 8), 0, self.first);
        while at < self.bytes.len() {
            let is_fragment = protocol == IpProtocol::Ipv6Frag;
            // The second byte of a fragment header is no length.
            let len = match is_fragment {
                true => extensions::FRAGMENT_HEADER,
                false => extensions::extension(self.bytes, at).map_or(self.bytes.len() - at, <[u8]>::len),
            };
            // RFC 3542 has no item for fragment headers, which belong to a packet and not to the datagram.
            if !is_fragment {
                listed.push(protocol.into());
                listed.extend_from_slice(&self.bytes[at..at + len]);
            }
            protocol = self.bytes[at].into();
            at += len;
        }
        listed
    }
}
