//! The table of deliveries: what a receiver does to a sender, and what the sender must be told. Tests of
//! several crates include this file; the table is in `scenarios.txt` beside it.

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// What the kernel's TCP makes of it; `None`: an error if it is much.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) steps: Vec<Step>,
}

/// What a sender finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    Error,
}

/// What a receiver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Refuse,
    Unlisten,
    Accept,
    See,
    Read(Amount),
    End,
    ShutdownWrite,
    ShutdownRead,
    Close,
    Reset,
    Killed,
    Stopped,
}

/// How much of what the sender writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    Half,
    ButOne,
    All,
}

impl Amount {
    pub(crate) fn of(self, size: usize) -> usize {
        match self {
            Amount::Half => size / 2,
            Amount::ButOne => size - 1,
            Amount::All => size,
        }
    }
}

impl Scenario {
    /// Whether the receiver needs a process of its own, which does not survive it.
    pub(crate) fn ends_process(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Killed | Step::Stopped))
    }
}

/// The scenarios, and the numbers of bytes that each is played with.
pub(crate) fn table() -> (Vec<Scenario>, Vec<usize>) {
    let (mut scenarios, mut sizes) = (Vec::new(), Vec::new());
    let lines = include_str!("scenarios.txt").lines();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let name = words.next().expect("a name");
        if name == "sizes" {
            sizes.extend(words.map(|size| size.parse::<usize>().expect("a size")));
            continue;
        }
        let outcome = match words.next() {
            Some("delivered") => Some(Outcome::Delivered),
            Some("error") => Some(Outcome::Error),
            Some("if-much") => None,
            other => panic!("{name}: {other:?} is no outcome"),
        };
        let steps = words.collect::<Vec<_>>().join(" ").split(", ").map(step).collect();
        scenarios.push(Scenario { name: name.to_owned(), outcome, steps });
    }
    assert!(!scenarios.is_empty() && !sizes.is_empty());
    (scenarios, sizes)
}

fn step(text: &str) -> Step {
    match text {
        "refuse" => Step::Refuse,
        "unlisten" => Step::Unlisten,
        "accept" => Step::Accept,
        "see" => Step::See,
        "read half" => Step::Read(Amount::Half),
        "read but-one" => Step::Read(Amount::ButOne),
        "read all" => Step::Read(Amount::All),
        "end" => Step::End,
        "shutdown write" => Step::ShutdownWrite,
        "shutdown read" => Step::ShutdownRead,
        "close" => Step::Close,
        "reset" => Step::Reset,
        "killed" => Step::Killed,
        "stopped" => Step::Stopped,
        other => panic!("{other:?} is no step"),
    }
}

/// The bytes that a sender writes.
pub(crate) fn content(size: usize) -> Vec<u8> {
    (0..size as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// The rule: what the sender was told against what the receiver's program has read.
#[track_caller]
pub(crate) fn judge(scenario: &Scenario, size: usize, face: &str, told: Outcome, read: &[u8]) {
    let Scenario { name, outcome, .. } = scenario;
    let wanted = content(size);
    assert!(wanted.starts_with(read), "{name}, {size} bytes, {face}: other bytes have arrived");
    let outcome = outcome.or((size >= MUCH).then_some(Outcome::Error));
    if told == Outcome::Delivered && outcome.is_some() {
        assert_eq!(read.len(), size, "{name}, {face}: lost, and the sender was not told");
    }
    assert!(outcome.is_none_or(|outcome| outcome == told), "{name}, {size} bytes, {face}: {told:?}");
}

/// More than what all buffers on the way hold while nobody reads.
const MUCH: usize = 10_000_000;
