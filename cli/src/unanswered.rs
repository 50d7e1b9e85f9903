//! Messages about members that do not answer the program's connections or datagrams.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock::overlay::NetworkId;
use peersock::{Network, Node, Unanswered};

use crate::line_limit::LineLimit;
use crate::names;
use crate::reach::{NamedServers, what_to_check};
use crate::stdio;

/// Minimum interval between two lines about one address, because many programs retry.
const REPEAT_INTERVAL: Duration = Duration::from_secs(300);

/// Maximum number of remembered addresses.
const MAX_ADDRESSES: usize = 1024;

/// Prints messages until [`Node::unanswered`] is called again, which ends the receiver.
pub(crate) fn start(node: &Node, networks: Vec<Network>, named: NamedServers) -> io::Result<JoinHandle<()>> {
    let (unanswered, node) = (node.unanswered(), node.clone());
    thread::Builder::new().name("unanswered".into()).spawn(move || {
        let mut messages = UnansweredMessages::default();
        for one in unanswered {
            let described = networks.iter().find(|described| described.id() == one.network);
            let line = described.and_then(|described| messages.tell_about(&node, described, &named, one));
            line.into_iter().for_each(stdio::note);
        }
    })
}

fn line(node: &Node, described: &Network, named: &NamedServers, one: Unanswered) -> String {
    let Unanswered { network, address, .. } = one;
    format!(
        "{} does not answer in network {network}, to which the program connects or sends: {}",
        names::called(described, address),
        what_to_check(node, described, named, address)
    )
}

/// Filter of messages about unanswered members.
#[derive(Default)]
pub(crate) struct UnansweredMessages {
    last_message: BTreeMap<(NetworkId, IpAddr), Instant>,
    limit: LineLimit,
}

impl UnansweredMessages {
    /// Returns the line about a member that does not answer, unless there was one lately.
    pub(crate) fn tell_about(
        &mut self,
        node: &Node,
        described: &Network,
        named: &NamedServers,
        one: Unanswered,
    ) -> Option<String> {
        self.tell(Instant::now(), one, || line(node, described, named, one))
    }

    fn tell(&mut self, now: Instant, one: Unanswered, line: impl FnOnce() -> String) -> Option<String> {
        let key = (one.network, one.address);
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < REPEAT_INTERVAL;
        if self.last_message.get(&key).is_some_and(is_recent) {
            return None;
        }
        let line = self.limit.pass(now, line)?;
        if self.last_message.len() >= MAX_ADDRESSES {
            self.last_message.retain(|_, at| is_recent(at));
        }
        if self.last_message.len() < MAX_ADDRESSES {
            self.last_message.insert(key, now);
        }
        Some(line)
    }
}
