//! Nicknames, between nodes that know only a root in common.

use std::net::SocketAddr;
use std::time::Duration;

use peersock::overlay::Identity;
use peersock::{
    IdentitySource, Interfaces, Joined, Network, Nickname, NicknameError, NicknameText, Node, RootSource,
    Seed,
};

use crate::common::{PATIENCE, exchange, network, node};
use crate::streams::Root;

fn nickname(text: &str) -> Nickname {
    text.parse().expect("a nickname")
}

/// Starts a node that uses a root, and finds no other node without it.
fn member(root: &Root, seed: [u8; 32], network: peersock::NetworkId) -> (Node, Joined) {
    let text = format!("{}@{}", root.identity(), root.udp()[0]);
    let roots = RootSource::load(&text).expect("a root");
    let builder = Node::builder().identity(IdentitySource::Seed(Seed(seed)));
    let builder = builder.interfaces(Interfaces::Loopback).discovery(false).roots(roots);
    let node = builder.start().expect("loopback sockets");
    let joined = node.join(Network::ad_hoc(network)).expect("joined");
    (node, joined)
}

fn root() -> Root {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    Root::listen(&[any], any)
}

#[test]
fn a_node_is_found_and_reached_by_its_nickname() {
    let (root, network) = (root(), network());
    let (alpha, home) = member(&root, [1; 32], network);
    let (beta, away) = member(&root, [2; 32], network);
    let full = alpha.nickname(&nickname("Alice"), 1500, PATIENCE).expect("nobody has it");
    assert_eq!(full, NicknameText::of(nickname("alice"), &alpha.id()));
    assert_eq!(alpha.nickname(&nickname("alice"), 1500, Duration::ZERO).as_ref(), Ok(&full), "at once");
    for text in [full.to_string(), "alice.peersock".to_owned()] {
        let found = beta.find_nickname(&text.parse().expect("a text"), PATIENCE).expect("alpha has it");
        assert_eq!((found.identity, found.port), (alpha.public_identity(), 1500));
        assert_eq!(network.address_of(&found.identity.node_id()), home.address());
    }
    exchange((&beta, &away), (&alpha, &home), 10_000);

    assert_eq!(beta.nickname(&nickname("alice"), 1, PATIENCE), Err(NicknameError::Taken));
    let wrong = NicknameText::of(nickname("alice"), &beta.id());
    assert_eq!(alpha.find_nickname(&wrong, PATIENCE), Err(NicknameError::NotFound));
    for text in ["a", "b", "c"] {
        beta.nickname(&nickname(text), 1, PATIENCE).expect("nobody has it");
    }
    assert_eq!(beta.nicknames(), ["a", "b", "c"].map(nickname));
    beta.nickname(&nickname("d"), 1, PATIENCE).expect("nobody has it");
    assert_eq!(beta.nickname(&nickname("e"), 1, PATIENCE), Err(NicknameError::TooMany));
    assert!(beta.release_nickname(&nickname("a")) && !beta.release_nickname(&nickname("a")));
    beta.nickname(&nickname("e"), 1, PATIENCE).expect("nobody has it");

    // Another process of the same node has its nickname, which no other node could claim meanwhile.
    alpha.shutdown(Duration::ZERO);
    assert_eq!(alpha.nickname(&nickname("f"), 1, PATIENCE), Err(NicknameError::Stopped));
    assert_eq!(alpha.find_nickname(&full, PATIENCE), Err(NicknameError::Stopped));
    let text = "alice.peersock".parse().expect("a text");
    assert_eq!(beta.find_nickname(&text, PATIENCE).map(|found| found.port), Ok(1500));
    assert_eq!(beta.nickname(&nickname("e"), 2, PATIENCE).map(|text| text.node), Ok(wrong.node));
    let (again, _) = member(&root, [1; 32], network);
    again.nickname(&nickname("alice"), 7, PATIENCE).expect("it is its own");
    assert_eq!(beta.find_nickname(&text, PATIENCE).map(|found| found.port), Ok(7));
    assert_eq!(Identity::from_seed(&[1; 32]).node_id(), again.id());
}

#[test]
fn without_a_root_that_answers_there_are_no_nicknames() {
    let alone = node();
    let text = "alice.peersock".parse().expect("a text");
    let short = Duration::from_millis(100);
    assert_eq!(alone.nickname(&nickname("alice"), 1, short), Err(NicknameError::NoRoots));
    assert_eq!(alone.find_nickname(&text, short), Err(NicknameError::NoRoots));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let key = Identity::from_seed(&[9; 32]);
    let at = format!("{}@{}", key.public(), silent.local_addr().expect("its address"));
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let unanswered = builder.roots(RootSource::load(&at).expect("a root")).start().expect("loopback sockets");
    assert_eq!(unanswered.nickname(&nickname("alice"), 1, short), Err(NicknameError::NoAnswer));
    assert_eq!(unanswered.find_nickname(&text, short), Err(NicknameError::NoAnswer));
    assert!(unanswered.nicknames().is_empty());
}
