//! A node that answers PING, and one that sends it. `cargo run -p peersock-pipe --example pipe_node NETWORK`
//! prints an address text; with the TEXT as second argument it connects there. Python's `pipe_node.py` does
//! the same.

use std::env;
use std::time::Duration;

use peersock::{Network, Node};
use peersock_pipe::{Message, P2pNode, Pipe};
use tokio::io::{AsyncWrite, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (network, text) = match &arguments[..] {
        [network] => (network, None),
        [network, text] => (network, Some(text.as_str())),
        _ => return Err("usage: pipe_node NETWORK [TEXT]".into()),
    };
    let node = Node::builder().start()?;
    node.join(Network::ad_hoc(network.parse()?))?;
    let p2p = run(&node, text, tokio::io::stdout()).await?;
    if text.is_none() {
        // The node keeps the pipes of members that connect.
        std::future::pending::<()>().await;
    }
    p2p.close().await;
    Ok(())
}

/// Writes the node's address, or the answer of the node with this address.
pub(crate) async fn run(
    node: &Node,
    text: Option<&str>,
    mut output: impl AsyncWrite + Unpin,
) -> Result<P2pNode, Box<dyn std::error::Error>> {
    let p2p = P2pNode::builder(node).port(0).start().await?;
    p2p.add_async_msg_cb(|message: Message, pipe: Pipe| async move {
        if message.windows(4).any(|part| part == b"PING") {
            let _ = pipe.send("PONG").await;
        }
    });
    let line = match text {
        None => p2p.address()?.to_string(),
        Some(text) => {
            let pipe = p2p.connect(&text.parse()?).await?;
            pipe.send("PING").await?;
            let answer = pipe.recv_within(Duration::from_secs(10)).await?;
            pipe.close().await;
            answer.map_or_else(
                || "no answer".to_owned(),
                |answer| String::from_utf8_lossy(&answer).into_owned(),
            )
        }
    };
    output.write_all(format!("{line}\n").as_bytes()).await?;
    output.flush().await?;
    Ok(p2p)
}
