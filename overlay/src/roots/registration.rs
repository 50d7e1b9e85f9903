//! One registration: requested until answered, and renewed before it ends.

use std::time::{Duration, Instant};

use super::Unasked;
use crate::id::{Identity, NodeId, PublicIdentity};
use crate::wire::{Registered, Registration, RootMessage, SessionIndex, Voucher};

/// Requested lifetime of the registration, in seconds.
const LIFETIME_SECONDS: u32 = 600;

/// Lifetime assumed if a root gives less.
// So a root cannot make this node ask more often.
const MIN_LIFETIME: u32 = 30;

/// First wait for an answer; it doubles up to the second value.
const ANSWER_WAIT_BOUNDS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(8)];

/// Time after a refusal until the root is asked again.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// State of one registration.
#[derive(Debug, Default)]
pub(crate) struct Registering {
    /// Last sequence used.
    sequence: u64,
    /// Session of the last request.
    session: Option<SessionIndex>,
    /// Number of unanswered requests.
    tries: u32,
    /// Time of the next request.
    next: Option<Instant>,
    /// Last answer of the root.
    answer: Option<Registered>,
    /// Time since which this node is registered without an outage of the root.
    since: Option<Instant>,
    /// End of the registration, if it is not renewed.
    until: Option<Instant>,
    is_refused: bool,
    /// Limit on effects that the root causes without being asked, by messages or by new sessions.
    unasked: Unasked,
}

impl Registering {
    /// Returns true if a request in this session is due: at once in a new session, unless the root makes too
    /// many.
    pub(crate) fn is_due(&mut self, session: SessionIndex, now: Instant) -> bool {
        let is_new = self.session.is_some_and(|known| known != session);
        self.next.is_none_or(|at| now >= at) || is_new && self.heeds(now)
    }

    /// Returns true if another unasked effect of the root is allowed. If not, schedules a request, whose
    /// answer will have what was ignored.
    fn heeds(&mut self, now: Instant) -> bool {
        let is_heeded = self.unasked.take(now);
        if !is_heeded {
            let later = now + Unasked::INTERVAL;
            self.next = Some(self.next.map_or(later, |next| next.min(later)));
        }
        is_heeded
    }

    /// Returns when the next request is due, if nothing else happens.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Creates the request. `unix_time` is the wall clock.
    pub(crate) fn ask(
        &mut self,
        node: &Identity,
        root: &NodeId,
        access: &[u8],
        session: SessionIndex,
        unix_time: Duration,
        now: Instant,
    ) -> RootMessage {
        // Requests that an old session has lost say nothing about the new one.
        if self.session.replace(session) != Some(session) {
            self.tries = 0;
        }
        let millis = u64::try_from(unix_time.as_millis()).unwrap_or(u64::MAX);
        // Sequences grow even if the clock is set back, because the root refuses old ones.
        self.sequence = millis.max(self.sequence.saturating_add(1));
        self.next =
            Some(now + (ANSWER_WAIT_BOUNDS[0] * 2u32.pow(self.tries.min(8))).min(ANSWER_WAIT_BOUNDS[1]));
        self.tries += 1;
        let registration = Registration::sign(node, root, self.sequence, LIFETIME_SECONDS);
        RootMessage::Register { registration, access: access.to_vec() }
    }

    /// Handles an answer. A root may repeat the last one when it sees the node elsewhere or will end soon,
    /// which does not extend the registration. Returns false without any change if no such registration was
    /// requested, if the root repeats itself too often, or if the voucher is not this root's for this node.
    pub(crate) fn answered(
        &mut self,
        answer: Registered,
        root: &PublicIdentity,
        own: &NodeId,
        now: Instant,
    ) -> bool {
        let (before, seen) =
            self.answer.as_ref().map_or((0, 0), |known| (known.sequence, known.voucher.time));
        // The sequence must be newer than the last answer's, so that a delayed answer cannot undo a later
        // one.
        let is_asked = self.tries > 0 && answer.sequence > before && answer.sequence <= self.sequence;
        // An older voucher would take this node back to an address that it has left.
        let is_update = before > 0 && answer.sequence == before && answer.voucher.time >= seen;
        let is_taken = is_asked || is_update && self.heeds(now);
        let is_signed = |tcp: &Voucher| tcp.verify_tcp(root, own) && tcp.time == answer.voucher.time;
        if !is_taken || !answer.voucher.verify(root, own) || !answer.tcp.as_ref().is_none_or(is_signed) {
            return false;
        }
        if is_update {
            self.answer = Some(answer);
            return true;
        }
        // A root must neither make this node ask often nor keep it from renewing.
        let lifetime = Duration::from_secs(answer.lifetime.clamp(MIN_LIFETIME, LIFETIME_SECONDS).into());
        let had_gap = self.until.is_none_or(|until| now >= until);
        self.since = self.since.filter(|_| !had_gap).or(Some(now));
        self.until = Some(now + lifetime);
        // Several requests may be lost before the registration ends.
        self.next = Some(now + lifetime / 3);
        self.tries = 0;
        self.is_refused = false;
        self.answer = Some(answer);
        true
    }

    /// Handles a root that does not know this node: asks again at once, unless a request is pending or the
    /// root says so too often.
    pub(crate) fn lost(&mut self, now: Instant) {
        // A lying root could otherwise make this node sign requests at any rate.
        if self.tries == 0 && self.heeds(now) {
            (self.since, self.until) = (None, None);
            self.next = Some(now);
        }
    }

    /// Records an outage of the root: other nodes may not find this node there until the root has confirmed
    /// the registration again. The last answer stays valid.
    pub(crate) fn interrupted(&mut self) {
        self.since = None;
    }

    /// Returns true if the root has confirmed the registration, and has answered since without an outage.
    pub(crate) fn is_confirmed(&self, now: Instant) -> bool {
        self.since(now).is_some()
    }

    /// Asks the root again at once with a new access token or pass.
    pub(crate) fn ask_again(&mut self, now: Instant) {
        (self.tries, self.next) = (0, Some(now));
    }

    /// Asks again soon, because this node may be seen at another address now.
    pub(crate) fn renew_soon(&mut self, now: Instant) {
        if self.tries == 0 {
            self.next = Some(now);
        }
    }

    /// Records that the root refuses this node.
    pub(crate) fn refused(&mut self, now: Instant) {
        self.is_refused = true;
        (self.since, self.until) = (None, None);
        self.next = Some(now + REFUSED_FOR);
    }

    /// Records that the root will end soon.
    pub(crate) fn drains(&mut self) {
        if let Some(answer) = &mut self.answer {
            answer.drains = true;
        }
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Returns the root's last answer while it is valid.
    pub(crate) fn standing(&self, now: Instant) -> Option<&Registered> {
        self.answer.as_ref().filter(|_| self.until.is_some_and(|until| now < until))
    }

    /// Returns the time since which this node is registered.
    pub(crate) fn since(&self, now: Instant) -> Option<Instant> {
        self.since.filter(|_| self.standing(now).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;
    use crate::wire::{Channel, RelayToken, Voucher};

    const UNIX: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn it_is_asked_for_until_it_is_answered_then_renewed_at_a_third_of_its_lifetime() {
        let (mut run, mut now) = (Run::new(), instant());
        let mut asked = Vec::new();
        for _ in 0..5 {
            assert!(run.registering.is_due(run.session, now));
            run.ask(now);
            let next = run.registering.next().unwrap();
            asked.push((next - now).as_millis());
            assert!(!run.registering.is_due(run.session, now));
            now = next;
        }
        assert_eq!(asked, [500, 1000, 2000, 4000, 8000]);
        assert!(run.answer(run.registering.sequence, now));
        assert_eq!(run.registering.next(), Some(now + Duration::from_secs(200)));
        assert!(run.registering.standing(now + Duration::from_secs(599)).is_some());
        assert!(run.registering.standing(now + Duration::from_secs(600)).is_none(), "it was not renewed");
    }

    #[test]
    fn what_the_root_has_said_outlasts_an_outage_and_the_time_counts_from_its_next_answer() {
        let (mut run, now) = (Run::new(), instant());
        run.ask(now);
        assert!(run.answer(run.registering.sequence, now));
        assert_eq!(run.registering.since(now), Some(now));
        run.registering.interrupted();
        let later = now + Duration::from_secs(60);
        assert!(run.registering.standing(later).is_some() && !run.registering.is_confirmed(later));
        run.ask(later);
        assert!(run.answer(run.registering.sequence, later));
        assert_eq!(run.registering.since(later), Some(later));
    }

    #[test]
    fn each_session_asks_anew() {
        let (mut run, now) = (Run::new(), instant());
        run.ask(now);
        assert!(run.answer(run.registering.sequence, now));
        assert!(!run.registering.is_due(run.session, now));
        assert!(run.registering.is_due(SessionIndex::from_be_bytes([9; 3]), now));
    }

    #[test]
    fn an_answer_counts_once_and_only_if_it_was_asked_for() {
        let (mut run, now) = (Run::new(), instant());
        assert!(!run.answer(5, now), "nothing was asked");
        run.ask(now);
        let (first, mut other) = (run.registering.sequence, Run::new());
        run.ask(now);
        assert!(!run.answer(first + 2, now));
        assert!(run.answer(first, now), "the first of two may be answered late");
        let (next, until) = (run.registering.next, run.registering.until);
        assert!(run.answer(first, now + Duration::from_secs(9)), "it says it again");
        assert_eq!((run.registering.next, run.registering.until), (next, until));
        assert!(!run.answer(first - 1, now), "an older one");
        other.root = Identity::from_seed(&[9; 32]);
        other.registering.sequence = first;
        other.registering.tries = 1;
        let mut answer = run.registering.answer.unwrap();
        answer.sequence = first;
        let own = run.node.node_id();
        assert!(
            !other.registering.answered(answer, other.root.public(), &own, now),
            "another root's voucher"
        );
    }

    #[test]
    fn what_the_root_causes_is_limited_and_what_was_not_heeded_is_asked_for_later() {
        let (mut run, now) = (Run::new(), instant());
        run.ask(now);
        let sequence = run.registering.sequence;
        assert!(run.answer(sequence, now));
        let again = (0..1000).filter(|_| run.answer(sequence, now)).count();
        assert_eq!(again, Unasked::BURST as usize);
        let later = now + Unasked::INTERVAL;
        assert_eq!(run.registering.next(), Some(later));
        assert!(run.registering.is_due(run.session, later));
        // Lost registrations and new sessions share one limit.
        let (mut run, mut asked) = (Run::new(), 0);
        for number in 0..1000u16 {
            if number % 2 == 0 {
                run.session = SessionIndex::from_be_bytes([1, (number >> 8) as u8, number as u8]);
            } else {
                run.registering.lost(now);
            }
            if run.registering.is_due(run.session, now) {
                run.ask(now);
                assert!(run.answer(run.registering.sequence, now));
                asked += 1;
            }
        }
        assert_eq!(asked, 1 + Unasked::BURST as usize);
    }

    #[test]
    fn a_root_whose_clock_was_set_back_is_believed_from_the_next_registration_on() {
        let (mut run, now) = (Run::new(), instant());
        run.ask(now);
        let first = run.registering.sequence;
        assert!(run.answer_at(1_800_000_000, first, now));
        let (day, back) = (Duration::from_secs(86_400), 1_800_000_000 - 86_400);
        assert!(!run.answer_at(back, first, now), "it might be late, and say where the node was before");
        let next = run.registering.next().expect("it is renewed");
        assert!(next < now + day / 100, "{:?}", next - now);
        run.ask(next);
        let second = run.registering.sequence;
        assert!(run.answer_at(back, second, next));
        assert!(run.registering.is_confirmed(next));
        assert!(run.answer_at(back + 5, second, next), "what it says again counts, too");
    }

    #[test]
    fn sequences_grow_whatever_the_clock_does() {
        let (mut run, now) = (Run::new(), instant());
        let mut last = 0;
        for unix in [5, 5, 3, 9, 1] {
            let (node, root) = (&run.node, run.root.node_id());
            let unix = Duration::from_secs(unix);
            run.registering.ask(node, &root, &[], run.session, unix, now);
            assert!(run.registering.sequence > last);
            last = run.registering.sequence;
        }
    }

    struct Run {
        node: Identity,
        root: Identity,
        session: SessionIndex,
        registering: Registering,
    }

    impl Run {
        fn new() -> Self {
            let [node, root] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]));
            let session = SessionIndex::from_be_bytes([1, 2, 3]);
            Self { node, root, session, registering: Registering::default() }
        }

        fn ask(&mut self, now: Instant) {
            let message =
                self.registering.ask(&self.node, &self.root.node_id(), b"x", self.session, UNIX, now);
            let RootMessage::Register { registration, access } = message else { panic!("{message:?}") };
            assert!(registration.verify(self.node.public(), &self.root.node_id()));
            assert_eq!(access, b"x");
        }

        fn answer(&mut self, sequence: u64, now: Instant) -> bool {
            self.answer_at(1_800_000_000, sequence, now)
        }

        /// Makes the root answer at its clock's `time`.
        fn answer_at(&mut self, time: u64, sequence: u64, now: Instant) -> bool {
            let own = self.node.node_id();
            let address = "192.0.2.1:4000".parse().unwrap();
            let answer = Registered {
                sequence,
                lifetime: 600,
                relays: true,
                drains: false,
                token: RelayToken::from_be_bytes([1; 3]),
                channel: Channel(1),
                rate: 0,
                voucher: Voucher::sign(&self.root, &own, time, address),
                tcp: None,
            };
            self.registering.answered(answer, self.root.public(), &own, now)
        }
    }
}
