//! Settings before a script begins, and the stack under test.

use std::net::IpAddr;
use std::time::Instant;

use peersock_stack::*;

/// Initial sequence number of the peer, unless the script sets one.
const PEER_ISN: u32 = 1_000_000;

/// Settings before a script begins.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) options: TcpOptions,
    pub(crate) ports: std::ops::RangeInclusive<u16>,
    pub(crate) checksums: bool,
    pub(crate) mtu: usize,
    pub(crate) max_segments: usize,
    pub(crate) cap: usize,
    pub(crate) peer_isn: u32,
    pub(crate) own_isn: Option<u32>,
}

/// The stack under test, with one interface.
pub(crate) struct Host {
    pub(crate) stack: Stack,
    pub(crate) net: InterfaceId,
    pub(crate) batch: Batch,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: Config::default(),
            // Reno's window alone limits sending, which scripts can predict; BBR has separate tests.
            options: TcpOptions { congestion: CongestionControl::Reno, ..TcpOptions::default() },
            ports: 0..=u16::MAX,
            checksums: false,
            mtu: 1500,
            max_segments: 44,
            cap: usize::MAX,
            peer_isn: PEER_ISN,
            own_isn: None,
        }
    }
}

impl Setup {
    pub(crate) fn host(&self, ipv6: bool, now: Instant) -> Host {
        let stack = Stack::new(self.config.clone(), [7; 32], now);
        let own = Cidr::new(address(ipv6, true), 24).expect("both families have longer addresses");
        let mut interface = InterfaceConfig::new("net", [own]);
        interface.checksums = self.checksums;
        interface.ports = self.ports.clone();
        let net = stack.add_interface(interface);
        Host { stack, net, batch: Batch::new() }
    }

    pub(crate) fn limits(&self, ipv6: bool) -> Egress {
        Egress {
            segment: self.mtu - if ipv6 { 60 } else { 40 },
            max_segments: self.max_segments,
            in_flight_cap: self.cap,
            checksums: self.checksums,
        }
    }
}

/// Returns the stack's address, or the peer's.
pub(crate) fn address(ipv6: bool, own: bool) -> IpAddr {
    let text = match (ipv6, own) {
        (false, true) => "10.0.0.1",
        (false, false) => "10.0.0.2",
        (true, true) => "fd00::1",
        (true, false) => "fd00::2",
    };
    text.parse().expect("an address")
}
