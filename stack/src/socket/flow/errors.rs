//! ICMP errors about a connection.

use super::Flow;
use crate::host::clock::Time;
use crate::{Error, ErrorReport, State};

impl Flow {
    /// Returns the last ICMP error about this connection, if the peer was silent since (RFC 9293 3.9.2.2, RFC
    /// 5461).
    ///
    /// Such an error ends a connection attempt, but no established connection. A connection that times out
    /// while an error is stored fails with it instead of [`Error::TimedOut`]. Taking the error clears it.
    /// With [`receive_errors`](crate::IpOptions::receive_errors) no error is stored, because each one fails
    /// the next call.
    pub fn take_soft_error(&self) -> Option<Error> {
        self.lock().soft.take()
    }

    /// Takes the oldest report of an ICMP error (MSG_ERRQUEUE), without quoted stream bytes. Reports exist
    /// only with [`receive_errors`](crate::IpOptions::receive_errors). At most 16 KiB of reports are kept;
    /// more are dropped and counted.
    /// Errors: [`Error::WouldBlock`] if there is no report.
    pub fn recv_error(&self) -> Result<ErrorReport, Error> {
        let mut inner = self.lock();
        let report = inner.cold.as_mut().and_then(|cold| cold.reports.pop(&mut [])).ok_or(Error::WouldBlock);
        self.publish(&mut inner);
        report
    }

    /// Returns true if the byte with sequence number `seq` was sent and is not acknowledged (RFC 5927 7.2).
    /// Otherwise no packet can have been too big.
    pub(crate) fn has_in_flight(&self, seq: u32) -> bool {
        self.lock().live().is_some_and(|connection| connection.has_in_flight(seq))
    }

    /// Processes an ICMP error about the packet with sequence number `seq`; returns `false` if it cannot be
    /// genuine.
    ///
    /// The error ends a connection attempt. For an established connection it is advisory (RFC 5461). As in
    /// Linux, it fails the next call if the application asked for errors; otherwise it becomes the reason if
    /// the connection times out.
    pub(crate) fn complain(&self, time: Time, seq: u32, report: ErrorReport) -> bool {
        let mut inner = self.lock();
        let time = inner.pass(time);
        // RFC 5927 4.1: an attacker off the path does not know the outstanding sequence numbers.
        if !inner.live().is_some_and(|connection| connection.is_under_way(seq)) {
            return false;
        }
        let asked = inner.ip().receive_errors && !inner.orphaned;
        if asked && !inner.cold().reports.push(report, &[]) {
            self.shared.counters.error_queue_overflows.increment();
        }
        if inner.state() == State::SynSent {
            self.kill(&mut inner, report.error);
        } else if asked {
            inner.error = Some(report.error);
        } else {
            inner.soft = Some(report.error);
        }
        self.refresh(&mut inner, time);
        true
    }
}
