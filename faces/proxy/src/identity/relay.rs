//! Relay between a member and a service of HTTP, whose requests get the member's fields.

use std::io;
use std::sync::{Mutex, MutexGuard};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::http::{BAD_REQUEST, Refused, Requests};
use crate::stop::Stop;
use crate::stream::Link;

/// Limit in bytes of one read.
const PIECE: usize = 32 << 10;

/// The requests, which both directions look at.
struct Shared {
    requests: Mutex<Requests>,
    /// Notified when the service has answered a request for another protocol.
    answered: Notify,
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().expect("no panic under this lock")
    }
}

/// Relays until both directions have ended. If one fails, or the time that `stop` leaves is over, both are
/// reset. A request that is refused is answered unless the service has begun to answer.
pub(crate) async fn relay_requests(mut client: Link, mut service: Link, requests: Requests, stop: &Stop) {
    let shared = Shared { requests: Mutex::new(requests), answered: Notify::new() };
    let mut has_answer = false;
    let done = {
        let (from_client, to_client) = tokio::io::split(&mut client);
        let (from_service, to_service) = tokio::io::split(&mut service);
        tokio::select! {
            done = async {
                tokio::try_join!(
                    pass_requests(from_client, to_service, &shared),
                    pass_answers(from_service, to_client, &shared, &mut has_answer),
                )
            } => done.map(drop),
            () = stop.cut() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    };
    let Err(error) = done else { return };
    tracing::debug!(%error, "a connection has broken");
    service.reset();
    if error.kind() == io::ErrorKind::InvalidData && !has_answer {
        let answer = async {
            client.write_all(BAD_REQUEST).await?;
            client.shutdown().await
        };
        if matches!(stop.unless_cut(answer).await, Ok(Ok(()))) {
            return;
        }
    }
    client.reset();
}

async fn pass_requests(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
) -> io::Result<()> {
    let (mut buffer, mut out) = (vec![0; PIECE], Vec::new());
    let mut count = 0;
    loop {
        let passed = shared.requests().pass(&buffer[..count], &mut out);
        // Requests before the one that is refused are whole.
        to.write_all(&out).await?;
        out.clear();
        passed.map_err(|Refused| refused())?;
        if shared.requests().waits_for_answer() {
            shared.answered.notified().await;
            if shared.requests().waits_for_answer() {
                // The service has ended without an answer.
                return to.shutdown().await;
            }
            count = 0;
            continue;
        }
        count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
    }
}

async fn pass_answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    has_answer: &mut bool,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            // Nothing frees a client's bytes any more.
            shared.answered.notify_one();
            return to.shutdown().await;
        }
        *has_answer = true;
        let freed = shared.requests().answered(&buffer[..count]).map_err(|Refused| refused())?;
        to.write_all(&buffer[..count]).await?;
        if freed {
            shared.answered.notify_one();
        }
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a request is ambiguous or malformed")
}
