//! skeleton
/// Joins consecutive segments.
pub struct Coalescer {}
/// A packet that a [`Coalescer`] lets go.
pub struct Flushed<'a> {
    /// As given to `commit`.
    pub key: u64,
    /// The packet for `Stack::receive`.
    pub packet: &'a mut [u8],
}
#[allow(unused_variables)]
impl Coalescer {
    /// An empty one with its buffer.
    pub fn new() -> Self { todo!() }
    /// Room for the next packet, `len` <= 65535 bytes.
    pub fn slot(&mut self, len: usize) -> &mut [u8] { todo!() }
    /// Says that a packet of `len` bytes lies in the slot; gives what was pending if it did not join.
    pub fn commit(&mut self, key: u64, len: usize) -> Option<Flushed<'_>> { todo!() }
    /// Gives what is pending.
    pub fn flush(&mut self) -> Option<Flushed<'_>> { todo!() }
}
