//! `axum::serve` on the overlay.

use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;

use ::axum::extract::connect_info::Connected;
use ::axum::serve::{IncomingStream, Listener, TapIo};

use crate::{TcpListener, TcpStream};

/// Serves with axum:
///
/// ```no_run
/// # async fn example(app: axum::Router) -> std::io::Result<()> {
/// let listener = peersock::TcpListener::bind("[::]:80").await?;
/// axum::serve(listener, app).await
/// # }
/// ```
///
/// A connection that fails before it is accepted returns its error from the first read, and the server goes
/// on.
///
/// No more connections come once the node is shut down, or has left the network of the listener's address.
/// The server logs that as an error, and waits for its signal of `with_graceful_shutdown`.
impl Listener for TcpListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        match TcpListener::accept(self).await {
            Ok(connection) => connection,
            Err(error) => {
                // Errors of single connections are never errors of accept, so the listener has ended for
                // good. axum accepts no error, and another attempt would fail at once: the server would spin.
                tracing::error!(%error, "the HTTP server gets no more connections");
                pending().await
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

/// Overlay address and port of a client, for handlers of axum.
///
/// The address is authenticated: it belongs to one member of the network, which
/// [`Joined::peer_at`](crate::Joined::peer_at) names.
///
/// ```
/// use axum::extract::ConnectInfo;
/// use axum::http::StatusCode;
/// use axum::{Router, routing::get};
/// use peersock::http::PeerAddr;
/// use peersock::{Joined, NodeId};
///
/// fn app(network: Joined, owner: NodeId) -> Router {
///     let secret = move |ConnectInfo(PeerAddr(from)): ConnectInfo<PeerAddr>| async move {
///         match network.peer_at(from.ip()) == Some(owner) {
///             true => Ok("the secret\n"),
///             false => Err(StatusCode::FORBIDDEN),
///         }
///     };
///     Router::new().route("/", get(secret))
/// }
/// # async fn serve(app: Router, listener: peersock::TcpListener) -> std::io::Result<()> {
/// axum::serve(listener, app.into_make_service_with_connect_info::<PeerAddr>()).await
/// # }
/// ```
///
/// Rust's orphan rules do not let this crate give axum a `SocketAddr` for its listener. Handlers that need
/// `ConnectInfo<SocketAddr>` get it from a listener with [`tap_io`](::axum::serve::ListenerExt::tap_io):
///
/// ```
/// use std::net::SocketAddr;
///
/// use axum::serve::ListenerExt;
/// # async fn example(app: axum::Router, listener: peersock::TcpListener) -> std::io::Result<()> {
///
/// let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("it never fails"));
/// axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for PeerAddr {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> PeerAddr {
        PeerAddr(*stream.remote_addr())
    }
}

impl<F> Connected<IncomingStream<'_, TapIo<TcpListener, F>>> for PeerAddr
where
    F: FnMut(&mut TcpStream) + Send + 'static,
{
    fn connect_info(stream: IncomingStream<'_, TapIo<TcpListener, F>>) -> PeerAddr {
        PeerAddr(*stream.remote_addr())
    }
}
