//! Which addresses are the overlay's, and where a program that listens is to be reached.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_fd::{Client, Errno, Reply, Request, Route};

/// How long the node's answer about addresses is believed.
const LIFETIME: Duration = Duration::from_secs(1);

/// Where a socket belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The overlay's.
    Overlay,
    /// The kernel's.
    Kernel,
    /// TCP that listens and UDP are on both, by one descriptor.
    Both,
    /// Nowhere: it is refused.
    Nowhere(Errno),
}

/// What the launcher, or the program itself, has said of it.
pub struct Rules {
    /// The node.
    pub client: Arc<Client>,
    /// Addresses outside the overlay are refused.
    pub only: bool,
    /// The launcher takes the calls of programs that the preloaded library does not reach.
    pub admits: bool,
    /// Where listeners without an address are, by port, and all that are not named.
    ports: Vec<(u16, Side)>,
    others: Side,
    routes: Mutex<(Vec<Route>, Option<Instant>)>,
}

impl Rules {
    /// Reads `PEERSOCK_NODE` and `PEERSOCK_RULES`.
    pub fn from_environment() -> Option<Self> {
        let client = Client::of_variable(&std::env::var("PEERSOCK_NODE").ok()?)?;
        Some(Self::new(client, &std::env::var("PEERSOCK_RULES").unwrap_or_default()))
    }

    /// Rules as words with commas between them: `only`, `admits`, `bind=overlay`, `bind=kernel`,
    /// `PORT=overlay` and `PORT=kernel`.
    pub fn new(client: Arc<Client>, words: &str) -> Self {
        let (ports, routes) = (Vec::new(), Mutex::default());
        let mut rules = Self { client, only: false, admits: false, ports, others: Side::Overlay, routes };
        for rule in words.split(',') {
            match rule.split_once('=') {
                None if rule == "only" => rules.only = true,
                None if rule == "admits" => rules.admits = true,
                Some(("bind", side)) => rules.others = side_named(side),
                Some((port, side)) => {
                    rules.ports.extend(port.parse::<u16>().map(|port| (port, side_named(side))));
                }
                None => {}
            }
        }
        rules
    }

    /// Asks the node which addresses are the overlay's.
    pub fn refresh(&self) {
        if let Ok(Reply::Routes(routes)) = self.client.ask(Request::Routes)
            && let Ok(mut known) = self.routes.try_lock()
        {
            *known = (routes, Some(Instant::now()));
        }
    }

    /// Whether an address is the overlay's; `None` if the node is gone before it has ever told.
    pub fn is_overlays(&self, ip: IpAddr) -> Option<bool> {
        let ip = ip.to_canonical();
        let is_fresh = match self.routes.try_lock() {
            Ok(known) => known.1.is_some_and(|asked| asked.elapsed() < LIFETIME),
            Err(_) => false,
        };
        if !is_fresh {
            self.refresh();
        }
        // A child that was forked while another thread held the lock asks each time.
        match self.routes.try_lock() {
            Ok(known) => known.1.map(|_| known.0.iter().any(|route| route.contains(ip))),
            Err(_) => match self.client.ask(Request::Routes) {
                Ok(Reply::Routes(routes)) => Some(routes.iter().any(|route| route.contains(ip))),
                _ => None,
            },
        }
    }

    /// Where a socket belongs that wants to reach `remote`.
    pub fn of_remote(&self, remote: SocketAddr) -> Side {
        let ip = remote.ip().to_canonical();
        let is_overlays = if ip.is_loopback() { Some(false) } else { self.is_overlays(ip) };
        match is_overlays {
            Some(true) => Side::Overlay,
            Some(false) if self.only => Side::Nowhere(Errno::NETUNREACH),
            Some(false) => Side::Kernel,
            // What may have been meant for the overlay shall not go elsewhere.
            None => Side::Nowhere(Errno::NETDOWN),
        }
    }

    /// Where a socket belongs that wants to be reached at `local`.
    pub fn of_local(&self, local: SocketAddr) -> Side {
        let ip = local.ip().to_canonical();
        if !ip.is_unspecified() {
            return self.of_remote(local);
        }
        // Of two rules for one port the later holds.
        let named = self.ports.iter().rev().find(|(port, _)| *port == local.port());
        match named.map_or(self.others, |(_, side)| *side) {
            Side::Kernel if self.only => Side::Nowhere(Errno::ADDRNOTAVAIL),
            side => side,
        }
    }
}

/// As the launcher calls it.
fn side_named(name: &str) -> Side {
    match name {
        "kernel" => Side::Kernel,
        "both" => Side::Both,
        _ => Side::Overlay,
    }
}
