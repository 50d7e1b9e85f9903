//! Check of the system's nameservers. They are asked for the root of the name space, which reveals nothing.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use peersock_primitives::{Beside, beside};
use serde::Serialize;

use super::round;
use crate::host::HostInterface;
use crate::socket::udp;

/// The same limit as in `resolv.conf`.
const MAX_SERVERS: usize = 3;
const MAX_QUERIES: u32 = 2;
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1000);

/// A nameserver of the system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Nameserver {
    /// The nameserver's address.
    pub address: IpAddr,
    /// The round-trip time in milliseconds; `None` if it does not answer.
    pub rtt_ms: Option<f64>,
}

/// Asks the nameservers to which one of the interfaces leads.
pub(super) fn check(interfaces: &[HostInterface]) -> Vec<Nameserver> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let leads = |address: &IpAddr| {
        interfaces.iter().any(|interface| interface.source_towards((*address, 53).into()).is_some())
    };
    let servers: Vec<IpAddr> = nameservers(&text).into_iter().filter(leads).collect();
    thread::scope(|scope| {
        let asked: Vec<_> = servers.iter().map(|address| beside(scope, || ask(*address))).collect();
        let rtt = |asked: Beside<'_, io::Result<Duration>>| {
            let rtt = asked.join().ok()?.ok()?;
            Some(round(rtt.as_secs_f64() * 1e3))
        };
        servers
            .iter()
            .zip(asked)
            .map(|(address, asked)| Nameserver { address: *address, rtt_ms: rtt(asked) })
            .collect()
    })
}

fn nameservers(resolv_conf: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        // A link-local address has its interface after a %.
        words.next()?.split('%').next()?.parse().ok()
    };
    resolv_conf.lines().filter_map(server).take(MAX_SERVERS).collect()
}

fn ask(address: IpAddr) -> io::Result<Duration> {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = udp(any, None)?;
    socket.set_nonblocking(false)?;
    socket.connect((address, 53))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let mut buffer = [0; 512];
    for _ in 0..MAX_QUERIES {
        let sent = Instant::now();
        socket.send(&query(id))?;
        match socket.recv(&mut buffer) {
            Ok(len) if is_answer(&buffer[..len], id) => return Ok(sent.elapsed()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Encodes a query for the NS records of the root, recursion desired (RFC 1035, 4.1).
fn query(id: [u8; 2]) -> [u8; 17] {
    [id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]
}

/// Returns true for any answer, even a refusal, because each shows that the nameserver is reached.
fn is_answer(data: &[u8], id: [u8; 2]) -> bool {
    data.len() >= 12 && data[..2] == id && data[2] & 0x80 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read() {
        let text =
            "# comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver x\n";
        let expected: [IpAddr; 2] = [[192, 0, 2, 1].into(), "fe80::1".parse().expect("an address")];
        assert_eq!(nameservers(text), expected);
        assert_eq!(nameservers(&"nameserver 192.0.2.1\n".repeat(9)).len(), MAX_SERVERS);
    }

    #[test]
    fn only_answers_to_the_question_count() {
        let mut answer = query([1, 2]).to_vec();
        assert!(!is_answer(&answer, [1, 2]));
        answer[2] |= 0x80;
        assert!(is_answer(&answer, [1, 2]));
        assert!(!is_answer(&answer, [2, 1]));
        assert!(!is_answer(&answer[..11], [1, 2]));
    }
}
