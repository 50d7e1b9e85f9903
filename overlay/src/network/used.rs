//! Members that a node has used. Their names and addresses lead to them while no controller answers.
//!
//! An entry is a hint and no proof: it says which node had a name. The node begins a session with that node,
//! and the name counts once its holder has shown credentials with it. So a wrong or old entry costs a
//! handshake, and leads no program to another member. Entries outlive certificates for that reason, and the
//! layer above keeps them over restarts without their signatures.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::id::{NodeId, PublicIdentity};
use crate::membership::{Grant, MemberName, Question, Revocations, Serial};

/// Member that a node has used, as its certificate was then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedMember {
    /// Name of the member.
    pub name: MemberName,
    /// Keys of the member's node.
    pub identity: PublicIdentity,
    /// IPv4 address of the member in the network's pool.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address of the member besides the self-certifying one.
    pub ipv6: Option<Ipv6Addr>,
    /// Serial of the certificate that said so.
    pub serial: Serial,
}

impl UsedMember {
    /// Maximum number of members that a node remembers in one network. The one that was used longest ago
    /// makes room. A member keeps 64 KiB for a large network at most, which removals nearly fill.
    pub const MAX: usize = 32;

    /// Returns true if a question for a member is about this one.
    fn is_meant(&self, question: &Question) -> bool {
        match question {
            Question::FindName(name) => self.name == *name,
            Question::FindAddress(IpAddr::V4(address)) => self.ipv4 == Some(*address),
            Question::FindAddress(IpAddr::V6(address)) => self.ipv6 == Some(*address),
            Question::Certify(_) | Question::FindProgram(..) => false,
        }
    }
}

/// Members that a node has used, with their node IDs. The one that was used last is at the end, and no two
/// have one name.
#[derive(Debug, Default)]
pub(super) struct UsedMembers(Vec<(NodeId, UsedMember)>);

impl UsedMembers {
    /// Takes over the newest of these, except those that are revoked.
    pub(super) fn new(given: &[UsedMember], revoked: &Revocations) -> Self {
        let mut used = Self::default();
        for one in &given[given.len().saturating_sub(UsedMember::MAX)..] {
            used.insert(one.clone());
        }
        used.forget_revoked(revoked);
        used
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &UsedMember> + DoubleEndedIterator {
        self.0.iter().map(|(_, one)| one)
    }

    /// Returns the nodes that may be the member of a question.
    pub(super) fn leads(&self, question: &Question) -> Vec<PublicIdentity> {
        self.iter().filter(|one| one.is_meant(question)).map(|one| one.identity).collect()
    }

    /// Notes that a member was used now. Returns true if it is new here, or has another name or address.
    pub(super) fn note(&mut self, identity: PublicIdentity, grant: &Grant, serial: Serial) -> bool {
        let has_changed = self.renew(grant, serial);
        match self.0.iter().position(|(_, one)| one.identity == identity) {
            // Moved to the end.
            Some(at) => self.0[at..].rotate_left(1),
            None => {
                let Grant { name, ipv4, ipv6, .. } = grant.clone();
                return self.insert(UsedMember { name, identity, ipv4, ipv6, serial }) || has_changed;
            }
        }
        has_changed
    }

    /// Brings what is here up to date with a certificate that counts. Returns true if a name or address is
    /// another one now.
    pub(super) fn renew(&mut self, grant: &Grant, serial: Serial) -> bool {
        let mut has_changed = self.give_way(&grant.node, grant, serial);
        let known = self.0.iter_mut().find(|(node, _)| *node == grant.node);
        // Also of the same serial: what was kept may be damaged.
        if let Some((_, known)) = known.filter(|(_, one)| one.serial <= serial) {
            let Grant { name, ipv4, ipv6, .. } = grant.clone();
            has_changed |= (&known.name, known.ipv4, known.ipv6) != (&name, ipv4, ipv6);
            (known.name, known.ipv4, known.ipv6, known.serial) = (name, ipv4, ipv6, serial);
        }
        has_changed
    }

    /// Forgets the members that a question is about, because a controller knows none. Returns true if there
    /// was one here.
    pub(super) fn forget(&mut self, question: &Question) -> bool {
        let before = self.0.len();
        self.0.retain(|(_, one)| !one.is_meant(question));
        self.0.len() < before
    }

    pub(super) fn forget_revoked(&mut self, revoked: &Revocations) {
        self.0.retain(|(node, one)| !revoked.covers(node, one.serial));
    }

    /// Puts a member at the end, unless a newer certificate gives its name to another one. Returns true if it
    /// did.
    fn insert(&mut self, member: UsedMember) -> bool {
        let node = member.identity.node_id();
        self.0.retain(|(known, _)| *known != node);
        if self.iter().any(|one| one.name == member.name && one.serial >= member.serial) {
            return false;
        }
        let mut grant = Grant::new(node, member.name.clone());
        (grant.ipv4, grant.ipv6) = (member.ipv4, member.ipv6);
        self.give_way(&node, &grant, member.serial);
        if self.0.len() >= UsedMember::MAX {
            self.0.remove(0);
        }
        self.0.push((node, member));
        true
    }

    /// Takes the name and addresses of a newer certificate from other members. Returns true if one had them.
    fn give_way(&mut self, node: &NodeId, grant: &Grant, serial: Serial) -> bool {
        let (before, mut has_changed) = (self.0.len(), false);
        let is_older = |of: &NodeId, one: &UsedMember| one.serial < serial && of != node;
        self.0.retain(|(of, one)| one.name != grant.name || !is_older(of, one));
        for (of, one) in &mut self.0 {
            let has_ipv4 = one.ipv4.is_some() && one.ipv4 == grant.ipv4;
            let has_ipv6 = one.ipv6.is_some() && one.ipv6 == grant.ipv6;
            if (has_ipv4 || has_ipv6) && is_older(of, one) {
                one.ipv4 = one.ipv4.filter(|_| !has_ipv4);
                one.ipv6 = one.ipv6.filter(|_| !has_ipv6);
                has_changed = true;
            }
        }
        has_changed || self.0.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Identity;
    use crate::membership::{Revocation, UnixTime};

    fn identity(seed: u8) -> PublicIdentity {
        *Identity::from_seed(&[seed; 32]).public()
    }

    fn grant(seed: u8, name: &str, last: u8) -> Grant {
        let mut grant = Grant::new(identity(seed).node_id(), name.parse().expect("a name"));
        (grant.ipv4, grant.ipv4_length) = (Some([10, 0, 0, last].into()), 24);
        grant
    }

    fn note(used: &mut UsedMembers, seed: u8, name: &str, last: u8, serial: u64) -> bool {
        used.note(identity(seed), &grant(seed, name, last), Serial::from_u64(serial))
    }

    fn names(used: &UsedMembers) -> Vec<&str> {
        used.iter().map(|one| one.name.as_str()).collect()
    }

    fn by_address(last: u8) -> Question {
        Question::FindAddress([10, 0, 0, last].into())
    }

    #[test]
    fn the_member_that_was_used_longest_ago_makes_room() {
        let mut used = UsedMembers::default();
        let most = UsedMember::MAX as u8;
        for seed in 1..=most {
            assert!(note(&mut used, seed, &format!("m{seed}"), seed, 1));
        }
        assert!(!note(&mut used, 1, "m1", 1, 1), "it is known, and used last now");
        assert!(note(&mut used, most + 1, "new", most + 1, 1));
        let names = names(&used);
        assert_eq!((names.len(), names.first(), names.last()), (UsedMember::MAX, Some(&"m3"), Some(&"new")));
        assert_eq!(names[UsedMember::MAX - 2], "m1");
        // More than may be: the newest ones count.
        let more: Vec<UsedMember> = (1..=200)
            .map(|seed| {
                let Grant { name, ipv4, ipv6, .. } = grant(seed, &format!("m{seed}"), seed);
                UsedMember { name, identity: identity(seed), ipv4, ipv6, serial: Serial::default() }
            })
            .collect();
        let used = UsedMembers::new(&more, &Revocations::default());
        assert!(used.iter().eq(&more[200 - UsedMember::MAX..]));
    }

    #[test]
    fn a_name_and_an_address_lead_to_the_newest_certificate_s_holder() {
        let mut used = UsedMembers::default();
        assert!(note(&mut used, 1, "alpha", 1, 5) && note(&mut used, 2, "beta", 2, 5));
        // An older certificate changes nothing, whichever node shows it.
        assert!(!note(&mut used, 1, "beta", 2, 4) && !note(&mut used, 3, "beta", 3, 4));
        assert_eq!(names(&used), ["beta", "alpha"]);
        // Another member gets the name, and a third one the address.
        assert!(note(&mut used, 3, "beta", 3, 6));
        assert_eq!(names(&used), ["alpha", "beta"]);
        assert_eq!(used.leads(&Question::FindName("beta".parse().expect("a name"))), [identity(3)]);
        assert!(used.renew(&grant(4, "gamma", 1), Serial::from_u64(7)));
        assert_eq!((used.leads(&by_address(1)), used.leads(&by_address(3))), (vec![], vec![identity(3)]));
        assert_eq!(names(&used), ["alpha", "beta"], "only who is used is here");
        assert!(used.forget(&by_address(3)) && !used.forget(&by_address(3)));
        assert_eq!(names(&used), ["alpha"]);
    }

    #[test]
    fn revoked_members_are_forgotten_unless_they_have_a_later_certificate() {
        let mut used = UsedMembers::default();
        note(&mut used, 1, "alpha", 1, 5);
        note(&mut used, 2, "beta", 2, 6);
        let entry = Revocation { min_serial: Serial::from_u64(6), until: UnixTime::from_millis(9) };
        let revoked = [1, 2].into_iter().map(|seed| (identity(seed).node_id(), entry)).collect();
        let given: Vec<_> = used.iter().cloned().collect();
        used.forget_revoked(&revoked);
        assert_eq!(names(&used), ["beta"]);
        assert_eq!(names(&UsedMembers::new(&given, &revoked)), ["beta"]);
    }
}
