//! SO_LINGER with a time: applications that wait in close(2) until what they have written is acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_fd::{Reply, Which};
use peersock_stack::Flow;

use super::ready::Key;
use super::server::State;
use crate::datapath::is_drained;

/// How often it is looked whether everything is acknowledged, while somebody waits.
const LOOK: Duration = Duration::from_millis(2);
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
    control: Key,
    which: Which,
    flow: Arc<Flow>,
    until: Instant,
}

impl State {
    /// The connection of a socket that is about to be closed: afterwards it may be gone before anybody asks about it.
    pub(super) fn flow_of(&self, which: Which) -> Option<Arc<Flow>> {
        self.stream(which).map(|stream| Arc::clone(stream.connection.flow()))
    }

    /// The reply comes once everything is acknowledged, or when the time is over; at once if others have the socket open.
    pub(super) fn linger(
        &mut self,
        control: Key,
        which: Which,
        flow: Arc<Flow>,
        time: Duration,
    ) -> Option<Reply> {
        if self.stream(which).is_some_and(|stream| !stream.is_closed()) {
            return Some(Reply::Done);
        }
        // A time that ends with the world is none.
        let until = Instant::now() + time.min(Duration::from_secs(u32::MAX.into()));
        self.lingering.waiting.push(Waiting { control, which, flow, until });
        None
    }

    /// Answers those who have waited for long enough.
    pub(super) fn check_lingering(&mut self) {
        if self.lingering.waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut all = std::mem::take(&mut self.lingering.waiting);
        let over = |waiting: &mut Waiting| {
            let is_done = self.stream(waiting.which).is_none() && is_drained(&waiting.flow);
            is_done || waiting.until <= now
        };
        let done: Vec<Waiting> = all.extract_if(.., over).collect();
        self.lingering.waiting = all;
        for waiting in done {
            self.reply(waiting.control, &Reply::Done);
        }
        if !self.lingering.waiting.is_empty() && self.lingering.look.is_none_or(|look| look <= now) {
            self.lingering.look = Some(now + LOOK);
            self.set_timer(now + LOOK, NOBODY);
        }
    }
}
