//! Entry into the DHT: the local address, and the nodes to contact first.
//!
//! The node always contacts the named nodes, or the public ones, and additionally some that answered before.
//! Those are kept in memory and in the state directory, so that a node gets in while the named ones are away.
//! Kept nodes alone would usually suffice, but not against an attacker with a fake DHT: a node that once
//! entered it, in a network that the attacker runs, would stay in it for ever. For the same reason only a few
//! are kept of each small network, and none of a DHT in which no named node has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use peersock_dht::{Bootstrap, Settings, answers_any};

use crate::config::Dht;
use crate::driver::{Interfaces, first_ipv4, reaches_by_ipv6_only};
use crate::state::StateDir;

use super::inbox::Inbox;

/// Limit of kept nodes. `mainline` asks all entry nodes, these and the named ones, whenever it knows fewer
/// than 20 nodes near a key, which only happens in the smallest DHTs.
const MAX_KEPT_NODES: usize = 12;

/// Limit of kept nodes in one network of 256 addresses, which probably has one owner.
const MAX_PER_NET: usize = 2;

/// Timeout of the named nodes.
const NAMED_TIMEOUT: Duration = Duration::from_secs(2);

/// Minimum interval of writing the file, once it is full.
const MIN_WRITE_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// State of the entry into the DHT.
pub(super) struct Entry {
    /// Nodes that the user has named, or the public ones.
    named: Bootstrap,
    allowed: Interfaces,
    /// Nodes that have answered.
    kept: Vec<SocketAddrV4>,
    /// Contents of the file, and when they were written.
    written: (BTreeSet<SocketAddrV4>, Option<Instant>),
}

impl Entry {
    /// Builds the entry.
    ///
    /// # Errors
    /// Fails if the node may not use any interface that leads to the DHT.
    pub(super) fn new(dht: &Dht, allowed: &Interfaces, state: Option<&StateDir>) -> io::Result<Entry> {
        let named = named(dht, allowed)?;
        let mut entry =
            Entry { named, allowed: allowed.clone(), kept: Vec::new(), written: (BTreeSet::new(), None) };
        // Fails at the start of the node if no interface leads to the DHT.
        entry.bind()?;
        if let Some(text) = state.and_then(StateDir::dht_nodes) {
            entry.kept = entry.read(&text);
            entry.written.0 = entry.kept.iter().copied().collect();
        }
        Ok(entry)
    }

    /// Returns the settings of the next entry.
    ///
    /// # Errors
    /// Fails if there is no address now, or if the machine reaches the Internet only by IPv6.
    pub(super) fn settings(&self) -> io::Result<Settings> {
        let known = self.kept.clone();
        if !self.allowed.is_loopback_only() && reaches_by_ipv6_only(&self.named()) {
            return Err(refusal(NEEDS_IPV4));
        }
        Ok(Settings { bind: self.bind()?, known, ..Settings::new(self.named.clone()) })
    }

    /// Returns the local address for the DHT.
    pub(super) fn bind(&self) -> io::Result<Ipv4Addr> {
        match &self.allowed {
            allowed if allowed.is_loopback_only() => Ok(Ipv4Addr::LOCALHOST),
            Interfaces::All | Interfaces::Except(_) => Ok(Ipv4Addr::UNSPECIFIED),
            allowed => first_ipv4(allowed)?.ok_or_else(|| {
                refusal("no interface that may be used has an IPv4 address, which the DHT needs")
            }),
        }
    }

    /// Returns the nodes that the user has named.
    pub(super) fn named(&self) -> Vec<SocketAddrV4> {
        match &self.named {
            Bootstrap::Nodes(nodes) => nodes.clone(),
            Bootstrap::Public => Vec::new(),
        }
    }

    /// Pings the named nodes on a separate thread, because their names may have to be resolved. Notifies the
    /// inbox if one answers. `service` is the number of the service in the notification.
    ///
    /// # Errors
    /// Fails if there is no address now, or no thread.
    pub(super) fn ask_named(&self, inbox: &Arc<Inbox>, service: u64) -> io::Result<thread::JoinHandle<()>> {
        let (named, bind, inbox) = (self.named.clone(), self.bind()?, Arc::clone(inbox));
        let ask = move || match answers_any(&named, bind, NAMED_TIMEOUT) {
            Ok(true) => inbox.note_named(service),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the nodes by which the DHT is entered are not asked"),
        };
        thread::Builder::new().name("peersock-named".into()).spawn(ask)
    }

    /// Returns true if the next entry also uses kept nodes.
    pub(super) fn is_by_kept(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Forgets the kept nodes, because none of them answers.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
    }

    /// Keeps some of the nodes that have answered lately.
    pub(super) fn keep(&mut self, nodes: &[SocketAddrV4], state: Option<&StateDir>, now: Instant) {
        let of_use = spread(nodes.iter().copied().filter(|node| self.is_of_use(node)));
        // An empty list must not replace a useful one.
        if of_use.is_empty() {
            return;
        }
        // Nodes from all over the table, because nodes near this one may have one owner.
        let step = of_use.len().div_ceil(MAX_KEPT_NODES);
        self.kept = of_use.into_iter().step_by(step).collect();
        let list: BTreeSet<_> = self.kept.iter().copied().collect();
        let is_due = self.written.1.is_none_or(|written| now >= written + MIN_WRITE_INTERVAL);
        let Some(state) = state.filter(|_| list != self.written.0) else { return };
        if is_due || list.len() > self.written.0.len() {
            state.keep_dht_nodes(&self.text(&list));
            self.written = (list, Some(now));
        }
    }

    fn is_of_use(&self, node: &SocketAddrV4) -> bool {
        let ip = node.ip();
        let is_local = match &self.named {
            Bootstrap::Nodes(nodes) => nodes.iter().any(|node| node.ip().is_loopback()),
            Bootstrap::Public => false,
        };
        let is_near = ip.is_loopback() == self.allowed.is_loopback_only() || ip.is_loopback() && is_local;
        node.port() != 0 && is_near && !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast())
    }

    /// Formats the file: the DHT that the nodes belong to, and their addresses.
    fn text(&self, nodes: &BTreeSet<SocketAddrV4>) -> String {
        let lines: String = nodes.iter().map(|node| format!("{node}\n")).collect();
        format!("{}\n{lines}", self.name())
    }

    fn read(&self, text: &str) -> Vec<SocketAddrV4> {
        let mut lines = text.lines();
        if lines.next() != Some(self.name().as_str()) {
            return Vec::new();
        }
        let nodes = lines.filter_map(|line| line.parse().ok()).filter(|node| self.is_of_use(node));
        let mut nodes = spread(nodes);
        nodes.truncate(MAX_KEPT_NODES);
        nodes
    }

    /// Returns the name of the DHT, because nodes of one DHT are useless in another.
    fn name(&self) -> String {
        match &self.named {
            Bootstrap::Public => "peersock-dht 1 public".to_owned(),
            Bootstrap::Nodes(nodes) => {
                let nodes: BTreeSet<_> = nodes.iter().collect();
                let nodes: Vec<_> = nodes.into_iter().map(ToString::to_string).collect();
                format!("peersock-dht 1 {}", nodes.join(","))
            }
        }
    }
}

/// Limits the nodes per small network.
fn spread(nodes: impl Iterator<Item = SocketAddrV4>) -> Vec<SocketAddrV4> {
    let mut counts = BTreeMap::<[u8; 3], usize>::new();
    let is_kept = |node: &SocketAddrV4| {
        let [a, b, c, _] = node.ip().octets();
        let count = counts.entry([a, b, c]).or_default();
        *count += 1;
        // All loopback addresses are this machine, so they have no limit.
        *count <= MAX_PER_NET || node.ip().is_loopback()
    };
    nodes.filter(is_kept).collect()
}

/// Returns the named nodes that the user's interfaces allow.
fn named(dht: &Dht, allowed: &Interfaces) -> io::Result<Bootstrap> {
    match dht {
        Dht::Nodes(nodes) if allowed.is_loopback_only() => {
            let nodes: Vec<_> = nodes.iter().copied().filter(|node| node.ip().is_loopback()).collect();
            match nodes.is_empty() {
                true => Err(refusal("a node that stays on this machine cannot enter a DHT elsewhere")),
                false => Ok(Bootstrap::Nodes(nodes)),
            }
        }
        _ if allowed.is_loopback_only() => {
            Err(refusal("a node that stays on this machine cannot enter the public DHT"))
        }
        Dht::Nodes(nodes) => Ok(Bootstrap::Nodes(nodes.clone())),
        _ => Ok(Bootstrap::Public),
    }
}

/// Refusal text. A NAT64 does not help: `mainline` has only an IPv4 socket, like all nodes of this DHT.
const NEEDS_IPV4: &str = "it needs IPv4, and this machine has IPv6 only: use a root (--root), which is reached \
                          by a NAT64 as well, or a network with IPv4";

fn refusal(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn nodes_are_kept_privately_and_only_for_the_same_dht() {
        let place = tempfile::tempdir().expect("a folder");
        let state = StateDir::open(place.path()).expect("it is ours");
        let open = |entries: &[u16]| entry(entries, Some(&state));
        let mut first = open(&[1, 2]);
        assert!(!first.is_by_kept());
        let now = Instant::now();
        first.keep(&nodes(100..108), Some(&state), now);
        let kept = |entry: &Entry| entry.settings().expect("loopback").known;
        assert_eq!(kept(&open(&[2, 1])), nodes(100..108));
        assert_eq!(kept(&open(&[1])), [], "another DHT");
        let file = place.path().join("dht-nodes");
        assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);

        // A few nodes from all over the table are kept; an equally long list is written later.
        first.keep(&nodes(200..300), Some(&state), now);
        let all = kept(&open(&[1, 2]));
        assert!(all.len() <= MAX_KEPT_NODES && all.len() > MAX_KEPT_NODES / 2, "{all:?}");
        assert!(all.iter().any(|node| node.port() > 290) && all[0].port() == 200, "{all:?}");
        first.keep(&nodes(100..108), Some(&state), now);
        assert_eq!(kept(&open(&[1, 2])), all);
        first.keep(&nodes(100..108), Some(&state), now + MIN_WRITE_INTERVAL);
        assert_eq!(kept(&open(&[1, 2])), nodes(100..108));
        first.forget();
        assert_eq!(kept(&first), []);
    }

    #[test]
    fn the_named_nodes_are_asked_always_and_few_of_one_network_besides() {
        let named: Vec<SocketAddrV4> = vec!["198.51.100.1:6881".parse().expect("an endpoint")];
        let mut entry = Entry::new(&Dht::Nodes(named.clone()), &Interfaces::All, None).expect("addresses");
        let of = |text: &str| text.parse::<SocketAddrV4>().expect("an endpoint");
        let his = (1..200).map(|host| SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host), 6881));
        let others = [of("203.0.113.7:6881"), of("203.0.112.7:6881")];
        let all: Vec<_> = his.chain(others).collect();
        entry.keep(&all, None, Instant::now());
        let settings = entry.settings().expect("an address");
        assert_eq!(settings.bootstrap, Bootstrap::Nodes(named));
        assert_eq!(settings.known, [all[0], all[1], others[0], others[1]]);
        let text = all.iter().fold(entry.name() + "\n", |text, node| format!("{text}{node}\n"));
        assert_eq!(entry.read(&text), settings.known, "in a file, too");
    }

    #[test]
    fn a_file_of_any_contents_is_no_error() {
        let place = tempfile::tempdir().expect("a folder");
        let state = StateDir::open(place.path()).expect("it is ours");
        let file = place.path().join("dht-nodes");
        let good = "peersock-dht 1 127.0.0.1:1\n127.0.0.1:5\n";
        let bad = "x\n127.0.0.1:0\n0.0.0.0:1\n224.0.0.1:1\n192.0.2.1:1\n[::1]:1\n\n";
        let texts: [(&[u8], usize); 5] = [
            (b"", 0),
            (b"\xff\xfe\x00", 0),
            (b"peersock-dht 2 127.0.0.1:1\n127.0.0.1:5\n", 0),
            (good.as_bytes(), 1),
            (&[good.as_bytes(), bad.as_bytes()].concat(), 1),
        ];
        for (text, expected) in texts {
            fs::write(&file, text).expect("room");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
            assert_eq!(entry(&[1], Some(&state)).kept.len(), expected, "{}", text.escape_ascii());
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o622)).expect("it is ours");
        assert!(entry(&[1], Some(&state)).kept.is_empty(), "others may write there");
        fs::remove_file(&file).expect("it is ours");
        fs::create_dir(&file).expect("room");
        let mut no_file = entry(&[1], Some(&state));
        no_file.keep(&nodes(5..6), Some(&state), Instant::now());
        assert!(no_file.is_by_kept(), "without a file there is memory");
    }

    fn entry(ports: &[u16], state: Option<&StateDir>) -> Entry {
        let dht =
            Dht::Nodes(ports.iter().map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, *port)).collect());
        Entry::new(&dht, &Interfaces::Loopback, state).expect("loopback")
    }

    fn nodes(ports: std::ops::Range<u16>) -> Vec<SocketAddrV4> {
        ports.map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).collect()
    }
}
