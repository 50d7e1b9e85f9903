//! Bulk transfer over one stream or several.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::{CONNECT_TIMEOUT, Command, Stream, Transport, WRITE_SIZE};
use crate::report::{Received, Report};
use crate::usage::Usage;

/// Time within which a receiver answers after the end of the stream.
const RESULT_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends for `secs` seconds.
pub(super) fn send<T: Transport + Sync>(
    transport: &T,
    address: SocketAddr,
    secs: f64,
    streams: usize,
) -> io::Result<Report> {
    let mut connections = Vec::new();
    for _ in 0..streams {
        let stream = transport.connect(address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        connections.push(stream);
    }
    let before = Usage::now();
    let send = |stream| send_for(stream, Duration::from_secs_f64(secs));
    let received = thread::scope(|scope| {
        let senders: Vec<_> = connections.into_iter().map(|s| scope.spawn(move || send(s))).collect();
        senders
            .into_iter()
            .map(|s| s.join().unwrap_or_else(|_| Err(io::Error::other("a sender panicked"))))
            .collect::<io::Result<Vec<_>>>()
    })?;
    Ok(Received::report(&received, Usage::now() - before))
}

fn send_for<S: Stream>(mut stream: S, time: Duration) -> io::Result<Received> {
    let data = vec![0x5a; WRITE_SIZE];
    stream.write_all(&[Command::BULK])?;
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < time {
        sent += stream.write(&data)? as u64;
    }
    stream.shutdown_write()?;
    stream.set_read_timeout(Some(RESULT_TIMEOUT))?;
    let mut result = [0; Received::LEN];
    stream.read_exact(&mut result)?;
    let received = Received::from_bytes(&result);
    same_count(sent, received.bytes)?;
    Ok(received)
}

/// Fails unless the receiver counted every sent byte.
pub(crate) fn same_count(sent: u64, received: u64) -> io::Result<()> {
    if sent == received {
        return Ok(());
    }
    Err(io::Error::other(format!("sent {sent} bytes, but {received} arrived")))
}
