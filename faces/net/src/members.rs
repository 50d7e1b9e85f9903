//! Addresses and names that belong to members of the joined networks.

use std::io;
use std::net::IpAddr;

use peersock::Node;
use peersock::attach::NodeHandle;
use peersock_primitives::blocking;

/// The node through which members are reached.
#[derive(Clone)]
pub(crate) struct Members {
    pub(crate) node: Node,
    pub(crate) handle: NodeHandle,
}

impl Members {
    /// Returns the members known to `node`, or to the process's node if it is running.
    pub(crate) fn of(node: Option<&Node>) -> Option<Members> {
        let members = |node: Node| Members { handle: NodeHandle::of(&node), node };
        match node {
            Some(node) => Some(members(node.clone())),
            None => peersock::current_node().map(members).filter(|found| found.handle.check_up().is_ok()),
        }
    }

    /// Returns true if the address belongs to a joined network. Loopback never does.
    ///
    /// # Errors
    /// `NetworkDown` if the node is shut down, because traffic meant for the overlay must not go elsewhere.
    pub(crate) fn have(&self, ip: IpAddr) -> io::Result<bool> {
        let ip = ip.to_canonical();
        if ip.is_loopback() {
            return Ok(false);
        }
        self.handle.check_up()?;
        let networks = self.handle.datapath().networks();
        Ok(networks.iter().any(|network| network.routes.iter().any(|route| route.contains(ip))))
    }

    /// Returns the addresses of the member with this name; none if it may be another host's.
    ///
    /// # Errors
    /// `NetworkDown` if the node is shut down, and `NotFound` for a name that ends with the network's: no
    /// other resolver may be queried for its members' names.
    pub(crate) async fn named(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.handle.check_up()?;
        let (handle, name) = (self.handle.clone(), name.to_owned());
        blocking(move || handle.resolve(&name)).await?
    }

    /// Replaces a permission error by the overlay's reason for refusing `port`.
    pub(crate) fn explain(&self, error: peersock_stack::Error, port: u16) -> io::Error {
        match self.node.port_refusal(port) {
            Some(text) if error == peersock_stack::Error::PermissionDenied => {
                io::Error::new(io::ErrorKind::PermissionDenied, text)
            }
            _ => error.into(),
        }
    }
}

/// Returns true if the address belongs to a joined network.
pub(crate) fn is_members(members: Option<&Members>, ip: IpAddr) -> io::Result<bool> {
    members.map_or(Ok(false), |members| members.have(ip))
}
