use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use peersock_overlay::NetworkId;
use peersock_stack::Error;

use super::{Plan, Side};
use crate::Time;

/// An event that must never happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// Record of all conversations and their progress. The nodes' programs are checked against this truth.
#[derive(Debug, Default)]
pub struct Ledger {
    conversations: BTreeMap<u64, Entry>,
    exchanges: BTreeMap<u64, Exchange>,
    next: u64,
    /// Number of conversation ends that were reached.
    pub ends: u64,
    /// Stream bytes that were read and found correct.
    pub bytes_checked: u64,
    /// UDP datagrams and echo replies that were received and found correct.
    pub datagrams_checked: u64,
}

#[derive(Debug)]
struct Entry {
    plan: Arc<Plan>,
    begun: Time,
    accepted: bool,
    done: [bool; 2],
    /// Set when one end crashed or left. The conversation may then end in any way, but never deliver a wrong
    /// byte.
    disturbed: bool,
    /// Ends whose peer crashed or left. Such an end may wait for ever.
    cut_off: [bool; 2],
    /// Set when the conversation failed, or was given up, for an accepted reason.
    ended: bool,
}

/// UDP datagrams exchanged by two nodes.
#[derive(Debug)]
struct Exchange {
    network: NetworkId,
    client: usize,
    server: usize,
    seen: [BTreeSet<u64>; 2],
    sent: u64,
}

impl Ledger {
    /// Enters a conversation and returns its number.
    pub fn begin(&mut self, now: Time, plan: Arc<Plan>) -> u64 {
        self.next += 1;
        let entry = Entry {
            plan,
            begun: now,
            accepted: false,
            done: [false; 2],
            disturbed: false,
            cut_off: [false; 2],
            ended: false,
        };
        self.conversations.insert(self.next, entry);
        self.next
    }

    /// Returns the plan of the conversation that a client claims to begin, if the claim is valid here.
    ///
    /// # Errors
    /// There is no such conversation, it belongs to other nodes or another network, or it is already under
    /// way.
    pub fn accept(
        &mut self,
        id: u64,
        network: NetworkId,
        server: usize,
        port: u16,
    ) -> Result<Arc<Plan>, Violation> {
        let Some(entry) = self.conversations.get_mut(&id) else {
            return Err(Violation(format!("node {server} accepted a connection that no node opened ({id})")));
        };
        let plan = &entry.plan;
        if (plan.network, plan.server, plan.port) != (network, server, port) {
            return Err(Violation(format!(
                "conversation {id} of nodes {} and {} in network {} port {} came to node {server} in network {network} port {port}",
                plan.client, plan.server, plan.network, plan.port
            )));
        }
        if entry.accepted {
            return Err(Violation(format!("conversation {id} was accepted twice")));
        }
        entry.accepted = true;
        Ok(Arc::clone(plan))
    }

    /// Records that one side has written and read everything.
    pub fn done(&mut self, id: u64, side: Side) {
        if let Some(entry) = self.conversations.get_mut(&id) {
            entry.done[side as usize] = true;
            self.ends += 1;
        }
    }

    /// Records that a side's connection failed.
    /// Fails if no earlier event at either end explains the failure.
    pub fn failed(&mut self, id: u64, side: Side, error: Error) -> Result<(), Violation> {
        let Some(entry) = self.conversations.get_mut(&id) else { return Ok(()) };
        let excused = entry.disturbed;
        entry.ended = true;
        if excused || entry.done[side as usize] {
            return Ok(());
        }
        let (client, server, begun) = (entry.plan.client, entry.plan.server, entry.begun);
        let network = entry.plan.network;
        Err(Violation(format!(
            "conversation {id} of nodes {client} and {server} in {network}, begun at {begun:?}, failed at its {side:?}: {error}"
        )))
    }

    /// Records that the client could not connect and gives up. No data was exchanged.
    pub fn withdraw(&mut self, id: u64) {
        if let Some(entry) = self.conversations.get_mut(&id) {
            entry.ended = true;
            entry.disturbed = true;
        }
    }

    /// Records that a node has crashed or left networks. Its conversations there may end in any way.
    pub fn disturb(&mut self, node: usize, network: Option<NetworkId>) {
        for entry in self.conversations.values_mut() {
            let concerned = entry.plan.client == node || entry.plan.server == node;
            if concerned && network.is_none_or(|network| network == entry.plan.network) {
                let ends = [entry.plan.client, entry.plan.server];
                let open = !entry.ended && entry.done != [true; 2];
                for (end, cut_off) in entry.cut_off.iter_mut().enumerate() {
                    // The node's end of the conversation disappears with the node.
                    *cut_off = ends[end] != node && (*cut_off || open);
                }
                entry.disturbed = true;
            }
        }
    }

    /// Returns a conversation's plan and its start time.
    pub fn plan_of(&self, id: u64) -> Option<(Arc<Plan>, Time)> {
        self.conversations.get(&id).map(|entry| (Arc::clone(&entry.plan), entry.begun))
    }

    /// Returns the number of conversations a node has had.
    pub fn connections_of(&self, node: usize) -> usize {
        let concerns = |entry: &&Entry| entry.plan.client == node || entry.plan.server == node;
        self.conversations.values().filter(concerns).count()
    }

    /// Returns true if a conversation may end in any way.
    pub fn is_disturbed(&self, id: u64) -> bool {
        self.conversations.get(&id).is_some_and(|entry| entry.disturbed)
    }

    /// Returns true if both sides of a conversation have written and read everything.
    pub fn is_complete(&self, id: u64) -> bool {
        self.conversations.get(&id).is_some_and(|entry| entry.done == [true; 2])
    }

    /// Returns true if any conversation of that plan, first or repeated, is complete.
    pub fn is_fulfilled(&self, plan: &Arc<Plan>) -> bool {
        self.conversations.values().any(|entry| entry.done == [true; 2] && Arc::ptr_eq(&entry.plan, plan))
    }

    /// Returns the number of connections that a node may keep for ever because their other ends are gone.
    pub fn cut_off(&self, node: usize) -> usize {
        let of_node = |entry: &Entry| {
            let ends = [entry.plan.client, entry.plan.server];
            ends.into_iter().zip(entry.cut_off).filter(|&(end, cut_off)| cut_off && end == node).count()
        };
        self.conversations.values().map(of_node).sum()
    }

    /// Returns the conversations that should complete and have not: number, plan and start time.
    pub fn pending(&self) -> impl Iterator<Item = (u64, &Plan, Time)> {
        self.conversations
            .iter()
            .filter(|(_, entry)| !entry.disturbed && !entry.ended && entry.done != [true; 2])
            .map(|(&id, entry)| (id, &*entry.plan, entry.begun))
    }

    /// Returns the number of completed conversations and the number of all conversations.
    pub fn completed(&self) -> (usize, usize) {
        let complete = self.conversations.values().filter(|entry| entry.done == [true; 2]).count();
        (complete, self.conversations.len())
    }

    /// Enters an exchange of UDP datagrams and returns its number.
    pub fn begin_exchange(&mut self, network: NetworkId, client: usize, server: usize) -> u64 {
        self.next += 1;
        let exchange = Exchange { network, client, server, seen: Default::default(), sent: 0 };
        self.exchanges.insert(self.next, exchange);
        self.next
    }

    /// Records that the client sends its next datagram, and returns the datagram's number.
    pub fn send_datagram(&mut self, id: u64) -> u64 {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return 0 };
        exchange.sent += 1;
        exchange.sent
    }

    /// Records a datagram that `side` received and whose content was correct.
    /// Fails if no one sent the datagram, it was sent elsewhere, or it was received before.
    pub fn receive_datagram(
        &mut self,
        id: u64,
        number: u64,
        side: Side,
        network: NetworkId,
        node: usize,
    ) -> Result<(), Violation> {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return Err(Violation(format!("node {node} received a datagram that no node sent ({id})")));
        };
        let owner = if side == Side::Client { exchange.client } else { exchange.server };
        if (exchange.network, owner) != (network, node) || number > exchange.sent {
            return Err(Violation(format!(
                "datagram {number} of exchange {id} for node {owner} in network {} came to node {node} in network {network}",
                exchange.network
            )));
        }
        if !exchange.seen[side as usize].insert(number) {
            return Err(Violation(format!("node {node} received datagram {number} of exchange {id} twice")));
        }
        self.datagrams_checked += 1;
        Ok(())
    }

    /// Returns the number of an exchange's datagrams that reached `side`.
    pub fn datagrams(&self, id: u64, side: Side) -> usize {
        self.exchanges.get(&id).map_or(0, |exchange| exchange.seen[side as usize].len())
    }
}
