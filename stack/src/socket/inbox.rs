//! What has come for a UDP or raw socket and waits to be taken: datagrams, errors, and the groups it gets
//! them from.

use std::net::SocketAddr;

use crate::group::membership::Groups;
use crate::host::stack::Shared;
use crate::socket::error_queue::ErrorQueue;
use crate::socket::queue::DatagramQueue;
use crate::{Error, ErrorReport, InterfaceId, IpOptions, Ready, Received, ReceivedHeaders, TrafficClass};

/// Where a datagram came from, and how. The ports of raw packets are 0.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) interface: InterfaceId,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: TrafficClass,
}

/// See the module.
pub(crate) struct Inbox {
    queue: DatagramQueue<Origin>,
    /// What an earlier datagram ran into. It is told once.
    error: Option<Error>,
    /// Why nothing passes any more. It is told whenever somebody asks, who would wait for ever otherwise.
    down: Option<Error>,
    /// What is behind such errors, if the socket wants to know.
    reports: ErrorQueue,
    pub(crate) groups: Groups,
}

impl Inbox {
    /// An empty one for `limit` bytes of datagrams.
    pub(crate) fn new(limit: usize) -> Self {
        let (queue, reports) = (DatagramQueue::new(limit), ErrorQueue::new());
        Self { queue, error: None, down: None, reports, groups: Groups::default() }
    }

    /// Changes how many bytes of datagrams it keeps. What is there stays.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.queue.set_limit(limit);
    }

    /// Appends a datagram with the listed extension headers; `false` if there is no room.
    pub(crate) fn push(&mut self, origin: Origin, headers: &[u8], data: &[u8]) -> bool {
        self.queue.push(origin, headers, data)
    }

    /// Takes the oldest datagram, and its extension headers if they are wanted.
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

    /// Copies the oldest datagram and leaves it there.
    pub(crate) fn peek(&mut self, closed: bool, buf: &mut [u8]) -> Result<Received, Error> {
        self.check(closed)?;
        let (origin, len) = self.queue.peek(buf).ok_or(Error::WouldBlock)?;
        Ok(received(&origin, len, buf))
    }

    /// Tells what an earlier datagram ran into, or that the socket is `closed`.
    fn check(&mut self, closed: bool) -> Result<(), Error> {
        match self.take_error() {
            Some(error) => Err(error),
            None if closed => Err(Error::Closed),
            None => Ok(()),
        }
    }

    /// What an earlier datagram ran into, once; or why nothing passes any more.
    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.error.take().or(self.down)
    }

    /// Nothing passes any more.
    pub(crate) fn fail(&mut self, error: Error) {
        self.down = Some(error);
    }

    /// Takes the oldest error report.
    pub(crate) fn pop_report(&mut self, buf: &mut [u8]) -> Result<ErrorReport, Error> {
        self.reports.pop(buf).ok_or(Error::WouldBlock)
    }

    /// Keeps an error report if there is room.
    pub(crate) fn push_report(&mut self, shared: &Shared, report: ErrorReport, quoted: &[u8]) {
        if !self.reports.push(report, quoted) {
            shared.counters.error_queue_overflows.increment();
        }
    }

    /// An ICMP error has come. One that is `hard` for a connected socket fails the next call, and is reported
    /// to those who asked; others are reported only. `false` if the socket does not care.
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
        let fails = ip.receive_errors || hard;
        if fails {
            self.error = Some(report.error);
        }
        fails
    }

    /// What can be done without waiting. Writing always can.
    pub(crate) fn readiness(&self, closed: bool) -> Ready {
        let mut ready = Ready::WRITABLE;
        if self.error.or(self.down).is_some() {
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

    /// Leaves the groups and drops what was not read.
    pub(crate) fn close(&mut self, shared: &Shared) {
        self.queue.clear();
        self.groups.leave_all(shared);
    }
}

/// What the application is told of a datagram of `full` bytes, of which `buf` has taken what it holds.
fn received(origin: &Origin, full: usize, buf: &[u8]) -> Received {
    let Origin { source, destination, interface, hop_limit, traffic_class } = *origin;
    let len = full.min(buf.len());
    Received { len, source, destination, interface, hop_limit, traffic_class, truncated: full > len }
}
