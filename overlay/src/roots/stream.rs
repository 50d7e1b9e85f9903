//! Conditions for reaching a root by a stream (TCP, TLS, WebSocket), which the driver opens.
//!
//! UDP is better, because a lost datagram in a stream delays all later ones. So a stream is wanted only after
//! UDP has had no answer for a while. While the stream is the path, UDP is asked now and then. Once it has
//! answered, and the root has seen this node there, the stream is closed.
//!
//! A stream to a guest, which another root has named, is tried only for a while, until the guest has
//! answered, because anyone can name a root at any address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::reach::SocketIndex;
use crate::wire::StreamWay;

/// Waits between two questions by UDP while a stream is the path: the first and the maximum.
const ASK: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];

/// Time in which the root has to see that this node is reached by UDP again.
const UDP_RETURN_TIME: Duration = Duration::from_secs(10);

/// Stream to one root.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Socket index of the stream; the same for each stream to this root.
    pub(crate) socket: SocketIndex,
    /// Addresses where the root listens for UDP.
    pub(crate) endpoints: Vec<SocketAddr>,
    /// Wait for an answer by UDP; `None` if the root takes no streams.
    pub(crate) after: Option<Duration>,
    pub(crate) is_wanted: bool,
    pub(crate) is_open: bool,
    /// Ways to a guest, which another root has named.
    pub(crate) ways: Vec<StreamWay>,
    /// Time until which a guest is tried; `None` without limit, for a root that is no guest or has answered.
    until: Option<Instant>,
    /// Local port of the stream, if that leads to the root without a proxy.
    pub(crate) port: Option<u16>,
    /// Time since which nothing is heard by UDP.
    silent: Option<Instant>,
    /// Time since which UDP is the path again.
    back: Option<Instant>,
    /// Time of the next question by UDP, and the number of questions so far.
    ask_at: Option<Instant>,
    asked: u32,
}

/// Present way to a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// By UDP, where the root was last `heard` and owes no answer. `is_vouched`: it has vouched for a UDP
    /// address of this node.
    Udp { heard: Option<Instant>, is_vouched: bool },
    /// By the stream.
    Stream,
    /// By no known way since then.
    Not {
        since: Instant,
        /// Time within which it has answered by UDP before, if it has.
        answers_within: Option<Duration>,
    },
}

/// Result of a step.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamStep {
    /// Address to ask whether UDP passes.
    pub(crate) ask: Option<SocketAddr>,
    /// Time of the next step, if nothing else happens.
    pub(crate) next: Option<Instant>,
}

impl Stream {
    pub(crate) fn new(socket: SocketIndex) -> Self {
        Self {
            socket,
            endpoints: Vec::new(),
            after: None,
            ways: Vec::new(),
            until: None,
            is_wanted: false,
            is_open: false,
            port: None,
            silent: None,
            back: None,
            ask_at: None,
            asked: 0,
        }
    }

    /// Sets the parameters of a root that the user has named.
    pub(crate) fn set_own(&mut self, after: Option<Duration>, endpoints: Vec<SocketAddr>) {
        (self.after, self.endpoints) = (after, endpoints);
        (self.ways, self.until) = (Vec::new(), None);
    }

    /// Sets the ways to a guest, and the time until which they may be tried.
    pub(crate) fn try_named(&mut self, ways: Vec<StreamWay>, after: Duration, until: Instant) {
        (self.ways, self.after, self.until) = (ways, Some(after), Some(until));
    }

    /// Returns true if nothing is heard by UDP, nor by the stream.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.is_some()
    }

    /// Decides whether the stream is wanted, and whether to ask by UDP.
    pub(crate) fn step(&mut self, reached: Reached, now: Instant) -> StreamStep {
        let Some(after) = self.after else {
            self.is_wanted = false;
            return StreamStep::default();
        };
        match reached {
            // The end of questions is no answer, because a handshake may have replaced them.
            Reached::Udp { heard, .. }
                if self.silent.is_some_and(|since| heard.is_none_or(|at| at <= since)) =>
            {
                self.wait(after, now)
            }
            Reached::Udp { is_vouched, .. } => {
                self.silent = None;
                let since = *self.back.get_or_insert(now);
                // The root still sends by the stream until it has seen a packet by UDP.
                let is_done = is_vouched || !self.is_open || now >= since + UDP_RETURN_TIME;
                self.is_wanted &= !is_done;
                StreamStep { ask: None, next: self.is_wanted.then_some(since + UDP_RETURN_TIME) }
            }
            Reached::Stream => {
                self.until = None;
                (self.silent, self.back, self.is_wanted) = (None, None, true);
                self.ask(now)
            }
            Reached::Not { since, answers_within } => {
                self.silent.get_or_insert(since);
                self.wait(answers_within.map_or(after, |usual| usual.min(after)), now)
            }
        }
    }

    /// Waits, because nothing is heard by UDP.
    fn wait(&mut self, after: Duration, now: Instant) -> StreamStep {
        self.back = None;
        // An open stream proves nothing, because any server may listen there.
        if self.until.is_some_and(|until| now >= until) {
            self.is_wanted = false;
            return StreamStep::default();
        }
        // UDP comes first, because a stream delays all datagrams behind a lost one.
        let due = self.silent.unwrap_or(now) + after;
        self.is_wanted |= now >= due;
        StreamStep { ask: None, next: if self.is_wanted { self.until } else { Some(due) } }
    }

    /// Asks by UDP soon, because the network has changed or the stream is new.
    pub(crate) fn ask_soon(&mut self) {
        (self.ask_at, self.asked) = (None, 0);
    }

    fn ask(&mut self, now: Instant) -> StreamStep {
        let (Some(count), [first, longest]) = (u32::try_from(self.endpoints.len()).ok(), ASK) else {
            return StreamStep::default();
        };
        if count == 0 {
            return StreamStep::default();
        }
        let at = *self.ask_at.get_or_insert(now + first);
        if now < at {
            return StreamStep { ask: None, next: Some(at) };
        }
        let ask = self.endpoints[(self.asked % count) as usize];
        self.asked = self.asked.wrapping_add(1);
        // Each address gets its turn in each round, and the rounds become rarer.
        let wait = (first * 2u32.pow((self.asked / count).min(5))).min(longest);
        self.ask_at = Some(now + wait);
        StreamStep { ask: Some(ask), next: self.ask_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::instant;

    const AFTER: Duration = Duration::from_secs(1);

    #[test]
    fn a_root_that_was_only_named_is_tried_for_a_while_and_without_limit_once_it_has_answered() {
        let (mut stream, start) = (Stream::new(SocketIndex::stream(0)), instant());
        let at = |seconds| start + Duration::from_secs(seconds);
        let not = Reached::Not { since: start, answers_within: None };
        stream.try_named(Vec::new(), AFTER, at(11));
        assert_eq!(stream.step(not, start), StreamStep { ask: None, next: Some(at(1)) });
        assert_eq!(stream.step(not, at(1)), StreamStep { ask: None, next: Some(at(11)) });
        assert!(stream.is_wanted);
        assert_eq!(stream.step(not, at(11)), StreamStep::default());
        assert!(!stream.is_wanted, "nobody has answered");
        stream.try_named(Vec::new(), AFTER, at(50));
        stream.step(not, at(40));
        (stream.is_open, stream.is_wanted) = (true, true);
        stream.step(Reached::Stream, at(41));
        stream.is_open = false;
        stream.step(not, at(100));
        assert!(stream.is_wanted, "it is a root");
    }

    #[test]
    fn it_is_wanted_when_udp_is_silent_and_no_more_when_the_root_has_seen_it_there() {
        let (mut stream, start) = (stream(), instant());
        let at = |millis| start + Duration::from_millis(millis);
        let not = Reached::Not { since: start, answers_within: None };
        assert_eq!(stream.step(not, at(10)), StreamStep { ask: None, next: Some(at(1000)) });
        assert!(!stream.is_wanted);
        assert_eq!(stream.step(not, at(1000)), StreamStep::default());
        assert!(stream.is_wanted);
        stream.is_open = true;
        stream.step(Reached::Stream, at(1100));
        assert!(stream.is_wanted);
        // UDP answers, but the root still sends by the stream.
        let udp = |is_vouched| Reached::Udp { heard: Some(at(5000)), is_vouched };
        let step = stream.step(udp(false), at(5000));
        assert!(stream.is_wanted && step.next == Some(at(15_000)));
        stream.step(udp(true), at(5100));
        assert!(!stream.is_wanted);
    }

    #[test]
    fn a_root_that_never_vouches_keeps_the_stream_open_for_ten_seconds() {
        let (mut stream, start) = (stream(), instant());
        (stream.is_open, stream.is_wanted) = (true, true);
        let udp = Reached::Udp { heard: Some(start), is_vouched: false };
        stream.step(udp, start);
        stream.step(udp, start + UDP_RETURN_TIME - Duration::from_millis(1));
        assert!(stream.is_wanted);
        stream.step(udp, start + UDP_RETURN_TIME);
        assert!(!stream.is_wanted);
    }

    #[test]
    fn that_nothing_is_asked_any_more_is_no_answer() {
        let (mut stream, start) = (stream(), instant());
        let at = |seconds| start + Duration::from_secs(seconds);
        stream.step(Reached::Not { since: at(1), answers_within: None }, at(2));
        assert!(stream.is_wanted);
        stream.step(Reached::Udp { heard: Some(at(1)), is_vouched: true }, at(3));
        assert!(stream.is_wanted);
        stream.step(Reached::Udp { heard: Some(at(4)), is_vouched: true }, at(4));
        assert!(!stream.is_wanted);
    }

    #[test]
    fn udp_is_asked_at_each_address_and_ever_more_rarely() {
        let (mut stream, start) = (stream(), instant());
        let mut asked = Vec::new();
        let mut now = start;
        while asked.len() < 8 {
            let step = stream.step(Reached::Stream, now);
            asked.extend(step.ask.map(|to| (to.port(), (now - start).as_secs())));
            now = step.next.expect("there are addresses");
        }
        let expected = [(1, 2), (2, 4), (1, 8), (2, 12), (1, 20), (2, 28), (1, 44), (2, 60)];
        assert_eq!(asked, expected);
    }

    #[test]
    fn a_root_without_streams_never_gets_one() {
        let mut stream = Stream { after: None, ..stream() };
        let now = instant();
        stream.step(Reached::Not { since: now, answers_within: None }, now + Duration::from_secs(60));
        assert!(!stream.is_wanted);
    }

    fn stream() -> Stream {
        let endpoints = vec![([192, 0, 2, 1], 1).into(), ([192, 0, 2, 1], 2).into()];
        Stream { endpoints, after: Some(AFTER), ..Stream::new(SocketIndex::stream(0)) }
    }
}
