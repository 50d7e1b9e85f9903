//! Reports to a sender on whether its data has arrived.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use peersock::Node;
use peersock::blocking::{TcpListener, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{PATIENCE, pair};

/// Bytes that exceed all buffers between two nodes.
const TOO_MUCH: usize = 24 << 20;

#[test]
fn data_that_nobody_read_makes_the_shutdown_false() {
    let (mut client, server, [_, (node, _)]) = connected();
    client.write_all(b"nobody reads this").expect("write");
    server.peek(&mut [0]).expect("it came");
    drop(client);
    assert!(node.undelivered().is_empty(), "the peer may still read it");
    drop(server);
    wait_for_loss(&node);
    assert_eq!(node.undelivered().connections, 1);
    assert!(!node.shutdown(PATIENCE));
    assert!(!node.shutdown(PATIENCE), "the second time too");
}

#[test]
fn a_loss_that_a_call_has_told_is_not_told_again() {
    let (mut client, server, [_, (node, _)]) = connected();
    client.write_all(b"nobody reads this").expect("write");
    server.peek(&mut [0]).expect("it came");
    drop(server);
    let error = client.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    drop(client);
    assert!(node.undelivered().is_empty());
    assert!(node.shutdown(PATIENCE));
}

#[test]
fn an_error_that_nobody_took_counts_when_the_stream_is_dropped() {
    let (mut client, mut server, [_, (node, _)]) = connected();
    server.write_all(b"an end and").expect("write");
    server.shutdown(Shutdown::Write).expect("shutdown");
    let mut all = String::new();
    client.read_to_string(&mut all).expect("the end in order");
    client.write_all(b"what nobody reads").expect("the peer still listens");
    server.peek(&mut [0]).expect("it came");
    drop(server);
    let deadline = Instant::now() + PATIENCE;
    while client.wait_delivered(Some(PATIENCE)).is_ok() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.read(&mut [0]).expect("a reader has seen the end"), 0);
    let error = client.shutdown(Shutdown::Write).expect_err("there is no connection");
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    let error = client.wait_delivered(None).expect_err("it stays lost");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    drop(client);
    assert!(node.shutdown(PATIENCE), "the error was told");
}

#[test]
fn what_a_stalled_peer_has_not_taken_is_counted() {
    let (client, server, [_, (node, _)]) = connected();
    client.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    (&client).write_all(&vec![7; TOO_MUCH]).expect_err("nobody reads");
    assert!(!node.shutdown(Duration::from_millis(50)));
    let lost = node.undelivered();
    assert_eq!(lost.connections, 1);
    assert!((1..TOO_MUCH as u64).contains(&lost.bytes), "{lost:?}");
    drop((client, server));
}

#[test]
fn shutting_a_node_down_delivers_what_open_sockets_wrote() {
    let (mut client, mut server, [_, (node, _)]) = connected();
    client.write_all(&[7; 300_000]).expect("write");
    let reader = thread::spawn(move || {
        let mut got = vec![0; 300_000];
        server.read_exact(&mut got).expect("all of it");
    });
    assert!(node.shutdown(PATIENCE));
    reader.join().expect("the reader got it");
    drop(client);
}

#[test]
fn waiting_for_the_delivery_ends_with_it_or_with_the_reason() {
    let (mut client, mut server, _nodes) = connected();
    client.write_all(b"hello").expect("write");
    client.wait_delivered(Some(PATIENCE)).expect("it is acknowledged, read or not");
    assert_eq!(client.unacked(), 0);
    client.shutdown(Shutdown::Write).expect("shutdown");
    server.read_to_end(&mut Vec::new()).expect("read");
    client.wait_delivered(Some(PATIENCE)).expect("with the end");
    drop(server);
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    client.wait_delivered(Some(PATIENCE)).expect("for ever");

    let (client, server, _nodes) = connected();
    client.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    (&client).write_all(&vec![7; TOO_MUCH]).expect_err("nobody reads");
    let error = client.wait_delivered(Some(Duration::from_millis(10))).expect_err("nobody reads");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(client.unacked() > 0);
    drop(server);
    let error = client.wait_delivered(Some(PATIENCE)).expect_err("nobody will read it");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(client.unacked() > 0, "what was left is still known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_an_asynchronous_stream_that_was_reset_is_an_error() {
    let nodes = pair();
    let listener = peersock::TcpListener::bind_on(&nodes[0].0, "[::]:1000").await.expect("bind");
    let address = (nodes[0].1.address(), 1000);
    let mut client = peersock::TcpStream::connect_on(&nodes[1].0, address).await.expect("connect");
    let (mut server, _) = listener.accept().await.expect("accept");
    server.shutdown().await.expect("the end");
    assert_eq!(client.read(&mut [0]).await.expect("the end"), 0);
    client.write_all(b"nobody reads this").await.expect("write");
    server.peek(&mut [0]).await.expect("it came");
    drop(server);
    while client.wait_delivered().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(client.shutdown().await.expect_err("it was reset").kind(), ErrorKind::BrokenPipe);
    assert_eq!(client.wait_delivered().await.expect_err("it was reset").kind(), ErrorKind::BrokenPipe);
}

fn connected() -> (TcpStream, TcpStream, [(Node, peersock::Joined); 2]) {
    let nodes = pair();
    let listener = TcpListener::bind_on(&nodes[0].0, "[::]:1000").expect("bind");
    let client = TcpStream::connect_on(&nodes[1].0, (nodes[0].1.address(), 1000)).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    (client, server, nodes)
}

fn wait_for_loss(node: &Node) {
    let deadline = Instant::now() + PATIENCE;
    while node.undelivered().is_empty() {
        assert!(Instant::now() < deadline, "no loss is known");
        thread::sleep(Duration::from_millis(1));
    }
}
