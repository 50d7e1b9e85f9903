//! One echo server for TCP and UDP, and clients that await its answers: `cargo run -p peersock-pipe --example
//! pipe_echo`.

use peersock_pipe::{Daemon, Message, Pipe, PipeError, Proto, Target};
use tokio::io::{AsyncWrite, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(tokio::io::stdout()).await
}

/// Sends to a server of each family and protocol, and writes the answers.
pub(crate) async fn run(mut output: impl AsyncWrite + Unpin) -> Result<(), Box<dyn std::error::Error>> {
    let daemon = Daemon::new().async_msg_cb(|message: Message, pipe: Pipe| async move {
        // A client that is gone needs no answer.
        let _ = pipe.send_to(&message, message.from()).await;
    });
    // Port 0 is any free port.
    for server in daemon.listen_all([Target::loopback()], [0], [Proto::Tcp, Proto::Udp]).await? {
        let answer = ask(&server).await?;
        let proto = if server.proto() == Proto::Tcp { "TCP" } else { "UDP" };
        let line = format!("{proto} {} {answer}\n", server.local_addr().ip());
        output.write_all(line.as_bytes()).await?;
    }
    daemon.close().await;
    output.flush().await?;
    Ok(())
}

async fn ask(server: &Pipe) -> Result<String, PipeError> {
    let client = Pipe::connect(server.proto(), server.local_addr()).await?;
    // A datagram may be lost, so `request` sends it again.
    let answer = client.request("hello").await?;
    client.close().await;
    Ok(answer.map_or_else(|| "no answer".to_owned(), |answer| String::from_utf8_lossy(&answer).into_owned()))
}
