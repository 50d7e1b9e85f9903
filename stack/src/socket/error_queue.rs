//! Errors that a socket's datagrams have met, with more detail than one `errno`.

use std::net::{IpAddr, SocketAddr};

use crate::Error;
use crate::socket::queue::DatagramQueue;

/// Bytes of reports that one socket keeps, including quoted datagrams and a charge per report. More reports
/// are dropped.
const MAX_BYTES: usize = 16 << 10;

/// One entry of a socket's error queue: IP_RECVERR, IPV6_RECVERR, as Linux's `sock_extended_err`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorReport {
    /// Error of a socket call: `ee_errno`.
    pub error: Error,
    /// Reporter of the error: `ee_origin`.
    pub origin: ErrorOrigin,
    /// ICMP type: `ee_type`. 0 for local errors.
    pub kind: u8,
    /// ICMP code: `ee_code`. 0 for local errors.
    pub code: u8,
    /// MTU in bytes if a packet was too big; offset of the offending byte for a parameter problem; else 0:
    /// `ee_info`.
    pub info: u32,
    /// Sender of the ICMP message: `SO_EE_OFFENDER`.
    pub offender: Option<IpAddr>,
    /// Destination of the datagram. The port is 0 for echo requests and raw packets.
    pub destination: SocketAddr,
    /// Bytes of quoted payload that were written to the buffer.
    pub len: usize,
}

impl ErrorReport {
    /// Returns a report of an error that this node has found.
    pub(crate) fn local(error: Error, destination: SocketAddr) -> Self {
        let (kind, code, info) = (0, 0, 0);
        Self { error, origin: ErrorOrigin::Local, kind, code, info, offender: None, destination, len: 0 }
    }
}

/// Reporter of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorOrigin {
    /// This node.
    Local = 1,
    /// Another node, by ICMP.
    Icmp = 2,
    /// Another node, by ICMPv6.
    Icmpv6 = 3,
}

/// Error reports of one socket. Allocated only when there are any.
pub(crate) struct ErrorQueue(Option<Box<DatagramQueue<ErrorReport>>>);

impl ErrorQueue {
    pub(crate) fn new() -> Self {
        Self(None)
    }

    /// Appends a report; returns `false` if there is no room.
    pub(crate) fn push(&mut self, report: ErrorReport, payload: &[u8]) -> bool {
        self.0.get_or_insert_with(|| Box::new(DatagramQueue::new(MAX_BYTES))).push(report, &[], payload)
    }

    pub(crate) fn pop(&mut self, buf: &mut [u8]) -> Option<ErrorReport> {
        let (report, len) = self.0.as_mut()?.pop(buf, None)?;
        Some(ErrorReport { len: len.min(buf.len()), ..report })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|queue| queue.is_empty())
    }
}
