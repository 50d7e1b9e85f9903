//! The node that serves the program: the one that programs share, or one of this process alone.

use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peersock::state::{StateDir, StateError};
use peersock::{IdentitySource, Network, Node, ProgramStatus, StartError};
use peersock_attach::Attached;
use peersock_bsd::Client;
use peersock_socket_server::{FdServer, Outstanding};

use super::children::Requests;
use super::{Args, refused};
use crate::failure::Outcome;
use crate::node::used;
use crate::reach::NamedServers;
use crate::root_watch::{self, RootWatch};
use crate::session::interfaces;
use crate::{attachment, in_use, stdio, unanswered};

/// Time in which a line is written before the program's calls end.
const NOTE: Duration = Duration::from_secs(1);

/// The program's node.
pub(super) enum ServingNode {
    Shared(SharedNode),
    Own(OwnNode),
}

/// Attachment to the node that programs share.
pub(super) struct SharedNode {
    attached: Arc<Attached>,
    socket: PathBuf,
    /// Set once the program has ended.
    is_ending: Arc<AtomicBool>,
    /// Set once a note has said that the node has ended.
    was_lost: Arc<AtomicBool>,
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
    /// Attaches to the shared node, if one runs or may be started. Otherwise starts one for this process
    /// alone.
    pub(super) fn start(args: &Args, networks: Vec<Network>) -> Outcome<ServingNode> {
        match SharedNode::attach(args, &networks)? {
            Some(shared) => Ok(ServingNode::Shared(shared)),
            None => OwnNode::start(args, networks).map(ServingNode::Own),
        }
    }

    /// Returns the process of a shared node, and the path of its socket.
    pub(super) fn shared(&self) -> Option<(u32, &Path)> {
        match self {
            ServingNode::Shared(shared) => Some((shared.attached.process(), &shared.socket)),
            ServingNode::Own(_) => None,
        }
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

    /// Returns a counter of the connections that processes have made to the node. A request to end meanwhile
    /// ends its wait for a node that does not answer.
    pub(super) fn contacts(&self, requests: &Requests) -> Box<dyn Fn() -> u64 + Send> {
        match self {
            ServingNode::Shared(shared) => {
                let (attached, requests) = (Arc::clone(&shared.attached), requests.clone());
                // The end of the node is said elsewhere.
                Box::new(move || attached.contacts(requests.further()).unwrap_or(1))
            }
            ServingNode::Own(own) => {
                let contacts = own.server.contacts();
                Box::new(move || contacts.count())
            }
        }
    }

    /// Begins the delivery of what the program has sent. From now on the end of a shared node is a failure of
    /// delivery, and no note.
    pub(super) fn begin_drain(&self) {
        match self {
            ServingNode::Shared(shared) => {
                shared.is_ending.store(true, Ordering::SeqCst);
                shared.attached.begin_drain();
            }
            ServingNode::Own(own) => own.server.begin_drain(),
        }
    }

    /// Returns the data that is not delivered yet, or never will be; `None` if a shared node has ended, or
    /// has not answered before `is_over`.
    pub(super) fn undelivered(&self, is_over: impl Fn() -> bool) -> Option<Outstanding> {
        match self {
            ServingNode::Shared(shared) => shared.attached.outstanding(is_over),
            ServingNode::Own(own) => Some(own.server.undelivered()),
        }
    }

    /// Returns true if a note has said that the shared node has ended.
    pub(super) fn was_lost(&self) -> bool {
        matches!(self, ServingNode::Shared(shared) if shared.was_lost.load(Ordering::SeqCst))
    }

    /// Ends the program's sockets, after delivery. Waits for the end of a node that no other program uses, or
    /// for a request to end.
    pub(super) fn end(self, has_left: bool, requests: &Requests) {
        match self {
            ServingNode::Shared(shared) => {
                shared.attached.detach(requests.further());
                if has_left {
                    // The node may not be allowed to reach processes that run on.
                    FdServer::end_sockets_of(shared.attached.tag());
                }
            }
            ServingNode::Own(own) => own.end(),
        }
    }
}

impl SharedNode {
    /// Attaches to the shared node; see [`attachment::open`].
    fn attach(args: &Args, networks: &[Network]) -> Outcome<Option<SharedNode>> {
        let [is_ending, was_lost] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (ends, lost) = (Arc::clone(&is_ending), Arc::clone(&was_lost));
        let name = args.program[0].display().to_string();
        let tell = move |told| {
            let Some(tag) = attachment::show(told).filter(|_| !ends.load(Ordering::SeqCst)) else { return };
            let note = format!(
                "the node that programs share has ended, so {name} has no network: end it, and start it again \
                 under `peersock run`"
            );
            // First, because the program may end as soon as its calls do, and this process with it.
            say_within(NOTE, note, &lost);
            FdServer::end_sockets_of(tag);
        };
        let Some(attached) = attachment::open(&args.node, program_name(args), networks, Duration::MAX, tell)?
        else {
            return Ok(None);
        };
        if !args.quiet {
            attached.networks().iter().for_each(|network| say_network(&network.id, &network.addresses));
        }
        let socket = StateDir::node_socket(&args.node.state.path()?);
        Ok(Some(SharedNode { attached: Arc::new(attached), socket, is_ending, was_lost }))
    }
}

/// Says a line and notes that, but waits for a reader of standard error only for a time.
fn say_within(time: Duration, line: String, is_said: &Arc<AtomicBool>) {
    let (done, is_done) = mpsc::channel();
    let (said, text) = (Arc::clone(is_said), line.clone());
    let say = move || {
        stdio::note(text);
        said.store(true, Ordering::SeqCst);
        let _ = done.send(());
    };
    match thread::Builder::new().name("note".into()).spawn(say) {
        Ok(_) => drop(is_done.recv_timeout(time)),
        Err(_) => {
            stdio::note(line);
            is_said.store(true, Ordering::SeqCst);
        }
    }
}

/// Returns the name of the program without its folder.
fn program_name(args: &Args) -> String {
    let path = Path::new(&args.program[0]);
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Prints the program's addresses in a network.
fn say_network(id: impl Display, addresses: &[IpAddr]) {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    stdio::note(format_args!("network {id}: {}", addresses.join(" ")));
}

impl OwnNode {
    fn start(args: &Args, networks: Vec<Network>) -> Outcome<OwnNode> {
        let identity = match args.node.state.ephemeral {
            true => IdentitySource::Ephemeral,
            false => IdentitySource::StateDir(args.node.state.path()?),
        };
        let port = match args.node.state.ephemeral {
            true => args.node.port_of_passing_node(),
            false => args.node.overlay_port,
        };
        let builder = Node::builder().identity(identity).port(port);
        let builder = builder.interfaces(interfaces(&args.node.interfaces));
        let builder = args.node.beside(builder, &networks)?;
        let node = args.node.with_roots(builder)?.start().map_err(|error| match error {
            StartError::State(StateError::InUse { path, holder }) => {
                in_use::for_own_node(&path, holder, &networks)
            }
            error => error.into(),
        })?;
        for network in networks.iter().cloned() {
            let joined = node.join(network)?;
            if !args.quiet {
                say_network(joined.id(), &joined.addresses());
            }
        }
        let ids = networks.iter().map(|network| network.id().to_string()).collect();
        let named = NamedServers::of(&args.node);
        let roots = root_watch::start(&node, named.told())?;
        let server =
            FdServer::start(&node).map_err(|error| refused("socket and socketpair of AF_UNIX", error))?;
        let program = ProgramStatus::new(program_name(args), std::process::id(), ids);
        let meter = server.meter();
        node.set_programs(move || vec![used(program.clone(), &meter)]);
        let refusals = server.refusals();
        let saying = thread::Builder::new().name("refusals".into());
        let refusals = saying.spawn(move || refusals.iter().for_each(stdio::note))?;
        let unanswered = unanswered::start(&node, networks, named)?;
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
