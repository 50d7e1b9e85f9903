//! Networks of a shared node: each is joined while a program has it. A node that waits for another program
//! keeps the ones of the last, so that the paths in them stay open.

use std::collections::BTreeMap;

use peersock::overlay::NetworkId;
use peersock::{Joined, Network, Node};

use crate::failure::{Failure, Outcome};

/// The joined networks.
#[derive(Default)]
pub(super) struct Networks(BTreeMap<NetworkId, Shared>);

struct Shared {
    network: Network,
    joined: Joined,
    programs: usize,
}

impl Networks {
    /// Keeps networks that the node has joined for its own user.
    pub(super) fn keep(&mut self, joined: Vec<(Network, Joined)>) {
        let shared = |(network, joined)| Shared { network, joined, programs: 1 };
        self.0.extend(joined.into_iter().map(|own| (own.1.id(), shared(own))));
    }

    /// Joins the networks of a program that are not joined yet. All or none count as the program's.
    ///
    /// # Errors
    /// A network is joined with another description; `users` returns the programs that have it. Errors of
    /// joining.
    pub(super) fn enter(
        &mut self,
        node: &Node,
        networks: &[Network],
        users: impl Fn(NetworkId) -> String,
    ) -> Outcome<Vec<Joined>> {
        let mut entered = Vec::new();
        for network in networks {
            match self.enter_one(node, network, &users) {
                Ok(joined) => entered.push(joined),
                Err(failure) => {
                    let ids: Vec<_> = entered.iter().map(Joined::id).collect();
                    self.leave(node, &ids, false);
                    return Err(failure);
                }
            }
        }
        self.leave_unused(node);
        Ok(entered)
    }

    /// Joins one network of a program as [`Networks::enter`] does.
    pub(super) fn enter_one(
        &mut self,
        node: &Node,
        network: &Network,
        users: impl Fn(NetworkId) -> String,
    ) -> Outcome<Joined> {
        let id = network.id();
        // Its user may have left the network for good, and joined it again since.
        let is_joined = node.network(id).is_some();
        // No program uses the description of a network that is kept for the next program.
        let is_kept = |shared: &Shared| shared.programs == 0 && shared.network != *network;
        if self.0.get(&id).is_some_and(is_kept) {
            self.0.remove(&id);
            node.leave(id);
        }
        if let Some(shared) = self.0.get_mut(&id) {
            if shared.network != *network {
                return Err(Failure::new(
                    format_args!(
                        "{} uses network {id} with {}, and all programs of a node use the same",
                        users(id),
                        different(&shared.network, network)
                    ),
                    "end the programs that use it, or give this one a separate node with another state \
                     directory (--state DIR or PEERSOCK_STATE)",
                ));
            }
            if !is_joined {
                shared.joined = node.join(network.clone())?;
            }
            shared.programs += 1;
            return Ok(shared.joined.clone());
        }
        let joined = node.join(network.clone())?;
        self.0.insert(id, Shared { network: network.clone(), joined: joined.clone(), programs: 1 });
        Ok(joined)
    }

    /// Leaves the networks of a program that no other program has, unless they are kept for the next one.
    pub(super) fn leave(&mut self, node: &Node, networks: &[NetworkId], are_kept: bool) {
        for id in networks {
            if let Some(shared) = self.0.get_mut(id) {
                shared.programs -= 1;
            }
        }
        if !are_kept {
            self.leave_unused(node);
        }
    }

    /// Leaves the networks that no program has.
    fn leave_unused(&mut self, node: &Node) {
        for (id, _) in self.0.extract_if(.., |_, shared| shared.programs == 0) {
            node.leave(id);
        }
    }
}

/// Returns the part in which two descriptions of a network differ.
fn different(one: &Network, other: &Network) -> &'static str {
    match (one.is_secret(), other.is_secret()) {
        (false, true) => "no passphrase",
        (true, false) => "a passphrase",
        _ if one.members() != other.members() => "another list of members, perhaps of an older file",
        _ => "another passphrase",
    }
}
