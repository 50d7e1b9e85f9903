//! Addresses of this node for TCP.

use std::net::SocketAddr;

use super::{Candidate, CandidateKind, Contact, Nat, OwnContact};
use crate::id::PublicIdentity;
use crate::wire::{RootVoucher, Voucher};

/// Everything this node can tell about its own addresses for TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnTcp {
    /// Local port to connect from and to listen on.
    pub(crate) port: u16,
    /// Addresses at which others may reach that port.
    pub(crate) contact: Contact,
    /// The roots' vouchers: first those for the node's TCP address.
    pub(crate) vouchers: Vec<RootVoucher>,
}

/// A root's sighting of this node's end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenByTcp {
    pub(crate) root: PublicIdentity,
    /// Local port of the stream.
    pub(crate) port: u16,
    pub(crate) voucher: Voucher,
    /// True if this node uses the root only because another root has named it.
    pub(crate) is_guest: bool,
}

impl OwnContact {
    /// Returns this node's addresses for TCP; `None` if it knows none.
    pub(crate) fn tcp(&self, most_vouchers: usize) -> Option<OwnTcp> {
        // A node without NAT is seen at its own address, which is then no interface candidate in its contact.
        let own = self.given().candidates().iter().filter(|one| one.kind == CandidateKind::Interface);
        let own: Vec<SocketAddr> = own.map(|one| one.address).collect();
        // Connections leave from the port of a stream to a root. A NAT box with endpoint-independent mapping
        // has one address for both, which the root has seen (RFC 5382, REQ-1).
        let stream = self.seen_by_tcp().iter().find(|one| !one.is_guest);
        let port = stream.map(|one| one.port).or(own.first().map(SocketAddr::port))?;
        let seen = self.seen_by_tcp().iter().filter(|one| one.port == port);
        let mapped = seen.clone().map(|one| one.voucher.address);
        // Without a stream, the number of the UDP port is used. Many boxes keep it, so the address seen by
        // UDP is worth a try with that port.
        let by_udp = self.contact().public().map(|ip| SocketAddr::new(ip, port));
        let mapped = mapped.chain(by_udp.filter(|_| stream.is_none()));
        let mapped = mapped.map(|address| Candidate { kind: CandidateKind::Mapped, address });
        let inside = own.iter().map(|address| Candidate {
            kind: CandidateKind::Interface,
            address: SocketAddr::new(address.ip(), port),
        });
        let contact = Contact::new(Nat::default(), mapped.chain(inside));
        let shown = |one: &SeenByTcp| RootVoucher::new(&one.root.node_id(), one.voucher);
        let mut vouchers: Vec<_> = seen.map(shown).collect();
        vouchers.extend(self.vouchers(most_vouchers, None));
        vouchers.truncate(most_vouchers);
        (!contact.candidates().is_empty()).then_some(OwnTcp { port, contact, vouchers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contact::Seen;
    use crate::id::Identity;

    #[test]
    fn the_port_of_a_stream_to_a_root_is_used_for_others_too() {
        let mut own = at_home();
        own.set_seen_by_tcp(vec![seen(2, 33_000, "203.0.113.9:41000")]);
        let tcp = own.tcp(4).expect("addresses");
        assert_eq!(tcp.port, 33_000);
        assert_eq!(texts(&tcp), ["203.0.113.9:41000", "10.0.0.1:33000"]);
        assert_eq!(tcp.vouchers.len(), 1);
        // A mapping of another port does not apply to this one.
        own.set_seen_by_tcp(vec![seen(2, 33_000, "203.0.113.9:41000"), seen(3, 33_001, "203.0.113.9:41001")]);
        assert_eq!(texts(&own.tcp(4).expect("addresses")), ["203.0.113.9:41000", "10.0.0.1:33000"]);
    }

    #[test]
    fn without_a_stream_the_number_of_the_udp_port_is_used() {
        let mut own = at_home();
        assert_eq!(texts(&own.tcp(4).expect("addresses")), ["10.0.0.1:4000"]);
        let root = Identity::from_seed(&[2; 32]);
        let voucher = Voucher::sign(&root, &root.node_id(), 1, "203.0.113.9:51000".parse().unwrap());
        let at = "198.51.100.1:7420".parse().unwrap();
        own.set_seen(vec![Seen { root: *root.public(), at, voucher, is_guest: false }]);
        let tcp = own.tcp(4).expect("addresses");
        assert_eq!(
            (tcp.port, texts(&tcp)),
            (4000, ["203.0.113.9:4000", "10.0.0.1:4000"].map(str::to_owned).to_vec())
        );
        assert_eq!(tcp.vouchers.len(), 1, "it vouches for the IP address");
        assert_eq!(OwnContact::default().tcp(4), None);
    }

    #[test]
    fn a_node_that_is_seen_at_its_own_address_can_be_connected_to_there() {
        let mut own = at_home();
        let root = Identity::from_seed(&[2; 32]);
        let voucher = Voucher::sign(&root, &root.node_id(), 1, "10.0.0.1:4000".parse().unwrap());
        let at = "198.51.100.1:7420".parse().unwrap();
        own.set_seen(vec![Seen { root: *root.public(), at, voucher, is_guest: false }]);
        let tcp = own.tcp(4).expect("addresses");
        assert_eq!((tcp.port, texts(&tcp)), (4000, vec!["10.0.0.1:4000".to_owned()]));
    }

    fn at_home() -> OwnContact {
        let mut own = OwnContact::default();
        let address = "10.0.0.1:4000".parse().unwrap();
        own.set_given(Contact::new(Nat::default(), [Candidate { kind: CandidateKind::Interface, address }]));
        own
    }

    fn seen(root: u8, port: u16, address: &str) -> SeenByTcp {
        let root = Identity::from_seed(&[root; 32]);
        let voucher = Voucher::sign_tcp(&root, &root.node_id(), 1, address.parse().unwrap());
        SeenByTcp { root: *root.public(), port, voucher, is_guest: false }
    }

    fn texts(tcp: &OwnTcp) -> Vec<String> {
        tcp.contact.candidates().iter().map(|one| one.address.to_string()).collect()
    }
}
