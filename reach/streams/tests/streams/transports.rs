//! Every transport on loopback, with both ends of this crate.

use std::time::Duration;

use crate::common::{Bench, TEST_TIMEOUT, transports};
use peersock_streams::{
    Closed, Limits, MAX_DATAGRAM, SendError, ServerEvent, ServerOptions, Target, Transport,
};

#[tokio::test]
async fn datagrams_pass_both_ways_on_one_port() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    for transport in transports() {
        let (connection, id) = bench.connect(transport).await;
        let (sender, mut receiver) = connection.split();
        for length in [1, 2, 125, 126, 1400, MAX_DATAGRAM] {
            let datagram = vec![length as u8; length];
            sender.send(datagram.clone()).expect("open");
            assert_eq!(bench.datagram(id).await, datagram, "{transport}");
            bench.server.handle().send(id, datagram.clone()).expect("open");
            let answer = receiver.recv().await.expect("open");
            assert_eq!(answer, datagram, "{transport}");
        }
        assert_eq!(sender.counters().received.get(), 6);
        drop(receiver);
        assert_eq!(bench.closed(id).await, Closed::There);
    }
}

#[tokio::test]
async fn many_datagrams_leave_in_few_calls() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    for transport in transports() {
        let (connection, id) = bench.connect(transport).await;
        // Send everything before the connection's task runs, because the test has one thread.
        (0..100u8).for_each(|number| connection.send(vec![number; 100]).expect("open"));
        for number in 0..100 {
            assert_eq!(bench.datagram(id).await, vec![number; 100]);
        }
        let counters = connection.counters();
        assert_eq!(counters.sent.get(), 100);
        assert!(counters.batches_sent.get() <= 5, "{transport}: {counters:?}");
        bench.end(connection, id).await;
    }
}

#[tokio::test]
async fn what_is_there_can_be_taken_at_once() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    let (connection, id) = bench.connect(Transport::Tcp).await;
    let (sender, mut receiver) = connection.split();
    (0..10u8).for_each(|number| sender.send(vec![number]).expect("open"));
    let mut events = Vec::new();
    while events.len() < 10 {
        let before = events.len();
        let taken = bench.server.recv_many(&mut events, 4).await;
        assert!(taken == events.len() - before && (1..=4).contains(&taken), "{taken}");
    }
    let expected = (0..10u8).map(|number| ServerEvent::Datagram { id, datagram: vec![number].into() });
    assert_eq!(events, expected.collect::<Vec<_>>());

    (0..10u8).for_each(|number| bench.server.handle().send(id, vec![number]).expect("open"));
    let mut datagrams = Vec::new();
    while datagrams.len() < 10 {
        let before = datagrams.len();
        let taken = receiver.recv_many(&mut datagrams, 4).await.expect("open");
        assert!(taken == datagrams.len() - before && (1..=4).contains(&taken), "{taken}");
    }
    assert_eq!(datagrams, (0..10u8).map(|number| vec![number]).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_no_datagram_is_refused_before_it_is_sent() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    let (connection, id) = bench.connect(Transport::Tcp).await;
    assert_eq!(connection.send(vec![]), Err(SendError::Empty));
    let length = MAX_DATAGRAM + 1;
    assert_eq!(connection.send(vec![0; length]), Err(SendError::TooLong { length }));
    assert_eq!(bench.server.handle().send(id, vec![0; length]), Err(SendError::TooLong { length }));
}

#[tokio::test]
async fn each_side_learns_that_the_other_has_closed() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    for transport in transports() {
        let (connection, id) = bench.connect(transport).await;
        connection.send(&b"the last"[..]).expect("open");
        drop(connection);
        assert_eq!(bench.datagram(id).await, b"the last", "what was sent before still arrives");
        assert_eq!(bench.closed(id).await, Closed::There, "{transport}");

        let (mut connection, id) = bench.connect(transport).await;
        bench.server.handle().send(id, &b"the last"[..]).expect("open");
        bench.server.handle().close(id);
        assert_eq!(connection.recv().await.expect("sent before"), &b"the last"[..]);
        assert_eq!(connection.recv().await, Err(Closed::There), "{transport}");
        assert_eq!(connection.send(&b"x"[..]), Err(SendError::Closed));
        assert_eq!(bench.closed(id).await, Closed::Here);
        assert_eq!(bench.server.handle().send(id, &b"x"[..]), Err(SendError::Closed));
    }
    assert_eq!(bench.server.handle().connections(), 0);
}

#[tokio::test]
async fn a_server_that_goes_ends_all_connections() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    let (mut connection, _) = bench.connect(Transport::Tls).await;
    let address = bench.address;
    drop(bench);
    assert_eq!(connection.recv().await, Err(Closed::There));
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn clients_that_begin_no_session_are_closed() {
    let limits = Limits { admission_timeout: Duration::from_secs(2), ..Limits::default() };
    let mut bench = Bench::start(ServerOptions { limits, ..ServerOptions::default() }).await;
    let (_admitted, _) = bench.connect(Transport::Tcp).await;
    let (mut stranger, id) = bench.connect_stranger(Transport::Tcp).await;
    assert_eq!(bench.closed(id).await, Closed::NotAdmitted);
    assert_eq!(stranger.recv().await, Err(Closed::There));
    assert_eq!(bench.server.handle().connections(), 1);
}

#[tokio::test]
async fn a_name_is_resolved_and_loopback_has_no_proxy() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    let target = Target::new(Transport::Tcp, "localhost", bench.address.port());
    let connector = bench.connector();
    let connecting = connector.connect(&target);
    let connection =
        tokio::time::timeout(TEST_TIMEOUT, connecting).await.expect("in time").expect("connected");
    connection.send(&b"hello"[..]).expect("open");
    let ServerEvent::Opened { remote, transport, .. } = bench.server.recv().await else {
        panic!("a connection")
    };
    assert!(remote.ip().is_loopback() && transport == Transport::Tcp);
}

#[tokio::test]
async fn ipv6_addresses_are_targets_too() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return crate::office::skip("ipv6_addresses_are_targets_too", "there is no IPv6 here");
    }
    let mut bench = Bench::start_at("[::1]:0".parse().expect("an address"), ServerOptions::default()).await;
    for transport in transports() {
        let (connection, id) = bench.connect(transport).await;
        connection.send(&b"hello"[..]).expect("open");
        assert_eq!(bench.datagram(id).await, b"hello", "{transport}");
        bench.end(connection, id).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn connections_leave_by_the_interface_that_was_chosen() {
    let mut bench = Bench::start(ServerOptions::default()).await;
    bench.options.way.interface = Some("lo".into());
    let (connection, id) = bench.connect(Transport::Tcp).await;
    bench.end(connection, id).await;
    bench.options.way.interface = Some("none-such".into());
    let error =
        bench.connector().connect(&bench.target(Transport::Tcp)).await.expect_err("no such interface");
    assert!(matches!(error, peersock_streams::ConnectError::Connect { .. }), "{error:?}");
}
