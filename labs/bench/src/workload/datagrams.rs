//! UDP datagrams at the maximum rate.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Datagrams, Transport, any_port};
use crate::report::{Received, Report};
use crate::usage::Usage;

/// Payload of a datagram, bytes.
pub(crate) const DATAGRAM_SIZE: usize = 1200;

/// The first byte: begin a transfer, data, or ask for the result. The answers to the first and the last begin
/// with the same byte, and a result follows it.
const BEGIN_BYTE: u8 = 0;
const DATA: u8 = 1;
const RESULT: u8 = 2;

/// Number of requests for an answer, and the timeout of each.
const ATTEMPTS: u32 = 50;
const ANSWERED: Duration = Duration::from_millis(100);

/// Counts datagrams and answers requests. Ends when the socket fails.
pub(super) fn count<D: Datagrams>(socket: &D) {
    let mut buf = [0; DATAGRAM_SIZE];
    let mut received = Received::default();
    let (mut start, mut before) = (Instant::now(), Usage::now());
    loop {
        let (length, from) = match socket.recv_from(&mut buf) {
            Ok(datagram) => datagram,
            // An answer has met a closed port.
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => continue,
            Err(e) => return eprintln!("datagrams: {e}"),
        };
        let answer = match buf[0] {
            BEGIN_BYTE => {
                (start, before) = (Instant::now(), Usage::now());
                received = Received::default();
                vec![BEGIN_BYTE]
            }
            DATA => {
                received.bytes += length as u64;
                received.elapsed = start.elapsed();
                continue;
            }
            RESULT => {
                received.usage = Usage::now() - before;
                [&[RESULT][..], &received.to_bytes()].concat()
            }
            _ => continue,
        };
        if let Err(e) = socket.send_to(&answer, from) {
            eprintln!("answer to {from}: {e}");
        }
    }
}

/// Sends for `secs` seconds. Only the datagrams that arrive count.
pub(super) fn send<T: Transport>(transport: &T, address: SocketAddr, secs: f64) -> io::Result<Report> {
    let socket = transport.bind(any_port(address))?;
    ask(&socket, BEGIN_BYTE, address)?;
    let (start, before) = (Instant::now(), Usage::now());
    let datagram = [DATA; DATAGRAM_SIZE];
    let mut sent = 0;
    while start.elapsed().as_secs_f64() < secs {
        socket.send_to(&datagram, address)?;
        sent += 1;
    }
    let usage = Usage::now() - before;
    let result = ask(&socket, RESULT, address)?;
    let result = <&[u8; Received::LEN]>::try_from(&result[..]).map_err(io::Error::other)?;
    Ok(Received::from_bytes(result).datagrams(sent, DATAGRAM_SIZE, usage))
}

/// Sends a request until its answer comes, and returns the answer after its first byte.
fn ask<D: Datagrams>(socket: &D, what: u8, address: SocketAddr) -> io::Result<Vec<u8>> {
    socket.set_read_timeout(Some(ANSWERED))?;
    let mut buf = [0; DATAGRAM_SIZE];
    for _ in 0..ATTEMPTS {
        socket.send_to(&[what], address)?;
        let Ok((length, _)) = socket.recv_from(&mut buf) else { continue };
        // Compare the first byte, because this may be a late answer to the previous request.
        if let Some((&first, answer)) = buf[..length].split_first()
            && first == what
        {
            return Ok(answer.to_vec());
        }
    }
    Err(io::Error::new(ErrorKind::TimedOut, "no answer from the server"))
}
