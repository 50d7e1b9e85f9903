//! How a direct way to one node is looked for while a root relays.
//!
//! Both nodes tell each other in their session where they are ([`Candidates`](crate::wire::Candidates)): one
//! asks, the other answers. That gives the round trip, too. Who answers begins half a round trip later, who
//! gets the answer at once; so both send at the same moment, each to all addresses of the other, and what
//! they send crosses on the way: each NAT box has seen its own side's packet before the other's comes. What
//! is sent are challenges of the session, each address with a number of its own, so an answer proves the
//! place that it comes from. The plan is that of [`HolePunch`].
//!
//! That is done when a root begins to relay, when either side's contact changes, and with growing pauses
//! while data flows.
//!
//! # Third parties
//!
//! A node may name any address as its own. So an address counts as *vouched* for only if a root that this
//! node was told to use has seen the node at that IP address, or if both nodes are behind one such address
//! and the address is a private one. Those that only a root has seen which another one has named share one
//! allowance: who has such roots named could make any number of them. All others get [`HolePunch`]'s first
//! few challenges only, from an allowance of the node and one of all nodes. There is one for all addresses of
//! a node, too: others may be behind an address that is vouched for.
//!
//! A node with a TURN allocation sends a few challenges from there as well. The first has the TURN server let
//! the other node's address in, so that what that node sends to the relayed address arrives. They are spread
//! over the round, for the server's permission takes a round trip.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::punch::{HolePunch, NotTried};
use super::{Candidate, CandidateKind, Contact, Vouched};
use crate::bucket::{Bucket, Rate};
use crate::reach::{Place, SocketIndex, SocketInfo};

/// A question is repeated after so long, or two round trips if that is longer; then after twice the time.
const REPEAT_AFTER: Duration = Duration::from_millis(500);

/// So often a question is sent.
const MAX_ASKED: u32 = 4;

/// Rounds begin so far apart at least, whatever changes.
const SPACING: Duration = Duration::from_secs(1);

/// The pause after the first round; it doubles up to the second.
const PAUSE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];

/// Challenges to one address that nobody vouches for, in one round.
const UNVOUCHED_SHOTS: u32 = 6;

/// Challenges to such addresses of one node: so many at once, and one per interval from then on.
const UNVOUCHED_BURST: u32 = 24;
const UNVOUCHED_INTERVAL: Duration = Duration::from_secs(5);

/// Challenges to all addresses of one node, vouched ones included: so many at once, and one per interval.
const BURST: u32 = 200;
const INTERVAL: Duration = Duration::from_millis(250);

/// When challenges leave a TURN allocation, from the begin of a round on.
const BY_TURN: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_millis(1500),
    Duration::from_millis(3500),
    Duration::from_millis(7500),
    Duration::from_millis(11500),
];

/// The most addresses that are sent to from all TURN allocations.
const MAX_BY_TURN: usize = 8;

/// What should have been sent so long ago is not sent any more: the machine was suspended.
const TOO_LATE: Duration = Duration::from_secs(2);

/// Challenges to addresses of all nodes that nobody vouches for.
const ALL_UNVOUCHED_PER_SECOND: u32 = 20;
const ALL_UNVOUCHED_BURST: u32 = 240;

/// Questions of the node that are answered: so many at once, and one per interval from then on.
const QUESTION_BURST: u32 = 5;
const QUESTION_INTERVAL: Duration = Duration::from_secs(2);

/// Questions that are asked of the node at once; then one each second.
const ASK_BURST: u32 = 4;

/// An address at which the node was heard, and which it has not named, is sent to after so long.
const HEARD_SHOTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(400)];

/// So many such addresses are sent to in one round.
const MAX_HEARD: usize = 4;

/// An answer to a challenge counts for so long.
const VALID_FOR: Duration = Duration::from_secs(20);

/// For so long after a round has begun nothing else is tried on the relayed path that a direct one would make
/// useless.
const HOLD: Duration = Duration::from_secs(2);

/// Challenges to addresses of all nodes that only guests vouch for: so many at once, and one per interval.
const BY_GUESTS_BURST: u32 = 60;
const BY_GUESTS_INTERVAL: Duration = Duration::from_secs(1);

/// What may be sent to addresses of all nodes that no root of this node's own vouches for.
#[derive(Debug)]
pub(crate) struct Allowances {
    /// Nobody does.
    unvouched: Bucket,
    /// Roots do that others have named.
    by_guests: Bucket,
}

impl Allowances {
    /// Full ones.
    pub(crate) fn new(now: Instant) -> Self {
        let unvouched = Rate::per_second(ALL_UNVOUCHED_PER_SECOND, ALL_UNVOUCHED_BURST);
        let by_guests = Rate::every(BY_GUESTS_INTERVAL, BY_GUESTS_BURST);
        Self { unvouched: Bucket::new(unvouched, now), by_guests: Bucket::new(by_guests, now) }
    }
}

/// What has been tried to reach a node at one of its addresses; see [`PeerInfo::attempts`].
///
/// [`PeerInfo::attempts`]: crate::PeerInfo::attempts
///
/// ```
/// use peersock_overlay::{DirectAttempt, DirectOutcome};
///
/// fn tell(attempt: &DirectAttempt) -> String {
///     match attempt.outcome {
///         DirectOutcome::NotTried(why) => format!("{}: {why}", attempt.address),
///         outcome => format!("{}: {} sent, {outcome}", attempt.address, attempt.sent),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectAttempt {
    /// The address.
    pub address: SocketAddr,
    /// Where the node knows it from.
    pub kind: CandidateKind,
    /// A port that the node has not named: its NAT box was expected to use it next, or the node was heard there.
    pub predicted: bool,
    /// Whether a root of this node's has seen the node at that IP address, also one that another root has
    /// named. Others get a few packets only.
    pub vouched: bool,
    /// Packets sent there in the last round.
    pub sent: u32,
    /// When the last of these was sent.
    pub tried: Option<Instant>,
    /// What came of it.
    pub outcome: DirectOutcome,
}

/// What came of an attempt to reach a node at an address.
///
/// ```
/// use peersock_overlay::DirectOutcome;
///
/// assert_eq!(DirectOutcome::Silent.to_string(), "no answer");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectOutcome {
    /// It is being tried.
    Trying,
    /// The node has answered from there.
    Answered,
    /// Nothing came back.
    Silent,
    /// Nothing was sent there.
    NotTried(NotTried),
}

impl std::fmt::Display for DirectOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trying => f.pad("being tried"),
            Self::Answered => f.pad("answered"),
            Self::Silent => f.pad("no answer"),
            Self::NotTried(why) => why.fmt(f),
        }
    }
}

/// The search for a direct way to one node.
#[derive(Debug)]
pub(crate) struct Punching {
    theirs: Option<Contact>,
    /// The IP addresses at which roots of this node's have seen it.
    vouched: Vouched,
    targets: Vec<Target>,
    left_out: Vec<(Candidate, NotTried)>,
    /// This node's TURN allocations, and whether their addresses are IPv4.
    turns: Vec<(SocketIndex, bool)>,
    /// What is still to be sent in this round: when, and to which of the targets.
    shots: VecDeque<(Instant, usize)>,
    /// Without a session, initiations are sent instead of challenges.
    initiates: bool,
    asking: Option<Asking>,
    /// When the last round began.
    began: Option<Instant>,
    rounds: u32,
    /// When the next round may begin though nothing has changed.
    next: Option<Instant>,
    all: Bucket,
    unvouched: Bucket,
    questions: Bucket,
    asks: Bucket,
}

/// An address that is sent to.
#[derive(Debug)]
struct Target {
    /// The TURN allocation that it is sent to from, if not from a UDP socket.
    turn: Option<SocketIndex>,
    address: SocketAddr,
    kind: CandidateKind,
    predicted: bool,
    /// It was learned in this round, from a challenge of the node.
    heard: bool,
    vouched: Word,
    /// What the challenges there say.
    data: [u8; 8],
    sent: u32,
    last: Option<Instant>,
    answered: bool,
}

/// Who says that the node is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// The node alone.
    Own,
    /// A root that another one has named.
    Guest,
    /// A root that this node was told to use.
    Root,
}

/// A question to the node: where are you?
#[derive(Debug, Clone, Copy)]
struct Asking {
    id: u32,
    /// When it is sent, for the first time or again.
    next: Instant,
    first: Option<Instant>,
    times: u32,
}

/// What is due now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// The question to send.
    pub(crate) question: Option<u32>,
    /// The challenges to send: from which TURN allocation, if from one, and where to.
    pub(crate) shots: Vec<(Option<SocketIndex>, SocketAddr, [u8; 8])>,
}

/// What a node has said of where it is.
#[derive(Debug)]
pub(crate) struct Said<'a> {
    pub(crate) contact: &'a Contact,
    /// The IP addresses that roots of this node's vouch for.
    pub(crate) vouched: Vouched,
}

impl Punching {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            theirs: None,
            vouched: Vouched::default(),
            targets: Vec::new(),
            left_out: Vec::new(),
            turns: Vec::new(),
            shots: VecDeque::new(),
            initiates: false,
            asking: None,
            began: None,
            rounds: 0,
            next: None,
            all: Bucket::new(Rate::every(INTERVAL, BURST), now),
            unvouched: Bucket::new(Rate::every(UNVOUCHED_INTERVAL, UNVOUCHED_BURST), now),
            questions: Bucket::new(Rate::every(QUESTION_INTERVAL, QUESTION_BURST), now),
            asks: Bucket::new(Rate::every(SPACING, ASK_BURST), now),
        }
    }

    /// Says what may be sent from in the rounds that follow.
    pub(crate) fn set_sockets(&mut self, sockets: &[SocketInfo]) {
        let turns = sockets.iter().filter(|socket| socket.index.is_turn());
        self.turns = turns.map(|socket| (socket.index, socket.ipv4)).collect();
    }

    /// Has the node asked where it is, `wait` from now or as soon as the last round is old enough. `id` is
    /// random.
    pub(crate) fn ask(&mut self, id: u32, wait: Duration, now: Instant) {
        let spaced = self.began.map_or(now, |began| began + SPACING);
        let next = (now + wait).max(spaced);
        match &mut self.asking {
            Some(asking) if asking.times == 0 => asking.next = asking.next.min(next),
            Some(_) => {}
            None => self.asking = Some(Asking { id, next, first: None, times: 0 }),
        }
    }

    /// This node's contact has changed: pauses are short again, and what was asked before said the old one.
    pub(crate) fn restart(&mut self) {
        self.rounds = 0;
        self.asking = None;
    }

    /// Whether another round is due while traffic flows.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.asking.is_none() && self.shots.is_empty() && self.next.is_none_or(|next| now >= next)
    }

    /// Until when a direct way is likely to be found in a moment, if it is.
    pub(crate) fn hold(&self, now: Instant) -> Option<Instant> {
        let first = self.asking.map(|asking| asking.first.unwrap_or(asking.next));
        let since = first.filter(|_| self.rounds == 0).or(self.began.filter(|_| self.rounds == 1))?;
        Some(since + HOLD).filter(|end| now < *end)
    }

    /// Whether a question of the node is answered now.
    pub(crate) fn take_question(&mut self, now: Instant) -> bool {
        self.questions.take(now)
    }

    /// The node answers a question. If it is the one that was asked last: the round trip, unless it was asked
    /// more than once.
    pub(crate) fn take_answer(&mut self, id: u32, now: Instant) -> Option<Option<Duration>> {
        let asking = self.asking.take_if(|asking| asking.id == id && asking.times > 0)?;
        let first = asking.first.filter(|_| asking.times == 1);
        Some(first.map(|first| now.saturating_duration_since(first)))
    }

    /// Begins a round at `start` with what the node says of itself. `draw` gives random numbers that nobody
    /// can guess.
    pub(crate) fn begin(
        &mut self,
        own: &Contact,
        said: Said<'_>,
        start: Instant,
        now: Instant,
        draw: impl FnMut() -> Option<[u8; 8]>,
    ) {
        let is_new = self.theirs.as_ref() != Some(said.contact);
        if is_new {
            self.rounds = 0;
        } else if !self.shots.is_empty() && self.began.is_some_and(|began| now < began + SPACING) {
            // Both have asked, and this is the second of two answers.
            return;
        }
        self.asking.take_if(|asking| asking.times == 0);
        self.vouched = said.vouched;
        let (believed, doubted) = self.believed(own, said.contact);
        self.initiates = false;
        self.aim(own, &HolePunch::new(own, &believed, Duration::ZERO), start, draw);
        self.left_out.extend(doubted.into_iter().map(|candidate| (candidate, NotTried::OtherLan)));
        self.theirs = Some(said.contact.clone());
        self.note_round(now);
    }

    /// Begins a round for a node with which there need not be a session, with a contact that was learned
    /// elsewhere: both sides begin at `start`.
    pub(crate) fn begin_meeting(
        &mut self,
        own: &Contact,
        theirs: &Contact,
        has_session: bool,
        start: Instant,
        now: Instant,
        draw: impl FnMut() -> Option<[u8; 8]>,
    ) {
        self.vouched = Vouched::default();
        self.initiates = !has_session;
        self.aim(own, &HolePunch::new(own, theirs, start.saturating_duration_since(now)), now, draw);
        self.theirs = Some(theirs.clone());
        self.note_round(now);
    }

    /// The node sends from `remote` while a direct way is looked for. If it has not named that address, its NAT
    /// box has mapped this destination to a port of its own, and the address is sent to at once (RFC 8445,
    /// 7.3.1.4). That is done only where a root vouches for the IP address. True if something is due now.
    pub(crate) fn heard(
        &mut self,
        remote: SocketAddr,
        now: Instant,
        mut draw: impl FnMut() -> Option<[u8; 8]>,
    ) -> bool {
        let heard = self.targets.iter().filter(|target| target.heard).count();
        let word = self.word_on(&remote.ip());
        if self.shots.is_empty()
            || heard >= MAX_HEARD
            || word == Word::Own
            || self.targets.iter().any(|target| target.address == remote)
        {
            return false;
        }
        let Some(data) = draw() else { return false };
        let at = self.targets.len();
        self.targets.push(Target {
            turn: None,
            address: remote,
            kind: CandidateKind::Mapped,
            predicted: true,
            heard: true,
            vouched: word,
            data,
            sent: 0,
            last: None,
            answered: false,
        });
        self.shots.extend(HEARD_SHOTS.map(|after| (now + after, at)));
        self.shots.make_contiguous().sort_by_key(|(when, _)| *when);
        true
    }

    /// There is a direct path: nothing more is to be sent.
    pub(crate) fn stop(&mut self) {
        self.shots.clear();
        self.asking = None;
    }

    /// Whether initiations may be sent where there is no session.
    pub(crate) fn initiates(&self) -> bool {
        self.initiates
    }

    /// Takes what is due. `allowances` are those of all nodes, `rtt` the relayed path's.
    pub(crate) fn take_due(
        &mut self,
        has_session: bool,
        allowances: &mut Allowances,
        rtt: Duration,
        now: Instant,
    ) -> Due {
        let mut due = Due::default();
        if let Some(asking) = self.asking.as_mut().filter(|asking| now >= asking.next) {
            if asking.times >= MAX_ASKED {
                // It does not know this message, or nothing passes.
                self.asking = None;
                self.note_round(now);
            } else if !self.asks.take(now) {
                // Its contact changes all the time, or somebody says so.
                asking.next = now + SPACING;
            } else {
                asking.first.get_or_insert(now);
                asking.next = now + REPEAT_AFTER.max(rtt * 2) * 2u32.pow(asking.times);
                asking.times += 1;
                due.question = Some(asking.id);
            }
        }
        while let Some((when, at)) = self.shots.front().copied().filter(|(when, _)| *when <= now) {
            self.shots.pop_front();
            if now < when + TOO_LATE && self.may_send(at, has_session, allowances, now) {
                let target = &mut self.targets[at];
                target.sent += 1;
                target.last = Some(now);
                due.shots.push((target.turn, target.address, target.data));
            }
        }
        due
    }

    /// Whether a target may be sent to, which is taken from the allowances.
    fn may_send(&mut self, at: usize, has_session: bool, allowances: &mut Allowances, now: Instant) -> bool {
        let target = &self.targets[at];
        if self.initiates && !has_session {
            return true;
        }
        if target.answered || !self.all.has(1, now) {
            return false;
        }
        let is_vouched = match target.vouched {
            Word::Root => true,
            Word::Guest => allowances.by_guests.take(now),
            Word::Own => false,
        };
        let is_allowed = is_vouched
            || (self.unvouched.has(1, now) && allowances.unvouched.take(now) && self.unvouched.take(now));
        is_allowed && self.all.take(now)
    }

    /// When something is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        let shot = self.shots.front().map(|(at, _)| *at);
        shot.into_iter().chain(self.asking.map(|asking| asking.next)).min()
    }

    /// The node repeats, from `place`, what was sent there; gives the round trip if it is known. `None` if
    /// this was not sent there.
    pub(crate) fn answered(&mut self, place: Place, data: [u8; 8], now: Instant) -> Option<Option<Duration>> {
        let is_valid = |target: &Target| target.last.is_some_and(|last| now < last + VALID_FOR);
        let (turn, remote) = (Some(place.socket()).filter(|socket| socket.is_turn()), place.remote());
        let is_there = |target: &Target| target.turn == turn && target.address == remote;
        let is_right = |target: &&mut Target| {
            is_there(target) && target.data == data && target.sent > 0 && is_valid(target)
        };
        let target = self.targets.iter_mut().find(is_right)?;
        target.answered = true;
        let only = target.last.filter(|_| target.sent == 1);
        Some(only.map(|at| now.saturating_duration_since(at)))
    }

    /// What the node has said of itself.
    pub(crate) fn theirs(&self) -> Option<&Contact> {
        self.theirs.as_ref()
    }

    /// What was tried in the last round, and what was left out.
    pub(crate) fn attempts(&self) -> Vec<DirectAttempt> {
        let direct = self.targets.iter().enumerate().filter(|(_, target)| target.turn.is_none());
        let tried = direct.map(|(at, target)| DirectAttempt {
            address: target.address,
            kind: target.kind,
            predicted: target.predicted,
            vouched: target.vouched != Word::Own,
            sent: target.sent,
            tried: target.last,
            outcome: match () {
                () if target.answered => DirectOutcome::Answered,
                () if self.shots.iter().any(|(_, other)| *other == at) => DirectOutcome::Trying,
                () if target.sent == 0 => DirectOutcome::NotTried(NotTried::Unvouched),
                () => DirectOutcome::Silent,
            },
        });
        let left_out = self.left_out.iter().map(|(candidate, why)| DirectAttempt {
            address: candidate.address,
            kind: candidate.kind,
            predicted: false,
            vouched: self.word_on(&candidate.address.ip()) != Word::Own,
            sent: 0,
            tried: None,
            outcome: DirectOutcome::NotTried(*why),
        });
        tried.chain(left_out).collect()
    }

    /// The node's candidates that may be what it says, and the others. Private addresses are for nodes that a
    /// root has seen behind the same address as this one; a node without any public address has no such
    /// proof.
    fn believed(&self, own: &Contact, theirs: &Contact) -> (Contact, Vec<Candidate>) {
        let is_near = own.public().next().is_none() || self.is_neighbour(own);
        let is_believed = |candidate: &Candidate| is_near || candidate.is_global();
        let (believed, doubted): (Vec<_>, Vec<_>) =
            theirs.candidates().iter().copied().partition(is_believed);
        (Contact::new(theirs.nat, believed), doubted)
    }

    /// Whether a root has seen the node behind an address that this node has, too.
    fn is_neighbour(&self, own: &Contact) -> bool {
        own.public().any(|ip| self.vouched.by_own.contains(&ip))
    }

    fn word_on(&self, ip: &IpAddr) -> Word {
        match &self.vouched {
            vouched if vouched.by_own.contains(ip) => Word::Root,
            vouched if vouched.by_guests.contains(ip) => Word::Guest,
            _ => Word::Own,
        }
    }

    /// Makes the targets and the shots of a plan that begins at `start`.
    fn aim(
        &mut self,
        own: &Contact,
        plan: &HolePunch,
        start: Instant,
        mut draw: impl FnMut() -> Option<[u8; 8]>,
    ) {
        let is_neighbour = self.is_neighbour(own);
        let known = plan.targets().iter().map(|candidate| (None, *candidate, false));
        let guess =
            |address: &SocketAddr| (None, Candidate { kind: CandidateKind::Mapped, address: *address }, true);
        let by_turn = self.by_turn(plan).into_iter().map(|(turn, candidate)| (Some(turn), candidate, false));
        let all = known.chain(plan.predicted().iter().map(guess)).chain(by_turn);
        let target = |(turn, candidate, predicted): (Option<SocketIndex>, Candidate, bool)| {
            let Candidate { kind, address } = candidate;
            let is_inside = is_neighbour && !candidate.is_global();
            Some(Target {
                turn,
                address,
                kind,
                predicted,
                heard: false,
                vouched: if is_inside { Word::Root } else { self.word_on(&address.ip()) },
                data: draw()?,
                sent: 0,
                last: None,
                answered: false,
            })
        };
        self.targets = all.filter_map(target).collect();
        self.left_out = plan.left_out().to_vec();
        self.shots.clear();
        let mut shots = vec![0; self.targets.len()];
        for shot in plan.shots() {
            let is_it = |target: &Target| target.turn.is_none() && target.address == shot.to;
            let Some(at) = self.targets.iter().position(is_it) else { continue };
            shots[at] += 1;
            let is_vouched = self.targets[at].vouched != Word::Own;
            if self.initiates || is_vouched || shots[at] <= UNVOUCHED_SHOTS {
                self.shots.push_back((start + shot.after, at));
            }
        }
        let by_turn = self.targets.iter().enumerate().filter(|(_, target)| target.turn.is_some());
        let by_turn = by_turn.flat_map(|(at, _)| BY_TURN.map(|after| (start + after, at)));
        let mut shots: Vec<_> = self.shots.drain(..).chain(by_turn).collect();
        shots.sort_by_key(|(when, _)| *when);
        self.shots = shots.into();
    }

    /// What is sent to from which TURN allocation: what the plan aims at, and addresses of a family that only
    /// the TURN server has. On loopback there is another host as seen from there.
    fn by_turn(&self, plan: &HolePunch) -> Vec<(SocketIndex, Candidate)> {
        let is_far = |why: &NotTried| *why == NotTried::OtherFamily;
        let far = plan.left_out().iter().filter(|(candidate, why)| is_far(why) && candidate.is_global());
        let all = plan.targets().iter().chain(far.map(|(candidate, _)| candidate));
        let all = all.filter(|candidate| !candidate.address.ip().is_loopback());
        let ways = all.flat_map(|candidate| {
            let leads = |turn: &&(SocketIndex, bool)| turn.1 == candidate.address.is_ipv4();
            self.turns.iter().filter(leads).map(|(turn, _)| (*turn, *candidate))
        });
        ways.take(MAX_BY_TURN).collect()
    }

    fn note_round(&mut self, now: Instant) {
        let pause = PAUSE[0] * 2u32.pow(self.rounds.min(8));
        self.rounds += 1;
        self.began = Some(now);
        self.next = Some(now + pause.min(PAUSE[1]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contact::tests::contact;
    use crate::contact::{Mapping, Nat};
    use crate::testing::instant;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_was_due_while_the_machine_slept_is_not_sent() {
        let mut run = Run::new(&["203.0.113.9:5000"]);
        run.begin();
        run.now += 11 * SECOND;
        assert_eq!(run.shots(), 2, "those of the last two seconds, and not the fourteen before them");
        run.now += SECOND;
        assert_eq!(run.shots(), 1);
    }

    #[test]
    fn others_behind_an_address_that_is_vouched_for_get_little() {
        let mut run = Run::new(&["203.0.113.9:5000", "203.0.113.9:6000", "203.0.113.9:7000"]);
        run.contact.nat = Nat { mapping: Mapping::AddressDependent, port_delta: 1, ..Nat::default() };
        let (begin, mut sent) = (run.now, 0);
        while run.now < begin + 600 * SECOND {
            // It names ever new ports of its neighbours.
            run.contact.nat.port_delta += 1;
            run.begin();
            for _ in 0..10 {
                run.now += SECOND / 5;
                sent += run.shots();
            }
        }
        assert!((2000..=200 + 4 * 600).contains(&sent), "{sent}");
    }

    #[test]
    fn where_the_node_is_heard_is_sent_to_at_once_if_a_root_vouches_for_the_address() {
        let mut run = Run::new(&["203.0.113.9:5000"]);
        let heard = |run: &mut Run, address: &str| {
            run.punching.heard(address.parse().unwrap(), run.now, || Some([9; 8]))
        };
        assert!(!heard(&mut run, "203.0.113.9:6000"), "nothing is looked for");
        run.begin();
        assert_eq!(run.shots(), 1);
        run.now += SECOND / 50;
        assert!(!heard(&mut run, "203.0.113.9:5000"), "it has named that");
        assert!(!heard(&mut run, "198.51.100.66:6000"), "nobody vouches for that");
        assert!(heard(&mut run, "203.0.113.9:6000"));
        let remote = "203.0.113.9:6000".parse().unwrap();
        assert_eq!(run.due().shots, [(None, remote, [9; 8])]);
        let at = Place::Direct { socket: SocketIndex(0), remote };
        assert_eq!(run.punching.answered(at, [9; 8], run.now + SECOND / 20), Some(Some(SECOND / 20)));
        // A box that gives each packet another port.
        let ports = (7000..7100).filter(|port| heard(&mut run, &format!("203.0.113.9:{port}")));
        assert_eq!(ports.count(), MAX_HEARD - 1);
    }

    #[test]
    fn a_contact_that_changes_all_the_time_makes_no_flood_of_questions() {
        let mut run = Run::new(&["203.0.113.9:5000"]);
        let mut asked = 0;
        for id in 0..1000 {
            run.punching.restart();
            run.punching.ask(id, Duration::ZERO, run.now);
            asked += u32::from(run.due().question.is_some());
            run.now += SECOND / 1000;
        }
        assert!((1..=ASK_BURST + 1).contains(&asked), "{asked}");
    }

    #[test]
    fn an_answer_counts_where_it_was_asked_for_and_while_it_is_new() {
        let mut run = Run::new(&["203.0.113.9:5000", "203.0.113.9:6000"]);
        run.begin();
        let [(None, one, first), (None, other, second)] = run.due().shots[..] else {
            panic!("two addresses")
        };
        assert_ne!(first, second, "each has a number of its own");
        run.now += SECOND / 50;
        let [one, other] = [one, other].map(|remote| Place::Direct { socket: SocketIndex(0), remote });
        assert_eq!(run.punching.answered(other, first, run.now), None);
        assert_eq!(run.punching.answered(one, [0; 8], run.now), None);
        assert_eq!(run.punching.answered(one, first, run.now), Some(Some(SECOND / 50)));
        run.now += VALID_FOR;
        assert_eq!(run.punching.answered(other, second, run.now), None);
    }

    #[test]
    fn a_turn_allocation_sends_a_few_and_is_a_place_of_its_own() {
        let mut run = Run::new(&["203.0.113.9:5000", "[2001:db8::9]:5000"]);
        let turn = SocketIndex::turn(1);
        let socket = |index, ipv4| {
            let (loopback, beacon_targets) = (false, Vec::new());
            SocketInfo { index, ipv4, loopback, max_datagram: 1400, beacon_targets }
        };
        let sockets = [socket(SocketIndex(0), true), socket(turn, true), socket(SocketIndex::turn(2), false)];
        run.punching.set_sockets(&sockets);
        run.begin();
        let mut shots = run.due().shots;
        while let Some(next) = run.punching.next() {
            run.now = next;
            shots.extend(run.due().shots);
        }
        let from = |index| shots.iter().filter(|(from, ..)| *from == Some(index)).collect::<Vec<_>>();
        assert_eq!((from(turn).len(), from(SocketIndex::turn(2)).len()), (6, 6));
        assert!(from(SocketIndex::turn(2)).iter().all(|(_, to, _)| to.is_ipv6()), "which no socket reaches");
        let (_, remote, data) = *from(turn)[5];
        let place = |socket| Place::Direct { socket, remote };
        assert_eq!(run.punching.answered(place(SocketIndex(0)), data, run.now), None);
        assert!(run.punching.answered(place(turn), data, run.now).is_some());
        assert!(run.punching.attempts().iter().all(|attempt| attempt.outcome != DirectOutcome::Answered));
    }

    #[test]
    fn a_question_is_repeated_then_given_up_until_the_next_round() {
        let mut run = Run::new(&[]);
        let (begin, mut asked) = (run.now, Vec::new());
        run.punching.ask(7, Duration::ZERO, run.now);
        while let Some(next) = run.punching.next() {
            run.now = next;
            asked.extend(run.due().question.map(|id| (id, (run.now - begin).as_millis())));
        }
        assert_eq!(asked, [(7, 0), (7, 500), (7, 1500), (7, 3500)]);
        assert!(!run.punching.is_due(run.now + 29 * SECOND) && run.punching.is_due(run.now + 30 * SECOND));
        assert_eq!(run.punching.take_answer(7, run.now), None);
    }

    /// One search, for a node whose IP addresses are vouched for.
    struct Run {
        punching: Punching,
        contact: Contact,
        allowances: Allowances,
        drawn: u64,
        now: Instant,
    }

    impl Run {
        fn new(addresses: &[&str]) -> Self {
            let now = instant();
            let (punching, contact) = (Punching::new(now), contact(addresses));
            Self { punching, contact, allowances: Allowances::new(now), drawn: 0, now }
        }

        fn begin(&mut self) {
            let own = contact(&["198.51.100.7:4000"]);
            let vouched = Vouched { by_own: self.contact.public().collect(), ..Vouched::default() };
            let said = Said { contact: &self.contact, vouched };
            let draw = || {
                self.drawn += 1;
                Some(self.drawn.to_be_bytes())
            };
            self.punching.begin(&own, said, self.now, self.now, draw);
        }

        fn due(&mut self) -> Due {
            self.punching.take_due(true, &mut self.allowances, Duration::ZERO, self.now)
        }

        fn shots(&mut self) -> usize {
            self.due().shots.len()
        }
    }
}
