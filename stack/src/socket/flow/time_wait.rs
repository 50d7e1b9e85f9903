//! TIME-WAIT without buffers: the remains of a connection that has ended in order.

use std::time::Duration;

use crate::host::clock::{Time, after, since};
use crate::tcp::{Ending, TcpHeader};

/// Minimum age of a TIME-WAIT before a new connection of this node may replace it.
const REUSE_AFTER: Duration = Duration::from_secs(1);

/// Record that answers late segments of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeWait {
    pub(crate) ending: Ending,
    entered: Time,
    expires: Time,
    /// Duration of TIME-WAIT: [`Config::time_wait`](crate::Config::time_wait).
    length: Duration,
    /// True after a SYN was answered with an acknowledgement; a reset that answers it ends TIME-WAIT.
    challenged: bool,
}

/// Action for a late segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// No action.
    Ignore,
    /// Acknowledge again.
    Acknowledge,
    /// Make room for a new connection.
    MakeRoom,
    /// End TIME-WAIT, because the peer does not know this connection and wants a new one.
    Forget,
}

impl TimeWait {
    pub(crate) fn new(time: Time, length: Duration, ending: Ending) -> Self {
        Self { ending, entered: time, expires: after(time, length), length, challenged: false }
    }

    pub(crate) fn expires(&self) -> Time {
        self.expires
    }

    /// Processes a segment in TIME-WAIT (RFC 9293 3.10.7.4), ignoring resets (RFC 1337). `timestamp` is that
    /// of a SYN.
    ///
    /// One kind of reset is accepted. A SYN that may be an old duplicate is answered with an acknowledgement
    /// (RFC 5961 section 4). A restarted peer that has just sent this SYN does not know the old connection.
    /// It answers with a reset of exactly the acknowledged number, and its next SYN must succeed.
    pub(crate) fn segment(&mut self, time: Time, header: &TcpHeader, timestamp: Option<u32>) -> Late {
        if header.rst {
            let answers = self.challenged && header.seq == self.ending.rcv_nxt;
            return if answers { Late::Forget } else { Late::Ignore };
        }
        if header.opens() {
            if self.is_newer(time, header.seq, timestamp) {
                return Late::MakeRoom;
            }
            self.challenged = true;
        }
        // RFC 9293 3.10.7.4: a retransmitted FIN restarts TIME-WAIT.
        if header.fin {
            self.expires = after(time, self.length);
        }
        let answer = header.syn || header.fin || header.payload > 0;
        if answer { Late::Acknowledge } else { Late::Ignore }
    }

    /// Returns true if a SYN cannot be a duplicate of the old connection's. Its timestamp is newer (RFC 6191
    /// section 2), or it lies beyond the old connection's numbers (RFC 1122 4.2.2.13) and its timestamp is
    /// not older.
    fn is_newer(&self, time: Time, seq: u32, timestamp: Option<u32>) -> bool {
        match (&self.ending.timestamps, timestamp) {
            (Some(known), Some(value)) if known.is_old(time, value) => false,
            (Some(known), Some(value)) if known.is_new(value) => true,
            _ => is_after(seq, self.ending.rcv_nxt),
        }
    }

    /// Returns true if a new connection with the initial sequence number `isn` is distinguishable from this
    /// one.
    pub(crate) fn gives_way_to(&self, time: Time, isn: u32) -> bool {
        since(time, self.entered) >= REUSE_AFTER && is_after(isn, self.ending.snd_nxt)
    }
}

/// Compares sequence numbers modulo 2^32 (RFC 9293 3.4).
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::{Marking, Timestamps};

    fn segment(seq: u32, syn: bool, fin: bool, rst: bool) -> TcpHeader {
        let ack = (!syn).then_some(1);
        TcpHeader { source_port: 1, destination_port: 2, seq, ack, syn, fin, rst, payload: 0 }
    }

    fn time_wait(timestamps: Option<Timestamps>) -> TimeWait {
        let ending = Ending { snd_nxt: 100, rcv_nxt: 200, timestamps, marking: Marking::default() };
        TimeWait::new(Time::from_secs(5), Duration::from_secs(10), ending)
    }

    #[test]
    fn late_segments_are_answered_by_kind() {
        let at = Time::from_secs;
        let mut wait = time_wait(None);
        assert_eq!(wait.segment(at(6), &segment(200, false, false, true), None), Late::Ignore);
        assert_eq!(wait.segment(at(6), &segment(200, false, false, false), None), Late::Ignore);
        assert_eq!(wait.expires(), at(15));
        assert_eq!(wait.segment(at(6), &segment(199, false, true, false), None), Late::Acknowledge);
        assert_eq!(wait.expires(), at(16));
        assert_eq!(wait.segment(at(6), &segment(150, true, false, false), None), Late::Acknowledge);
        assert_eq!(wait.segment(at(6), &segment(201, true, false, false), None), Late::MakeRoom);
        assert!(!wait.gives_way_to(at(5), 101));
        assert!(wait.gives_way_to(at(6), 101));
        assert!(!wait.gives_way_to(at(6), 100));
    }

    #[test]
    fn a_syn_is_new_by_its_timestamp_or_else_by_its_number() {
        let now = Time::from_secs(6);
        let mut wait = time_wait(Some(Timestamps::new(7).heard(now, 1000)));
        let syn = |seq| segment(seq, true, false, false);
        assert_eq!(wait.segment(now, &syn(150), Some(1001)), Late::MakeRoom);
        assert_eq!(wait.segment(now, &syn(201), Some(1000)), Late::MakeRoom);
        assert_eq!(wait.segment(now, &syn(201), None), Late::MakeRoom);
        assert_eq!(wait.segment(now, &syn(150), Some(1000)), Late::Acknowledge);
        assert_eq!(wait.segment(now, &syn(201), Some(999)), Late::Acknowledge);
    }

    #[test]
    fn only_the_reset_that_answers_a_challenge_ends_it() {
        let now = Time::from_secs(6);
        let mut wait = time_wait(None);
        let reset = |seq| segment(seq, false, false, true);
        assert_eq!(wait.segment(now, &reset(200), None), Late::Ignore);
        assert_eq!(wait.segment(now, &segment(150, true, false, false), None), Late::Acknowledge);
        assert_eq!(wait.segment(now, &reset(199), None), Late::Ignore);
        assert_eq!(wait.segment(now, &reset(201), None), Late::Ignore);
        assert_eq!(wait.segment(now, &reset(200), None), Late::Forget);
    }
}
