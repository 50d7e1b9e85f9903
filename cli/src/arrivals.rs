//! Delivery on signals: data that peers sent and this program acknowledged is written before a signal ends
//! the program, because the senders consider it delivered.

use std::io;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::sockets::Stream;
use crate::stdio;

/// Time that stdout gets to accept received data after a signal.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Delay after which the user is told why the program has not ended yet.
const NOTE_AFTER: Duration = Duration::from_millis(300);

/// The connections of this process whose data is written to stdout.
static ARRIVALS: LazyLock<Arrivals> = LazyLock::new(Arrivals::default);

#[derive(Default)]
struct Arrivals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    last: u64,
    /// Set when no more data is accepted.
    ending: bool,
}

struct Entry {
    number: u64,
    stream: Stream,
    is_written: bool,
}

/// Registration of a connection whose data is written to stdout, until dropped.
pub(crate) struct Arriving(u64);

impl Arriving {
    /// Registers a connection. If the process is ending already, no more data is accepted from its peer.
    pub(crate) fn start(stream: &Stream) -> io::Result<Arriving> {
        let stream = stream.try_clone()?;
        let mut state = ARRIVALS.lock();
        if state.ending {
            stream.stop_receiving();
        }
        state.last += 1;
        let number = state.last;
        state.entries.push(Entry { number, stream, is_written: false });
        Ok(Arriving(number))
    }

    /// Records that all received data is written; the peer is not yet informed.
    pub(crate) fn set_written(&self) {
        let mut state = ARRIVALS.lock();
        let own = state.entries.iter_mut().find(|entry| entry.number == self.0);
        own.into_iter().for_each(|entry| entry.is_written = true);
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        ARRIVALS.lock().entries.retain(|entry| entry.number != self.0);
        ARRIVALS.changed.notify_all();
    }
}

/// Finishes connections after a signal. Sent data has `within` to arrive. Then no more data is accepted,
/// peers that have more to send are reset, and acknowledged data gets a while to be written. Returns the
/// number of sent bytes that have not arrived.
pub(crate) fn finish(within: Duration) -> u64 {
    let unacked = wait_sent(within);
    {
        let mut state = ARRIVALS.lock();
        state.ending = true;
        for entry in &state.entries {
            entry.stream.stop_receiving();
        }
    }
    write_arrived();
    unacked
}

/// Waits until peers have acknowledged the sent data; returns the number of unacknowledged bytes.
fn wait_sent(within: Duration) -> u64 {
    let streams: Vec<_> =
        ARRIVALS.lock().entries.iter().filter_map(|entry| entry.stream.try_clone().ok()).collect();
    let deadline = Instant::now() + within;
    for stream in streams.iter().filter(|stream| stream.unacked() > 0) {
        // Missing bytes are counted below, whatever the reason.
        let _ = stream.wait_acknowledged(deadline.saturating_duration_since(Instant::now()));
    }
    streams.iter().map(Stream::unacked).sum()
}

fn write_arrived() {
    if ARRIVALS.wait(NOTE_AFTER) {
        return;
    }
    stdio::note("writing what has arrived; one more signal ends the program at once");
    if !ARRIVALS.wait(WRITE_WITHIN) && ARRIVALS.lock().entries.iter().any(|entry| !entry.is_written) {
        stdio::note(
            "stdout has not accepted all received data: the rest is lost, and its senders do not know",
        );
    }
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// Waits until no registration is left; returns false after the timeout.
    fn wait(&self, within: Duration) -> bool {
        let is_busy = |state: &mut State| !state.entries.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), within, is_busy);
        !waited.expect("no panic under this lock").1.timed_out()
    }
}
