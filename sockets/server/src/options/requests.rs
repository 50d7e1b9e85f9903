//! Option requests of applications, for established connections and other sockets.

use std::net::IpAddr;
use std::sync::Arc;

use libc::{IPPROTO_IP, IPPROTO_IPV6};
use peersock::PeerIdentity;
use peersock::attach::Connection;
use peersock::overlay::PeerDescription;
use peersock_fd::option_table::{self as numbers, Access, Row};
use peersock_fd::{Errno, Family, Which};
use peersock_stack::{Error, GroupChange};

use super::set::Interfaces;
use super::value::{InterfaceRef, index, number};
use super::{Options, get, groups, is_of_path, is_of_peer, is_tcp_info, set, table, tcp_info};
use crate::addresses::errno;
use crate::requester::id;
use crate::socket_table::{Opened, Phase};
use crate::state::ServerState;

/// Applies options to a connection after the one of `row` was set.
fn follow(connection: &Connection, options: &Options, row: &Row) {
    options.apply(connection);
    if row.number == libc::TCP_QUICKACK && row.level == libc::IPPROTO_TCP {
        connection.flow().set_quick_ack(options.quick_ack);
    }
}

impl ServerState {
    /// Handles setsockopt(2).
    pub(crate) fn set_option(
        &mut self,
        which: Which,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        let row = self.row(which, level, name)?;
        if !matches!(row.access, Access::Both | Access::Set | Access::Kept(_) | Access::Ignored) {
            return Err(Errno::NOPROTOOPT);
        }
        if let Some(changed) = self.change_membership(which, row, value) {
            return changed;
        }
        let interfaces = self.interface_finder();
        if let Some(stream) = self.stream_mut(which) {
            let mut options = stream.options.clone();
            let place = set::Place { is_bound: true, is_stream: true, interfaces: &interfaces };
            table::set(&mut options, &place, row, value)?;
            follow(&stream.connection, &options, row);
            stream.options = options;
            return Ok(());
        }
        let Which::Opened(socket) = which else {
            // The connection has ended, so nothing is applied. Linux accepts the options of such a socket,
            // too.
            let place = set::Place { is_bound: true, is_stream: true, interfaces: &interfaces };
            return table::set(&mut Options::default(), &place, row, value);
        };
        let opened = self.socket(socket);
        let is_bound = opened.bound().is_some() || opened.phase != Phase::Fresh;
        let mut options = opened.options.clone();
        let is_stream = socket.kind == peersock_fd::Kind::Stream;
        table::set(&mut options, &set::Place { is_bound, is_stream, interfaces: &interfaces }, row, value)?;
        if let Some((_, attempt)) = self.attempt_of(socket) {
            follow(attempt.connection(), &options, row);
        }
        let opened = self.socket(socket);
        opened.options = options;
        if let Some(transport) = &opened.transport {
            transport.apply(&opened.options);
        }
        for acceptor in &opened.reserved {
            acceptor.set_options(opened.options.tcp(acceptor.local_addr().is_ipv4()));
        }
        self.follow_alongside(socket, row, value);
        Ok(())
    }

    /// Handles getsockopt(2). Returns the value, at most `length` bytes of it.
    pub(crate) fn option(
        &mut self,
        which: Which,
        level: i32,
        name: i32,
        length: usize,
    ) -> Result<Vec<u8>, Errno> {
        let row = self.row(which, level, name)?;
        let has_value = match row.access {
            Access::Both | Access::Get | Access::Kept(_) | Access::Fixed(_) | Access::Ignored => true,
            Access::Set | Access::Kernel | Access::Application | Access::Refused => false,
        };
        if !has_value {
            return Err(Errno::NOPROTOOPT);
        }
        let mut value = match () {
            () if is_of_peer(row) => self.peer_option(which, length)?,
            () if is_of_path(row) => self.path_option(which, row)?,
            () => match (self.stream(which), which) {
                (Some(stream), _) => table::get(&stream.options, Some(&stream.connection), row)?,
                (None, Which::Opened(socket)) => {
                    let opened = self.socket(socket);
                    if is_tcp_info(row) && matches!(opened.phase, Phase::Listening(_)) {
                        tcp_info::of_listener()
                    } else {
                        table::get(&opened.options, None, row)?
                    }
                }
                (None, Which::Accepted(_)) => table::get(&Options::default(), None, row)?,
            },
        };
        if (row.level, row.number) == (IPPROTO_IPV6, libc::IPV6_V6ONLY) && self.is_bound_to_v6(which) {
            value = number(1);
        }
        if (row.level, row.number) == (IPPROTO_IP, libc::IP_MULTICAST_IF) {
            value = self.address_of(&value)?;
        }
        value.truncate(length);
        Ok(value)
    }

    fn row(&self, which: Which, level: i32, name: i32) -> Result<&'static Row, Errno> {
        let (kind, family) = match which {
            Which::Opened(socket) => (socket.kind, socket.family),
            // Its name has the family, which the stream does not know.
            Which::Accepted(_) => (peersock_fd::Kind::Stream, Family::V6),
        };
        let row = numbers::find(kind, family, level, name).ok_or(Errno::NOPROTOOPT)?;
        if row.access == Access::Refused {
            tracing::debug!(option = row.name, reason = row.what, "an option was refused");
        }
        Ok(row)
    }

    /// Returns who is at the other end of a connection, or has the address to which a datagram socket is
    /// connected, as JSON. The answer stays after the connection has ended.
    ///
    /// # Errors
    /// ENOTCONN; ERANGE if it is longer than `length`, because a part of JSON is of no use.
    fn peer_option(&mut self, which: Which, length: usize) -> Result<Vec<u8>, Errno> {
        let described = match self.stream(which) {
            Some(stream) => stream.connection.described(),
            None => self.ended_peers.find(id(which)),
        };
        let described = described.or_else(|| match which {
            Which::Opened(socket) => self.peer_of_opened(socket),
            Which::Accepted(_) => None,
        });
        let described = described.ok_or(Errno::NOTCONN)?;
        let json = PeerIdentity::from(&*described).to_json().into_bytes();
        if json.len() > length { Err(Errno::RANGE) } else { Ok(json) }
    }

    /// Returns the other end of a socket that is no stream yet, or none at all.
    fn peer_of_opened(&mut self, socket: peersock_fd::Opened) -> Option<Arc<PeerDescription>> {
        // The application may know of the connection before the node has made a stream of it.
        if let Some((_, attempt)) = self.attempt_of(socket) {
            return attempt.connection().described();
        }
        let peer = self.context.target(self.peer_of(socket)?, None).ip();
        self.context.node().ok()?.peer_at(peer)
    }

    /// Returns the MTU of a connected socket's path, as a number or as an `ip6_mtuinfo`.
    fn path_option(&mut self, which: Which, row: &Row) -> Result<Vec<u8>, Errno> {
        if let Some(stream) = self.stream(which) {
            let mtu = stream.connection.flow().path_mtu().ok_or(Errno::NOTCONN)?;
            return Ok(number(mtu as i64));
        }
        let Which::Opened(socket) = which else { return Err(Errno::NOTCONN) };
        let peer = self.peer_of(socket).ok_or(Errno::NOTCONN)?;
        let mtu = self.path_mtu(peer.ip())?;
        if row.number != numbers::IPV6_PATHMTU || row.level != IPPROTO_IPV6 {
            return Ok(number(mtu as i64));
        }
        Ok([get::sockaddr_in6(peer), number(mtu as i64)].concat())
    }

    /// Returns true if a socket is bound to an address that only IPv6 has: in Linux it has IPV6_V6ONLY from
    /// then on.
    fn is_bound_to_v6(&self, which: Which) -> bool {
        let Which::Opened(socket) = which else { return false };
        let bound = self.sockets.get(socket.id).and_then(Opened::bound);
        let is_v6s = |ip: IpAddr| ip.to_canonical().is_ipv6() && !ip.is_unspecified();
        bound.is_some_and(|bound| is_v6s(bound.ip())) && self.peer_of(socket).is_none()
    }

    /// Converts an interface index to an address, because getsockopt(2) returns IP_MULTICAST_IF as an
    /// address.
    fn address_of(&self, value: &[u8]) -> Result<Vec<u8>, Errno> {
        let networks = self.context.networks();
        let network = networks.iter().find(|network| number(index(network.interface)) == value);
        let address = network.and_then(|network| {
            network.addresses.iter().find_map(|address| match address {
                IpAddr::V4(address) => Some(address.octets().to_vec()),
                IpAddr::V6(_) => None,
            })
        });
        Ok(address.unwrap_or(vec![0; 4]))
    }

    /// Returns the current interfaces.
    fn interface_finder(&self) -> Interfaces {
        Interfaces(self.context.networks())
    }

    /// Changes a membership, at once or when the socket is bound. Returns `None` if the option is not about
    /// groups.
    fn change_membership(&mut self, which: Which, row: &Row, value: &[u8]) -> Option<Result<(), Errno>> {
        let (group, interface, change) = match groups::request(row, value)? {
            Ok(request) => request,
            Err(error) => return Some(Err(error)),
        };
        Some(self.change_group(which, row.level, group, interface, change))
    }

    fn change_group(
        &mut self,
        which: Which,
        level: i32,
        group: IpAddr,
        interface: InterfaceRef,
        change: GroupChange,
    ) -> Result<(), Errno> {
        let Which::Opened(socket) = which else { return Err(Errno::INVAL) };
        let is_v4 = level == IPPROTO_IP;
        let stranger = matches!(change, GroupChange::Source(_, source) if source.is_ipv4() != is_v4);
        if group.is_ipv4() != is_v4 || stranger {
            return Err(Errno::ADDRNOTAVAIL);
        }
        if !group.is_multicast() {
            return Err(Errno::INVAL);
        }
        let interface = self.interface_finder().find(interface)?;
        let opened = self.socket(socket);
        let changed = match &opened.transport {
            Some(transport) => transport.change_group(interface, group, change),
            None => groups::change_later(&mut opened.options.groups, interface, group, change),
        };
        changed.map_err(|error| match error {
            // As Linux: beyond igmp_max_memberships and igmp_max_msf.
            Error::OutOfMemory => Errno::NOBUFS,
            error => errno(error),
        })
    }
}
