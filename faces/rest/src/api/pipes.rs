//! Pipes and their messages.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Presence, Query, Segments, describe, hand_over, whole, whole_json};
use super::{Api, json, nothing};
use crate::pipe::{open as open_pipe, open_port, parse_name, parse_target};
use crate::problem::{Kind, Problem};

type Answer = Result<Response<Body>, Problem>;

pub(super) async fn list(State(api): State<Api>, query: Query) -> Answer {
    query.only(&[])?;
    let all = api.pipes.all().iter().map(|pipe| pipe.describe()).collect();
    Ok(json(StatusCode::OK, &Value::Array(all)))
}

/// The pipe that a request asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    /// The destination.
    to: Option<String>,
    /// A UDP port that takes datagrams from all members.
    udp_port: Option<u16>,
}

pub(super) async fn open(State(api): State<Api>, query: Query, fields: HeaderMap, body: Body) -> Answer {
    query.only(&[])?;
    let wanted: Wanted = whole_json(&fields, body).await?;
    let name = parse_name(&wanted.name)?;
    let pipe = match (&wanted.to, wanted.udp_port) {
        (Some(to), None) => {
            let target = parse_target(to)?;
            let reserved = api.pipes.reserve(&name)?;
            api.unless_ending(open_pipe(&api.overlay, reserved, &target, api.timeout)).await?
        }
        (None, Some(port)) => open_port(&api.overlay, api.pipes.reserve(&name)?, port).await?,
        _ => return Err(Kind::BadRequest.because("give either `to` or `udp_port`")),
    };
    let mut response = json(StatusCode::CREATED, &pipe.describe());
    let place = HeaderValue::try_from(format!("/v1/pipes/{name}"));
    response.headers_mut().insert(LOCATION, place.expect("a name has nothing that a field cannot have"));
    Ok(response)
}

pub(super) async fn info(State(api): State<Api>, Segments(name): Segments<String>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(json(StatusCode::OK, &api.pipes.find(&name)?.describe()))
}

pub(super) async fn close(State(api): State<Api>, Segments(name): Segments<String>, query: Query) -> Answer {
    let reset = query.only(&["reset"])?.flag("reset")?;
    api.pipes.remove(&name)?.close(reset).await;
    Ok(nothing())
}

pub(super) async fn receive(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    presence: Presence,
    query: Query,
) -> Answer {
    let query = query.only(&["timeout", "subscription", "keep"])?;
    let (queue, deadline) = (query.subscription()?, query.deadline()?);
    let pipe = api.pipes.find(&name)?;
    let mut response = if query.flag("keep")? {
        let message = api.unless_ending(pipe.peek(&queue, Some(deadline))).await?;
        message.map(|message| {
            let mut response = super::text(StatusCode::OK, OCTETS, message.data);
            describe(response.headers_mut(), message.number, message.from);
            response
        })
    } else {
        let taken = api.unless_ending(pipe.take(&queue, Some(deadline))).await?;
        taken.map(|taken| hand_over(&presence, OCTETS, taken, Clone::clone)).transpose()?
    }
    .unwrap_or_else(nothing);
    let dropped = HeaderValue::from(pipe.dropped(&queue));
    response.headers_mut().insert(HeaderName::from_static("peersock-dropped"), dropped);
    Ok(response)
}

/// The content type of messages, whose contents are unknown.
pub(super) const OCTETS: &str = "application/octet-stream";

pub(super) async fn send(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    query: Query,
    fields: HeaderMap,
    body: Body,
) -> Answer {
    let to = query.only(&["to"])?.destination(&api)?;
    let pipe = api.pipes.find(&name)?;
    let data = whole(&fields, body).await?;
    let sent = pipe.send(data, to).await?;
    Ok(json(StatusCode::OK, &json!({"name": name, "sent": sent})))
}

pub(super) async fn remove(
    State(api): State<Api>,
    Segments((name, number)): Segments<(String, u64)>,
    query: Query,
) -> Answer {
    let queue = query.only(&["subscription"])?.subscription()?;
    api.pipes.find(&name)?.remove(&queue, number)?;
    Ok(nothing())
}

/// The subscription that a request asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedMessages {
    name: String,
    pattern: String,
}

/// Returns true if a body opens a pipe, and true if it opens a subscription.
pub(super) fn understands(body: &[u8]) -> [bool; 2] {
    [serde_json::from_slice::<Wanted>(body).is_ok(), serde_json::from_slice::<WantedMessages>(body).is_ok()]
}

pub(super) async fn subscribe(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    query: Query,
    fields: HeaderMap,
    body: Body,
) -> Answer {
    query.only(&[])?;
    let pipe = api.pipes.find(&name)?;
    let wanted: WantedMessages = whole_json(&fields, body).await?;
    pipe.subscribe(&parse_name(&wanted.name)?, &wanted.pattern)?;
    Ok(json(StatusCode::CREATED, &json!({"pipe": name, "name": wanted.name, "pattern": wanted.pattern})))
}

pub(super) async fn unsubscribe(
    State(api): State<Api>,
    Segments((name, subscription)): Segments<(String, String)>,
    query: Query,
) -> Answer {
    query.only(&[])?;
    api.pipes.find(&name)?.unsubscribe(&subscription)?;
    Ok(nothing())
}
