//! A peer whose process is killed. Its machine still answers, so its connections end soon.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peersock::NetworkId;
use peersock::blocking::{TcpListener, TcpStream};

use crate::common::{PATIENCE, member, network};
use crate::process::{self, Process};

/// Idle time before the kill of a process that waits.
const IDLE: Duration = Duration::from_secs(4);

#[test]
fn who_downloads_from_a_process_that_is_killed_hears_of_it() {
    let network = network();
    let (node, _joined) = member(network);
    let mut victim = victim(network);
    let mut stream = TcpStream::connect_on(&node, victim.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut buf = [0; 65_536];
    stream.read_exact(&mut buf).expect("data");
    victim.kill();
    let killed = Instant::now();
    let error = loop {
        match stream.read(&mut buf) {
            Ok(0) => panic!("an end without an error"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    check(killed);
}

#[test]
fn who_uploads_to_a_process_that_is_killed_hears_of_it() {
    let network = network();
    let (node, _joined) = member(network);
    let mut victim = victim(network);
    let mut stream = TcpStream::connect_on(&node, victim.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_exact(&mut [0]).expect("data");
    victim.kill();
    let killed = Instant::now();
    let error = loop {
        // Send little, now and then, as a keepalive would.
        if let Err(error) = stream.write_all(b"still there?") {
            break error;
        }
        assert!(killed.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    check(killed);
}

#[test]
fn who_only_waits_for_a_process_that_is_killed_hears_of_it() {
    let network = network();
    let (node, _joined) = member(network);
    let victim = idle_victim(network);
    let mut stream = TcpStream::connect_on(&node, victim.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_exact(&mut [0]).expect("data");
    // All data is acknowledged, and no packet is under way any more.
    std::thread::sleep(IDLE);
    kill_and_wait(victim, stream);
}

#[test]
fn who_has_accepted_a_process_that_is_killed_hears_of_it() {
    let network = network();
    let (node, joined) = member(network);
    let listener = TcpListener::bind_on(&node, (joined.address(), 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let victim = Process::start("killed::victim_that_connects", &format!("{network} {address}"));
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_exact(&mut [0]).expect("data");
    std::thread::sleep(IDLE);
    kill_and_wait(victim, stream);
}

/// Runs the victim that is killed while both ends are silent.
#[test]
fn victim_that_waits() {
    let Some(network) = process::order() else { return };
    let (node, joined) = member(network.parse().expect("a network ID"));
    let listener = TcpListener::bind_on(&node, (joined.address(), 0)).expect("a port");
    process::say(listener.local_addr().expect("an address"));
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.write_all(b"x").expect("room");
    std::thread::sleep(2 * PATIENCE);
}

/// Runs the same victim as the connecting side.
#[test]
fn victim_that_connects() {
    let Some(order) = process::order() else { return };
    let (network, address) = order.split_once(' ').expect("two words");
    let (node, _joined) = member(network.parse().expect("a network ID"));
    let address: SocketAddr = address.parse().expect("an address");
    let mut stream = TcpStream::connect_on(&node, address).expect("a connection");
    process::say(stream.local_addr().expect("an address"));
    stream.write_all(b"x").expect("room");
    std::thread::sleep(2 * PATIENCE);
}

/// Runs the victim, which sends to any client. Without an order it does nothing.
#[test]
fn victim_of_the_others() {
    let Some(network) = process::order() else { return };
    let (node, joined) = member(network.parse().expect("a network ID"));
    let listener = TcpListener::bind_on(&node, (joined.address(), 0)).expect("a port");
    process::say(listener.local_addr().expect("an address"));
    let (mut stream, _) = listener.accept().expect("a connection");
    // Stop if the parent that should have killed this process is gone.
    let end = Instant::now() + 2 * PATIENCE;
    while Instant::now() < end && stream.write_all(&[7; 65_536]).is_ok() {}
}

fn victim(network: NetworkId) -> Process {
    Process::start("killed::victim_of_the_others", &network.to_string())
}

fn idle_victim(network: NetworkId) -> Process {
    Process::start("killed::victim_that_waits", &network.to_string())
}

/// Checks that a reader with all data gets an error when the process is killed.
fn kill_and_wait(mut victim: Process, mut stream: TcpStream) {
    victim.kill();
    let killed = Instant::now();
    let error = stream.read(&mut [0]).expect_err("no end that looks complete");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    check(killed);
}

/// Checks that an end on one machine is known within 2 s. After at most 0.6 s the node asks the peer, and the
/// peer's machine refuses for another 0.6 s.
fn check(since: Instant) {
    let took = since.elapsed();
    eprintln!("noticed after {:.2} s", took.as_secs_f64());
    assert!(took <= Duration::from_secs(2), "{took:?}");
}
