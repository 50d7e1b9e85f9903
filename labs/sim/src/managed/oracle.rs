//! Observer of a story that knows what people have decided, and which certificates honest controllers have
//! signed. It judges what machines accept by that alone, and by the sessions and paths between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use peersock_overlay::NodeId;
use peersock_overlay::membership::{Credentials, Serial, UnixTime};

use super::field::Field;
use crate::{Time, Violation};

/// Longest time that a removal takes from one machine to the next one, while datagrams pass between them.
const HOP: Duration = Duration::from_secs(5);

/// The same when the path was cut shortly before, so that what was said first is lost.
const HOP_AFTER_FAULTS: Duration = Duration::from_secs(25);

/// Difference between a right clock and a network's time, and time that an answer is under way.
const CLOCK_SLACK: Duration = Duration::from_secs(32);

/// Time that a removal takes from a controller's node into its store.
const LOOK: Duration = Duration::from_secs(2);

/// Decision of a person that a node is no member, or no issuer, any more.
pub(super) struct Removal {
    pub(super) node: NodeId,
    pub(super) at: Time,
    /// Machines that must know of it since then.
    reached: BTreeMap<usize, Time>,
    /// Machines that have had a session with one that knows, and which one, since then.
    near: BTreeMap<usize, (usize, Time)>,
}

#[derive(Default)]
pub(super) struct Oracle {
    /// Nodes that people have admitted and not removed.
    members: BTreeSet<NodeId>,
    /// Removals that no later admission has taken back.
    removals: BTreeMap<NodeId, Removal>,
    /// Nodes that a thief has admitted, with the issuer whose key it has.
    of_thief: BTreeMap<NodeId, NodeId>,
    /// Last certificate of each node: its serial and its end.
    issued: BTreeMap<NodeId, (Serial, UnixTime)>,
    /// Last holder of each address that honest controllers have given, and until when.
    holders: BTreeMap<Ipv4Addr, (NodeId, UnixTime)>,
    /// Machines that a thief has answered in this run.
    pub(super) misled: BTreeMap<usize, u64>,
    /// Time of the last fault of paths.
    disturbed: Option<Time>,
    /// Number of packets that were accepted.
    pub(super) accepted: u64,
    /// Number of certificates that honest controllers have signed.
    pub(super) certificates: u64,
}

impl Oracle {
    pub(super) fn is_member(&self, node: &NodeId) -> bool {
        self.members.contains(node)
    }

    pub(super) fn removed(&self, node: &NodeId) -> Option<&Removal> {
        self.removals.get(node)
    }

    /// Returns the number of addresses that members have.
    pub(super) fn addresses(&self) -> usize {
        self.holders.len()
    }

    /// Returns the serial of a node's last certificate.
    pub(super) fn serial(&self, node: &NodeId) -> Option<Serial> {
        self.issued.get(node).map(|(serial, _)| *serial)
    }

    /// Notes that a person has made a node a member.
    pub(super) fn admit(&mut self, node: NodeId) {
        self.members.insert(node);
        self.removals.remove(&node);
    }

    /// Notes that a person has removed a node at the controller on a machine.
    pub(super) fn remove(&mut self, now: Time, node: NodeId, by: usize) {
        self.members.remove(&node);
        let removal = Removal { node, at: now, reached: [(by, now)].into(), near: BTreeMap::new() };
        self.removals.insert(node, removal);
    }

    /// Notes that a machine's disk is an old one, on which later removals are missing.
    pub(super) fn forget(&mut self, machine: usize, after: Time) {
        for removal in self.removals.values_mut().filter(|removal| removal.at > after) {
            removal.reached.remove(&machine);
            removal.near.remove(&machine);
        }
    }

    /// Judges a certificate that an honest controller on a machine has signed for a node.
    pub(super) fn issue(
        &mut self,
        field: &Field,
        by: usize,
        node: &NodeId,
        credentials: &Credentials,
    ) -> Result<(), Violation> {
        let (now, certificate) = (UnixTime::from(field.unix_time(0)), credentials.certificate());
        self.certificates += 1;
        if let Some(removal) = self.removals.get(node) {
            let knows =
                removal.reached.get(&by).is_some_and(|at| field.now >= *at + LOOK || *at == removal.at);
            if knows {
                return violation(
                    field,
                    format_args!("controller {by} certifies {node:?}, which was removed"),
                );
            }
        }
        let (serial, end) = self.issued.entry(*node).or_default();
        (*serial, *end) = ((*serial).max(certificate.serial()), (*end).max(certificate.end()));
        let Some(address) = certificate.grant().ipv4 else { return Ok(()) };
        if let Some((holder, until)) = self.holders.get(&address)
            && holder != node
            && now < *until
        {
            return violation(
                field,
                format_args!("{by} gives {address} to {node:?} while {holder:?} has a certificate with it"),
            );
        }
        self.holders.insert(address, (*node, *end));
        Ok(())
    }

    /// Notes a certificate that a thief has signed with the key of an issuer.
    pub(super) fn forge(&mut self, issuer: NodeId, node: &NodeId, credentials: &Credentials) {
        if !self.members.contains(node) {
            self.of_thief.insert(*node, issuer);
        }
        let (_, end) = self.issued.entry(*node).or_default();
        *end = (*end).max(credentials.certificate().end());
    }

    /// Judges a packet of a node that a machine has accepted.
    pub(super) fn accept(&mut self, field: &Field, at: usize, from: &NodeId) -> Result<(), Violation> {
        let machine = &field.machines[at];
        if machine.is_hostile {
            return Ok(());
        }
        self.accepted += 1;
        let of_issuer = self.of_thief.get(from).filter(|_| !self.members.contains(from));
        // A thief can admit nodes until its own removal is known.
        let is_forged = of_issuer.is_some_and(|issuer| {
            self.removals.get(issuer).is_none_or(|removal| !removal.reached.contains_key(&at))
        });
        let own = Some(from).filter(|_| !is_forged);
        for removal in [own, of_issuer].into_iter().flatten().filter_map(|one| self.removals.get(one)) {
            if let Some(since) = removal.reached.get(&at).filter(|since| **since < field.now) {
                let known = field.now - *since;
                return violation(
                    field,
                    format_args!(
                        "machine {at} accepts {from:?}, {known:?} after it must know of the removal of {:?}",
                        removal.node
                    ),
                );
            }
        }
        let now = UnixTime::from(field.unix_time(0));
        let end = self.issued.get(from).map(|(_, end)| *end).unwrap_or_default();
        if let Some(slack) = self.slack(field, at)
            && end.plus(slack) < now
        {
            let late = now.since(end);
            return violation(
                field,
                format_args!("machine {at} accepts {from:?} {late:?} after the end of its last certificate"),
            );
        }
        Ok(())
    }

    /// Returns the time after the end of a certificate for which a machine may accept it. `None` for machines
    /// that cannot know the time.
    fn slack(&self, field: &Field, at: usize) -> Option<Duration> {
        let machine = &field.machines[at];
        let is_misled = self.misled.get(&at) == Some(&machine.starts);
        let behind = Duration::from_millis(u64::try_from(-machine.clock).unwrap_or(0));
        match (is_misled, machine.answered) {
            // A thief can revive what has ended, as long as it is not removed.
            (true, _) => None,
            _ if behind < CLOCK_SLACK => Some(CLOCK_SLACK),
            (false, Some(_)) => Some(CLOCK_SLACK),
            // What others sign tells it the time, if they agree.
            (false, None) => (behind < Duration::from_secs(10_000)).then_some(CLOCK_SLACK + behind),
        }
    }

    /// Follows removals from machine to machine. Call this every second.
    pub(super) fn follow(&mut self, field: &Field) {
        let honest: Vec<usize> = (0..field.machines.len())
            .filter(|number| field.machines[*number].is_up() && !field.machines[*number].is_hostile)
            .collect();
        let by_id: BTreeMap<NodeId, usize> =
            honest.iter().map(|number| (field.machines[*number].id(), *number)).collect();
        if field.faults.flaps.is_some() || !field.faults.groups.is_empty() {
            self.disturbed = Some(field.now);
        }
        let is_calm = self.disturbed.is_none_or(|at| field.now - at > HOP_AFTER_FAULTS);
        let hop = if is_calm { HOP } else { HOP_AFTER_FAULTS };
        let is_open = |removal: &Removal| honest.iter().any(|number| !removal.reached.contains_key(number));
        if !self.removals.values().any(is_open) {
            return;
        }
        // Only of machines that may not know of all removals yet.
        let mut all_near = BTreeMap::new();
        for removal in self.removals.values_mut() {
            let before = std::mem::take(&mut removal.near);
            // All of them first, because a removal passes one machine in a second.
            let open: Vec<usize> =
                honest.iter().copied().filter(|number| !removal.reached.contains_key(number)).collect();
            let mut reached = Vec::new();
            for number in open {
                let near = all_near.entry(number).or_insert_with(|| near(field, number, &by_id));
                // The one of before, as long as it is there.
                let is_there = |other: &usize| removal.reached.contains_key(other) && near.contains(other);
                let same = before.get(&number).filter(|(other, _)| is_there(other)).copied();
                let first = || near.iter().find(|other| is_there(other)).map(|other| (*other, field.now));
                let Some((other, since)) = same.or_else(first) else { continue };
                if field.now - since >= hop {
                    reached.push((number, field.now));
                } else {
                    removal.near.insert(number, (other, since));
                }
            }
            removal.reached.extend(reached);
        }
    }

    /// Checks which nodes a machine reaches by the addresses that honest controllers have given.
    pub(super) fn check_routes(&self, field: &Field, at: usize) -> Result<(), Violation> {
        let machine = &field.machines[at];
        let (Some(endpoint), false) = (&machine.endpoint, machine.is_hostile) else { return Ok(()) };
        let now = UnixTime::from(field.unix_time(0));
        // A thief's certificates count until its removal is known.
        let is_lied_to = self
            .of_thief
            .values()
            .any(|thief| self.removals.get(thief).is_none_or(|removal| !removal.reached.contains_key(&at)));
        if is_lied_to || self.misled.get(&at) == Some(&machine.starts) {
            return Ok(());
        }
        for (address, (holder, until)) in &self.holders {
            if let Some(peersock_overlay::Route::Peer(peer)) =
                endpoint.routes().get(machine.index(), (*address).into())
                && peer.id() != holder
                && now < *until
            {
                let other = peer.id();
                return violation(
                    field,
                    format_args!("machine {at} reaches {other:?} by {address}, which {holder:?} has"),
                );
            }
        }
        Ok(())
    }
}

/// Returns the machines with which one has a session that carries.
pub(super) fn near(field: &Field, number: usize, by_id: &BTreeMap<NodeId, usize>) -> Vec<usize> {
    let machine = &field.machines[number];
    let own = machine.id();
    let connected = machine.peers().filter(|(node, _)| machine.is_connected(node));
    let others = connected.filter_map(|(node, _)| by_id.get(node).copied());
    let carries = |other: &usize| field.passes(number, *other) && field.machines[*other].is_connected(&own);
    others.filter(carries).collect()
}

pub(super) fn violation<T>(field: &Field, what: std::fmt::Arguments<'_>) -> Result<T, Violation> {
    Err(Violation(format!("at {:.3} s: {what}", field.now.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use peersock_overlay::membership::{Certificate, Delegation, Grant, NetworkSecret, Rights};
    use peersock_overlay::{Identity, ManagedNetwork, NetworkId};
    use peersock_testnet::Random;

    use super::*;
    use crate::trace::Trace;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Returns a field with two machines that are off, and their node IDs.
    fn field() -> (Field, [NodeId; 2]) {
        let mut field = Field::new(Random::from_seed(1), Trace::new(false));
        let disk = ManagedNetwork::new(network());
        let nodes = [1, 2].map(|seed| {
            let number = field.add([seed; 32], disk.clone());
            field.machines[number].id()
        });
        (field, nodes)
    }

    fn network() -> NetworkId {
        NetworkId::new(0x8056_c2e2_1c00_0001).expect("a managed ID")
    }

    /// Signs a certificate of an hour with an address.
    fn credentials(field: &Field, node: NodeId, last: u8) -> Credentials {
        let (issuer, secret) = (Identity::from_seed(&[9; 32]), NetworkSecret::from_seed(&[8; 32]));
        let serial = Serial::next(UnixTime::from(field.unix_time(0)), None);
        let public = *issuer.public();
        let delegation = Delegation::sign(&secret, network(), public, serial, HOUR * 100, Rights::ALL);
        let mut grant = Grant::new(node, "beta".parse().expect("a name"));
        (grant.ipv4, grant.ipv4_length) = (Some([10, 7, 0, last].into()), 24);
        let certificate = Certificate::sign(&issuer, network(), grant, serial, HOUR).expect("a good grant");
        Credentials::new(secret.public(), delegation, certificate)
    }

    fn text(told: Result<(), Violation>) -> String {
        told.expect_err("a violation").0
    }

    #[test]
    fn packets_after_a_removal_or_the_end_of_a_certificate_are_violations() {
        let (mut field, [_, node]) = field();
        let mut oracle = Oracle::default();
        oracle.admit(node);
        let signed = credentials(&field, node, 2);
        oracle.issue(&field, 0, &node, &signed).expect("a member");
        oracle.accept(&field, 0, &node).expect("a member");
        field.now += HOUR + CLOCK_SLACK;
        oracle.accept(&field, 0, &node).expect("clocks differ a little");
        field.now += Duration::from_secs(1);
        assert!(text(oracle.accept(&field, 0, &node)).contains("after the end"));
        let signed = credentials(&field, node, 2);
        oracle.issue(&field, 0, &node, &signed).expect("a member");
        oracle.remove(field.now, node, 0);
        field.now += Duration::from_secs(1);
        assert!(text(oracle.accept(&field, 0, &node)).contains("the removal"));
        // The other machine has not heard of the removal.
        oracle.accept(&field, 1, &node).expect("it has not heard");
        assert!(text(oracle.issue(&field, 0, &node, &signed)).contains("which was removed"));
        // What a thief signs counts until its own removal is known.
        let issuer = NodeId::from_bytes([7; 32]);
        oracle.forge(issuer, &node, &signed);
        oracle.accept(&field, 0, &node).expect("the thief is not known");
        oracle.remove(field.now, issuer, 0);
        field.now += Duration::from_secs(1);
        assert!(text(oracle.accept(&field, 0, &node)).contains("the removal"));
    }

    #[test]
    fn two_holders_of_an_address_at_a_time_are_a_violation() {
        let (mut field, [first, second]) = field();
        let mut oracle = Oracle::default();
        let signed = credentials(&field, first, 2);
        oracle.issue(&field, 0, &first, &signed).expect("the first one");
        let signed = credentials(&field, second, 2);
        assert!(text(oracle.issue(&field, 0, &second, &signed)).contains("10.7.0.2"));
        field.now += HOUR;
        let signed = credentials(&field, second, 2);
        oracle.issue(&field, 0, &second, &signed).expect("the first one has none any more");
    }
}
