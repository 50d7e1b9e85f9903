//! The end of serving: first no new clients are served, then the remaining connections are cut off.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::slots::Slots;

/// Time for cut-off connections to send their resets. A program that ended earlier would close them as if all
/// data had been sent.
const RESETS: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// No new clients are served.
    Draining,
    /// The remaining connections are reset.
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

/// The signal that serving ends.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Phase>);

impl Stopper {
    /// Makes a stopper and its signal, for connections that take those slots.
    #[doc(hidden)]
    pub fn new(slots: Slots) -> (Stopper, Stop) {
        let (sender, receiver) = watch::channel(Phase::Serving);
        (Stopper { phase: Arc::new(sender), slots }, Stop(receiver))
    }

    /// Stops serving new clients, waits up to `linger` for the connections to end, and resets the remaining
    /// ones, which takes a second at most. Blocks the thread. Returns the number of resets.
    pub fn stop(&self, linger: Duration) -> usize {
        // The phase changes first, so that connections accepted before the listeners notice still count.
        self.phase.send_replace(Phase::Draining);
        let left = self.slots.wait_empty(Instant::now() + linger);
        self.phase.send_replace(Phase::Cut);
        self.slots.wait_empty(Instant::now() + RESETS);
        left
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.slots.taken()
    }
}

impl Stop {
    /// Waits until no new clients are served.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until the remaining connections must be reset.
    pub async fn cut(&self) {
        self.reached(Phase::Cut).await;
    }

    /// Runs `work` unless everything is cut off in the meantime.
    ///
    /// # Errors
    /// `ConnectionAborted` if everything is cut off.
    pub async fn unless_cut<T>(&self, work: impl Future<Output = T>) -> io::Result<T> {
        tokio::select! {
            done = work => Ok(done),
            () = self.cut() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    async fn reached(&self, phase: Phase) {
        let mut phases = self.0.clone();
        if phases.wait_for(|now| *now >= phase).await.is_err() {
            // The stopper is gone, so the phase never changes.
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
        // Like a connection whose turn comes late.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!stopping.is_finished());
        drop(slot);
        assert_eq!(stopping.await.expect("it ends"), 1);
    }
}
