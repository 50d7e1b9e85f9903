//! TCP connections: to the first address of a host that answers, with options that keep queues short.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::peer_streams::share_port;

/// Head start of one address before the next one is tried in parallel (RFC 8305, 5).
const ATTEMPT_HEAD_START: Duration = Duration::from_millis(250);

/// Limit of the addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Bytes that the kernel holds beyond what it has sent. They can no longer be dropped when they get old.
const UNSENT: u32 = 16 << 10;

/// The way out that TCP connections take.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Way {
    /// The network interface by which they must leave. Works on Linux only; elsewhere connecting fails if it
    /// is set. Default: chosen by the routing table.
    pub interface: Option<String>,
}

/// Resolves a host to addresses, with IPv6 and IPv4 alternating.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses = in_turns(peersock_primitives::resolve(host, port).await?);
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses)
}

/// Alternates the families, beginning with the family of the first address (RFC 8305, 4).
fn in_turns(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            turns.truncate(MAX_ADDRESSES);
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

/// Connects to the address that answers first.
pub(crate) async fn dial(addresses: &[SocketAddr], way: &Way) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "there is no address");
    loop {
        attempts.extend(waiting.next().map(|address| attempt(*address, way)));
        tokio::select! {
            ended = attempts.next() => match ended {
                Some(Ok(stream)) => return Ok(stream),
                // Try the next address at once.
                Some(Err(error)) => last_error = error,
                None => return Err(last_error),
            },
            () = sleep(ATTEMPT_HEAD_START), if waiting.len() > 0 => {}
        }
    }
}

async fn attempt(address: SocketAddr, way: &Way) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Share the port, because a node may use it for connections to other nodes too, which find it by the same
    // NAT mapping. A system without such sharing has no such connections.
    let _ = share_port(&socket);
    if let Some(interface) = &way.interface {
        bind_device(&socket, interface)?;
    }
    let stream = socket.connect(address).await?;
    prepare(&stream)?;
    Ok(stream)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn bind_device(socket: &TcpSocket, interface: &str) -> io::Result<()> {
    socket.bind_device(Some(interface.as_bytes()))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn bind_device(_: &TcpSocket, _: &str) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "connections cannot be bound to an interface here"))
}

/// Sets what both ends need: no delay to collect data, and few bytes waiting in the kernel.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    limit_unsent(stream)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn limit_unsent(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn limit_unsent(stream: &TcpStream) -> io::Result<()> {
    // A send buffer of fixed size bounds unsent and in-flight bytes together.
    SockRef::from(stream).set_send_buffer_size(16 * UNSENT as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().expect("an address"), 1)).collect()
    }

    #[test]
    fn families_take_turns() {
        let found = addresses(&["::1", "::2", "::3", "127.0.0.1"]);
        assert_eq!(in_turns(found), addresses(&["::1", "127.0.0.1", "::2", "::3"]));
        assert_eq!(in_turns(Vec::new()), []);
        assert_eq!(in_turns(addresses(&["::1"; 20])).len(), MAX_ADDRESSES);
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let good = listener.local_addr().expect("bound");
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let refuses = closed.local_addr().expect("bound");
        drop(closed);
        let stream = dial(&[refuses, good], &Way::default()).await.expect("the second one answers");
        assert_eq!(stream.peer_addr().expect("connected"), good);
        let error = dial(&[refuses], &Way::default()).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_is_silent_delays_the_next_only_a_little() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let good = listener.local_addr().expect("bound");
        // Linux drops connections to a full backlog.
        let full = TcpSocket::new_v4().expect("a socket");
        full.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let full = full.listen(0).expect("bound");
        let silent = full.local_addr().expect("bound");
        let mut fillers = Vec::new();
        while let Ok(filler) = tokio::time::timeout(ATTEMPT_HEAD_START, TcpStream::connect(silent)).await {
            fillers.push(filler.expect("there is room"));
        }
        let stream = dial(&[silent, good], &Way::default()).await.expect("the second one answers");
        assert_eq!(stream.peer_addr().expect("connected"), good);
    }
}
