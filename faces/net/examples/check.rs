//! Sends a text to local echo servers in each network, and reports where it came back unchanged.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use peersock_net::{
    self as net, Conn, Network, SocketError, UnixAddr, join_host_port, resolve_unixgram_addr, split_host_port,
};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;

/// Timeout for the other end's answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Number of bytes per write.
const PIECE: usize = 1000;

/// Sends a text to local echo servers, and reports the networks on which it came back unchanged.
#[derive(Parser)]
pub(crate) struct Options {
    /// Networks to check.
    #[arg(short, num_args = 1.., required_unless_present = "all", conflicts_with = "all")]
    network: Vec<Check>,
    /// Checks all networks.
    #[arg(short = 'A', long = "all")]
    all: bool,
    /// Address on which servers listen.
    #[arg(short, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    address: String,
    /// Path on which Unix servers listen.
    #[arg(short, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Text to send.
    #[arg(short, default_value = "hello", conflicts_with = "file")]
    text: String,
    /// File to send.
    #[arg(short)]
    file: Option<PathBuf>,
}

/// Network to check.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Check {
    Tcp,
    Tcp6,
    Udp,
    Udp6,
    /// Datagrams from a socket that is bound and not connected.
    UnixClient,
    /// Datagrams from a socket that is connected.
    UnixConnect,
    Unix,
}

#[tokio::main]
async fn main() -> std::io::Result<ExitCode> {
    let options = Options::parse_from(arguments(std::env::args()));
    run(&options, tokio::io::stdout()).await
}

/// Accepts `-all` as one word, as `-n` is.
pub(crate) fn arguments(words: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    words.map(|word| if word == "-all" { "--all".to_owned() } else { word })
}

/// Runs the requested checks, and writes a line for each.
pub(crate) async fn run(options: &Options, mut output: impl AsyncWrite + Unpin) -> std::io::Result<ExitCode> {
    let data = match &options.file {
        Some(file) => std::fs::read(file)?,
        None => options.text.clone().into_bytes(),
    };
    let folder = tempfile::tempdir()?;
    let path = options.unix.clone().unwrap_or_else(|| folder.path().join("socket"));
    let checks = if options.all { Check::value_variants() } else { &options.network };
    let mut code = ExitCode::SUCCESS;
    for check in checks {
        let outcome = match came_back(*check, &options.address, &path.to_string_lossy(), &data).await {
            Ok(true) => format!("{} bytes came back", data.len()),
            Ok(false) => "something else came back".to_owned(),
            Err(error) => error.to_string(),
        };
        if !outcome.ends_with("bytes came back") {
            code = ExitCode::FAILURE;
        }
        let name = check.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        output.write_all(format!("{name}: {outcome}\n").as_bytes()).await?;
        output.flush().await?;
    }
    Ok(code)
}

async fn came_back(check: Check, address: &str, path: &str, data: &[u8]) -> Result<bool, SocketError> {
    let (client, server, to) = opened(check, address, path).await?;
    let mut is_same = true;
    for piece in data.chunks(PIECE) {
        client.set_deadline(Instant::now() + TIMEOUT)?;
        match &to {
            Some(to) => client.write_to(piece, &to.clone().into()).await?,
            None => client.write(piece).await?,
        };
        let mut received = Vec::new();
        while received.len() < piece.len() {
            let more = client.read(PIECE).await?;
            if more.is_empty() {
                break;
            }
            received.extend(more);
        }
        is_same &= received == piece;
    }
    server.abort();
    // The server removes its path when it ends.
    let _ = server.await;
    Ok(is_same)
}

/// Returns a client, its server, and the target address if the client is not connected.
async fn opened(
    check: Check,
    address: &str,
    path: &str,
) -> Result<(Conn, JoinHandle<()>, Option<UnixAddr>), SocketError> {
    let v6 = || -> Result<String, SocketError> {
        let (host, port) = split_host_port(address)?;
        Ok(join_host_port(if host.contains(':') { host } else { "::1" }, port))
    };
    let (network, address) = match check {
        Check::Tcp => (Network::Tcp, address.to_owned()),
        Check::Tcp6 => (Network::Tcp6, v6()?),
        Check::Udp => (Network::Udp, address.to_owned()),
        Check::Udp6 => (Network::Udp6, v6()?),
        Check::Unix => (Network::Unix, path.to_owned()),
        Check::UnixClient | Check::UnixConnect => return unixgram(path, check == Check::UnixConnect).await,
    };
    if let Network::Udp | Network::Udp6 = network {
        let addr = net::resolve_udp_addr(&address, network).await?;
        let server = net::listen_udp(Some(&addr), network).await?;
        let there = server.local_addr()?.to_string();
        return Ok((net::dial(&there, network).await?, answering(server.into()), None));
    }
    let listener = net::listen(&address, network).await?;
    let there = listener.addr().to_string();
    let server = tokio::spawn(async move {
        while let Ok(conn) = listener.accept().await {
            let _ = tokio::io::copy(&mut &conn, &mut &conn).await;
        }
    });
    Ok((net::dial(&there, network).await?, server, None))
}

async fn unixgram(
    path: &str,
    connected: bool,
) -> Result<(Conn, JoinHandle<()>, Option<UnixAddr>), SocketError> {
    let (there, own) = (resolve_unixgram_addr(path)?, resolve_unixgram_addr(&format!("{path}.client"))?);
    let server = net::listen_unixgram(&there, "unixgram").await?;
    server.set_unlink_on_close(true)?;
    let client = net::dial_unix(Some(&own), connected.then_some(&there), "unixgram").await?;
    client.set_unlink_on_close(true)?;
    Ok((client.into(), answering(server.into()), (!connected).then_some(there)))
}

/// Makes a server answer datagrams.
fn answering(server: Conn) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((data, sender)) = server.read_from(1 << 16).await {
            if server.write_to(&data, &sender).await.is_err() {
                return;
            }
        }
    })
}
