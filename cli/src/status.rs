//! `peersock status`

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use peersock::control;
use serde::Deserialize;

use crate::args::StateArgs;
use crate::failure::{Failure, Outcome};
use crate::stdio::print;

/// Show the state of the node that runs with a state directory
///
/// Asks the running node over a socket in the directory; nodes with an ephemeral identity have none.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock status
  peersock status --counters
  peersock status --json | jq '.peers[] | {id, path, rtt_ms}'")]
pub(crate) struct Args {
    #[command(flatten)]
    state: StateArgs,

    /// Print the node's answer as JSON
    #[arg(long)]
    json: bool,

    /// Show the counters, too
    #[arg(long, conflicts_with = "json")]
    counters: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    if args.state.ephemeral {
        return Err(Failure::usage("a node with an ephemeral identity has no place where it could be asked"));
    }
    let answer = control::request(&args.state.path()?, "status")?;
    if args.json {
        return print(answer);
    }
    let status: Status = serde_json::from_str(&answer)
        .map_err(|error| Failure::new(format_args!("the node's answer is not understood: {error}")))?;
    print(&status)?;
    if args.counters {
        for (name, value) in &status.counters {
            print(format_args!("  {name:<40} {value:>12}"))?;
        }
    }
    Ok(())
}

/// What is shown of a node's state; `--json` has all of it.
#[derive(Deserialize)]
struct Status {
    node_id: String,
    uptime_s: f64,
    endpoints: Vec<SocketAddr>,
    networks: Vec<Network>,
    peers: Vec<Peer>,
    flows: Flows,
    counters: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Network {
    id: String,
    addresses: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct Peer {
    id: String,
    network: String,
    addresses: Vec<IpAddr>,
    connected: bool,
    path: Option<SocketAddr>,
    datagram_size: Option<usize>,
    cipher: Option<String>,
    rtt_ms: Option<f64>,
}

#[derive(Deserialize)]
struct Flows {
    total: usize,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node {}", self.node_id)?;
        writeln!(f, "  running for {:.0} s, {} TCP connections", self.uptime_s, self.flows.total)?;
        write!(f, "  UDP sockets: {}", list(&self.endpoints))?;
        for network in &self.networks {
            write!(f, "\nnetwork {}\n  own addresses: {}", network.id, list(&network.addresses))?;
            let mut peers = self.peers.iter().filter(|peer| peer.network == network.id).peekable();
            if peers.peek().is_none() {
                write!(f, "\n  no peers found")?;
            }
            for peer in peers {
                write!(f, "\n  {peer}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}\n    addresses: {}\n    ", self.id, list(&self.addresses))?;
        if !self.connected {
            return write!(f, "no session");
        }
        write!(f, "session")?;
        if let Some(path) = self.path {
            write!(f, " over {path}")?;
        }
        if let Some(size) = self.datagram_size {
            write!(f, ", datagrams of up to {size} bytes")?;
        }
        if let Some(cipher) = &self.cipher {
            write!(f, ", {cipher}")?;
        }
        match self.rtt_ms {
            Some(rtt) => write!(f, ", round trip {rtt:.3} ms"),
            None => Ok(()),
        }
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    match items {
        [] => "none".to_owned(),
        items => items.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_listed_under_their_network() {
        let status: Status = serde_json::from_str(
            r#"{
                "node_id": "aa", "uptime_s": 12.3, "endpoints": ["127.0.0.1:5"], "flows": {"total": 1},
                "networks": [{"id": "ff01", "addresses": ["fd00::1"]}, {"id": "ff02", "addresses": []}],
                "peers": [{
                    "id": "bb", "network": "ff01", "addresses": ["fd00::2"], "connected": true,
                    "path": "127.0.0.1:6", "datagram_size": 1472, "cipher": "AES-256-GCM", "rtt_ms": 0.05
                }],
                "counters": {"a": 1}
            }"#,
        )
        .unwrap();
        let text = status.to_string();
        let (first, second) = text.split_once("network ff02").unwrap();
        assert!(first.contains("peer bb") && first.contains("over 127.0.0.1:6"), "{text}");
        assert!(second.contains("no peers found"), "{text}");
    }
}
