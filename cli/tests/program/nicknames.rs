//! Nicknames at a root that runs in a separate process, and is restarted.

use std::time::Duration;

use peersock::{IdentitySource, Interfaces, Nickname, NicknameError, Node, RootSource};

use crate::common::PATIENCE;
use crate::root::Root;

#[test]
fn a_nickname_outlives_the_process_of_the_root_and_goes_back_to_whom_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().to_str().expect("text");
    let root = Root::start_with(&["--state", state, "--port", "0"]);
    let start = || {
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let roots = RootSource::load(&root.text()).expect("a root");
        builder.discovery(false).roots(roots).start().expect("loopback sockets")
    };
    let (owner, other) = (start(), start());
    let alice: Nickname = "alice".parse().expect("a nickname");
    let text = owner.nickname(&alice, 10001, PATIENCE).expect("nobody has it");
    let find =
        || other.find_nickname(&text, Duration::from_secs(5)).map(|found| (found.identity, found.port));
    assert_eq!(find(), Ok((owner.public_identity(), 10001)));
    assert_eq!(other.nickname(&alice, 1, PATIENCE), Err(NicknameError::Taken));

    let port = root.address.port().to_string();
    let identity = root.identity;
    drop(root.running);
    let back = Root::start_with(&["--state", state, "--port", &port]);
    assert_eq!(back.identity, identity);
    // The owner claims the nickname again once it is registered again.
    let deadline = std::time::Instant::now() + PATIENCE;
    while find() != Ok((owner.public_identity(), 10001)) {
        assert!(std::time::Instant::now() < deadline, "it does not come back: {:?}", find());
    }
}

#[test]
fn a_root_keeps_as_many_nicknames_of_a_node_as_its_options_say() {
    let root = Root::start(&["--max-nicknames-per-node", "1"]);
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let roots = RootSource::load(&root.text()).expect("a root");
    let node = builder.discovery(false).roots(roots).start().expect("loopback sockets");
    let [alice, bob]: [Nickname; 2] = ["alice", "bob"].map(|text| text.parse().expect("a nickname"));
    node.nickname(&alice, 10001, PATIENCE).expect("nobody has it");
    assert_eq!(node.nickname(&bob, 10001, PATIENCE), Err(NicknameError::Full));
}
