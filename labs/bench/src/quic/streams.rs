//! The workloads over the streams of one QUIC connection. The parent module provides the types, which have
//! the same methods in quinn and in iroh.

use std::io;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Connection, RecvStream, SendStream};
use crate::report::{Received, Report};
use crate::usage::Usage;
use crate::workload::{
    Command, MAX_CONNECTIONS, MESSAGE_SIZE, PING_SIZE, READ_SIZE, WARM_UP, WRITE_SIZE, Workload, same_count,
};

/// Answers all streams until the connection ends.
pub(super) async fn serve(connection: &Connection) {
    while let Ok((tx, rx)) = connection.accept_bi().await {
        tokio::spawn(async move {
            if let Err(e) = answer(tx, rx).await {
                eprintln!("stream: {e}");
            }
        });
    }
}

/// Runs a workload.
pub(super) async fn run(connection: &Connection, workload: &Workload) -> io::Result<Report> {
    Ok(match *workload {
        Workload::Bulk { secs, streams } => bulk(connection, secs, streams).await?,
        Workload::PingPong { secs } => ping_pong(connection, secs).await?,
        Workload::Connect { secs } => stream_rate(connection, secs, 1).await,
        Workload::Requests { secs } => stream_rate(connection, secs, MESSAGE_SIZE).await,
        Workload::FirstByte => {
            exchange(connection, 1).await?;
            Report::Byte
        }
        Workload::Recover
        | Workload::Hold { .. }
        | Workload::Idle { .. }
        | Workload::Messages { .. }
        | Workload::Datagrams { .. } => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "not measured for QUIC"));
        }
    })
}

async fn answer(mut tx: SendStream, mut rx: RecvStream) -> io::Result<()> {
    let mut command = [0];
    rx.read_exact(&mut command).await.map_err(io::Error::other)?;
    match command[0] {
        Command::BYTE => tx.write_all(&command).await?,
        Command::REQUEST => {
            let mut message = [0; MESSAGE_SIZE];
            rx.read_exact(&mut message[1..]).await.map_err(io::Error::other)?;
            tx.write_all(&message).await?;
        }
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
    let (start, before) = (Instant::now(), Usage::now());
    let mut buffer = vec![0; READ_SIZE];
    let mut bytes = 0;
    while let Some(count) = rx.read(&mut buffer).await? {
        bytes += count as u64;
    }
    Ok(Received { bytes, elapsed: start.elapsed(), usage: Usage::now() - before })
}

async fn bulk(connection: &Connection, secs: f64, streams: usize) -> io::Result<Report> {
    let before = Usage::now();
    let mut senders = JoinSet::new();
    for _ in 0..streams {
        senders.spawn(send_for(connection.clone(), Duration::from_secs_f64(secs)));
    }
    let mut received = Vec::new();
    while let Some(result) = senders.join_next().await {
        received.push(result.map_err(io::Error::other)??);
    }
    Ok(Received::report(&received, Usage::now() - before))
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

async fn stream_rate(connection: &Connection, secs: f64, size: usize) -> Report {
    let start = Instant::now();
    let (mut count, mut failed) = (0, 0);
    while start.elapsed().as_secs_f64() < secs && count < MAX_CONNECTIONS {
        match exchange(connection, size).await {
            Ok(()) => count += 1,
            Err(_) => failed += 1,
        }
    }
    let per_s = count as f64 / start.elapsed().as_secs_f64();
    Report::Connect { per_s, count, failed, switches_each: None }
}

/// Opens a stream, sends `size` bytes over it, and reads as many back.
async fn exchange(connection: &Connection, size: usize) -> io::Result<()> {
    let (mut tx, mut rx) = connection.open_bi().await?;
    let mut message = [0; MESSAGE_SIZE];
    message[0] = if size == 1 { Command::BYTE } else { Command::REQUEST };
    tx.write_all(&message[..size]).await?;
    tx.finish()?;
    rx.read_exact(&mut message[..size]).await.map_err(io::Error::other)
}
