//! A web server that only members of the network can reach, with axum. Run it, then, for example:
//! `(printf 'GET / HTTP/1.0\r\n\r\n'; sleep 1) | peersock dial --ephemeral -n ff1b581b62000000 '[ADDRESS]:7003'`
//! (hyper takes a client that has finished sending for gone, so the answer must come before).

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use axum::routing::get;
use axum::{Router, serve};
use peersock::{IdentitySource, Network, Node, TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let node = Node::builder().identity(IdentitySource::Ephemeral).install()?;
    let network = node.join(Network::ad_hoc("ff1b581b62000000".parse()?))?;
    let listener = Overlay(TcpListener::bind((network.address(), 7003)).await?);
    eprintln!("http://{}/", listener.0.local_addr()?);
    let app = Router::new().route("/", get(hello));
    Ok(serve(listener, app).await?)
}

async fn hello() -> &'static str {
    "hello from the overlay\n"
}

/// Lets axum accept connections from the overlay.
struct Overlay(TcpListener);

impl serve::Listener for Overlay {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(connection) => return connection,
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
