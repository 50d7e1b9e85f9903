//! The engine thread: timers, and the UDP sockets while no caller reads them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use peersock_stack::Batch;
use rustix::event::{PollFd, PollFlags};

use super::interfaces::InterfaceWatch;
use super::role::Claim;
use super::{Attached, Driver, poll, readable};

/// Runs until the driver is stopped.
pub(super) fn run(driver: &Driver, watch: Option<&InterfaceWatch>) {
    while !driver.is_stopped() {
        let attached = driver.attached.get();
        run_with(driver, watch, attached.as_ref());
    }
}

/// Runs until the driver is stopped or something else is attached to it.
fn run_with(driver: &Driver, watch: Option<&InterfaceWatch>, attached: Option<&Arc<dyn Attached>>) {
    let mut batch = Batch::default();
    let mut seen = 0;
    let mut sockets = driver.socket_fds();
    let count = sockets.len();
    let mut others = vec![PollFd::new(&driver.alarm.wakeup, PollFlags::IN)];
    others.extend(attached.map(|attached| PollFd::from_borrowed_fd(attached.fd(), PollFlags::IN)));
    others.extend(watch.map(|watch| PollFd::new(watch, PollFlags::IN)));
    sockets.extend(others.iter().cloned());
    let has_attached = usize::from(attached.is_some());

    while !driver.is_stopped() && driver.attached.is(attached) {
        driver.alarm.asked.store(u64::MAX, Ordering::SeqCst);
        let now = Instant::now();
        driver.datapath.handle_timeout(now, &mut batch);
        let deadline = driver.datapath.poll_timeout();
        let deadline =
            [deadline, attached.and_then(|attached| attached.deadline())].into_iter().flatten().min();
        let claim = driver.role.claim(now, &mut seen);
        let deadline = match claim {
            Claim::Theirs(Some(look)) => {
                Some(deadline.map_or(now + look, |deadline| deadline.min(now + look)))
            }
            Claim::Mine | Claim::Theirs(None) => deadline,
        };
        let fds = if claim == Claim::Mine { &mut sockets[..] } else { &mut others[..] };
        sleep(driver, fds, deadline);

        let wakeup = if claim == Claim::Mine { count } else { 0 };
        let marked = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let has_work = attached.is_some() && marked(wakeup + 1);
        if marked(wakeup) {
            driver.alarm.wakeup.clear();
        }
        if marked(wakeup + 1 + has_attached) {
            interfaces_changed(driver, watch, &mut batch);
        }
        if claim == Claim::Mine
            && let Some(mut receiver) = driver.role.engine_receiver()
        {
            receiver.receive(&driver.sockets, &driver.datapath, readable(&fds[..count]));
        }
        if let Some(attached) = attached {
            attached.run(has_work);
        }
    }
}

/// Sleeps until a descriptor is readable, `deadline`, or an earlier time that somebody asks for.
fn sleep(driver: &Driver, fds: &mut [PollFd<'_>], deadline: Option<Instant>) {
    let alarm = &driver.alarm;
    let until = deadline.map_or(u64::MAX, |deadline| alarm.since_base(deadline));
    // First say until when, then look at what was asked: who asks does it the other way round.
    alarm.asleep_until.store(until, Ordering::SeqCst);
    let until = until.min(alarm.asked.load(Ordering::SeqCst));
    let timeout = (until != u64::MAX).then(|| {
        let now = alarm.since_base(Instant::now());
        Duration::from_nanos(until.saturating_sub(now))
    });
    poll::readable(fds, timeout);
    alarm.asleep_until.store(0, Ordering::SeqCst);
}

fn interfaces_changed(driver: &Driver, watch: Option<&InterfaceWatch>, batch: &mut Batch) {
    if let Some(watch) = watch {
        watch.drain();
    }
    match driver.sockets.refresh() {
        Ok(true) => driver.datapath.set_sockets(Instant::now(), driver.sockets.infos(), batch),
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, "the network interfaces could not be listed"),
    }
}
