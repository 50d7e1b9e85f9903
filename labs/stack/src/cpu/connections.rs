//! Whole connections, and one at full speed.

use std::time::Duration;

use peersock_stack::{Config, State};

use super::cpu_time;
use super::exchange::{Exchange, answer, send};

/// Returns the CPU time of a connection that moves a message in each direction, from SYN to TIME-WAIT,
/// nanoseconds.
pub(super) fn nanos_per_connection() -> f64 {
    const CONNECTIONS: u32 = 5_000;
    let mut exchange = Exchange::new(Config::default(), 0);
    let listener = exchange.listen(100);
    let began = cpu_time();
    for _ in 0..CONNECTIONS {
        exchange.connect(&listener);
        exchange.now += Duration::from_micros(50);
        exchange.ping_pong(0);
        let Exchange { client, server, now, buf, flows, .. } = &mut exchange;
        for (near, far) in flows.drain(..) {
            near.close(*now);
            send(&near, *now, buf, server);
            answer(*now, buf, server, client);
            client.batch.clear();
            far.close(*now);
            send(&far, *now, buf, client);
            answer(*now, buf, client, server);
            server.batch.clear();
            assert_eq!((near.state(), far.state()), (State::TimeWait, State::Closed));
        }
    }
    ((cpu_time() - began) / CONNECTIONS).as_nanos() as f64
}

/// Returns the rate of one flow with default buffers and uncut super-segments, Gbit/s of CPU time.
pub(super) fn bulk() -> f64 {
    const TOTAL: usize = 1 << 30;
    let mut exchange = Exchange::new(Config::default(), 0);
    let listener = exchange.listen(100);
    exchange.connect(&listener);
    let Exchange { client, server, now, buf, flows, .. } = &mut exchange;
    let (near, far) = &flows[0];
    let data = vec![1; 128 << 10];
    let mut sink = vec![0; 128 << 10];
    let mut moved = 0;
    let began = cpu_time();
    while moved < TOTAL {
        *now += Duration::from_micros(50);
        let _ = near.write(*now, &data);
        send(near, *now, buf, server);
        while let Ok(len) = far.read(*now, &mut sink) {
            moved += len;
        }
        answer(*now, buf, server, client);
        answer(*now, buf, client, server);
    }
    moved as f64 * 8.0 / (cpu_time() - began).as_nanos() as f64
}
