//! The node that runs with the state directory, as other commands ask it.

use std::path::PathBuf;
use std::time::Duration;

use peersock::management::{self, ManagementError, Probe, ProbeOutcome, Probed};
use peersock::overlay::NetworkId;
use peersock::state::{StateDir, StateError};
use peersock::{Network, NetworkStatus, PeerStatus, Status};

use crate::args::{REACH_TIMEOUT, REACH_TIMEOUT_WITH_DHT, StateArgs, no_network, only_joined};
use crate::failure::{Failure, Outcome, has_ended};
use crate::names;
use crate::output::note;
use crate::status::{difference, parse};

/// Longest wait for a controller's word about a name.
const FIND_FOR: Duration = Duration::from_secs(5);

/// A running node.
pub(crate) struct RunningNode {
    pub(crate) path: PathBuf,
    /// Its status when it was found.
    pub(crate) status: Status,
}

impl RunningNode {
    /// Finds the node that runs with the state directory; `None` if none runs, or the identity is ephemeral.
    pub(crate) fn find(state: &StateArgs) -> Outcome<Option<RunningNode>> {
        if state.ephemeral {
            return Ok(None);
        }
        let path = state.path()?;
        let text = match management::status(&path, usize::MAX) {
            Ok(text) => text,
            Err(ManagementError::NotRunning { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let status = parse(&text)?;
        if let Some(difference) = difference(&status) {
            note(difference);
        }
        Ok(Some(RunningNode { path, status }))
    }

    /// Finds the node as [`find`](Self::find) does, for a hint alone: a failure counts as none.
    pub(crate) fn find_quietly(state: &StateArgs) -> Option<RunningNode> {
        let path = state.path().ok().filter(|_| !state.ephemeral)?;
        let status = parse(&management::status(&path, 0).ok()?).ok()?;
        Some(RunningNode { path, status })
    }

    /// Returns a node that is known to run.
    pub(crate) fn of(path: PathBuf, status: Status) -> RunningNode {
        RunningNode { path, status }
    }

    /// Returns the node with its status now, or, if it does not answer, with the last one.
    pub(crate) fn again(&self) -> RunningNode {
        let status = management::status(&self.path, usize::MAX).ok().and_then(|text| parse(&text).ok());
        let status = status.unwrap_or_else(|| self.status.clone());
        RunningNode { path: self.path.clone(), status }
    }

    /// Returns the network that is named, or the node's only one.
    pub(crate) fn network(&self, named: Option<&Network>) -> Outcome<&NetworkStatus> {
        let networks = &self.status.networks;
        match (named, &networks[..]) {
            (Some(network), _) => networks
                .iter()
                .find(|joined| joined.id == network.id())
                .ok_or_else(|| self.not_joined(network.id(), network.summary().closed)),
            (None, [network]) => Ok(network),
            (None, _) => Err(self.no_network_named()),
        }
    }

    /// Returns the error if no network is named and one has to be.
    pub(crate) fn no_network_named(&self) -> Failure {
        if only_joined().is_some() {
            return no_network();
        }
        Failure::usage(
            format_args!("no network is named, and {}", self.its_networks()),
            match self.status.networks.iter().any(|network| network.closed) {
                false => "give its ID as --network NETWORK (-n) or in PEERSOCK_NETWORK",
                true => {
                    "give its ID, or the file of a static one, as --network NETWORK (-n) or in PEERSOCK_NETWORK"
                }
            },
        )
    }

    /// Returns true if this was a shared node in the background that no program uses any more. It has ended,
    /// for the command that asks.
    pub(crate) fn has_left(&self) -> bool {
        self.status.networks.is_empty() && self.leaves_directory()
    }

    /// Returns true if this was a shared node in the background that only waited for programs, in networks or
    /// not. It has ended, for a command that has to start the node itself.
    pub(crate) fn gives_way(&self) -> bool {
        self.status.waits_s.is_some() && self.leaves_directory()
    }

    fn leaves_directory(&self) -> bool {
        !matches!(StateDir::open(&self.path), Err(StateError::InUse { .. }))
    }

    fn not_joined(&self, network: NetworkId, closed: bool) -> Failure {
        let what = format!("has not joined network {network}");
        Failure::new(
            format_args!("the node that runs with {} {what}: {}", self.path.display(), self.its_networks()),
            match closed {
                false => "name a network that it has, or give --ephemeral to use a node of the command's own",
                true => {
                    "name a network of that node, or stop it first, or give the --state DIR of another member"
                }
            },
        )
    }

    fn its_networks(&self) -> String {
        let ids: Vec<_> = self.status.networks.iter().map(|network| network.id.to_string()).collect();
        match &ids[..] {
            [] => "the running node has none now".to_owned(),
            [id] => format!("the network of the running node is {id}"),
            ids => format!("the networks of the running node are {}", ids.join(", ")),
        }
    }

    /// Returns the member of a network with a name, whatever its case.
    pub(crate) fn member_named(&self, network: NetworkId, name: &str) -> Option<&PeerStatus> {
        // Its programs have the name of the machine, too.
        let is_meant = |peer: &&PeerStatus| peer.network == network && peer.machine.is_none();
        let has_it = |peer: &&PeerStatus| {
            is_meant(peer) && peer.name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name))
        };
        self.status.peers.iter().find(has_it)
    }

    /// Returns the timeout for reaching a peer, as
    /// [`UnderlayArgs::reach_timeout`](crate::args::UnderlayArgs) does for another node.
    pub(crate) fn reach_timeout(&self) -> Duration {
        if self.status.dht.is_some() { REACH_TIMEOUT_WITH_DHT } else { REACH_TIMEOUT }
    }

    /// Lets the node reach a member.
    pub(crate) fn reach(&self, probe: &Probe) -> Outcome<Probed> {
        management::reach(&self.path, probe).map_err(|error| self.failure(error))
    }

    /// Lets the node find a member by its name, by asking the network's controller if need be.
    pub(crate) fn find_named(
        &self,
        network: NetworkId,
        name: &str,
        named: Option<&Network>,
    ) -> Outcome<Option<PeerStatus>> {
        let Ok(name) = name.parse() else { return Ok(self.member_named(network, name).cloned()) };
        let probe = Probe::of_members(network, FIND_FOR);
        let probe = named.map_or(probe, |network| probe.exactly(network));
        let probed =
            management::find_named(&self.path, &probe, &name).map_err(|error| self.failure(error))?;
        match probed.outcome {
            ProbeOutcome::Answered | ProbeOutcome::NoSuchMember => Ok(probed.peer),
            ProbeOutcome::Silent => Err(names::no_controller_said(network, name.as_str())),
            _ => Err(self.probe_failure(&probed, named, network)),
        }
    }

    /// Lets the node ping a member; see [`management::ping`].
    pub(crate) fn ping(&self, probe: &Probe, size: u16, check: Duration) -> Outcome<Probed> {
        management::ping(&self.path, probe, size, check).map_err(|error| self.failure(error))
    }

    /// Lets the node ask all members of a network. Returns false if the node is too old for that. `named` is
    /// the network as this program was told of it.
    pub(crate) fn ask_members(&self, probe: &Probe, named: Option<&Network>) -> Outcome<bool> {
        match management::ask_members(&self.path, probe) {
            Ok(probed) if matches!(probed.outcome, ProbeOutcome::Answered | ProbeOutcome::Silent) => Ok(true),
            Ok(probed) => Err(self.probe_failure(&probed, named, probe.network())),
            Err(ManagementError::Refused { error, .. }) if error == "unknown request" => Ok(false),
            Err(error) => Err(self.failure(error)),
        }
    }

    fn failure(&self, error: ManagementError) -> Failure {
        match error {
            error if has_ended(&error) => Failure::new(
                format_args!("the node has ended: no node is running with {} any more", self.path.display()),
                "start this command again: if no node runs, it starts one",
            ),
            ManagementError::Refused { error, .. } if error == "unknown request" => Failure::new(
                format_args!(
                    "the running node (version {}) is too old to reach members for other programs",
                    self.status.version
                ),
                "restart it with the version of this program, or stop it to use a separate node",
            ),
            ManagementError::Refused { error, .. } => {
                Failure::new(format_args!("the running node refuses: {error}"), "try again later")
            }
            error => error.into(),
        }
    }

    /// Returns the failure for a probe that has not told whether the member answers.
    pub(crate) fn probe_failure(&self, probed: &Probed, named: Option<&Network>, id: NetworkId) -> Failure {
        match probed.outcome {
            ProbeOutcome::NotJoined => {
                let closed = named.is_some_and(|network| network.summary().closed);
                Failure::new(
                    format_args!("the running node has left network {id}"),
                    if closed { "start it again in this network" } else { "name a network that it has" },
                )
            }
            ProbeOutcome::OtherNetwork => self.other_network(named, id),
            _ => Failure::new(
                format_args!(
                    "the running node cannot do this: {}",
                    probed.reason.as_deref().unwrap_or("it says no reason")
                ),
                "restart it with the version of this program, and try again",
            ),
        }
    }

    fn other_network(&self, named: Option<&Network>, id: NetworkId) -> Failure {
        let its = self.status.networks.iter().find(|network| network.id == id);
        let it_has = match (its.is_some_and(|its| its.secret), named.is_some_and(Network::is_secret)) {
            (true, false) => "with a passphrase, and none is named here",
            (false, true) => "without a passphrase, and one is named here",
            _ if named.is_some_and(|network| network.summary().by_file) => {
                "with another list of members or another secret, perhaps by an older file"
            }
            _ => "with another passphrase",
        };
        Failure::new(
            format_args!("the running node has joined network {id} {it_has}"),
            "give the secret or file that the node has, or restart the node with this one",
        )
    }
}
