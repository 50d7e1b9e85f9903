//! Live events about peers, as server-sent events.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use peersock::Event;
use peersock_proxy::serving::OverlayEvents;
use serde_json::{Value, json};

use super::extract::Query;
use super::{Api, text};
use crate::limits::EVENTS_KEEPALIVE_INTERVAL;
use crate::problem::Problem;

pub(super) async fn events(State(api): State<Api>, query: Query) -> Result<Response<Body>, Problem> {
    query.only(&[])?;
    let events = api.overlay.events();
    let events = events.map_err(|error| Problem::of_io(&error, "the node has ended"))?;
    // The first line is sent at once: a client that has read it misses no later event.
    let began = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b": events\n\n"))]);
    let later = stream::unfold((api, events), async |(api, mut events)| {
        let text = next(&api, &mut events).await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), (api, events)))
    });
    let all = futures_util::StreamExt::chain(began, later);
    Ok(text(StatusCode::OK, "text/event-stream", Body::from_stream(all)))
}

/// Returns the next event, or a keepalive line; `None` at the end of the node or the server.
async fn next(api: &Api, events: &mut OverlayEvents) -> Option<String> {
    let event = tokio::select! {
        event = events.next() => event?,
        () = tokio::time::sleep(EVENTS_KEEPALIVE_INTERVAL) => {
            return (!events.is_over()).then(|| ": still here\n\n".to_owned());
        }
        () = api.stop.draining() => return None,
    };
    let (name, data) = describe(&event);
    Some(format!("event: {name}\ndata: {data}\n\n"))
}

fn describe(event: &Event) -> (&'static str, Value) {
    match event {
        Event::PeerFound { id } => ("peer-found", json!({"id": id.to_string()})),
        Event::PeerReachable { id, relayed, turn } => {
            ("peer-reachable", json!({"id": id.to_string(), "relayed": relayed, "turn": turn}))
        }
        Event::PathChanged { id, relayed, turn } => {
            ("path-changed", json!({"id": id.to_string(), "relayed": relayed, "turn": turn}))
        }
        Event::PeerLost { id } => ("peer-lost", json!({"id": id.to_string()})),
        Event::PeerUnreachable { id } => ("peer-unreachable", json!({"id": id.to_string()})),
        _ => ("other", json!({})),
    }
}
