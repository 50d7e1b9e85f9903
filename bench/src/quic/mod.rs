//! QUIC streams by quinn, tuned: windows of several MiB and full-size packets from the start.
//!
//! One connection carries everything; a `connect` workload opens a new stream each time, which is what a new
//! TCP connection inside a tunnel compares to. AES-128-GCM is quinn's fastest suite. Certificates are not
//! checked: this only measures.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::task::JoinSet;

use crate::report::{self, Received, Report};
use crate::workload::{
    Command, MAX_CONNECTIONS, PING_SIZE, READ_SIZE, WARM_UP, WRITE_SIZE, Workload, same_count,
};

mod certificate;

const SERVER_NAME: &str = "bench";
const ALPN: &[u8] = b"peersock-bench";
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// UDP payload of a 1500-byte packet over IPv6, bytes; quinn's discovery ends there too.
const INITIAL_MTU: u16 = 1452;

/// Serves until the process is ended.
pub(crate) fn serve(address: SocketAddr) -> io::Result<()> {
    runtime()?.block_on(async {
        let endpoint = Endpoint::server(server_config()?, address)?;
        report::print_ready(endpoint.local_addr()?);
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((tx, rx)) = connection.accept_bi().await {
                    tokio::spawn(async move {
                        if let Err(e) = answer(tx, rx).await {
                            eprintln!("stream: {e}");
                        }
                    });
                }
            });
        }
        Ok(())
    })
}

/// Runs a workload over one connection.
pub(crate) fn client(address: SocketAddr, workload: &Workload) -> io::Result<()> {
    runtime()?.block_on(async {
        let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let mut endpoint = Endpoint::client(local.parse().map_err(io::Error::other)?)?;
        endpoint.set_default_client_config(client_config()?);
        let connection = endpoint.connect(address, SERVER_NAME).map_err(io::Error::other)?.await?;
        let report = match *workload {
            Workload::Bulk { secs, streams } => bulk(&connection, secs, streams).await?,
            Workload::PingPong { secs } => ping_pong(&connection, secs).await?,
            Workload::Connect { secs } => stream_rate(&connection, secs).await,
            Workload::FirstByte => {
                exchange_byte(&connection).await?;
                Report::Byte
            }
            Workload::Recover | Workload::Hold { .. } | Workload::Idle { .. } => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "not measured for quinn"));
            }
        };
        report.print()?;
        connection.close(0u32.into(), b"");
        endpoint.wait_idle().await;
        Ok(())
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

async fn answer(mut tx: SendStream, mut rx: RecvStream) -> io::Result<()> {
    let mut command = [0];
    rx.read_exact(&mut command).await.map_err(io::Error::other)?;
    match command[0] {
        Command::BYTE => tx.write_all(&command).await?,
        Command::PING_PONG => {
            let mut message = [0; PING_SIZE];
            while rx.read_exact(&mut message).await.is_ok() && tx.write_all(&message).await.is_ok() {}
            return Ok(());
        }
        Command::BULK => tx.write_all(&swallow(&mut rx).await?.to_bytes()).await?,
        other => return Err(io::Error::other(format!("unknown command {other:#04x}"))),
    }
    tx.finish()?;
    Ok(())
}

async fn swallow(rx: &mut RecvStream) -> io::Result<Received> {
    let (start, cpu) = (Instant::now(), report::cpu_time());
    let mut buffer = vec![0; READ_SIZE];
    let mut bytes = 0;
    while let Some(count) = rx.read(&mut buffer).await? {
        bytes += count as u64;
    }
    Ok(Received { bytes, elapsed: start.elapsed(), cpu: report::cpu_time() - cpu })
}

async fn bulk(connection: &Connection, secs: f64, streams: usize) -> io::Result<Report> {
    let cpu = report::cpu_time();
    let mut senders = JoinSet::new();
    for _ in 0..streams {
        senders.spawn(send_for(connection.clone(), Duration::from_secs_f64(secs)));
    }
    let mut received = Vec::new();
    while let Some(result) = senders.join_next().await {
        received.push(result.map_err(io::Error::other)??);
    }
    Ok(Received::report(&received, report::cpu_time() - cpu))
}

async fn send_for(connection: Connection, time: Duration) -> io::Result<Received> {
    let (mut tx, mut rx) = connection.open_bi().await?;
    let data = vec![0x5a; WRITE_SIZE];
    tx.write_all(&[Command::BULK]).await?;
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < time {
        sent += tx.write(&data).await? as u64;
    }
    tx.finish()?;
    let mut result = [0; Received::LEN];
    rx.read_exact(&mut result).await.map_err(io::Error::other)?;
    let received = Received::from_bytes(&result);
    same_count(sent, received.bytes)?;
    Ok(received)
}

async fn ping_pong(connection: &Connection, secs: f64) -> io::Result<Report> {
    let (mut tx, mut rx) = connection.open_bi().await?;
    tx.write_all(&[Command::PING_PONG]).await?;
    let mut message = [7; PING_SIZE];
    let mut nanos = Vec::with_capacity(1 << 20);
    let start = Instant::now();
    for i in 0.. {
        let sent = Instant::now();
        if sent.duration_since(start).as_secs_f64() >= secs {
            break;
        }
        tx.write_all(&message).await?;
        rx.read_exact(&mut message).await.map_err(io::Error::other)?;
        if i >= WARM_UP {
            nanos.push(sent.elapsed().as_nanos() as u64);
        }
    }
    Ok(Report::ping_pong(nanos))
}

async fn stream_rate(connection: &Connection, secs: f64) -> Report {
    let start = Instant::now();
    let (mut count, mut failed) = (0, 0);
    while start.elapsed().as_secs_f64() < secs && count < MAX_CONNECTIONS {
        match exchange_byte(connection).await {
            Ok(()) => count += 1,
            Err(_) => failed += 1,
        }
    }
    Report::Connect { per_s: count as f64 / start.elapsed().as_secs_f64(), count, failed }
}

async fn exchange_byte(connection: &Connection) -> io::Result<()> {
    let (mut tx, mut rx) = connection.open_bi().await?;
    let mut byte = [Command::BYTE];
    tx.write_all(&byte).await?;
    tx.finish()?;
    rx.read_exact(&mut byte).await.map_err(io::Error::other)
}

fn server_config() -> io::Result<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec![SERVER_NAME.to_owned()]).map_err(io::Error::other)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .map_err(io::Error::other)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}

fn client_config() -> io::Result<ClientConfig> {
    let provider = provider();
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(certificate::AcceptAny(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(provider)
}

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.stream_receive_window(STREAM_WINDOW.into());
    config.receive_window(CONNECTION_WINDOW.into());
    config.send_window(CONNECTION_WINDOW.into());
    config.initial_mtu(INITIAL_MTU);
    Arc::new(config)
}
