//! Pipes and nodes with P2PD's interface: one object for TCP and UDP, IPv4 and IPv6, client and server.
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
//! Incoming data is a [`Message`]: a datagram, or a piece of a stream as it arrived. The pipe passes it to
//! callbacks, to the queues of subscriptions and to other pipes, if there are any. Addresses and names of
//! members use the overlay, all others the kernel, as in `peersock-net`. The overlay node is the process's,
//! or one that the pipe is given.
//!
//! **Bounds.** Every queue has a limit of messages and bytes ([`Options::max_qsize`],
//! [`Options::max_qbytes`]). A datagram that finds no room drops the oldest ones, and [`Pipe::dropped`]
//! counts those. A stream is not read while a queue is full, so the sender waits and nothing is lost. In two
//! cases a full queue drops messages of a stream, too: if a program waits for another subscription, or if the
//! pipe has callbacks or relays. Callbacks of a stream get one message after another; callbacks of datagrams
//! work on up to 64 at once, and also have a queue. A full queue of a server still takes one message of each
//! client, because clients check for room before they read.
//!
//! **The end.** Dropping the last handle of a pipe closes it, as [`Pipe::close`] does. Handles inside
//! callbacks count; subscriptions keep a pipe open, and so do the pipes that send to it. A server with
//! subscriptions, or callbacks for messages or clients, keeps the pipes of its clients until they end, and
//! [`Pipe::accept`] returns none that have ended. Sent data is delivered before the end, for up to five
//! seconds. Then the connection is reset, so that the peer does not mistake a part for the whole.
//!
//! A pipe needs a tokio runtime with I/O and time, and stays in the one in which it was opened.
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
#[doc(hidden)]
pub mod queue;
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
