//! A web server that only members of the network can reach, with axum. Run it, then, for example:
//! `(printf 'GET / HTTP/1.0\r\n\r\n'; sleep 1) | peersock dial --ephemeral -n ff1b581b62000000 '[ADDRESS]:7003'`
//! (hyper takes a client that has finished sending for gone, so the answer must come before). Other programs
//! need peersock's feature `axum`.

use std::error::Error;

use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::{Router, serve};
use peersock::http::PeerAddr;
use peersock::{IdentitySource, Network, Node, TcpListener};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let node = Node::builder().identity(IdentitySource::Ephemeral).install()?;
    let network = node.join(Network::ad_hoc("ff1b581b62000000".parse()?))?;
    let listener = TcpListener::bind((network.address(), 7003)).await?;
    eprintln!("http://{}/", listener.local_addr()?);
    let app = Router::new().route("/", get(hello));
    Ok(serve(listener, app.into_make_service_with_connect_info::<PeerAddr>()).await?)
}

async fn hello(ConnectInfo(from): ConnectInfo<PeerAddr>) -> String {
    format!("hello from the overlay, {from}\n")
}
