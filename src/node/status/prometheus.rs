//! A node's state as text for Prometheus.

use std::collections::BTreeMap;

use peersock_primitives::prometheus::{Family, Number, Text};

use super::{NetworkStatus, PeerStatus, Presence, RootStatus, Status};
use crate::driver::UdpStats;

/// The labels of a number.
type Labels<'a> = [(&'a str, &'a str)];

/// A family of which every network or peer has a number, if it is known there.
struct Column<T> {
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> Option<Number>,
}

impl Status {
    /// Writes all numbers as text for Prometheus (format 0.0.4), for an HTTP endpoint of the program's own or
    /// for the collector `textfile` of `node_exporter`. `peersock status --prometheus` prints the same.
    ///
    /// Every number has the label `node`. At most `peers` peers have numbers of their own, connected ones
    /// first, then those that were there last; how many have none is told by `peersock_node_peers_omitted`,
    /// and the numbers of networks count all. There is no secret in the text, and no address;
    /// names of members are in it, and node IDs.
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
            .number(&[node, ("version", self.version)], 1);
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
        text.gauge("peersock_node_peers_omitted", "Peers that have no numbers of their own here.")
            .number(&[node], self.peers.len().saturating_sub(peers));
        if let Some(dht) = &self.dht {
            let mut gauge = |name, help, value: usize| text.gauge(name, help).number(&[node], value);
            gauge("peersock_node_dht_nodes", "Nodes of the DHT that have answered lately.", dht.nodes);
            gauge("peersock_node_dht_networks", "Networks in which the DHT knows the node.", dht.published);
            gauge("peersock_node_dht_searches", "Peers that are looked for in the DHT now.", dht.searches);
        }
        if !self.turn.is_empty() {
            // Not by server: its name has the user's in it.
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

    fn write_roots(&self, text: &mut Text, node: &str) {
        let roots: Vec<_> = self.roots.iter().map(|root| (root.id.to_string(), root)).collect();
        let mut states = text.gauge(
            "peersock_node_root_state",
            "1 with the state of each root in a label: registered, or why the node cannot be found there.",
        );
        for (id, root) in &roots {
            states.number(&[("node", node), ("root", id), ("state", &root.state.to_string())], 1);
        }
        let columns: [Column<RootStatus>; 3] = [
            Column {
                name: "peersock_node_root_registered",
                help: "Whether the node can be found at the root.",
                value: |root| Some(root.registered_s.is_some().into()),
            },
            Column {
                name: "peersock_node_root_rtt_seconds",
                help: "The smoothed round-trip time to the root.",
                value: |root| Some((root.rtt_ms? / 1e3).into()),
            },
            Column {
                name: "peersock_node_root_relayed_peers",
                help: "Peers whose path leads through the root.",
                value: |root| Some(root.relayed_peers.into()),
            },
        ];
        for Column { name, help, value } in columns {
            let mut family = text.gauge(name, help);
            for (id, root) in &roots {
                add(&mut family, &[("node", node), ("root", id)], value(root));
            }
        }
    }

    fn write_counters(&self, text: &mut Text, node: &str) {
        let descriptions = descriptions();
        for (&name, &value) in &self.counters {
            let help = descriptions.get(name).copied().unwrap_or_default();
            text.counter(&format!("peersock_node_{name}_total"), &first_sentence(help))
                .number(&[("node", node)], value);
        }
    }

    fn write_networks(&self, text: &mut Text, node: &str) {
        let networks: Vec<_> =
            self.networks.iter().map(|network| (network.id.to_string(), network)).collect();
        let mut info =
            text.gauge("peersock_network_info", "The kind of a network, and the node's name in it.");
        for (id, network) in &networks {
            let name = network.name.as_deref().unwrap_or_default();
            let labels = [("node", node), ("network", id), ("kind", network.kind), ("name", name)];
            info.number(&labels, 1);
        }
        let mut peers = text.gauge("peersock_network_peers", "Peers known in the network, by their state.");
        for (id, network) in &networks {
            let counts = [
                (Presence::Connected, network.connected),
                (Presence::Known, network.known),
                (Presence::Gone, network.gone),
            ];
            for (state, count) in counts {
                let state = state.to_string();
                peers.number(&[("node", node), ("network", id), ("state", &state)], count);
            }
        }
        let columns: [Column<NetworkStatus>; 5] = [
            Column {
                name: "peersock_network_peers_forgotten_total",
                help: "Peers forgotten since the network was joined.",
                value: |network| Some(network.forgotten.into()),
            },
            Column {
                name: "peersock_network_sent_packets_total",
                help: "Packets sent in sessions with all peers since the network was joined.",
                value: |network| Some(network.traffic.sent_packets.into()),
            },
            Column {
                name: "peersock_network_sent_bytes_total",
                help: "Bytes of these packets.",
                value: |network| Some(network.traffic.sent_bytes.into()),
            },
            Column {
                name: "peersock_network_received_packets_total",
                help: "Packets received in sessions with all peers since the network was joined.",
                value: |network| Some(network.traffic.received_packets.into()),
            },
            Column {
                name: "peersock_network_received_bytes_total",
                help: "Bytes of these packets.",
                value: |network| Some(network.traffic.received_bytes.into()),
            },
        ];
        for Column { name, help, value } in columns {
            let mut family = text.counter(name, help);
            for (id, network) in &networks {
                add(&mut family, &[("node", node), ("network", id)], value(network));
            }
        }
    }

    fn write_peers(&self, text: &mut Text, node: &str, most: usize) {
        let mut peers: Vec<_> = self.foremost_peers(most).into_iter().map(Named::new).collect();
        // As stable as can be between two scrapes.
        peers.sort_by(|a, b| (&a.network, &a.id).cmp(&(&b.network, &b.id)));
        let mut info = text.gauge("peersock_peer_info", "The name of a peer, if the network gives it one.");
        for peer in &peers {
            let name = ("name", peer.status.name.as_deref().unwrap_or_default());
            let [node, network, id] = peer.labels(node);
            info.number(&[node, network, id, name], 1);
        }
        let mut path = text.gauge(
            "peersock_peer_path",
            "1 with the kind of the path in a label: direct, tcp (a direct TCP connection), turn (by a TURN \
             server), or root (relayed by the root whose ID is the label root).",
        );
        for peer in peers.iter().filter(|peer| peer.status.connected) {
            let root = peer.status.root.map(|root| root.to_string()).unwrap_or_default();
            let kind = match peer.status {
                PeerStatus { root: Some(_), .. } => "root",
                PeerStatus { turn: true, .. } => "turn",
                PeerStatus { tcp: true, .. } => "tcp",
                _ => "direct",
            };
            let [node, network, id] = peer.labels(node);
            path.number(&[node, network, id, ("path", kind), ("root", &root)], 1);
        }
        for Column { name, help, value } in PEER_GAUGES {
            let mut family = text.gauge(name, help);
            peers.iter().for_each(|peer| add(&mut family, &peer.labels(node), value(peer.status)));
        }
        for Column { name, help, value } in PEER_COUNTERS {
            let mut family = text.counter(name, help);
            peers.iter().for_each(|peer| add(&mut family, &peer.labels(node), value(peer.status)));
        }
    }
}

const PEER_GAUGES: [Column<PeerStatus>; 5] = [
    Column {
        name: "peersock_peer_connected",
        help: "Whether there is a session with the peer.",
        value: |peer| Some(peer.connected.into()),
    },
    Column {
        name: "peersock_peer_last_seen_seconds",
        help: "How long ago the peer last proved to be there.",
        value: |peer| Some(peer.last_seen_s?.into()),
    },
    Column {
        name: "peersock_peer_rtt_seconds",
        help: "The smoothed round-trip time of the path.",
        value: |peer| Some((peer.rtt_ms? / 1e3).into()),
    },
    Column {
        name: "peersock_peer_session_age_seconds",
        help: "The age of the session.",
        value: |peer| Some(peer.session_age_s?.into()),
    },
    Column {
        name: "peersock_peer_datagram_size_bytes",
        help: "The largest datagram known to pass on the path.",
        value: |peer| Some(peer.datagram_size?.into()),
    },
];

const PEER_COUNTERS: [Column<PeerStatus>; 4] = [
    Column {
        name: "peersock_peer_sent_packets_total",
        help: "Packets sent in all sessions with the peer since the node learned of it.",
        value: |peer| Some(peer.total_traffic.sent_packets.into()),
    },
    Column {
        name: "peersock_peer_sent_bytes_total",
        help: "Bytes of these packets.",
        value: |peer| Some(peer.total_traffic.sent_bytes.into()),
    },
    Column {
        name: "peersock_peer_received_packets_total",
        help: "Packets received in all sessions with the peer since the node learned of it.",
        value: |peer| Some(peer.total_traffic.received_packets.into()),
    },
    Column {
        name: "peersock_peer_received_bytes_total",
        help: "Bytes of these packets.",
        value: |peer| Some(peer.total_traffic.received_bytes.into()),
    },
];

/// A peer with the texts of its labels.
struct Named<'a> {
    network: String,
    id: String,
    status: &'a PeerStatus,
}

impl<'a> Named<'a> {
    fn new(status: &'a PeerStatus) -> Self {
        Named { network: status.network.to_string(), id: status.id.to_string(), status }
    }

    fn labels<'b>(&'b self, node: &'b str) -> [(&'static str, &'b str); 3] {
        [("node", node), ("network", &self.network), ("peer", &self.id)]
    }
}

/// Adds a number that may not be known.
fn add(family: &mut Family<'_>, labels: &Labels<'_>, value: Option<Number>) {
    if let Some(value) = value {
        family.number(labels, value);
    }
}

/// What each counter counts.
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

/// A description without what only makes sense in the documentation of the code: its links, and all that
/// follows the first sentence.
fn first_sentence(description: &str) -> String {
    let sentence = description.split_once(". ").map_or(description, |(first, _)| first);
    sentence.trim_end_matches('.').replace('`', "")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use peersock_overlay::{NetworkId, NodeId};

    use super::*;
    use crate::config::Network;
    use crate::node::status::{AttemptStatus, Traffic, TurnStatus};
    use crate::{IdentitySource, Interfaces, Node};

    const NETWORK: &str = "ff00500050000000";

    #[test]
    fn every_line_is_as_the_format_wants_it() {
        let status = status(3);
        let lines = parse(&status.prometheus(3));
        // All counters are there, with a text that says what they count.
        for name in status.counters.keys() {
            let family = format!("peersock_node_{name}_total");
            let line = lines.iter().find(|line| line.name == family).unwrap_or_else(|| panic!("no {family}"));
            assert_eq!((line.kind.as_str(), line.labels.len()), ("counter", 1));
            assert!(line.help.len() > 5 && !line.help.contains("]("), "{family}: {}", line.help);
        }
        for line in &lines {
            assert_eq!(line.label("node"), Some(status.node_id.to_string().as_str()), "{}", line.name);
            assert_eq!(line.kind == "counter", line.name.ends_with("_total"), "{}", line.name);
            let of_network = line.name.starts_with("peersock_network_");
            let of_peer = line.name.starts_with("peersock_peer_");
            assert_eq!(line.label("network").is_some(), of_network || of_peer, "{}", line.name);
            assert_eq!(line.label("peer").is_some(), of_peer, "{}", line.name);
        }
        let peers = |state| {
            let peers =
                |line: &&Line| line.name == "peersock_network_peers" && line.label("state") == Some(state);
            lines.iter().find(peers).expect("there is one").value
        };
        assert_eq!((peers("connected"), peers("known"), peers("gone")), (1.0, 2.0, 0.0));
    }

    #[test]
    fn a_name_with_quotation_marks_is_read_back_as_it_is() {
        let name = "the \"first\" \\ one\nof all";
        let mut status = status(1);
        status.peers[0].name = Some(name.into());
        let lines = parse(&status.prometheus(1));
        let info = lines.iter().find(|line| line.name == "peersock_peer_info").expect("there is one");
        assert_eq!(info.label("name"), Some(name));
    }

    #[test]
    fn only_the_foremost_peers_have_numbers_of_their_own() {
        let lines = parse(&status(5).prometheus(2));
        let peers: BTreeSet<_> = lines.iter().filter_map(|line| line.label("peer")).collect();
        // The connected one, and who was seen last.
        assert_eq!(peers, [node(1).to_string(), node(2).to_string()].iter().map(String::as_str).collect());
        let omitted =
            lines.iter().find(|line| line.name == "peersock_node_peers_omitted").expect("it is told");
        assert_eq!(omitted.value, 3.0);
        assert!(parse(&status(5).prometheus(0)).iter().all(|line| line.label("peer").is_none()));
    }

    #[test]
    fn a_path_has_its_kind_and_the_root_that_relays() {
        type Change = fn(&mut PeerStatus);
        let paths: [(Change, &str, bool); 4] = [
            (|_| {}, "direct", false),
            (|peer| peer.tcp = true, "tcp", false),
            (|peer| peer.turn = true, "turn", false),
            (|peer| peer.root = Some(node(9)), "root", true),
        ];
        for (change, kind, is_relayed) in paths {
            let mut status = status(2);
            change(&mut status.peers[0]);
            let lines = parse(&status.prometheus(2));
            let paths: Vec<_> = lines.iter().filter(|line| line.name == "peersock_peer_path").collect();
            // Who is not connected has none.
            assert_eq!((paths.len(), paths[0].label("path")), (1, Some(kind)));
            assert_eq!(paths[0].label("root") == Some(&node(9).to_string()), is_relayed, "{kind}");
        }
    }

    #[test]
    fn no_secret_and_no_address_is_in_the_text() {
        let mut status = status(2);
        status.turn.push(TurnStatus {
            server: "turn:alice@192.0.2.77:3478".into(),
            family: "ipv4",
            relayed: None,
            error: Some("refused".into()),
        });
        status.peers[0].attempts.push(AttemptStatus {
            address: "192.0.2.77:5".parse().expect("an address"),
            kind: "mapped",
            vouched: true,
            sent: 1,
            tried_s: None,
            answered: false,
            outcome: "no answer".into(),
        });
        let text = status.prometheus(2);
        for secret in ["alice", "192.0.2.77", "127.0.0.1", &status.public_key] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
        let lines = parse(&text);
        let of_turn = lines.iter().filter(|line| line.name == "peersock_node_turn_allocations");
        let counts: Vec<_> =
            of_turn.map(|line| (line.label("state").expect("a state"), line.value)).collect();
        assert_eq!(counts, [("relaying", 0.0), ("failed", 1.0), ("asking", 0.0)]);
    }

    /// The status of a node with so many peers, the first of which is connected.
    fn status(peers: u8) -> Status {
        let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let node = node.start().expect("the node starts");
        let network: NetworkId = NETWORK.parse().expect("an ID");
        node.join(Network::ad_hoc(network)).expect("the node joins");
        let mut status = node.status();
        // Another node of this machine may have been found.
        status.peers = (1..=peers).map(|number| peer(network, number)).collect();
        let joined = &mut status.networks[0];
        (joined.connected, joined.known, joined.gone) = (1, usize::from(peers - 1), 0);
        status
    }

    fn peer(network: NetworkId, number: u8) -> PeerStatus {
        let connected = number == 1;
        PeerStatus {
            id: node(number),
            network,
            name: None,
            addresses: Vec::new(),
            connected,
            state: if connected { Presence::Connected } else { Presence::Known },
            last_seen_s: Some(number.into()),
            last_heard_s: None,
            path: connected.then(|| "127.0.0.1:9".parse().expect("an address")),
            stream: None,
            root: None,
            turn: false,
            tcp: false,
            datagram_size: connected.then_some(1400),
            cipher: None,
            rtt_ms: connected.then_some(0.25),
            session_age_s: connected.then_some(3.0),
            traffic: None,
            total_traffic: Traffic { sent_packets: 1, sent_bytes: 2, received_packets: 3, received_bytes: 4 },
            candidates: Vec::new(),
            attempts: Vec::new(),
            conflict: None,
        }
    }

    fn node(number: u8) -> NodeId {
        format!("{number:02x}").repeat(32).parse().expect("an ID")
    }

    /// A number with what belongs to it.
    struct Line {
        name: String,
        kind: String,
        help: String,
        labels: Vec<(String, String)>,
        value: f64,
    }

    impl Line {
        fn label(&self, name: &str) -> Option<&str> {
            self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
        }
    }

    /// Reads the format, and is as strict as its description: a family is in one place, with its help and
    /// type in front; no number is there twice.
    #[track_caller]
    fn parse(text: &str) -> Vec<Line> {
        assert!(text.ends_with('\n'), "the last line has an end");
        let (mut lines, mut families, mut seen) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let (mut help, mut kind) = ((String::new(), String::new()), (String::new(), String::new()));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, words) = rest.split_once(' ').expect("a name and a text");
                assert!(families.insert(name.to_owned()), "{name} is there twice");
                help = (name.to_owned(), words.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, word) = rest.split_once(' ').expect("a name and a type");
                assert!(help.0 == name && ["counter", "gauge"].contains(&word), "{line}");
                kind = (name.to_owned(), word.to_owned());
            } else {
                let end = line.find(['{', ' ']).expect("a number");
                let (name, rest) = line.split_at(end);
                assert!(is_name(name) && kind.0 == name, "{line}");
                let (labels, value) = labels(rest);
                let value = value.strip_prefix(' ').expect("a space").parse().expect("a number");
                assert!(seen.insert((name.to_owned(), labels.clone())), "{line} is there twice");
                lines.push(Line {
                    name: name.into(),
                    kind: kind.1.clone(),
                    help: help.1.clone(),
                    labels,
                    value,
                });
            }
        }
        lines
    }

    /// Labels in front of a value; returns what follows them.
    #[track_caller]
    fn labels(text: &str) -> (Vec<(String, String)>, &str) {
        let Some(mut rest) = text.strip_prefix('{') else { return (Vec::new(), text) };
        let mut labels: Vec<(String, String)> = Vec::new();
        loop {
            let (name, after) = rest.split_once("=\"").expect("a label");
            assert!(is_name(name) && labels.iter().all(|(label, _)| label != name), "{text}");
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next().expect("the value ends") {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().expect("something is escaped").1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        c => panic!("\\{c} in {text}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((name.to_owned(), value));
            rest = &after[end + 1..];
            match rest.as_bytes().first() {
                Some(b',') => rest = &rest[1..],
                Some(b'}') => return (labels, &rest[1..]),
                _ => panic!("{text}"),
            }
        }
    }

    fn is_name(text: &str) -> bool {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    }
}
