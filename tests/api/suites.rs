//! Cipher of data, for nodes with a fixed choice.

use std::io::ErrorKind;
use std::time::Duration;

use peersock::blocking::{TcpListener, TcpStream};
use peersock::overlay::Suite;
use peersock::{IdentitySource, Interfaces, Joined, Network, NetworkId, Node};

use crate::common::{exchange, member, network};

fn with_only(suite: Suite, network: NetworkId) -> (Node, Joined) {
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = node.only_suite(suite).start().expect("this build has both");
    let joined = node.join(Network::ad_hoc(network)).expect("the network is joined");
    (node, joined)
}

#[test]
fn a_node_with_one_cipher_reaches_nodes_that_have_both_and_is_reached() {
    for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
        let network = network();
        let [(alpha, home), (beta, away)] = [with_only(suite, network), member(network)];
        exchange((&alpha, &home), (&beta, &away), 100_000);
        exchange((&beta, &away), (&alpha, &home), 100_000);
    }
}

#[test]
fn nodes_without_a_cipher_in_common_do_not_reach_each_other() {
    let network = network();
    let (alpha, _) = with_only(Suite::ChaCha20Poly1305, network);
    let (beta, away) = with_only(Suite::Aes256Gcm, network);
    let _listener = TcpListener::bind_on(&beta, "[::]:1500").expect("a free port");
    let address = (away.address(), 1500).into();
    let refused = TcpStream::connect_timeout_on(&alpha, &address, Duration::from_secs(3)).map(drop);
    assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::TimedOut));
}
