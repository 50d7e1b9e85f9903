//! Networks in the style of Go's package `net`: dialing and listening by texts, connections with deadlines.
//!
//! ```
//! use peersock_net as net;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = net::listen("127.0.0.1:0", "tcp").await?;
//! let address = listener.addr().to_string();
//! let server = tokio::spawn(async move {
//!     let conn = listener.accept().await?;
//!     tokio::io::copy(&mut &conn, &mut &conn).await
//! });
//! let conn = net::dial(&address, "tcp").await?;
//! conn.write(b"hello\n").await?;
//! assert_eq!(conn.read_line(100).await?, b"hello\n");
//! conn.close();
//! # server.await??;
//! # Ok(())
//! # }
//! ```
//!
//! Addresses and names of members of the joined networks go over the overlay, all others to the kernel. The
//! node is the process's node ([`peersock::node()`]) if the program has started it, or one given to
//! [`Dialer`], [`ListenConfig`] or [`Resolver`]. This crate never starts a node. It needs a tokio runtime
//! with I/O and time.
//!
//! ```standalone_crate
//! use peersock::{IdentitySource, Interfaces, Network, Node};
//! use peersock_net as net;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
//! let network = builder.install()?.join(Network::ad_hoc("ff00500050000000".parse()?))?;
//! let listener = net::listen(":80", "tcp").await?;
//! let conn = net::dial(&net::join_host_port(&network.address().to_string(), 80), "tcp").await?;
//! assert_eq!(listener.accept().await?.remote_addr(), Some(conn.local_addr()?));
//! # Ok(())
//! # }
//! ```
//!
//! The networks are `tcp`, `tcp4`, `tcp6`, `udp`, `udp4`, `udp6`, `unix` (streams), `unixgram` (datagrams),
//! and, only for resolving, `ip`, `ip4` and `ip6`: see [`Network`]. Functions take the address before the
//! network.
//!
//! Streams implement tokio's `AsyncRead` and `AsyncWrite`, also by reference, so that both directions can be
//! used at once. Their inherent `read`, `write` and `shutdown` take precedence over tokio's extension traits.
//!
//! Differences from Go: a read returns nothing at the end of a stream instead of an error, `close` may be
//! called again, and keepalives are off. A deadline is an [`Instant`](std::time::Instant), so changes of the
//! system clock do not move it.
#![forbid(unsafe_code)]

mod addr;
mod conn;
mod dial;
mod error;
mod host_port;
mod listen;
mod listener;
mod members;
mod network;
mod race;
mod resolve;
mod socket;
mod wait;

pub use addr::{Addr, IpAddr, TcpAddr, UdpAddr, UnixAddr};
pub use conn::{Conn, TcpConn, UdpConn, UnixConn};
pub use dial::{Dialer, dial, dial_tcp, dial_udp, dial_unix};
pub use error::{AddressError, SocketError, UnknownNetworkError};
pub use host_port::{join_host_port, split_host_port};
pub use listen::{ListenConfig, Side, listen, listen_tcp, listen_udp, listen_unix, listen_unixgram};
pub use listener::{Listener, TcpListener, UnixListener};
pub use network::{IntoNetwork, Network};
pub use resolve::{
    Resolver, resolve_addr, resolve_ip_addr, resolve_tcp_addr, resolve_udp_addr, resolve_unix_addr,
    resolve_unixgram_addr,
};
