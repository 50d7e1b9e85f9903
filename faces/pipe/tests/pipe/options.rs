//! Options, each by its effect. Options of queues are tested in `queues`.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use peersock_net as net;
use peersock_pipe::{Options, Pipe, PipeError, Proto};

use crate::common::{LOOPBACK_PLACES, connected, listening, open, patient, received, soon, until};

#[tokio::test]
async fn con_timeout_ends_what_nobody_answers() {
    // No connection is answered once the queue of unaccepted connections is full.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    let listener = socket.listen(1).expect("it is bound");
    let at = listener.local_addr().expect("it is bound");
    let mut held = Vec::new();
    let error = loop {
        let options = Options::new().con_timeout(Duration::from_millis(200));
        match soon(Pipe::connect(Proto::Tcp, at).options(options).into_future()).await {
            Ok(pipe) => held.push(pipe),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn dns_timeout_ends_what_is_not_resolved() {
    let options = Options::new().dns_timeout(Duration::ZERO);
    let opened = soon(Pipe::connect(Proto::Udp, "name.invalid:9").options(options).into_future()).await;
    let error = opened.expect_err("no time was given");
    assert_eq!(
        (&error, error.kind()),
        (&PipeError::Unresolved("name.invalid:9".into()), ErrorKind::TimedOut)
    );
}

#[tokio::test]
async fn datagrams_that_come_again_are_dropped() {
    let options = patient().enable_msg_ids(true).max_msg_ids(2);
    let server = open(Pipe::listen(Proto::Udp, LOOPBACK_PLACES[0]).options(options)).await;
    let (client, other) = (connected(&server).await, connected(&server).await);
    for text in ["a", "a", "b", "a", "c", "a"] {
        client.send(text).await.expect("a way");
    }
    // A datagram from another sender is no repetition.
    other.send("a").await.expect("a way");
    other.send("end").await.expect("a way");
    let mut got = Vec::new();
    while got.last().is_none_or(|last| last != b"end") {
        got.push(received(&server).await);
    }
    // The client's third `a` arrived after the first had been forgotten.
    assert_eq!(got, [&b"a"[..], b"b", b"c", b"a", b"a", b"end"].map(<[u8]>::to_vec));
    assert_eq!(server.repeated(), 2);
}

#[tokio::test]
async fn broadcast_is_allowed_if_it_is_asked_for() {
    let server = listening(Proto::Udp, LOOPBACK_PLACES[0]).await;
    let dest = (Ipv4Addr::new(127, 255, 255, 255), server.local_addr().port()).into();
    server.send_to("x", dest).await.expect_err("the system wants to be asked");
    let options = patient().broadcast(true);
    let sender = open(Pipe::listen(Proto::Udp, LOOPBACK_PLACES[0]).options(options)).await;
    sender.send_to("x", dest).await.expect("it is allowed");
}

#[tokio::test]
async fn linger_holds_the_close_until_all_is_taken() {
    let listener = net::listen_tcp(Some(&LOOPBACK_PLACES[0].parse().expect("an address")), "tcp").await;
    let listener = listener.expect("a free port");
    // Less than a second is not rounded to none.
    for linger in [Duration::from_secs(30), Duration::from_millis(500)] {
        let options = patient().linger(linger);
        let client = open(Pipe::connect(Proto::Tcp, listener.addr()).options(options)).await;
        let other = soon(listener.accept()).await.expect("it was dialed");
        client.send(b"hello").await.expect("room");
        soon(client.close()).await;
        assert_eq!(soon(other.read(100)).await, Ok(b"hello".to_vec()));
        assert_eq!(soon(other.read(100)).await, Ok(Vec::new()));
    }
}

#[tokio::test]
async fn reader_limit_is_the_longest_message_of_a_stream() {
    let server = open(Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).options(patient().reader_limit(3))).await;
    let client = connected(&server).await;
    client.send("0123456789").await.expect("a way");
    let other = soon(server.accept()).await.expect("a client");
    let mut all = Vec::new();
    while all.len() < 10 {
        let piece = received(&other).await;
        assert!(piece.len() <= 3);
        all.extend(piece);
    }
    assert_eq!(all, b"0123456789");
}

#[tokio::test]
async fn numbers_out_of_range_are_the_nearest_ones() {
    let options = patient().max_qsize(0).reader_limit(0).max_clients(0).max_msg_ids(0).max_qbytes(0);
    let server = open(Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).options(options)).await;
    let client = connected(&server).await;
    client.send("ab").await.expect("a way");
    let other = soon(server.accept()).await.expect("a client");
    assert_eq!((received(&other).await, received(&other).await), (b"a".to_vec(), b"b".to_vec()));
    soon(client.close()).await;
    until(|| server.clients().is_empty()).await;
}
