//! Resolution of texts to addresses, and the networks that accept them.

use std::io;

use peersock_net::{
    self as net, AddressError, IpAddr, Network, SocketError, TcpAddr, UdpAddr, UnixAddr, join_host_port,
};

fn tcp(text: &str) -> TcpAddr {
    text.parse().expect("an address")
}

fn udp(text: &str) -> UdpAddr {
    text.parse().expect("an address")
}

fn address_error<T: std::fmt::Debug>(result: Result<T, SocketError>) -> AddressError {
    match result {
        Err(SocketError::Address(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn services_have_names() {
    assert_eq!(net::resolve_tcp_addr("127.0.0.1:www", "tcp").await, Ok(tcp("127.0.0.1:80")));
    assert_eq!(net::resolve_tcp_addr("[::1]:HTTPS", "tcp6").await, Ok(tcp("[::1]:443")));
    assert_eq!(net::resolve_udp_addr("[::1]:ntp", "udp6").await, Ok(udp("[::1]:123")));
    assert_eq!(net::resolve_udp_addr("127.0.0.1:tftp", "udp").await, Ok(udp("127.0.0.1:69")));
    let unknown = address_error(net::resolve_tcp_addr("127.0.0.1:tftp", "tcp").await);
    assert_eq!(unknown.reason(), "unknown port of tcp");
}

#[tokio::test]
async fn ports_are_numbers() {
    for (text, port) in [("", 0), ("0", 0), ("-0", 0), ("+80", 80), ("00080", 80), ("65535", 65535)] {
        let addr = net::resolve_tcp_addr(&format!("127.0.0.1:{text}"), "tcp").await;
        assert_eq!(addr.expect("a port").port(), port, "{text}");
    }
    let long = "9".repeat(5000);
    for port in
        ["65536", "-1", "99999999999", &long, "no such one", "http ", " 80", "8 0", "0x50", "٨٠", "+", "\0"]
    {
        let tcp = address_error(net::resolve_tcp_addr(&format!("127.0.0.1:{port}"), "tcp").await);
        let udp = address_error(net::resolve_udp_addr(&format!("127.0.0.1:{port}"), "udp").await);
        assert!(tcp.reason().contains("port") && udp.reason().contains("port"), "{port}");
    }
}

#[tokio::test]
async fn zones_are_of_the_address() {
    assert_eq!(net::resolve_tcp_addr("[fe80::1%lo]:80", "tcp").await, Ok(tcp("[fe80::1%lo]:80")));
    let addr = net::resolve_udp_addr("[fe80::1%3]:80", "udp6").await.expect("an address");
    assert_eq!(addr.scope_id(), Ok(3));
    assert_eq!(net::resolve_ip_addr("fe80::1%lo", "ip6").await, Ok("fe80::1%lo".parse().expect("one")));
    for text in ["[127.0.0.1%lo]:80", "[fe80::1%]:80", "[localhost%lo]:80"] {
        address_error(net::resolve_tcp_addr(text, "tcp").await);
    }
}

#[tokio::test]
async fn hosts_that_are_none_are_refused() {
    let long = "a".repeat(300);
    for host in ["127.1", "1.2.3.256", "0177.0.0.1", "1", "::1::", &long, "a..b", "\0"] {
        address_error(net::resolve_tcp_addr(&join_host_port(host, 80), "tcp").await);
        address_error(net::resolve_ip_addr(host, "ip").await);
    }
    let long = address_error(net::dial(&join_host_port(&long, 80), "tcp").await);
    assert!(long.reason().starts_with("no such host: "), "{long}");
}

#[tokio::test]
async fn the_network_chooses_the_family() {
    // A name that every system has.
    let v4 = net::resolve_tcp_addr("localhost:80", "tcp4").await.expect("it has an IPv4 address");
    assert_eq!(v4, tcp("127.0.0.1:80"));
    for (text, network) in [("[::1]:80", "tcp4"), ("127.0.0.1:80", "tcp6"), ("[::ffff:1.2.3.4]:80", "tcp6")] {
        let error = address_error(net::resolve_tcp_addr(text, network).await);
        assert_eq!(error.reason(), format!("no address of the network {network}"));
    }
}

#[tokio::test]
async fn each_network_has_its_addresses() {
    use net::resolve_addr as resolve;
    assert_eq!(resolve("127.0.0.1:1", "tcp4").await, Ok(tcp("127.0.0.1:1").into()));
    assert_eq!(resolve("[::1]:1", "udp").await, Ok(udp("[::1]:1").into()));
    let ip: IpAddr = "127.0.0.1".parse().expect("an address");
    assert_eq!(resolve("127.0.0.1", "ip").await, Ok(ip.into()));
    let path = UnixAddr::stream("/tmp/s").expect("a path");
    assert_eq!(resolve("/tmp/s", Network::Unix).await, Ok(path.clone().into()));
    assert_eq!(net::resolve_unix_addr("/tmp/s", "unix"), Ok(path));
    let path = UnixAddr::datagram("/tmp/s").expect("a path");
    assert_eq!(resolve("/tmp/s", "unixgram").await, Ok(path.clone().into()));
    assert_eq!(net::resolve_unixgram_addr("/tmp/s"), Ok(path));
    assert_eq!(net::resolve_tcp_addr(":80", "tcp").await, Ok(TcpAddr::any(80)));
    assert_eq!(net::resolve_ip_addr("", "ip").await, Ok(IpAddr::default()));
    address_error(net::resolve_unix_addr("a\0b", "unix"));
}

#[tokio::test]
async fn networks_are_for_what_they_can() {
    let (addr, other) = (tcp("127.0.0.1:1"), udp("127.0.0.1:1"));
    let (stream, datagram) =
        (UnixAddr::stream("x").expect("a path"), UnixAddr::datagram("x").expect("a path"));
    for (network, result) in [
        ("sctp", net::dial("127.0.0.1:1", "sctp").await.map(drop)),
        ("ip", net::dial("127.0.0.1", "ip").await.map(drop)),
        ("udp", net::listen("127.0.0.1:0", "udp").await.map(drop)),
        ("unixgram", net::listen("x", "unixgram").await.map(drop)),
        ("tcp5", net::resolve_addr("127.0.0.1:1", "tcp5").await.map(drop)),
        ("udp", net::resolve_tcp_addr("127.0.0.1:1", "udp").await.map(drop)),
        ("tcp", net::resolve_udp_addr("127.0.0.1:1", "tcp").await.map(drop)),
        ("tcp", net::resolve_ip_addr("127.0.0.1", "tcp").await.map(drop)),
        ("ip", net::resolve_unix_addr("x", "ip").map(drop)),
        ("udp", net::dial_tcp(None, &addr, "udp").await.map(drop)),
        ("tcp", net::dial_udp(None, Some(&other), "tcp").await.map(drop)),
        ("tcp", net::dial_udp(None, None, "tcp").await.map(drop)),
        ("unix", net::dial_unix(None, None, "unix").await.map(drop)),
        ("tcp", net::dial_unix(None, Some(&stream), "tcp").await.map(drop)),
        ("udp", net::listen_tcp(Some(&addr), "udp").await.map(drop)),
        ("tcp", net::listen_udp(Some(&other), "tcp").await.map(drop)),
        ("unixgram", net::listen_unix(&datagram, "unixgram").await.map(drop)),
        ("unix", net::listen_unixgram(&stream, "unix").await.map(drop)),
    ] {
        let Err(SocketError::UnknownNetwork(error)) = result else { panic!("{network}: {result:?}") };
        assert_eq!(error.network(), network);
    }
    let long = format!("/tmp/{}", "a".repeat(300));
    let long_path = UnixAddr::stream(&long).expect("a path");
    address_error(net::dial_tcp(None, &tcp("[::1]:1"), "tcp4").await);
    address_error(net::dial_tcp(Some(&tcp("127.0.0.1:0")), &tcp("[::1]:1"), "tcp").await);
    address_error(net::listen_tcp(Some(&tcp("[::1]:1")), "tcp4").await);
    address_error(net::listen_unix(&long_path, "unix").await);
    address_error(net::dial(&long, "unix").await);
    address_error(net::Dialer::new().local(udp("[::1]:0")).dial("[::1]:1", "tcp").await);
}

#[tokio::test]
async fn errors_are_those_of_the_system_too() {
    let listener = net::listen("127.0.0.1:0", "tcp").await.expect("a free port");
    let address = listener.addr().to_string();
    drop(listener);
    let refused = net::dial(&address, "tcp").await.expect_err("nobody listens");
    assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED));
    assert!(refused.to_string().starts_with(&format!("dial tcp {address}: Connection refused")), "{refused}");
    let error = io::Error::from(refused.clone());
    assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::ConnectionRefused, refused.to_string()));
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<SocketError>());
    assert_eq!(inner, Some(&refused));
}
