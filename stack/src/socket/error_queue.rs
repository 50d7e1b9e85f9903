//! Errors that a socket's datagrams have met, with more detail than one `errno`.

use std::net::{IpAddr, SocketAddr};

use crate::Error;
use crate::socket::queue::DatagramQueue;

/// Bytes of reports that one socket keeps, including quoted datagrams and a charge per report. More reports
/// are dropped.
const LIMIT: usize = 16 << 10;

/// One entry of a socket's error queue: IP_RECVERR, IPV6_RECVERR, as Linux's `sock_extended_err`.
///
/// ```
/// use std::time::Instant;
/// use peersock_stack::*;
///
/// let stack = Stack::new(Config::default(), [7; 32], Instant::now());
/// let net = stack.add_interface(InterfaceConfig::new("net", ["fd00::1/8".parse()?]));
/// let ip = IpOptions { receive_errors: true, fragmentation: Fragmentation::Never, ..IpOptions::default() };
/// let options = UdpOptions { ip, ..UdpOptions::default() };
/// let socket = stack.udp_bind(Some(net), "[fd00::1]:0".parse()?, options)?;
/// let route = socket.route(Some("[fd00::2]:53".parse()?))?;
/// assert_eq!(socket.send(Instant::now(), &route, &[0; 2000], 1280, &mut [0; 3000]), Err(Error::MessageSize));
/// let report = socket.recv_error(&mut [])?;
/// assert_eq!((report.origin, report.info), (ErrorOrigin::Local, 1280));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
///
/// ```
/// use peersock_stack::ErrorOrigin;
///
/// // As Linux's SO_EE_ORIGIN_LOCAL, SO_EE_ORIGIN_ICMP and SO_EE_ORIGIN_ICMP6.
/// assert_eq!([ErrorOrigin::Local as u8, ErrorOrigin::Icmp as u8, ErrorOrigin::Icmpv6 as u8], [1, 2, 3]);
/// ```
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
        self.0.get_or_insert_with(|| Box::new(DatagramQueue::new(LIMIT))).push(report, &[], payload)
    }

    pub(crate) fn pop(&mut self, buf: &mut [u8]) -> Option<ErrorReport> {
        let (report, len) = self.0.as_mut()?.pop(buf, None)?;
        Some(ErrorReport { len: len.min(buf.len()), ..report })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|queue| queue.is_empty())
    }
}
