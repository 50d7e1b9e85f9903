//! Shared code of both children of the demonstration.

use std::io::{self, BufRead as _};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use peersock::overlay::NetworkId;
use peersock::{Dht, IdentitySource, Interfaces, Joined, Network, Node, RootSource, StartError};

use peersock_terminal::failure::{Failure, Outcome};
use peersock_terminal::signals;

/// Time to say goodbye to the peer.
const GOODBYE_TIME: Duration = Duration::from_millis(500);

/// Starts a node on loopback with an ephemeral identity, in the demonstration's network.
pub(super) fn start(network: NetworkId) -> Outcome<(Node, Joined)> {
    // Overrides the environment, which may name roots and other servers for programs that leave this machine.
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = node.roots([] as [RootSource; 0]).dht(Dht::Off).turn([]);
    let node = node.start().map_err(|error| match error {
        // A specific message, because the demonstration has no option for another interface.
        StartError::Io(error) if error.kind() == io::ErrorKind::NotFound => Failure::new(
            format_args!("the loopback interface cannot be used: {error}"),
            "run `ip link set lo up` as root, which brings it up; all of the demonstration stays on it",
        ),
        error => error.into(),
    })?;
    let interrupted = node.clone();
    signals::end_after(move || {
        interrupted.shutdown(GOODBYE_TIME);
    })?;
    let joined = node.join(Network::ad_hoc(network))?;
    Ok((node, joined))
}

/// Returns the lines that the parent sends. At their end the parent is gone, and this process ends.
pub(super) fn lines_from_parent(node: &Node) -> Outcome<Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    let node = node.clone();
    thread::Builder::new().name("parent".into()).spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            // The receiver may be gone; this thread still waits for the end of the lines.
            let _ = sender.send(line);
        }
        signals::exit_after(0, || {
            node.shutdown(GOODBYE_TIME);
        });
    })?;
    Ok(receiver)
}
