use std::time::Duration;

use peersock_overlay::NetworkId;

use crate::{Content, Random};

/// One of the two ends of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Who connects.
    Client,
    /// Who accepts.
    Server,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What two programs say to each other over one TCP connection.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In which network.
    pub network: NetworkId,
    /// The node that connects, as the world numbers them.
    pub client: usize,
    /// The node that accepts; may be the same.
    pub server: usize,
    /// The port that it listens on.
    pub port: u16,
    /// What each side writes.
    pub scripts: [Script; 2],
    /// How each side reads.
    pub readers: [Reader; 2],
}

impl Plan {
    /// What one side writes.
    pub fn script(&self, side: Side) -> &Script {
        &self.scripts[side as usize]
    }

    /// How one side reads.
    pub fn reader(&self, side: Side) -> Reader {
        self.readers[side as usize]
    }

    /// The bytes that one side writes.
    pub fn content(&self, conversation: u64, side: Side) -> Content {
        Content::new(self.network, conversation, side as u64)
    }
}

/// What one side writes, and when. At its end it closes its direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script(pub Vec<Step>);

/// One step of a [`Script`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write so many bytes.
    Write(u64),
    /// Wait until so many bytes in all have come from the other side.
    Await(u64),
    /// Wait.
    Pause(Duration),
}

impl Script {
    /// Everything that it writes, bytes.
    pub fn total(&self) -> u64 {
        let written = |step: &Step| if let Step::Write(bytes) = step { *bytes } else { 0 };
        self.0.iter().map(written).sum()
    }
}

/// How a side reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// At most so many bytes at a time.
    pub chunk: usize,
    /// After each chunk it rests so long; zero reads as fast as data comes.
    pub rest: Duration,
}

impl Reader {
    /// Reads everything at once.
    pub const EAGER: Self = Self { chunk: 64 * 1024, rest: Duration::ZERO };

    /// Any reader for a stream of `total` bytes: mostly eager, sometimes in small pieces, sometimes slow, but
    /// never so slow that the stream takes more than a few seconds.
    pub fn random(random: &mut Random, total: u64) -> Self {
        if random.chance(0.7) {
            return Self::EAGER;
        }
        if random.chance(0.5) {
            return Self { chunk: random.size(1024..=8192) as usize, rest: Duration::ZERO };
        }
        let chunk = (total / random.within(5..=50)).clamp(1, 256 * 1024) as usize;
        Self { chunk, rest: random.duration(Duration::from_millis(1)..=Duration::from_millis(60)) }
    }
}

/// The kinds of conversation that programs have.
impl Plan {
    /// A conversation of any kind, of at most `most` bytes per direction and with pauses of at most `pause`.
    pub fn random(
        random: &mut Random,
        network: NetworkId,
        (client, server): (usize, usize),
        port: u16,
        most: u64,
        pause: Duration,
    ) -> Self {
        let scripts = match random.below(10) {
            // Upload, and a short answer after the half close.
            0..=2 => {
                let bulk = random.size(10_000.min(most)..=most);
                let answer = random.size(1..=1000);
                [Script(vec![Step::Write(bulk)]), Script(vec![Step::Await(bulk), Step::Write(answer)])]
            }
            // Download on request.
            3..=5 => {
                let request = random.size(1..=500);
                let bulk = random.size(10_000.min(most)..=most);
                [
                    Script(vec![Step::Write(request), Step::Await(bulk)]),
                    Script(vec![Step::Await(request), Step::Write(bulk)]),
                ]
            }
            // Both at once.
            6 => {
                let half = most / 2 + 1;
                [0; 2].map(|_| Script(vec![Step::Write(random.size(1000.min(half)..=half))]))
            }
            // Question and answer, with pauses: idle, then talk.
            _ => Self::dialogue(random, pause),
        };
        Self::new(random, network, (client, server), port, scripts)
    }

    /// One byte there and one back: whether the two can talk at all.
    pub fn greeting(network: NetworkId, (client, server): (usize, usize), port: u16) -> Self {
        let scripts =
            [Script(vec![Step::Write(1), Step::Await(1)]), Script(vec![Step::Await(1), Step::Write(1)])];
        Self { network, client, server, port, scripts, readers: [Reader::EAGER; 2] }
    }

    fn new(
        random: &mut Random,
        network: NetworkId,
        (client, server): (usize, usize),
        port: u16,
        scripts: [Script; 2],
    ) -> Self {
        let readers = [Side::Client, Side::Server]
            .map(|side| Reader::random(random, scripts[side.other() as usize].total()));
        Self { network, client, server, port, scripts, readers }
    }

    fn dialogue(random: &mut Random, pause: Duration) -> [Script; 2] {
        let (mut asks, mut answers) = (Vec::new(), Vec::new());
        let (mut asked, mut answered) = (0, 0);
        let mut pauses = MAX_PAUSES;
        for _ in 0..random.within(1..=12) {
            let (question, answer) = (random.size(1..=4000), random.size(1..=20_000));
            if random.chance(0.3) {
                let pause = random.duration(Duration::ZERO..=pause).min(pauses);
                pauses -= pause;
                asks.push(Step::Pause(pause));
            }
            asks.push(Step::Write(question));
            asked += question;
            answers.extend([Step::Await(asked), Step::Write(answer)]);
            answered += answer;
            asks.push(Step::Await(answered));
        }
        [Script(asks), Script(answers)]
    }
}

/// All pauses of one conversation together; less than the time in which it must be complete.
const MAX_PAUSES: Duration = Duration::from_secs(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_plan_waits_for_what_nobody_writes() {
        let mut random = Random::from_seed(1);
        let network = "ff00010002000000".parse().expect("an ID");
        for _ in 0..1000 {
            let plan = Plan::random(&mut random, network, (0, 1), 1, 1 << 20, Duration::from_secs(1));
            let mut written = [0u64; 2];
            let mut step = [0; 2];
            // Each round lets both sides go on as far as they can.
            for _ in 0..100 {
                for side in [Side::Client, Side::Server] {
                    let (own, other) = (side as usize, side.other() as usize);
                    while let Some(next) = plan.script(side).0.get(step[own]) {
                        match *next {
                            Step::Await(bytes) if written[other] < bytes => break,
                            Step::Write(bytes) => written[own] += bytes,
                            _ => {}
                        }
                        step[own] += 1;
                    }
                }
            }
            assert_eq!(step, [plan.scripts[0].0.len(), plan.scripts[1].0.len()]);
            assert_eq!(written, [plan.scripts[0].total(), plan.scripts[1].total()]);
        }
    }
}
