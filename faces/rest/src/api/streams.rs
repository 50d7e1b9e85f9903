//! Pipes as streams: bodies of unknown length, and raw relays.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use peersock_proxy::serving::Link;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::extract::{Query, Segments, broken_body};
use super::pipes::OCTETS;
use super::{Api, json, nothing, text};
use crate::limits::MAX_STREAM_MESSAGE_BYTES;
use crate::pipe::{Pipe, Reading};
use crate::problem::{Kind, Problem};

type Answer = Result<Response<Body>, Problem>;

/// Streams all received data, to the end.
pub(super) async fn read(State(api): State<Api>, Segments(name): Segments<String>, query: Query) -> Answer {
    query.only(&[])?;
    let pipe = api.pipes.find(&name)?;
    pipe.check_stream()?;
    let reading = Reading::begin(&pipe)?;
    let pieces = stream::try_unfold(reading, async |reading| match reading.next().await {
        Ok(Some(taken)) => Ok(Some((taken.done(), reading))),
        Ok(None) => Ok(None),
        // The body breaks off, so that the client does not take its part for complete.
        Err(problem) => Err(io::Error::other(problem.to_string())),
    });
    Ok(text(StatusCode::OK, OCTETS, Body::from_stream(pieces)))
}

/// Sends a body as it arrives.
pub(super) async fn write(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    query: Query,
    body: Body,
) -> Answer {
    let end = query.only(&["end"])?.flag("end")?;
    let pipe = api.pipes.find(&name)?;
    pipe.check_stream()?;
    let sent = pump(&pipe, body, end).await?;
    Ok(json(StatusCode::OK, &json!({"name": name, "sent": sent})))
}

/// Sends the pieces of a body without interleaving other data; then ends the stream, if `end` is set.
pub(super) async fn pump(pipe: &Pipe, mut body: Body, end: bool) -> Result<u64, Problem> {
    let _turn = pipe.turn().await;
    let mut sent = 0;
    pipe.begin();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| broken_body(&error))?.into_data() {
            sent += pipe.send_here(&data, None).await? as u64;
        }
    }
    pipe.whole();
    // Only after the whole body has arrived.
    if end {
        pipe.finish().await?;
    }
    Ok(sent)
}

/// Tells the other end that no more data follows.
pub(super) async fn finish(State(api): State<Api>, Segments(name): Segments<String>, query: Query) -> Answer {
    query.only(&[])?;
    let pipe = api.pipes.find(&name)?;
    pipe.check_stream()?;
    // Wait for the turn, because the end must not fall into the middle of a body.
    let _turn = pipe.turn().await;
    pipe.finish().await?;
    Ok(nothing())
}

/// Turns the client's connection into the pipe. The pipe ends with the connection.
pub(super) async fn tunnel(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    query: Query,
    request: Request<Body>,
) -> Answer {
    query.only(&[])?;
    let pipe = api.pipes.find(&name)?;
    pipe.check_stream()?;
    if !asks_for(request.headers(), "tcp") {
        return Err(Kind::UpgradeNeeded.because(
            "a tunnel needs the fields `Connection: Upgrade` and `Upgrade: tcp`; it begins behind the 101",
        ));
    }
    let reading = Reading::begin(&pipe)?;
    tokio::spawn(async move {
        let stop = api.stop.clone();
        let relayed = stop.unless_cut(async {
            // The client may take its time, because only its own connection waits.
            let link = upgraded(request).await.ok_or(Ended::Client)?;
            relay(link, &reading).await
        });
        let is_whole = matches!(relayed.await, Ok(Ok(())));
        api.pipes.forget(&pipe);
        // Reset, because the peer must not take truncated data for complete.
        pipe.close(!is_whole).await;
    });
    Ok(switch("tcp"))
}

/// Returns true if a request asks to switch to the protocol.
pub(super) fn asks_for(fields: &HeaderMap, protocol: &str) -> bool {
    let has = |name, wanted: &str| {
        let values = fields.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, protocol)
}

/// Makes the answer after which another protocol begins.
pub(super) fn switch(protocol: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}

/// Returns the client's connection after the switch, with the bytes read ahead.
pub(super) async fn upgraded(request: Request<Body>) -> Option<Link> {
    let upgraded = hyper::upgrade::on(request).await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Link>>().ok()?;
    let mut link = parts.io.into_inner();
    link.put_back(&parts.read_buf);
    Some(link)
}

/// The side at fault for a relay that has not come to its end.
#[derive(Debug)]
enum Ended {
    Client,
    Pipe,
}

/// Relays until both directions have ended. A client's connection that is dropped earlier is reset.
async fn relay(link: Link, reading: &Reading) -> Result<(), Ended> {
    let (mut from, mut to) = tokio::io::split(link);
    let pipe: &Arc<Pipe> = reading.pipe();
    let there = async {
        // A stream without bounds: other senders wait until it has ended.
        let _turn = pipe.turn().await;
        pipe.begin();
        let mut piece = vec![0; MAX_STREAM_MESSAGE_BYTES];
        loop {
            match from.read(&mut piece).await.map_err(|_| Ended::Client)? {
                0 => {
                    pipe.whole();
                    return pipe.finish().await.map_err(|_| Ended::Pipe);
                }
                count => pipe.send_here(&piece[..count], None).await.map_err(|_| Ended::Pipe)?,
            };
        }
    };
    let back = async {
        while let Some(taken) = reading.next().await.map_err(|_| Ended::Pipe)? {
            to.write_all(&taken.message().data).await.map_err(|_| Ended::Client)?;
            taken.done();
        }
        to.shutdown().await.map_err(|_| Ended::Client)
    };
    let ended = tokio::try_join!(there, back).map(|_| ());
    if let Err(whose) = &ended {
        tracing::debug!(is_client = matches!(whose, Ended::Client), "a tunnel has broken");
    }
    ended
}
