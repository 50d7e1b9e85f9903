//! Connections between two nodes, which use one port for all of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use peersock_streams::{PeerListener, PeerPort, Way};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

#[tokio::test]
async fn one_port_is_listened_on_and_connected_from_many_times() {
    let others = [listener().await, listener().await];
    let (listening, port) = peer_port();
    let own = PeerPort::new(port, Way::default());
    let again = own.listen(true).expect("two rounds may run at a time");
    for other in &others {
        let to = other.local_addr().expect("bound");
        let _near = own.connect(to).await.expect("somebody listens");
        let (_far, from) = other.accept().await.expect("a connection");
        assert_eq!(from.port(), port);
    }
    drop(again);
    let near = PeerPort::new(0, Way::default());
    let mut near = near.connect((Ipv4Addr::LOCALHOST, port).into()).await.expect("it listens");
    let mut far = listening.accept().await.expect("a connection");
    for (from, to) in [(0, 1), (1, 0)] {
        let text = format!("from {from}");
        if from == 0 { near.send(text.clone()) } else { far.send(text.clone()) }.expect("it is open");
        let arrived = if to == 0 { near.recv().await } else { far.recv().await };
        assert_eq!(arrived.expect("it is open"), text.as_bytes());
    }
}

#[tokio::test]
async fn who_connects_hears_nothing_until_somebody_wants_to_say_something() {
    let (listening, port) = peer_port();
    let mut stranger = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("it listens");
    let mut far = listening.accept().await.expect("a connection");
    // A keepalive, which a root would answer, and a datagram.
    stranger.write_all(&[0, 0, 0, 1, b'x']).await.expect("it is open");
    assert_eq!(far.recv().await.expect("it is open"), &b"x"[..]);
    let mut heard = [0; 16];
    let waited = timeout(Duration::from_millis(300), stranger.read(&mut heard)).await;
    assert!(waited.is_err(), "{waited:?}");
    // Bytes that are no frame end the connection.
    stranger.write_all(b"GET / HTTP/1.1\r\n").await.expect("it is open");
    assert!(far.recv().await.is_err());
}

#[tokio::test]
async fn a_port_that_another_program_has_is_an_error() {
    let taken = listener().await;
    let port = taken.local_addr().expect("bound").port();
    assert!(PeerPort::new(port, Way::default()).listen(true).is_err());
}

async fn listener() -> TcpListener {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.expect("a free port")
}

/// Makes a listening node. Returns it with its port.
fn peer_port() -> (PeerListener, u16) {
    let listening = PeerPort::new(0, Way::default()).listen(true).expect("a free port");
    let port = listening.local_addr().expect("bound").port();
    (listening, port)
}
