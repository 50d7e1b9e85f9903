use std::time::Duration;

use peersock_overlay::NetworkId;

use crate::{Content, Random};

/// One of the two ends of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The end that connects.
    Client,
    /// The end that accepts.
    Server,
}

impl Side {
    /// Returns the other end.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Script of what two programs say to each other over one TCP connection.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Network of the connection.
    pub network: NetworkId,
    /// The node that connects, as the world numbers them.
    pub client: usize,
    /// The node that accepts, which may be the same node.
    pub server: usize,
    /// Port on which the server listens.
    pub port: u16,
    /// Script of each side.
    pub scripts: [Script; 2],
    /// Reading behaviour of each side.
    pub readers: [Reader; 2],
}

impl Plan {
    /// Returns the script of one side.
    pub fn script(&self, side: Side) -> &Script {
        &self.scripts[side as usize]
    }

    /// Returns the reading behaviour of one side.
    pub fn reader(&self, side: Side) -> Reader {
        self.readers[side as usize]
    }

    /// Returns the byte stream that one side writes.
    pub fn content(&self, conversation: u64, side: Side) -> Content {
        Content::new(self.network, conversation, side as u64)
    }
}

/// The data one side writes, and when. At the end of its script, a side closes its direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script(pub Vec<Step>);

/// One step of a [`Script`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write this number of bytes.
    Write(u64),
    /// Wait until this number of bytes in total has come from the other side.
    Await(u64),
    /// Wait this long.
    Pause(Duration),
}

impl Script {
    /// Returns the total number of bytes that the script writes.
    pub fn total(&self) -> u64 {
        let written = |step: &Step| if let Step::Write(bytes) = step { *bytes } else { 0 };
        self.0.iter().map(written).sum()
    }
}

/// Reading behaviour of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// Maximum number of bytes per read.
    pub chunk: usize,
    /// Pause after each chunk. With zero, the side reads as fast as data comes.
    pub rest: Duration,
}

impl Reader {
    /// Reader that reads everything at once.
    pub const EAGER: Self = Self { chunk: 64 * 1024, rest: Duration::ZERO };

    /// Draws a reader for a stream of `total` bytes: mostly eager, sometimes in small pieces, sometimes slow.
    /// The stream never takes more than a few seconds.
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
    /// Draws a conversation of any kind, with at most `most` bytes per direction and pauses of at most
    /// `pause`.
    pub fn random(
        random: &mut Random,
        network: NetworkId,
        (client, server): (usize, usize),
        port: u16,
        most: u64,
        pause: Duration,
    ) -> Self {
        let scripts = match random.below(10) {
            // Upload, and a short answer after the half-close.
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

    /// Plans one byte there and one byte back, to test that the two nodes can talk at all.
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

/// Limit on the sum of all pauses of one conversation. It is less than the deadline for completion.
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
            // Each round lets both sides advance as far as they can.
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
