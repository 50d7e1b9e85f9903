//! Datagrams over the kernel.

use std::io;
use std::time::{Duration, Instant};

use peersock_net::{self as net, Conn, UdpAddr};

use crate::common::soon;

fn addr(text: &str) -> UdpAddr {
    text.parse().expect("an address")
}

#[tokio::test]
async fn datagrams_go_there_and_back() {
    for (host, network) in [("127.0.0.1:0", "udp4"), ("[::1]:0", "udp6")] {
        let server = net::listen_udp(Some(&addr(host)), network).await.expect("a free port");
        let address = server.local_addr().expect("it is bound");
        let client = net::dial_udp(None, Some(&address), network).await.expect("there is a way");
        let other = net::dial(&address.to_string(), "udp").await.expect("there is a way");
        assert!(matches!(other, Conn::Udp(_)));
        assert_eq!((client.remote_addr(), server.remote_addr()), (Some(address.clone()), None));
        assert_eq!(client.write(b"hello").await, Ok(5));
        let (data, sender) = soon(server.read_from(100)).await.expect("it was sent");
        assert_eq!((data, Ok(sender.clone())), (b"hello".to_vec(), client.local_addr()));
        assert_eq!(server.write_to(b"0123456789", &sender).await, Ok(10));
        // The read truncates the datagram.
        assert_eq!(soon(client.read(4)).await, Ok(b"0123".to_vec()));
        server.write_to(b"", &sender).await.expect("there is a way");
        server.write_to(b"next", &sender).await.expect("there is a way");
        assert_eq!(soon(client.read(100)).await, Ok(Vec::new()));
        assert_eq!(soon(client.read_from(100)).await, Ok((b"next".to_vec(), address.clone())));
        let errno = |result: Result<usize, net::SocketError>| result.expect_err("refused").raw_os_error();
        assert_eq!(errno(client.write_to(b"x", &address).await), Some(libc::EISCONN));
        assert_eq!(errno(server.write(b"x").await), Some(libc::EDESTADDRREQ));
        assert_eq!(errno(client.write(&vec![0; 70_000]).await), Some(libc::EMSGSIZE));
        client.close_write().expect("it is connected");
        assert_eq!(client.write(b"x").await.expect_err("it is closed").kind(), io::ErrorKind::BrokenPipe);
    }
}

#[tokio::test]
async fn to_where_nobody_is() {
    // Uses an address that no other test uses.
    let gone = net::listen_udp(Some(&addr("127.0.0.9:0")), "udp").await.expect("a free port");
    let address = gone.local_addr().expect("it is bound");
    drop(gone);
    let own = addr("127.0.0.1:0");
    let client = net::dial_udp(Some(&own), Some(&address), "udp").await.expect("there is a way");
    client.write(b"x").await.expect("nobody knows yet");
    for _ in 0..2 {
        let refused = soon(client.read(1)).await.expect_err("nobody is there");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // The error is reported only once.
        client.set_read_deadline(Instant::now() + Duration::from_millis(20)).expect("it is open");
        assert!(client.read(1).await.expect_err("nothing more").is_deadline());
        client.set_read_deadline(None).expect("it is open");
        client.write(b"x").await.expect("nobody knows yet");
    }
}

#[tokio::test]
async fn sockets_of_both_families() {
    let server = net::listen_udp(None, "udp").await.expect("a free port");
    let unbound = net::dial_udp(None, None, "udp").await.expect("a free port");
    let port = server.local_addr().expect("it is bound").port();
    for host in ["127.0.0.1", "::1"] {
        let to = addr(&net::join_host_port(host, port));
        unbound.write_to(b"hi", &to).await.expect("there is a way");
        let (data, sender) = soon(server.read_from(100)).await.expect("it was sent");
        assert_eq!((data.as_slice(), sender.ip_addr().to_string()), (&b"hi"[..], host.to_owned()));
        server.write_to(b"back", &sender).await.expect("there is a way");
        assert_eq!(soon(unbound.read_from(100)).await, Ok((b"back".to_vec(), to)));
    }
}
