//! Conditions for a search by many ports between two nodes, and the result of the last one. The search itself
//! is [`Birthday`](crate::contact::Birthday).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Punching, Word};
use crate::contact::{Candidate, CandidateKind, Contact, DirectAttempt, DirectOutcome, Filtering, NotTried};

/// Time after which a round of few ports, which may find a direct path, has failed.
const FEW_PORTS_DURATION: Duration = Duration::from_secs(2);

/// The same, at least a round trip of the relayed path, if the other side's filter is unknown. If the filter
/// admits all ports of an address, the first packets that cross open a path, and are answered sooner than
/// relayed ones.
const AFTER_UNKNOWN: Duration = Duration::from_millis(200);

/// Pause of the side that begins, and the shorter one after a refusal.
const ASKING_PAUSE: Duration = Duration::from_secs(600);
const REFUSED_PAUSE: Duration = Duration::from_secs(120);

/// Pause of the other side.
// Shorter, so that it does not refuse a node that keeps the pause above.
const ANSWERING_PAUSE: Duration = Duration::from_secs(300);

/// Record of the searches by many ports for one node.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Start of the round of few ports, and its minimum duration.
    round: Option<(Instant, Duration)>,
    /// Time when the round counts as failed.
    due: Option<Instant>,
    /// Earliest time of the next search by this node.
    own_after: Option<Instant>,
    /// Earliest time at which this node joins another search of the other node.
    asked_after: Option<Instant>,
    last: Option<DirectAttempt>,
}

impl Record {
    /// Records a round of few ports that begins at `start` and has `time`.
    pub(super) fn note_round(&mut self, start: Instant, time: Duration) {
        (self.round, self.due) = (Some((start, time)), Some(start + time));
    }

    /// Records the end of the search.
    pub(super) fn note_end(&mut self) {
        (self.round, self.due) = (None, None);
    }

    /// Allows a new search at once, because this node's addresses have changed.
    pub(super) fn restart(&mut self) {
        self.own_after = None;
    }

    /// Returns true if the round has failed by now. `rtt` is the relayed path's round-trip time.
    pub(super) fn take_due(&mut self, rtt: Duration, now: Instant) -> bool {
        let Some((start, time)) = self.round else { return false };
        // Few ports were known to be hopeless before the round began, so there is nothing to wait for.
        let time = if time.is_zero() { time } else { time.max(rtt.min(FEW_PORTS_DURATION)) };
        let is_due = now >= start + time;
        (self.round, self.due) =
            if is_due { (None, None) } else { (self.round, self.due.map(|_| start + time)) };
        is_due
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due
    }

    /// Returns true if a search has begun and not ended.
    pub(super) fn is_running(&self) -> bool {
        self.last.is_some_and(|last| last.outcome == DirectOutcome::Trying)
    }

    pub(super) fn attempt(&self) -> Option<DirectAttempt> {
        self.last
    }
}

impl Punching {
    /// Returns the address to which this node has to send from many ports to reach the other one. Returns
    /// `None` if this node's NAT, as far as known, does not require that, or the other one's makes it
    /// hopeless.
    pub(crate) fn birthday_target(&self, own: &Contact) -> Option<Result<SocketAddr, NotTried>> {
        let theirs = self.theirs.as_ref()?;
        let mut is_hopeless = false;
        for is_ipv4 in [true, false] {
            let Some(there) = self.vouched_for(own, theirs, is_ipv4) else { continue };
            let (here, other) = (own.mapping(is_ipv4), theirs.mapping(is_ipv4));
            if here.varies() && other.is_fixed() {
                // The side with the unpredictable mappings begins, because it has to open its sockets before
                // the other one guesses.
                return Some(Ok(there.address));
            }
            // The other node begins by IPv4. If this one began by IPv6, both would be refused.
            if here.is_fixed() && other.varies() {
                return None;
            }
            is_hopeless |= here.varies() && other.varies();
        }
        is_hopeless.then_some(Err(NotTried::BothUnpredictable))
    }

    /// Returns how long a round of few ports has before many are tried.
    pub(super) fn birthday_wait(&self, own: &Contact) -> Duration {
        let Some(Ok(to)) = self.birthday_target(own) else { return FEW_PORTS_DURATION };
        // The known filter and port delta describe IPv4.
        let nat = self.theirs.as_ref().map(|theirs| theirs.nat).unwrap_or_default();
        let filtering = if to.is_ipv4() { nat.filtering } else { Filtering::Unknown };
        // An answer may come by IPv6 or on one LAN, for example.
        let may_answer_elsewhere = self.targets.iter().any(|target| target.address.ip() != to.ip());
        match filtering {
            // The other side tries the ports that this side's box is expected to use.
            _ if to.is_ipv4() && own.nat.port_delta != 0 => FEW_PORTS_DURATION,
            Filtering::AddressAndPortDependent if may_answer_elsewhere => AFTER_UNKNOWN,
            Filtering::AddressAndPortDependent => Duration::ZERO,
            Filtering::Unknown => AFTER_UNKNOWN,
            Filtering::EndpointIndependent | Filtering::AddressDependent => FEW_PORTS_DURATION,
        }
    }

    /// Returns the address, of the requested family, whose ports this node sends to while the other one sends
    /// from many. Returns `None` if that is forbidden or useless.
    pub(crate) fn birthday_host(&self, own: &Contact, is_ipv4: bool) -> Option<IpAddr> {
        let theirs = self.theirs.as_ref()?;
        let is_of_use = own.mapping(is_ipv4).is_fixed() && theirs.mapping(is_ipv4).varies();
        let there = self.vouched_for(own, theirs, is_ipv4).filter(|_| is_of_use)?;
        Some(there.address.ip())
    }

    /// Returns the other node's address, of a family that this node has too, at which a root this node was
    /// given sees it. Excludes this node's own address.
    fn vouched_for(&self, own: &Contact, theirs: &Contact, is_ipv4: bool) -> Option<Candidate> {
        let is_it = |candidate: &&Candidate| {
            let ip = candidate.address.ip();
            let is_outer = candidate.kind == CandidateKind::Mapped && candidate.is_global();
            let is_there = is_outer && ip.is_ipv4() == is_ipv4 && own.has_family(is_ipv4);
            is_there && self.vouched.word_on(&ip) == Word::Root && own.public().all(|own| own != ip)
        };
        theirs.candidates().iter().find(is_it).copied()
    }

    /// Returns true if this node may begin a search by many ports now.
    pub(crate) fn may_begin_birthday(&self, now: Instant) -> bool {
        self.birthday.own_after.is_none_or(|next| now >= next)
    }

    /// Returns true if this node may join a search that the other node begins now.
    pub(crate) fn may_join_birthday(&self, now: Instant) -> bool {
        self.birthday.asked_after.is_none_or(|next| now >= next)
    }

    /// Records the beginning of a search by many ports, by this node or the other.
    pub(crate) fn note_birthday(&mut self, is_own: bool, now: Instant) {
        if is_own {
            // Long, because a search fills hundreds of mappings at the NAT box, where they stay for minutes.
            self.birthday.own_after = Some(now + ASKING_PAUSE);
        } else {
            self.birthday.asked_after = Some(now + ANSWERING_PAUSE);
        }
    }

    /// Records the progress of the last search by many ports. The address is the other node's, with port 0 if
    /// many ports are sent to.
    pub(crate) fn set_birthday(
        &mut self,
        address: SocketAddr,
        sent: u32,
        outcome: DirectOutcome,
        now: Instant,
    ) {
        if outcome == DirectOutcome::NotTried(NotTried::Refused) {
            self.birthday.own_after = Some(now + REFUSED_PAUSE);
        }
        if outcome != DirectOutcome::Trying {
            self.tcp.note_search_end(now);
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

    /// Records why this node did not begin a search by many ports.
    pub(crate) fn refuse_birthday(&mut self, own: &Contact, why: NotTried, now: Instant) {
        let there = self.theirs.as_ref().and_then(|theirs| {
            [true, false].into_iter().find_map(|is_ipv4| self.vouched_for(own, theirs, is_ipv4))
        });
        if let Some(there) = there {
            self.set_birthday(there.address, 0, DirectOutcome::NotTried(why), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contact::tests::contact;
    use crate::contact::{Mapping, Nat, Said, Vouched};
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
            // The same by IPv6, as the only family.
            let there: SocketAddr = SEEN6.parse().unwrap();
            assert_eq!(roles(varying, NoNat, &[SEEN6], Vouching::Own), (Some(Ok(there)), None));
            assert_eq!(roles(NoNat, varying, &[SEEN6], Vouching::Own), (None, Some(there.ip())));
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
        // A root on the same LAN, and this node's own address.
        none(&["10.0.0.9:5000"], Vouching::Own);
        none(&["100.64.0.9:5000"], Vouching::Own);
        none(&["127.0.0.1:5000"], Vouching::Own);
        none(&["[fd00::9]:5000"], Vouching::Own);
        none(&[OWN], Vouching::Own);
        none(&[OWN6], Vouching::Own);
        none(&[SEEN6], Vouching::Nobody);
        none(&[SEEN6], Vouching::Guest);
        // A third party's address in front changes nothing.
        let (_, host) = roles(fixed, varying, &["203.0.113.66:4000", SEEN], Vouching::Last);
        assert_eq!(host.map(|host| host.to_string()).as_deref(), Some("203.0.113.9"));
    }

    // Both nodes have both families, and the other one is vouched for at both addresses.
    #[test]
    fn the_family_is_one_in_which_both_know_what_to_do_and_ipv4_if_there_are_two() {
        use Mapping::{AddressDependent as Hard, NoNat as Easy, Unknown};
        let (v4, v6): (SocketAddr, SocketAddr) = (SEEN.parse().unwrap(), SEEN6.parse().unwrap());
        let both = |own: [Mapping; 2], theirs: [Mapping; 2]| {
            let [mut here, mut there] = [contact(&[OWN, OWN6]), contact(&[SEEN, SEEN6])];
            for (contact, [mapping, mapping_ipv6]) in [(&mut here, own), (&mut there, theirs)] {
                contact.nat = Nat { mapping, mapping_ipv6, ..Nat::default() };
            }
            let by_own = there.public().collect();
            let punching = told(&here, &there, Vouched { by_own, by_guests: Vec::new() });
            let hosts = [true, false].map(|is_ipv4| punching.birthday_host(&here, is_ipv4).is_some());
            (punching.birthday_target(&here), hosts)
        };
        assert_eq!(both([Hard, Hard], [Easy, Easy]), (Some(Ok(v4)), [false; 2]));
        assert_eq!(both([Hard, Hard], [Hard, Easy]), (Some(Ok(v6)), [false; 2]));
        assert_eq!(both([Unknown, Hard], [Easy, Easy]), (Some(Ok(v6)), [false; 2]));
        assert_eq!(both([Easy, Easy], [Hard, Hard]), (None, [true; 2]));
        assert_eq!(both([Hard, Easy], [Hard, Hard]), (None, [false, true]), "the other one begins");
        assert_eq!(both([Hard; 2], [Hard; 2]), (Some(Err(NotTried::BothUnpredictable)), [false; 2]));
        // Either could begin, so the one that has to by IPv4 does.
        assert_eq!(both([Hard, Easy], [Easy, Hard]), (Some(Ok(v4)), [false, true]));
        assert_eq!(both([Easy, Hard], [Hard, Easy]), (None, [true, false]));
        // Knowledge about IPv4 does not apply to IPv6.
        assert_eq!(both([Hard, Unknown], [Unknown, Easy]), (None, [false; 2]));
    }

    // Checks when the hard side's first question is due after the start of a round.
    #[test]
    fn what_few_ports_cannot_lead_to_is_not_waited_for() {
        use Filtering::{AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown};
        let ms = Duration::from_millis;
        for (filtering, port_delta, rtt, wait) in [
            (AddressAndPortDependent, 0, 300, 0),
            // The other side tries the predicted next ports.
            (AddressAndPortDependent, 1, 300, 2000),
            (Unknown, 1, 300, 2000),
            (Unknown, 0, 50, 200),
            (Unknown, 0, 300, 300),
            (Unknown, 0, 5000, 2000),
            // Few ports must find a path; if they do not, the cause is a different one.
            (AddressDependent, 0, 50, 2000),
            (EndpointIndependent, 0, 50, 2000),
        ] {
            let (mut here, mut there) = (contact(&[OWN]), contact(&[SEEN]));
            here.nat = Nat { mapping: Mapping::AddressAndPortDependent, port_delta, ..Nat::default() };
            there.nat = Nat { mapping: Mapping::EndpointIndependent, filtering, ..Nat::default() };
            let by_own = there.public().collect();
            let mut punching = told(&here, &there, Vouched { by_own, by_guests: Vec::new() });
            let begin = punching.began().expect("a round");
            let due = (0..5000).step_by(10).map(ms).find(|after| {
                let is_due = punching.birthday.take_due(ms(rtt), begin + *after);
                assert!(is_due || punching.birthday.next().is_some_and(|next| next > begin + *after));
                is_due
            });
            assert_eq!(due, Some(ms(wait)), "{filtering:?} {port_delta} {rtt}");
            assert_eq!(punching.birthday.next(), None);
        }
    }

    #[test]
    fn addresses_that_may_answer_by_themselves_are_waited_for() {
        let (mut here, mut there) = (contact(&[OWN, OWN6]), contact(&[SEEN, SEEN6]));
        here.nat = Nat { mapping: Mapping::AddressAndPortDependent, ..Nat::default() };
        let filtering = Filtering::AddressAndPortDependent;
        there.nat = Nat { mapping: Mapping::EndpointIndependent, filtering, ..Nat::default() };
        let by_own = there.public().collect();
        let punching = told(&here, &there, Vouched { by_own, by_guests: Vec::new() });
        assert_eq!(punching.birthday_wait(&here), AFTER_UNKNOWN);
    }

    #[test]
    fn the_relay_is_spared_while_many_ports_are_tried_and_no_longer_than_that() {
        let (here, there) = (contact(&[OWN]), contact(&[SEEN]));
        let mut punching = told(&here, &there, Vouched::default());
        let begin = punching.began().expect("a round");
        let seconds = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(punching.hold(seconds(1)), Some(seconds(2)));
        assert_eq!(punching.hold(seconds(2)), None);
        let to = SEEN.parse().unwrap();
        punching.set_birthday(to, 0, DirectOutcome::Trying, begin);
        assert_eq!(punching.hold(seconds(2)), Some(seconds(5)));
        assert_eq!(punching.hold(seconds(5)), None, "it takes too long");
        punching.set_birthday(to, 256, DirectOutcome::Silent, seconds(3));
        assert_eq!(punching.hold(seconds(3)), None);
    }

    const SEEN6: &str = "[2001:db8::9]:5000";
    const OWN: &str = "198.51.100.7:4000";
    const OWN6: &str = "[2001:db8::7]:4000";

    /// Sources that have seen the node at the addresses that it names.
    #[derive(Clone, Copy)]
    enum Vouching {
        Own,
        Guest,
        Nobody,
        /// A root this node was given, at the last of the addresses.
        Last,
    }

    /// Returns what a node would do as the hard side, and as the easy one.
    fn roles(
        own: Mapping,
        theirs: Mapping,
        named: &[&str],
        vouching: Vouching,
    ) -> (Option<Result<SocketAddr, NotTried>>, Option<IpAddr>) {
        let is_ipv4 = !named.iter().all(|one| one.starts_with('['));
        let (mut here, mut there) = (contact(&[if is_ipv4 { OWN } else { OWN6 }]), contact(named));
        (here.nat.mapping, there.nat.mapping) = (own, theirs);
        let all: Vec<_> = there.candidates().iter().map(|candidate| candidate.address.ip()).collect();
        let vouched = match vouching {
            Vouching::Own => Vouched { by_own: all, by_guests: Vec::new() },
            Vouching::Guest => Vouched { by_own: Vec::new(), by_guests: all },
            Vouching::Nobody => Vouched::default(),
            Vouching::Last => Vouched { by_own: all[all.len() - 1..].to_vec(), by_guests: Vec::new() },
        };
        let punching = told(&here, &there, vouched);
        (punching.birthday_target(&here), punching.birthday_host(&here, is_ipv4))
    }

    fn told(own: &Contact, theirs: &Contact, vouched: Vouched) -> Punching {
        let now = instant();
        let mut punching = Punching::new(now);
        punching.begin(own, Said { contact: theirs, vouched }, now, now, || Some([1; 8]));
        punching
    }
}
