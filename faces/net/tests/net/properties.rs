//! Any text is either an address or an error.

use peersock_net::{IpAddr, TcpAddr, UdpAddr, UnixAddr, join_host_port, split_host_port};
use proptest::prelude::*;

/// Generates texts made of the characters of addresses, and arbitrary texts.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[\\[\\]:%.0-9a-f@-]{0,40}", any::<String>()]
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in texts()) {
        if let Ok((host, port)) = split_host_port(&text) {
            prop_assert!(!host.contains(['[', ']']) && !port.contains(['[', ']', ':']));
            let joined = join_host_port(host, port);
            prop_assert_eq!(split_host_port(&joined), Ok((host, port)));
        }
        if let Ok(addr) = text.parse::<IpAddr>() {
            prop_assert_eq!(addr.to_string().parse(), Ok(addr.clone()));
            let _ = addr.scope_id();
        }
        if let Ok(addr) = text.parse::<TcpAddr>() {
            prop_assert_eq!(addr.to_string().parse(), Ok(addr));
        }
        if let Ok(addr) = UnixAddr::datagram(&text) {
            prop_assert_eq!(addr.to_string(), text);
        }
    }

    #[test]
    fn hosts_and_ports_come_out_as_they_went_in(host in "[^\\[\\]]*", port in "[^\\[\\]:]*") {
        let joined = join_host_port(&host, &port);
        prop_assert_eq!(split_host_port(&joined), Ok((&*host, &*port)));
    }

    #[test]
    fn addresses_come_out_as_they_went_in(
        ip in any::<std::net::IpAddr>(), port: u16, zone in "[a-z0-9]{0,8}", flow in 0..=0xF_FFFF_u32,
    ) {
        let addr = match IpAddr::from(ip) {
            addr if addr.is_ipv6() => addr.with_zone(zone).expect("it fits"),
            addr => addr,
        };
        let addr = UdpAddr::new(addr, port);
        prop_assert_eq!(addr.to_string().parse(), Ok(addr));
        let system = match (ip, flow) {
            (std::net::IpAddr::V6(ip), flow) => {
                std::net::SocketAddrV6::new(ip, port, flow.to_be(), 0).into()
            }
            (ip, _) => std::net::SocketAddr::new(ip, port),
        };
        let again = UdpAddr::from(system).to_socket_addr().expect("it has no zone");
        prop_assert_eq!(again.ip(), system.ip().to_canonical());
        prop_assert_eq!(UdpAddr::from(again), UdpAddr::from(system));
    }
}
