//! An echo server (`-l`), or a client that sends its input to a server and writes the answer (`-d`).
//!
//! With `--join`, members of that network are reached over the overlay, and all other addresses by the
//! kernel: `cargo run -p peersock-net --example echo -- -l --join ff0001ffff000000 -a :7000`.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use peersock::{IdentitySource, Interfaces, NetworkId, Node};
use peersock_net::{
    Conn, Dialer, ListenConfig, Network, Resolver, SocketError, UnixAddr, resolve_unixgram_addr,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Timeout for the other end's answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of a datagram, and of a read from a stream, in bytes.
const PIECE: usize = 1 << 16;

/// Echo server, or client that sends its input to the server and writes the answer.
#[derive(Parser)]
pub(crate) struct Options {
    /// Listens.
    #[arg(short, required_unless_present = "dial", conflicts_with = "dial")]
    listen: bool,
    /// Dials.
    #[arg(short)]
    dial: bool,
    /// tcp, tcp4, tcp6, udp, udp4, udp6, unix or unixgram.
    #[arg(short, default_value = "tcp")]
    network: Network,
    /// HOST:PORT or a path.
    #[arg(short, value_name = "ADDRESS")]
    address: String,
    /// ID of the network to join.
    #[arg(long, value_name = "ID")]
    join: Option<NetworkId>,
    /// Keeps the node to this machine.
    #[arg(long)]
    loopback: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.join.map(|id| start(id, options.loopback)).transpose() {
        Ok(node) => run(&options, node, tokio::io::stdin(), tokio::io::stdout()).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(id: NetworkId, loopback: bool) -> Result<Node, Box<dyn Error + Send + Sync>> {
    let interfaces = if loopback { Interfaces::Loopback } else { Interfaces::All };
    let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(interfaces).start()?;
    let network = node.join(peersock::Network::by_id(id)?)?;
    eprintln!("{}", network.address());
    Ok(node)
}

/// Runs the server or the client. A server first writes its address.
pub(crate) async fn run(
    options: &Options,
    node: Option<Node>,
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
) -> Outcome {
    if options.dial {
        return dial(options, node, input, output).await;
    }
    let config = node.iter().fold(ListenConfig::new(), |config, node| config.node(node));
    match options.network {
        Network::Udp | Network::Udp4 | Network::Udp6 => {
            let resolver = node.iter().fold(Resolver::new(), |resolver, node| resolver.node(node));
            let addr = resolver.resolve_udp_addr(&options.address, options.network).await?;
            let conn = config.listen_udp(Some(&addr), options.network).await?;
            answer(conn.into(), output).await
        }
        Network::Unixgram => {
            let conn = config.listen_unixgram(&resolve_unixgram_addr(&options.address)?, "unixgram").await?;
            conn.set_unlink_on_close(true)?;
            answer(conn.into(), output).await
        }
        network => {
            let listener = config.listen(&options.address, network).await?;
            say(output, &listener.addr()).await?;
            loop {
                let conn = listener.accept().await?;
                tokio::spawn(async move { tokio::io::copy(&mut &conn, &mut &conn).await });
            }
        }
    }
}

async fn answer(conn: Conn, output: impl AsyncWrite + Unpin) -> Outcome {
    say(output, &conn.local_addr()?).await?;
    loop {
        let (data, sender) = conn.read_from(PIECE).await?;
        conn.write_to(&data, &sender).await?;
    }
}

async fn say(mut output: impl AsyncWrite + Unpin, addr: &peersock_net::Addr) -> Outcome {
    output.write_all(format!("{addr}\n").as_bytes()).await?;
    Ok(output.flush().await?)
}

async fn dial(
    options: &Options,
    node: Option<Node>,
    input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> Outcome {
    let conn = dialed(options, node).await?;
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).await? > 0 {
        conn.set_deadline(Instant::now() + TIMEOUT)?;
        conn.write(&line).await?;
        let mut left = line.len();
        while left > 0 {
            let data = conn.read(PIECE).await?;
            if data.is_empty() {
                return Err("the server has closed the connection".into());
            }
            left = left.saturating_sub(data.len());
            output.write_all(&data).await?;
        }
        output.flush().await?;
        line.clear();
    }
    Ok(())
}

async fn dialed(options: &Options, node: Option<Node>) -> Result<Conn, SocketError> {
    let dialer = node.iter().fold(Dialer::new().timeout(TIMEOUT), |dialer, node| dialer.node(node));
    if options.network != Network::Unixgram {
        return dialer.dial(&options.address, options.network).await;
    }
    // A socket without a path gets no answers.
    let own = UnixAddr::datagram(format!("{}.{}", options.address, std::process::id()))?;
    let conn = dialer.local(own).dial_unix(&resolve_unixgram_addr(&options.address)?, "unixgram").await?;
    conn.set_unlink_on_close(true)?;
    Ok(conn.into())
}
