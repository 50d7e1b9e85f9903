//! Says hello to an echo server: `cargo run -p peersock --example echo_client_async -- '[ADDRESS]:7000'`.

use std::error::Error;

use peersock::{IdentitySource, Network, Node, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).ok_or("usage: echo_client_async '[ADDRESS]:PORT'")?;
    let node = Node::builder().identity(IdentitySource::Ephemeral).install()?;
    node.join(Network::ad_hoc("ff1b581b62000000".parse()?))?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(b"hello, overlay").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    eprintln!("{answer}");
    Ok(())
}
