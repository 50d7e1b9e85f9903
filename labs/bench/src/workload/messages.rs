//! Many connections, each with a little traffic.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::connections::ask;
use super::{CONNECT_TIMEOUT, Command, MESSAGE_SIZE, Stream, Transport, memory, of_messages};
use crate::report::Report;
use crate::usage::Usage;

/// Messages sent each millisecond, over all connections together.
const MESSAGES_PER_MS: usize = 10;

/// Pause between the last connection and the first message.
const FIRST_MESSAGE_DELAY: Duration = Duration::from_secs(1);

/// Time within which the last message arrives.
const LAST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends 10,000 messages a second, over the connections in turn.
pub(super) fn send<T: Transport>(
    transport: &T,
    address: SocketAddr,
    connections: usize,
    secs: f64,
) -> io::Result<Report> {
    memory::raise_descriptor_limit();
    let mut user = transport.connect(address, CONNECT_TIMEOUT)?;
    user.write_all(&[Command::MESSAGES])?;
    user.read_exact(&mut [0])?;
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = transport.connect(of_messages(address), CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    thread::sleep(FIRST_MESSAGE_DELAY);
    let message = [0x5a; MESSAGE_SIZE];
    let (before, own) = (ask(transport, address, Command::COUNT)?, Usage::now());
    let (start, end) = (Instant::now(), Duration::from_secs_f64(secs));
    let mut sent = 0;
    let mut turn = 0;
    for tick in 1.. {
        for _ in 0..MESSAGES_PER_MS {
            streams[turn].write_all(&message)?;
            turn = (turn + 1) % connections;
            sent += 1;
        }
        let next = Duration::from_millis(tick);
        if next >= end {
            break;
        }
        thread::sleep(next.saturating_sub(start.elapsed()));
    }
    let (took, expected) = (start.elapsed(), before.bytes + sent * MESSAGE_SIZE as u64);
    let after = loop {
        let now = ask(transport, address, Command::COUNT)?;
        if now.bytes >= expected {
            break now;
        }
        if start.elapsed() > took + LAST_MESSAGE_TIMEOUT {
            return Err(io::Error::other(format!("{} bytes have not arrived", expected - now.bytes)));
        }
        thread::sleep(Duration::from_millis(10));
    };
    let cpu = (Usage::now() - own).cpu + (after.usage - before.usage).cpu;
    let per_s = sent as f64 / took.as_secs_f64();
    Ok(Report::Messages { connections, per_s, cpu_us_each: cpu.as_secs_f64() * 1e6 / sent as f64 })
}
