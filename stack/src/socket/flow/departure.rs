//! How the program at the other end of a connection has gone.

/// How a peer's program has gone, as the layer below knows it, see
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
    /// It has ended in order, and has reset its open connections before. So a connection that it has ended,
    /// and on which it has acknowledged all data, was closed by its application: nothing is lost.
    Orderly,
    /// It is gone. Nobody knows what its application has read.
    Sudden,
    /// It does not answer where it was, and may be there all the same: it is sent resets too.
    Presumed,
}
