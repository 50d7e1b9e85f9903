//! Opening, sending, receiving, callbacks, accepting.

use std::net::SocketAddr;
use std::time::Duration;

use peersock_net as net;
use peersock_pipe::{Filter, Message, Pipe, PipeError, Proto};

use crate::common::{
    LOOPBACK_PLACES, Notes, PROTOS, close, connected, echo, large, listening, open, pair, patient, read,
    received, soon, until,
};

#[tokio::test]
async fn one_object_for_all_by_await() {
    for (proto, place) in PROTOS.into_iter().flat_map(|proto| LOOPBACK_PLACES.map(|place| (proto, place))) {
        let server = listening(proto, place).await;
        let client = connected(&server).await;
        let other = soon(server.accept()).await.expect("it is open");
        assert_eq!(client.send("ping").await, Ok(4));
        let ping = soon(other.recv()).await.expect("it is open").expect("it was sent");
        assert_eq!(&ping[..], b"ping");
        assert_eq!(ping.from().port(), client.local_addr().port());
        other.send_to("pong", ping.from()).await.expect("a way");
        assert_eq!(received(&client).await, b"pong");
        assert_eq!(client.recv_within(Duration::from_millis(10)).await, Ok(None));
        assert_eq!(client.recv_within(Duration::ZERO).await, Ok(None));
        assert_eq!(client.remote_addr(), Some(server.local_addr()));
        close([client.clone(), server.clone()]).await;
        assert!(!client.is_running() && !server.is_running());
    }
}

#[tokio::test]
async fn one_object_for_all_by_callbacks() {
    for (proto, place) in PROTOS.into_iter().flat_map(|proto| LOOPBACK_PLACES.map(|place| (proto, place))) {
        let plain = |message: Message, pipe: Pipe| drop(tokio::spawn(echo(message, pipe)));
        for server in
            [Pipe::listen(proto, place).msg_cb(plain), Pipe::listen(proto, place).async_msg_cb(echo)]
        {
            let server = open(server.options(patient())).await;
            let notes = Notes::default();
            let heard = {
                let notes = notes.clone();
                move |message: Message, _: Pipe| notes.add(String::from_utf8_lossy(&message))
            };
            let client = connected(&server).await;
            let callback = client.add_msg_cb(heard);
            client.send("ping").await.expect("a way");
            until(|| !notes.all().is_empty()).await;
            assert_eq!(notes.all(), ["ping"]);
            // The pipe's own queue gets it, too.
            assert_eq!(received(&client).await, b"ping");
            assert!(client.del_cb(callback) && !client.del_cb(callback));
            client.send("again").await.expect("a way");
            assert_eq!(received(&client).await, b"again");
            assert_eq!(notes.all().len(), 1);
            assert_eq!(server.recv().await, Err(PipeError::NotSubscribed));
            close([client, server]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_whole_and_in_order_whatever_their_size() {
    let server = open(Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).async_msg_cb(echo)).await;
    let client = connected(&server).await;
    let data = large(5_000_000);
    let (sender, sent) = (client.clone(), data.clone());
    let sending = tokio::spawn(async move { sender.send(&sent).await });
    assert!(read(&client, data.len()).await == data);
    assert_eq!(soon(sending).await.expect("no panic"), Ok(data.len()));
    close([client, server]).await;
}

#[tokio::test]
async fn datagrams_may_be_empty_and_go_to_several() {
    let (first, second) =
        (listening(Proto::Udp, LOOPBACK_PLACES[0]).await, listening(Proto::Udp, LOOPBACK_PLACES[0]).await);
    let client = connected(&first).await;
    assert_eq!(client.send("").await, Ok(0));
    assert_eq!(received(&first).await, b"");
    client.send_to("there", second.local_addr()).await.expect("a way");
    assert_eq!(received(&second).await, b"there");
    assert_eq!(first.send("where to").await, Err(PipeError::NoDestination));
    close([client, first, second]).await;
}

#[tokio::test]
async fn a_server_without_an_address_takes_both_families() {
    assert!(peersock::current_node().is_none(), "it would listen on the overlay");
    for proto in PROTOS {
        let server = open(Pipe::listen(proto, ":0").async_msg_cb(echo)).await;
        for host in ["127.0.0.1", "[::1]"] {
            let dest = format!("{host}:{}", server.local_addr().port());
            let client = open(Pipe::connect(proto, dest).options(patient())).await;
            client.send("hello").await.expect("a way");
            assert_eq!(received(&client).await, b"hello");
        }
        // The wildcard denotes this machine.
        let client = connected(&server).await;
        client.send("hello").await.expect("a way");
        assert_eq!(received(&client).await, b"hello");
    }
}

#[tokio::test]
async fn routes_are_bound_to() {
    for (proto, place) in PROTOS.into_iter().flat_map(|proto| LOOPBACK_PLACES.map(|place| (proto, place))) {
        let server = open(Pipe::listen(proto, place).async_msg_cb(echo)).await;
        let route: SocketAddr = place.parse().expect("an address");
        let client = open(Pipe::connect(proto, server.local_addr()).options(patient()).route(route)).await;
        assert_eq!(client.local_addr().ip(), route.ip());
        client.send("hello").await.expect("a way");
        assert_eq!(received(&client).await, b"hello");
        let taken = soon(Pipe::listen(proto, server.local_addr()).into_future()).await;
        assert_eq!(taken.expect_err("it is taken").kind(), std::io::ErrorKind::AddrInUse);
        close([client, server]).await;
    }
}

#[tokio::test]
async fn sockets_and_streams_become_pipes() {
    let server = open(Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).async_msg_cb(echo)).await;
    let conn = net::dial(&server.local_addr().to_string(), "tcp").await.expect("it listens");
    let client = Pipe::of_conn(conn, patient()).expect("it is of TCP");
    assert_eq!(client.remote_addr(), Some(server.local_addr()));
    client.send("hello").await.expect("a way");
    assert_eq!(received(&client).await, b"hello");
    let socket = net::listen_udp(Some(&LOOPBACK_PLACES[0].parse().expect("an address")), "udp")
        .await
        .expect("a free port");
    let datagrams = Pipe::of_conn(socket, patient()).expect("it is of UDP");
    datagrams.send_to("to itself", datagrams.local_addr()).await.expect("a way");
    assert_eq!(received(&datagrams).await, b"to itself");
    // A connected UDP socket sends only to its peer.
    let socket = net::dial(&datagrams.local_addr().to_string(), "udp").await.expect("a way");
    let connected = Pipe::of_conn(socket, patient()).expect("it is of UDP");
    connected.send("from it").await.expect("a way");
    assert_eq!(received(&datagrams).await, b"from it");
    connected.send_to("again", datagrams.local_addr()).await.expect("a way");
    assert_eq!(received(&datagrams).await, b"again");
    let nobody = LOOPBACK_PLACES[0].parse().expect("an address");
    let elsewhere = PipeError::Elsewhere { dest: datagrams.local_addr(), asked: nobody };
    assert_eq!(connected.send_to("x", nobody).await, Err(elsewhere));
    // For example a stream of TLS.
    let (one, two) = tokio::io::duplex(100);
    let at = LOOPBACK_PLACES.map(|place| place.parse().expect("an address"));
    let (one, two) =
        (Pipe::of_stream(one, at[0], at[1], patient()), Pipe::of_stream(two, at[1], at[0], patient()));
    one.send(large(1000)).await.expect("room");
    assert_eq!(read(&two, 1000).await, large(1000));
    one.close().await;
    assert_eq!(soon(two.recv()).await, Err(PipeError::Ended));
    close([client, datagrams, connected, two, server]).await;
}

#[tokio::test]
async fn accepting_gives_one_client_after_the_other() {
    let server = listening(Proto::Tcp, "[::1]:0").await;
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.accept().await }
    });
    // A cancelled call takes no client.
    let cancelled = tokio::spawn({
        let server = server.clone();
        async move { server.accept().await }
    });
    crate::common::settle().await;
    cancelled.abort();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(connected(&server).await);
    }
    let mut accepted = vec![soon(waiting).await.expect("no panic").expect("a client")];
    for _ in 0..2 {
        accepted.push(soon(server.accept()).await.expect("a client"));
    }
    until(|| server.clients().len() == 3).await;
    for (number, client) in clients.iter().enumerate() {
        client.send(format!("{number}")).await.expect("a way");
        let mut theirs = accepted.iter().filter(|pipe| pipe.remote_addr() == Some(client.local_addr()));
        let theirs = theirs.next().expect("it was accepted");
        assert_eq!(received(theirs).await, format!("{number}").as_bytes());
        // The server answers as a server of datagrams does.
        server.send_to("heard", client.local_addr()).await.expect("a client");
        assert_eq!(received(client).await, b"heard");
    }
    let nobody = LOOPBACK_PLACES[0].parse().expect("an address");
    assert_eq!(server.send_to("x", nobody).await, Err(PipeError::NoClient(nobody)));
    assert_eq!(server.send("x").await, Err(PipeError::NoDestination));
    let elsewhere = PipeError::Elsewhere { dest: server.local_addr(), asked: nobody };
    assert_eq!(clients[0].send_to("x", nobody).await, Err(elsewhere));
    // A client is closed when the program that has accepted it drops the pipe.
    drop(accepted.pop());
    until(|| clients.iter().filter(|client| client.is_running()).count() == 2).await;
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.accept().await }
    });
    crate::common::settle().await;
    soon(server.close()).await;
    assert_eq!(soon(waiting).await.expect("no panic").expect_err("it is closed"), PipeError::Closed);
    assert_eq!(server.accept().await.expect_err("it is closed"), PipeError::Closed);
    until(|| clients.iter().all(|client| !client.is_running())).await;
}

#[tokio::test]
async fn a_client_that_is_gone_before_it_was_accepted_has_not_been_lost() {
    let server = listening(Proto::Tcp, LOOPBACK_PLACES[0]).await;
    let client = connected(&server).await;
    client.send("last words").await.expect("a way");
    soon(client.close()).await;
    until(|| server.clients().is_empty()).await;
    let gone = soon(server.accept()).await.expect("it was there");
    assert_eq!(received(&gone).await, b"last words");
    assert_eq!(soon(gone.recv()).await, Err(PipeError::Ended));
}

#[tokio::test]
async fn a_server_of_streams_can_be_subscribed_to_as_one_of_datagrams() {
    let server = listening(Proto::Tcp, LOOPBACK_PLACES[0]).await;
    let mut all = server.subscribe(Filter::all());
    let client = connected(&server).await;
    client.send("ping").await.expect("a way");
    let ping = soon(all.recv()).await.expect("it is open").expect("it was sent");
    assert_eq!((&ping[..], ping.from()), (&b"ping"[..], client.local_addr()));
    server.send_to("pong", ping.from()).await.expect("a client");
    assert_eq!(received(&client).await, b"pong");
}

#[tokio::test]
async fn up_callbacks_come_first_and_end_callbacks_last_and_once() {
    let notes = Notes::default();
    let note = |what: &'static str| {
        let notes = notes.clone();
        move |_: Pipe| notes.add(what)
    };
    let heard = notes.clone();
    let server = Pipe::listen(Proto::Tcp, LOOPBACK_PLACES[0]).up_cb(note("up"));
    let server = open(server.msg_cb(move |_, _| heard.add("message"))).await;
    server.add_end_cb(note("end"));
    let client = Pipe::connect(Proto::Tcp, server.local_addr()).options(patient()).up_cb(note("client up"));
    let client = open(client).await;
    client.add_end_cb(note("client end"));
    let never = client.add_end_cb(note("never"));
    assert!(client.del_cb(never));
    client.send("message").await.expect("a way");
    until(|| notes.count("message") == 1).await;
    close([client.clone(), client.clone()]).await;
    until(|| notes.count("end") == 1).await;
    let (of_client, of_server): (Vec<_>, Vec<_>) =
        notes.all().into_iter().partition(|note| note.starts_with("client"));
    assert_eq!(of_server, ["up", "message", "end"]);
    assert_eq!(of_client, ["client up", "client end"]);
    // A callback that is added later is called at once.
    client.add_end_cb(note("late"));
    assert_eq!(notes.count("late"), 1);
    soon(server.close()).await;
    assert_eq!((notes.count("end"), notes.count("never")), (2, 0));
}

#[tokio::test]
async fn closed_pipes_say_so() {
    for proto in PROTOS {
        let pipes = pair(proto).await;
        let [server, client, other] = pipes.clone();
        close([client.clone(), other.clone(), server]).await;
        for pipe in &pipes {
            let error = pipe.send_to("data", pipe.local_addr()).await.expect_err("it is closed");
            assert!(error.is_closed() && !pipe.is_running() && pipe.error().is_some(), "{error}");
            assert!(format!("{pipe:?}").contains("is_running: false"));
        }
        for pipe in [client, other] {
            assert!(soon(pipe.recv()).await.expect_err("it is closed").is_closed());
        }
    }
}
