//! `/metrics` in the text format of Prometheus, and `/health`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use peersock_primitives::prometheus::{CONTENT_TYPE, Text};
use peersock_streams::{ServerCounters, ServerHandle};
use tokio::net::TcpListener;

use super::{DirectoryTraffic, Gauges, Traffic};
use crate::Counters;

/// Serves until `ended` is ready.
pub(super) async fn serve(
    listener: TcpListener,
    gauges: Arc<Gauges>,
    ended: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router =
        Router::new().route("/metrics", get(metrics)).route("/health", get(health)).with_state(gauges);
    axum::serve(listener, router).with_graceful_shutdown(ended).await
}

async fn metrics(State(gauges): State<Arc<Gauges>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text(&gauges))
}

/// Load balancers take a root that drains out of their rotation.
async fn health(State(gauges): State<Arc<Gauges>>) -> impl IntoResponse {
    match gauges.draining.load(Ordering::Relaxed) {
        0 => (StatusCode::OK, "ok\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

fn text(gauges: &Gauges) -> String {
    let connections = gauges.streams.as_ref().map_or(0, ServerHandle::connections);
    let now = [
        ("nodes", "Nodes that have a session or are registered", gauges.nodes.load(Ordering::Relaxed)),
        ("registered", "Nodes that are registered", gauges.registered.load(Ordering::Relaxed)),
        ("nicknames", "Nicknames that nodes have", gauges.nicknames.load(Ordering::Relaxed)),
        ("connections", "Stream connections", connections as u64),
        ("draining", "Whether the root is about to end", gauges.draining.load(Ordering::Relaxed)),
    ];
    let mut text = Text::default();
    for (name, help, value) in now {
        text.gauge(&format!("peersock_root_{name}"), help).number(&[], value);
    }
    let directory = gauges.directory.get();
    if let Some(shared) = directory {
        let is_there = shared.is_there.load(Ordering::Relaxed);
        text.gauge("peersock_root_directory", "Whether the shared directory is there").number(&[], is_there);
    }
    let mut counters = |prefix: &str, values: Values, descriptions: Descriptions| {
        for ((name, value), (_, help)) in values.into_iter().zip(descriptions) {
            text.counter(&format!("peersock_root_{prefix}{name}_total"), help).number(&[], value);
        }
    };
    counters("", gauges.counters.snapshot(), Counters::descriptions());
    counters("", gauges.traffic.snapshot(), Traffic::descriptions());
    if let Some(shared) = directory {
        counters("", shared.traffic.snapshot(), DirectoryTraffic::descriptions());
    }
    if let Some(streams) = &gauges.streams {
        counters("streams_", streams.counters().snapshot(), ServerCounters::descriptions());
        counters("streams_", streams.traffic().snapshot(), peersock_streams::Counters::descriptions());
    }
    text.finish()
}

/// Counters by name, and what they count, both in the order of declaration.
type Values = Vec<(&'static str, u64)>;
type Descriptions = Vec<(&'static str, &'static str)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_a_line_with_its_type() {
        let gauges = Gauges::default();
        gauges.counters.relayed.add(7);
        gauges.nodes.store(3, Ordering::Relaxed);
        let text = text(&gauges);
        assert!(text.contains("\npeersock_root_relayed_total 7\n"), "{text}");
        assert!(text.contains("# TYPE peersock_root_nodes gauge\npeersock_root_nodes 3\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.split_once(' ').expect("a name and a value");
            assert!(name.starts_with("peersock_root_") && value.parse::<u64>().is_ok(), "{line}");
            for word in ["HELP", "TYPE"] {
                assert!(text.contains(&format!("# {word} {name} ")), "{line}");
            }
        }
    }
}
