//! A running node that has joined the network it was started for.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock::device::Device;
use peersock::overlay::NetworkId;
use peersock::{IdentitySource, Interfaces, JoinError, Joined, Network, Node, NodeBuilder};

use crate::args::{NetworkArgs, NodeArgs, UnderlayArgs};
use crate::failure::{Failure, Outcome};
use crate::waiting;
use crate::{arrivals, names, reach, root_watch, signals, stdio};

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
    /// What the options say of servers, for when nobody is found.
    named: reach::NamedServers,
}

impl Session {
    /// Starts a node, joins, and sees to it that Ctrl-C ends both properly.
    pub(crate) fn open(node: &NodeArgs, network: &NetworkArgs) -> Outcome<Session> {
        Session::open_until(node, network, |signal, _| 128 + signal)
    }

    /// As [`Session::open`]; Ctrl-C calls `farewell` first, which is told the signal and the node, and
    /// returns the exit status.
    pub(crate) fn open_until(
        args: &NodeArgs,
        network: &NetworkArgs,
        farewell: impl FnOnce(i32, &Node) -> i32 + Send + 'static,
    ) -> Outcome<Session> {
        let network = network.resolve()?;
        let identity = match args.state.ephemeral {
            true => IdentitySource::Ephemeral,
            false => IdentitySource::StateDir(args.state.path()?),
        };
        let node = builder(args, identity, interfaces(&args.interfaces))?;
        Session::open_with(args, node, network, Node::join, farewell)
    }

    /// Reads all that a node for devices needs, and gives the node before it starts. No peer is reached by
    /// the interfaces `own`, which are those devices.
    pub(crate) fn prepare_for_devices(
        args: &NodeArgs,
        identity: IdentitySource,
        own: Vec<String>,
    ) -> Outcome<NodeBuilder> {
        let allowed = match interfaces(&args.interfaces) {
            Interfaces::All => Interfaces::Except(own),
            named => named,
        };
        builder(args, identity, allowed)
    }

    /// Starts a node for a device, and for those of [`join_device`](Self::join_device). Ctrl-C calls
    /// `farewell` first, which is told the signal and returns the exit status.
    pub(crate) fn open_for_device(
        args: &NodeArgs,
        node: NodeBuilder,
        network: Network,
        device: Arc<dyn Device>,
        farewell: impl FnOnce(i32) -> i32 + Send + 'static,
    ) -> Outcome<Session> {
        let join = |node: &Node, network| node.join_device(network, device);
        Session::open_with(args, node, network, join, |signal, _| farewell(signal))
    }

    /// Starts a node that keeps nothing on the disk; Ctrl-C calls `farewell` as in [`Session::open_until`].
    pub(crate) fn open_as(
        args: &UnderlayArgs,
        network: Network,
        identity: IdentitySource,
        farewell: impl FnOnce(i32, &Node) -> i32 + Send + 'static,
    ) -> Outcome<Session> {
        let node = builder(args, identity, interfaces(&args.interfaces))?;
        Session::open_with(args, node, network, Node::join, farewell)
    }

    fn open_with(
        args: &UnderlayArgs,
        node: NodeBuilder,
        network: Network,
        join: impl FnOnce(&Node, Network) -> Result<Joined, JoinError>,
        farewell: impl FnOnce(i32, &Node) -> i32 + Send + 'static,
    ) -> Outcome<Session> {
        let node = node.start()?;
        let interrupted = node.clone();
        signals::end_with(move |signal| {
            let status = farewell(signal, &interrupted);
            let unacked = arrivals::finish(HURRY);
            let is_delivered = interrupted.shutdown(HURRY);
            match unacked {
                0 if is_delivered => {}
                0 => stdio::note(lost(&interrupted)),
                bytes => stdio::note(not_everything(bytes)),
            }
            status
        })?;
        let joined = join(&node, network.clone())?;
        wait_ready(&joined)?;
        Ok(Session { node, joined, network, named: reach::NamedServers::of(args) })
    }

    /// Has the node join one more network, for a device of its own.
    pub(crate) fn join_device(&self, network: Network, device: Arc<dyn Device>) -> Outcome<Joined> {
        let joined = self.node.join_device(network, device)?;
        wait_ready(&joined)?;
        Ok(joined)
    }

    /// Waits until a peer is found and a session with it stands. Unless it is to be `quiet`, it says what it
    /// waits for if that takes long.
    pub(crate) fn wait_peer(&self, address: IpAddr, within: Duration, quiet: bool) -> Outcome {
        let text = self.looking_for(&names::called(&self.network, address), within);
        let waiting = if quiet { None } else { Some(waiting::start(text)?) };
        let found = self.joined.wait_peer(address, within);
        drop(waiting);
        found.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => {
                self.log_silence(address, within);
                let who = match names::name_of(&self.network, address) {
                    Some(name) => format!("{name} ({address}) has not"),
                    None => format!("nobody with address {address}"),
                };
                Failure::new(
                    format_args!(
                        "{who} answered in network {} within {} s",
                        self.network.id(),
                        within.as_secs_f64()
                    ),
                    reach::what_to_check(&self.node, &self.network, &self.named, address),
                )
            }
            io::ErrorKind::AddrNotAvailable => Failure::usage(
                format_args!("no member of network {} can have address {address}", self.network.id()),
                match self.network.summary().by_file {
                    false => "give the address that `peersock addr` or `listen` prints on the other side",
                    true => "give the name or the address of a member; `peersock network show` lists them",
                },
            ),
            _ => error.into(),
        })
    }

    /// Where somebody is looked for, for a line while that lasts.
    pub(crate) fn looking_for(&self, whom: &str, within: Duration) -> impl FnOnce() -> String + use<> {
        let (node, id, whom) = (self.node.clone(), self.network.id(), whom.to_owned());
        move || looking_for(&node, &whom, id, within)
    }

    /// What roots and other servers may have to do with it that nobody was found at an address.
    pub(crate) fn servers_to_check(&self, address: IpAddr) -> String {
        reach::servers_to_check(&self.node, &self.named, address)
    }

    /// Says with -v where a peer that did not answer was looked for.
    pub(crate) fn log_silence(&self, address: IpAddr, within: Duration) {
        let within = within.as_secs_f64();
        let tried = self.joined.peers().into_iter().find(|peer| peer.addresses.contains(&address));
        let tried: Vec<_> = tried.iter().flat_map(|peer| &peer.candidates).map(ToString::to_string).collect();
        match &tried[..] {
            [] => tracing::info!("no answer: no beacon or hello of {address} has come in {within} s"),
            tried => tracing::info!("no answer from {} in {within} s", tried.join(" or ")),
        }
    }

    /// What is wrong with a port that the network does not allow.
    pub(crate) fn port_outside(&self, port: u16) -> Failure {
        let ports = self.joined.allowed_ports();
        Failure::usage(
            format_args!(
                "port {port} is outside the range {}-{} that network {} allows",
                ports.start(),
                ports.end(),
                self.network.id()
            ),
            "choose a port in that range, or a network whose ID allows more",
        )
    }

    /// Ends the node once everything that was written has arrived.
    pub(crate) fn close(self) -> Outcome {
        signals::leave_to_cleanup();
        match self.node.shutdown(LINGER) {
            true => Ok(()),
            false => {
                let lost = lost(&self.node);
                Err(Failure::new(format_args!("{lost}"), "look what the other side has, and send again"))
            }
        }
    }
}

/// A node that is to be started, as its options say.
fn builder(args: &UnderlayArgs, identity: IdentitySource, allowed: Interfaces) -> Outcome<NodeBuilder> {
    args.with_roots(Node::builder().identity(identity).interfaces(allowed).port(args.overlay_port))
}

impl Drop for Session {
    /// Says goodbye after a failure too. The thread that waits for signals has the node as well, so that
    /// dropping it is not the end.
    fn drop(&mut self) {
        self.node.shutdown(HURRY);
    }
}

fn wait_ready(joined: &Joined) -> Outcome {
    joined.wait_ready(READY_WITHIN).map_err(|error| {
        Failure::new(
            format_args!("cannot use network {}: {error}", joined.id()),
            "start the command again; -v shows what happens",
        )
    })
}

/// Where a peer is looked for, and for how long.
fn looking_for(node: &Node, whom: &str, network: NetworkId, within: Duration) -> String {
    let status = node.status();
    // Roots that others have named are left out: the user does not know of them.
    let roots = status.roots.iter().filter(|root| !root.guest);
    let roots = roots.map(|root| format!("at {} ({})", root_watch::name(root), root.state));
    let dht = status.dht.iter().map(|_| "in the DHT".to_owned());
    let places: Vec<_> = ["on the local networks".to_owned()].into_iter().chain(roots).chain(dht).collect();
    format!(
        "looking for {whom} in network {network} {}, for up to {} s",
        places.join(", "),
        within.as_secs_f64()
    )
}

/// What is to be said when a node could not deliver everything.
fn lost(node: &Node) -> String {
    match node.undelivered().bytes {
        0 => "the peer did not confirm that everything arrived".to_owned(),
        bytes => not_everything(bytes),
    }
}

fn not_everything(bytes: u64) -> String {
    format!("not everything arrived: {bytes} bytes were not acknowledged")
}

/// The interfaces that `--interface` names. A variable may be empty.
pub(crate) fn interfaces(names: &[String]) -> Interfaces {
    let named: Vec<_> = names.iter().filter(|name| !name.is_empty()).cloned().collect();
    match &named[..] {
        [] => Interfaces::All,
        [name] if name == "lo" => Interfaces::Loopback,
        _ => Interfaces::Named(named),
    }
}
