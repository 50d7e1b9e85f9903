//! Times, addresses and results of attempts by two nodes to reach each other by TCP.
//!
//! TCP is the last resort, because lost data delays the data behind it. So it is tried after a round by UDP
//! has found no direct path, and at once if this node reaches the relay by a stream, which means that its UDP
//! does not pass. Both sides exchange their addresses for TCP, listen, and connect to each other at the same
//! moment. Each side's SYN opens its own NAT box for the other's, and the two connections are one (RFC 9293,
//! 3.5; RFC 5382, REQ-2).
//!
//! A node may name a victim's address. Several connections are tried only if a root this node was given has
//! seen the node there; other addresses get one, from a budget for all nodes together. Ports below 1024
//! belong to services, and get none.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::bounds::Allowances;
use super::{Asking, MAX_ASKED, MIN_REPEAT_INTERVAL, Punching, Said, Word};
use crate::contact::{Candidate, Contact, DirectAttempt, DirectOutcome, HolePunch, NotTried, TcpTarget};

/// Time after which a round by UDP without a direct path has failed.
const UDP_ROUND_DURATION: Duration = Duration::from_secs(2);

/// Wait of the node with the greater ID, if both would ask at the same moment.
const GREATER_ID_WAIT: Duration = Duration::from_millis(300);

/// Pause of a node that has asked, and the longer one after a refusal.
const ASKING_PAUSE: Duration = Duration::from_secs(25);
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Pause of the other side.
// Shorter, so that it does not refuse a node that keeps the pause above.
const ANSWERING_PAUSE: Duration = Duration::from_secs(20);

/// Maximum number of addresses of one node that are tried, and of unvouched ones among them.
const MAX_TARGETS: usize = 6;
const MAX_UNVOUCHED: usize = 2;

/// Maximum number of connections to one address: each refusal is followed by another try.
const MAX_CONNECTS_PER_ADDRESS: u32 = 6;

/// First port that is tried; lower ones belong to services.
const FIRST_PORT: u16 = 1024;

/// Record of the search by TCP for one node.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Time when the round by UDP counts as failed.
    due: Option<Instant>,
    /// Set after that round while a search by many ports runs, whose end the search by TCP waits for.
    awaits_search: bool,
    /// True if this node's UDP is blocked, so that a round by UDP counts as failed at once.
    is_blocked: bool,
    /// True if this node has the greater ID.
    is_second: bool,
    asking: Option<Asking>,
    /// Last question of the other node that was answered.
    answered: Option<u32>,
    /// Earliest time of this node's next question.
    own_after: Option<Instant>,
    /// Earliest time at which this node joins another search of the other node.
    asked_after: Option<Instant>,
    /// End of the round by TCP.
    ends: Option<Instant>,
    attempts: Vec<DirectAttempt>,
}

/// Due step of the search by TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpDue {
    /// A search may be worth beginning.
    Begin,
    /// A question to the other node is due, with this id.
    Ask(u32),
}

impl Record {
    /// Records a round by UDP that begins at `start`.
    pub(super) fn note_round(&mut self, start: Instant) {
        // Without UDP the round cannot succeed, so TCP need not wait for its end.
        let wait = if self.is_blocked { Duration::ZERO } else { UDP_ROUND_DURATION };
        (self.due, self.awaits_search) = (Some(start + wait + self.turn()), false);
    }

    /// Records the end of a search by many ports. If it has found a path, [`Self::note_end`] follows and
    /// nothing more is due.
    pub(super) fn note_search_end(&mut self, now: Instant) {
        if std::mem::take(&mut self.awaits_search) {
            self.due = Some(now + self.turn());
        }
    }

    /// Records the end of the search.
    pub(super) fn note_end(&mut self) {
        (self.due, self.asking, self.awaits_search) = (None, None, false);
    }

    fn turn(&self) -> Duration {
        if self.is_second { GREATER_ID_WAIT } else { Duration::ZERO }
    }

    pub(super) fn take_due(&mut self, rtt: Duration, now: Instant) -> Option<TcpDue> {
        if self.ends.take_if(|ends| now >= *ends).is_some() {
            let open = self.attempts.iter_mut().filter(|one| one.outcome == DirectOutcome::Trying);
            open.for_each(|one| one.outcome = DirectOutcome::Silent);
        }
        if let Some(asking) = self.asking.as_mut().filter(|asking| now >= asking.next) {
            if asking.times < MAX_ASKED {
                // Two round trips at least, so that a slow answer is not taken for a lost one.
                asking.next = now + MIN_REPEAT_INTERVAL.max(rtt * 2) * 2u32.pow(asking.times);
                asking.times += 1;
                return Some(TcpDue::Ask(asking.id));
            }
            // The other node does not know this message, or nothing passes.
            self.asking = None;
        }
        self.due.take_if(|due| now >= *due).map(|_| TcpDue::Begin)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let asking = self.asking.map(|asking| asking.next);
        [self.due, asking, self.ends].into_iter().flatten().min()
    }

    pub(super) fn attempts(&self) -> Vec<DirectAttempt> {
        self.attempts.clone()
    }
}

impl Punching {
    /// Sets the conditions for beginning the search: whether this node's UDP is blocked, and whether the
    /// other node asks first.
    pub(crate) fn set_turn(&mut self, is_blocked: bool, is_second: bool) {
        (self.tcp.is_blocked, self.tcp.is_second) = (is_blocked, is_second);
    }

    /// Asks the node to take part in a search by TCP: now, or when the pause since the last question is over.
    /// `id` is random.
    pub(crate) fn ask_by_tcp(&mut self, id: u32, now: Instant) {
        if let Some(next) = self.tcp.own_after.filter(|next| now < *next) {
            self.tcp.due = Some(next);
        } else if self.tcp.asking.is_none() {
            self.tcp.own_after = Some(now + ASKING_PAUSE);
            self.tcp.asking = Some(Asking { id, next: now, first: None, times: 0 });
        }
    }

    /// Postpones the search by TCP while a search by many ports runs, which ends at `latest`, and usually
    /// long before.
    pub(crate) fn postpone_tcp(&mut self, latest: Instant) {
        // A TCP connection found first would end the other search, and datagrams are better. Each side knows
        // when the other search has failed.
        (self.tcp.due, self.tcp.awaits_search) = (Some(latest), true);
    }

    /// Returns true if the node was asked and has not answered.
    pub(crate) fn is_asking_by_tcp(&self) -> bool {
        self.tcp.asking.is_some()
    }

    /// Handles the node's answer to the question with this id. Returns false if that is not the open
    /// question.
    pub(crate) fn take_tcp_answer(&mut self, id: u32, has_agreed: bool, now: Instant) -> bool {
        // A question that was not sent yet has no answer, so this one must be old.
        let is_it = |asking: &mut Asking| asking.id == id && asking.times > 0;
        let is_answer = self.tcp.asking.take_if(is_it).is_some();
        if is_answer && !has_agreed {
            self.tcp.own_after = Some(now + REFUSED_PAUSE);
        }
        is_answer
    }

    /// Returns true if this question was agreed to before, so that its answer was lost.
    pub(crate) fn has_agreed_by_tcp(&self, id: u32) -> bool {
        self.tcp.answered == Some(id)
    }

    /// Returns true if this node may now join a search by TCP that the node asks for.
    pub(crate) fn may_join_by_tcp(&self, now: Instant) -> bool {
        self.tcp.asked_after.is_none_or(|next| now >= next)
    }

    /// Records that this node agrees to this question. It asks nothing itself then.
    pub(crate) fn join_by_tcp(&mut self, id: u32, now: Instant) {
        // A question of this node would begin a second round beside the one that it has agreed to.
        (self.tcp.answered, self.tcp.asking, self.tcp.due) = (Some(id), None, None);
        self.tcp.awaits_search = false;
        self.tcp.asked_after = Some(now + ANSWERING_PAUSE);
    }

    /// Returns the addresses to connect to in a round that lasts until `ends`. `own` and `said` are addresses
    /// for TCP.
    pub(crate) fn plan_by_tcp(
        &mut self,
        own: &Contact,
        said: &Said<'_>,
        allowances: &mut Allowances,
        ends: Instant,
        now: Instant,
    ) -> Vec<TcpTarget> {
        let vouched = &said.vouched;
        let (believed, doubted) = vouched.believed(own, said.contact);
        let plan = HolePunch::new(own, &believed, Duration::ZERO);
        let is_neighbour = vouched.is_neighbour(own);
        let (mut targets, mut attempts, mut unvouched) = (Vec::new(), Vec::new(), 0);
        for candidate in plan.targets() {
            let is_inside = is_neighbour && !candidate.is_global();
            let word = if is_inside { Word::Root } else { vouched.word_on(&candidate.address.ip()) };
            // A peer must not make this node connect to services of third parties.
            let is_service = candidate.address.port() < FIRST_PORT;
            let outcome = match () {
                () if is_service => DirectOutcome::NotTried(NotTried::Service),
                () if targets.len() >= MAX_TARGETS => DirectOutcome::NotTried(NotTried::TooMany),
                () if word != Word::Root && unvouched >= MAX_UNVOUCHED => {
                    DirectOutcome::NotTried(NotTried::Unvouched)
                }
                () if !allowances.take_tcp(word, now) => DirectOutcome::NotTried(NotTried::Unvouched),
                () => DirectOutcome::Trying,
            };
            // An address that no root has seen may be a victim's, so it gets one connection.
            let tries = if word == Word::Root { MAX_CONNECTS_PER_ADDRESS } else { 1 };
            let is_tried = outcome == DirectOutcome::Trying;
            if is_tried {
                unvouched += usize::from(word != Word::Root);
                targets.push(TcpTarget { address: candidate.address, tries });
            }
            let sent = if is_tried { tries } else { 0 };
            attempts.push(attempt(candidate, word, sent, outcome, now));
        }
        let doubted = doubted.iter().map(|candidate| (candidate, NotTried::OtherLan));
        let left_out = plan.left_out().iter().map(|(candidate, why)| (candidate, *why)).chain(doubted);
        attempts.extend(left_out.map(|(candidate, why)| {
            attempt(candidate, vouched.word_on(&candidate.address.ip()), 0, DirectOutcome::NotTried(why), now)
        }));
        self.tcp.attempts = attempts;
        self.tcp.ends = Some(ends);
        targets
    }

    /// Records that the node has answered on a connection to this address.
    pub(crate) fn note_tcp_answer(&mut self, remote: &SocketAddr) {
        let known = self.tcp.attempts.iter_mut().find(|one| one.address == *remote);
        if let Some(known) = known {
            known.outcome = DirectOutcome::Answered;
        }
    }
}

fn attempt(
    candidate: &Candidate,
    word: Word,
    sent: u32,
    outcome: DirectOutcome,
    now: Instant,
) -> DirectAttempt {
    DirectAttempt {
        address: candidate.address,
        kind: candidate.kind,
        predicted: false,
        by_many_ports: false,
        by_tcp: true,
        vouched: word != Word::Own,
        sent,
        tried: (sent > 0).then_some(now),
        outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contact::Vouched;
    use crate::contact::tests::contact;
    use crate::testing::instant;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn where_a_root_has_seen_the_node_several_connections_are_tried_and_one_elsewhere() {
        let tried = plan(&["203.0.113.9:5000", "198.51.100.66:6000"], &["203.0.113.9"]);
        assert_eq!(
            tried,
            [("203.0.113.9:5000".to_owned(), MAX_CONNECTS_PER_ADDRESS), ("198.51.100.66:6000".to_owned(), 1)]
        );
        let others = ["198.51.100.1:4000", "198.51.100.2:4000", "198.51.100.3:4000"];
        assert_eq!(plan(&others, &[]).len(), MAX_UNVOUCHED);
    }

    #[test]
    fn services_and_other_networks_get_none() {
        let services = ["203.0.113.9:25", "203.0.113.9:443", "203.0.113.9:1023"];
        assert_eq!(plan(&services, &["203.0.113.9"]), []);
        assert_eq!(plan(&["10.1.1.1:5000", "127.0.0.1:5000"], &["203.0.113.9"]), []);
    }

    #[test]
    fn all_nodes_together_have_few_connections_tried_where_nobody_vouches() {
        let now = instant();
        let mut allowances = Allowances::new(now);
        let mut tried = 0;
        for node in 0..200u8 {
            let named = format!("198.51.100.{node}:6000");
            let later = now + SECOND * node.into();
            tried += plan_with(&mut allowances, &[&named], &[], later).len();
        }
        // Eight connections at once, and one in 30 s.
        assert!((8..=15).contains(&tried), "{tried}");
    }

    #[test]
    fn a_node_is_asked_some_times_and_again_after_a_pause() {
        let (mut punching, start) = (Punching::new(instant()), instant());
        punching.set_turn(true, false);
        punching.tcp.note_round(start);
        let due = |punching: &mut Punching, now| punching.tcp.take_due(Duration::ZERO, now);
        let asks = |punching: &mut Punching, id, now| {
            punching.ask_by_tcp(id, now);
            punching.tcp.asking.is_some_and(|asking| asking.id == id)
        };
        assert_eq!(due(&mut punching, start), Some(TcpDue::Begin));
        assert!(asks(&mut punching, 7, start));
        let mut asked = Vec::new();
        let mut now = start;
        while let Some(next) = punching.tcp.next() {
            now = now.max(next);
            asked.extend(due(&mut punching, now).map(|_| (now - start).as_millis()));
        }
        assert_eq!(asked, [0, 500, 1500, 3500]);
        assert!(!asks(&mut punching, 8, start + 24 * SECOND));
        assert_eq!(punching.tcp.next(), Some(start + ASKING_PAUSE), "later");
        assert_eq!(due(&mut punching, start + ASKING_PAUSE), Some(TcpDue::Begin));
        assert!(asks(&mut punching, 8, start + ASKING_PAUSE));
        due(&mut punching, start + ASKING_PAUSE);
        assert!(!punching.take_tcp_answer(7, true, now), "that was another question");
        assert!(punching.take_tcp_answer(8, false, start + ASKING_PAUSE));
        assert!(!asks(&mut punching, 9, start + 2 * ASKING_PAUSE), "it has refused");
        assert!(asks(&mut punching, 9, start + ASKING_PAUSE + REFUSED_PAUSE));
    }

    #[test]
    fn udp_has_its_time_unless_it_is_known_to_be_blocked() {
        let (mut punching, start) = (Punching::new(instant()), instant());
        for (is_blocked, is_second, wait) in
            [(false, false, UDP_ROUND_DURATION), (true, false, Duration::ZERO), (true, true, GREATER_ID_WAIT)]
        {
            punching.set_turn(is_blocked, is_second);
            punching.tcp.note_round(start);
            assert_eq!(punching.tcp.next(), Some(start + wait));
        }
        punching.stop(None);
        assert_eq!(punching.tcp.next(), None);
    }

    #[test]
    fn a_search_by_many_ports_is_waited_for_and_no_longer_than_it_takes() {
        let start = instant();
        let (latest, over) = (start + 30 * SECOND, start + 4 * SECOND);
        let to = "203.0.113.9:5000".parse().unwrap();
        for (is_second, turn) in [(false, Duration::ZERO), (true, GREATER_ID_WAIT)] {
            let mut punching = Punching::new(start);
            punching.set_turn(false, is_second);
            punching.postpone_tcp(latest);
            punching.set_birthday(to, 800, DirectOutcome::Trying, start + SECOND);
            assert_eq!(punching.tcp.next(), Some(latest), "it runs");
            punching.set_birthday(to, 2048, DirectOutcome::Silent, over);
            assert_eq!(punching.tcp.next(), Some(over + turn));
            punching.set_birthday(to, 2048, DirectOutcome::Silent, over + SECOND);
            assert_eq!(punching.tcp.next(), Some(over + turn), "once");
        }
        for outcome in [DirectOutcome::Answered, DirectOutcome::Silent] {
            let mut punching = Punching::new(start);
            punching.postpone_tcp(latest);
            match outcome {
                DirectOutcome::Answered => punching.stop(None),
                // The other node has asked meanwhile, and TCP is tried.
                _ => punching.join_by_tcp(7, start + SECOND),
            }
            punching.set_birthday(to, 2048, outcome, over);
            assert_eq!(punching.tcp.next(), None);
        }
    }

    /// Returns the addresses and numbers of connections, if the node names `named` and roots this node was
    /// given have seen it at `seen`.
    fn plan(named: &[&str], seen: &[&str]) -> Vec<(String, u32)> {
        let now = instant();
        plan_with(&mut Allowances::new(now), named, seen, now)
    }

    fn plan_with(
        allowances: &mut Allowances,
        named: &[&str],
        seen: &[&str],
        now: Instant,
    ) -> Vec<(String, u32)> {
        let own = contact(&["198.51.100.200:4000"]);
        let by_own = seen.iter().map(|ip| ip.parse().unwrap()).collect();
        let said = Said { contact: &contact(named), vouched: Vouched { by_own, by_guests: Vec::new() } };
        let targets = Punching::new(now).plan_by_tcp(&own, &said, allowances, now + SECOND, now);
        targets.into_iter().map(|target| (target.address.to_string(), target.tries)).collect()
    }
}
