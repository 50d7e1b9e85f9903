//! Says that members to which the program connects or sends do not answer.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock::overlay::NetworkId;
use peersock::{Network, Node, Unanswered};

use crate::names;
use crate::rarely::Rarely;
use crate::reach::{Named, what_to_check};
use crate::stdio;

/// Of the same address it is said so often at most: many programs try again and again.
const AGAIN: Duration = Duration::from_secs(300);

/// Most addresses that are remembered.
const MOST: usize = 1024;

/// Says it until another takes its place as the receiver of [`Node::unanswered`].
pub(super) fn start(node: &Node, networks: Vec<Network>, named: Named) -> io::Result<JoinHandle<()>> {
    let (unanswered, node) = (node.unanswered(), node.clone());
    thread::Builder::new().name("unanswered".into()).spawn(move || {
        let mut teller = Teller::default();
        for one in unanswered {
            let line = || line(&node, &networks, &named, one);
            if let Some(line) = teller.tell(Instant::now(), one, line) {
                stdio::note(line);
            }
        }
    })
}

fn line(node: &Node, networks: &[Network], named: &Named, one: Unanswered) -> String {
    let Unanswered { network, address, .. } = one;
    let Some(described) = networks.iter().find(|described| described.id() == network) else {
        return format!("{address} does not answer in network {network}");
    };
    format!(
        "{} does not answer in network {network}, to which the program connects or sends: {}",
        names::called(described, address),
        what_to_check(node, described, named, address)
    )
}

/// Decides what is said.
#[derive(Default)]
struct Teller {
    told: BTreeMap<(NetworkId, IpAddr), Instant>,
    rarely: Rarely,
}

impl Teller {
    fn tell(&mut self, now: Instant, one: Unanswered, line: impl FnOnce() -> String) -> Option<String> {
        let key = (one.network, one.address);
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < AGAIN;
        if self.told.get(&key).is_some_and(is_recent) {
            return None;
        }
        let line = self.rarely.tell(now, line)?;
        if self.told.len() >= MOST {
            self.told.retain(|_, at| is_recent(at));
        }
        if self.told.len() < MOST {
            self.told.insert(key, now);
        }
        Some(line)
    }
}
