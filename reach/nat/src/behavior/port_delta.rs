//! Rules by which the mapped ports of successive flows follow each other, so that a peer can guess the next
//! port.

use std::fmt;

use serde::Serialize;

use super::Sample;

/// Rule by which mapped ports follow from local ones or from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeltaKind {
    /// The mapped port is the local one.
    Equal,
    /// The mapped port is the local one plus a constant.
    Preserving,
    /// Each new mapped port is the last one plus a constant, regardless of the local port.
    Independent,
    /// Each new mapped port is the last one plus a constant if the local port is the last one plus 1.
    Dependent,
    /// No rule was found.
    Random,
}

impl fmt::Display for DeltaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeltaKind::Equal => "equal",
            DeltaKind::Preserving => "preserving",
            DeltaKind::Independent => "independent",
            DeltaKind::Dependent => "dependent",
            DeltaKind::Random => "random",
        })
    }
}

/// The rule of mapped ports with its constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Delta {
    /// The rule.
    #[serde(rename = "type")]
    pub kind: DeltaKind,
    /// The constant of the rule: the number added to the local port (preserving) or to the last mapped port
    /// (independent, dependent). It ranges from -32,768 to 32,767, because ports wrap. 0 for the other rules.
    pub value: i16,
}

/// Largest plausible step between two mappings; a larger one counts as chance.
const LARGEST_STEP: i16 = 256;

/// Smallest number of flows for a rule; with fewer, a match could be chance.
const MIN_FLOWS: usize = 3;

/// Finds the rule; `None` with fewer than three flows. A quarter of the flows may break it, because a port
/// can be taken, and other machines use the NAT too.
pub(super) fn find(flows: &[Sample]) -> Option<Delta> {
    if flows.len() < MIN_FLOWS {
        return None;
    }
    let found = |kind, value| Some(Delta { kind, value });
    let shifts: Vec<i16> = flows.iter().map(|flow| step(flow.local.port(), flow.mapped.port())).collect();
    match usual(&shifts) {
        Some(0) => return found(DeltaKind::Equal, 0),
        Some(shift) => return found(DeltaKind::Preserving, shift),
        None => {}
    }
    let pairs = || flows.windows(2).map(|pair| (&pair[0], &pair[1]));
    let follows = |(a, b): &(&Sample, &Sample)| step(a.local.port(), b.local.port()) == 1;
    let steps_of = |(a, b): (&Sample, &Sample)| step(a.mapped.port(), b.mapped.port());
    let is_step = |step: &i16| (1..=LARGEST_STEP).contains(&step.checked_abs().unwrap_or(i16::MAX));

    let all: Vec<i16> = pairs().map(steps_of).collect();
    if let Some(value) = usual(&all).filter(is_step) {
        return found(DeltaKind::Independent, value);
    }
    let following: Vec<i16> = pairs().filter(follows).map(steps_of).collect();
    if following.len() >= 2
        && let Some(value) = usual(&following).filter(is_step)
    {
        return found(DeltaKind::Dependent, value);
    }
    found(DeltaKind::Random, 0)
}

/// Returns the value that at least three quarters of the values have.
fn usual(values: &[i16]) -> Option<i16> {
    let count = |wanted: i16| values.iter().filter(|value| **value == wanted).count();
    values.iter().copied().find(|value| count(*value) * 4 >= values.len() * 3)
}

/// Returns the step from one port to another. Ports wrap at 65,536.
fn step(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from).cast_signed()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Makes flows from these local ports, as a NAT with the given rule maps them one after another.
    fn flows(locals: &[u16], mut map: impl FnMut(u16) -> u16) -> Vec<Sample> {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let sample =
            |port| Sample { local: at(port), server: at(1), mapped: at(map(port)), rtt: Duration::ZERO };
        locals.iter().copied().map(sample).collect()
    }

    fn rule(locals: &[u16], map: impl FnMut(u16) -> u16) -> Option<(DeltaKind, i16)> {
        find(&flows(locals, map)).map(|delta| (delta.kind, delta.value))
    }

    const LOCALS: [u16; 6] = [40_000, 40_001, 40_002, 9_100, 33_333, 51_777];

    #[test]
    fn two_flows_say_nothing() {
        assert_eq!(rule(&LOCALS[..2], |port| port), None);
    }

    #[test]
    fn a_port_that_was_taken_does_not_hide_the_rule() {
        assert_eq!(
            rule(&LOCALS, |port| if port == 9_100 { 1024 } else { port }),
            Some((DeltaKind::Equal, 0))
        );
    }

    #[test]
    fn other_machines_flows_in_between_do_not_hide_the_rule() {
        let mut last = 20_000;
        let map = |port| {
            last += if port == 51_777 { 6 } else { 2 };
            last
        };
        assert_eq!(rule(&LOCALS, map), Some((DeltaKind::Independent, 2)));
    }

    #[test]
    fn large_steps_are_chance() {
        let mut last = 1_000u16;
        let map = |_| {
            last = last.wrapping_add(7_000);
            last
        };
        assert_eq!(rule(&LOCALS, map), Some((DeltaKind::Random, 0)));
    }

    proptest! {
        #[test]
        fn every_rule_is_found_with_its_value(
            start: u16, shift in 1..=i16::MAX, delta in 1..=100i16, down: bool,
        ) {
            prop_assert_eq!(rule(&LOCALS, |port| port), Some((DeltaKind::Equal, 0)));
            let preserving = rule(&LOCALS, |port| port.wrapping_add_signed(shift));
            prop_assert_eq!(preserving, Some((DeltaKind::Preserving, shift)));

            let delta = if down { -delta } else { delta };
            let mut last = start;
            let independent = rule(&LOCALS, |_| {
                last = last.wrapping_add_signed(delta);
                last
            });
            // Local ports 40,000 to 40,002 are no majority: only chance could make this look preserving.
            prop_assert_eq!(independent, Some((DeltaKind::Independent, delta)));
        }

        #[test]
        fn a_rule_that_needs_successive_local_ports_is_found(
            start: u16, delta in 2..=100i16, jumps in proptest::array::uniform3(1_000..9_000u16),
        ) {
            let (mut last, mut before, mut jumped) = (start, 0, jumps.into_iter().enumerate());
            let map = |port: u16| {
                last = if port.wrapping_sub(before) == 1 {
                    last.wrapping_add_signed(delta)
                } else {
                    let (index, jump) = jumped.next().unwrap_or((3, 12_345));
                    // A different step for each jump, so that no other rule holds by chance.
                    last.wrapping_add(jump + 9_000 * u16::try_from(index).unwrap())
                };
                before = port;
                last
            };
            prop_assert_eq!(rule(&LOCALS, map), Some((DeltaKind::Dependent, delta)));
        }

        #[test]
        fn any_flows_are_survived(ports in proptest::collection::vec(any::<(u16, u16)>(), 0..12)) {
            let (locals, mapped): (Vec<u16>, Vec<u16>) = ports.iter().copied().unzip();
            let mut next = mapped.into_iter();
            let found = rule(&locals, |_| next.next().unwrap_or_default());
            prop_assert_eq!(found.is_some(), ports.len() >= MIN_FLOWS);
        }
    }
}
