//! Random inputs of `overlay_ops` in which the adversary acts as a member, without libFuzzer.

use peersock_testnet::Random;

/// Number of the target's operation kinds. The numbers below belong to `Operation`'s variants.
const KINDS: u32 = 18;
const JOIN: u32 = 0;
const SEND: u32 = 2;
const WAIT: u32 = 5;
const DELIVER: u32 = 7;
const RESTART: u32 = 14;
const MEMBER: u32 = 17;
/// Numbers of source kinds and of member message kinds.
const SOURCES: u32 = 3;
const ACTS: u32 = 18;
/// Bytes of the fields of each message, in the order of `Act`'s variants. An empty list takes one.
const FIELDS: [usize; ACTS as usize] = [1, 2, 1, 0, 0, 0, 0, 1, 1, 6, 1, 9, 8, 4, 9, 0, 1, 0];
const INITIATE: u32 = 3;
const KEEPALIVE: u32 = 8;

#[test]
fn nothing_that_a_member_sends_does_harm() {
    for seed in 0..60 {
        let input = input(seed);
        let outcome = std::panic::catch_unwind(|| peersock_fuzz_targets::overlay_ops(&input));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

/// Makes an input with two nodes in the adversary's network, and the adversary's messages while they talk.
fn input(seed: u64) -> Vec<u8> {
    let mut random = Random::from_seed(seed);
    let mut input = Input::default();
    for node in 0..2 {
        input.operation(JOIN, &[node, 0]);
    }
    input.operation(SEND, &[0, 1, 0, 9]);
    input.operation(DELIVER, &[32]);
    for target in 0..2 {
        // Send from home, so that the adversary has sessions with both.
        for act in [INITIATE, KEEPALIVE] {
            input.operation(MEMBER, &[target]);
            input.choice(0, SOURCES);
            input.choice(act, ACTS);
            if act == KEEPALIVE {
                input.0.push(0);
            }
        }
    }
    for _ in 0..130 {
        match random.below(16) {
            0 => input.operation(SEND, &[random.below(2) as u8, random.below(2) as u8, 0, 9]),
            1 => input.operation(DELIVER, &[random.below(32) as u8]),
            2 => input.operation(WAIT, &random.bytes::<2>()),
            3 if random.chance(0.1) => input.operation(RESTART, &random.bytes::<2>()),
            _ => {
                input.operation(MEMBER, &[random.below(2) as u8]);
                let source = random.below(SOURCES as usize) as u32;
                input.choice(source, SOURCES);
                if source > 0 {
                    input.0.push(random.below(4) as u8);
                }
                let act = random.below(ACTS as usize) as u32;
                input.choice(act, ACTS);
                input.0.extend((0..FIELDS[act as usize]).map(|_| random.number() as u8));
            }
        }
    }
    input.0
}

/// Input bytes in the format that `arbitrary` reads.
#[derive(Default)]
struct Input(Vec<u8>);

impl Input {
    fn operation(&mut self, kind: u32, fields: &[u8]) {
        self.choice(kind, KINDS);
        self.0.extend(fields);
    }

    /// Chooses variant `which` of `of`.
    fn choice(&mut self, which: u32, of: u32) {
        let middle = (u64::from(which) * 2 + 1) * (1 << 31) / u64::from(of);
        self.0.extend((middle as u32).to_le_bytes());
    }
}
