//! Departure of the program at the other end of a connection.

/// Kind of departure of a peer's program, as known to the layer below, see
/// [`Stack::lose_peer`](crate::Stack::lose_peer).
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
    /// It is there, and nothing passes between it and this node any more. Connection attempts end, too.
    Barred,
}
