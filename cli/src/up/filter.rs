//! Packet filters of the interfaces, and the message if the kernel has none.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use peersock::{Network, PublicIdentity};
use peersock_tun::{Filter, Tun};

use super::plan::Plan;
use crate::stdio;

/// Sets the filter of each interface. If the kernel has no filters, the user is told once, and the machine
/// works as if there were none.
pub(super) fn set(
    networks: &[Network],
    identity: &PublicIdentity,
    plans: &[Plan],
    tuns: &[Arc<Tun>],
) -> Vec<Filter> {
    let mut filters = Vec::new();
    let mut missing: Option<(&str, io::Error)> = None;
    let mut leads_out = false;
    for ((network, plan), tun) in networks.iter().zip(plans).zip(tuns) {
        let blocks = blocks_of_exit(network, identity);
        match Filter::set(tun, &plan.settings, blocks.as_deref(), tuns.iter().map(|tun| &**tun)) {
            Ok(filter) => filters.push(filter),
            Err(error) => {
                leads_out |= blocks.is_some();
                missing.get_or_insert((tun.name(), error));
            }
        }
    }
    if let Some((name, error)) = missing {
        stdio::note(format_args!(
            "{name} has no filter, which takes nf_tables of Linux 5.12 or later: {error}. Any host on a \
             local network of this machine reaches its addresses in the network, and can send in the name of \
             members{}: docs/use/NETWORKS.md has rules against that",
            match leads_out {
                true => {
                    "; and reaches members, for this node is an exit, which leads them to this machine's site, too"
                }
                false => "",
            }
        ));
    }
    filters
}

/// Returns the blocks of addresses that the network's file routes to this node, if it may be an exit.
fn blocks_of_exit(network: &Network, identity: &PublicIdentity) -> Option<Vec<(IpAddr, u8)>> {
    let own = network.members().iter().find(|member| member.identity == *identity)?;
    let blocks = own.routes.iter().map(|block| (block.address(), block.length()));
    own.exit.is_any().then(|| blocks.collect())
}
