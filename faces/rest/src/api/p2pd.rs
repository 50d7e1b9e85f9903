//! The routes of P2PD, with its answers: JSON with a number `error`, which is 0 on success.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::{IntoResponse, Response as AxumResponse};
use bytes::Bytes;
use peersock_proxy::Protocol;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::extract::{Presence, Query, Segments, deadline, hand_over, whole};
use super::pipes::OCTETS;
use super::{Api, json, node, streams};
use crate::pipe::{ALL_MESSAGES, Pipe, open as open_pipe, parse_name, parse_target};
use crate::problem::{Kind, Problem};

/// The author in P2PD's form of the version.
const AUTHOR: &str = "the authors of peersock";

/// Error number that is not a fault of the request.
const TIMED_OUT: u8 = 5;

/// A problem in P2PD's form.
pub(super) struct Failed(Problem);

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Failed {
        Failed(problem)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> AxumResponse {
        self.0.into_p2pd()
    }
}

type Answer = Result<Response<Body>, Failed>;
type Path<T> = Result<Segments<T>, Problem>;
type Asked = Result<Query, Problem>;

fn done(mut value: Value) -> Response<Body> {
    value["error"] = 0.into();
    json(StatusCode::OK, &value)
}

/// Returns an address in Python's form: a host and a port.
fn pair(at: SocketAddr) -> Value {
    json!([at.ip().to_string(), at.port()])
}

pub(super) async fn version(query: Asked) -> Answer {
    query?.only(&[])?;
    Ok(done(json!({"title": "peersock", "author": AUTHOR, "version": env!("CARGO_PKG_VERSION")})))
}

pub(super) async fn interfaces(query: Asked) -> Answer {
    query?.only(&[])?;
    Ok(done(json!({"ifs": node::load().await?})))
}

/// Returns the node's address in its first network. P2PD's address contains all that is known of a node; here
/// a member needs only this and a port.
pub(super) async fn address(State(api): State<Api>, query: Asked) -> Answer {
    query?.only(&[])?;
    let addresses = api.overlay.addresses();
    let first = addresses.first().ok_or_else(|| Kind::Down.because("the node is in no network"))?;
    Ok(done(json!({"addr": first.to_string()})))
}

pub(super) async fn open(State(api): State<Api>, path: Path<(String, String)>, query: Asked) -> Answer {
    query?.only(&[])?;
    let (name, address) = path?.0;
    let name = parse_name(&name)?;
    let target = parse_target(&address)?;
    let reserved = api.pipes.reserve(&name)?;
    let pipe = api.unless_ending(open_pipe(&api.overlay, reserved, &target, api.timeout)).await?;
    Ok(done(describe(&pipe)))
}

pub(super) async fn info(State(api): State<Api>, path: Path<String>, query: Asked) -> Answer {
    query?.only(&[])?;
    Ok(done(describe(&*api.pipes.find(&path?.0)?)))
}

fn describe(pipe: &Pipe) -> Value {
    json!({
        "name": &pipe.name,
        "strategy": "overlay",
        "proto": pipe.protocol().to_string(),
        "laddr": pair(pipe.local),
        "raddr": pipe.remote.map(pair),
    })
}

pub(super) async fn send(State(api): State<Api>, path: Path<(String, String)>, query: Asked) -> Answer {
    query?.only(&[])?;
    let (name, text) = path?.0;
    let sent = api.pipes.find(&name)?.send(text.into(), None).await?;
    Ok(done(json!({"name": name, "sent": sent})))
}

pub(super) async fn send_binary(
    State(api): State<Api>,
    path: Path<String>,
    query: Asked,
    fields: HeaderMap,
    body: Body,
) -> Answer {
    query?.only(&[])?;
    let name = path?.0;
    let pipe = api.pipes.find(&name)?;
    let sent = match pipe.protocol() {
        Protocol::Tcp => streams::pump(&pipe, body, false).await?,
        Protocol::Udp => pipe.send(whole(&fields, body).await?, None).await? as u64,
    };
    Ok(done(json!({"name": name, "sent": sent})))
}

pub(super) async fn receive(
    State(api): State<Api>,
    presence: Presence,
    path: Path<String>,
    query: Asked,
) -> Answer {
    query?.only(&[])?;
    take_text(&api, &presence, &path?.0, &Options::parse("")?).await
}

pub(super) async fn receive_of(
    State(api): State<Api>,
    presence: Presence,
    path: Path<(String, String)>,
    query: Asked,
) -> Answer {
    query?.only(&[])?;
    let (name, options) = path?.0;
    take_text(&api, &presence, &name, &Options::parse(&options)?).await
}

async fn take_text(api: &Api, presence: &Presence, name: &str, options: &Options) -> Answer {
    let pipe = api.pipes.find(name)?;
    let taken = api.unless_ending(pipe.take(&options.subscription, Some(options.deadline))).await?;
    let Some(taken) = taken else { return Ok(nothing_came()) };
    let from = taken.message().from;
    let body = |data: &Bytes| {
        let text = String::from_utf8_lossy(data);
        Bytes::from(json!({"client_tup": pair(from), "data": text, "error": 0}).to_string())
    };
    Ok(hand_over(presence, "application/json", taken, body)?)
}

pub(super) async fn receive_binary(
    State(api): State<Api>,
    presence: Presence,
    path: Path<String>,
    query: Asked,
) -> Answer {
    query?.only(&[])?;
    take_binary(&api, &presence, &path?.0, &Options::parse("")?).await
}

pub(super) async fn receive_binary_of(
    State(api): State<Api>,
    presence: Presence,
    path: Path<(String, String)>,
    query: Asked,
) -> Answer {
    query?.only(&[])?;
    let (name, options) = path?.0;
    take_binary(&api, &presence, &name, &Options::parse(&options)?).await
}

async fn take_binary(api: &Api, presence: &Presence, name: &str, options: &Options) -> Answer {
    let pipe = api.pipes.find(name)?;
    let taken = api.unless_ending(pipe.take(&options.subscription, Some(options.deadline))).await?;
    let Some(taken) = taken else { return Ok(nothing_came()) };
    Ok(hand_over(presence, OCTETS, taken, Clone::clone)?)
}

/// Answers a valid request for which there was no message.
fn nothing_came() -> Response<Body> {
    json(StatusCode::OK, &json!({"error": TIMED_OUT, "msg": "recv timeout"}))
}

/// Options after the name where messages are taken: `name/SUBSCRIPTION`, `timeout/SECONDS`.
#[derive(Debug)]
struct Options {
    subscription: String,
    deadline: Instant,
}

impl Options {
    fn parse(text: &str) -> Result<Options, Problem> {
        let (mut subscription, mut timeout) = (None, None);
        let mut parts = text.split('/').filter(|part| !part.is_empty());
        while let Some(key) = parts.next() {
            let value = parts.next();
            let place = match key {
                "name" => &mut subscription,
                "timeout" => &mut timeout,
                _ => return Err(unknown(key)),
            };
            if place.is_some() {
                return Err(unknown(key));
            }
            *place = Some(value.ok_or_else(|| unknown(key))?);
        }
        let subscription = subscription.map_or_else(|| Ok(ALL_MESSAGES.to_owned()), parse_name)?;
        Ok(Options { subscription, deadline: deadline(timeout)? })
    }
}

/// Returns the subscription in the options, for the fuzz targets.
pub(crate) fn subscription_in(options: &str) -> Option<String> {
    Options::parse(options).ok().map(|options| options.subscription)
}

fn unknown(key: &str) -> Problem {
    Kind::BadRequest.because(format_args!(
        "`{key:.64}` makes no sense there: behind the name comes /name/SUBSCRIPTION, /timeout/SECONDS or both"
    ))
}

pub(super) async fn subscribe(
    State(api): State<Api>,
    path: Path<(String, String, String)>,
    query: Asked,
) -> Answer {
    query?.only(&[])?;
    let (name, subscription, pattern) = path?.0;
    api.pipes.find(&name)?.subscribe(&parse_name(&subscription)?, &pattern)?;
    Ok(done(json!({"name": name, "sub": [pattern, null]})))
}

pub(super) async fn unsubscribe(
    State(api): State<Api>,
    path: Path<(String, String)>,
    query: Asked,
) -> Answer {
    query?.only(&[])?;
    let (name, subscription) = path?.0;
    api.pipes.find(&name)?.unsubscribe(&subscription)?;
    Ok(done(json!({"name": name, "unsub": subscription})))
}

pub(super) async fn close(State(api): State<Api>, path: Path<String>, query: Asked) -> Answer {
    query?.only(&[])?;
    let name = path?.0;
    api.pipes.remove(&name)?.close(false).await;
    Ok(done(json!({"closed": name})))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn options_come_in_pairs() {
        for (text, subscription) in
            [("", ""), ("name/sub_name", "sub_name"), ("timeout/2/name/a", "a"), ("name/a/timeout/0.5/", "a")]
        {
            assert_eq!(Options::parse(text).expect(text).subscription, subscription);
        }
        for text in
            ["name", "name/", "a/b", "name/a/name/b", "timeout/-1", "timeout/x", "timeout/NaN", "name/.."]
        {
            assert_eq!(
                Options::parse(text).map_err(|problem| problem.kind()).err(),
                Some(Kind::BadRequest),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_options_are_too_strange(text in "(name|timeout|[0-9.]{0,3}|/|\\PC){0,12}") {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let _ = runtime.expect("a runtime").block_on(async { Options::parse(&text) });
        }
    }
}
