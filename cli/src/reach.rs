//! What keeps this node from finding others, or others from finding it, as far as its settings show.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use peersock::{Node, RootListStatus, RootSource, TurnStatus};

use crate::args::NodeArgs;
use crate::session::Session;
use crate::stdio;

/// What the options and the environment say of servers, and the node's status does not.
pub(crate) struct Named {
    turn: bool,
    has_empty_roots: bool,
}

impl Named {
    pub(crate) fn of(args: &NodeArgs) -> Named {
        Named { turn: args.names_turn(), has_empty_roots: args.has_empty_roots() }
    }

    /// What lists of roots and TURN servers have to do with it that nobody is found: a clause for each, with
    /// a semicolon behind it.
    pub(crate) fn to_check(&self, node: &Node) -> String {
        let mut said: Vec<String> = node.root_lists().iter().filter_map(list).collect();
        if self.has_empty_roots {
            said.push(
                "PEERSOCK_ROOTS is set and empty, so that no root is asked, unset it or give --root"
                    .to_owned(),
            );
        }
        let turn = node.status().turn;
        if self.turn && turn.is_empty() {
            let why =
                "no TURN server is asked: without a root or --dht nobody learns of its address, give one";
            said.push(why.to_owned());
        }
        // Two families of one server mostly fail for the same reason.
        let failed: BTreeSet<_> = turn.iter().filter_map(|one| turn_server(one, &turn)).collect();
        said.extend(failed);
        said.into_iter().map(|clause| clause + "; ").collect()
    }
}

/// What a list lacks, and what to do about it.
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

/// Why a TURN server does not relay; `None` if it does in one of the families.
fn turn_server(one: &TurnStatus, all: &[TurnStatus]) -> Option<String> {
    if all.iter().any(|other| other.server == one.server && other.relayed.is_some()) {
        return None;
    }
    // IPv4 is asked first, and what most peers need.
    match &one.error {
        Some(error) if one.family == "ipv4" => Some(format!(
            "the TURN server {} does not relay: {error}, check its text and ask who runs it",
            one.server
        )),
        None if one.family == "ipv4" => {
            Some(format!("the TURN server {} has not answered, look whether it runs there", one.server))
        }
        _ => None,
    }
}

/// Says that others look for this node at another UDP port than it has, if the network's file says so.
pub(crate) fn warn_of_other_port(session: &Session, asked: u16) {
    let id = session.node.id();
    let members = session.network.members();
    let Some(own) = members.iter().find(|member| member.identity.node_id() == id) else { return };
    let named = session.network.endpoints_of(&own.identity);
    let port = |endpoint: &String| endpoint.rsplit_once(':')?.1.parse::<u16>().ok();
    let wanted: BTreeSet<u16> = named.iter().filter_map(port).collect();
    let used: BTreeSet<u16> = session.node.status().endpoints.iter().map(SocketAddr::port).collect();
    let Some(first) = wanted.first().filter(|_| wanted.is_disjoint(&used)) else { return };
    let ports = if used.len() == 1 { "port" } else { "ports" };
    let used: Vec<_> = used.iter().map(ToString::to_string).collect();
    // Nobody can have a router forward a port to one that is drawn by lot.
    let unless = if asked == 0 { "" } else { ", unless a router forwards that port to this one" };
    stdio::note(format_args!(
        "warning: the network's file says that this node is at {}, and it uses UDP {ports} {}: others do not \
         find it there; give --overlay-port {first}{unless}",
        named.join(" and "),
        used.join(" and ")
    ));
}
