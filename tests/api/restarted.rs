//! A peer that restarts while connections to it are idle.

use std::io::{ErrorKind, Read as _};

use peersock::blocking::TcpStream;

use crate::common::{PATIENCE, member, network};

use super::process;

#[path = "../delivery/restarted.rs"]
mod peer;

use peer::{PROMISED, Peer};

#[test]
fn who_only_waits_for_a_peer_that_is_started_again_hears_of_it() {
    let network = network();
    let (node, joined) = member(network);
    let id = network.to_string();
    let peer = Peer::start("restarted::the_peer", &id);
    let mut stream = TcpStream::connect_on(&node, peer.address()).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_exact(&mut [0]).expect("data");
    let (_again, reached) = peer.restart(joined.address().into());
    let error = stream.read(&mut [0]).expect_err("no end that looks complete");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert!(reached.elapsed() < PROMISED, "{:?}", reached.elapsed());
}

/// Runs the peer's process. Without an order it does nothing.
#[test]
fn the_peer() {
    peer::be_one();
}
