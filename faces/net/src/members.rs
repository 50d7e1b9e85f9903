//! Which addresses and names are those of members of the joined networks.

use std::io;
use std::net::IpAddr;

use peersock::Node;
use peersock::attach::NodeHandle;

/// The node through which members are reached.
#[derive(Clone)]
pub(crate) struct Members {
    pub(crate) node: Node,
    pub(crate) handle: NodeHandle,
}

impl Members {
    /// Those of `node`, or of the process's node if there is one that runs.
    pub(crate) fn of(node: Option<&Node>) -> Option<Members> {
        let members = |node: Node| Members { handle: NodeHandle::of(&node), node };
        match node {
            Some(node) => Some(members(node.clone())),
            None => peersock::current_node().map(members).filter(|found| found.handle.check_up().is_ok()),
        }
    }

    /// Whether an address is one of the networks'. Loopback never is.
    ///
    /// # Errors
    /// `NetworkDown` if the node is shut down: what may be meant for the overlay goes nowhere else.
    pub(crate) fn have(&self, ip: IpAddr) -> io::Result<bool> {
        let ip = ip.to_canonical();
        if ip.is_loopback() {
            return Ok(false);
        }
        self.handle.check_up()?;
        let networks = self.handle.datapath().networks();
        Ok(networks.iter().any(|network| network.routes.iter().any(|route| route.contains(ip))))
    }

    /// The addresses of the member that has a name.
    ///
    /// # Errors
    /// `NetworkDown` if the node is shut down: nobody else is to be asked for its members' names.
    pub(crate) fn named(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.handle.check_up()?;
        Ok(self.handle.datapath().addresses_named(name))
    }

    /// What the overlay says where it refuses `port`.
    pub(crate) fn explain(&self, error: peersock_stack::Error, port: u16) -> io::Error {
        match self.node.port_refusal(port) {
            Some(text) if error == peersock_stack::Error::PermissionDenied => {
                io::Error::new(io::ErrorKind::PermissionDenied, text)
            }
            _ => error.into(),
        }
    }
}

/// Whether an address is one of the networks'.
pub(crate) fn is_members(members: Option<&Members>, ip: IpAddr) -> io::Result<bool> {
    members.map_or(Ok(false), |members| members.have(ip))
}
