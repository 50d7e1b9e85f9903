//! One identity at two places: a state directory was copied, and two processes run with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::common::{Lab, PORT, Running, run};

#[test]
fn one_identity_at_two_places_is_said_by_both_and_by_their_peer() {
    let lab = Lab::new();
    run(lab.command("one", &["id"])).success();
    fs::create_dir(lab.state("two")).unwrap();
    fs::set_permissions(lab.state("two"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(lab.state("one").join("identity.key"), lab.state("two").join("identity.key")).unwrap();

    let peer = lab.listen(&["-k", &PORT.to_string()]);
    let address = peer.target.split(']').next().unwrap().trim_start_matches('[');
    // Each handshake of one node takes the peer's session from the other.
    let nodes = ["one", "two"].map(|name| (name, Running::start(lab.node(name, &["ping", address]))));
    for (name, node) in &nodes {
        node.wait_for_stderr("another node runs with this identity");
        let status = run(lab.command(name, &["status"])).success();
        assert!(status.text().contains("two nodes have this identity"), "{name}: {}", status.text());
    }
    peer.running.wait_for_stderr("two nodes run with the identity of this peer");
    let status = run(lab.command("listener", &["status"])).success();
    assert!(status.text().contains("two nodes have this identity"), "{}", status.text());
    for (_, node) in nodes {
        node.interrupt();
    }
    peer.running.interrupt().failure(130, &[]);
}

/// A node that is restarted is not a second one, killed or not.
#[test]
fn an_identity_that_is_started_again_accuses_nobody() {
    let lab = Lab::new();
    let peer = lab.listen(&["-k", &PORT.to_string()]);
    for round in 0..4 {
        let mut dialing = lab.dial(&peer.target, &[]);
        dialing.send(format!("round {round}\n").as_bytes());
        peer.running.wait_for_stdout(&format!("round {round}\n"));
        if round % 2 == 0 {
            dialing.finish().success();
        } else {
            // The node is killed.
            drop(dialing);
        }
    }
    let status = run(lab.command("listener", &["status"])).success();
    assert!(!status.text().contains("two nodes have"), "{}", status.text());
    let peer = peer.running.interrupt();
    assert!(!peer.stderr.contains("two nodes run"), "{}", peer.stderr);
}
