//! Keeps a port open: the schedule of renewals, and the thread that performs them.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Gateway, PortMapping, Transport, map};

/// Timeout of each attempt.
const BUDGET: Duration = Duration::from_secs(3);
/// Wait for a router that is being asked while its port must be closed.
const ANSWERS_IN: Duration = Duration::from_millis(250);
/// Wait after the first failure; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(4);
/// RFC 6887 (11.2.1): renewals are at least four seconds apart, even for a short lifetime.
const MIN_WAIT: Duration = Duration::from_secs(4);
/// Longest wait: routers appear and come back, and one attempt every ten minutes costs a few packets.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Schedule of the next attempt. Reads no clock.
#[derive(Debug)]
struct Schedule {
    next: Instant,
    failures: u32,
    ends: Option<Instant>,
}

impl Schedule {
    fn new(now: Instant) -> Self {
        Self { next: now, failures: 0, ends: None }
    }

    /// Schedules the renewal at half of the lifetime (RFC 6887, 11.2.1).
    fn granted(&mut self, now: Instant, lifetime: Duration) {
        self.failures = 0;
        // A mapping without end is renewed too, because the router may restart.
        let lifetime = lifetime.min(LONGEST_WAIT * 2);
        self.next = now + (lifetime / 2).max(MIN_WAIT);
        self.ends = Some(now + lifetime);
    }

    /// Schedules the next attempt; sooner while the mapping lasts, so that several attempts fit.
    fn failed(&mut self, now: Instant) {
        let wait = (FIRST_WAIT * 2u32.saturating_pow(self.failures.min(10))).min(LONGEST_WAIT);
        self.failures += 1;
        let left = self.ends.map(|ends| ends.saturating_duration_since(now)).filter(|left| !left.is_zero());
        let wait = left.map_or(wait, |left| wait.min((left / 2).max(FIRST_WAIT)));
        self.next = now + wait;
    }

    /// Returns true if the last mapping has ended without a renewal.
    fn is_over(&self, now: Instant) -> bool {
        self.ends.is_none_or(|ends| now >= ends)
    }
}

#[derive(Debug, Default)]
struct State {
    mapping: Option<PortMapping>,
    is_stopped: bool,
    is_asked: bool,
    /// Set while a router is being asked.
    is_asking: bool,
    is_finished: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Keeps a port of a router open, in a separate thread, until it is dropped.
///
/// ```no_run
/// use std::time::Duration;
/// use peersock_nat::portmap::{Gateway, PortMapper, Transport};
///
/// let (local, router) = ("192.168.1.2".parse()?, "192.168.1.1:0".parse()?);
/// let gateway = Gateway { interface: None, local, router };
/// let mapper = PortMapper::start(gateway, Transport::Udp, 7420, PortMapper::LIFETIME);
/// if let Some(external) = mapper.wait_external(Duration::from_secs(5)) {
///     println!("reachable at {external}");
/// }
/// mapper.stop();
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct PortMapper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl PortMapper {
    /// The usual lifetime; a node that crashes leaves an open port for this time.
    pub const LIFETIME: Duration = Duration::from_secs(1200);

    /// Starts keeping the port open. Failures are retried forever, at growing intervals.
    pub fn start(gateway: Gateway, transport: Transport, port: u16, lifetime: Duration) -> Self {
        Self::start_telling(gateway, transport, port, lifetime, Box::new(|| ()))
    }

    /// Starts as [`Self::start`] does. The mapper's thread calls `tell` when the external endpoint has
    /// changed.
    pub fn start_telling(
        gateway: Gateway,
        transport: Transport,
        port: u16,
        lifetime: Duration,
        tell: Box<dyn Fn() + Send>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let keeper = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("port mapper".into())
            .spawn(move || keep(&keeper, &gateway, transport, port, lifetime, &*tell));
        if let Err(error) = &thread {
            tracing::warn!(%error, "no port is mapped: there is no thread");
        }
        Self { shared, thread: thread.ok() }
    }

    /// Returns the router's external endpoint, while the port is open.
    pub fn external(&self) -> Option<SocketAddr> {
        self.mapping().map(|mapping| mapping.external)
    }

    /// Returns the mapping, while the port is open.
    pub fn mapping(&self) -> Option<PortMapping> {
        self.shared.state.lock().expect("no panic under this lock").mapping.clone()
    }

    /// Waits for the external endpoint; `None` after the timeout.
    pub fn wait_external(&self, timeout: Duration) -> Option<SocketAddr> {
        let state = self.shared.state.lock().expect("no panic under this lock");
        let waited = self.shared.changed.wait_timeout_while(state, timeout, |state| state.mapping.is_none());
        waited.expect("no panic under this lock").0.mapping.as_ref().map(|mapping| mapping.external)
    }

    /// Asks the router at once, because the network has changed.
    pub fn refresh(&self) {
        self.shared.state.lock().expect("no panic under this lock").is_asked = true;
        self.shared.changed.notify_all();
    }

    /// Closes the port and waits for that, for a few seconds at most. Dropping does the same.
    pub fn stop(self) {}

    /// Begins to close the port, without waiting.
    pub fn begin_stop(&self) {
        self.shared.state.lock().expect("no panic under this lock").is_stopped = true;
        self.shared.changed.notify_all();
    }

    /// Closes the port and waits for at most `patience`. Returns `true` if the port is closed, or was not
    /// open. Otherwise the thread continues closing it.
    pub fn stop_within(mut self, patience: Duration) -> bool {
        self.begin_stop();
        let begun = Instant::now();
        let state = self.shared.state.lock().expect("no panic under this lock");
        // A router that opens ports answers at once; one that does not must not delay the caller.
        let may_open = |state: &mut State| state.is_asking && state.mapping.is_none() && !state.is_finished;
        let waited = self.shared.changed.wait_timeout_while(state, patience.min(ANSWERS_IN), may_open);
        let state = waited.expect("no panic under this lock").0;
        let goes_on = |state: &mut State| !state.is_finished && state.mapping.is_some();
        let left = patience.saturating_sub(begun.elapsed());
        let waited = self.shared.changed.wait_timeout_while(state, left, goes_on);
        let is_timeout = waited.expect("no panic under this lock").1.timed_out();
        self.thread = None;
        !is_timeout
    }
}

impl Drop for PortMapper {
    fn drop(&mut self) {
        self.begin_stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the port mapper ended by a panic");
        }
    }
}

/// Runs the thread's loop.
fn keep(
    shared: &Shared,
    gateway: &Gateway,
    transport: Transport,
    port: u16,
    lifetime: Duration,
    tell: &dyn Fn(),
) {
    let mut schedule = Schedule::new(Instant::now());
    let mut current: Option<PortMapping> = None;
    while wait_until(shared, schedule.next) {
        shared.state.lock().expect("no panic under this lock").is_asking = true;
        let asked = match &current {
            Some(mapping) => mapping.renew(gateway, lifetime, BUDGET),
            None => map(gateway, transport, port, lifetime, BUDGET),
        };
        let now = Instant::now();
        match asked {
            Ok(mapping) => {
                schedule.granted(now, mapping.lifetime);
                tracing::debug!(external = %mapping.external, protocol = %mapping.protocol, "port mapped");
                current = Some(mapping);
            }
            Err(error) => {
                schedule.failed(now);
                tracing::debug!(%error, "no port mapped");
                // Forget the mapping, because another router, or another protocol of this one, may map the
                // port next.
                if schedule.is_over(now) || matches!(error, super::MapError::Refused { .. }) {
                    current = None;
                }
            }
        }
        let external = |mapping: &Option<PortMapping>| mapping.as_ref().map(|mapping| mapping.external);
        let mut state = shared.state.lock().expect("no panic under this lock");
        let has_changed = external(&state.mapping) != external(&current);
        state.mapping.clone_from(&current);
        state.is_asking = false;
        drop(state);
        shared.changed.notify_all();
        if has_changed {
            tell();
        }
    }
    if let Some(mapping) = current
        && let Err(error) = mapping.remove(gateway, BUDGET)
    {
        tracing::debug!(%error, "the mapped port stays open until its lifetime ends");
    }
    shared.state.lock().expect("no panic under this lock").is_finished = true;
    shared.changed.notify_all();
}

/// Sleeps; returns `false` when the mapper is stopped.
fn wait_until(shared: &Shared, next: Instant) -> bool {
    let state = shared.state.lock().expect("no panic under this lock");
    let left = next.saturating_duration_since(Instant::now());
    let is_idle = |state: &mut State| !state.is_stopped && !state.is_asked;
    let (mut state, _) =
        shared.changed.wait_timeout_while(state, left, is_idle).expect("no panic under this lock");
    state.is_asked = false;
    !state.is_stopped
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_mapping_is_renewed_at_half_of_its_life_and_when_it_has_none() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        assert_eq!(schedule.next, start);
        schedule.granted(start, 600 * SECOND);
        assert_eq!(schedule.next, start + 300 * SECOND);
        schedule.granted(start, Duration::MAX);
        assert_eq!(schedule.next, start + LONGEST_WAIT);
    }

    #[test]
    fn a_router_has_no_say_in_how_often_it_is_asked() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.granted(start, SECOND);
        assert_eq!(schedule.next, start + 4 * SECOND);
        // The longest lifetime in NAT-PMP and PCP: 136 years.
        schedule.granted(start, u32::MAX * SECOND);
        assert_eq!(schedule.next, start + LONGEST_WAIT);
    }

    #[test]
    fn failures_are_tried_again_less_and_less_often() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut waits = Vec::new();
        for _ in 0..10 {
            let now = schedule.next;
            schedule.failed(now);
            waits.push((schedule.next - now).as_secs());
        }
        assert_eq!(waits, [4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
    }

    #[test]
    fn there_are_several_attempts_before_a_mapping_ends() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.granted(start, 120 * SECOND);
        let mut attempts = 0;
        while !schedule.is_over(schedule.next) {
            schedule.failed(schedule.next);
            attempts += 1;
        }
        assert!((4..10).contains(&attempts), "{attempts}");
    }
}
