//! `peersock members`

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use peersock::management::Probe;
use peersock::overlay::NetworkId;
use peersock::state::StateError;
use peersock::{
    Conflict, IdentitySource, Network, NetworkStatus, Node, PeerStatus, RootSource, StartError, Status,
};
use serde::Serialize;
use serde_json::Value;

use crate::args::{OptionalNetworkArgs, SharedNodeArgs, managed_state, parse_seconds};
use crate::asked_node::AskedNode;
use crate::failure::{Failure, Outcome};
use crate::output::{note, print};
use crate::path::Path;
use crate::running::RunningNode;
use crate::session::interfaces;
use crate::standing::{self, Counts, Standing};
use crate::status::{self, conflict, counted};
use crate::style::{BOLD, ERROR, paint};
use crate::{in_use, managed, signals, waiting};

/// Time for which a sign of a member still proves that it is there, seconds: the node does not ask it again.
const RECENT_S: f64 = 3.0;

/// Time to say goodbye to the members that were asked.
const GOODBYE: Duration = Duration::from_millis(300);

/// List the members of a network, and who of them is online
///
/// If a node runs with the state directory, it gives the members of its networks. All members of a
/// static network are asked by the node that programs share, which this command starts if none runs: they are
/// online if they answer within --wait. Roots and the DHT find them, too. Of a managed network, these are the
/// members that this machine has met: its controller lists all (`peersock network members`). The members of
/// an ad-hoc network are the ones that the running node has heard of within two minutes, even if no session
/// with them exists. Without a running node, or with --ephemeral, a beacon on the local networks asks for
/// members of an ad-hoc network; those that answer do not learn who asked. Roots and the DHT list no members
/// there. The exit status is 0 even without an answer: then the list is empty, and lines on stderr name the
/// things to check.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock members
  peersock members --ephemeral -n ff0001ffff000000
  peersock members -n office.toml --wait 5
  peersock members --json | jq -r '.networks[].members[] | select(.state == \"online\") | .address'")]
pub(crate) struct Args {
    #[command(flatten)]
    network: OptionalNetworkArgs,

    #[command(flatten)]
    node: SharedNodeArgs,

    /// Wait up to SECONDS for answers of members
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "3")]
    wait: Duration,

    /// Also list members of ad-hoc networks that are offline
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
    let mut list = list(args, network.as_ref())?;
    if !args.all {
        list.networks.iter_mut().for_each(Members::leave_out_the_gone);
    }
    if args.json {
        return print(serde_json::to_string(&list).map_err(io::Error::other)?);
    }
    if list.networks.iter().any(|network| !network.members.is_empty()) {
        print(list.table())?;
    }
    list.networks.iter().for_each(|network| note(network.summary(list.source)));
    let nobody =
        list.source != Source::Node && list.networks.iter().all(|one| one.count(Standing::Online) == 0);
    match list.networks.iter().any(|network| network.kind == "managed") {
        true => list.networks.iter().for_each(Members::tell_of_controller),
        false if nobody => note(HINT),
        false => {}
    }
    let names_place = args.node.names_meeting_place();
    match list.source {
        Source::Beacons if names_place => note(
            "roots and the DHT were not asked, because they find members only by address; `peersock ping` \
             finds a member there, and a running node lists the members that it knows",
        ),
        Source::OwnNode if nobody && list.is_static() && !list.asks_elsewhere && !names_place => note(
            "only the local networks and endpoints in the network's file were tried; --root or --dht finds \
             members elsewhere",
        ),
        _ => {}
    }
    Ok(())
}

/// Lists the members by the node that can ask them.
fn list(args: &Args, network: Option<&Network>) -> Outcome<List> {
    let had_it = network.is_some_and(|network| is_joined(args, network.id()));
    // Only a member's identity can ask in a closed network. In an open one, no member has to learn who asks.
    let closed = network.filter(|network| network.summary().closed);
    match network {
        Some(network) if closed.is_none() && !had_it => return ask_around(args, network),
        _ => {}
    }
    match (AskedNode::is_there(&args.node, closed)?, closed) {
        (true, _) => list_of_node(args, network, closed, had_it),
        (false, Some(network)) => ask_by_own_node(args, network),
        (false, None) => Err(Failure::usage(
            "no node is running with this state directory, and no network is named",
            "give -n NETWORK to ask in that network, or the --state DIR of a node that runs",
        )),
    }
}

/// Returns true if the node that runs with the state directory has a network.
fn is_joined(args: &Args, network: NetworkId) -> bool {
    let running = RunningNode::find_quietly(&args.node.state);
    running.is_some_and(|running| running.status.networks.iter().any(|joined| joined.id == network))
}

/// Asks the node that programs share. For this command, it joins the closed network if it has not yet.
fn list_of_node(
    args: &Args,
    network: Option<&Network>,
    closed: Option<&Network>,
    had_it: bool,
) -> Outcome<List> {
    signals::end_after(|| ())?;
    let mut asked = AskedNode::open("members", &args.node, closed, Duration::MAX)?;
    let Some(network) = network else { return ask_members(&asked.running, None, args.wait, Source::Node) };
    if !had_it && network.id().is_managed() {
        // This node has no list of its members to ask. Members that are near say themselves who they are.
        thread::sleep(args.wait);
    }
    asked.running.network(Some(network))?;
    asked.running.status.networks.retain(|joined| joined.id == network.id());
    let source = if had_it { Source::Node } else { Source::OwnNode };
    ask_members(&asked.running, Some(network), args.wait, source)
}

/// Lets a running node ask the members of its static networks; lists the members of all its networks.
fn ask_members(
    running: &RunningNode,
    named: Option<&Network>,
    wait: Duration,
    source: Source,
) -> Outcome<List> {
    let is_asked = |network: &&NetworkStatus| network.closed && network.peers > 0;
    let networks: Vec<_> =
        running.status.networks.iter().filter(is_asked).map(|network| network.id).collect();
    if networks.is_empty() {
        return Ok(List::new(&running.status, source, None));
    }
    let count: usize = running.status.networks.iter().filter(is_asked).map(|network| network.peers).sum();
    let text = move || format!("asking {}, for up to {} s", counted(count, "member"), wait.as_secs_f64());
    let waiting = waiting::start(text)?;
    let begin = Instant::now();
    let asked = thread::scope(|scope| {
        let ask = |network| {
            let probe = Probe::of_members(network, wait);
            let probe = named.map_or(probe, |network| probe.exactly(network));
            running.ask_members(&probe, named)
        };
        let begin = |network: &NetworkId| {
            let network = *network;
            thread::Builder::new().name("asking".into()).spawn_scoped(scope, move || ask(network))
        };
        let threads = networks.iter().map(begin).collect::<io::Result<Vec<_>>>()?;
        let asked = threads.into_iter().map(|thread| thread.join().expect("no panic while asking"));
        asked.collect::<Outcome<Vec<_>>>()
    });
    drop(waiting);
    let is_asked = asked?.into_iter().all(|is_asked| is_asked);
    if !is_asked {
        note("the running node is older than this program: its members were not asked");
    }
    let fresh = running.again();
    let mut status = fresh.status;
    status.networks.retain(|joined| running.status.networks.iter().any(|one| one.id == joined.id));
    let asked_s = is_asked.then(|| begin.elapsed().as_secs_f64() + RECENT_S);
    Ok(List::new(&status, source, asked_s))
}

/// Joins a static network for a while, and asks its members.
fn ask_by_own_node(args: &Args, network: &Network) -> Outcome<List> {
    let identity = match args.node.state.ephemeral {
        true => IdentitySource::Ephemeral,
        false => IdentitySource::StateDir(args.node.state.path()?),
    };
    let networks = std::slice::from_ref(network);
    let node = Node::builder().identity(identity).interfaces(interfaces(&args.node.interfaces));
    let node = args.node.beside(node.port(args.node.overlay_port).introduce(false), networks)?;
    let node = args.node.with_roots(node)?.start().map_err(|error| match error {
        StartError::State(StateError::InUse { path, holder }) => {
            in_use::for_own_node(&path, holder, networks)
        }
        error => error.into(),
    })?;
    let interrupted = node.clone();
    signals::end_after(move || {
        interrupted.shutdown(Duration::ZERO);
    })?;
    node.join(network.clone())?;
    if network.id().is_managed() {
        // This node has no list of its members to ask. Members that are near say themselves who they are.
        thread::sleep(args.wait);
    }
    let asked = RunningNode::of(args.node.state.path()?, node.status());
    let list = ask_members(&asked, Some(network), args.wait, Source::OwnNode);
    node.shutdown(GOODBYE);
    list
}

/// Joins an ad-hoc network for a while and listens for answers, without announcing this node.
fn ask_around(args: &Args, network: &Network) -> Outcome<List> {
    let node = Node::builder()
        // Any identity may ask, and peers do not learn it.
        .identity(IdentitySource::Ephemeral)
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
    let mut list = List::new(&status, Source::Beacons, None);
    // Removes this node, because its identity exists only for this query.
    list.networks.iter_mut().for_each(|network| network.members.retain(|m| m.state != Standing::This));
    Ok(list)
}

/// The source of a list.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Source {
    /// A running node.
    Node,
    /// A node that has joined the network for this command, and has asked each member.
    OwnNode,
    /// Answers to this program's beacons.
    Beacons,
}

/// The members of several networks.
#[derive(Serialize)]
struct List {
    source: Source,
    /// True if the node asks roots or a DHT, too.
    #[serde(skip)]
    asks_elsewhere: bool,
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
    /// True if these are all members, and not the ones that this machine knows. A managed network's
    /// controller alone lists all.
    complete: bool,
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
    /// Node ID of its machine, if it is a program with its own keys.
    machine: Option<String>,
    /// Label of such a program.
    label: Option<String>,
    state: Standing,
    /// Path of its packets, as of `peersock ping`.
    path: Option<Value>,
    last_seen_s: Option<f64>,
    last_heard_s: Option<f64>,
    /// Another node with the same identity, if one was seen.
    conflict: Option<Conflict>,
    /// Name for people.
    #[serde(skip)]
    shown: String,
    /// Path or last sign of the member, for people.
    #[serde(skip)]
    detail: String,
}

/// Length of the longest text of a [`Standing`].
const NEVER_SEEN_LEN: usize = "never seen".len();

impl List {
    /// Lists the members in a node's answer. The ones of static networks were asked within the last `asked_s`
    /// seconds.
    fn new(answer: &Status, source: Source, asked_s: Option<f64>) -> List {
        let members =
            |network: &NetworkStatus| Members::new(answer, network, asked_s.filter(|_| network.closed));
        let asks_elsewhere = !answer.roots.is_empty() || answer.dht.is_some();
        List { source, asks_elsewhere, networks: answer.networks.iter().map(members).collect() }
    }

    fn is_static(&self) -> bool {
        self.networks.iter().all(|network| network.kind == "static")
    }

    /// Returns a line for each member; with several networks each line ends with the network.
    fn table(&self) -> String {
        let rows = self.networks.iter().flat_map(|network| network.members.iter().map(move |m| (network, m)));
        let rows: Vec<_> = rows.collect();
        let address = |member: &Member| member.address.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        let width =
            |text: fn(&Member) -> usize| rows.iter().map(|(_, member)| text(member)).max().unwrap_or(0);
        let (names, details) = (width(|m| m.shown.chars().count()), width(|m| m.detail.chars().count()));
        let addresses = rows.iter().map(|(_, member)| address(member).len()).max().unwrap_or(0);
        let mut table = String::new();
        for (network, member) in &rows {
            // Pads separately, because escape codes would count as width.
            let padding = " ".repeat(addresses - address(member).len());
            let (shown, name) = (paint(BOLD, address(member)), &member.shown);
            let state = member.state.to_string();
            let rest = " ".repeat(NEVER_SEEN_LEN.saturating_sub(state.len()));
            let state = paint(member.state.style(), state);
            let mut line =
                format!("{shown}{padding}  {name:<names$}  {state}{rest}  {:<details$}", member.detail);
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
    fn new(answer: &Status, network: &NetworkStatus, asked_s: Option<f64>) -> Members {
        let this = Member {
            address: network.addresses.first().copied(),
            addresses: network.addresses.clone(),
            name: network.name.clone(),
            shown: network.name.clone().unwrap_or_else(|| "-".to_owned()),
            id: answer.node_id.to_string(),
            machine: None,
            label: None,
            state: Standing::This,
            path: None,
            last_seen_s: None,
            last_heard_s: None,
            conflict: answer.conflict,
            detail: String::new(),
        };
        // Who has shown no certificate of a managed network is no member. Who was removed is none any more,
        // and is listed only while it is connected.
        let is_member = |peer: &&PeerStatus| match standing::is_removed(peer) {
            true => peer.connected,
            false => network.kind != "managed" || peer.name.is_some(),
        };
        let peers = answer.peers.iter().filter(|peer| peer.network == network.id).filter(is_member);
        let peers: Vec<_> = peers.map(|peer| Member::new(peer, asked_s)).collect();
        let omitted = match &*network.kind {
            "managed" => 0,
            _ => network.peers.saturating_sub(peers.len()),
        };
        let mut members: Vec<_> = std::iter::once(this).chain(peers).collect();
        members.sort_by(Member::order);
        Members {
            id: network.id.to_string(),
            kind: network.kind.to_string(),
            closed: network.closed,
            members,
            complete: network.kind == "static" && omitted == 0,
            omitted,
        }
    }

    /// Removes members that are offline, except in closed networks, whose members are expected back.
    fn leave_out_the_gone(&mut self) {
        let before = self.members.len();
        if !self.closed {
            self.members.retain(|member| member.state != Standing::Offline);
        }
        self.omitted += before - self.members.len();
    }

    /// Tells who knows all members of a managed network.
    fn tell_of_controller(&self) {
        let Some(id) = self.id.parse().ok().filter(|_| self.kind == "managed") else { return };
        match managed::is_controller_of(&managed_state(), id) {
            true => note(format_args!("all members are in the list of `peersock network members -n {id}`")),
            false => note(
                "these are the members that this machine has met; the network's controller lists all, with \
                 `peersock network members` on its machine",
            ),
        }
    }

    fn count(&self, state: Standing) -> usize {
        self.members.iter().filter(|member| member.state == state).count()
    }

    fn summary(&self, source: Source) -> String {
        let online = self.count(Standing::Online);
        let mut text = match (source, online) {
            (Source::Beacons, 0) => {
                format!("no member answered in network {} on the local networks", self.id)
            }
            (Source::Beacons, _) => {
                format!("{} answered in network {} on the local networks", counted(online, "member"), self.id)
            }
            _ => {
                let (programs, members): (Vec<_>, Vec<_>) =
                    self.members.iter().partition(|member| member.machine.is_some());
                let counts = Counts::sum(members.iter().map(|member| member.state));
                let programs = match programs.len() {
                    0 => String::new(),
                    count => format!(", with {}", counted(count, "program")),
                };
                format!("{counts}{programs} in network {}", self.id)
            }
        };
        if self.omitted > 0 {
            let _ = write!(text, "; {} not listed (--all lists them)", self.omitted);
        }
        text
    }
}

impl Member {
    fn new(peer: &PeerStatus, asked_s: Option<f64>) -> Member {
        let state = asked_s.map_or_else(|| Standing::of(peer), |asked_s| Standing::of_asked(peer, asked_s));
        Member {
            address: peer.addresses.first().copied(),
            addresses: peer.addresses.clone(),
            name: peer.name.clone(),
            shown: status::name(peer).unwrap_or_else(|| "-".to_owned()),
            id: peer.id.to_string(),
            machine: peer.machine.map(|machine| machine.to_string()),
            label: peer.label.clone(),
            state,
            last_seen_s: peer.last_seen_s,
            last_heard_s: peer.last_heard_s,
            conflict: peer.conflict,
            path: Path::of(peer).filter(|_| state == Standing::Online).map(|path| path.json()),
            detail: standing::detail(peer, state),
        }
    }

    /// Orders members, those with names first, each before its programs.
    fn order(&self, other: &Member) -> Ordering {
        let key = |member: &Member| {
            let of_program = (member.machine.is_some(), member.label.clone());
            (member.name.is_none(), member.name.clone(), of_program, member.address)
        };
        key(self).cmp(&key(other))
    }
}
