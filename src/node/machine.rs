//! Node of a program beside its machine's: the machine's keys sign the credentials of the program's own keys.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peersock_datapath::{JoinedNetwork, Subscription};
use peersock_overlay::membership::{Credentials, MemberName, ProcessCertificate, Serial, UnixTime};
use peersock_overlay::{Identity, JoinError, ManagedNetwork, NetworkConfig, NetworkId, NodeId};
use peersock_stack::Batch;

use super::{Inner, NodeBuilder};
use crate::IdentitySource;
use crate::config::Network;
use crate::state::{MembershipRecord, StateDir, StateError};
use crate::sync;

/// Time after which a certificate is signed anew. It lasts for three times that.
const RENEW_AFTER: Duration = Duration::from_secs(20 * 60);

/// Age of the machine's certificate from which its node seems to be away: it renews the certificate within 40
/// minutes.
const MACHINE_IS_LATE: Duration = Duration::from_secs(2 * 3600);

/// Pause between two attempts to renew the machine's certificate in its place.
const IN_PLACE_PAUSE: Duration = Duration::from_secs(10 * 60);

/// Longest wait for a controller's answer then. A controller that this program reaches needs no second, and
/// the machine's other programs cannot start meanwhile.
const IN_PLACE_WAIT: Duration = Duration::from_secs(5);

/// Longest wait for the identity of a directory whose holder has just made it.
const IDENTITY_SOON: Duration = Duration::from_secs(2);

/// Interval at which the certificate in a static network is looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Interval of attempts meanwhile.
const RETRY: Duration = Duration::from_millis(5);

/// Machine beside whose node a program has its own.
pub(super) struct Machine {
    state: PathBuf,
    identity: Identity,
    label: Option<MemberName>,
    /// Reason why the program's node is not the machine's.
    reason: String,
    /// Settings of a node that renews the machine's certificate in place of the machine's node.
    settings: NodeBuilder,
    /// Last attempt of that.
    tried: Mutex<Option<Instant>>,
}

impl Machine {
    /// Reads the identity of the machine in a state directory; `None` if there is none. `reason` says why the
    /// program's node is not the machine's.
    pub(super) fn open(
        state: PathBuf,
        label: Option<MemberName>,
        reason: String,
        settings: &NodeBuilder,
    ) -> Result<Option<Machine>, StateError> {
        // Absolute, because the process may change its working directory later.
        let state = state.canonicalize().map_err(StateError::io("examine", &state))?;
        let begun = Instant::now();
        let identity = loop {
            match StateDir::identity_beside(&state)? {
                Some(identity) => break identity,
                None if begun.elapsed() < IDENTITY_SOON => thread::sleep(RETRY),
                None => return Ok(None),
            }
        };
        let settings = settings.clone().identity(IdentitySource::StateDir(state.clone())).port(0);
        let settings = settings.beside(false);
        Ok(Some(Machine { state, identity, label, reason, settings, tried: Mutex::default() }))
    }

    /// Returns the record of a network as the machine's node keeps it.
    pub(super) fn record(&self, network: NetworkId) -> Result<Option<MembershipRecord>, StateError> {
        StateDir::membership(&self.state, network)
    }

    /// Returns when that record was written.
    pub(super) fn written(&self, network: NetworkId) -> Option<SystemTime> {
        fs::metadata(StateDir::membership_file(&self.state, network)).ok()?.modified().ok()
    }

    /// Completes the description of a network that the program joins.
    pub(super) fn complete(
        &self,
        config: &mut NetworkConfig,
        program: &NodeId,
    ) -> Result<Option<MembershipRecord>, JoinError> {
        let id = config.id();
        if let NetworkConfig::Managed(network) = config {
            return self.complete_managed(network, program).map(Some);
        }
        if !id.admits_programs() {
            return Err(JoinError::Beside { network: id, reason: self.reason.as_str().into() });
        }
        if !config.policy().admits(&self.identity.node_id()) {
            return Err(JoinError::NotAMember { network: id, key: *self.identity.public() });
        }
        config.set_program(self.certificate(id, program, Serial::next(unix_time(), None)));
        Ok(None)
    }

    fn complete_managed(
        &self,
        network: &mut ManagedNetwork,
        program: &NodeId,
    ) -> Result<MembershipRecord, JoinError> {
        let id = network.id;
        let record = self.record(id).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was kept of a managed network is not used");
            None
        });
        let Some(record) = record.filter(|record| record.credentials.is_some() && record.denied.is_none())
        else {
            return Err(JoinError::MachineNotAMember(id));
        };
        if network.key.is_some_and(|key| key != record.key) {
            return Err(JoinError::OtherKey(id));
        }
        let own = UnixTime::from_millis(unix_time().as_millis().saturating_add_signed(record.clock_offset));
        let now = own.max(record.signed_time);
        let mut known = record.network(network.request.clone());
        // The token of an invite is for machines.
        known.request.token = None;
        known.credentials = self.credentials(&record, program, now);
        known.is_program = true;
        *network = known;
        Ok(record)
    }

    /// Signs credentials of the program's node.
    pub(super) fn credentials(
        &self,
        record: &MembershipRecord,
        program: &NodeId,
        now: UnixTime,
    ) -> Option<Credentials> {
        let known = record.credentials.as_ref()?;
        // Above the certificate's, because a removal before that ends what the machine has signed, and its
        // clock may be behind.
        let serial = Serial::next(now, Some(known.certificate().serial()));
        Some(known.of_process(self.certificate(record.id, program, serial)))
    }

    /// Signs the certificate of the program's node.
    fn certificate(&self, network: NetworkId, program: &NodeId, serial: Serial) -> ProcessCertificate {
        let label = self.label.clone();
        let lifetime = ProcessCertificate::MAX_LIFETIME;
        ProcessCertificate::sign(&self.identity, network, program, label, serial, lifetime)
    }

    /// Returns true if the certificate of the program's node has to be signed anew at a time.
    pub(super) fn is_due(process: Option<&ProcessCertificate>, now: UnixTime) -> bool {
        process.is_none_or(|process| {
            // A clock that was set back must not leave the program with a certificate of the future.
            now.since(process.serial().time()) >= RENEW_AFTER || now < process.serial().time()
        })
    }

    /// Renews the machine's certificate if no node has done so for long: its node may have ended, and then
    /// its state directory is free. That node runs in this process for some seconds.
    /// A controller can be reached, because the state directory is in use meanwhile.
    pub(super) fn renew_in_place(&self, network: NetworkId, own: &Credentials, now: UnixTime) {
        if now.since(own.certificate().serial().time()) < MACHINE_IS_LATE {
            return;
        }
        let mut tried = sync::lock(&self.tried);
        if tried.is_some_and(|at| at.elapsed() < IN_PLACE_PAUSE) {
            return;
        }
        *tried = Some(Instant::now());
        drop(tried);
        let settings = self.settings.clone();
        let renewal = thread::Builder::new().name("peersock-renewal".into());
        let started = renewal.spawn(move || {
            // A directory in use has a node, which asks itself.
            let Ok(node) = settings.start() else { return };
            let Ok(description) = Network::by_id(network) else { return };
            match node.join(description) {
                Ok(joined) => joined.wait_heard(IN_PLACE_WAIT),
                Err(error) => tracing::warn!(%error, "the machine's certificate is not renewed"),
            }
            node.shutdown(Duration::ZERO);
        });
        if let Err(error) = started {
            tracing::warn!(%error, "the machine's certificate is not renewed");
        }
    }
}

fn unix_time() -> UnixTime {
    UNIX_EPOCH.elapsed().unwrap_or_default().into()
}

/// Renews the certificate of this program's node in a static network, until the network is left or the node
/// ends. Does nothing in other networks, and for a machine's own node.
pub(super) fn start(node: &Arc<Inner>, network: &JoinedNetwork, events: Arc<Subscription>) {
    if node.machine.is_none() || node.driver.datapath.program(network.index).is_none() {
        return;
    }
    let (node, network) = (Arc::downgrade(node), network.clone());
    let renewal = thread::Builder::new().name("peersock-member".into());
    let started = renewal.spawn(move || {
        while !events.is_over() {
            events.next_or_change(CHECK_INTERVAL);
            // Not held while this waits, because the node has to end with its last user.
            let Some(node) = node.upgrade() else { return };
            let (Some(machine), datapath) = (&node.machine, &node.driver.datapath) else { return };
            let Some(own) = datapath.program(network.index) else { return };
            let now = unix_time();
            if !Machine::is_due(Some(&own), now) {
                continue;
            }
            let serial = Serial::next(now, None);
            let certificate = machine.certificate(network.id, &node.identity.node_id(), serial);
            let mut batch = Batch::default();
            match datapath.set_program(Instant::now(), network.index, certificate, &mut batch) {
                Ok(()) => node.driver.kick(),
                Err(error) => tracing::warn!(%error, "the program's certificate cannot be renewed"),
            }
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "the program's certificate is not renewed");
    }
}
