//! virtio's header in front of each packet (virtio 1.2, 5.1.6; linux/virtio_net.h): the work that is left to
//! the receiver.

use peersock::device::{Offload, PartialChecksum, Segments};
use tun_rs::{
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4, VIRTIO_NET_HDR_LEN,
    VirtioNetHdr,
};

// Further definitions of linux/virtio_net.h: a checksum must be completed; no segmentation; TCP with ECN.
const VIRTIO_NET_HDR_F_NEEDS_CSUM: u8 = 1;
const VIRTIO_NET_HDR_GSO_NONE: u8 = 0;
const VIRTIO_NET_HDR_GSO_ECN: u8 = 0x80;

/// Length of the header in bytes.
pub(crate) const HEADER: usize = VIRTIO_NET_HDR_LEN;

/// The request of the kernel for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The packet leaves unchanged, or in TCP segments.
    Packet(Offload),
    /// The packet becomes several UDP datagrams with `payload` bytes each, except the last.
    Datagrams { payload: usize, checksum: PartialChecksum },
}

/// Parses the header of a packet from the kernel; `None` if it requests features that the device has not
/// offered.
pub(crate) fn read(header: &[u8]) -> Option<Wanted> {
    let header = VirtioNetHdr::decode(header).ok()?;
    let needs_checksum = header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
    let (start, offset) = (header.csum_start, header.csum_offset);
    let checksum = needs_checksum.then_some(PartialChecksum { start, offset });
    let payload = usize::from(header.gso_size);
    match header.gso_type & !VIRTIO_NET_HDR_GSO_ECN {
        VIRTIO_NET_HDR_GSO_NONE => Some(Wanted::Packet(Offload { checksum, segments: None })),
        VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_TCPV6 if payload > 0 => {
            // The value in the header is a hint, so the length of the headers is read from them.
            let segments = Some(Segments { header_len: header.hdr_len.into(), payload });
            Some(Wanted::Packet(Offload { checksum, segments }))
        }
        VIRTIO_NET_HDR_GSO_UDP_L4 if payload > 0 => Some(Wanted::Datagrams { payload, checksum: checksum? }),
        _ => None,
    }
}

/// Makes the header of a packet for the kernel.
pub(crate) fn write(packet: &[u8], offload: &Offload) -> [u8; HEADER] {
    let mut header = VirtioNetHdr::default();
    if let Some(PartialChecksum { start, offset }) = offload.checksum {
        header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        (header.csum_start, header.csum_offset) = (start, offset);
    }
    if let Some(Segments { header_len, payload }) = offload.segments {
        header.gso_type = match packet.first().map(|first| first >> 4) {
            Some(4) => VIRTIO_NET_HDR_GSO_TCPV4,
            _ => VIRTIO_NET_HDR_GSO_TCPV6,
        };
        (header.hdr_len, header.gso_size) = (header_len as u16, payload as u16);
    }
    let mut bytes = [0; HEADER];
    header.encode(&mut bytes).expect("it has the header's length");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let checksum = Some(PartialChecksum { start: 40, offset: 16 });
        let segments = Some(Segments { header_len: 72, payload: 1348 });
        for offload in
            [Offload::default(), Offload { checksum, segments: None }, Offload { checksum, segments }]
        {
            assert_eq!(read(&write(&[0x60], &offload)), Some(Wanted::Packet(offload)));
        }
        let written = write(&[0x45], &Offload { checksum, segments });
        assert_eq!(written[1], VIRTIO_NET_HDR_GSO_TCPV4);
    }

    #[test]
    fn what_was_not_offered_is_refused() {
        let checksum = Some(PartialChecksum { start: 40, offset: 16 });
        let mut header =
            write(&[0x60], &Offload { checksum, segments: Some(Segments { header_len: 60, payload: 9 }) });
        header[1] = VIRTIO_NET_HDR_GSO_TCPV6 | VIRTIO_NET_HDR_GSO_ECN;
        assert!(read(&header).is_some());
        // Fragmentation by the device (UFO), and segments without a size.
        header[1] = 3;
        assert_eq!(read(&header), None);
        header[1] = VIRTIO_NET_HDR_GSO_TCPV6;
        (header[4], header[5]) = (0, 0);
        assert_eq!(read(&header), None);
        assert_eq!(read(&header[..4]), None);
    }
}
