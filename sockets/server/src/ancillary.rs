//! Ancillary data of sent and received datagrams, converted between the names of applications and of the
//! stack.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use peersock_fd::{AncillaryData, Details, Errno, Family, Header, PacketInfo, SendFlags, send_with};
use peersock_stack::{ExtensionHeaders, InterfaceId, SendOptions, TrafficClass};

use crate::context::Context;
use crate::options::{Options, own_headers};

/// Settings of one datagram that override its socket's options.
#[derive(Debug, Default)]
pub(crate) struct DatagramOptions {
    details: Option<Details>,
    headers: DatagramHeaders,
}

/// Extension headers of one datagram.
#[derive(Debug, Default)]
enum DatagramHeaders {
    /// The headers of the socket's options.
    #[default]
    Usual,
    /// These headers, or none. As in Linux, they replace all headers of the options, of any kind.
    Own(Option<ExtensionHeaders>),
}

impl DatagramOptions {
    /// # Errors
    /// EINVAL for invalid headers.
    pub(crate) fn new(details: Option<Details>, headers: &[Header]) -> Result<Self, Errno> {
        let headers = match headers {
            [] => DatagramHeaders::Usual,
            headers => DatagramHeaders::Own(own_headers(headers)?),
        };
        Ok(Self { details, headers })
    }

    /// Returns the length of each datagram that the data is split into (UDP_SEGMENT).
    pub(crate) fn segment(&self) -> Option<NonZeroU16> {
        self.details.and_then(|details| details.segment)
    }

    /// Returns settings without explicit extension headers.
    pub(crate) fn plain(details: Option<Details>) -> Self {
        Self { details, headers: DatagramHeaders::Usual }
    }
}

impl Context {
    /// Returns the settings for a datagram to `remote`. Its ancillary data takes precedence over the socket's
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

    /// Returns a datagram's details with addresses as a socket of the family shows them.
    pub(crate) fn shown_details(&mut self, family: Family, details: Details) -> Details {
        let packet_info = details.packet_info.map(|info| PacketInfo {
            local: self.shown(family, SocketAddr::new(info.local, 0)).ip(),
            ..info
        });
        Details { packet_info, ..details }
    }
}

/// Returns a descriptor that carries ancillary data along with a datagram.
pub(crate) fn descriptor(beside: &AncillaryData) -> Option<OwnedFd> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("details", flags).ok()?);
    file.write_all(&beside.encode()).ok()?;
    Some(file.into())
}

/// Sends a datagram to the application, with a descriptor if `along` is given.
pub(crate) fn hand_over(end: &OwnedFd, data: &[u8], along: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    send_with(end.as_fd(), data, along, SendFlags::DONTWAIT)
}
