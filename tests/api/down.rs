//! Errors of sockets whose node was shut down, or has left their network: ENETDOWN, as in C and Python.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use peersock::blocking::{Ping, TcpListener, TcpStream, UdpSocket};
use peersock::{Joined, Node};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::{PATIENCE, pair};

#[test]
fn a_node_that_was_shut_down_is_a_network_that_is_down() {
    let nodes = pair();
    let [(node, joined), (other, there)] = &nodes;
    let sockets = Sockets::open(&nodes);
    node.shutdown(Duration::ZERO);
    for (call, result) in sockets.all_calls() {
        assert_down(call, result);
    }
    let to = (there.address(), 1000);
    assert_down("connect", TcpStream::connect_on(node, to));
    assert_down("bind", TcpListener::bind_on(node, "[::]:1100"));
    assert_down("bind for datagrams", UdpSocket::bind_on(node, "[::]:1100"));
    assert_down("open for echoes", Ping::open_on(node, IpAddr::from(there.address())));
    assert_down("wait for a peer", joined.wait_peer(there.address().into(), PATIENCE));
    assert_down("wait for the network", joined.wait_ready(PATIENCE));
    other.shutdown(Duration::ZERO);
}

#[test]
fn a_network_that_was_left_is_down() {
    let nodes = pair();
    let [(_, joined), (_, there)] = &nodes;
    let sockets = Sockets::open(&nodes);
    assert!(joined.leave());
    assert_down("read", (&sockets.stream).read(&mut [0]));
    for _ in 0..2 {
        for (call, result) in sockets.calls_without_connection() {
            assert_down(call, result);
        }
    }
    for (call, result) in [
        ("wait for a peer", joined.wait_peer(there.address().into(), PATIENCE)),
        ("wait for the network", joined.wait_ready(PATIENCE)),
    ] {
        let error = result.expect_err(call);
        assert_eq!(error.kind(), ErrorKind::NetworkDown, "{call}");
        assert!(error.to_string().contains(&joined.id().to_string()), "{error}");
    }
}

#[tokio::test]
async fn asynchronous_sockets_say_the_same() {
    let [(node, joined), (other, there)] = pair();
    let listener = peersock::TcpListener::bind_on(&other, (there.address(), 1000)).await.expect("bind");
    let mut stream = peersock::TcpStream::connect_on(&node, (there.address(), 1000)).await.expect("connect");
    let (_accepted, _) = listener.accept().await.expect("accept");
    let own = peersock::TcpListener::bind_on(&node, (joined.address(), 1001)).await.expect("bind");
    let datagrams = peersock::UdpSocket::bind_on(&node, (joined.address(), 1002)).await.expect("bind");
    node.shutdown(Duration::ZERO);
    assert_down("peek", stream.peek(&mut [0]).await);
    assert_down("read", stream.read(&mut [0]).await);
    assert_down("write", stream.write(b"x").await);
    assert_down("accept", own.accept().await);
    assert_down("receive", datagrams.recv_from(&mut [0]).await);
    assert_down("connect", peersock::TcpStream::connect_on(&node, (there.address(), 1000)).await);
}

/// One socket of each kind, in the network of the first node.
struct Sockets {
    stream: TcpStream,
    listener: TcpListener,
    datagrams: UdpSocket,
    echoes: Ping,
    _peer: (TcpListener, TcpStream),
}

impl Sockets {
    fn open([(node, joined), (other, there)]: &[(Node, Joined); 2]) -> Sockets {
        let at_peer = TcpListener::bind_on(other, (there.address(), 1000)).expect("a port");
        let stream = TcpStream::connect_on(node, (there.address(), 1000)).expect("a connection");
        let (accepted, _) = at_peer.accept().expect("a connection");
        let datagrams = UdpSocket::bind_on(node, (joined.address(), 1002)).expect("a port");
        datagrams.connect((there.address(), 1003)).expect("a peer");
        Sockets {
            stream,
            listener: TcpListener::bind_on(node, (joined.address(), 1001)).expect("a port"),
            datagrams,
            echoes: Ping::open_on(node, IpAddr::from(there.address())).expect("a socket"),
            _peer: (at_peer, accepted),
        }
    }

    fn all_calls(&self) -> Vec<(&'static str, io::Result<()>)> {
        let mut all = vec![
            ("read", (&self.stream).read(&mut [0]).map(drop)),
            ("peek", self.stream.peek(&mut [0]).map(drop)),
            ("write", (&self.stream).write(b"x").map(drop)),
        ];
        all.extend(self.calls_without_connection());
        all
    }

    fn calls_without_connection(&self) -> Vec<(&'static str, io::Result<()>)> {
        vec![
            ("accept", self.listener.accept().map(drop)),
            ("send a datagram", self.datagrams.send(b"x").map(drop)),
            ("receive a datagram", self.datagrams.recv(&mut [0]).map(drop)),
            ("ping", self.echoes.ping(1, b"x", PATIENCE).map(drop)),
        ]
    }
}

#[track_caller]
fn assert_down<T>(call: &str, result: io::Result<T>) {
    let Err(error) = result else { panic!("{call} succeeds") };
    let wanted = (ErrorKind::NetworkDown, Some(Errno::NETDOWN.raw_os_error()));
    assert_eq!((error.kind(), error.raw_os_error()), wanted, "{call}: {error}");
}
