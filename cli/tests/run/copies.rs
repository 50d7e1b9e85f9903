//! One identity at two places: a state directory was copied, and a program runs with each copy.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::common::{Running, peersock, run};
use crate::lab::{ALPHA, Lab};

#[test]
fn one_identity_at_two_places_is_said_by_both_launchers_and_by_their_peer() {
    let test = "one_identity_at_two_places_is_said_by_both_launchers_and_by_their_peer";
    let Some(lab) = Lab::with(test, &["python3"]) else { return };
    let copy = lab.path("copy");
    fs::create_dir(&copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(lab.path("beta").join("identity.key"), copy.join("identity.key")).unwrap();

    let receiving = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 7000))
print('ready', flush=True)
while True: s.recv(1)";
    let peer = lab.start("alpha", &["python3", "-c", receiving]);
    peer.wait_for_stdout("ready");
    // Each handshake of one node takes the peer's session from the other.
    let sending = "import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try: s.sendto(b'x', (sys.argv[1], 7000))
    except OSError: pass
    time.sleep(0.05)";
    let nodes: [(&str, Running); 2] =
        ["beta", "copy"].map(|name| (name, lab.start(name, &["python3", "-c", sending, ALPHA])));
    let says = |name: &str| {
        let mut status = peersock(&["status", "--state"]);
        status.arg(lab.path(name));
        let status = run(status).success();
        assert!(status.text().contains("two nodes have this identity"), "{name}: {}", status.text());
    };
    for (name, node) in &nodes {
        node.wait_for_stderr("another node runs with this identity");
        says(name);
    }
    peer.wait_for_stderr("two nodes run with the identity of this peer");
    says("alpha");
}
