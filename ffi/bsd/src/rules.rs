//! Which addresses are the overlay's, and where a program that listens is to be reached.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_fd::{Client, Errno, NodeTag, Reply, Request, Route, Token};

/// How long the node's answer about addresses is believed.
const LIFETIME: Duration = Duration::from_secs(1);

/// Where a socket belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The overlay's.
    Overlay,
    /// The kernel's.
    Kernel,
    /// Nowhere: it is refused.
    Nowhere(Errno),
}

/// What the launcher, or the program itself, has said of it.
pub struct Rules {
    /// The node.
    pub client: Arc<Client>,
    /// Addresses outside the overlay are refused.
    pub only: bool,
    /// Ports whose listeners are the kernel's, and whether all are that are not named.
    kernel_ports: Vec<u16>,
    overlay_ports: Vec<u16>,
    others_are_kernels: bool,
    routes: Mutex<(Vec<Route>, Option<Instant>)>,
}

impl Rules {
    /// Reads `PEERSOCK_NODE` and `PEERSOCK_RULES`.
    pub fn from_environment() -> Option<Self> {
        let node = std::env::var("PEERSOCK_NODE").ok()?;
        let (tag, token) = node.split_once(':')?;
        let tag = NodeTag(u32::from_str_radix(tag, 16).ok()?);
        let token = Token(u128::from_str_radix(token, 16).ok()?);
        Some(Self::new(Client::new(tag, token), &std::env::var("PEERSOCK_RULES").unwrap_or_default()))
    }

    /// Rules as words with commas between them: `only`, `bind=overlay`, `bind=kernel`, `PORT=overlay` and `PORT=kernel`.
    pub fn new(client: Arc<Client>, words: &str) -> Self {
        let mut rules = Self {
            client,
            only: false,
            kernel_ports: Vec::new(),
            overlay_ports: Vec::new(),
            others_are_kernels: false,
            routes: Mutex::default(),
        };
        for rule in words.split(',') {
            match rule.split_once('=') {
                None if rule == "only" => rules.only = true,
                Some(("bind", side)) => rules.others_are_kernels = side == "kernel",
                Some((port, side)) => {
                    let ports =
                        if side == "kernel" { &mut rules.kernel_ports } else { &mut rules.overlay_ports };
                    ports.extend(port.parse::<u16>());
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
        let port = local.port();
        let is_kernels = match self.others_are_kernels {
            true => !self.overlay_ports.contains(&port),
            false => self.kernel_ports.contains(&port),
        };
        match is_kernels {
            false => Side::Overlay,
            true if self.only => Side::Nowhere(Errno::ADDRNOTAVAIL),
            true => Side::Kernel,
        }
    }
}
