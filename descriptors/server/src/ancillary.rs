//! What datagrams are sent with, and what is told of those that come: between an application's names and the
//! stack's.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use peersock_fd::{AncillaryData, Details, Errno, Family, Header, PacketInfo, SendFlags, send_with};
use peersock_stack::{ExtensionHeaders, InterfaceId, SendOptions, TrafficClass};

use crate::context::Context;
use crate::options::{Options, own_headers};

/// What a datagram asks for instead of what its socket's options say.
#[derive(Debug, Default)]
pub(crate) struct DatagramOptions {
    details: Option<Details>,
    headers: DatagramHeaders,
}

/// The extension headers that a datagram asks for.
#[derive(Debug, Default)]
enum DatagramHeaders {
    /// Those of the socket's options.
    #[default]
    Usual,
    /// These, or none at all: as in Linux those of the options are left out, of whatever kind.
    Own(Option<ExtensionHeaders>),
}

impl DatagramOptions {
    /// # Errors
    /// EINVAL for headers that make no sense.
    pub(crate) fn new(details: Option<Details>, headers: &[Header]) -> Result<Self, Errno> {
        let headers = match headers {
            [] => DatagramHeaders::Usual,
            headers => DatagramHeaders::Own(own_headers(headers)?),
        };
        Ok(Self { details, headers })
    }

    /// UDP_SEGMENT: how long each datagram is of what is sent.
    pub(crate) fn segment(&self) -> Option<NonZeroU16> {
        self.details.and_then(|details| details.segment)
    }

    /// Without extension headers of its own.
    pub(crate) fn plain(details: Option<Details>) -> Self {
        Self { details, headers: DatagramHeaders::Usual }
    }
}

impl Context {
    /// What a datagram to `remote` is sent with: what its ancillary data asks for, and else the socket's own
    /// options.
    pub(crate) fn send_options<'a>(
        &self,
        options: &'a Options,
        remote: IpAddr,
        asked: &'a DatagramOptions,
    ) -> SendOptions<'a> {
        let details = asked.details.unwrap_or_default();
        let info = details.packet_info.or_else(|| options.sticky(remote));
        let headers = match &asked.headers {
            DatagramHeaders::Usual => options.sticky_headers(),
            DatagramHeaders::Own(own) => own.as_ref(),
        };
        SendOptions {
            hop_limit: details.hop_limit,
            traffic_class: details.traffic_class.map(TrafficClass),
            source: info
                .map(|info| self.aliases.meant(info.local.to_canonical()))
                .filter(|local| !local.is_unspecified()),
            interface: info
                .map(|info| InterfaceId(info.interface.into()))
                .filter(|interface| interface.0 != 0),
            headers,
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

/// A descriptor that goes along with a datagram.
pub(crate) fn descriptor(beside: &AncillaryData) -> Option<OwnedFd> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("details", flags).ok()?);
    file.write_all(&beside.encode()).ok()?;
    Some(file.into())
}

/// Gives a datagram to the application, with a descriptor if there is one.
pub(crate) fn hand_over(end: &OwnedFd, data: &[u8], along: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    send_with(end.as_fd(), data, along, SendFlags::DONTWAIT)
}
