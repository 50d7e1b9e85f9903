//! The limit: encrypted datagrams and nothing above them.
//!
//! One thread per side copies application bytes into full datagrams, seals each with AES-256-GCM and sends 44
//! of them with one system call (UDP GSO). The receiver takes what the kernel merged (UDP GRO), opens each
//! and copies it out. There is no retransmission. Acknowledgements only keep the sender from flooding the
//! receiver. It is a yardstick and not a bound, because an overlay that uses two threads per side can pass
//! it.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::report::{self, Received, Report};
use crate::usage::Usage;
use crate::workload::{DATAGRAM_SIZE, PING_SIZE, WARM_UP, Workload, any_port};

mod datagram;
mod socket;

use datagram::{Cipher, HEADER, Kind, MAX_PAYLOAD, SIZE, TAG};
use socket::{Inbox, Socket};

/// Maximum number of datagrams in flight, about 2.6 MB.
const WINDOW: u64 = 40 * 44;
/// Number of datagrams per acknowledgement. The receiver also acknowledges when nothing is left to read.
const ACK_EVERY: u64 = 88;
/// Time without an acknowledgement after which the sender goes on, because the tail of the window was lost.
const LOST_TAIL_TIMEOUT: Duration = Duration::from_millis(20);
/// Size in bytes of the application's buffers at both ends. They slightly exceed the caches, as real ones do.
const APPLICATION_BUFFER: usize = 1 << 20;

/// Counts of the server since the start of a transfer.
struct Count {
    start: Instant,
    before: Usage,
    datagrams: u64,
    bytes: u64,
    unacknowledged: u64,
    highest: u64,
}

impl Count {
    fn start() -> Count {
        Count {
            start: Instant::now(),
            before: Usage::now(),
            datagrams: 0,
            bytes: 0,
            unacknowledged: 0,
            highest: 0,
        }
    }
}

/// Receives bulk datagrams, echoes pings and answers with its count, until the process is ended.
pub(crate) fn serve(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::bind(address)?;
    report::print_ready(socket.local_addr()?);
    let cipher = Cipher::new();
    let mut inbox = Inbox::new();
    let mut application = vec![0; APPLICATION_BUFFER];
    let mut offset = 0;
    let mut count = Count::start();
    let mut out = Vec::new();
    let mut replies = 0;
    let mut sender = None;
    loop {
        let mut answers: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
        let any = inbox.receive(&socket, |from, datagram| {
            let Some((kind, sequence, payload)) = cipher.open(datagram) else { return };
            match kind {
                Kind::Data => {
                    if sequence == 0 {
                        count = Count::start();
                    }
                    if offset + payload.len() > application.len() {
                        offset = 0;
                    }
                    application[offset..offset + payload.len()].copy_from_slice(payload);
                    offset += payload.len();
                    count.datagrams += 1;
                    count.unacknowledged += 1;
                    count.bytes += payload.len() as u64;
                    count.highest = count.highest.max(sequence);
                    sender = Some(from);
                }
                Kind::Ping => answers.push((from, payload.to_vec())),
                Kind::Result => {
                    let received = Received {
                        bytes: count.bytes,
                        elapsed: count.start.elapsed(),
                        usage: Usage::now() - count.before,
                    };
                    answers.push((from, received.to_bytes().to_vec()));
                }
                Kind::Ack | Kind::Reply => {}
            }
        })?;
        if let Some(peer) = sender
            && (count.unacknowledged >= ACK_EVERY || !any && count.unacknowledged > 0)
        {
            count.unacknowledged = 0;
            cipher.seal(Kind::Ack, count.datagrams, &count.highest.to_le_bytes(), &mut out);
            socket.send(peer, &out, None)?;
        }
        for (peer, payload) in answers {
            replies += 1;
            cipher.seal(Kind::Reply, replies, &payload, &mut out);
            socket.send(peer, &out, None)?;
        }
        if !any {
            socket.wait_readable(Duration::from_secs(1))?;
        }
    }
}

/// Runs a workload. Without connections only `bulk` with one stream, `ping-pong` and `datagrams` exist.
pub(crate) fn client(server: SocketAddr, workload: &Workload) -> io::Result<()> {
    match *workload {
        Workload::Bulk { secs, streams: 1 } => bulk(server, secs)?.print(),
        Workload::PingPong { secs } => ping_pong(server, secs)?.print(),
        Workload::Datagrams { secs } => datagrams(server, secs)?.print(),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "plain datagrams have no connections: only bulk with one stream, ping-pong and datagrams",
        )),
    }
}

fn bulk(server: SocketAddr, secs: f64) -> io::Result<Report> {
    let socket = Socket::bind(any_port(server))?;
    let cipher = Cipher::new();
    let segments = socket.max_segments();
    let application = vec![0x5a; APPLICATION_BUFFER];
    let mut offset = 0;
    let mut batch = vec![0; SIZE * segments];
    let mut inbox = Inbox::new();
    let (mut next, mut acknowledged) = (0, 0);
    let (start, before) = (Instant::now(), Usage::now());
    while start.elapsed().as_secs_f64() < secs {
        for datagram in batch.chunks_exact_mut(SIZE) {
            if offset + MAX_PAYLOAD > application.len() {
                offset = 0;
            }
            datagram[HEADER..SIZE - TAG].copy_from_slice(&application[offset..offset + MAX_PAYLOAD]);
            offset += MAX_PAYLOAD;
            cipher.seal_in_place(Kind::Data, next, datagram);
            next += 1;
        }
        socket.send(server, &batch, Some(SIZE))?;
        if next - acknowledged >= WINDOW / 2 {
            while read_acks(&socket, &cipher, &mut inbox, &mut acknowledged)? {}
        }
        while next - acknowledged >= WINDOW {
            if !socket.wait_readable(LOST_TAIL_TIMEOUT)? {
                acknowledged = next;
            }
            while read_acks(&socket, &cipher, &mut inbox, &mut acknowledged)? {}
        }
    }
    let usage = Usage::now() - before;
    let received = result(&socket, &cipher, &mut inbox, server)?;
    Ok(Received::report(&[received], usage))
}

/// Seals and sends an application's datagrams one by one, without waiting for the receiver.
fn datagrams(server: SocketAddr, secs: f64) -> io::Result<Report> {
    let socket = Socket::bind(any_port(server))?;
    let (cipher, mut inbox) = (Cipher::new(), Inbox::new());
    let payload = [0x5a; DATAGRAM_SIZE];
    let mut out = Vec::new();
    let mut sent = 0;
    let (start, before) = (Instant::now(), Usage::now());
    while start.elapsed().as_secs_f64() < secs {
        cipher.seal(Kind::Data, sent, &payload, &mut out);
        socket.send(server, &out, None)?;
        sent += 1;
    }
    let usage = Usage::now() - before;
    let mut acknowledged = 0;
    while read_acks(&socket, &cipher, &mut inbox, &mut acknowledged)? {}
    Ok(result(&socket, &cipher, &mut inbox, server)?.datagrams(sent, DATAGRAM_SIZE, usage))
}

/// Reads the acknowledgements of one system call. Returns false if there were none.
fn read_acks(
    socket: &Socket,
    cipher: &Cipher,
    inbox: &mut Inbox,
    acknowledged: &mut u64,
) -> io::Result<bool> {
    inbox.receive(socket, |_, datagram| {
        if let Some((Kind::Ack, _, payload)) = cipher.open(datagram)
            && let Ok(highest) = <[u8; 8]>::try_from(&*payload)
        {
            *acknowledged = (*acknowledged).max(u64::from_le_bytes(highest) + 1);
        }
    })
}

/// Asks for the count until the answer comes.
fn result(socket: &Socket, cipher: &Cipher, inbox: &mut Inbox, server: SocketAddr) -> io::Result<Received> {
    let mut out = Vec::new();
    for attempt in 0..50 {
        cipher.seal(Kind::Result, attempt, &[0; 8], &mut out);
        socket.send(server, &out, None)?;
        socket.wait_readable(Duration::from_millis(100))?;
        let mut received = None;
        while inbox.receive(socket, |_, datagram| {
            if let Some((Kind::Reply, _, payload)) = cipher.open(datagram)
                && let Ok(bytes) = <[u8; Received::LEN]>::try_from(&*payload)
            {
                received = Some(Received::from_bytes(&bytes));
            }
        })? {}
        if let Some(received) = received {
            return Ok(received);
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no result from the server"))
}

fn ping_pong(server: SocketAddr, secs: f64) -> io::Result<Report> {
    let socket = Socket::bind(any_port(server))?;
    let cipher = Cipher::new();
    let mut inbox = Inbox::new();
    let mut nanos = Vec::with_capacity(1 << 20);
    let mut out = Vec::new();
    let start = Instant::now();
    for i in 0.. {
        let sent = Instant::now();
        if sent.duration_since(start).as_secs_f64() >= secs {
            break;
        }
        cipher.seal(Kind::Ping, i, &[7; PING_SIZE], &mut out);
        socket.send(server, &out, None)?;
        let mut answered = false;
        while !answered && sent.elapsed() < Duration::from_millis(200) {
            socket.wait_readable(Duration::from_millis(100))?;
            inbox.receive(&socket, |_, datagram| answered |= cipher.open(datagram).is_some())?;
        }
        if answered && i >= WARM_UP as u64 {
            nanos.push(sent.elapsed().as_nanos() as u64);
        }
    }
    Ok(Report::ping_pong(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_counted_and_echoed() {
        // The server runs until the process ends, so choose a port for it beforehand.
        let server = Socket::bind(([127, 0, 0, 1], 0).into()).and_then(|s| s.local_addr()).expect("a port");
        std::thread::spawn(move || serve(server));
        std::thread::sleep(Duration::from_millis(100));
        // A busy machine takes longer for the same.
        let measures = |measure: &dyn Fn(f64) -> bool| [0.1, 1.0, 10.0].into_iter().any(measure);
        assert!(measures(
            &|secs| matches!(bulk(server, secs).expect("transfer"), Report::Bulk { bytes, .. } if bytes > 0)
        ));
        assert!(measures(&|secs| {
            let report = datagrams(server, secs).expect("a result");
            matches!(report, Report::Datagrams { received, .. } if received > 0)
        }));
        assert!(measures(
            &|secs| matches!(ping_pong(server, secs).expect("echo"), Report::PingPong { samples, .. } if samples > 0)
        ));
    }
}
