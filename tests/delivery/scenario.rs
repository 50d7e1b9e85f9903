//! The table of deliveries: a receiver's behaviour towards a sender, and the outcome that the sender must
//! see. Tests of several crates include this file; the table is in `scenarios.txt` beside it.

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// Outcome with kernel TCP; `None` means an error only for many bytes.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) steps: Vec<Step>,
}

/// Outcome that a sender sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    Error,
}

/// One action of a receiver.
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

/// Part of the sender's data.
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
    /// Returns true if the scenario ends the receiver's process, which then must be a separate one.
    pub(crate) fn ends_process(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Killed | Step::Stopped))
    }
}

/// Returns the scenarios, and the numbers of bytes for each.
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

/// Returns the bytes that a sender writes.
pub(crate) fn content(size: usize) -> Vec<u8> {
    (0..size as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Checks the sender's outcome against the bytes that the receiver's program has read.
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

/// Bytes that exceed all buffers on the path while the receiver does not read.
const MUCH: usize = 10_000_000;
