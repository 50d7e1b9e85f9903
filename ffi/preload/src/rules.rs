//! Which addresses are the overlay's, and where a program that listens is to be reached.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_fd::{Client, NodeTag, Reply, Request, Route, Token};

/// How long the node's answer about addresses is believed.
const LIFETIME: Duration = Duration::from_secs(1);

/// Where a socket belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Overlay,
    Kernel,
    /// Nowhere: it is refused.
    Neither,
}

/// What the launcher has told us.
pub(crate) struct Rules {
    pub(crate) client: Arc<Client>,
    /// Addresses outside the overlay are refused.
    only: bool,
    /// Ports whose listeners are the kernel's, and whether all are that are not named.
    kernel_ports: Vec<u16>,
    overlay_ports: Vec<u16>,
    others_are_kernels: bool,
    routes: Mutex<(Vec<Route>, Option<Instant>)>,
}

impl Rules {
    /// Reads `PEERSOCK_NODE` and `PEERSOCK_RULES`.
    pub(crate) fn from_environment() -> Option<Self> {
        let node = std::env::var("PEERSOCK_NODE").ok()?;
        let (tag, token) = node.split_once(':')?;
        let tag = NodeTag(u32::from_str_radix(tag, 16).ok()?);
        let token = Token(u128::from_str_radix(token, 16).ok()?);
        let mut rules = Self {
            client: Client::new(tag, token),
            only: false,
            kernel_ports: Vec::new(),
            overlay_ports: Vec::new(),
            others_are_kernels: false,
            routes: Mutex::default(),
        };
        for rule in std::env::var("PEERSOCK_RULES").unwrap_or_default().split(',') {
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
        Some(rules)
    }

    /// Asks the node which addresses are the overlay's.
    pub(crate) fn refresh(&self) {
        if let Ok(Reply::Routes(routes)) = self.client.ask(Request::Routes)
            && let Ok(mut known) = self.routes.try_lock()
        {
            *known = (routes, Some(Instant::now()));
        }
    }

    fn is_overlays(&self, ip: IpAddr) -> bool {
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
            Ok(known) => known.0.iter().any(|route| route.contains(ip)),
            Err(_) => match self.client.ask(Request::Routes) {
                Ok(Reply::Routes(routes)) => routes.iter().any(|route| route.contains(ip)),
                _ => false,
            },
        }
    }

    /// Where a socket belongs that wants to reach `remote`.
    pub(crate) fn of_remote(&self, remote: SocketAddr) -> Side {
        let ip = remote.ip().to_canonical();
        match ip.is_loopback() {
            false if self.is_overlays(ip) => Side::Overlay,
            _ if self.only => Side::Neither,
            _ => Side::Kernel,
        }
    }

    /// Where a socket belongs that wants to be reached at `local`.
    pub(crate) fn of_local(&self, local: SocketAddr) -> Side {
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
            true if self.only => Side::Neither,
            true => Side::Kernel,
        }
    }
}
