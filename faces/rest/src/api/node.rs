//! The state of the node and its peers.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use peersock::Status;
use peersock::interfaces::{list_interfaces, load_interfaces};
use peersock_primitives::blocking;
use serde_json::{Value, json};

use super::extract::Query;
use super::{Api, OPENAPI, json, text};
use crate::problem::{Kind, Problem};

/// Limit of peers with separate numbers in the text for Prometheus, as in `peersock status`.
const MAX_NAMED_PEERS: usize = 50;

type Answer = Result<Response<Body>, Problem>;

pub(super) async fn version(query: Query) -> Answer {
    query.only(&[])?;
    Ok(json(StatusCode::OK, &json!({"name": "peersock", "version": env!("CARGO_PKG_VERSION"), "api": "v1"})))
}

pub(super) async fn openapi(query: Query) -> Answer {
    query.only(&[])?;
    Ok(text(StatusCode::OK, "application/json", OPENAPI))
}

pub(super) async fn node(State(api): State<Api>, query: Query) -> Answer {
    query.only(&[])?;
    let (addresses, status) = (api.overlay.addresses(), state(&api)?);
    Ok(json(
        StatusCode::OK,
        &json!({
            "node_id": status.node_id.to_string(),
            "public_key": &status.public_key,
            "addresses": addresses,
        }),
    ))
}

pub(super) async fn interfaces(query: Query) -> Answer {
    query.only(&[])?;
    Ok(json(StatusCode::OK, &Value::Array(load().await?)))
}

/// Loads the machine's interfaces with local knowledge only; no server is asked.
pub(super) async fn load() -> Result<Vec<Value>, Problem> {
    let loading = blocking(|| load_interfaces(&list_interfaces()?, &[], Duration::ZERO));
    let wrong = |error: &dyn std::fmt::Display| {
        Kind::Internal.because(format_args!("the system does not list its interfaces: {error}"))
    };
    let found = loading.await.map_err(|error| wrong(&error))?.map_err(|error| wrong(&error))?;
    found.iter().map(|one| serde_json::from_str(&one.to_json()).map_err(|error| wrong(&error))).collect()
}

fn state(api: &Api) -> Result<Status, Problem> {
    api.overlay.status().map_err(|error| Problem::of_io(&error, "the node does not tell its state"))
}

/// Returns a part of the node's state, or all of it.
async fn part(api: &Api, part: impl Fn(&mut Value) -> Value) -> Answer {
    let mut status = serde_json::to_value(state(api)?)
        .map_err(|error| Kind::Internal.because(format_args!("the node's state has no text: {error}")))?;
    Ok(json(StatusCode::OK, &part(&mut status)))
}

pub(super) async fn networks(State(api): State<Api>, query: Query) -> Answer {
    query.only(&[])?;
    part(&api, |status| status["networks"].take()).await
}

pub(super) async fn peers(State(api): State<Api>, query: Query) -> Answer {
    query.only(&[])?;
    part(&api, |status| status["peers"].take()).await
}

pub(super) async fn status(State(api): State<Api>, query: Query) -> Answer {
    query.only(&[])?;
    part(&api, Value::take).await
}

pub(super) async fn metrics(State(api): State<Api>, query: Query) -> Answer {
    query.only(&[])?;
    Ok(text(StatusCode::OK, "text/plain; version=0.0.4", state(&api)?.prometheus(MAX_NAMED_PEERS)))
}
