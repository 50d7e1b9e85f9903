//! Round trips.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use super::{CONNECT_TIMEOUT, Command, PING_SIZE, Stream, Transport, WARM_UP};
use crate::report::Report;

/// Exchanges messages of 64 bytes, one at a time.
pub(super) fn measure<T: Transport>(transport: &T, address: SocketAddr, secs: f64) -> io::Result<Report> {
    let mut stream = transport.connect(address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[Command::PING_PONG])?;
    let mut message = [7; PING_SIZE];
    let mut nanos = Vec::with_capacity(1 << 20);
    let start = Instant::now();
    for i in 0.. {
        let sent = Instant::now();
        if sent.duration_since(start).as_secs_f64() >= secs {
            break;
        }
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        if i >= WARM_UP {
            nanos.push(sent.elapsed().as_nanos() as u64);
        }
    }
    Ok(Report::ping_pong(nanos))
}
