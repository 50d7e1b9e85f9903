//! The shared node, and its programs.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use peersock::overlay::{NetworkId, NodeId};
use peersock::state::{SocketFile, StateDir};
use peersock::{IdentitySource, Joined, Network, Node, RootSource};
use peersock_attach::{Connection, Namespaces, Network as Entered, Refusal, Reply, Setting, VERSION, Wish};
use peersock_socket_server::FdServer;

use super::networks::Networks;
use super::notes::Log;
use super::program::{Program, Programs, Service};
use super::settings;
use crate::args::NodeArgs;
use crate::failure::{Failure, Outcome};
use crate::reach::NamedServers;
use crate::session::interfaces;
use crate::{log, signals};

/// Pause after a failure to accept, such as a lack of descriptors.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Time in which the sockets of programs end before the node does.
const ENDING: Duration = Duration::from_secs(2);

/// Descriptors that a node needs for its first program.
const MIN_DESCRIPTORS: u64 = 32;

/// A node and the programs that share it.
#[derive(Clone)]
pub(super) struct Host(Arc<Inner>);

struct Inner {
    node: Node,
    state: StateDir,
    listener: UnixListener,
    /// The file of its socket, until the node ends.
    file: Mutex<Option<SocketFile>>,
    settings: Vec<Setting>,
    named: NamedServers,
    /// The program that has started the node, and so its settings; `None` for a person.
    starter: Mutex<Option<String>>,
    networks: Mutex<Networks>,
    programs: Mutex<Programs>,
    /// True if the node ends with its last program.
    ends_alone: bool,
    changed: Condvar,
}

impl Host {
    /// Starts the node, and listens for programs. A node with a `log` ends with its last program.
    pub(super) fn start(args: &NodeArgs, state: StateDir, log: Option<Log>) -> Outcome<Host> {
        // The socket first: programs that find the directory in use wait only shortly for it.
        let (listener, file) = state.bind_node_socket()?;
        let builder = Node::builder().identity(IdentitySource::Opened(state.clone())).port(args.overlay_port);
        let builder = builder.interfaces(interfaces(&args.interfaces));
        let node = args.with_roots(builder)?.start()?;
        FdServer::raise_descriptor_limit();
        check_descriptors()?;
        let host = Host(Arc::new(Inner {
            node,
            state,
            listener,
            file: Mutex::new(Some(file)),
            settings: args.named_settings(),
            named: NamedServers::of(args),
            starter: Mutex::default(),
            networks: Mutex::default(),
            programs: Mutex::default(),
            ends_alone: log.is_some(),
            changed: Condvar::new(),
        }));
        if let Some(log) = log {
            let (inner, is_verbose) = (Arc::downgrade(&host.0), log::verbosity() > 0);
            log.follow(move |line| {
                let programs = inner.upgrade().map(|host| lock(&host.programs).all()).unwrap_or_default();
                programs.iter().for_each(|program| program.log(&line, is_verbose));
            })?;
        }
        host.tell_unanswered()?;
        Ok(host)
    }

    pub(super) fn node_id(&self) -> NodeId {
        self.0.node.id()
    }

    /// Serves programs until the node ends: with its last program, or by a signal, which ends the process.
    pub(super) fn serve(&self) -> Outcome {
        let ending = self.clone();
        signals::end_with(move |signal| {
            ending.end();
            128 + signal
        })?;
        let accepting = self.clone();
        thread::Builder::new().name("accept".into()).spawn(move || accepting.accept())?;
        let mut programs = self.programs();
        while programs.waiting.is_empty() {
            programs = self.0.changed.wait(programs).unwrap_or_else(PoisonError::into_inner);
        }
        drop(programs);
        self.shut_down();
        Ok(())
    }

    /// Serves one program that is connected, and others, until the last one has ended.
    pub(super) fn serve_from(&self, first: Connection) -> Outcome {
        self.receive(first)?;
        self.serve()
    }

    /// Ends the node for a signal. Programs that run have no network any more; their sockets end first, so
    /// that none of them takes the end for that of its data.
    fn end(&self) {
        let mut programs = self.programs();
        programs.is_ending = true;
        programs.all().iter().for_each(|program| program.disconnect());
        let is_served = |programs: &mut Programs| programs.connections > 0;
        let waited = self.0.changed.wait_timeout_while(programs, ENDING, is_served);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.shut_down();
    }

    fn shut_down(&self) {
        self.0.node.shutdown(Duration::ZERO);
        drop(lock(&self.0.file).take());
        // Before the waiting programs are told by the end of their connections: each may start the next node.
        if let Err(error) = self.0.state.unlock() {
            tracing::debug!(%error, "the state directory stays locked until the process has ended");
        }
        self.programs().waiting.clear();
    }

    fn accept(&self) {
        loop {
            let accepted = self.0.listener.accept().and_then(|(stream, _)| self.receive_stream(stream));
            match accepted {
                Ok(()) => {}
                // Another user's program.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => {
                    tracing::warn!(%error, "a program was not attached");
                    thread::sleep(ACCEPT_ERROR_PAUSE);
                }
            }
        }
    }

    fn receive_stream(&self, stream: UnixStream) -> io::Result<()> {
        self.receive(Connection::new(stream)?)
    }

    /// Serves a program in a thread.
    fn receive(&self, connection: Connection) -> io::Result<()> {
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
        let (host, its) = (self.clone(), Arc::clone(&connection));
        let serve = move || {
            if let Err(error) = host.attach(&its) {
                tracing::debug!(%error, "a program has gone");
            }
            host.leave(its);
        };
        let started = thread::Builder::new().name("program".into()).spawn(serve);
        started.map(drop).inspect_err(|_| self.leave(connection))
    }

    /// Notes the end of a connection. The last program's stays open until the node has ended.
    fn leave(&self, connection: Arc<Connection>) {
        let mut programs = self.programs();
        programs.connections -= 1;
        self.0.changed.notify_all();
        if programs.connections == 0 && self.0.ends_alone && !programs.is_ending {
            programs.is_ending = true;
            programs.waiting.push(connection);
        }
    }

    /// Attaches a program, and serves it until its end.
    fn attach(&self, connection: &Arc<Connection>) -> io::Result<()> {
        let wish = connection.wish()?;
        let (program, service, joined) = match self.admit(&wish, connection) {
            Ok(admitted) => admitted,
            Err(failure) => return connection.send(&Reply::Refused(refusal(&failure))),
        };
        let ids: Vec<_> = joined.iter().map(Joined::id).collect();
        let number = self.programs().add(program);
        let networks = joined
            .iter()
            .map(|joined| Entered { id: joined.id().to_string(), addresses: joined.addresses() });
        let attached = Reply::Attached { environment: service.environment(), networks: networks.collect() };
        let ended = connection.send(&attached).and_then(|()| service.serve(connection));
        self.programs().remove(number);
        lock(&self.0.networks).leave(&self.0.node, &ids);
        ended
    }

    /// Decides whether a program may share the node, and starts its server.
    fn admit(
        &self,
        wish: &Wish,
        connection: &Arc<Connection>,
    ) -> Outcome<(Arc<Program>, Service, Vec<Joined>)> {
        check_version(wish)?;
        check_namespaces(wish)?;
        let networks = wish.networks.iter().map(|text| Network::from_portable(text));
        let networks = networks.collect::<Result<Vec<_>, _>>()?;
        let name = std::path::Path::new(&wish.name).file_name().unwrap_or_default().to_string_lossy();
        let program = Program::new(connection, &name, networks.clone(), wish.is_verbose)?;
        let starter = lock(&self.0.starter).get_or_insert_with(|| program.called()).clone();
        settings::check(&self.0.settings, &wish.settings, &starter)?;
        let mut roots = Vec::new();
        for text in &wish.roots {
            roots.extend(
                RootSource::load(text).map_err(|error| crate::failure::roots_failure("--root", error))?,
            );
        }
        let joined = lock(&self.0.networks).enter(&self.0.node, &networks, |id| self.users(id))?;
        self.0.node.add_roots(roots);
        match program.serve(&self.0.node, &self.0.named) {
            Ok(service) => Ok((Arc::new(program), service, joined)),
            Err(error) => {
                let ids: Vec<_> = joined.iter().map(Joined::id).collect();
                lock(&self.0.networks).leave(&self.0.node, &ids);
                Err(error.into())
            }
        }
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
                all.iter().for_each(|program| program.tell_unanswered(&host.node, &host.named, one));
            }
        };
        thread::Builder::new().name("unanswered".into()).spawn(tell)?;
        Ok(())
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        lock(&self.0.programs)
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

fn check_version(wish: &Wish) -> Outcome {
    if wish.version == VERSION {
        return Ok(());
    }
    Err(Failure::new(
        format_args!(
            "the node that programs share is of peersock {}, and this program is of peersock {}",
            env!("CARGO_PKG_VERSION"),
            wish.package
        ),
        "end the programs that use the node, and start this one again",
    ))
}

fn check_namespaces(wish: &Wish) -> Outcome {
    let Some(namespace) = wish.namespaces.difference(&Namespaces::own()) else { return Ok(()) };
    Err(Failure::new(
        format_args!("the node of this state directory runs in another {namespace}, where its sockets are"),
        "give programs in a container a node of their own, by --state DIR or --ephemeral",
    ))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
