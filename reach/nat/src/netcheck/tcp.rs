//! Checks of TCP connections, which are opened and closed again.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use peersock_primitives::beside;
use serde::Serialize;

use super::{Target, as_text, round};
use crate::nat64::Nat64Prefix;

/// A TCP connection that was tried.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TcpCheck {
    /// The target as it was named.
    #[serde(serialize_with = "as_text")]
    pub target: Target,
    /// The address that was tried.
    pub address: SocketAddr,
    /// Time to open it in milliseconds; `None` if it did not open.
    pub connect_ms: Option<f64>,
    /// True if the connection was refused: by the machine, because nothing listens there, or by a firewall on
    /// the path. The server is then not reached.
    pub refused: bool,
}

/// Tries all connections in parallel.
pub(super) fn check(
    targets: &[(Target, SocketAddr)],
    nat64: Option<Nat64Prefix>,
    timeout: Duration,
) -> Vec<TcpCheck> {
    thread::scope(|scope| {
        let tried: Vec<_> = targets
            .iter()
            .map(|(target, address)| beside(scope, move || connect(target, *address, nat64, timeout)))
            .collect();
        tried.into_iter().filter_map(|tried| tried.join().ok()).collect()
    })
}

fn connect(target: &Target, address: SocketAddr, nat64: Option<Nat64Prefix>, timeout: Duration) -> TcpCheck {
    let begin = Instant::now();
    let outer = nat64.map_or(address, |prefix| prefix.synthesize(address));
    let opened = TcpStream::connect_timeout(&outer, timeout);
    let connect_ms = opened.is_ok().then(|| round(begin.elapsed().as_secs_f64() * 1e3));
    let refused = opened.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    TcpCheck { target: target.clone(), address, connect_ms, refused }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::Transport;
    use super::*;

    #[test]
    fn open_and_closed_ports_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let open = listener.local_addr().expect("it is bound");
        let target = |address: SocketAddr| {
            (Target::parse(&address.to_string(), Transport::Tcp).expect("an endpoint"), address)
        };
        let checks = check(&[target(open)], None, Duration::from_secs(2));
        assert!(checks[0].connect_ms.is_some() && !checks[0].refused);
        drop(listener);
        let checks = check(&[target(open)], None, Duration::from_secs(2));
        assert!(checks[0].connect_ms.is_none() && checks[0].refused);
    }
}
