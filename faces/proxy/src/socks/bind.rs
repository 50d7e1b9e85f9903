//! BIND: a connection that comes from the target (RFC 1928, 4).

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

use super::{Reply, Request, send};
use crate::gate::{Route, unspecified};
use crate::listener::{Accepted, Listener};
use crate::proxy::{Client, Shared};
use crate::relay::relay;
use crate::stream::Link;
use crate::target::Host;

/// How long the target may take to connect.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much a client may send before it is connected, bytes.
const MOST_AHEAD: usize = 64 << 10;

/// Listens, says where, and relays what comes from the target. Gives the client back with what it is to be
/// told if it is refused.
pub(super) async fn serve(
    mut client: Client,
    request: &Request,
    shared: &Shared,
) -> Result<(), (Link, Reply)> {
    let (listener, expected) = match open(request, shared).await {
        Ok(opened) => opened,
        Err(reply) => return Err((client.link, reply)),
    };
    let Ok(bound) = listener.local_addr() else { return Err((client.link, Reply::Failure)) };
    if send(&mut client.link, &Reply::Succeeded.emit(bound)).await.is_err() {
        return Ok(());
    }
    let came = tokio::select! {
        came = timeout(PATIENCE, accept(&listener, &expected)) => came,
        () = gone(&mut client.link) => return Ok(()),
        () = shared.stop.cut() => {
            client.link.reset();
            return Ok(());
        }
    };
    // Nobody else is to connect.
    drop(listener);
    let (link, peer) = match came {
        Ok(Ok(came)) => came,
        Ok(Err(_)) => return Err((client.link, Reply::Failure)),
        Err(_) => return Err((client.link, Reply::TtlExpired)),
    };
    if send(&mut client.link, &Reply::Succeeded.emit(peer)).await.is_ok() {
        relay(client.link, link, &shared.stop).await;
    }
    Ok(())
}

/// A listener where the target can reach it, and the addresses of the target; none if it may be anybody.
async fn open(request: &Request, shared: &Shared) -> Result<(Listener, Vec<IpAddr>), Reply> {
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let expected = match &request.target.host {
        Host::Ip(ip) if ip.is_unspecified() => Vec::new(),
        _ => match shared.gate.route(&request.target).map_err(|error| error.reply())? {
            Route::Overlay(addresses) => addresses.iter().map(SocketAddr::ip).collect(),
            Route::System => return open_at_system(request).await.map_err(|_| Reply::Failure),
        },
    };
    let own = shared.gate.own_address(*expected.first().unwrap_or(&any)).ok_or(Reply::NetworkUnreachable)?;
    let listener = peersock::TcpListener::bind_on(shared.gate.node(), (own, 0)).await;
    Ok((Listener::Overlay(listener.map_err(|_| Reply::Failure)?), expected))
}

/// A listener at the address from which the system reaches the target.
async fn open_at_system(request: &Request) -> io::Result<(Listener, Vec<IpAddr>)> {
    let found = tokio::net::lookup_host(request.target.to_string()).await?;
    let expected: Vec<_> = found.map(|at| at.ip()).collect();
    let target = *expected.first().ok_or(io::ErrorKind::NotFound)?;
    let probe = UdpSocket::bind(unspecified(target)).await?;
    probe.connect((target, 9)).await?;
    let listener = TcpListener::bind((probe.local_addr()?.ip(), 0)).await?;
    Ok((Listener::Tcp(listener), expected))
}

/// Waits for the target; whoever else connects is reset.
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

/// Returns when the client is gone, or has sent more than may wait.
async fn gone(link: &mut Link) {
    while link.early().len() < MOST_AHEAD && link.fill().await.unwrap_or(false) {}
}
