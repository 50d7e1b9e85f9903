//! Node of a program beside its machine's: the machine's keys sign the credentials of the program's own keys.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peersock_overlay::membership::{Credentials, MemberName, ProcessCertificate, Serial, UnixTime};
use peersock_overlay::{Identity, JoinError, NetworkConfig, NetworkId, NodeId};

use super::NodeBuilder;
use crate::IdentitySource;
use crate::config::Network;
use crate::state::{MembershipRecord, StateDir, StateError};
use crate::sync;

/// Time after which a certificate is signed anew. It lasts for three times that.
const RENEW_AFTER: Duration = Duration::from_secs(20 * 60);

/// Age of the machine's certificate from which its node seems to be away: it renews the certificate hourly.
const MACHINE_IS_LATE: Duration = Duration::from_secs(2 * 3600);

/// Pause between two attempts to renew the machine's certificate in its place.
const IN_PLACE_PAUSE: Duration = Duration::from_secs(10 * 60);

/// Longest wait for a controller's answer then.
const IN_PLACE_WAIT: Duration = Duration::from_secs(30);

/// Longest wait for the identity of a directory whose holder has just made it.
const IDENTITY_SOON: Duration = Duration::from_secs(2);

/// Interval of attempts meanwhile.
const RETRY: Duration = Duration::from_millis(5);

/// Machine beside whose node a program has its own.
pub(super) struct Machine {
    state: PathBuf,
    identity: Identity,
    label: Option<MemberName>,
    /// Reason why the program's node is not the machine's.
    reason: String,
    /// Settings of a node that renews the machine's certificate in place of its own node.
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
    ) -> Result<MembershipRecord, JoinError> {
        let id = config.id();
        let NetworkConfig::Managed(network) = config else {
            return Err(JoinError::Beside { network: id, reason: self.reason.as_str().into() });
        };
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
        let now = UnixTime::from(UNIX_EPOCH.elapsed().unwrap_or_default()).max(record.signed_time);
        let mut known = record.network(network.request.clone());
        // The token of an invite is for machines.
        known.request.token = None;
        known.credentials = self.credentials(&record, program, now);
        known.is_program = true;
        **network = known;
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
        let (label, lifetime) = (self.label.clone(), ProcessCertificate::MAX_LIFETIME);
        let signed = ProcessCertificate::sign(&self.identity, record.id, program, label, serial, lifetime);
        Some(known.of_process(signed))
    }

    /// Returns true if credentials of the program's node have to be signed anew at a time.
    pub(super) fn is_due(credentials: Option<&Credentials>, now: UnixTime) -> bool {
        let process = credentials.and_then(Credentials::process);
        process.is_none_or(|process| {
            // A clock that was set back must not leave the program with a certificate of the future.
            now.since(process.serial().time()) >= RENEW_AFTER || now < process.serial().time()
        })
    }

    /// Renews the machine's certificate if nobody has done so for long: its node may have ended, and then its
    /// state directory is free. That node runs in this process for some seconds.
    pub(super) fn renew_in_place(&self, record: &MembershipRecord, now: UnixTime) {
        let signed = record.credentials.as_ref().map(|own| own.certificate().serial().time());
        if signed.is_none_or(|signed| now.since(signed) < MACHINE_IS_LATE) {
            return;
        }
        let mut tried = sync::lock(&self.tried);
        if tried.is_some_and(|at| at.elapsed() < IN_PLACE_PAUSE) {
            return;
        }
        *tried = Some(Instant::now());
        drop(tried);
        let (settings, network) = (self.settings.clone(), record.id);
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
