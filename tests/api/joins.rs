//! Threads that join and leave networks while others use sockets of the same nodes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream, UdpSocket};
use peersock::{JoinError, Joined, Network, NetworkId, Node};

use crate::common::{PATIENCE, alone, network, pair, pattern};

const THREADS: usize = 4;
const JOINS_PER_THREAD: usize = 50;
const USERS: usize = 2;

#[test]
fn threads_join_and_leave_while_others_use_sockets() {
    alone("joins::threads_join_and_leave_while_others_use_sockets", || {
        let nodes = pair();
        let shared = ad_hoc(99);
        let counts = Counts::default();
        // The first play makes all permanent resources.
        play(&nodes, shared, 1, &counts);
        let before = descriptors();
        play(&nodes, shared, JOINS_PER_THREAD, &counts);
        let deadline = Instant::now() + PATIENCE;
        while descriptors() > before {
            assert!(Instant::now() < deadline, "{} descriptors, {before} before", descriptors());
            thread::sleep(Duration::from_millis(10));
        }
        assert!(counts.answers.load(Ordering::Relaxed) > 0);
        for (node, stays) in &nodes {
            node.leave(shared);
            assert_eq!(node.networks().iter().map(Joined::id).collect::<Vec<_>>(), [stays.id()]);
            let flows = node.status().flows;
            assert_eq!(flows.total, flows.time_wait, "{flows:?}");
        }
    });
}

/// Event counts of all threads.
#[derive(Default)]
struct Counts {
    answers: AtomicUsize,
    joined: [AtomicUsize; 2],
    left: [AtomicUsize; 2],
}

fn play(nodes: &[(Node, Joined); 2], shared: NetworkId, rounds: usize, counts: &Counts) {
    let [(alpha, _), (beta, away)] = nodes;
    let listener = TcpListener::bind_on(beta, (away.address(), 1000)).expect("a port");
    let datagrams = UdpSocket::bind_on(beta, (away.address(), 1000)).expect("a port");
    let is_over = AtomicBool::new(false);
    let to = SocketAddr::new(away.address().into(), 1000);
    thread::scope(|scope| {
        for _ in 0..USERS {
            scope.spawn(|| {
                while let Ok((mut stream, _)) = listener.accept() {
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).expect("all of it");
                    stream.write_all(&all).expect("room");
                }
            });
        }
        scope.spawn(|| {
            let mut buf = [0; 100];
            while let Ok((count, from)) = datagrams.recv_from(&mut buf) {
                if count == 0 {
                    return;
                }
                datagrams.send_to(&buf[..count], from).expect("it is sent");
            }
        });
        let users: Vec<_> = (0..USERS as u8)
            .map(|user| {
                let (is_over, counts) = (&is_over, counts);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        use_sockets(alpha, to, user);
                        counts.answers.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let joiners: Vec<_> = (0..THREADS)
            .map(|thread| {
                let at = thread % nodes.len();
                let node = &nodes[at].0;
                scope.spawn(move || {
                    for round in 0..rounds {
                        come_and_go(node, thread, round);
                        come_and_go_together(node, shared, (&counts.joined[at], &counts.left[at]));
                    }
                })
            })
            .collect();
        let done: Vec<_> = joiners.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        let done = done.into_iter().chain(users.into_iter().map(thread::ScopedJoinHandle::join));
        // The servers end in any case.
        let panics = done.filter(Result::is_err).count();
        listener.close();
        let last = UdpSocket::bind_on(alpha, "[::]:0").expect("a port");
        last.send_to(b"", to).expect("it is sent");
        assert_eq!(panics, 0);
    });
    for (at, (node, _)) in nodes.iter().enumerate() {
        let [joined, left] = [&counts.joined, &counts.left].map(|counts| counts[at].load(Ordering::Relaxed));
        let is_in = node.networks().iter().any(|network| network.id() == shared);
        assert_eq!(joined - left, usize::from(is_in), "{joined} have joined, {left} have left");
    }
}

/// Exchanges data in the permanent network, where no call may fail.
fn use_sockets(node: &Node, to: SocketAddr, seed: u8) {
    let mut stream = TcpStream::connect_on(node, to).expect("a connection");
    let data = pattern(seed, 20_000);
    stream.write_all(&data).expect("room");
    stream.shutdown(Shutdown::Write).expect("connected");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("all of it");
    assert!(back == data, "{} of {} bytes", back.len(), data.len());
    let socket = UdpSocket::bind_on(node, "[::]:0").expect("a port");
    socket.connect(to).expect("a peer");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.send(&[seed; 10]).expect("it is sent");
    let mut buf = [0; 100];
    let count = socket.recv(&mut buf).expect("an answer");
    assert_eq!(buf[..count], [seed; 10]);
}

/// Joins a network that no other thread joins, uses it, and leaves it with sockets open.
fn come_and_go(node: &Node, thread: usize, round: usize) {
    let id = ad_hoc(thread);
    let joined = node.join(Network::ad_hoc(id)).expect("nobody else joins it");
    assert!(matches!(node.join(Network::ad_hoc(id)), Err(JoinError::AlreadyJoined(_))));
    let own = SocketAddr::new(joined.address().into(), 1500);
    let listener = TcpListener::bind_on(node, own).expect("a free port");
    let datagrams = UdpSocket::bind_on(node, own).expect("a free port");
    let mut stream = TcpStream::connect_on(node, own).expect("the node itself");
    let (mut accepted, _) = listener.accept().expect("a connection");
    stream.write_all(b"x").expect("room");
    accepted.read_exact(&mut [0]).expect("a byte");
    thread::scope(|scope| {
        // In half of the rounds threads wait.
        let waits = round.is_multiple_of(2).then(|| {
            [
                scope.spawn(|| listener.accept().map(drop)),
                scope.spawn(|| (&accepted).read(&mut [0]).map(drop)),
                scope.spawn(|| datagrams.recv_from(&mut [0]).map(drop)),
            ]
        });
        assert!(joined.leave());
        for waiting in waits.into_iter().flatten() {
            let error = waiting.join().expect("no panic").expect_err("the network is down");
            assert_eq!(error.kind(), ErrorKind::NetworkDown, "{error}");
        }
    });
    assert!(!joined.leave());
    let after =
        [listener.accept().map(drop), datagrams.recv_from(&mut [0]).map(drop), stream.write(b"x").map(drop)];
    for result in after {
        let error = result.expect_err("the network is down");
        assert_eq!(error.kind(), ErrorKind::NetworkDown, "{error}");
    }
    for result in [TcpStream::connect_on(node, own).map(drop), TcpListener::bind_on(node, own).map(drop)] {
        let error = result.expect_err("nobody has this address");
        let kinds = [ErrorKind::NetworkUnreachable, ErrorKind::AddrNotAvailable];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
    assert!(!node.status().networks.iter().any(|network| network.addresses.contains(&own.ip())));
}

/// Joins a network that other threads join and leave as well.
fn come_and_go_together(node: &Node, shared: NetworkId, (joined, left): (&AtomicUsize, &AtomicUsize)) {
    match node.join(Network::ad_hoc(shared)) {
        Ok(_) => _ = joined.fetch_add(1, Ordering::Relaxed),
        Err(error) => assert!(matches!(error, JoinError::AlreadyJoined(_)), "{error}"),
    }
    if node.leave(shared) {
        left.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns a separate network for one thread of this test.
fn ad_hoc(thread: usize) -> NetworkId {
    // The second half is random.
    let random = network().to_string();
    format!("ff{:04x}{}", 200 + thread, &random[6..]).parse().expect("an ad-hoc network ID")
}

/// Returns the number of this process's open descriptors.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}
