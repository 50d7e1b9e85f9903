//! Connections: one task drives each, from its first message to the last byte that it has sent.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use peersock_net::{SocketError, TcpConn};
use peersock_primitives::{blocking, sync};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::inner::{Inner, Kind, Phase};
use super::{CLOSE_TIMEOUT, Pipe};
use crate::error::of_system;
use crate::{Message, Options, PipeError, Proto};

/// Data to send, and a sender that is notified when it has left.
pub(crate) type Outgoing = (Vec<u8>, oneshot::Sender<()>);

/// A stream of any kind.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The connection below a pipe.
pub(crate) enum Wire {
    Conn(Box<TcpConn>),
    Other { reader: Mutex<ReadHalf<Box<dyn Duplex>>>, writer: Mutex<WriteHalf<Box<dyn Duplex>>> },
}

impl From<TcpConn> for Wire {
    fn from(conn: TcpConn) -> Wire {
        Wire::Conn(Box::new(conn))
    }
}

impl Wire {
    pub(crate) fn of_stream(stream: Box<dyn Duplex>) -> Wire {
        let (reader, writer) = tokio::io::split(stream);
        Wire::Other { reader: Mutex::new(reader), writer: Mutex::new(writer) }
    }

    async fn read(&self, room: &mut [u8]) -> Result<usize, SocketError> {
        match self {
            Wire::Conn(conn) => conn.read_into(room).await,
            Wire::Other { reader, .. } => {
                let read = reader.lock().await.read(room).await;
                read.map_err(|error| of_system("read", &error))
            }
        }
    }

    async fn write(&self, data: &[u8]) -> Result<(), SocketError> {
        match self {
            // A box has a different `write` method.
            Wire::Conn(conn) => TcpConn::write(conn, data).await.map(drop),
            Wire::Other { writer, .. } => {
                let mut writer = writer.lock().await;
                let written = async {
                    writer.write_all(data).await?;
                    writer.flush().await
                };
                written.await.map_err(|error| of_system("write", &error))
            }
        }
    }

    /// Tells the other end that no more data follows. Errors do not matter, because the peer may be gone.
    async fn end(&self) {
        match self {
            Wire::Conn(conn) => drop(conn.close_write()),
            Wire::Other { writer, .. } => drop(writer.lock().await.shutdown().await),
        }
    }

    /// Makes the connection reset when it is dropped, if the stream supports that.
    fn reset_on_drop(&self) {
        if let Wire::Conn(conn) = self {
            // Ignore the error, because the connection may be gone.
            let _ = conn.set_linger(Duration::ZERO);
        }
    }

    /// Reads and discards data to the end, because a connection closed with unread data is reset and loses
    /// the data sent on it.
    async fn discard(&self) {
        let mut room = vec![0; 1 << 14];
        while self.read(&mut room).await.is_ok_and(|n| n > 0) {}
    }
}

/// Makes a pipe of a connection: `prepare` adds callbacks and queues before the first message.
pub(crate) fn start(
    wire: Wire,
    local: SocketAddr,
    remote: SocketAddr,
    options: Options,
    parent: Option<Arc<Inner>>,
    prepare: impl FnOnce(&Arc<Inner>),
) -> Pipe {
    if let (Wire::Conn(conn), Some(linger)) = (&wire, options.linger)
        && let Err(error) = conn.set_linger(linger)
    {
        tracing::debug!(%error, "a connection takes no linger time");
    }
    // One message is being written, and one waits; the other senders wait in the order of the calls.
    let (sender, outgoing) = mpsc::channel(1);
    let peer = match &wire {
        Wire::Conn(conn) => conn.peer(),
        Wire::Other { .. } => None,
    };
    let inner = Inner::new(Proto::Tcp, options, Kind::Stream(sender), local, Some(remote), peer, parent);
    let pipe = inner.handle();
    prepare(&inner);
    tokio::spawn(drive(inner, wire, outgoing));
    pipe
}

pub(crate) async fn send(
    inner: &Inner,
    outgoing: &mpsc::Sender<Outgoing>,
    data: &[u8],
) -> Result<usize, PipeError> {
    let sent = async {
        let permit = outgoing.reserve().await.ok()?;
        let (done, left) = oneshot::channel();
        permit.send((data.to_vec(), done));
        left.await.ok()
    };
    match sent.await {
        Some(()) => Ok(data.len()),
        None => {
            inner.reached(Phase::Gone).await;
            Err(inner.closed())
        }
    }
}

/// The end of a connection.
enum End {
    /// The other end sends no more data.
    Theirs,
    Ours,
    Failed(SocketError),
}

async fn drive(inner: Arc<Inner>, wire: Wire, mut outgoing: mpsc::Receiver<Outgoing>) {
    let mut is_cut_off = false;
    let end = {
        let mut writing = pin!(write(&inner, &wire, &mut outgoing));
        let mut is_written = false;
        let mut end = tokio::select! {
            end = read(&inner, &wire) => end,
            end = &mut writing => {
                is_written = true;
                end
            }
            () = inner.reached(Phase::Closing) => End::Ours,
        };
        if matches!(end, End::Theirs) {
            // Callbacks may still answer earlier messages.
            tokio::select! {
                () = inner.idle() => {}
                written = &mut writing => {
                    is_written = true;
                    end = written;
                }
                () = inner.reached(Phase::Closing) => {}
            }
        }
        inner.advance(Phase::Closing);
        let resets = inner.options.linger == Some(Duration::ZERO) && matches!(end, End::Ours);
        if !is_written && !resets && !matches!(end, End::Failed(_)) {
            let leaving = async {
                tokio::select! {
                    end = &mut writing => end,
                    // Read and discard, because a peer that waits for us to read would not read either.
                    () = async { wire.discard().await; pending().await } => End::Ours,
                }
            };
            match timeout(CLOSE_TIMEOUT, leaving).await {
                Ok(End::Failed(error)) => end = End::Failed(error),
                Ok(_) => {}
                Err(_) => {
                    is_cut_off = true;
                    tracing::warn!(
                        "the other end has not taken all that was sent before the pipe was closed"
                    );
                }
            }
        }
        end
    };
    drop(outgoing);
    let lingers = matches!(end, End::Ours);
    let ends = !is_cut_off && !matches!(end, End::Failed(_)) && inner.options.linger.is_none();
    let why = match end {
        End::Ours => PipeError::Closed,
        End::Theirs => PipeError::Ended,
        End::Failed(error) => PipeError::Failed(error),
    };
    let leaving = async {
        // TLS cannot send its end to a peer that does not read.
        if ends && timeout(CLOSE_TIMEOUT, wire.end()).await.is_ok() && lingers {
            let _ = timeout(CLOSE_TIMEOUT, wire.discard()).await;
        }
        if is_cut_off {
            // The other end must not mistake its part for the whole.
            wire.reset_on_drop();
        }
        drop_wire(wire, inner.options.linger).await;
    };
    tokio::join!(inner.finish(why), leaving);
}

/// Closes the socket, which with SO_LINGER may block the thread for the linger time.
async fn drop_wire(wire: Wire, linger: Option<Duration>) {
    match linger {
        Some(linger) if !linger.is_zero() => drop(blocking(move || drop(wire)).await),
        _ => drop(wire),
    }
}

/// Reads while there is room.
async fn read(inner: &Arc<Inner>, wire: &Wire) -> End {
    let Some(from) = inner.remote else { return End::Ours };
    let mut room = vec![0; inner.options.reader_limit];
    loop {
        inner.room().await;
        match wire.read(&mut room).await {
            Ok(0) => return End::Theirs,
            Ok(n) => inner.receive(Message::new(&room[..n], from)),
            Err(error) => return End::Failed(error),
        }
    }
}

/// Writes messages, including those sent before the end.
async fn write(inner: &Inner, wire: &Wire, outgoing: &mut mpsc::Receiver<Outgoing>) -> End {
    loop {
        let next = tokio::select! {
            biased;
            next = outgoing.recv() => next,
            () = inner.reached(Phase::Closing) => {
                // Waiting senders get an error; accepted data is still written.
                outgoing.close();
                outgoing.recv().await
            }
        };
        let Some((data, done)) = next else { return End::Ours };
        if let Err(error) = wire.write(&data).await {
            return End::Failed(error);
        }
        // The sender may have been cancelled.
        let _ = done.send(());
    }
}

/// Returns true if a pipe itself has callbacks, relays or queues.
pub(crate) fn has_outlets(inner: &Inner) -> bool {
    let outlets = sync::lock(&inner.state).outlets();
    outlets.pushes || !outlets.queues.is_empty()
}
