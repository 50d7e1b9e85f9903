//! A peer whose machine falls silent. Only connections with keepalives notice it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use peersock::blocking::{TcpListener, TcpStream};
use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;

use crate::common::{PATIENCE, member, network};
use crate::process::{self, Process};

/// Interval of keepalive probes. The connection fails after nine.
const INTERVAL: Duration = Duration::from_millis(500);

#[test]
fn who_only_waits_gives_up_as_its_keepalive_says() {
    let network = network();
    let (node, _joined) = member(network);
    let victim = Process::start("silent::victim_that_stops", &network.to_string());
    let mut stream = TcpStream::connect_on(&node, victim.address).expect("a connection");
    let mut without = TcpStream::connect_on(&node, victim.address).expect("another one");
    stream.set_keepalive(Some(INTERVAL)).expect("it stands");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_exact(&mut [0]).expect("data");
    without.read_exact(&mut [0]).expect("data");
    // The connection survives as long as the peer answers.
    stream.set_read_timeout(Some(12 * INTERVAL)).expect("a timeout");
    let error = stream.read(&mut [0]).expect_err("nothing comes");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");

    let _last = TcpStream::connect_on(&node, victim.address).expect("it goes on until then");
    let stopped = Instant::now();
    let error = stream.read(&mut [0]).expect_err("nothing comes");
    let took = stopped.elapsed();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    // 4.5 s, plus what a busy machine adds.
    assert!(took < PATIENCE / 2, "{took:?}");
    // A connection without keepalives waits on.
    without.set_read_timeout(Some(INTERVAL)).expect("a timeout");
    assert_eq!(without.read(&mut [0]).expect_err("nothing comes").kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn who_awaits_gives_up_as_its_keepalive_says() {
    let network = network();
    let (node, _joined) = member(network);
    let victim = Process::start("silent::victim_that_stops", &network.to_string());
    let mut stream = peersock::TcpStream::connect_on(&node, victim.address).await.expect("a connection");
    stream.set_keepalive(Some(INTERVAL)).expect("it stands");
    stream.read_exact(&mut [0]).await.expect("data");
    for _ in 0..2 {
        peersock::TcpStream::connect_on(&node, victim.address).await.expect("it goes on until then");
    }
    let read = tokio::time::timeout(PATIENCE / 2, stream.read(&mut [0])).await;
    let error = read.expect("it gives up").expect_err("nothing comes");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}

/// Runs the process that stops at the third connection, as if its machine had lost power.
#[test]
fn victim_that_stops() {
    let Some(network) = process::order() else { return };
    let (node, joined) = member(network.parse().expect("a network ID"));
    let listener = TcpListener::bind_on(&node, (joined.address(), 0)).expect("a port");
    process::say(listener.local_addr().expect("an address"));
    let mut streams = Vec::new();
    for _ in 0..2 {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"x").expect("room");
        streams.push(stream);
    }
    listener.accept().expect("a connection");
    let stopped = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
    stopped.expect("it may stop itself");
    // This thread may go on for a moment.
    std::thread::sleep(2 * PATIENCE);
    drop(streams);
}
