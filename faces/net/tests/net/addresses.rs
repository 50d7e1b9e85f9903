//! Addresses, hosts and ports, and rejected texts.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use peersock_net::{
    Addr, IpAddr, Network, SocketError, TcpAddr, UdpAddr, UnixAddr, join_host_port, split_host_port,
};

use crate::table::rows;

#[test]
fn hosts_and_ports_are_split() {
    for [text, host, port] in rows("split") {
        assert_eq!(split_host_port(&text), Ok((&*host, &*port)), "{text}");
    }
}

#[test]
fn malformed_hosts_and_ports_are_refused() {
    for [text, reason] in rows("malformed") {
        let error = split_host_port(&text).expect_err(&text);
        assert_eq!((error.reason(), error.address()), (&*reason, &*text));
        assert!(text.parse::<TcpAddr>().is_err(), "{text}");
    }
}

#[test]
fn hosts_and_ports_are_joined() {
    for [host, port, text] in rows("join") {
        assert_eq!(join_host_port(&host, &port), text);
        assert_eq!(split_host_port(&text), Ok((&*host, &*port)));
    }
}

#[test]
fn addresses_are_values_with_a_text() {
    for [network, ip, port, text] in rows("address") {
        let at = || match &*ip {
            "" => IpAddr::default(),
            ip => ip.parse().expect("an IP address"),
        };
        let port = || port.parse().expect("a port");
        let (addr, read): (Addr, _) = match &*network {
            "ip" => (at().into(), text.parse().map(Addr::Ip)),
            "tcp" => (TcpAddr::new(at(), port()).into(), text.parse().map(Addr::Tcp)),
            "udp" => (UdpAddr::new(at(), port()).into(), text.parse().map(Addr::Udp)),
            "unix" => {
                (UnixAddr::stream(&ip).expect("a path").into(), UnixAddr::stream(&text).map(Addr::Unix))
            }
            _ => (UnixAddr::datagram(&ip).expect("a name").into(), UnixAddr::datagram(&text).map(Addr::Unix)),
        };
        assert_eq!((addr.to_string(), addr.network().name()), (text, &*network));
        assert_eq!(read, Ok(addr));
    }
    assert_eq!(TcpAddr::any(80), TcpAddr::new(IpAddr::default(), 80));
}

#[test]
fn what_ip_addresses_tell() {
    let v4: IpAddr = "127.0.0.1".parse().expect("an address");
    assert_eq!((v4.ip(), v4.is_ipv6()), (Some(Ipv4Addr::LOCALHOST.into()), false));
    assert_eq!((v4.zone(), v4.scope_id(), v4.flowinfo()), ("", Ok(0), 0));
    let v6 = "fe80::1%lo".parse::<IpAddr>().and_then(|v6| v6.with_flowinfo(5)).expect("an address");
    assert_eq!((v6.is_ipv6(), v6.zone(), v6.flowinfo()), (true, "lo", 5));
    let lo = v6.scope_id().expect("there is a loopback interface");
    assert!(lo > 0);
    assert_eq!("fe80::1%7".parse::<IpAddr>().and_then(|addr| addr.scope_id()), Ok(7));
    let missing = "fe80::1%none0".parse::<IpAddr>().and_then(|addr| addr.scope_id());
    assert_eq!(missing.expect_err("there is none").reason(), "there is no interface none0");
    // Converts to a system address and back.
    let addr = TcpAddr::new(v6, 80);
    let Ok(SocketAddr::V6(system)) = addr.to_socket_addr() else { panic!("{addr} is an IPv6 address") };
    assert_eq!((system.scope_id(), system.flowinfo()), (lo, 5_u32.to_be()));
    assert_eq!(TcpAddr::from(SocketAddr::V6(system)), addr);
}

#[test]
fn what_is_no_address_is_refused() {
    for [text] in rows("no-ip") {
        assert!(text.parse::<IpAddr>().is_err(), "{text}");
    }
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    assert!(v6.clone().with_flowinfo(1 << 20).is_err());
    assert!(v6.clone().with_zone("a%b").is_err());
    assert!(IpAddr::from(Ipv4Addr::LOCALHOST).with_flowinfo(1).is_err());
    assert!(IpAddr::from(Ipv4Addr::LOCALHOST).with_zone("lo").is_err());
    assert!(IpAddr::default().with_zone("lo").is_err());
    for [port] in rows("no-port") {
        assert!(format!("127.0.0.1:{port}").parse::<UdpAddr>().is_err(), "{port}");
    }
    let error = UnixAddr::stream("a\0b").expect_err("a NUL");
    assert!(error.reason().contains("NUL"));
}

#[test]
fn networks_have_names() {
    for network in Network::ALL {
        assert_eq!(network.name().parse(), Ok(network));
    }
    for [name] in rows("unknown") {
        let error = name.parse::<Network>().expect_err("there is none");
        assert_eq!(error.network(), name);
        let error = SocketError::from(error);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!((error.raw_os_error(), error.written()), (None, 0));
    }
}
