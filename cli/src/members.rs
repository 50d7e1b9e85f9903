//! `peersock members`

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use peersock::management::{self, ManagementError};
use peersock::{
    Conflict, IdentitySource, Network, NetworkStatus, Node, PeerStatus, Presence, RootSource, Status,
};
use serde::Serialize;

use crate::args::{NodeArgs, OptionalNetworkArgs, parse_seconds};
use crate::failure::{Failure, Outcome};
use crate::output::{note, print};
use crate::session::interfaces;
use crate::signals;
use crate::status::{conflict, difference, last_sign, parse};
use crate::style::{BOLD, ERROR, paint};

/// List the members of a network, with the address to dial first
///
/// If a node runs with the state directory, that node lists the members it knows in its networks. Otherwise,
/// or with --ephemeral, a beacon on the local networks asks for members, and those that answer within --wait
/// are listed; they do not learn who asked. Roots and the DHT are not asked, because they find members by
/// address and list none. Of a static network all members are listed, even without an answer, and only a
/// member can ask. A `known` member was heard of but has no session with the asked node. It says no goodbye,
/// so it may have ended up to two minutes ago. The exit status is 0 even without an answer: then the list is
/// empty, and lines on stderr name the things to check.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock members
  peersock members --ephemeral -n ff0001ffff000000
  peersock members -n office.toml --wait 5
  peersock members --json | jq -r '.networks[].members[] | select(.state == \"connected\") | .address'")]
pub(crate) struct Args {
    #[command(flatten)]
    network: OptionalNetworkArgs,

    #[command(flatten)]
    node: NodeArgs,

    /// Wait SECONDS for answers if no running node is asked
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "3")]
    wait: Duration,

    /// Also list members that are gone
    #[arg(long)]
    all: bool,

    /// Print one JSON object; docs/use/STATUS.md explains the fields
    #[arg(long)]
    json: bool,
}

/// Hint if no member answers.
const HINT: &str = "hint: start a node in this network, for example with `peersock listen`; if one runs, \
                    check that it has the same network and secret, run `peersock netcheck` on both machines, \
                    or give it more time with --wait";

pub(crate) fn run(args: &Args) -> Outcome {
    let network = args.network.resolve()?;
    let mut list = match ask_running_node(args, network.as_ref())? {
        Some(list) => list,
        None => match &network {
            Some(network) => ask_around(args, network)?,
            None => {
                return Err(Failure::usage(
                    "no node is running with this state directory, and no network is named",
                    "give -n NETWORK to ask in that network, or the --state DIR of a node that runs",
                ));
            }
        },
    };
    if !args.all {
        list.networks.iter_mut().for_each(Members::leave_out_the_gone);
    }
    if args.json {
        return print(serde_json::to_string(&list).map_err(std::io::Error::other)?);
    }
    if list.networks.iter().any(|network| !network.members.is_empty()) {
        print(list.table())?;
    }
    list.networks.iter().for_each(|network| note(network.summary(list.source)));
    if list.source == Source::Beacons && list.networks.iter().all(Members::is_silent) {
        note(HINT);
    }
    if list.source == Source::Beacons && args.node.names_meeting_place() {
        note(
            "roots and the DHT were not asked, because they find members only by address; `peersock ping` \
             finds a member there, and a running node lists the members that it knows",
        );
    }
    Ok(())
}

/// Queries the node that runs with the state directory. Returns `None` if none runs, or if it cannot answer
/// and other sources can.
fn ask_running_node(args: &Args, network: Option<&Network>) -> Outcome<Option<List>> {
    if args.node.state.ephemeral {
        return Ok(None);
    }
    let path = args.node.state.path()?;
    let text = match management::status(&path, usize::MAX) {
        Ok(text) => text,
        Err(ManagementError::NotRunning { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut answer = parse(&text)?;
    if let Some(difference) = difference(&answer) {
        note(difference);
    }
    if let Some(network) = network {
        let id = network.id();
        answer.networks.retain(|joined| joined.id == id);
        if answer.networks.is_empty() {
            // In a closed network only a member's identity can ask, and the running node holds it.
            return match network.summary().closed {
                false => Ok(None),
                true => Err(Failure::new(
                    format_args!("the node at {} has not joined network {id}", path.display()),
                    "give the --state DIR of another member, or stop that node and ask again",
                )),
            };
        }
    }
    Ok(Some(List::new(&answer, Source::Node)))
}

/// Joins the network for a while and listens for answers, without announcing this node.
fn ask_around(args: &Args, network: &Network) -> Outcome<List> {
    let closed = network.summary().closed;
    // In an open network any identity may ask, and peers do not learn it.
    let identity = match closed && !args.node.state.ephemeral {
        true => IdentitySource::StateDir(args.node.state.path()?),
        false => IdentitySource::Ephemeral,
    };
    let node = Node::builder()
        .identity(identity)
        .interfaces(interfaces(&args.node.interfaces))
        .port(args.node.overlay_port)
        .introduce(false)
        // Uses no roots, because they would learn about this node.
        .roots(Vec::<RootSource>::new())
        .start()?;
    let interrupted = node.clone();
    signals::end_after(move || {
        interrupted.shutdown(Duration::ZERO);
    })?;
    node.join(network.clone())?;
    thread::sleep(args.wait);
    let status = node.status();
    node.shutdown(Duration::ZERO);
    let mut list = List::new(&status, Source::Beacons);
    if !closed {
        // Removes this node, because its identity exists only for this query.
        list.networks.iter_mut().for_each(|network| network.members.retain(|m| m.state != Standing::This));
    }
    Ok(list)
}

/// The source of a list.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    /// A running node.
    Node,
    /// Answers to this program's beacons.
    Beacons,
}

/// The members of several networks.
#[derive(Serialize)]
struct List {
    source: Source,
    networks: Vec<Members>,
}

/// The members of one network.
#[derive(Serialize)]
struct Members {
    id: String,
    kind: String,
    /// True if only certain nodes are admitted.
    #[serde(skip)]
    closed: bool,
    members: Vec<Member>,
    /// Number of members not listed, because there are too many or they are gone.
    omitted: usize,
}

#[derive(Serialize)]
struct Member {
    /// Address to dial.
    address: Option<IpAddr>,
    addresses: Vec<IpAddr>,
    name: Option<String>,
    id: String,
    state: Standing,
    last_seen_s: Option<f64>,
    last_heard_s: Option<f64>,
    /// Another node with the same identity, if one was seen.
    conflict: Option<Conflict>,
    /// Text about the last sign of the member, for people.
    #[serde(skip)]
    sign: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    /// The queried node.
    This,
    /// A member with a session.
    Connected,
    /// A member that was heard of, and is not gone.
    Known,
    /// A member that answered just now.
    Answered,
    /// A member of the network's file of which nothing was heard.
    Silent,
    /// A member that said goodbye or fell silent.
    Gone,
}

impl Standing {
    fn text(self) -> &'static str {
        match self {
            Standing::This => "this node",
            Standing::Connected => "connected",
            Standing::Known => "known",
            Standing::Answered => "answered",
            Standing::Silent => "silent",
            Standing::Gone => "gone",
        }
    }
}

impl List {
    fn new(answer: &Status, source: Source) -> List {
        List { source, networks: answer.networks.iter().map(|n| Members::new(answer, n, source)).collect() }
    }

    /// Returns a line for each member; with several networks each line ends with the network.
    fn table(&self) -> String {
        let rows = self.networks.iter().flat_map(|network| network.members.iter().map(move |m| (network, m)));
        let rows: Vec<_> = rows.collect();
        let address = |member: &Member| member.address.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        let width =
            |text: fn(&Member) -> usize| rows.iter().map(|(_, member)| text(member)).max().unwrap_or(0);
        let (names, signs) = (width(|m| m.name().chars().count()), width(|m| m.sign.chars().count()));
        let addresses = rows.iter().map(|(_, member)| address(member).len()).max().unwrap_or(0);
        let mut table = String::new();
        for (network, member) in &rows {
            // Pads separately, because escape codes would count as width.
            let padding = " ".repeat(addresses - address(member).len());
            let (shown, name, state) = (paint(BOLD, address(member)), member.name(), member.state.text());
            let mut line = format!("{shown}{padding}  {name:<names$}  {state:<9}  {:<signs$}", member.sign);
            if let [_, others @ ..] = &member.addresses[..]
                && !others.is_empty()
            {
                let others: Vec<_> = others.iter().map(IpAddr::to_string).collect();
                let _ = write!(line, "  also {}", others.join(", "));
            }
            if let Some(other) = &member.conflict {
                let _ = write!(line, "  {}", paint(ERROR, conflict(other)));
            }
            if self.networks.len() > 1 {
                let _ = write!(line, "  in {}", network.id);
            }
            let separator = if table.is_empty() { "" } else { "\n" };
            let _ = write!(table, "{separator}{}", line.trim_end());
        }
        table
    }
}

impl Members {
    fn new(answer: &Status, network: &NetworkStatus, source: Source) -> Members {
        let this = Member {
            address: network.addresses.first().copied(),
            addresses: network.addresses.clone(),
            name: network.name.clone(),
            id: answer.node_id.to_string(),
            state: Standing::This,
            last_seen_s: None,
            last_heard_s: None,
            conflict: answer.conflict,
            sign: String::new(),
        };
        let peers = answer.peers.iter().filter(|peer| peer.network == network.id);
        let peers: Vec<_> = peers.map(|peer| Member::new(peer, source)).collect();
        let omitted = network.peers.saturating_sub(peers.len());
        let mut members: Vec<_> = std::iter::once(this).chain(peers).collect();
        members.sort_by(Member::order);
        Members {
            id: network.id.to_string(),
            kind: network.kind.to_string(),
            closed: network.closed,
            members,
            omitted,
        }
    }

    /// Removes members that are gone, except in closed networks, whose members are expected back.
    fn leave_out_the_gone(&mut self) {
        let before = self.members.len();
        if !self.closed {
            self.members.retain(|member| member.state != Standing::Gone);
        }
        self.omitted += before - self.members.len();
    }

    /// Returns true if no member has answered.
    fn is_silent(&self) -> bool {
        !self.members.iter().any(|member| member.state == Standing::Answered)
    }

    fn summary(&self, source: Source) -> String {
        let count = |states: &[Standing]| self.members.iter().filter(|m| states.contains(&m.state)).count();
        let mut text = match source {
            Source::Beacons => match count(&[Standing::Answered]) {
                0 => format!("no member answered in network {} on the local networks", self.id),
                1 => format!("1 member answered in network {} on the local networks", self.id),
                many => format!("{many} members answered in network {} on the local networks", self.id),
            },
            Source::Node => {
                let connected = count(&[Standing::Connected]);
                let known = count(&[Standing::Known]);
                format!("{connected} connected and {known} known in network {}", self.id)
            }
        };
        if self.omitted > 0 {
            let _ = write!(text, "; {} not listed (--all lists them)", self.omitted);
        }
        text
    }
}

impl Member {
    fn new(peer: &PeerStatus, source: Source) -> Member {
        let heard = peer.last_seen_s.is_some() || peer.last_heard_s.is_some();
        let state = match (peer.state, source) {
            (Presence::Connected, Source::Node) => Standing::Connected,
            (Presence::Gone, _) => Standing::Gone,
            _ if !heard => Standing::Silent,
            (_, Source::Beacons) => Standing::Answered,
            (_, Source::Node) => Standing::Known,
        };
        Member {
            address: peer.addresses.first().copied(),
            addresses: peer.addresses.clone(),
            name: peer.name.clone(),
            id: peer.id.to_string(),
            state,
            last_seen_s: peer.last_seen_s,
            last_heard_s: peer.last_heard_s,
            conflict: peer.conflict,
            sign: if source == Source::Node { last_sign(peer) } else { String::new() },
        }
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("-")
    }

    /// Orders members, those with names first.
    fn order(&self, other: &Member) -> Ordering {
        let key = |member: &Member| (member.name.is_none(), member.name.clone(), member.address);
        key(self).cmp(&key(other))
    }
}
