//! Record of a managed network in the state directory.

use std::time::{Duration, Instant};

use peersock_datapath::JoinedNetwork;
use peersock_overlay::membership::NetworkKey;

use super::super::Inner;
use crate::state::MembershipRecord;

/// Minimum interval of writes because of newer revocations. An issuer's stolen key may sign many.
const REVOCATIONS_WRITE_INTERVAL: Duration = Duration::from_millis(500);

/// Minimum interval of writes because of newer times alone.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// Record of a network in the state directory, as the node keeps it.
pub(super) struct Kept {
    pub(super) network: JoinedNetwork,
    /// `None` until the network's key is known.
    pub(super) record: Option<MembershipRecord>,
    /// Number of this run of the identity in the network.
    pub(super) starts: u64,
    pub(super) written: Option<Instant>,
    /// True once the record is on disk, or a controller has admitted the node or lets it wait. A refused
    /// request leaves nothing.
    pub(super) is_wanted: bool,
    /// True if the record on disk lacks something.
    pub(super) is_stale: bool,
    /// True if it lacks revocations that no write was tried for.
    lacks_revocations: bool,
    /// True if the last write has failed.
    pub(super) has_failed: bool,
    /// True once a controller has told its newest revocations.
    is_up_to_date: bool,
    /// True after the last write.
    pub(super) is_closed: bool,
}

impl Kept {
    /// Begins with a record that is to be written, unless the node is not admitted yet.
    pub(super) fn new(
        network: JoinedNetwork,
        record: Option<MembershipRecord>,
        starts: u64,
        is_wanted: bool,
    ) -> Self {
        Self {
            network,
            record,
            starts,
            written: None,
            is_wanted,
            is_stale: true,
            lacks_revocations: false,
            has_failed: false,
            is_up_to_date: false,
            is_closed: false,
        }
    }

    /// Brings the record up to date with the overlay. Returns true if the node has credentials.
    pub(super) fn update(&mut self, node: &Inner) -> bool {
        node.driver.datapath.note_used(self.network.index);
        let read = node.driver.datapath.membership(self.network.index, |known| {
            let credentials = known.credentials().cloned();
            (
                credentials,
                known.controllers().to_vec(),
                known.heads().cloned().collect(),
                (
                    known.other_revocations(),
                    known.used().cloned().collect(),
                    known.all_rules().cloned().collect(),
                ),
                (known.signed_time(), known.clock_offset(), known.spare().cloned()),
                known.keys().cloned(),
                known.is_up_to_date(),
            )
        });
        let Some((credentials, controllers, revocations, others, times, keys, is_up_to_date)) = read else {
            return false;
        };
        self.is_up_to_date = is_up_to_date;
        let (has_credentials, (signed_time, clock_offset, spare)) = (credentials.is_some(), times);
        let (others, used, rules) = others;
        let first = keys.as_ref().map(|keys| *keys.first());
        if let Some(record) = self.record.take().or_else(|| Some(self.new_record(first?))) {
            let credentials = credentials.or_else(|| record.credentials.clone());
            let successions = keys.map(|keys| keys.successions().to_vec());
            self.record = Some(MembershipRecord {
                successions: successions.unwrap_or_else(|| record.successions.clone()),
                credentials,
                controllers,
                revocations,
                others,
                rules,
                used,
                signed_time,
                clock_offset,
                spare,
                ..record
            });
        }
        has_credentials
    }

    pub(super) fn local_name(&self) -> Option<String> {
        self.record.as_ref()?.name.clone()
    }

    pub(super) fn new_record(&self, key: NetworkKey) -> MembershipRecord {
        MembershipRecord { starts: self.starts, ..MembershipRecord::new(self.network.id, key) }
    }

    /// Makes the next write due at once.
    pub(super) fn hurry(&mut self) {
        (self.is_stale, self.written) = (true, None);
    }

    /// Notes that the overlay has newer revocations, or that a controller has confirmed them.
    pub(super) fn note_revocations(&mut self) {
        (self.is_stale, self.lacks_revocations) = (true, true);
        // Who joins waits for the first ones.
        if !self.is_up_to_date {
            self.written = None;
        }
    }

    /// Returns true once the newest revocations of a controller are kept, as far as this node keeps anything.
    pub(super) fn has_kept_revocations(&self, node: &Inner) -> bool {
        self.is_up_to_date && (node.state.is_none() || !self.is_stale)
    }

    /// Returns the time until a write of revocations is due, if they lack on disk.
    pub(super) fn revocations_due_in(&self) -> Option<Duration> {
        let since = self.written.map_or(Duration::MAX, |at| at.elapsed());
        (self.lacks_revocations && !self.is_closed).then(|| REVOCATIONS_WRITE_INTERVAL.saturating_sub(since))
    }

    pub(super) fn write_if_due(&mut self, node: &Inner) {
        let pause = if self.lacks_revocations { REVOCATIONS_WRITE_INTERVAL } else { WRITE_INTERVAL };
        let is_soon = self.written.is_some_and(|at| at.elapsed() < pause);
        if !self.is_stale || is_soon || self.is_closed {
            return;
        }
        // Once only, because a full disk would be written to again and again.
        self.lacks_revocations = false;
        self.is_wanted |= self.update(node);
        let (Some(state), Some(record), true) = (&node.state, &self.record, self.is_wanted) else { return };
        self.written = Some(Instant::now());
        let kept = state.keep_membership(record);
        self.has_failed = kept.is_err();
        match kept {
            Ok(()) => self.is_stale = false,
            Err(error) => tracing::warn!(%error, "a managed network is not kept for the next start"),
        }
    }
}
