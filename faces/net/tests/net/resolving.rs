//! Resolution of texts to addresses, and the networks that accept them.

use std::io;

use peersock_net::{
    self as net, Addr, AddressError, SocketError, TcpAddr, UdpAddr, UnixAddr, join_host_port,
};

use crate::table::rows;

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

/// Resolves by the function of the network, and by the one of all networks.
async fn resolved(text: &str, network: &str) -> [Result<Addr, SocketError>; 2] {
    let own = match network.trim_end_matches(['4', '6']) {
        "tcp" => net::resolve_tcp_addr(text, network).await.map(Addr::Tcp),
        "udp" => net::resolve_udp_addr(text, network).await.map(Addr::Udp),
        "ip" => net::resolve_ip_addr(text, network).await.map(Addr::Ip),
        "unix" => net::resolve_unix_addr(text, network).map(Addr::Unix),
        _ => net::resolve_unixgram_addr(text).map(Addr::Unix),
    };
    [own, net::resolve_addr(text, network).await]
}

#[tokio::test]
async fn each_network_has_its_addresses() {
    for [network, text, result] in rows("resolve") {
        for found in resolved(&text, &network).await {
            let found = found.expect(&text);
            let kind = network.trim_end_matches(['4', '6']);
            assert_eq!((found.to_string(), found.network().name()), (result.clone(), kind));
        }
    }
}

#[tokio::test]
async fn what_a_network_does_not_resolve_has_a_reason() {
    for [network, text, reason] in rows("unresolved") {
        for found in resolved(&text, &network).await {
            let error = address_error(found);
            assert!(reason == "-" || error.reason() == reason, "{text}: {error}");
        }
    }
}

#[tokio::test]
async fn ports_are_numbers() {
    for [text, port] in rows("port") {
        for network in ["tcp", "udp"] {
            let addr = net::resolve_addr(&format!("127.0.0.1:{text}"), network).await.expect("a port");
            assert_eq!(addr.to_string(), format!("127.0.0.1:{port}"), "{text}");
        }
    }
    for [port] in rows("no-port") {
        for network in ["tcp", "udp"] {
            let error = address_error(net::resolve_addr(&format!("127.0.0.1:{port}"), network).await);
            assert!(error.reason().contains("port"), "{port}");
        }
    }
}

#[tokio::test]
async fn hosts_that_are_none_are_refused() {
    for [host] in rows("no-host") {
        address_error(net::resolve_tcp_addr(&join_host_port(&host, 80), "tcp").await);
        address_error(net::resolve_ip_addr(&host, "ip").await);
    }
    let long = "a".repeat(300);
    let long = address_error(net::dial(&join_host_port(&long, 80), "tcp").await);
    assert!(long.reason().starts_with("no such host: "), "{long}");
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
