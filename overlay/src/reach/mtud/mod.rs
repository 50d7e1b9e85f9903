//! Datagram packetization-layer path MTU discovery (DPLPMTUD, RFC 8899) for one path.
//!
//! Sizes are UDP payloads in bytes. A path is used at once with the size [`BASE`]. Probes are sealed control
//! messages padded to the size under test, which the peer acknowledges. Right behind each probe follows a
//! *companion* of minimum size. If only the companion is answered, the size was too large or the probe was
//! lost. If neither is, the path says nothing about sizes. So a path that is down for a while keeps its size.
//! A path that swallows large datagrams is detected after a few round trips, whatever its queues hold.
//!
//! 1. The search first tries the usual sizes of links: Ethernet, jumbo frames, then the socket's own limit.
//! 2. A size is given up after [`trial::MAX_PROBES`] losses (RFC 8899 section 5.1.2). Then the range between
//!    the largest size that passed and the smallest that did not is halved until it is narrow. Two failures
//!    in a row above Ethernet's size end the search, because then the link almost surely is Ethernet.
//! 3. While traffic flows, the current size is confirmed now and then, and at once when an upper layer
//!    suspects it. If that fails, the path is a black hole for this size (section 4.3). It falls back to the
//!    next of [`FLOORS`], tests that at once, and then searches below the size that failed.
//! 4. The base is tested as soon as something larger has failed, because a path may carry less (a tunnel
//!    inside a tunnel). It falls back in the same way, down to the size of a handshake that has passed.
//!
//! Dead peers are detected by silence, outside this module.

mod trial;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::place::Place;
use crate::wire::Initiation;
use trial::{Answer, MAX_PROBES, Trial, Verdict};

/// BASE_PLPMTU for UDP payloads (RFC 8899 section 5.1.2 suggests 1200).
pub(crate) const BASE: usize = 1200;

/// Sizes that a path falls back to, largest first: the base, the payload of IPv4's smallest mandatory
/// datagram (RFC 791), and an initiation, which has passed if there is a session.
const FLOORS: [usize; 3] = [BASE, 548, Initiation::MIN];

/// Interval of confirmations of the current size while any traffic flows (CONFIRMATION_TIMER).
const CONFIRM_INTERVAL: Duration = Duration::from_secs(15);

/// Interval of upward searches after a confirmation (PMTU_RAISE_TIMER).
const RAISE_INTERVAL: Duration = Duration::from_secs(60);

/// Interval of confirmations under load.
pub(crate) const BUSY_CONFIRM_INTERVAL: Duration = Duration::from_millis(500);

/// Number of bytes sent in that interval that count as load.
pub(crate) const LOAD_MIN_BYTES: u64 = 8 * BASE as u64;

/// Minimum time from a size's confirmation to its next test, however strong the suspicion.
const CONFIRM_SPACING: Duration = Duration::from_millis(300);

/// Width of the open range at which a search stops, unless a 64th of the size is wider.
const GRANULARITY: usize = 16;

/// Discovery state of one path.
#[derive(Debug)]
pub(crate) struct Mtud {
    current: usize,
    trust: Trust,
    ceiling: usize,
    /// UDP payload of a 1500-byte packet on this path.
    ethernet: usize,
    jumbo: usize,
    phase: Phase,
    trial: Option<Trial>,
    confirmed: Instant,
    /// End of a test in which not even the companions were answered. It delays the next confirmation like a
    /// confirmation does.
    unanswered: Option<Instant>,
    /// Set while a suspected size does not pass and no passing size is known yet.
    is_hurried: bool,
    /// Smoothed number of companions per thousand that are not acknowledged.
    losses: u32,
    /// Set while even the smallest size does not pass, though companions do.
    stuck: Option<Stuck>,
    /// Time of the last upward search after a confirmation.
    searched: Instant,
    /// Time of the last check in [`Mtud::carried`], and the number of bytes sent by then.
    busy: (Instant, u64),
}

/// State of a path's datagram size: whether datagrams of that size pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SizeState {
    /// Datagrams of this size pass, as far as is known.
    Passes,
    /// The size is under test.
    Doubted,
    /// Short packets pass, but none of the smallest size that the protocol needs.
    TooSmall,
}

/// Evidence for the current size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// The size is a floor, and nothing was lost yet.
    Assumed,
    /// The size is a floor, and something larger was lost: it is tested next.
    Doubted,
    /// The size has passed.
    Proven,
}

#[derive(Debug)]
enum Phase {
    /// Search for a size above `current` and below `bound`, after `failures` failed sizes in a row.
    Search { bound: usize, failures: u8 },
    /// Test of whether `current` still passes; `resume` is the search that this test interrupted.
    Confirm { suspected: bool, resume: Option<(usize, u8)> },
    /// Wait for [`Mtud::confirm`] or [`Mtud::search`].
    Idle,
}

/// State of a path that seems to carry less than the protocol needs.
#[derive(Debug, Clone, Copy)]
struct Stuck {
    since: Instant,
    /// Time of the last loss of the smallest size.
    lost: Instant,
}

/// Time of repeated tests of the smallest size before the path counts as too small. With 36 % of loss, it
/// passes in that time in all but one of ten million cases.
const STUCK_FOR: Duration = Duration::from_secs(8);

/// Interval of these tests, two probes each.
const STUCK_SPACING: Duration = Duration::from_secs(1);

impl Mtud {
    /// Creates a new path to `place` from a socket that sends at most `max_datagram` bytes. The search starts
    /// at once.
    pub(crate) fn new(place: Place, max_datagram: usize, now: Instant) -> Self {
        let header = place.headers() + place.overhead();
        let (ethernet, jumbo) = (1500 - header, 9000 - header);
        // The MTU of loopback interfaces is larger than any jumbo frame.
        let limit = if place.is_loopback() { place.largest_datagram() } else { jumbo };
        let ceiling = max_datagram.min(limit);
        let mut mtud = Self {
            current: BASE.min(max_datagram),
            trust: Trust::Assumed,
            ceiling,
            ethernet,
            jumbo,
            phase: Phase::Idle,
            trial: None,
            confirmed: now,
            unanswered: None,
            is_hurried: false,
            losses: 0,
            stuck: None,
            searched: now,
            busy: (now, 0),
        };
        mtud.search();
        mtud
    }

    /// Returns the largest datagram size expected to pass.
    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// Returns true if the path certainly carries less than the smallest size: short packets pass all the
    /// time, but none of that size has for [`STUCK_FOR`].
    pub(crate) fn is_too_small(&self) -> bool {
        self.stuck.is_some_and(|stuck| stuck.lost >= stuck.since + STUCK_FOR)
    }

    /// Returns the state of the size in use.
    pub(crate) fn size_state(&self) -> SizeState {
        let is_tested = match self.phase {
            Phase::Confirm { .. } => true,
            Phase::Search { .. } => self.trust == Trust::Doubted,
            Phase::Idle => false,
        };
        match (self.is_too_small(), is_tested || self.stuck.is_some()) {
            (true, _) => SizeState::TooSmall,
            (_, true) => SizeState::Doubted,
            _ => SizeState::Passes,
        }
    }

    /// Starts another search upwards unless one runs.
    pub(crate) fn search(&mut self) {
        if matches!(self.phase, Phase::Idle) && (self.current < self.ceiling || self.trust != Trust::Proven) {
            self.phase = Phase::Search { bound: self.ceiling + 1, failures: 0 };
        }
    }

    /// Confirms the current size while traffic flows, unless a confirmation was made or tried in vain lately.
    /// A silent peer must not get more packets because of its silence.
    pub(crate) fn confirm_if_due(&mut self, now: Instant) {
        // A test that an outage has ended counts too, or a silent peer would be tested all the time.
        let last = self.unanswered.map_or(self.confirmed, |at| at.max(self.confirmed));
        if now.saturating_duration_since(last) >= CONFIRM_INTERVAL {
            self.confirm(false);
        }
    }

    /// Records `total`, the number of bytes sent on the session so far. Under load, confirms the current size
    /// twice a second.
    pub(crate) fn carried(&mut self, total: u64, now: Instant) {
        let (at, before) = self.busy;
        if now.saturating_duration_since(at) < BUSY_CONFIRM_INTERVAL {
            return;
        }
        self.busy = (now, total);
        // A new session counts from zero.
        let sent = total.checked_sub(before).unwrap_or(total);
        if sent >= LOAD_MIN_BYTES && now.saturating_duration_since(self.confirmed) >= CONFIRM_SPACING {
            self.confirm(false);
        }
    }

    /// Confirms the current size, at once or soon. `suspected`: evidence exists that it may no longer pass.
    pub(crate) fn confirm(&mut self, suspected: bool) {
        let resume = match &mut self.phase {
            Phase::Confirm { suspected: already, .. } => {
                *already |= suspected;
                if let Some(trial) = self.trial.as_mut().filter(|_| suspected) {
                    trial.hurry();
                }
                return;
            }
            // The search tests the current size itself as soon as a larger one has failed.
            Phase::Search { .. } if !suspected || self.trust != Trust::Proven => return,
            Phase::Search { bound, failures } => Some((*bound, *failures)),
            Phase::Idle => None,
        };
        if self.current > FLOORS[FLOORS.len() - 1] || self.stuck.is_some() {
            // An interrupted search goes on where it was, because its failures have cost many probes.
            self.phase = Phase::Confirm { suspected, resume };
            self.trial = None;
        }
    }

    /// Updates the loss estimate with a companion that was acknowledged or timed out.
    fn note_companion(&mut self, lost: bool) {
        // Slow, because one burst of losses says little about the path.
        self.losses = (self.losses * 31 + if lost { 1000 } else { 0 }) / 32;
    }

    /// Returns when to call [`Self::poll`] again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match (&self.trial, &self.phase) {
            (Some(trial), _) => trial.next_at(),
            (None, Phase::Confirm { .. }) => Some(self.confirm_at()),
            (None, _) => None,
        }
    }

    /// Returns the earliest time for confirming the current size.
    fn confirm_at(&self) -> Instant {
        let again = self.stuck.map(|stuck| stuck.lost + STUCK_SPACING);
        again.into_iter().fold(self.confirmed + CONFIRM_SPACING, Instant::max)
    }

    /// Returns the size of a probe to send now under `id`, if any; its companion follows under the next id.
    /// Neither id may have been used before. `rtt` is the path's round-trip time, if known. May lower
    /// [`Self::current`].
    pub(crate) fn poll(&mut self, now: Instant, rtt: Option<Duration>, id: u32) -> Option<usize> {
        if let Some(trial) = &self.trial {
            let size = trial.size;
            match trial.verdict(now) {
                Verdict::Wait => return None,
                Verdict::SendPair => {
                    // Companions have the minimum size, so their losses measure the path's loss rate alone.
                    if let Some(lost) = trial.has_lost_companion(now) {
                        self.note_companion(lost);
                    }
                }
                Verdict::TooLarge => {
                    self.trial = None;
                    self.fail(size, now);
                }
                Verdict::Unanswered => {
                    self.trial = None;
                    self.phase = Phase::Idle;
                    // An outage says nothing about sizes.
                    self.unanswered = Some(now);
                    return None;
                }
            }
        }
        if self.trial.is_none() {
            if matches!(self.phase, Phase::Confirm { .. }) && now < self.confirm_at() {
                return None;
            }
            let size = self.target()?;
            let mut trial = Trial::new(size, MAX_PROBES, self.losses, rtt);
            let is_suspected = matches!(self.phase, Phase::Confirm { suspected: true, .. });
            if is_suspected || (self.is_hurried && self.trust == Trust::Doubted) {
                trial.hurry();
            }
            self.trial = Some(trial);
        }
        let trial = self.trial.as_mut()?;
        trial.sent(id, now);
        Some(trial.size)
    }

    /// Records that the peer received probe `id`. Returns the round-trip time.
    pub(crate) fn acknowledged(&mut self, id: u32, now: Instant) -> Option<Duration> {
        let trial = self.trial.as_mut()?;
        let Answer { passed, rtt } = trial.answered(id, now)?;
        if !passed {
            self.note_companion(false);
            return Some(rtt);
        }
        let size = trial.size;
        self.trial = None;
        self.confirmed = now;
        self.trust = Trust::Proven;
        self.is_hurried = false;
        if self.stuck.take().is_some() {
            self.phase = Phase::Idle;
            self.search();
            return Some(rtt);
        }
        match &mut self.phase {
            // The bound stays, because a size that has failed is not tried again in this search.
            Phase::Search { failures, .. } if size > self.current => {
                self.current = size;
                *failures = 0;
            }
            Phase::Confirm { resume, .. } => {
                self.phase =
                    resume.map_or(Phase::Idle, |(bound, failures)| Phase::Search { bound, failures });
                // A size that failed some time ago may pass now.
                if now.saturating_duration_since(self.searched) >= RAISE_INTERVAL {
                    self.search();
                    self.searched = now;
                }
            }
            Phase::Search { .. } | Phase::Idle => {}
        }
        Some(rtt)
    }

    fn fail(&mut self, size: usize, now: Instant) {
        match &mut self.phase {
            Phase::Search { bound, failures } if size > self.current => {
                *bound = size;
                *failures = failures.saturating_add(1);
                if self.trust == Trust::Assumed {
                    self.trust = Trust::Doubted;
                }
            }
            Phase::Search { .. } | Phase::Confirm { .. } => self.fall_below(size, now),
            Phase::Idle => {}
        }
    }

    /// Falls back, because the current size no longer passes.
    fn fall_below(&mut self, size: usize, now: Instant) {
        // Traffic is stalled, so the search for a size that passes hurries too.
        self.is_hurried |= matches!(self.phase, Phase::Confirm { suspected: true, .. });
        match FLOORS.into_iter().find(|floor| *floor < size) {
            // Down at once instead of step by step: every packet of the failed size is lost until then.
            Some(floor) => {
                self.current = floor;
                self.trust = Trust::Doubted;
                self.phase = Phase::Search { bound: size, failures: 0 };
            }
            // No smaller size exists. The handshake has passed, so this may be bad luck: repeat the test for
            // a while.
            None => {
                let stuck = self.stuck.get_or_insert(Stuck { since: now, lost: now });
                stuck.lost = now;
                self.trust = Trust::Proven;
                self.phase = match self.is_too_small() {
                    true => Phase::Idle,
                    false => Phase::Confirm { suspected: true, resume: None },
                };
            }
        }
    }

    /// Returns the size to probe next; ends the search when there is none.
    fn target(&mut self) -> Option<usize> {
        let (bound, failures) = match self.phase {
            Phase::Idle => return None,
            Phase::Confirm { .. } => return Some(self.current),
            Phase::Search { .. } if self.trust == Trust::Doubted => return Some(self.current),
            Phase::Search { bound, failures } => (bound, failures),
        };
        let usual = [BASE, self.ethernet, self.jumbo, self.ceiling]
            .into_iter()
            .find(|&size| size > self.current && size < bound && size <= self.ceiling);
        if usual.is_some() {
            return usual;
        }
        // Usual sizes are used up, so the rest of the range is halved.
        let open = bound - self.current;
        let narrow = open <= GRANULARITY.max(self.current / 64);
        // Two failures above Ethernet's size: the link is almost surely Ethernet.
        let hopeless = failures >= 2 && self.current >= self.ethernet;
        if narrow || hopeless || self.current + open / 2 > self.ceiling {
            if self.trust == Trust::Assumed {
                return Some(self.current);
            }
            self.phase = Phase::Idle;
            return None;
        }
        Some(self.current + open / 2)
    }
}
