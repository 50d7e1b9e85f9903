//! Received items of a UDP or raw socket: datagrams, errors, and group memberships.

use std::net::SocketAddr;

use crate::group::membership::Groups;
use crate::host::stack::Shared;
use crate::socket::error_queue::ErrorQueue;
use crate::socket::queue::DatagramQueue;
use crate::{Error, ErrorReport, InterfaceId, IpOptions, Ready, Received, ReceivedHeaders, TrafficClass};

/// Source and metadata of a datagram. The ports of raw packets are 0.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) interface: InterfaceId,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: TrafficClass,
}

/// Inbox of a UDP or raw socket (see the module).
pub(crate) struct Inbox {
    queue: DatagramQueue<Origin>,
    /// Error of an earlier datagram, reported once.
    error: Option<Error>,
    /// Permanent error, reported by every call, because the application would otherwise wait for ever.
    down: Option<Error>,
    /// Details of such errors, if the socket requests them.
    reports: ErrorQueue,
    pub(crate) groups: Groups,
}

impl Inbox {
    /// Returns an empty inbox for `limit` bytes of datagrams.
    pub(crate) fn new(limit: usize) -> Self {
        let (queue, reports) = (DatagramQueue::new(limit), ErrorQueue::new());
        Self { queue, error: None, down: None, reports, groups: Groups::default() }
    }

    /// Changes the limit in bytes. Queued datagrams stay.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.queue.set_limit(limit);
    }

    /// Appends a datagram with its extension headers; returns `false` if there is no room.
    pub(crate) fn push(&mut self, origin: Origin, headers: &[u8], data: &[u8]) -> bool {
        self.queue.push(origin, headers, data)
    }

    /// Takes the oldest datagram, and its extension headers if requested.
    pub(crate) fn pop(
        &mut self,
        closed: bool,
        buf: &mut [u8],
        headers: Option<&mut ReceivedHeaders>,
    ) -> Result<Received, Error> {
        self.check(closed)?;
        let headers = headers.map(|headers| &mut headers.listed);
        let (origin, len) = self.queue.pop(buf, headers).ok_or(Error::WouldBlock)?;
        Ok(received(&origin, len, buf))
    }

    /// Copies the oldest datagram without removing it.
    pub(crate) fn peek(&mut self, closed: bool, buf: &mut [u8]) -> Result<Received, Error> {
        self.check(closed)?;
        let (origin, len) = self.queue.peek(buf).ok_or(Error::WouldBlock)?;
        Ok(received(&origin, len, buf))
    }

    /// Returns a pending error, or [`Error::Closed`] if the socket is `closed`.
    fn check(&mut self, closed: bool) -> Result<(), Error> {
        match self.take_error() {
            Some(error) => Err(error),
            None if closed => Err(Error::Closed),
            None => Ok(()),
        }
    }

    /// Returns the pending error once; or the permanent error.
    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.error.take().or(self.down)
    }

    /// Sets the permanent error.
    pub(crate) fn fail(&mut self, error: Error) {
        self.down = Some(error);
    }

    /// Takes the oldest error report.
    pub(crate) fn pop_report(&mut self, buf: &mut [u8]) -> Result<ErrorReport, Error> {
        self.reports.pop(buf).ok_or(Error::WouldBlock)
    }

    /// Queues an error report if there is room.
    pub(crate) fn push_report(&mut self, shared: &Shared, report: ErrorReport, quoted: &[u8]) {
        if !self.reports.push(report, quoted) {
            shared.counters.error_queue_overflows.increment();
        }
    }

    /// Processes an ICMP error. A socket with IP_RECVERR gets a report and a failing call. Without
    /// IP_RECVERR, only an error that is `hard` for a connected socket fails the next call. Returns `false`
    /// if the socket ignores the error.
    pub(crate) fn complain(
        &mut self,
        shared: &Shared,
        ip: &IpOptions,
        hard: bool,
        report: ErrorReport,
        quoted: &[u8],
    ) -> bool {
        if ip.receive_errors {
            self.push_report(shared, report, quoted);
        }
        // As in Linux, a socket with IP_RECVERR hears of every error.
        let fails = ip.receive_errors || hard;
        if fails {
            self.error = Some(report.error);
        }
        fails
    }

    /// Returns the current readiness. Writing never blocks.
    pub(crate) fn readiness(&self, closed: bool) -> Ready {
        let mut ready = Ready::WRITABLE;
        if self.error.or(self.down).is_some() {
            // The next read returns the error at once.
            ready |= Ready::ERROR | Ready::READABLE;
        }
        if !self.reports.is_empty() {
            ready |= Ready::ERROR;
        }
        if closed {
            ready |= Ready::READ_CLOSED | Ready::READABLE;
        }
        if !self.queue.is_empty() {
            ready |= Ready::READABLE;
        }
        ready
    }

    /// Leaves the groups and drops unread datagrams.
    pub(crate) fn close(&mut self, shared: &Shared) {
        self.queue.clear();
        self.groups.leave_all(shared);
    }
}

/// Returns the metadata of a datagram of `full` bytes, of which `buf` received the beginning.
fn received(origin: &Origin, full: usize, buf: &[u8]) -> Received {
    let Origin { source, destination, interface, hop_limit, traffic_class } = *origin;
    let len = full.min(buf.len());
    Received { len, source, destination, interface, hop_limit, traffic_class, truncated: full > len }
}
