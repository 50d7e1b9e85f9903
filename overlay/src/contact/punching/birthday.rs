//! When a search by many ports is worth it for two nodes, and what came of the last one. The search itself is
//! [`Birthday`](crate::contact::Birthday).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Punching, Word};
use crate::contact::{Candidate, CandidateKind, Contact, DirectAttempt, DirectOutcome, Mapping, NotTried};

/// A round of few ports has failed if there is no direct path after so long.
const AFTER: Duration = Duration::from_secs(2);

/// The side that begins does so again after so long, or sooner if the other one has refused.
const PAUSE: Duration = Duration::from_secs(600);
const PAUSE_REFUSED: Duration = Duration::from_secs(120);

/// The other side takes part again after so long. Less, so that it does not refuse who keeps the pause.
const PAUSE_ASKED: Duration = Duration::from_secs(300);

/// What is remembered of searches by many ports for one node.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// When the round of few ports counts as failed.
    due: Option<Instant>,
    /// Before that this node begins none.
    own_after: Option<Instant>,
    /// Before that it takes part in none that the other one begins.
    asked_after: Option<Instant>,
    last: Option<DirectAttempt>,
}

impl Record {
    /// A round of few ports begins at `start`.
    pub(super) fn note_round(&mut self, start: Instant) {
        self.due = Some(start + AFTER);
    }

    /// Nothing is looked for any more.
    pub(super) fn note_end(&mut self) {
        self.due = None;
    }

    /// This node is elsewhere.
    pub(super) fn restart(&mut self) {
        self.own_after = None;
    }

    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| now >= *due).is_some()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn attempt(&self) -> Option<DirectAttempt> {
        self.last
    }
}

impl Punching {
    /// Where this node has to send from many ports to reach the other one. `None` if this node's NAT, as far
    /// as it is known, is no reason to do so, or the other one's is no reason to expect anything.
    pub(crate) fn birthday_target(&self, own: &Contact) -> Option<Result<SocketAddr, NotTried>> {
        let theirs = self.theirs.as_ref()?;
        if !varies(own) {
            return None;
        }
        if varies(theirs) {
            return Some(Err(NotTried::BothUnpredictable));
        }
        let there = self.vouched_for(own, theirs)?;
        is_fixed(theirs).then_some(Ok(there.address))
    }

    /// The address whose ports this node is to send to if the other one sends from many. `None` if it must
    /// not, or that would be of no use.
    pub(crate) fn birthday_host(&self, own: &Contact) -> Option<IpAddr> {
        let theirs = self.theirs.as_ref()?;
        let there = self.vouched_for(own, theirs).filter(|_| is_fixed(own) && varies(theirs))?;
        Some(there.address.ip())
    }

    /// The IPv4 address at which roots of this node's own see the other one, and not this node itself.
    fn vouched_for(&self, own: &Contact, theirs: &Contact) -> Option<Candidate> {
        let is_it = |candidate: &&Candidate| {
            let ip = candidate.address.ip();
            let is_outer = candidate.kind == CandidateKind::Mapped && ip.is_ipv4() && candidate.is_global();
            is_outer && self.vouched.word_on(&ip) == Word::Root && own.public().all(|own| own != ip)
        };
        theirs.candidates().iter().find(is_it).copied()
    }

    /// Whether this node may begin a search by many ports now.
    pub(crate) fn may_begin_birthday(&self, now: Instant) -> bool {
        self.birthday.own_after.is_none_or(|next| now >= next)
    }

    /// Whether this node takes part in one that the other node begins now.
    pub(crate) fn may_join_birthday(&self, now: Instant) -> bool {
        self.birthday.asked_after.is_none_or(|next| now >= next)
    }

    /// A search by many ports has begun, by this node or by the other one.
    pub(crate) fn note_birthday(&mut self, is_own: bool, now: Instant) {
        if is_own {
            self.birthday.own_after = Some(now + PAUSE);
        } else {
            self.birthday.asked_after = Some(now + PAUSE_ASKED);
        }
    }

    /// The last search by many ports went so far. The address is that of the other node, with port 0 if many
    /// ports are sent to.
    pub(crate) fn set_birthday(
        &mut self,
        address: SocketAddr,
        sent: u32,
        outcome: DirectOutcome,
        now: Instant,
    ) {
        if outcome == DirectOutcome::NotTried(NotTried::Refused) {
            self.birthday.own_after = Some(now + PAUSE_REFUSED);
        }
        let tried = (sent > 0).then_some(now);
        self.birthday.last = Some(DirectAttempt {
            address,
            kind: CandidateKind::Mapped,
            predicted: false,
            by_many_ports: true,
            by_tcp: false,
            vouched: self.vouched.word_on(&address.ip()) != Word::Own,
            sent,
            tried,
            outcome,
        });
    }

    /// Why the last search by many ports that this node should have begun was none.
    pub(crate) fn refuse_birthday(&mut self, own: &Contact, why: NotTried, now: Instant) {
        let there = self.theirs.as_ref().and_then(|theirs| self.vouched_for(own, theirs));
        if let Some(there) = there {
            self.set_birthday(there.address, 0, DirectOutcome::NotTried(why), now);
        }
    }
}

/// Whether the outer port of a node depends on the destination.
fn varies(contact: &Contact) -> bool {
    matches!(contact.nat.mapping, Mapping::AddressDependent | Mapping::AddressAndPortDependent)
}

/// Whether it is known to be one for all destinations.
fn is_fixed(contact: &Contact) -> bool {
    matches!(contact.nat.mapping, Mapping::EndpointIndependent | Mapping::NoNat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contact::tests::contact;
    use crate::contact::{Said, Vouched};
    use crate::testing::instant;

    const SEEN: &str = "203.0.113.9:5000";

    #[test]
    fn each_side_knows_what_it_has_to_do() {
        use Mapping::{AddressAndPortDependent, AddressDependent, EndpointIndependent, NoNat, Unknown};
        let there: SocketAddr = SEEN.parse().unwrap();
        for varying in [AddressDependent, AddressAndPortDependent] {
            for fixed in [EndpointIndependent, NoNat] {
                assert_eq!(roles(varying, fixed, &[SEEN], Vouching::Own), (Some(Ok(there)), None));
                assert_eq!(roles(fixed, varying, &[SEEN], Vouching::Own), (None, Some(there.ip())));
                assert_eq!(roles(fixed, fixed, &[SEEN], Vouching::Own), (None, None));
            }
            let both = Some(Err(NotTried::BothUnpredictable));
            assert_eq!(roles(varying, varying, &[SEEN], Vouching::Own), (both, None));
            assert_eq!(roles(varying, Unknown, &[SEEN], Vouching::Own), (None, None));
            assert_eq!(roles(Unknown, varying, &[SEEN], Vouching::Own), (None, None));
        }
    }

    #[test]
    fn only_an_address_at_which_a_root_of_its_own_sees_the_node_is_aimed_at() {
        let (fixed, varying) = (Mapping::EndpointIndependent, Mapping::AddressDependent);
        let none = |named: &[&str], vouching| {
            assert_eq!(roles(fixed, varying, named, vouching).1, None, "{named:?}");
            assert_eq!(roles(varying, fixed, named, vouching).0, None, "{named:?}");
        };
        none(&[SEEN], Vouching::Nobody);
        none(&[SEEN], Vouching::Guest);
        // A root on the same LAN, a family that has no such boxes, and this node's own address.
        none(&["10.0.0.9:5000"], Vouching::Own);
        none(&["100.64.0.9:5000"], Vouching::Own);
        none(&["127.0.0.1:5000"], Vouching::Own);
        none(&["[2001:db8::9]:5000"], Vouching::Own);
        none(&[OWN], Vouching::Own);
        // One of a third party in front changes nothing.
        let (_, host) = roles(fixed, varying, &["203.0.113.66:4000", SEEN], Vouching::Last);
        assert_eq!(host.map(|host| host.to_string()).as_deref(), Some("203.0.113.9"));
    }

    const OWN: &str = "198.51.100.7:4000";

    /// Who has seen the node at the addresses that it names.
    #[derive(Clone, Copy)]
    enum Vouching {
        Own,
        Guest,
        Nobody,
        /// A root of this node's own, at the last of them.
        Last,
    }

    /// What a node would do as the hard side, and as the easy one.
    fn roles(
        own: Mapping,
        theirs: Mapping,
        named: &[&str],
        vouching: Vouching,
    ) -> (Option<Result<SocketAddr, NotTried>>, Option<IpAddr>) {
        let now = instant();
        let (mut here, mut there) = (contact(&[OWN]), contact(named));
        (here.nat.mapping, there.nat.mapping) = (own, theirs);
        let all: Vec<_> = there.candidates().iter().map(|candidate| candidate.address.ip()).collect();
        let vouched = match vouching {
            Vouching::Own => Vouched { by_own: all, by_guests: Vec::new() },
            Vouching::Guest => Vouched { by_own: Vec::new(), by_guests: all },
            Vouching::Nobody => Vouched::default(),
            Vouching::Last => Vouched { by_own: all[all.len() - 1..].to_vec(), by_guests: Vec::new() },
        };
        let mut punching = Punching::new(now);
        punching.begin(&here, Said { contact: &there, vouched }, now, now, || Some([1; 8]));
        (punching.birthday_target(&here), punching.birthday_host(&here))
    }
}
