//! Engine thread: timers, and the UDP sockets while no caller reads them.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use peersock_stack::Batch;

use super::Driver;
use super::attached::Attachments;
use super::busy_poll::Looking;
use super::role::Claim;
use crate::sys::interface_watch::InterfaceWatch;
use crate::sys::poller::{Event, EventFlags, Poller, Sleeper};

/// Tokens of the driver's descriptors. The UDP sockets have the tokens from [`Poller::OWN`] on.
const WAKEUP: u64 = Poller::OWN | 1 << 32;
const WATCH: u64 = WAKEUP + 1;
const RESUMED: u64 = WAKEUP + 2;

/// Runs until the driver is stopped.
pub(super) fn run(driver: &Driver, watch: Option<&InterfaceWatch>, looking: Looking) {
    let wakeup = (driver.alarm.wakeup.as_fd(), WAKEUP);
    let watched = watch.map(|watch| (watch.as_fd(), WATCH));
    let resumed = driver.suspension.as_fd().map(|fd| (fd, RESUMED));
    for (fd, token) in [Some(wakeup), watched, resumed].into_iter().flatten() {
        if let Err(error) = driver.poller.add(fd, token, EventFlags::IN) {
            tracing::error!(%error, "the node cannot wait for its descriptors");
        }
    }
    let mut engine = Engine {
        driver,
        watch,
        sleeper: Sleeper::new(&driver.poller),
        batch: Batch::default(),
        reads: 0,
        looking,
    };
    while !driver.is_stopped() {
        let attached = driver.attached.get();
        engine.run_with(&attached);
    }
}

struct Engine<'a> {
    driver: &'a Driver,
    watch: Option<&'a InterfaceWatch>,
    sleeper: Sleeper<'a>,
    batch: Batch,
    /// Number of UDP sockets that wake this thread, the first ones.
    reads: usize,
    looking: Looking,
}

impl Engine<'_> {
    /// Runs until the driver is stopped or its attachments change.
    fn run_with(&mut self, attached: &Attachments) {
        let driver = self.driver;
        let mut seen = 0;
        // Set if the last round had events, because more may follow soon.
        let mut has_run = false;
        while !driver.is_stopped() && driver.attached.is(attached) {
            // Reset before the deadlines are read, so that no request in between is lost.
            driver.alarm.asked.store(u64::MAX, Ordering::SeqCst);
            let now = driver.now();
            driver.datapath.handle_timeout(now, &mut self.batch);
            let deadline = driver.datapath.poll_timeout();
            let claim = driver.role.claim(now, &mut seen);
            let look = match claim {
                Claim::Theirs(Some(look)) => Some(now + look),
                Claim::Mine | Claim::Theirs(None) => None,
            };
            let attached_deadlines = attached.iter().filter_map(|attached| attached.deadline());
            let deadline = [deadline, look].into_iter().flatten().chain(attached_deadlines).min();
            self.set_reading(claim == Claim::Mine);
            // Busy polling only pays for the thread that reads the sockets, and right after an event.
            let looking = (has_run && claim == Claim::Mine).then_some(&mut self.looking);
            let events = sleep(driver, &mut self.sleeper, deadline, looking);
            has_run = events.iter().any(|event| event.data.u64() != Poller::TIMER);

            let now = driver.now();
            if has(events, RESUMED) {
                // Reading the clocks above was all that the suspension requires.
                driver.suspension.watch_again();
            }
            if has(events, WAKEUP) {
                driver.alarm.wakeup.clear();
            }
            if has(events, WATCH) {
                interfaces_changed(now, driver, self.watch, &mut self.batch);
            }
            if claim == Claim::Mine
                && let Some(mut receiver) = driver.role.engine_receiver()
            {
                receiver.receive(now, &driver.sockets, &driver.datapath, sockets(events));
            }
            attached.iter().for_each(|attached| attached.run(events));
        }
    }

    /// Sets whether the UDP sockets wake this thread: all current ones, or none.
    fn set_reading(&mut self, reads: bool) {
        let (sockets, poller) = (&self.driver.sockets, &self.driver.poller);
        let wanted = if reads { sockets.len() } else { 0 };
        let had = std::mem::replace(&mut self.reads, wanted);
        for index in wanted..had {
            poller.remove(sockets.fd(index));
        }
        for index in had..wanted {
            let token = Poller::OWN + index as u64;
            if let Err(error) = poller.add(sockets.fd(index), token, EventFlags::IN) {
                tracing::error!(%error, "the node cannot wait for one of its UDP sockets");
            }
        }
    }
}

/// Sleeps until an event, `deadline`, or an earlier requested time. May busy-poll first.
fn sleep<'a>(
    driver: &Driver,
    sleeper: &'a mut Sleeper<'_>,
    deadline: Option<Instant>,
    looking: Option<&mut Looking>,
) -> &'a [Event] {
    let alarm = &driver.alarm;
    let until = deadline.map_or(u64::MAX, |deadline| alarm.since_base(deadline));
    // The order matters: the deadline is published before the requests are read, and a requester does the
    // reverse, so no request is missed.
    alarm.asleep_until.store(until, Ordering::SeqCst);
    let asked = alarm.asked.load(Ordering::SeqCst);
    let asked = (asked != u64::MAX).then(|| alarm.at(asked));
    let deadline = [deadline, asked].into_iter().flatten().min();
    let looked = looking.map(|looking| {
        let busy = looking.begin(|| driver.sockets.carried());
        (sleeper.look_for(busy, deadline), looking)
    });
    let events = sleeper.sleep(deadline);
    alarm.asleep_until.store(0, Ordering::SeqCst);
    if let Some((looked, looking)) = looked {
        looking.end(looked);
    }
    events
}

fn has(events: &[Event], token: u64) -> bool {
    events.iter().any(|event| event.data.u64() == token)
}

/// Returns the UDP sockets that are readable.
fn sockets(events: &[Event]) -> impl Iterator<Item = usize> {
    let tokens = events.iter().map(|event| event.data.u64());
    tokens.filter(|token| (Poller::OWN..WAKEUP).contains(token)).map(|token| (token - Poller::OWN) as usize)
}

fn interfaces_changed(now: Instant, driver: &Driver, watch: Option<&InterfaceWatch>, batch: &mut Batch) {
    if let Some(watch) = watch {
        watch.drain();
    }
    let refresh = || {
        driver.sockets.refresh().unwrap_or_else(|error| {
            tracing::debug!(%error, "the network interfaces could not be listed");
            false
        })
    };
    if driver.change_sockets(now, batch, refresh) {
        driver.network_changed();
    }
    driver.tell_interfaces_changed();
}
