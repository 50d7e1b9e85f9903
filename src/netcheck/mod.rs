//! What network this machine is in: interfaces, NATs, servers and their round trips, what is blocked, and
//! what to do about it. `peersock netcheck` prints a [`Report`]; docs/use/NETCHECK.md explains its JSON.
//!
//! No server is asked that nobody named: see [`Netcheck`].

mod report;
mod roots;

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::thread;

use peersock_nat::host;
use peersock_overlay::wire::DISCOVERY_PORT;
use peersock_primitives::beside;
use thiserror::Error;

pub use peersock_nat::netcheck::{
    Advice, InterfaceReport, Nameserver, NatReport, Proxy, Report as NetworkReport, ServerAddress,
    ServerReport, Target, TcpCheck, Transport,
};
pub use report::Report;
pub use roots::RootCheck;

use crate::config::{MissingFeature, require_for_roots};
use crate::interfaces::{
    ROOTS_VARIABLE, ServersError, check_turn, lists_of, require_for_turn, stun_of_environment,
    targets_of_roots, turn_of_environment,
};
use crate::{Interfaces, RootSource, RootsError, TurnServer};

/// A look at the network that is to be taken: which servers are asked, and by which interfaces.
///
/// Without settings it asks the STUN servers, roots and TURN servers that the environment names
/// (`PEERSOCK_STUN`, `PEERSOCK_ROOTS`, `PEERSOCK_TURN`), by all interfaces.
/// [`NodeBuilder::netcheck`](crate::NodeBuilder::netcheck) makes one of the settings of a node.
///
/// ```
/// use peersock::Interfaces;
/// use peersock::netcheck::Netcheck;
///
/// let report = Netcheck::new().interfaces(Interfaces::Loopback).roots([]).turn([]).stun([]).run()?;
/// assert_eq!(report.network.udp, None, "nobody was asked");
/// for advice in &report.network.advice {
///     println!("{}", advice.finding);
/// }
/// # Ok::<(), peersock::netcheck::NetcheckError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Netcheck {
    stun: Option<Vec<Target>>,
    roots: Option<Vec<RootSource>>,
    turn: Option<Vec<TurnServer>>,
    interfaces: Interfaces,
    discovery_port: Option<u16>,
}

/// Why there is no report.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetcheckError {
    /// What the environment says of roots is not understood, or a file that it names cannot be read.
    #[error("{ROOTS_VARIABLE}: {0}")]
    Roots(#[source] RootsError),
    /// What the environment says of STUN or TURN servers is not understood.
    #[error(transparent)]
    Servers(#[from] ServersError),
    /// A root or a TURN server needs what this build of the library lacks.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),
    /// No interface that may be used is up.
    #[error("none of these interfaces is up: {0}")]
    NoInterface(String),
    /// The system does not tell its interfaces.
    #[error("the system does not tell its interfaces: {0}")]
    Io(#[from] io::Error),
}

impl Netcheck {
    /// As the environment has it, by all interfaces.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks these STUN servers instead of those that `PEERSOCK_STUN` names.
    pub fn stun(mut self, servers: impl IntoIterator<Item = Target>) -> Self {
        self.stun = Some(servers.into_iter().collect());
        self
    }

    /// Asks these roots instead of those that `PEERSOCK_ROOTS` names.
    pub fn roots(mut self, roots: impl IntoIterator<Item = RootSource>) -> Self {
        self.roots = Some(roots.into_iter().collect());
        self
    }

    /// Asks these TURN servers, of which 16 at most, instead of those that `PEERSOCK_TURN` names.
    pub fn turn(mut self, servers: impl IntoIterator<Item = TurnServer>) -> Self {
        self.turn = Some(servers.into_iter().collect());
        self
    }

    /// Looks at these interfaces only, and sends nothing by others. Default: all.
    pub fn interfaces(mut self, allowed: Interfaces) -> Self {
        self.interfaces = allowed;
        self
    }

    /// The UDP port at which announcements of roots are heard, where `lan` is among the roots. Default: 7473.
    pub fn discovery_port(mut self, port: u16) -> Self {
        self.discovery_port = Some(port);
        self
    }

    /// Takes the look. It blocks for six seconds at most, whatever the network; lists of roots are asked
    /// before, which takes up to four seconds for `dns:DOMAIN`, and six for `lan`.
    ///
    /// Roots that are named by their keys see a node with a fresh identity that registers for a moment.
    /// Nothing that was asked for stays: a TURN server's address is given back.
    ///
    /// # Errors
    /// See [`NetcheckError`]. A network in which everything is blocked is none.
    pub fn run(&self) -> Result<Report, NetcheckError> {
        // First, because a file that cannot be read is another failure than a text that is wrong.
        let sources = match &self.roots {
            Some(roots) => roots.clone(),
            None => RootSource::load(&env::var(ROOTS_VARIABLE).unwrap_or_default())
                .map_err(NetcheckError::Roots)?,
        };
        let stun = self.stun.clone().map_or_else(stun_of_environment, Ok)?;
        let turn = self.turn.clone().map_or_else(turn_of_environment, Ok)?;
        require_for_roots(&sources)?;
        require_for_turn(&turn)?;
        let only = self.names()?;
        let mut targets = stun;
        targets.extend(targets_of_roots(&sources));
        let port = self.discovery_port.unwrap_or(DISCOVERY_PORT);
        let lists = lists_of(sources.clone(), &self.interfaces, port);
        let mut origins = BTreeMap::new();
        for list in &lists {
            for server in list.servers.iter().filter(|server| !targets.contains(server)) {
                origins.entry(server.clone()).or_insert_with(|| list.source.clone());
            }
        }
        targets.extend(origins.keys().cloned());
        let (network, turn, roots) = thread::scope(|scope| {
            let turn = beside(scope, || check_turn(&turn, &only));
            let roots = beside(scope, || roots::check(sources, &self.interfaces));
            let network = peersock_nat::netcheck::run(&targets, &only);
            // They do not panic.
            (network, turn.join().unwrap_or_default(), roots.join().unwrap_or_default())
        });
        let network = network?;
        if !only.is_empty() && network.interfaces.is_empty() {
            return Err(NetcheckError::NoInterface(only.join(", ")));
        }
        Ok(Report::new(network, lists, roots, turn, origins))
    }

    /// The names of the interfaces that are looked at; none where all are.
    fn names(&self) -> Result<Vec<String>, NetcheckError> {
        match &self.interfaces {
            Interfaces::All => Ok(Vec::new()),
            allowed @ (Interfaces::Loopback | Interfaces::Except(_)) => {
                let mut up = host::interfaces()?;
                up.retain(|interface| allowed.allows_named(&interface.name, interface.loopback));
                match up.is_empty() {
                    true => Err(NetcheckError::NoInterface(allowed.to_string())),
                    false => Ok(up.into_iter().map(|interface| interface.name).collect()),
                }
            }
            // An empty list of names would stand for all of them below.
            Interfaces::Named(names) if names.is_empty() => {
                Err(NetcheckError::NoInterface("none was named".to_owned()))
            }
            Interfaces::Named(names) => Ok(names.clone()),
        }
    }
}
