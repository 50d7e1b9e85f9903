//! An echo inside the node, for programs that try the server: a connection to itself over the overlay.

use std::io;
use std::net::SocketAddr;

use peersock::{Node, TcpListener, TcpStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Connects to an echo that lives as long as the connection. No other client can reach it.
pub(super) async fn connect(node: &Node) -> io::Result<(TcpStream, SocketAddr)> {
    let listener = listen(node).await?;
    let at = listener.local_addr()?;
    let stream = TcpStream::connect_on(node, at).await?;
    let own = stream.local_addr()?;
    loop {
        let (accepted, peer) = listener.accept().await?;
        // A member may have found the port; its connection is dropped.
        if peer == own {
            tokio::spawn(serve(accepted));
            return Ok((stream, at));
        }
    }
}

/// Listens at an address of the node.
async fn listen(node: &Node) -> io::Result<TcpListener> {
    let network = node.networks().into_iter().next().ok_or(io::ErrorKind::NetworkDown)?;
    let address = network.address();
    TcpListener::bind_on(node, (address, 0)).await
}

/// Sends all data back, to the end.
async fn serve(stream: TcpStream) {
    let (mut reading, mut writing) = stream.into_split();
    let mut piece = vec![0; 16 << 10];
    loop {
        match reading.read(&mut piece).await {
            Ok(0) => break,
            Ok(count) if writing.write_all(&piece[..count]).await.is_ok() => {}
            _ => return,
        }
    }
    let _ = writing.shutdown().await;
}
