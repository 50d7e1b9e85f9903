//! Dialing tries each of several addresses, over the kernel.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::race::DELAY;
use crate::{Addr, Dialer, ListenConfig, Listener, Network, SocketError, TcpAddr};

fn addrs(hosts: &[&str], port: u16) -> Vec<Addr> {
    let addr = |host: &&str| Addr::Tcp(TcpAddr::new(host.parse::<std::net::IpAddr>().expect("an IP"), port));
    hosts.iter().map(addr).collect()
}

async fn listening(at: &str) -> (Listener, u16) {
    let listener = ListenConfig::new().listen(at, "tcp").await.expect("a free port");
    let Addr::Tcp(addr) = listener.addr() else { panic!("{listener:?}") };
    (listener, addr.port())
}

#[tokio::test]
async fn dial_tries_every_address() {
    let (listener, port) = listening("127.0.0.3:0").await;
    let several = addrs(&["127.0.0.2", "::1", "127.0.0.3"], port);
    let dial = |local: Option<Addr>| {
        let several = several.clone();
        async move { Dialer::new().connect(Network::Tcp, "several", several, local.as_ref()).await }
    };
    let client = dial(None).await.expect("one of them listens");
    assert_eq!(client.remote(), Some(&listener.addr()));
    // Only addresses of the local address's family are tried.
    let own = addrs(&["127.0.0.4"], 0).remove(0);
    let client = dial(Some(own)).await.expect("one of them listens");
    assert_eq!(client.remote(), Some(&listener.addr()));
    drop(listener);
    let Err(error) = dial(None).await else { panic!("nobody listens") };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    let text = error.to_string();
    for host in ["127.0.0.2", "[::1]", "127.0.0.3"] {
        assert!(text.contains(&format!("{host}:{port}: ")), "{text}");
    }
}

#[tokio::test]
async fn a_listener_that_does_not_answer_is_not_waited_for() {
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    silent.bind(&SocketAddr::from(([127, 0, 0, 7], 0)).into()).expect("a free port");
    silent.listen(0).expect("it is bound");
    let address = silent.local_addr().expect("it is bound").as_socket().expect("of IPv4");
    // The kernel drops incoming connections once the backlog is full.
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
        filling.push(stream);
        assert!(filling.len() < 100);
    }
    let (listener, _) = listening(&format!("127.0.0.8:{}", address.port())).await;
    let several = addrs(&["127.0.0.7", "127.0.0.8"], address.port());
    let begun = Instant::now();
    let dialer = Dialer::new().timeout(Duration::from_secs(60));
    let client = dialer.connect(Network::Tcp, "several", several, None).await.expect("one listens");
    assert_eq!(client.remote(), Some(&listener.addr()));
    assert!(begun.elapsed() >= DELAY);
}

#[tokio::test]
async fn listen_tries_every_address() {
    let (taken, port) = listening("127.0.0.5:0").await;
    let listen = || {
        let several = addrs(&["127.0.0.5", "127.0.0.6"], port);
        ListenConfig::new().listen_at(Network::Tcp, "several", several)
    };
    let second = listen().expect("the second one is free");
    assert_eq!(second.addr().to_string(), format!("127.0.0.6:{port}"));
    let error = listen().expect_err("both are taken");
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    let text = error.to_string();
    assert!(text.contains("127.0.0.5:") && text.contains("127.0.0.6:"), "{text}");
    assert!(matches!(error, SocketError::System { .. }));
    drop(taken);
}
