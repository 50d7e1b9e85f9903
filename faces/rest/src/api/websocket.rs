//! A pipe as a WebSocket (RFC 6455), with one WebSocket message per message.

use std::pin::pin;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
};
use axum::http::{HeaderMap, HeaderValue, Request, Response};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use peersock_proxy::Protocol;
use peersock_proxy::serving::{Link, Stop};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::Api;
use super::extract::{Query, Segments};
use super::progress::{Counted, Progress};
use super::streams::{asks_for, switch, upgraded};
use crate::access::protocols;
use crate::limits::{MAX_BODY_BYTES, MAX_WAITING_PONG_BYTES};
use crate::pipe::{Pipe, Reading};
use crate::problem::{Kind, Problem};

/// The protocol that is chosen if the client offers it, because a browser that offers protocols requires a
/// choice.
const SUBPROTOCOL: &str = "peersock";

/// Time for a client to close, and limit of the time in which it takes none of the data still being sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time after which a client that takes no answers to its pings is given up, and the pause between pings that
/// are still read meanwhile.
const PONG_TIMEOUT: Duration = Duration::from_secs(5);
const PING_READ_PAUSE: Duration = Duration::from_millis(10);

/// Longest reason in a close frame in bytes (RFC 6455, 5.5).
const MAX_REASON_BYTES: usize = 123;

/// Overhead of the shortest frame in bytes (RFC 6455, 5.2).
const MIN_FRAME_BYTES: usize = 2;

type Socket<T> = WebSocketStream<Counted<T>>;

pub(super) async fn open(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    query: Query,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    query.only(&[])?;
    let pipe = api.pipes.find(&name)?;
    let fields = request.headers();
    let key = key(fields)?;
    if pipe.protocol() == Protocol::Udp && pipe.remote.is_none() {
        return Err(Kind::WrongProtocol.because(format_args!(
            "pipe {name} leads nowhere by itself, and a WebSocket cannot say where to: use its messages"
        )));
    }
    let mut response = switch("websocket");
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept.expect("it is Base64"));
    if protocols(fields).any(|offered| offered == SUBPROTOCOL) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    let reading = Reading::begin(&pipe)?;
    tokio::spawn(async move {
        let stop = api.stop.clone();
        let served = async {
            if let Some(link) = upgraded(request).await {
                serve(link, &reading, &api.stop).await;
            }
        };
        // Dropping resets the connection; the pipe stays, and messages not handed over return to its queue.
        let _ = stop.unless_cut(served).await;
    });
    Ok(response)
}

/// Checks a WebSocket request and returns its key.
fn key(fields: &HeaderMap) -> Result<String, Problem> {
    let text = |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let key = text(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty());
    match (asks_for(fields, "websocket"), text(SEC_WEBSOCKET_VERSION), key) {
        (true, Some("13"), Some(key)) => Ok(key.to_owned()),
        _ => {
            Err(Kind::UpgradeNeeded
                .because("this is a WebSocket of version 13: open it with a client for those"))
        }
    }
}

/// Makes the server's end of a WebSocket, after its handshake.
async fn accept<T: AsyncRead + AsyncWrite + Unpin>(link: T) -> (Socket<T>, Progress) {
    let bound = Some(MAX_BODY_BYTES);
    let config = WebSocketConfig::default().max_message_size(bound).max_frame_size(bound);
    // One message, one write buffer, and the pending answers to pings.
    let most = config.write_buffer_size + MAX_BODY_BYTES + 2 * MAX_WAITING_PONG_BYTES;
    let config = config.max_write_buffer_size(most);
    let link = Counted::new(link);
    let progress = link.progress();
    (WebSocketStream::from_raw_socket(link, Role::Server, Some(config)).await, progress)
}

async fn serve(link: Link, reading: &Reading, stop: &Stop) {
    let (socket, progress) = accept(link).await;
    let (mut to, mut from) = socket.split();
    let pipe = reading.pipe();
    {
        let mut there = pin!(there(&mut from, pipe, &progress));
        let (farewell, is_there) = tokio::select! {
            farewell = &mut there => (farewell, false),
            farewell = back(&mut to, reading) => (farewell, true),
            () = stop.draining() => (Some((CloseCode::Away, "the server ends".to_owned())), true),
        };
        if let Some(farewell) = farewell
            && !tell(&mut to, farewell, &progress).await
        {
            return;
        }
        // Data that the client has sent before it knows of the end still goes to the other end, which may
        // take it slowly.
        let mut sent = None;
        while is_there && sent != Some(pipe.sent()) {
            sent = Some(pipe.sent());
            if tokio::time::timeout(CLOSE_TIMEOUT, &mut there).await.is_ok() {
                break;
            }
        }
    }
    let closed = async { while let Some(Ok(_)) = from.next().await {} };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
    if let Ok(socket) = to.reunite(from) {
        let _ = socket.into_inner().shutdown().await;
    }
}

/// Sends the close frame after all pending data. Returns false if the connection has ended, or the client
/// takes none of that data.
async fn tell(
    to: &mut SplitSink<Socket<Link>, Message>,
    farewell: (CloseCode, String),
    progress: &Progress,
) -> bool {
    let mut told = pin!(to.send(close(farewell)));
    loop {
        let taken = progress.taken();
        match tokio::time::timeout(CLOSE_TIMEOUT, &mut told).await {
            Ok(told) => return told.is_ok(),
            Err(_) if progress.taken() == taken => return false,
            Err(_) => {}
        }
    }
}

/// Makes the close frame of a WebSocket.
fn close((code, reason): (CloseCode, String)) -> Message {
    let reason = reason.chars().scan(0, |length, c| {
        *length += c.len_utf8();
        (*length <= MAX_REASON_BYTES).then_some(c)
    });
    Message::Close(Some(CloseFrame { code, reason: reason.collect::<String>().into() }))
}

/// The close code and reason of a WebSocket.
type Farewell = Option<(CloseCode, String)>;

/// Forwards from the client to the pipe. Returns `None` if the client has closed.
async fn there(
    from: &mut SplitStream<Socket<Link>>,
    pipe: &std::sync::Arc<Pipe>,
    progress: &Progress,
) -> Farewell {
    let mut pings = Pings::new(progress);
    loop {
        let data = match message(from, &mut pings, progress).await {
            Ok(data) => data,
            Err(farewell) => return farewell,
        };
        if let Err(problem) = pipe.send(data, None).await {
            return Some((CloseCode::Error, problem.to_string()));
        }
    }
}

/// The pings that arrived since the client last took data, and the time since which there are too many.
struct Pings {
    bytes: usize,
    taken: u64,
    since: Option<Instant>,
}

impl Pings {
    fn new(progress: &Progress) -> Pings {
        Pings { bytes: 0, taken: progress.taken(), since: None }
    }
}

/// Returns the client's next message, or the end of the WebSocket.
async fn message<T: AsyncRead + AsyncWrite + Unpin>(
    from: &mut SplitStream<Socket<T>>,
    pings: &mut Pings,
    progress: &Progress,
) -> Result<Bytes, Farewell> {
    while let Some(message) = from.next().await {
        match message {
            Ok(Message::Binary(data)) => return Ok(data),
            Ok(Message::Text(text)) => return Ok(text.into()),
            Ok(Message::Close(_)) => return Err(None),
            Ok(Message::Ping(data)) => {
                if progress.taken() != pings.taken {
                    *pings = Pings::new(progress);
                }
                pings.bytes += data.len() + MIN_FRAME_BYTES;
                if pings.bytes > MAX_WAITING_PONG_BYTES {
                    if pings.since.get_or_insert_with(Instant::now).elapsed() >= PONG_TIMEOUT {
                        return Err(Some((CloseCode::Policy, "no answer to a ping is taken".to_owned())));
                    }
                    // Each further ping that is read retries sending the answers.
                    tokio::time::sleep(PING_READ_PAUSE).await;
                }
            }
            Ok(_) => {}
            Err(error) => return Err(Some((CloseCode::Size, error.to_string()))),
        }
    }
    Err(None)
}

/// Returns the messages in a client's bytes after the handshake, for the fuzz targets.
pub(crate) async fn messages_in(sent: &[u8]) -> Vec<Bytes> {
    let (mut client, server) = tokio::io::duplex(sent.len() + (64 << 10));
    let _ = client.write_all(sent).await;
    let _ = client.shutdown().await;
    let (socket, progress) = accept(server).await;
    let (_to, mut from) = socket.split();
    let (mut pings, mut all) = (Pings::new(&progress), Vec::new());
    while let Ok(data) = message(&mut from, &mut pings, &progress).await {
        all.push(data);
    }
    all
}

/// Forwards from the pipe to the client.
async fn back(to: &mut SplitSink<Socket<Link>, Message>, reading: &Reading) -> Farewell {
    loop {
        match reading.next().await {
            Ok(Some(taken)) => {
                if to.send(Message::Binary(taken.message().data.clone())).await.is_err() {
                    return None;
                }
                taken.done();
            }
            Ok(None) => return Some((CloseCode::Normal, "the other end sends no more".to_owned())),
            Err(problem) => return Some((CloseCode::Error, problem.detail().to_owned())),
        }
    }
}
