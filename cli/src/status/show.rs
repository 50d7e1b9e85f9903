//! A node's status for people: a summary, then each network with its peers in groups.

use std::fmt;
use std::time::UNIX_EPOCH;

use anstyle::Style;
use peersock::overlay::membership::UnixTime;
use peersock::{
    Conflict, ContactStatus, DhtStatus, NetworkStatus, PeerStatus, Presence, ProgramStatus, RootState,
    RootStatus, Status, Traffic, TurnStatus,
};

use super::answer::name;
use crate::managed::{since, words_of_certificate, words_of_clock, words_of_ending};
use crate::output::escape;
use crate::path;
use crate::standing::{Counts, ONLINE, Standing, last_sign, words_of_refusal};
use crate::style::{BOLD, ERROR, paint};

/// A status to print, with styles.
pub(super) struct Report<'a> {
    pub(super) answer: &'a Status,
    /// True if peers that are gone are listed, too.
    pub(super) all: bool,
    /// Maximum number of peers to list.
    pub(super) most: usize,
    pub(super) counters: bool,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = self.answer;
        writeln!(f, "{}", paint(BOLD, summary(answer)))?;
        writeln!(f, "node {}", answer.node_id)?;
        if let Some(other) = &answer.conflict {
            writeln!(f, "  {}", paint(ERROR, own_conflict(other)))?;
        }
        writeln!(f, "  running for {}, version {}", age(answer.uptime_s), answer.version)?;
        write!(f, "  UDP sockets: {}", list(&answer.endpoints))?;
        if !answer.programs.is_empty() {
            let programs: Vec<_> = answer.programs.iter().map(program).collect();
            write!(f, "\n  programs: {}", list(&programs))?;
            for program in &answer.programs {
                write!(f, "\n    {}", ProgramLine(program))?;
            }
        }
        if let Some(left) = answer.waits_s {
            write!(
                f,
                "\n  programs: none; waits {} for the next one (`peersock node --end` ends it)",
                age(left)
            )?;
        }
        for root in &answer.roots {
            write!(f, "\n{}", RootLine(root))?;
        }
        if let Some(contact) = &answer.contact {
            write!(f, "\n  {}", ContactLine(contact))?;
        }
        for turn in &answer.turn {
            write!(f, "\n  {}", TurnLine(turn))?;
        }
        if let Some(dht) = &answer.dht {
            write!(f, "\n  {}", DhtLine(dht))?;
        }
        let mut left = self.most;
        for network in &answer.networks {
            self.network(f, network, &mut left)?;
        }
        if self.counters {
            write!(f, "\ncounters")?;
            for (name, value) in &answer.counters {
                write!(f, "\n  {name:<40} {value:>12}")?;
            }
        }
        Ok(())
    }
}

impl Report<'_> {
    /// Writes one network; `left` is the number of peers that may still be listed.
    fn network(&self, f: &mut fmt::Formatter<'_>, network: &NetworkStatus, left: &mut usize) -> fmt::Result {
        let title = format!("network {} ({})", network.id, network.kind);
        write!(f, "\n{}: {}", paint(BOLD, title), Counts::of(self.answer, network))?;
        if network.forgotten > 0 {
            write!(f, ", {} forgotten", network.forgotten)?;
        }
        if let Some(words) = network.standing.as_deref().and_then(words_of_refusal) {
            let line = format!("this machine was {words}; `peersock join` with an invite asks again");
            write!(f, "\n  {}", paint(ERROR, line))?;
        }
        if network.standing.as_deref() == Some("copied") {
            let line = "no certificates for now: another machine runs, or has just run, with this machine's identity; on \
                        a copy, run `peersock id --rekey`, and join by another invite";
            write!(f, "\n  {}", paint(ERROR, line))?;
        }
        if network.key_contested {
            let line = "the network's key has two successors: somebody else has it, ask who runs the network";
            write!(f, "\n  {}", paint(ERROR, line))?;
        }
        if network.serves {
            write!(f, "\n  a controller serves it at this node")?;
        }
        if network.spare {
            write!(f, "\n  this node renews certificates while no controller answers")?;
        }
        let name = network.name.as_ref().map(|name| format!("{name}, ")).unwrap_or_default();
        write!(f, "\n  this node: {name}{}", list(&network.addresses))?;
        if let Some(left) = network.certificate_left_s {
            let heard = network.heard_s.map(|seconds| format!("controller heard {} ago; ", age(seconds)));
            let certificate = words_of_certificate((left > 0.0).then(|| age(left)));
            write!(f, "\n  {}{certificate}", heard.unwrap_or_default())?;
        }
        match (network.rules, network.rules_unreadable) {
            (Some(_), true) => {
                let line = "this version cannot read the network's rules, so it refuses all flows: install a newer \
                            version";
                write!(f, "\n  {}", paint(ERROR, line))?;
            }
            (Some(version), false) => {
                let now = UnixTime::from(UNIX_EPOCH.elapsed().unwrap_or_default());
                write!(f, "\n  rules of {}", since(version, now))?;
            }
            (None, _) => {}
        }
        if let Some(words) = network.clock_behind_s.and_then(|behind| words_of_clock((behind * 1e3) as i64)) {
            write!(f, "\n  {}", paint(ERROR, words))?;
        }
        if network.issuer_ending {
            let left = network.issuer_left_s.filter(|left| *left > 0.0).map(age);
            write!(f, "\n  {}", paint(ERROR, words_of_ending(left)))?;
        }
        write!(f, "\n  traffic: {}", both_ways(&network.traffic))?;
        if network.peers == 0 {
            write!(f, "\n  no peers found")?;
        }
        let counts = Counts::of(self.answer, network);
        for standing in [Standing::Online, Standing::NeverSeen, Standing::Offline, Standing::Removed] {
            let (style, count) = (standing.style(), counts.get(standing));
            if count == 0 {
                continue;
            }
            // The members of a static network are expected back.
            if standing == Standing::Offline && !self.all && !network.closed {
                write!(f, "\n  {}", paint(style, format_args!("{standing}: {count} (--all lists them)")))?;
                continue;
            }
            write!(f, "\n  {}", paint(style, format_args!("{standing}: {count}")))?;
            let mut peers: Vec<_> = self
                .answer
                .peers
                .iter()
                .filter(|peer| peer.network == network.id && Standing::of(peer) == standing)
                .collect();
            // Peers with a session come first, and then those with a name.
            peers.sort_by_key(|peer| (peer.state, peer.name.is_none(), &peer.name, &peer.addresses));
            peers.truncate(*left);
            *left -= peers.len();
            for peer in &peers {
                write!(f, "\n    {}", Line(peer))?;
            }
            let hidden = count.saturating_sub(peers.len());
            if hidden > 0 {
                let option = if self.all { "" } else { ", --all" };
                write!(f, "\n    … and {hidden} more{option}")?;
            }
        }
        Ok(())
    }
}

/// Returns the first line, a summary of all networks.
pub(crate) fn summary(answer: &Status) -> String {
    let mut text = format!(
        "{}: {}; {}",
        counted(answer.networks.len(), "network"),
        Counts::of_all(answer),
        counted(answer.flows.total.saturating_sub(answer.flows.time_wait), "TCP connection"),
    );
    if answer.flows.time_wait > 0 {
        text += &format!(" and {} in TIME-WAIT", answer.flows.time_wait);
    }
    let Traffic { received_bytes, sent_bytes, .. } = answer.traffic;
    text + &format!("; {} in, {} out", bytes(received_bytes), bytes(sent_bytes))
}

/// A peer in two or three lines. The address to dial is first.
struct Line<'a>(&'a PeerStatus);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.0;
        write!(f, "{}", paint(BOLD, list(&peer.addresses)))?;
        if let Some(name) = name(peer) {
            write!(f, " {name}")?;
        }
        write!(f, "\n      node {}\n      ", peer.id)?;
        if !peer.ipv4_aliases.is_empty() {
            let aliases = list(&peer.ipv4_aliases);
            write!(f, "programs with IPv4 sockets see it as {aliases}\n      ")?;
        }
        if peer.state == Presence::Connected {
            write!(f, "session")?;
            match (peer.path, &peer.stream) {
                (Some(path), _) => write!(f, " over {path}")?,
                (None, Some(stream)) => write!(f, " over {stream}")?,
                (None, None) => {}
            }
            match &peer.root {
                Some(root) => write!(f, ", relayed by root {root}")?,
                None => path::way(peer).iter().try_for_each(|way| write!(f, ", {way}"))?,
            }
            if let Some(size) = peer.datagram_size {
                write!(f, ", datagrams of up to {size} bytes")?;
            }
            if let Some(cipher) = &peer.cipher {
                write!(f, ", {cipher}")?;
            }
            if let Some(rtt) = peer.rtt_ms {
                write!(f, ", round trip {rtt:.3} ms")?;
            }
            write!(f, "\n      ")?;
            // A direct path needs no explanation.
            if peer.root.is_some() || peer.turn {
                match peer.attempts.as_slice() {
                    [] => write!(f, "no address for a direct path to it is known\n      ")?,
                    attempts => attempts.iter().try_for_each(|attempt| {
                        f.write_str(&path::reason(attempt))?;
                        if attempt.sent > 0 {
                            write!(f, ", {} sent", counted(attempt.sent, "packet"))?;
                        }
                        if let Some(seconds) = attempt.tried_s {
                            write!(f, ", {} ago", age(seconds))?;
                        }
                        write!(f, "\n      ")
                    })?,
                }
            }
        }
        if let Some(other) = &peer.conflict {
            write!(f, "{}\n      ", paint(ERROR, conflict(other)))?;
        }
        if peer.answer_unreadable {
            let said = "it has another secret for the network: its answers cannot be read";
            write!(f, "{}\n      ", paint(ERROR, said))?;
        }
        write!(f, "{}", last_sign(peer))?;
        match &peer.total_traffic {
            Traffic { sent_packets: 0, received_packets: 0, .. } => Ok(()),
            traffic => write!(f, "; {}", both_ways(traffic)),
        }
    }
}

/// The node's NAT, and addresses at which others reach it besides its own.
struct ContactLine<'a>(&'a ContactStatus);

impl fmt::Display for ContactLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ContactStatus { nat, mapping, candidates, .. } = self.0;
        match (nat, mapping.as_deref()) {
            (Some(kind), _) => write!(f, "NAT: {kind}")?,
            (None, Some("none")) => write!(f, "NAT: none")?,
            (None, Some(mapping)) => write!(f, "NAT: {mapping} mapping")?,
            (None, None) => {
                write!(f, "NAT: not known (roots and STUN servers beyond the local network can tell)")?;
            }
        }
        for candidate in candidates.iter().filter(|candidate| candidate.kind != "interface") {
            let address = candidate.address;
            match (&*candidate.kind, &candidate.by) {
                ("forwarded", Some(by)) => write!(f, ", forwarded from {address} by {by}")?,
                ("forwarded", None) => write!(f, ", forwarded from {address}")?,
                ("relayed", _) => write!(f, ", relayed from {address}")?,
                _ => write!(f, ", seen at {address}")?,
            }
        }
        Ok(())
    }
}

/// The service of a TURN server for the node.
struct TurnLine<'a>(&'a TurnStatus);

impl fmt::Display for TurnLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TurnStatus { server, family, relayed, error, .. } = self.0;
        let family = if family == "ipv6" { "IPv6" } else { "IPv4" };
        write!(f, "TURN server {server}, {family}: ")?;
        match (relayed, error) {
            (Some(address), _) => write!(f, "relays at {address}"),
            (None, Some(error)) => write!(f, "{error}"),
            (None, None) => write!(f, "is being asked"),
        }
    }
}

/// The node's state in the DHT.
struct DhtLine<'a>(&'a DhtStatus);

impl fmt::Display for DhtLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DhtStatus { nodes, published, searches, error, .. } = self.0;
        write!(
            f,
            "DHT: {} answer, can be found in {}",
            counted(*nodes, "node"),
            counted(*published, "network")
        )?;
        if *searches > 0 {
            write!(f, ", looks for {}", counted(*searches, "peer"))?;
        }
        if let Some(error) = error {
            write!(f, ", {}", paint(ERROR, error))?;
        }
        Ok(())
    }
}

/// A root, in one or two lines.
struct RootLine<'a>(&'a RootStatus);

impl fmt::Display for RootLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = self.0;
        let style = if root.state == RootState::Registered { ONLINE } else { Style::new() };
        write!(f, "root {}: {}", root.id, paint(style, root.state))?;
        match root.registered_s {
            // The time since the start of draining is unknown.
            Some(_) if root.state == RootState::Draining => write!(f, ", it is about to end")?,
            Some(seconds) => write!(f, " for {}", age(seconds))?,
            None => {}
        }
        match (root.path, &root.stream) {
            (Some(path), _) => write!(f, "\n  at {path}")?,
            (None, Some(stream)) => write!(f, "\n  at {stream}")?,
            (None, None) if root.endpoints.is_empty() => write!(f, "\n  not reached")?,
            (None, None) => write!(f, "\n  not reached at {}", list(&root.endpoints))?,
        }
        if let Some(rtt) = root.rtt_ms.filter(|_| root.path.is_some() || root.stream.is_some()) {
            write!(f, ", round trip {rtt:.3} ms")?;
        }
        if let Some(observed) = root.observed {
            write!(f, ", sees this node at {observed}")?;
        }
        if root.relayed_peers > 0 {
            write!(f, ", relays to {}", counted(root.relayed_peers, "peer"))?;
        }
        if root.directory_away {
            write!(f, "\n  the directory that it shares with other roots does not answer it")?;
        }
        if let Some(error) = &root.stream_error {
            write!(f, "\n  no stream: {error}")?;
        }
        Ok(())
    }
}

/// Returns a warning that an identity is in use at two places.
pub(crate) fn conflict(other: &Conflict) -> String {
    let (perhaps, unproven) = if other.proven { ("", "") } else { ("perhaps ", ", unproven") };
    format!(
        "{perhaps}two nodes have this identity: another one at {}{unproven}, {} ago",
        other.remote,
        age(other.seen_s)
    )
}

/// Returns the same warning for the node's own identity, with what helps.
pub(crate) fn own_conflict(other: &Conflict) -> String {
    format!("{}; on a copy alone, `peersock id --rekey` gives it a new identity", conflict(other))
}

fn both_ways(traffic: &Traffic) -> String {
    let lost = match traffic.lost_packets {
        0 => String::new(),
        lost => format!(", {lost} lost"),
    };
    format!(
        "{} in ({}{lost}), {} out ({})",
        bytes(traffic.received_bytes),
        counted(traffic.received_packets, "packet"),
        bytes(traffic.sent_bytes),
        counted(traffic.sent_packets, "packet")
    )
}

pub(crate) fn counted(number: impl TryInto<u64>, thing: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// Returns a number of bytes with about three digits.
pub(crate) fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{number} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Returns a duration in its largest units.
pub(crate) fn age(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

/// Returns a program's name, with the process that has started it.
/// The sockets of a program.
struct ProgramLine<'a>(&'a ProgramStatus);

impl fmt::Display for ProgramLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0;
        write!(f, "{}: {}", program(used), sockets(used))?;
        write!(f, "; {} in, {} out", bytes(used.received_bytes), bytes(used.sent_bytes))?;
        match &used.networks[..] {
            [] => f.write_str("; in no network"),
            networks => write!(f, "; in {}", list(networks)),
        }
    }
}

/// Returns the numbers of a program's sockets.
pub(crate) fn sockets(program: &ProgramStatus) -> String {
    let mut text = counted(program.streams as usize, "stream");
    if program.datagram_sockets > 0 {
        text += &format!(", {}", counted(program.datagram_sockets as usize, "datagram socket"));
    }
    if !program.listeners.is_empty() {
        let ports: Vec<_> = program.listeners.iter().collect();
        text += &format!(", listens on {}", list(&ports));
    }
    text
}

pub(crate) fn program(program: &ProgramStatus) -> String {
    format!("{} (process {})", escape(&program.name), program.process)
}

fn list<T: ToString>(items: &[T]) -> String {
    match items {
        [] => "none".to_owned(),
        items => items.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use serde_json::{Value, json};

    use super::*;
    use crate::status::fixtures;

    #[test]
    fn peers_are_grouped_under_their_network_and_those_gone_are_only_counted() {
        let text = report(&status(), false, 50);
        let first = text.lines().next().unwrap();
        assert_eq!(
            first,
            "2 networks: 2 online, 1 offline, 1 never seen; 1 TCP connection and 4 in TIME-WAIT; 2.0 KiB in, 1 B out"
        );
        let (first, second) = text.split_once("network ff02").unwrap();
        for words in
            ["fd00::2 beta\n", "node bb\n", "session over 127.0.0.1:6", "seen 3 s ago", "offline: 1 (--all"]
        {
            assert!(first.contains(words), "{words} is not in {text}");
        }
        assert!(first.contains("heard 1 min 5 s ago") && first.contains("never seen"), "{text}");
        assert!(!first.contains("node ee"), "{text}");
        assert!(first.contains("988 forgotten") && second.contains("no peers found"), "{text}");
        assert!(report(&status(), true, 50).contains("node ee"));
    }

    #[test]
    fn roots_and_relayed_paths_are_shown() {
        let mut status = status();
        assert!(!report(&status, false, 50).contains("root"));
        status["roots"] = json!([
            {"id": "a1", "state": "registered", "endpoints": ["192.0.2.1:7420"], "path": "192.0.2.1:7420",
             "rtt_ms": 20.5, "observed": "203.0.113.5:4000", "registered_s": 61, "relayed_peers": 1},
            {"id": "a2", "state": "unreachable", "endpoints": ["192.0.2.2:7420"],
             "stream_error": "the name a.b cannot be resolved"},
            {"id": "a3", "state": "registered", "endpoints": [], "rtt_ms": 1.5, "registered_s": 2,
             "stream": "wss:a.b:443 by way of http://192.0.2.7:3128"},
            {"id": "a4", "state": "draining", "endpoints": ["192.0.2.4:7420"], "path": "192.0.2.4:7420",
             "registered_s": 3600},
        ]);
        status["peers"][1]["root"] = "a1".into();
        let none = report(&status, false, 50);
        assert!(none.contains("no address for a direct path"), "{none}");
        status["peers"][1]["attempts"] = json!([
            {"address": "203.0.113.9:5000", "kind": "mapped", "vouched": true, "sent": 12, "tried_s": 61.2,
             "answered": false, "outcome": "no answer"},
            {"address": "10.0.0.9:5000", "kind": "interface", "vouched": false, "sent": 0, "tried_s": null,
             "answered": false, "outcome": "private address of another network"},
        ]);
        let text = report(&status, false, 50);
        for words in [
            "\nroot a1: registered for 1 min 1 s\n  at 192.0.2.1:7420, round trip 20.500 ms, sees this node at \
             203.0.113.5:4000, relays to 1 peer\n",
            "\nroot a2: unreachable\n  not reached at 192.0.2.2:7420\n  no stream: the name a.b cannot be resolved\n",
            "\nroot a3: registered for 2 s\n  at wss:a.b:443 by way of http://192.0.2.7:3128, round trip 1.500 ms\n",
            "\nroot a4: draining, it is about to end\n  at 192.0.2.4:7420\n",
            "session over 127.0.0.1:6, relayed by root a1",
            "tried 203.0.113.9:5000 (mapped): no answer, 12 packets sent, 1 min 1 s ago\n",
            "tried 10.0.0.9:5000 (interface): private address of another network\n",
        ] {
            assert!(text.contains(words), "{words} is not in {text}");
        }
    }

    #[test]
    fn programs_show_whose_they_are_and_removed_members_are_apart() {
        let mut status = status();
        let machine = format!("{:0<64}", "bb");
        for (at, label) in [(0, Value::Null), (2, "web".into())] {
            status["peers"][at]["name"] = "beta".into();
            status["peers"][at]["machine"] = machine.as_str().into();
            status["peers"][at]["label"] = label;
        }
        status["peers"][3]["standing"] = "removed".into();
        let text = report(&status, false, 50);
        for words in ["fd00::4 program of beta\n", "fd00::2 beta\n", "fd00::3 web.beta\n", "\n  removed: 1\n"]
        {
            assert!(text.contains(words), "{words} is not in {text}");
        }
        assert!(text.starts_with("2 networks: 2 online, 0 offline, 1 never seen, 1 removed;"), "{text}");
    }

    #[test]
    fn a_key_with_two_successors_is_told() {
        let mut status = status();
        assert!(!report(&status, false, 50).contains("two successors"));
        status["networks"][0]["key_contested"] = true.into();
        let text = report(&status, false, 50);
        assert!(text.contains("\n  the network's key has two successors: somebody else has it"), "{text}");
    }

    #[test]
    fn a_member_sees_its_controller_its_certificate_and_the_end_of_the_right_behind_it() {
        let mut status = status();
        assert!(!report(&status, false, 50).contains("certificate"));
        let joined = &mut status["networks"][0];
        (joined["heard_s"], joined["certificate_left_s"]) = (9.5.into(), 86_340.into());
        joined["issuer_left_s"] = (59 * 86_400 + 3600).into();
        let text = report(&status, false, 50);
        assert!(text.contains("\n  controller heard 9 s ago; certificate for 23 h 59 min\n"), "{text}");
        assert!(!text.contains("network renew"), "{text}");
        status["networks"][0]["issuer_ending"] = true.into();
        status["networks"][0]["heard_s"] = Value::Null;
        let text = report(&status, false, 50);
        assert!(text.contains("\n  certificate for 23 h 59 min\n"), "{text}");
        let warning =
            "right to issue certificates ends in 59 d 1 h: run `peersock network renew` at its controller";
        assert!(text.contains(warning), "{text}");
        let joined = &mut status["networks"][0];
        (joined["serves"], joined["issuer_left_s"]) = (true.into(), 0.into());
        joined["certificate_left_s"] = 0.into();
        let text = report(&status, false, 50);
        assert!(text.contains("\n  certificate has ended; a controller renews it\n"), "{text}");
        assert!(text.contains("right to issue certificates has ended: run"), "{text}");
    }

    #[test]
    fn the_ipv4_address_that_logs_of_programs_have_is_shown() {
        let mut status = status();
        assert!(!report(&status, false, 50).contains("IPv4"));
        status["peers"][1]["ipv4_aliases"] = json!(["198.18.110.169"]);
        let text = report(&status, false, 50);
        assert!(
            text.contains("node bb\n      programs with IPv4 sockets see it as 198.18.110.169\n"),
            "{text}"
        );
    }

    #[test]
    fn a_path_by_a_stream_is_shown() {
        let mut status = status();
        status["peers"][1]["path"] = Value::Null;
        status["peers"][1]["stream"] = "wss:a.b:443".into();
        status["peers"][1]["root"] = "a1".into();
        let text = report(&status, false, 50);
        assert!(text.contains("session over wss:a.b:443, relayed by root a1"), "{text}");
    }

    #[test]
    fn what_is_not_known_of_the_nat_is_not_called_a_kind_of_nat() {
        let mut status = status();
        let mut shown = |contact: Value| {
            status["contact"] = contact;
            let text = report(&status, false, 50);
            text.lines()
                .find_map(|line| Some(line.trim().strip_prefix("NAT: ")?.to_owned()))
                .unwrap_or_default()
        };
        let own = json!([{"address": "192.168.1.9:5", "kind": "interface", "by": null}]);
        let unknown = shown(json!({"nat": null, "mapping": null, "candidates": own}));
        assert_eq!(unknown, "not known (roots and STUN servers beyond the local network can tell)");
        assert_eq!(shown(json!({"nat": null, "mapping": "none", "candidates": own})), "none");
        assert_eq!(shown(json!({"nat": "filtered", "mapping": null, "candidates": own})), "filtered");
    }

    #[test]
    fn an_identity_at_two_places_is_said() {
        let mut status = status();
        assert!(!report(&status, false, 50).contains("two nodes"));
        status["conflict"] = json!({"remote": "192.0.2.9:4", "seen_s": 7.5});
        status["peers"][1]["conflict"] = json!({"remote": "192.0.2.8:4", "seen_s": 70, "proven": true});
        let text = report(&status, false, 50);
        assert!(
            text.contains(
                "\n  perhaps two nodes have this identity: another one at 192.0.2.9:4, unproven, 7 s ago; on a copy \
                 alone, `peersock id --rekey` gives it a new identity\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("    two nodes have this identity: another one at 192.0.2.8:4, 1 min 10 s ago\n"),
            "{text}"
        );
    }

    #[test]
    fn a_large_network_is_cut_short() {
        let mut status = status();
        status["networks"][0]["peers"] = 4004.into();
        let text = report(&status, false, 2);
        assert!(text.contains("node bb") && text.contains("node cc") && !text.contains("node dd"), "{text}");
        assert!(text.contains("never seen: 1\n    … and 1 more, --all"), "{text}");
        assert!(text.contains("offline: 4001 (--all"), "{text}");
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0, 999, 1000, 1024, 1_048_576, 5 << 30, u64::MAX].map(bytes);
        assert_eq!(texts, ["0 B", "999 B", "1.0 KiB", "1.0 KiB", "1.0 MiB", "5.0 GiB", "16777216.0 TiB"]);
        let ages = [-1.0, 0.9, 59.9, 61.0, 3725.0, 90_000.0].map(age);
        assert_eq!(ages, ["0 s", "0 s", "59 s", "1 min 1 s", "1 h 2 min", "1 d 1 h"]);
    }

    fn report(status: &Value, all: bool, most: usize) -> String {
        let answer = fixtures::status(status.clone());
        let report = Report { answer: &answer, all, most, counters: false }.to_string();
        fixtures::shortened(&strip_str(&report).to_string())
    }

    fn status() -> Value {
        let traffic =
            json!({"sent_packets": 1, "sent_bytes": 1, "received_packets": 2, "received_bytes": 2048});
        let peer = |id: &str, address: &str, state: &str| {
            json!({
                "id": id, "network": "ff01", "addresses": [address], "connected": state == "connected",
                "state": state, "path": null, "total_traffic": traffic
            })
        };
        let mut peers = json!([
            peer("dd", "fd00::4", "known"),
            peer("bb", "fd00::2", "connected"),
            peer("cc", "fd00::3", "known"),
            peer("ee", "fd00::5", "gone"),
        ]);
        peers[1]["name"] = "beta".into();
        peers[1]["path"] = "127.0.0.1:6".into();
        peers[1]["last_seen_s"] = 3.2.into();
        peers[2]["last_heard_s"] = 65.into();
        json!({
            "version": "0.1.0", "node_id": "aa", "uptime_s": 12.3, "endpoints": ["127.0.0.1:5"],
            "flows": {"total": 5, "time_wait": 4}, "traffic": traffic, "peers": peers, "counters": {},
            "networks": [
                {"id": "ff01", "kind": "ad-hoc", "addresses": ["fd00::1"], "peers": 4, "connected": 1, "known": 2,
                 "gone": 1, "forgotten": 988, "traffic": traffic},
                {"id": "ff02", "kind": "static", "addresses": [], "peers": 0, "connected": 0, "known": 0},
            ]
        })
    }
}
