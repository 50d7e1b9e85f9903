//! The node that pings: the one that programs share, or one of this program.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use peersock::blocking::{Ping, Pong};
use peersock::management::{Probe, ProbeOutcome, Probed};
use peersock::overlay::NetworkId;
use peersock::{Network, NetworkStatus, Node, PeerStatus};

use crate::args::{has_port, managed_name, no_network, parse_host};
use crate::asked_node::AskedNode;
use crate::failure::{Failure, Outcome};
use crate::path::peer_at;
use crate::reach::{self, NamedServers};
use crate::root_watch::RootWatch;
use crate::running::RunningNode;
use crate::session::{self, Session};
use crate::{names, signals, waiting};

use super::Args;

/// Sender of echo requests to one member.
pub(super) trait Means {
    fn network(&self) -> NetworkId;

    fn address(&self) -> IpAddr;

    /// Returns the member's address, with its name if it has one.
    fn whom(&self) -> String;

    /// Waits until the member is found; returns its state. Unless `quiet`, prints what it waits for.
    fn find(&mut self, within: Option<Duration>, quiet: bool) -> Outcome<Option<PeerStatus>>;

    /// Sends a request and waits for its reply.
    fn echo(&self, request: &Request) -> Outcome<Echo>;

    /// Returns true if the path carries too little, after a last request that was lost.
    fn is_too_small(&self) -> bool;

    fn close(self: Box<Self>) -> Outcome;
}

/// An echo request.
pub(super) struct Request {
    pub(super) sequence: u64,
    pub(super) size: u16,
    pub(super) wait: Duration,
    /// True if no request follows.
    pub(super) is_last: bool,
}

/// Result of an echo request.
pub(super) struct Echo {
    pub(super) reply: Result<Pong, Lost>,
    /// True if the path is known to carry too little.
    pub(super) too_small: bool,
    /// State of the peer after it.
    pub(super) peer: Option<PeerStatus>,
}

/// Reason why there is no reply.
pub(super) enum Lost {
    TimedOut,
    Error(String),
}

/// Returns the node that programs share, or else one of this program. On Ctrl-C, `farewell` gets the signal,
/// and the node if it is this program's; it returns the exit status.
pub(super) fn means(
    args: &Args,
    farewell: impl FnOnce(i32, Option<&Node>) -> i32 + Send + 'static,
) -> Outcome<Box<dyn Means>> {
    let named = args.network.resolve_named()?;
    Ok(match AskedNode::is_there(&args.node, named.as_ref())? {
        true => Box::new(Asked::new(named, args, |signal| farewell(signal, None))?),
        false => {
            let network = named.ok_or_else(no_network)?;
            Box::new(Own::new(network, args, |signal, node| farewell(signal, Some(node)))?)
        }
    })
}

/// A member, as the command line names it.
enum Sought {
    At(IpAddr),
    /// In a managed network, where members know each other's names.
    Named(String),
}

impl Sought {
    /// Reads a member of a network. A mistake starts no node, which its peers would then miss.
    fn parse(network: &Network, text: &str) -> Outcome<Sought> {
        if let Some(name) = managed_name(network, text) {
            return Ok(Sought::Named(name));
        }
        let address = parse_host(network, text)?;
        session::check_address(network, address)?;
        Ok(Sought::At(address))
    }
}

/// A node of this program.
struct Own {
    session: Session,
    address: IpAddr,
    reach_timeout: Duration,
    ping: Option<Ping>,
    _roots: RootWatch,
}

impl Own {
    fn new(
        network: Network,
        args: &Args,
        farewell: impl FnOnce(i32, &Node) -> i32 + Send + 'static,
    ) -> Outcome<Own> {
        let (sought, reach_timeout) = (Sought::parse(&network, &args.address)?, args.node.reach_timeout());
        let networks = [network.clone()];
        let prepare = |node| args.node.beside(node, &networks);
        let session = Session::open_in(&args.node, network, prepare, farewell)?;
        let roots = session.watch_roots()?;
        let address = match sought {
            Sought::Named(name) => {
                let ask = || Ok(names::ask(&session.node, &session.network, &name));
                names::find(&session.network, &name, args.timeout.unwrap_or(reach_timeout), ask)?[0]
            }
            Sought::At(address) => address,
        };
        Ok(Own { session, address, reach_timeout, ping: None, _roots: roots })
    }

    fn carries(&self, within: Duration) -> bool {
        self.session.joined.check_path(self.address, within).is_ok()
    }
}

impl Means for Own {
    fn network(&self) -> NetworkId {
        self.session.network.id()
    }

    fn address(&self) -> IpAddr {
        self.address
    }

    fn whom(&self) -> String {
        names::called(&self.session.network, self.address)
    }

    fn find(&mut self, within: Option<Duration>, quiet: bool) -> Outcome<Option<PeerStatus>> {
        self.session.wait_peer(self.address, within.unwrap_or(self.reach_timeout), quiet)?;
        self.ping = Some(Ping::open_on(&self.session.node, self.address)?);
        Ok(peer_at(&self.session.node, self.address))
    }

    fn echo(&self, request: &Request) -> Outcome<Echo> {
        let payload: Vec<u8> = (0..request.size).map(|i| i as u8).collect();
        let ping = self.ping.as_ref().expect("opened when the member was found");
        // The sequence number on the wire has 16 bits; far fewer requests are in flight.
        let reply =
            ping.ping(request.sequence as u16, &payload, request.wait).map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => Lost::TimedOut,
                _ => Lost::Error(error.to_string()),
            });
        let too_small = reply.is_err() && !self.carries(Duration::ZERO);
        Ok(Echo { reply, too_small, peer: peer_at(&self.session.node, self.address) })
    }

    fn is_too_small(&self) -> bool {
        !self.carries(reach::CHECK)
    }

    fn close(self: Box<Self>) -> Outcome {
        self.session.close()
    }
}

/// The node that programs share.
struct Asked {
    node: AskedNode,
    /// The network as this program was told of it.
    named: Option<Network>,
    joined: NetworkStatus,
    address: IpAddr,
}

impl Asked {
    fn new(
        named: Option<Network>,
        args: &Args,
        farewell: impl FnOnce(i32) -> i32 + Send + 'static,
    ) -> Outcome<Asked> {
        let sought = named.as_ref().map(|network| Sought::parse(network, &args.address)).transpose()?;
        // Before there is a node, which others see.
        signals::end_with(farewell)?;
        let within = args.timeout.unwrap_or_else(|| args.node.reach_timeout());
        let node = AskedNode::open("ping", &args.node, named.as_ref(), within)?;
        let joined = node.running.network(named.as_ref())?.clone();
        let address = match (sought, &named) {
            (Some(Sought::Named(name)), Some(network)) => find_named(&node.running, &joined, network, &name)?,
            (Some(Sought::At(address)), _) => address,
            _ => host(&node.running, &joined, &args.address)?,
        };
        Ok(Asked { node, named, joined, address })
    }

    fn running(&self) -> &RunningNode {
        &self.node.running
    }

    fn probe(&self, timeout: Duration) -> Probe {
        let probe = Probe::new(self.joined.id, self.address, timeout);
        self.named.as_ref().map_or(probe, |network| probe.exactly(network))
    }

    fn name(&self) -> Option<String> {
        match &self.named {
            Some(network) => names::name_of(network, self.address).map(str::to_owned),
            None => {
                let mut peers = self.running().status.peers.iter();
                peers.find(|peer| self.is_it(peer)).and_then(|peer| peer.name.clone())
            }
        }
    }

    fn is_it(&self, peer: &PeerStatus) -> bool {
        peer.network == self.joined.id && peer.addresses.contains(&self.address)
    }

    fn nobody_answered(&self, within: Duration) -> Failure {
        // The node has learned more since it was found.
        let fresh = self.running().again();
        session::log_silence(fresh.status.peers.iter().find(|peer| self.is_it(peer)), self.address, within);
        let advice = self.node.advice(self.address).unwrap_or_else(|| self.advice(&fresh));
        reach::nobody_answered(self.joined.id, self.name().as_deref(), self.address, within, advice)
    }

    /// Returns advice by the node's status alone.
    fn advice(&self, fresh: &RunningNode) -> String {
        let sought = reach::Sought {
            status: &fresh.status,
            lists: &[],
            named: &NamedServers::default(),
            network: self.joined.id,
            by_file: self.joined.closed,
            secret: self.joined.secret,
            endpoints: self
                .named
                .as_ref()
                .map_or_else(Vec::new, |network| reach::endpoints(network, self.address)),
            address: self.address,
        };
        sought.advice()
    }

    fn failure(&self, probed: &Probed) -> Failure {
        match probed.outcome {
            ProbeOutcome::NoSuchMember => {
                reach::no_such_member(self.joined.id, self.joined.closed, self.address)
            }
            _ => self.running().probe_failure(probed, self.named.as_ref(), self.joined.id),
        }
    }
}

impl Means for Asked {
    fn network(&self) -> NetworkId {
        self.joined.id
    }

    fn address(&self) -> IpAddr {
        self.address
    }

    fn whom(&self) -> String {
        match self.name() {
            Some(name) => format!("{name} ({})", self.address),
            None => self.address.to_string(),
        }
    }

    fn find(&mut self, within: Option<Duration>, quiet: bool) -> Outcome<Option<PeerStatus>> {
        let within = within.unwrap_or_else(|| self.running().reach_timeout());
        let (status, whom, network) = (self.running().status.clone(), self.whom(), self.joined.id);
        let text = move || session::looking_for(&status, &whom, network, within);
        let _waiting = if quiet { None } else { Some(waiting::start(text)?) };
        let begin = Instant::now();
        loop {
            let probe = self.probe(within.saturating_sub(begin.elapsed()));
            let probed = self.running().reach(&probe)?;
            match probed.outcome {
                ProbeOutcome::Answered => return Ok(probed.peer),
                // One probe may be shorter than this.
                ProbeOutcome::Silent if begin.elapsed() < within => {}
                ProbeOutcome::Silent => return Err(self.nobody_answered(within)),
                _ => return Err(self.failure(&probed)),
            }
        }
    }

    fn echo(&self, request: &Request) -> Outcome<Echo> {
        let check = if request.is_last { reach::CHECK } else { Duration::ZERO };
        let probed = self.running().ping(&self.probe(request.wait), request.size, check)?;
        let reply = match (probed.outcome, probed.round_trip_ms) {
            (ProbeOutcome::Answered, Some(millis)) => Ok(Pong {
                round_trip: Duration::try_from_secs_f64(millis / 1e3).unwrap_or_default(),
                len: probed.bytes.unwrap_or_default(),
                hop_limit: probed.hop_limit.unwrap_or_default(),
            }),
            (ProbeOutcome::Silent | ProbeOutcome::PathTooSmall, _) => Err(Lost::TimedOut),
            (ProbeOutcome::Failed, _) if let Some(reason) = &probed.reason => {
                Err(Lost::Error(reason.clone()))
            }
            _ => return Err(self.failure(&probed)),
        };
        Ok(Echo { reply, too_small: probed.outcome == ProbeOutcome::PathTooSmall, peer: probed.peer })
    }

    fn is_too_small(&self) -> bool {
        // The answer to the last request has told it.
        false
    }

    fn close(self: Box<Self>) -> Outcome {
        signals::leave_to_cleanup();
        Ok(())
    }
}

/// Lets the running node find a member of a managed network by its name.
fn find_named(
    running: &RunningNode,
    joined: &NetworkStatus,
    network: &Network,
    name: &str,
) -> Outcome<IpAddr> {
    if joined.name.as_deref() == Some(name)
        && let Some(address) = joined.addresses.first()
    {
        return Ok(*address);
    }
    let found = running.find_named(joined.id, name, Some(network))?;
    let address = found.and_then(|peer| peer.addresses.first().copied());
    address.ok_or_else(|| names::no_member_named(network, name))
}

/// Returns the address that a text means in a network of the running node.
fn host(running: &RunningNode, joined: &NetworkStatus, text: &str) -> Outcome<IpAddr> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let own = joined.name.as_ref().filter(|own| own.eq_ignore_ascii_case(text));
    let addresses = match own {
        Some(_) => Some(&joined.addresses),
        None => running.member_named(joined.id, text).map(|peer| &peer.addresses),
    };
    match addresses.and_then(|addresses| addresses.first()) {
        Some(address) => Ok(*address),
        None if has_port(text) => Err(Failure::usage(
            format_args!("`{text}` has a port, and a member's address has none"),
            "leave the port out, and the brackets with it",
        )),
        None => Err(Failure::usage(
            format_args!(
                "`{text}` is neither an IP address nor the name of a member of network {}, the network of \
                 the running node",
                joined.id
            ),
            "list its members with `peersock members`",
        )),
    }
}
