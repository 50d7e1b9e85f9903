//! What both children of the demonstration have in common.

use std::io::{self, BufRead as _};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use peersock::overlay::NetworkId;
use peersock::{Dht, IdentitySource, Interfaces, Joined, Network, Node, RootSource, StartError};

use peersock_terminal::failure::{Failure, Outcome};
use peersock_terminal::signals;

/// Enough to tell the peer goodbye.
const LINGER: Duration = Duration::from_millis(500);

/// A node that stays on loopback and forgets its identity, in the demonstration's network.
pub(super) fn start(network: NetworkId) -> Outcome<(Node, Joined)> {
    // The environment may name roots and others for programs that leave this machine.
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = node.roots([] as [RootSource; 0]).dht(Dht::Off).turn([]);
    let node = node.start().map_err(|error| match error {
        // A demonstration has no option that names another one.
        StartError::Io(error) if error.kind() == io::ErrorKind::NotFound => Failure::new(
            format_args!("the loopback interface cannot be used: {error}"),
            "run `ip link set lo up` as root, which brings it up; all of the demonstration stays on it",
        ),
        error => error.into(),
    })?;
    let interrupted = node.clone();
    signals::end_after(move || {
        interrupted.shutdown(LINGER);
    })?;
    let joined = node.join(Network::ad_hoc(network))?;
    Ok((node, joined))
}

/// The lines that the parent sends. When there are no more the parent is gone, and so is this process.
pub(super) fn lines_from_parent(node: &Node) -> Outcome<Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    let node = node.clone();
    thread::Builder::new().name("parent".into()).spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            // Nobody may be interested; the end of the lines still is what this thread waits for.
            let _ = sender.send(line);
        }
        signals::exit_after(0, || {
            node.shutdown(LINGER);
        });
    })?;
    Ok(receiver)
}
