//! Check that roots have the keys that name them. An answer from their addresses does not prove it, because
//! each STUN server answers.

use std::fmt::Display;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use peersock_nat::netcheck::{Advice, Report};
use peersock_overlay::{NodeId, RootState};
use serde::{Serialize, Serializer};

use crate::{Dht, IdentitySource, Interfaces, Node, RootSource, RootStatus, TurnServer};

/// Timeout of the roots, similar to the rest of the report if a server is silent.
const ROOTS_TIMEOUT: Duration = Duration::from_secs(4);

/// Interval of the check whether all have answered.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Time limit of the node's goodbyes.
const GOODBYE: Duration = Duration::from_millis(300);

/// Result of registering at a root that is named by its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RootCheck {
    /// Node ID of its key.
    #[serde(serialize_with = "as_text")]
    pub node_id: NodeId,
    /// Endpoints, as far as its names have addresses.
    pub endpoints: Vec<SocketAddr>,
    /// Final state of the root.
    #[serde(serialize_with = "as_text")]
    pub state: RootState,
    /// `Some(true)` if it has proven its key; `None` if it has not answered within four seconds.
    pub has_key: Option<bool>,
}

impl RootCheck {
    /// Returns the root's endpoints, or its node ID if no address is known.
    pub fn place(&self) -> String {
        let endpoints: Vec<_> = self.endpoints.iter().map(ToString::to_string).collect();
        match &endpoints[..] {
            [] => self.node_id.to_string(),
            endpoints => endpoints.join(" or "),
        }
    }

    /// Returns the root's name in a sentence.
    fn name(&self) -> String {
        let at = if self.endpoints.is_empty() { "" } else { "at " };
        format!("the root {at}{}", self.place())
    }
}

impl From<RootStatus> for RootCheck {
    fn from(root: RootStatus) -> Self {
        let has_key = has_answered(&root).then_some(true);
        Self { node_id: root.id, endpoints: root.endpoints, state: root.state, has_key }
    }
}

/// Registers a node with a fresh identity at the roots that are named by their keys. Returns the results once
/// all have answered, or after four seconds; nothing if no root is named, or no node can start.
pub(super) fn check(sources: Vec<RootSource>, allowed: &Interfaces) -> Vec<RootCheck> {
    let named: Vec<_> =
        sources.into_iter().filter(|source| matches!(source, RootSource::Address(_))).collect();
    if named.is_empty() {
        return Vec::new();
    }
    let node = Node::builder()
        .identity(IdentitySource::Ephemeral)
        .interfaces(allowed.clone())
        .discovery(false)
        .dht(Dht::Off)
        .turn(Vec::<TurnServer>::new())
        .port_mapping(false)
        // The variable may be wrong, or not apply here.
        .stun([])
        .roots(named);
    let node = match node.start() {
        Ok(node) => node,
        Err(error) => {
            tracing::debug!(%error, "it is not known whether the roots have their keys");
            return Vec::new();
        }
    };
    let until = Instant::now() + ROOTS_TIMEOUT;
    let roots = loop {
        let roots = node.status().roots;
        // `Connected` is only a step on the way to registered or refused.
        let is_settled = |root: &RootStatus| has_answered(root) && root.state != RootState::Connected;
        if roots.iter().all(is_settled) || Instant::now() >= until {
            break roots;
        }
        thread::sleep(POLL_INTERVAL);
    };
    node.shutdown(GOODBYE);
    roots.into_iter().map(RootCheck::from).collect()
}

/// Returns true if a handshake was completed, which proves the key.
fn has_answered(root: &RootStatus) -> bool {
    !matches!(root.state, RootState::Connecting | RootState::Unreachable)
}

/// Returns the advice for each root.
pub(super) fn advise(roots: &[RootCheck], report: &Report) -> Vec<Advice> {
    let is_answering = |address: &SocketAddr| {
        let mut known = report.servers.iter().flat_map(|server| &server.addresses);
        known.any(|one| one.address == *address && one.rtt_ms.is_some())
    };
    let advice = |root: &RootCheck| {
        let (place, name) = (root.place(), root.name());
        match root.state {
            RootState::Refused => Advice::new(
                format!("{name} has its key and does not take this machine: it may want a token"),
                Some("ask who runs it for the token, and write ?token=TEXT behind the root's text"),
            ),
            _ if root.has_key == Some(true) => Advice::new(format!("{name} answers, and has its key"), None),
            _ if root.endpoints.iter().any(is_answering) => Advice::new(
                format!("something answers at {place}, but not as the root with the key that is named"),
                Some("copy the first line that `peersock root` prints there: the key is in front of the @"),
            ),
            _ => Advice::new(
                format!("{name} does not answer within {} s", ROOTS_TIMEOUT.as_secs()),
                Some("check that it runs there, and has the key that its text names"),
            ),
        }
    };
    roots.iter().map(advice).collect()
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
