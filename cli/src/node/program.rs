//! A program that is attached to a shared node.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use peersock::overlay::NetworkId;
use peersock::{Network, Node, Unanswered};
use peersock_attach::{Ask, Connection, Reply};
use peersock_socket_server::FdServer;

use super::about::About;
use super::notes::Notes;
use crate::output::escape;
use crate::reach::NamedServers;
use crate::root_watch::{self, RootWatch};
use crate::unanswered::UnansweredMessages;

/// An attached program.
pub(super) struct Program {
    name: String,
    process: u32,
    connection: Arc<Connection>,
    networks: Vec<Network>,
    is_verbose: bool,
    notes: Notes,
    unanswered: Mutex<UnansweredMessages>,
}

/// The program's server and the threads that speak for it, until dropped.
pub(super) struct Service {
    server: FdServer,
    about: About,
    _roots: RootWatch,
}

impl Program {
    pub(super) fn new(
        connection: &Arc<Connection>,
        name: &str,
        networks: Vec<Network>,
        is_verbose: bool,
    ) -> io::Result<Program> {
        let notes = Notes::start(Arc::clone(connection))?;
        let (name, process) = (escape(name), connection.process());
        let connection = Arc::clone(connection);
        Ok(Program { name, process, connection, networks, is_verbose, notes, unanswered: Mutex::default() })
    }

    /// Returns the program's name and process, for people.
    pub(super) fn called(&self) -> String {
        format!("`{}` (process {})", self.name, self.process)
    }

    /// Ends the connection, and with it the program's sockets.
    pub(super) fn disconnect(&self) {
        self.connection.close();
    }

    pub(super) fn has(&self, network: NetworkId) -> bool {
        self.networks.iter().any(|its| its.id() == network)
    }

    /// Passes on a line of the log. Lines of a verbose log are for programs that want it.
    pub(super) fn log(&self, line: &str, is_verbose: bool) {
        if self.is_verbose || !is_verbose {
            self.notes.log(line.to_owned());
        }
    }

    /// Says that a member does not answer, if the program has its network.
    pub(super) fn tell_unanswered(&self, node: &Node, named: &NamedServers, one: Unanswered) {
        let Some(network) = self.networks.iter().find(|network| network.id() == one.network) else { return };
        if let Some(line) = self.messages().tell_about(node, network, named, one) {
            self.notes.tell(line);
        }
    }

    fn messages(&self) -> MutexGuard<'_, UnansweredMessages> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the program's server.
    pub(super) fn serve(&self, node: &Node, named: &NamedServers) -> io::Result<Service> {
        let networks: Vec<_> = self.networks.iter().map(Network::id).collect();
        let server = FdServer::start_within(node, &networks, self.process)?;
        let (refusals, notes) = (server.refusals(), self.notes.clone());
        let tell = move || refusals.iter().for_each(|refusal| notes.tell(refusal));
        thread::Builder::new().name("refusals".into()).spawn(tell)?;
        let notes = self.notes.clone();
        let roots = root_watch::start_for(node, move |note| notes.tell(note))?;
        let about = About::new(node, &self.networks, named);
        Ok(Service { server, about, _roots: roots })
    }
}

impl Service {
    pub(super) fn environment(&self) -> String {
        self.server.environment()
    }

    /// Serves the program until it detaches, or is gone. Then its sockets end.
    pub(super) fn serve(self, connection: &Connection) -> io::Result<()> {
        let detached = self.answer(connection);
        if !matches!(detached, Ok(true)) {
            self.server.end_everywhere();
        }
        detached.map(drop)
    }

    /// Answers the program. Returns true once it detaches, and false if it is gone.
    fn answer(&self, connection: &Connection) -> io::Result<bool> {
        let server = &self.server;
        while let Some(ask) = connection.ask()? {
            match ask {
                Ask::Attach(_) => return Err(io::ErrorKind::InvalidData.into()),
                Ask::Contacts => connection.send(&Reply::Contacts(server.contacts().count()))?,
                Ask::UnseenCalls => {
                    server.note_unseen_calls();
                    connection.send(&Reply::Done)?;
                }
                Ask::Drain => server.begin_drain(),
                Ask::Outstanding => connection.send(&Reply::Outstanding(server.undelivered()))?,
                Ask::About(question) => connection.send(&Reply::About(self.about.answer(question)))?,
                Ask::Detach => return Ok(true),
            }
        }
        Ok(false)
    }
}

/// The attached programs.
#[derive(Default)]
pub(super) struct Programs {
    attached: BTreeMap<u64, Arc<Program>>,
    last: u64,
    /// Number of connections, including those that are not attached yet.
    pub(super) connections: usize,
    /// Set once the node ends: no program is attached any more.
    pub(super) is_ending: bool,
    /// Connections of programs that wait for the end of the node.
    pub(super) waiting: Vec<Arc<Connection>>,
}

impl Programs {
    pub(super) fn add(&mut self, program: Arc<Program>) -> u64 {
        self.last += 1;
        self.attached.insert(self.last, program);
        self.last
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.attached.remove(&number);
    }

    pub(super) fn all(&self) -> Vec<Arc<Program>> {
        self.attached.values().cloned().collect()
    }
}
