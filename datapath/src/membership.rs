//! Groups that peers do not want.
//!
//! Packets to a group go to all peers until they opt out. A peer that gets one without a member socket
//! answers that it has left; a peer that joins reports it to all others. Each report expires after a while
//! and with a new session of the peer, so that a lost report does not exclude a member.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use peersock_overlay::{Peer, Sender};
use peersock_stack::{Batch, InterfaceId, MembershipChange, membership_report, read_membership_report};

use crate::Datapath;
use crate::socket::PeerLink;
use peersock_primitives::sync;

/// Time for which a peer gets no packets to a group that it does not want: Group Membership Interval (RFC
/// 3376 8.4).
const UNWANTED_LIFETIME: Duration = Duration::from_secs(260);
/// Limit of unwanted groups remembered per peer; packets to further groups are sent to it.
const MAX_UNWANTED: usize = 256;
/// Number of reports of a join, and the interval between them (RFC 3376 8.1, 8.11).
const REPORTS: u8 = 3;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between two answers to a peer about the same unwanted group, and the limit of groups in that
/// time.
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);
const MAX_ANSWERS: usize = 16;

/// Reports of one peer, and the answers sent to it last.
#[derive(Debug, Default)]
pub(super) struct Reported(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// Groups that the peer does not want, each with the time at which the entry expires.
    unwanted: Vec<(IpAddr, Instant)>,
    /// Groups that the peer joined in the last second, with the time.
    joined: Vec<(IpAddr, Instant)>,
    /// Groups that the peer was told not to send to in the last second, with the time.
    answered: Vec<(IpAddr, Instant)>,
}

impl Reported {
    /// Returns true if the peer wants packets to `group`, as far as is known.
    pub(super) fn wants(&self, now: Instant, group: IpAddr) -> bool {
        !self.lock().unwanted.iter().any(|(known, until)| *known == group && now < *until)
    }

    fn note(&self, now: Instant, group: IpAddr, joined: bool) {
        let mut said = self.lock();
        said.joined.retain(|(_, at)| now.saturating_duration_since(*at) < ANSWER_INTERVAL);
        if joined {
            said.unwanted.retain(|(known, _)| *known != group);
            // A peer can report any number of groups.
            if said.joined.len() < MAX_UNWANTED {
                said.joined.push((group, now));
            }
            return;
        }
        // A leave report may belong to a packet from before the join and arrive late. A peer that has really
        // left reports again.
        if said.joined.iter().any(|(known, _)| *known == group) {
            return;
        }
        said.unwanted.retain(|(known, until)| *known != group && now < *until);
        if said.unwanted.len() < MAX_UNWANTED {
            said.unwanted.push((group, now + UNWANTED_LIFETIME));
        }
    }

    /// Returns true if the peer should be told that `group` is not wanted, and records it. A peer gets a
    /// bounded number of reports per second, however many groups it sends to.
    fn may_answer(&self, now: Instant, group: IpAddr) -> bool {
        let answered = &mut self.lock().answered;
        answered.retain(|(_, at)| now.saturating_duration_since(*at) < ANSWER_INTERVAL);
        let may = answered.len() < MAX_ANSWERS && answered.iter().all(|(known, _)| *known != group);
        if may {
            answered.push((group, now));
        }
        may
    }

    /// Forgets all reports, because the peer may be another instance.
    pub(super) fn forget(&self) {
        *self.lock() = Said::default();
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        sync::lock(&self.0)
    }
}

/// Recently joined groups, whose reports are repeated.
#[derive(Default)]
pub(super) struct Repeats(Mutex<BTreeMap<(InterfaceId, IpAddr), (Instant, u8)>>);

impl Repeats {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.lock().values().map(|(at, _)| *at).min()
    }

    /// Takes the groups whose reports are due.
    fn take_due(&self, now: Instant) -> Vec<(InterfaceId, IpAddr)> {
        let mut due = Vec::new();
        self.lock().retain(|key, (at, left)| {
            if *at > now {
                return true;
            }
            due.push(*key);
            (*at, *left) = (now + REPORT_INTERVAL, *left - 1);
            *left > 0
        });
        due
    }

    fn note(&self, now: Instant, change: &MembershipChange) {
        let key = (change.interface, change.group);
        match change.joined {
            // The first report leaves at once; the others follow because reports are not acknowledged.
            true => drop(self.lock().insert(key, (now + REPORT_INTERVAL, REPORTS - 1))),
            false => drop(self.lock().remove(&key)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(InterfaceId, IpAddr), (Instant, u8)>> {
        sync::lock(&self.0)
    }
}

impl Datapath {
    /// Reports a join or leave to the peers that have sessions. The others get packets to the group anyway,
    /// or ask.
    pub(super) fn report_membership(&self, now: Instant, change: &MembershipChange, batch: &mut Batch) {
        self.repeats.note(now, change);
        self.send_reports(now, change, batch);
    }

    /// Repeats the due reports.
    pub(super) fn repeat_reports(&self, now: Instant, batch: &mut Batch) {
        for (interface, group) in self.repeats.take_due(now) {
            self.send_reports(now, &MembershipChange { interface, group, joined: true }, batch);
        }
    }

    fn send_reports(&self, now: Instant, change: &MembershipChange, batch: &mut Batch) {
        let Some(report) = self.membership_report(change) else { return };
        for peer in self.peers_on(change.interface).iter() {
            // No peer answers a report, so it must not start the timer for unanswered data.
            if let Some(sender) = peer.sender().map(Sender::unasked) {
                self.send_sealed(now, change.interface, &sender, &mut report.clone(), batch);
            }
        }
    }

    /// Handles a packet from a peer to a group: notes its reports, and answers if this node does not want the
    /// group.
    pub(super) fn note_group_packet(
        &self,
        now: Instant,
        interface: InterfaceId,
        peer: &Peer,
        (group, packet): (IpAddr, &[u8]),
        batch: &mut Batch,
    ) {
        if let Some(groups) = read_membership_report(packet) {
            let link = PeerLink::of(peer);
            groups.into_iter().for_each(|(group, joined)| link.reported.note(now, group, joined));
        } else if !self.stack.is_member(interface, group)
            && PeerLink::of(peer).reported.may_answer(now, group)
            && let Some(sender) = peer.sender().map(Sender::unasked)
            && let Some(mut report) =
                self.membership_report(&MembershipChange { interface, group, joined: false })
        {
            self.send_sealed(now, interface, &sender, &mut report, batch);
        }
    }

    /// Builds the report of a change, from the node's first address of the family.
    fn membership_report(&self, change: &MembershipChange) -> Option<Vec<u8>> {
        let networks = self.networks();
        let network = networks.iter().find(|network| network.interface == change.interface)?;
        let is_v4 = change.group.is_ipv4();
        let source = network.addresses.iter().find(|address| address.is_ipv4() == is_v4)?;
        membership_report(*source, change.group, change.joined)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::testing::instant;

    const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));

    #[test]
    fn a_group_that_a_peer_has_left_is_not_for_it_until_it_joins_or_time_has_passed() {
        let (reported, now) = (Reported::default(), instant());
        assert!(reported.wants(now, GROUP));
        reported.note(now, GROUP, false);
        assert!(!reported.wants(now, GROUP));
        assert!(
            reported.wants(now + UNWANTED_LIFETIME, GROUP),
            "a report that was lost does not keep it out for ever"
        );
        reported.note(now, GROUP, true);
        assert!(reported.wants(now, GROUP));
        reported.note(now, GROUP, false);
        reported.forget();
        assert!(reported.wants(now, GROUP));
    }

    #[test]
    fn an_answer_that_joining_has_overtaken_does_not_keep_a_member_out() {
        let (reported, now) = (Reported::default(), instant());
        reported.note(now, GROUP, true);
        reported.note(now, GROUP, false);
        assert!(reported.wants(now, GROUP));
        reported.note(now + ANSWER_INTERVAL, GROUP, false);
        assert!(!reported.wants(now + ANSWER_INTERVAL, GROUP), "it has left since");
    }

    #[test]
    fn a_peer_fills_a_bounded_place() {
        let (reported, now) = (Reported::default(), instant());
        let group = |low: usize| IpAddr::from(Ipv4Addr::from_bits(0xef00_0000 + low as u32));
        (0..2 * MAX_UNWANTED).for_each(|low| reported.note(now, group(low), false));
        (0..2 * MAX_UNWANTED).for_each(|low| reported.note(now, group(3 * MAX_UNWANTED + low), true));
        let said = reported.lock();
        assert_eq!((said.unwanted.len(), said.joined.len()), (MAX_UNWANTED, MAX_UNWANTED));
    }

    #[test]
    fn a_peer_is_told_of_a_group_once_a_second() {
        let (reported, now) = (Reported::default(), instant());
        assert!(reported.may_answer(now, GROUP));
        assert!(!reported.may_answer(now, GROUP));
        assert!(reported.may_answer(now + ANSWER_INTERVAL, GROUP));
    }

    #[test]
    fn however_many_groups_it_sends_to_a_peer_gets_few_reports() {
        let (reported, now) = (Reported::default(), instant());
        let group = |low: u32| IpAddr::from(Ipv4Addr::from_bits(0xef00_0000 + low));
        let told =
            |now, groups: u32| (0..1000).filter(|at| reported.may_answer(now, group(at % groups))).count();
        assert_eq!(told(now, 2), 2);
        assert_eq!(told(now + ANSWER_INTERVAL / 2, 1000), MAX_ANSWERS - 2);
        assert_eq!(told(now + 2 * ANSWER_INTERVAL, 1000), MAX_ANSWERS);
    }

    #[test]
    fn joining_is_reported_three_times_in_all_unless_it_is_undone() {
        let (repeats, now) = (Repeats::default(), instant());
        let mut change = MembershipChange { interface: InterfaceId(1), group: GROUP, joined: true };
        repeats.note(now, &change);
        assert_eq!(repeats.take_due(now), []);
        for second in 1..u32::from(REPORTS) {
            let at = now + second * REPORT_INTERVAL;
            assert_eq!(repeats.next_deadline(), Some(at));
            assert_eq!(repeats.take_due(at), [(InterfaceId(1), GROUP)]);
        }
        assert_eq!(repeats.next_deadline(), None);
        repeats.note(now, &change);
        change.joined = false;
        repeats.note(now, &change);
        assert_eq!(repeats.next_deadline(), None);
    }
}
