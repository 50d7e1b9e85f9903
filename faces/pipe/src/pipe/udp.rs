//! Datagrams.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use peersock_net::{SocketError, UdpConn};

use super::Pipe;
use super::inner::{Inner, Kind, Phase};
use crate::{Message, Options, PipeError, Proto};

const MAX_DATAGRAM_BYTES: usize = 1 << 16;
/// Pause in reading after an error that concerns one datagram.
const DATAGRAM_ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Makes a pipe of a socket: `prepare` adds callbacks and queues before the first message.
pub(crate) fn start(
    socket: UdpConn,
    remote: Option<SocketAddr>,
    options: Options,
    prepare: impl FnOnce(&Arc<Inner>),
) -> Result<Pipe, PipeError> {
    let local = socket.local_addr()?.to_socket_addr().map_err(SocketError::from)?;
    let socket = Arc::new(socket);
    let kind = Kind::Datagrams(Arc::clone(&socket));
    let inner = Inner::new(Proto::Udp, options, kind, local, remote, None, None);
    let pipe = inner.handle();
    prepare(&inner);
    tokio::spawn(async move {
        let why = read(&inner, &socket).await;
        inner.advance(Phase::Closing);
        socket.close();
        inner.finish(why).await;
    });
    Ok(pipe)
}

pub(crate) async fn send(
    inner: &Inner,
    socket: &UdpConn,
    data: &[u8],
    dest: SocketAddr,
) -> Result<usize, PipeError> {
    let sent = match socket.remote_addr() {
        Some(remote) => {
            let remote = remote.to_socket_addr().map_err(SocketError::from)?;
            if remote != dest {
                return Err(PipeError::Elsewhere { dest: remote, asked: dest });
            }
            socket.write(data).await
        }
        None => socket.write_to(data, &dest.into()).await,
    };
    match sent {
        Err(SocketError::Closed { .. }) => {
            inner.reached(Phase::Gone).await;
            Err(inner.closed())
        }
        sent => Ok(sent?),
    }
}

/// Reads until the socket is closed.
async fn read(inner: &Arc<Inner>, socket: &UdpConn) -> PipeError {
    let mut seen = Seen::new(inner.options.max_msg_ids);
    loop {
        match socket.read_from(MAX_DATAGRAM_BYTES).await {
            Ok((data, sender)) => {
                let Ok(sender) = sender.to_socket_addr() else { continue };
                if !inner.options.enable_msg_ids || seen.is_new(sender, &data, &inner.repeated) {
                    inner.receive(Message::new(data, sender));
                }
            }
            Err(SocketError::Closed { .. }) => return PipeError::Closed,
            Err(error) if is_of_socket(&error) => return PipeError::Failed(error),
            Err(error) => {
                tracing::debug!(%error, "a datagram was not received");
                tokio::time::sleep(DATAGRAM_ERROR_PAUSE).await;
            }
        }
    }
}

/// Returns true if the error concerns the socket, and not one datagram.
fn is_of_socket(error: &SocketError) -> bool {
    // EBADF, ENODEV, EINVAL, ENOTSOCK, ENETDOWN, ESHUTDOWN.
    error.raw_os_error().is_some_and(|errno| [9, 19, 22, 88, 100, 108].contains(&errno))
}

/// The most recent datagrams.
struct Seen {
    most: usize,
    /// A hasher with a random key, so that no sender can choose datagrams that collide with others.
    hasher: RandomState,
    known: HashSet<(SocketAddr, u64)>,
    order: VecDeque<(SocketAddr, u64)>,
}

impl Seen {
    fn new(most: usize) -> Seen {
        Seen { most, hasher: RandomState::new(), known: HashSet::new(), order: VecDeque::new() }
    }

    fn is_new(&mut self, sender: SocketAddr, data: &[u8], repeated: &AtomicU64) -> bool {
        let key = (sender, self.hasher.hash_one(data));
        if !self.known.insert(key) {
            repeated.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}
