//! Departure of the program at the other end of a connection.

/// Kind of departure of a peer's program, as known to the layer below, see
/// [`Stack::lose_peer`](crate::Stack::lose_peer).
///
/// ```
/// # use std::time::Instant;
/// # use peersock_stack::*;
/// # let now = Instant::now();
/// # let stack = Stack::new(Config::default(), [7; 32], now);
/// # let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
/// // The peer has said goodbye.
/// let mut batch = Batch::default();
/// stack.lose_peer(now, net, &["10.0.0.2/32".parse()?], Departure::Orderly, |_| true, &mut batch);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departure {
    /// It has ended in order, and has reset its open connections before. So if it has ended a connection and
    /// acknowledged all data, its application closed that connection, and nothing is lost.
    Orderly,
    /// It is gone, and it is unknown what its application has read.
    Sudden,
    /// It does not answer, but may still be there, so it is sent resets.
    Presumed,
}
