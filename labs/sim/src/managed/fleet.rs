//! Ten thousand members of one controller, of which only the times are simulated at which they ask.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use peersock_controller::{Asked, Controller, InviteOptions, NewNetwork, Settings, Store};
use peersock_overlay::membership::{Answer, CertifyRequest, Question, Token, UnixTime, pace};
use peersock_overlay::{Identity, NetworkId, PublicIdentity};
use peersock_testnet::{Queue, Random};
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;

use super::field::UNIX_TIME;
use crate::{Time, Violation};

/// Number of members that a controller of this size answers in a tenth of a second on average when all ask
/// within a minute, and the share of all by which the intervals of smaller fleets are longer.
const USUAL: u32 = 10_000;

/// Number of requests that are decided at a time.
const BATCH: usize = 500;

/// Members of a real controller. The times of their questions are those of the members' own code
/// ([`pace`]); sessions, and thus handshakes, are left out: a member has one within a minute after the
/// controller is there again.
pub struct Fleet {
    controller: Controller,
    rng: ChaCha20Rng,
    random: Random,
    members: Vec<Member>,
    queue: Queue<Time, usize>,
    now: Time,
    /// Times between which the controller is away.
    away: Option<(Time, Time)>,
    /// Number of answers in each interval.
    answers: BTreeMap<u128, u32>,
}

struct Member {
    identity: PublicIdentity,
    source: IpAddr,
    request: CertifyRequest,
    ends: UnixTime,
    /// Time within each minute at which it looks for a controller.
    phase: Duration,
    /// Time since which it wants another certificate.
    since: Option<Time>,
}

/// Effects of an absence of the controller on a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// Number of members whose certificates have ended.
    pub ended: usize,
    /// Time after the absence until all had other certificates that wanted some.
    pub renewed: Duration,
    /// Most answers in an interval after the absence, in which one member of 600 asks if all come in a
    /// minute.
    pub peak: u32,
    /// Questions of one member on average, answered or not.
    pub questions: u64,
}

impl Fleet {
    /// Makes a controller and lets this number of members join.
    pub fn new(seed: u64, members: usize) -> Self {
        let mut random = Random::from_seed(seed);
        let mut rng = ChaCha20Rng::seed_from_u64(random.number());
        let new = NewNetwork {
            name: "team".into(),
            own_name: "controller".parse().expect("a name"),
            settings: Settings::default(),
            is_offline: false,
        };
        let id_of = |_: &_| NetworkId::new(0x8056_c2e2_1c00_0001).ok();
        let now = UnixTime::from(UNIX_TIME);
        let store = Store::in_memory().expect("memory");
        let created = Controller::create(store, &[200; 32], &new, now, &mut rng, id_of);
        let mut controller = created.expect("an empty store").0;
        controller.start(now, Duration::ZERO).expect("a good store");
        let options = InviteOptions { uses: u32::MAX, ..InviteOptions::default() };
        let token = controller.invite(now, &mut rng, "alice", &options).expect("a good invite");
        let mut fleet = Self {
            controller,
            rng,
            random,
            members: Vec::new(),
            queue: Queue::default(),
            now: Time::ZERO,
            away: None,
            answers: BTreeMap::new(),
        };
        (0..members).for_each(|number| fleet.add(number, &token));
        for first in (0..members).step_by(BATCH) {
            fleet.join(first..members.min(first + BATCH));
        }
        fleet
    }

    fn add(&mut self, number: usize, token: &Token) {
        let seed: [u8; 32] = self.random.bytes();
        self.members.push(Member {
            identity: *Identity::from_seed(&seed).public(),
            source: Ipv6Addr::from((0x2001_0db8_u128 << 96) | ((number as u128) << 64)).into(),
            request: CertifyRequest { token: Some(token.clone()), starts: 1, ..CertifyRequest::default() },
            ends: UnixTime::default(),
            phase: self.random.duration(Duration::ZERO..=pace::KEEP_INTERVAL),
            since: None,
        });
    }

    /// Lets some members ask at once.
    fn join(&mut self, numbers: std::ops::Range<usize>) {
        let asked: Vec<Asked> = self.members[numbers.clone()]
            .iter()
            .map(|member| Asked {
                peer: member.identity,
                source: member.source,
                question: Question::Certify(member.request.clone()),
            })
            .collect();
        let answers = self.controller.answer_all(self.unix_time(), &mut self.rng, &asked);
        for (number, answer) in numbers.zip(answers) {
            self.members[number].request.token = None;
            self.take(number, &answer);
        }
    }

    fn unix_time(&self) -> UnixTime {
        UnixTime::from(UNIX_TIME + self.now)
    }

    fn draw(&mut self) -> f64 {
        self.random.within(0..=1 << 32) as f64 / (1_u64 << 32) as f64
    }

    fn take(&mut self, number: usize, answer: &Answer) {
        let Answer::Certified { credentials, renew_after, .. } = answer else {
            panic!("member {number} gets no certificate: {answer:?}")
        };
        let wait = pace::renewal(Duration::from_secs((*renew_after).into()), self.draw());
        let member = &mut self.members[number];
        (member.ends, member.since) = (credentials.end(), None);
        self.queue.push(self.now + wait, number);
    }

    /// Lets time pass. Returns the number of members whose certificates have ended, and of their questions.
    fn run(&mut self, time: Duration) -> (usize, u64) {
        let end = self.now + time;
        let (mut ended, mut questions) = (0, 0);
        while let Some((at, number)) = self.queue.pop_due(end) {
            self.now = at;
            questions += 1;
            let since = *self.members[number].since.get_or_insert(at);
            if let Some((_, back)) = self.away.filter(|(begin, back)| (*begin..*back).contains(&at)) {
                let pause = pace::pause(at - since, false, self.draw());
                // A session that begins meanwhile sends the question that waits.
                let member = &self.members[number];
                let met = next_at(back, member.phase);
                self.queue.push((at + pause).min(met), number);
                continue;
            }
            let now = self.unix_time();
            ended += usize::from(self.members[number].ends <= now);
            let member = &self.members[number];
            let question = Question::Certify(member.request.clone());
            let (identity, source) = (member.identity, member.source);
            let answer = self.controller.answer(now, &mut self.rng, &identity, source, question);
            *self.answers.entry(at.as_nanos() / self.interval().as_nanos()).or_default() += 1;
            self.take(number, &answer);
        }
        self.now = end;
        (ended, questions)
    }

    /// Returns the time in which one member of 600 asks if all come in a minute: 100 ms, and more for a small
    /// fleet, which would have no even load otherwise.
    fn interval(&self) -> Duration {
        Duration::from_millis(100) * (USUAL / (self.members.len() as u32).max(1)).max(1)
    }

    /// Lets the controller be away for some time, and members come back.
    ///
    /// # Errors
    /// Returns a [`Violation`] if a certificate has ended, or too many members have come at once.
    pub fn leave_alone(&mut self, time: Duration) -> Result<Absence, Violation> {
        // Two renewals of each, so that their times are spread.
        let (before, _) = self.run(2 * pace::RENEW_BY);
        let begin = self.now;
        self.away = Some((begin, begin + time));
        let (during, asked) = self.run(time);
        self.answers.clear();
        let waiting = |fleet: &Self| fleet.members.iter().any(|member| member.since.is_some());
        let mut renewed = Duration::ZERO;
        let (mut after, mut more) = (0, 0);
        while waiting(self) && renewed < pace::LONGEST_PAUSE {
            let (ended, questions) = self.run(Duration::from_secs(1));
            (after, more) = (after + ended, more + questions);
            renewed += Duration::from_secs(1);
        }
        let peak = self.answers.values().copied().max().unwrap_or(0);
        let (count, ended) = (self.members.len(), before + during + after);
        let questions = (asked + more) / count.max(1) as u64;
        let mean = f64::from(self.members.len() as u32) * self.interval().as_secs_f64() / 60.0;
        let absence = Absence { ended, renewed, peak, questions };
        if ended > 0 || renewed > 2 * pace::KEEP_INTERVAL || f64::from(peak) > 3.0 * mean {
            return Err(Violation(format!("{count} members, controller away for {time:?}: {absence:?}")));
        }
        Ok(absence)
    }
}

/// Returns the first time at a phase of a minute that is not before another one.
fn next_at(at: Time, phase: Duration) -> Time {
    let interval = pace::KEEP_INTERVAL.as_nanos();
    let since = (at + pace::KEEP_INTERVAL - phase).as_nanos() % interval;
    let wait = (interval - since) % interval;
    at + Duration::from_nanos(u64::try_from(wait).unwrap_or(0))
}
