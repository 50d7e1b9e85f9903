//! How serving ends: first nobody new is served, then what is left is cut off.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::slots::Slots;

/// How long connections have to reset what they are cut off from: a program that ended before that would
/// close them as if all was said.
const RESETS: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Nobody new is served.
    Draining,
    /// What is left is reset.
    Cut,
}

/// Ends a [`Proxy`](crate::Proxy) or [`Forwards`](crate::Forwards) from any thread.
///
/// ```
/// use std::time::Duration;
///
/// use peersock_proxy::Stopper;
///
/// fn end(stopper: &Stopper) {
///     let cut_off = stopper.stop(Duration::from_secs(5));
///     if cut_off > 0 {
///         eprintln!("{cut_off} connections were cut off");
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Stopper {
    phase: Arc<watch::Sender<Phase>>,
    slots: Slots,
}

/// Is told when serving ends.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Phase>);

impl Stopper {
    /// One of each, for what takes those slots.
    #[doc(hidden)]
    pub fn new(slots: Slots) -> (Stopper, Stop) {
        let (sender, receiver) = watch::channel(Phase::Serving);
        (Stopper { phase: Arc::new(sender), slots }, Stop(receiver))
    }

    /// Serves nobody new, waits up to `linger` for the connections to end, and resets what is left, for
    /// which it takes a second at most. Blocks the thread. Returns how many were reset.
    pub fn stop(&self, linger: Duration) -> usize {
        // At first and not after the listeners have heard of it: what they have accepted by then counts.
        self.phase.send_replace(Phase::Draining);
        let left = self.slots.wait_empty(Instant::now() + linger);
        self.phase.send_replace(Phase::Cut);
        self.slots.wait_empty(Instant::now() + RESETS);
        left
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.slots.taken()
    }
}

impl Stop {
    /// Returns when nobody new is to be served.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns when what is left is to be reset.
    pub async fn cut(&self) {
        self.reached(Phase::Cut).await;
    }

    /// Does something unless all is cut off meanwhile.
    ///
    /// # Errors
    /// `ConnectionAborted` if it is.
    pub async fn unless_cut<T>(&self, work: impl Future<Output = T>) -> io::Result<T> {
        tokio::select! {
            done = work => Ok(done),
            () = self.cut() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    async fn reached(&self, phase: Phase) {
        let mut phases = self.0.clone();
        if phases.wait_for(|now| *now >= phase).await.is_err() {
            // Nobody is left who could stop it.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_cut_off_is_reset_when_stop_returns() {
        let slots = Slots::new(1);
        let slot = slots.take(None).expect("there is room");
        let (stopper, stop) = Stopper::new(slots.clone());
        let stopping = tokio::task::spawn_blocking(move || stopper.stop(Duration::ZERO));
        stop.cut().await;
        // As a connection whose turn comes late.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!stopping.is_finished());
        drop(slot);
        assert_eq!(stopping.await.expect("it ends"), 1);
    }
}
