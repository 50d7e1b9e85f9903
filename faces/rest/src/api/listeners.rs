//! Ports at which members connect.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::extract::{Presence, Query, Segments, whole_json};
use super::{Api, json, nothing};
use crate::pipe::parse_name;
use crate::problem::Problem;

type Answer = Result<Response<Body>, Problem>;

/// The listener that a request asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    port: u16,
}

/// Returns true if a body opens a listener.
pub(super) fn understands(body: &[u8]) -> bool {
    serde_json::from_slice::<Wanted>(body).is_ok()
}

pub(super) async fn list(State(api): State<Api>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(json(StatusCode::OK, &Value::Array(api.listeners.describe())))
}

pub(super) async fn open(State(api): State<Api>, query: Query, fields: HeaderMap, body: Body) -> Answer {
    query.only(&[])?;
    let wanted: Wanted = whole_json(&fields, body).await?;
    let name = parse_name(&wanted.name)?;
    let listener = api.listeners.open(&api.overlay, &api.pipes, &name, wanted.port).await?;
    Ok(json(StatusCode::CREATED, &listener.describe()))
}

pub(super) async fn close(State(api): State<Api>, Segments(name): Segments<String>, query: Query) -> Answer {
    query.only(&[])?;
    api.listeners.close(&name)?;
    Ok(nothing())
}

pub(super) async fn next(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    presence: Presence,
    query: Query,
) -> Answer {
    let deadline = query.only(&["timeout"])?.deadline()?;
    let listener = api.listeners.find(&name)?;
    let Some(pipe) = api.unless_ending(listener.next(deadline)).await? else { return Ok(nothing()) };
    if let Err(gone) = presence.check() {
        listener.put_back(pipe);
        return Err(gone);
    }
    Ok(json(StatusCode::OK, &pipe.describe()))
}
