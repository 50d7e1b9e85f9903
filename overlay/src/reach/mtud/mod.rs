//! Datagram packetization-layer path MTU discovery (DPLPMTUD, RFC 8899) for one path.
//!
//! Sizes are UDP payloads in bytes. A path starts at [`BASE`] and is used there at once. Probes are sealed
//! control messages padded to the size under test, which the peer acknowledges. With each leaves, right
//! behind it, a *companion* as short as can be. If the companion is answered and the probe is not, the size
//! was too large or the probe was lost; if neither is, the path says nothing about sizes. So a path that is
//! down for a while keeps its size, and one that swallows large datagrams is known after a few round trips,
//! whatever its queues hold.
//!
//! 1. The search first jumps along what links usually have: Ethernet, jumbo frames, then the socket's own
//!    limit.
//! 2. A size is given up after [`trial::MAX_PROBES`] losses (RFC 8899 section 5.1.2). Then the range between
//!    the largest size that passed and the smallest that did not is halved until it is narrow; two failures
//!    in a row above Ethernet's size end the search, because then the link almost surely is Ethernet.
//! 3. While traffic flows, the current size is confirmed now and then, and at once when something above
//!    suspects it. When that fails, the path has become a black hole for it (section 4.3): it falls back to
//!    the next of [`FLOORS`], which is tested at once, and then searches below the size that failed.
//! 4. The base is tested too as soon as something larger has failed. A path may carry less (a tunnel inside a
//!    tunnel): it falls back in the same way, down to what every path carries on which a handshake was
//!    completed.
//!
//! Dead peers are not this module's concern: they are found by silence.

mod trial;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::place::Place;
use crate::wire::Initiation;
use trial::{Answer, MAX_PROBES, Trial, Verdict};

/// BASE_PLPMTU for UDP payloads (RFC 8899 section 5.1.2 suggests 1200).
pub(crate) const BASE: usize = 1200;

/// Where a path falls back to, largest first: the base, the payload of IPv4's least datagram (RFC 791), and
/// an initiation, which has passed if there is a session.
const FLOORS: [usize; 3] = [BASE, 548, Initiation::MIN];

/// How often the current size is confirmed while any traffic flows (CONFIRMATION_TIMER).
const CONFIRM_INTERVAL: Duration = Duration::from_secs(15);

/// How often a search upwards is begun again, if the size is confirmed (PMTU_RAISE_TIMER).
const RAISE_INTERVAL: Duration = Duration::from_secs(60);

/// How often the current size is confirmed while much is sent.
pub(crate) const BUSY_CONFIRM_INTERVAL: Duration = Duration::from_millis(500);

/// Bytes sent in that time that are much.
pub(crate) const BUSY: u64 = 8 * BASE as u64;

/// The least time from a size's confirmation to its next test, however much it is suspected.
const CONFIRM_SPACING: Duration = Duration::from_millis(300);

/// A search stops when the open range is not wider than this, or than a 64th of the size.
const GRANULARITY: usize = 16;

/// The discovery state of one path.
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
    /// When a test ended of which not even the companions were answered. None is begun because of that for as
    /// long as after a confirmation.
    unanswered: Option<Instant>,
    /// A size that was suspected does not pass, and none that does is known yet.
    is_hurried: bool,
    /// Of thousand companions that are sent so many are not acknowledged, smoothed.
    losses: u32,
    /// Not even the least size passes, though companions do.
    stuck: Option<Stuck>,
    /// When a search was begun last because the size was confirmed.
    searched: Instant,
    /// When [`Mtud::carried`] was last told of much, and how many bytes had been sent by then.
    busy: (Instant, u64),
}

/// Whether a path carries the datagrams that it is used for.
///
/// ```
/// # use peersock_overlay::SizeState;
/// let state = SizeState::TooSmall;
/// assert_ne!(state, SizeState::Passes);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SizeState {
    /// As far as is known.
    Passes,
    /// It is being looked at.
    Doubted,
    /// Short packets pass, and none of the least size that anybody needs.
    TooSmall,
}

/// What is known of the current size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// It is a floor, and nothing was lost yet.
    Assumed,
    /// It is a floor, and something larger was lost: it is tested next.
    Doubted,
    /// It has passed.
    Proven,
}

#[derive(Debug)]
enum Phase {
    /// Looking for a size above `current` and below `bound`, after `failures` failed sizes in a row.
    Search { bound: usize, failures: u8 },
    /// Asking whether `current` still passes; `resume` is the search that was interrupted for that.
    Confirm { suspected: bool, resume: Option<(usize, u8)> },
    /// Nothing to do until [`Mtud::confirm`] or [`Mtud::search`].
    Idle,
}

/// A path that seems to carry less than anybody needs.
#[derive(Debug, Clone, Copy)]
struct Stuck {
    since: Instant,
    /// When the least size was last lost.
    lost: Instant,
}

/// The least size is tried again for so long before the path is taken for too small. With 36 % of loss it
/// passes in that time, all but for one in ten million times.
const STUCK_FOR: Duration = Duration::from_secs(8);

/// It is tried twice each time, and so often.
const STUCK_SPACING: Duration = Duration::from_secs(1);

impl Mtud {
    /// A new path to `place` from a socket that sends at most `max_datagram` bytes. The search starts at
    /// once.
    pub(crate) fn new(place: Place, max_datagram: usize, now: Instant) -> Self {
        let header = place.headers() + place.overhead();
        let (ethernet, jumbo) = (1500 - header, 9000 - header);
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

    /// The largest datagram that is thought to pass.
    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// Whether the path carries less than the least size, for certain: short packets pass all the time, and
    /// none of the least size has passed for [`STUCK_FOR`].
    pub(crate) fn is_too_small(&self) -> bool {
        self.stuck.is_some_and(|stuck| stuck.lost >= stuck.since + STUCK_FOR)
    }

    /// What is known of the size at which it is used.
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

    /// Traffic flows: confirms the current size if that was not done lately, nor tried in vain: a peer that
    /// answers nothing is not sent more because of its silence.
    pub(crate) fn confirm_if_due(&mut self, now: Instant) {
        let last = self.unanswered.map_or(self.confirmed, |at| at.max(self.confirmed));
        if now.saturating_duration_since(last) >= CONFIRM_INTERVAL {
            self.confirm(false);
        }
    }

    /// `total` bytes were sent on the session so far: confirms the current size twice a second while much is
    /// sent.
    pub(crate) fn carried(&mut self, total: u64, now: Instant) {
        let (at, before) = self.busy;
        if now.saturating_duration_since(at) < BUSY_CONFIRM_INTERVAL {
            return;
        }
        self.busy = (now, total);
        // A new session counts from zero.
        let sent = total.checked_sub(before).unwrap_or(total);
        if sent >= BUSY && now.saturating_duration_since(self.confirmed) >= CONFIRM_SPACING {
            self.confirm(false);
        }
    }

    /// Confirms the current size, at once or soon. `suspected`: something shows that it may no longer pass.
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
            self.phase = Phase::Confirm { suspected, resume };
            self.trial = None;
        }
    }

    /// A companion was acknowledged, or was not in time.
    fn note_companion(&mut self, lost: bool) {
        self.losses = (self.losses * 31 + if lost { 1000 } else { 0 }) / 32;
    }

    /// When [`Self::poll`] is to be called again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match (&self.trial, &self.phase) {
            (Some(trial), _) => trial.next_at(),
            (None, Phase::Confirm { .. }) => Some(self.confirm_at()),
            (None, _) => None,
        }
    }

    /// The current size is not confirmed sooner.
    fn confirm_at(&self) -> Instant {
        let again = self.stuck.map(|stuck| stuck.lost + STUCK_SPACING);
        again.into_iter().fold(self.confirmed + CONFIRM_SPACING, Instant::max)
    }

    /// Returns the size of a probe that is to be sent now, if any, under `id`; its companion follows it under
    /// the next id. Neither was used before. `rtt` is the path's round-trip time, as far as it is known. May
    /// lower [`Self::current`].
    pub(crate) fn poll(&mut self, now: Instant, rtt: Option<Duration>, id: u32) -> Option<usize> {
        if let Some(trial) = &self.trial {
            let size = trial.size;
            match trial.verdict(now) {
                Verdict::Wait => return None,
                Verdict::SendPair => {
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

    /// The peer received probe `id`. Returns how long the answer took.
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
            Phase::Search { failures, .. } if size > self.current => {
                self.current = size;
                *failures = 0;
            }
            Phase::Confirm { resume, .. } => {
                self.phase =
                    resume.map_or(Phase::Idle, |(bound, failures)| Phase::Search { bound, failures });
                // What did not pass some time ago may pass now.
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

    /// The current size does not pass any more.
    fn fall_below(&mut self, size: usize, now: Instant) {
        self.is_hurried |= matches!(self.phase, Phase::Confirm { suspected: true, .. });
        match FLOORS.into_iter().find(|floor| *floor < size) {
            Some(floor) => {
                self.current = floor;
                self.trust = Trust::Doubted;
                self.phase = Phase::Search { bound: size, failures: 0 };
            }
            // There is nothing to fall to. The handshake has passed, so this may be bad luck: it is tried
            // again for a while.
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

    /// The size to probe next; ends the search when there is none.
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
        let open = bound - self.current;
        let narrow = open <= GRANULARITY.max(self.current / 64);
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
