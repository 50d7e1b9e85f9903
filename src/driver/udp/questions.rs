//! Questions of the data sockets to outsiders, for example STUN servers, about their mapped address.
//!
//! Each socket must ask for itself, because a NAT may map each differently. Other datagrams that arrive
//! meanwhile take the usual path; only answers from the asked addresses are intercepted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::sync;

/// Limit of answers kept for the asker.
const MAX_ANSWERS: usize = 64;

/// Limit of answers of one outsider to one socket, because repeated questions have several answers.
const MAX_ANSWERS_OF_OUTSIDER: usize = 4;

/// Size limit of an answer in bytes: answers of STUN servers and DHT nodes are shorter.
const MAX_BYTES: usize = 1024;

/// Answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutsideAnswer {
    /// Position of the data socket that received it.
    pub(crate) socket: usize,
    /// Source of the answer.
    pub(crate) from: SocketAddr,
    pub(crate) datagram: Vec<u8>,
}

/// Asked addresses, and answers received.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// True while answers are expected. An atomic, because it is read for each received batch.
    open: AtomicBool,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: Vec<SocketAddr>,
    answers: Vec<OutsideAnswer>,
}

impl Questions {
    /// Accepts answers from `asked` from now on, and drops earlier ones.
    pub(super) fn open(&self, asked: Vec<SocketAddr>) {
        *sync::lock(&self.state) = State { asked, answers: Vec::new() };
        self.open.store(true, Ordering::SeqCst);
    }

    /// Stops accepting answers.
    pub(super) fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        *sync::lock(&self.state) = State::default();
    }

    /// Returns true while answers are expected.
    pub(super) fn is_open(&self) -> bool {
        // Relaxed, because each datagram reads it; the list of the asked, behind its lock, decides.
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a received datagram, if it is from an asked address; returns true then.
    pub(super) fn take(&self, socket: usize, from: SocketAddr, datagram: &[u8]) -> bool {
        if !self.is_open() || datagram.len() > MAX_BYTES || is_of_the_overlay(datagram) {
            return false;
        }
        let mut state = sync::lock(&self.state);
        if !state.asked.contains(&from) {
            return false;
        }
        let of_one = |answer: &&OutsideAnswer| (answer.socket, answer.from) == (socket, from);
        let is_flood = state.answers.iter().filter(of_one).count() >= MAX_ANSWERS_OF_OUTSIDER;
        if !is_flood && state.answers.len() < MAX_ANSWERS {
            state.answers.push(OutsideAnswer { socket, from, datagram: datagram.to_vec() });
            self.arrived.notify_all();
        }
        true
    }

    /// Waits for answers, at most until a time; returns all that came since the last call.
    pub(super) fn wait(&self, until: Instant) -> Vec<OutsideAnswer> {
        let patience = until.saturating_duration_since(Instant::now()).min(MAX_INTERVAL);
        let state = sync::lock(&self.state);
        let mut state =
            sync::wait_timeout_while(&self.arrived, state, patience, |state| state.answers.is_empty());
        std::mem::take(&mut state.answers)
    }
}

/// Returns true for a message of the overlay.
fn is_of_the_overlay(datagram: &[u8]) -> bool {
    // Roots use one port for STUN and the overlay, so the source does not tell them apart.
    peersock_overlay::wire::MessageType::of(datagram).is_some()
}

const MAX_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_of_those_that_were_asked_are_taken() {
        let questions = Questions::default();
        let [server, other]: [SocketAddr; 2] =
            ["192.0.2.1:3478", "192.0.2.2:3478"].map(|text| text.parse().unwrap());
        assert!(!questions.take(0, server, b"d1:"), "nobody was asked");
        questions.open(vec![server]);
        assert!(!questions.take(0, other, b"d1:"));
        assert!(!questions.take(0, server, &[0xD4, 0, 0]), "the overlay's");
        assert!(!questions.take(0, server, &[1; MAX_BYTES + 1]));
        assert!(questions.take(1, server, b"d1:"));
        let answer = OutsideAnswer { socket: 1, from: server, datagram: b"d1:".to_vec() };
        assert_eq!(questions.wait(Instant::now() + MAX_INTERVAL), [answer]);
        for _ in 0..2 * MAX_ANSWERS {
            questions.take(0, server, b"flood");
        }
        assert_eq!(questions.wait(Instant::now()).len(), MAX_ANSWERS_OF_OUTSIDER);
        for socket in 0..2 * MAX_ANSWERS {
            questions.take(socket, server, b"flood");
        }
        assert_eq!(questions.wait(Instant::now()).len(), MAX_ANSWERS);
        questions.close();
        assert!(!questions.take(0, server, b"late"));
        assert_eq!(questions.wait(Instant::now()), []);
    }
}
