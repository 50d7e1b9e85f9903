//! What smoltcp sees as its network card: one packet in, one packet out.

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::ip::checksum_caps;

/// A device that holds at most one arriving packet and one buffer to send from.
pub(super) struct Device<'a> {
    pub(super) arriving: Option<&'a [u8]>,
    pub(super) leaving: &'a mut [u8],
    /// Bytes written to `leaving`.
    pub(super) written: usize,
    pub(super) limit: Limit,
}

/// The largest packet that may be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// Bytes of its IP and TCP headers without options.
    pub(super) headers: usize,
    /// Bytes of its TCP payload.
    pub(super) payload: usize,
}

impl Default for Limit {
    fn default() -> Self {
        Self { headers: 60, payload: 536 }
    }
}

impl<'a> Device<'a> {
    /// A device that takes nothing in, for calls that only send or only ask.
    pub(super) fn sending(leaving: &'a mut [u8], limit: Limit) -> Self {
        Self { arriving: None, leaving, written: 0, limit }
    }
}

impl phy::Device for Device<'_> {
    type RxToken<'t>
        = Arriving<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Leaving<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Arriving<'_>, Leaving<'_>)> {
        let packet = self.arriving.take()?;
        Some((Arriving(packet), Leaving { buf: self.leaving, written: &mut self.written }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        (self.written == 0).then_some(Leaving { buf: self.leaving, written: &mut self.written })
    }

    /// Segmentation is "offloaded" to [`SuperSegment`](crate::SuperSegment), and so are checksums.
    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        // smoltcp limits a fast retransmission by this, and drops IPv6 packets over it. TCP options need
        // room even where the payload is tiny.
        caps.max_transmission_unit = self.limit.headers + self.limit.payload.max(40);
        caps.checksum = checksum_caps(false);
        caps.segmentation.tcpv4 = (self.limit.headers + self.limit.payload).try_into().ok();
        caps.segmentation.tcpv6 = caps.segmentation.tcpv4;
        caps
    }
}

pub(super) struct Arriving<'a>(&'a [u8]);

impl phy::RxToken for Arriving<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct Leaving<'a> {
    buf: &'a mut [u8],
    written: &'a mut usize,
}

impl phy::TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        match self.buf.get_mut(..len) {
            Some(buf) => {
                *self.written = len;
                f(buf)
            }
            // Only if smoltcp exceeds what it was told: the packet counts as lost on the way.
            None => f(&mut vec![0; len]),
        }
    }
}
