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
//! A node with a TURN allocation sends a few challenges from there as well. The first has the TURN server let
//! the other node's address in, so that what that node sends to the relayed address arrives. They are spread
//! over the round, for the server's permission takes a round trip.
//!
//! Where all that fails because one side's box gives each destination a port that nobody can guess, many
//! ports are tried: [`birthday`] says when that is worth it, and remembers what came of it. Where it fails
//! because UDP does not pass, the two connect to each other by TCP: [`tcp`] says when and where to.
//!
//! A node may name anybody's address as its own: [`bounds`] says how much is sent there.

mod birthday;
mod bounds;
mod targets;
mod tcp;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Candidate, Contact, HolePunch, NotTried, Vouched};
use crate::bucket::{Bucket, Rate};
use crate::reach::{Place, SocketIndex, SocketInfo};
use birthday::Record;
pub(crate) use bounds::Allowances;
use bounds::{Bounds, Word};
use targets::Target;
pub(crate) use tcp::TcpDue;

/// A question is repeated after so long, or two round trips if that is longer; then after twice the time.
const REPEAT_AFTER: Duration = Duration::from_millis(500);

/// So often a question is sent.
const MAX_ASKED: u32 = 4;

/// Rounds begin so far apart at least, whatever changes.
const SPACING: Duration = Duration::from_secs(1);

/// The pause after the first round; it doubles up to the second.
const PAUSE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];

/// What should have been sent so long ago is not sent any more: the machine was suspended.
const TOO_LATE: Duration = Duration::from_secs(2);

/// Questions of the node that are answered: so many at once, and one per interval from then on.
const QUESTION_BURST: u32 = 5;
const QUESTION_INTERVAL: Duration = Duration::from_secs(2);

/// Questions that are asked of the node at once; then one each second.
const ASK_BURST: u32 = 4;

/// An answer to a challenge counts for so long.
const VALID_FOR: Duration = Duration::from_secs(20);

/// For so long after a round has begun nothing else is tried on the relayed path that a direct one would make
/// useless.
const HOLD: Duration = Duration::from_secs(2);

/// The same where many ports are tried: nearly all searches that find a path have found it by then.
const HOLD_MANY_PORTS: Duration = Duration::from_secs(5);

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
    bounds: Bounds,
    questions: Bucket,
    asks: Bucket,
    /// The search by many ports.
    birthday: Record,
    /// That by TCP.
    tcp: tcp::Record,
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
    /// A search by many ports may be worth it.
    pub(crate) birthday: bool,
    /// What is due of that by TCP.
    pub(crate) tcp: Option<TcpDue>,
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
            bounds: Bounds::new(now),
            questions: Bucket::new(Rate::every(QUESTION_INTERVAL, QUESTION_BURST), now),
            asks: Bucket::new(Rate::every(SPACING, ASK_BURST), now),
            birthday: Record::default(),
            tcp: tcp::Record::default(),
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

    /// The node was asked at `first`, in what it has read by now.
    pub(crate) fn asked(&mut self, id: u32, first: Instant, now: Instant) {
        if self.asking.is_none_or(|asking| asking.times == 0) {
            self.asking = Some(Asking { id, next: now + REPEAT_AFTER, first: Some(first), times: 1 });
        }
    }

    /// When the last round was begun.
    pub(crate) fn began(&self) -> Option<Instant> {
        self.began
    }

    /// This node's contact has changed: pauses are short again, and what was asked before said the old one.
    pub(crate) fn restart(&mut self) {
        self.rounds = 0;
        self.asking = None;
        self.birthday.restart();
    }

    /// Whether another round is due while traffic flows.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.asking.is_none() && self.shots.is_empty() && self.next.is_none_or(|next| now >= next)
    }

    /// Until when a direct way is likely to be found in a moment, if it is.
    pub(crate) fn hold(&self, now: Instant) -> Option<Instant> {
        let first = self.asking.map(|asking| asking.first.unwrap_or(asking.next));
        let since = first.filter(|_| self.rounds == 0).or(self.began.filter(|_| self.rounds == 1))?;
        let time = if self.birthday.is_running() { HOLD_MANY_PORTS } else { HOLD };
        Some(since + time).filter(|end| now < *end)
    }

    /// Whether a search by many ports runs that is likely to find a direct way in a moment.
    pub(crate) fn tries_many_ports(&self, now: Instant) -> bool {
        self.birthday.is_running() && self.began.is_some_and(|began| now < began + HOLD_MANY_PORTS)
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
        let (believed, doubted) = self.vouched.believed(own, said.contact);
        self.initiates = false;
        self.aim(own, &HolePunch::new(own, &believed, Duration::ZERO), start, draw);
        self.left_out.extend(doubted.into_iter().map(|candidate| (candidate, NotTried::OtherLan)));
        self.theirs = Some(said.contact.clone());
        self.birthday.note_round(start, self.birthday_wait(own));
        self.tcp.note_round(start);
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

    /// Nothing more is to be sent: there is a direct path, if so where it leads; or there is no session.
    pub(crate) fn stop(&mut self, path: Option<Place>) {
        let (targets, shots) = (&mut self.targets, &mut self.shots);
        shots.drain(..).for_each(|(_, at)| targets[at].spared = path.is_some());
        if let Some(target) = path.and_then(|path| targets.iter_mut().find(|target| target.is_at(&path))) {
            target.answered = true;
        }
        self.asking = None;
        self.birthday.note_end();
        self.tcp.note_end();
    }

    /// Whether initiations may be sent where there is no session.
    pub(crate) fn initiates(&self) -> bool {
        self.initiates
    }

    /// Takes what is due. `is_wanted` says whether a program waits for the node; `allowances` are those of
    /// all nodes, `rtt` the relayed path's.
    pub(crate) fn take_due(
        &mut self,
        has_session: bool,
        is_wanted: bool,
        allowances: &mut Allowances,
        rtt: Duration,
        now: Instant,
    ) -> Due {
        let (birthday, tcp) = (self.birthday.take_due(rtt, now), self.tcp.take_due(rtt, now));
        let mut due = Due { birthday, tcp, ..Due::default() };
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
            let target = &mut self.targets[at];
            let is_initiation = self.initiates && !has_session;
            let mut may_send = |bounds: &mut Bounds| match is_initiation {
                true => allowances.take_meeting(is_wanted, now),
                false => !target.answered && bounds.take(target.vouched, allowances, now),
            };
            if now < when + TOO_LATE && may_send(&mut self.bounds) {
                target.sent += 1;
                target.last = Some(now);
                due.shots.push((target.turn, target.address, target.data));
            }
        }
        due
    }

    /// When something is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        let shot = self.shots.front().map(|(at, _)| *at);
        let asking = self.asking.map(|asking| asking.next);
        [shot, asking, self.birthday.next(), self.tcp.next()].into_iter().flatten().min()
    }

    /// The node repeats, from `place`, what was sent there; gives the round trip if it is known. `None` if
    /// this was not sent there.
    pub(crate) fn answered(&mut self, place: Place, data: [u8; 8], now: Instant) -> Option<Option<Duration>> {
        let is_valid = |target: &Target| target.last.is_some_and(|last| now < last + VALID_FOR);
        let is_right = |target: &&mut Target| {
            target.is_at(&place) && target.data == data && target.sent > 0 && is_valid(target)
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

    fn note_round(&mut self, now: Instant) {
        let pause = PAUSE[0] * 2u32.pow(self.rounds.min(8));
        self.rounds += 1;
        self.began = Some(now);
        self.next = Some(now + pause.min(PAUSE[1]));
    }
}
