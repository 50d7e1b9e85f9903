//! The search for a direct path to one node while a root relays.
//!
//! The nodes tell each other their addresses in their session ([`Candidates`](crate::wire::Candidates)): one
//! asks, the other answers. That also gives the round-trip time. The answering side begins half a round trip
//! later, the asking side when it gets the answer, so both send at the same moment, each to all addresses of
//! the other. Their packets cross on the way: each NAT box has seen its own side's packet before the other's
//! comes. The packets are challenges of the session, with a different number for each address, so an answer
//! proves the place it comes from. The plan is that of [`HolePunch`].
//!
//! A round begins when a root begins to relay, when either side's contact changes, and with growing pauses
//! while data flows.
//!
//! A node with a TURN allocation sends a few challenges from there as well. The first makes the TURN server
//! admit the other node's address, so that the other node's packets to the relayed address arrive. They are
//! spread over the round, because the server's permission takes a round trip.
//!
//! If all that fails because one side's box gives each destination an unpredictable port, many ports are
//! tried: [`birthday`] decides when, and records the result. If it fails because UDP does not pass, the two
//! connect to each other by TCP: [`tcp`] decides when and to which addresses.
//!
//! A node may name a victim's address as its own, so [`bounds`] limits the packets sent there.

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

/// Minimum time until a question is repeated, at least two round trips; then it doubles.
const MIN_REPEAT_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum number of times a question is sent.
const MAX_ASKED: u32 = 4;

/// Minimum interval between the beginnings of rounds.
const MIN_ROUND_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after the first round, and the maximum up to which it doubles.
const ROUND_PAUSE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];

/// Age after which a due packet is not sent any more: the machine was suspended.
const MAX_PACKET_LATENESS: Duration = Duration::from_secs(2);

/// Burst and interval of the node's questions that are answered.
const QUESTION_BURST: u32 = 5;
const QUESTION_INTERVAL: Duration = Duration::from_secs(2);

/// Burst of questions to the node; then one each second.
const ASK_BURST: u32 = 4;

/// Time for which an answer to a challenge counts.
const ANSWER_LIFETIME: Duration = Duration::from_secs(20);

/// Time after the beginning of a round in which nothing else is tried on the relayed path that a direct one
/// would make useless.
const ROUND_HEAD_START: Duration = Duration::from_secs(2);

/// The same during a search by many ports: nearly all successful searches have found a path by then.
const HOLD_MANY_PORTS: Duration = Duration::from_secs(5);

/// Search for a direct path to one node.
#[derive(Debug)]
pub(crate) struct Punching {
    theirs: Option<Contact>,
    /// IP addresses at which roots of this node have seen the node.
    vouched: Vouched,
    targets: Vec<Target>,
    left_out: Vec<(Candidate, NotTried)>,
    /// TURN allocations of this node, and whether their addresses are IPv4.
    turns: Vec<(SocketIndex, bool)>,
    /// Packets still to be sent in this round: the time, and the index of the target.
    shots: VecDeque<(Instant, usize)>,
    /// True if initiations are sent instead of challenges while there is no session.
    initiates: bool,
    asking: Option<Asking>,
    /// Time when the last round began.
    began: Option<Instant>,
    rounds: u32,
    /// Earliest time of the next round if nothing changes.
    next: Option<Instant>,
    bounds: Bounds,
    questions: Bucket,
    asks: Bucket,
    /// Record of the search by many ports.
    birthday: Record,
    /// Record of the search by TCP.
    tcp: tcp::Record,
}

/// Question about the node's addresses.
#[derive(Debug, Clone, Copy)]
struct Asking {
    id: u32,
    /// Time of the next sending.
    next: Instant,
    first: Option<Instant>,
    times: u32,
}

/// Work that is due now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Id of the question to send.
    pub(crate) question: Option<u32>,
    /// Challenges to send: the TURN allocation they leave from, if any, and their destination.
    pub(crate) shots: Vec<(Option<SocketIndex>, SocketAddr, [u8; 8])>,
    /// True if a search by many ports may be worth it.
    pub(crate) birthday: bool,
    /// Due step of the search by TCP.
    pub(crate) tcp: Option<TcpDue>,
}

/// A node's description of where it is.
#[derive(Debug)]
pub(crate) struct Said<'a> {
    pub(crate) contact: &'a Contact,
    /// IP addresses that roots of this node vouch for.
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
            asks: Bucket::new(Rate::every(MIN_ROUND_INTERVAL, ASK_BURST), now),
            birthday: Record::default(),
            tcp: tcp::Record::default(),
        }
    }

    /// Sets the sockets for the rounds that follow.
    pub(crate) fn set_sockets(&mut self, sockets: &[SocketInfo]) {
        let turns = sockets.iter().filter(|socket| socket.index.is_turn());
        self.turns = turns.map(|socket| (socket.index, socket.ipv4)).collect();
    }

    /// Schedules a question about the node's addresses, `wait` from now or as soon as the last round is old
    /// enough. `id` is random.
    pub(crate) fn ask(&mut self, id: u32, wait: Duration, now: Instant) {
        // Without it two nodes whose contacts change in turns would punch without a pause.
        let spaced = self.began.map_or(now, |began| began + MIN_ROUND_INTERVAL);
        let next = (now + wait).max(spaced);
        match &mut self.asking {
            Some(asking) if asking.times == 0 => asking.next = asking.next.min(next),
            Some(_) => {}
            None => self.asking = Some(Asking { id, next, first: None, times: 0 }),
        }
    }

    /// Records that a message sent at `first`, which the node has read by now, contained the question.
    pub(crate) fn asked(&mut self, id: u32, first: Instant, now: Instant) {
        if self.asking.is_none_or(|asking| asking.times == 0) {
            self.asking = Some(Asking { id, next: now + MIN_REPEAT_INTERVAL, first: Some(first), times: 1 });
        }
    }

    /// Returns when the last round began.
    pub(crate) fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Resets the pauses and drops the open question, because this node's contact has changed and the
    /// question has the old one.
    pub(crate) fn restart(&mut self) {
        self.rounds = 0;
        self.asking = None;
        self.birthday.restart();
    }

    /// Returns true if another round is due while traffic flows.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.asking.is_none() && self.shots.is_empty() && self.next.is_none_or(|next| now >= next)
    }

    /// Returns the time until which a direct path will probably be found, if any.
    pub(crate) fn hold(&self, now: Instant) -> Option<Instant> {
        let first = self.asking.map(|asking| asking.first.unwrap_or(asking.next));
        // Only the first round holds other work back. Later ones succeed rarely, and traffic must not wait
        // for them.
        let since = first.filter(|_| self.rounds == 0).or(self.began.filter(|_| self.rounds == 1))?;
        let time = if self.birthday.is_running() { HOLD_MANY_PORTS } else { ROUND_HEAD_START };
        Some(since + time).filter(|end| now < *end)
    }

    /// Returns true if a search by many ports runs that will probably find a direct path soon.
    pub(crate) fn tries_many_ports(&self, now: Instant) -> bool {
        self.birthday.is_running() && self.began.is_some_and(|began| now < began + HOLD_MANY_PORTS)
    }

    /// Returns true if a question of the node may be answered now.
    pub(crate) fn take_question(&mut self, now: Instant) -> bool {
        self.questions.take(now)
    }

    /// Handles the node's answer to a question. Returns `None` if that question is not open. Returns the
    /// round-trip time only if the question was sent once.
    pub(crate) fn take_answer(&mut self, id: u32, now: Instant) -> Option<Option<Duration>> {
        // Before the question has left, no answer can be genuine.
        let asking = self.asking.take_if(|asking| asking.id == id && asking.times > 0)?;
        // After a repetition it is unknown which question was answered (RFC 6298, section 3).
        let first = asking.first.filter(|_| asking.times == 1);
        Some(first.map(|first| now.saturating_duration_since(first)))
    }

    /// Begins a round at `start` with the node's own description. `draw` returns unpredictable random
    /// numbers.
    pub(crate) fn begin(
        &mut self,
        own: &Contact,
        said: Said<'_>,
        start: Instant,
        now: Instant,
        draw: impl FnMut() -> Option<[u8; 8]>,
    ) {
        let is_new = self.theirs.as_ref() != Some(said.contact);
        // New addresses may succeed where the old ones failed, so the pauses begin anew.
        if is_new {
            self.rounds = 0;
        } else if !self.shots.is_empty() && self.began.is_some_and(|began| now < began + MIN_ROUND_INTERVAL) {
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

    /// Begins a round with a contact from elsewhere, possibly without a session; both sides begin at `start`.
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

    /// Ends the round, because there is a direct path (`path`), or no session.
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

    /// Returns true if initiations may be sent without a session.
    pub(crate) fn initiates(&self) -> bool {
        self.initiates
    }

    /// Takes the work that is due. `is_wanted` is true if a program waits for the node; `allowances` covers
    /// all nodes, and `rtt` is the relayed path's round-trip time.
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
                // The node does not know this message, or nothing passes.
                self.asking = None;
                self.note_round(now);
            } else if !self.asks.take(now) {
                // The node's contact changes all the time, or an attacker pretends that.
                asking.next = now + MIN_ROUND_INTERVAL;
            } else {
                asking.first.get_or_insert(now);
                asking.next = now + MIN_REPEAT_INTERVAL.max(rtt * 2) * 2u32.pow(asking.times);
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
                // A target that has answered needs no more packets. The others pay from a budget, because
                // they may be a victim's.
                false => !target.answered && bounds.take(target.vouched, allowances, now),
            };
            if now < when + MAX_PACKET_LATENESS && may_send(&mut self.bounds) {
                target.sent += 1;
                target.last = Some(now);
                due.shots.push((target.turn, target.address, target.data));
            }
        }
        due
    }

    /// Returns when something is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        let shot = self.shots.front().map(|(at, _)| *at);
        let asking = self.asking.map(|asking| asking.next);
        [shot, asking, self.birthday.next(), self.tcp.next()].into_iter().flatten().min()
    }

    /// Checks an answer from `place`. If it matches a packet sent there, returns the round-trip time if
    /// known. Returns `None` otherwise.
    pub(crate) fn answered(&mut self, place: Place, data: [u8; 8], now: Instant) -> Option<Option<Duration>> {
        let is_valid = |target: &Target| target.last.is_some_and(|last| now < last + ANSWER_LIFETIME);
        let is_right = |target: &&mut Target| {
            target.is_at(&place) && target.data == data && target.sent > 0 && is_valid(target)
        };
        let target = self.targets.iter_mut().find(is_right)?;
        target.answered = true;
        // Likewise, because all challenges to a target have the same data.
        let only = target.last.filter(|_| target.sent == 1);
        Some(only.map(|at| now.saturating_duration_since(at)))
    }

    /// Returns the node's own description.
    pub(crate) fn theirs(&self) -> Option<&Contact> {
        self.theirs.as_ref()
    }

    fn note_round(&mut self, now: Instant) {
        // NATs that refused once mostly refuse again, so the pauses double.
        let pause = ROUND_PAUSE[0] * 2u32.pow(self.rounds.min(8));
        self.rounds += 1;
        self.began = Some(now);
        self.next = Some(now + pause.min(ROUND_PAUSE[1]));
    }
}
