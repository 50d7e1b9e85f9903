//! Turns an accepted TCP connection into one that carries datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::http::{self, Answered};
use super::limits::{Peer, Permit};
use super::{Common, ConnectionId};
use crate::carrier::{BoxedStream, Carrier, Framed, Framing, Role, WebSocket};
use crate::connection::{Closed, Shared};
use crate::dial;
use crate::pump;
use crate::target::Transport;
use crate::tls::TLS_BUFFER;

/// Minimum interval between checks of the certificate files.
const LOOK_AT_FILES: Duration = Duration::from_secs(10);

/// Pause after an error of accept(2), mostly because no file descriptors are left.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The type of a TLS record with a handshake message (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Accepts connections until the task is aborted.
pub(super) async fn run(listener: TcpListener, common: Arc<Common>) {
    let mut looked_at_files = Instant::now();
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                sleep(ACCEPT_ERROR_PAUSE).await;
                continue;
            }
        };
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        common.counters.accepted.increment();
        if common.inbox.is_overrun() {
            common.counters.refused_overrun.increment();
            continue;
        }
        let permit = match common.ledger.permit(remote.ip(), &common.counters) {
            Ok(permit) => permit,
            Err(refused) => {
                refused.increment();
                continue;
            }
        };
        if let Some(tls) = &common.options.tls
            && looked_at_files.elapsed() >= LOOK_AT_FILES
        {
            looked_at_files = Instant::now();
            match tls.reload_if_changed() {
                Ok(false) => {}
                Ok(true) => tracing::info!("the certificate was read again"),
                Err(error) => tracing::warn!(%error, "the new certificate is not used"),
            }
        }
        tokio::spawn(serve(stream, remote, permit, common.clone()));
    }
}

async fn serve(stream: TcpStream, remote: SocketAddr, permit: Permit, common: Arc<Common>) {
    let opening = timeout(common.options.limits.handshake_timeout, open(stream, &common));
    let opened = tokio::select! {
        opened = opening => opened,
        () = permit.standing().evicted() => return common.counters.evicted.increment(),
    };
    let (carrier, transport) = match opened {
        Ok(Ok(Some(opened))) => opened,
        Ok(Ok(None)) => {
            common.counters.pages.increment();
            return;
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection did not become one of a node");
            common.counters.handshakes_failed.increment();
            return;
        }
        Err(_) => {
            common.counters.handshakes_timed_out.increment();
            return;
        }
    };
    let shared = Arc::new(Shared::new(common.options.send_queue, common.traffic.clone()));
    let peer = Arc::new(Peer::new(shared.clone(), permit));
    let id = common.open(remote, transport, peer.clone());
    let reason = tokio::select! {
        reason = carry(id, carrier, &peer, &common) => reason,
        () = peer.evicted() => {
            common.counters.evicted.increment();
            peer.shared.close(Closed::Here);
            Closed::Here
        }
    };
    tracing::debug!(%id, %reason, "a connection has ended");
    common.close(id, reason);
}

/// Runs a connection to its end.
async fn carry(id: ConnectionId, carrier: Carrier, peer: &Arc<Peer>, common: &Arc<Common>) -> Closed {
    let deliver = |datagram| common.inbox.push(id, peer, datagram, Instant::now(), &common.counters);
    let timing = common.options.timing;
    let running = pump::run(carrier, Role::Server, peer.shared.clone(), timing, deliver);
    tokio::pin!(running);
    match timeout(common.admission(), &mut running).await {
        Ok(reason) => reason,
        Err(_) => {
            if !peer.is_admitted() {
                peer.shared.close(Closed::NotAdmitted);
            }
            running.await
        }
    }
}

/// Identifies the transport by the first bytes. `None` means that the client got a page.
async fn open(stream: TcpStream, common: &Common) -> io::Result<Option<(Carrier, Transport)>> {
    dial::prepare(&stream)?;
    let mut first = [0];
    stream.peek(&mut first).await?;
    let (mut stream, is_tls): (BoxedStream, bool) = match &common.options.tls {
        Some(tls) if first == [TLS_HANDSHAKE] => {
            let limit = |session: &mut rustls::ServerConnection| session.set_buffer_limit(Some(TLS_BUFFER));
            (Box::new(tls.acceptor().accept_with(stream, limit).await?), true)
        }
        _ => (Box::new(stream), false),
    };
    let mut early = vec![0; 1024];
    let read = stream.read(&mut early).await?;
    early.truncate(read);
    match early.first() {
        Some(0) => {
            let transport = if is_tls { Transport::Tls } else { Transport::Tcp };
            Ok(Some((Carrier::Framed(Framed::new(stream, early, Framing::lengths())), transport)))
        }
        Some(b'A'..=b'Z') => match http::answer(stream, early, &common.options.page).await? {
            Answered::Page => Ok(None),
            Answered::WebSocket(stream, early) => {
                let websocket = WebSocket::of_server(stream, early).await;
                Ok(Some((Carrier::WebSocket(Box::new(websocket)), Transport::WebSocket)))
            }
        },
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "its first byte is none of a transport")),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
