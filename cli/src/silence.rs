//! Timeouts of connections whose peer has fallen silent. Also messages that a connection stalls, because of
//! that or because its packets are lost, and that it goes on.
//!
//! Any authentic packet of the peer at the node shows that the peer is alive, even if losses have stopped
//! this connection for long. So a connection's own silence ends it late, as in plain TCP, unless the node has
//! heard nothing either.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use peersock::{Joined, PeerStatus};
use peersock_attached::Member;

use crate::background::Background;
use crate::sockets::Stream;
use crate::stdio;

/// Divisor of the timeout: a silence is reported after this part, which is three keepalives.
const TELL_AFTER_PART: u32 = 3;

/// Minimum interval of checks, used while a peer is silent.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Number of checks, without a silence, within the time after which one would be reported. A stall is
/// reported late by at most one interval.
const CHECKS_PER_TIMEOUT: u32 = 4;

/// Delay of a check that shows that this program itself was stopped; the peer may have answered meanwhile.
const STOPPED: Duration = Duration::from_secs(2);

/// Number of probes sent to a silent peer before it is given up.
const PROBES: u32 = 9;

/// Maximum time without acknowledgments from a live peer: the library's default (RFC 1122 4.2.3.5).
const UNANSWERED: Duration = Duration::from_secs(924);

/// Watches connections until it is dropped.
pub(crate) struct Watch {
    /// Silence after which a peer is given up; 0 means never. Then there are no keepalives, so silence means
    /// nothing, and nothing is watched.
    timeout: Duration,
    connections: Arc<Mutex<Connections>>,
    thread: Option<Background>,
}

/// Registration of a watched connection, until dropped.
pub(crate) struct Watched {
    connections: Arc<Mutex<Connections>>,
    number: u64,
}

#[derive(Default)]
struct Connections {
    entries: BTreeMap<u64, Connection>,
    last: u64,
}

struct Connection {
    stream: Stream,
    address: IpAddr,
    /// Time at which the peer was last known to be alive.
    seen: Instant,
    is_silent: bool,
    /// Number of bytes the peer has received, and the time of the last progress, or of the last check with
    /// nothing outstanding.
    delivered: (u64, Instant),
    messages: SilenceMessages,
}

impl Watch {
    /// Starts a watch of connections in a network. If `tells`, silences and their ends are printed.
    pub(crate) fn start(heard: Heard, timeout: Duration, tells: bool) -> io::Result<Watch> {
        let connections = Arc::<Mutex<Connections>>::default();
        if timeout.is_zero() {
            return Ok(Watch { timeout, connections, thread: None });
        }
        let watched = Arc::clone(&connections);
        // Checks the connections, and returns when the next check is due.
        let look = move |now, awake_since| {
            let addresses: BTreeSet<_> = lock(&watched).entries.values().map(|one| one.address).collect();
            if addresses.is_empty() {
                return None;
            }
            let ages = heard.ages(&addresses);
            let mut connections = lock(&watched);
            for connection in connections.entries.values_mut() {
                let told = connection.look(now, awake_since, &ages, timeout);
                if let Some(text) = told.filter(|_| tells) {
                    stdio::note(text);
                }
            }
            connections.entries.values().map(|connection| connection.due(now, awake_since, timeout)).min()
        };
        let thread = Some(Background::start("silence", move |is_over| {
            let mut awake_since = Instant::now();
            // Sleeps while there is no connection; the first one wakes this thread.
            while is_over.recv().is_ok() {
                let mut due = Some(Instant::now() + pause(timeout));
                while let Some(at) = due {
                    match is_over.recv_timeout(at.saturating_duration_since(Instant::now())) {
                        Ok(()) => continue,
                        Err(RecvTimeoutError::Disconnected) => return,
                        Err(RecvTimeoutError::Timeout) => {}
                    }
                    let now = Instant::now();
                    if now.saturating_duration_since(at) > STOPPED {
                        awake_since = now;
                    }
                    due = look(now, awake_since);
                }
            }
        })?);
        Ok(Watch { timeout, connections, thread })
    }

    /// Makes a connection with the peer at this address fail once the peer has been silent for too long,
    /// whether it must send or acknowledge.
    pub(crate) fn add(&self, stream: &Stream, address: IpAddr) -> io::Result<Watched> {
        let mut connections = lock(&self.connections);
        connections.last += 1;
        let number = connections.last;
        if !self.timeout.is_zero() {
            let interval = (self.timeout / PROBES).max(Duration::from_millis(1));
            stream.set_keepalive(interval)?;
            stream.set_user_timeout(user_timeout(self.timeout, false))?;
            let connection = Connection {
                stream: stream.try_clone()?,
                address,
                seen: Instant::now(),
                is_silent: false,
                delivered: (0, Instant::now()),
                messages: SilenceMessages::new(self.timeout),
            };
            connections.entries.insert(number, connection);
            // If there are other connections, the thread checks early enough.
            if let Some(thread) = self.thread.as_ref().filter(|_| connections.entries.len() == 1) {
                thread.wake();
            }
        }
        Ok(Watched { connections: Arc::clone(&self.connections), number })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        lock(&self.connections).entries.remove(&self.number);
    }
}

impl Connection {
    /// Checks if the peer is alive; returns the message to print, if any.
    fn look(
        &mut self,
        now: Instant,
        awake_since: Instant,
        ages: &HashMap<IpAddr, Duration>,
        timeout: Duration,
    ) -> Option<String> {
        // A peer that the node has forgotten was alive when it was last known.
        let seen = ages.get(&self.address).and_then(|age| now.checked_sub(*age));
        self.seen = self.seen.max(seen.unwrap_or(self.seen));
        let silence = now.saturating_duration_since(self.seen.max(awake_since));
        let is_silent = silence >= timeout;
        if is_silent != self.is_silent {
            self.is_silent = is_silent;
            // Fails only for a timeout of zero. The connection itself knows if an answer was due.
            let _ = self.stream.set_user_timeout(user_timeout(timeout, is_silent));
        }
        let info = self.stream.info().ok()?;
        // Keepalives make a live peer answer, except one with a closed window, which is probed ever less
        // often.
        let is_due = info.unacked == 0 || info.peer_window > 0;
        if info.delivered != self.delivered.0 || info.unacked == 0 || !is_due {
            self.delivered = (info.delivered, now);
        }
        let stalled = now.saturating_duration_since(self.delivered.1.max(awake_since));
        let told = self.messages.tell(silence, is_due);
        told.or_else(|| self.messages.tell_loss(stalled, silence))
    }

    /// Returns when the next check is due, after one at `now`.
    fn due(&self, now: Instant, awake_since: Instant, timeout: Duration) -> Instant {
        if self.messages.is_trouble_told() {
            return now + MIN_CHECK_INTERVAL;
        }
        let silent_at = self.seen.max(awake_since) + timeout / TELL_AFTER_PART;
        silent_at.clamp(now + MIN_CHECK_INTERVAL, now + pause(timeout))
    }
}

/// Returns the interval of checks without trouble. It is short enough to detect a stop of this program.
fn pause(timeout: Duration) -> Duration {
    (timeout / TELL_AFTER_PART / CHECKS_PER_TIMEOUT).clamp(MIN_CHECK_INTERVAL, STOPPED)
}

/// Returns the maximum time without acknowledgments on the connection.
fn user_timeout(timeout: Duration, is_silent: bool) -> Duration {
    if is_silent { timeout } else { timeout.max(UNANSWERED) }
}

fn lock(connections: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    connections.lock().expect("no panic under this lock")
}

/// Source of the times at which members were last heard.
pub(crate) enum Heard {
    Own(Joined),
    Shared(Member),
}

impl Heard {
    fn ages(&self, addresses: &BTreeSet<IpAddr>) -> HashMap<IpAddr, Duration> {
        match self {
            Heard::Own(joined) => ages(&joined.peers()),
            Heard::Shared(member) => {
                let addresses = addresses.iter().copied().collect();
                member.attached().heard(addresses).into_iter().collect()
            }
        }
    }
}

/// Returns the time since the last authentic packet of the member with each address, if known. If members
/// share an address, the first one counts.
pub(crate) fn ages(peers: &[PeerStatus]) -> HashMap<IpAddr, Duration> {
    let mut ages = HashMap::new();
    for peer in peers {
        let age = peer.last_seen_s.and_then(|age| Duration::try_from_secs_f64(age).ok());
        for address in &peer.addresses {
            ages.entry(*address).or_insert(age);
        }
    }
    ages.into_iter().filter_map(|(address, age)| Some((address, age?))).collect()
}

/// Filter of messages: each silence is printed once, and its end.
struct SilenceMessages {
    tell_after: Duration,
    give_up_after: Duration,
    /// Duration of the reported silence at the last check; none if it has ended.
    last_message: Option<Duration>,
    /// True if the loss of sent data was reported.
    is_loss_told: bool,
}

impl SilenceMessages {
    fn new(give_up_after: Duration) -> SilenceMessages {
        SilenceMessages {
            tell_after: give_up_after / TELL_AFTER_PART,
            give_up_after,
            last_message: None,
            is_loss_told: false,
        }
    }

    /// Returns true if a silence or loss was reported, but not yet its end.
    fn is_trouble_told(&self) -> bool {
        self.last_message.is_some() || self.is_loss_told
    }

    fn tell(&mut self, silence: Duration, is_answer_due: bool) -> Option<String> {
        match self.last_message {
            None if silence >= self.tell_after && is_answer_due => {
                self.last_message = Some(silence);
                Some(format!(
                    "the peer has not answered for {}; without an answer the connection is given up after {} \
                     (--peer-timeout)",
                    seconds(silence),
                    seconds(self.give_up_after)
                ))
            }
            Some(longest) if silence < longest => {
                self.last_message = None;
                let longest = seconds(longest);
                Some(format!("the peer answers again after {longest} of silence; the connection continues"))
            }
            Some(_) => {
                self.last_message = Some(silence);
                None
            }
            None => None,
        }
    }

    /// Returns the message about lost data, of which nothing arrived for `stalled`, from a peer that is
    /// alive.
    fn tell_loss(&mut self, stalled: Duration, silence: Duration) -> Option<String> {
        match self.is_loss_told {
            false if stalled >= self.tell_after && silence < self.tell_after / 2 => {
                self.is_loss_told = true;
                Some(format!(
                    "no sent data has arrived for {}, although the peer is alive: it is lost on the way and \
                     sent again; `peersock ping` shows how many packets arrive",
                    seconds(stalled)
                ))
            }
            true if stalled < self.tell_after => {
                self.is_loss_told = false;
                Some("sent data arrives again; the connection continues".to_owned())
            }
            _ => None,
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", (time.as_secs_f64() * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_silence_is_told_once_and_so_is_its_end() {
        let mut messages = SilenceMessages::new(Duration::from_secs(15));
        let mut tell = |silence, is_due| messages.tell(Duration::from_secs_f64(silence), is_due);
        assert_eq!(tell(4.9, true), None);
        assert_eq!(tell(60.0, false), None, "it has no room, and is asked seldom");
        let told = tell(5.02, true).expect("a line");
        assert!(told.contains("not answered for 5 s") && told.contains("after 15 s"), "{told}");
        assert_eq!(tell(12.34, true), None);
        let told = tell(0.1, true).expect("a line");
        assert!(told.contains("answers again after 12.3 s"), "{told}");
        assert_eq!(tell(0.3, true), None);
        assert!(tell(5.0, true).is_some(), "the next one");
    }

    #[test]
    fn packets_that_are_lost_are_told_of_once_if_the_peer_is_heard() {
        let mut messages = SilenceMessages::new(Duration::from_secs(15));
        let mut tell = |stalled, silence| {
            let [stalled, silence] = [stalled, silence].map(Duration::from_secs_f64);
            messages.tell_loss(stalled, silence).unwrap_or_default()
        };
        assert_eq!(tell(4.9, 0.1), "");
        assert_eq!(tell(5.0, 5.0), "", "that is silence");
        let told = tell(6.0, 1.0);
        assert!(told.contains("has arrived for 6 s, although the peer is alive"), "{told}");
        assert_eq!(tell(6.3, 1.0), "");
        assert_eq!(tell(9.0, 8.0), "");
        assert!(tell(0.0, 0.2).contains("arrives again"));
        assert_eq!(tell(0.3, 0.0), "");
    }
}
