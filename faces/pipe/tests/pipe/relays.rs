//! Pipes that forward to others.

use std::net::SocketAddr;

use peersock_net as net;
use peersock_pipe::{Filter, Pipe, PipeError, Proto};

use crate::common::{
    LOOPBACK_PLACES, Notes, close, connected, echo, large, listening, open, pair, patient, read, received,
    soon, until,
};

#[tokio::test]
async fn two_streams_become_a_relay() {
    let target = open(Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).async_msg_cb(echo)).await;
    let [relay, client, inner] = pair(Proto::Tcp).await;
    // Messages queued before go first.
    client.send("1").await.expect("a way");
    let outer = connected(&target).await;
    inner.add_pipe(&outer).expect("it is open");
    inner.add_pipe(&outer).expect("it is there already");
    outer.add_pipe(&inner).expect("it is open");
    assert_eq!((inner.pipes().len(), outer.pipes().len()), (1, 1));
    for number in 2..10 {
        client.send(number.to_string()).await.expect("a way");
    }
    assert_eq!(read(&client, 9).await, b"123456789");
    assert_eq!(inner.recv().await, Err(PipeError::NotSubscribed));
    assert!(inner.del_pipe(&outer) && !inner.del_pipe(&outer));
    client.send("here").await.expect("a way");
    assert_eq!(received(&inner).await, b"here");
    soon(outer.close()).await;
    assert!(inner.pipes().is_empty() && inner.is_running());
    assert_eq!(inner.add_pipe(&outer), Err(PipeError::Closed));
    assert_eq!(inner.add_pipe(&relay), Err(PipeError::NoDestination));
    let outer = connected(&target).await;
    soon(inner.close()).await;
    assert_eq!(inner.add_pipe(&outer), Err(PipeError::Closed));
    close([client, outer, relay, target]).await;
}

#[tokio::test]
async fn two_sockets_of_datagrams_become_a_relay() {
    let target = open(Pipe::listen(Proto::Udp, LOOPBACK_PLACES[0]).async_msg_cb(echo)).await;
    let client = listening(Proto::Udp, LOOPBACK_PLACES[0]).await;
    let inner = open(Pipe::connect(Proto::Udp, client.local_addr()).options(patient())).await;
    let outer = connected(&target).await;
    inner.add_pipe(&outer).expect("it is open");
    outer.add_pipe(&inner).expect("it is open");
    let port = inner.local_addr().port();
    client.send_to("hello", SocketAddr::from(([127, 0, 0, 1], port))).await.expect("a way");
    assert_eq!(received(&client).await, b"hello");
    close([client, inner, outer, target]).await;
}

#[tokio::test]
async fn datagrams_that_are_queued_all_go_to_the_relay() {
    let [target, client] =
        [listening(Proto::Udp, LOOPBACK_PLACES[0]).await, listening(Proto::Udp, LOOPBACK_PLACES[0]).await];
    let inner = open(Pipe::connect(Proto::Udp, client.local_addr()).options(patient())).await;
    let outer = connected(&target).await;
    let notes = Notes::default();
    let ended = notes.clone();
    inner.add_end_cb(move |_| ended.add("ended"));
    let queued = inner.subscribe(Filter::all());
    let dest = SocketAddr::from(([127, 0, 0, 1], inner.local_addr().port()));
    for text in ["a", "b", "c"] {
        client.send_to(text, dest).await.expect("a way");
    }
    until(|| queued.len() == 3).await;
    inner.add_pipe(&outer).expect("it is open");
    let mut got = Vec::new();
    for _ in 0..3 {
        got.push(received(&target).await);
    }
    got.sort();
    assert_eq!(got, [b"a", b"b", b"c"]);
    // The end waits for nothing.
    soon(inner.close()).await;
    assert_eq!(notes.count("ended"), 1);
    close([client, outer, target]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_as_slow_as_its_other_end_and_loses_nothing() {
    let listener = net::listen_tcp(Some(&LOOPBACK_PLACES[0].parse().expect("an address")), "tcp").await;
    let listener = listener.expect("a free port");
    let outer = open(Pipe::connect(Proto::Tcp, listener.addr()).options(patient())).await;
    let slow = soon(listener.accept()).await.expect("it was dialed");
    let [_server, client, inner] = pair(Proto::Tcp).await;
    inner.add_pipe(&outer).expect("it is open");
    let data = large(48 << 20);
    let sending = {
        let (client, data) = (client.clone(), data.clone());
        tokio::spawn(async move { client.send(&data).await })
    };
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!sending.is_finished(), "no buffer is so large");
    let mut all = Vec::new();
    while all.len() < data.len() {
        all.extend(soon(slow.read(1 << 16)).await.expect("it is open"));
    }
    assert!(all == data);
    assert_eq!((soon(sending).await.expect("no panic"), inner.dropped()), (Ok(data.len()), 0));
}

#[tokio::test]
async fn a_relay_that_nobody_holds_goes_on_until_one_end_is_gone() {
    let target = open(Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).async_msg_cb(echo)).await;
    let [server, client, inner] = pair(Proto::Tcp).await;
    let outer = connected(&target).await;
    inner.add_pipe(&outer).expect("it is open");
    outer.add_pipe(&inner).expect("it is open");
    drop((inner, outer));
    client.send("hello").await.expect("a way");
    assert_eq!(received(&client).await, b"hello");
    soon(client.close()).await;
    // No other handle keeps the other half open.
    until(|| target.clients().is_empty()).await;
    close([server, target]).await;
}
