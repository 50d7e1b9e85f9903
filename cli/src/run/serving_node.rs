//! The node that serves the program: the one that programs share, or one of this process alone.

use std::env;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peersock::state::{StateDir, StateError};
use peersock::{IdentitySource, Network, Node, ProgramStatus, StartError};
use peersock_attach::{AttachError, Attached, Namespaces, Told, VERSION, Wish};
use peersock_bsd::Client;
use peersock_socket_server::{FdServer, Outstanding};
use rustix::process::{Resource, child_subreaper, geteuid, getpid, getrlimit};

use super::{Args, refused};
use crate::args::NodeArgs;
use crate::failure::{Failure, Outcome};
use crate::reach::NamedServers;
use crate::root_watch::{self, RootWatch};
use crate::session::interfaces;
use crate::{config, log, node, stdio, unanswered};

/// Environment variable for `--own-node`.
const OWN_NODE_VARIABLE: &str = "PEERSOCK_OWN_NODE";

/// Time in which a line is written before the program's calls end.
const NOTE: Duration = Duration::from_secs(1);

/// Limit of processes below which this process starts no node for others, which takes threads for each.
const MIN_PROCESSES: u64 = 1024;

/// Limit of descriptors below which this process starts no node for others.
const MIN_DESCRIPTORS: u64 = 1024;

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
        if !wants_own_node(args)
            && let Some(shared) = SharedNode::attach(args, &networks)?
        {
            return Ok(ServingNode::Shared(shared));
        }
        OwnNode::start(args, networks).map(ServingNode::Own)
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

    /// Returns a counter of the connections that processes have made to the node.
    pub(super) fn contacts(&self) -> Box<dyn Fn() -> u64 + Send> {
        match self {
            ServingNode::Shared(shared) => {
                let attached = Arc::clone(&shared.attached);
                // The end of the node is said elsewhere.
                Box::new(move || attached.contacts().unwrap_or(1))
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
    /// does not answer.
    pub(super) fn undelivered(&self) -> Option<Outstanding> {
        match self {
            ServingNode::Shared(shared) => shared.attached.outstanding(),
            ServingNode::Own(own) => Some(own.server.undelivered()),
        }
    }

    /// Returns true if a note has said that the shared node has ended.
    pub(super) fn was_lost(&self) -> bool {
        matches!(self, ServingNode::Shared(shared) if shared.was_lost.load(Ordering::SeqCst))
    }

    /// Ends the program's sockets, after delivery. Waits for the end of a node that no other program uses.
    pub(super) fn end(self, has_left: bool) {
        match self {
            ServingNode::Shared(shared) => {
                shared.attached.detach();
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
    /// Attaches to the shared node. Returns `None` if there is none, and this process must not start it.
    fn attach(args: &Args, networks: &[Network]) -> Outcome<Option<SharedNode>> {
        let state = args.node.state.path()?;
        // Before anything is read for the node: a pipe with a token can be read once.
        let may_start = may_start_node();
        if !may_start && !Attached::is_offered(&state) {
            return Ok(None);
        }
        let [is_ending, was_lost] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (ends, lost) = (Arc::clone(&is_ending), Arc::clone(&was_lost));
        let name = args.program[0].display().to_string();
        let tell = move |told| match told {
            Told::Note(note) => stdio::note(note),
            // If stderr is closed, nobody reads the log.
            Told::Log(line) => drop(writeln!(io::stderr(), "{line}")),
            Told::Lost(_) if ends.load(Ordering::SeqCst) => {}
            Told::Lost(tag) => {
                let note = format!(
                    "the node that programs share has ended, so {name} has no network: end it, and start it \
                     again under `peersock run`"
                );
                // First, because the program may end as soon as its calls do, and this process with it.
                say_within(NOTE, note, &lost);
                FdServer::end_sockets_of(tag);
            }
        };
        let launch = may_start.then(|| node::launch(&args.node)).transpose()?;
        let wish = wish(&args.node, program_name(args), networks)?;
        let attached = Attached::open(&state, launch.as_ref(), wish, tell);
        let attached = match attached {
            Err(AttachError::Absent) => return Ok(None),
            attached => attached.map_err(not_attached)?,
        };
        if !args.quiet {
            attached.networks().iter().for_each(|network| say_network(&network.id, &network.addresses));
        }
        let socket = StateDir::node_socket(&state);
        Ok(Some(SharedNode { attached: Arc::new(attached), socket, is_ending, was_lost }))
    }
}

/// Returns true if the program's user wants a node that no other program uses.
fn wants_own_node(args: &Args) -> bool {
    let is_set = |variable| env::var_os(variable).is_some_and(|value| !value.is_empty());
    args.node.state.ephemeral || args.own_node || is_set(OWN_NODE_VARIABLE)
}

/// Returns true if this process may start a node for others. The limits of one program would end it, and an
/// outer `peersock run`, or this process if it adopts orphans, would wait for it.
fn may_start_node() -> bool {
    let limits = [Resource::Cpu, Resource::As, Resource::Data, Resource::Fsize];
    let has_descriptors = getrlimit(Resource::Nofile).maximum.is_none_or(|limit| limit >= MIN_DESCRIPTORS);
    let has_processes = getrlimit(Resource::Nproc).current.is_none_or(|limit| limit >= MIN_PROCESSES);
    let adopts = getpid().is_init() || child_subreaper().is_ok_and(|reaper| reaper.is_some());
    !adopts
        && has_descriptors
        && (has_processes || geteuid().is_root())
        && limits.into_iter().all(|limit| getrlimit(limit).current.is_none())
        && env::var_os(peersock_socket_server::ENVIRONMENT).is_none_or(|value| value.is_empty())
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

/// Returns the needs of a program with this name.
pub(crate) fn wish(node: &NodeArgs, name: String, networks: &[Network]) -> Outcome<Wish> {
    let of_files = networks.iter().flat_map(|network| network.roots().to_vec());
    let roots: Vec<_> = node.roots_with_tokens()?.into_iter().chain(of_files).collect();
    Ok(Wish {
        version: VERSION,
        package: env!("CARGO_PKG_VERSION").to_owned(),
        name,
        networks: networks.iter().map(|network| network.to_portable().to_string()).collect(),
        roots: roots.iter().map(|root| root.to_portable().to_string()).collect(),
        settings: node.named_settings()?,
        is_verbose: log::is_asked_for(),
        namespaces: Namespaces::own(),
    })
}

pub(crate) fn not_attached(error: AttachError) -> Failure {
    match error {
        AttachError::Refused(refusal) => {
            let hint = config::with_origin(&refusal.message, refusal.hint);
            Failure::passed_on(refusal.status, refusal.message, hint)
        }
        AttachError::InUse { .. } => Failure::new(
            format_args!("{error}"),
            "end that process, start `peersock node`, which programs share, and then both; or give --state DIR",
        ),
        AttachError::Silent { .. } => Failure::new(
            format_args!("{error}"),
            "end its process (`peersock status` names it), or give --state DIR",
        ),
        AttachError::Start(error) => Failure::new(
            format_args!("the node that programs share cannot be started: {error}"),
            "set higher limits (`ulimit -a` shows them), or give --own-node",
        ),
        error => Failure::new(
            format_args!("{error}"),
            "check that the directory belongs to you, or give another by --state DIR",
        ),
    }
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
        let node = args.node.with_roots(builder)?.start().map_err(|error| match error {
            StartError::State(error @ StateError::InUse { .. }) => Failure::new(
                format_args!("{error}"),
                "leave --own-node out, so that the programs of a state directory share a node, or give --state \
                 DIR or --ephemeral",
            ),
            error => error.into(),
        })?;
        for network in networks.iter().cloned() {
            let joined = node.join(network)?;
            if !args.quiet {
                say_network(joined.id(), &joined.addresses());
            }
        }
        let ids = networks.iter().map(|network| network.id().to_string()).collect();
        node.set_programs(vec![ProgramStatus::new(program_name(args), std::process::id(), ids)]);
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
