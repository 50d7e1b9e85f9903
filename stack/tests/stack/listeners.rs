//! Tests of listeners that share a port (SO_REUSEPORT).

use std::sync::Arc;
use std::time::Duration;

use crate::pair::*;
use peersock_stack::*;

const SECOND: Duration = Duration::from_secs(1);

fn sharing() -> TcpOptions {
    TcpOptions { reuse_port: true, ..TcpOptions::default() }
}

fn accepted(pair: &Pair, listener: &Listener) -> Vec<Arc<Flow>> {
    std::iter::from_fn(|| listener.accept(pair.now).ok()).collect()
}

#[test]
fn listeners_that_share_a_port_share_its_connections() {
    let mut pair = Pair::new(5);
    let listeners: Vec<_> = (0..4).map(|_| pair.listen_with(B, 80, 512, sharing())).collect();
    let flows: Vec<_> = (0..400).map(|_| pair.connect(A, 80)).collect();
    pair.run(5 * SECOND, |_| flows.iter().all(|flow| flow.readiness().contains(Ready::CONNECTED)));
    pair.run_for(SECOND);
    let counts: Vec<_> = listeners.iter().map(|listener| accepted(&pair, listener).len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 400);
    assert!(counts.iter().all(|count| (60..=140).contains(count)), "{counts:?}");
}

#[test]
fn a_listener_that_shares_a_port_can_be_closed() {
    let mut pair = Pair::new(6);
    let [first, second] = [(); 2].map(|()| pair.listen_with(B, 80, 512, sharing()));
    first.close(pair.now);
    let flows: Vec<_> = (0..20).map(|_| pair.connect(A, 80)).collect();
    pair.run(5 * SECOND, |_| flows.iter().all(|flow| flow.readiness().contains(Ready::CONNECTED)));
    pair.run_for(SECOND);
    assert_eq!(accepted(&pair, &second).len(), 20);
    // Another listener may share the port while connections exist.
    pair.listen_with(B, 80, 512, sharing());
    second.close(pair.now);
    pair.listen_with(B, 80, 512, sharing());
}

#[test]
fn a_port_is_shared_only_if_all_agree() {
    let pair = Pair::new(7);
    let Host { stack, net, .. } = &pair.hosts[B];
    let listen = |port, options| stack.tcp_listen(pair.now, Some(*net), address(B, true, port), 8, options);
    let any = |port, options| {
        let any = std::net::SocketAddr::new("::".parse().unwrap(), port);
        stack.tcp_listen(pair.now, None, any, 8, options).map(drop)
    };
    let alone = || TcpOptions { reuse_address: true, ..TcpOptions::default() };
    let _first = listen(80, sharing()).unwrap();
    assert_eq!(listen(80, alone()).unwrap_err(), Error::AddrInUse);
    assert_eq!(any(80, alone()), Err(Error::AddrInUse));
    assert_eq!(any(80, sharing()), Ok(()));
    let second = listen(81, alone()).unwrap();
    assert_eq!(listen(81, sharing()).unwrap_err(), Error::AddrInUse);
    // Options set after the bind have no effect on sharing.
    second.set_options(sharing());
    assert_eq!(listen(81, sharing()).unwrap_err(), Error::AddrInUse);
}

#[test]
fn a_port_that_was_not_asked_for_is_not_shared() {
    let config = Config { ephemeral_ports: 40_000..=40_001, ..Config::default() };
    let now = Pair::new(8).now;
    let stack = Stack::new(config, [8; 32], now);
    let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse().unwrap()]));
    let listen = || stack.tcp_listen(now, Some(net), "10.0.0.1:0".parse().unwrap(), 8, sharing());
    let listeners: Vec<_> = (0..3).map(|_| listen().unwrap().local().port()).collect();
    assert!(listeners[0] != listeners[1] && !listeners[..2].contains(&listeners[2]), "{listeners:?}");
}

/// As without sharing, the most specific listener gets the connection.
#[test]
fn a_shared_port_goes_to_the_most_specific_listeners_first() {
    let mut pair = Pair::new(9);
    let any = pair.listen_with(B, 80, 512, sharing());
    let Host { stack, net, .. } = &pair.hosts[B];
    let own = [(); 2]
        .map(|()| stack.tcp_listen(pair.now, Some(*net), address(B, true, 80), 512, sharing()).unwrap());
    let flows: Vec<_> = (0..100).map(|_| pair.connect(A, 80)).collect();
    pair.run(5 * SECOND, |_| flows.iter().all(|flow| flow.readiness().contains(Ready::CONNECTED)));
    pair.run_for(SECOND);
    let counts = own.map(|listener| accepted(&pair, &listener).len());
    assert_eq!((counts[0] + counts[1], accepted(&pair, &any).len()), (100, 0));
    assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
}

/// A cookie returns to the listener that issued it. If the backlog is full, the client repeats it with data.
#[test]
fn cookies_of_a_shared_port_find_their_listener() {
    let mut pair = Pair::new(10);
    let listeners: Vec<_> = (0..3).map(|_| pair.listen_with(B, 80, 2, sharing())).collect();
    let flows: Vec<_> = (0..30).map(|_| pair.connect(A, 80)).collect();
    let mut taken = Vec::new();
    for _ in 0..60 {
        pair.run_for(SECOND);
        taken.extend(listeners.iter().flat_map(|listener| accepted(&pair, listener)));
        for flow in flows.iter().filter(|flow| flow.unacked() == 0) {
            if flow.write(pair.now, b"x") == Ok(1) {
                pair.kick(A, flow);
            }
        }
    }
    assert_eq!((taken.len(), taken.iter().filter(|flow| flow.readable() > 0).count()), (30, 30));
    assert!(flows.iter().all(|flow| flow.state() == State::Established));
    assert!(pair.counter(B, "tcp_cookies_accepted") > 0 && pair.counter(B, "tcp_backlog_overflows") > 0);
    assert_eq!(pair.counter(A, "tcp_resets_received"), 0);
}

#[test]
fn a_socket_that_is_only_bound_has_no_share() {
    let mut pair = Pair::new(11);
    let listener = pair.listen_with(B, 80, 512, sharing());
    let Host { stack, net, .. } = &pair.hosts[B];
    let bound = stack.tcp_bind(Some(*net), address(B, true, 80), sharing()).unwrap();
    let connect = |pair: &mut Pair| {
        let flows: Vec<_> = (0..20).map(|_| pair.connect(A, 80)).collect();
        pair.run(5 * SECOND, |_| flows.iter().all(|flow| flow.readiness().contains(Ready::CONNECTED)));
        pair.run_for(SECOND);
    };
    connect(&mut pair);
    assert_eq!((accepted(&pair, &listener).len(), accepted(&pair, &bound).len()), (20, 0));
    // Once listening, it takes every connection, because its address is the more specific one.
    bound.listen(512);
    connect(&mut pair);
    assert_eq!((accepted(&pair, &listener).len(), accepted(&pair, &bound).len()), (0, 20));
}
