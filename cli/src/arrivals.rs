//! What peers have sent and this program has acknowledged is written before a signal ends the program: the
//! senders take it for delivered.

use std::io;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use peersock::blocking::TcpStream;

use crate::stdio;

/// How long stdout may take for what has arrived when a signal comes.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// If it takes so long, whoever waits is told why.
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
    /// Nothing more is taken.
    ending: bool,
}

struct Entry {
    number: u64,
    stream: TcpStream,
    is_written: bool,
}

/// A connection whose data is written to stdout, until this is dropped.
pub(crate) struct Arriving(u64);

impl Arriving {
    /// Registers a connection. If the process is ending already, nothing more is taken from its peer.
    pub(crate) fn start(stream: &TcpStream) -> io::Result<Arriving> {
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

    /// All that has come is written; the peer is still to hear of it.
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

/// A signal has come. Takes nothing more from any peer, and waits a while until what has been acknowledged is
/// written. Peers that have more to send are reset at once, so that they know.
pub(crate) fn finish() {
    {
        let mut state = ARRIVALS.lock();
        state.ending = true;
        for entry in &state.entries {
            entry.stream.stop_receiving();
        }
    }
    if ARRIVALS.wait(NOTE_AFTER) {
        return;
    }
    stdio::note("writing what has arrived; one more signal ends the program at once");
    if !ARRIVALS.wait(WRITE_WITHIN) && ARRIVALS.lock().entries.iter().any(|entry| !entry.is_written) {
        stdio::note("stdout has not taken all that arrived: the rest is lost, and its senders do not know");
    }
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// Waits until nothing is to be written any more; false if that takes longer than this.
    fn wait(&self, within: Duration) -> bool {
        let is_busy = |state: &mut State| !state.entries.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), within, is_busy);
        !waited.expect("no panic under this lock").1.timed_out()
    }
}
