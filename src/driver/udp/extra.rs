//! Extra UDP sockets besides the data sockets: many for a short time during a search for a direct path by
//! many ports, and one for each path found that way.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use peersock_overlay::{SocketIndex, SocketInfo, WantedSocket};
use quinn_udp::UdpSockRef;
use rustix::process::{Resource, getrlimit};

use super::data::DataSocket;
use super::{MAX_PAYLOAD, RECEIVE_BATCH, UdpSockets};
use crate::driver::interfaces::canonical;
use crate::sync;
use crate::sys::icmp_errors;

/// Extra UDP socket.
pub(crate) struct ExtraSocket {
    index: SocketIndex,
    /// Family as the overlay sees it: behind a NAT64, an IPv6 socket replaces an IPv4 one.
    is_ipv4: bool,
    pub(super) socket: DataSocket,
}

impl UdpSockets {
    /// Opens wanted sockets as far as possible, and closes the others. Returns descriptions of the open ones.
    pub(crate) fn set_extra(&self, wanted: &[WantedSocket]) -> Vec<SocketInfo> {
        let mut open = sync::read(&self.extra).clone();
        let is_wanted = |index: &SocketIndex| wanted.iter().any(|one| one.index == *index);
        open.retain(|index, _| is_wanted(index));
        for wanted in wanted {
            if open.contains_key(&wanted.index) {
                continue;
            }
            match self.open_extra(wanted) {
                Ok(socket) => _ = open.insert(wanted.index, Arc::new(socket)),
                Err(error) => {
                    // The next one would fail, too.
                    tracing::debug!(%error, open = open.len(), "no further UDP sockets");
                    break;
                }
            }
        }
        let info = |extra: &Arc<ExtraSocket>| SocketInfo {
            index: extra.index,
            ipv4: extra.is_ipv4,
            loopback: extra.socket.loopback,
            max_datagram: MAX_PAYLOAD,
            beacon_targets: Vec::new(),
        };
        let infos = open.values().map(info).collect();
        // Closed sockets are dropped without the lock.
        let _before = std::mem::replace(&mut *sync::write(&self.extra), open);
        infos
    }

    /// Returns the open extra sockets.
    pub(crate) fn extra(&self) -> Vec<Arc<ExtraSocket>> {
        sync::read(&self.extra).values().cloned().collect()
    }

    /// Returns an extra socket, if it is open.
    pub(super) fn extra_socket(&self, index: SocketIndex) -> Option<Arc<ExtraSocket>> {
        sync::read(&self.extra).get(&index).cloned()
    }

    /// Returns the destination address of datagrams to an endpoint.
    pub(super) fn extra_destination(&self, extra: &ExtraSocket, remote: SocketAddr) -> SocketAddr {
        if extra.socket.local.is_ipv6() { self.nat64.outer(remote) } else { remote }
    }

    /// Returns the endpoint that the overlay knows for a source address.
    pub(crate) fn extra_remote(&self, from: SocketAddr) -> SocketAddr {
        self.nat64.inner(canonical(from))
    }

    fn open_extra(&self, wanted: &WantedSocket) -> io::Result<ExtraSocket> {
        let position = usize::from(wanted.like.0);
        let like = self.data.get(position).ok_or(io::ErrorKind::NotFound)?;
        let is_ipv4 = like.local.is_ipv4();
        let twin = self.nat64.prefix().filter(|_| is_ipv4).and_then(|_| self.data.get(self.twin(position)?));
        let like = twin.unwrap_or(like);
        let any_port = SocketAddr::new(like.local.ip(), 0);
        let socket = DataSocket::bind(any_port, like.device.as_ref(), like.loopback)?;
        // Half of the file descriptors are reserved for the process. The number tells, because the system
        // assigns the lowest free one.
        if getrlimit(Resource::Nofile).current.is_some_and(|most| socket.io.as_raw_fd() as u64 >= most / 2) {
            return Err(io::Error::other("half of the process's descriptors are in use"));
        }
        Ok(ExtraSocket { index: wanted.index, is_ipv4, socket })
    }
}

impl ExtraSocket {
    /// Returns the socket's index.
    pub(crate) fn index(&self) -> SocketIndex {
        self.index
    }

    /// Receives up to [`RECEIVE_BATCH`] GRO batches without waiting.
    pub(crate) fn receive(
        &self,
        bufs: &mut [IoSliceMut<'_>; RECEIVE_BATCH],
        meta: &mut [quinn_udp::RecvMeta; RECEIVE_BATCH],
    ) -> io::Result<usize> {
        self.socket.state.recv(UdpSockRef::from(&self.socket.io), bufs, meta)
    }

    /// Takes the oldest error about its datagrams; returns false if there is none.
    pub(crate) fn take_error(&self) -> bool {
        icmp_errors::take(&self.socket.io).is_some()
    }
}

impl AsFd for ExtraSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.io.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Interfaces;

    #[test]
    fn wanted_sockets_are_opened_with_ports_of_their_own_and_the_others_closed() {
        let sockets = UdpSockets::bind(Interfaces::Loopback, 0, None).unwrap();
        let wanted = |numbers: std::ops::Range<u16>| -> Vec<WantedSocket> {
            let like = SocketIndex(0);
            numbers.map(|number| WantedSocket { index: SocketIndex::extra(number), like }).collect()
        };
        assert_eq!(sockets.set_extra(&wanted(0..20)).len(), 20);
        let ports = || -> Vec<(u16, u16)> {
            let all = sockets.extra();
            all.iter().map(|extra| (extra.index().0, extra.socket.local.port())).collect()
        };
        let before = ports();
        let mut distinct: Vec<_> = before.iter().map(|(_, port)| *port).collect();
        distinct.push(sockets.data.get(0).expect("there is one").local.port());
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 21);
        let infos = sockets.set_extra(&wanted(19..21));
        assert!(infos.iter().all(|info| info.ipv4 && info.loopback && info.beacon_targets.is_empty()));
        let after = ports();
        assert_eq!((after.len(), after[0]), (2, before[19]), "the one that stays is the same");
        assert_eq!(sockets.set_extra(&[]), []);
        let nobody = [WantedSocket { index: SocketIndex::extra(0), like: SocketIndex(99) }];
        assert_eq!(sockets.set_extra(&nobody), [], "there is none like that");
    }
}
