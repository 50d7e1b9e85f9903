//! Gives connections up whose peer does not answer any more, and says that they stand still, because of
//! that or because their packets are lost, and that they go on.
//!
//! What the node hears decides: any authentic packet of the peer shows that it is there, also where packets
//! are lost so often that none of this connection has come for long. So a connection's own silence ends it
//! late, as TCP does by itself, unless the node has heard nothing either.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use peersock::blocking::TcpStream;
use peersock::{Joined, PeerStatus};

use crate::background::Background;
use crate::stdio;

/// A silence is told after this part of the time after which the connection is given up: three keep-alives.
const TELL_AFTER_PART: u32 = 3;

/// How often the peers are looked at while one is silent, and at most.
const INTERVAL: Duration = Duration::from_millis(250);

/// Without a silence the connections are looked at so often within the time after which one would be told:
/// that nothing arrives is told later by no more than that.
const LOOKS: u32 = 4;

/// If a look comes so late, this program was stopped itself, and the peer may have answered meanwhile.
const STOPPED: Duration = Duration::from_secs(2);

/// A silent peer is asked whether it lives this many times before it is given up.
const PROBES: u32 = 9;

/// How long a connection may be unanswered whose peer is there: the library's own time (RFC 1122 4.2.3.5).
const UNANSWERED: Duration = Duration::from_secs(924);

/// Watches connections until it is dropped.
pub(crate) struct Watch {
    /// A peer that is silent for so long is given up; 0: never. Then there are no keep-alives, a silence says
    /// nothing, and nothing is watched.
    timeout: Duration,
    connections: Arc<Mutex<Connections>>,
    thread: Option<Background>,
}

/// A connection that is watched until this is dropped.
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
    stream: TcpStream,
    address: IpAddr,
    /// When the peer is known to have been there last.
    seen: Instant,
    is_silent: bool,
    /// The bytes that the peer has received, and when one came last, or there was none to come.
    delivered: (u64, Instant),
    messages: SilenceMessages,
}

impl Watch {
    /// A watch of connections in a network. If it `tells`, silences are told on stderr, and their ends.
    pub(crate) fn start(joined: &Joined, timeout: Duration, tells: bool) -> io::Result<Watch> {
        let connections = Arc::<Mutex<Connections>>::default();
        if timeout.is_zero() {
            return Ok(Watch { timeout, connections, thread: None });
        }
        let (watched, joined) = (Arc::clone(&connections), joined.clone());
        // Returns when the next look is due.
        let look = move |now, awake_since| {
            if lock(&watched).entries.is_empty() {
                return None;
            }
            let ages = ages(&joined.peers());
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
            // While there is no connection nobody needs to look, and the first one wakes this thread.
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

    /// Has a connection with the peer that has this address fail once that has been silent for too long,
    /// whether it is to send or to acknowledge.
    pub(crate) fn add(&self, stream: &TcpStream, address: IpAddr) -> io::Result<Watched> {
        let mut connections = lock(&self.connections);
        connections.last += 1;
        let number = connections.last;
        if !self.timeout.is_zero() {
            let interval = (self.timeout / PROBES).max(Duration::from_millis(1));
            stream.set_keepalive(Some(interval))?;
            stream.set_user_timeout(Some(user_timeout(self.timeout, false)))?;
            let connection = Connection {
                stream: stream.try_clone()?,
                address,
                seen: Instant::now(),
                is_silent: false,
                delivered: (0, Instant::now()),
                messages: SilenceMessages::new(self.timeout),
            };
            connections.entries.insert(number, connection);
            // With others before it the thread looks early enough.
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
    /// Looks whether the peer is there; what is to be said of it.
    fn look(
        &mut self,
        now: Instant,
        awake_since: Instant,
        ages: &HashMap<IpAddr, Duration>,
        timeout: Duration,
    ) -> Option<String> {
        // A peer that the node does not know any more was there when it was last known.
        let seen = ages.get(&self.address).and_then(|age| now.checked_sub(*age));
        self.seen = self.seen.max(seen.unwrap_or(self.seen));
        let silence = now.saturating_duration_since(self.seen.max(awake_since));
        let is_silent = silence >= timeout;
        if is_silent != self.is_silent {
            self.is_silent = is_silent;
            // Fails only for a time of zero. Whether an answer was due is known to the connection.
            let _ = self.stream.set_user_timeout(Some(user_timeout(timeout, is_silent)));
        }
        let info = self.stream.info().ok()?;
        // A peer that is there would say something again and again: keep-alives see to that, but for one that
        // has no room for what is sent, which is asked less and less often.
        let is_due = info.unacked == 0 || info.peer_window > 0;
        if info.delivered != self.delivered.0 || info.unacked == 0 || !is_due {
            self.delivered = (info.delivered, now);
        }
        let stalled = now.saturating_duration_since(self.delivered.1.max(awake_since));
        let told = self.messages.tell(silence, is_due);
        told.or_else(|| self.messages.tell_loss(stalled, silence))
    }

    /// When it is to be looked at again, if it was looked at now.
    fn due(&self, now: Instant, awake_since: Instant, timeout: Duration) -> Instant {
        if self.messages.is_trouble_told() {
            return now + INTERVAL;
        }
        let silent_at = self.seen.max(awake_since) + timeout / TELL_AFTER_PART;
        silent_at.clamp(now + INTERVAL, now + pause(timeout))
    }
}

/// The time between two looks at connections that are as they should be. It is no longer than a stop of this
/// program that is to be seen.
fn pause(timeout: Duration) -> Duration {
    (timeout / TELL_AFTER_PART / LOOKS).clamp(INTERVAL, STOPPED)
}

/// How long the connection itself may be unanswered.
fn user_timeout(timeout: Duration, is_silent: bool) -> Duration {
    if is_silent { timeout } else { timeout.max(UNANSWERED) }
}

fn lock(connections: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    connections.lock().expect("no panic under this lock")
}

/// How long ago something authentic came from the member with each address, if it is known. Of members that
/// have the same one the first counts.
fn ages(peers: &[PeerStatus]) -> HashMap<IpAddr, Duration> {
    let mut ages = HashMap::new();
    for peer in peers {
        let age = peer.last_seen_s.and_then(|age| Duration::try_from_secs_f64(age).ok());
        for address in &peer.addresses {
            ages.entry(*address).or_insert(age);
        }
    }
    ages.into_iter().filter_map(|(address, age)| Some((address, age?))).collect()
}

/// Decides what is said: each silence once, and its end.
struct SilenceMessages {
    tell_after: Duration,
    give_up_after: Duration,
    /// The silence that the last message tells of, as long as it was when last looked at; none if it has
    /// ended.
    last_message: Option<Duration>,
    /// It was told that what is sent is lost.
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

    /// It was told of a silence, or of packets that are lost, whose end is not told yet.
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
                Some(format!("the peer answers again after {longest} of silence; the connection goes on"))
            }
            Some(_) => {
                self.last_message = Some(silence);
                None
            }
            None => None,
        }
    }

    /// Nothing of what is sent has arrived for some time, and nothing was heard from the peer for another.
    fn tell_loss(&mut self, stalled: Duration, silence: Duration) -> Option<String> {
        match self.is_loss_told {
            false if stalled >= self.tell_after && silence < self.tell_after / 2 => {
                self.is_loss_told = true;
                Some(format!(
                    "nothing of what is sent has arrived for {}, though the peer is there: it is lost on the \
                     way, and sent again and again; `peersock ping` shows how much of what is sent arrives",
                    seconds(stalled)
                ))
            }
            true if stalled < self.tell_after => {
                self.is_loss_told = false;
                Some("what is sent arrives again; the connection goes on".to_owned())
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
        assert!(told.contains("has arrived for 6 s, though the peer is there"), "{told}");
        assert_eq!(tell(6.3, 1.0), "");
        assert_eq!(tell(9.0, 8.0), "");
        assert!(tell(0.0, 0.2).contains("arrives again"));
        assert_eq!(tell(0.3, 0.0), "");
    }
}
