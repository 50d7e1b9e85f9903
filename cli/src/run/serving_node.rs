//! The node that serves the program: the one that programs share, or one of this process alone.

use std::env;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peersock::{IdentitySource, Network, Node};
use peersock_attach::{AttachError, Attached, Namespaces, Told, VERSION, Wish};
use peersock_bsd::Client;
use peersock_socket_server::{FdServer, Outstanding};

use super::{Args, refused};
use crate::failure::{Failure, Outcome};
use crate::reach::NamedServers;
use crate::root_watch::{self, RootWatch};
use crate::session::interfaces;
use crate::{log, node, stdio, unanswered};

/// Environment variable for `--own-node`.
const OWN_NODE_VARIABLE: &str = "PEERSOCK_OWN_NODE";

/// The program's node.
pub(super) enum ServingNode {
    Shared(SharedNode),
    Own(OwnNode),
}

/// Attachment to the node that programs share.
pub(super) struct SharedNode {
    attached: Arc<Attached>,
    /// Set before this process itself ends the attachment.
    is_ending: Arc<AtomicBool>,
}

/// A node in this process.
pub(super) struct OwnNode {
    node: Node,
    server: FdServer,
    roots: RootWatch,
    refusals: JoinHandle<()>,
    unanswered: JoinHandle<()>,
}

impl ServingNode {
    /// Attaches to the shared node, or starts one for this process alone.
    pub(super) fn start(args: &Args, networks: Vec<Network>) -> Outcome<ServingNode> {
        let is_own = args.own_node || env::var_os(OWN_NODE_VARIABLE).is_some_and(|value| !value.is_empty());
        match is_own || args.node.state.ephemeral {
            true => OwnNode::start(args, networks).map(ServingNode::Own),
            false => SharedNode::attach(args, &networks).map(ServingNode::Shared),
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self, ServingNode::Shared(_))
    }

    /// Returns the variable that tells processes which node to use. It contains a secret.
    pub(super) fn environment(&self) -> String {
        match self {
            ServingNode::Shared(shared) => shared.attached.environment().to_owned(),
            ServingNode::Own(own) => own.server.environment(),
        }
    }

    pub(super) fn client(&self) -> io::Result<Arc<Client>> {
        let parsed = FdServer::parse_environment(&self.environment());
        let (tag, token) = parsed.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Client::new(tag, token))
    }

    /// Declares that the library does not see the calls on the program's sockets.
    pub(super) fn note_unseen_calls(&self) {
        match self {
            ServingNode::Shared(shared) => shared.attached.note_unseen_calls(),
            ServingNode::Own(own) => own.server.note_unseen_calls(),
        }
    }

    /// Returns a counter of the connections that processes have made to the node.
    pub(super) fn contacts(&self) -> Box<dyn Fn() -> u64 + Send> {
        match self {
            ServingNode::Shared(shared) => {
                let attached = Arc::clone(&shared.attached);
                Box::new(move || attached.contacts())
            }
            ServingNode::Own(own) => {
                let contacts = own.server.contacts();
                Box::new(move || contacts.count())
            }
        }
    }

    pub(super) fn begin_drain(&self) {
        match self {
            ServingNode::Shared(shared) => shared.attached.begin_drain(),
            ServingNode::Own(own) => own.server.begin_drain(),
        }
    }

    /// Returns the data that is not delivered yet, or never will be. The end of a shared node was reported
    /// when it happened.
    pub(super) fn undelivered(&self) -> Outstanding {
        match self {
            ServingNode::Shared(shared) => shared.attached.outstanding().map(known).unwrap_or_default(),
            ServingNode::Own(own) => own.server.undelivered(),
        }
    }

    /// Ends the program's sockets, after delivery. Waits for the end of a node that no other program uses.
    pub(super) fn end(self) {
        match self {
            ServingNode::Shared(shared) => {
                shared.is_ending.store(true, Ordering::SeqCst);
                shared.attached.detach();
            }
            ServingNode::Own(own) => own.end(),
        }
    }
}

impl SharedNode {
    fn attach(args: &Args, networks: &[Network]) -> Outcome<SharedNode> {
        let is_ending = Arc::new(AtomicBool::new(false));
        let (ends, name) = (Arc::clone(&is_ending), args.program[0].display().to_string());
        let tell = move |told| match told {
            Told::Note(note) => stdio::note(note),
            // If stderr is closed, nobody reads the log.
            Told::Log(line) => drop(writeln!(io::stderr(), "{line}")),
            Told::Lost { .. } if ends.load(Ordering::SeqCst) => {}
            Told::Lost { environment } => {
                if let Some((tag, _)) = FdServer::parse_environment(&environment) {
                    FdServer::end_sockets_of(tag);
                }
                stdio::note(format_args!(
                    "the node that programs share has ended, so {name} has no network: end it, and start it \
                     again under `peersock run`"
                ));
            }
        };
        let attached =
            Attached::open(&args.node.state.path()?, &node::launch(&args.node)?, wish(args, networks)?, tell);
        let attached = attached.map_err(not_attached)?;
        if !args.quiet {
            for network in attached.networks() {
                let addresses: Vec<_> = network.addresses.iter().map(ToString::to_string).collect();
                stdio::note(format!("network {}: {}", network.id, addresses.join(" ")));
            }
        }
        Ok(SharedNode { attached: Arc::new(attached), is_ending })
    }
}

fn wish(args: &Args, networks: &[Network]) -> Outcome<Wish> {
    let roots = args.node.roots_with_tokens()?;
    Ok(Wish {
        version: VERSION,
        package: env!("CARGO_PKG_VERSION").to_owned(),
        name: args.program[0].display().to_string(),
        networks: networks.iter().map(|network| network.to_portable().to_string()).collect(),
        roots: roots.iter().map(|root| root.to_portable().to_string()).collect(),
        settings: args.node.named_settings(),
        is_verbose: log::verbosity() > 0,
        namespaces: Namespaces::own(),
    })
}

fn not_attached(error: AttachError) -> Failure {
    match error {
        AttachError::Refused(refusal) => Failure::passed_on(refusal.status, refusal.message, refusal.hint),
        AttachError::InUse { .. } => Failure::new(
            format_args!("{error}"),
            "end that process, give --state DIR or --ephemeral; programs share a node if all are started by \
             `peersock run`",
        ),
        AttachError::Silent { .. } => Failure::new(
            format_args!("{error}"),
            "end its process (`peersock status` names it), or give --state DIR",
        ),
        error => Failure::new(
            format_args!("{error}"),
            "check that the directory belongs to you, or keep the node in this process by --own-node",
        ),
    }
}

/// Converts what the node has sent.
fn known(sent: peersock_attach::Outstanding) -> Outstanding {
    let mut known = Outstanding::default();
    (known.waiting, known.ends) = (sent.waiting, sent.ends);
    (known.lost, known.lost_bytes) = (sent.lost, sent.lost_bytes);
    (known.lost_before, known.lost_before_bytes) = (sent.lost_before, sent.lost_before_bytes);
    (known.silence, known.round_trip) = (sent.silence, sent.round_trip);
    known
}

impl OwnNode {
    fn start(args: &Args, networks: Vec<Network>) -> Outcome<OwnNode> {
        let identity = match args.node.state.ephemeral {
            true => IdentitySource::Ephemeral,
            false => IdentitySource::StateDir(args.node.state.path()?),
        };
        let builder = Node::builder().identity(identity).port(args.node.overlay_port);
        let builder = builder.interfaces(interfaces(&args.node.interfaces));
        let node = args.node.with_roots(builder)?.start()?;
        for network in networks.iter().cloned() {
            let joined = node.join(network)?;
            if !args.quiet {
                let addresses: Vec<_> = joined.addresses().iter().map(ToString::to_string).collect();
                stdio::note(format!("network {}: {}", joined.id(), addresses.join(" ")));
            }
        }
        let roots = root_watch::start(&node)?;
        let server =
            FdServer::start(&node).map_err(|error| refused("socket and socketpair of AF_UNIX", error))?;
        let refusals = server.refusals();
        let saying = thread::Builder::new().name("refusals".into());
        let refusals = saying.spawn(move || refusals.iter().for_each(stdio::note))?;
        let unanswered = unanswered::start(&node, networks, NamedServers::of(&args.node))?;
        Ok(OwnNode { node, server, roots, refusals, unanswered })
    }

    fn end(self) {
        drop(self.roots);
        self.node.shutdown(Duration::ZERO);
        // A new receiver replaces the old one, which ends after its remaining messages.
        drop(self.server.refusals());
        let _ = self.refusals.join();
        drop(self.node.unanswered());
        let _ = self.unanswered.join();
    }
}
