//! Seat of a network's controller in an attached program: its questions on their way, and their answers.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::membership::{Answer, Credentials, Head, Revocations, SignedRules};
use peersock::{Joined, MemberQuestion, Node, PeerStatus, PublicIdentity, Seat, SeatError};
use peersock_attach::{Answered, Asked, Bytes, Connection, Reached, Reply, SeatAsk, SeatReply, SignedSet};
use rustix::time::{ClockId, clock_gettime};

use super::host::{Stay, refusal};
use crate::failure::{Failure, Outcome};

/// Limit of questions that wait for a program, or for its answer.
const MAX_QUESTIONS: usize = 1024;

/// Time after which a question is dropped. Members have repeated it by then.
const EXPIRES: Duration = Duration::from_secs(5);

/// Returns the machine's monotonic clock, which all its processes share, in milliseconds.
fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let of = |part: i64, unit: u64| u64::try_from(part).unwrap_or(0).saturating_mul(unit);
    of(time.tv_sec, 1000) + of(time.tv_nsec, 1) / 1_000_000
}

/// Returns true if the node has dropped a question, because the program was stopped when it came.
pub(crate) fn has_expired(asked: &Asked) -> bool {
    asked.since.is_some_and(|since| Duration::from_millis(monotonic().saturating_sub(since)) >= EXPIRES)
}

/// Limit of questions in one message.
const BATCH: usize = 64;

/// Limit of heads in one answer, whose sets may have more than a megabyte each.
const MAX_HEADS: usize = 2;

/// Time for which a controller hears of a copy of a member, seconds. It asks every 5 s.
const COPY_FOR_S: f64 = 15.0;

/// Interval of looks whether an earlier controller has gone that has ended.
const RETRY: Duration = Duration::from_millis(5);

/// Time in which it leaves the seat.
const LEAVING: Duration = Duration::from_secs(5);

/// The seat that a program has.
pub(super) struct ProgramSeat {
    joined: Joined,
    questions: Arc<Questions>,
    // Dropped last: no question comes any more, and the node is an ordinary member.
    _seat: Seat,
}

impl Drop for ProgramSeat {
    fn drop(&mut self) {
        self.questions.end();
    }
}

/// Answers a program's message about the seat; without an answer, the program expects none.
pub(super) fn answer(held: &mut Option<ProgramSeat>, ask: SeatAsk, stay: &Stay<'_>) -> Option<Reply> {
    let done = match (ask, &*held) {
        (SeatAsk::Answers(answers), Some(seat)) => {
            seat.questions.answered(answers);
            return None;
        }
        (SeatAsk::Answers(_), None) => return None,
        (SeatAsk::Heads(known), Some(seat)) => return Some(Reply::Seat(seat.heads(&known))),
        (SeatAsk::Connected, Some(seat)) => return Some(Reply::Seat(seat.connected(stay))),
        (SeatAsk::Take { network, credentials }, None) => {
            take(&network, &credentials, stay).map(|seat| *held = Some(seat))
        }
        (SeatAsk::Take { .. }, Some(_)) => {
            Err(Failure::usage("this program serves a network already", "start a program for each network"))
        }
        (SeatAsk::Credentials(own), Some(seat)) => seat.set_credentials(&own),
        (SeatAsk::Revocations(set), Some(seat)) => seat.set_revocations(&set),
        (SeatAsk::Rules(rules), Some(seat)) => seat.set_rules(rules),
        (SeatAsk::Visit(members), Some(seat)) => seat.visit(&members),
        (_, None) => Err(Failure::usage("this program serves no network", "ask for the seat first")),
    };
    Some(match done {
        Ok(()) => Reply::Done,
        Err(failure) => Reply::Refused(refusal(&failure)),
    })
}

/// Takes the seat for a program. One that has ended leaves it soon.
fn take(network: &str, credentials: &Bytes, stay: &Stay<'_>) -> Outcome<ProgramSeat> {
    let has = |joined: &Joined| joined.id().to_string() == network && stay.program.has(joined.id());
    let joined = stay.node().networks().into_iter().find(has);
    let joined = joined.ok_or_else(|| {
        Failure::usage(format_args!("the program is not in network {network}"), "name it at the start")
    })?;
    let credentials = read(Credentials::parse(&credentials.0))?;
    let begun = Instant::now();
    loop {
        let questions = Arc::<Questions>::default();
        let asking = Arc::clone(&questions);
        // Before the attempt, because it may leave meanwhile.
        let holder = stay.server_of(joined.id());
        let taken = joined.take_seat(&credentials, Box::new(move |question| asking.add(question)));
        let is_leaving = holder.as_ref().is_some_and(|program| program.is_gone());
        match taken {
            Ok(seat) => {
                stay.note_server(joined.id());
                let seat = ProgramSeat { joined, questions, _seat: seat };
                seat.questions.start(stay.program.connection())?;
                return Ok(seat);
            }
            Err(SeatError::Taken(_)) if is_leaving && begun.elapsed() < LEAVING => thread::sleep(RETRY),
            Err(error) => return Err(seat_failure(error, holder.map(|program| program.process()))),
        }
    }
}

/// Returns the failure of a controller. `holder` is the process that serves the network, if it is not this
/// one.
pub(crate) fn seat_failure(error: SeatError, holder: Option<u32>) -> Failure {
    match error {
        SeatError::Taken(network) => {
            let process = holder.unwrap_or_else(std::process::id);
            Failure::new(
                format_args!("network {network} is already served by process {process}"),
                format_args!("end it first (`kill {process}`)"),
            )
        }
        SeatError::Key(error) => error.into(),
        SeatError::Credentials(_) => Failure::new(
            format_args!("{error}"),
            "check the clock of this machine, and renew the controller's right: run `peersock network renew`",
        ),
        error => Failure::new(format_args!("{error}"), "start the controller again"),
    }
}

impl ProgramSeat {
    fn set_credentials(&self, own: &Bytes) -> Outcome {
        let own = read(Credentials::parse(&own.0))?;
        let set = self.joined.set_credentials(&own);
        set.map_err(|refused| seat_failure(SeatError::Credentials(refused), None))
    }

    fn set_revocations(&self, SignedSet { head, set }: &SignedSet) -> Outcome {
        let (head, set) = (read(Head::parse(&head.0))?, read(Revocations::parse(&set.0))?);
        self.joined.set_revocations(&head, &set).map_err(|refused| {
            Failure::new(format_args!("the revocations do not count: {refused}"), "check the clock")
        })
    }

    fn set_rules(&self, rules: Bytes) -> Outcome {
        let rules = read(SignedRules::parse(rules.0.into()))?;
        self.joined.set_rules(&rules).map_err(|refused| {
            Failure::new(format_args!("the rules do not count: {refused}"), "check the clock")
        })
    }

    fn visit(&self, members: &[String]) -> Outcome {
        let members: Result<Vec<PublicIdentity>, _> = members.iter().map(|key| key.parse()).collect();
        self.joined.visit_members(&read(members)?);
        Ok(())
    }

    /// Returns some of the heads that are not known.
    fn heads(&self, known: &[Bytes]) -> SeatReply {
        let all = self
            .joined
            .revocations()
            .into_iter()
            .map(|(head, set)| SignedSet { head: Bytes(head.to_bytes()), set: Bytes(set.to_vec()) });
        SeatReply::Heads(all.filter(|one| !known.contains(&one.head)).take(MAX_HEADS).collect())
    }

    fn connected(&self, stay: &Stay<'_>) -> SeatReply {
        SeatReply::Connected(connected(stay.node(), &self.joined))
    }
}

/// Returns the peers in a network that have a session.
pub(crate) fn connected(node: &Node, joined: &Joined) -> Vec<Reached> {
    let id = joined.id();
    let of_network = node.peers().into_iter().filter(|peer| peer.network == id && peer.connected);
    let reached = |peer: PeerStatus| {
        let copy = peer.conflict.filter(|other| other.proven && other.seen_s < COPY_FOR_S);
        let source = peer.path?.ip();
        Some(Reached { node: peer.id.to_string(), source, copy: copy.map(|other| other.remote.ip()) })
    };
    of_network.filter_map(reached).collect()
}

/// Returns what a program has sent, if it can be read.
fn read<T, E: std::fmt::Display>(parsed: Result<T, E>) -> Outcome<T> {
    parsed.map_err(|error| {
        Failure::new(format_args!("what the controller sends cannot be read: {error}"), "start it again")
    })
}

/// Questions to one program. They are dropped while it is stopped, so that the node never waits for it.
#[derive(Default)]
struct Questions {
    state: Mutex<State>,
    changed: Condvar,
}

struct State<Q = MemberQuestion> {
    last: u64,
    /// Questions that are not sent, the oldest first. They are open, too.
    unsent: VecDeque<u64>,
    /// Questions without an answer, with their times, in whose order the numbers are.
    open: BTreeMap<u64, (Instant, Q)>,
    is_over: bool,
}

impl<Q> Default for State<Q> {
    fn default() -> Self {
        State { last: 0, unsent: VecDeque::new(), open: BTreeMap::new(), is_over: false }
    }
}

impl<Q> State<Q> {
    /// Adds a question. Returns false if it is dropped, because too many wait.
    fn add(&mut self, now: Instant, question: Q) -> bool {
        if self.open.len() >= MAX_QUESTIONS {
            drop(self.expired(now));
        }
        if self.open.len() >= MAX_QUESTIONS {
            return false;
        }
        self.last += 1;
        self.open.insert(self.last, (now, question));
        self.unsent.push_back(self.last);
        true
    }

    /// Takes the questions that have waited too long.
    fn expired(&mut self, now: Instant) -> Vec<Q> {
        let mut expired = Vec::new();
        while let Some(oldest) = self.open.first_entry()
            && now.saturating_duration_since(oldest.get().0) >= EXPIRES
        {
            expired.push(oldest.remove().1);
        }
        if !expired.is_empty() {
            let open = &self.open;
            self.unsent.retain(|number| open.contains_key(number));
        }
        expired
    }
}

impl State {
    /// Takes the next questions for the program.
    fn next(&mut self, now: Instant) -> Vec<Asked> {
        drop(self.expired(now));
        let (count, clock) = (self.unsent.len().min(BATCH), monotonic());
        let numbers: Vec<_> = self.unsent.drain(..count).collect();
        let asked = |number: u64| {
            let (since, question) = self.open.get(&number)?;
            let waited = u64::try_from(now.saturating_duration_since(*since).as_millis()).ok()?;
            Some(Asked {
                number,
                asker: question.asker().to_string(),
                source: question.source()?,
                question: Bytes(question.question().to_bytes()),
                since: Some(clock.saturating_sub(waited)),
            })
        };
        numbers.into_iter().filter_map(asked).collect()
    }
}

impl Questions {
    fn add(&self, question: MemberQuestion) {
        if self.state().add(Instant::now(), question) {
            self.changed.notify_all();
        }
    }

    /// Starts the thread that sends the questions.
    fn start(self: &Arc<Self>, connection: &Arc<Connection>) -> io::Result<()> {
        let (questions, connection) = (Arc::clone(self), Arc::clone(connection));
        let send = move || {
            while let Some(asked) = questions.wait() {
                if connection.send(&Reply::Seat(SeatReply::Asked(asked))).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("questions".into()).spawn(send).map(drop)
    }

    /// Waits for questions that can be sent; `None` at the end.
    fn wait(&self) -> Option<Vec<Asked>> {
        let mut state = self.state();
        loop {
            if state.is_over {
                return None;
            }
            let asked = state.next(Instant::now());
            if !asked.is_empty() {
                return Some(asked);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the program's answers. What is no answer, or comes too late, is dropped.
    fn answered(&self, answers: Vec<Answered>) {
        for Answered { number, answer } in answers {
            let question = self.state().open.remove(&number);
            if let (Some((_, question)), Ok(answer)) = (question, Answer::parse(&answer.0)) {
                question.answer(&answer);
            }
        }
    }

    /// Ends the thread, and drops all questions.
    fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        let left = (std::mem::take(&mut state.open), std::mem::take(&mut state.unsent));
        drop(state);
        self.changed.notify_all();
        drop(left);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_stopped_has_a_bounded_number_of_questions_that_expire() {
        let (mut state, begun) = (State::default(), Instant::now());
        assert_eq!((0..2000).filter(|question| state.add(begun, *question)).count(), MAX_QUESTIONS);
        assert!(!state.add(begun + EXPIRES - Duration::from_millis(1), 2000), "none has expired");
        assert!(state.add(begun + EXPIRES, 2001), "all have expired");
        let left: Vec<_> = state.open.values().map(|(_, question)| *question).collect();
        assert_eq!((left, state.unsent), (vec![2001], VecDeque::from([MAX_QUESTIONS as u64 + 1])));
    }

    #[test]
    fn a_question_that_was_read_late_has_expired() {
        let ago = |time: Duration| Asked {
            number: 1,
            asker: String::new(),
            source: [192, 0, 2, 1].into(),
            question: Bytes::default(),
            since: monotonic().checked_sub(time.as_millis() as u64),
        };
        assert!(!has_expired(&ago(Duration::ZERO)));
        assert!(!has_expired(&ago(EXPIRES / 2)));
        assert!(has_expired(&ago(EXPIRES)));
        assert!(!has_expired(&Asked { since: None, ..ago(EXPIRES) }), "of an earlier version");
    }
}
