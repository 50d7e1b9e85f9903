//! What a flow occupies that has nothing to do.

use std::time::Duration;

use peersock_stack::Config;

use super::exchange::Exchange;

const FLOWS: usize = 100_000;

/// Bytes of resident memory per flow with default buffers, everything included that it takes to find and to
/// time it: of new flows, and after a message in each direction that has been acknowledged. To be called
/// before anything else has used memory.
pub(super) fn bytes_per_flow() -> [f64; 2] {
    eprintln!("memory of {FLOWS} idle connections");
    let before = resident();
    let mut exchange = Exchange::new(Config::default(), FLOWS);
    // Both ends of a connection are in this process.
    let per_flow = || resident().saturating_sub(before) as f64 / FLOWS as f64 / 2.0;
    let fresh = per_flow();
    for flow in 0..FLOWS {
        // So slowly that few messages wait for a delayed acknowledgement at a time: queues leave no holes.
        exchange.now += Duration::from_micros(50);
        exchange.ping_pong(flow);
    }
    exchange.now += Duration::from_secs(1);
    exchange.run_due_timers();
    assert!(exchange.flows.iter().all(|(near, far)| near.unacked() == 0 && far.unacked() == 0));
    [fresh, per_flow()]
}

/// The process's resident memory of its own, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = own.and_then(|own| own.split_whitespace().next()?.parse::<usize>().ok());
    kilobytes.unwrap_or(0) * 1024
}
