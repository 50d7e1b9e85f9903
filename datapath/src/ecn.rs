//! Explicit congestion notification through the tunnel (RFC 6040): the outer header takes the inner one's
//! code point along, and a router's mark on the outer one is carried over to the inner one.

/// Code points of RFC 3168, as the two lowest bits of the traffic class.
const NOT_ECT: u8 = 0b00;
const CE: u8 = 0b11;

/// Returns an inner packet's code point.
pub(super) fn of(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 4 => second & CE,
        [first, second, ..] if first >> 4 == 6 => second >> 4 & CE,
        _ => NOT_ECT,
    }
}

/// Copies a mark of the outer header to `packet`. Returns false if the packet must be dropped, because its
/// sender would not hear of the congestion otherwise (RFC 6040 section 4.2).
pub(super) fn mark(packet: &mut [u8]) -> bool {
    if of(packet) == NOT_ECT {
        return false;
    }
    match packet[0] >> 4 {
        4 => packet[1] |= CE,
        _ => packet[1] |= CE << 4,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_carried_over_to_packets_whose_sender_understands_them() {
        for (version, shift) in [(0x40, 0), (0x60, 4)] {
            let packet = |code: u8| [version, code << shift | 0x04, 0, 0];
            for code in 0..4 {
                assert_eq!(of(&packet(code)), code);
            }
            let mut not_capable = packet(NOT_ECT);
            assert!(!mark(&mut not_capable));
            for code in 1..4 {
                let mut capable = packet(code);
                assert!(mark(&mut capable));
                assert_eq!(capable, packet(CE), "nothing else changes");
            }
        }
        assert!(!mark(&mut []));
    }
}
