//! Networks as Go's package `net` has them: dial and listen by texts, connections with deadlines.
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
//! node is the process's ([`peersock::node()`]) if the program has started it, or one that [`Dialer`],
//! [`ListenConfig`] and [`Resolver`] are given; no node is started for anything here. It needs a tokio
//! runtime with I/O and time.
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
//! and, for resolving only, `ip`, `ip4` and `ip6`: see [`Network`]. An address comes before its network.
//!
//! Streams are tokio's `AsyncRead` and `AsyncWrite`, by reference, too, so that both directions can be used
//! at once. Their own `read`, `write` and `shutdown` are nearer than those of tokio's extension traits.
//!
//! What is different from Go: a read gives nothing at the end of a stream instead of an error, `close` may be
//! called again, keep-alives are off, and a deadline is an [`Instant`](std::time::Instant), which does not
//! move with the machine's clock.
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
