//! BIND: a connection from the target to the client (RFC 1928, 4).

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use peersock_streams::socks::Reply;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

use super::send;
use crate::gate::Route;
use crate::listener::{Accepted, Listener};
use crate::overlay::unspecified;
use crate::proxy::{Client, Shared};
use crate::relay::relay;
use crate::stream::Link;
use crate::target::{Host, Target};

/// Time for the target to connect.
const BIND_TIMEOUT: Duration = Duration::from_secs(120);

/// Limit in bytes of the data that a client may send before the target connects.
const MAX_READ_AHEAD_BYTES: usize = 64 << 10;

/// Listens, sends the address, and relays the target's connection. If the request is refused, returns the
/// client's link with the reply to send.
pub(super) async fn serve(mut client: Client, target: &Target, shared: &Shared) -> Result<(), (Link, Reply)> {
    let (listener, expected) = match open(target, shared).await {
        Ok(opened) => opened,
        Err(reply) => return Err((client.link, reply)),
    };
    let Ok(bound) = listener.local_addr() else { return Err((client.link, Reply::FAILURE)) };
    if send(&mut client.link, &Reply::SUCCEEDED.emit(bound)).await.is_err() {
        return Ok(());
    }
    let came = tokio::select! {
        came = timeout(BIND_TIMEOUT, accept(&listener, &expected)) => came,
        () = gone(&mut client.link) => return Ok(()),
        () = shared.stop.cut() => {
            client.link.reset();
            return Ok(());
        }
    };
    // No further connection is accepted.
    drop(listener);
    let (link, peer) = match came {
        Ok(Ok(came)) => came,
        Ok(Err(_)) => return Err((client.link, Reply::FAILURE)),
        Err(_) => return Err((client.link, Reply::TTL_EXPIRED)),
    };
    if send(&mut client.link, &Reply::SUCCEEDED.emit(peer)).await.is_ok() {
        relay(client.link, link, &shared.stop).await;
    }
    Ok(())
}

/// Opens a listener that the target can reach. Also returns the target's addresses; empty if any host may
/// connect.
async fn open(target: &Target, shared: &Shared) -> Result<(Listener, Vec<IpAddr>), Reply> {
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let expected = match &target.host {
        Host::Ip(ip) if ip.is_unspecified() => Vec::new(),
        _ => match shared.gate.route(target).map_err(|error| error.reply())? {
            Route::Overlay(addresses) => addresses.iter().map(SocketAddr::ip).collect(),
            Route::System => return open_at_system(target).await.map_err(|_| Reply::FAILURE),
        },
    };
    let own = shared
        .gate
        .overlay()
        .address_for(*expected.first().unwrap_or(&any))
        .ok_or(Reply::NETWORK_UNREACHABLE)?;
    let listener = shared.gate.overlay().listen((own, 0).into()).await;
    Ok((listener.map_err(|_| Reply::FAILURE)?, expected))
}

/// Opens a listener at the address from which the system reaches the target.
async fn open_at_system(target: &Target) -> io::Result<(Listener, Vec<IpAddr>)> {
    let expected: Vec<_> = target.resolve().await?.iter().map(SocketAddr::ip).collect();
    let first = *expected.first().ok_or(io::ErrorKind::NotFound)?;
    let probe = UdpSocket::bind(unspecified(first)).await?;
    probe.connect((first, 9)).await?;
    let listener = TcpListener::bind((probe.local_addr()?.ip(), 0)).await?;
    Ok((Listener::Tcp(listener), expected))
}

/// Waits for the target; connections from other hosts are reset.
async fn accept(listener: &Listener, expected: &[IpAddr]) -> io::Result<(Link, SocketAddr)> {
    loop {
        let Accepted { link, peer, .. } = listener.accept().await?;
        match peer {
            Some(peer) if expected.is_empty() || expected.contains(&peer.ip().to_canonical()) => {
                return Ok((link, peer));
            }
            _ => link.reset(),
        }
    }
}

/// Waits until the client is gone, or has sent more than the limit.
async fn gone(link: &mut Link) {
    while link.early().len() < MAX_READ_AHEAD_BYTES && link.fill().await.unwrap_or(false) {}
}
