//! Preview of rules: which open flows of a node they would end.

use std::net::SocketAddr;
use std::path::Path;
use std::str::SplitAsciiWhitespace;

use data_encoding::BASE64URL_NOPAD;
use peersock_overlay::NetworkId;
use serde::{Deserialize, Serialize};

use super::{ManagementError, request, was_cut};

/// Question which open flows rules would end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EffectRequest {
    pub(crate) network: NetworkId,
    /// Encoding of the rules.
    pub(crate) rules: Vec<u8>,
}

impl EffectRequest {
    pub(super) fn parse(mut words: SplitAsciiWhitespace<'_>) -> Option<EffectRequest> {
        let network = words.next()?.strip_prefix("network=")?.parse().ok()?;
        let rules = BASE64URL_NOPAD.decode(words.next()?.strip_prefix("rules=")?.as_bytes()).ok()?;
        words.next().is_none().then_some(EffectRequest { network, rules })
    }
}

/// Effect of rules on the open flows of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EffectOfRules {
    /// Number of open flows that the node knows.
    pub flows: usize,
    /// Flows that would end.
    pub ended: Vec<EndedFlow>,
}

/// Open flow that rules would end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EndedFlow {
    /// Name of the member at the other end, or of the gateway in front of it; else its node ID.
    pub member: String,
    /// Number of the IP protocol.
    pub protocol: u8,
    /// End at this node.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// True if this node has opened the flow.
    pub is_outgoing: bool,
    /// Line of the rule that refuses it; `None` for the default.
    pub line: Option<u16>,
}

impl EffectOfRules {
    pub(crate) fn of(effect: &peersock_datapath::Effect) -> EffectOfRules {
        let ended = effect.ended.iter().map(|one| EndedFlow {
            member: one.peer.name.clone().unwrap_or_else(|| one.peer.machine.to_string()),
            protocol: one.protocol,
            local: one.local,
            remote: one.remote,
            is_outgoing: one.is_ours,
            line: one.decision.rule.map(|rule| rule.line),
        });
        EffectOfRules { flows: effect.flows, ended: ended.collect() }
    }
}

/// Asks the node that uses the state directory at `state` which of its open flows in a network some rules
/// would end. `rules` is their encoding.
///
/// # Errors
///
/// See [`ManagementError`]; nodes of earlier versions refuse the question.
pub fn effect(state: &Path, network: NetworkId, rules: &[u8]) -> Result<EffectOfRules, ManagementError> {
    let text = BASE64URL_NOPAD.encode(rules);
    let answer = request(state, &format!("effect network={network} rules={text}"))?;
    serde_json::from_str(&answer).map_err(|_| was_cut(state))
}
