//! HTTP service of `/metrics` in the text format of Prometheus, and of `/health`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use peersock_overlay::load::prefix_of;
use peersock_primitives::admission::{Admission, Places};
use peersock_primitives::prometheus::{CONTENT_TYPE, Text};
use peersock_streams::{ServerCounters, ServerHandle};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{DirectoryTraffic, Gauges, Traffic};
use crate::Counters;

/// Limits of connections, in all and of one source prefix; an eighth is reserved for programs of this
/// machine.
const PLACES: Places = Places { all: 64, of_sources: 56, of_one: 16, unproven: 64 };

/// Timeout of a connection, which gets one answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after an error of accept(2), which usually means that file descriptors ran out.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped. Clients are never proven here, so a new connection always evicts the oldest
/// one of the source with the most.
pub(super) async fn serve(listener: TcpListener, gauges: Arc<Gauges>) -> io::Result<()> {
    let router =
        Router::new().route("/metrics", get(metrics)).route("/health", get(health)).with_state(gauges);
    let admission = Admission::new(PLACES);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection to the metrics can be accepted");
                sleep(ACCEPT_ERROR_PAUSE).await;
                continue;
            }
        };
        let remote = remote.ip().to_canonical();
        let source = (!remote.is_loopback()).then(|| prefix_of(remote));
        // Admission succeeds here, because all connections are unproven and can be evicted.
        let Ok(permit) = admission.admit(source) else { continue };
        let router = router.clone();
        connections.spawn(async move {
            let answering = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
            tokio::select! {
                // The result is ignored, because the client sees how its request went.
                _ = timeout(CONNECTION_TIMEOUT, answering) => {}
                () = permit.standing().evicted() => {}
            }
        });
    }
}

async fn metrics(State(gauges): State<Arc<Gauges>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text(&gauges))
}

/// Answers health checks: load balancers remove a draining root from their rotation.
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

/// Values of counters by name, and their descriptions, both in the order of declaration.
type Values = Vec<(&'static str, u64)>;
type Descriptions = Vec<(&'static str, &'static str)>;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    /// Longer than anything takes.
    const HANG_TIMEOUT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn who_says_nothing_keeps_out_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let serving = tokio::spawn(serve(listener, Arc::default()));
        let mut held = Vec::new();
        for turn in 0..2 * PLACES.all {
            let mut silent = TcpStream::connect(at).await.expect("it listens");
            silent.write_all([&b""[..], b"GET /metrics HT"][turn % 2]).await.expect("it reads");
            held.push(silent);
        }
        let mut asking = TcpStream::connect(at).await.expect("it listens");
        asking.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it reads");
        let mut answer = String::new();
        let read = timeout(HANG_TIMEOUT, asking.read_to_string(&mut answer)).await.expect("in time");
        read.expect("a whole answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
        // Evicted connections end first, the others at their timeout.
        for silent in &mut held {
            let _ = timeout(HANG_TIMEOUT, silent.read_to_end(&mut Vec::new())).await.expect("an end");
        }
        serving.abort();
    }

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
