//! Programs of listed members: nodes with their own keys, which a member's key has certified.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{NetworkId, NodeId, PublicIdentity};
use crate::membership::{ProcessCertificate, Refusal, UnixTime};

/// Programs that a node knows in a network whose description lists the members.
///
/// A program shows its certificate in each handshake that it begins. So a node knows the programs that have
/// called it, and those that their machine has named.
#[derive(Debug)]
pub struct Programs {
    network: NetworkId,
    /// Certificate of this node, if it is a program itself, and its bytes.
    own: Option<(ProcessCertificate, Arc<[u8]>)>,
    /// Certificates whose signatures are right.
    known: BTreeMap<NodeId, ProcessCertificate>,
}

impl Programs {
    pub(super) fn new(network: NetworkId, own: Option<&ProcessCertificate>) -> Self {
        let own = own.map(|own| (own.clone(), own.to_bytes().into()));
        Self { network, own, known: BTreeMap::new() }
    }

    /// Returns this node's certificate, if it is a program.
    pub fn own(&self) -> Option<&ProcessCertificate> {
        self.own.as_ref().map(|(own, _)| own)
    }

    /// Returns the member beside whose node this program's node is.
    pub(crate) fn machine(&self) -> Option<&PublicIdentity> {
        self.own().map(ProcessCertificate::machine)
    }

    /// Returns the bytes that this node shows in its handshakes; none if it is a member itself.
    pub(crate) fn introduction(&self) -> &[u8] {
        self.own.as_ref().map_or(&[], |(_, bytes)| bytes)
    }

    /// Replaces the certificate of this node, which is `node`.
    pub(crate) fn set_own(&mut self, node: &NodeId, own: ProcessCertificate) -> Result<(), Refusal> {
        // So that a wrong one is noticed here, and not by silent peers.
        own.verify(node, self.network)?;
        self.own = Some((own.clone(), own.to_bytes().into()));
        self.known.insert(*node, own);
        Ok(())
    }

    /// Returns the certificate of a known program.
    pub(crate) fn get(&self, program: &NodeId) -> Option<&ProcessCertificate> {
        self.known.get(program)
    }

    /// Returns the known programs of a machine, the newest one first.
    pub(super) fn of_machine(&self, machine: &NodeId) -> Vec<(NodeId, &ProcessCertificate)> {
        let is_meant = |one: &ProcessCertificate| one.machine().node_id() == *machine;
        let mut found: Vec<_> =
            self.known.iter().filter(|(_, one)| is_meant(one)).map(|(node, one)| (*node, one)).collect();
        found.sort_by_key(|(_, one)| Reverse(one.serial()));
        found
    }

    /// Checks the certificate that a node has shown, or that a member has named, and remembers it. The cheap
    /// checks come first: nothing is verified for a machine that is no member, nor for a certificate that is
    /// known.
    pub(super) fn introduce(
        &mut self,
        program: &NodeId,
        certificate: ProcessCertificate,
        is_shown: bool,
        unix_time: Duration,
        is_member: impl FnOnce(&NodeId) -> bool,
    ) -> Result<(), Refusal> {
        let known = self.known.get(program);
        if !is_member(&certificate.machine().node_id()) {
            return Err(Refusal::Issuer);
        }
        let now = UnixTime::from(unix_time);
        // A clock that is behind must not refuse what the machine has just signed.
        // No controller tells the members of a listed network the time.
        certificate.check_time(now.for_statement(certificate.serial().time()))?;
        if known == Some(&certificate) {
            return Ok(());
        }
        certificate.verify(program, self.network)?;
        let is_new = known.is_none_or(|known| {
            // Any member can sign for the keys of another one's program. Only who has the keys chooses.
            let is_of_same = known.machine() == certificate.machine();
            // A copy of an earlier handshake must not bring back what it said.
            if is_of_same { known.serial() < certificate.serial() } else { is_shown }
        });
        if is_new {
            self.known.insert(*program, certificate);
        }
        Ok(())
    }

    /// Returns the programs whose certificates have ended, apart from `own`.
    pub(crate) fn ended(&self, own: &NodeId, unix_time: Duration) -> Vec<NodeId> {
        // By this node's clock alone, which no peer can move.
        let has_ended = |one: &ProcessCertificate| one.end() <= unix_time.into();
        self.known
            .iter()
            .filter(|(node, one)| *node != own && has_ended(one))
            .map(|(node, _)| *node)
            .collect()
    }

    /// Returns the time until the next certificate of another node ends; `None` without any.
    pub(crate) fn next_end(&self, own: &NodeId, unix_time: Duration) -> Option<Duration> {
        let others = self.known.iter().filter(|(node, _)| *node != own);
        others.map(|(_, one)| one.end().since(unix_time.into())).min()
    }

    /// Forgets a program.
    pub(crate) fn forget(&mut self, program: &NodeId) {
        self.known.remove(program);
    }
}
