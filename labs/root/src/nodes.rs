//! Measurement of many registered nodes that only keep their sessions alive.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use peersock_overlay::Identity;
use peersock_root::Source;

use crate::client::{Node, World, seconds};
use crate::server::Process;

/// Options of `nodes`.
#[derive(Args)]
pub(crate) struct Options {
    /// Numbers of registered nodes at which to measure
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,50000")]
    nodes: Vec<u32>,
    /// Keep the nodes idle for SECONDS at the end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    idle: u32,
}

/// Intervals in seconds of an idle node's keepalive, session renewal and registration renewal.
const KEEPALIVE_SECONDS: f64 = 25.0;
const SESSION: f64 = 120.0;
const REGISTRATION: f64 = 200.0;

/// Measures, and prints a table.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let root = Process::root()?;
    let mut world = World::new("0.0.0.0:0", root.address)?;
    let mut nodes: Vec<Node> = Vec::new();
    let fresh = root.memory()?;
    // The root's first traffic allocates memory that no further node causes.
    let mut first = node(&world, 0);
    world.connect(&mut first);
    world.register(&mut first);
    nodes.push(first);
    let empty = root.memory()?;
    println!("the first node and its traffic: {} kB\n", (empty - fresh) / 1000);
    println!(
        "{:>8} {:>12} {:>17} {:>25}",
        "nodes", "memory", "per further node", "root's time for a session"
    );
    let (mut nodes_before, mut memory_before) = (nodes.len(), 0);
    for &most in &options.nodes {
        let (from, before) = (nodes.len(), root.processor_time()?);
        while nodes.len() < most as usize {
            let mut node = node(&world, nodes.len() as u32);
            world.connect(&mut node);
            world.register(&mut node);
            nodes.push(node);
        }
        // After a renewal the old session stays beside the new one for a while, so it counts as memory, too.
        for node in &mut nodes {
            world.connect(node);
        }
        let handshakes = (nodes.len() - from) + nodes.len();
        let (memory, used) = (root.memory()? - empty, root.processor_time()? - before);
        let (more, further) =
            (memory.saturating_sub(memory_before), nodes.len().saturating_sub(nodes_before));
        println!(
            "{most:>8} {:>9.2} MB {:>15.0} B {:>22.0} µs",
            memory as f64 * 1e-6,
            more as f64 / further.max(1) as f64,
            seconds(used) * 1e6 / handshakes as f64
        );
        (nodes_before, memory_before) = (nodes.len(), memory);
    }
    idle(&root, &mut world, &mut nodes, Duration::from_secs(options.idle.into()))
}

/// Makes a node in a separate source prefix: all addresses of 127.0.0.0/8 belong to this machine.
fn node(world: &World, number: u32) -> Node {
    let mut seed = [3; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let [.., a, b] = number.to_be_bytes();
    let remote = SocketAddr::from(([127, a, b, 1], world.socket.address().port()));
    Node::of(Identity::from_seed(&seed), Source::Udp { socket: 0, remote })
}

/// Runs the periodic work of all nodes, evenly spread.
fn idle(root: &Process, world: &mut World, nodes: &mut [Node], time: Duration) -> io::Result<()> {
    let (begin, before, packets) = (Instant::now(), root.processor_time()?, world.packets);
    let count = nodes.len();
    let mut done = [0u64; 3];
    while begin.elapsed() < time {
        let mut is_idle = true;
        for (what, interval) in [KEEPALIVE_SECONDS, SESSION, REGISTRATION].into_iter().enumerate() {
            let due = seconds(begin.elapsed()) * count as f64 / interval;
            if (done[what] as f64) < due {
                is_idle = false;
                let node = &mut nodes[done[what] as usize % count];
                match what {
                    0 => world.keep(node),
                    1 => world.connect(node),
                    _ => world.register(node),
                }
                done[what] += 1;
            }
        }
        if is_idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    let took = seconds(begin.elapsed());
    let expected = took * count as f64 * (1.0 / KEEPALIVE_SECONDS + 1.0 / SESSION + 1.0 / REGISTRATION);
    println!(
        "\n{count} idle nodes for {took:.0} s ({:.0} % of what they had to do was done): \
         {:.1} packets a second per 1,000 nodes, both directions; {:.3} of a core",
        done.iter().sum::<u64>() as f64 * 100.0 / expected,
        (world.packets - packets) as f64 / took * 1000.0 / count as f64,
        seconds(root.processor_time()? - before) / took,
    );
    Ok(())
}
