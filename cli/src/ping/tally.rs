//! Statistics of a ping, for people and scripts.

use std::fmt;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use peersock::PeerStatus;
use serde_json::{Value, json};

use crate::failure::Outcome;
use crate::output::{print, round};
use crate::path::{Path, reasons};

/// The JSON object, which the first thread that knows the outcome prints.
pub(super) struct Summary {
    /// True until the object is printed.
    is_wanted: AtomicBool,
}

impl Summary {
    pub(super) fn new(json: bool) -> Summary {
        Summary { is_wanted: AtomicBool::new(json) }
    }

    /// Prints the object, if it is wanted and not yet printed; there may be no tally yet.
    pub(super) fn print(&self, tally: &Mutex<Option<Tally>>, error: Option<&str>) -> Outcome {
        if !self.is_wanted.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let tally = tally.lock().expect("no panic under this lock");
        let mut report =
            tally.as_ref().map_or_else(|| json!({ "transmitted": 0, "received": 0 }), Tally::json);
        if let Some(error) = error {
            report["error"] = json!(error);
        }
        print(report)
    }
}

/// Statistics of requests and replies.
pub(super) struct Tally {
    pub(super) address: IpAddr,
    begin: Instant,
    /// Time of the last request.
    pub(super) last: Instant,
    sent: u64,
    pub(super) round_trips: Vec<Duration>,
    /// Last path taken.
    pub(super) path: Option<Path>,
    /// State of the peer after the last request.
    pub(super) peer: Option<PeerStatus>,
}

impl Tally {
    pub(super) fn new(address: IpAddr) -> Tally {
        let now = Instant::now();
        Tally { address, begin: now, last: now, sent: 0, round_trips: Vec::new(), path: None, peer: None }
    }

    pub(super) fn sending(&mut self) {
        self.sent += 1;
        self.last = Instant::now();
    }

    /// Prints why the path is not direct, and the statistics.
    pub(super) fn print_end(&self) -> Outcome {
        for reason in self.peer.iter().flat_map(reasons) {
            print(format_args!("not direct: {reason}"))?;
        }
        print(format_args!("\n{self}"))
    }

    fn loss_percent(&self) -> f64 {
        match self.sent {
            0 => 0.0,
            sent => 100.0 * (1.0 - self.round_trips.len() as f64 / sent as f64),
        }
    }

    /// Returns minimum, median, mean and maximum.
    fn summary(&self) -> Option<[Duration; 4]> {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let mean = sorted.iter().sum::<Duration>().div_f64(sorted.len() as f64);
        // Averages the middle two, which are the same element if the count is odd.
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2;
        Some([first, median, mean, last])
    }

    fn json(&self) -> Value {
        let summary = self.summary().map(|summary| summary.map(exact_millis));
        json!({
            "address": self.address,
            "transmitted": self.sent,
            "received": self.round_trips.len(),
            "loss_percent": round(self.loss_percent(), 3),
            "min_ms": summary.map(|s| s[0]),
            "median_ms": summary.map(|s| s[1]),
            "mean_ms": summary.map(|s| s[2]),
            "max_ms": summary.map(|s| s[3]),
            "path": self.path.as_ref().map(Path::json),
            "attempts": self.peer.as_ref().map_or_else(|| json!([]), |peer| json!(peer.attempts)),
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received = self.round_trips.len();
        let requests = if self.sent == 1 { "request" } else { "requests" };
        let replies = if received == 1 { "reply" } else { "replies" };
        write!(
            f,
            "--- {} ping statistics ---\n{} {requests} transmitted, {received} {replies} received, \
             {:.0}% loss, time {:.0} ms",
            self.address,
            self.sent,
            self.loss_percent(),
            millis(self.begin.elapsed())
        )?;
        match self.summary().map(|summary| summary.map(millis)) {
            Some([min, median, mean, max]) => {
                write!(f, "\nround trip min/median/mean/max = {min:.3}/{median:.3}/{mean:.3}/{max:.3} ms")
            }
            None => Ok(()),
        }
    }
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Returns milliseconds rounded to the nanosecond, the resolution of clocks.
fn exact_millis(duration: Duration) -> f64 {
    round(millis(duration), 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::fixtures;

    #[test]
    fn the_summary_counts_what_was_lost() {
        let mut tally = Tally::new("fd00::1".parse().unwrap());
        assert!(tally.summary().is_none());
        tally.sending();
        tally.round_trips.push(Duration::from_millis(1));
        let text = tally.to_string();
        assert!(text.contains("1 request transmitted, 1 reply received, 0% loss"), "{text}");
        let mut tally = Tally::new("fd00::1".parse().unwrap());
        for millis in [4, 1, 2] {
            tally.sending();
            tally.round_trips.push(Duration::from_millis(millis));
        }
        tally.sending();
        let text = tally.to_string();
        assert!(text.contains("4 requests transmitted, 3 replies received, 25% loss"), "{text}");
        assert!(text.contains("= 1.000/2.000/2.333/4.000 ms"), "{text}");
        tally.round_trips.push(Duration::from_millis(3));
        assert_eq!(tally.summary().unwrap()[1], Duration::from_micros(2500), "of an even number");
        let json = tally.json();
        assert_eq!((&json["median_ms"], &json["loss_percent"]), (&json!(2.5), &json!(0.0)));
        assert_eq!(json["attempts"], json!([]));
        let attempt = json!({ "address": "192.0.2.1:7420", "kind": "mapped", "vouched": false, "sent": 1,
                              "tried_s": null, "answered": false, "outcome": "no answer" });
        let status = fixtures::status(json!({
            "node_id": "aa", "uptime_s": 1, "endpoints": [], "networks": [], "flows": {"total": 0},
            "counters": {},
            "peers": [{"id": "bb", "network": "ff01", "addresses": [], "connected": false, "state": "known",
                       "path": null}],
        }));
        let mut peer = status.peers[0].clone();
        peer.attempts = vec![serde_json::from_value(attempt.clone()).unwrap()];
        tally.peer = Some(peer);
        assert_eq!(tally.json()["attempts"], json!([attempt]));
    }
}
