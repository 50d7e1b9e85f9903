//! The end of a process that has hosts.

use std::sync::{Arc, Mutex, Once, Weak};
use std::time::{Duration, Instant};

use super::thread::Hosted;
use crate::Unclosed;

/// How long the process's exit waits for what was sent to be acknowledged, all hosts together.
const EXIT_LINGER: Duration = Duration::from_secs(5);
/// What the hosts may take beyond that for ending.
const EXIT_GRACE: Duration = Duration::from_millis(500);

static HOSTS: Mutex<Vec<Weak<Hosted>>> = Mutex::new(Vec::new());
static AT_EXIT: Once = Once::new();

/// Stops a host when the process exits, if it still runs then.
pub(super) fn remember(hosted: &Arc<Hosted>) {
    AT_EXIT.call_once(|| peersock::attach::at_exit(stop_all));
    // A child that was forked while another thread held the lock does without.
    if let Ok(mut hosts) = HOSTS.try_lock() {
        hosts.retain(|host| host.strong_count() > 0);
        hosts.push(Arc::downgrade(hosted));
    }
}

extern "C" fn stop_all() {
    let Ok(mut hosts) = HOSTS.try_lock() else { return };
    let process = rustix::process::getpid();
    let here = hosts.drain(..).filter_map(|host| {
        let host = host.upgrade()?;
        if host.process == process && !host.is_own_thread() {
            return host.begin_stop(EXIT_LINGER, Unclosed::Finish);
        }
        // The parent's: its locks may be held for ever.
        std::mem::forget(host);
        None
    });
    let stopping: Vec<_> = here.collect();
    let deadline = Instant::now() + EXIT_LINGER + EXIT_GRACE;
    for host in stopping {
        let _ = host.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}
