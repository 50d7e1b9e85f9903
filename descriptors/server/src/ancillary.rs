//! What datagrams are sent with, and what is told of those that come: between an application's names and the
//! stack's.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use peersock_fd::{Details, Errno, Family, PacketInfo, SendFlags, send_with};
use peersock_stack::{InterfaceId, SendOptions, TrafficClass};

use crate::context::Context;
use crate::options::Options;

impl Context {
    /// What a datagram to `remote` is sent with: what its ancillary data asks for, and else the socket's own
    /// options.
    pub(crate) fn send_options(
        &self,
        options: &Options,
        remote: IpAddr,
        details: Option<Details>,
    ) -> SendOptions {
        let details = details.unwrap_or_default();
        let info = details.packet_info.or_else(|| options.sticky(remote));
        SendOptions {
            hop_limit: details.hop_limit,
            traffic_class: details.traffic_class.map(TrafficClass),
            source: info
                .map(|info| self.aliases.meant(info.local.to_canonical()))
                .filter(|local| !local.is_unspecified()),
            interface: info
                .map(|info| InterfaceId(info.interface.into()))
                .filter(|interface| interface.0 != 0),
            ..SendOptions::default()
        }
    }

    /// What is told of a datagram, with addresses as a socket of the family shows them.
    pub(crate) fn shown_details(&mut self, family: Family, details: Details) -> Details {
        let packet_info = details.packet_info.map(|info| PacketInfo {
            local: self.shown(family, SocketAddr::new(info.local, 0)).ip(),
            ..info
        });
        Details { packet_info, ..details }
    }
}

/// A descriptor that holds details, to go along with a datagram: a connected AF_UNIX socket has only one
/// other end, whose name cannot tell them.
pub(crate) fn descriptor(details: &Details) -> Option<OwnedFd> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("details", flags).ok()?);
    file.write_all(&details.encode()).ok()?;
    Some(file.into())
}

/// Gives a datagram to the application, with a descriptor if there is one.
pub(crate) fn hand_over(end: &OwnedFd, data: &[u8], along: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    send_with(end.as_fd(), data, along, SendFlags::DONTWAIT)
}
