//! An echo inside the node, for programs that try the server: a connection to itself over the overlay.

use std::io;
use std::net::SocketAddr;

use peersock_proxy::Overlay;
use peersock_proxy::serving::{Connection, Listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Connects to an echo that lives as long as the connection. No other client can reach it.
pub(super) async fn connect(node: &Overlay) -> io::Result<(Connection, SocketAddr)> {
    let listener = listen(node).await?;
    let at = listener.local_addr()?;
    let (stream, own) = node.connect(&[at]).await?;
    loop {
        let (accepted, peer) = listener.accept_member().await?;
        // A member may have found the port; its connection is dropped.
        if peer == own {
            tokio::spawn(serve(accepted));
            return Ok((stream, at));
        }
    }
}

/// Listens at an address of the node.
async fn listen(node: &Overlay) -> io::Result<Listener> {
    let address = node.addresses().into_iter().next().ok_or(io::ErrorKind::NetworkDown)?;
    node.listen((address, 0).into()).await
}

/// Sends all data back, to the end.
async fn serve(stream: Connection) {
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
