//! gRPC between two members of a network, with tonic: one node serves, and another one calls.
//!
//! Both are in this program and meet on the loopback interface, so that it tests itself:
//! `cargo run --manifest-path examples/grpc/Cargo.toml`. Real programs have one node each, and take the
//! server's address or name from their user.

use std::error::Error;
use std::time::Duration;

use peersock::http::Connector;
use peersock::{IdentitySource, Interfaces, Joined, Network, Node, TcpListener};
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

mod greeter;

use greeter::{Greeter, GreeterClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (server, there) = member()?;
    let (client, _) = member()?;

    // tonic's routes are those of an axum server, which needs no adapter for the listener.
    let listener = TcpListener::bind_on(&server, (there.address(), 50051)).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let routes = Routes::new(Greeter).into_axum_router();
    let serving = tokio::spawn(
        axum::serve(listener, routes)
            .with_graceful_shutdown(async { stopped.await.unwrap_or_default() })
            .into_future(),
    );

    let endpoint = Endpoint::from_shared(format!("http://[{}]:50051", there.address()))?;
    let mut greeter = GreeterClient::new(endpoint.connect_with_connector(Connector::on(&client)).await?);
    println!("{}", greeter.say_hello("overlay").await?);
    let refused = greeter.say_hello("").await.expect_err("the server wants a name");
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "a name is needed"));

    // While the client is there, so that the server's goodbye reaches it.
    stop.send(()).map_err(|()| Status::internal("the server has ended"))?;
    serving.await??;
    drop(greeter);
    // All answers were taken, so what is lost from here on is a goodbye of HTTP/2 that no application reads.
    for node in [client, server] {
        node.shutdown(Duration::from_secs(5));
    }
    Ok(())
}

/// Starts a node with an identity for once, and joins the network.
fn member() -> Result<(Node, Joined), Box<dyn Error>> {
    let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
    let node = builder.start()?;
    let joined = node.join(Network::ad_hoc("ffc383c383000000".parse()?))?;
    Ok((node, joined))
}
