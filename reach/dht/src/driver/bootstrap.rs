//! The bootstrap nodes of the DHT: their addresses, and a check that one of them answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::Bootstrap;
use crate::ping::ping_question;

/// Timeout for resolving the well-known nodes if other nodes are known, because the resolver may take
/// minutes.
const NAMES_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the addresses of these nodes, except those whose names cannot be resolved.
pub(super) fn resolve(bootstrap: &Bootstrap, is_in_a_hurry: bool) -> Vec<SocketAddrV4> {
    match bootstrap {
        Bootstrap::Nodes(nodes) => nodes.clone(),
        Bootstrap::Public if is_in_a_hurry => {
            let (sender, resolved) = mpsc::channel();
            let look_up = move || _ = sender.send(public_nodes());
            match thread::Builder::new().name("peersock names".into()).spawn(look_up) {
                Ok(_) => resolved.recv_timeout(NAMES_TIMEOUT).unwrap_or_default(),
                Err(_) => Vec::new(),
            }
        }
        Bootstrap::Public => public_nodes(),
    }
}

/// Returns the addresses of the well-known nodes whose names can be resolved now.
fn public_nodes() -> Vec<SocketAddrV4> {
    let resolved = mainline::DEFAULT_BOOTSTRAP_NODES.iter().filter_map(|name| name.to_socket_addrs().ok());
    let addresses = resolved.flatten().filter_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    addresses.collect()
}

/// Returns true if one of these nodes answers a ping from this address within `patience`. Resolving names
/// takes additional time.
///
/// # Errors
/// If there is no socket or no randomness.
///
/// ```
/// use std::net::{Ipv4Addr, UdpSocket};
/// use std::time::Duration;
/// use peersock_dht::{Bootstrap, answers_any};
///
/// // It is no node of the DHT.
/// let silent = UdpSocket::bind("127.0.0.1:0")?;
/// let nodes = Bootstrap::Nodes(vec![silent.local_addr()?.to_string().parse().expect("IPv4")]);
/// assert!(!answers_any(&nodes, Ipv4Addr::LOCALHOST, Duration::from_millis(10))?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn answers_any(bootstrap: &Bootstrap, bind: Ipv4Addr, patience: Duration) -> io::Result<bool> {
    let nodes = resolve(bootstrap, false);
    let socket = UdpSocket::bind((bind, 0))?;
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let (transaction, id) = random.split_first_chunk::<4>().expect("there are 24 bytes");
    let question = ping_question(*transaction, *id.first_chunk().expect("there are 20 bytes"));
    // A node that cannot be sent to does not answer.
    nodes.iter().for_each(|node| _ = socket.send_to(&question, node));
    let end = Instant::now() + patience;
    let mut buffer = [0; 1500];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        // An error comes from an earlier datagram (ICMP), or the time is over.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let is_asked = nodes.iter().any(|node| SocketAddr::V4(*node) == from);
        if is_asked && is_answer(&buffer[..length], transaction) {
            return Ok(true);
        }
    }
}

/// Returns true if the datagram is an answer with that transaction, whatever else it contains.
fn is_answer(datagram: &[u8], transaction: &[u8; 4]) -> bool {
    let has = |part: &[u8]| datagram.windows(part.len()).any(|bytes| bytes == part);
    has(&[b"1:t4:", &transaction[..]].concat()) && has(b"1:y1:r")
}
