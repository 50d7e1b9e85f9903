//! Addresses and destinations.

use std::io::ErrorKind;

use peersock_pipe::{Address, Pipe, Proto};

use crate::common::{LOOPBACK_PLACES, PROTOS, TEST_TIMEOUT, listening, open, patient, received, soon};

fn address(host: &str, port: u16) -> Address {
    Address::new(host, port).dns_timeout(TEST_TIMEOUT)
}

#[tokio::test]
async fn addresses_have_a_text_and_what_they_are_resolved_to() {
    for (host, text, tup) in [
        ("127.0.0.1", "127.0.0.1:80", "127.0.0.1:80"),
        ("::1", "[::1]:80", "[::1]:80"),
        ("0.0.0.0", "0.0.0.0:80", "127.0.0.1:80"),
        ("::", "[::]:80", "[::1]:80"),
        ("::ffff:127.0.0.1", "[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
    ] {
        let address = address(host, 80);
        assert_eq!((address.host(), address.port(), address.to_string()), (host, 80, text.to_owned()));
        let tup = tup.parse().expect("an address");
        assert_eq!(address.tups().await, Ok(vec![tup]), "{host}");
        let other = if tup.is_ipv4() { address.v6().await } else { address.v4().await };
        other.expect_err("it has one family");
    }
    let name = address("localhost", 80);
    assert!(soon(name.tups()).await.expect("it has an address").iter().all(|tup| tup.ip().is_loopback()));
    assert!(soon(name.v4()).await.expect("it has an address").is_ipv4());
}

#[tokio::test]
async fn destinations_are_texts_and_addresses() {
    for proto in PROTOS {
        let server = listening(proto, LOOPBACK_PLACES[0]).await;
        let port = server.local_addr().port();
        let texts = [
            server.local_addr().to_string(),
            format!("localhost:{port}"),
            address("localhost", port).to_string(),
        ];
        for text in texts {
            // The server listens on IPv4 only, and datagrams use the name's first address.
            let route = LOOPBACK_PLACES[0].parse().expect("an address");
            let client = open(Pipe::connect(proto, text).options(patient()).route(route)).await;
            client.send("hello").await.expect("a way");
            let other = soon(server.accept()).await.expect("it is open");
            assert_eq!(received(&other).await, b"hello");
        }
    }
}

#[tokio::test]
async fn what_is_no_destination_is_refused() {
    for (proto, text) in PROTOS.into_iter().flat_map(|proto| {
        ["", "127.0.0.1", "::1:80", "127.0.0.1:port", "127.0.0.1:65536", "[::1]"].map(|text| (proto, text))
    }) {
        let opened = soon(Pipe::connect(proto, text).options(patient()).into_future()).await;
        assert_eq!(opened.expect_err("it is none").kind(), ErrorKind::InvalidInput, "{text}");
    }
    // An address of another machine.
    for proto in PROTOS {
        let opened = soon(Pipe::listen(proto, "192.0.2.1:0").into_future()).await;
        assert_eq!(opened.expect_err("it is none of ours").kind(), ErrorKind::AddrNotAvailable);
    }
}

#[tokio::test]
async fn nobody_there() {
    let server = listening(Proto::Tcp, LOOPBACK_PLACES[0]).await;
    let at = server.local_addr();
    soon(server.close()).await;
    let opened = soon(Pipe::connect(Proto::Tcp, at).options(patient()).into_future()).await;
    assert_eq!(opened.expect_err("nobody listens").kind(), ErrorKind::ConnectionRefused);
}
