//! Addresses, hosts and ports, and rejected texts.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use peersock_net::{
    Addr, IpAddr, Network, SocketError, TcpAddr, UdpAddr, UnixAddr, join_host_port, split_host_port,
};

#[test]
fn hosts_and_ports_are_split() {
    for (text, host, port) in [
        ("localhost:http", "localhost", "http"),
        ("127.0.0.1:80", "127.0.0.1", "80"),
        ("[::1]:80", "::1", "80"),
        ("[fe80::1%lo]:80", "fe80::1%lo", "80"),
        ("[localhost]:80", "localhost", "80"),
        ("[localhost%lo]:80", "localhost%lo", "80"),
        (":80", "", "80"),
        ("host:", "host", ""),
        (":", "", ""),
        ("[]:", "", ""),
        ("[::1]:", "::1", ""),
        ("golang.org:https%foo", "golang.org", "https%foo"),
        ("a b:c d", "a b", "c d"),
    ] {
        assert_eq!(split_host_port(text), Ok((host, port)), "{text}");
    }
}

#[test]
fn malformed_hosts_and_ports_are_refused() {
    for (text, reason) in [
        ("", "missing port in address"),
        ("localhost", "missing port in address"),
        ("127.0.0.1", "missing port in address"),
        ("[::1]", "missing port in address"),
        ("[::1]80", "missing port in address"),
        ("[fe80::1%lo]", "missing port in address"),
        ("[a]b:80", "missing port in address"),
        ("::1", "too many colons in address"),
        ("::1:80", "too many colons in address"),
        ("fe80::1%lo:80", "too many colons in address"),
        ("a:b:80", "too many colons in address"),
        ("[::1]::80", "too many colons in address"),
        ("[a]:b:80", "too many colons in address"),
        ("[::1:80", "missing ']' in address"),
        ("[:", "missing ']' in address"),
        ("::1]:80", "too many colons in address"),
        ("a]:80", "unexpected ']' in address"),
        ("a[:80", "unexpected '[' in address"),
        ("[[::1]:80", "unexpected '[' in address"),
        ("[a]]:80", "missing port in address"),
        ("[a[b]:80", "unexpected '[' in address"),
        ("a:[80", "unexpected '[' in address"),
        ("a:80]", "unexpected ']' in address"),
        ("[a]:[80]", "unexpected '[' in address"),
    ] {
        let error = split_host_port(text).expect_err(text);
        assert_eq!((error.reason(), error.address()), (reason, text));
        assert!(text.parse::<TcpAddr>().is_err(), "{text}");
    }
}

#[test]
fn hosts_and_ports_are_joined() {
    for (host, port, text) in [
        ("localhost", "http", "localhost:http"),
        ("::1", "80", "[::1]:80"),
        ("fe80::1%lo", "80", "[fe80::1%lo]:80"),
        ("", "0", ":0"),
    ] {
        assert_eq!(join_host_port(host, port), text);
        assert_eq!(split_host_port(text), Ok((host, port)));
    }
}

#[test]
fn addresses_are_values_with_a_text() {
    let v6 = "fd00::1".parse::<Ipv6Addr>().expect("an IPv6 address");
    let mapped: Ipv6Addr = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
    let zoned = IpAddr::from("fe80::1".parse::<Ipv6Addr>().expect("an IPv6 address")).with_zone("lo");
    let zoned = zoned.expect("a zone fits");
    for (addr, text, network) in [
        (IpAddr::from(Ipv4Addr::new(10, 0, 0, 1)).into(), "10.0.0.1", Network::Ip),
        (zoned.clone().into(), "fe80::1%lo", Network::Ip),
        (IpAddr::default().into(), "", Network::Ip),
        (TcpAddr::new(Ipv4Addr::new(10, 0, 0, 1), 80).into(), "10.0.0.1:80", Network::Tcp),
        (TcpAddr::new(v6, 80).into(), "[fd00::1]:80", Network::Tcp),
        (TcpAddr::new(zoned, 80).into(), "[fe80::1%lo]:80", Network::Tcp),
        (TcpAddr::any(80).into(), ":80", Network::Tcp),
        (UdpAddr::new(Ipv6Addr::UNSPECIFIED, 53).into(), "[::]:53", Network::Udp),
        (UdpAddr::new(mapped, 53).into(), "10.0.0.1:53", Network::Udp),
        (UnixAddr::stream("/tmp/x").expect("a path").into(), "/tmp/x", Network::Unix),
        (UnixAddr::datagram("@x").expect("a name").into(), "@x", Network::Unixgram),
    ] {
        let addr: Addr = addr;
        assert_eq!((addr.to_string(), addr.network()), (text.to_owned(), network));
        let read = match network {
            Network::Ip => text.parse().map(Addr::Ip),
            Network::Tcp => text.parse().map(Addr::Tcp),
            Network::Udp => text.parse().map(Addr::Udp),
            Network::Unix => UnixAddr::stream(text).map(Addr::Unix),
            _ => UnixAddr::datagram(text).map(Addr::Unix),
        };
        assert_eq!(read, Ok(addr), "{text}");
    }
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
    for text in
        ["127.1", "127.0.0.01", "1.2.3.256", "fe80::1%", "127.0.0.1%lo", "::1::2", "localhost", "1%2%3"]
    {
        assert!(text.parse::<IpAddr>().is_err(), "{text}");
    }
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    assert!(v6.clone().with_flowinfo(1 << 20).is_err());
    assert!(v6.clone().with_zone("a%b").is_err());
    assert!(IpAddr::from(Ipv4Addr::LOCALHOST).with_flowinfo(1).is_err());
    assert!(IpAddr::from(Ipv4Addr::LOCALHOST).with_zone("lo").is_err());
    assert!(IpAddr::default().with_zone("lo").is_err());
    for port in ["65536", "-1", "99999999999", "http", " 80", "0x50", "+", "٨٠", "\0"] {
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
    for name in ["", "TCP", "tcp5", "sctp", "tcp "] {
        let error = name.parse::<Network>().expect_err("there is none");
        assert_eq!(error.network(), name);
        let error = SocketError::from(error);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!((error.raw_os_error(), error.written()), (None, 0));
    }
}
