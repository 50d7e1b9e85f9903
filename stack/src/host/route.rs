//! Outgoing routes of datagrams, and the sizes that fit them.

use std::net::IpAddr;
use std::sync::Arc;

use crate::host::interface::Interface;
use crate::host::stack::Shared;
use crate::ip::extensions::FRAGMENT_HEADER;
use crate::socket::ip_options::Fits;
use crate::{Error, ExtensionHeaders, InterfaceId, IpOptions, Scope, SendOptions};

/// Length of the headers of UDP and of ICMP, bytes.
const UPPER_HEADER: usize = 8;

/// Binding and settings of a datagram socket.
pub(crate) struct Wanted<'a> {
    pub(crate) scope: &'a Scope,
    /// Local address; unspecified for all of the family, or a group for sockets that receive only.
    pub(crate) local: IpAddr,
    pub(crate) ip: IpOptions,
}

impl Shared {
    /// Returns the interface to reach `remote`, and the local address to use.
    ///
    /// # Errors
    /// [`Error::AddressFamily`], [`Error::NetworkUnreachable`] if no interface leads there,
    /// [`Error::AddrNotAvailable`] if the requested source is not a local address of the interface.
    pub(crate) fn choose_route(
        &self,
        wanted: &Wanted<'_>,
        remote: IpAddr,
        options: &SendOptions<'_>,
    ) -> Result<(Arc<Interface>, IpAddr), Error> {
        // Route by the first hop, because a routing header moves the final destination into that header.
        let remote = options.first_hop(remote);
        if remote.is_ipv4() != wanted.local.is_ipv4() {
            return Err(Error::AddressFamily);
        }
        // A bound group only filters received packets, so it is no source.
        let is_source = |address: &IpAddr| !(address.is_unspecified() || address.is_multicast());
        let local = options.source.filter(is_source).or_else(|| Some(wanted.local).filter(is_source));
        if local.is_some_and(|local| local.is_ipv4() != remote.is_ipv4()) {
            return Err(Error::AddressFamily);
        }
        let group_interface = wanted.ip.multicast_interface.filter(|_| remote.is_multicast());
        let scope = wanted.scope;
        let interface = match (scope.device().or(options.interface).or(group_interface), local) {
            (Some(id), _) => self.interfaces.find(id),
            (None, Some(local)) => {
                let owner = self.interfaces.owner(scope, local);
                if owner.is_none() && options.source.is_some() {
                    return Err(Error::AddrNotAvailable);
                }
                owner
            }
            (None, None) if remote.is_multicast() => self.interfaces.first_with(scope, remote),
            (None, None) => self.interfaces.route(scope, remote),
        };
        // A socket bound to an interface never sends through another.
        let elsewhere = options.interface.is_some_and(|id| !scope.admits(id));
        let interface = interface.filter(|interface| !elsewhere && scope.admits(interface.id));
        let interface = interface.ok_or(Error::NetworkUnreachable)?;
        let source = match local {
            Some(local) => Some(local).filter(|&local| interface.is_local(local)),
            None => interface.source_for(remote),
        };
        Ok((interface, source.ok_or(Error::AddrNotAvailable)?))
    }

    /// Returns the fit of a packet with `len` bytes behind its headers on the path to `destination`, whose
    /// first link has the MTU `mtu`.
    pub(crate) fn fits(
        &self,
        interface: InterfaceId,
        destination: IpAddr,
        (options, len): (&SendOptions<'_>, usize),
        mtu: usize,
    ) -> Fits {
        let between = options.headers_to(destination).map_or(0, ExtensionHeaders::len);
        let total = len + between + if destination.is_ipv4() { 20 } else { 40 };
        let link = total <= mtu;
        let found = self.path_mtus.find(interface, options.first_hop(destination));
        let reported = link && found.is_none_or(|reported| total <= reported);
        // RFC 7112 5: the first fragment must contain all headers, including the upper layer's.
        let first_fragment = 40 + between + FRAGMENT_HEADER + UPPER_HEADER;
        let least = found.map_or(mtu, |found| found.min(mtu));
        let headers =
            between == 0 || (between + len <= usize::from(u16::MAX) && (reported || first_fragment <= least));
        Fits { link, reported, headers }
    }
}
