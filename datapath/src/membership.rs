//! Which peers do not want which groups.
//!
//! Packets to a group go to all peers until they say otherwise: who gets one that none of its sockets is a
//! member for answers that it has left, and who joins says so to everybody. What was said is forgotten after
//! a while, and when the peer's session is made anew, so that a report that gets lost does not keep a member
//! out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use peersock_overlay::{Peer, Sender};
use peersock_stack::{Batch, InterfaceId, MembershipChange, membership_report, read_membership_report};

use crate::Datapath;
use crate::socket::PeerLink;
use peersock_primitives::sync;

/// How long a peer is not sent packets to a group that it does not want: Group Membership Interval (RFC 3376
/// 8.4).
const FORGET: Duration = Duration::from_secs(260);
/// Groups remembered for each peer; it gets the packets to others.
const MOST_UNWANTED: usize = 256;
/// How often joining is reported, and with what time between (RFC 3376 8.1, 8.11).
const REPORTS: u8 = 3;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How soon a peer is told again that the same group is not wanted, and of how many groups it is told
/// meanwhile.
const ANSWER_AGAIN: Duration = Duration::from_secs(1);
const MOST_ANSWERS: usize = 16;

/// What one peer has said, and was told last.
#[derive(Debug, Default)]
pub(super) struct Reported(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// The groups that it is no member of, and until when that is believed.
    unwanted: Vec<(IpAddr, Instant)>,
    /// The groups that it has joined, and when, of the last second.
    joined: Vec<(IpAddr, Instant)>,
    /// The groups that it was told not to send to, and when, of the last second.
    answered: Vec<(IpAddr, Instant)>,
}

impl Reported {
    /// Whether packets to `group` are for the peer, as far as is known.
    pub(super) fn wants(&self, now: Instant, group: IpAddr) -> bool {
        !self.lock().unwanted.iter().any(|(known, until)| *known == group && now < *until)
    }

    fn note(&self, now: Instant, group: IpAddr, joined: bool) {
        let mut said = self.lock();
        said.joined.retain(|(_, at)| now.saturating_duration_since(*at) < ANSWER_AGAIN);
        if joined {
            said.unwanted.retain(|(known, _)| *known != group);
            if said.joined.len() < MOST_UNWANTED {
                said.joined.push((group, now));
            }
            return;
        }
        // The answer to a packet from before it joined may have been overtaken on its way. Who has really
        // left answers again.
        if said.joined.iter().any(|(known, _)| *known == group) {
            return;
        }
        said.unwanted.retain(|(known, until)| *known != group && now < *until);
        if said.unwanted.len() < MOST_UNWANTED {
            said.unwanted.push((group, now + FORGET));
        }
    }

    /// Whether to tell it that `group` is not wanted, which is remembered. However many groups a peer sends
    /// to, it gets a bounded number of reports a second.
    fn may_answer(&self, now: Instant, group: IpAddr) -> bool {
        let answered = &mut self.lock().answered;
        answered.retain(|(_, at)| now.saturating_duration_since(*at) < ANSWER_AGAIN);
        let may = answered.len() < MOST_ANSWERS && answered.iter().all(|(known, _)| *known != group);
        if may {
            answered.push((group, now));
        }
        may
    }

    /// It is another instance of the peer, perhaps.
    pub(super) fn forget(&self) {
        *self.lock() = Said::default();
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        sync::lock(&self.0)
    }
}

/// The groups joined not long ago, which are reported again.
#[derive(Default)]
pub(super) struct Repeats(Mutex<BTreeMap<(InterfaceId, IpAddr), (Instant, u8)>>);

impl Repeats {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.lock().values().map(|(at, _)| *at).min()
    }

    /// The groups to be reported now.
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
            true => drop(self.lock().insert(key, (now + REPORT_INTERVAL, REPORTS - 1))),
            false => drop(self.lock().remove(&key)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(InterfaceId, IpAddr), (Instant, u8)>> {
        sync::lock(&self.0)
    }
}

impl Datapath {
    /// Tells the peers that have sessions of a group that the node has joined or left. The others get packets
    /// to it anyway, or ask.
    pub(super) fn report_membership(&self, now: Instant, change: &MembershipChange, batch: &mut Batch) {
        self.repeats.note(now, change);
        self.send_reports(now, change, batch);
    }

    /// Reports again what is due.
    pub(super) fn repeat_reports(&self, now: Instant, batch: &mut Batch) {
        for (interface, group) in self.repeats.take_due(now) {
            self.send_reports(now, &MembershipChange { interface, group, joined: true }, batch);
        }
    }

    fn send_reports(&self, now: Instant, change: &MembershipChange, batch: &mut Batch) {
        let Some(report) = self.membership_report(change) else { return };
        for peer in self.peers_on(change.interface).iter() {
            if let Some(sender) = peer.sender().map(Sender::unasked) {
                self.send_sealed(now, change.interface, &sender, &mut report.clone(), batch);
            }
        }
    }

    /// Takes in what a peer has sent to a group: notes its reports, and tells it of groups not wanted here.
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

    /// The report of a change, from the node's first address of the family.
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
        assert!(reported.wants(now + FORGET, GROUP), "a report that was lost does not keep it out for ever");
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
        reported.note(now + ANSWER_AGAIN, GROUP, false);
        assert!(!reported.wants(now + ANSWER_AGAIN, GROUP), "it has left since");
    }

    #[test]
    fn a_peer_fills_a_bounded_place() {
        let (reported, now) = (Reported::default(), instant());
        let group = |low: usize| IpAddr::from(Ipv4Addr::from_bits(0xef00_0000 + low as u32));
        (0..2 * MOST_UNWANTED).for_each(|low| reported.note(now, group(low), false));
        (0..2 * MOST_UNWANTED).for_each(|low| reported.note(now, group(3 * MOST_UNWANTED + low), true));
        let said = reported.lock();
        assert_eq!((said.unwanted.len(), said.joined.len()), (MOST_UNWANTED, MOST_UNWANTED));
    }

    #[test]
    fn a_peer_is_told_of_a_group_once_a_second() {
        let (reported, now) = (Reported::default(), instant());
        assert!(reported.may_answer(now, GROUP));
        assert!(!reported.may_answer(now, GROUP));
        assert!(reported.may_answer(now + ANSWER_AGAIN, GROUP));
    }

    #[test]
    fn however_many_groups_it_sends_to_a_peer_gets_few_reports() {
        let (reported, now) = (Reported::default(), instant());
        let group = |low: u32| IpAddr::from(Ipv4Addr::from_bits(0xef00_0000 + low));
        let told =
            |now, groups: u32| (0..1000).filter(|at| reported.may_answer(now, group(at % groups))).count();
        assert_eq!(told(now, 2), 2);
        assert_eq!(told(now + ANSWER_AGAIN / 2, 1000), MOST_ANSWERS - 2);
        assert_eq!(told(now + 2 * ANSWER_AGAIN, 1000), MOST_ANSWERS);
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
