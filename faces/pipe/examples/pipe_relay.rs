//! Relays connections of this machine to a member of the overlay: `cargo run -p peersock-pipe --example
//! pipe_relay NETWORK ADDRESS [PORT]`.

use std::env;
use std::net::IpAddr;
use std::time::Duration;

use peersock::{Network, Node};
use peersock_pipe::{Pipe, PipeError, Proto};
use tokio::io::{AsyncWrite, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [network, member, rest @ ..] = &arguments[..] else {
        return Err("usage: pipe_relay NETWORK ADDRESS [PORT]".into());
    };
    let node = Node::builder().start()?;
    let joined = node.join(Network::ad_hoc(network.parse()?))?;
    let member: IpAddr = member.parse()?;
    tokio::task::spawn_blocking(move || joined.wait_peer(member, Duration::from_secs(30))).await??;
    let port = rest.first().map_or(Ok(0), |port| port.parse())?;
    let server = run(&node, std::net::SocketAddr::new(member, 7000), port, tokio::io::stdout()).await?;
    server.ended().await;
    Ok(())
}

/// Listens at a port of this machine, which it writes, and relays its clients to a member.
pub(crate) async fn run(
    node: &Node,
    member: std::net::SocketAddr,
    port: u16,
    mut output: impl AsyncWrite + Unpin,
) -> Result<Pipe, Box<dyn std::error::Error>> {
    let node = node.clone();
    let splice = move |client: Pipe| {
        let node = node.clone();
        async move {
            if relay(&node, member, &client).await.is_err() {
                client.close().await;
            }
        }
    };
    let server = Pipe::listen(Proto::Tcp, format!("127.0.0.1:{port}")).async_up_cb(splice).await?;
    output.write_all(format!("{}\n", server.local_addr().port()).as_bytes()).await?;
    output.flush().await?;
    Ok(server)
}

async fn relay(node: &Node, member: std::net::SocketAddr, client: &Pipe) -> Result<(), PipeError> {
    let other = Pipe::connect(Proto::Tcp, member).node(node).await?;
    client.add_pipe(&other)?;
    other.add_pipe(client)?;
    // The end of one is the end of the other. Each callback holds the other's handle until then.
    let (first, second) = (client.clone(), other.clone());
    other.add_async_end_cb(move |_| close(first.clone()));
    client.add_async_end_cb(move |_| close(second.clone()));
    Ok(())
}

async fn close(pipe: Pipe) {
    pipe.close().await;
}
