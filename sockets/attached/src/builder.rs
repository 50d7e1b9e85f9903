//! Attachment of a Rust program by one call.

use std::sync::Arc;

use peersock::{Network, NodeBuilder};
use peersock_attach::{Attached, NodeError};

use crate::member::Member;

/// Call that shares a node instead of starting one in this process.
///
/// [`NodeBuilder::start`] keeps the node in this process. [`Attach::attach`] is for a program that is one of
/// several of its user, such as those under `peersock run`: they share one identity, one set of addresses and
/// one registration at the roots.
///
/// ```no_run
/// use std::io::Write as _;
/// use std::time::Duration;
///
/// use peersock::{IdentitySource, Network, Node};
/// use peersock_attached::{Attach as _, TcpStream};
///
/// let network = Network::ad_hoc("ff0001ffff000000".parse()?);
/// let member = Node::builder().identity(IdentitySource::Default).attach([network])?;
/// println!("{} is served by process {}", member.addresses()[0], member.attached().process());
/// let beta = "[fdca:ab88:69ba:53f7:5e12:7f00:a9c5:b9a9]:7000".parse()?;
/// let mut stream = &TcpStream::connect(&member, beta, Duration::from_secs(30))?;
/// stream.write_all(b"hello")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Attach {
    /// Attaches to the node in the state directory of these settings. If none runs there, the installed
    /// program `peersock` starts one: the program that `PEERSOCK_PROGRAM` names, or else the first in `PATH`.
    /// That node ends some seconds after the last program (`PEERSOCK_PERSIST`).
    ///
    /// The settings are those of a node that is started, and must not differ from those of one that runs. The
    /// program has these networks, and sees no others.
    ///
    /// # Errors
    /// [`AttachError::Absent`](peersock_attach::AttachError::Absent) if no node runs and none can be started,
    /// the identity is not that of a state directory, or `PEERSOCK_OWN_NODE` is set: [`NodeBuilder::start`]
    /// then starts one in this process. Otherwise see [`NodeError`].
    fn attach(self, networks: impl IntoIterator<Item = Network>) -> Result<Member, NodeError>;
}

impl Attach for NodeBuilder {
    fn attach(self, networks: impl IntoIterator<Item = Network>) -> Result<Member, NodeError> {
        let networks: Vec<_> = networks.into_iter().collect();
        Ok(Member::new(Arc::new(Attached::of(&self, &networks)?))?)
    }
}

#[cfg(test)]
mod tests {
    use peersock::{IdentitySource, Node};
    use peersock_attach::AttachError;

    use super::*;

    #[test]
    fn a_node_without_a_state_directory_is_not_shared() {
        let settings = Node::builder().identity(IdentitySource::Ephemeral);
        let absent = settings.attach([]).expect_err("no program finds such a node");
        assert!(matches!(absent, NodeError::Attach(AttachError::Absent)), "{absent}");
    }
}
