//! SO_LINGER with a time: applications wait in close(2) until what they have written is acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, Reply, Which};
use peersock_stack::{Delivery, Flow};

use crate::addresses::errno;
use crate::requester::failed;
use crate::wakers::Key;

/// Interval of the checks whether everything is acknowledged, while an application waits.
const CHECK_INTERVAL: Duration = Duration::from_millis(2);
/// Time for which a closed descriptor may still seem open, because another node of the process may hold
/// copies while it searches for its own.
const SHARED_COPY_TIME: Duration = Duration::from_millis(5);
/// Key of a timer that only wakes the server.
pub(crate) const WAKE_ONLY: Key = 0;

/// The waiting applications.
#[derive(Default)]
pub(crate) struct Lingering {
    waiting: Vec<Waiting>,
    /// Time of the next check.
    look: Option<Instant>,
}

struct Waiting {
    requester: Key,
    which: Which,
    flow: Arc<Flow>,
    until: Instant,
    /// Time from which a descriptor that is still open counts as shared.
    shared_until: Instant,
}

impl Waiting {
    /// Returns the reply, or `None` if the application must wait further. `is_closed` tells whether the
    /// descriptor is closed, while there is a stream, and `loss` is what broke it.
    fn outcome(&self, now: Instant, is_closed: Option<bool>, loss: Option<Errno>) -> Option<Reply> {
        let delivery = match is_closed {
            Some(false) if now >= self.shared_until => return Some(Reply::Done),
            Some(_) => Delivery::Pending,
            None => self.flow.delivery(),
        };
        match delivery {
            Delivery::Lost(loss) => Some(failed(errno(loss.error))),
            // The connection may have broken before the peer had received everything.
            Delivery::Done => Some(loss.map_or(Reply::Done, failed)),
            _ => (self.until <= now).then(|| failed(Errno::TIMEDOUT)),
        }
    }
}

impl Lingering {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a waiting application. It gets a reply once everything is acknowledged, or an error when the
    /// connection breaks or the time is over. The reply comes at once if other processes have the socket
    /// open.
    pub(crate) fn add(&mut self, requester: Key, which: Which, flow: Arc<Flow>, time: Duration) {
        let now = Instant::now();
        // Clamp, because a longer time could overflow.
        let until = now + time.min(Duration::from_secs(u32::MAX.into()));
        self.waiting.push(Waiting { requester, which, flow, until, shared_until: now + SHARED_COPY_TIME });
    }

    /// Removes the applications that have waited long enough, and returns their replies. For a connection,
    /// `look` returns whether its descriptor is closed, if there still is a stream, and what broke it.
    pub(crate) fn take_ended(
        &mut self,
        now: Instant,
        look: impl Fn(Which) -> (Option<bool>, Option<Errno>),
    ) -> Vec<(Key, Which, Reply)> {
        let mut ended = Vec::new();
        self.waiting.retain(|waiting| {
            let (is_closed, loss) = look(waiting.which);
            let outcome = waiting.outcome(now, is_closed, loss);
            let waits = outcome.is_none();
            ended.extend(outcome.map(|reply| (waiting.requester, waiting.which, reply)));
            waits
        });
        ended
    }

    /// Returns the time of the next check, if it is not scheduled yet.
    pub(crate) fn next_look(&mut self, now: Instant) -> Option<Instant> {
        if self.waiting.is_empty() || self.look.is_some_and(|look| look > now) {
            return None;
        }
        self.look = Some(now + CHECK_INTERVAL);
        self.look
    }
}
