//! The node that a command asks about its members, which programs share.

use std::net::IpAddr;
use std::time::Duration;

use peersock::Network;
use peersock_attach::{Attached, may_start_node};

use crate::args::SharedNodeArgs;
use crate::attachment;
use crate::failure::{Failure, Outcome};
use crate::running::RunningNode;

/// A node, and the command's place at it.
pub(crate) struct AskedNode {
    /// The node, as it was once it had the command's network.
    pub(crate) running: RunningNode,
    /// Place by which the node has the command's network and roots; none at a node that shares nothing.
    place: Option<Attached>,
}

impl AskedNode {
    /// Returns true if a command asks a node: one that runs, or one that is started for its network.
    /// Otherwise the command has to keep a node itself, or lacks a network.
    pub(crate) fn is_there(node: &SharedNodeArgs, network: Option<&Network>) -> Outcome<bool> {
        if node.state.ephemeral || node.has_label() {
            return Ok(false);
        }
        Ok(shares(node, network.is_some())? || running(node)?.is_some())
    }

    /// Attaches to the node for a command with this network. Waits no longer than `within` for an earlier
    /// node that ends. A process that shares no node is asked about its own networks.
    pub(crate) fn open(
        command: &str,
        node: &SharedNodeArgs,
        network: Option<&Network>,
        within: Duration,
    ) -> Outcome<AskedNode> {
        if !shares(node, false)?
            && let Some(running) = running(node)?
        {
            return Ok(AskedNode { running, place: None });
        }
        let (name, networks) = (format!("peersock {command}"), network.map(std::slice::from_ref));
        let tell = |told| _ = attachment::show(told);
        let place = attachment::open(node, name, networks.unwrap_or_default(), within, tell)?;
        match (running(node)?, place) {
            (Some(running), Some(place)) => Ok(AskedNode { running, place: Some(place) }),
            _ => Err(Failure::new("the node has ended meanwhile", "start this command again")),
        }
    }

    /// Returns advice of the node about a member that does not answer.
    pub(crate) fn advice(&self, address: IpAddr) -> Option<String> {
        self.place.as_ref()?.advice(address)
    }
}

/// Returns true if a command can attach to a node, or start one.
fn shares(node: &SharedNodeArgs, has_network: bool) -> Outcome<bool> {
    let may_start = has_network && may_start_node();
    Ok(!node.wants_own_node() && (may_start || Attached::is_offered(&node.state.path()?)))
}

fn running(node: &SharedNodeArgs) -> Outcome<Option<RunningNode>> {
    Ok(RunningNode::find(&node.state)?.filter(|running| !running.has_left()))
}
