//! Memory of an idle flow.

use std::time::Duration;

use peersock_stack::Config;

use super::exchange::Exchange;

const FLOWS: usize = 100_000;

/// Returns the bytes of resident memory per flow with default buffers, including everything needed to find
/// and time it. The results are for new flows, and after an acknowledged message in each direction. Call it
/// before anything else has used memory.
pub(super) fn bytes_per_flow() -> [f64; 2] {
    eprintln!("memory of {FLOWS} idle connections");
    let before = resident();
    let mut exchange = Exchange::new(Config::default(), FLOWS);
    // Both ends of a connection are in this process.
    let per_flow = || resident().saturating_sub(before) as f64 / FLOWS as f64 / 2.0;
    let fresh = per_flow();
    for flow in 0..FLOWS {
        // Slow enough that few messages wait for a delayed acknowledgement at a time, so the queues leave no
        // holes.
        exchange.now += Duration::from_micros(50);
        exchange.ping_pong(flow);
    }
    exchange.now += Duration::from_secs(1);
    exchange.run_due_timers();
    assert!(exchange.flows.iter().all(|(near, far)| near.unacked() == 0 && far.unacked() == 0));
    [fresh, per_flow()]
}

/// Returns the anonymous resident memory of this process, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = own.and_then(|own| own.split_whitespace().next()?.parse::<usize>().ok());
    kilobytes.unwrap_or(0) * 1024
}
