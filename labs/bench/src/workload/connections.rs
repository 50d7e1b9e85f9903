//! New connections, and connections that are held open.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::{CONNECT_TIMEOUT, Command, MAX_CONNECTIONS, MESSAGE_SIZE, Stream, Transport, memory};
use crate::report::{Received, Report};
use crate::usage::Usage;

/// Pause between two attempts to connect to a server that is starting.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Makes connections one after another. Over each, `size` bytes go there and come back.
pub(super) fn rate<T: Transport>(
    transport: &T,
    address: SocketAddr,
    secs: f64,
    size: usize,
) -> io::Result<Report> {
    let command = if size == 1 { Command::BYTE } else { Command::REQUEST };
    let switches = || -> io::Result<u64> {
        let server = ask(transport, address, Command::USAGE)?;
        Ok(Usage::with_switches().switches + server.usage.switches)
    };
    let before = switches()?;
    let start = Instant::now();
    let (mut made, mut failed) = (0, 0);
    while start.elapsed().as_secs_f64() < secs && made < MAX_CONNECTIONS {
        match exchange(transport, address, command, size) {
            Ok(_) => made += 1,
            Err(e) => {
                if failed == 0 {
                    eprintln!("first failed connection: {e}");
                }
                failed += 1;
            }
        }
    }
    let per_s = made as f64 / start.elapsed().as_secs_f64();
    let switches = switches()?.saturating_sub(before);
    let switches_each = Some(switches as f64 / made.max(1) as f64);
    Ok(Report::Connect { per_s, count: made, failed, switches_each })
}

/// Opens a connection, sends a command of `size` bytes and reads as many back.
fn exchange<T: Transport>(
    transport: &T,
    address: SocketAddr,
    command: u8,
    size: usize,
) -> io::Result<T::Stream> {
    let mut stream = begin(transport, address)?;
    let mut message = [0; MESSAGE_SIZE];
    message[0] = command;
    stream.write_all(&message[..size])?;
    stream.read_exact(&mut message[..size])?;
    Ok(stream)
}

fn begin<T: Transport>(transport: &T, address: SocketAddr) -> io::Result<T::Stream> {
    let stream = transport.connect(address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    Ok(stream)
}

/// Asks the server for its usage and the received messages. `command` selects if switches count.
pub(super) fn ask<T: Transport>(transport: &T, address: SocketAddr, command: u8) -> io::Result<Received> {
    let mut stream = begin(transport, address)?;
    stream.write_all(&[command])?;
    let mut count = [0; Received::LEN];
    stream.read_exact(&mut count)?;
    Ok(Received::from_bytes(&count))
}

/// Exchanges one byte. It retries while the server is not up, as a program that waits for its peer would.
pub(super) fn byte_once_up<T: Transport>(transport: &T, address: SocketAddr) -> io::Result<T::Stream> {
    let start = Instant::now();
    loop {
        match exchange(transport, address, Command::BYTE, 1) {
            Ok(stream) => return Ok(stream),
            Err(e) if start.elapsed() >= 3 * CONNECT_TIMEOUT => return Err(e),
            Err(e) => {
                eprintln!("after {:.0} ms: {e}", start.elapsed().as_secs_f64() * 1e3);
                thread::sleep(RETRY_PAUSE);
            }
        }
    }
}

/// Exchanges a byte, and repeats that for each line on standard input.
pub(super) fn recover<T: Transport>(transport: &T, address: SocketAddr) -> io::Result<()> {
    let mut connection = byte_once_up(transport, address)?;
    Report::Byte.print()?;
    for line in io::stdin().lines() {
        line?;
        // The old connection stays open meanwhile, as in a program that has not noticed its end yet.
        connection = byte_once_up(transport, address)?;
        Report::Byte.print()?;
    }
    drop(connection);
    Ok(())
}

/// Makes connections that have exchanged one byte, and holds them open together.
pub(super) fn hold<T: Transport>(
    transport: &T,
    address: SocketAddr,
    connections: usize,
) -> io::Result<Report> {
    memory::raise_descriptor_limit();
    byte_once_up(transport, address)?;
    let before = memory::kib("VmRSS:")?;
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        held.push(exchange(transport, address, Command::HOLD, 1)?);
    }
    let kib = memory::kib("VmRSS:")?.saturating_sub(before);
    Ok(Report::Hold { connections, kib_each: kib as f64 / connections as f64 })
}
