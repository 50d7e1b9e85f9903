//! TIME-WAIT without buffers: what is left of a connection that has ended in order.

use std::time::Duration;

use crate::clock::{Time, after, since};
use crate::tcp::{Ending, TcpHeader};

/// How old a TIME-WAIT must be before a new connection of this node may take its place.
const REUSE_AFTER: Duration = Duration::from_secs(1);

/// The record that answers late segments of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeWait {
    pub(crate) ending: Ending,
    entered: Time,
    expires: Time,
    /// How long it lasts: [`Config::time_wait`](crate::Config::time_wait).
    length: Duration,
}

/// What to do about a late segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// Nothing.
    Ignore,
    /// Acknowledge again.
    Acknowledge,
    /// It opens a new connection; this one makes room.
    MakeRoom,
}

impl TimeWait {
    pub(crate) fn new(time: Time, length: Duration, ending: Ending) -> Self {
        Self { ending, entered: time, expires: after(time, length), length }
    }

    pub(crate) fn expires(&self) -> Time {
        self.expires
    }

    /// RFC 9293 3.10.7.4 for TIME-WAIT, with RFC 1337's rule that resets are ignored.
    pub(crate) fn segment(&mut self, time: Time, header: &TcpHeader) -> Late {
        if header.rst {
            return Late::Ignore;
        }
        // RFC 1122 4.2.2.13: a SYN beyond the old connection's numbers opens a new one.
        if header.opens() && is_after(header.seq, self.ending.rcv_nxt) {
            return Late::MakeRoom;
        }
        if header.fin {
            self.expires = after(time, self.length);
        }
        let answer = header.syn || header.fin || header.payload > 0;
        if answer { Late::Acknowledge } else { Late::Ignore }
    }

    /// Whether a new connection with the initial sequence number `isn` can be told from this one.
    pub(crate) fn gives_way_to(&self, time: Time, isn: u32) -> bool {
        since(time, self.entered) >= REUSE_AFTER && is_after(isn, self.ending.snd_nxt)
    }
}

/// Sequence numbers compare modulo 2^32, RFC 9293 3.4.
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Marking;

    fn segment(seq: u32, syn: bool, fin: bool, rst: bool) -> TcpHeader {
        let ack = (!syn).then_some(1);
        TcpHeader { source_port: 1, destination_port: 2, seq, ack, syn, fin, rst, payload: 0 }
    }

    #[test]
    fn late_segments_are_answered_by_kind() {
        let at = Time::from_secs;
        let ending = Ending { snd_nxt: 100, rcv_nxt: 200, timestamps: None, marking: Marking::default() };
        let mut wait = TimeWait::new(at(5), Duration::from_secs(10), ending);
        assert_eq!(wait.segment(at(6), &segment(200, false, false, true)), Late::Ignore);
        assert_eq!(wait.segment(at(6), &segment(200, false, false, false)), Late::Ignore);
        assert_eq!(wait.expires(), at(15));
        assert_eq!(wait.segment(at(6), &segment(199, false, true, false)), Late::Acknowledge);
        assert_eq!(wait.expires(), at(16));
        assert_eq!(wait.segment(at(6), &segment(150, true, false, false)), Late::Acknowledge);
        assert_eq!(wait.segment(at(6), &segment(201, true, false, false)), Late::MakeRoom);
        assert!(!wait.gives_way_to(at(5), 101));
        assert!(wait.gives_way_to(at(6), 101));
        assert!(!wait.gives_way_to(at(6), 100));
    }
}
