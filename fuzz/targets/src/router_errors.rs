//! ICMP errors of routers behind a gateway or an exit.

use std::net::IpAddr;

use arbitrary::Arbitrary;
use peersock_datapath::fuzzing::router_error;

use crate::input::{Damage, damaged, one};

#[derive(Debug, Arbitrary)]
struct Error {
    router: [u8; 4],
    sender: [u8; 4],
    target: [u8; 4],
    kind: u8,
    behind: Vec<u8>,
    damages: Vec<Damage>,
}

/// Checks that an error reads as written. Of an altered error, only the sender of the quoted packet is
/// believed, because the error goes to that sender.
pub fn router_errors(data: &[u8]) {
    to_sender(data);
    let Some(Error { router, sender, target, kind, behind, damages }) = one::<Error>(data) else { return };
    let inner = [&[0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 6, 0, 0][..], &sender, &target, &behind].concat();
    let head = [0x45, 0, 0, 56, 0, 0, 0x40, 0, 64, 1, 0, 0];
    let packet = [&head[..], &router, &sender, &[kind, 0, 0, 0, 0, 0, 5, 0], &inner].concat();
    let read = matches!(kind, 3 | 11 | 12).then(|| [router, sender, target].map(IpAddr::from));
    assert_eq!(router_error(&packet), read);
    to_sender(&damaged(&packet, &damages));
}

fn to_sender(packet: &[u8]) {
    let Some([router, sender, target]) = router_error(packet) else { return };
    let destination = match sender {
        IpAddr::V4(sender) => packet[16..20] == sender.octets(),
        IpAddr::V6(sender) => packet[24..40] == sender.octets(),
    };
    assert!(destination, "an error for {sender} goes to somebody else");
    assert!(router.is_ipv4() == sender.is_ipv4() && sender.is_ipv4() == target.is_ipv4());
}
