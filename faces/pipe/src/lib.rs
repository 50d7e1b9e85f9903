//! Pipes and nodes as P2PD has them: one object for TCP and UDP, IPv4 and IPv6, client and server.
//!
//! ```
//! use peersock_pipe::{Message, Pipe, Proto};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let echo = |message: Message, pipe: Pipe| async move {
//!     let _ = pipe.send_to(&message, message.from()).await;
//! };
//! let server = Pipe::listen(Proto::Tcp, "127.0.0.1:0").async_msg_cb(echo).await?;
//! let client = Pipe::connect(Proto::Tcp, server.local_addr()).await?;
//! client.send("hello").await?;
//! assert_eq!(client.recv().await?.as_deref(), Some(&b"hello"[..]));
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! What comes in is a [`Message`]: a datagram, or a piece of a stream as it came. It goes to callbacks, to
//! the queues of subscriptions and to other pipes, as far as there are any. Addresses and names of members go
//! over the overlay, all others to the kernel, as `peersock-net` has it: through the process's node if there
//! is one, or one that the pipe is given.
//!
//! **Bounds.** Every queue holds so many messages and bytes ([`Options::max_qsize`],
//! [`Options::max_qbytes`]). Datagrams for which there is no room push out the oldest ones, and
//! [`Pipe::dropped`] counts those. A stream is not read while a queue is full, so that the sender waits and
//! nothing is lost. There are two exceptions, in which the full queue drops as for datagrams: another
//! subscription is waited on, or the pipe has callbacks or leads to other pipes. Callbacks of a stream get
//! one message after the other; those of datagrams work on up to 64 at once, and have a queue as well. A full
//! queue of a server still takes one message of each client: clients look for room before they read.
//!
//! **The end.** Dropping the last handle of a pipe closes it, as [`Pipe::close`] does. Those for callbacks
//! count; subscriptions keep it open, and so do the pipes that send to it. A server with subscriptions, or
//! callbacks for messages or clients, keeps the pipes of its clients until they end, and [`Pipe::accept`]
//! gives none that have ended. What was sent is delivered before the end, for up to five seconds; then the
//! connection is reset, so that nobody takes a part for the whole.
//!
//! A pipe needs a tokio runtime with I/O and time, and lives in the one in which it was opened.
#![forbid(unsafe_code)]

mod address;
mod callbacks;
mod daemon;
mod error;
mod filter;
mod message;
mod node;
mod open;
mod options;
mod overlay;
mod pipe;
mod queue;
mod subscription;
mod target;

pub use address::Address;
pub use callbacks::CallbackId;
pub use daemon::Daemon;
pub use error::PipeError;
pub use filter::Filter;
pub use message::Message;
pub use node::{NODE_PORT, NodeAddress, NodeAddressError, P2pNode, P2pNodeBuilder};
pub use open::Opening;
pub use options::Options;
pub use pipe::{Pipe, Proto};
pub use subscription::Subscription;
pub use target::Target;
