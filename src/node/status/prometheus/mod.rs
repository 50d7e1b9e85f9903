//! State of a node as text for Prometheus.

mod networks;
mod peers;
mod roots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use peersock_primitives::prometheus::{Family, Number, Text};

use super::Status;
use crate::driver::UdpStats;

/// Labels of a sample.
type Labels<'a> = [(&'a str, &'a str)];

/// Family with a sample of every network or peer, where the value is known.
struct Column<T> {
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> Option<Number>,
}

impl Status {
    /// Writes all metrics as text for Prometheus (format 0.0.4), for an HTTP endpoint of the program or for
    /// the collector `textfile` of `node_exporter`. `peersock status --prometheus` prints the same.
    ///
    /// Every sample has the label `node`. At most `peers` peers have samples, connected ones first, then the
    /// ones seen last. `peersock_node_peers_omitted` is the number of the others, and the metrics of networks
    /// count all. The text has no secret and no address; it has names of members, and node IDs.
    ///
    /// ```
    /// use std::io::{BufRead, BufReader, Read, Write};
    /// use std::net::{TcpListener, TcpStream};
    ///
    /// # use peersock::{IdentitySource, Interfaces, Node};
    /// # let node = Node::builder().identity(IdentitySource::Ephemeral);
    /// # let node = node.interfaces(Interfaces::Loopback).start()?;
    /// // An endpoint of the kernel's network, for one scrape.
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let server = std::thread::spawn(move || {
    ///     let (mut client, _) = listener.accept()?;
    ///     let head = BufReader::new(client.try_clone()?).lines();
    ///     head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
    ///     let text = node.status().prometheus(100);
    ///     write!(
    ///         client,
    ///         "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
    ///          Connection: close\r\n\r\n{text}",
    ///         text.len()
    ///     )
    /// });
    ///
    /// let mut scraper = TcpStream::connect(address)?;
    /// write!(scraper, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    /// let mut answer = String::new();
    /// scraper.read_to_string(&mut answer)?;
    /// assert!(answer.contains("# TYPE peersock_node_uptime_seconds gauge\n"));
    /// # server.join().expect("the server does not panic")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prometheus(&self, peers: usize) -> String {
        let mut text = Text::default();
        let node = self.node_id.to_string();
        self.write_node(&mut text, &node, peers);
        self.write_roots(&mut text, &node);
        self.write_counters(&mut text, &node);
        self.write_networks(&mut text, &node);
        self.write_peers(&mut text, &node, peers);
        text.finish()
    }

    fn write_node(&self, text: &mut Text, node: &str, peers: usize) {
        let node = ("node", node);
        text.gauge("peersock_node_info", "The version of the node's library.")
            .number(&[node, ("version", &self.version)], 1);
        text.gauge("peersock_node_uptime_seconds", "How long the node has been running.")
            .number(&[node], self.uptime_s);
        text.gauge(
            "peersock_node_udp_receive_buffer_bytes",
            "The receive buffer of its UDP sockets, as the kernel accounts it.",
        )
        .number(&[node], self.udp_receive_buffer);
        let mut connections = text.gauge("peersock_node_tcp_connections", "TCP connections inside networks.");
        let open = self.flows.total.saturating_sub(self.flows.time_wait);
        for (state, count) in [("open", open), ("time_wait", self.flows.time_wait)] {
            connections.number(&[node, ("state", state)], count);
        }
        text.gauge(
            "peersock_node_identity_conflict",
            "Whether another node with the same identity was seen in the last ten minutes.",
        )
        .number(&[node], self.conflict.is_some());
        text.gauge("peersock_node_peers_omitted", "Peers without separate numbers here.")
            .number(&[node], self.peers.len().saturating_sub(peers));
        if let Some(dht) = &self.dht {
            let mut gauge = |name, help, value: usize| text.gauge(name, help).number(&[node], value);
            gauge("peersock_node_dht_nodes", "Nodes of the DHT that have answered lately.", dht.nodes);
            gauge("peersock_node_dht_networks", "Networks in which the DHT knows the node.", dht.published);
            gauge("peersock_node_dht_searches", "Peers that are looked for in the DHT now.", dht.searches);
        }
        if !self.turn.is_empty() {
            // No metric by server, because its name contains the user's name.
            let mut allocations =
                text.gauge("peersock_node_turn_allocations", "Allocations on TURN servers, by how they are.");
            for (state, is_there, has_failed) in
                [("relaying", true, false), ("failed", false, true), ("asking", false, false)]
            {
                let of_state = self.turn.iter().filter(|turn| {
                    turn.relayed.is_some() == is_there && (is_there || turn.error.is_some() == has_failed)
                });
                allocations.number(&[node, ("state", state)], of_state.count());
            }
        }
    }

    fn write_counters(&self, text: &mut Text, node: &str) {
        let descriptions = descriptions();
        for (name, &value) in &self.counters {
            let help = descriptions.get(&**name).copied().unwrap_or_default();
            text.counter(&format!("peersock_node_{name}_total"), &first_sentence(help))
                .number(&[("node", node)], value);
        }
    }
}

/// Adds a sample if its value is known.
fn add(family: &mut Family<'_>, labels: &Labels<'_>, value: Option<Number>) {
    if let Some(value) = value {
        family.number(labels, value);
    }
}

/// Returns the descriptions of all counters.
fn descriptions() -> BTreeMap<&'static str, &'static str> {
    [
        peersock_overlay::Counters::descriptions(),
        peersock_datapath::DatapathCounters::descriptions(),
        peersock_stack::Counters::descriptions(),
        UdpStats::descriptions(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the first sentence of a description without its code marks; the rest only makes sense in the
/// documentation of the code.
fn first_sentence(description: &str) -> String {
    let sentence = description.split_once(". ").map_or(description, |(first, _)| first);
    sentence.trim_end_matches('.').replace('`', "")
}
