//! Datagrams that are too long for their path and must not be fragmented: EMSGSIZE and IPV6_RECVPATHMTU.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use peersock_fd::{AncillaryData, Details, Errno};
use peersock_stack::Error;

use crate::addresses::errno;
use crate::ancillary::{DatagramOptions, descriptor};
use crate::state::ServerState;
use crate::wakers::Key;

impl ServerState {
    /// Checks that a datagram of `length` bytes can be sent. Reports its errors as if it had been sent.
    pub(crate) fn fits(
        &mut self,
        socket: peersock_fd::Opened,
        remote: SocketAddr,
        asked: &DatagramOptions,
        length: usize,
    ) -> Result<(), Errno> {
        let (key, transport) = self.datagrams(socket)?;
        if let Some(error) = self.socket(socket).error.take() {
            return Err(error);
        }
        let target = self.context.target(remote, Some(transport.local()));
        let own = &self.sockets.open(socket).options;
        let options = self.context.send_options(own, target.ip(), asked);
        let segment = asked.segment().or(own.segment());
        let length = segment.map_or(length, |segment| length.min(segment.get().into()));
        let checked = transport.check_length(target, length, &options);
        if checked == Err(Error::MessageSize) {
            self.tell_path_mtu(key, remote);
        }
        checked.map_err(errno)
    }

    /// Notifies the sockets whose datagrams were too long since the last call.
    pub(crate) fn tell_path_mtus(&mut self) {
        for (owner, remote) in self.context.take_too_long() {
            self.tell_path_mtu(owner, remote);
        }
    }

    /// Reports the path's MTU by an empty datagram, if the socket wants to know it (RFC 3542 11.3). As in
    /// Linux the value is the node's own; ICMP reports of other hosts go to IPV6_RECVERR.
    fn tell_path_mtu(&mut self, owner: Key, remote: SocketAddr) {
        let Some((datagrams, opened, _)) = self.datagrams_at(owner) else { return };
        let (peer, wants) = (datagrams.peer(), opened.options.wants_path_mtu());
        if !wants || remote.ip().to_canonical().is_ipv4() {
            return;
        }
        let Ok(mtu) = self.path_mtu(remote.ip()) else { return };
        let details = Details { path_mtu: Some(mtu as u32), ..Details::default() };
        let (place, along) = match peer {
            None => ((SocketAddr::new(remote.ip(), 0), Some(details)), None),
            // Only the end of its peer can send to a connected socket.
            Some(peer) if peer.ip() == remote.ip() => {
                ((peer, None), descriptor(&AncillaryData { details, headers: Vec::new() }))
            }
            Some(_) => return,
        };
        if let Ok(end) = self.end(owner, place)
            && let Some((datagrams, ..)) = self.datagrams_at(owner)
            && let Err(error) = datagrams.tell(end, along)
        {
            tracing::debug!(%error, "a path's MTU was not told");
        }
    }

    /// Returns the largest IP packet known to reach `remote`, bytes.
    ///
    /// # Errors
    /// ENETUNREACH if `remote` is in no network.
    pub(crate) fn path_mtu(&self, remote: IpAddr) -> Result<usize, Errno> {
        let node = self.context.node()?;
        let datapath = &node.datapath();
        let (now, remote) = (Instant::now(), self.context.aliases.meant(remote.to_canonical()));
        let interface = datapath.interface_to(now, &node.scope(None), remote).ok_or(Errno::NETUNREACH)?;
        let reported = datapath.stack().path_mtu(interface, remote);
        let link = datapath.mtu_to(now, interface, remote);
        Ok(reported.map_or(link, |reported| reported.min(link)))
    }
}
