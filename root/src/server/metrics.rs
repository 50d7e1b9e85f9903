//! `/metrics` in the text format of Prometheus, and `/health`.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use peersock_streams::ServerHandle;
use tokio::net::TcpListener;

use super::Gauges;

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
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text(&gauges))
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
        ("connections", "Stream connections", connections as u64),
        ("draining", "Whether the root is about to end", gauges.draining.load(Ordering::Relaxed)),
    ];
    let mut text = String::new();
    for (name, help, value) in now {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "# HELP peersock_root_{name} {help}\n# TYPE peersock_root_{name} gauge\npeersock_root_{name} {value}"
        );
    }
    let directory = gauges.directory.get();
    if let Some(shared) = directory {
        let value = u64::from(shared.is_there.load(Ordering::Relaxed));
        let _ = writeln!(
            text,
            "# HELP peersock_root_directory Whether the shared directory is there\n# TYPE peersock_root_directory gauge\npeersock_root_directory {value}"
        );
    }
    let mut counters = |prefix: &str, values: Vec<(&'static str, u64)>| {
        for (name, value) in values {
            let name = format!("peersock_root_{prefix}{name}_total");
            let _ = writeln!(text, "# TYPE {name} counter\n{name} {value}");
        }
    };
    counters("", gauges.counters.snapshot());
    counters("", gauges.traffic.snapshot());
    if let Some(shared) = directory {
        counters("", shared.traffic.snapshot());
    }
    if let Some(streams) = &gauges.streams {
        counters("streams_", streams.counters().snapshot());
        counters("streams_", streams.traffic().snapshot());
    }
    text
}

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
            assert!(text.contains(&format!("# TYPE {name} ")), "{line}");
        }
    }
}
