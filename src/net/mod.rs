//! Asynchronous sockets, with the signatures of `tokio::net`.
//!
//! They work on any executor, because the node's thread does the work and wakes the tasks. Streams implement
//! tokio's `AsyncRead` and `AsyncWrite`. Each type has the constructors of its namesake, which use the
//! process's node ([`node()`](crate::node())), and others that end in `_on`, which take a
//! [`Node`](crate::Node).

mod listener;
mod split;
mod stream;
mod udp;

pub use listener::TcpListener;
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stream::TcpStream;
pub use udp::UdpSocket;
