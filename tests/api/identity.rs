//! Identities of other ends: who is at the other end of a connection, taken from its session.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};

use peersock::blocking::{TcpListener, TcpStream};
use peersock::{IdentitySource, Interfaces, Joined, Network, Node, PeerIdentity};

use crate::common::{PATIENCE, node, pair};
use crate::managed::{Scene, echo, kept, until};

fn member(scene: &Scene) -> (Node, Joined) {
    let node = node();
    let joined = node.join(scene.invite()).expect("a good invite");
    joined.wait_ready(PATIENCE).expect("admitted");
    (node, joined)
}

fn name_of(joined: &Joined) -> String {
    joined.membership().and_then(|known| known.grant).expect("a grant").name.to_string()
}

fn assert_is_member(peer: &PeerIdentity, node: &Node, joined: &Joined) {
    assert_eq!((peer.network, peer.node, peer.machine), (joined.id(), node.id(), node.id()));
    assert_eq!(peer.full_name(), Some(name_of(joined)));
    assert!(peer.has_tag("db") && !peer.has_tag("web") && !peer.gateway, "{peer:?}");
    assert_eq!(peer.claims, joined.membership().and_then(|known| known.grant).expect("a grant").claims);
    assert_ne!(peer.claims, [] as [u8; 0]);
}

#[test]
fn a_connection_tells_who_is_at_the_other_end_also_after_its_end() {
    let scene = Scene::new();
    let ((alpha, home), (beta, away)) = (member(&scene), member(&scene));
    let listener = TcpListener::bind_on(&beta, "[::]:0").expect("a free port");
    let (mut client, server) = echo(&alpha, &listener, away.address().into());
    let theirs = client.peer().expect("connected");
    assert_is_member(&theirs, &beta, &away);
    assert_is_member(&server.peer().expect("connected"), &alpha, &home);
    // The granted address leads to the same member.
    let by_ipv4 = TcpListener::bind_on(&beta, "0.0.0.0:0").expect("a free port");
    let granted = away.addresses().into_iter().find(IpAddr::is_ipv4).expect("IPv4");
    assert_eq!(echo(&alpha, &by_ipv4, granted).0.peer(), Some(theirs.clone()));
    assert_eq!(alpha.peer_at(granted), Some(theirs.clone()));
    assert_eq!(alpha.peer_at(IpAddr::from([10, 77, 0, 250])), None, "nobody has it");

    scene.revoke(beta.id());
    client.read(&mut [0]).expect_err("the connection is reset");
    assert_eq!(client.peer(), Some(theirs));
    assert_is_member(&server.peer().expect("it was connected"), &alpha, &home);
    until("the removal", || alpha.peer_at(away.address().into()).is_none());
}

#[test]
fn a_program_is_told_apart_from_its_machine() {
    let scene = Scene::new();
    let place = tempfile::tempdir().expect("a directory");
    let alpha = kept(place.path());
    let home = alpha.join(scene.invite()).expect("a good invite");
    home.wait_ready(PATIENCE).expect("admitted");
    let state = IdentitySource::StateDir(place.path().to_owned());
    let web = Node::builder().identity(state).interfaces(Interfaces::Loopback).beside(true);
    let web = web.label("web".parse().expect("a label")).start().expect("beside");
    let at = web.join(Network::by_id(scene.id).expect("a managed network")).expect("a member");
    at.wait_ready(PATIENCE).expect("admitted");
    let (beta, away) = member(&scene);
    let listener = TcpListener::bind_on(&beta, "[::]:0").expect("a free port");
    let (_client, server) = echo(&web, &listener, away.address().into());
    let peer = server.peer().expect("connected");
    assert_eq!((peer.node, peer.machine), (web.id(), alpha.id()));
    assert_eq!(peer.full_name(), Some(format!("web.{}", name_of(&home))));
    assert!(peer.has_tag("db"), "a program has the rights of its machine: {peer:?}");
    let (_client, server) = echo(&alpha, &listener, away.address().into());
    assert_eq!(server.peer().expect("connected").full_name(), Some(name_of(&home)));
}

#[test]
fn a_node_that_talks_to_itself_is_its_own_member() {
    let scene = Scene::new();
    let (alpha, home) = member(&scene);
    let listener = TcpListener::bind_on(&alpha, "[::]:0").expect("a free port");
    let (client, server) = echo(&alpha, &listener, home.address().into());
    for end in [client, server] {
        assert_is_member(&end.peer().expect("connected"), &alpha, &home);
    }
    // No node vouches for another one in an ad-hoc network.
    let [(beta, _), (gamma, away)] = pair();
    let listener = TcpListener::bind_on(&gamma, "[::]:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let client = TcpStream::connect_on(&beta, SocketAddr::new(away.address().into(), port));
    let peer = client.expect("connected").peer().expect("connected");
    assert_eq!((peer.node, peer.name, peer.tags.len()), (gamma.id(), None, 0));
    let peer = listener.accept().expect("a connection").0.peer().expect("connected");
    assert_eq!(peer.machine, beta.id());
}
