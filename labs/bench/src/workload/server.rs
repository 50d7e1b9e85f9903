//! The serving side of all workloads.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::{
    Command, Listener, MESSAGE_SIZE, PING_SIZE, READ_SIZE, Stream, Transport, User, datagrams, memory,
    of_messages,
};
use crate::report::{Received, print_ready};
use crate::usage::Usage;

/// Time without a command after which a client is dropped, so that it cannot block the others.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// Message bytes received.
pub(super) static MESSAGES: AtomicU64 = AtomicU64::new(0);

/// Serves clients until the process is ended.
pub(crate) fn serve<T: Transport + Sync>(transport: &T, address: SocketAddr) -> io::Result<()> {
    memory::raise_descriptor_limit();
    let listener = transport.listen(address)?;
    // The other ports derive from that port.
    let address = SocketAddr::new(address.ip(), listener.local_addr()?.port());
    let sockets = transport.bind(address)?;
    thread::spawn(move || datagrams::count(&sockets));
    thread::scope(|scope| {
        print_ready(listener.local_addr()?);
        let mut held = Vec::new();
        loop {
            let stream = listener.accept()?;
            match answer(transport, scope, of_messages(address), stream) {
                // Another workload begins, so the held connections of the last one are over.
                Ok(None) => held.clear(),
                Ok(Some(stream)) => held.push(stream),
                Err(e) => eprintln!("connection: {e}"),
            }
        }
    })
}

/// Reads the command. Short ones are handled right here, because a thread would cost more than the
/// connection. Returns a connection that must be held. Messages are swallowed at the address `messages`.
pub(super) fn answer<'scope, T: Transport + Sync>(
    transport: &'scope T,
    scope: &'scope Scope<'scope, '_>,
    messages: SocketAddr,
    mut stream: T::Stream,
) -> io::Result<Option<T::Stream>> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(COMMAND_TIMEOUT))?;
    let mut command = [0];
    stream.read_exact(&mut command)?;
    match command[0] {
        Command::BYTE => stream.write_all(&command)?,
        Command::REQUEST => {
            let mut message = [0; MESSAGE_SIZE];
            stream.read_exact(&mut message[1..])?;
            stream.write_all(&message)?;
        }
        Command::COUNT | Command::USAGE => {
            let bytes = MESSAGES.load(Ordering::Relaxed);
            let usage = if command[0] == Command::USAGE { Usage::with_switches() } else { Usage::now() };
            let count = Received { bytes, elapsed: Duration::ZERO, usage };
            stream.write_all(&count.to_bytes())?;
        }
        Command::HOLD => {
            stream.write_all(&command)?;
            return Ok(Some(stream));
        }
        Command::MESSAGES => {
            stream.set_read_timeout(None)?;
            scope.spawn(move || {
                if let Err(e) = transport.swallow(messages, User { stream }) {
                    eprintln!("messages: {e}");
                }
            });
        }
        Command::PING_PONG => {
            stream.set_read_timeout(None)?;
            thread::spawn(move || echo(stream));
        }
        Command::BULK => {
            stream.set_read_timeout(None)?;
            thread::spawn(move || swallow(stream));
        }
        other => return Err(io::Error::other(format!("unknown command {other:#04x}"))),
    }
    Ok(None)
}

/// Echoes until the other side leaves, which is how a ping-pong ends.
fn echo<S: Stream>(mut stream: S) {
    let mut message = [0; PING_SIZE];
    while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
}

fn swallow<S: Stream>(mut stream: S) {
    let (start, before) = (Instant::now(), Usage::now());
    let mut buffer = vec![0; READ_SIZE];
    let mut received = Received::default();
    let result = loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                received.elapsed = start.elapsed();
                received.usage = Usage::now() - before;
                break stream.write_all(&received.to_bytes());
            }
            Ok(n) => received.bytes += n as u64,
            Err(e) => break Err(e),
        }
    };
    if let Err(e) = result {
        eprintln!("bulk stream after {} bytes: {e}", received.bytes);
    }
}
