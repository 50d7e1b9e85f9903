//! Connector for hyper's clients.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Uri;
use tower_service::Service;

use crate::node::{self, Node};
use crate::{TcpStream, ToSocketAddrs};

/// Connector of hyper's clients, and tonic's, through the overlay: the counterpart of hyper-util's
/// `HttpConnector`.
///
/// The host of a URI is an overlay address or a member's name, as for [`TcpStream::connect`]; the system's
/// resolver is never used. The default port is 80. Clones are cheap.
///
/// ```no_run
/// # async fn example(node: peersock::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use http_body_util::{BodyExt, Full};
/// use hyper::body::Bytes;
/// use hyper::Request;
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use peersock::http::Connector;
///
/// let client = Client::builder(TokioExecutor::new()).build(Connector::on(&node));
/// let body = Full::new(Bytes::from("all of it"));
/// let request = Request::post("http://[fd12:3456:789a::1]:8080/upload").body(body)?;
/// let answer = client.request(request).await?.into_body().collect().await?;
/// println!("{}", answer.to_bytes().len());
/// # Ok(())
/// # }
/// ```
///
/// With tonic, pass it to `Endpoint::connect_with_connector`; `examples/grpc` is a whole program.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Node to use; `None` for the process's node.
    node: Option<Node>,
    enforces_http: bool,
    nodelay: bool,
}

impl Connector {
    /// Returns a connector through the process's node ([`node()`](crate::node())), which the first connection
    /// starts if it does not run yet.
    #[expect(clippy::new_without_default, reason = "as HttpConnector, which has no default either")]
    pub fn new() -> Connector {
        Connector { node: None, enforces_http: true, nodelay: true }
    }

    /// Returns a connector through `node`, which it keeps running.
    pub fn on(node: &Node) -> Connector {
        Connector { node: Some(node.clone()), ..Connector::new() }
    }

    /// Sets whether only URIs with the scheme `http` are allowed. Default: yes.
    ///
    /// Turn it off to wrap this connector in one for TLS, such as hyper-rustls' `HttpsConnector`, because
    /// that one asks for URIs with `https`. Their default port is 443.
    pub fn enforce_http(&mut self, enforce: bool) {
        self.enforces_http = enforce;
    }

    /// Sets TCP_NODELAY of new connections: true if small writes leave at once. Default: true, because HTTP/2
    /// makes many of them, and each would wait for the peer's delayed acknowledgement.
    pub fn set_nodelay(&mut self, nodelay: bool) {
        self.nodelay = nodelay;
    }

    /// Returns the host and port of a URI.
    fn target(&self, uri: &Uri) -> io::Result<(String, u16)> {
        let invalid = |message| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        let default_port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") if !self.enforces_http => 443,
            Some("https") => {
                return invalid(
                    "cannot connect to a URI with https, since this connector has no TLS: use http, which the \
                     overlay encrypts, or a connector for TLS around this one, with `enforce_http(false)`"
                        .to_owned(),
                );
            }
            Some(scheme) if self.enforces_http || uri.port_u16().is_none() => {
                return invalid(format!("cannot connect to a URI with the scheme `{scheme}`: use http"));
            }
            // The URI has a port, which the case above has checked.
            Some(_) => 0,
            None => return invalid(format!("cannot connect to `{uri}`: a URI needs a scheme, such as http")),
        };
        // The parser accepts any digits as a port, and then reports none.
        let rest = uri.authority().map_or("", |authority| authority.as_str());
        let rest = rest.rsplit_once(']').or(rest.rsplit_once('@')).map_or(rest, |(_, rest)| rest);
        if uri.port_u16().is_none() && rest.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty()) {
            return invalid(format!("cannot connect to `{uri}`: a port is a number up to 65535"));
        }
        match uri.host() {
            Some(host) if !host.is_empty() => Ok((host.to_owned(), uri.port_u16().unwrap_or(default_port))),
            _ => invalid("cannot connect to a URI without a host".to_owned()),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TcpStream;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Connects to the host of a URI. Dropping the future ends the attempt.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a URI without a host or with a scheme other than `http`, and the errors of
    /// [`TcpStream::connect`].
    fn call(&mut self, uri: Uri) -> Connecting {
        let (target, node, nodelay) = (self.target(&uri), self.node.clone(), self.nodelay);
        Connecting(Box::pin(async move {
            let target = target?;
            let node = node.map_or_else(node::node, Ok)?;
            connect(&node, target, nodelay).await
        }))
    }
}

async fn connect(node: &Node, target: impl ToSocketAddrs, nodelay: bool) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_on(node, target).await?;
    stream.set_nodelay(nodelay)?;
    Ok(stream)
}

/// Attempt of a [`Connector`] to connect.
#[must_use = "futures do nothing unless they are polled"]
pub struct Connecting(Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>);

impl Future for Connecting {
    type Output = io::Result<TcpStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_from_the_scheme_unless_they_are_named() {
        let mut connector = Connector::new();
        let target = |connector: &Connector, uri: &'static str| {
            connector.target(&Uri::from_static(uri)).map_err(|error| error.kind())
        };
        let at = |host: &str, port| Ok((host.to_owned(), port));
        let invalid = Err(io::ErrorKind::InvalidInput);
        assert_eq!(target(&connector, "http://alpha/path"), at("alpha", 80));
        assert_eq!(target(&connector, "HTTP://alpha:81"), at("alpha", 81));
        assert_eq!(target(&connector, "http://[fd00::1]"), at("[fd00::1]", 80));
        assert_eq!(target(&connector, "http://user@10.0.0.1:8080/"), at("10.0.0.1", 8080));
        for refused in ["https://alpha", "https://alpha:80", "ftp://alpha:21", "/path", "alpha:80", "*"] {
            assert_eq!(target(&connector, refused), invalid, "{refused}");
        }
        connector.enforce_http(false);
        assert_eq!(target(&connector, "https://alpha"), at("alpha", 443));
        assert_eq!(target(&connector, "https://alpha:80"), at("alpha", 80));
        assert_eq!(target(&connector, "grpc://alpha:50051"), at("alpha", 50051));
        assert_eq!(target(&connector, "grpc://alpha"), invalid);
    }
}
