//! Speed of the transports on loopback, compared with plain TCP that writes chunks of the same size.
//!
//! ```sh
//! cargo run --release --package peersock-streams --example goodput
//! ```
//!
//! Datagrams of 1,400 bytes go one way, with a window of 128 KiB that the other side acknowledges, as TCP
//! inside the datagrams would. All transports take turns in one process. The output shows the medians in
//! Gbit/s, and their ratio to plain TCP's. An argument sets the number of rounds.
#![expect(clippy::print_stdout, reason = "the result")]

use std::error::Error;
use std::num::NonZero;
use std::time::{Duration, Instant};

use bytes::Bytes;
use peersock_overlay::Identity;
use peersock_streams::{
    ConnectOptions, Connector, RootKey, Server, ServerEvent, ServerOptions, ServerTls, Target, Transport,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const LENGTH: usize = 1400;
/// Largest number of datagrams in flight.
const WINDOW: u64 = (128 << 10) / LENGTH as u64;
const MEASUREMENTS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// Longest wait for an acknowledgement, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);
const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Tls, Transport::WebSocket];

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut plain = Vec::new();
    let mut ours = TRANSPORTS.map(|transport| (transport, Vec::new()));
    let rounds = match std::env::args().nth(1) {
        Some(rounds) => rounds.parse::<NonZero<usize>>()?.get(),
        None => MEASUREMENTS,
    };
    for _ in 0..rounds {
        plain.push(plain_tcp().await?);
        for (transport, rates) in &mut ours {
            rates.push(datagrams(*transport).await?);
        }
    }
    let plain = median(plain);
    println!("plain TCP, {LENGTH} bytes a write: {plain:.2} Gbit/s");
    for (transport, rates) in ours {
        let rate = median(rates);
        println!(
            "{transport:<3}, {LENGTH} bytes a datagram: {rate:.2} Gbit/s, {:.2} of plain TCP",
            rate / plain
        );
    }
    Ok(())
}

/// Runs a round in which one side writes chunks and the other reads them.
async fn plain_tcp() -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut sending = TcpStream::connect(listener.local_addr()?).await?;
    sending.set_nodelay(true)?;
    let (mut receiving, _) = listener.accept().await?;
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0u64;
        while let Ok(read @ 1..) = receiving.read(&mut buffer).await {
            total += read as u64;
        }
        total
    });
    let (begin, chunk) = (Instant::now(), [7; LENGTH]);
    while begin.elapsed() < ROUND {
        sending.write_all(&chunk).await?;
    }
    drop(sending);
    Ok(gbit(reading.await?, begin))
}

async fn datagrams(transport: Transport) -> Result<f64> {
    let identity = Identity::from_seed(&[7; 32]);
    let public = *identity.public().ed25519();
    let key = RootKey::new(public, move |message: &[u8]| identity.sign(message));
    let options = ServerOptions { tls: Some(ServerTls::new(Some(key), None)?), ..ServerOptions::default() };
    let mut server = Server::new(options);
    let address = server.listen("127.0.0.1:0".parse()?).await?;
    let target = Target::new(transport, address.ip().to_string(), address.port()).with_key(public);
    let connection = Connector::new(ConnectOptions::default()).connect(&target).await?;
    let serving = tokio::spawn(async move {
        let handle = server.handle();
        let (mut datagrams, mut total) = (0u64, 0u64);
        loop {
            match server.recv().await {
                ServerEvent::Opened { id, .. } => drop(handle.admit(id)),
                ServerEvent::Datagram { id, datagram } => {
                    datagrams += 1;
                    total += datagram.len() as u64;
                    if datagrams.is_multiple_of(WINDOW / 8) {
                        let _ = handle.send(id, datagrams.to_be_bytes().to_vec());
                    }
                }
                _ => return total,
            }
        }
    });
    let (sender, mut receiver) = connection.split();
    let (begin, chunk) = (Instant::now(), Bytes::from_static(&[7; LENGTH]));
    let (mut sent, mut acknowledged) = (0u64, 0u64);
    while begin.elapsed() < ROUND {
        while sent < acknowledged + WINDOW {
            sender.send(chunk.clone())?;
            sent += 1;
        }
        let answer = tokio::time::timeout(TIMEOUT, receiver.recv()).await??;
        acknowledged = u64::from_be_bytes(answer[..].try_into()?);
    }
    drop(receiver);
    let rate = gbit(serving.await?, begin);
    Ok(rate)
}

fn gbit(bytes: u64, begin: Instant) -> f64 {
    bytes as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e9
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
