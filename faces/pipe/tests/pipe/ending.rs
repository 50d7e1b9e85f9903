//! Callbacks that fail, peers that vanish, closing, and the limits of servers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use peersock_net as net;
use peersock_pipe::{Message, Pipe, PipeError, Proto};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;

use crate::common::{
    LOOPBACK_PLACES, Notes, PROTOS, TEST_TIMEOUT, close, connected, echo, large, listening, open, pair,
    patient, read, received, settle, soon, until,
};

#[tokio::test]
async fn callbacks_that_panic_leave_the_pipe_going() {
    for proto in PROTOS {
        let plain = |_: Message, _: Pipe| panic!("this is part of the test");
        let later = |_: Message, _: Pipe| async { panic!("this is part of the test") };
        let up = |_: Pipe| async { panic!("this is part of the test") };
        let server =
            Pipe::listen(proto, LOOPBACK_PLACES[0]).msg_cb(plain).async_msg_cb(later).async_up_cb(up);
        let server = open(server.async_msg_cb(echo)).await;
        server.add_end_cb(|_| panic!("this is part of the test"));
        let client = connected(&server).await;
        for _ in 0..3 {
            client.send("hello").await.expect("a way");
            assert_eq!(received(&client).await, b"hello");
        }
        close([client, server]).await;
    }
}

#[tokio::test]
async fn a_peer_that_resets_ends_the_pipe_once() {
    let server = listening(Proto::Tcp, LOOPBACK_PLACES[0]).await;
    let resetting = Pipe::connect(Proto::Tcp, server.local_addr()).options(patient().linger(Duration::ZERO));
    let client = open(resetting).await;
    let other = soon(server.accept()).await.expect("a client");
    let notes = Notes::default();
    let ends = notes.clone();
    other.add_end_cb(move |pipe| ends.add(pipe.error().map(|error| error.to_string()).unwrap_or_default()));
    soon(client.close()).await;
    let error = soon(other.recv()).await.expect_err("it was reset");
    assert!(matches!(&error, PipeError::Failed(_)), "{error}");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    until(|| !notes.all().is_empty()).await;
    assert_eq!(other.send("data").await, Err(error.clone()));
    close([other.clone(), other, server]).await;
    assert_eq!(notes.all(), [error.to_string()]);
}

/// Makes a connection whose other end reads nothing. Also returns that end.
async fn stuck() -> (Pipe, Pipe, net::TcpConn) {
    let listener = net::listen_tcp(Some(&LOOPBACK_PLACES[0].parse().expect("an address")), "tcp").await;
    let listener = listener.expect("a free port");
    let client = open(Pipe::connect(Proto::Tcp, listener.addr()).options(patient())).await;
    let other = soon(listener.accept()).await.expect("it was dialed");
    (client.clone(), client, other)
}

#[tokio::test]
async fn a_peer_that_vanishes_while_it_is_sent_to() {
    let (client, again, other) = stuck().await;
    let senders: Vec<_> = [client, again]
        .into_iter()
        .map(|client| tokio::spawn(async move { client.send(vec![0; 64 << 20]).await }))
        .collect();
    settle().await;
    other.set_linger(Duration::ZERO).expect("it is open");
    other.close();
    for sender in senders {
        assert!(soon(sender).await.expect("no panic").expect_err("it is gone").is_closed());
    }
}

#[tokio::test]
async fn a_send_that_is_given_up_lets_the_others_go_on() {
    let (client, _, other) = stuck().await;
    let send = |data: Vec<u8>| {
        let client = client.clone();
        tokio::spawn(async move { client.send(data).await })
    };
    let first = send(vec![b'1'; 32 << 20]);
    settle().await;
    // One waits in the queue, so it is sent.
    let second = send(vec![b'2']);
    settle().await;
    let (third, fourth) = (send(vec![b'3']), send(vec![b'4']));
    settle().await;
    for task in [&first, &second, &third] {
        assert!(!task.is_finished());
        task.abort();
    }
    let mut all = Vec::new();
    while all.len() < (32 << 20) + 2 {
        all.extend(soon(other.read(1 << 16)).await.expect("it is open"));
    }
    // A message that was begun is sent completely; one that waited is not sent.
    assert!(all[..32 << 20].iter().all(|byte| *byte == b'1'));
    assert_eq!(&all[32 << 20..], b"24");
    assert_eq!(soon(fourth).await.expect("no panic"), Ok(1));
}

#[tokio::test]
async fn a_client_that_sends_no_more_still_gets_its_answers() {
    let slow = |message: Message, pipe: Pipe| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let back: Vec<u8> = message.iter().rev().copied().collect();
        pipe.send(back).await.expect("it is open");
    };
    let server = open(Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).async_msg_cb(slow)).await;
    let conn = net::dial(&server.local_addr().to_string(), "tcp").await.expect("it listens");
    conn.write(b"abc").await.expect("room");
    conn.close_write().expect("it is connected");
    let mut answer = Vec::new();
    loop {
        match soon(conn.read(100)).await.expect("it is well") {
            piece if piece.is_empty() => break,
            piece => answer.extend(piece),
        }
    }
    assert_eq!(answer, b"cba");
}

#[tokio::test]
async fn a_callback_may_close_its_pipe() {
    for proto in PROTOS {
        let [server, client, other] = pair(proto).await;
        let notes = Notes::default();
        let ended = notes.clone();
        client.add_async_msg_cb(|_, pipe: Pipe| async move {
            pipe.close().await;
            pipe.close().await;
        });
        client.add_async_end_cb(move |pipe: Pipe| {
            let ended = ended.clone();
            async move {
                pipe.close().await;
                ended.add("ended");
            }
        });
        client.send("where from").await.expect("a way");
        let asked = soon(other.recv()).await.expect("it is open").expect("it was sent");
        other.send_to("close", asked.from()).await.expect("a way");
        until(|| notes.count("ended") == 1).await;
        close([client, other, server]).await;
    }
}

#[tokio::test]
async fn closing_waits_for_the_callbacks_of_the_end() {
    let [server, client, other] = pair(Proto::Tcp).await;
    let notes = Notes::default();
    let ended = notes.clone();
    client.add_async_end_cb(move |_| {
        let ended = ended.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            ended.add("ended");
        }
    });
    soon(client.close()).await;
    assert_eq!(notes.count("ended"), 1);
    close([other, server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_delivered_before_the_end() {
    let [server, client, other] = pair(Proto::Tcp).await;
    // Data that the client has not read must not reset the connection.
    other.send(large(100_000)).await.expect("a way");
    let data = large(1 << 20);
    let (sender, sent) = (client.clone(), data.clone());
    let mut sending = Box::pin(async move { sender.send(&sent).await });
    // Sending has begun.
    let sent = futures_lite::future::poll_once(&mut sending).await;
    let closing = tokio::spawn(async move { client.close().await });
    assert!(read(&other, data.len()).await == data);
    soon(closing).await.expect("no panic");
    let sent = match sent {
        Some(sent) => sent,
        None => soon(sending).await,
    };
    assert_eq!(sent, Ok(data.len()));
    assert_eq!(soon(other.recv()).await, Err(PipeError::Ended));
    close([other, server]).await;
}

#[tokio::test]
async fn dropping_the_last_handle_closes_and_delivers() {
    let [_server, client, other] = pair(Proto::Tcp).await;
    client.send("last words").await.expect("a way");
    drop(client);
    assert_eq!(received(&other).await, b"last words");
    assert_eq!(soon(other.recv()).await, Err(PipeError::Ended));
}

#[tokio::test]
async fn who_takes_nothing_does_not_keep_a_pipe_from_closing() {
    let (client, again, other) = stuck().await;
    let sending = tokio::spawn(async move { again.send(vec![0; 64 << 20]).await });
    settle().await;
    // Closing takes five seconds.
    soon(client.close()).await;
    assert_eq!(soon(sending).await.expect("no panic"), Err(PipeError::Closed));
    // The other end does not take its part for the whole.
    let error = loop {
        match soon(other.read(1 << 16)).await {
            Ok(piece) => assert!(!piece.is_empty(), "it was cut off"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A stream that accepts data, but not its end.
struct Endless {
    _held: Arc<()>,
}

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_ended_is_dropped() {
    let held = Arc::new(());
    let [local, remote] = LOOPBACK_PLACES.map(|place| place.parse().expect("an address"));
    let pipe = Pipe::of_stream(Endless { _held: Arc::clone(&held) }, local, remote, patient());
    pipe.send("hello").await.expect("room");
    soon(pipe.close()).await;
    // After five seconds.
    until(|| Arc::strong_count(&held) == 1).await;
}

#[tokio::test]
async fn a_close_that_is_given_up_has_closed() {
    let (client, again, _other) = stuck().await;
    let sending = tokio::spawn(async move { again.send(vec![0; 64 << 20]).await });
    settle().await;
    let _ = futures_lite::future::poll_once(Box::pin(client.close())).await;
    assert!(!client.is_running());
    assert_eq!(soon(sending).await.expect("no panic"), Err(PipeError::Closed));
}

#[tokio::test]
async fn too_many_clients_wait() {
    let server =
        Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).options(patient().max_clients(2)).async_msg_cb(echo);
    let server = open(server).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(connected(&server).await);
    }
    for client in &clients {
        client.send("hello").await.expect("a way");
    }
    for client in &clients[..2] {
        assert_eq!(received(client).await, b"hello");
    }
    assert_eq!(clients[2].recv_within(Duration::from_millis(50)).await, Ok(None));
    for at in [0, 1] {
        soon(clients[at].close()).await;
        assert_eq!(received(&clients[at + 2]).await, b"hello");
    }
    close(clients.into_iter().chain([server])).await;
}

#[tokio::test]
async fn a_server_that_is_read_from_alone_goes_on_after_many_clients() {
    let server = open(Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).options(patient().max_clients(2))).await;
    let mut all = server.subscribe(peersock_pipe::Filter::all());
    for _ in 0..6 {
        let client = connected(&server).await;
        client.send("hello").await.expect("a way");
        assert!(soon(all.recv()).await.expect("it is open").is_some());
        soon(client.close()).await;
    }
}

#[tokio::test]
async fn a_server_that_has_only_an_up_callback_goes_on_after_many_clients() {
    let answer = |pipe: Pipe| async move {
        let _ = pipe.recv().await;
        let _ = pipe.send("heard").await;
    };
    let server =
        Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).options(patient().max_clients(2)).async_up_cb(answer);
    let server = open(server).await;
    for _ in 0..6 {
        let client = connected(&server).await;
        client.send("hello").await.expect("a way");
        assert_eq!(received(&client).await, b"heard");
        soon(client.close()).await;
    }
}

#[tokio::test]
async fn a_message_callback_that_never_ends_does_not_keep_close_waiting() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let stuck = move |_: Message, _: Pipe| {
        let gate = Arc::clone(&held);
        async move { gate.acquire().await.expect("it is open").forget() }
    };
    let server = open(Pipe::listen(Proto::Udp, LOOPBACK_PLACES[0]).async_msg_cb(stuck)).await;
    server.send_to("hello", server.local_addr()).await.expect("a way");
    settle().await;
    tokio::time::timeout(TEST_TIMEOUT, server.close()).await.expect("it takes five seconds");
    assert_eq!(server.error(), Some(PipeError::Closed));
    gate.add_permits(1);
}
