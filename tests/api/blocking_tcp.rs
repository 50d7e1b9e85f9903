//! Blocking TCP between two nodes on the loopback interface.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{CongestionControl, Network, NetworkId, TcpState};

use crate::common::{PATIENCE, member, network, pair, pattern};

fn connected() -> (TcpStream, TcpStream, [(peersock::Node, peersock::Joined); 2]) {
    let nodes = pair();
    let listener = TcpListener::bind_on(&nodes[0].0, "[::]:1000").expect("bind");
    let client = TcpStream::connect_on(&nodes[1].0, (nodes[0].1.address(), 1000)).expect("connect");
    let (server, from) = listener.accept().expect("accept");
    assert_eq!(from, client.local_addr().expect("local address"));
    assert_eq!(server.local_addr().expect("local address"), client.peer_addr().expect("peer address"));
    (client, server, nodes)
}

#[test]
fn megabytes_arrive_exactly_in_both_directions_at_once() {
    let (client, server, _nodes) = connected();
    let up = pattern(1, 8 << 20);
    let down = pattern(2, 8 << 20);
    thread::scope(|scope| {
        for (stream, data) in [(&client, &up), (&server, &down)] {
            scope.spawn(move || {
                let mut writer = stream;
                writer.write_all(data).expect("write");
                stream.shutdown(Shutdown::Write).expect("shutdown");
            });
        }
        for (stream, data) in [(&client, &down), (&server, &up)] {
            scope.spawn(move || {
                let mut got = Vec::new();
                let mut reader = stream;
                reader.read_to_end(&mut got).expect("read");
                assert!(got == *data, "{} of {} bytes, or other ones", got.len(), data.len());
            });
        }
    });
}

#[test]
fn congestion_control_can_be_chosen_and_figures_can_be_read() {
    let (client, server, _nodes) = connected();
    assert_eq!(client.congestion_control().expect("it stands"), CongestionControl::Bbr);
    client.set_congestion_control(CongestionControl::Cubic).expect("it stands");
    assert_eq!(
        server.congestion_control().expect("it stands"),
        CongestionControl::Bbr,
        "the other end's own"
    );
    let data = pattern(3, 4 << 20);
    thread::scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(&data).expect("write");
            client.shutdown(Shutdown::Write).expect("shutdown");
        });
        let mut got = Vec::new();
        (&server).read_to_end(&mut got).expect("read");
        assert!(got == data);
    });
    assert_eq!(server.info().expect("it is half closed").received, data.len() as u64);
    let deadline = Instant::now() + PATIENCE;
    let info = loop {
        // The last acknowledgement is under way.
        let info = client.info().expect("it is half closed");
        if info.unacked == 0 {
            break info;
        }
        assert!(Instant::now() < deadline, "{info:?}");
        thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(info.congestion, CongestionControl::Cubic);
    assert!(matches!(info.state, TcpState::FinWait1 | TcpState::FinWait2), "{info:?}");
    assert!(info.delivered >= data.len() as u64 && info.in_flight == 0 && info.unsent == 0, "{info:?}");
    assert!((500..65_536).contains(&info.mss), "{info:?}");
    assert!(info.congestion_window >= 2 * info.mss, "{info:?}");
    let (rtt, min) = (info.rtt.expect("measured"), info.min_rtt.expect("measured"));
    assert!(Duration::ZERO < min && min <= rtt * 8 && rtt < PATIENCE, "{info:?}");
    assert!(info.retransmission_timeout > rtt, "{info:?}");
}

#[test]
fn a_time_of_zero_is_refused_and_others_are_taken() {
    let (client, mut server, _nodes) = connected();
    for (time, fits) in [(Some(Duration::ZERO), false), (Some(Duration::from_secs(30)), true), (None, true)] {
        for result in [client.set_keepalive(time), client.set_user_timeout(time)] {
            let kind = result.map_err(|error| error.kind());
            assert_eq!(kind, if fits { Ok(()) } else { Err(ErrorKind::InvalidInput) }, "{time:?}");
        }
    }
    client.set_keepalive(Some(Duration::from_nanos(1))).expect("as short as can be");
    (&client).write_all(b"alive").expect("write");
    let mut alive = [0; 5];
    server.read_exact(&mut alive).expect("read");
    assert_eq!(&alive, b"alive");
}

#[test]
fn after_a_half_close_the_other_direction_still_works() {
    let (mut client, mut server, _nodes) = connected();
    client.write_all(b"question").expect("write");
    client.shutdown(Shutdown::Write).expect("shutdown");
    let mut question = String::new();
    server.read_to_string(&mut question).expect("read");
    assert_eq!(question, "question");
    server.write_all(b"answer").expect("write");
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("read");
    assert_eq!(answer, "answer");
}

#[test]
fn what_was_written_before_the_drop_arrives() {
    let (client, mut server, _nodes) = connected();
    let data = pattern(3, 3 << 20);
    let expected = data.clone();
    let writer = thread::spawn(move || {
        let mut client = client;
        client.write_all(&data).expect("write");
    });
    let mut got = Vec::new();
    server.read_to_end(&mut got).expect("read");
    writer.join().expect("the writer ends");
    assert!(got == expected);
}

#[test]
fn shutting_a_node_down_delivers_what_its_sockets_sent() {
    let (mut client, mut server, nodes) = connected();
    let data = pattern(4, 1 << 20);
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        server.read_to_end(&mut got).expect("read");
        got
    });
    client.write_all(&data).expect("write");
    drop(client);
    assert!(nodes[1].0.shutdown(PATIENCE), "everything is acknowledged");
    assert!(reader.join().expect("the reader ends") == data);
}

#[test]
fn nobody_listening_is_connection_refused() {
    let [(_keep, joined), (node, _)] = pair();
    let error = TcpStream::connect_on(&node, (joined.address(), 1001)).expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn an_address_that_nobody_has_is_host_unreachable() {
    let (node, joined) = member(network());
    let absent = peersock::overlay::Identity::from_seed(&[9; 32]).public().node_id();
    let error =
        TcpStream::connect_on(&node, (joined.id().address_of(&absent), 1000)).expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
}

#[test]
fn an_address_outside_every_network_is_network_unreachable() {
    let (node, _joined) = member(network());
    for outside in ["192.0.2.1:1000", "[2001:db8::1]:1000"] {
        let error = TcpStream::connect_on(&node, outside).expect_err("no network has it");
        assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{outside}");
    }
}

#[test]
fn ports_outside_the_networks_range_are_refused_on_both_sides() {
    let id: NetworkId = "ff03e807d0000000".parse().expect("an ID that allows 1000 to 2000");
    let (node, joined) = member(id);
    for port in [999, 2001] {
        let own = SocketAddr::new(joined.address().into(), port);
        let everywhere = SocketAddr::from(([0; 16], port));
        let refusals = [
            TcpListener::bind_on(&node, own).err(),
            TcpListener::bind_on(&node, everywhere).err(),
            TcpStream::connect_on(&node, own).err(),
        ];
        for (number, error) in refusals.into_iter().enumerate() {
            let error = error.unwrap_or_else(|| panic!("{number}: port {port} is not allowed"));
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{number}");
            let says = format!("port {port} is not allowed: network {id} allows ports 1000 to 2000");
            assert_eq!(error.to_string(), says, "{number}");
        }
    }
    TcpListener::bind_on(&node, (joined.address(), 2000)).expect("the last port is allowed");
}

#[test]
fn a_port_is_taken_once_and_free_again_after_the_drop() {
    let (node, joined) = member(network());
    let listener = TcpListener::bind_on(&node, (joined.address(), 1000)).expect("bind");
    let error = TcpListener::bind_on(&node, (joined.address(), 1000)).expect_err("taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(listener);
    TcpListener::bind_on(&node, (joined.address(), 1000)).expect("free again");
}

#[test]
fn an_address_of_another_node_cannot_be_bound() {
    let [(node, _), (_keep, other)] = pair();
    let error = TcpListener::bind_on(&node, (other.address(), 1000)).expect_err("not ours");
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}

#[test]
fn a_node_connects_to_its_own_address() {
    let (node, joined) = member(network());
    let listener = TcpListener::bind_on(&node, "[::]:1500").expect("bind");
    let mut client = TcpStream::connect_on(&node, (joined.address(), 1500)).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    let data = pattern(5, 1 << 20);
    let expected = data.clone();
    let writer = thread::spawn(move || client.write_all(&data).expect("write"));
    let mut got = vec![0; expected.len()];
    server.read_exact(&mut got).expect("read");
    writer.join().expect("the writer ends");
    assert!(got == expected);
}

#[test]
fn joining_and_connecting_work_right_after_the_start() {
    let network = network();
    let (server, joined) = member(network);
    let listener = TcpListener::bind_on(&server, "[::]:1000").expect("bind");
    let (client, _) = member(network);
    let _stream = TcpStream::connect_on(&client, (joined.address(), 1000)).expect("connect at once");
    listener.accept().expect("accept");
}

#[test]
fn a_read_timeout_is_would_block_and_the_stream_goes_on() {
    let (mut client, mut server, _nodes) = connected();
    client.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
    assert_eq!(client.read_timeout().expect("get"), Some(Duration::from_millis(20)));
    let error = client.read(&mut [0; 1]).expect_err("nothing was sent");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(client.set_read_timeout(Some(Duration::ZERO)).is_err());
    client.set_read_timeout(None).expect("set");
    server.write_all(b"x").expect("write");
    assert_eq!(client.read(&mut [0; 8]).expect("read"), 1);
}

#[test]
fn non_blocking_mode_never_waits() {
    let (client, server, _nodes) = connected();
    client.set_nonblocking(true).expect("set");
    assert_eq!((&client).read(&mut [0; 1]).expect_err("nothing there").kind(), ErrorKind::WouldBlock);
    let block = vec![7; 1 << 16];
    let mut written = 0usize;
    let full = loop {
        match (&client).write(&block) {
            Ok(n) => written += n,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    // The engine moves written data even if no thread waits for it.
    let mut left = written;
    let mut buf = vec![0; 1 << 16];
    while left > 0 {
        left -= (&server).read(&mut buf).expect("read");
    }
}

#[test]
fn peek_leaves_the_data() {
    let (client, mut server, _nodes) = connected();
    (&client).write_all(b"abc").expect("write");
    let mut buf = [0; 8];
    let n = server.peek(&mut buf).expect("peek");
    assert_eq!(&buf[..n], &b"abc"[..n]);
    let mut all = [0; 3];
    server.read_exact(&mut all).expect("read");
    assert_eq!(&all, b"abc");
}

#[test]
fn shutting_down_wakes_a_thread_that_reads_a_clone() {
    let (client, _server, _nodes) = connected();
    let mut clone = client.try_clone().expect("clone");
    let reader = thread::spawn(move || clone.read(&mut [0; 1]));
    thread::sleep(Duration::from_millis(50));
    client.shutdown(Shutdown::Both).expect("shutdown");
    assert_eq!(reader.join().expect("the reader ends").expect("end of stream"), 0);
}

#[test]
fn shutting_the_node_down_wakes_a_thread_that_accepts() {
    let (node, _joined) = member(network());
    let listener = TcpListener::bind_on(&node, "[::]:1000").expect("bind");
    let acceptor = thread::spawn(move || listener.accept().map(|_| ()));
    thread::sleep(Duration::from_millis(50));
    node.shutdown(Duration::ZERO);
    let error = acceptor.join().expect("the acceptor ends").expect_err("no connection came");
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
    let error = TcpListener::bind_on(&node, "[::]:1000").expect_err("the node is down");
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
}

#[test]
fn shutting_the_node_down_wakes_every_thread_that_waits() {
    let [(server, joined), (client, _)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").expect("bind");
    let stream = TcpStream::connect_on(&client, (joined.address(), 1000)).expect("connect");
    let (accepted, _) = listener.accept().expect("accept");
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..3)
            .flat_map(|_| {
                let accepts = scope.spawn(|| listener.accept().expect_err("the node goes down"));
                let reads = scope.spawn(|| (&accepted).read(&mut [0; 1]).expect_err("the node goes down"));
                [accepts, reads]
            })
            .collect();
        thread::sleep(Duration::from_millis(50));
        server.shutdown(Duration::ZERO);
        for thread in waiting {
            assert_eq!(thread.join().expect("no panic").kind(), ErrorKind::NetworkDown);
        }
    });
    let error = (&stream).read(&mut [0; 1]).expect_err("the peer reset what was open");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_dropped_listener_resets_what_nobody_accepted() {
    let [(server, joined), (client, _)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").expect("bind");
    let mut stream = TcpStream::connect_on(&client, (joined.address(), 1000)).expect("connect");
    drop(listener);
    let error = stream.read(&mut [0; 1]).expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn linger_zero_resets_and_a_positive_linger_waits_for_delivery() {
    let (client, mut server, nodes) = connected();
    client.set_linger(Some(Duration::ZERO)).expect("set");
    drop(client);
    assert_eq!(server.read(&mut [0; 1]).expect_err("reset").kind(), ErrorKind::ConnectionReset);

    let listener = TcpListener::bind_on(&nodes[0].0, "[::]:1001").expect("bind");
    let mut client = TcpStream::connect_on(&nodes[1].0, (nodes[0].1.address(), 1001)).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    client.set_linger(Some(PATIENCE)).expect("set");
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        server.read_to_end(&mut got).expect("read");
        got.len()
    });
    // More than the buffers may hold while no thread reads.
    client.write_all(&pattern(6, 1 << 20)).expect("write");
    drop(client);
    assert_eq!(reader.join().expect("the reader ends"), 1 << 20);
}

#[test]
fn many_threads_use_many_connections_at_once() {
    let [(server, joined), (client, _)] = pair();
    let listener = TcpListener::bind_on(&server, "[::]:1000").expect("bind");
    thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming().take(16) {
                let mut stream = stream.expect("accept");
                thread::spawn(move || {
                    let mut data = Vec::new();
                    stream.read_to_end(&mut data).expect("read");
                    stream.write_all(&data).expect("write");
                });
            }
        });
        for seed in 0..16 {
            let (client, address) = (&client, joined.address());
            scope.spawn(move || {
                let data = pattern(seed, 200_000 + usize::from(seed) * 1000);
                let mut stream = TcpStream::connect_on(client, (address, 1000)).expect("connect");
                stream.write_all(&data).expect("write");
                stream.shutdown(Shutdown::Write).expect("shutdown");
                let mut echo = Vec::new();
                stream.read_to_end(&mut echo).expect("read");
                assert!(echo == data);
            });
        }
    });
}

#[test]
fn a_wrong_passphrase_finds_nobody() {
    let id = network();
    let nodes = [crate::common::node(), crate::common::node()];
    let first = nodes[0].join(Network::ad_hoc(id).with_passphrase("right").expect("memory")).expect("join");
    nodes[1].join(Network::ad_hoc(id).with_passphrase("wrong").expect("memory")).expect("join");
    let _listener = TcpListener::bind_on(&nodes[0], "[::]:1000").expect("bind");
    let error = TcpStream::connect_on(&nodes[1], (first.address(), 1000)).expect_err("another secret");
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);

    let third = crate::common::node();
    third.join(Network::ad_hoc(id).with_passphrase("right").expect("memory")).expect("join");
    TcpStream::connect_on(&third, (first.address(), 1000)).expect("the same secret");
}

#[test]
fn a_restarted_peer_with_the_same_identity_is_reached_again() {
    let id = network();
    let start = || {
        let node = peersock::Node::builder()
            .identity(peersock::IdentitySource::Seed(peersock::Seed([77; 32])))
            .interfaces(peersock::Interfaces::Loopback)
            .start()
            .expect("start");
        let joined = node.join(Network::ad_hoc(id)).expect("join");
        (node, joined)
    };
    let (client, _) = member(id);
    for _ in 0..3 {
        let (server, joined) = start();
        let listener = TcpListener::bind_on(&server, "[::]:1000").expect("bind");
        let deadline = Instant::now() + PATIENCE;
        let mut stream = loop {
            // The first attempt may still go to the old node.
            match TcpStream::connect_on(&client, (joined.address(), 1000)) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        let (mut accepted, _) = listener.accept().expect("accept");
        accepted.write_all(b"!").expect("write");
        stream.read_exact(&mut [0; 1]).expect("read");
        server.shutdown(Duration::ZERO);
    }
}
