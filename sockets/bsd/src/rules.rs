//! Rules that assign addresses to the overlay, and listeners to networks.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_fd::{Client, Errno, Reply, Request, Route};

/// Lifetime of the node's answer about addresses.
const ADDRESSES_LIFETIME: Duration = Duration::from_secs(1);

/// Network of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The overlay.
    Overlay,
    /// The kernel.
    Kernel,
    /// Both networks, by one descriptor: for TCP listeners and UDP.
    Both,
    /// None: the socket is refused.
    Nowhere(Errno),
}

/// The rules given by the launcher, or by the program itself.
pub struct Rules {
    /// The node.
    pub client: Arc<Client>,
    /// True if addresses outside the overlay are refused.
    pub only: bool,
    /// True if the launcher handles the calls of programs that the preloaded library does not reach.
    pub admits: bool,
    /// Networks of listeners without an address, by port, and for all ports not named.
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

    /// Parses rules, words with commas between them: `only`, `admits`, `bind=overlay`, `bind=kernel`,
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

    /// Gets the addresses of the overlay from the node.
    pub fn refresh(&self) {
        if let Ok(Reply::Routes(routes)) = self.client.ask(Request::Routes)
            && let Ok(mut known) = self.routes.try_lock()
        {
            *known = (routes, Some(Instant::now()));
        }
    }

    /// Returns true if an address belongs to the overlay, or `None` if the node has ended before its first
    /// answer.
    pub fn is_overlays(&self, ip: IpAddr) -> Option<bool> {
        let ip = ip.to_canonical();
        let is_fresh = match self.routes.try_lock() {
            Ok(known) => known.1.is_some_and(|asked| asked.elapsed() < ADDRESSES_LIFETIME),
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

    /// Returns the network of a socket that connects or sends to `remote`.
    pub fn of_remote(&self, remote: SocketAddr) -> Side {
        let ip = remote.ip().to_canonical();
        let is_overlays = if ip.is_loopback() { Some(false) } else { self.is_overlays(ip) };
        match is_overlays {
            Some(true) => Side::Overlay,
            Some(false) if self.only => Side::Nowhere(Errno::NETUNREACH),
            Some(false) => Side::Kernel,
            // Traffic that may have been meant for the overlay must not go elsewhere.
            None => Side::Nowhere(Errno::NETDOWN),
        }
    }

    /// Returns the network of a socket that binds to `local`.
    pub fn of_local(&self, local: SocketAddr) -> Side {
        let ip = local.ip().to_canonical();
        if !ip.is_unspecified() {
            return self.of_remote(local);
        }
        // The last rule for a port applies.
        let named = self.ports.iter().rev().find(|(port, _)| *port == local.port());
        match named.map_or(self.others, |(_, side)| *side) {
            Side::Kernel if self.only => Side::Nowhere(Errno::ADDRNOTAVAIL),
            side => side,
        }
    }
}

/// Parses the launcher's name of a network.
fn side_named(name: &str) -> Side {
    match name {
        "kernel" => Side::Kernel,
        "both" => Side::Both,
        _ => Side::Overlay,
    }
}
