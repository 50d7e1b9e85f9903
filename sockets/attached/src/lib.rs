//! TCP and UDP sockets of a program that shares a node: blocking, and for tokio.
//!
//! Each socket is an overlay descriptor that the node serves, so its data passes the kernel and no other
//! thread of this program. The kernel knows only that the node has ended a connection; the sockets here ask
//! the node why, also at the end of a stream, which a reset or the end of the node can look like.
//!
//! * [`Attach`]: the call that gives a program its place at the node;
//! * [`Member`]: that place;
//! * [`TcpStream`], [`TcpListener`], [`UdpSocket`]: blocking sockets;
//! * [`tokio`]: the same sockets for tasks.

mod builder;
mod datagrams;
mod listener;
mod member;
mod stream;
mod sys;
pub mod tokio;

pub use builder::Attach;
pub use datagrams::UdpSocket;
pub use listener::TcpListener;
pub use member::Member;
pub use stream::{Info, TcpStream};
