//! Causes that keep this node from finding others, or others from finding it, as far as its settings show.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use peersock::overlay::{Candidate, CandidateKind, NetworkId};
use peersock::{
    DhtStatus, Network, Node, PeerStatus, RootListStatus, RootSource, RootState, RootStatus, Status,
    TurnStatus,
};
use rustix::io::Errno;

use crate::args::UnderlayArgs;
use crate::failure::Failure;
use crate::root_look::{self, Found};
use crate::root_watch::ToldRoots;
use crate::{names, root_watch, standing, stdio};

/// Settings of servers, from options and the environment, that the node's status lacks, and what the user has
/// been told of roots.
#[derive(Clone, Default)]
pub(crate) struct NamedServers {
    turn: bool,
    has_empty_roots: bool,
    told: ToldRoots,
}

impl NamedServers {
    pub(crate) fn of(args: &UnderlayArgs) -> NamedServers {
        NamedServers {
            turn: args.names_turn(),
            has_empty_roots: args.has_empty_roots(),
            told: ToldRoots::default(),
        }
    }

    /// Returns the settings of a shared node for a program, whose own variable may be empty.
    pub(crate) fn for_program(&self, has_empty_roots: bool) -> NamedServers {
        NamedServers { turn: self.turn, has_empty_roots, told: ToldRoots::default() }
    }

    /// Returns the roots that a watch on them shares with the advice.
    pub(crate) fn told(&self) -> ToldRoots {
        self.told.clone()
    }

    /// Returns clauses about root lists and TURN servers that may explain why no peer is found, each with a
    /// trailing semicolon.
    fn to_check(&self, status: &Status, lists: &[RootListStatus]) -> String {
        let mut said: Vec<String> = lists.iter().filter_map(list).collect();
        // Other programs of a shared node may name roots.
        if self.has_empty_roots && lists.is_empty() && status.roots.iter().all(|root| root.guest) {
            said.push(
                "PEERSOCK_ROOTS is set and empty, so no root is asked, unset it or give --root".to_owned(),
            );
        }
        let turn = &status.turn;
        if self.turn && turn.is_empty() {
            let why = "no TURN server is asked, because peers learn of it only by a root or --dht, give one";
            said.push(why.to_owned());
        }
        said.extend(status.dht.as_ref().and_then(dht));
        // Removes duplicates, because both families of a server usually fail for the same reason.
        let failed: BTreeSet<_> = turn.iter().filter_map(|one| turn_server(one, turn)).collect();
        said.extend(failed);
        said.into_iter().map(|clause| clause + "; ").collect()
    }
}

/// A member that was not found, and what is known about the search.
pub(crate) struct Sought<'a> {
    pub(crate) status: &'a Status,
    pub(crate) lists: &'a [RootListStatus],
    pub(crate) named: &'a NamedServers,
    pub(crate) network: NetworkId,
    /// True if a file describes the network.
    pub(crate) by_file: bool,
    /// True if the network has a secret.
    pub(crate) secret: bool,
    /// Endpoints of the member in the network's file.
    pub(crate) endpoints: Vec<String>,
    pub(crate) address: IpAddr,
}

/// Returns the advice for a member that was not found.
pub(crate) fn what_to_check(node: &Node, network: &Network, named: &NamedServers, address: IpAddr) -> String {
    let (status, lists, summary) = (status_once_decided(node, network), node.root_lists(), network.summary());
    let sought = Sought {
        status: &status,
        lists: &lists,
        named,
        network: network.id(),
        by_file: summary.by_file,
        secret: summary.secret,
        endpoints: endpoints(network, address),
        address,
    };
    sought.advice()
}

/// Returns the node's status. If a member says that this machine was removed, a controller's word is waited
/// for.
fn status_once_decided(node: &Node, network: &Network) -> Status {
    let begun = Instant::now();
    loop {
        let status = node.status();
        let is_refused = status
            .networks
            .iter()
            .any(|one| one.id == network.id() && one.standing.as_deref() == Some("refused"));
        if !is_refused || begun.elapsed() >= DECIDED {
            return status;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Time in which a controller says whether it has removed this machine.
const DECIDED: Duration = Duration::from_secs(2);

/// Returns the endpoints of a member in the network's file.
pub(crate) fn endpoints(network: &Network, address: IpAddr) -> Vec<String> {
    let member = names::member_at(network, address);
    member.map_or_else(Vec::new, |member| network.endpoints_of(&member.identity))
}

impl Sought<'_> {
    /// Returns the advice.
    pub(crate) fn advice(&self) -> String {
        let same = match (self.by_file, self.secret) {
            (false, _) if self.network.is_managed() => "with the same network ID, as a member",
            (false, false) => "with the same network ID and, like this one, without a passphrase",
            (false, true) => "with the same network ID and the same passphrase",
            (true, _) => "with the same network file",
        };
        if let Some(cause) = self.known_cause(same) {
            return format!("{cause}; -v shows what was tried");
        }
        let (servers, reached) = servers(self.status, self.lists, self.named);
        let place = match (&self.endpoints[..], &reached) {
            ([], Some(root)) => {
                format!("at the same root: {root} was reached, and {} was not found there", self.address)
            }
            ([], None) if self.status.roots.iter().all(|root| root.guest) => {
                let dht = if self.status.dht.is_none() { ", or --dht" } else { "" };
                format!(
                    "on the same LAN (if it is not, give both programs a root, see `peersock root --help`{dht}), \
                     and that IP packets of 322 bytes pass"
                )
            }
            ([], None) => "on the same LAN or at one of the same roots".to_owned(),
            (endpoints, root) => {
                let root = root.as_ref().map(|root| format!(", or at {root}")).unwrap_or_default();
                let endpoints = endpoints.join(" or ");
                format!(
                    "on the same LAN or at {endpoints}, with --overlay-port for the port there{root}, and that \
                     IP packets of 246 bytes pass"
                )
            }
        };
        format!("{servers}check that the other program runs {same}, {place}; -v shows what was tried")
    }

    /// Returns the cause, if the node knows it.
    fn known_cause(&self, same: &str) -> Option<String> {
        let joined = self.status.networks.iter().find(|network| network.id == self.network);
        if let Some(words) =
            joined.and_then(|network| network.standing.as_deref()).and_then(standing::words_of_refusal)
        {
            return Some(format!(
                "this machine was {words}: ask who runs it for an invite for `peersock join`"
            ));
        }
        let is_it =
            |peer: &&PeerStatus| peer.network == self.network && peer.addresses.contains(&self.address);
        let peer = self.status.peers.iter().find(is_it)?;
        match () {
            () if peer.connected => None,
            () if peer.answer_unreadable => Some(format!(
                "it was reached, and this node cannot read its answer, probably because it has another secret \
                 for the network: {}run both programs {same}",
                if self.secret || self.by_file {
                    ""
                } else {
                    "give this program the passphrase of the other, or "
                }
            )),
            () if peer.at_roots > 0 && self.by_file => Some(
                "a root knows where it is, and it does not answer this node: check that its file of the \
                 network names this node, too, and that it still runs"
                    .to_owned(),
            ),
            () if peer.at_roots > 0 => Some(
                "a root knows where it is, and it does not answer this node: check that the program still \
                 runs there"
                    .to_owned(),
            ),
            () => None,
        }
    }
}

/// Returns the failure if no node with an address has answered.
pub(crate) fn nobody_answered(
    network: NetworkId,
    name: Option<&str>,
    address: IpAddr,
    within: Duration,
    advice: String,
) -> Failure {
    let who = match name {
        Some(name) => format!("{name} ({address}) has not"),
        None => format!("no member with address {address}"),
    };
    Failure::new(
        format_args!("{who} answered in network {network} within {} s", within.as_secs_f64()),
        advice,
    )
}

/// Returns the failure for an address that no member can have.
pub(crate) fn no_such_member(network: NetworkId, by_file: bool, address: IpAddr) -> Failure {
    Failure::usage(
        format_args!("no member of network {network} can have address {address}"),
        match by_file {
            false => "give the address that `peersock addr` or `listen` prints on the other side",
            true => "give the name or the address of a member; `peersock network show` lists them",
        },
    )
}

/// Returns clauses about roots and other servers that may be the cause, each with a trailing semicolon. Also
/// the name of a root that was reached, where the member was not found.
pub(crate) fn servers_to_check(node: &Node, named: &NamedServers) -> (String, Option<String>) {
    servers(&node.status(), &node.root_lists(), named)
}

fn servers(status: &Status, lists: &[RootListStatus], named: &NamedServers) -> (String, Option<String>) {
    // Skips roots that other roots have named, because the user cannot change them.
    let roots: Vec<_> = status.roots.iter().filter(|root| !root.guest).collect();
    let reached = roots.iter().find(|root| is_reached(root)).map(|root| root_watch::name(root));
    let faults: String = roots.iter().filter_map(|root| root_to_check(root, &named.told)).collect();
    (faults + &named.to_check(status, lists), reached)
}

fn is_reached(root: &RootStatus) -> bool {
    matches!(root.state, RootState::Registered | RootState::Draining) && !root.directory_away
}

/// Time until the node knows that a path carries too little.
pub(crate) const CHECK: Duration = Duration::from_secs(12);

/// Returns true if the error is due to a path that carries too little.
pub(crate) fn is_too_small(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error())
}

/// Returns the failure for a path that carries too little: `what` has ended, with `lost` as the damage.
pub(crate) fn carries_too_little(what: &str, lost: &str) -> Failure {
    Failure::new(
        format_args!("{what}: the path carries too little{lost}"),
        "give the tunnels and links between the machines an MTU of 1280 or more; peersock needs IP packets of \
         246 bytes at least",
    )
}

/// Returns true if machines of other networks cannot reach any of the addresses. Loopback addresses do not
/// count, because only tests and examples use them.
pub(crate) fn are_private(addresses: &[SocketAddr]) -> bool {
    let is_private = |address: &SocketAddr| {
        !address.ip().is_loopback()
            && !Candidate { kind: CandidateKind::Interface, address: *address }.is_global()
    };
    !addresses.is_empty() && addresses.iter().all(is_private)
}

/// Returns a clause about a root's part in the failure, if it has one. The cause is in it unless the user has
/// been told.
fn root_to_check(root: &RootStatus, told: &ToldRoots) -> Option<String> {
    if is_reached(root) {
        return None;
    }
    let name = root_watch::name(root);
    let is_registered = matches!(root.state, RootState::Registered | RootState::Draining);
    if !is_registered && told.has(root.id) {
        return Some(format!("{name} cannot be used, as said above; "));
    }
    // Earlier than that, the root may still answer.
    let found = match root.state {
        RootState::Unreachable if root.stream.is_none() => root_look::look(&root.endpoints),
        _ => Found::Nothing,
    };
    let clause = match root.state {
        RootState::Refused => format!("{name} refuses this node, it may require a token; "),
        RootState::Registered | RootState::Draining if root.directory_away => format!(
            "{name} was reached, and its directory does not answer: nodes at other roots are not found until \
             it does, ask the operator of the root to check its --directory; "
        ),
        _ if found == Found::StunServer => format!(
            "{name} answers, but not with the key that --root names: give the line that `peersock root` prints \
             there; "
        ),
        _ if found == Found::NoRoute => {
            format!("this machine has no route to {name}: check that it is connected to a network; ")
        }
        _ if root.stream.is_none() && are_private(&root.endpoints) => format!(
            "{name} does not answer: its address is private: to serve nodes outside its local network, start it with \
             --advertise and the public address of its machine, and give its new line; "
        ),
        _ => {
            let streams = match &root.stream_error {
                Some(error) => format!("by a stream it cannot be reached either ({error})"),
                // A root takes streams by default, and an older line may lack them.
                None => "if this network lets no UDP out, give a line of the root that has tcp: or wss:"
                    .to_owned(),
            };
            format!(
                "{name} does not answer, check that it runs and has the key that --root names; {streams}; "
            )
        }
    };
    if !is_registered {
        told.add(root.id);
    }
    Some(clause)
}

/// Returns a clause about a list's shortcomings and a remedy.
fn list(list: &RootListStatus) -> Option<String> {
    let RootListStatus { source, roots, error, .. } = list;
    let what_to_do = match *source == RootSource::Lan.to_string() {
        true => "start `peersock root --announce` there, or name a root by its key",
        false => "look at the domain's TXT records, or name a root by its key",
    };
    match error {
        Some(error) if *roots == 0 => Some(format!("no root is known from {source}: {error}, {what_to_do}")),
        Some(error) => Some(format!("the roots of {source} are those that it listed earlier: {error}")),
        None => None,
    }
}

/// Returns the reason why the DHT finds no peers, if it is known.
fn dht(dht: &DhtStatus) -> Option<String> {
    match &dht.error {
        Some(error) => Some(format!("the DHT cannot be used: {error}")),
        None if dht.nodes == 0 => Some(
            "no node of the DHT has answered, check that UDP leaves this network, or name others with --dht"
                .to_owned(),
        ),
        None => None,
    }
}

/// Returns the reason why a TURN server does not relay; `None` if it relays in one of the families.
fn turn_server(one: &TurnStatus, all: &[TurnStatus]) -> Option<String> {
    if all.iter().any(|other| other.server == one.server && other.relayed.is_some()) {
        return None;
    }
    // Reports IPv4 only, because it is tried first and most peers need it.
    match &one.error {
        Some(error) if one.family == "ipv4" => Some(format!(
            "the TURN server {} does not relay: {error}, check its text and ask its operator",
            one.server
        )),
        None if one.family == "ipv4" => {
            Some(format!("the TURN server {} has not answered, check that it runs there", one.server))
        }
        _ => None,
    }
}

/// Warns if the network's file gives this node another UDP port than it uses.
pub(crate) fn warn_of_other_port(network: &Network, status: &Status, asked: u16) {
    let members = network.members();
    let Some(own) = members.iter().find(|member| member.identity.node_id() == status.node_id) else { return };
    let named = network.endpoints_of(&own.identity);
    let port = |endpoint: &String| endpoint.rsplit_once(':')?.1.parse::<u16>().ok();
    let wanted: BTreeSet<u16> = named.iter().filter_map(port).collect();
    let used: BTreeSet<u16> = status.endpoints.iter().map(SocketAddr::port).collect();
    let Some(first) = wanted.first().filter(|_| wanted.is_disjoint(&used)) else { return };
    let ports = if used.len() == 1 { "port" } else { "ports" };
    let used: Vec<_> = used.iter().map(ToString::to_string).collect();
    // With a random port, a router cannot be set up to forward to it.
    let unless = if asked == 0 { "" } else { ", unless a router forwards that port to this one" };
    stdio::note(format_args!(
        "warning: the network's file says that this node is at {}, and it uses UDP {ports} {}: others do not \
         find it there; give --overlay-port {first}{unless}",
        named.join(" and "),
        used.join(" and ")
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_private_networks_alone_are_private() {
        let are_private = |addresses: &[&str]| {
            are_private(&addresses.iter().map(|address| address.parse().unwrap()).collect::<Vec<_>>())
        };
        assert!(are_private(&["10.1.2.3:7420", "[fd00::1]:7420", "100.64.0.1:7420"]));
        assert!(!are_private(&["10.1.2.3:7420", "203.0.113.10:7420"]));
        assert!(!are_private(&["127.0.0.1:7420"]));
        assert!(!are_private(&[]));
    }
}
