//! A running node that has joined the network it was started for.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use peersock::{IdentitySource, Interfaces, Joined, Network, Node};

use crate::args::{NetworkArgs, NodeArgs};
use crate::failure::{Failure, Outcome};
use crate::signals;

/// How long a node may take to have its sockets and addresses. It takes milliseconds.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// How long what was already written may take to arrive when the program ends by itself.
const LINGER: Duration = Duration::from_secs(30);

/// The same when somebody presses Ctrl-C: enough to say goodbye to the peers.
const HURRY: Duration = Duration::from_millis(300);

pub(crate) struct Session {
    pub(crate) node: Node,
    pub(crate) joined: Joined,
    pub(crate) network: Network,
}

impl Session {
    /// Starts a node, joins, and sees to it that Ctrl-C ends both properly.
    pub(crate) fn open(node: &NodeArgs, network: &NetworkArgs) -> Outcome<Session> {
        Session::open_until(node, network, || {})
    }

    /// As [`Session::open`]; Ctrl-C calls `farewell` first.
    pub(crate) fn open_until(
        args: &NodeArgs,
        network: &NetworkArgs,
        farewell: impl FnOnce() + Send + 'static,
    ) -> Outcome<Session> {
        let network = network.resolve()?;
        let identity = match args.state.ephemeral {
            true => IdentitySource::Ephemeral,
            false => IdentitySource::StateDir(args.state.path()?),
        };
        let node = Node::builder()
            .identity(identity)
            .interfaces(interfaces(&args.interfaces))
            .port(args.overlay_port)
            .start()?;
        let interrupted = node.clone();
        signals::end_after(move || {
            farewell();
            interrupted.shutdown(HURRY);
        })?;
        let joined = node.join(network.clone())?;
        joined
            .wait_ready(READY_WITHIN)
            .map_err(|error| Failure::new(format_args!("cannot use network {}: {error}", network.id())))?;
        Ok(Session { node, joined, network })
    }

    /// Waits until a peer is found and a session with it stands.
    pub(crate) fn wait_peer(&self, address: IpAddr, within: Duration) -> Outcome {
        self.joined.wait_peer(address, within).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => Failure::new(format_args!(
                "nobody with address {address} answered in network {} within {} s; is the other program \
                 running, on this LAN, with the same network ID and passphrase?",
                self.network.id(),
                within.as_secs_f64()
            )),
            _ => error.into(),
        })
    }

    /// Ends the node once everything that was written has arrived.
    pub(crate) fn close(self) -> Outcome {
        match self.node.shutdown(LINGER) {
            true => Ok(()),
            false => Err(Failure::new(format_args!(
                "the peer did not confirm within {} s that everything arrived",
                LINGER.as_secs()
            ))),
        }
    }
}

/// The interfaces that `--interface` names.
pub(crate) fn interfaces(names: &[String]) -> Interfaces {
    match names {
        [] => Interfaces::All,
        [name] if name == "lo" => Interfaces::Loopback,
        names => Interfaces::Named(names.to_vec()),
    }
}
