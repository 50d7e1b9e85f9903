//! SO_LINGER with a time: applications that wait in close(2) until what they have written is acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, Reply, Which};
use peersock_stack::{Delivery, Flow};

use crate::addresses::errno;
use crate::requester::failed;
use crate::wakers::Key;

/// How often it is looked whether everything is acknowledged, while somebody waits.
const LOOK: Duration = Duration::from_millis(2);
/// How long a descriptor that was closed may seem to be open: another node of the process may be looking for
/// one of its own, and has copies of all meanwhile.
const SHARED: Duration = Duration::from_millis(5);
/// A timer that is only to have the server look around.
pub(crate) const NOBODY: Key = 0;

/// Those who wait.
#[derive(Default)]
pub(crate) struct Lingering {
    waiting: Vec<Waiting>,
    /// When they are looked at next.
    look: Option<Instant>,
}

struct Waiting {
    requester: Key,
    which: Which,
    flow: Arc<Flow>,
    until: Instant,
    /// If it is still open then, others have it.
    shared_until: Instant,
}

impl Waiting {
    /// What it is told, if it need not wait any more. `is_closed` is that of the stream, if there still is
    /// one, and `loss` what broke it.
    fn outcome(&self, now: Instant, is_closed: Option<bool>, loss: Option<Errno>) -> Option<Reply> {
        let delivery = match is_closed {
            Some(false) if now >= self.shared_until => return Some(Reply::Done),
            Some(_) => Delivery::Pending,
            None => self.flow.delivery(),
        };
        match delivery {
            Delivery::Lost(loss) => Some(failed(errno(loss.error))),
            // What broke it may have done so before it had got everything.
            Delivery::Done => Some(loss.map_or(Reply::Done, failed)),
            _ => (self.until <= now).then(|| failed(Errno::TIMEDOUT)),
        }
    }
}

impl Lingering {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The reply comes once everything is acknowledged, when the connection breaks or the time is over, which
    /// is an error; at once if others have the socket open.
    pub(crate) fn add(&mut self, requester: Key, which: Which, flow: Arc<Flow>, time: Duration) {
        let now = Instant::now();
        // A time that ends with the world is none.
        let until = now + time.min(Duration::from_secs(u32::MAX.into()));
        self.waiting.push(Waiting { requester, which, flow, until, shared_until: now + SHARED });
    }

    /// Those who have waited for long enough, and what they are told. `look` says of a connection whether its
    /// descriptor is closed, if there still is a stream, and what it was broken by.
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

    /// When they are to be looked at again, if that is not known yet.
    pub(crate) fn next_look(&mut self, now: Instant) -> Option<Instant> {
        if self.waiting.is_empty() || self.look.is_some_and(|look| look > now) {
            return None;
        }
        self.look = Some(now + LOOK);
        self.look
    }
}
