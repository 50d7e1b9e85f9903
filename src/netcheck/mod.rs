//! What network this machine is in: interfaces, NATs, servers and their round trips, what is blocked, and
//! what to do about it. `peersock netcheck` prints a [`Report`]; docs/use/NETCHECK.md explains its JSON.
//!
//! It contacts only servers that the user has named: see [`Netcheck`].

mod report;
mod roots;

use std::collections::BTreeMap;
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
use crate::interfaces::{check_turn, lists_of, require_for_turn, targets_of_roots};
use crate::settings::{VariableError, roots_of_environment, stun_of_environment, turn_of_environment};
use crate::{Interfaces, RootSource, TurnServer};

/// Settings of a network check: the servers to ask, and the interfaces.
///
/// By default it asks the STUN servers, roots and TURN servers of the environment (`PEERSOCK_STUN`,
/// `PEERSOCK_ROOTS`, `PEERSOCK_TURN`), by all interfaces.
/// [`NodeBuilder::netcheck`](crate::NodeBuilder::netcheck) makes one from the settings of a node.
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

/// Reason why there is no report.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetcheckError {
    /// A variable of the environment is malformed, or a file that it names cannot be read.
    #[error(transparent)]
    Variable(#[from] VariableError),
    /// A root or a TURN server needs a feature that this build of the library lacks.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),
    /// No permitted interface is up.
    #[error("none of these interfaces is up: {0}")]
    NoInterface(String),
    /// The system's list of interfaces cannot be read.
    #[error("the system does not list its interfaces: {0}")]
    Io(#[from] io::Error),
}

impl Netcheck {
    /// Returns the settings of the environment, with all interfaces.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets STUN servers instead of those in `PEERSOCK_STUN`.
    pub fn stun(mut self, servers: impl IntoIterator<Item = Target>) -> Self {
        self.stun = Some(servers.into_iter().collect());
        self
    }

    /// Sets roots instead of those in `PEERSOCK_ROOTS`.
    pub fn roots(mut self, roots: impl IntoIterator<Item = RootSource>) -> Self {
        self.roots = Some(roots.into_iter().collect());
        self
    }

    /// Sets TURN servers instead of those in `PEERSOCK_TURN`; at most 16 are asked.
    pub fn turn(mut self, servers: impl IntoIterator<Item = TurnServer>) -> Self {
        self.turn = Some(servers.into_iter().collect());
        self
    }

    /// Limits the check to these interfaces, and sends nothing by others. Default: all.
    pub fn interfaces(mut self, allowed: Interfaces) -> Self {
        self.interfaces = allowed;
        self
    }

    /// Sets the UDP port on which announcements of roots are received, if `lan` is among the roots. Default:
    /// 7473.
    pub fn discovery_port(mut self, port: u16) -> Self {
        self.discovery_port = Some(port);
        self
    }

    /// Runs the check. It blocks for at most six seconds, whatever the network. Lists of roots are queried
    /// before, which takes up to four seconds for `dns:DOMAIN`, and six for `lan`.
    ///
    /// Roots that are named by their keys see a node with a fresh identity that registers for a moment. No
    /// requested resource stays: a TURN server's address is released.
    ///
    /// # Errors
    /// See [`NetcheckError`]. A network in which everything is blocked is not an error.
    pub fn run(&self) -> Result<Report, NetcheckError> {
        let sources = self.roots.clone().map_or_else(roots_of_environment, Ok)?;
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
            // At the same time, because each check may use its whole timeout.
            let turn = beside(scope, || check_turn(&turn, &only));
            let roots = beside(scope, || roots::check(sources, &self.interfaces));
            let network = peersock_nat::netcheck::run(&targets, &only);
            // The threads do not panic.
            (network, turn.join().unwrap_or_default(), roots.join().unwrap_or_default())
        });
        let network = network?;
        if !only.is_empty() && network.interfaces.is_empty() {
            return Err(NetcheckError::NoInterface(only.join(", ")));
        }
        Ok(Report::new(network, lists, roots, turn, origins))
    }

    /// Returns the names of the interfaces to check; none for all.
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
            // An empty list of names would mean all interfaces below.
            Interfaces::Named(names) if names.is_empty() => {
                Err(NetcheckError::NoInterface("none was named".to_owned()))
            }
            Interfaces::Named(names) => Ok(names.clone()),
        }
    }
}
