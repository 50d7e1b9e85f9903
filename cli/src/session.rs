//! A running node that has joined its network.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peersock::device::Device;
use peersock::overlay::NetworkId;
use peersock::state::StateError;
use peersock::{
    IdentitySource, Interfaces, JoinError, Joined, Network, Node, NodeBuilder, PeerStatus, RootSource,
    StartError, Status,
};
use peersock_proxy::Ticket;

use crate::args::{NodeArgs, UnderlayArgs, managed_state};
use crate::failure::{Failure, Outcome};
use crate::root_watch::RootWatch;
use crate::waiting;
use crate::{arrivals, in_use, managed, names, reach, root_watch, signals, stdio};

/// Timeout for a node's sockets and addresses to be ready, which normally takes milliseconds.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Time for written data to arrive when the program ends by itself.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for data to arrive after Ctrl-C: enough to say goodbye to the peers.
const INTERRUPTED_DELIVERY_TIMEOUT: Duration = Duration::from_millis(300);

pub(crate) struct Session {
    pub(crate) node: Node,
    pub(crate) joined: Joined,
    pub(crate) network: Network,
    /// Options about servers, for messages if no peer is found.
    named: reach::NamedServers,
}

impl Session {
    /// Starts a node, joins, and makes Ctrl-C end both properly: `farewell` runs first then; it gets the
    /// signal and the node, and returns the exit status. `prepare` applies settings besides the options.
    pub(crate) fn open_in(
        args: &NodeArgs,
        network: Network,
        prepare: impl FnOnce(NodeBuilder) -> Outcome<NodeBuilder>,
        farewell: impl FnOnce(i32, &Node) -> i32 + Send + 'static,
    ) -> Outcome<Session> {
        let identity = match args.state.ephemeral {
            true => IdentitySource::Ephemeral,
            false => IdentitySource::StateDir(args.state.path()?),
        };
        let port = if args.state.ephemeral { args.port_of_passing_node() } else { args.overlay_port };
        let node = builder(args, identity, interfaces(&args.interfaces))?.port(port);
        let node = prepare(node.beside(network.id().is_managed()))?;
        Session::open_with(args, node, network, Node::join, farewell)
    }

    /// Prepares a node with these roots for devices: reads all it needs, but does not start it. `own` are the
    /// devices' interfaces, over which no peer is reached.
    pub(crate) fn prepare_for_devices(
        args: &NodeArgs,
        identity: IdentitySource,
        own: Vec<String>,
        roots: Vec<RootSource>,
    ) -> Outcome<NodeBuilder> {
        let allowed = match interfaces(&args.interfaces) {
            Interfaces::All => Interfaces::Except(own),
            named => named,
        };
        let node = Node::builder().identity(identity).interfaces(allowed).port(args.overlay_port);
        Ok(args.without_roots(node)?.roots(roots))
    }

    /// Starts a node for a device, to which [`join_device`](Self::join_device) can add more. On Ctrl-C,
    /// `farewell` runs first; it gets the signal and returns the exit status.
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

    /// Starts a node that stores nothing on disk; `farewell` works as in [`Session::open_in`].
    pub(crate) fn open_as(
        args: &UnderlayArgs,
        network: Network,
        identity: IdentitySource,
        farewell: impl FnOnce(i32, &Node) -> i32 + Send + 'static,
    ) -> Outcome<Session> {
        let node = builder(args, identity, interfaces(&args.interfaces))?.port(args.port_of_passing_node());
        Session::open_with(args, node, network, Node::join, farewell)
    }

    /// Starts a node in the network of a ticket, which stores nothing on disk, with these roots; `farewell`
    /// works as in [`Session::open_in`].
    pub(crate) fn open_by_ticket(
        args: &UnderlayArgs,
        ticket: &Ticket,
        identity: IdentitySource,
        roots: Vec<RootSource>,
        farewell: impl FnOnce(i32, &Node) -> i32 + Send + 'static,
    ) -> Outcome<Session> {
        let node = Node::builder().identity(identity).interfaces(interfaces(&args.interfaces));
        let node = args.without_roots(node.port(args.port_of_passing_node()))?.roots(roots);
        let node = match args.named_dht()? {
            Some(dht) => node.dht(dht),
            None => node.dht(ticket.dht().clone()),
        };
        Session::open_with(args, node, ticket.network(), Node::join, farewell)
    }

    fn open_with(
        args: &UnderlayArgs,
        node: NodeBuilder,
        network: Network,
        join: impl FnOnce(&Node, Network) -> Result<Joined, JoinError>,
        farewell: impl FnOnce(i32, &Node) -> i32 + Send + 'static,
    ) -> Outcome<Session> {
        let node = node.start().map_err(|error| match error {
            StartError::State(StateError::InUse { path, holder }) => {
                in_use::for_own_node(&path, holder, std::slice::from_ref(&network))
            }
            error => error.into(),
        })?;
        let interrupted = node.clone();
        signals::end_with(move |signal| {
            let status = farewell(signal, &interrupted);
            let unacked = arrivals::finish(INTERRUPTED_DELIVERY_TIMEOUT);
            let is_delivered = interrupted.shutdown(INTERRUPTED_DELIVERY_TIMEOUT);
            match unacked {
                0 if is_delivered => {}
                0 => stdio::note(lost(&interrupted)),
                bytes => stdio::note(not_everything(bytes)),
            }
            status
        })?;
        let joined = join(&node, network.clone()).map_err(Failure::from);
        let joined = joined.and_then(|joined| wait_ready(&joined).map(|()| joined)).inspect_err(|_| {
            // The signal thread holds the node, so dropping it is not enough.
            node.shutdown(INTERRUPTED_DELIVERY_TIMEOUT);
        })?;
        Ok(Session { node, joined, network, named: reach::NamedServers::of(args) })
    }

    /// Joins the node to one more network, for a separate device.
    pub(crate) fn join_device(&self, network: Network, device: Arc<dyn Device>) -> Outcome<Joined> {
        let joined = self.node.join_device(network, device)?;
        wait_ready(&joined)?;
        Ok(joined)
    }

    /// Waits until a peer is found and a session with it is established. Unless `quiet`, prints what it waits
    /// for if that takes long.
    pub(crate) fn wait_peer(&self, address: IpAddr, within: Duration, quiet: bool) -> Outcome {
        let text = self.looking_for(&names::called(&self.network, address), within);
        let waiting = if quiet { None } else { Some(waiting::start(text)?) };
        let found = self.joined.wait_peer(address, within);
        drop(waiting);
        found.map_err(|error| {
            not_found(&self.network, address, within, error, || {
                self.log_silence(address, within);
                reach::what_to_check(&self.node, &self.network, &self.named, address)
            })
        })
    }

    /// Returns the text about a search, for a line while it lasts.
    pub(crate) fn looking_for(&self, whom: &str, within: Duration) -> impl FnOnce() -> String + use<> {
        let (node, id, whom) = (self.node.clone(), self.network.id(), whom.to_owned());
        move || looking_for(&node.status(), &whom, id, within)
    }

    /// Returns clauses about roots and other servers that may explain why no peer was found at an address.
    /// Also the name of a root that was reached.
    pub(crate) fn servers_to_check(&self) -> (String, Option<String>) {
        reach::servers_to_check(&self.node, &self.named)
    }

    /// Prints messages about the roots until the result is dropped.
    pub(crate) fn watch_roots(&self) -> io::Result<RootWatch> {
        root_watch::start(&self.node, self.named.told())
    }

    /// Logs with -v at which addresses a silent peer was tried.
    pub(crate) fn log_silence(&self, address: IpAddr, within: Duration) {
        let peers = self.joined.peers();
        log_silence(peers.iter().find(|peer| peer.addresses.contains(&address)), address, within);
    }

    /// Ends the node once all written data has arrived.
    pub(crate) fn close(self) -> Outcome {
        signals::leave_to_cleanup();
        match self.node.shutdown(DELIVERY_TIMEOUT) {
            true => Ok(()),
            false => {
                let lost = lost(&self.node);
                Err(Failure::new(
                    format_args!("{lost}"),
                    "check what the other side has received, and send again",
                ))
            }
        }
    }
}

/// Returns a node builder with the options applied.
fn builder(args: &UnderlayArgs, identity: IdentitySource, allowed: Interfaces) -> Outcome<NodeBuilder> {
    args.with_roots(Node::builder().identity(identity).interfaces(allowed).port(args.overlay_port))
}

impl Drop for Session {
    /// Says goodbye after a failure too; dropping the node is not enough, because the signal thread holds it.
    fn drop(&mut self) {
        self.node.shutdown(INTERRUPTED_DELIVERY_TIMEOUT);
    }
}

/// Returns the failure for a member that was not found; `advice` is for one that has not answered.
pub(crate) fn not_found(
    network: &Network,
    address: IpAddr,
    within: Duration,
    error: io::Error,
    advice: impl FnOnce() -> String,
) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => {
            let name = names::name_of(network, address);
            reach::nobody_answered(network.id(), name, address, within, advice())
        }
        io::ErrorKind::AddrNotAvailable => {
            reach::no_such_member(network.id(), network.summary().by_file, address)
        }
        io::ErrorKind::PermissionDenied => {
            managed::removal(&managed_state(), network.id()).unwrap_or_else(|| error.into())
        }
        _ => error.into(),
    }
}

/// Checks, before a node exists, that a member can have an address. Of a static network the node itself
/// checks the rest, because it also knows ways out of the network.
pub(crate) fn check_address(network: &Network, address: IpAddr) -> Outcome {
    let summary = network.summary();
    let is_here = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    match !is_here && (summary.by_file || summary.prefixes.iter().any(|prefix| prefix.contains(address))) {
        true => Ok(()),
        false => Err(reach::no_such_member(network.id(), summary.by_file, address)),
    }
}

/// Checks that a network allows a port.
pub(crate) fn check_port(network: &Network, port: u16) -> Outcome {
    match network.summary().ports.contains(&port) {
        true => Ok(()),
        false => Err(port_outside(network, port)),
    }
}

/// Returns the failure for a port that a network does not allow: it is outside of the network's range, or the
/// access rules refuse the flow.
pub(crate) fn port_outside(network: &Network, port: u16) -> Failure {
    let ports = network.summary().ports;
    if ports.contains(&port) {
        return Failure::new(
            format_args!("the rules of network {} do not allow it", network.id()),
            "ask `peersock why` for the rule, with the member and the port",
        );
    }
    Failure::usage(
        format_args!(
            "port {port} is outside the range {}-{} that network {} allows",
            ports.start(),
            ports.end(),
            network.id()
        ),
        "choose a port in that range, or a network whose ID allows more",
    )
}

fn wait_ready(joined: &Joined) -> Outcome {
    joined.wait_ready(READY_WITHIN).map_err(|error| {
        Failure::new(
            format_args!("cannot use network {}: {error}", joined.id()),
            "start the command again; -v shows what happens",
        )
    })
}

/// Logs with -v at which addresses a silent peer was tried.
pub(crate) fn log_silence(peer: Option<&PeerStatus>, address: IpAddr, within: Duration) {
    let within = within.as_secs_f64();
    let tried: Vec<_> = peer.iter().flat_map(|peer| &peer.candidates).map(ToString::to_string).collect();
    match &tried[..] {
        [] => tracing::info!("no answer: no beacon or hello of {address} has come in {within} s"),
        tried => tracing::info!("no answer from {} in {within} s", tried.join(" or ")),
    }
}

/// Returns the text that says where and for how long a peer is searched.
pub(crate) fn looking_for(status: &Status, whom: &str, network: NetworkId, within: Duration) -> String {
    // Skips roots that other roots have named, because the user does not know them.
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

/// Returns the message if a node could not deliver everything.
fn lost(node: &Node) -> String {
    match node.undelivered().bytes {
        0 => "the peer did not confirm that everything arrived".to_owned(),
        bytes => not_everything(bytes),
    }
}

pub(crate) fn not_everything(bytes: u64) -> String {
    format!("not everything arrived: {bytes} bytes were not acknowledged")
}

/// Returns the interfaces that `--interface` names. The variable may be empty.
pub(crate) fn interfaces(names: &[String]) -> Interfaces {
    let named: Vec<_> = names.iter().filter(|name| !name.is_empty()).cloned().collect();
    match &named[..] {
        [] => Interfaces::All,
        [name] if name == "lo" => Interfaces::Loopback,
        _ => Interfaces::Named(named),
    }
}
