//! Segmentation of a large UDP_SEGMENT packet into datagrams.

use peersock::device::PartialChecksum;

/// Length of UDP's header in bytes.
const UDP: usize = 8;

/// Sends the datagrams of one large packet, each with its headers. `piece` is a buffer for one datagram. An
/// invalid packet gives none.
pub(crate) fn cut(
    packet: &[u8],
    payload: usize,
    checksum: PartialChecksum,
    piece: &mut Vec<u8>,
    mut send: impl FnMut(&mut [u8]),
) {
    let start = usize::from(checksum.start);
    let Some((headers, data)) = packet.split_at_checked(start + UDP) else { return };
    let ip_len = match headers[0] >> 4 {
        4 => 20,
        _ => 40,
    };
    if start < ip_len || payload == 0 {
        return;
    }
    for (number, chunk) in data.chunks(payload).enumerate() {
        piece.clear();
        piece.extend_from_slice(headers);
        piece.extend_from_slice(chunk);
        let length = (UDP + chunk.len()) as u16;
        piece[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
        let total = piece.len() as u16;
        if ip_len == 20 {
            piece[2..4].copy_from_slice(&total.to_be_bytes());
            let first = u16::from_be_bytes([headers[4], headers[5]]);
            piece[4..6].copy_from_slice(&first.wrapping_add(number as u16).to_be_bytes());
        } else {
            piece[4..6].copy_from_slice(&(total - 40).to_be_bytes());
        }
        send(piece);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_have_all_bytes_in_order(ipv6: bool, data in prop::collection::vec(any::<u8>(), 1..5000), size in 1..1500_usize) {
            let start = if ipv6 { 40 } else { 20 };
            let mut packet = vec![0; start + UDP];
            packet[0] = if ipv6 { 0x60 } else { 0x45 };
            packet.extend(&data);
            let (mut all, mut count) = (Vec::new(), 0);
            cut(&packet, size, PartialChecksum { start: start as u16, offset: 6 }, &mut Vec::new(), |piece| {
                let said = usize::from(u16::from_be_bytes([piece[start + 4], piece[start + 5]]));
                assert_eq!(said, piece.len() - start);
                let (at, extra) = if ipv6 { (4, 40) } else { (2, 0) };
                assert_eq!(usize::from(u16::from_be_bytes([piece[at], piece[at + 1]])) + extra, piece.len());
                all.extend_from_slice(&piece[start + UDP..]);
                count += 1;
            });
            prop_assert_eq!(count, data.len().div_ceil(size));
            prop_assert_eq!(all, data);
        }

        #[test]
        fn any_bytes_are_survived(packet in prop::collection::vec(any::<u8>(), 0..100), start: u16, size in 0..50_usize) {
            cut(&packet, size, PartialChecksum { start, offset: 6 }, &mut Vec::new(), |_| {});
        }
    }
}
