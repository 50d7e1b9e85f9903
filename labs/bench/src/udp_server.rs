//! Benchmark of a UDP server that answers many clients in turn: the node's own work, without a kernel.
//!
//! All nodes are in this process, on a network in memory. The clock runs while the server takes in a
//! datagram, reads it and answers. The clients' work does not count. Consecutive datagrams come from
//! different clients.

use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use clap::Args;
use peersock_stack::UdpOptions;
use serde::Serialize;

#[allow(dead_code, reason = "shared with the tests of the data path, which do more")]
#[path = "../../../datapath/tests/datapath/net.rs"]
mod net;

use net::Net;

/// Options of this benchmark.
#[derive(Args)]
pub(crate) struct Options {
    /// Number of clients, which take turns
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    clients: u16,
    /// Size of a datagram in bytes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1100))]
    size: u16,
    /// Run until the server itself has worked for SECONDS
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    secs: f64,
}

/// The printed result.
#[derive(Serialize)]
struct Report {
    kind: &'static str,
    clients: u16,
    /// Payload received and returned, divided by the server's time for it.
    gbps: f64,
    datagrams_per_s: f64,
    /// Number of times per datagram that the server took the lock of its control state machine.
    control_locked: f64,
}

const PORT: u16 = 2000;

/// Measures, and prints one JSON object.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let clients = usize::from(options.clients);
    let mut net = Net::star(clients + 1, |_| [vec![], vec![]]);
    let bind = |net: &Net, node: usize, port| {
        let local = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        net.nodes[node].datapath.stack().udp_bind(None, local, UdpOptions::default())
    };
    let server = bind(&net, 0, PORT)?;
    let to = SocketAddr::new(net.address(0), PORT);
    let sockets = (1..=clients).map(|node| bind(&net, node, 0)).collect::<Result<Vec<_>, _>>()?;
    let (payload, mut buf) = (vec![7; options.size.into()], vec![0; options.size.into()]);
    let mut turn = |net: &mut Net, at: usize| -> io::Result<Duration> {
        net.nodes[at + 1].datapath.send_udp(net.now, &sockets[at], Some(to), &payload)?;
        let start = Instant::now();
        net.deliver_one();
        if let Ok(received) = server.recv_from(&mut buf) {
            let answer = &buf[..received.len];
            net.nodes[0].datapath.send_udp(net.now, &server, Some(received.source), answer)?;
        }
        let took = start.elapsed();
        net.deliver();
        black_box(sockets[at].recv_from(&mut buf).ok());
        Ok(took)
    };
    // The first turns make the sessions.
    for at in 0..clients {
        turn(&mut net, at)?;
        net.deliver();
        while server.recv_from(&mut [0]).is_ok() {}
        turn(&mut net, at)?;
    }
    let before = net.control_locked()[0];
    let (mut worked, mut turns) = (Duration::ZERO, 0_u32);
    while worked.as_secs_f64() < options.secs {
        worked += turn(&mut net, turns as usize % clients)?;
        turns += 1;
    }
    let per_second = f64::from(turns) / worked.as_secs_f64();
    let report = Report {
        kind: "udp-server",
        clients: options.clients,
        gbps: per_second * f64::from(options.size) * 8e-9,
        datagrams_per_s: per_second,
        control_locked: (net.control_locked()[0] - before) as f64 / f64::from(turns),
    };
    println!("{}", serde_json::to_string(&report).map_err(io::Error::other)?);
    Ok(())
}
