//! SO_LINGER with a time: applications that wait in close(2) until what they have written is acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_fd::{Errno, Reply, Which};
use peersock_stack::{Delivery, Flow};

use super::requester::{failed, id};
use super::socket_table::errno;
use super::state::ServerState;
use super::wakers::Key;

/// How often it is looked whether everything is acknowledged, while somebody waits.
const LOOK: Duration = Duration::from_millis(2);
/// How long a descriptor that was closed may seem to be open: another node of the process may be looking for
/// one of its own, and has copies of all meanwhile.
const SHARED: Duration = Duration::from_millis(5);
/// A timer that is only to have the server look around.
const NOBODY: Key = 0;

/// Those who wait.
#[derive(Default)]
pub(super) struct Lingering {
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

impl ServerState {
    /// The connection of a socket that is about to be closed: afterwards it may be gone before anybody asks
    /// about it.
    pub(super) fn flow_of(&self, which: Which) -> Option<Arc<Flow>> {
        self.stream(which).map(|stream| Arc::clone(stream.connection.flow()))
    }

    /// The reply comes once everything is acknowledged, when the connection breaks or the time is over, which
    /// is an error; at once if others have the socket open.
    pub(super) fn linger(
        &mut self,
        requester: Key,
        which: Which,
        flow: Arc<Flow>,
        time: Duration,
    ) -> Option<Reply> {
        let now = Instant::now();
        // A time that ends with the world is none.
        let until = now + time.min(Duration::from_secs(u32::MAX.into()));
        self.lingering.waiting.push(Waiting { requester, which, flow, until, shared_until: now + SHARED });
        None
    }

    /// Answers those who have waited for long enough.
    pub(super) fn check_lingering(&mut self) {
        if self.lingering.waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut all = std::mem::take(&mut self.lingering.waiting);
        all.retain(|waiting| match self.outcome(waiting, now) {
            Some(reply) => {
                if matches!(reply, Reply::Failed(_)) {
                    self.note_noticed(waiting.which);
                }
                self.reply(waiting.requester, &reply);
                false
            }
            None => true,
        });
        self.lingering.waiting = all;
        if !self.lingering.waiting.is_empty() && self.lingering.look.is_none_or(|look| look <= now) {
            self.lingering.look = Some(now + LOOK);
            self.context.set_timer(now + LOOK, NOBODY);
        }
    }

    /// What one of them is told, if it need not wait any more.
    fn outcome(&mut self, waiting: &Waiting, now: Instant) -> Option<Reply> {
        let delivery = match self.stream(waiting.which) {
            Some(stream) if now >= waiting.shared_until && !stream.is_closed() => return Some(Reply::Done),
            Some(_) => Delivery::Pending,
            None => waiting.flow.delivery(),
        };
        match delivery {
            Delivery::Lost(loss) => Some(failed(errno(loss.error))),
            // What broke it may have done so before it had got everything.
            Delivery::Done => Some(self.endings.loss(id(waiting.which)).map_or(Reply::Done, failed)),
            _ => (waiting.until <= now).then(|| failed(Errno::TIMEDOUT)),
        }
    }
}
