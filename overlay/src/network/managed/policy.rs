//! Policy of a managed network: it admits members by their credentials.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::super::{NetworkConfig, NetworkSummary, Policy, Prefix, StaticMember};
use super::{ManagedNetwork, Membership, program_serial, serial};
use crate::id::{DiscoveryKey, NetworkId, NodeId, Psk, PublicIdentity};
use crate::membership::{Admission, Grant, MemberName, ProcessCertificate};

/// Maximum number of nodes to which one name leads.
const MAX_NAMED: usize = 8;

#[derive(Debug)]
pub(in super::super) struct Managed {
    membership: Membership,
}

impl Managed {
    pub(in super::super) fn new(network: &ManagedNetwork) -> Self {
        let mut membership = Membership::new(network);
        // The certificate's own node, for questions about a network that is not joined. A node that joins it
        // begins anew, and cannot take another node's certificate.
        if let Some(credentials) = network.credentials.as_ref().filter(|one| one.process().is_none()) {
            let holder = credentials.certificate().grant().node;
            if membership.set_own(credentials, &holder, None).is_ok() {
                membership.request = network.request.clone();
            }
        }
        Self { membership }
    }
}

impl Policy for Managed {
    fn id(&self) -> NetworkId {
        self.membership.id
    }

    fn psk(&self) -> Option<&Psk> {
        None
    }

    fn discovery_key(&self) -> DiscoveryKey {
        DiscoveryKey::new(self.membership.id, None, None)
    }

    fn ports(&self) -> RangeInclusive<u16> {
        0..=u16::MAX
    }

    fn admits_anyone(&self) -> bool {
        false
    }

    /// Returns true for every node: a session is needed to show credentials. Nothing but that passes before.
    fn admits(&self, _: &NodeId) -> bool {
        true
    }

    fn members(&self) -> Vec<&StaticMember> {
        Vec::new()
    }

    fn addresses_of(&self, node: &NodeId) -> Vec<IpAddr> {
        // A program shares the name of its machine, but not the machine's addresses.
        let machine = self.membership.known(node).filter(|admission| !admission.is_process());
        let granted = machine.map(Admission::grant).into_iter().flat_map(|grant| grant.addresses());
        std::iter::once(self.membership.id.address_of(node).into()).chain(granted).collect()
    }

    fn set_addresses(&mut self, _: &NodeId, _: &[IpAddr]) {
        // Addresses follow from credentials alone.
    }

    fn prefixes(&self) -> Vec<Prefix> {
        let certified = self.membership.id.certified_prefix();
        let own = self.membership.own.as_ref().map(|own| own.admission.grant());
        std::iter::once(certified).chain(own.into_iter().flat_map(Grant::prefixes)).collect()
    }

    /// Returns true for self-certifying addresses, and for those that a controller may have granted.
    fn may_exist(&self, address: IpAddr) -> bool {
        self.prefixes().iter().any(|prefix| prefix.contains(address))
    }

    fn machine_of(&self, node: &NodeId) -> Option<&PublicIdentity> {
        let admission = self.membership.known(node)?;
        admission.credentials().process().map(ProcessCertificate::machine)
    }

    fn label_of(&self, node: &NodeId) -> Option<&MemberName> {
        self.membership.known(node)?.label()
    }

    fn name_of(&self, node: &NodeId) -> Option<&str> {
        self.membership.known(node).map(|admission| admission.grant().name.as_str())
    }

    /// Returns the machine's own node before its programs, or the programs with a label: `label.machine`.
    fn nodes_named(&self, name: &str) -> Vec<NodeId> {
        let lower = name.to_ascii_lowercase();
        let (label, machine) = match lower.split_once('.') {
            Some((label, machine)) => (Some(label), machine),
            None => (None, lower.as_str()),
        };
        let is_meant = |admission: &&Admission| {
            let has_label = || admission.label().map(MemberName::as_str) == label;
            admission.grant().name.as_str() == machine && (label.is_none() || has_label())
        };
        let mut meant: Vec<&Admission> = self.membership.all().filter(is_meant).collect();
        // A name that was given on may still be in an older certificate, of another member.
        let newest = meant.iter().max_by_key(|one| serial(one)).map(|one| one.grant().node);
        meant.retain(|one| Some(one.grant().node) == newest);
        // The newest program first: a label may still be that of one that has ended.
        meant.sort_by_key(|one| (one.is_process(), Reverse(program_serial(one))));
        meant.into_iter().take(MAX_NAMED).map(|one| *one.holder()).collect()
    }

    fn keeps(&self, _: &NodeId) -> bool {
        false
    }

    fn is_described_by(&self, config: &NetworkConfig) -> bool {
        let NetworkConfig::Managed(network) = config else { return false };
        // One that is not known yet may be any.
        let (named, known) = (network.key, self.membership.key().copied());
        network.id == self.membership.id && named.zip(known).is_none_or(|(named, known)| named == known)
    }

    fn summary(&self) -> NetworkSummary {
        NetworkSummary {
            kind: "managed",
            secret: false,
            closed: true,
            by_file: false,
            ports: self.ports(),
            prefixes: self.prefixes(),
        }
    }

    fn membership(&self) -> Option<&Membership> {
        Some(&self.membership)
    }

    fn membership_mut(&mut self) -> Option<&mut Membership> {
        Some(&mut self.membership)
    }
}
