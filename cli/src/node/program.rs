//! A program that is attached to a shared node.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::NetworkId;
use peersock::{Event, Network, Node, ProgramStatus, Unanswered};
use peersock_attach::{Ask, Connection, Reply, Wish};
use peersock_socket_server::{FdServer, Launcher, Meter};

use super::about::About;
use super::events::PassedEvents;
use super::host::{Stay, refusal};
use super::notes::{Notes, Unsent};
use super::resets::{Asked, Asking};
use super::seat;
use crate::output::escape;
use crate::reach::NamedServers;
use crate::root_watch::{self, RootWatch};
use crate::unanswered::UnansweredMessages;

/// Limit of the time for which a node waits for another program, which must not overflow.
const MAX_PERSIST: Duration = Duration::from_secs(365 * 86400);

/// An attached program.
pub(super) struct Program {
    name: String,
    process: u32,
    connection: Arc<Connection>,
    /// Its networks; a program in C may join others later.
    networks: Mutex<Vec<Network>>,
    is_verbose: bool,
    /// Time for which the node waits for another program after this one.
    persist: Duration,
    notes: Notes,
    /// The node's servers, for messages to the program.
    named: NamedServers,
    unanswered: Mutex<UnansweredMessages>,
    /// Its server, while there is one.
    server: Mutex<Weak<FdServer>>,
    /// Use of that server.
    meter: Mutex<Meter>,
    /// Set before the node's end drops connections, after which nothing is known of what they had to deliver.
    is_cut_off: Arc<AtomicBool>,
}

/// The program's server and the threads that speak for it, until dropped.
pub(super) struct Service {
    server: Arc<FdServer>,
    asking: Asking,
    about: About,
    is_cut_off: Arc<AtomicBool>,
    _roots: RootWatch,
}

impl Program {
    pub(super) fn new(
        connection: &Arc<Connection>,
        wish: &Wish,
        networks: Vec<Network>,
        named: &NamedServers,
    ) -> (Program, Unsent) {
        let (notes, unsent) = Notes::new();
        let program = Program {
            name: wish.name.clone(),
            process: connection.process(),
            connection: Arc::clone(connection),
            networks: Mutex::new(networks),
            is_verbose: wish.is_verbose,
            persist: wish.persist,
            notes,
            named: named.for_program(wish.has_empty_roots),
            unanswered: Mutex::default(),
            server: Mutex::default(),
            meter: Mutex::default(),
            is_cut_off: Arc::default(),
        };
        (program, unsent)
    }

    /// Returns the program as the node's status names it.
    pub(super) fn status(&self) -> ProgramStatus {
        let networks = self.networks().iter().map(|network| network.id().to_string()).collect();
        used(ProgramStatus::new(self.name.clone(), self.process, networks), &self.meter())
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        lock(&self.meter)
    }

    /// Returns the program's networks.
    pub(super) fn networks(&self) -> MutexGuard<'_, Vec<Network>> {
        lock(&self.networks)
    }

    fn network_ids(&self) -> Vec<NetworkId> {
        self.networks().iter().map(Network::id).collect()
    }

    /// Returns the node's status, with the peers in the program's networks.
    fn status_of(&self, node: &Node) -> io::Result<String> {
        let (mut status, ids) = (node.status(), self.network_ids());
        status.peers.retain(|peer| ids.contains(&peer.network));
        status.networks.retain(|network| ids.contains(&network.id));
        // The ID of an open network is all that its members need.
        status.programs = vec![self.status()];
        Ok(serde_json::to_string(&status)?)
    }

    pub(super) fn process(&self) -> u32 {
        self.process
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Returns the program's name and process, for people.
    pub(super) fn called(&self) -> String {
        called(&self.name, self.process)
    }

    /// Ends the program's sockets, so that it does not take the end of the node for that of its data, and
    /// the connection.
    pub(super) fn end(&self) {
        let server = lock(&self.server).upgrade();
        self.is_cut_off.store(true, Ordering::SeqCst);
        if let Some(server) = server {
            server.reset();
        }
        self.connection.close();
    }

    /// Passes an event on, unless the program has not read many earlier ones.
    pub(super) fn pass(&self, event: Event) {
        self.notes.send(Reply::Event(event));
    }

    /// Returns true if the program has ended, which its thread may not have noticed yet.
    pub(super) fn is_gone(&self) -> bool {
        self.connection.has_hung_up()
    }

    /// Sends a line to the program's user.
    pub(super) fn tell(&self, line: &str) {
        self.notes.tell(line);
    }

    /// Removes a network from the program's, by its ID.
    fn take_network(&self, id: &str) -> Option<Network> {
        let mut networks = self.networks();
        let at = networks.iter().position(|network| network.id().to_string() == id)?;
        Some(networks.remove(at))
    }

    pub(super) fn has(&self, network: NetworkId) -> bool {
        self.networks().iter().any(|its| its.id() == network)
    }

    /// Passes on a line of the log. Lines of a verbose log are for programs that want it.
    pub(super) fn log(&self, line: &str, is_verbose: bool) {
        if self.is_verbose || !is_verbose {
            self.notes.log(line.to_owned());
        }
    }

    /// Says that a member does not answer, if the program has its network and has tried to reach it.
    pub(super) fn tell_unanswered(&self, node: &Node, one: Unanswered) {
        let network = self.networks().iter().find(|network| network.id() == one.network).cloned();
        let Some(network) = network.filter(|_| self.meter().concerns(one.address)) else { return };
        if let Some(line) = self.messages().tell_about(node, &network, &self.named, one) {
            self.notes.tell(line);
        }
    }

    fn messages(&self) -> MutexGuard<'_, UnansweredMessages> {
        lock(&self.unanswered)
    }

    /// Starts the program's server.
    pub(super) fn serve(&self, node: &Node) -> io::Result<Service> {
        let networks = self.network_ids();
        let asking = Asked::start(self.notes.clone())?;
        let launcher: Arc<dyn Launcher> = asking.0.clone();
        let server = Arc::new(FdServer::start_within(node, &networks, self.process, Some(launcher))?);
        server.set_local_names(self.networks().iter());
        *lock(&self.server) = Arc::downgrade(&server);
        *self.meter() = server.meter();
        let (refusals, notes) = (server.refusals(), self.notes.clone());
        let tell = move || refusals.iter().for_each(|refusal| notes.tell(refusal));
        thread::Builder::new().name("refusals".into()).spawn(tell)?;
        let notes = self.notes.clone();
        let roots = root_watch::start_for(node, self.named.told(), move |note| notes.tell(note))?;
        let about = About::new(node, &self.named);
        let is_cut_off = Arc::clone(&self.is_cut_off);
        Ok(Service { server, asking, about, is_cut_off, _roots: roots })
    }
}

impl Service {
    pub(super) fn environment(&self) -> String {
        self.server.environment()
    }

    /// Serves the program until it detaches, or is gone. Then its sockets end.
    pub(super) fn serve(self, connection: &Connection, stay: &Stay<'_>) -> io::Result<()> {
        let detached = self.answer(connection, stay);
        // The program no longer reads answers.
        self.asking.0.end();
        if !matches!(detached, Ok(true)) {
            self.server.end_everywhere();
        }
        detached.map(drop)
    }

    /// Answers the program. Returns true once it detaches, and false if it is gone.
    fn answer(&self, connection: &Connection, stay: &Stay<'_>) -> io::Result<bool> {
        let (server, program) = (&self.server, &stay.program);
        let (mut events, mut held) = (None, None);
        while let Some(ask) = connection.ask()? {
            match ask {
                Ask::Attach(_) | Ask::Yield => return Err(io::ErrorKind::InvalidData.into()),
                Ask::Contacts => connection.send(&Reply::Contacts(server.contacts().count()))?,
                Ask::UnseenCalls => {
                    server.note_unseen_calls();
                    connection.send(&Reply::Done)?;
                }
                Ask::Drain(unclosed) => server.begin_drain_with(unclosed),
                Ask::Shown { number, is_shown } => self.asking.0.shown(number, is_shown),
                Ask::Broken => self.asking.0.broken(),
                Ask::Outstanding => {
                    let outstanding = server.undelivered();
                    // Asked afterwards, because connections may have been dropped meanwhile.
                    if self.is_cut_off.load(Ordering::SeqCst) {
                        return Ok(false);
                    }
                    connection.send(&Reply::Outstanding(outstanding))?;
                }
                Ask::About(question) => {
                    let networks = program.networks().clone();
                    connection.send(&Reply::About(self.about.answer(&networks, question)))?;
                }
                Ask::Events => {
                    // Before the answer, after which the program misses none.
                    if events.is_none() {
                        events = Some(PassedEvents::start(stay)?);
                    }
                    connection.send(&Reply::Done)?;
                }
                Ask::Join(joining) => {
                    let joined = stay.join(&joining);
                    // Before the answer, so that the program finds its network.
                    server.set_networks(&program.network_ids());
                    server.set_local_names(program.networks().iter());
                    connection.send(&match joined {
                        Ok(joined) => Reply::Joined(joined),
                        Err(failure) => Reply::Refused(refusal(&failure)),
                    })?;
                }
                Ask::Leave(id) => {
                    // First for the program, because the node may keep the network for others.
                    let left = program.take_network(&id);
                    server.set_networks(&program.network_ids());
                    if let Some(left) = &left {
                        stay.leave(left);
                    }
                    connection.send(&Reply::Left(left.is_some()))?;
                }
                Ask::Status => connection.send(&Reply::Status(program.status_of(stay.node())?))?,
                Ask::Seat(ask) => {
                    if let Some(reply) = seat::answer(&mut held, ask, stay) {
                        connection.send(&reply)?;
                    }
                }
                Ask::Detach => return Ok(true),
            }
        }
        Ok(false)
    }
}

/// Adds a program's sockets and bytes.
pub(crate) fn used(mut program: ProgramStatus, meter: &Meter) -> ProgramStatus {
    let usage = meter.usage();
    program.streams = usage.streams;
    program.listeners = usage.listeners;
    program.datagram_sockets = usage.datagram_sockets;
    program.peers = usage.peers;
    program.sent_bytes = usage.sent_bytes;
    program.received_bytes = usage.received_bytes;
    program
}

/// Returns the name of a program and of its process, for people.
pub(super) fn called(name: &str, process: u32) -> String {
    format!("`{}` (process {process})", escape(name))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The attached programs.
#[derive(Default)]
pub(super) struct Programs {
    attached: Vec<Arc<Program>>,
    /// True once there was one.
    pub(super) had_some: bool,
    /// True if the node ends after its last program.
    is_passing: bool,
    /// Number of connections, including those that are not attached.
    pub(super) connections: usize,
    /// Time until which a node without programs waits for one.
    waits_until: Option<Instant>,
    /// Set once the node ends: no program is attached any more.
    pub(super) is_ending: bool,
    /// Connections of programs that wait for the end of the node.
    pub(super) waiting: Vec<Arc<Connection>>,
}

impl Programs {
    pub(super) fn new(is_passing: bool) -> Programs {
        Programs { is_passing, ..Programs::default() }
    }

    pub(super) fn add(&mut self, program: Arc<Program>) {
        self.attached.push(program);
        self.had_some = true;
    }

    pub(super) fn remove(&mut self, program: &Arc<Program>) {
        self.attached.retain(|other| !Arc::ptr_eq(other, program));
        self.waits_until = self.waits_until.max(Some(Instant::now() + program.persist.min(MAX_PERSIST)));
    }

    /// Returns true once the last program has ended. A connection alone keeps no node.
    pub(super) fn is_idle(&self) -> bool {
        self.had_some && self.attached.is_empty()
    }

    /// Returns the time that is left for another program.
    pub(super) fn time_left(&self) -> Duration {
        let until = self.waits_until.filter(|_| self.is_idle());
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Returns the time until which the node waits for a program before it ends, if it does.
    pub(super) fn waiting_until(&self) -> Option<Instant> {
        self.waits_until.filter(|_| self.is_passing && self.is_idle())
    }

    pub(super) fn all(&self) -> Vec<Arc<Program>> {
        self.attached.clone()
    }
}
