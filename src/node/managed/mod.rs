//! Managed networks of a node. A thread checks network keys, keeps what is learned in the state directory,
//! tells those who wait for an admission, and passes questions to a controller.

mod follower;
mod joined;
mod kept;
mod names;
mod standing;

use std::sync::{Condvar, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant, UNIX_EPOCH};

use peersock_overlay::membership::{Denial, MemberName, NetworkKey};
use peersock_overlay::{JoinError, ManagedNetwork, NetworkConfig, NetworkId};
use peersock_stack::Batch;

pub(super) use self::follower::start;
use self::kept::Kept;
pub(crate) use self::names::{
    Among, LocalNames, addresses_named, is_name_absent, known_addresses, of_network, search_name,
};
pub use self::standing::{MembershipStatus, Standing};
use super::Inner;
use super::seat::Holder;
use crate::config::network_id;
use crate::state::{MembershipRecord, StateDir, denial_word};
use crate::sync;

/// Longest wait of the end of a node for a write of the thread.
const ENDING: Duration = Duration::from_secs(5);

/// State that the thread shares with callers.
pub(super) struct Shared {
    progress: Mutex<Progress>,
    kept: Mutex<Kept>,
    changed: Condvar,
    /// Tasks that wait for an admission.
    wakers: Mutex<Vec<Waker>>,
    pub(super) seat: Holder,
    /// Local name of the network. It is apart from the record, which is locked while it is written to disk.
    local_name: Mutex<Option<String>>,
}

struct Progress {
    standing: Standing,
    heard: Option<Instant>,
    /// Set while a member says that this node was revoked, and no controller has said so or renewed its
    /// credentials since.
    is_doubted: bool,
    /// True once a controller has told its newest revocations, and they are kept.
    is_up_to_date: bool,
    /// True once the thread has ended, which then holds no part of the node.
    has_ended: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            standing: Standing::Asking,
            heard: None,
            is_doubted: false,
            is_up_to_date: false,
            has_ended: false,
        }
    }
}

impl Shared {
    fn new(kept: Kept) -> Shared {
        Shared {
            progress: Mutex::default(),
            local_name: Mutex::new(kept.local_name()),
            kept: Mutex::new(kept),
            changed: Condvar::new(),
            wakers: Mutex::default(),
            seat: Holder::default(),
        }
    }

    /// Writes what the node has learned, before it leaves the network. Nothing is written after that.
    pub(super) fn close(&self, node: &Inner) {
        let mut kept = sync::lock(&self.kept);
        kept.hurry();
        kept.write_if_due(node);
        kept.is_closed = true;
    }

    /// Takes over the network's key, whose stretched hash is the ID, unless a key is known. Returns false if
    /// another one is known.
    fn set_key(&self, node: &Inner, key: NetworkKey) -> bool {
        let mut kept = sync::lock(&self.kept);
        if let Some(record) = &kept.record {
            return record.key == key;
        }
        tracing::info!(network = %kept.network.id, %key, "the network's key is known from now on");
        kept.record = Some(kept.new_record(key));
        kept.hurry();
        let index = kept.network.index;
        drop(kept);
        node.driver.datapath.set_network_key(Instant::now(), index, key, &mut Batch::default());
        node.driver.kick();
        true
    }

    /// Makes this node a member by new credentials, which are written first: a crash must not lose what a
    /// controller has granted, and who hears of it reads the record next.
    fn set_granted(&self, node: &Inner, is_heard: bool) {
        let mut kept = sync::lock(&self.kept);
        if let Some(record) = &mut kept.record {
            record.denied = None;
        }
        kept.hurry();
        kept.write_if_due(node);
        drop(kept);
        self.set(Standing::Member, is_heard);
    }

    fn set(&self, standing: Standing, is_heard: bool) {
        let mut progress = sync::lock(&self.progress);
        progress.standing = standing;
        if is_heard {
            (progress.heard, progress.is_doubted) = (Some(Instant::now()), false);
        }
        drop(progress);
        self.changed.notify_all();
        sync::lock(&self.wakers).drain(..).for_each(Waker::wake);
    }

    /// Waits for the end of the thread, for a time at most.
    pub(super) fn wait_ended(&self) {
        let progress = sync::lock(&self.progress);
        drop(sync::wait_timeout_while(&self.changed, progress, ENDING, |now| !now.has_ended));
    }

    fn set_heard(&self) {
        sync::lock(&self.progress).heard = Some(Instant::now());
    }

    fn set_up_to_date(&self) {
        let before = std::mem::replace(&mut sync::lock(&self.progress).is_up_to_date, true);
        if !before {
            self.changed.notify_all();
        }
    }

    fn set_doubted(&self) {
        sync::lock(&self.progress).is_doubted = true;
    }

    /// Returns a word for the standing, as of [`NetworkStatus::standing`](super::NetworkStatus::standing).
    pub(super) fn word(&self) -> &'static str {
        let progress = sync::lock(&self.progress);
        match &progress.standing {
            Standing::Denied(Denial::Cloned) => "copied",
            Standing::Denied(reason) => denial_word(*reason).unwrap_or("asking"),
            standing if progress.is_doubted || matches!(standing, Standing::Refused(_)) => "refused",
            Standing::Pending(_) => "pending",
            Standing::Member => "member",
            _ => "asking",
        }
    }

    /// Returns the time since a controller has answered in this run of the node.
    pub(super) fn heard(&self) -> Option<Duration> {
        sync::lock(&self.progress).heard.map(|at| at.elapsed())
    }

    /// Returns true once a controller has said that the node is no member any more.
    fn is_removed(&self) -> bool {
        sync::lock(&self.progress).standing == Standing::Denied(Denial::Removed)
    }

    /// Returns true once the node is a member; else `waker` is woken by the next change.
    pub(super) fn poll_member(&self, waker: &Waker) -> bool {
        // Kept first, so that no change in between is missed.
        sync::lock(&self.wakers).push(waker.clone());
        sync::lock(&self.progress).standing == Standing::Member
    }
}

/// Completes the description of a managed network by the state directory, and checks its key. Returns the
/// record that the node keeps from now on.
pub(super) fn complete(
    config: &mut NetworkConfig,
    state: Option<&StateDir>,
) -> Result<Option<MembershipRecord>, JoinError> {
    config.validate()?;
    let NetworkConfig::Managed(network) = config else { return Ok(None) };
    let id = network.id;
    let kept = match state.map(|state| state.kept_membership(id)) {
        Some(Ok(record)) => record,
        Some(Err(error)) => {
            tracing::warn!(%error, "what was kept of a managed network is not used");
            None
        }
        None => None,
    };
    match (&network.key, &kept) {
        // Pinned at the first join: a second network with the same ID is somebody's attack.
        (Some(key), Some(kept)) if *key != kept.key => return Err(JoinError::OtherKey(id)),
        (Some(_), Some(_)) | (None, _) => {}
        (Some(key), None) => check_key(key, id)?,
    }
    let mut request = network.request.clone();
    request.run = random();
    // After a machine has left the network and joined it again, the number is larger than before, too.
    let unix_time = UNIX_EPOCH.elapsed().unwrap_or_default();
    // In milliseconds, because that may happen within a second.
    let first = u64::try_from(unix_time.as_millis()).unwrap_or_default();
    request.starts = kept.as_ref().map_or(first, |kept| kept.starts + 1);
    if let Some(kept) = &kept {
        request.name = request.name.or_else(|| kept.wish.clone());
    }
    if request.name.is_none() {
        request.name = MemberName::cleaned(&crate::sys::host_name());
    }
    if request.description.is_empty() {
        request.description = crate::sys::description();
    }
    let key = network.key.or(kept.as_ref().map(|kept| kept.key));
    let record = kept
        .or_else(|| key.map(|key| MembershipRecord::new(id, key)))
        .map(|record| MembershipRecord { starts: request.starts, wish: request.name.clone(), ..record });
    if let Some(record) = &record {
        let known = record.network(request);
        let credentials = network.credentials.take().or(known.credentials.clone());
        let is_controller = network.is_controller;
        **network = ManagedNetwork { credentials, is_controller, ..known };
    } else {
        network.request = request;
    }
    Ok(record)
}

/// Checks that the stretched hash of a key is a network's ID, which takes some tenths of a second.
pub(super) fn check_key(key: &NetworkKey, id: NetworkId) -> Result<(), JoinError> {
    match network_id(key) {
        Ok(of_key) if of_key == Some(id) => Ok(()),
        Ok(_) => Err(JoinError::WrongKey(id)),
        Err(error) => {
            tracing::warn!(%error, "the key of a managed network cannot be checked");
            Err(JoinError::WrongKey(id))
        }
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness a copied state directory is not noticed, and nothing else.
    let _ = getrandom::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}
