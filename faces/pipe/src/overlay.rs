//! Detection of overlay addresses.

use std::net::IpAddr;

use peersock::Node;
use peersock::interfaces::IpBlock;

/// Returns true if an address is in a network of the node, or of the process's node.
pub(crate) fn is_overlays(node: Option<&Node>, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let Some(node) = node.cloned().or_else(peersock::current_node).filter(|_| !ip.is_loopback()) else {
        return false;
    };
    let networks = node.networks();
    let mut routes = networks.iter().flat_map(|network| network.routes());
    routes.any(|(address, prefix)| IpBlock::new(address, prefix).is_some_and(|block| block.contains(ip)))
}
