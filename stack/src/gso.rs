//! skeleton
/// A TCP packet larger than the path takes.
#[derive(Debug)]
pub struct SuperSegment {}
#[allow(unused_variables)]
impl SuperSegment {
    /// Bytes, header included.
    pub fn len(&self) -> usize { todo!() }
    /// Bytes of the IP and TCP headers.
    pub fn header_len(&self) -> usize { todo!() }
    /// Bytes of payload.
    pub fn payload_len(&self) -> usize { todo!() }
    /// Wire packets left.
    pub fn packets(&self) -> usize { todo!() }
    /// Bytes of the largest wire packet.
    pub fn packet_len(&self) -> usize { todo!() }
    /// The next wire packet, contiguous in `buf`.
    pub fn next<'a>(&mut self, buf: &'a mut [u8]) -> Option<&'a [u8]> { todo!() }
}
