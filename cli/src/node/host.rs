//! The shared node, and its programs.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::{NetworkId, NodeId};
use peersock::state::{DirectorySocket, StateDir};
use peersock::{IdentitySource, Joined, Network, Node, RootSource, StartError};
use peersock_attach::{
    Connection, Joining, Namespaces, Network as Entered, Refusal, Reply, Setting, VERSION, Wish,
};
use peersock_socket_server::FdServer;

use super::networks::Networks;
use super::notes::{Log, Unsent};
use super::program::{Program, Programs, Service, called};
use super::roots::Roots;
use super::settings;
use crate::args::{NodeArgs, UnderlayArgs};
use crate::failure::{Failure, Outcome};
use crate::line_limit::LineLimit;
use crate::reach::NamedServers;
use crate::session::interfaces;
use crate::{log, signals};

/// Pause after a failure to accept, such as a lack of descriptors.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Time in which the programs of a node in the background end, once it was asked to.
const PROGRAMS_END_TIMEOUT: Duration = Duration::from_secs(30);

/// Time in which the sockets of programs end before the node does.
const ENDING: Duration = Duration::from_secs(2);

/// Time in which programs that have ended leave the node, so that they keep no other out.
const LEAVING: Duration = Duration::from_secs(10);

/// Time in which the port of a node that has just ended becomes free.
const PORT_FREE: Duration = Duration::from_secs(2);
const PORT_RETRY: Duration = Duration::from_millis(20);

/// Descriptors that a node needs for its first program.
const MIN_DESCRIPTORS: u64 = 32;

/// A node and the programs that share it.
#[derive(Clone)]
pub(crate) struct Host(Arc<Inner>);

struct Inner {
    node: Node,
    state: StateDir,
    socket: DirectorySocket,
    settings: Vec<Setting>,
    named: NamedServers,
    /// The program that has started the node, and so its settings; none for a person.
    starter: OnceLock<String>,
    /// Roots of the user's file, for programs that do not read it; none if the node uses its own for good.
    roots_of_user: OnceLock<Vec<RootSource>>,
    networks: Mutex<Networks>,
    roots: Mutex<Roots>,
    programs: Mutex<Programs>,
    /// Programs that serve a network, or did last.
    servers: Mutex<BTreeMap<NetworkId, Weak<Program>>>,
    /// The log of a node that ends after its last program.
    log: Option<Log>,
    changed: Condvar,
}

/// A node that runs for another purpose, and that programs share.
pub(crate) struct Beside {
    pub(crate) node: Node,
    /// Directory of its identity, and the socket there.
    pub(crate) state: StateDir,
    pub(crate) socket: DirectorySocket,
    /// Its own networks, as their files describe them, and its own roots.
    pub(crate) networks: Vec<(Network, Joined)>,
    pub(crate) roots: Vec<RootSource>,
    /// Name of its command.
    pub(crate) command: &'static str,
}

impl Host {
    /// Lets programs share a node that runs already, until [`end`](Self::end). Its own networks and roots
    /// stay when programs end.
    pub(crate) fn beside(beside: Beside, args: &NodeArgs) -> Outcome<Host> {
        let Beside { node, state, socket, networks, roots, command } = beside;
        let (mut used, mut joined) = (Roots::default(), Networks::default());
        used.enter(&node, &roots);
        joined.keep(networks);
        let (settings, named) = (args.named_settings()?, NamedServers::of(args));
        let host = Host::of((node, state, socket), (settings, named), (joined, used), None)?;
        let _ = host.0.starter.set(called(command, std::process::id()));
        let accepting = host.clone();
        thread::Builder::new().name("accept".into()).spawn(move || accepting.accept())?;
        Ok(host)
    }

    /// Starts the node, and listens for programs. A node with a `log` ends after its last program.
    pub(super) fn start(
        settings: Vec<Setting>,
        roots: Vec<RootSource>,
        state: StateDir,
        log: Option<Log>,
    ) -> Outcome<Host> {
        // The socket first: programs that find the directory in use wait only shortly for it.
        let socket = state.bind_node_socket()?;
        let options = settings::options(&settings)?;
        let node = start_node(&options, &state)?;
        let mut used = Roots::default();
        used.enter(&node, &roots);
        let named = NamedServers::of(&options);
        Host::of((node, state, socket), (settings, named), (Networks::default(), used), log)
    }

    fn of(
        (node, state, socket): (Node, StateDir, DirectorySocket),
        (settings, named): (Vec<Setting>, NamedServers),
        (networks, roots): (Networks, Roots),
        log: Option<Log>,
    ) -> Outcome<Host> {
        FdServer::raise_descriptor_limit();
        check_descriptors()?;
        let host = Host(Arc::new(Inner {
            node,
            state,
            socket,
            settings,
            named,
            starter: OnceLock::new(),
            roots_of_user: OnceLock::new(),
            networks: Mutex::new(networks),
            roots: Mutex::new(roots),
            programs: Mutex::new(Programs::new(log.is_some())),
            servers: Mutex::default(),
            log,
            changed: Condvar::new(),
        }));
        host.tell_unanswered()?;
        let inner = Arc::downgrade(&host.0);
        host.0.node.set_programs(move || {
            let programs = inner.upgrade().map(|host| lock(&host.programs).all()).unwrap_or_default();
            programs.iter().map(|program| program.status()).collect()
        });
        Ok(host)
    }

    /// Passes the log on, once there is a program that reads it.
    fn pass_log(&self) {
        let Some(log) = &self.0.log else { return };
        let (inner, is_verbose) = (Arc::downgrade(&self.0), log::is_asked_for());
        log.pass_to(move |line| {
            let programs = inner.upgrade().map(|host| lock(&host.programs).all()).unwrap_or_default();
            programs.iter().for_each(|program| program.log(&line, is_verbose));
        });
    }

    pub(super) fn node_id(&self) -> NodeId {
        self.0.node.id()
    }

    /// Serves programs until the node ends: with its last program, or by a signal, which ends the process.
    pub(super) fn serve(&self) -> Outcome {
        let ending = self.clone();
        let end = move |signal| {
            ending.end();
            128 + signal
        };
        match self.0.log {
            // The signals that the first program ignores are not the node's.
            Some(_) => signals::end_always_with(end)?,
            None => signals::end_with(end)?,
        }
        let accepting = self.clone();
        thread::Builder::new().name("accept".into()).spawn(move || accepting.accept())?;
        let mut programs = self.programs();
        while programs.waiting.is_empty() {
            programs = match programs.is_idle() && self.0.log.is_some() && !programs.is_ending {
                false => self.0.changed.wait(programs).unwrap_or_else(PoisonError::into_inner),
                true if programs.time_left().is_zero() => {
                    programs.is_ending = true;
                    break;
                }
                true => {
                    let left = programs.time_left();
                    self.0.changed.wait_timeout(programs, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        drop(programs);
        self.shut_down();
        Ok(())
    }

    /// Sets the roots of the user's file, before programs are served.
    pub(super) fn set_roots_of_user(&self, roots: Vec<RootSource>) {
        let _ = self.0.roots_of_user.set(roots);
    }

    /// Serves one program that is connected, and others, until the last one has ended.
    pub(super) fn serve_from(&self, first: Connection, wish: Wish) -> Outcome {
        let _ = self.0.starter.set(called(&wish.name, first.process()));
        self.receive(first, Some(wish))?;
        self.serve()
    }

    /// Ends the node for a signal. Programs that run have no network any more; their sockets end first, so
    /// that none of them takes the end for that of its data.
    pub(crate) fn end(&self) {
        let mut programs = self.programs();
        programs.is_ending = true;
        if self.0.log.is_some() {
            // A service manager ends all processes together, and the programs still deliver what they have
            // sent.
            programs = self.wait_unserved(programs, PROGRAMS_END_TIMEOUT);
        }
        let all = programs.all();
        drop(programs);
        thread::scope(|scope| {
            // In the scope's own thread if the system has no other.
            for program in &all {
                let end = || program.end();
                if thread::Builder::new().name("ending".into()).spawn_scoped(scope, end).is_err() {
                    program.end();
                }
            }
        });
        drop(self.wait_unserved(self.programs(), ENDING));
        self.shut_down();
    }

    /// Waits until no program is served any more, for a time at most.
    fn wait_unserved<'a>(
        &self,
        programs: MutexGuard<'a, Programs>,
        within: Duration,
    ) -> MutexGuard<'a, Programs> {
        let is_served = |programs: &mut Programs| programs.connections > 0;
        let waited = self.0.changed.wait_timeout_while(programs, within, is_served);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn shut_down(&self) {
        self.0.node.shutdown(Duration::ZERO);
        self.0.socket.close();
        // Before the waiting programs are told by the end of their connections: each may start the next node.
        if let Err(error) = self.0.state.unlock() {
            tracing::debug!(%error, "the state directory stays locked until the process has ended");
        }
        self.programs().waiting.clear();
    }

    fn accept(&self) {
        let mut limit = LineLimit::default();
        loop {
            let accepted = self.0.socket.accept(None);
            let accepted =
                accepted.and_then(|stream| stream.map_or(Ok(()), |stream| self.receive_stream(stream)));
            match accepted {
                Ok(()) => {}
                // Another user's program.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => {
                    if let Some(error) = limit.pass(Instant::now(), || error.to_string()) {
                        tracing::warn!(%error, "a program was not attached");
                    }
                    thread::sleep(ACCEPT_ERROR_PAUSE);
                }
            }
        }
    }

    fn receive_stream(&self, stream: UnixStream) -> io::Result<()> {
        self.receive(Connection::new(stream)?, None)
    }

    /// Serves a program in a thread. Its first message may have been read.
    fn receive(&self, connection: Connection, wish: Option<Wish>) -> io::Result<()> {
        let connection = Arc::new(connection);
        let is_ending = {
            let mut programs = self.programs();
            programs.connections += usize::from(!programs.is_ending);
            programs.is_ending
        };
        if is_ending {
            // The first message is read before the answer, because closing with unread data is a reset.
            let _ = connection.wish();
            return connection.send(&Reply::Ending);
        }
        // Dropped by the thread, or without one.
        let counted = Counted { host: self.clone(), connection };
        let serve = move || {
            if let Err(error) = counted.host.attach(&counted.connection, wish) {
                tracing::debug!(%error, "a program has gone");
            }
        };
        thread::Builder::new().name("program".into()).spawn(serve).map(drop)
    }

    /// Notes the end of a connection. The last program's stays open until the node has ended, unless the node
    /// waits for another program.
    fn leave(&self, connection: &Arc<Connection>) {
        let mut programs = self.programs();
        programs.connections -= 1;
        let is_unused = programs.connections == 0 || programs.is_idle();
        let is_over = is_unused && programs.time_left().is_zero();
        if is_over && self.0.log.is_some() && !programs.is_ending {
            programs.is_ending = true;
            programs.waiting.push(Arc::clone(connection));
        }
        self.0.changed.notify_all();
    }

    /// Attaches a program, and serves it until its end.
    fn attach(&self, connection: &Arc<Connection>, wish: Option<Wish>) -> io::Result<()> {
        let wish = match wish.map_or_else(|| connection.wish(), Ok) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                if self.has_left(connection) {
                    return connection.send(&Reply::Ending);
                }
                return connection.send(&Reply::Refused(refusal(&other_version("another version"))));
            }
            wish => wish?,
        };
        let admitted = match self.admit(&wish, connection) {
            // What keeps this program out may be the need of one that has ended.
            Err(_) if self.has_seen_ends() => self.admit(&wish, connection),
            admitted => admitted,
        };
        let Admitted { stay, joined, unsent, service } = match admitted {
            Ok(admitted) => admitted,
            // No program needs the settings of a node without programs, so the node ends.
            Err(_) if self.has_left(connection) => return connection.send(&Reply::Ending),
            Err(failure) => return connection.send(&Reply::Refused(refusal(&failure))),
        };
        {
            let mut programs = self.programs();
            if programs.is_ending {
                drop(programs);
                return connection.send(&Reply::Ending);
            }
            programs.add(Arc::clone(&stay.program));
            self.0.node.set_waiting_until(programs.waiting_until());
        }
        let attached = Reply::Attached {
            environment: service.environment(),
            process: std::process::id(),
            public_key: self.0.node.public_identity().to_string(),
            networks: joined.iter().map(entered).collect(),
        };
        connection.send(&attached)?;
        unsent.start(Arc::clone(connection))?;
        self.pass_log();
        service.serve(connection, &stay)
    }

    /// Waits until programs that have ended are attached no longer, for a time at most. Returns false if
    /// there are none.
    fn has_seen_ends(&self) -> bool {
        let programs = self.programs();
        let gone: Vec<_> = programs.all().into_iter().filter(|program| program.is_gone()).collect();
        let is_attached = |programs: &mut Programs| {
            programs.all().iter().any(|program| gone.iter().any(|gone| Arc::ptr_eq(gone, program)))
        };
        drop(self.0.changed.wait_timeout_while(programs, LEAVING, is_attached));
        !gone.is_empty()
    }

    /// Ends a node in the background whose programs have all ended, for one that it cannot serve. Returns
    /// true if the node ends.
    fn has_left(&self, connection: &Arc<Connection>) -> bool {
        let mut programs = self.programs();
        if self.0.log.is_some() && programs.is_idle() && !programs.is_ending {
            programs.is_ending = true;
            programs.waiting.push(Arc::clone(connection));
            self.0.changed.notify_all();
        }
        programs.is_ending
    }

    /// Decides whether a program may share the node, and starts its server.
    fn admit(&self, wish: &Wish, connection: &Arc<Connection>) -> Outcome<Admitted<'_>> {
        check_version(wish)?;
        check_namespaces(wish)?;
        let networks = wish.networks.iter().map(|text| Network::from_portable(text));
        let networks = networks.collect::<Result<Vec<_>, _>>()?;
        let (program, unsent) = Program::new(connection, wish, networks.clone(), &self.0.named);
        let person = || called("peersock node", std::process::id());
        let starter = self.0.starter.get().cloned().unwrap_or_else(person);
        settings::check(&self.0.settings, &wish.settings, &starter)?;
        let mut roots = load_roots(&wish.roots)?;
        if wish.lacks_roots {
            roots.extend(self.0.roots_of_user.get().into_iter().flatten().cloned());
        }
        let joined = lock(&self.0.networks).enter(&self.0.node, &networks, |id| self.users(id))?;
        let stay = Stay { host: self, program: Arc::new(program), roots: Mutex::default() };
        stay.use_roots(None, roots);
        let service = stay.program.serve(&self.0.node)?;
        Ok(Admitted { stay, joined, unsent, service })
    }

    /// Returns the programs that have a network.
    fn users(&self, network: NetworkId) -> String {
        let all = self.programs().all();
        let users: Vec<_> = all.iter().filter(|one| one.has(network)).map(|one| one.called()).collect();
        match users.is_empty() {
            true => "another program".to_owned(),
            false => users.join(", "),
        }
    }

    fn tell_unanswered(&self) -> Outcome {
        let (unanswered, inner) = (self.0.node.unanswered(), Arc::downgrade(&self.0));
        let tell = move || {
            for one in unanswered {
                let Some(host) = inner.upgrade() else { return };
                let all = lock(&host.programs).all();
                all.iter().for_each(|program| program.tell_unanswered(&host.node, one));
            }
        };
        thread::Builder::new().name("unanswered".into()).spawn(tell)?;
        Ok(())
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        lock(&self.0.programs)
    }
}

/// A connection that counts until it is dropped.
struct Counted {
    host: Host,
    connection: Arc<Connection>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.host.leave(&self.connection);
    }
}

/// A program that may share the node. Its server ends before its stay.
struct Admitted<'a> {
    stay: Stay<'a>,
    joined: Vec<Joined>,
    unsent: Unsent,
    service: Service,
}

/// The networks and roots of a program, until it is dropped.
pub(super) struct Stay<'a> {
    host: &'a Host,
    pub(super) program: Arc<Program>,
    /// Its roots, with the networks whose files name them.
    roots: Mutex<Vec<(Option<NetworkId>, RootSource)>>,
}

impl Stay<'_> {
    pub(super) fn node(&self) -> &Node {
        &self.host.0.node
    }

    /// Joins one more network for the program.
    pub(super) fn join(&self, joining: &Joining) -> Outcome<Entered> {
        let network = Network::from_portable(&joining.network)?;
        if self.program.has(network.id()) {
            return Err(Failure::new(
                format_args!("the program is in network {} already", network.id()),
                "leave it first",
            ));
        }
        let roots = load_roots(&joining.roots)?;
        let host = &self.host.0;
        let joined = lock(&host.networks).enter_one(&host.node, &network, |id| self.host.users(id))?;
        let id = network.id();
        self.program.networks().push(network);
        self.use_roots(Some(id), roots);
        Ok(entered(&joined))
    }

    /// Leaves a network that the program does not have any more.
    pub(super) fn leave(&self, network: &Network) {
        let host = &self.host.0;
        lock(&host.networks).leave(&host.node, &[network.id()], false);
        let mut roots = lock(&self.roots);
        let of_network = roots.extract_if(.., |(id, _)| *id == Some(network.id()));
        let unused: Vec<_> = of_network.map(|(_, root)| root).collect();
        drop(roots);
        lock(&host.roots).leave(&host.node, &unused, false);
    }

    /// Returns the program that serves a network, or did last.
    pub(super) fn server_of(&self, network: NetworkId) -> Option<Arc<Program>> {
        lock(&self.host.0.servers).get(&network).and_then(Weak::upgrade)
    }

    /// Notes that this program serves a network.
    pub(super) fn note_server(&self, network: NetworkId) {
        lock(&self.host.0.servers).insert(network, Arc::downgrade(&self.program));
    }

    /// Uses roots: until the program leaves a network, or as long as it is attached.
    fn use_roots(&self, network: Option<NetworkId>, roots: Vec<RootSource>) {
        let host = &self.host.0;
        let has_all = lock(&host.roots).enter(&host.node, &roots);
        lock(&self.roots).extend(roots.into_iter().map(|root| (network, root)));
        if !has_all {
            self.program.tell(
                "the programs of this node name more roots than it uses, eight and four domains: the last \
                 ones are left out",
            );
        }
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        let host = &self.host.0;
        let waits = {
            let mut programs = lock(&host.programs);
            programs.remove(&self.program);
            let until = programs.waiting_until();
            host.node.set_waiting_until(until);
            until.is_some_and(|until| until > Instant::now())
        };
        let ids: Vec<_> = self.program.networks().iter().map(Network::id).collect();
        lock(&host.networks).leave(&host.node, &ids, waits);
        let roots: Vec<_> = lock(&self.roots).drain(..).map(|(_, root)| root).collect();
        lock(&host.roots).leave(&host.node, &roots, waits);
    }
}

fn entered(joined: &Joined) -> Entered {
    let ports = joined.allowed_ports();
    Entered {
        id: joined.id().to_string(),
        addresses: joined.addresses(),
        ports: (*ports.start(), *ports.end()),
    }
}

fn load_roots(texts: &[String]) -> Outcome<Vec<RootSource>> {
    let mut roots = Vec::new();
    for text in texts {
        roots.extend(RootSource::load(text).map_err(|error| crate::failure::roots_failure("--root", error))?);
    }
    Ok(roots)
}

/// Starts the node in a state directory. The port of its predecessor may still be in use for a moment.
pub(crate) fn start_node(options: &UnderlayArgs, state: &StateDir) -> Outcome<Node> {
    let begun = Instant::now();
    loop {
        let builder = Node::builder().identity(IdentitySource::Opened(state.clone()));
        let builder = builder.port(options.overlay_port).interfaces(interfaces(&options.interfaces));
        match options.with_roots(builder.roots(Vec::<RootSource>::new()))?.start() {
            Err(error) if matches!(error, StartError::PortTaken { .. }) && begun.elapsed() < PORT_FREE => {
                thread::sleep(PORT_RETRY)
            }
            started => return Ok(started?),
        }
    }
}

/// Returns a failure for a program's user.
pub(super) fn refusal(failure: &Failure) -> Refusal {
    Refusal {
        status: failure.status(),
        message: failure.message().to_owned(),
        hint: failure.hint().map(str::to_owned),
    }
}

/// Checks that programs can be served, each connection of which takes a descriptor.
fn check_descriptors() -> Outcome {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let used = std::fs::read_dir("/proc/self/fd").map_or(0, |listed| listed.count() as u64);
    match limit.saturating_sub(used) {
        MIN_DESCRIPTORS.. => Ok(()),
        _ => Err(Failure::new(
            format_args!("the limit of open files is {limit}, which leaves a node too few for its programs"),
            "set a higher one, with `ulimit -n 1024` for example",
        )),
    }
}

pub(super) fn check_version(wish: &Wish) -> Outcome {
    match (wish.version, &*wish.package) {
        (VERSION, env!("CARGO_PKG_VERSION")) => Ok(()),
        (_, package) => Err(other_version(package)),
    }
}

fn other_version(package: &str) -> Failure {
    Failure::new(
        format_args!(
            "the node that programs share is of peersock {}, and this program is of {package}",
            env!("CARGO_PKG_VERSION")
        ),
        "end the programs that use the node, and start this one again",
    )
}

fn check_namespaces(wish: &Wish) -> Outcome {
    let Some(namespace) = wish.namespaces.difference(&Namespaces::own()) else { return Ok(()) };
    Err(Failure::new(
        format_args!("the node of this state directory runs in another {namespace}, where its sockets are"),
        "give programs in a container a separate node, with another state directory (--state DIR or \
         PEERSOCK_STATE) or an identity that is not kept (--ephemeral)",
    ))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
